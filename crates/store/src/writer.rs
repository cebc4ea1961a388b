//! Writing a snapshot.
//!
//! The order, and why:
//!
//! 1. Chunks are written into (or, when they are stored already, linked into) the writer's own locked
//!    directory. Nobody else sees them; a kill here leaves a directory without a lock, which the next one to
//!    look removes.
//! 2. The manifest is written there and synced.
//! 3. With the gate held shared, so that nobody collects: every chunk is renamed into its place (a rename
//!    onto another link of the same file does nothing; onto a damaged chunk it repairs it; where a collector
//!    has removed the name, it puts it back).
//! 4. One `syncfs` makes all of it durable: our chunks, the shared chunks that another writer may have put
//!    there a moment ago, and the directories. One call instead of an `fsync` for each of thousands of files;
//!    the price is that it also waits for what other programs have just written to the same file system.
//! 5. The manifest is linked to its name. **This is the commit.** `link` fails when the name is taken, so of
//!    two writers of one name one wins.
//! 6. The directory of manifests is synced, and only then does [`Writer::commit`] return.
//!
//! A full disk shows at 1, 2, 3 or 4, all of which leave no snapshot, and what was written is removed.

use std::sync::Arc;

use rustix::fs::FlockOperation;

use crate::chunk::ChunkId;
use crate::dir::Dir;
use crate::error::{FileError, LimitError, WriteError};
use crate::keys::ScopeKeys;
use crate::limits::{CHUNK_BYTES, HEAD_BYTES_MAX, IMAGE_BYTES_MAX, STREAMS_MAX};
use crate::manifest::{self, Body, Stream, check_stream_name};
use crate::names::{Scope, SnapshotId};
use crate::pool::{Pool, PoolError, Tally};
use crate::store::Store;

const MANIFEST_FILE: &str = "manifest";

/// A snapshot being written. Dropping it takes back everything.
pub struct Writer {
    store: Store,
    snapshot: SnapshotId,
    scope: Scope,
    keys: ScopeKeys,
    streams: Vec<OpenStream>,
    // Before the directory: its threads write there and must have ended when it is removed.
    pool: Option<Pool>,
    place: WriterDir,
}

/// What a finished snapshot takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Size of its streams and its head in bytes.
    pub image_bytes: u64,
    /// Bytes on disk that it added: new chunks and its manifest.
    pub stored_bytes_new: u64,
    /// Distinct chunks that it added.
    pub chunks_new: u64,
    /// Distinct chunks that were there already.
    pub chunks_shared: u64,
}

/// One stream of a [`Writer`].
pub struct StreamWriter<'a> {
    writer: &'a mut Writer,
    index: usize,
}

struct OpenStream {
    name: String,
    bytes: u64,
    /// Ids of full chunks; those that the pool works on are filled in at the end.
    chunks: Vec<ChunkId>,
    /// The beginning of the next chunk.
    rest: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(store: Store, snapshot: SnapshotId, scope: Scope) -> Result<Self, WriteError> {
        let file = |source| WriteError::file(&snapshot, source);
        if store.inner.manifests.size(snapshot.as_str()).map_err(file)?.is_some() {
            return Err(WriteError::Exists { snapshot });
        }
        let keys = store.keys(&scope);
        let place = WriterDir::make(&store).map_err(file)?;
        let pool = Pool::start(store.clone(), keys.clone(), place.dir.clone());
        let pool = pool.map_err(|error| pool_failed(&snapshot, error))?;
        Ok(Self { store, snapshot, scope, keys, streams: Vec::new(), pool: Some(pool), place })
    }

    /// The stream of that name, made if there is none yet: 1 to 32 lower-case letters, digits, `-` and `_`;
    /// at most 8 streams. What is written goes to its end. Streams may be written in turns.
    ///
    /// # Errors
    ///
    /// The name, or the number of streams, is beyond a limit.
    pub fn stream(&mut self, name: &str) -> Result<StreamWriter<'_>, WriteError> {
        let known = self.streams.iter().position(|stream| stream.name == name);
        let index = match known {
            Some(index) => index,
            None => {
                check_stream_name(name).map_err(|limit| self.limit(limit))?;
                if self.streams.len() == STREAMS_MAX {
                    return Err(self.limit(LimitError::Streams));
                }
                let name = name.to_owned();
                self.streams.push(OpenStream { name, bytes: 0, chunks: Vec::new(), rest: Vec::new() });
                self.streams.len() - 1
            }
        };
        Ok(StreamWriter { writer: self, index })
    }

    /// Makes the snapshot exist, durably. After an error it does not exist and its disk is free again.
    ///
    /// # Errors
    ///
    /// The disk is full, a file could not be written, the head is too large, or another writer was first.
    pub fn commit(mut self, head: Vec<u8>) -> Result<Stored, WriteError> {
        if head.len() > HEAD_BYTES_MAX {
            return Err(self.limit(LimitError::Head { bytes: head.len() }));
        }
        for index in 0..self.streams.len() {
            if !self.streams[index].rest.is_empty() {
                self.submit(index)?;
            }
        }
        let pool = self.pool.take().ok_or(WriteError::Failed { snapshot: self.snapshot.clone() })?;
        let tally = pool.finish().map_err(|error| pool_failed(&self.snapshot, error))?;
        let (body, chunks) = self.body(head, &tally);
        let image_bytes =
            body.head.len() as u64 + body.streams.iter().map(|stream| stream.bytes).sum::<u64>();
        let manifest = manifest::encode(&self.snapshot, &self.scope, &self.keys, body);
        let manifest = manifest.map_err(|limit| self.limit(limit))?;
        self.publish(&manifest, &chunks)?;
        Ok(Stored {
            image_bytes,
            stored_bytes_new: tally.bytes_new + manifest.len() as u64,
            chunks_new: tally.chunks_new,
            chunks_shared: tally.chunks_shared,
        })
    }

    fn body(&mut self, head: Vec<u8>, tally: &Tally) -> (Body, Vec<ChunkId>) {
        for &((stream, index), id) in &tally.ids {
            self.streams[stream].chunks[index] = id;
        }
        let close =
            |stream: OpenStream| Stream { name: stream.name, bytes: stream.bytes, chunks: stream.chunks };
        let body = Body { head, streams: self.streams.drain(..).map(close).collect() };
        let mut chunks: Vec<ChunkId> = body.chunks().collect();
        chunks.sort_unstable();
        chunks.dedup();
        (body, chunks)
    }

    /// Steps 2 to 6 of the header.
    fn publish(self, manifest: &[u8], chunks: &[ChunkId]) -> Result<(), WriteError> {
        let Self { store, snapshot, place, .. } = self;
        let published = publish_files(&store, &snapshot, &place.dir, manifest, chunks);
        drop(place);
        let failure = match published {
            Ok(true) => return Ok(()),
            Ok(false) => WriteError::Exists { snapshot },
            Err(source) => WriteError::file(&snapshot, source),
        };
        // Chunks may have their places already; without a manifest they only take up disk.
        if let Err(error) = store.collect() {
            tracing::warn!("after a failed write: {error}");
        }
        Err(failure)
    }

    fn append(&mut self, index: usize, mut bytes: &[u8]) -> Result<(), WriteError> {
        self.grow(index, bytes.len() as u64)?;
        while !bytes.is_empty() {
            let rest = &self.streams[index].rest;
            if rest.is_empty() && bytes.len() >= CHUNK_BYTES && is_zero(&bytes[..CHUNK_BYTES]) {
                self.streams[index].chunks.push(ChunkId::ZEROS);
                bytes = &bytes[CHUNK_BYTES..];
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - rest.len()));
            self.buffer(index)?.extend_from_slice(now);
            bytes = later;
            self.submit_if_full(index)?;
        }
        Ok(())
    }

    fn append_zeros(&mut self, index: usize, mut count: u64) -> Result<(), WriteError> {
        self.grow(index, count)?;
        while count > 0 {
            let filled = self.streams[index].rest.len();
            if filled == 0 && count >= CHUNK_BYTES as u64 {
                let whole = count / CHUNK_BYTES as u64;
                let stream = &mut self.streams[index];
                stream.chunks.resize(stream.chunks.len() + whole as usize, ChunkId::ZEROS);
                count -= whole * CHUNK_BYTES as u64;
                continue;
            }
            let now = count.min((CHUNK_BYTES - filled) as u64);
            self.buffer(index)?.resize(filled + now as usize, 0);
            count -= now;
            self.submit_if_full(index)?;
        }
        Ok(())
    }

    fn grow(&mut self, index: usize, bytes: u64) -> Result<(), WriteError> {
        let have: u64 = self.streams.iter().map(|stream| stream.bytes).sum();
        if bytes > IMAGE_BYTES_MAX - have {
            return Err(self.limit(LimitError::Image));
        }
        self.streams[index].bytes += bytes;
        Ok(())
    }

    fn buffer(&mut self, index: usize) -> Result<&mut Vec<u8>, WriteError> {
        let pool = self.pool.as_ref().ok_or(WriteError::Failed { snapshot: self.snapshot.clone() })?;
        let rest = &mut self.streams[index].rest;
        if rest.capacity() == 0 {
            *rest = pool.buffer();
        }
        Ok(rest)
    }

    fn submit_if_full(&mut self, index: usize) -> Result<(), WriteError> {
        match self.streams[index].rest.len() == CHUNK_BYTES {
            true => self.submit(index),
            false => Ok(()),
        }
    }

    fn submit(&mut self, index: usize) -> Result<(), WriteError> {
        let stream = &mut self.streams[index];
        let place = (index, stream.chunks.len());
        stream.chunks.push(ChunkId::ZEROS);
        let clear = std::mem::take(&mut stream.rest);
        if is_zero(&clear) {
            stream.rest = clear;
            stream.rest.clear();
            return Ok(());
        }
        let pool = self.pool.as_ref().ok_or(WriteError::Failed { snapshot: self.snapshot.clone() })?;
        if let Err(error) = pool.submit(place, clear) {
            // The first error is the true one; all later calls say that there was one.
            self.pool = None;
            return Err(pool_failed(&self.snapshot, error));
        }
        Ok(())
    }

    fn limit(&self, limit: LimitError) -> WriteError {
        WriteError::Limit { snapshot: self.snapshot.clone(), limit }
    }
}

impl StreamWriter<'_> {
    /// Appends bytes. They are durable when [`Writer::commit`] returns.
    ///
    /// # Errors
    ///
    /// This or an earlier chunk could not be stored, or the content is beyond its limit. The writer is then
    /// of no more use.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.writer.append(self.index, bytes)
    }

    /// Appends zeros, without making them in memory where they fill whole chunks.
    ///
    /// # Errors
    ///
    /// As [`StreamWriter::write`].
    pub fn write_zeros(&mut self, count: u64) -> Result<(), WriteError> {
        self.writer.append_zeros(self.index, count)
    }

    /// Bytes written so far: the offset of what is written next.
    pub fn position(&self) -> u64 {
        self.writer.streams[self.index].bytes
    }
}

/// The writer's own directory, locked while it lives and removed at its end.
struct WriterDir {
    store: Store,
    name: String,
    dir: Arc<Dir>,
}

impl WriterDir {
    fn make(store: &Store) -> Result<Self, FileError> {
        // With the gate held, nobody takes a directory that is not yet locked for one of a dead writer.
        let _gate = store.shared_gate()?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let dir = Arc::new(store.inner.writers.make_dir(&name)?);
        let place = Self { store: store.clone(), name, dir };
        place.dir.lock(FlockOperation::LockExclusive)?;
        Ok(place)
    }
}

impl Drop for WriterDir {
    fn drop(&mut self) {
        if let Err(error) = self.store.inner.writers.remove_dir(&self.name) {
            tracing::warn!("remove what a writer left: {error}; the next start removes it");
        }
    }
}

/// Whether the snapshot is now there; `false` when another writer was first.
fn publish_files(
    store: &Store,
    snapshot: &SnapshotId,
    dir: &Dir,
    manifest: &[u8],
    chunks: &[ChunkId],
) -> Result<bool, FileError> {
    let inner = &store.inner;
    dir.write_new_synced(MANIFEST_FILE, manifest)?;
    let _gate = store.shared_gate()?;
    for id in chunks {
        dir.rename(&id.to_string(), &inner.chunks, &id.path())?;
    }
    dir.sync_file_system()?;
    if !dir.link(MANIFEST_FILE, &inner.manifests, snapshot.as_str())? {
        return Ok(false);
    }
    if let Err(error) = inner.manifests.sync() {
        // Whether the name would survive a power cut is not known; it was not promised, so it goes.
        inner.manifests.remove(snapshot.as_str())?;
        return Err(error);
    }
    Ok(true)
}

fn pool_failed(snapshot: &SnapshotId, error: PoolError) -> WriteError {
    let snapshot = snapshot.clone();
    match error {
        PoolError::File(source) => WriteError::file(&snapshot, source),
        PoolError::Compress(source) => WriteError::Compress { snapshot, source },
        PoolError::Thread(source) => WriteError::Thread { snapshot, source },
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Words of 128 bits, all of a block ORed before the test: the compiler makes vector instructions of it.
    bytes.chunks(4096).all(|block| {
        let (words, rest) = block.as_chunks::<16>();
        let ored = words.iter().fold(0u128, |all, word| all | u128::from_ne_bytes(*word));
        ored == 0 && rest.iter().all(|&byte| byte == 0)
    })
}
