//! From an image to a flat list of system calls: a pure function, printable, comparable and testable without
//! privilege.
//!
//! A plan has three lists. *map* and *finish* make the template: the memory of the snapshot at its final addresses,
//! with a pause between them in which the loader fills the pages. *clone* is carried out for every restore: it forks
//! the template into a sandbox, makes there what a fork would share, creates the threads and releases them.
//!
//! **Until the last operation of *clone*, no instruction of the snapshot runs**, with one exception that stands after
//! all privilege is gone: the reseeding functions of its crypto libraries.
//!
//! Deliberately absent: the doing. [`crate::template`] starts processes and moves bytes.

pub mod area;
pub mod clone;
pub mod frame;
pub mod list;
pub mod template;

use std::fmt;
use std::ops::Range;

use crate::image::Image;
use crate::ops::Op;
use area::Area;
use list::List;

/// What a plan needs to know of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Address ranges that the loading process itself occupies; the interpreter must not lie there.
    pub occupied: Vec<(u64, u64)>,
    /// How many `cgroup.procs` files each clone writes itself into.
    pub cgroup_joins: usize,
    /// Whether clones change to the user of the image (as root they do; in a user namespace with one user they
    /// cannot).
    pub change_user: bool,
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
}

/// How many of [`Received`] there are.
pub const RECEIVED: usize = 6;

/// A whole plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where the interpreter lies.
    pub area: Area,
    /// Every operation, list after list.
    pub ops: Vec<Op>,
    /// What the operations point to, at [`Area::data`].
    pub data: Vec<u8>,
    /// Mappings.
    pub map: Range<u32>,
    /// What follows when the pages are in.
    pub finish: Range<u32>,
    /// One restore.
    pub clone: Range<u32>,
    /// The control socket's number in the template.
    pub control: i32,
}

/// No place for the interpreter, or more than it can hold.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The address space has no hole.
    #[error("the image leaves no hole of {0} bytes for the interpreter")]
    NoHole(u64),
    /// Too many descriptors.
    #[error(
        "the image needs descriptor {0}, and the engine keeps the numbers from {DESCRIPTOR_MAX} on for itself"
    )]
    Descriptor(i32),
}

/// The highest descriptor number that an image may use: the engine needs a few above it below the usual limit of
/// 1,024.
pub const DESCRIPTOR_MAX: i32 = 1000;

/// Makes the plan for an image on a host.
///
/// # Errors
/// [`PlanError`] when the image cannot be restored by this engine.
pub fn plan(image: &Image, host: &HostFacts) -> Result<Plan, PlanError> {
    let highest = image.descriptors.last().map_or(2, |descriptor| descriptor.number.max(2));
    if highest > DESCRIPTOR_MAX {
        return Err(PlanError::Descriptor(highest));
    }
    // Addresses enter the operations but not their number, so a first build at any address tells the size.
    let trial = build(image, host, Area::at(area::LOWEST, image), highest);
    let bytes = trial.area.bytes(trial.data.len(), trial.ops.len());
    let start = area::find_hole(image, &host.occupied, bytes).ok_or(PlanError::NoHole(bytes))?;
    Ok(build(image, host, Area::at(start, image), highest))
}

fn build(image: &Image, host: &HostFacts, area: Area, highest: i32) -> Plan {
    let mut list = List::new(area.data());
    let map = list.part(|list| template::map(list, image, &area));
    let finish = list.part(|list| template::finish(list, image));
    let clone = list.part(|list| clone::clone(list, image, host, &area, highest));
    let (ops, data) = list.into_parts();
    Plan { area, ops, data, map, finish, clone, control: highest + 1 }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "interpreter at {:#x}, control socket {}", self.area.start, self.control)?;
        for (name, range) in [("map", &self.map), ("finish", &self.finish), ("clone", &self.clone)] {
            writeln!(out, "{name}: {} operations", range.len())?;
            for index in range.clone() {
                writeln!(out, "{index:6}  {}", list::Shown(&self.ops[index as usize]))?;
            }
        }
        Ok(())
    }
}
