//! Where the template keeps memory that is not its own.
//!
//! A template is one process, but an image may hold several, and memory files that every clone makes for itself. The
//! private memory of each process but the first, and the content of each inode, lie in the stash: a range of the
//! template that every clone inherits without a copy. A clone's process moves its mappings from there to their final
//! addresses, which costs per mapping and not per byte; an inode is written from there.
//!
//! Only mappings with saved pages are stashed. The others are made anew in the clone, for less than a move.

use std::collections::HashMap;

use super::template::has_pages;
use crate::image::{Backing, Image, Mapping, PageRun};

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;

/// A piece of the page stream and the address in the template that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Where in the page stream.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where in the template.
    pub address: u64,
}

/// What of an image is in the stash, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stash {
    /// Addresses of the stashed mappings, by index of the process and first byte of the mapping.
    mappings: HashMap<(usize, u64), u64>,
    /// Address of the packed runs of each inode.
    inodes: Vec<u64>,
    /// Bytes of the whole stash.
    pub bytes: u64,
}

impl Stash {
    /// Lays the stash of `image` out from address zero on.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let mut stash = Self::default();
        for (index, process) in image.processes.iter().enumerate().skip(1) {
            for mapping in process.mappings.iter().filter(|mapping| is_stashed(&process.runs, mapping)) {
                let bytes = mapping.end - mapping.start;
                let place = stash.room(bytes, mapping.start);
                stash.mappings.insert((index, mapping.start), place);
            }
        }
        for inode in &image.inodes {
            let bytes = inode.runs.iter().map(|run| run.bytes).sum();
            let place = stash.room(bytes, 0);
            stash.inodes.push(place);
        }
        stash.bytes = stash.bytes.next_multiple_of(HUGE);
        stash
    }

    /// The same layout from `address` on.
    #[must_use]
    pub fn at(mut self, address: u64) -> Self {
        self.mappings.values_mut().chain(&mut self.inodes).for_each(|place| *place += address);
        self
    }

    /// Takes room for a mapping that is `like` an address, so that huge pages can be moved whole. A page stays free
    /// before the next one: mappings that touch would become one.
    fn room(&mut self, bytes: u64, like: u64) -> u64 {
        let mut place = self.bytes;
        if bytes >= HUGE {
            place = place.next_multiple_of(HUGE) + like % HUGE;
        }
        self.bytes = place + bytes + PAGE;
        place
    }

    /// Where the mapping of a process is stashed.
    #[must_use]
    pub fn mapping(&self, process: usize, mapping: &Mapping) -> Option<u64> {
        self.mappings.get(&(process, mapping.start)).copied()
    }

    /// The runs of an inode, each with its address in the stash.
    pub fn runs<'a>(&self, image: &'a Image, inode: usize) -> impl Iterator<Item = (u64, &'a PageRun)> + 'a {
        let mut address = self.inodes[inode];
        image.inodes[inode].runs.iter().map(move |run| {
            let place = address;
            address += run.bytes;
            (place, run)
        })
    }

    /// Address and length of the stashed content of an inode.
    #[must_use]
    pub fn inode(&self, image: &Image, inode: usize) -> (u64, u64) {
        (self.inodes[inode], image.inodes[inode].runs.iter().map(|run| run.bytes).sum())
    }

    /// Where every piece of the page stream belongs, ascending by offset in the stream.
    #[must_use]
    pub fn loads(&self, image: &Image) -> Vec<Load> {
        let mut loads: Vec<Load> = image.root().runs.iter().map(|run| load(run, run.address)).collect();
        for (index, process) in image.processes.iter().enumerate().skip(1) {
            for mapping in &process.mappings {
                let Some(place) = self.mapping(index, mapping) else { continue };
                let within = within(&process.runs, mapping);
                loads.extend(within.iter().flat_map(|run| part(run, mapping, place)));
            }
        }
        for index in 0..image.inodes.len() {
            loads.extend(self.runs(image, index).map(|(address, run)| load(run, address)));
        }
        loads.sort_unstable_by_key(|load| load.offset);
        loads
    }
}

fn load(run: &PageRun, address: u64) -> Load {
    Load { offset: run.offset, bytes: run.bytes, address }
}

/// The part of a run that lies in a mapping which is stashed at `place`.
fn part(run: &PageRun, mapping: &Mapping, place: u64) -> Option<Load> {
    let (from, to) = (run.address.max(mapping.start), (run.address + run.bytes).min(mapping.end));
    (from < to).then(|| Load {
        offset: run.offset + (from - run.address),
        bytes: to - from,
        address: place + (from - mapping.start),
    })
}

/// The runs that reach into a mapping.
fn within<'a>(runs: &'a [PageRun], mapping: &Mapping) -> &'a [PageRun] {
    let first = runs.partition_point(|run| run.address + run.bytes <= mapping.start);
    let count = runs[first..].iter().take_while(|run| run.address < mapping.end).count();
    &runs[first..first + count]
}

fn is_stashed(runs: &[PageRun], mapping: &Mapping) -> bool {
    matches!(mapping.backing(), Backing::Anonymous | Backing::File) && has_pages(runs, mapping)
}
