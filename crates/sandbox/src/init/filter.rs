//! The system calls that a function may not make.
//!
//! A function shares the host's kernel, and some calls reach parts of it that no runtime needs and that have been the
//! way out of many a sandbox. They are answered with `EPERM`, which programs take for a kernel that does not have them:
//! Node.js and .NET fall back to epoll without io_uring. The list is of what is denied, not of what is allowed: the
//! engine restores any language, and a call that one of them learns tomorrow must not end it. The filter is part of the
//! process, so a snapshot holds it and every clone has it.
//!
//! Every thread of every clone loads the filter, and the kernel tries it on each call that there is when it does. So the
//! numbers are searched for by halves: a list one after the other takes five times as long to load.
//!
//! Deliberately absent: arguments. `clone3` passes its flags in memory, where a filter cannot look; that a new user
//! namespace gives nothing is the doing of `no_new_privs`, an empty bounding set, and the limits of the sandbox.

use seccompiler::{BpfProgram, sock_filter};

use super::{Context, Step};

/// Group by group, and why.
const DENIED: &[&[i64]] = &[
    // A queue of requests carried out by kernel threads: it goes around every filter of system calls, and a ring cannot
    // be saved in a snapshot.
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register],
    // Programs inside the kernel, its counters, and faults handled by a program: tools of kernel exploits.
    &[libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd],
    // Keyrings are shared beyond the sandbox.
    &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
    // The root file system is the platform's.
    &[
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_quotactl,
        libc::SYS_open_by_handle_at,
    ],
    // Namespaces of others.
    &[libc::SYS_setns],
    // The machine itself.
    &[
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_syslog,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_iopl,
        libc::SYS_ioperm,
        libc::SYS_vhangup,
    ],
];

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// From here on lie the numbers of a second set of calls (x32), which would go around the list.
const OTHER_CALLS: u32 = 0x4000_0000;
/// Numbers that are compared one after the other at the end of a search.
const LEAF: usize = 3;

// Instructions (`linux/bpf_common.h`) and verdicts (`linux/seccomp.h`).
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0000 | libc::EPERM as u32;
const KILL: u32 = 0x8000_0000;
/// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE_FIELD: u32 = 4;

/// Puts the filter on this thread and all that come from it. Needs `no_new_privs`.
pub(super) fn deny_dangerous_calls() -> Step {
    seccompiler::apply_filter(&program()).context("filter system calls")
}

fn program() -> BpfProgram {
    let mut denied: Vec<u32> =
        DENIED.iter().flat_map(|group| group.iter()).map(|call| *call as u32).collect();
    denied.sort_unstable();
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE_FIELD, 0, 0),
        instruction(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        instruction(RETURN, KILL, 0, 0),
        instruction(LOAD, NUMBER, 0, 0),
        instruction(JUMP_AT_LEAST, OTHER_CALLS, 0, 1),
        instruction(RETURN, DENY, 0, 0),
    ];
    program.extend(search(&denied));
    program
}

/// Denies the numbers, which ascend, and allows all others.
fn search(denied: &[u32]) -> BpfProgram {
    if denied.len() <= LEAF {
        // Each that is equal jumps behind the others and the allowing instruction.
        let compare = |(index, number): (usize, &u32)| {
            instruction(JUMP_EQUAL, *number, (denied.len() - index) as u8, 0)
        };
        let mut leaf: BpfProgram = denied.iter().enumerate().map(compare).collect();
        leaf.extend([instruction(RETURN, ALLOW, 0, 0), instruction(RETURN, DENY, 0, 0)]);
        return leaf;
    }
    let (low, high) = denied.split_at(denied.len() / 2);
    let below = search(low);
    let distance = u8::try_from(below.len()).expect("the list is short");
    let mut node = vec![instruction(JUMP_AT_LEAST, high[0], distance, 0)];
    node.extend(below);
    node.extend(search(high));
    node
}

fn instruction(code: u16, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { code, jt: if_true, jf: if_false, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says to a call, carried out as the kernel would.
    fn verdict(program: &BpfProgram, number: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let one = &program[at];
            at += 1;
            match one.code {
                LOAD => loaded = if one.k == NUMBER { number } else { ARCHITECTURE },
                JUMP_EQUAL => at += usize::from(if loaded == one.k { one.jt } else { one.jf }),
                JUMP_AT_LEAST => at += usize::from(if loaded >= one.k { one.jt } else { one.jf }),
                _ => return one.k,
            }
        }
    }

    #[test]
    fn what_is_listed_is_denied_and_nothing_else() {
        let program = program();
        let listed =
            |number: u32| DENIED.iter().flat_map(|group| group.iter()).any(|call| *call as u32 == number);
        for number in 0..1024 {
            let expected = if listed(number) { DENY } else { ALLOW };
            assert_eq!(verdict(&program, number), expected, "call {number}");
        }
        assert_eq!(verdict(&program, OTHER_CALLS + libc::SYS_read as u32), DENY);
    }
}
