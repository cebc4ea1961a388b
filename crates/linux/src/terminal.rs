//! Asking about terminals and pseudoterminals (`ioctl_tty(2)`).
//!
//! Settings are passed as the kernel's bytes: whoever saves them gives them back the same way. Deliberately absent:
//! setting anything, and names, which belong to a mount of `/dev/pts`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of the kernel's `struct termios`.
pub const SETTINGS_BYTES: usize = 36;
/// Bytes of `struct winsize`.
pub const WINDOW_BYTES: usize = 8;
const TIOCGPTN: libc::c_ulong = 0x8004_5430;
const TIOCGPKT: libc::c_ulong = 0x8004_5438;

/// The settings of a terminal; of the slave's when asked of the master (`TCGETS`).
///
/// # Errors
/// As `ioctl(2)`: `ENOTTY` for what is no terminal.
pub fn settings(terminal: impl AsFd) -> io::Result<[u8; SETTINGS_BYTES]> {
    ask(terminal, libc::TCGETS)
}

/// The size of its window (`TIOCGWINSZ`).
///
/// # Errors
/// As `ioctl(2)`.
pub fn window(terminal: impl AsFd) -> io::Result<[u8; WINDOW_BYTES]> {
    ask(terminal, libc::TIOCGWINSZ)
}

/// The number of the pseudoterminal that this is the master of (`TIOCGPTN`).
///
/// # Errors
/// As `ioctl(2)`: `ENOTTY` for what is no master.
pub fn number(master: impl AsFd) -> io::Result<u32> {
    ask(master, TIOCGPTN).map(u32::from_ne_bytes)
}

/// Whether the master is in packet mode (`TIOCGPKT`).
///
/// # Errors
/// As `ioctl(2)`.
pub fn packet_mode(master: impl AsFd) -> io::Result<bool> {
    ask(master, TIOCGPKT).map(|mode| i32::from_ne_bytes(mode) != 0)
}

fn ask<const BYTES: usize>(terminal: impl AsFd, request: libc::c_ulong) -> io::Result<[u8; BYTES]> {
    let mut answer = [0; BYTES];
    // SAFETY: every request that comes here writes a structure of the size that its caller names, to `answer`, which
    // lives across the call; none reads or keeps anything.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), request, answer.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_tells_its_number_and_the_settings_of_its_slave() {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let Ok(master) = rustix::pty::openpt(flags) else {
            println!("did not run: this machine has no /dev/ptmx");
            return;
        };
        assert!(number(&master).is_ok() && settings(&master).is_ok() && window(&master).is_ok());
        assert!(!packet_mode(&master).unwrap());
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert_eq!(settings(&read).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
