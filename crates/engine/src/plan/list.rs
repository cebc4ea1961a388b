//! Writing a plan down: operations, the data they point to, and how both are shown.

use std::fmt;
use std::ops::Range;

use super::area::BLOCK_BYTES_MAX;
use crate::ops::{Code, Expect, NO_SLOT, Op};

/// An operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// A number known when the plan is made.
    Value(u64),
    /// What a slot holds when the plan runs.
    Slot(u64),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

/// `-1` as an operand.
pub const MINUS_ONE: u64 = u64::MAX;

/// A plan being written.
#[derive(Debug)]
pub struct List {
    ops: Vec<Op>,
    data: Vec<u8>,
    base: u64,
}

impl List {
    /// An empty list whose data will lie at `base`.
    #[must_use]
    pub fn new(base: u64) -> Self {
        Self { ops: Vec::new(), data: Vec::new(), base }
    }

    /// The operations and the data.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Op>, Vec<u8>) {
        (self.ops, self.data)
    }

    /// Writes one of the lists of a plan and says where it stands.
    pub fn part(&mut self, write: impl FnOnce(&mut Self)) -> Range<u32> {
        let start = self.ops.len() as u32;
        write(self);
        start..self.ops.len() as u32
    }

    /// Puts bytes into the data and gives their address.
    pub fn data(&mut self, bytes: &[u8], alignment: usize) -> u64 {
        if self.is_full() {
            return self.base;
        }
        self.data.resize(self.data.len().next_multiple_of(alignment), 0);
        // The data begins at a page boundary, so alignment within it is alignment in memory.
        let address = self.base + self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        address
    }

    /// Puts 64-bit words into the data.
    pub fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.data(&bytes, 8)
    }

    /// Puts a C string into the data.
    pub fn string(&mut self, text: &str) -> u64 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.data(&bytes, 1)
    }

    /// A system call whose result is looked at by none.
    pub fn attempt(&mut self, number: i64, args: &[Arg]) {
        self.push(Code::Syscall, number as u32, args, Expect::Any, 0);
    }

    /// A system call that must not fail; its result goes to slot `out` if one is given.
    pub fn call(&mut self, number: i64, args: &[Arg], out: Option<u32>) {
        let op = self.push(Code::Syscall, number as u32, args, Expect::NotNegative, 0);
        op.out = out.unwrap_or(NO_SLOT);
    }

    /// A system call that must give `expected`.
    pub fn exactly(&mut self, number: i64, args: &[Arg], expected: u64) {
        self.push(Code::Syscall, number as u32, args, Expect::Exactly, expected as i64);
    }

    /// Any other operation.
    pub fn step(&mut self, code: Code, args: &[Arg]) {
        self.push(code, 0, args, Expect::Any, 0);
    }

    /// Repeats a system call until it gives `expected`.
    pub fn wait_for(&mut self, number: i64, args: &[Arg], expected: i64, tries: u32) {
        self.push(Code::Await, number as u32, args, Expect::Exactly, expected).count = tries;
    }

    /// Calls a C function on a stack.
    pub fn function(&mut self, address: u64, stack_end: u64, expected: i64) {
        self.push(Code::Call, 0, &[address.into(), stack_end.into()], Expect::Exactly, expected);
    }

    /// Starts a child that carries out what `write` writes. `arguments` is a `struct clone_args`.
    pub fn child(&mut self, arguments: &CloneArgs, write: impl FnOnce(&mut Self)) {
        let words = arguments.words();
        let address = self.words(&words);
        let index = self.ops.len();
        let bytes = size_of_val(&words) as u64;
        self.push(Code::Clone, 0, &[address.into(), bytes.into()], Expect::NotNegative, 0);
        write(self);
        let count = self.ops.len().saturating_sub(index + 1) as u32;
        if let Some(op) = self.ops.get_mut(index) {
            op.count = count;
        }
    }

    /// Whether the list is longer than any block. It then grows no more, and [`plan`](super::plan) refuses it.
    fn is_full(&self) -> bool {
        self.data.len() + self.ops.len() * size_of::<Op>() > BLOCK_BYTES_MAX as usize
    }

    fn push(&mut self, code: Code, number: u32, args: &[Arg], expect: Expect, expected: i64) -> &mut Op {
        let mut op = Op { code, number, args: [0; 6], slots: 0, out: NO_SLOT, expect, count: 0, expected };
        for (index, arg) in args.iter().enumerate() {
            op.args[index] = match *arg {
                Arg::Value(value) => value,
                Arg::Slot(slot) => {
                    op.slots |= 1 << index;
                    slot
                }
            };
        }
        if self.is_full() {
            self.ops.pop();
        }
        self.ops.push(op);
        let last = self.ops.len() - 1;
        &mut self.ops[last]
    }
}

/// `struct clone_args` of `clone3(2)`, as far as plans use it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Signal to the parent at the child's end.
    pub exit_signal: u64,
    /// Start and length of the child's own stack; zero for a fork.
    pub stack: (u64, u64),
    /// Thread-local storage.
    pub tls: u64,
    /// `clear_child_tid`.
    pub child_tid: u64,
    /// Address of the ID that the child gets; zero for any.
    pub set_tid: u64,
}

impl CloneArgs {
    fn words(&self) -> [u64; 11] {
        let set_tid_count = u64::from(self.set_tid != 0);
        [
            self.flags,
            0,
            self.child_tid,
            0,
            self.exit_signal,
            self.stack.0,
            self.stack.1,
            self.tls,
            self.set_tid,
            set_tid_count,
            0,
        ]
    }
}

/// Shows an operation on one line.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a Op);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = self.0;
        match op.code {
            Code::Syscall | Code::Await => write!(out, "{}", name(op.number))?,
            code => write!(out, "<{}>", format!("{code:?}").to_lowercase())?,
        }
        write!(out, "(")?;
        for (index, arg) in op.args.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            if op.slots & (1 << index) == 0 {
                write!(out, "{separator}{arg:#x}")?;
            } else {
                write!(out, "{separator}slot {arg}")?;
            }
        }
        write!(out, ")")?;
        match op.expect {
            Expect::Any => {}
            Expect::NotNegative => write!(out, " >= 0")?,
            Expect::Exactly => write!(out, " == {:#x}", op.expected)?,
        }
        if op.out != NO_SLOT {
            write!(out, " -> slot {}", op.out)?;
        }
        match op.code {
            Code::Clone => write!(out, " {{ next {} operations in the child }}", op.count),
            _ => Ok(()),
        }
    }
}

/// The system calls that plans make.
const NAMES: &[(i64, &str)] = &[
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_arch_prctl, "arch_prctl"),
    (libc::SYS_bind, "bind"),
    (libc::SYS_capset, "capset"),
    (libc::SYS_chdir, "chdir"),
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_close, "close"),
    (libc::SYS_close_range, "close_range"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_dup, "dup"),
    (libc::SYS_dup3, "dup3"),
    (libc::SYS_epoll_create1, "epoll_create1"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_eventfd2, "eventfd2"),
    (libc::SYS_exit_group, "exit_group"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_flock, "flock"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_getppid, "getppid"),
    (libc::SYS_getsockname, "getsockname"),
    (libc::SYS_inotify_add_watch, "inotify_add_watch"),
    (libc::SYS_inotify_init1, "inotify_init1"),
    (libc::SYS_inotify_rm_watch, "inotify_rm_watch"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_ioprio_set, "ioprio_set"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_lchown, "lchown"),
    (libc::SYS_listen, "listen"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_membarrier, "membarrier"),
    (libc::SYS_memfd_create, "memfd_create"),
    (libc::SYS_mlock, "mlock"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_openat2, "openat2"),
    (libc::SYS_personality, "personality"),
    (libc::SYS_pidfd_open, "pidfd_open"),
    (libc::SYS_pipe2, "pipe2"),
    (libc::SYS_prctl, "prctl"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_prlimit64, "prlimit64"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_read, "read"),
    (libc::SYS_rseq, "rseq"),
    (libc::SYS_rt_sigaction, "rt_sigaction"),
    (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
    (libc::SYS_rt_sigqueueinfo, "rt_sigqueueinfo"),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
    (libc::SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo"),
    (libc::SYS_sched_setaffinity, "sched_setaffinity"),
    (libc::SYS_sched_setattr, "sched_setattr"),
    (libc::SYS_seccomp, "seccomp"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_set_robust_list, "set_robust_list"),
    (libc::SYS_set_tid_address, "set_tid_address"),
    (libc::SYS_setgroups, "setgroups"),
    (libc::SYS_setitimer, "setitimer"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_setpgid, "setpgid"),
    (libc::SYS_setpriority, "setpriority"),
    (libc::SYS_setresgid, "setresgid"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_setsid, "setsid"),
    (libc::SYS_setsockopt, "setsockopt"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_signalfd4, "signalfd4"),
    (libc::SYS_socket, "socket"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_timer_create, "timer_create"),
    (libc::SYS_timer_delete, "timer_delete"),
    (libc::SYS_timer_settime, "timer_settime"),
    (libc::SYS_timerfd_create, "timerfd_create"),
    (libc::SYS_timerfd_settime, "timerfd_settime"),
    (libc::SYS_umask, "umask"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
    (libc::SYS_write, "write"),
];

fn name(number: u32) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == i64::from(number));
    known.map_or_else(|| format!("syscall {number}"), |(_, name)| (*name).to_owned())
}
