//! The state of each thread.

use linux::ptrace::{Registers, Tracee, robust_list};

use super::family::{Member, Task};
use super::remote::Remote;
use super::{CheckpointError, Doing, filters};
use crate::image::{SignalAction, Thread};
use crate::plan::frame::register;

const PR_GET_TID_ADDRESS: u64 = 40;
/// What an interrupted system call leaves in the accumulator (include/linux/errno.h).
const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -(libc::EINTR as i64);
const SYS_IO_PGETEVENTS: i64 = 333;
/// Calls that fail with `EINTR` when a stop interrupts them, handler or not (`signal(7)`), and that mean the same when
/// they are made again.
const WAITS: [i64; 22] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_io_getevents,
    SYS_IO_PGETEVENTS,
    libc::SYS_io_uring_enter,
];
const SA_RESTART: u64 = libc::SA_RESTART as u64;
/// Signals that an instruction causes; they are delivered before others.
const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE, libc::SIGSYS];
/// Calls that `restart_syscall` stands for.
const RESTARTED: [i64; 4] = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_futex, libc::SYS_poll];
/// How far before a `syscall` instruction its number is looked for, in bytes.
const CODE_BYTES: usize = 32;
/// Bytes of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// What a new process has (`prctl(2)`, `PR_SET_TIMERSLACK`).
const TIMER_SLACK_DEFAULT_NS: u64 = 50_000;

/// What threads are judged by.
pub struct Surroundings<'a> {
    /// Sets of processors that say nothing.
    pub affinity_default: &'a [Vec<u8>],
    /// The signal actions of the process.
    pub actions: &'a [SignalAction],
}

/// Reads every thread. Of the signals that are `pending` for any thread, those that a thread would take now become its
/// own, for it is that thread whose system call they interrupt.
pub fn save(
    member: &Member,
    remote: &Remote<'_>,
    surroundings: &Surroundings<'_>,
    pending: &mut Vec<Vec<u8>>,
) -> Result<Vec<Thread>, CheckpointError> {
    member.threads.iter().map(|task| thread(member, task, remote, surroundings, pending)).collect()
}

/// Has a thread that was just stopped make a call again that the kernel would let fail because of the stop, which is none
/// of the thread's business. A signal of its own that waits is: that one would have interrupted the call anyway.
pub fn undisturb(thread: &Tracee) -> std::io::Result<()> {
    let mut registers = thread.registers()?;
    let call = registers[register::ORIG_RAX] as i64;
    if registers[register::RAX] as i64 != EINTR || !WAITS.contains(&call) {
        return Ok(());
    }
    let mask = thread.signal_mask()?;
    if !thread.pending_signals(false)?.iter().any(|signal| is_open(signal, mask)) {
        make_again(&mut registers);
        thread.set_registers(&registers)?;
    }
    Ok(())
}

fn thread(
    member: &Member,
    task: &Task,
    remote: &Remote<'_>,
    surroundings: &Surroundings<'_>,
    shared: &mut Vec<Vec<u8>>,
) -> Result<Thread, CheckpointError> {
    let tracee = &task.tracee;
    let tid = tracee.tid();
    let mut registers = tracee.registers().doing("read the registers", tid)?;
    let rseq = tracee.rseq().doing("read the restartable sequence", tid)?;
    let (head, bytes) = robust_list(tid).doing("read the robust list", tid)?;
    let pending = tracee.pending_signals(false).doing("read the pending signals", tid)?;
    let mut pending: Vec<Vec<u8>> = pending.iter().map(|signal| signal.to_vec()).collect();
    let signal_mask = tracee.signal_mask().doing("read the signal mask", tid)?;
    pending.extend(shared.extract_if(.., |signal| is_open(signal, signal_mask)));
    if registers[register::ORIG_RAX] as i64 == libc::SYS_restart_syscall
        && let Some(call) = call_before(member.host_pid, registers[register::RIP])
    {
        registers[register::ORIG_RAX] = call;
    }
    set_back(&mut registers, next_handler(&pending, signal_mask, surroundings.actions));
    let affinity = linux::schedule::affinity(tid).doing("read the affinity", tid)?;
    let path = format!("/proc/{}/task/{tid}/comm", member.host_pid);
    let name = std::fs::read(path).doing("read the name", tid)?;
    let asked = Asked::of(remote, tracee)?;
    Ok(Thread {
        tid: task.tid,
        registers: registers.to_vec(),
        xsave: tracee.xsave().doing("read the extended state", tid)?,
        signal_mask,
        alternate_stack: asked.alternate_stack,
        robust_list: if head == 0 { Vec::new() } else { vec![head, bytes] },
        rseq: rseq.map_or_else(Vec::new, |rseq| {
            vec![rseq.address, u64::from(rseq.bytes), u64::from(rseq.signature)]
        }),
        tid_address: asked.tid_address,
        name: String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned(),
        pending_signals: pending,
        affinity: if surroundings.affinity_default.contains(&affinity) { Vec::new() } else { affinity },
        scheduling: scheduling(tid)?,
        timer_slack_ns: asked.timer_slack_ns,
        parent_death_signal: asked.parent_death_signal,
        filters: filters::save(member, task)?,
        io_priority: linux::schedule::io_priority(tid).doing("read the priority of input and output", tid)?,
    })
}

/// The call that a thread makes again by `restart_syscall`, after something else has interrupted it once (a freezer,
/// another tracer): the kernel remembers which one it is for this very thread only. Its arguments are still in their
/// registers, and its number is mostly loaded right before the instruction that ends at `end`.
fn call_before(pid: i32, end: u64) -> Option<u64> {
    let mut code = [0; CODE_BYTES];
    let start = end.checked_sub(CODE_BYTES as u64)?;
    let read = linux::memory::read(pid, start, &mut code).is_ok_and(|count| count == CODE_BYTES);
    read.then(|| number_loaded(&code)).flatten()
}

/// The number that the last `mov eax, NUMBER` in `code` loads, of a call that the kernel makes again that way.
fn number_loaded(code: &[u8]) -> Option<u64> {
    const MOV_EAX: u8 = 0xb8;
    let loaded = |window: &[u8]| {
        let number = u64::from(u32::from_le_bytes(window[1..].try_into().ok()?));
        (window[0] == MOV_EAX && RESTARTED.contains(&(number as i64))).then_some(number)
    };
    code.windows(5).rev().find_map(loaded)
}

/// What only the thread itself can ask for.
struct Asked {
    alternate_stack: Vec<u64>,
    tid_address: u64,
    timer_slack_ns: u64,
    parent_death_signal: u32,
}

impl Asked {
    fn of(remote: &Remote<'_>, thread: &Tracee) -> Result<Self, CheckpointError> {
        let answers = remote.calls(
            thread,
            &[
                (libc::SYS_sigaltstack, &[0, remote.place(0)]),
                (libc::SYS_prctl, &[PR_GET_TID_ADDRESS, remote.place(24)]),
                (libc::SYS_prctl, &[libc::PR_GET_PDEATHSIG as u64, remote.place(32)]),
                (libc::SYS_prctl, &[libc::PR_GET_TIMERSLACK as u64]),
            ],
        )?;
        answers.result(0, "read the alternate signal stack")?;
        answers.result(1, "read the tid address")?;
        answers.result(2, "read the parent-death signal")?;
        let slack = answers.result(3, "read the timer slack")? as u64;
        let words: [u64; 5] = answers.words(0);
        Ok(Self {
            // `stack_t` is address, flags, size; flags are 32 bits with padding.
            alternate_stack: vec![words[0], words[2], words[1] & 0xffff_ffff],
            tid_address: words[3],
            timer_slack_ns: if slack == TIMER_SLACK_DEFAULT_NS { 0 } else { slack },
            parent_death_signal: words[4] as u32,
        })
    }
}

/// `struct sched_attr`; empty for the ordinary policy with an ordinary nice value.
fn scheduling(tid: i32) -> Result<Vec<u8>, CheckpointError> {
    const NICE: usize = 16;
    const RUNTIME: std::ops::Range<usize> = 24..32;
    const BATCH: u32 = libc::SCHED_BATCH as u32;
    let mut attributes = linux::schedule::attributes(tid).doing("read the scheduling", tid)?;
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| attributes[at + byte]));
    let (policy, nice) = (word(4), word(NICE));
    if policy == 0 && nice == 0 {
        return Ok(Vec::new());
    }
    if policy == 0 || policy == BATCH {
        // The kernel tells the slice that it gives anyway; given back it would be a wish.
        attributes[RUNTIME].fill(0);
    }
    Ok(attributes.to_vec())
}

/// The handler that runs first when the thread goes on: whether it wants interrupted calls made again.
fn next_handler(pending: &[Vec<u8>], mask: u64, actions: &[SignalAction]) -> Option<bool> {
    let open = pending.iter().filter(|info| is_open(info, mask)).filter_map(|info| number(info));
    let first = open.min_by_key(|signal| {
        let caused = SYNCHRONOUS.contains(signal);
        (!caused, *signal)
    })?;
    let action = &actions.iter().find(|action| action.signal == first as u32)?.action;
    let handled = action[0] != libc::SIG_IGN as u64;
    handled.then_some(action[1] & SA_RESTART != 0)
}

/// `si_signo`.
fn number(info: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(info.get(..4)?.try_into().ok()?))
}

/// Whether a thread with this mask takes the signal.
fn is_open(info: &[u8], mask: u64) -> bool {
    number(info).is_some_and(|signal| (1..=64).contains(&signal) && mask & (1 << (signal - 1)) == 0)
}

/// Sets a thread that was interrupted in a system call back to the instruction, so that the call is made again, unless
/// the handler that runs `next` has it fail. Calls with a relative timeout (`nanosleep`, `poll`,
/// `futex`) wait for the whole of it once more.
fn set_back(registers: &mut Registers, next: Option<bool>) {
    let call = registers[register::ORIG_RAX] as i64;
    let result = registers[register::RAX] as i64;
    let again = match result {
        ERESTARTNOINTR => true,
        ERESTARTSYS => next != Some(false),
        ERESTARTNOHAND | ERESTART_RESTARTBLOCK => next.is_none(),
        EINTR => next.is_none() && WAITS.contains(&call),
        _ => false,
    };
    let interrupted = [ERESTARTSYS, ERESTARTNOHAND, ERESTART_RESTARTBLOCK].contains(&result);
    if call >= 0 && again {
        make_again(registers);
    } else if call >= 0 && interrupted {
        registers[register::RAX] = EINTR as u64;
    }
    registers[register::ORIG_RAX] = u64::MAX;
}

/// Sets a thread back to the instruction of its system call.
fn make_again(registers: &mut Registers) {
    registers[register::RAX] = registers[register::ORIG_RAX];
    registers[register::RIP] -= SYSCALL_BYTES;
    registers[register::ORIG_RAX] = u64::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(result: i64, call: i64, next: Option<bool>) -> (i64, u64) {
        let mut registers = [0; linux::ptrace::REGISTERS];
        registers[register::RAX] = result as u64;
        registers[register::ORIG_RAX] = call as u64;
        registers[register::RIP] = 100;
        set_back(&mut registers, next);
        (registers[register::RAX] as i64, registers[register::RIP])
    }

    #[test]
    fn interrupted_calls_are_made_again_unless_a_handler_has_them_fail() {
        let wait = libc::SYS_epoll_wait;
        for result in [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK, EINTR] {
            assert_eq!(after(result, wait, None), (wait, 98));
        }
        assert_eq!(after(ERESTARTSYS, wait, Some(true)), (wait, 98));
        assert_eq!(after(ERESTARTSYS, wait, Some(false)), (EINTR, 100));
        assert_eq!(after(ERESTARTNOHAND, wait, Some(true)), (EINTR, 100));
        assert_eq!(after(EINTR, libc::SYS_close, None), (EINTR, 100));
        assert_eq!(after(EINTR, -1, None), (EINTR, 100));
    }

    #[test]
    fn the_number_of_a_restarted_call_is_found_in_its_code() {
        // mov eax, 0xe6; mov r10, rcx; syscall.
        let code = [0x90, 0xb8, 0xe6, 0, 0, 0, 0x49, 0x89, 0xca, 0x0f, 0x05];
        assert_eq!(number_loaded(&code), Some(libc::SYS_clock_nanosleep as u64));
        assert_eq!(number_loaded(&[0xb8, 1, 0, 0, 0, 0x0f, 0x05]), None);
        assert_eq!(number_loaded(&[0x0f, 0x05]), None);
    }

    #[test]
    fn the_next_handler_is_that_of_the_first_open_signal() {
        let info = |signal: i32| signal.to_ne_bytes().to_vec();
        let action = |signal, flags| SignalAction { signal, action: vec![0x1000, flags, 0, 0] };
        let actions = [action(10, SA_RESTART), action(12, 0), action(libc::SIGSEGV as u32, 0)];
        let pending = [info(12), info(10)];
        assert_eq!(next_handler(&pending, 0, &actions), Some(true));
        assert_eq!(next_handler(&pending, 1 << 9, &actions), Some(false));
        assert_eq!(next_handler(&[info(10), info(libc::SIGSEGV)], 0, &actions), Some(false));
        assert_eq!(next_handler(&[info(17)], 0, &actions), None);
    }
}
