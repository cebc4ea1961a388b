//! Processes and threads.

use prost::Message;

use super::memory::{Layout, Mapping, PageRun};

/// A process.
#[derive(Clone, PartialEq, Message)]
pub struct Process {
    /// Process ID inside its PID namespace.
    #[prost(int32, tag = "1")]
    pub pid: i32,
    /// Its parent as an index into [`Image::processes`](super::Image::processes) plus one; zero for a child of the
    /// sandbox's init.
    #[prost(uint32, tag = "2")]
    pub parent: u32,
    /// ID of its process group; zero for one that is led from outside the image.
    #[prost(int32, tag = "3")]
    pub group: i32,
    /// ID of its session; zero for one that is led from outside the image.
    #[prost(int32, tag = "4")]
    pub session: i32,
    /// Wait status of a process that has ended and that its parent has not waited for. It has nothing else.
    #[prost(uint32, optional, tag = "5")]
    pub ended: Option<u32>,
    /// Working directory.
    #[prost(string, tag = "6")]
    pub cwd: String,
    /// Path of the executable.
    #[prost(string, tag = "7")]
    pub executable: String,
    /// File mode creation mask.
    #[prost(uint32, tag = "8")]
    pub umask: u32,
    /// `prctl(PR_GET_DUMPABLE)`.
    #[prost(bool, tag = "9")]
    pub dumpable: bool,
    /// Boundaries that the kernel keeps for the address space.
    #[prost(message, required, tag = "10")]
    pub layout: Layout,
    /// Mappings, ascending.
    #[prost(message, repeated, tag = "11")]
    pub mappings: Vec<Mapping>,
    /// Saved pages, ascending by address.
    #[prost(message, repeated, tag = "12")]
    pub runs: Vec<PageRun>,
    /// Threads; the first is the main thread.
    #[prost(message, repeated, tag = "13")]
    pub threads: Vec<Thread>,
    /// Open descriptors, ascending.
    #[prost(message, repeated, tag = "14")]
    pub descriptors: Vec<Descriptor>,
    /// Signal actions that are not the default.
    #[prost(message, repeated, tag = "15")]
    pub signal_actions: Vec<SignalAction>,
    /// Resource limits, by resource number.
    #[prost(message, repeated, tag = "16")]
    pub limits: Vec<Limit>,
    /// Interval timers that were armed.
    #[prost(message, repeated, tag = "17")]
    pub interval_timers: Vec<IntervalTimer>,
    /// POSIX timers, ascending by ID.
    #[prost(message, repeated, tag = "18")]
    pub timers: Vec<Timer>,
    /// Bits of `MEMBARRIER_CMD_GET_REGISTRATIONS`.
    #[prost(uint64, tag = "19")]
    pub membarrier: u64,
    /// Functions to call in each clone before anything is released: `RAND_poll` of each OpenSSL.
    #[prost(fixed64, repeated, tag = "20")]
    pub reseed_functions: Vec<u64>,
    /// User, group, groups and capabilities.
    #[prost(message, required, tag = "21")]
    pub credentials: Credentials,
    /// Signals that wait for any thread of the process: each a `siginfo_t`.
    #[prost(bytes = "vec", repeated, tag = "22")]
    pub pending_signals: Vec<Vec<u8>>,
    /// `oom_score_adj`.
    #[prost(int32, tag = "23")]
    pub oom_score_adjustment: i32,
    /// `PR_SET_CHILD_SUBREAPER`.
    #[prost(bool, tag = "24")]
    pub child_subreaper: bool,
    /// `PR_SET_THP_DISABLE`.
    #[prost(bool, tag = "25")]
    pub huge_pages_disabled: bool,
    /// Record locks (`fcntl`) that the process holds.
    #[prost(message, repeated, tag = "26")]
    pub locks: Vec<Lock>,
    /// Index plus one of an earlier process that shares this one's table of descriptors; zero for a table of its own.
    #[prost(uint32, tag = "28")]
    pub shares_descriptors: u32,
    /// Execution domain (`personality(2)`).
    #[prost(uint32, tag = "29")]
    pub personality: u32,
    /// Whether it shares working directory and file mode mask with its parent (`CLONE_FS`).
    #[prost(bool, tag = "30")]
    pub shares_directory: bool,
}

/// Who a process acts as.
#[derive(Clone, PartialEq, Message)]
pub struct Credentials {
    /// Real, effective, saved and file system user.
    #[prost(uint32, repeated, tag = "1")]
    pub users: Vec<u32>,
    /// Real, effective, saved and file system group.
    #[prost(uint32, repeated, tag = "2")]
    pub groups: Vec<u32>,
    /// Supplementary groups.
    #[prost(uint32, repeated, tag = "3")]
    pub supplementary: Vec<u32>,
    /// Inheritable, permitted, effective, bounding and ambient capabilities.
    #[prost(fixed64, repeated, tag = "4")]
    pub capabilities: Vec<u64>,
    /// `PR_GET_NO_NEW_PRIVS`.
    #[prost(bool, tag = "5")]
    pub no_new_privileges: bool,
    /// `PR_GET_SECUREBITS`.
    #[prost(uint32, tag = "6")]
    pub secure_bits: u32,
}

/// One thread, stopped.
#[derive(Clone, PartialEq, Message)]
pub struct Thread {
    /// Thread ID inside the PID namespace.
    #[prost(int32, tag = "1")]
    pub tid: i32,
    /// `struct user_regs_struct` in its order, with an interrupted call already set back to be made again.
    #[prost(uint64, repeated, tag = "2")]
    pub registers: Vec<u64>,
    /// The XSAVE area in standard form.
    #[prost(bytes = "vec", tag = "3")]
    pub xsave: Vec<u8>,
    /// Blocked signals.
    #[prost(fixed64, tag = "4")]
    pub signal_mask: u64,
    /// Alternate signal stack: address, size, flags.
    #[prost(uint64, repeated, tag = "5")]
    pub alternate_stack: Vec<u64>,
    /// Robust list: head, length.
    #[prost(uint64, repeated, tag = "6")]
    pub robust_list: Vec<u64>,
    /// Restartable sequence: address, size, signature; empty when none is registered.
    #[prost(uint64, repeated, tag = "7")]
    pub rseq: Vec<u64>,
    /// `clear_child_tid`.
    #[prost(uint64, tag = "8")]
    pub tid_address: u64,
    /// Name.
    #[prost(string, tag = "9")]
    pub name: String,
    /// Signals that wait for this thread: each a `siginfo_t`.
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub pending_signals: Vec<Vec<u8>>,
    /// Processors that it may run on, as `sched_getaffinity(2)` gives them; empty when it may run on all.
    #[prost(bytes = "vec", tag = "11")]
    pub affinity: Vec<u8>,
    /// `struct sched_attr`; empty when it is that of a new process.
    #[prost(bytes = "vec", tag = "12")]
    pub scheduling: Vec<u8>,
    /// Timer slack in nanoseconds; zero when it is that of a new process.
    #[prost(uint64, tag = "13")]
    pub timer_slack_ns: u64,
    /// `PR_GET_PDEATHSIG`.
    #[prost(uint32, tag = "14")]
    pub parent_death_signal: u32,
    /// Seccomp filters, the oldest first.
    #[prost(message, repeated, tag = "15")]
    pub filters: Vec<Filter>,
    /// Priority of input and output (`ioprio_get(2)`); zero for none of its own.
    #[prost(uint32, tag = "16")]
    pub io_priority: u32,
}

/// One descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Descriptor {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// Whether it is closed by `execve`.
    #[prost(bool, tag = "2")]
    pub close_on_exec: bool,
    /// Index into [`Image::open_files`](super::Image::open_files).
    #[prost(uint32, tag = "3")]
    pub file: u32,
}

/// One signal action.
#[derive(Clone, PartialEq, Message)]
pub struct SignalAction {
    /// Signal number.
    #[prost(uint32, tag = "1")]
    pub signal: u32,
    /// `struct kernel_sigaction`: handler, flags, restorer, mask.
    #[prost(uint64, repeated, tag = "2")]
    pub action: Vec<u64>,
}

/// One resource limit.
#[derive(Clone, PartialEq, Message)]
pub struct Limit {
    /// `RLIMIT_*`.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// Soft limit.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    /// Hard limit.
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// One armed interval timer.
#[derive(Clone, PartialEq, Message)]
pub struct IntervalTimer {
    /// `ITIMER_*`.
    #[prost(uint32, tag = "1")]
    pub which: u32,
    /// `struct itimerval`.
    #[prost(uint64, repeated, tag = "2")]
    pub value: Vec<u64>,
}

/// One POSIX timer (`timer_create(2)`).
#[derive(Clone, PartialEq, Message)]
pub struct Timer {
    /// The kernel's ID.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Clock ID.
    #[prost(int32, tag = "2")]
    pub clock: i32,
    /// `SIGEV_*`.
    #[prost(int32, tag = "3")]
    pub notify: i32,
    /// The signal that it sends.
    #[prost(uint32, tag = "4")]
    pub signal: u32,
    /// The value that goes with the signal.
    #[prost(fixed64, tag = "5")]
    pub value: u64,
    /// The thread that gets it (`SIGEV_THREAD_ID`), inside the PID namespace.
    #[prost(int32, tag = "6")]
    pub thread: i32,
    /// `struct itimerspec`: interval and time to the next expiry, seconds and nanoseconds each.
    #[prost(uint64, repeated, tag = "7")]
    pub setting: Vec<u64>,
}

/// A lock on a file.
#[derive(Clone, PartialEq, Message)]
pub struct Lock {
    /// The descriptor through which it is taken.
    #[prost(int32, tag = "1")]
    pub number: i32,
    /// Zero for `flock(2)`, one for a record lock of the process, two for one of the open file (`F_OFD_SETLK`).
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Whether it excludes readers.
    #[prost(bool, tag = "3")]
    pub exclusive: bool,
    /// First byte of a record lock.
    #[prost(uint64, tag = "4")]
    pub start: u64,
    /// Bytes of a record lock; zero for all that follow.
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
}

/// A seccomp filter.
#[derive(Clone, PartialEq, Message)]
pub struct Filter {
    /// `struct sock_filter` after `struct sock_filter`.
    #[prost(bytes = "vec", tag = "1")]
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    #[prost(uint64, tag = "2")]
    pub flags: u64,
}
