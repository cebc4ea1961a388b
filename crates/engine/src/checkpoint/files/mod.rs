//! Open files: what the descriptors of every process refer to.
//!
//! Three passes. *Collect* finds every open file description once, however many descriptors and processes share it.
//! *Describe* says what each is, which may bring up more: open files that wait in the queue of a Unix socket. *Resolve*
//! says what can only be said when all are known: which file a member of an epoll set is, who is at the other end.

mod address;
mod anonymous;
mod descriptors;
mod epoll;
mod inet;
mod inotify;
mod locks;
mod netlink;
mod options;
mod path;
mod pipe;
mod places;
mod queue;
mod tcp;
mod terminal;
mod unix;
mod visit;

use std::collections::{HashMap, HashSet, hash_map};
use std::os::fd::{AsRawFd, OwnedFd};

use linux::descriptor::{Held, SignalOwner};
use linux::socket_diag::SocketDiag;
use rustix::fs::{FileType, Stat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::family::Family;
use super::fields::Fields;
use super::inodes::Inodes;
use super::smaps::Map;
use super::{CheckpointError, Doing, Subject};
use crate::image::{Descriptor, External, Kind, Lock, OpenFile};

use inet::Endpoint;
use options::Fresh;
use places::Places;
use visit::Visit;

const REOPEN: &str = "close it in a before-snapshot hook and open it again in an after-restore hook";

/// What all processes have open.
pub struct Opened {
    /// Every open file once.
    pub files: Vec<OpenFile>,
    /// What each process has, in the order of the family.
    pub tables: Vec<Table>,
    /// Descriptors of files with leases, which opening would break, by device and inode.
    pub leased: HashMap<(u64, u64), Held>,
}

/// What one process has open.
#[derive(Default)]
pub struct Table {
    /// Its descriptors, ascending.
    pub descriptors: Vec<Descriptor>,
    /// Index plus one of an earlier process that has the same table; then the rest is empty.
    pub shared_with: u32,
    /// Locks that it holds.
    pub locks: Vec<Lock>,
}

/// Describes everything that the processes have open. Warnings name what comes back different.
pub fn save(
    subject: &Subject,
    family: &Family,
    maps: &[Vec<Map>],
    inodes: &mut Inodes,
    warnings: &mut Vec<String>,
) -> Result<Opened, CheckpointError> {
    let root = handle(subject.pid)?;
    let _visit = Visit::enter(&root, subject.pid)?;
    let mut files = Files {
        subject,
        family,
        inodes,
        warnings,
        diag: SocketDiag::open().doing("ask about the sockets", subject.pid)?,
        handles: HashMap::new(),
        entries: Vec::new(),
        groups: HashMap::new(),
        pipe_ends: HashSet::new(),
        endpoints: Vec::new(),
        fresh: Fresh::default(),
        places: Places::new(family, maps),
        queued_bytes: 0,
    };
    let tables = files.collect()?;
    let mut next = 0;
    // Describing may bring up further open files.
    while next < files.entries.len() {
        files.entries[next].kind = Some(files.describe(next)?);
        next += 1;
    }
    files.resolve_epoll()?;
    files.resolve_pipes()?;
    files.resolve_unix()?;
    files.resolve_inet()?;
    files.resolve_terminals()?;
    let leased = files.entries.iter().filter(|entry| entry.lease.is_some());
    let leased = leased.map(|entry| ((entry.stat.st_dev, entry.stat.st_ino), entry.held)).collect();
    let count = files.entries.len();
    let saved = (0..count).map(|index| files.open_file(index)).collect::<Result<_, _>>()?;
    Ok(Opened { files: saved, tables, leased })
}

fn handle(pid: i32) -> Result<OwnedFd, CheckpointError> {
    let name = Pid::from_raw(pid).ok_or(std::io::ErrorKind::InvalidInput).map_err(std::io::Error::from);
    rustix::process::pidfd_open(name.doing("name", pid)?, PidfdFlags::empty()).doing("open a handle", pid)
}

/// An open file description.
struct Entry {
    /// A descriptor of it: of a process of the image, or our own for one that was found in a queue.
    held: Held,
    /// Keeps our own descriptor open.
    own: Option<OwnedFd>,
    /// How messages call it.
    title: String,
    /// The link that `/proc/PID/fd` shows.
    link: String,
    stat: Stat,
    /// `/proc/PID/fdinfo/N`.
    info: Fields,
    external: Option<External>,
    /// `F_RDLCK` or `F_WRLCK` of a leased file.
    lease: Option<i32>,
    kind: Option<Kind>,
}

impl Entry {
    fn flags(&self) -> i32 {
        self.info.number("flags", 8) as i32
    }

    fn path_only(&self) -> bool {
        self.flags() & libc::O_PATH != 0
    }

    /// `O_RDONLY`, `O_WRONLY` or `O_RDWR`.
    fn access(&self) -> i32 {
        self.flags() & libc::O_ACCMODE
    }

    fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Its file under `/proc`.
    fn proc_path(&self) -> String {
        format!("/proc/{}/fd/{}", self.held.pid, self.held.number)
    }
}

/// What open files must have in common to be compared at all.
#[derive(PartialEq, Eq, Hash)]
struct Group {
    device: u64,
    inode: u64,
    link: String,
    external: Option<External>,
}

struct Files<'a> {
    subject: &'a Subject,
    family: &'a Family,
    inodes: &'a mut Inodes,
    warnings: &'a mut Vec<String>,
    diag: SocketDiag,
    /// Handles of the processes, by ID.
    handles: HashMap<i32, OwnedFd>,
    entries: Vec<Entry>,
    /// Indices of entries, ordered as `kcmp` orders them.
    groups: HashMap<Group, Vec<usize>>,
    /// The ends of pipes that are known: inode, and whether it reads.
    pipe_ends: HashSet<(u64, bool)>,
    /// Internet sockets that are connected.
    endpoints: Vec<Endpoint>,
    fresh: Fresh,
    places: Places,
    /// Bytes that wait in sockets and pipes, so far.
    queued_bytes: usize,
}

impl Files<'_> {
    fn describe(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        if let Some(external) = entry.external {
            return Ok(Kind::External(external.into()));
        }
        if entry.path_only() {
            return self.path(index);
        }
        if entry.link.starts_with("pipe:[") {
            return self.pipe(index);
        }
        if entry.link.starts_with("socket:[") {
            return self.socket(index);
        }
        if entry.link.starts_with("anon_inode:") || entry.link.starts_with("pidfd:[") {
            return self.anonymous(index);
        }
        if entry.file_type() == FileType::CharacterDevice {
            return self.device(index);
        }
        self.path(index)
    }

    fn socket(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let copy = self.copy(index)?;
        let family = rustix::net::sockopt::socket_domain(&copy).doing("look at a socket", pid)?;
        if linux::socket::filter_instructions(&copy).map_or(true, |count| count > 0) {
            return Err(self.refused(index, "a socket with a packet filter", REOPEN));
        }
        match i32::from(family.as_raw()) {
            libc::AF_UNIX => self.unix(index, &copy),
            libc::AF_INET | libc::AF_INET6 => self.inet(index, &copy),
            libc::AF_NETLINK => self.netlink(index, &copy),
            other => Err(self.refused(index, &format!("a socket of address family {other}"), REOPEN)),
        }
    }

    fn open_file(&mut self, index: usize) -> Result<OpenFile, CheckpointError> {
        let entry = &mut self.entries[index];
        let kind = entry.kind.take();
        let mut file =
            OpenFile { status_flags: (entry.flags() & !libc::O_CLOEXEC) as u32, kind, ..OpenFile::default() };
        // A path-only file can be asked for nothing, and the platform's own ends are made anew as it likes.
        if entry.path_only() || entry.external.is_some() {
            return Ok(file);
        }
        file.lease = entry.lease.map_or(0, |lease| lease as u32 + 1);
        let pid = entry.held.pid;
        let copy = self.copy(index)?;
        let owner = linux::descriptor::signal_owner(&copy).doing("read a file's owner", pid)?;
        file.owner = match owner {
            SignalOwner::None => 0,
            SignalOwner::Thread(tid) => self.family.tid_inside(tid).unwrap_or(0),
            SignalOwner::Process(pid) => self.family.by_host_pid(pid).map_or(0, |member| member.pid),
            SignalOwner::Group(group) => -self.family.leader_inside(group),
        };
        file.owner_signal = linux::descriptor::owner_signal(&copy).doing("read a file's signal", pid)?;
        Ok(file)
    }

    /// A descriptor of our own for the same open file description.
    fn copy(&mut self, index: usize) -> Result<OwnedFd, CheckpointError> {
        let entry = &self.entries[index];
        let Held { pid, number } = entry.held;
        if let Some(own) = &entry.own {
            return own.try_clone().doing("copy a descriptor", pid);
        }
        let process = match self.handles.entry(pid) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(place) => place.insert(handle(pid)?),
        };
        rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())
            .doing("copy a descriptor", pid)
    }

    /// Counts bytes that wait somewhere: a tree may keep only so much on its way.
    fn count_queued(&mut self, index: usize, bytes: usize) -> Result<(), CheckpointError> {
        const QUEUED_BYTES_MAX: usize = 256 << 20;
        self.queued_bytes += bytes;
        if self.queued_bytes > QUEUED_BYTES_MAX {
            return Err(self.refused(
                index,
                "a pipe or socket with too much unread data",
                "read it before the snapshot",
            ));
        }
        Ok(())
    }

    fn refused(&self, index: usize, what: &str, remedy: &'static str) -> CheckpointError {
        CheckpointError::Unsupported { what: format!("{}, {what},", self.entries[index].title), remedy }
    }

    fn warn(&mut self, index: usize, what: &str) {
        self.warnings.push(format!("{}: {what}", self.entries[index].title));
    }

    /// Our own process as others see it.
    fn own_pid() -> i32 {
        std::process::id() as i32
    }

    fn own_held(descriptor: &OwnedFd) -> Held {
        Held { pid: Self::own_pid(), number: descriptor.as_raw_fd() }
    }
}
