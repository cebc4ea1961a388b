//! Mappings and the pages in them.
//!
//! What a sandbox has anyway is not saved: pages that a private mapping shares with its file, and pages of zeros in
//! anonymous memory. What must not come back is not saved either: wipe-on-fork and droppable pages. Shared memory
//! belongs to its inode, which is saved once.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use linux::memory::{Query, page, scan};

use super::family::Member;
use super::inodes::{Inodes, extents, map_file};
use super::pages::{Memory, Pages, Source};
use super::smaps::Map;
use super::{CheckpointError, Doing};
use crate::image::{Backing, MappedFile, Mapping, PageRun, flags};

/// The memory of a process.
#[derive(Default)]
pub struct Saved {
    /// Mappings, ascending.
    pub mappings: Vec<Mapping>,
    /// Saved pages, ascending.
    pub runs: Vec<PageRun>,
}

/// Describes every mapping of a process and saves its pages. `alone` says that the image has no other process.
pub fn save(
    (member, alone): (&Member, bool),
    maps: &[Map],
    writable: Option<&Path>,
    inodes: &mut Inodes,
    files: &mut Vec<MappedFile>,
    pages: &mut Pages<'_>,
) -> Result<Saved, CheckpointError> {
    let pid = member.host_pid;
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).doing("open the page map", pid)?;
    let memory = Memory::open(pid, alone)?;
    let mut saved = Saved::default();
    for map in maps {
        let backing = backing(member, map, writable, inodes)?;
        let file = match backing {
            Backing::File | Backing::SharedFile => file(member, map, files)?,
            Backing::Inode => inodes.of_mapping(member, map)?,
            Backing::Anonymous | Backing::Vdso => 0,
        };
        let mut mapping = describe(map, backing, file);
        let looker = Looker { pid, pagemap: &pagemap, map };
        let content = looker.ranges(&mut mapping)?;
        // Zeros over a file's content are content.
        let zeros_are_free = backing != Backing::File;
        for range in content {
            pages.save(&Source::Memory(&memory), range, zeros_are_free, &mut saved.runs, pid)?;
        }
        saved.mappings.push(mapping);
    }
    Ok(saved)
}

fn describe(map: &Map, backing: Backing, file: u32) -> Mapping {
    let name = map.name.strip_prefix("[anon:").and_then(|name| name.strip_suffix(']'));
    Mapping {
        start: map.start,
        end: map.end,
        protection: map.protection,
        backing: backing.into(),
        file,
        offset: map.offset,
        flags: flag_bits(map),
        guards: Vec::new(),
        name: name.unwrap_or_default().to_owned(),
    }
}

fn backing(
    member: &Member,
    map: &Map,
    writable: Option<&Path>,
    inodes: &Inodes,
) -> Result<Backing, CheckpointError> {
    if map.name == "[vdso]" || map.name.starts_with("[vvar") {
        return Ok(Backing::Vdso);
    }
    refuse_special(member, map)?;
    if !map.has_file() {
        return Ok(Backing::Anonymous);
    }
    let deleted = map.name.ends_with(" (deleted)");
    let in_memory = inodes.is_memory(map.device);
    if map.shared {
        let own = in_memory || deleted || inodes.is_kept_by_name(&map.name);
        return Ok(if own { Backing::Inode } else { Backing::SharedFile });
    }
    // What the function may change, or what has no name any more, is saved whole.
    let changes = writable.is_some_and(|writable| Path::new(&map.name).starts_with(writable))
        || inodes.is_kept_by_name(&map.name);
    if deleted || in_memory || changes || map.name == "/dev/zero" {
        return Ok(Backing::Anonymous);
    }
    Ok(Backing::File)
}

/// Refuses mappings whose meaning an image cannot hold.
fn refuse_special(member: &Member, map: &Map) -> Result<(), CheckpointError> {
    const CLOSE: &str = "unmap it in a before-snapshot hook and map it again in an after-restore hook";
    let refuse = |what: &str, remedy| {
        Err(CheckpointError::Unsupported {
            what: format!("{what} at {:x} ({}) in {}", map.start, map.name, member.title()),
            remedy,
        })
    };
    let execute_only = map.protection == libc::PROT_EXEC as u32;
    let of_a_file = map.name.starts_with('/') || map.name.starts_with("[anon_shmem:");
    if map.name == "[uprobes]" {
        return refuse("a page of probes", "stop tracing the process with uprobes");
    }
    if map.has(b"ht") {
        return refuse("a mapping of huge pages of their own file system", "use transparent huge pages");
    }
    if map.name.starts_with("/SYSV") {
        return refuse("a System V shared memory segment", "use shared anonymous memory or a memory file");
    }
    if map.name.starts_with("/secretmem") {
        return refuse("secret memory", CLOSE);
    }
    if map.has(b"um") || map.has(b"uw") || map.has(b"ui") {
        return refuse("a mapping that a userfaultfd watches", "end its use before the snapshot");
    }
    if map.has(b"ss") {
        return refuse(
            "a shadow stack",
            "run it without shadow stacks (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)",
        );
    }
    if map.key != 0 && !execute_only {
        return refuse("a mapping with a memory protection key", "run it without pkey_mprotect");
    }
    if map.has_file() && !of_a_file {
        return refuse("a mapping of something that is no file", CLOSE);
    }
    if !map.has_file() && map.shared {
        return refuse("a shared mapping of nothing", CLOSE);
    }
    Ok(())
}

fn flag_bits(map: &Map) -> u32 {
    let words = [
        (b"gd", flags::GROWS_DOWN),
        (b"nr", flags::NO_RESERVE),
        (b"hg", flags::HUGE),
        (b"nh", flags::NO_HUGE),
        (b"dc", flags::DONT_FORK),
        (b"wf", flags::WIPE_ON_FORK),
        (b"dp", flags::DROPPABLE),
        (b"lo", flags::LOCKED),
        (b"dd", flags::DONT_DUMP),
    ];
    let bits: u32 = words.iter().filter(|(word, _)| map.has(word)).map(|(_, bit)| bit).sum();
    if map.shared && map.has(b"mw") { bits | flags::MAY_WRITE } else { bits }
}

/// The index of the mapping's file, which is noted with what tells it from another of the same name.
fn file(member: &Member, map: &Map, files: &mut Vec<MappedFile>) -> Result<u32, CheckpointError> {
    // Neighbors mostly map the same file, and libraries are few.
    if let Some(index) = files.iter().rposition(|file| file.path == map.name) {
        return Ok(index as u32);
    }
    let path = format!("/proc/{}/root{}", member.host_pid, map.name);
    let metadata = std::fs::symlink_metadata(path).map_err(|_| CheckpointError::Unsupported {
        what: format!("a mapping of {} in {}, which is not found by that name,", map.name, member.title()),
        remedy: "map files that every sandbox has",
    })?;
    files.push(mapped_file(map.name.clone(), &metadata));
    Ok(files.len() as u32 - 1)
}

/// What an image notes of a file.
#[must_use]
pub fn mapped_file(path: String, metadata: &std::fs::Metadata) -> MappedFile {
    // A device's size and time say nothing: every sandbox has its own.
    let regular = metadata.is_file() && !path.starts_with("/dev/");
    let modified_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    MappedFile {
        path,
        bytes: if regular { metadata.len() } else { 0 },
        modified_ns: if regular { modified_ns } else { 0 },
    }
}

type Ranges = Vec<(u64, u64)>;

/// Looks for the content of one mapping.
struct Looker<'a> {
    pid: i32,
    pagemap: &'a File,
    map: &'a Map,
}

impl Looker<'_> {
    /// The ranges of a mapping that hold content of its own; its guard ranges are noted in it.
    fn ranges(&self, mapping: &mut Mapping) -> Result<Ranges, CheckpointError> {
        let any = page::PRESENT | page::SWAPPED;
        let content = match mapping.backing() {
            Backing::Vdso | Backing::SharedFile | Backing::Inode => return Ok(Vec::new()),
            _ if mapping.flags & (flags::WIPE_ON_FORK | flags::DROPPABLE) != 0 => Vec::new(),
            Backing::File => self.scan(Query { any, none: page::FILE | page::ZERO, ..Query::default() })?,
            Backing::Anonymous => {
                let touched = self.scan(Query { any, none: page::ZERO, ..Query::default() })?;
                union(touched, self.of_file())
            }
        };
        // A kernel before 6.15 has neither guard ranges nor the question.
        let guards = self.scan(Query { all: page::GUARD, ..Query::default() }).unwrap_or_default();
        let content = subtract(content, &guards);
        mapping.guards = guards.into_iter().flat_map(|(start, end)| [start, end]).collect();
        Ok(content)
    }

    fn scan(&self, query: Query) -> Result<Ranges, CheckpointError> {
        scan(self.pagemap, self.map.start, self.map.end, query).doing("scan the page map", self.pid)
    }

    /// Where the file behind a private mapping that is saved whole has data: the page tables tell only what has been
    /// touched.
    fn of_file(&self) -> Ranges {
        let map = self.map;
        if !map.has_file() || map.name == "/dev/zero" {
            return Vec::new();
        }
        let by_name = format!("/proc/{}/root{}", self.pid, map.name);
        let Ok(file) = File::open(map_file(self.pid, map)).or_else(|_| File::open(by_name)) else {
            return vec![(map.start, map.end)];
        };
        let end = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        let end = end.min(map.offset + (map.end - map.start));
        let in_memory = |(from, to): (u64, u64)| {
            let address = |offset: u64| map.start + offset.saturating_sub(map.offset);
            (address(from), address(to).min(map.end))
        };
        extents(&file, map.offset, end).into_iter().map(in_memory).filter(|(from, to)| from < to).collect()
    }
}

/// What either of two ascending lists of ranges covers.
fn union(one: Ranges, other: Ranges) -> Ranges {
    if one.is_empty() || other.is_empty() {
        return if one.is_empty() { other } else { one };
    }
    let mut all: Ranges = one.into_iter().chain(other).collect();
    all.sort_unstable();
    let mut union: Ranges = Vec::with_capacity(all.len());
    for (start, end) in all {
        match union.last_mut() {
            Some(last) if last.1 >= start => last.1 = last.1.max(end),
            _ => union.push((start, end)),
        }
    }
    union
}

/// What is left of `ranges` without `holes`; both ascending.
fn subtract(ranges: Ranges, holes: &[(u64, u64)]) -> Ranges {
    let mut left = Vec::new();
    for (from, end) in ranges {
        let mut start = from;
        for &(hole_start, hole_end) in holes.iter().filter(|hole| hole.0 < end && hole.1 > from) {
            if hole_start > start {
                left.push((start, hole_start));
            }
            start = hole_end;
        }
        if start < end {
            left.push((start, end));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_cut_out() {
        assert_eq!(subtract(vec![(0, 10)], &[(2, 4), (8, 12)]), [(0, 2), (4, 8)]);
        assert_eq!(subtract(vec![(0, 10)], &[]), [(0, 10)]);
        assert_eq!(subtract(vec![(2, 4)], &[(0, 10)]), []);
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(union(vec![(0, 2), (4, 6)], vec![(1, 4), (8, 9)]), [(0, 6), (8, 9)]);
        assert_eq!(union(vec![], vec![(1, 4)]), [(1, 4)]);
    }
}
