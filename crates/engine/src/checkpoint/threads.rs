//! The state of each thread.

use linux::ptrace::{Tracee, robust_list};

use super::remote::Remote;
use super::{CheckpointError, Doing};
use crate::image::Thread;
use crate::plan::frame::register;

const PR_GET_TID_ADDRESS: u64 = 40;
/// What an interrupted system call leaves in the accumulator: it is to be made again.
/// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND` and `ERESTART_RESTARTBLOCK` (include/linux/errno.h).
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
/// Bytes of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;

/// Thread IDs of a process as the host sees them.
pub fn list(pid: i32) -> Result<Vec<i32>, CheckpointError> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).doing("list the threads", pid)?;
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(ids.collect())
}

/// Reads every thread.
pub fn save(pid: i32, tracees: &[Tracee], remote: &Remote<'_>) -> Result<Vec<Thread>, CheckpointError> {
    tracees.iter().map(|tracee| thread(pid, tracee, remote)).collect()
}

fn thread(pid: i32, tracee: &Tracee, remote: &Remote<'_>) -> Result<Thread, CheckpointError> {
    let tid = tracee.tid();
    let mut registers = tracee.registers().doing("read the registers", tid)?;
    set_back(&mut registers);
    let rseq = tracee.rseq().doing("read the restartable sequence", tid)?;
    let (head, bytes) = robust_list(tid).doing("read the robust list", tid)?;
    let stack: [u64; 3] =
        remote.words(tracee, libc::SYS_sigaltstack, &[0, 0], 1, "read the alternate signal stack")?;
    let prctl = [PR_GET_TID_ADDRESS, 0];
    let [tid_address] = remote.words(tracee, libc::SYS_prctl, &prctl, 1, "read the tid address")?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).doing("read the name", tid)?;
    Ok(Thread {
        tid: namespace_tid(pid, tid)?,
        registers: registers.to_vec(),
        xsave: tracee.xsave().doing("read the extended state", tid)?,
        signal_mask: tracee.signal_mask().doing("read the signal mask", tid)?,
        // `stack_t` is address, flags, size; flags are 32 bits with padding.
        alternate_stack: vec![stack[0], stack[2], stack[1] & 0xffff_ffff],
        robust_list: if head == 0 { Vec::new() } else { vec![head, bytes] },
        rseq: rseq.map_or_else(Vec::new, |rseq| {
            vec![rseq.address, u64::from(rseq.bytes), u64::from(rseq.signature)]
        }),
        tid_address,
        name: name.trim_end_matches('\n').to_owned(),
    })
}

/// Sets a thread that was interrupted in a system call back to the instruction, so that the call is made again.
/// Timeouts that are relative start anew.
fn set_back(registers: &mut linux::ptrace::Registers) {
    let in_call = registers[register::ORIG_RAX] as i64 >= 0;
    if in_call && RESTARTS.contains(&(registers[register::RAX] as i64)) {
        registers[register::RAX] = registers[register::ORIG_RAX];
        registers[register::RIP] -= SYSCALL_BYTES;
    }
    registers[register::ORIG_RAX] = u64::MAX;
}

/// The thread's ID in its own PID namespace.
fn namespace_tid(pid: i32, tid: i32) -> Result<i32, CheckpointError> {
    let path = format!("/proc/{pid}/task/{tid}/status");
    let text = std::fs::read_to_string(path).doing("read the status", tid)?;
    let ids = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let own = ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok());
    own.ok_or(std::io::ErrorKind::InvalidData).map_err(std::io::Error::from).doing("read the thread ID", tid)
}
