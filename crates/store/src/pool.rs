//! The threads of a writer: each takes a chunk, finds out whether it is stored, and else compresses, seals
//! and writes it.
//!
//! The first failure is kept and stops the work; the writer sees it at its next call. Buffers go round
//! between the writer and the threads, so a snapshot of any size takes a few MiB.
//!
//! Deliberately absent: order. Chunks are finished in any order and carry their place with them.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::chunk::{ChunkId, Decoder, Encoder, FILE_BYTES_MAX};
use crate::dir::Dir;
use crate::error::FileError;
use crate::keys::ScopeKeys;
use crate::limits::{CHUNK_BYTES, THREADS_MAX};
use crate::store::Store;

/// Running threads. Dropping it ends them.
pub struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// A chunk's place: number of the stream, number in the stream.
pub type Place = (usize, usize);

/// What the threads did.
#[derive(Debug, Default)]
pub struct Tally {
    /// The id of each chunk that was handed in.
    pub ids: Vec<(Place, ChunkId)>,
    /// Distinct chunks that were written: each has a file, named by its id, in the writer's directory.
    pub chunks_new: u64,
    /// Their size on disk in bytes.
    pub bytes_new: u64,
    /// Distinct chunks that were stored already: each has a link in the writer's directory.
    pub chunks_shared: u64,
}

/// Why a chunk could not be stored.
#[derive(Debug)]
pub enum PoolError {
    /// A file.
    File(FileError),
    /// The compressor.
    Compress(io::Error),
    /// A thread.
    Thread(io::Error),
}

struct Job {
    place: Place,
    clear: Vec<u8>,
}

struct Shared {
    store: Store,
    keys: ScopeKeys,
    dir: Arc<Dir>,
    seen: Mutex<HashSet<ChunkId>>,
    tally: Mutex<Tally>,
    spare: Mutex<Vec<Vec<u8>>>,
    failure: Mutex<Option<PoolError>>,
    failed: AtomicBool,
}

impl Pool {
    /// Starts as many threads as there are processors, at most [`THREADS_MAX`], for a writer whose directory
    /// is `dir`.
    pub fn start(store: Store, keys: ScopeKeys, dir: Arc<Dir>) -> Result<Self, PoolError> {
        let wanted = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let shared = Arc::new(Shared {
            store,
            keys,
            dir,
            seen: Mutex::default(),
            tally: Mutex::default(),
            spare: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
        });
        let (sender, receiver) = sync_channel(2 * wanted);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut pool = Self { jobs: Some(sender), threads: Vec::new(), shared };
        for _ in 0..wanted {
            let (shared, receiver) = (pool.shared.clone(), receiver.clone());
            let mut worker = Worker::new(&shared).map_err(PoolError::Compress)?;
            let thread = thread::Builder::new().name("store-writer".into());
            match thread.spawn(move || worker.run(&shared, &receiver)) {
                Ok(handle) => pool.threads.push(handle),
                // One thread is enough; when there is not even one, nothing can be done.
                Err(_) if !pool.threads.is_empty() => break,
                Err(error) => return Err(PoolError::Thread(error)),
            }
        }
        Ok(pool)
    }

    /// An empty buffer with room for a chunk.
    pub fn buffer(&self) -> Vec<u8> {
        let spare = lock(&self.shared.spare).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    /// Hands in a chunk; waits when the threads are far behind.
    pub fn submit(&self, place: Place, clear: Vec<u8>) -> Result<(), PoolError> {
        self.failure()?;
        let jobs = self.jobs.as_ref().expect("the sender is taken only when the pool ends");
        // The threads take jobs until the sender is gone, even after a failure.
        jobs.send(Job { place, clear })
            .map_err(|_| PoolError::Thread(io::Error::other("all threads have ended")))
    }

    /// Waits until all chunks are stored and the threads have ended.
    pub fn finish(mut self) -> Result<Tally, PoolError> {
        self.end()?;
        self.failure()?;
        Ok(std::mem::take(&mut *lock(&self.shared.tally)))
    }

    fn end(&mut self) -> Result<(), PoolError> {
        drop(self.jobs.take());
        let mut panicked = false;
        for thread in self.threads.drain(..) {
            panicked |= thread.join().is_err();
        }
        match panicked {
            true => Err(PoolError::Thread(io::Error::other("a thread panicked"))),
            false => Ok(()),
        }
    }

    fn failure(&self) -> Result<(), PoolError> {
        if !self.shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let first = lock(&self.shared.failure).take();
        Err(first.unwrap_or_else(|| PoolError::Thread(io::Error::other("an earlier chunk failed"))))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // What is still queued need not be done.
        self.shared.failed.store(true, Ordering::Release);
        let _ = self.end();
    }
}

struct Worker {
    encoder: Encoder,
    decoder: Decoder,
    file: Vec<u8>,
}

impl Worker {
    fn new(shared: &Shared) -> io::Result<Self> {
        Ok(Self {
            encoder: Encoder::new(shared.keys.clone())?,
            decoder: Decoder::new(shared.keys.clone())?,
            file: Vec::with_capacity(FILE_BYTES_MAX),
        })
    }

    fn run(&mut self, shared: &Shared, jobs: &Mutex<Receiver<Job>>) {
        loop {
            let job = lock(jobs).recv();
            let Ok(Job { place, mut clear }) = job else { return };
            if !shared.failed.load(Ordering::Acquire) {
                match self.store(shared, &clear) {
                    Ok(id) => lock(&shared.tally).ids.push((place, id)),
                    Err(error) => {
                        lock(&shared.failure).get_or_insert(error);
                        shared.failed.store(true, Ordering::Release);
                    }
                }
            }
            clear.clear();
            lock(&shared.spare).push(clear);
        }
    }

    fn store(&mut self, shared: &Shared, clear: &[u8]) -> Result<ChunkId, PoolError> {
        let id = ChunkId::of(&shared.keys, clear);
        if !lock(&shared.seen).insert(id) {
            return Ok(id);
        }
        if self.share(shared, id) {
            lock(&shared.tally).chunks_shared += 1;
            return Ok(id);
        }
        let file = self.encoder.encode(id, clear).map_err(PoolError::Compress)?;
        shared.dir.write_new(&id.to_string(), file).map_err(PoolError::File)?;
        let mut tally = lock(&shared.tally);
        tally.chunks_new += 1;
        tally.bytes_new += file.len() as u64;
        Ok(id)
    }

    /// Takes a link to a stored chunk, if there is one and it is sound. When there is none, or one cannot be
    /// had (the file has as many links as it can have), the chunk is written again.
    fn share(&mut self, shared: &Shared, id: ChunkId) -> bool {
        let name = id.to_string();
        if shared.store.inner.chunks.try_link(&id.path(), &shared.dir, &name).is_err() {
            return false;
        }
        let sound = match shared.dir.read(&name, FILE_BYTES_MAX, &mut self.file) {
            Ok(Some(())) => self.decoder.verify(id, &mut self.file).map_err(|error| error.to_string()),
            Ok(None) => Err("is missing".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &sound {
            tracing::warn!("stored chunk {id} {error}; it is written anew");
            // If this fails, so does creating the new file, and that is reported.
            let _ = shared.dir.remove(&name);
        }
        sound.is_ok()
    }
}

/// A panic of another thread while it held the lock is reported when that thread is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
