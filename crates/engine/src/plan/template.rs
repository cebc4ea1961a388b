//! The two lists that make a template: its mappings, and what follows when their pages are in.

use super::list::{Arg, List, MINUS_ONE};
use super::{Context, process};
use crate::image::{Backing, Image, Mapping, PageRun, flags};

const ARCH_MAP_VDSO_64: u64 = 0x2003;
const MAP_DROPPABLE: u64 = 0x08;
const PR_SET_VMA: u64 = 0x5356_4d41;
const MADV_GUARD_INSTALL: u64 = 102;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// First address that a process may map (`vm.mmap_min_addr` at its usual value).
pub const USER_START: u64 = 0x1_0000;
/// End of the address space of a process with four-level page tables.
pub const USER_END: u64 = (1 << 47) - 4096;
/// The slot that holds a file that is open for a moment.
pub const FILE: u32 = 16;
/// Regions with at least this much saved memory are worth huge pages.
const HUGE_BYTES: u64 = 2 << 20;
const PAGE_BYTES: u64 = 4096;
/// Nice value of a template.
const PRIORITY: i32 = -10;

/// Writes the list that empties the process and maps everything. When it is done, the loader fills the pages.
pub fn map(list: &mut List, context: &Context<'_>) {
    clear(list, context);
    let root = context.image.root();
    vdso(list, &root.mappings);
    let mut mapper = Mapper::new(list, context.image);
    for mapping in &root.mappings {
        mapper.map(mapping, &root.runs, mapping.start);
    }
    for (index, other) in context.image.processes.iter().enumerate().skip(1) {
        for mapping in &other.mappings {
            if let Some(place) = context.stash.mapping(index, mapping) {
                mapper.map(mapping, &other.runs, place);
            }
        }
    }
    mapper.finish();
    for inode in 0..context.image.inodes.len() {
        let (address, bytes) = context.stash.inode(context.image, inode);
        if bytes > 0 {
            let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
            let bits = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
            let args =
                [address.into(), bytes.into(), writable.into(), bits.into(), MINUS_ONE.into(), 0.into()];
            list.exactly(libc::SYS_mmap, &args, address);
        }
    }
}

/// Unmaps everything but the engine's own.
pub fn clear(list: &mut List, context: &Context<'_>) {
    let (start, end) = (context.area.start, context.area.end());
    list.exactly(libc::SYS_munmap, &[USER_START.into(), (start - USER_START).into()], 0);
    list.exactly(libc::SYS_munmap, &[end.into(), (USER_END - end).into()], 0);
}

/// Has the kernel map the vDSO where it was.
pub fn vdso(list: &mut List, mappings: &[Mapping]) {
    if let Some(vdso) = mappings.iter().find(|mapping| mapping.backing() == Backing::Vdso) {
        list.call(libc::SYS_arch_prctl, &[ARCH_MAP_VDSO_64.into(), vdso.start.into()], None);
    }
}

/// Writes the list that gives the filled mappings their final properties and the first process its own.
/// `files_max` raises the limit of open files for the restore.
pub fn finish(list: &mut List, context: &Context<'_>, files_max: Option<(u64, u64)>) {
    let root = context.image.root();
    for mapping in &root.mappings {
        protect(list, &root.runs, mapping, mapping.start);
        advise(list, mapping, mapping.start);
        if is_private(mapping) {
            wipe_on_fork(list, mapping);
            guards(list, mapping);
        }
    }
    for (index, other) in context.image.processes.iter().enumerate().skip(1) {
        for mapping in &other.mappings {
            if let Some(place) = context.stash.mapping(index, mapping) {
                protect(list, &other.runs, mapping, place);
                advise(list, mapping, place);
            }
        }
    }
    process::own_signal_actions(list, root);
    process::memory_map(list, context, root, true);
    process::membarrier(list, root);
    // Until they are released clones carry out the platform's work, and somebody waits for it.
    process::priority(list, PRIORITY);
    if let Some((soft, hard)) = files_max {
        let value = list.words(&[soft, hard]);
        let args = [0.into(), u64::from(libc::RLIMIT_NOFILE).into(), value.into(), 0.into()];
        list.exactly(libc::SYS_prlimit64, &args, 0);
    }
}

/// Writes mappings, and opens the files that they need.
pub struct Mapper<'a> {
    list: &'a mut List,
    image: &'a Image,
    open_file: Option<u32>,
}

impl<'a> Mapper<'a> {
    pub fn new(list: &'a mut List, image: &'a Image) -> Self {
        Self { list, image, open_file: None }
    }

    /// Maps a private mapping at `place`; shared ones are each clone's own.
    pub fn map(&mut self, mapping: &Mapping, runs: &[PageRun], place: u64) {
        match mapping.backing() {
            Backing::Vdso | Backing::SharedFile | Backing::Inode => {}
            Backing::Anonymous => self.anonymous(mapping, runs, place),
            Backing::File => {
                if self.open_file != Some(mapping.file) {
                    self.close();
                    let path = &self.image.files[mapping.file as usize].path;
                    open(self.list, path, libc::O_RDONLY as u64, Some(FILE));
                    self.open_file = Some(mapping.file);
                }
                let bits = (libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE) as u64;
                let descriptor = (Arg::Slot(FILE.into()), mapping.offset);
                mmap(self.list, mapping, place, loading_protection(runs, mapping), bits, descriptor);
            }
        }
    }

    /// Closes the file that was open last.
    pub fn finish(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if self.open_file.take().is_some() {
            self.list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
        }
    }

    fn anonymous(&mut self, mapping: &Mapping, runs: &[PageRun], place: u64) {
        let has = |flag| mapping.flags & flag != 0;
        let mut bits = (libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
        bits |= if has(flags::DROPPABLE) { MAP_DROPPABLE } else { libc::MAP_PRIVATE as u64 };
        if has(flags::GROWS_DOWN) {
            bits |= libc::MAP_GROWSDOWN as u64;
        }
        if has(flags::NO_RESERVE) {
            bits |= libc::MAP_NORESERVE as u64;
        }
        mmap(self.list, mapping, place, loading_protection(runs, mapping), bits, (MINUS_ONE.into(), 0));
        huge_pages(self.list, runs, mapping, place);
    }
}

fn mmap(
    list: &mut List,
    mapping: &Mapping,
    place: u64,
    protection: u64,
    bits: u64,
    (descriptor, offset): (Arg, u64),
) {
    let bytes = mapping.end - mapping.start;
    let args = [place.into(), bytes.into(), protection.into(), bits.into(), descriptor, offset.into()];
    list.exactly(libc::SYS_mmap, &args, place);
}

/// A mapping with saved pages is writable until they are in.
fn loading_protection(runs: &[PageRun], mapping: &Mapping) -> u64 {
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    if has_pages(runs, mapping) { writable } else { u64::from(mapping.protection) }
}

/// Whether any saved page lies in a mapping.
pub fn has_pages(runs: &[PageRun], mapping: &Mapping) -> bool {
    let first = runs.partition_point(|run| run.address + run.bytes <= mapping.start);
    runs.get(first).is_some_and(|run| run.address < mapping.end)
}

/// Whether a mapping is the template's own rather than the clone's.
fn is_private(mapping: &Mapping) -> bool {
    matches!(mapping.backing(), Backing::Anonymous | Backing::File)
}

/// Takes back the right to write that loading needed.
fn protect(list: &mut List, runs: &[PageRun], mapping: &Mapping, place: u64) {
    if !is_private(mapping) {
        return;
    }
    if loading_protection(runs, mapping) != u64::from(mapping.protection) {
        let bytes = mapping.end - mapping.start;
        let args = [place.into(), bytes.into(), u64::from(mapping.protection).into()];
        list.exactly(libc::SYS_mprotect, &args, 0);
    }
}

/// Gives a private mapping the advice, and the name, that a fork hands on.
pub fn advise(list: &mut List, mapping: &Mapping, place: u64) {
    if !mapping.name.is_empty() {
        // A kernel without names for anonymous memory refuses, and nothing but /proc/PID/maps is the poorer for it.
        let (name, bytes) = (list.string(&mapping.name), mapping.end - mapping.start);
        let args = [PR_SET_VMA.into(), 0.into(), place.into(), bytes.into(), name.into()];
        list.attempt(libc::SYS_prctl, &args);
    }
    for (flag, advice) in [
        (flags::HUGE, libc::MADV_HUGEPAGE),
        (flags::NO_HUGE, libc::MADV_NOHUGEPAGE),
        (flags::DONT_DUMP, libc::MADV_DONTDUMP),
    ] {
        if is_private(mapping) && mapping.flags & flag != 0 {
            let args = [place.into(), (mapping.end - mapping.start).into(), (advice as u64).into()];
            list.exactly(libc::SYS_madvise, &args, 0);
        }
    }
}

/// Has the kernel wipe the mapping in every process forked from now on.
pub fn wipe_on_fork(list: &mut List, mapping: &Mapping) {
    if mapping.flags & flags::WIPE_ON_FORK != 0 {
        let advice = (libc::MADV_WIPEONFORK as u64).into();
        let args = [mapping.start.into(), (mapping.end - mapping.start).into(), advice];
        list.exactly(libc::SYS_madvise, &args, 0);
    }
}

/// Installs the guard pages of a mapping.
pub fn guards(list: &mut List, mapping: &Mapping) {
    for guard in mapping.guards.chunks_exact(2) {
        let args = [guard[0].into(), (guard[1] - guard[0]).into(), MADV_GUARD_INSTALL.into()];
        list.exactly(libc::SYS_madvise, &args, 0);
    }
}

/// Backs the well-filled parts of a new mapping by huge pages, which makes a fork of a large heap some thirty times
/// cheaper, and its filling too. `MADV_HUGEPAGE` would do it at the first write, but its mark stays on the mapping in
/// every clone. So each aligned span gets one page and is then collapsed, and a refusal costs speed only.
fn huge_pages(list: &mut List, runs: &[PageRun], mapping: &Mapping, place: u64) {
    if mapping.flags & (flags::NO_HUGE | flags::DROPPABLE) != 0 {
        return;
    }
    let first = runs.partition_point(|run| run.address + run.bytes <= mapping.start);
    let mut next = mapping.start.next_multiple_of(HUGE_BYTES);
    let mut together: Option<(u64, u64)> = None;
    // A reservation may be terabytes long, so the runs are walked and not the spans.
    for run in runs[first..].iter().take_while(|run| run.address < mapping.end) {
        let mut span = next.max(run.address / HUGE_BYTES * HUGE_BYTES);
        while span < run.address + run.bytes && span + HUGE_BYTES <= mapping.end {
            if filled(runs, span, span + HUGE_BYTES) >= HUGE_BYTES / 2 {
                let address = place + (span - mapping.start);
                let touch = libc::MADV_POPULATE_WRITE as u64;
                list.attempt(libc::SYS_madvise, &[address.into(), PAGE_BYTES.into(), touch.into()]);
                together = match together {
                    Some((from, to)) if to == address => Some((from, address + HUGE_BYTES)),
                    other => {
                        collapse(list, other);
                        Some((address, address + HUGE_BYTES))
                    }
                };
            }
            span += HUGE_BYTES;
        }
        next = next.max(span);
    }
    collapse(list, together);
}

/// One call for all that touch: each begins with work on every processor.
fn collapse(list: &mut List, range: Option<(u64, u64)>) {
    if let Some((from, to)) = range {
        let advice = libc::MADV_COLLAPSE as u64;
        list.attempt(libc::SYS_madvise, &[from.into(), (to - from).into(), advice.into()]);
    }
}

/// Bytes of saved pages between two addresses.
fn filled(runs: &[PageRun], from: u64, to: u64) -> u64 {
    let first = runs.partition_point(|run| run.address + run.bytes <= from);
    let runs = runs[first..].iter().take_while(|run| run.address < to);
    runs.map(|run| (run.address + run.bytes).min(to) - run.address.max(from)).sum()
}

/// Opens a path that holds no symbolic link.
pub fn open(list: &mut List, path: &str, open_flags: u64, out: Option<u32>) {
    let args = open_args(list, path, open_flags, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    list.call(libc::SYS_openat2, &args, out);
}

/// Opens a path that holds no symbolic link; the descriptor must be `number`.
pub fn open_at(list: &mut List, path: &str, open_flags: u64, number: u64) {
    let args = open_args(list, path, open_flags, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    list.exactly(libc::SYS_openat2, &args, number);
}

/// Opens a file without a name in a directory; the descriptor must be `number`.
pub fn open_unnamed(list: &mut List, directory: &str, mode: u64, number: u64) {
    let bits = (libc::O_TMPFILE | libc::O_RDWR) as u64;
    let args = open_args(list, directory, bits, mode, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    list.exactly(libc::SYS_openat2, &args, number);
}

/// Makes a file that must not be there yet; the descriptor must be `number`.
pub fn open_new(list: &mut List, path: &str, mode: u64, number: u64) {
    let bits = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR) as u64;
    let args = open_args(list, path, bits, mode, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    list.exactly(libc::SYS_openat2, &args, number);
}

/// Opens what descriptor `original` of this process refers to anew; the descriptor must be `number`.
pub fn open_again(list: &mut List, original: u64, open_flags: u64, number: u64) {
    let args = open_args(list, &format!("/proc/self/fd/{original}"), open_flags, 0, 0);
    list.exactly(libc::SYS_openat2, &args, number);
}

fn open_args(list: &mut List, path: &str, open_flags: u64, mode: u64, resolve: u64) -> [Arg; 4] {
    let path = list.string(path);
    let how = list.words(&[open_flags, mode, resolve]);
    [(libc::AT_FDCWD as i64 as u64).into(), path.into(), how.into(), 24.into()]
}
