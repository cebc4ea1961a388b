//! The open files of an image: made by the go-between, numbered by the processes.
//!
//! The go-between makes every open file once, at the lowest free number above all that the image uses; forks inherit
//! them, and each process puts its own descriptors where they belong ([`descriptors`]). What is made at the lowest free
//! number is known when the plan is made, because the plan keeps book of the numbers ([`Numbers`]). A few kinds can
//! only be made or set when the processes stand ([`settle`]).

mod descriptors;
mod maker;
mod settle;
mod sockets;

use std::collections::BTreeSet;

pub use descriptors::{close_made, descriptors, record_locks};
pub use settle::settle;

use super::list::{Arg, List};
use super::{Context, HostFacts, PlanError, RECEIVED, Received};
use crate::image::{Image, Kind};
use maker::Maker;

/// Descriptors that the making of files needs for a while.
const TEMPORARY: u64 = 16;

/// Book of the numbers that are free.
#[derive(Debug, Clone)]
pub struct Numbers {
    holes: BTreeSet<u64>,
    next: u64,
}

impl Numbers {
    /// The lowest free number, taken.
    pub fn take(&mut self) -> u64 {
        self.holes.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Gives a number back.
    pub fn free(&mut self, number: u64) {
        self.holes.insert(number);
    }

    /// The first number above all that were ever taken.
    fn end(&self) -> u64 {
        self.next
    }
}

/// Where an open file stands in the go-between and in every process that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At this number.
    At(u64),
    /// It came with the request.
    Received(Received),
    /// It is made by each process that has it.
    Late,
}

/// Two pipes by which the processes of an image wait for each other: read end and write end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sync {
    /// Each process but the first writes a byte when it is ready.
    pub ready: (u64, u64),
    /// The first process closes the write end when all may go.
    pub go: (u64, u64),
}

/// Where everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    inodes: Vec<u64>,
    places: Vec<Place>,
    /// The numbers of inodes and open files: the first one, and the first one above them.
    made: (u64, u64),
    /// Only for images of several processes.
    pub sync: Option<Sync>,
}

impl Files {
    /// The descriptor of an inode.
    pub fn inode(&self, index: u32) -> u64 {
        self.inodes[index as usize]
    }

    /// The descriptor of an open file, if it has one already.
    pub fn operand(&self, index: u32) -> Option<Arg> {
        match self.places[index as usize] {
            Place::At(number) => Some(number.into()),
            Place::Received(received) => Some(Arg::Slot(received as u64)),
            Place::Late => None,
        }
    }
}

impl Context<'_> {
    /// The control socket's number.
    pub fn control(&self) -> u64 {
        highest(self.image) as u64 + 1
    }

    /// How many descriptors come with a request.
    pub fn received(&self) -> u64 {
        (RECEIVED + self.host.cgroup_joins) as u64
    }
}

/// The highest descriptor number of an image.
pub fn highest(image: &Image) -> i32 {
    let processes = image.processes.iter().flat_map(|process| process.descriptors.last());
    let members = image.open_files.iter().flat_map(|file| match &file.kind {
        Some(Kind::Epoll(epoll)) => epoll.members.iter().map(|member| member.number).max(),
        _ => None,
    });
    processes.map(|descriptor| descriptor.number).chain(members).max().unwrap_or(2).max(2)
}

/// The limit of open files that a restore must raise first, if it must.
///
/// # Errors
/// [`PlanError::Descriptors`] when the host does not allow so many.
pub fn limit(image: &Image, host: &HostFacts) -> Result<Option<(u64, u64)>, PlanError> {
    let made = (image.open_files.len() * 2 + image.inodes.len()) as u64;
    let needed = highest(image) as u64 + 2 + (RECEIVED + host.cgroup_joins) as u64 + made + TEMPORARY;
    let limit = host.limits.iter().find(|(resource, _, _)| *resource == libc::RLIMIT_NOFILE);
    match limit {
        Some(&(_, _, hard)) if needed > hard => Err(PlanError::Descriptors { needed, limit: hard }),
        Some(&(_, soft, hard)) if needed > soft => Ok(Some((hard, hard))),
        _ => Ok(None),
    }
}

/// Makes every open file. Runs in the go-between.
pub fn make(list: &mut List, context: &Context<'_>) -> Files {
    let image = context.image;
    let next = context.control() + 1 + context.received();
    let mut maker = Maker::new(list, context, Numbers { holes: BTreeSet::new(), next });
    let sync = (super::process::living(image) > 1).then(|| Sync { ready: maker.pipe(0), go: maker.pipe(0) });
    let first = maker.numbers.end();
    maker.inodes();
    let fifos = maker.hold_fifos();
    for index in 0..image.open_files.len() {
        if maker.places[index] == Place::Late {
            maker.file(index);
        }
    }
    sockets::connect(&mut maker);
    sockets::fill(&mut maker);
    for number in fifos {
        maker.close(number);
    }
    let made = (first, maker.numbers.end());
    Files { inodes: maker.inodes, places: maker.places, made, sync }
}
