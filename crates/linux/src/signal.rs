//! Signals as something to read: block a set of them and take them from a descriptor (`signalfd(2)`).
//!
//! For processes that pass signals on to others. Deliberately absent: handlers, which would run between any two
//! instructions of a program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of `struct signalfd_siginfo`.
const RECORD_BYTES: usize = 128;
/// `SI_KERNEL`: sent by the kernel, as the signals of a terminal are.
const FROM_KERNEL: i32 = 0x80;

/// A signal that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub number: i32,
    /// Whether the kernel itself sent it: Ctrl-C in a terminal, not `kill(1)`.
    pub from_kernel: bool,
}

/// Signals that this thread takes by reading.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals of these numbers for the calling thread, besides those that are blocked already, and gives
    /// a descriptor, nonblocking and close-on-exec, that is readable when one waits.
    ///
    /// # Errors
    /// As `sigprocmask(2)` and `signalfd(2)`; `EINVAL` for a number that is none.
    pub fn take(numbers: &[i32]) -> io::Result<Self> {
        // SAFETY: the set is fully written by sigemptyset before it is added to and read; the mask call only reads it,
        // and a null old set is allowed; -1 asks for a new descriptor, which nobody else owns when the call succeeded.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for &number in numbers {
                if libc::sigaddset(&raw mut set, number) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(OwnedFd::from_raw_fd(fd))) }
        }
    }

    /// Takes the next signal that waits; `None` when none does.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn next(&self) -> io::Result<Option<Taken>> {
        let mut record = [0; RECORD_BYTES];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut record)) {
            Ok(RECORD_BYTES) => {
                let word = |at: usize| {
                    i32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
                };
                Ok(Some(Taken { number: word(0), from_kernel: word(8) == FROM_KERNEL }))
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends the signal of this number to the process behind `pidfd`; a process that has ended is no error.
///
/// # Errors
/// As `pidfd_send_signal(2)`.
pub fn send(pidfd: impl AsFd, number: i32) -> io::Result<()> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call takes numbers and a null pointer, which stands for the information that `kill(2)` sends; no
    // memory is read or written. The descriptor lives across the call.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), number, nothing, 0_u32)
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_and_its_sender_told() {
        let signals = Signals::take(&[libc::SIGUSR1]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        // SAFETY: sends a signal that this thread has blocked to this thread; it stays pending.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
        assert_eq!(signals.next().unwrap(), Some(Taken { number: libc::SIGUSR1, from_kernel: false }));
        assert_eq!(signals.next().unwrap(), None);
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        assert!(Signals::take(&[1000]).is_err());
    }
}
