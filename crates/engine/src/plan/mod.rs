//! From an image to a flat list of system calls: a pure function, printable, comparable and testable without
//! privilege.
//!
//! A plan has three lists. *map* and *finish* make the template: the memory of the snapshot, that of the first process
//! at its final addresses and the rest in the stash, with a pause between them in which the loader fills the pages.
//! *clone* is carried out for every restore: it makes the open files, forks the template into a sandbox once for each
//! process, gives each what a fork would share or lose, creates the threads and releases them.
//!
//! **Until the last operation of *clone*, no instruction of the snapshot runs**, with one exception that stands after
//! all privilege is gone: the reseeding functions of its crypto libraries.
//!
//! Deliberately absent: the doing. [`crate::template`] starts processes and moves bytes.

pub mod area;
mod clone;
mod files;
mod filters;
pub mod frame;
pub mod list;
mod memory;
mod process;
pub mod stash;
mod template;
mod threads;

use std::fmt;
use std::ops::Range;

pub use clone::WRITE_SET_SLOT;

use crate::image::Image;
use crate::ops::{Code, Op};
use area::Area;
use list::List;
use stash::{Load, Stash};

/// Who a restored process acts as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Privilege {
    /// The image's user, without any capability: for environments of functions.
    #[default]
    Drop,
    /// Whoever restores, without any capability: in a user namespace that maps one user only.
    DropKeepUser,
    /// As the image says: for a person who restores processes of their own.
    AsSaved,
}

/// What a plan needs to know of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Address ranges that the loading process itself occupies; the interpreter must not lie there.
    pub occupied: Vec<(u64, u64)>,
    /// How many `cgroup.procs` files each clone writes itself into.
    pub cgroup_joins: usize,
    /// Who clones act as.
    pub privilege: Privilege,
    /// Resource limits that a new process has anyway, as resource, soft and hard.
    pub limits: Vec<(u32, u64, u64)>,
}

/// The descriptors that come with a request to restore, in this order, followed by the `cgroup.procs` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Received {
    /// A pidfd of the sandbox's init.
    Sandbox = 0,
    /// The time namespace to enter.
    TimeNamespace = 1,
    /// Write end of standard output.
    Stdout = 2,
    /// Write end of standard error.
    Stderr = 3,
    /// The fresh Runtime API connection.
    Pending = 4,
    /// Gives one byte when the clone may go.
    Release = 5,
    /// Standard input.
    Stdin = 6,
}

/// How many of [`Received`] there are.
pub const RECEIVED: usize = 7;

/// A whole plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where the interpreter lies.
    pub area: Area,
    /// Every operation, list after list.
    pub ops: Vec<Op>,
    /// What the operations point to, at [`Area::data`].
    pub data: Vec<u8>,
    /// Where the pages go.
    pub loads: Vec<Load>,
    /// Mappings.
    pub map: Range<u32>,
    /// What follows when the pages are in.
    pub finish: Range<u32>,
    /// One restore.
    pub clone: Range<u32>,
    /// The control socket's number in the template.
    pub control: i32,
    /// Whether the template gives up for good what clones must never have.
    pub confine: bool,
}

/// Why an image cannot be restored by this engine on this host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// The address space has no hole.
    #[error("the image leaves no hole in its address space for the engine")]
    NoHole,
    /// The operations do not fit.
    #[error("the image needs {0} operations, more than the engine has room for")]
    TooLong(usize),
    /// The limit of open files is too low.
    #[error(
        "the image needs {needed} descriptors at a time while it is restored, and this host allows {limit}; raise the \
         limit of open files (ulimit -n) of the server"
    )]
    Descriptors {
        /// How many.
        needed: u64,
        /// The host's hard limit.
        limit: u64,
    },
}

/// What every part of a plan looks at.
struct Context<'a> {
    image: &'a Image,
    host: &'a HostFacts,
    area: &'a Area,
    stash: &'a Stash,
}

/// Makes the plan for an image on a host.
///
/// # Errors
/// [`PlanError`] when the image cannot be restored by this engine.
pub fn plan(image: &Image, host: &HostFacts) -> Result<Plan, PlanError> {
    let stash = Stash::of(image);
    let start = area::find_hole(image, &host.occupied, stash.bytes).ok_or(PlanError::NoHole)?;
    let area = Area::at(start, image, stash.bytes);
    let stash = stash.at(area.stash());
    let files_max = files::limit(image, host)?;
    let context = Context { image, host, area: &area, stash: &stash };
    let mut list = List::new(area.data());
    let map = list.part(|list| template::map(list, &context));
    let finish = list.part(|list| template::finish(list, &context, files_max));
    let clone = list.part(|list| clone::clone(list, &context));
    let (ops, data) = list.into_parts();
    if !area.holds(data.len(), ops.len()) {
        return Err(PlanError::TooLong(ops.len()));
    }
    let (loads, control) = (stash.loads(image), context.control() as i32);
    Ok(Plan {
        area,
        ops,
        data,
        loads,
        map,
        finish,
        clone,
        control,
        confine: host.privilege != Privilege::AsSaved,
    })
}

impl Plan {
    /// An operation on one line, with the path that it names.
    #[must_use]
    pub fn show(&self, index: usize) -> Option<String> {
        let op = self.ops.get(index)?;
        let path = match i64::from(op.number) {
            libc::SYS_openat2 | libc::SYS_inotify_add_watch => self.text(op.args[1]),
            libc::SYS_chdir | libc::SYS_chmod | libc::SYS_lchown => self.text(op.args[0]),
            _ => None,
        };
        Some(match path {
            Some(path) if op.code == Code::Syscall => format!("{}  [{path}]", list::Shown(op)),
            _ => list::Shown(op).to_string(),
        })
    }

    /// Every operation on one line.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        (0..self.ops.len()).filter_map(|index| self.show(index)).collect()
    }

    /// The C string at an address of the data.
    fn text(&self, address: u64) -> Option<&str> {
        let bytes = self.data.get(usize::try_from(address.checked_sub(self.area.data())?).ok()?..)?;
        std::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "interpreter at {:#x}, control socket {}", self.area.start, self.control)?;
        for (name, range) in [("map", &self.map), ("finish", &self.finish), ("clone", &self.clone)] {
            writeln!(out, "{name}: {} operations", range.len())?;
            for index in range.clone() {
                writeln!(out, "{index:6}  {}", self.show(index as usize).unwrap_or_default())?;
            }
        }
        Ok(())
    }
}
