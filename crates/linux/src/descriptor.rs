//! Telling descriptors of another process apart.

use std::io;

const KCMP_FILE: i32 = 0;

/// Whether two descriptors of a process are one open file description (`kcmp(2)`).
///
/// # Errors
/// As `kcmp(2)`.
pub fn same_description(pid: i32, one: i32, other: i32) -> io::Result<bool> {
    // SAFETY: `kcmp` takes numbers only and changes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, one, other) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}
