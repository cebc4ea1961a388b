//! Open descriptors: what each is, so that a clone can make its like.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use linux::namespace::Namespaces;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::{CheckpointError, Doing, Subject};
use crate::image::{
    Closed, Connection, Descriptor, Epoll, EpollMember, EventFd, External, Kind, Listener, PathDescriptor,
    Pipe, TimerFd, UnixPair,
};

/// The most bytes that a pipe's content may have: the largest pipe an ordinary user can make.
const PIPE_BYTES_MAX: usize = 1 << 20;

/// Describes every open descriptor. Warnings name those that come back different.
pub fn save(subject: &Subject) -> Result<(Vec<Descriptor>, Vec<String>), CheckpointError> {
    let pid = subject.pid;
    let mut numbers: Vec<i32> = fs::read_dir(format!("/proc/{pid}/fd"))
        .doing("list the descriptors", pid)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let pidfd = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from);
    let pidfd = rustix::process::pidfd_open(pidfd.doing("name", pid)?, PidfdFlags::empty())
        .doing("open a handle", pid)?;
    let mut saver = Saver { subject, pidfd, warnings: Vec::new(), seen: HashMap::new() };
    // Sockets are asked about where they live.
    linux::namespace::join(&saver.pidfd, Namespaces::NETWORK).doing("enter the network", pid)?;
    let descriptors =
        numbers.iter().map(|&number| saver.descriptor(number)).collect::<Result<Vec<_>, _>>()?;
    refuse_half(pid, &descriptors)?;
    Ok((descriptors, saver.warnings))
}

struct Saver<'a> {
    subject: &'a Subject,
    pidfd: OwnedFd,
    warnings: Vec<String>,
    /// Descriptors by what their links say, to find those that share a description.
    seen: HashMap<String, Vec<i32>>,
}

/// `/proc/PID/fdinfo/N`.
struct Info {
    text: String,
}

impl Info {
    fn field(&self, name: &str) -> Option<&str> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).and_then(|field| field.parse().ok()).unwrap_or(0)
    }

    fn flags(&self) -> u32 {
        self.field("flags").and_then(|field| u32::from_str_radix(field, 8).ok()).unwrap_or(0)
    }
}

impl Saver<'_> {
    fn descriptor(&mut self, number: i32) -> Result<Descriptor, CheckpointError> {
        let pid = self.subject.pid;
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).doing("read a descriptor", pid)?;
        let link = link.to_string_lossy().into_owned();
        let text =
            fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).doing("read a descriptor", pid)?;
        let info = Info { text };
        let kind = match self.original(number, &link)? {
            Some(original) => Kind::Duplicate(original),
            None => self.kind(number, &link, &info)?,
        };
        let flags = info.flags();
        Ok(Descriptor {
            number,
            close_on_exec: flags & libc::O_CLOEXEC as u32 != 0,
            status_flags: flags & !(libc::O_CLOEXEC as u32),
            kind: Some(kind),
        })
    }

    /// A lower descriptor of the same open file description. The log pipes are matched by inode instead.
    fn original(&mut self, number: i32, link: &str) -> Result<Option<i32>, CheckpointError> {
        let pid = self.subject.pid;
        let candidates = self.seen.entry(link.to_owned()).or_default();
        for &candidate in candidates.iter() {
            if linux::descriptor::same_description(pid, candidate, number)
                .doing("compare descriptors", pid)?
            {
                return Ok(Some(candidate));
            }
        }
        candidates.push(number);
        Ok(None)
    }

    fn kind(&mut self, number: i32, link: &str, info: &Info) -> Result<Kind, CheckpointError> {
        if let Some(inode) = inode_of(link, "pipe") {
            return self.pipe(number, inode, info);
        }
        if let Some(inode) = inode_of(link, "socket") {
            return self.socket(number, inode);
        }
        match link.strip_prefix("anon_inode:") {
            Some("[eventfd]") => Ok(Kind::EventFd(EventFd {
                count: u64::from_str_radix(info.field("eventfd-count").unwrap_or("0"), 16).unwrap_or(0),
                semaphore: info.number("eventfd-semaphore") == 1,
            })),
            Some("[eventpoll]") => Ok(Kind::Epoll(Epoll { members: epoll_members(info) })),
            Some("[timerfd]") => Ok(Kind::TimerFd(timer(info))),
            Some(other) => Err(self.unsupported(number, &format!("descriptor of kind {other}"), REOPEN)),
            None => self.path(number, link, info),
        }
    }

    fn path(&self, number: i32, link: &str, info: &Info) -> Result<Kind, CheckpointError> {
        let pid = self.subject.pid;
        let open = fs::metadata(format!("/proc/{pid}/fd/{number}")).doing("look at a descriptor", pid)?;
        let named = fs::symlink_metadata(format!("/proc/{pid}/root{link}"));
        let same = named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()));
        if !same {
            return Err(self.unsupported(
                number,
                &format!("open file {link}, which has no name any more"),
                REOPEN,
            ));
        }
        Ok(Kind::Path(PathDescriptor { path: link.to_owned(), offset: info.number("pos") }))
    }

    fn pipe(&self, number: i32, inode: u64, info: &Info) -> Result<Kind, CheckpointError> {
        if inode == self.subject.stdout_inode {
            return Ok(Kind::External(External::Stdout.into()));
        }
        if inode == self.subject.stderr_inode {
            return Ok(Kind::External(External::Stderr.into()));
        }
        let read = info.flags() & libc::O_ACCMODE as u32 == libc::O_RDONLY as u32;
        let copy = self.copy(number)?;
        let pid = self.subject.pid;
        let content = if read { peek(&copy).doing("read a pipe", pid)? } else { Vec::new() };
        let capacity = rustix::pipe::fcntl_getpipe_size(&copy).doing("ask for a pipe's size", pid)?;
        Ok(Kind::Pipe(Pipe { id: inode, read, content, capacity_bytes: capacity as u32 }))
    }

    fn socket(&mut self, number: i32, inode: u64) -> Result<Kind, CheckpointError> {
        let pid = self.subject.pid;
        let copy = self.copy(number)?;
        let family = sockopt::socket_domain(&copy).doing("look at a socket", pid)?;
        let socket_type = sockopt::socket_type(&copy).doing("look at a socket", pid)?;
        if family == AddressFamily::UNIX {
            return self.unix_socket(number, inode, socket_type);
        }
        if family != AddressFamily::INET && family != AddressFamily::INET6 {
            let what = format!("socket of address family {}", family.as_raw());
            return Err(self.unsupported(number, &what, REOPEN));
        }
        let local =
            rustix::net::getsockname(&copy).ok().and_then(|address| SocketAddr::try_from(address).ok());
        let peer = rustix::net::getpeername(&copy).ok().flatten();
        let peer = peer.and_then(|address| SocketAddr::try_from(address).ok());
        if let Some(peer) = peer {
            return Ok(self.connection(number, family, socket_type, local, peer));
        }
        match local {
            Some(local) if local.port() != 0 => {
                let listens = sockopt::socket_acceptconn(&copy).unwrap_or(false);
                Ok(Kind::Listener(Listener {
                    family: family.as_raw().into(),
                    socket_type: socket_type.as_raw() as i32,
                    address: address_bytes(local),
                    backlog: if listens { 128 } else { 0 },
                }))
            }
            _ => Ok(closed(family, socket_type, "nowhere".to_owned())),
        }
    }

    /// One end of a pair without anything on the way; that the other end is here too is checked at the end.
    fn unix_socket(&self, number: i32, inode: u64, socket_type: SocketType) -> Result<Kind, CheckpointError> {
        let known =
            linux::socket_diag::unix_socket(inode).doing("ask about a Unix socket", self.subject.pid)?;
        let Some(peer) = known.peer else {
            return Err(self.unsupported(number, "Unix socket that is not connected", REOPEN));
        };
        if known.waiting_bytes > 0 {
            return Err(self.unsupported(number, "Unix socket with unread data", REOPEN));
        }
        Ok(Kind::UnixPair(UnixPair { id: inode, peer, socket_type: socket_type.as_raw() as i32 }))
    }

    fn connection(
        &mut self,
        number: i32,
        family: AddressFamily,
        socket_type: SocketType,
        local: Option<SocketAddr>,
        peer: SocketAddr,
    ) -> Kind {
        let platform = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.subject.platform_port));
        if peer == platform {
            if local.is_some_and(|local| local.port() == self.subject.pending_port) {
                return Kind::External(External::Pending.into());
            }
            return Kind::Connection(Connection { port: u32::from(peer.port()) });
        }
        self.warnings.push(format!(
            "descriptor {number}: the connection to {peer} comes back closed; open it again in an after-restore hook \
             or at first use"
        ));
        closed(family, socket_type, peer.to_string())
    }

    /// A descriptor of our own for the same description.
    fn copy(&self, number: i32) -> Result<OwnedFd, CheckpointError> {
        rustix::process::pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())
            .doing("copy a descriptor", self.subject.pid)
    }

    fn unsupported(&self, number: i32, what: &str, remedy: &'static str) -> CheckpointError {
        CheckpointError::Unsupported {
            what: format!("descriptor {number} of process {}, a {what},", self.subject.pid),
            remedy,
        }
    }
}

const REOPEN: &str = "close it in a before-snapshot hook and open it again in an after-restore hook";

fn closed(family: AddressFamily, socket_type: SocketType, peer: String) -> Kind {
    let (family, socket_type) = (family.as_raw().into(), socket_type.as_raw() as i32);
    Kind::Closed(Closed { family, socket_type, peer })
}

/// The number in `kind:[number]`.
fn inode_of(link: &str, kind: &str) -> Option<u64> {
    link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// Lines like `tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:2`.
fn epoll_members(info: &Info) -> Vec<EpollMember> {
    let lines = info.text.lines().filter(|line| line.starts_with("tfd:"));
    let member = |line: &str| {
        let mut words = line.split_whitespace();
        let number = words.nth(1)?.parse().ok()?;
        let events = u32::from_str_radix(words.nth(1)?, 16).ok()?;
        let data = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        Some(EpollMember { number, events, data })
    };
    lines.filter_map(member).collect()
}

/// Fields like `it_value: (0, 49406829)`.
fn timer(info: &Info) -> TimerFd {
    let nanoseconds = |name| {
        let field = info.field(name).unwrap_or_default().trim_matches(['(', ')']);
        let (seconds, rest) = field.split_once(',').unwrap_or(("0", "0"));
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
        number(seconds) * 1_000_000_000 + number(rest)
    };
    TimerFd {
        clock: info.number("clockid") as i32,
        value_ns: nanoseconds("it_value"),
        interval_ns: nanoseconds("it_interval"),
    }
}

/// What waits in a pipe, without taking it out.
fn peek(pipe: &OwnedFd) -> io::Result<Vec<u8>> {
    let waiting = rustix::io::ioctl_fionread(pipe)? as usize;
    if waiting == 0 {
        return Ok(Vec::new());
    }
    let (read, write) = rustix::pipe::pipe()?;
    rustix::pipe::fcntl_setpipe_size(&write, waiting.max(4096))?;
    let copied = rustix::pipe::tee(pipe, &write, waiting, rustix::pipe::SpliceFlags::NONBLOCK)?;
    let mut content = vec![0; copied.min(PIPE_BYTES_MAX)];
    rustix::io::read(&read, &mut content)?;
    Ok(content)
}

fn address_bytes(address: SocketAddr) -> Vec<u8> {
    match address {
        SocketAddr::V4(address) => {
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&address.port().to_be_bytes());
            bytes.extend_from_slice(&address.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
            bytes
        }
        SocketAddr::V6(address) => {
            let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&address.port().to_be_bytes());
            bytes.extend_from_slice(&address.flowinfo().to_ne_bytes());
            bytes.extend_from_slice(&address.ip().octets());
            bytes.extend_from_slice(&address.scope_id().to_ne_bytes());
            bytes
        }
    }
}

/// A pipe or a pair of sockets of which only one end is in the process leads to somebody who will not be there.
fn refuse_half(pid: i32, descriptors: &[Descriptor]) -> Result<(), CheckpointError> {
    let pipe = |descriptor: &Descriptor| match &descriptor.kind {
        Some(Kind::Pipe(pipe)) => Some((pipe.id, pipe.read)),
        _ => None,
    };
    for descriptor in descriptors {
        let Some((id, read)) = pipe(descriptor) else { continue };
        if !descriptors.iter().any(|other| pipe(other) == Some((id, !read))) {
            return Err(half(pid, descriptor, "pipe"));
        }
    }
    for descriptor in descriptors {
        let Some(Kind::UnixPair(pair)) = &descriptor.kind else { continue };
        let is_peer =
            |other: &Descriptor| matches!(&other.kind, Some(Kind::UnixPair(other)) if other.id == pair.peer);
        if !descriptors.iter().any(is_peer) {
            return Err(half(pid, descriptor, "pair of Unix sockets"));
        }
    }
    Ok(())
}

fn half(pid: i32, descriptor: &Descriptor, what: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        what: format!("descriptor {} of process {pid}, one end of a {what},", descriptor.number),
        remedy: REOPEN,
    }
}
