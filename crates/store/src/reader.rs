//! Reading a snapshot: here and there ([`Reader::read_at`]) or as a whole ([`Reader::for_each_chunk`]).
//!
//! The manifest was opened and checked when the reader was made, so places and lengths are trusted here;
//! every chunk is authenticated each time it is read from the disk.
//!
//! Deliberately absent: a cache beyond the one chunk that a run of small reads hits again and again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::chunk::{ChunkError, ChunkId, Decoder, FILE_BYTES_MAX};
use crate::error::ReadError;
use crate::keys::ScopeKeys;
use crate::limits::{CHUNK_BYTES, THREADS_MAX};
use crate::manifest::{Body, Stream};
use crate::names::SnapshotId;
use crate::store::Store;

/// A snapshot open for reading. Can be shared by threads; those that call [`Reader::read_at`] take turns.
pub struct Reader {
    store: Store,
    snapshot: SnapshotId,
    keys: ScopeKeys,
    body: Body,
    at: Mutex<At>,
}

/// What [`Reader::read_at`] keeps between calls.
struct At {
    loader: Loader,
    /// The chunk that lies in `clear`. None before the first and after a failed read.
    held: Option<ChunkId>,
    clear: Vec<u8>,
}

struct Loader {
    decoder: Decoder,
    file: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(
        store: Store,
        snapshot: SnapshotId,
        keys: ScopeKeys,
        body: Body,
    ) -> Result<Self, ReadError> {
        let loader = Loader::new(&keys).map_err(|source| no_decompressor(&snapshot, source))?;
        let at = Mutex::new(At { loader, held: None, clear: Vec::new() });
        Ok(Self { store, snapshot, keys, body, at })
    }

    /// The head, as it was given to [`crate::Writer::commit`].
    pub fn head(&self) -> &[u8] {
        &self.body.head
    }

    /// The streams: name and length in bytes.
    pub fn streams(&self) -> impl Iterator<Item = (&str, u64)> {
        self.body.streams.iter().map(|stream| (stream.name.as_str(), stream.bytes))
    }

    /// Length of a stream in bytes; 0 when there is no such stream.
    pub fn stream_bytes(&self, stream: &str) -> u64 {
        self.body.stream(stream).map_or(0, |stream| stream.bytes)
    }

    /// Fills `into` with the stream's bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// There is no such stream, the range ends after it, or a chunk is unusable; `into` then holds anything.
    pub fn read_at(&self, stream: &str, offset: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let stream = self.stream(stream)?;
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > stream.bytes) {
            return Err(ReadError::OutOfRange {
                snapshot: self.snapshot.clone(),
                stream: stream.name.clone(),
                offset,
                len: into.len(),
                bytes: stream.bytes,
            });
        }
        let mut at = lock(&self.at);
        let mut index = (offset / CHUNK_BYTES as u64) as usize;
        let mut skip = (offset % CHUNK_BYTES as u64) as usize;
        let mut into = into;
        while !into.is_empty() {
            let bytes = stream.chunk_bytes(index) - skip;
            let (now, later) = into.split_at_mut(bytes.min(into.len()));
            self.read_chunk(&mut at, stream, index, skip, now)?;
            (into, index, skip) = (later, index + 1, 0);
        }
        Ok(())
    }

    /// Calls `visit` with the offset and the bytes of every chunk of the stream that is not all zeros, from
    /// up to `threads` threads (this one among them) and in no fixed order. With `threads` 1 no thread is
    /// started.
    ///
    /// # Errors
    ///
    /// The first error of `visit`, or a chunk that is unusable. No thread runs any more when this returns.
    pub fn for_each_chunk<E: From<ReadError> + Send>(
        &self,
        stream: &str,
        threads: usize,
        visit: impl Fn(u64, &[u8]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let stream = self.stream(stream)?;
        let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        let work = || {
            if let Err(error) = self.visit_chunks(stream, &next, &stop, &visit) {
                stop.store(true, Ordering::Relaxed);
                lock(&failure).get_or_insert(error);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads.min(THREADS_MAX).min(stream.chunks.len()) {
                // When no more threads can be had, those there are do the work.
                if thread::Builder::new().name("store-reader".into()).spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn visit_chunks<E: From<ReadError>>(
        &self,
        stream: &Stream,
        next: &AtomicUsize,
        stop: &AtomicBool,
        visit: impl Fn(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut loader = Loader::new(&self.keys).map_err(|source| no_decompressor(&self.snapshot, source))?;
        let mut clear = vec![0; CHUNK_BYTES];
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(&id) = stream.chunks.get(index) else { break };
            if id != ChunkId::ZEROS {
                let clear = &mut clear[..stream.chunk_bytes(index)];
                self.load(&mut loader, stream, index, clear)?;
                visit(index as u64 * CHUNK_BYTES as u64, clear)?;
            }
        }
        Ok(())
    }

    fn read_chunk(
        &self,
        at: &mut At,
        stream: &Stream,
        index: usize,
        skip: usize,
        into: &mut [u8],
    ) -> Result<(), ReadError> {
        let id = stream.chunks[index];
        let bytes = stream.chunk_bytes(index);
        if id == ChunkId::ZEROS {
            into.fill(0);
            return Ok(());
        }
        if into.len() == bytes {
            return self.load(&mut at.loader, stream, index, into);
        }
        if at.held != Some(id) {
            at.held = None;
            at.clear.resize(bytes, 0);
            self.load(&mut at.loader, stream, index, &mut at.clear)?;
            at.held = Some(id);
        }
        into.copy_from_slice(&at.clear[skip..][..into.len()]);
        Ok(())
    }

    fn load(
        &self,
        loader: &mut Loader,
        stream: &Stream,
        index: usize,
        clear: &mut [u8],
    ) -> Result<(), ReadError> {
        let chunk = stream.chunks[index];
        loader.load(&self.store, chunk, clear).map_err(|source| ReadError::Chunk {
            snapshot: self.snapshot.clone(),
            stream: stream.name.clone(),
            index,
            chunk,
            source: Box::new(source),
        })
    }

    fn stream(&self, name: &str) -> Result<&Stream, ReadError> {
        self.body
            .stream(name)
            .ok_or_else(|| ReadError::NoStream { snapshot: self.snapshot.clone(), stream: name.to_owned() })
    }
}

impl Loader {
    fn new(keys: &ScopeKeys) -> io::Result<Self> {
        Ok(Self { decoder: Decoder::new(keys.clone())?, file: Vec::with_capacity(FILE_BYTES_MAX + 1) })
    }

    fn load(&mut self, store: &Store, id: ChunkId, clear: &mut [u8]) -> Result<(), ChunkError> {
        match store.inner.chunks.read(&id.path(), FILE_BYTES_MAX, &mut self.file)? {
            Some(()) => self.decoder.decode(id, &mut self.file, clear),
            None => Err(ChunkError::Missing),
        }
    }
}

fn no_decompressor(snapshot: &SnapshotId, source: io::Error) -> ReadError {
    ReadError::Decompressor { snapshot: snapshot.clone(), source }
}

/// A panic of another thread while it held the lock is propagated where that thread is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
