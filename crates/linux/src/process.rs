//! Making processes: `clone3(2)` in the manner of `fork`, execution, signals of a fresh process, and waiting.
//!
//! A child of [`fork`] is a copy of a single-threaded process and may do anything its parent could; that is why the
//! call refuses when there are other threads (a lock that one of them held would stay locked for ever in the child).
//! Deliberately absent: threads, `vfork`, and anything that decides what a child may do.

use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Signal, WaitIdOptions, WaitOptions, WaitStatus};

use crate::namespace::Namespaces;

/// The exit status of a child whose closure panicked.
pub const PANIC_STATUS: i32 = 101;

/// Waits for children of every kind: those made with `CLONE_VM` or another exit signal than `SIGCHLD` as well
/// (`__WALL`, `wait(2)`).
const WAIT_ALL: u32 = 0x4000_0000;

/// `CLONE_INTO_CGROUP`, which does not fit the type that `libc` gives its constant of that name.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a child is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fork<'a> {
    /// Fresh namespaces that the child is born into.
    pub namespaces: Option<Namespaces>,
    /// The child's process numbers, innermost PID namespace first; empty lets the kernel choose.
    pub pids: &'a [i32],
    /// A directory of a cgroup v2 hierarchy that the child is born into (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Where given, the child keeps standard input, output and error and these descriptors and closes every other.
    pub keep: Option<&'a [BorrowedFd<'a>]>,
}

/// A child made by [`fork`].
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's PID namespace.
    pub pid: Pid,
    /// A descriptor of it, close-on-exec: readable when the child has ended, and never another process.
    pub pidfd: OwnedFd,
}

/// Makes a child that runs `child` and exits with the status that it returns. Its exit signal is `SIGCHLD`.
///
/// Nothing of the parent's frames runs in the child: no destructor outside of `child`, no `atexit` function.
///
/// # Errors
/// As `clone3(2)`; `Unsupported` when the calling process has more than one thread, or when `/proc` is not there to
/// tell.
pub fn fork(how: &Fork<'_>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    if threads()? != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "fork from a process with several threads is refused: call it from a single-threaded process",
        ));
    }
    let mut pidfd: RawFd = -1;
    let mut flags = libc::CLONE_PIDFD as u64;
    flags |= how.namespaces.map_or(0, |namespaces| u64::from(namespaces.bits()));
    if how.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: if how.pids.is_empty() { 0 } else { how.pids.as_ptr() as u64 },
        set_tid_size: how.pids.len() as u64,
        cgroup: how.cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64),
    };
    // SAFETY: the flags hold no CLONE_VM, so the child runs on its own copy of this stack and of all memory, and
    // nothing that it does is seen by the parent's memory; the process has one thread (checked above), so no lock of
    // the allocator or of the standard library can be held by a thread that the child lacks. `arguments`, `pidfd`
    // and the numbers behind `set_tid` live across the call, and the kernel writes only to `pidfd`, an `i32` as it
    // expects.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => run_child(how.keep, child),
        pid => Ok(Child {
            pid: Pid::from_raw(pid as i32).expect("clone3 returns a positive number in the parent"),
            // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel stored a fresh descriptor that nobody else
            // owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

fn run_child(keep: Option<&[BorrowedFd<'_>]>, child: impl FnOnce() -> i32) -> ! {
    if let Some(keep) = keep {
        close_all_except(keep);
    }
    let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANIC_STATUS);
    exit_now(status)
}

/// Ends the calling process at once, without running anything that was registered for its end.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` touches no memory of the process; it is allowed in a forked child.
    unsafe { libc::_exit(status) }
}

/// How many threads the calling process has.
///
/// # Errors
/// When `/proc/self/task` cannot be read.
pub fn threads() -> io::Result<u64> {
    // A directory has one link from its parent, one from itself, and here one from each thread's directory.
    let links = rustix::fs::stat("/proc/self/task")?.st_nlink as u64;
    Ok(links.saturating_sub(2))
}

/// Whether a process can be born into these namespaces here: makes one that exits at once.
///
/// # Errors
/// As `clone3(2)`: why it cannot.
pub fn probe_namespaces(namespaces: Namespaces) -> io::Result<()> {
    let arguments = libc::clone_args {
        flags: u64::from(namespaces.bits()),
        exit_signal: libc::SIGCHLD as u64,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: as in `fork`, but for the threads: the child executes nothing but `_exit`, which takes no lock, so
    // other threads of the process do not matter.
    let result = unsafe {
        let result = libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>());
        if result == 0 {
            libc::_exit(0);
        }
        result
    };
    let Some(pid) = Pid::from_raw(result as i32).filter(|_| result > 0) else {
        return Err(io::Error::last_os_error());
    };
    rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(pid), WaitOptions::from_bits_retain(WAIT_ALL))
    })?;
    Ok(())
}

/// A program to execute, converted ahead so that nothing can fail between `fork` and `execve` but the call itself.
#[derive(Debug, Clone)]
pub struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Converts a path, its arguments (the first is the name the program sees) and `NAME=value` strings.
    ///
    /// # Errors
    /// When one of them holds a zero byte.
    pub fn new(
        path: &str,
        arguments: impl IntoIterator<Item = impl Into<Vec<u8>>>,
        environment: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    ) -> Result<Self, NulError> {
        Ok(Self {
            path: CString::new(path)?,
            arguments: arguments.into_iter().map(CString::new).collect::<Result<_, _>>()?,
            environment: environment.into_iter().map(CString::new).collect::<Result<_, _>>()?,
        })
    }

    /// Executes the program in place of the calling one (`execve(2)`).
    ///
    /// # Errors
    /// As `execve(2)`; it returns for no other reason.
    pub fn execute(&self) -> io::Result<Infallible> {
        let arguments = terminated(&self.arguments);
        let environment = terminated(&self.environment);
        // SAFETY: the path and every string behind the two arrays are terminated C strings owned by `self`, the
        // arrays end with a null pointer, and all of them live until the call has returned or the program is gone.
        unsafe { libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        Err(io::Error::last_os_error())
    }
}

fn terminated(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Marks every descriptor above standard error close-on-exec.
///
/// # Errors
/// As `close_range(2)` (Linux 5.11).
pub fn close_all_on_exec() -> io::Result<()> {
    close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor above standard error but these. Only for a child that runs nothing of its parent's
/// frames: private to this module for that reason.
fn close_all_except(keep: &[BorrowedFd<'_>]) {
    let mut kept: Vec<libc::c_uint> = keep.iter().map(|fd| fd.as_raw_fd() as libc::c_uint).collect();
    kept.sort_unstable();
    let mut next = 3;
    for number in kept.into_iter().filter(|number| *number >= 3) {
        if number > next {
            let _ = close_range(next, number - 1, 0);
        }
        next = number + 1;
    }
    let _ = close_range(next, libc::c_uint::MAX, 0);
}

fn close_range(first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed. Without it this is called by `close_all_except`
    // alone, in a forked child in which the frames that own the closed descriptors never run again, so no owner is
    // left to use or close a number that means something else by then.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks every signal that can be blocked.
///
/// # Errors
/// As `sigprocmask(2)`.
pub fn block_signals() -> io::Result<()> {
    set_signal_mask(true)
}

/// Blocks no signal.
///
/// # Errors
/// As `sigprocmask(2)`.
pub fn unblock_signals() -> io::Result<()> {
    set_signal_mask(false)
}

/// Gives every signal its default action, the ignored ones too: execution alone keeps those ignored.
pub fn reset_signal_actions() {
    /// The highest signal number of the kernel (`_NSIG`).
    const SIGNAL_MAX: libc::c_int = 64;
    // What the kernel calls `struct sigaction`: handler, flags, restorer and a mask of 64 bits. All zeros is SIG_DFL
    // with nothing else asked for.
    let default_action = [0_u64; 4];
    for number in 1..=SIGNAL_MAX {
        // SAFETY: the kernel reads at most the 32 bytes of `default_action`, writes no old action because the pointer
        // for it is null, and SIG_DFL runs no code of ours. The call is made directly because the C library refuses
        // the two signals that it keeps for itself, which a parent may have left ignored. The results are ignored on
        // purpose: only SIGKILL and SIGSTOP refuse, and they have their default action always.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default_action.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

fn set_signal_mask(blocked: bool) -> io::Result<()> {
    // SAFETY: the set is fully written by sigfillset or sigemptyset before it is read; sigprocmask only reads it,
    // and a null old set is allowed.
    let result = unsafe {
        let mut set = std::mem::zeroed();
        if blocked {
            libc::sigfillset(&raw mut set)
        } else {
            libc::sigemptyset(&raw mut set)
        };
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that is readable while `SIGCHLD` is pending for the process (`signalfd(2)`), nonblocking and
/// close-on-exec. `SIGCHLD` must be blocked.
///
/// # Errors
/// As `signalfd(2)`.
pub fn child_signal_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: the set is fully written by sigemptyset before it is read; -1 asks for a new descriptor, which nobody
    // else owns when the call succeeded.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Reaps one ended child of any kind without waiting (`wait4(2)` with `__WALL`); `None` when none has ended or none
/// is left.
///
/// # Errors
/// As `wait4(2)`.
pub fn reap_any() -> io::Result<Option<(Pid, WaitStatus)>> {
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WAIT_ALL);
    match rustix::io::retry_on_intr(|| rustix::process::wait(options)) {
        Ok(reaped) => Ok(reaped),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reaps the child behind `pidfd` without waiting: true when it is gone, also when another process reaped it.
///
/// # Errors
/// As `waitid(2)`.
pub fn reap(pidfd: impl AsFd) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::from_bits_retain(WAIT_ALL);
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    match rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), options)) {
        Ok(status) => Ok(status.is_some()),
        // It is no child of ours (any more): whether it has ended is what poll says.
        Err(rustix::io::Errno::CHILD) => has_ended(pidfd),
        Err(error) => Err(error.into()),
    }
}

fn has_ended(pidfd: impl AsFd) -> io::Result<bool> {
    let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&zero)))? > 0)
}

/// Sends a signal to the process behind `pidfd`; a process that has ended is no error.
///
/// # Errors
/// As `pidfd_send_signal(2)`.
pub fn signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has the kernel kill the calling process when the thread that made it ends (`PR_SET_PDEATHSIG`).
///
/// # Errors
/// As `prctl(2)`.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Says whether processes of the same user may read and trace the calling one (`PR_SET_DUMPABLE`).
///
/// # Errors
/// As `prctl(2)`.
pub fn set_readable_by_user(readable: bool) -> io::Result<()> {
    use rustix::process::DumpableBehavior::{Dumpable, NotDumpable};
    Ok(rustix::process::set_dumpable_behavior(if readable { Dumpable } else { NotDumpable })?)
}

/// Makes a descriptor stay open in the programs that this process starts.
///
/// # Errors
/// As `fcntl(F_SETFD)`.
pub fn inherited(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty())?;
    Ok(descriptor)
}

/// Takes over a descriptor that the starter of this program passed on by [`inherited`], by its number, once.
///
/// # Errors
/// `EBADF` when no such descriptor is open; when it is one of the standard three.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is checked by the kernel before anything owns it: `fcntl` fails unless it is open. What a
    // starter passed on by number belongs to nobody in this process yet; a caller that named another open descriptor
    // would share it, which closes it twice but touches no memory.
    unsafe {
        if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_harness_has_threads_and_fork_says_so() {
        assert!(threads().unwrap() > 1);
        let refused = fork(&Fork::default(), || 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_namespace_that_needs_no_privilege_beyond_ours_can_be_probed() {
        // Either answer is right for some machine; what matters is that the child is reaped.
        let _ = probe_namespaces(Namespaces::USER | Namespaces::PROCESS_ID);
        assert!(probe_namespaces(Namespaces::empty()).is_ok());
    }

    #[test]
    fn a_zero_byte_is_no_argument() {
        assert!(Program::new("/bin/true", ["a\0b"], Vec::<String>::new()).is_err());
    }
}
