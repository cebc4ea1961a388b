//! What the loop waits for: an epoll set whose entries carry a meaning.
//!
//! Entries are taken out before their descriptor is closed: a forked child may hold a copy for a while, and would keep
//! a closed entry alive and ready.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// Who became readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The API role.
    Api,
    /// A sandbox, starting or ready, by number.
    Sandbox(u64),
    /// A worker, by number.
    Worker(u64),
    /// A template, by number.
    Template(u64),
}

const KINDS: u64 = 4;

impl Source {
    fn token(self) -> u64 {
        match self {
            Self::Api => 0,
            Self::Sandbox(number) => number * KINDS + 1,
            Self::Worker(number) => number * KINDS + 2,
            Self::Template(number) => number * KINDS + 3,
        }
    }

    fn of(token: u64) -> Self {
        let number = token / KINDS;
        match token % KINDS {
            0 => Self::Api,
            1 => Self::Sandbox(number),
            2 => Self::Worker(number),
            _ => Self::Template(number),
        }
    }
}

/// The set.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// An empty set.
    ///
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits for `descriptor`.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn add(&self, source: Source, descriptor: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.0, descriptor, EventData::new_u64(source.token()), EventFlags::IN)?)
    }

    /// Waits for it no longer.
    pub fn remove(&self, descriptor: impl AsFd) {
        // An entry that is not there needs no removal.
        let _ = epoll::delete(&self.0, descriptor);
    }

    /// Everything that is readable, after waiting for at most `timeout_ms` milliseconds (without end for `None`).
    ///
    /// # Errors
    /// As `epoll_wait(2)`.
    pub fn wait(&self, timeout_ms: Option<u64>) -> io::Result<Vec<Source>> {
        let timeout = timeout_ms
            .map(|ms| Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as _ });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().map(|event: &epoll::Event| Source::of(event.data.u64())).collect())
    }
}
