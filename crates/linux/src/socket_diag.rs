//! Asking the kernel about Unix sockets by inode (`sock_diag(7)`): who is at the other end, what it is called, what waits.
//!
//! The answer is about the network namespace that the asking socket was made in. No `unsafe` is needed: requests and
//! answers are bytes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_VFS: u32 = 2;
const UDIAG_SHOW_PEER: u32 = 4;
const UDIAG_SHOW_RQLEN: u32 = 16;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
const TCP_LISTEN: u8 = 10;
const TCP_ESTABLISHED: u8 = 1;
/// `struct nlmsghdr`, then `struct unix_diag_msg`.
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 16;

/// What is known of a Unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// Whether it is connected, be the other end still there or not.
    pub connected: bool,
    /// Inode of the socket at the other end, if there is one that a process holds.
    pub peer: Option<u64>,
    /// Bytes that wait to be read; of a listening socket, connections that wait to be accepted.
    pub waiting: u32,
    /// Whether it listens, and for how many connections.
    pub backlog: Option<u32>,
    /// `sun_path` that it is bound to, as long as the kernel keeps it.
    pub name: Vec<u8>,
    /// Inode of the file that it is bound to.
    pub file_inode: Option<u32>,
    /// Bit 0: it reads no more; bit 1: it writes no more.
    pub shutdown: u8,
}

/// A socket to ask through.
#[derive(Debug)]
pub struct SocketDiag(OwnedFd);

impl SocketDiag {
    /// Asks about the network namespace that the calling thread is in now.
    ///
    /// # Errors
    /// As `socket(2)`.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(SOCK_DIAG),
        )?;
        Ok(Self(socket))
    }

    /// Asks about the Unix socket with this inode.
    ///
    /// # Errors
    /// As the calls on a netlink socket; `ENOENT` when there is no such socket in the network namespace.
    pub fn unix_socket(&self, inode: u64) -> io::Result<UnixSocket> {
        let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidInput)?;
        rustix::net::send(&self.0, &request(inode), SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (bytes, _) = rustix::net::recv(&self.0, &mut answer, RecvFlags::empty())?;
        parse(&answer[..bytes])
    }
}

/// Asks about the Unix socket with this inode in the network namespace of the calling thread.
///
/// # Errors
/// As [`SocketDiag::unix_socket`].
pub fn unix_socket(inode: u64) -> io::Result<UnixSocket> {
    SocketDiag::open()?.unix_socket(inode)
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
    let show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN;
    request.extend_from_slice(&show.to_ne_bytes());
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
    // `struct unix_diag_msg` begins with family, type and state.
    let state = *answer.get(HEADER_BYTES + 2).ok_or_else(short)?;
    let datagrams = answer.get(HEADER_BYTES + 1) == Some(&(libc::SOCK_DGRAM as u8));
    let connected = state == TCP_ESTABLISHED && !datagrams;
    let mut socket = UnixSocket { connected, ..UnixSocket::default() };
    let mut at = HEADER_BYTES + MESSAGE_BYTES;
    while let (Some(bytes), Some(kind)) = (half(at), half(at + 2)) {
        // Attributes are padded to four bytes; one shorter than its own header ends the walk.
        let bytes = usize::from(bytes.max(4));
        match kind {
            UNIX_DIAG_NAME => socket.name = answer.get(at + 4..at + bytes).ok_or_else(short)?.to_vec(),
            UNIX_DIAG_VFS => socket.file_inode = word(at + 4),
            UNIX_DIAG_PEER => {
                socket.peer = word(at + 4).filter(|peer| *peer != 0).map(u64::from);
                // Only who has connected has a peer, and a datagram socket that was connected to has this state too.
                socket.connected = true;
            }
            UNIX_DIAG_RQLEN => {
                socket.waiting = word(at + 4).ok_or_else(short)?;
                socket.backlog = word(at + 8).filter(|_| state == TCP_LISTEN);
            }
            UNIX_DIAG_SHUTDOWN => socket.shutdown = *answer.get(at + 4).ok_or_else(short)?,
            _ => {}
        }
        at += bytes.next_multiple_of(4);
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::*;

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn the_ends_of_a_pair_name_each_other() {
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(unix_socket(inode(&one)).unwrap().peer, Some(inode(&other)));
        let told = unix_socket(inode(&other)).unwrap();
        assert_eq!((told.peer, told.waiting, told.connected), (Some(inode(&one)), 0, true));
        rustix::io::write(&one, b"x").unwrap();
        assert!(unix_socket(inode(&other)).unwrap().waiting > 0);
        let number = inode(&other);
        drop(one);
        let told = unix_socket(number).unwrap();
        assert_eq!((told.peer, told.shutdown, told.connected), (None, 3, true));
    }

    #[test]
    fn a_listener_tells_its_name_and_its_backlog() {
        let name = format!("rekindle-diag-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let told = unix_socket(inode(&listener)).unwrap();
        assert_eq!(told.name, format!("\0{name}").into_bytes());
        assert!(told.backlog.is_some() && told.peer.is_none() && !told.connected);
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        assert!(unix_socket(u64::from(u32::MAX)).is_err());
    }
}
