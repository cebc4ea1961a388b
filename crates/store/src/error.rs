//! The errors of the store: one enum per operation, each naming its snapshot and, where there is one, its
//! chunk.
//!
//! What is wrong *inside* a manifest or a chunk is said by [`crate::manifest::ManifestError`] and
//! [`crate::chunk::ChunkError`], beside the parsers that find it.

use std::io;
use std::path::PathBuf;

use crate::chunk::{ChunkError, ChunkId};
use crate::limits::{HEAD_BYTES_MAX, IMAGE_BYTES_MAX, STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use crate::manifest::ManifestError;
use crate::names::SnapshotId;

/// A system call that failed on a file of the store.
#[derive(Debug, thiserror::Error)]
#[error("{call} {}: {source}", path.display())]
pub struct FileError {
    /// The call, or the step, such as `write`.
    pub call: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl FileError {
    /// Whether the disk, or the user's share of it, is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file could not be read or made.
    #[error("open the snapshot store: {0}")]
    File(#[from] FileError),
    /// The directory holds something else, or a store of a later version.
    #[error(
        "open the snapshot store {}: its format is {found:?}, and this version reads {expected:?}; use the \
         version that made it, or another directory", path.display()
    )]
    Format {
        /// The store.
        path: PathBuf,
        /// The first bytes of its format file.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The store has snapshots but the key that sealed them is gone.
    #[error(
        "open the snapshot store: its key {} is missing although there are snapshots; put the key back, or \
         delete {} to start without snapshots", key.display(), store.display()
    )]
    KeyMissing {
        /// Where the key should be.
        key: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// The key can be read by other users.
    #[error(
        "open the snapshot store: others may read its key {} (mode {mode:o}); run chmod 600 on it, and \
         consider it known", key.display()
    )]
    KeyExposed {
        /// The key.
        key: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file is not one of ours, or is damaged.
    #[error("open the snapshot store: {} is not a key, or is damaged; put the right file back", key.display())]
    KeyMalformed {
        /// The key.
        key: PathBuf,
    },
}

/// Why a snapshot could not be written. Nothing of it remains after any of these.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is a snapshot of that name.
    #[error("store snapshot {snapshot}: there is one of that name; choose another name")]
    Exists {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The disk is full.
    #[error("store snapshot {snapshot}: the disk is full ({source}); free some space and publish again")]
    DiskFull {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Where it showed.
        source: FileError,
    },
    /// A file could not be written.
    #[error("store snapshot {snapshot}: {source}")]
    File {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The file and the cause.
        source: FileError,
    },
    /// Something is beyond its limit.
    #[error("store snapshot {snapshot}: {limit}")]
    Limit {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What it is.
        limit: LimitError,
    },
    /// No thread could be started.
    #[error("store snapshot {snapshot}: start a thread: {source}; raise the limit on processes")]
    Thread {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The cause.
        source: io::Error,
    },
    /// A chunk could not be compressed.
    #[error("store snapshot {snapshot}: compress a chunk: {source}")]
    Compress {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The cause, from zstd.
        source: io::Error,
    },
    /// An earlier call on this writer failed and said why.
    #[error("store snapshot {snapshot}: an earlier write failed; make a new writer")]
    Failed {
        /// The snapshot.
        snapshot: SnapshotId,
    },
}

impl WriteError {
    pub(crate) fn file(snapshot: &SnapshotId, source: FileError) -> Self {
        let snapshot = snapshot.clone();
        match source.is_disk_full() {
            true => Self::DiskFull { snapshot, source },
            false => Self::File { snapshot, source },
        }
    }
}

/// What of a snapshot was beyond its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The head.
    #[error("its head has {bytes} bytes, more than {HEAD_BYTES_MAX}")]
    Head {
        /// Its size.
        bytes: usize,
    },
    /// The streams together.
    #[error("its content is larger than {IMAGE_BYTES_MAX} bytes")]
    Image,
    /// The number of streams.
    #[error("it has more than {STREAMS_MAX} streams")]
    Streams,
    /// A stream's name.
    #[error(
        "stream name {name:?} is not 1 to {STREAM_NAME_BYTES_MAX} lower-case letters, digits, '-' and '_'"
    )]
    StreamName {
        /// The beginning of what was given.
        name: String,
    },
}

/// Why a snapshot could not be read. Except for `NotFound`, `NoStream` and `OutOfRange` the snapshot is
/// unusable: serve the request without it.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such snapshot.
    #[error("read snapshot {snapshot}: there is no such snapshot")]
    NotFound {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The manifest is not usable.
    #[error("read snapshot {snapshot}: {source}; publish the version again")]
    Manifest {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A chunk is not usable.
    #[error(
        "read snapshot {snapshot}: chunk {chunk} (number {index} of {stream}) {source}; publish the version \
         again"
    )]
    Chunk {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The stream.
        stream: String,
        /// The chunk's place in the stream.
        index: usize,
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        source: Box<ChunkError>,
    },
    /// A file could not be read.
    #[error("read snapshot {snapshot}: {source}")]
    File {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The file and the cause.
        source: FileError,
    },
    /// The snapshot has no such stream.
    #[error("read snapshot {snapshot}: it has no stream {stream:?}")]
    NoStream {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The stream.
        stream: String,
    },
    /// The range ends after the stream.
    #[error("read snapshot {snapshot}: {len} bytes at {offset} end after {stream}, which has {bytes}")]
    OutOfRange {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The stream.
        stream: String,
        /// Where the range starts.
        offset: u64,
        /// Its length.
        len: usize,
        /// Length of the stream.
        bytes: u64,
    },
    /// The decompressor could not be made.
    #[error("read snapshot {snapshot}: make a decompressor: {source}")]
    Decompressor {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The cause, from zstd.
        source: io::Error,
    },
}

/// Why deleting, collecting, listing or counting failed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file could not be read or removed.
    #[error("collect snapshots: {0}")]
    File(#[from] FileError),
    /// Which chunks a snapshot needs cannot be told, so nothing was removed: its chunks might be needed once
    /// its manifest or its key has been put back.
    #[error(
        "collect snapshots: snapshot {snapshot} cannot be opened: {source}; nothing was removed: delete that \
         snapshot, or put its manifest or key back"
    )]
    Unreadable {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with its manifest.
        source: ManifestError,
    },
}
