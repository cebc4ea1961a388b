//! Restartable sequences that a stop has come into.
//!
//! A thread that is interrupted inside such a sequence goes on at the sequence's abort handler: the kernel sees to that
//! when it lets the thread run in its code again. Code that runs in its place on behalf of the checkpoint would make the
//! kernel forget, so it is done here, before any such code.

use linux::ptrace::Tracee;

use super::family::Member;
use super::{CheckpointError, Doing};
use crate::plan::frame::register;

/// Where `struct rseq` points to the sequence that the thread is in.
const SEQUENCE: u64 = 8;
/// `struct rseq_cs`: version and flags, start, length, abort handler.
const SEQUENCE_BYTES: usize = 32;

/// Moves every thread of a process that is inside a sequence to its abort handler.
pub fn settle(member: &Member) -> Result<(), CheckpointError> {
    member.threads.iter().try_for_each(|task| thread(member.host_pid, &task.tracee))
}

fn thread(pid: i32, tracee: &Tracee) -> Result<(), CheckpointError> {
    let Some(rseq) = tracee.rseq().doing("read the restartable sequence", tracee.tid())? else {
        return Ok(());
    };
    let mut pointer = [0; 8];
    let place = rseq.address.wrapping_add(SEQUENCE);
    let mut sequence = [0; SEQUENCE_BYTES];
    // Addresses are the process's own and may lead nowhere; then the kernel kills it when it goes on.
    if !read(pid, place, &mut pointer) || pointer == [0; 8] {
        return Ok(());
    }
    if !read(pid, u64::from_ne_bytes(pointer), &mut sequence) {
        return Ok(());
    }
    let mut registers = tracee.registers().doing("read the registers", tracee.tid())?;
    if let Some(handler) = abort_handler(&sequence, registers[register::RIP]) {
        registers[register::RIP] = handler;
        tracee.set_registers(&registers).doing("write the registers", tracee.tid())?;
    }
    Ok(())
}

fn read(pid: i32, address: u64, into: &mut [u8]) -> bool {
    linux::memory::read(pid, address, into).is_ok_and(|count| count == into.len())
}

/// The abort handler of a sequence, for a thread that is inside.
fn abort_handler(sequence: &[u8; SEQUENCE_BYTES], instruction: u64) -> Option<u64> {
    let word = |at: usize| sequence[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
    let (start, length, handler) = (word(8), word(16), word(24));
    (instruction.wrapping_sub(start) < length).then_some(handler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_inside_goes_to_the_handler() {
        let words = [0_u64, 1000, 10, 5000];
        let sequence: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let sequence = sequence.try_into().unwrap();
        assert_eq!(abort_handler(&sequence, 1000), Some(5000));
        assert_eq!(abort_handler(&sequence, 1009), Some(5000));
        assert_eq!(abort_handler(&sequence, 1010), None);
        assert_eq!(abort_handler(&sequence, 999), None);
    }
}
