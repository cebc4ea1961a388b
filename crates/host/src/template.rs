//! Templates on this host: which stand, which are being made, and who waits for them.
//!
//! A template sees the files of a sandbox of its own, which lives as long as it does. Templates are the memory tier:
//! the least recently used one goes when there are too many.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::checkpoint::tree;
use engine::template::{TemplateError, check_host, host_facts, load};
use engine::write_set::{self, Places};
use linux::channel::Channel;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use sandbox::{ClockOffsets, Sandbox};
use store::Store;

use crate::protocol::{Failure, FailureKind, SnapshotId};
use crate::snapshot::{self, internal};

/// What a worker tells of the template that it made.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Made {
    pid: i32,
    clone: std::ops::Range<u32>,
    /// Every operation as the plan prints it, for the report of a failure.
    operations: Vec<String>,
    monotonic_ns: u64,
    boottime_ns: u64,
    main_tid: i32,
    has_files: bool,
    write_set: u64,
    /// Where the pages lie that a clone can be learned from ([`Places`]).
    memory: Vec<(u64, u64)>,
    files: Vec<((u64, u64), bool)>,
}

/// A template that stands.
#[derive(Debug)]
pub struct Standing {
    engine: engine::template::Template,
    pidfd: OwnedFd,
    /// Keeps the files that the template maps.
    pub home: Box<Sandbox>,
    made: Made,
    files: PathBuf,
    /// When it was last used.
    pub used: Instant,
    /// Whether its write set is known.
    learned: bool,
}

/// Makes a template. Runs in a worker; the template becomes the host role's child. `files` is where the snapshot's
/// writable files are laid out for every clone to start with.
///
/// # Errors
/// [`Failure`] of kind `Unusable` when the snapshot cannot be restored on this host.
pub fn make(
    store: &Store,
    snapshot: &SnapshotId,
    home: &Sandbox,
    control: (&Channel, BorrowedFd<'_>),
    files: &Path,
) -> Result<Made, Failure> {
    let opened = snapshot::open(store, snapshot)?;
    let image = &opened.image;
    check_host(image, &format!("/proc/{}/root", home.init_pid())).map_err(|error| unusable(&error))?;
    let joins = join_files(home)?.len();
    let facts = host_facts(joins).map_err(|error| unusable(&error))?;
    let plan = engine::plan::plan(image, &facts).map_err(|error| unusable(&error))?;
    // First, so that a failure leaves no template behind.
    lay_out(&opened, files)
        .map_err(|error| internal(&format!("lay out the files of {}: {error}", snapshot.0)))?;
    let pages = |fill: &engine::template::Fill<'_>| opened.pages(fill);
    let pid = load(&plan, control, home.pidfd(), pages).map_err(|error| unusable(&error))?;
    let mut places = write_set::places(image);
    // The engine's own pages are written to by every clone.
    places.memory.push((plan.area.start, plan.area.stash()));
    Ok(Made {
        pid,
        clone: plan.clone.clone(),
        operations: plan.operations(),
        monotonic_ns: image.monotonic_ns,
        boottime_ns: image.boottime_ns,
        main_tid: image.root().pid,
        has_files: !image.tree.is_empty(),
        write_set: plan.area.write_set(),
        memory: places.memory,
        files: places.files,
    })
}

/// Lays the snapshot's files out below `files`, anew: an earlier attempt may have been interrupted.
fn lay_out(opened: &snapshot::Opened, files: &Path) -> io::Result<()> {
    match fs::remove_dir_all(files) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if opened.image.tree.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(files)?;
    // The overlay shows this directory's own mode as that of `/tmp`.
    fs::set_permissions(files, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    let directory =
        rustix::fs::open(files, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    tree::lay_out(&opened.image, directory.as_fd(), &mut |offset, into| opened.files(offset, into))
}

/// `cgroup.procs` of every tree that the sandbox has a group in.
///
/// # Errors
/// [`Failure`] when they cannot be opened.
pub fn join_files(sandbox: &Sandbox) -> Result<Vec<OwnedFd>, Failure> {
    let mut files = sandbox.join_files().map_err(|error| internal(&error))?;
    if let Some(directory) = &files.unified {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = rustix::fs::openat(directory, "cgroup.procs", flags, Mode::empty());
        files.procs.push(procs.map_err(|error| internal(&error))?);
    }
    Ok(files.procs)
}

impl Standing {
    /// Takes over a template that a worker has made.
    ///
    /// # Errors
    /// [`Failure`] when it has died meanwhile.
    pub fn new(
        made: Made,
        control: Channel,
        home: Box<Sandbox>,
        files: PathBuf,
    ) -> Result<Self, (Failure, Box<Sandbox>)> {
        let pidfd = Pid::from_raw(made.pid)
            .ok_or(io::ErrorKind::InvalidData)
            .map_err(io::Error::from)
            .and_then(|pid| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?));
        match pidfd {
            Ok(pidfd) => {
                let engine = engine::template::Template::new(
                    control,
                    made.clone.clone(),
                    made.operations.clone(),
                    made.pid,
                    made.write_set,
                );
                Ok(Self { engine, pidfd, home, made, files, used: Instant::now(), learned: false })
            }
            Err(error) => Err((internal(&format!("the new template is gone: {error}")), home)),
        }
    }

    /// The control channel, readable when the template died.
    pub fn control(&self) -> BorrowedFd<'_> {
        self.engine.control()
    }

    /// The snapshot's writable files, for a lease.
    pub fn files(&self) -> Option<PathBuf> {
        self.made.has_files.then(|| self.files.clone())
    }

    /// What makes monotonic time go on from the snapshot.
    pub fn clock(&self) -> ClockOffsets {
        let now = |clock| {
            let time = rustix::time::clock_gettime(clock);
            time.tv_sec * 1_000_000_000 + time.tv_nsec as i64
        };
        ClockOffsets {
            monotonic_ns: self.made.monotonic_ns as i64 - now(rustix::time::ClockId::Monotonic),
            boottime_ns: self.made.boottime_ns as i64 - now(rustix::time::ClockId::Boottime),
        }
    }

    /// Number of the environment's first process inside its sandbox.
    pub fn main_tid(&self) -> i32 {
        self.made.main_tid
    }

    /// Restores into a leased sandbox.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn clone_into(&mut self, descriptors: &[BorrowedFd<'_>]) -> Result<(), TemplateError> {
        self.used = Instant::now();
        self.engine.clone_into(descriptors)
    }

    /// Whether a clone has been learned from.
    pub fn has_learned(&self) -> bool {
        self.learned
    }

    /// Learns from a clone which pages a first request needs; later clones have them ahead.
    pub fn learn(&mut self, clone: Pid) {
        self.learned = true;
        let places = Places { memory: self.made.memory.clone(), files: self.made.files.clone() };
        let recorded = write_set::record(clone.as_raw_nonzero().get(), &places);
        let learned = recorded.and_then(|needed| {
            self.engine.populate(&needed.written)?;
            self.engine.look_at(&places.files, &needed.files)?;
            Ok(needed.written.len())
        });
        match learned {
            Ok(ranges) => tracing::debug!(ranges, "write set learned"),
            Err(error) => {
                tracing::warn!(%error, "the write set of a snapshot is not known; restores are slower")
            }
        }
    }

    /// Kills the template and gives its sandbox back to be killed.
    pub fn end(self) -> Box<Sandbox> {
        let _ = linux::process::signal(&self.pidfd, Signal::KILL);
        // A killed process with much memory takes a while to go; its end is waited for, so that no zombie stays.
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        self.home
    }
}

/// A failure that makes the platform serve the request by a normal init.
pub fn unusable(error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Unusable, message: error.to_string() }
}
