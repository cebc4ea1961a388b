//! Removing: snapshots, the chunks that nothing needs any more, and what dead writers left.
//!
//! Garbage is found by marking: the chunks that some manifest lists stay, the others go, at once. Usual
//! collectors need a grace period here, because a writer that has found a chunk to share has not yet said so
//! in a manifest. Ours does not, because such a writer has already made a link of its own to the chunk
//! (`writers/<uuid>/<id>`): removing the name under `chunks/` takes nothing from it, and committing puts the
//! name back. The gate makes "put all names in place, then the manifest" and "mark, then sweep" exclude each
//! other; that is the fence. A dead writer is told from a living one by the lock on its directory, which the
//! kernel drops with the process, not by age.
//!
//! Order: the manifest is unlinked, **the directory is synced, then** chunks are removed, so that after a
//! power cut no manifest is back whose chunks are gone.
//!
//! When one manifest cannot be opened, it is not known which chunks it needs, and perhaps only a key is
//! missing: nothing is swept, and the error says which snapshot to delete or to mend.

use std::collections::HashSet;

use rustix::fs::FlockOperation;

use crate::chunk::ChunkId;
use crate::error::{CollectError, FileError};
use crate::names::SnapshotId;
use crate::store::Store;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many snapshots.
    pub snapshots: u64,
    /// How many chunks.
    pub chunks: u64,
    /// Size of those chunks in bytes. Disk that a living writer still holds is freed when it ends.
    pub bytes: u64,
}

/// What a store takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many snapshots there are.
    pub snapshots: u64,
    /// Size of their manifests in bytes.
    pub manifest_bytes: u64,
    /// How many chunks are stored.
    pub chunks: u64,
    /// Size of those chunks in bytes.
    pub chunk_bytes: u64,
}

impl Store {
    /// Deletes a snapshot, durably, and frees the disk that only it used. An unknown name is no error.
    /// Reading it at the same time ends in an error that says that a chunk is missing.
    ///
    /// # Errors
    ///
    /// A file cannot be removed. When only *another* snapshot keeps the disk from being freed, that is logged
    /// and this is a success.
    pub fn delete(&self, snapshot: &SnapshotId) -> Result<Collected, CollectError> {
        match self.inner.manifests.remove(snapshot.as_str())? {
            true => self.collect_after(1),
            false => Ok(Collected::default()),
        }
    }

    /// Deletes every snapshot but these, and collects. For the start of a server: a snapshot that another
    /// process commits meanwhile and that is not among these may be deleted too.
    ///
    /// # Errors
    ///
    /// As [`Store::delete`].
    pub fn retain(&self, snapshots: &[SnapshotId]) -> Result<Collected, CollectError> {
        let keep: HashSet<&SnapshotId> = snapshots.iter().collect();
        let mut removed = 0;
        for snapshot in self.list()?.iter().filter(|snapshot| !keep.contains(snapshot)) {
            removed += u64::from(self.inner.manifests.remove(snapshot.as_str())?);
        }
        self.collect_after(removed)
    }

    /// Removes the chunks that no snapshot needs and what dead writers left. Waits for writers that are
    /// committing, not for those that are writing. Safe at any time, in any number of processes.
    ///
    /// # Errors
    ///
    /// A file cannot be read or removed, or a manifest cannot be opened.
    pub fn collect(&self) -> Result<Collected, CollectError> {
        let _gate = self.exclusive_gate()?;
        self.remove_dead_writers()?;
        self.inner.manifests.sync()?;
        let needed = self.needed_chunks()?;
        let mut collected = Collected::default();
        self.each_chunk(|id| {
            if !needed.contains(&id) {
                let path = id.path();
                collected.bytes += self.inner.chunks.size(&path)?.unwrap_or(0);
                collected.chunks += u64::from(self.inner.chunks.remove(&path)?);
            }
            Ok(())
        })?;
        Ok(collected)
    }

    /// Counts what the store takes. What changes meanwhile is counted or not.
    ///
    /// # Errors
    ///
    /// A directory cannot be read.
    pub fn usage(&self) -> Result<Usage, CollectError> {
        let mut usage = Usage::default();
        for snapshot in self.list()? {
            if let Some(bytes) = self.inner.manifests.size(snapshot.as_str())? {
                usage.snapshots += 1;
                usage.manifest_bytes += bytes;
            }
        }
        self.each_chunk(|id| {
            if let Some(bytes) = self.inner.chunks.size(&id.path())? {
                usage.chunks += 1;
                usage.chunk_bytes += bytes;
            }
            Ok(())
        })?;
        Ok(usage)
    }

    /// Removes the directories of writers that no longer live. The gate must be held: a writer makes its
    /// directory and locks it with the gate held shared, so one that is not locked is dead.
    pub(crate) fn remove_dead_writers(&self) -> Result<(), FileError> {
        for name in self.inner.writers.names()? {
            let dir = match self.inner.writers.dir(&name) {
                Ok(dir) => dir,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            if dir.lock(FlockOperation::NonBlockingLockExclusive)? {
                self.inner.writers.remove_dir(&name)?;
            }
        }
        Ok(())
    }

    fn collect_after(&self, snapshots: u64) -> Result<Collected, CollectError> {
        match self.collect() {
            Ok(collected) => Ok(Collected { snapshots, ..collected }),
            Err(error @ CollectError::Unreadable { .. }) => {
                tracing::warn!("{error}");
                Ok(Collected { snapshots, ..Collected::default() })
            }
            Err(error) => Err(error),
        }
    }

    fn needed_chunks(&self) -> Result<HashSet<ChunkId>, CollectError> {
        let mut needed = HashSet::new();
        for snapshot in self.list()? {
            match self.load(&snapshot)? {
                Some(Ok((_, body))) => needed.extend(body.chunks()),
                Some(Err(source)) => return Err(CollectError::Unreadable { snapshot, source }),
                // Deleted since it was listed.
                None => {}
            }
        }
        Ok(needed)
    }

    fn each_chunk(&self, mut visit: impl FnMut(ChunkId) -> Result<(), FileError>) -> Result<(), FileError> {
        for dir in self.inner.chunks.names()? {
            for name in self.inner.chunks.dir(&dir)?.names()? {
                if let Some(id) = ChunkId::from_path(&dir, &name) {
                    visit(id)?;
                }
            }
        }
        Ok(())
    }
}
