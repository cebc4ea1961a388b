//! Which pages a clone has needed by the end of its first request.
//!
//! A page that a clone has copied, or made, is its own alone, and the page map says so (`PM_MMAP_EXCLUSIVE`) to an
//! ordinary user too. Later clones copy these ahead, in bulk. Pages of files that are in the clone's page tables are those
//! that it has looked at, and their neighbors; later clones are born with them.
//!
//! Huge pages are passed over: a clone that writes into one gets a small page of its own there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use linux::memory::{Query, page, scan};

use crate::image::{Backing, Image, flags};

const PAGE: u64 = 4096;
const EXCLUSIVE: u64 = 1 << 56;
/// A first request that wrote more than this is not what the next one is helped by.
const WRITTEN_PAGES_MAX: u64 = 2048;
/// Nor by more of its files than this.
const FILE_PAGES_MAX: u64 = 16 * 1024;

/// An address range: start and end.
pub type Range = (u64, u64);

/// Where a clone's pages are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Private memory.
    pub memory: Vec<Range>,
    /// Private mappings of files, and whether the snapshot holds pages of them.
    pub files: Vec<(Range, bool)>,
}

/// What a clone has needed.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// Pages that it has written to, ascending. Empty when there are too many.
    pub written: Vec<Range>,
    /// For each mapping of a file: its pages that are in the clone's page tables. Empty when there are too many.
    pub files: Vec<Vec<Range>>,
}

/// The places in the first process of an image.
#[must_use]
pub fn places(image: &Image) -> Places {
    let root = image.root();
    let private =
        root.mappings.iter().filter(|one| matches!(one.backing(), Backing::Anonymous | Backing::File));
    let kept = private.filter(|mapping| mapping.flags & (flags::WIPE_ON_FORK | flags::DROPPABLE) == 0);
    let mut places = Places::default();
    for mapping in kept {
        let range = (mapping.start, mapping.end);
        places.memory.push(range);
        if mapping.backing() == Backing::File {
            let first = root.runs.partition_point(|run| run.address + run.bytes <= mapping.start);
            let holds = root.runs.get(first).is_some_and(|run| run.address < mapping.end);
            places.files.push((range, holds));
        }
    }
    places
}

/// What process `pid` has needed of `places`.
///
/// # Errors
/// When the page map cannot be read; before Linux 6.7 it cannot be asked in this way.
pub fn record(pid: i32, places: &Places) -> io::Result<Needed> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut written = Vec::new();
    for &(start, end) in &places.memory {
        let own = Query { all: page::PRESENT, none: page::FILE | page::HUGE | page::ZERO, any: 0 };
        for range in scan(&pagemap, start, end, own)? {
            exclusive(&pagemap, range, &mut written)?;
        }
    }
    let looked_at = Query { all: page::PRESENT | page::FILE, any: 0, none: 0 };
    let of_file = |&((start, end), _): &(Range, bool)| scan(&pagemap, start, end, looked_at);
    let files = places.files.iter().map(of_file).collect::<io::Result<Vec<_>>>()?;
    Ok(Needed {
        written: if pages(&written) > WRITTEN_PAGES_MAX { Vec::new() } else { written },
        files: if files.iter().map(|file| pages(file)).sum::<u64>() > FILE_PAGES_MAX {
            Vec::new()
        } else {
            files
        },
    })
}

/// Adds the pages of a range that the process has to itself.
fn exclusive(pagemap: &File, (start, end): Range, found: &mut Vec<Range>) -> io::Result<()> {
    let mut entries = vec![0; ((end - start) / PAGE * 8) as usize];
    pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
    for (index, entry) in entries.chunks_exact(8).enumerate() {
        if u64::from_ne_bytes(entry.try_into().unwrap_or_default()) & EXCLUSIVE != 0 {
            let address = start + index as u64 * PAGE;
            match found.last_mut() {
                Some(last) if last.1 == address => last.1 += PAGE,
                _ => found.push((address, address + PAGE)),
            }
        }
    }
    Ok(())
}

fn pages(ranges: &[Range]) -> u64 {
    ranges.iter().map(|(start, end)| (end - start) / PAGE).sum()
}
