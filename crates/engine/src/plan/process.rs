//! What each process of a clone is beside its memory, its descriptors and its threads.

use super::files::{Files, Sync};
use super::list::{Arg, CloneArgs, List};
use super::template::{FILE, open};
use super::{Context, Received, files, memory, threads};
use crate::image::{Image, Process};
use crate::ops::Code;

const SIGCHLD: u64 = libc::SIGCHLD as u64;
/// Tries before a process gives up waiting for another one; each yields the processor.
pub const TRIES: u32 = 1_000_000;

/// Writes everything that process `index` does in a clone, from its birth to its release.
pub fn process(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    let process = &context.image.processes[index];
    let maker = maker(context.image, index);
    let shares = process.shares_descriptors != 0;
    if let (Some(sync), true) = (&files.sync, index > 0 && !shares && inherits_go(context.image, index)) {
        // The first process holds the only write end: its end is the sign to go.
        list.exactly(libc::SYS_close, &[sync.go.1.into()], 0);
    }
    if maker.is_none() {
        enter(list, context);
    }
    if index > 0 {
        // First of all: what was inherited must not decide over the ends of this one's children.
        signal_actions(list, &context.image.processes[maker.unwrap_or(0)], process);
    }
    family(list, context, files, index);
    if let Some(status) = process.ended {
        // Whose it was shows in /proc, and in what its parent is told.
        let parent = &context.image.processes[(process.parent as usize).saturating_sub(1)];
        threads::credentials(list, context, parent);
        threads::dumpable(list, parent);
        return end(list, process, status);
    }
    if index > 0 {
        memory::place(list, context, index);
        membarrier(list, process);
    } else {
        memory::unmap_stash(list, context);
    }
    state(list, process);
    if !shares {
        files::descriptors(list, context, files, index);
    }
    memory::own(list, context, files, index);
    oom_score(list, process);
    limits(list, context, process);
    threads::threads(list, context, files, index);
}

/// The process that forks process `index`; `None` for the go-between. Beside its parent that is, for one whose parent
/// has ended, the leader of its session: a session can only be inherited.
pub fn maker(image: &Image, index: usize) -> Option<usize> {
    let process = &image.processes[index];
    if process.parent != 0 {
        return Some(process.parent as usize - 1);
    }
    let session = born_into(image, index)?;
    image.processes[..index].iter().position(|other| other.pid == session && other.parent == 0)
}

/// Whether the table that process `index` is born with holds the write end whose end is the sign to go: that of the
/// go-between does, and that of the first process, whoever shares it.
fn inherits_go(image: &Image, index: usize) -> bool {
    maker(image, index).is_none_or(|maker| table(image, maker) == 0)
}

/// The process whose table of descriptors process `index` has.
fn table(image: &Image, mut index: usize) -> usize {
    while image.processes[index].shares_descriptors != 0 {
        index = image.processes[index].shares_descriptors as usize - 1;
    }
    index
}

/// Whether other processes have the table of descriptors of process `index` too.
pub fn is_shared(image: &Image, index: usize) -> bool {
    (0..image.processes.len()).any(|other| other != index && table(image, other) == table(image, index))
}

/// The time namespace and the control groups, which a fork hands on to children.
fn enter(list: &mut List, context: &Context<'_>) {
    let time = [Arg::Slot(Received::TimeNamespace as u64), (libc::CLONE_NEWTIME as u64).into()];
    list.exactly(libc::SYS_setns, &time, 0);
    let zero = list.data(b"0", 1);
    for index in 0..context.host.cgroup_joins {
        let file = Arg::Slot((super::RECEIVED + index) as u64);
        list.exactly(libc::SYS_write, &[file, zero.into(), 1.into()], 1);
    }
}

/// Session, group and children. A child is born into the session that its parent has at that moment, so some come
/// before the parent makes its own and some after it.
fn family(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    let processes = &context.image.processes;
    let process = &processes[index];
    let leads_session = process.session == process.pid;
    if process.group == process.pid && !leads_session {
        list.exactly(libc::SYS_setpgid, &[0.into(), 0.into()], 0);
    }
    let children =
        || (index + 1..processes.len()).filter(|&child| maker(context.image, child) == Some(index));
    let after = |child: &usize| {
        leads_session && born_into(context.image, *child).is_none_or(|session| session == process.pid)
    };
    for child in children().filter(|child| !after(child)) {
        fork(list, context, files, child);
    }
    if leads_session {
        list.call(libc::SYS_setsid, &[], None);
    }
    for child in children().filter(after) {
        fork(list, context, files, child);
    }
    if process.group != 0 && process.group != process.pid {
        let group = u64::from(process.group.unsigned_abs());
        list.wait_for(libc::SYS_setpgid, &[0.into(), group.into()], 0, TRIES);
    }
    let ended = |child: &usize| processes[*child].ended.is_some() && processes[*child].parent != 0;
    for child in children().filter(ended) {
        let pid = (processes[child].pid as u64).into();
        let options = (libc::WEXITED | libc::WNOWAIT) as u64;
        let by_id = u64::from(libc::P_PID);
        list.exactly(libc::SYS_waitid, &[by_id.into(), pid, 0.into(), options.into(), 0.into()], 0);
        // The signal of this end was delivered long ago.
        let set = list.words(&[1 << (SIGCHLD - 1)]);
        let none = list.words(&[0, 0]);
        list.attempt(libc::SYS_rt_sigtimedwait, &[set.into(), 0.into(), none.into(), 8.into()]);
    }
}

/// The session into which process `index` must be born. One that leads its own may be born into any, unless a child of
/// its own is from the time before.
fn born_into(image: &Image, index: usize) -> Option<i32> {
    let process = &image.processes[index];
    if process.session != process.pid {
        return Some(process.session);
    }
    let is_child = |child: &usize| image.processes[*child].parent as usize == index + 1;
    let children = (index + 1..image.processes.len()).filter(is_child);
    let mut sessions = children.filter_map(|child| born_into(image, child));
    sessions.find(|&session| session != process.pid)
}

/// Starts a process as a fork of the one that runs this.
pub fn fork(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    let process = &context.image.processes[index];
    let mut flags = if process.shares_descriptors != 0 { libc::CLONE_FILES as u64 } else { 0 };
    if process.shares_directory && process.parent != 0 {
        flags |= libc::CLONE_FS as u64;
    }
    let adopted = process.parent == 0 && maker(context.image, index).is_some();
    if adopted {
        flags |= libc::CLONE_PARENT as u64;
    }
    // With CLONE_PARENT the signal is that of the one who forks.
    let exit_signal = if adopted { 0 } else { SIGCHLD };
    let set_tid = list.words(&[process.pid as u64]);
    let arguments = CloneArgs { flags, exit_signal, set_tid, ..CloneArgs::default() };
    list.child(&arguments, |list| {
        if index == 0 {
            super::clone::populate(list, context);
        }
        self::process(list, context, files, index);
    });
}

/// Ends as the process has ended whose parent has not yet asked for its status.
fn end(list: &mut List, process: &Process, status: u32) {
    let signal = status & 0x7f;
    if signal == 0 {
        list.call(libc::SYS_exit_group, &[u64::from(status >> 8 & 0xff).into()], None);
        return;
    }
    let no_core = list.words(&[0, 0]);
    let args = [0.into(), u64::from(libc::RLIMIT_CORE).into(), no_core.into(), 0.into()];
    list.attempt(libc::SYS_prlimit64, &args);
    let default = list.words(&[0; 4]);
    list.attempt(libc::SYS_rt_sigaction, &[u64::from(signal).into(), default.into(), 0.into(), 8.into()]);
    let set = list.words(&[1 << (signal - 1)]);
    let unblock = libc::SIG_UNBLOCK as u64;
    list.exactly(libc::SYS_rt_sigprocmask, &[unblock.into(), set.into(), 0.into(), 8.into()], 0);
    list.call(libc::SYS_kill, &[(process.pid as u64).into(), u64::from(signal).into()], None);
}

fn state(list: &mut List, process: &Process) {
    let cwd = list.string(&process.cwd);
    list.exactly(libc::SYS_chdir, &[cwd.into()], 0);
    list.attempt(libc::SYS_umask, &[u64::from(process.umask).into()]);
    for timer in &process.interval_timers {
        let value = list.words(&timer.value);
        list.exactly(libc::SYS_setitimer, &[u64::from(timer.which).into(), value.into(), 0.into()], 0);
    }
    if process.personality != 0 {
        list.call(libc::SYS_personality, &[u64::from(process.personality).into()], None);
    }
    for (wanted, option) in [
        (process.child_subreaper, libc::PR_SET_CHILD_SUBREAPER),
        (process.huge_pages_disabled, libc::PR_SET_THP_DISABLE),
    ] {
        if wanted {
            let args = [(option as u64).into(), 1.into(), 0.into(), 0.into(), 0.into()];
            list.exactly(libc::SYS_prctl, &args, 0);
        }
    }
}

/// Resource limits, when nothing is left that needs more than they allow.
fn limits(list: &mut List, context: &Context<'_>, process: &Process) {
    for limit in &process.limits {
        let as_now = context.host.limits.contains(&(limit.resource, limit.soft, limit.hard));
        if !as_now || limit.resource == libc::RLIMIT_NOFILE {
            let value = list.words(&[limit.soft, limit.hard]);
            let args = [0.into(), u64::from(limit.resource).into(), value.into(), 0.into()];
            list.exactly(libc::SYS_prlimit64, &args, 0);
        }
    }
}

/// Writes `oom_score_adj` through `/proc`.
fn oom_score(list: &mut List, process: &Process) {
    if process.oom_score_adjustment == 0 {
        return;
    }
    let text = process.oom_score_adjustment.to_string();
    open(list, &format!("/proc/{}/oom_score_adj", process.pid), libc::O_WRONLY as u64, Some(FILE));
    let (address, bytes) = (list.data(text.as_bytes(), 1), text.len() as u64);
    // Less than the parent's needs a capability that a server may not have; it is about this host, not the process.
    list.attempt(libc::SYS_write, &[Arg::Slot(FILE.into()), address.into(), bytes.into()]);
    list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
}

/// Signal actions of a process that has inherited those of another one.
pub fn signal_actions(list: &mut List, inherited: &Process, process: &Process) {
    let set = |signal: u32| process.signal_actions.iter().any(|action| action.signal == signal);
    for action in inherited.signal_actions.iter().filter(|action| !set(action.signal)) {
        let default = list.words(&[0; 4]);
        let args = [u64::from(action.signal).into(), default.into(), 0.into(), 8.into()];
        list.exactly(libc::SYS_rt_sigaction, &args, 0);
    }
    own_signal_actions(list, process);
}

/// Signal actions of a process that has inherited none.
pub fn own_signal_actions(list: &mut List, process: &Process) {
    for action in &process.signal_actions {
        let address = list.words(&action.action);
        let args = [u64::from(action.signal).into(), address.into(), 0.into(), 8.into()];
        list.exactly(libc::SYS_rt_sigaction, &args, 0);
    }
}

/// The nice value of a thread. A host that does not allow it runs the thread all the same.
pub fn priority(list: &mut List, nice: i32) {
    let which = u64::from(libc::PRIO_PROCESS);
    list.attempt(libc::SYS_setpriority, &[which.into(), 0.into(), (nice as i64 as u64).into()]);
}

/// Registrations belong to the address space: a fork keeps them.
pub fn membarrier(list: &mut List, process: &Process) {
    for bit in (0..32).filter(|bit| process.membarrier & (1 << bit) != 0) {
        list.exactly(libc::SYS_membarrier, &[(1_u64 << bit).into(), 0.into(), 0.into()], 0);
    }
}

/// Tells the kernel where program, heap, stack, arguments and environment lie, and on `executable`, which file is the
/// executable.
pub fn memory_map(list: &mut List, context: &Context<'_>, process: &Process, executable: bool) {
    let layout = &process.layout;
    let auxv = list.data(&layout.auxv, 8);
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
        layout.auxv.len() as u64 | u64::from(u32::MAX) << 32,
    ]);
    if executable {
        open(list, &process.executable, libc::O_RDONLY as u64, Some(FILE));
        // The descriptor stands in the last word's upper half.
        let (to, from) = (address + 12 * 8 + 4, context.area.slot(FILE));
        list.step(Code::Copy, &[to.into(), from.into(), 4.into()]);
    }
    let (option, map) = (libc::PR_SET_MM as u64, libc::PR_SET_MM_MAP as u64);
    list.exactly(libc::SYS_prctl, &[option.into(), map.into(), address.into(), (13 * 8).into(), 0.into()], 0);
    if executable {
        list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
    }
}

/// POSIX timers. The kernel numbers them from zero on in a new process, so those that were deleted are made and
/// deleted again.
pub fn timers(list: &mut List, process: &Process) {
    let mut next = 0;
    for timer in &process.timers {
        let id = list.words(&[0]);
        while next < timer.id {
            let clock = libc::CLOCK_MONOTONIC as u64;
            let none = sigevent(list, 0, 0, libc::SIGEV_NONE, 0);
            list.exactly(libc::SYS_timer_create, &[clock.into(), none.into(), id.into()], 0);
            list.exactly(libc::SYS_timer_delete, &[u64::from(next).into()], 0);
            next += 1;
        }
        next += 1;
        let event = sigevent(list, timer.value, timer.signal, timer.notify, timer.thread);
        let clock = timer.clock as i64 as u64;
        list.exactly(libc::SYS_timer_create, &[clock.into(), event.into(), id.into()], 0);
        let setting = list.words(&timer.setting);
        let args = [u64::from(timer.id).into(), 0.into(), setting.into(), 0.into()];
        list.exactly(libc::SYS_timer_settime, &args, 0);
    }
}

/// `struct sigevent`.
fn sigevent(list: &mut List, value: u64, signal: u32, notify: i32, thread: i32) -> u64 {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    list.words(&[value, pair(signal, notify as u32), u64::from(thread as u32), 0, 0, 0, 0, 0])
}

/// How many processes of an image run when they are restored.
pub fn living(image: &Image) -> usize {
    image.processes.iter().filter(|process| process.ended.is_none()).count()
}

/// The end of the way for a process that is not the first: it says that it is ready, and goes when the first does. One
/// that `shares` its table waits until whose table it is has closed the engine's descriptors, up from `control`.
pub fn wait_for_first(list: &mut List, sync: &Sync, shares: bool, control: u64) {
    let byte = list.data(&[0], 1);
    list.exactly(libc::SYS_write, &[sync.ready.1.into(), byte.into(), 1.into()], 1);
    let args = [sync.go.0.into(), byte.into(), 1.into()];
    if shares {
        // The descriptor may have been closed already, which means the same.
        list.attempt(libc::SYS_read, &args);
        let args = [control.into(), (libc::F_GETFD as u64).into()];
        list.wait_for(libc::SYS_fcntl, &args, -i64::from(libc::EBADF), TRIES);
    } else {
        list.exactly(libc::SYS_read, &args, 0);
    }
}

/// The first process waits for all others.
pub fn wait_for_others(list: &mut List, image: &Image, sync: &Sync) {
    let byte = list.data(&[0], 1);
    for _ in 1..living(image) {
        list.exactly(libc::SYS_read, &[sync.ready.0.into(), byte.into(), 1.into()], 1);
    }
}
