//! What every image must be before a plan is made from it: counts within bounds, ranges in order, every index in place,
//! every number one that the kernel could have given.
//!
//! An image lies on a disk and is read by a process with privilege, so nothing in it may lead the planner to a panic,
//! to memory without bound, or to a page that is loaded over the engine's own code. Deliberately absent: whether the
//! host can restore it ([`crate::template::check_host`]), and paths of the saved tree, which are checked where they are
//! laid out.

mod file;
mod process;

use std::collections::HashSet;

use super::{Image, Inode, PageRun, SEALS_NONE};

/// The most elements that any list of an image may have.
const COUNT_MAX: usize = 1 << 20;
/// The most processes: as many as a sandbox may hold.
const PROCESSES_MAX: usize = 1024;
/// The longest line from a process to its furthest descendant: each generation takes of the interpreter's stack.
const DEPTH_MAX: usize = 64;
/// The most open files and the most descriptors of one process.
const OPEN_FILES_MAX: usize = 1 << 16;
/// The most IDs of POSIX timers, and of inotify watches, that a restore counts up through.
const IDS_MAX: u64 = 1 << 16;
/// The most bytes of saved pages.
const PAGE_BYTES_MAX: u64 = 1 << 40;
/// End of user space with four-level page tables.
const ADDRESS_MAX: u64 = 1 << 47;
/// `PATH_MAX`.
const TEXT_BYTES_MAX: usize = 4096;
/// The highest process ID of any kernel (`PID_MAX_LIMIT`).
const PID_MAX: i32 = 1 << 22;
const PAGE: u64 = 4096;

/// Checks a decoded image.
pub fn image(image: &Image) -> Result<(), &'static str> {
    let counts = [image.inodes.len(), image.files.len(), image.tree.len()];
    if counts.iter().any(|&count| count > COUNT_MAX)
        || image.processes.len() > PROCESSES_MAX
        || image.open_files.len() > OPEN_FILES_MAX
    {
        return Err("it lists too much");
    }
    if image.processes.first().is_none_or(|root| root.ended.is_some()) {
        return Err("it has no process");
    }
    if !image.files.iter().all(|file| text(&file.path)) {
        return Err("a path is too long or holds a zero byte");
    }
    family(image)?;
    image.processes.iter().try_for_each(|process| process::process(image, process))?;
    image.inodes.iter().try_for_each(inode)?;
    image.open_files.iter().try_for_each(|file| file::open_file(image, file))?;
    totals(image)
}

/// Parents come before their children, every ID is there once, and groups and sessions have their leaders.
fn family(image: &Image) -> Result<(), &'static str> {
    let mut depths = Vec::with_capacity(image.processes.len());
    let mut ids = HashSet::new();
    for (index, process) in image.processes.iter().enumerate() {
        if process.parent as usize > index {
            return Err("a process comes before its parent");
        }
        let parent = (process.parent as usize).checked_sub(1).map(|at| (&image.processes[at], depths[at]));
        let depth: usize = parent.map_or(0, |(_, depth)| depth + 1);
        if depth > DEPTH_MAX {
            return Err("its processes are nested too deeply");
        }
        depths.push(depth);
        if parent.is_some_and(|(parent, _)| parent.ended.is_some()) {
            return Err("a process has a parent that has ended");
        }
        let with_parent = parent.is_some_and(|(parent, _)| {
            [process.parent, parent.shares_descriptors].contains(&process.shares_descriptors)
        });
        if process.shares_descriptors != 0 && (!with_parent || process.ended.is_some()) {
            return Err("a process shares the descriptors of another one than its parent");
        }
        // Its table might be born with holes that the plan does not expect.
        let of_sharer = parent.is_some_and(|(parent, _)| parent.shares_descriptors != 0);
        if of_sharer && process.shares_descriptors == 0 && process.ended.is_none() {
            return Err("a process that shares descriptors has a child that does not");
        }
        let mut threads = process.threads.iter().skip(1).map(|thread| thread.tid);
        if !ids.insert(process.pid) || !threads.all(|tid| ids.insert(tid)) {
            return Err("two of its processes or threads have one ID");
        }
    }
    let leads = |id: i32, of: fn(&super::Process) -> i32| {
        id == 0 || image.processes.iter().any(|process| process.pid == id && of(process) == id)
    };
    let led = image.processes.iter().all(|process| {
        leads(process.group, |process| process.group) && leads(process.session, |process| process.session)
    });
    if led { Ok(()) } else { Err("a process group or a session has no leader") }
}

fn inode(inode: &Inode) -> Result<(), &'static str> {
    let inside = inode.runs.last().is_none_or(|run| run.address < inode.bytes.next_multiple_of(PAGE));
    if inode.bytes >= ADDRESS_MAX || inode.runs.len() > COUNT_MAX || !runs(&inode.runs) || !inside {
        return Err("the pages of a file overlap");
    }
    let sealed_by_name = inode.directory.is_some() && ![0, SEALS_NONE].contains(&inode.seals);
    if sealed_by_name || !text(&inode.name) || !inode.directory.as_deref().is_none_or(text) {
        return Err("a file without a name is not whole");
    }
    Ok(())
}

/// What is harmless by itself and too much together.
fn totals(image: &Image) -> Result<(), &'static str> {
    let of_processes = image.processes.iter().flat_map(|process| &process.runs);
    let mut runs = of_processes.chain(image.inodes.iter().flat_map(|inode| &inode.runs));
    let page_bytes = runs.try_fold(0_u64, |sum, run| sum.checked_add(run.bytes));
    let timers = image.processes.iter().filter_map(|process| process.timers.last());
    let ids = timers
        .map(|timer| u64::from(timer.id))
        .chain(image.open_files.iter().map(file::watches))
        .sum::<u64>();
    if page_bytes.is_none_or(|bytes| bytes > PAGE_BYTES_MAX) || ids > IDS_MAX {
        return Err("its pages, timers or watches are too many");
    }
    Ok(())
}

/// Whether page-aligned pieces of memory or of a file follow each other, and each can be found in the stream.
fn runs(runs: &[PageRun]) -> bool {
    ascending(runs.iter().map(|run| (run.address, run.address.saturating_add(run.bytes))))
        && runs.iter().all(|run| run.offset.checked_add(run.bytes).is_some())
}

/// Whether page-aligned ranges of user space follow each other without overlap.
fn ascending(mut ranges: impl Iterator<Item = (u64, u64)>) -> bool {
    let mut end = 0;
    ranges.all(|(from, to)| {
        let good = from >= end
            && to > from
            && from.is_multiple_of(PAGE)
            && to.is_multiple_of(PAGE)
            && to < ADDRESS_MAX;
        end = to;
        good
    })
}

/// Whether a text can be handed to the kernel as it is.
fn text(text: &str) -> bool {
    text.len() < TEXT_BYTES_MAX && !text.contains('\0')
}

/// Whether a signal number is one, or zero for none.
fn signal(number: u32) -> bool {
    number <= 64
}
