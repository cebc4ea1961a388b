//! Open files of the model.

use super::memory::{Ranges, Saved};

/// An open file description.
#[derive(Debug, Clone)]
pub struct Description {
    pub what: What,
    /// Status flags.
    pub flags: u64,
    /// Owner, its signal and the lease.
    pub owner: i64,
    pub owner_signal: i64,
    pub lease: Option<u64>,
    pub flock: Option<u64>,
    pub own_locks: Vec<[u64; 3]>,
}

/// What it is of.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Filler,
    Control,
    Received(usize),
    Path { path: String, offset: u64 },
    Memory { inode: usize, offset: u64 },
    Event { count: u64, semaphore: bool },
    Epoll(Vec<Member>),
    Pipe { pipe: usize, read: bool },
    Unix(Unix),
    Net(Net),
    Timer { clock: u64, setting: Option<Vec<u64>> },
    Signals(Vec<u64>),
    Watches { paths: Vec<(i64, String, u64)>, next: i64, queued: usize },
    PidFd(i64),
    Terminal { pair: usize, master: bool, termios: Vec<u8>, window: Vec<u8> },
    Netlink { kind: u64, protocol: u64, address: Vec<u8> },
}

/// A member of an epoll set.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub number: i64,
    pub file: usize,
    pub event: Vec<u8>,
}

/// A Unix socket.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unix {
    pub kind: u64,
    pub peer: Option<usize>,
    pub connected: bool,
    pub name: Vec<u8>,
    pub backlog: u64,
    pub queue: Vec<(Vec<u8>, Vec<usize>)>,
    pub options: Vec<(u64, u64, Vec<u8>)>,
    pub shutdown: Option<u64>,
}

/// An internet socket.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Net {
    pub family: u64,
    pub kind: u64,
    pub protocol: u64,
    pub address: Vec<u8>,
    pub peer: Option<Vec<u8>>,
    /// The other end of a stream.
    pub other: Option<usize>,
    pub platform: Option<u16>,
    pub reset: bool,
    pub backlog: u64,
    pub waiting: Vec<usize>,
    pub queue: Vec<(Vec<u8>, Vec<u8>)>,
    pub options: Vec<(u64, u64, Vec<u8>)>,
    pub shutdown: Option<u64>,
}

/// A pipe.
#[derive(Debug, Clone, Default)]
pub struct Pipe {
    pub content: Vec<Vec<u8>>,
    pub capacity: u64,
    pub packets: bool,
}

/// A memory file or one without a name.
#[derive(Debug, Clone, Default)]
pub struct Inode {
    pub directory: Option<String>,
    pub name: String,
    pub bytes: u64,
    pub mode: u64,
    pub sealable: bool,
    pub seals: u64,
    pub pages: Ranges<Saved>,
}

impl Description {
    pub fn new(what: What, flags: u64) -> Self {
        Self { what, flags, owner: 0, owner_signal: 0, lease: None, flock: None, own_locks: Vec::new() }
    }

    /// Which file it is of, as far as record locks go.
    pub fn file_key(&self) -> Option<String> {
        match &self.what {
            What::Path { path, .. } => Some(path.clone()),
            What::Memory { inode, .. } => Some(format!("inode {inode}")),
            _ => None,
        }
    }
}
