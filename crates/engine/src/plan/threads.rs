//! The threads of a clone's process, who they act as, and their release.

use super::files::{Files, close_made, record_locks, settle};
use super::list::{Arg, CloneArgs, List};
use super::process::{self, TRIES, priority, timers, wait_for_first, wait_for_others};
use super::{Context, Privilege, Received, filters, frame};
use crate::image::{Process, Thread, Timer};
use crate::ops::Code;

const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_CHILD_CLEARTID) as u64;
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
/// Bytes below a stack pointer that belong to the function that was interrupted, and room for alignment.
const RED_ZONE_BYTES: u64 = 256;
const CAPABILITY_VERSION: u64 = 0x2008_0522;
/// Where `struct sched_attr` keeps the nice value.
const NICE: usize = 16;
const IOPRIO_WHO_PROCESS: u64 = 1;
/// Where `siginfo_t` keeps its code, and the timer that a signal comes from.
const SI_CODE: usize = 8;
const SI_TIMER_ID: usize = 16;
const SECBIT_KEEP_CAPS: u32 = 1 << 4;
/// `CAP_CHECKPOINT_RESTORE`.
const LAST_CAPABILITY: u64 = 40;

/// Creates every thread but the main one, each of which prepares itself, gives up its privilege and waits; then
/// writes the main thread's last steps.
pub fn threads(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    let process = &context.image.processes[index];
    let orphan = process.parent == 0 && process.threads.iter().any(|thread| thread.parent_death_signal != 0);
    if orphan {
        // The go-between's end must not be taken for that of a parent.
        list.wait_for(libc::SYS_getppid, &[], 1, TRIES);
    }
    for (number, thread) in process.threads.iter().enumerate().skip(1) {
        let arguments = CloneArgs {
            flags: THREAD,
            stack: context.area.child_stack(number as u64),
            tls: thread.registers[frame::register::FS_BASE],
            child_tid: thread.tid_address,
            set_tid: list.words(&[thread.tid as u64]),
            ..CloneArgs::default()
        };
        list.child(&arguments, |list| {
            thread_state(list, thread);
            credentials(list, context, process);
            parent_death(list, thread);
            list.step(Code::Signal, &[context.area.ready_word().into(), 1.into()]);
            list.step(Code::Wait, &[context.area.release_word().into(), 1.into()]);
            go(list, process, thread);
        });
    }
    release(list, context, files, index);
}

fn thread_state(list: &mut List, thread: &Thread) {
    if let [head, bytes] = thread.robust_list[..] {
        list.exactly(libc::SYS_set_robust_list, &[head.into(), bytes.into()], 0);
    }
    if let [address, bytes, signature] = thread.rseq[..] {
        list.exactly(libc::SYS_rseq, &[address.into(), bytes.into(), 0.into(), signature.into()], 0);
    }
    let name = list.string(&thread.name);
    list.exactly(libc::SYS_prctl, &[(libc::PR_SET_NAME as u64).into(), name.into()], 0);
    let gs = thread.registers[frame::register::GS_BASE];
    if gs != 0 {
        list.exactly(libc::SYS_arch_prctl, &[ARCH_SET_GS.into(), gs.into()], 0);
    }
    if thread.timer_slack_ns != 0 {
        let args = [(libc::PR_SET_TIMERSLACK as u64).into(), thread.timer_slack_ns.into()];
        list.exactly(libc::SYS_prctl, &args, 0);
    }
    // Priorities and processors are about this host: one that cannot give them runs the thread all the same.
    if thread.io_priority != 0 {
        let args = [IOPRIO_WHO_PROCESS.into(), 0.into(), u64::from(thread.io_priority).into()];
        list.attempt(libc::SYS_ioprio_set, &args);
    }
    if !thread.scheduling.is_empty() {
        let attributes = list.data(&thread.scheduling, 8);
        list.attempt(libc::SYS_sched_setattr, &[0.into(), attributes.into(), 0.into()]);
    }
    // A policy that does not look at it keeps it for a later change of policy.
    let nice = thread.scheduling.get(NICE..NICE + 4).and_then(|bytes| bytes.first_chunk());
    priority(list, nice.map_or(0, |bytes| i32::from_ne_bytes(*bytes)));
    if !thread.affinity.is_empty() {
        let (set, bytes) = (list.data(&thread.affinity, 8), thread.affinity.len() as u64);
        list.attempt(libc::SYS_sched_setaffinity, &[0.into(), bytes.into(), set.into()]);
    }
}

/// Cleared by a change of user, so it comes after it.
fn parent_death(list: &mut List, thread: &Thread) {
    if thread.parent_death_signal != 0 {
        let signal = u64::from(thread.parent_death_signal);
        list.exactly(libc::SYS_prctl, &[(libc::PR_SET_PDEATHSIG as u64).into(), signal.into()], 0);
    }
}

/// Who the thread acts as. The raw calls change one thread only, so every thread makes them.
pub fn credentials(list: &mut List, context: &Context<'_>, process: &Process) {
    let credentials = &process.credentials;
    let keep = context.host.privilege == Privilege::AsSaved;
    if context.host.privilege != Privilege::DropKeepUser {
        if keep && credentials.users.iter().any(|&user| user != 0) {
            let keep_capabilities = (libc::PR_SET_KEEPCAPS as u64).into();
            list.exactly(libc::SYS_prctl, &[keep_capabilities, 1.into(), 0.into(), 0.into(), 0.into()], 0);
        }
        let ids: Vec<u8> = credentials.supplementary.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let (place, count) = (list.data(&ids, 4), credentials.supplementary.len() as u64);
        list.exactly(libc::SYS_setgroups, &[count.into(), place.into()], 0);
        let three = |ids: &[u32]| -> Vec<Arg> { (0..3).map(|at| u64::from(id_of(ids, at)).into()).collect() };
        list.exactly(libc::SYS_setresgid, &three(&credentials.groups), 0);
        list.exactly(libc::SYS_setresuid, &three(&credentials.users), 0);
    }
    if credentials.secure_bits & SECBIT_KEEP_CAPS != 0 && !keep {
        let option = (libc::PR_SET_KEEPCAPS as u64).into();
        list.exactly(libc::SYS_prctl, &[option, 1.into(), 0.into(), 0.into(), 0.into()], 0);
    }
    let header = list.words(&[CAPABILITY_VERSION]);
    let held = |at: usize| if keep { credentials.capabilities.get(at).copied().unwrap_or(0) } else { 0 };
    let [inheritable, permitted, effective] = [held(0), held(1), held(2)];
    let low = |set: u64| set & u64::from(u32::MAX);
    let sets = list.words(&[
        low(effective) | low(permitted) << 32,
        low(inheritable) | effective >> 32 << 32,
        permitted >> 32 | inheritable >> 32 << 32,
    ]);
    if keep {
        bounding(list, held(3));
    }
    list.exactly(libc::SYS_capset, &[header.into(), sets.into()], 0);
    if keep {
        let option = (libc::PR_SET_SECUREBITS as u64).into();
        list.attempt(libc::SYS_prctl, &[option, u64::from(credentials.secure_bits).into()]);
        let raise = (libc::PR_CAP_AMBIENT_RAISE as u64).into();
        for capability in (0..64_u64).filter(|capability| held(4) & (1 << capability) != 0) {
            let args = [(libc::PR_CAP_AMBIENT as u64).into(), raise, capability.into(), 0.into(), 0.into()];
            list.exactly(libc::SYS_prctl, &args, 0);
        }
    }
    if credentials.no_new_privileges {
        let option = (libc::PR_SET_NO_NEW_PRIVS as u64).into();
        list.exactly(libc::SYS_prctl, &[option, 1.into(), 0.into(), 0.into(), 0.into()], 0);
    }
}

/// A change of user makes a process undumpable, so this comes after it in every thread.
pub fn dumpable(list: &mut List, process: &Process) {
    let dumpable = u64::from(process.dumpable);
    list.exactly(libc::SYS_prctl, &[(libc::PR_SET_DUMPABLE as u64).into(), dumpable.into()], 0);
}

/// Takes what the process did not have out of its bounding set.
fn bounding(list: &mut List, set: u64) {
    for capability in (0..=LAST_CAPABILITY).filter(|capability| set & (1 << capability) == 0) {
        // Whoever may not drop it did not have it either.
        list.attempt(libc::SYS_prctl, &[(libc::PR_CAPBSET_DROP as u64).into(), capability.into()]);
    }
}

fn id_of(ids: &[u32], at: usize) -> u32 {
    ids.get(at).or(ids.first()).copied().unwrap_or(u32::MAX)
}

/// Signals that waited, filters and the frame: what a thread does last.
fn go(list: &mut List, process: &Process, thread: &Thread) {
    for signal in thread.pending_signals.iter().filter(|signal| !comes_again(process, signal)) {
        let info = list.data(signal, 8);
        let args = [(process.pid as u64).into(), (thread.tid as u64).into(), number_of(signal), info.into()];
        list.attempt(libc::SYS_rt_tgsigqueueinfo, &args);
    }
    filters::put_on_self(list, thread, filters::early(process));
    // The frame's own address stands in it, so its place is taken first and filled with the same length.
    let place = list.data(&[], frame::ALIGNMENT);
    list.data(&frame::frame(thread, place), 1);
    list.step(Code::Sigreturn, &[place.into()]);
}

/// Whether a signal that waits is that of a periodic timer, which sends it again with the right count of overruns.
fn comes_again(process: &Process, signal: &[u8]) -> bool {
    let field = |at: usize| signal.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).copied();
    let (code, id) = (field(SI_CODE).map(i32::from_ne_bytes), field(SI_TIMER_ID).map(u32::from_ne_bytes));
    let periodic = |timer: &&Timer| Some(timer.id) == id && timer.setting[..2] != [0, 0];
    code == Some(libc::SI_TIMER) && process.timers.iter().any(|timer| periodic(&timer))
}

/// `si_signo`.
fn number_of(signal: &[u8]) -> Arg {
    let number = signal.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    u64::from(number).into()
}

/// The main thread's last steps.
fn release(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    let process = &context.image.processes[index];
    let main = &process.threads[0];
    thread_state(list, main);
    if main.tid_address != 0 {
        list.call(libc::SYS_set_tid_address, &[main.tid_address.into()], None);
    }
    let base = main.registers[frame::register::FS_BASE];
    list.exactly(libc::SYS_arch_prctl, &[ARCH_SET_FS.into(), base.into()], 0);
    timers(list, process);
    if process.parent == 0 {
        list.wait_for(libc::SYS_getppid, &[], 1, TRIES);
    }
    if let (Some(sync), 0) = (&files.sync, index) {
        wait_for_others(list, context.image, sync);
    }
    if index == 0 {
        settle(list, context, files);
    }
    let shared = process::is_shared(context.image, index);
    if !shared {
        close_made(list, files, process);
        record_locks(list, process);
    }
    credentials(list, context, process);
    parent_death(list, main);
    let others = process.threads.len() as u64 - 1;
    list.step(Code::Wait, &[context.area.ready_word().into(), others.into()]);
    dumpable(list, process);
    filters::put_on_all(list, process, filters::early(process));
    let stack = main.registers[frame::register::RSP] - RED_ZONE_BYTES;
    for function in &process.reseed_functions {
        list.function(*function, stack, 1);
    }
    let shares = process.shares_descriptors != 0;
    match &files.sync {
        Some(sync) if index > 0 => wait_for_first(list, sync, shares, context.control()),
        _ => {
            list.step(Code::Report, &[]);
            // Here a clone can wait for its request with everything behind it that takes time.
            let byte = list.data(&[0], 1);
            let wait = [Arg::Slot(Received::Release as u64), byte.into(), 1.into()];
            list.exactly(libc::SYS_read, &wait, 1);
        }
    }
    if !shares {
        let control = context.control();
        list.exactly(libc::SYS_close_range, &[control.into(), u64::from(u32::MAX).into(), 0.into()], 0);
        if shared {
            // Until now others used the engine's descriptors in this table.
            record_locks(list, process);
        }
    }
    for signal in process.pending_signals.iter().filter(|signal| !comes_again(process, signal)) {
        let info = list.data(signal, 8);
        list.attempt(
            libc::SYS_rt_sigqueueinfo,
            &[(process.pid as u64).into(), number_of(signal), info.into()],
        );
    }
    list.step(Code::Signal, &[context.area.release_word().into(), 1.into()]);
    go(list, process, main);
}
