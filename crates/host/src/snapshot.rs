//! Writing a checkpoint to the store and reading it back.
//!
//! A snapshot's head holds the engine's image and what the host role needs to make its template again after a restart:
//! the root and the lease. Pages and writable files are the streams beside it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use engine::checkpoint::{CheckpointError, Sink, Subject, checkpoint};
use engine::image::{self, Image};
use prost::Message;
use store::limits::CHUNK_BYTES;
use store::{ReadError, Reader, Scope, Store, WriteError, Writer};

use crate::protocol::{Failure, FailureKind, Lease, RootSpec, SnapshotFacts, SnapshotId};

const PAGES: &str = "pages";
const FILES: &str = "files";
/// Threads that decode chunks when a template is made.
const READERS: usize = 2;

/// What the head holds.
#[derive(Clone, PartialEq, Message)]
struct Head {
    /// The engine's image.
    #[prost(bytes = "vec", tag = "1")]
    image: Vec<u8>,
    /// The root, as JSON.
    #[prost(string, tag = "2")]
    root: String,
    /// The lease, as JSON.
    #[prost(string, tag = "3")]
    lease: String,
}

/// A snapshot opened for reading.
pub struct Opened {
    /// The process image.
    pub image: Image,
    reader: Reader,
}

/// The root and the lease that a snapshot was made with.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The root.
    pub root: RootSpec,
    /// The lease.
    pub lease: Lease,
}

/// Checkpoints a process into the store. Runs in a worker.
///
/// # Errors
/// [`Failure`] with what the caller may be told; the store has nothing of the snapshot then.
pub fn write(
    store: &Store,
    snapshot: &SnapshotId,
    subject: &Subject,
    origin: &Origin,
) -> Result<SnapshotFacts, Failure> {
    let writer = store.create(&name(snapshot)?, &Scope::local()).map_err(write_failure)?;
    let mut sink = StoreSink { writer, failure: None };
    let start = Instant::now();
    let done = match (checkpoint(subject, &mut sink), sink.failure) {
        (Err(CheckpointError::Sink(_)), Some(failure)) => return Err(write_failure(failure)),
        (done, _) => done.map_err(checkpoint_failure)?,
    };
    let checkpoint_us = start.elapsed().as_micros() as u64;
    let json = |value: Result<String, serde_json::Error>| value.map_err(|error| internal(&error));
    let head = Head {
        image: image::encode(&done.image),
        root: json(serde_json::to_string(&origin.root))?,
        lease: json(serde_json::to_string(&origin.lease))?,
    };
    let stored = sink.writer.commit(head.encode_to_vec()).map_err(write_failure)?;
    Ok(SnapshotFacts {
        image_bytes: stored.image_bytes,
        stored_bytes: stored.stored_bytes_new,
        checkpoint_us,
        warnings: done.warnings,
    })
}

/// The root and lease of a stored snapshot.
///
/// # Errors
/// [`Failure`] when the snapshot is missing or damaged.
pub fn origin(store: &Store, snapshot: &SnapshotId) -> Result<Origin, Failure> {
    let reader = store.read(&name(snapshot)?).map_err(|error| read_failure(&error))?;
    let head = Head::decode(reader.head()).map_err(|error| unusable(&error))?;
    Ok(Origin {
        root: serde_json::from_str(&head.root).map_err(|error| unusable(&error))?,
        lease: serde_json::from_str(&head.lease).map_err(|error| unusable(&error))?,
    })
}

/// Opens a snapshot.
///
/// # Errors
/// [`Failure`] when the snapshot is missing or damaged.
pub fn open(store: &Store, snapshot: &SnapshotId) -> Result<Opened, Failure> {
    let reader = store.read(&name(snapshot)?).map_err(|error| read_failure(&error))?;
    let head = Head::decode(reader.head()).map_err(|error| unusable(&error))?;
    let image = image::decode(&head.image).map_err(|error| unusable(&error))?;
    Ok(Opened { image, reader })
}

impl Opened {
    /// Passes every byte of the page stream on, in pieces and in no fixed order.
    ///
    /// # Errors
    /// Why, in words; nothing of the pages is to be used then.
    pub fn pages(&self, visit: &engine::template::Fill<'_>) -> Result<(), String> {
        let visited = Mutex::new(BTreeSet::new());
        let note = |offset, bytes: &[u8]| {
            visited.lock().unwrap_or_else(PoisonError::into_inner).insert(offset);
            visit(offset, bytes).map_err(PageError::Visit)
        };
        self.reader.for_each_chunk(PAGES, READERS, note).map_err(|error: PageError| error.to_string())?;
        let visited = visited.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.zeros(&visited, visit).map_err(|error| PageError::Visit(error).to_string())
    }

    /// The store does not pass on chunks of zeros, but zeros over a file's content are content.
    fn zeros(&self, visited: &BTreeSet<u64>, visit: &engine::template::Fill<'_>) -> io::Result<()> {
        let end = self.reader.stream_bytes(PAGES);
        let zeros = vec![0; CHUNK_BYTES];
        for offset in (0..end).step_by(CHUNK_BYTES).filter(|offset| !visited.contains(offset)) {
            visit(offset, &zeros[..(end - offset).min(CHUNK_BYTES as u64) as usize])?;
        }
        Ok(())
    }

    /// Reads a piece of the file stream.
    ///
    /// # Errors
    /// As the store.
    pub fn files(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reader.read_at(FILES, offset, into).map_err(io::Error::other)
    }
}

#[derive(Debug, thiserror::Error)]
enum PageError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot write a page into the template: {0}")]
    Visit(io::Error),
}

struct StoreSink {
    writer: Writer,
    /// Why the store took no more: what the caller is to be told.
    failure: Option<WriteError>,
}

impl Sink for StoreSink {
    fn pages(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append(PAGES, bytes)
    }

    fn files(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.append(FILES, bytes)
    }
}

impl StoreSink {
    fn append(&mut self, stream: &str, bytes: &[u8]) -> io::Result<()> {
        let written = self.writer.stream(stream).and_then(|mut stream| stream.write(bytes));
        written.map_err(|failure| {
            self.failure = Some(failure);
            io::ErrorKind::Other.into()
        })
    }
}

/// The store's name of a snapshot.
///
/// # Errors
/// [`Failure`] for a name that is none.
pub fn name(snapshot: &SnapshotId) -> Result<store::SnapshotId, Failure> {
    snapshot.0.parse().map_err(|error| internal(&error))
}

fn checkpoint_failure(error: CheckpointError) -> Failure {
    let kind = match &error {
        CheckpointError::Unsupported { .. } => FailureKind::Unsupported,
        CheckpointError::Sink(_) | CheckpointError::Call { .. } => FailureKind::Internal,
    };
    Failure { kind, message: error.to_string() }
}

fn write_failure(error: WriteError) -> Failure {
    let kind = match error {
        WriteError::DiskFull { .. } => FailureKind::Exhausted,
        _ => FailureKind::Internal,
    };
    Failure { kind, message: error.to_string() }
}

fn read_failure(error: &ReadError) -> Failure {
    let kind = match error {
        ReadError::NotFound { .. } => FailureKind::NotFound,
        _ => FailureKind::Unusable,
    };
    Failure { kind, message: error.to_string() }
}

fn unusable(error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Unusable, message: format!("the snapshot's head is damaged: {error}") }
}

/// A failure that nobody but the log can do anything about.
pub fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Internal, message: error.to_string() }
}
