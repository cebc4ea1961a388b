//! Mappings and the pages in them.
//!
//! What a sandbox has anyway is not saved: pages that a private mapping shares with its file, and pages of zeros in
//! anonymous memory. What must not come back is not saved either: wipe-on-fork and droppable pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use linux::memory::{Query, page, scan};

use super::smaps::Map;
use super::{CheckpointError, Doing, Sink};
use crate::image::{Backing, Image, MappedFile, Mapping, PageRun, flags};

const PAGE: u64 = 4096;
/// How much is read at once.
const BUFFER_BYTES: u64 = 1 << 20;

/// Describes every mapping and saves its pages.
pub fn save(
    pid: i32,
    maps: &[Map],
    writable: &Path,
    image: &mut Image,
    sink: &mut dyn Sink,
) -> Result<(), CheckpointError> {
    let memory = File::open(format!("/proc/{pid}/mem")).doing("open the memory", pid)?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).doing("open the page map", pid)?;
    let mut saver = Saver { pid, memory, pagemap, runs: Vec::new(), offset: 0, sink };
    for map in maps {
        let mut mapping = describe(pid, map, writable, image)?;
        let (content, guards) = saver.ranges(map, &mapping)?;
        mapping.guards = guards;
        for (start, end) in content {
            saver.range(start, end, &mapping)?;
        }
        image.mappings.push(mapping);
    }
    image.runs = saver.runs;
    Ok(())
}

fn describe(pid: i32, map: &Map, writable: &Path, image: &mut Image) -> Result<Mapping, CheckpointError> {
    let backing = backing(pid, map, writable)?;
    let file =
        if matches!(backing, Backing::File | Backing::SharedFile) { file(pid, map, image)? } else { 0 };
    Ok(Mapping {
        start: map.start,
        end: map.end,
        protection: map.protection,
        backing: backing.into(),
        file,
        offset: map.offset,
        flags: flag_bits(map),
        guards: Vec::new(),
    })
}

fn backing(pid: i32, map: &Map, writable: &Path) -> Result<Backing, CheckpointError> {
    if map.name == "[vdso]" || map.name.starts_with("[vvar") {
        return Ok(Backing::Vdso);
    }
    let on_disk = map.name.starts_with('/') && map.inode != 0;
    let deleted = map.name.ends_with(" (deleted)");
    let in_memory = ["/memfd:", "/dev/zero", "/SYSV"].iter().any(|start| map.name.starts_with(start));
    match (map.shared, on_disk) {
        (true, true) if in_memory => Ok(Backing::SharedAnonymous),
        (true, true) if deleted => Err(CheckpointError::Unsupported {
            what: format!("a shared mapping of the deleted file {} in process {pid}", map.name),
            remedy: "unmap it in a before-snapshot hook",
        }),
        (true, true) => Ok(Backing::SharedFile),
        (true, false) => Ok(Backing::SharedAnonymous),
        // What the function may change, or what has no name any more, is saved whole.
        (false, true) if deleted || in_memory || Path::new(&map.name).starts_with(writable) => {
            Ok(Backing::Anonymous)
        }
        (false, true) => Ok(Backing::File),
        (false, false) => Ok(Backing::Anonymous),
    }
}

fn flag_bits(map: &Map) -> u32 {
    [
        ("gd", flags::GROWS_DOWN),
        ("nr", flags::NO_RESERVE),
        ("hg", flags::HUGE),
        ("nh", flags::NO_HUGE),
        ("dc", flags::DONT_FORK),
        ("wf", flags::WIPE_ON_FORK),
        ("dp", flags::DROPPABLE),
        ("lo", flags::LOCKED),
        ("dd", flags::DONT_DUMP),
    ]
    .iter()
    .filter(|(word, _)| map.has(word))
    .map(|(_, bit)| bit)
    .sum()
}

/// The index of the mapping's file, which is noted with what tells it from another of the same name.
fn file(pid: i32, map: &Map, image: &mut Image) -> Result<u32, CheckpointError> {
    if let Some(index) = image.files.iter().position(|file| file.path == map.name) {
        return Ok(index as u32);
    }
    let path = format!("/proc/{pid}/root{}", map.name);
    let metadata = std::fs::symlink_metadata(path).doing("look at a mapped file", pid)?;
    image.files.push(mapped_file(map.name.clone(), &metadata));
    Ok(image.files.len() as u32 - 1)
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

struct Saver<'a> {
    pid: i32,
    memory: File,
    pagemap: File,
    runs: Vec<PageRun>,
    offset: u64,
    sink: &'a mut dyn Sink,
}

type Ranges = Vec<(u64, u64)>;

impl Saver<'_> {
    /// The ranges of a mapping that hold content of its own, and its guard ranges as start and end in turn.
    fn ranges(&self, map: &Map, mapping: &Mapping) -> Result<(Ranges, Vec<u64>), CheckpointError> {
        let present = page::PRESENT | page::SWAPPED;
        let private_of_file = Query { any: present, none: page::FILE | page::ZERO, ..Query::default() };
        let content = match mapping.backing() {
            Backing::Vdso | Backing::SharedFile => return Ok((Vec::new(), Vec::new())),
            _ if mapping.flags & (flags::WIPE_ON_FORK | flags::DROPPABLE) != 0 => Vec::new(),
            // Saved whole: the page tables tell only what has been touched.
            Backing::SharedAnonymous => vec![(map.start, map.end)],
            Backing::Anonymous if map.inode != 0 => vec![(map.start, map.end)],
            Backing::File => self.scan(map, private_of_file)?,
            Backing::Anonymous => {
                self.scan(map, Query { any: present, none: page::ZERO, ..Query::default() })?
            }
        };
        // A kernel before 6.15 has neither guard ranges nor the question.
        let guards = self.scan(map, Query { all: page::GUARD, ..Query::default() }).unwrap_or_default();
        let content = subtract(content, &guards);
        Ok((content, guards.into_iter().flat_map(|(start, end)| [start, end]).collect()))
    }

    fn scan(&self, map: &Map, query: Query) -> Result<Ranges, CheckpointError> {
        scan(&self.pagemap, map.start, map.end, query).doing("scan the page map", self.pid)
    }

    /// Saves a range, leaving out pages of zeros where zeros are what a new mapping holds.
    fn range(&mut self, start: u64, end: u64, mapping: &Mapping) -> Result<(), CheckpointError> {
        let zeros_are_free = mapping.backing() != Backing::File;
        let mut buffer = vec![0; BUFFER_BYTES.min(end - start) as usize];
        let mut address = start;
        while address < end {
            let bytes = &mut buffer[..BUFFER_BYTES.min(end - address) as usize];
            read_pages(&self.memory, address, bytes).doing("read the memory", self.pid)?;
            for (index, page) in bytes.chunks_exact(PAGE as usize).enumerate() {
                if !(zeros_are_free && is_zero(page)) {
                    self.page(address + index as u64 * PAGE, page)?;
                }
            }
            address += bytes.len() as u64;
        }
        Ok(())
    }

    fn page(&mut self, address: u64, page: &[u8]) -> Result<(), CheckpointError> {
        self.sink.pages(page).map_err(CheckpointError::Sink)?;
        match self.runs.last_mut() {
            Some(run) if run.address + run.bytes == address => run.bytes += PAGE,
            _ => self.runs.push(PageRun { address, bytes: PAGE, offset: self.offset }),
        }
        self.offset += PAGE;
        Ok(())
    }
}

/// Reads whole pages. A page that cannot be read (behind the end of a mapped file) counts as zeros.
fn read_pages(memory: &File, address: u64, bytes: &mut [u8]) -> io::Result<()> {
    if memory.read_exact_at(bytes, address).is_ok() {
        return Ok(());
    }
    for (index, page) in bytes.chunks_exact_mut(PAGE as usize).enumerate() {
        match memory.read_exact_at(page, address + index as u64 * PAGE) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EIO) => page.fill(0),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_zero(page: &[u8]) -> bool {
    page.chunks_exact(64).all(|line| line.iter().fold(0, |sum, byte| sum | byte) == 0)
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
}
