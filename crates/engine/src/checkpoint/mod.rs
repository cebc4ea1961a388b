//! Stopping an initialized process and writing its state down.
//!
//! The process must be quiescent: its runtime waits for the platform, nothing is in flight. It is stopped with
//! `ptrace`, described as an [`Image`], and its pages and writable files go to a [`Sink`]. It does not run on.
//!
//! **What cannot be saved is refused**, with its kind, its owner and what to do; never is a snapshot written that
//! would restore wrong. Deliberately absent, and therefore refused: more than one process, POSIX timers, Unix
//! sockets but for pairs, inotify, io_uring, seccomp filters of the function's own.

mod crypto;
mod descriptors;
mod facts;
mod memory;
mod remote;
mod smaps;
mod threads;
pub mod tree;

use std::io;
use std::path::PathBuf;

pub use facts::{cpu_flags, limits};
pub use memory::mapped_file;

use linux::ptrace::Tracee;

use crate::image::{FORMAT, Image};

/// Receives the bytes that belong to an image.
pub trait Sink {
    /// The next bytes of the page stream: whole pages.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn pages(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The next bytes of the file stream.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn files(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// What to checkpoint and what of it belongs to the platform.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The process as the host sees it.
    pub pid: i32,
    /// Inode of the pipe that its standard output leads to.
    pub stdout_inode: u64,
    /// Inode of the pipe that its standard error leads to.
    pub stderr_inode: u64,
    /// Port on 127.0.0.1 whose connections lead to the platform.
    pub platform_port: u16,
    /// Local port of the connection on which the platform has a request pending.
    pub pending_port: u16,
    /// The directory of the sandbox that the function may write to and that belongs to the snapshot (`/tmp`).
    pub writable: PathBuf,
}

/// A finished checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The state.
    pub image: Image,
    /// What a user should know: what comes back closed or shared.
    pub warnings: Vec<String>,
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The process holds something that cannot be saved.
    #[error("{what} cannot be saved in a snapshot: {remedy}")]
    Unsupported {
        /// What, and of which process.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A call failed.
    #[error("cannot {doing} of process {pid}: {source}")]
    Call {
        /// The attempt.
        doing: &'static str,
        /// The process or thread.
        pid: i32,
        /// The cause.
        source: io::Error,
    },
    /// The sink failed.
    #[error("cannot store the snapshot's bytes: {0}")]
    Sink(io::Error),
}

/// Gives an error its context.
trait Doing<T> {
    fn doing(self, doing: &'static str, pid: i32) -> Result<T, CheckpointError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str, pid: i32) -> Result<T, CheckpointError> {
        self.map_err(|source| CheckpointError::Call { doing, pid, source: source.into() })
    }
}

/// Checkpoints a process. Afterwards it is stopped no longer, but its registers and memory are as they were.
///
/// # Errors
/// [`CheckpointError`]; the process is then as it was, too.
pub fn checkpoint(subject: &Subject, sink: &mut dyn Sink) -> Result<Checkpoint, CheckpointError> {
    let pid = subject.pid;
    refuse_children(pid)?;
    let tracees = stop_all(pid)?;
    let maps = smaps::read(pid)?;
    let remote = remote::Remote::new(&tracees[0], &maps)?;
    let status = facts::Status::read(pid)?;
    refuse_filters(pid, &status)?;
    let threads = threads::save(pid, &tracees, &remote)?;
    let (descriptors, mut warnings) = descriptors::save(subject)?;
    let mut image = Image { format: FORMAT, threads, descriptors, ..Image::default() };
    facts::save(pid, &status, &remote, &maps, &mut image)?;
    memory::save(pid, &maps, &subject.writable, &mut image, sink)?;
    image.reseed_functions = crypto::reseed_functions(pid, &image);
    tree::save(pid, &subject.writable, &mut image, sink, &mut warnings)?;
    Ok(Checkpoint { image, warnings })
}

/// Stops threads until a look at the list finds no new one.
fn stop_all(pid: i32) -> Result<Vec<Tracee>, CheckpointError> {
    let mut tracees: Vec<Tracee> = Vec::new();
    loop {
        let before = tracees.len();
        for tid in threads::list(pid)? {
            if tracees.iter().all(|tracee| tracee.tid() != tid) {
                tracees.push(Tracee::stop(tid).doing("stop thread", tid)?);
            }
        }
        if tracees.len() == before {
            break;
        }
    }
    // The main thread has the process's ID and goes first.
    tracees.sort_by_key(|tracee| (tracee.tid() != pid, tracee.tid()));
    Ok(tracees)
}

fn refuse_children(pid: i32) -> Result<(), CheckpointError> {
    for tid in threads::list(pid)? {
        let path = format!("/proc/{pid}/task/{tid}/children");
        let children = std::fs::read_to_string(path).doing("read the children", pid)?;
        if let Some(child) = children.split_whitespace().next() {
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            return Err(CheckpointError::Unsupported {
                what: format!("child process {child} ({})", name.trim()),
                remedy: "end child processes before initialization is over, or in a before-snapshot hook, and start \
                         them again in an after-restore hook",
            });
        }
    }
    Ok(())
}

fn refuse_filters(pid: i32, status: &facts::Status) -> Result<(), CheckpointError> {
    if status.seccomp == 0 {
        return Ok(());
    }
    Err(CheckpointError::Unsupported {
        what: format!("the seccomp filter of process {pid}"),
        remedy: "install it after the snapshot, in an after-restore hook",
    })
}

/// The vDSO of this very process.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn own_vdso(pid: i32) -> Result<Vec<u8>, CheckpointError> {
    facts::vdso(pid, &smaps::read(pid)?).doing("read the vDSO", pid)
}
