//! Telling what processes hold apart, and asking what the kernel keeps for an open file.
//!
//! `kcmp(2)` orders open files, address spaces and tables by secret but stable keys, so that a sorted list finds one
//! among hundreds with few calls. Deliberately absent: setting anything.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

const KCMP_FILE: i32 = 0;
const KCMP_EPOLL_TFD: i32 = 7;
const F_GETOWN_EX: i32 = 16;
const F_GETSIG: i32 = 11;

/// A descriptor of a process, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The process (or thread) as the caller sees it.
    pub pid: i32,
    /// The descriptor's number in it.
    pub number: i32,
}

/// A member of an epoll set, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpollMember {
    /// The epoll set.
    pub epoll: Held,
    /// The number that the member had when it was added.
    pub number: i32,
    /// How many members of that number the set lists before this one.
    pub before: u32,
}

/// What two processes or threads may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Shared {
    /// The address space.
    Memory = 1,
    /// The table of descriptors.
    Descriptors = 2,
    /// Root, working directory and file mode mask.
    FileSystem = 3,
}

/// Whether two descriptors of a process are one open file description (`kcmp(2)`).
///
/// # Errors
/// As `kcmp(2)`.
pub fn same_description(pid: i32, one: i32, other: i32) -> io::Result<bool> {
    Ok(compare(Held { pid, number: one }, Held { pid, number: other })?.is_eq())
}

/// Orders the open file descriptions behind two descriptors; equal when they are one.
///
/// # Errors
/// As `kcmp(2)`: `EBADF` when one is not open, `EPERM` without the right to trace both processes.
pub fn compare(one: Held, other: Held) -> io::Result<Ordering> {
    kcmp(one.pid, other.pid, KCMP_FILE, one.number as u64, other.number as u64)
}

/// Orders an open file against the one that a member of an epoll set stands for.
///
/// # Errors
/// As `kcmp(2)`: `ENOENT` when the set has no such member.
pub fn compare_member(one: Held, member: EpollMember) -> io::Result<Ordering> {
    // `struct kcmp_epoll_slot`.
    let slot = [member.epoll.number as u32, member.number as u32, member.before];
    kcmp(one.pid, member.epoll.pid, KCMP_EPOLL_TFD, one.number as u64, slot.as_ptr() as u64)
}

/// Orders what two processes or threads have of a kind; equal when they share it.
///
/// # Errors
/// As `kcmp(2)`.
pub fn compare_shared(one: i32, other: i32, what: Shared) -> io::Result<Ordering> {
    kcmp(one, other, what as i32, 0, 0)
}

fn kcmp(one: i32, other: i32, kind: i32, first: u64, second: u64) -> io::Result<Ordering> {
    // SAFETY: `kcmp` takes numbers and, for an epoll member alone, the address of three words that live across the
    // call; it only reads them and changes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, kind, first, second) };
    match order {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        3.. => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who gets the signals of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalOwner {
    /// Nobody.
    None,
    /// A thread.
    Thread(i32),
    /// A process.
    Process(i32),
    /// A process group.
    Group(i32),
}

/// Who gets the signals of an open file, as the caller numbers processes (`F_GETOWN_EX`).
///
/// # Errors
/// As `fcntl(2)`.
pub fn signal_owner(descriptor: impl AsFd) -> io::Result<SignalOwner> {
    // `struct f_owner_ex`: kind and number.
    let mut owner = [0_i32; 2];
    // SAFETY: F_GETOWN_EX writes the two words of `owner` and nothing else; the descriptor lives across the call.
    let result = unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) };
    match (result, owner) {
        (0, [_, 0]) => Ok(SignalOwner::None),
        (0, [0, thread]) => Ok(SignalOwner::Thread(thread)),
        (0, [1, process]) => Ok(SignalOwner::Process(process)),
        (0, [_, group]) => Ok(SignalOwner::Group(group)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The signal that an open file sends when it becomes ready; zero for `SIGIO` (`F_GETSIG`).
///
/// # Errors
/// As `fcntl(2)`.
pub fn owner_signal(descriptor: impl AsFd) -> io::Result<i32> {
    number(descriptor, F_GETSIG)
}

/// The lease on an open file: `F_RDLCK`, `F_WRLCK` or `F_UNLCK` (`F_GETLEASE`).
///
/// # Errors
/// As `fcntl(2)`.
pub fn lease(descriptor: impl AsFd) -> io::Result<i32> {
    number(descriptor, libc::F_GETLEASE)
}

fn number(descriptor: impl AsFd, command: i32) -> io::Result<i32> {
    // SAFETY: both commands that come here take no argument and give a number; nothing is written to memory.
    let result = unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), command) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn own(fd: &OwnedFd) -> Held {
        Held { pid: std::process::id() as i32, number: fd.as_raw_fd() }
    }

    #[test]
    fn a_duplicate_is_equal_and_another_is_ordered() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let copy = read.try_clone().unwrap();
        assert!(compare(own(&read), own(&copy)).unwrap().is_eq());
        let order = compare(own(&read), own(&write)).unwrap();
        assert_eq!(compare(own(&write), own(&read)).unwrap(), order.reverse());
        assert!(order.is_ne());
    }

    #[test]
    fn a_member_of_an_epoll_set_is_found_by_its_file() {
        use rustix::event::epoll;
        let (read, write) = rustix::pipe::pipe().unwrap();
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&set, &read, epoll::EventData::new_u64(7), epoll::EventFlags::IN).unwrap();
        let member = EpollMember { epoll: own(&set), number: read.as_raw_fd(), before: 0 };
        assert!(compare_member(own(&read), member).unwrap().is_eq());
        assert!(compare_member(own(&write), member).unwrap().is_ne());
        assert!(compare_member(own(&read), EpollMember { before: 1, ..member }).is_err());
    }

    #[test]
    fn a_fresh_descriptor_has_no_owner_and_no_signal() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert_eq!(signal_owner(&read).unwrap(), SignalOwner::None);
        assert_eq!(owner_signal(&read).unwrap(), 0);
    }
}
