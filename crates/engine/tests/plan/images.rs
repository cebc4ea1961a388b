//! Images as checkpoints make them, from a tape of numbers that the property test chooses.
//!
//! A tape that has come to its end reads as zeros, which choose the simplest of everything, so a failing image shrinks
//! to a small one. Families are made by living through a history: processes are born, found sessions, change groups and
//! end.

use engine::image::{
    Backing, Credentials, Descriptor, FORMAT, Filter, Host, Image, Inode, IntervalTimer, Kind, Layout, Limit,
    Lock, MappedFile, Mapping, PageRun, Process, SEALS_NONE, SignalAction, Thread, Timer, flags,
};
use proptest::prelude::*;

use super::image_files;
use super::memory::PAGE;

/// How many files mappings name; the last one is mapped shared.
const FILES: u32 = 4;

/// Choices.
pub struct Tape {
    values: Vec<u16>,
    next: usize,
}

impl Tape {
    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        let value = self.values.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        usize::from(value) % count
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Any image.
pub fn images() -> impl Strategy<Value = Image> {
    prop::collection::vec(any::<u16>(), 0..900).prop_map(|values| image(&mut Tape { values, next: 0 }))
}

fn image(tape: &mut Tape) -> Image {
    let mut stream = Stream(0);
    let mut image = Image {
        format: FORMAT,
        host: Host::default(),
        files: (0..FILES)
            .map(|at| MappedFile { path: format!("/usr/{at}"), ..MappedFile::default() })
            .collect(),
        ..Image::default()
    };
    image.processes = family(tape);
    image.inodes = (0..tape.below(4)).map(|at| inode(tape, &mut stream, at)).collect();
    for index in 0..image.processes.len() {
        if image.processes[index].ended.is_none() {
            process(tape, &mut stream, &mut image, index);
        }
    }
    image_files::open_files(tape, &mut image);
    for process in image.processes.iter_mut().filter(|process| process.ended.is_none()) {
        if process.shares_descriptors == 0 {
            process.descriptors = descriptors(tape, image.open_files.len());
        }
    }
    while let Some(file) = image_files::unheld(&image) {
        // An open file that nobody has is no more.
        let owns = |process: &&mut Process| process.ended.is_none() && process.shares_descriptors == 0;
        let count = image.processes.iter_mut().filter(owns).count();
        let owner = image.processes.iter_mut().filter(owns).nth(tape.below(count)).unwrap();
        let number = owner.descriptors.last().map_or(0, |last| last.number + 1);
        owner.descriptors.push(Descriptor { number, close_on_exec: false, file });
    }
    for process in image.processes.iter_mut().filter(|process| process.ended.is_none()) {
        locks(tape, process, &image.open_files);
    }
    image_files::members(tape, &mut image);
    image
}

/// Where the next saved page goes in the stream.
struct Stream(u64);

impl Stream {
    fn run(&mut self, address: u64, bytes: u64) -> PageRun {
        self.0 += bytes;
        PageRun { address, bytes, offset: self.0 - bytes }
    }
}

/// Processes with their IDs only, as their history has left them.
fn family(tape: &mut Tape) -> Vec<Process> {
    let mut next = 2;
    let mut id = |tape: &mut Tape| {
        next += 1 + tape.below(3) as i32;
        next - 1
    };
    let mut all = vec![Process { pid: id(tape), ..Process::default() }];
    let mut events = tape.below(14);
    while events > 0 {
        events -= 1;
        let at = tape.below(all.len());
        if all[at].ended.is_some() {
            continue;
        }
        let (pid, group, session) = (all[at].pid, all[at].group, all[at].session);
        match tape.below(6) {
            0 | 1 if all.len() < 7 => {
                let orphan = tape.one_in(3);
                born(&mut all, Some(at), orphan, id(tape));
            }
            2 if all.len() < 7 => born(&mut all, None, false, id(tape)),
            3 if group != pid && session != pid => (all[at].session, all[at].group) = (pid, pid),
            4 if session != pid && group != pid => {
                let groups: Vec<i32> = all
                    .iter()
                    .filter(|other| other.session == session && other.group == other.pid)
                    .map(|other| other.pid)
                    .chain([pid])
                    .collect();
                // A descendant that is in no group of the image cannot be told from one of this one's group.
                let outside =
                    (at + 1..all.len()).any(|child| all[child].group == 0 && descends(&all, child, at));
                if session != 0 || !outside {
                    all[at].group = *tape.pick(&groups);
                }
            }
            5 if at > 0 && all[at].parent != 0 && all.iter().all(|child| child.parent as usize != at + 1) => {
                all[at].ended = Some(*tape.pick(&[0, 3 << 8, 9, 15, 11 | 0x80]));
            }
            _ => {}
        }
    }
    for at in 1..all.len() {
        let Some(parent) = (all[at].parent as usize).checked_sub(1).filter(|_| all[at].ended.is_none())
        else {
            continue;
        };
        match all[parent].shares_descriptors {
            0 if tape.one_in(6) => all[at].shares_descriptors = parent as u32 + 1,
            owner => all[at].shares_descriptors = owner,
        }
    }
    all
}

fn descends(all: &[Process], mut child: usize, from: usize) -> bool {
    while child > from && all[child].parent != 0 {
        child = all[child].parent as usize - 1;
    }
    child == from
}

/// A child has its parent's group and session. One whose parent has ended since has those of the session's leader.
fn born(all: &mut Vec<Process>, parent: Option<usize>, orphan: bool, pid: i32) {
    let (group, session) = parent.map_or((0, 0), |at| (all[at].group, all[at].session));
    let adopted = parent.is_some_and(|at| all[at].parent == 0 && all[at].session == all[at].pid) && orphan;
    let parent = parent.filter(|_| !adopted).map_or(0, |at| at as u32 + 1);
    all.push(Process { pid, parent, group, session, ..Process::default() });
}

fn inode(tape: &mut Tape, stream: &mut Stream, at: usize) -> Inode {
    let mut inode = Inode { mode: 0o600, bytes: tape.below(40) as u64 * 1000, ..Inode::default() };
    if tape.one_in(3) {
        inode.directory = Some("/tmp".to_owned());
        inode.seals = SEALS_NONE;
    } else {
        inode.name = format!("memory {at}");
        inode.seals = *tape.pick(&[0, SEALS_NONE, 2, 2 | 4, 0x10, 1 | 2]);
    }
    let pages = inode.bytes.div_ceil(PAGE);
    let mut page = 0;
    while page < pages {
        let count = (1 + tape.below(4) as u64).min(pages - page);
        if tape.below(2) == 1 {
            inode.runs.push(stream.run(page * PAGE, count * PAGE));
        }
        page += count + 1;
    }
    inode
}

fn process(tape: &mut Tape, stream: &mut Stream, image: &mut Image, index: usize) {
    let inodes = image.inodes.len();
    let root = image.processes[0].executable.clone();
    let process = &mut image.processes[index];
    process.executable = (*tape.pick(&["/usr/0", "/usr/1", "/usr/x"])).to_owned();
    // Nobody maps a program of the image that is not its own.
    let strange = (process.executable != root).then(|| root.strip_prefix("/usr/")?.parse().ok()).flatten();
    memory(tape, stream, inodes, process, strange);
    let layout = index as u64 * 0x1000;
    process.layout =
        Layout { start_code: layout + 1, brk: layout + 2, auxv: vec![index as u8; 32], ..Layout::default() };
    process.cwd = (*tape.pick(&["/", "/var/task"])).to_owned();
    process.umask = 0o22;
    process.dumpable = tape.below(2) == 1;
    let ids = |id: u32| vec![id; 4];
    process.credentials = Credentials {
        users: ids(993),
        groups: ids(990),
        supplementary: vec![990, 991],
        capabilities: vec![1, 2, 3, 4, 5],
        no_new_privileges: tape.below(2) == 1,
        secure_bits: 0,
    };
    process.reseed_functions = vec![0x1234; tape.below(3)];
    process.child_subreaper = tape.one_in(5);
    process.huge_pages_disabled = tape.one_in(5);
    process.personality = if tape.one_in(5) { 0x40000 } else { 0 };
    process.oom_score_adjustment = if tape.one_in(4) { 500 } else { 0 };
    process.membarrier = if tape.one_in(4) { 16 } else { 0 };
    signals(tape, process);
    let pid = process.pid;
    process.threads = (0..1 + tape.below(3) as i32).map(|at| thread(tape, pid, at)).collect();
    timers(tape, process);
    for thread in &mut process.threads {
        if process.credentials.no_new_privileges && tape.one_in(3) {
            thread.filters.push(Filter { program: vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f], flags: 1 });
        }
    }
    let parent = process.parent as usize;
    let has_zombie = (0..image.processes.len()).any(|child| {
        image.processes[child].parent as usize == index + 1 && image.processes[child].ended.is_some()
    });
    let process = &mut image.processes[index];
    // A process that ignores the end of its children has none that wait for it.
    if !has_zombie && tape.one_in(3) {
        process.signal_actions.push(SignalAction { signal: libc::SIGCHLD as u32, action: vec![1, 0, 0, 0] });
    }
    if parent == 0 && tape.one_in(3) {
        process.limits.push(Limit { resource: libc::RLIMIT_NOFILE, soft: 4096, hard: 8192 });
    }
}

fn signals(tape: &mut Tape, process: &mut Process) {
    for signal in [2_u32, 10, 15] {
        if tape.one_in(3) {
            process
                .signal_actions
                .push(SignalAction { signal, action: vec![0x1000 + u64::from(signal), 4, 5, 6] });
        }
    }
    if tape.one_in(4) {
        process.pending_signals.push(signal_info(12));
    }
}

fn signal_info(signal: u8) -> Vec<u8> {
    let mut info = vec![0; 128];
    info[0] = signal;
    info
}

fn thread(tape: &mut Tape, pid: i32, at: i32) -> Thread {
    let mut registers = vec![0; 27];
    registers[19] = 0x7ff0_0000_0000;
    registers[21] = 0x5000 + at as u64;
    registers[22] = tape.below(2) as u64;
    let deadly = tape.one_in(4);
    Thread {
        // Far from every process ID.
        tid: if at == 0 { pid } else { pid * 100 + at },
        registers,
        xsave: vec![0; 2696],
        robust_list: vec![0x1000, 24],
        rseq: if tape.below(2) == 1 { vec![0x2000, 32, 0x5305_3053] } else { Vec::new() },
        tid_address: 0x3000 * tape.below(2) as u64,
        name: format!("t{at}"),
        timer_slack_ns: tape.below(2) as u64,
        scheduling: if tape.one_in(4) { vec![1; 56] } else { Vec::new() },
        parent_death_signal: if deadly { 9 } else { 0 },
        pending_signals: if tape.one_in(5) { vec![signal_info(34)] } else { Vec::new() },
        ..Thread::default()
    }
}

fn timers(tape: &mut Tape, process: &mut Process) {
    let mut id = 0;
    for _ in 0..tape.below(3) {
        id += tape.below(4) as u32;
        let thread = process.threads[tape.below(process.threads.len())].tid;
        let setting = vec![0, 5, 1, 7];
        process.timers.push(Timer { id, clock: 1, notify: 4, signal: 10, value: 77, thread, setting });
        id += 1;
    }
    if tape.one_in(4) {
        process.interval_timers.push(IntervalTimer { which: 0, value: vec![0, 0, 3, 0] });
    }
}

fn memory(tape: &mut Tape, stream: &mut Stream, inodes: usize, process: &mut Process, strange: Option<u32>) {
    let mut address = 0x10_0000_u64;
    for _ in 0..1 + tape.below(9) {
        // Some touch, and some hold huge pages.
        address += *tape.pick(&[1, 0, 40]) * PAGE;
        let pages = *tape.pick(&[1_u64, 2, 30, 1500]);
        let mut mapping = Mapping {
            start: address,
            end: address + pages * PAGE,
            protection: tape.below(8) as u32,
            ..Mapping::default()
        };
        let backing = match tape.below(6) {
            0..=2 => Backing::Anonymous,
            3 => Backing::File,
            4 if inodes > 0 => Backing::Inode,
            _ => Backing::SharedFile,
        };
        mapping.backing = backing.into();
        mapping.file = match backing {
            Backing::Inode => tape.below(inodes) as u32,
            Backing::SharedFile => FILES - 1,
            _ => tape.below(FILES as usize - 1) as u32,
        };
        if backing == Backing::File && Some(mapping.file) == strange {
            mapping.file = FILES - 2;
        }
        mapping.offset = if backing == Backing::Anonymous { 0 } else { tape.below(3) as u64 * PAGE };
        let shared = matches!(backing, Backing::Inode | Backing::SharedFile);
        mapping.flags = match tape.below(10) {
            5 => flags::NO_RESERVE * u32::from(backing != Backing::File),
            6 => flags::DONT_FORK | flags::DONT_DUMP,
            7 => flags::LOCKED,
            8 if !shared => flags::NO_HUGE,
            9 if backing == Backing::Anonymous => {
                *tape.pick(&[flags::WIPE_ON_FORK, flags::DROPPABLE, flags::GROWS_DOWN, flags::HUGE])
            }
            _ => 0,
        };
        let kept = mapping.flags & (flags::WIPE_ON_FORK | flags::DROPPABLE) == 0 && !shared;
        if kept && tape.below(2) == 1 {
            let skipped = tape.below(pages.min(2) as usize) as u64;
            let run = stream.run(address + skipped * PAGE, (pages - skipped).div_ceil(2) * PAGE);
            match process.runs.last_mut() {
                // One run goes on through mappings that touch.
                Some(last) if last.address + last.bytes == run.address => last.bytes += run.bytes,
                _ => process.runs.push(run),
            }
        } else if backing == Backing::Anonymous && pages > 2 && tape.one_in(3) {
            mapping.guards = vec![address + PAGE, address + 2 * PAGE];
        }
        if backing == Backing::Anonymous && tape.one_in(5) {
            mapping.name = "arena".to_owned();
        }
        address = mapping.end;
        process.mappings.push(mapping);
    }
    if tape.below(3) > 0 {
        let start = 0x7fff_f7fc_0000 + tape.below(3) as u64 * 0x10_0000;
        for (start, pages, protection) in [(start, 4, 1), (start + 4 * PAGE, 2, 5)] {
            let (end, backing) = (start + pages * PAGE, Backing::Vdso.into());
            process.mappings.push(Mapping { start, end, protection, backing, ..Mapping::default() });
        }
    }
}

fn descriptors(tape: &mut Tape, files: usize) -> Vec<Descriptor> {
    let mut all = Vec::new();
    let mut number = -1;
    if files > 0 {
        for _ in 0..tape.below(10) {
            number += 1 + *tape.pick(&[0, 0, 1, 5]);
            let file = tape.below(files) as u32;
            all.push(Descriptor { number, close_on_exec: tape.below(2) == 1, file });
        }
    }
    all
}

fn locks(tape: &mut Tape, process: &mut Process, files: &[engine::image::OpenFile]) {
    let lockable = |descriptor: &&Descriptor| match &files[descriptor.file as usize].kind {
        Some(Kind::Path(path)) => path.fifo.is_none(),
        Some(Kind::Inode(_)) => true,
        _ => false,
    };
    let numbers: Vec<Descriptor> = process.descriptors.iter().filter(lockable).copied().collect();
    for descriptor in numbers {
        if tape.below(2) == 1 {
            let kind = *tape.pick(&[1, 0, 2]);
            // Both kinds that belong to the open file are the same for all who have it.
            let exclusive = kind == 1 && tape.below(2) == 1;
            process.locks.push(Lock { number: descriptor.number, kind, exclusive, start: 0, bytes: 10 });
        }
    }
}
