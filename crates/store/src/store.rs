//! Opening a store, and the parts of it that writing, reading and collecting share.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;

use crate::dir::Dir;
use crate::error::{CollectError, FileError, OpenError, ReadError};
use crate::keys::{MasterKey, ScopeKeys};
use crate::manifest::{self, Body, MANIFEST_BYTES_MAX, ManifestError};
use crate::names::{Scope, SnapshotId};
use crate::reader::Reader;
use crate::{WriteError, Writer};

const FORMAT_FILE: &str = "format";
const FORMAT: &str = "rekindle snapshot store 1\n";
const GATE_FILE: &str = "gate";

/// A store of snapshots in a local directory. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    root: Dir,
    pub manifests: Dir,
    pub chunks: Dir,
    pub writers: Dir,
    master: MasterKey,
}

/// The gate, held until dropped.
pub(crate) struct Gate(OwnedFd);

impl Drop for Gate {
    fn drop(&mut self) {
        // Closing would do, were it not for a child forked meanwhile, whose copy of the descriptor would keep the
        // lock. Unlocking ends it for all copies; it fails only where closing does as well.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Store {
    /// Opens the store in `dir` with the master key in `key_dir`, and makes both (mode 0700, the key 0600) at
    /// the first start. Removes what writers of an earlier life left half-made.
    ///
    /// # Errors
    ///
    /// The directories cannot be used, `dir` holds another format, or the key is missing, damaged or readable
    /// by others.
    pub fn open(dir: &Path, key_dir: &Path) -> Result<Self, OpenError> {
        let root = Dir::make(dir)?;
        check_format(&root)?;
        let manifests = root.dir("manifests")?;
        let master = MasterKey::open(key_dir, dir, manifests.names()?.is_empty())?;
        let (chunks, writers) = (root.dir("chunks")?, root.dir("writers")?);
        let store = Self { inner: Arc::new(Inner { root, manifests, chunks, writers, master }) };
        // When the gate is held, another process is at work, and will collect when it needs to.
        if let Some(_gate) = store.try_gate()? {
            store.remove_dead_writers()?;
        }
        Ok(store)
    }

    /// Starts writing a snapshot. It exists once [`Writer::commit`] has returned; a writer that is dropped
    /// before, or whose process dies, leaves nothing but files that the next [`Store::open`] or
    /// [`Store::collect`] removes.
    ///
    /// # Errors
    ///
    /// There is a snapshot of that name, or the directory cannot be written.
    pub fn create(&self, snapshot: &SnapshotId, scope: &Scope) -> Result<Writer, WriteError> {
        Writer::new(self.clone(), snapshot.clone(), scope.clone())
    }

    /// Opens a snapshot for reading: reads and authenticates its manifest. Chunks are authenticated as they
    /// are read.
    ///
    /// # Errors
    ///
    /// There is no such snapshot, or its manifest is unusable.
    pub fn read(&self, snapshot: &SnapshotId) -> Result<Reader, ReadError> {
        let file = |source| ReadError::File { snapshot: snapshot.clone(), source };
        match self.load(snapshot).map_err(file)? {
            None => Err(ReadError::NotFound { snapshot: snapshot.clone() }),
            Some(Err(source)) => Err(ReadError::Manifest { snapshot: snapshot.clone(), source }),
            Some(Ok((keys, body))) => Reader::new(self.clone(), snapshot.clone(), keys, body),
        }
    }

    /// The snapshots that exist, sorted by name. Their manifests are not opened.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotId>, CollectError> {
        let names = self.inner.manifests.names()?;
        let mut snapshots: Vec<SnapshotId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        snapshots.sort();
        Ok(snapshots)
    }

    pub(crate) fn keys(&self, scope: &Scope) -> ScopeKeys {
        self.inner.master.scope(scope)
    }

    /// Reads and opens a manifest. `None` when there is no such snapshot.
    #[expect(clippy::type_complexity, reason = "three outcomes, read apart in both places that call this")]
    pub(crate) fn load(
        &self,
        snapshot: &SnapshotId,
    ) -> Result<Option<Result<(ScopeKeys, Body), ManifestError>>, FileError> {
        let mut bytes = Vec::new();
        if self.inner.manifests.read(snapshot.as_str(), MANIFEST_BYTES_MAX, &mut bytes)?.is_none() {
            return Ok(None);
        }
        let opened = manifest::decode(&bytes).and_then(|sealed| {
            let keys = self.keys(&sealed.scope(snapshot)?);
            let body = sealed.open(&keys)?;
            Ok((keys, body))
        });
        Ok(Some(opened))
    }

    /// Waits until nobody collects; until the gate is dropped nobody does.
    pub(crate) fn shared_gate(&self) -> Result<Gate, FileError> {
        self.wait_at_gate(FlockOperation::LockShared)
    }

    /// Waits until nobody commits or collects; until the gate is dropped nobody does.
    pub(crate) fn exclusive_gate(&self) -> Result<Gate, FileError> {
        self.wait_at_gate(FlockOperation::LockExclusive)
    }

    fn try_gate(&self) -> Result<Option<Gate>, FileError> {
        Ok(self.inner.root.lock_file(GATE_FILE, FlockOperation::NonBlockingLockExclusive)?.map(Gate))
    }

    fn wait_at_gate(&self, operation: FlockOperation) -> Result<Gate, FileError> {
        let fd = self.inner.root.lock_file(GATE_FILE, operation)?;
        Ok(Gate(fd.expect("a lock that waits is had in the end")))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Store").field("path", &self.inner.root.path()).finish_non_exhaustive()
    }
}

/// Makes the directories of a new store, or finds those of an old one. The format file is written last, so
/// that a start that was cut short is done again.
fn check_format(root: &Dir) -> Result<(), OpenError> {
    let mut found = Vec::new();
    if root.read(FORMAT_FILE, 64, &mut found)?.is_none() {
        // Several processes may start at once: one makes the store, the others wait for it.
        let _gate = root.lock_file(GATE_FILE, FlockOperation::LockExclusive)?;
        if root.read(FORMAT_FILE, 64, &mut found)?.is_none() {
            return make(root);
        }
    }
    if found != FORMAT.as_bytes() {
        let found = String::from_utf8_lossy(&found).trim_end().to_owned();
        return Err(OpenError::Format { path: root.path().into(), found, expected: FORMAT.trim_end() });
    }
    Ok(())
}

fn make(root: &Dir) -> Result<(), OpenError> {
    root.make_dir("manifests")?;
    root.make_dir("writers")?;
    let chunks = root.make_dir("chunks")?;
    for first in 0..=u8::MAX {
        chunks.make_dir(&format!("{first:02x}"))?;
    }
    let temporary = format!("{FORMAT_FILE}.{}", uuid::Uuid::new_v4().simple());
    root.write_new_synced(&temporary, FORMAT.as_bytes())?;
    chunks.sync()?;
    root.sync()?;
    root.rename(&temporary, root, FORMAT_FILE)?;
    Ok(root.sync()?)
}
