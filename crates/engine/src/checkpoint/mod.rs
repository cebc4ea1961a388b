//! Stopping a tree of processes and writing its state down.
//!
//! The tree must be quiescent: its runtime waits for the platform, nothing is in flight. Every thread is stopped with
//! `ptrace`, the processes are described as an [`Image`], and their pages and writable files go to a [`Sink`]. Nothing
//! runs on until the checkpoint is finished, and nothing is changed by it.
//!
//! **What cannot be saved is refused**, with its descriptor, its kind, its owner and what to do; never is a snapshot
//! written that would restore wrong. Everything that is read of a process has a bound, for the process may be hostile.
//! Deliberately absent: letting the processes go on or ending them, which is the caller's business.

mod credentials;
mod crypto;
mod family;
mod fields;
mod files;
mod filters;
mod host;
mod inodes;
mod memory;
mod pages;
mod process;
mod remote;
mod rseq;
mod smaps;
mod threads;
mod timers;
pub mod tree;
mod walk;

use std::io;
use std::path::PathBuf;

pub use host::{cpu_flags, limits};
pub use memory::mapped_file;

use crate::image::{External, FORMAT, Image};

use family::Family;
use inodes::Inodes;
use pages::Pages;
use smaps::Map;

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
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The root of the tree as the host sees it.
    pub pid: i32,
    /// The first process of the sandbox: its other children and all their descendants belong to the image, too.
    pub init: Option<i32>,
    /// Inodes of the pipes, sockets and terminals whose other end the platform holds, as `fstat` gives them.
    pub externals: Vec<(u64, External)>,
    /// Where connections to the platform lead.
    pub platform: Option<Platform>,
    /// The directory of the sandbox that the function may write to and that belongs to the snapshot (`/tmp`). Without
    /// one no file is saved.
    pub writable: Option<PathBuf>,
}

/// Where connections to the platform lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Port on 127.0.0.1 whose connections lead to the platform.
    pub port: u16,
    /// Local port of the connection on which the platform has a request pending.
    pub pending_port: u16,
}

/// A finished checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The state.
    pub image: Image,
    /// What a user should know: what comes back closed or different.
    pub warnings: Vec<String>,
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A process holds something that cannot be saved.
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

/// Checkpoints a tree of processes. Afterwards it is stopped no longer, but its registers and memory are as they were.
///
/// # Errors
/// [`CheckpointError`]; the processes are then as they were, too.
pub fn checkpoint(subject: &Subject, sink: &mut dyn Sink) -> Result<Checkpoint, CheckpointError> {
    checkpoint_then(subject, sink, |_, _| ()).map(|(done, ())| done)
}

/// As [`checkpoint`], and calls `then` while the processes are still stopped, with their IDs as the host sees them:
/// what it kills has not run on since.
///
/// # Errors
/// As [`checkpoint`].
pub fn checkpoint_then<R>(
    subject: &Subject,
    sink: &mut dyn Sink,
    then: impl FnOnce(&mut Checkpoint, &[i32]) -> R,
) -> Result<(Checkpoint, R), CheckpointError> {
    let family = Family::stop(subject)?;
    let mut maps = Vec::with_capacity(family.members.len());
    for member in &family.members {
        maps.push(if member.ended.is_some() { Vec::new() } else { smaps::read(member)? });
    }
    let mut inodes =
        Inodes::new(subject.writable.is_some()).doing("make a memory file on behalf", subject.pid)?;
    let mut warnings = family.warnings();
    let mut opened = files::save(subject, &family, &maps, &mut inodes, &mut warnings)?;
    let open_files = std::mem::take(&mut opened.files);
    let mut image = Image { format: FORMAT, open_files, ..Image::default() };
    for (index, member) in family.members.iter().enumerate() {
        let mut process = process::save(&family, member, &maps[index])?;
        process.descriptors = opened.tables[index].descriptors.clone();
        process.shares_descriptors = opened.tables[index].shared_with;
        process.locks = opened.tables[index].locks.clone();
        image.processes.push(process);
    }
    warnings.extend(save_memory(subject, &family, &maps, &mut inodes, &mut image, sink)?);
    image.host = host::host(&image, &maps[0], subject.pid)?;
    (image.monotonic_ns, image.boottime_ns) = host::clocks(subject.pid);
    if let Some(writable) = &subject.writable {
        tree::save(subject.pid, writable, &opened.leased, &mut image, sink, &mut warnings)?;
    }
    let mut done = Checkpoint { image, warnings };
    let pids: Vec<i32> = family.members.iter().map(|member| member.host_pid).collect();
    let result = then(&mut done, &pids);
    Ok((done, result))
}

/// Saves every process's memory. Gives warnings.
fn save_memory(
    subject: &Subject,
    family: &Family,
    maps: &[Vec<Map>],
    inodes: &mut Inodes,
    image: &mut Image,
    sink: &mut dyn Sink,
) -> Result<Vec<String>, CheckpointError> {
    let mut pages = Pages::new(sink);
    let mut finder = crypto::Finder::default();
    for (index, member) in family.members.iter().enumerate().filter(|(_, member)| member.ended.is_none()) {
        let writable = subject.writable.as_deref();
        let alone = family.members.len() == 1;
        let saved =
            memory::save((member, alone), &maps[index], writable, inodes, &mut image.files, &mut pages)?;
        let process = &mut image.processes[index];
        (process.mappings, process.runs) = (saved.mappings, saved.runs);
        process.reseed_functions = finder.reseed_functions(member.host_pid, &process.mappings, &image.files);
    }
    image.inodes = inodes.save(&mut pages)?;
    Ok(finder.warnings(&image.files))
}

/// The vDSO of this very process.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn own_vdso(pid: i32) -> Result<Vec<u8>, CheckpointError> {
    let text =
        fields::read(&format!("/proc/{pid}/smaps"), smaps::BYTES_MAX).doing("read the mappings", pid)?;
    host::vdso(pid, &smaps::parse(&text)).doing("read the vDSO", pid)
}
