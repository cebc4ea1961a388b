//! Address spaces of the model: which ranges are mapped, from what, and which saved pages lie in them.

use std::collections::{BTreeMap, BTreeSet};

pub const PAGE: u64 = 4096;

/// A value of a range that can be cut in two.
pub trait Cut: Clone {
    /// The value of what is left when the first `bytes` are taken away.
    fn behind(&self, bytes: u64) -> Self;
}

/// Ranges that do not overlap.
#[derive(Debug, Clone)]
pub struct Ranges<T>(pub BTreeMap<u64, (u64, T)>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Cut> Ranges<T> {
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        self.0.range(..end).any(|(_, (to, _))| *to > start)
    }

    /// Takes a range out and gives what lay there.
    pub fn take(&mut self, start: u64, end: u64) -> Vec<(u64, u64, T)> {
        let hit: Vec<u64> =
            self.0.range(..end).filter(|(_, (to, _))| *to > start).map(|(from, _)| *from).collect();
        let mut taken = Vec::new();
        for from in hit {
            let (to, value) = self.0.remove(&from).unwrap();
            if from < start {
                self.0.insert(from, (start, value.clone()));
            }
            if to > end {
                self.0.insert(end, (to, value.behind(end - from)));
            }
            let (low, high) = (from.max(start), to.min(end));
            taken.push((low, high, value.behind(low - from)));
        }
        taken
    }

    /// The parts of the ranges that lie between two addresses.
    pub fn within(&self, start: u64, end: u64) -> Vec<(u64, u64, T)> {
        self.clone().take(start, end)
    }

    pub fn put(&mut self, start: u64, end: u64, value: T) {
        assert!(start < end && !self.overlaps(start, end), "{start:#x}-{end:#x} is taken");
        self.0.insert(start, (end, value));
    }
}

/// What backs an area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backed {
    /// The loading process before the plan, or the engine's block.
    Loader,
    Engine,
    Anonymous,
    Vdso,
    File(String, u64),
    SharedFile(String, u64),
    Inode(usize, u64),
}

/// A mapped range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    pub protection: u64,
    pub backed: Backed,
    /// `MAP_GROWSDOWN`, `MAP_NORESERVE` and that it is droppable, as the call said it.
    pub bits: u64,
    /// Advice that stays, and [`LOCKED`].
    pub advice: BTreeSet<u64>,
    pub name: String,
}

impl Area {
    pub fn new(protection: u64, backed: Backed) -> Self {
        Self { protection, backed, bits: 0, advice: BTreeSet::new(), name: String::new() }
    }
}

/// Stands among the advice for `mlock`.
pub const LOCKED: u64 = u64::MAX;

impl Cut for Area {
    fn behind(&self, bytes: u64) -> Self {
        let mut rest = self.clone();
        match &mut rest.backed {
            Backed::File(_, offset) | Backed::SharedFile(_, offset) | Backed::Inode(_, offset) => {
                *offset += bytes
            }
            _ => {}
        }
        rest
    }
}

/// Saved pages: where they lie in the page stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved(pub u64);

impl Cut for Saved {
    fn behind(&self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl Cut for () {
    fn behind(&self, _: u64) -> Self {}
}

/// An address space.
#[derive(Debug, Clone, Default)]
pub struct Space {
    pub areas: Ranges<Area>,
    pub pages: Ranges<Saved>,
    pub guards: Ranges<()>,
    /// The plan's data, which a plan may write to.
    pub data: Vec<u8>,
    pub data_start: u64,
    pub slots: Vec<u64>,
    pub slots_start: u64,
    /// Words that threads wait on.
    pub words: BTreeMap<u64, u64>,
    pub executable: String,
    /// `struct prctl_mm_map` without the last word, and the auxiliary vector.
    pub layout: (Vec<u64>, Vec<u8>),
    pub membarrier: u64,
    pub dumpable: bool,
    pub huge_pages_disabled: bool,
}

impl Space {
    pub fn unmap(&mut self, start: u64, end: u64) {
        self.areas.take(start, end);
        self.pages.take(start, end);
        self.guards.take(start, end);
    }

    /// The area that a range is exactly.
    pub fn exact(&mut self, start: u64, bytes: u64) -> Option<&mut Area> {
        self.areas.0.get_mut(&start).filter(|(end, _)| *end == start + bytes).map(|(_, area)| area)
    }

    /// The area that holds a range.
    pub fn around(&self, start: u64, bytes: u64) -> Option<&Area> {
        let (_, (end, area)) = self.areas.0.range(..=start).next_back()?;
        (*end >= start + bytes).then_some(area)
    }

    pub fn read(&self, address: u64, bytes: u64) -> Vec<u8> {
        if address >= self.slots_start && address < self.slots_start + 8 * self.slots.len() as u64 {
            let all: Vec<u8> = self.slots.iter().flat_map(|slot| slot.to_ne_bytes()).collect();
            let at = (address - self.slots_start) as usize;
            return all[at..at + bytes as usize].to_vec();
        }
        let at = address.checked_sub(self.data_start).expect("the plan points to its own data") as usize;
        self.data[at..at + bytes as usize].to_vec()
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = address.checked_sub(self.data_start).expect("the plan writes to its own data") as usize;
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn words(&self, address: u64, count: u64) -> Vec<u64> {
        let bytes = self.read(address, count * 8);
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    pub fn text(&self, address: u64) -> String {
        let at = (address - self.data_start) as usize;
        let bytes: Vec<u8> = self.data[at..].iter().copied().take_while(|&byte| byte != 0).collect();
        String::from_utf8(bytes).unwrap()
    }

    /// What a fork has of this.
    pub fn fork(&self) -> Self {
        let mut copy = self.clone();
        for (start, (end, area)) in &self.areas.0 {
            if area.advice.contains(&(libc::MADV_DONTFORK as u64)) {
                copy.unmap(*start, *end);
            } else if area.advice.contains(&(libc::MADV_WIPEONFORK as u64)) {
                copy.pages.take(*start, *end);
            }
        }
        for (_, area) in copy.areas.0.values_mut() {
            area.advice.remove(&LOCKED);
        }
        copy
    }
}
