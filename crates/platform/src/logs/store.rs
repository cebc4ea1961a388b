//! The thread that writes log files.
//!
//! One thread for all streams: files are opened as needed, a limited number stays open, and when the disk cannot keep
//! up, batches are dropped and counted rather than requests delayed.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Batches that wait to be written; each is at most about a megabyte (`READS_MAX` reads).
const QUEUE_BATCHES_MAX: usize = 1024;

/// Files that stay open.
const OPEN_FILES_MAX: usize = 64;

/// Where log streams are written to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogStore {
    root: Arc<Path>,
    queue: SyncSender<Job>,
    dropped_batches: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Job {
    Append { path: Arc<PathBuf>, text: Vec<u8> },
    Flushed(SyncSender<()>),
}

impl LogStore {
    /// Makes the directory, if need be, and starts the writer. The writer ends with the last clone.
    ///
    /// # Errors
    /// When the directory cannot be made or the thread not be started.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root: PathBuf = root.into();
        make_dir(&root)?;
        let (queue, jobs) = sync_channel(QUEUE_BATCHES_MAX);
        std::thread::Builder::new().name("log-writer".into()).spawn(move || write_jobs(&jobs))?;
        Ok(Self { root: root.into(), queue, dropped_batches: Arc::default() })
    }

    /// The directory of all logs.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Batches that were dropped because the disk did not keep up.
    pub fn dropped_batches(&self) -> u64 {
        self.dropped_batches.load(Ordering::Relaxed)
    }

    /// Waits until everything that was appended so far is in its file. Blocks: for the server's end and for tests.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.send(Job::Flushed(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Appends whole lines. Never waits.
    pub(super) fn append(&self, path: &Arc<PathBuf>, text: Vec<u8>) {
        let job = Job::Append { path: path.clone(), text };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(job)
            && self.dropped_batches.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!("function logs are dropped: the disk does not keep up");
        }
    }
}

fn write_jobs(jobs: &Receiver<Job>) {
    let mut files: VecDeque<(Arc<PathBuf>, File)> = VecDeque::new();
    for job in jobs {
        match job {
            Job::Append { path, text } => {
                if let Err(error) = append(&mut files, &path, &text) {
                    tracing::warn!(path = %path.display(), %error, "write a function's log");
                    files.retain(|(open, _)| *open != path);
                }
            }
            Job::Flushed(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// The file used last is at the front.
fn append(files: &mut VecDeque<(Arc<PathBuf>, File)>, path: &Arc<PathBuf>, text: &[u8]) -> io::Result<()> {
    match files.iter().position(|(open, _)| open == path) {
        Some(index) => {
            let found = files.remove(index).expect("the index was just found");
            files.push_front(found);
        }
        None => {
            files.push_front((path.clone(), open(path)?));
            files.truncate(OPEN_FILES_MAX);
        }
    }
    files[0].1.write_all(text)
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
