//! Namespaces of the calling thread: leaving them, joining them, and the one setting that a fresh network namespace
//! needs.
//!
//! `rustix` has the calls themselves; this module narrows them to what is sound to offer as safe functions.
//! Deliberately absent: addresses, routes and virtual links, which speak netlink and live with their user.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

pub use rustix::thread::ThreadNameSpaceType as Namespaces;

/// Moves the calling thread into fresh namespaces of the given kinds (`unshare(2)`).
///
/// For [`Namespaces::TIME`] and [`Namespaces::PROCESS_ID`] it is the *next child* that is born inside.
///
/// # Errors
/// As `unshare(2)`: `EPERM` without the privilege, `ENOSPC` or `EUSERS` at the limits under `/proc/sys/user`.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let kinds = Namespaces::TIME
        | Namespaces::MOUNT
        | Namespaces::CONTROL_GROUP
        | Namespaces::HOST_NAME_AND_NIS_DOMAIN_NAME
        | Namespaces::INTER_PROCESS_COMMUNICATION
        | Namespaces::USER
        | Namespaces::PROCESS_ID
        | Namespaces::NETWORK;
    let flags = UnshareFlags::from_bits_retain((namespaces & kinds).bits());
    // SAFETY: the only unsound use of unshare is CLONE_FILES, after which the same number means different open files
    // in two threads. The mask above keeps that bit, and every other that is no namespace, out of `flags`.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Joins the given namespaces of the process behind `pidfd` in one call (`setns(2)`, Linux 5.8).
///
/// # Errors
/// As `setns(2)`: `EPERM` without `CAP_SYS_ADMIN` over them, `EUSERS` or `EINVAL` for a time or user namespace when
/// the caller has several threads, `ESRCH` when the process is gone.
pub fn join(pidfd: impl AsFd, namespaces: Namespaces) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), namespaces)?)
}

/// Brings the loopback interface of the caller's network namespace up (`SIOCSIFFLAGS`).
///
/// The kernel then gives it `127.0.0.1/8` and `::1` by itself.
///
/// # Errors
/// As `socket(2)` and `netdevice(7)`: `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn bring_loopback_up() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` is a C structure of integers, byte arrays and a union of such; all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    // IFF_UP is 1 and IFF_RUNNING 64: both fit the 16-bit field of the interface's flags.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq` from the pointer, which is to a live, fully initialized one whose name
    // is terminated within its 16 bytes; the descriptor is a socket that lives across the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
