//! Asking the kernel about Unix sockets by inode (`sock_diag(7)`): who is at the other end, and what waits.
//!
//! The answer is about the network namespace of the calling thread. No `unsafe` is needed: requests and answers are
//! bytes.

use std::io;

use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UDIAG_SHOW_RQLEN: u32 = 16;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
/// `struct nlmsghdr`, then `struct unix_diag_msg`.
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 16;

/// What is known of a Unix socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// Inode of the socket at the other end, if it is connected.
    pub peer: Option<u64>,
    /// Bytes that wait to be read.
    pub waiting_bytes: u32,
}

/// Asks about the Unix socket with this inode.
///
/// # Errors
/// As the calls on a netlink socket; `ENOENT` when there is no such socket in this network namespace.
pub fn unix_socket(inode: u64) -> io::Result<UnixSocket> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidInput)?;
    rustix::net::send(&socket, &request(inode), SendFlags::empty())?;
    let mut answer = [0; 4096];
    let (bytes, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    parse(&answer[..bytes])
}

fn request(inode: u32) -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend_from_slice(&40_u32.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port, then `struct unix_diag_req`: family, protocol, padding, states, inode, show, cookie.
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend_from_slice(&u32::MAX.to_ne_bytes());
    request.extend_from_slice(&inode.to_ne_bytes());
    request.extend_from_slice(&(UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN).to_ne_bytes());
    request.extend_from_slice(&[0xff; 8]);
    request
}

fn parse(answer: &[u8]) -> io::Result<UnixSocket> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if half(4) == Some(NLMSG_ERROR) {
        let errno = word(HEADER_BYTES).ok_or_else(short)? as i32;
        return Err(io::Error::from_raw_os_error(-errno));
    }
    let mut socket = UnixSocket::default();
    let mut at = HEADER_BYTES + MESSAGE_BYTES;
    while let (Some(bytes), Some(kind)) = (half(at), half(at + 2)) {
        match kind {
            UNIX_DIAG_PEER => socket.peer = word(at + 4).map(u64::from),
            UNIX_DIAG_RQLEN => socket.waiting_bytes = word(at + 4).ok_or_else(short)?,
            _ => {}
        }
        // Attributes are padded to four bytes; one shorter than its own header ends the walk.
        at += usize::from(bytes.max(4)).next_multiple_of(4);
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn the_ends_of_a_pair_name_each_other() {
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(unix_socket(inode(&one)).unwrap().peer, Some(inode(&other)));
        assert_eq!(
            unix_socket(inode(&other)).unwrap(),
            UnixSocket { peer: Some(inode(&one)), waiting_bytes: 0 }
        );
        rustix::io::write(&one, b"x").unwrap();
        assert!(unix_socket(inode(&other)).unwrap().waiting_bytes > 0);
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        assert!(unix_socket(u64::from(u32::MAX)).is_err());
    }
}
