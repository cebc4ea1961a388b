//! Checks of processes: memory, threads, descriptors, signals, timers, credentials.

use super::{ADDRESS_MAX, COUNT_MAX, OPEN_FILES_MAX, PAGE, PID_MAX, ascending, runs, signal, text};
use crate::image::{Backing, Credentials, Image, Mapping, PageRun, Process, Thread};
use crate::plan::frame::register::RSP;

/// Lowest address that a process may map (`vm.mmap_min_addr` at its usual value).
const ADDRESS_MIN: u64 = 0x1_0000;
/// Highest descriptor number and one (`fs.nr_open` at its usual value).
pub const NUMBERS_MAX: i32 = 1 << 20;
/// Bytes of a `siginfo_t`.
const SIGNAL_INFO_BYTES: usize = 128;
/// `BPF_MAXINSNS` instructions of eight bytes.
const FILTER_BYTES_MAX: usize = 4096 * 8;
/// `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65536;
/// Resources of `prlimit(2)` and interval timers.
const RESOURCES: u32 = 16;
const INTERVAL_TIMERS: u32 = 3;

/// Checks one process.
pub fn process(image: &Image, process: &Process) -> Result<(), &'static str> {
    if !(1..=PID_MAX).contains(&process.pid) {
        return Err("a process has no ID");
    }
    if let Some(status) = process.ended {
        // A signal, or an exit status above a zero byte; bit 7 tells of a core.
        let good = status <= 0xffff && signal(status & 0x7f);
        return if good { Ok(()) } else { Err("a process has ended in no way that there is") };
    }
    let counts = [process.mappings.len(), process.runs.len(), process.threads.len()];
    if counts.iter().any(|&count| count > COUNT_MAX) || process.descriptors.len() > OPEN_FILES_MAX {
        return Err("it lists too much");
    }
    if !text(&process.cwd) || !text(&process.executable) {
        return Err("a path is too long or holds a zero byte");
    }
    memory(image, process)?;
    let main = process.threads.first();
    let main_whole = main.is_some_and(|main| {
        main.tid == process.pid && main.registers.get(RSP).is_some_and(|&stack| stack >= PAGE)
    });
    if !main_whole || !process.threads.iter().all(thread) {
        return Err("its threads are not whole");
    }
    descriptors(image, process)?;
    credentials(&process.credentials)?;
    if records_whole(process) { Ok(()) } else { Err("its signals, timers or filters are not whole") }
}

fn memory(image: &Image, process: &Process) -> Result<(), &'static str> {
    if !ascending(process.mappings.iter().map(|mapping| (mapping.start, mapping.end))) {
        return Err("its mappings overlap");
    }
    if !process.mappings.iter().all(|mapping| mapping_whole(image, mapping)) {
        return Err("a mapping names no file or has half a guard range");
    }
    if !runs(&process.runs) {
        return Err("its page runs overlap");
    }
    if !process.runs.iter().all(|run| is_mapped(&process.mappings, run)) {
        return Err("it holds pages that no mapping has");
    }
    Ok(())
}

fn mapping_whole(image: &Image, mapping: &Mapping) -> bool {
    let file = mapping.file as usize;
    let named = match Backing::try_from(mapping.backing) {
        Ok(Backing::File | Backing::SharedFile) => file < image.files.len(),
        Ok(Backing::Inode) => file < image.inodes.len(),
        Ok(Backing::Anonymous | Backing::Vdso) => true,
        Err(_) => false,
    };
    let guards = mapping.guards.chunks_exact(2).map(|guard| (guard[0], guard[1]));
    let guarded = mapping.guards.len().is_multiple_of(2)
        && ascending(guards.clone())
        && guards.into_iter().all(|(from, to)| from >= mapping.start && to <= mapping.end);
    let all = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as u32;
    let in_file = mapping.offset.is_multiple_of(PAGE) && mapping.offset < u64::MAX - ADDRESS_MAX;
    named && guarded && in_file && mapping.start >= ADDRESS_MIN && mapping.protection & !all == 0
}

/// Whether private mappings hold every byte of a run. The loader writes runs where they say that they belong, so one
/// that lay elsewhere could replace the engine's code.
fn is_mapped(mappings: &[Mapping], run: &PageRun) -> bool {
    let (mut from, to) = (run.address, run.address + run.bytes);
    let first = mappings.partition_point(|mapping| mapping.end <= from);
    for mapping in &mappings[first..] {
        let private = matches!(mapping.backing(), Backing::Anonymous | Backing::File);
        if from >= to || mapping.start > from || !private {
            break;
        }
        from = mapping.end;
    }
    from >= to
}

fn thread(thread: &Thread) -> bool {
    thread.registers.len() == 27
        && (1..=PID_MAX).contains(&thread.tid)
        && [0, 3].contains(&thread.alternate_stack.len())
        && [0, 2].contains(&thread.robust_list.len())
        && [0, 3].contains(&thread.rseq.len())
        && (576..=64 * 1024).contains(&thread.xsave.len())
        && text(&thread.name)
        && thread.affinity.len() <= PAGE as usize
        && thread.scheduling.len() <= PAGE as usize
        && signal(thread.parent_death_signal)
        && thread.pending_signals.iter().all(|info| signal_info(info))
}

/// Whether bytes are a `siginfo_t`, which begins with the signal's number.
fn signal_info(info: &[u8]) -> bool {
    info.len() == SIGNAL_INFO_BYTES
        && info.first_chunk().is_some_and(|number| signal(u32::from_ne_bytes(*number)))
}

fn descriptors(image: &Image, process: &Process) -> Result<(), &'static str> {
    let mut last = -1;
    let whole = process.descriptors.iter().all(|descriptor| {
        let good = descriptor.number > last && (descriptor.file as usize) < image.open_files.len();
        last = descriptor.number;
        good
    });
    if !whole || last >= NUMBERS_MAX {
        return Err("its descriptors are not in order");
    }
    let open = |number: i32| process.descriptors.binary_search_by_key(&number, |known| known.number).is_ok();
    if process.locks.iter().all(|lock| lock.kind <= 2 && open(lock.number)) {
        Ok(())
    } else {
        Err("it has a lock on no file")
    }
}

fn credentials(credentials: &Credentials) -> Result<(), &'static str> {
    let whole = credentials.users.len() == 4
        && credentials.groups.len() == 4
        && credentials.supplementary.len() <= GROUPS_MAX
        && credentials.capabilities.len() <= 5;
    if whole { Ok(()) } else { Err("it does not say who a process acts as") }
}

fn records_whole(process: &Process) -> bool {
    let mut last = None;
    let in_order =
        process.timers.iter().all(|timer| last.replace(timer.id).is_none_or(|last| last < timer.id));
    in_order
        && process.timers.iter().all(|timer| timer.setting.len() == 4 && signal(timer.signal))
        && process
            .signal_actions
            .iter()
            .all(|action| action.action.len() == 4 && signal(action.signal) && action.signal > 0)
        && process.interval_timers.iter().all(|timer| timer.value.len() == 4 && timer.which < INTERVAL_TIMERS)
        && process.limits.iter().all(|limit| limit.resource < RESOURCES)
        && process.pending_signals.iter().all(|info| signal_info(info))
        && process
            .threads
            .iter()
            .flat_map(|thread| &thread.filters)
            .all(|filter| filter.program.len().is_multiple_of(8) && filter.program.len() <= FILTER_BYTES_MAX)
        && process.layout.auxv.len() <= PAGE as usize
        && process.membarrier <= u64::from(u32::MAX)
        && (-1000..=1000).contains(&process.oom_score_adjustment)
}
