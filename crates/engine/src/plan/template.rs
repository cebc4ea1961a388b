//! The two lists that make a template: its mappings, and what follows when their pages are in.

use super::area::Area;
use super::list::{Arg, List, MINUS_ONE};
use crate::image::{Backing, Image, Mapping, flags};

const ARCH_MAP_VDSO_64: u64 = 0x2003;
const MADV_GUARD_INSTALL: u64 = 102;
const MAP_DROPPABLE: u64 = 0x08;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// First address that a process may map (`vm.mmap_min_addr` at its usual value).
const USER_START: u64 = 0x1_0000;
/// End of the address space of a process with four-level page tables.
const USER_END: u64 = (1 << 47) - 4096;
/// The slot that holds the file being mapped.
const FILE: u32 = 16;
/// Regions with at least this much saved memory are worth huge pages.
const HUGE_BYTES: u64 = 2 << 20;

/// Writes the list that empties the process and maps everything. When it is done, the loader fills the pages.
pub fn map(list: &mut List, image: &Image, area: &Area) {
    let block_end = area.start + (1 << 28);
    list.exactly(libc::SYS_munmap, &[USER_START.into(), (area.scratch - USER_START).into()], 0);
    list.exactly(libc::SYS_munmap, &[block_end.into(), (USER_END - block_end).into()], 0);
    if let Some(vdso) = image.mappings.iter().find(|mapping| mapping.backing() == Backing::Vdso) {
        list.call(libc::SYS_arch_prctl, &[ARCH_MAP_VDSO_64.into(), vdso.start.into()], None);
    }
    let mut open_file = None;
    for mapping in &image.mappings {
        match mapping.backing() {
            Backing::Vdso | Backing::SharedFile => {}
            Backing::Anonymous | Backing::SharedAnonymous => anonymous(list, image, mapping),
            Backing::File => {
                if open_file != Some(mapping.file) {
                    if open_file.is_some() {
                        list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
                    }
                    open(list, &image.files[mapping.file as usize].path, libc::O_RDONLY as u64, Some(FILE));
                    open_file = Some(mapping.file);
                }
                file(list, image, mapping);
            }
        }
    }
    if open_file.is_some() {
        list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
    }
}

/// Writes the list that gives the filled mappings their final properties and the process its own.
pub fn finish(list: &mut List, image: &Image) {
    for mapping in image.mappings.iter().filter(|mapping| mapping.backing() != Backing::Vdso) {
        properties(list, image, mapping);
    }
    for action in &image.signal_actions {
        let address = list.words(&action.action);
        let args = [u64::from(action.signal).into(), address.into(), 0.into(), 8.into()];
        list.exactly(libc::SYS_rt_sigaction, &args, 0);
    }
    memory_map(list, image);
    for bit in (0..32).filter(|bit| image.membarrier & (1 << bit) != 0) {
        list.exactly(libc::SYS_membarrier, &[(1u64 << bit).into(), 0.into(), 0.into()], 0);
    }
}

fn anonymous(list: &mut List, image: &Image, mapping: &Mapping) {
    let has = |flag| mapping.flags & flag != 0;
    let mut bits = (libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
    bits |= if has(flags::DROPPABLE) { MAP_DROPPABLE } else { libc::MAP_PRIVATE as u64 };
    if has(flags::GROWS_DOWN) {
        bits |= libc::MAP_GROWSDOWN as u64;
    }
    if has(flags::NO_RESERVE) {
        bits |= libc::MAP_NORESERVE as u64;
    }
    mmap(list, mapping, loading_protection(image, mapping), bits, MINUS_ONE.into(), 0);
}

fn file(list: &mut List, image: &Image, mapping: &Mapping) {
    let bits = (libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE) as u64;
    let protection = loading_protection(image, mapping);
    mmap(list, mapping, protection, bits, Arg::Slot(FILE.into()), mapping.offset);
}

fn mmap(list: &mut List, mapping: &Mapping, protection: u64, bits: u64, descriptor: Arg, offset: u64) {
    let bytes = mapping.end - mapping.start;
    let args =
        [mapping.start.into(), bytes.into(), protection.into(), bits.into(), descriptor, offset.into()];
    list.exactly(libc::SYS_mmap, &args, mapping.start);
}

/// A mapping with saved pages is writable until they are in.
fn loading_protection(image: &Image, mapping: &Mapping) -> u64 {
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    if has_pages(image, mapping) { writable } else { u64::from(mapping.protection) }
}

fn has_pages(image: &Image, mapping: &Mapping) -> bool {
    let first = image.runs.partition_point(|run| run.address + run.bytes <= mapping.start);
    image.runs.get(first).is_some_and(|run| run.address < mapping.end)
}

fn properties(list: &mut List, image: &Image, mapping: &Mapping) {
    let range = [mapping.start.into(), (mapping.end - mapping.start).into()];
    let advise = |list: &mut List, advice: u64| {
        list.exactly(libc::SYS_madvise, &[range[0], range[1], advice.into()], 0);
    };
    if mapping.backing() == Backing::SharedFile {
        return;
    }
    // Shared memory stays writable: the clone reads it and makes its own in its place.
    let private = mapping.backing() != Backing::SharedAnonymous;
    if private && loading_protection(image, mapping) != u64::from(mapping.protection) {
        let args = [range[0], range[1], u64::from(mapping.protection).into()];
        list.exactly(libc::SYS_mprotect, &args, 0);
    }
    collapse(list, image, mapping);
    for (flag, advice) in [
        (flags::HUGE, libc::MADV_HUGEPAGE),
        (flags::NO_HUGE, libc::MADV_NOHUGEPAGE),
        (flags::DONT_DUMP, libc::MADV_DONTDUMP),
        (flags::WIPE_ON_FORK, libc::MADV_WIPEONFORK),
    ] {
        if private && mapping.flags & flag != 0 {
            advise(list, advice as u64);
        }
    }
    for guard in mapping.guards.chunks_exact(2) {
        let args = [guard[0].into(), (guard[1] - guard[0]).into(), MADV_GUARD_INSTALL.into()];
        list.exactly(libc::SYS_madvise, &args, 0);
    }
}

/// Backs well-filled regions by huge pages, which makes a fork of a large heap some thirty times cheaper. Each aligned
/// span is asked for by itself, and a refusal costs speed only.
fn collapse(list: &mut List, image: &Image, mapping: &Mapping) {
    if mapping.backing() != Backing::Anonymous || mapping.flags & flags::NO_HUGE != 0 {
        return;
    }
    let mut span = mapping.start.next_multiple_of(HUGE_BYTES);
    while span + HUGE_BYTES <= mapping.end {
        if filled(image, span, span + HUGE_BYTES) >= HUGE_BYTES / 2 {
            let args = [span.into(), HUGE_BYTES.into(), (libc::MADV_COLLAPSE as u64).into()];
            list.attempt(libc::SYS_madvise, &args);
        }
        span += HUGE_BYTES;
    }
}

/// Bytes of saved pages between two addresses.
fn filled(image: &Image, from: u64, to: u64) -> u64 {
    let first = image.runs.partition_point(|run| run.address + run.bytes <= from);
    let runs = image.runs[first..].iter().take_while(|run| run.address < to);
    runs.map(|run| (run.address + run.bytes).min(to) - run.address.max(from)).sum()
}

/// Tells the kernel where program, heap, stack, arguments and environment lie, and which file is the executable.
fn memory_map(list: &mut List, image: &Image) {
    open(list, &image.executable, libc::O_RDONLY as u64, Some(FILE));
    let layout = &image.layout;
    let auxv = list.data(&layout.auxv, 8);
    // The executable's descriptor stands in the structure, so it is moved to a number known beforehand.
    let descriptor = EXECUTABLE;
    list.call(libc::SYS_dup3, &[Arg::Slot(FILE.into()), descriptor.into(), 0.into()], None);
    list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
    let address = list.words(&[
        layout.start_code,
        layout.end_code,
        layout.start_data,
        layout.end_data,
        layout.start_brk,
        layout.brk,
        layout.start_stack,
        layout.arg_start,
        layout.arg_end,
        layout.env_start,
        layout.env_end,
        auxv,
        layout.auxv.len() as u64 | descriptor << 32,
    ]);
    let args = [
        (libc::PR_SET_MM as u64).into(),
        (libc::PR_SET_MM_MAP as u64).into(),
        address.into(),
        (13 * 8).into(),
        0.into(),
    ];
    list.exactly(libc::SYS_prctl, &args, 0);
    list.exactly(libc::SYS_close, &[descriptor.into()], 0);
}

/// A descriptor number above all that the image and the engine use.
const EXECUTABLE: u64 = 1022;

/// Opens a path that holds no symbolic link.
pub fn open(list: &mut List, path: &str, open_flags: u64, out: Option<u32>) {
    let path = list.string(path);
    let how = list.words(&[open_flags, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS]);
    let args = [(libc::AT_FDCWD as i64 as u64).into(), path.into(), how.into(), 24.into()];
    list.call(libc::SYS_openat2, &args, out);
}
