//! Seccomp filters: which of them a clone can have before its last steps.
//!
//! A filter holds for whatever runs after it, the engine's own last calls included. Those of a sandbox deny none of
//! these calls; they are put on all threads at once, **before any function of the snapshot is called**. A filter that
//! would deny one of them, or that looks at arguments, is left to each thread's very last step.

use super::list::List;
use crate::image::{Filter, Process, Thread};

const SECCOMP_SET_MODE_FILTER: u64 = 1;
const SECCOMP_FILTER_FLAG_TSYNC: u64 = 1;
/// `SECCOMP_FILTER_FLAG_LOG` and `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: the flags that describe the filter itself.
const FILTER_FLAGS: u64 = 2 | 4;
const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// Bytes of a `struct sock_filter`.
const INSTRUCTION_BYTES: usize = 8;

/// The calls that follow.
const NEEDED: [i64; 12] = [
    libc::SYS_close_range,
    libc::SYS_exit,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_read,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_sendto,
    libc::SYS_write,
];

/// How many of the oldest filters can be put on all threads of a process at once.
pub fn early(process: &Process) -> usize {
    let main = &process.threads[0].filters;
    let shared = |index: &usize| {
        process.threads.iter().all(|thread| thread.filters.get(*index) == main.get(*index))
            && NEEDED.iter().all(|&call| allows(&main[*index], call as u32))
    };
    (0..main.len()).take_while(shared).count()
}

/// Puts the first `count` filters on all threads of the process.
pub fn put_on_all(list: &mut List, process: &Process, count: usize) {
    for filter in &process.threads[0].filters[..count] {
        put_on(list, filter, SECCOMP_FILTER_FLAG_TSYNC);
    }
}

/// Puts the filters behind the first `count` on the thread itself.
pub fn put_on_self(list: &mut List, thread: &Thread, count: usize) {
    for filter in &thread.filters[count..] {
        put_on(list, filter, 0);
    }
}

fn put_on(list: &mut List, filter: &Filter, flags: u64) {
    let program = list.data(&filter.program, 8);
    let header = list.words(&[(filter.program.len() / INSTRUCTION_BYTES) as u64, program]);
    let flags = filter.flags & FILTER_FLAGS | flags;
    list.exactly(libc::SYS_seccomp, &[SECCOMP_SET_MODE_FILTER.into(), flags.into(), header.into()], 0);
}

/// Whether a filter allows a call whatever its arguments are: runs the program as far as it looks at nothing but the
/// number and the architecture. What it does beyond that counts as a denial.
fn allows(filter: &Filter, number: u32) -> bool {
    let mut accumulator = 0;
    let mut at = 0;
    // Jumps go forward only, so there are at most as many steps as instructions.
    while let Some(bytes) = filter.program.get(at * INSTRUCTION_BYTES..(at + 1) * INSTRUCTION_BYTES) {
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let operand = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        at += 1;
        let jump = match code {
            // BPF_LD | BPF_W | BPF_ABS
            0x20 => {
                accumulator = match operand {
                    0 => number,
                    4 => AUDIT_ARCH_X86_64,
                    _ => return false,
                };
                continue;
            }
            // BPF_ALU | BPF_AND | BPF_K
            0x54 => {
                accumulator &= operand;
                continue;
            }
            // BPF_RET | BPF_K
            0x06 => return operand == SECCOMP_RET_ALLOW,
            // BPF_JMP with BPF_JA, BPF_JEQ, BPF_JGT, BPF_JGE and BPF_JSET, all with BPF_K
            0x05 => {
                at = at.saturating_add(operand as usize);
                continue;
            }
            0x15 => accumulator == operand,
            0x25 => accumulator > operand,
            0x35 => accumulator >= operand,
            0x45 => accumulator & operand != 0,
            _ => return false,
        };
        at += usize::from(if jump { bytes[2] } else { bytes[3] });
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(instructions: &[(u16, u8, u8, u32)]) -> Filter {
        let bytes = |&(code, yes, no, operand): &(u16, u8, u8, u32)| {
            [&code.to_ne_bytes()[..], &[yes, no], &operand.to_ne_bytes()].concat()
        };
        Filter { program: instructions.iter().flat_map(bytes).collect(), flags: 0 }
    }

    #[test]
    fn what_a_filter_allows_is_known_only_when_it_looks_at_the_number_alone() {
        let deny_read = filter(&[
            (0x20, 0, 0, 0),
            (0x15, 0, 1, 0),
            (0x06, 0, 0, 0x0005_0001),
            (0x06, 0, 0, SECCOMP_RET_ALLOW),
        ]);
        assert!(!allows(&deny_read, libc::SYS_read as u32) && allows(&deny_read, libc::SYS_write as u32));
        let looks_at_arguments = filter(&[(0x20, 0, 0, 16), (0x06, 0, 0, SECCOMP_RET_ALLOW)]);
        assert!(!allows(&looks_at_arguments, libc::SYS_write as u32));
        let runs_out = filter(&[(0x05, 0, 0, u32::MAX)]);
        assert!(!allows(&runs_out, libc::SYS_write as u32));
    }
}
