//! Socket options by number and value, and looking at what waits in a socket without taking it out.
//!
//! `rustix` knows options one by one with their types; whoever saves sockets wants them alike, as bytes. Deliberately
//! absent: which options there are.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrAny};

/// The longest value of an option that [`option`] reads.
pub const OPTION_BYTES_MAX: usize = 512;

/// The value of a socket option (`getsockopt(2)`).
///
/// # Errors
/// As `getsockopt(2)`.
pub fn option(socket: impl AsFd, level: i32, option: i32) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; OPTION_BYTES_MAX];
    let mut bytes = OPTION_BYTES_MAX as libc::socklen_t;
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `bytes` bytes to `value`, which is that long, and the length to `bytes`; both
    // live across the call.
    let result =
        unsafe { libc::getsockopt(number, level, option, value.as_mut_ptr().cast(), &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(bytes as usize);
    Ok(value)
}

/// How many instructions the packet filter of a socket has; zero for none (`SO_GET_FILTER`).
///
/// # Errors
/// As `getsockopt(2)`.
pub fn filter_instructions(socket: impl AsFd) -> io::Result<u32> {
    let mut count: libc::socklen_t = 0;
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: with a length of zero the kernel writes no value, only the count to `count`.
    let result = unsafe {
        libc::getsockopt(
            number,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::null_mut(),
            &raw mut count,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count) }
}

/// Sets an option whose value is one number (`setsockopt(2)`).
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_option(socket: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let number = socket.as_fd().as_raw_fd();
    let bytes = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `value`, which lives across the call, and keeps no pointer to it. An
    // option that takes a pointer inside its value takes more than four bytes and refuses these.
    let result = unsafe { libc::setsockopt(number, level, option, (&raw const value).cast(), bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What [`peek`] saw.
#[derive(Debug)]
pub struct Peeked {
    /// The bytes, no more than asked for.
    pub bytes: Vec<u8>,
    /// Whether the message has more bytes than asked for.
    pub cut: bool,
    /// Descriptors that the message carries, as copies of ours.
    pub descriptors: Vec<OwnedFd>,
    /// Who sent it, when it has a name.
    pub sender: Option<SocketAddrAny>,
}

/// Looks at what waits to be read, from the socket's peek offset on (`MSG_PEEK`), and takes nothing out; `None` when
/// nothing waits.
///
/// # Errors
/// As `recvmsg(2)`.
pub fn peek(socket: impl AsFd, bytes_max: usize) -> io::Result<Option<Peeked>> {
    let mut bytes = vec![0; bytes_max];
    // More than the kernel lets one message carry (`SCM_MAX_FD`).
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(255))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut places = [IoSliceMut::new(&mut bytes)];
    let received = match rustix::net::recvmsg(&socket, &mut places, &mut ancillary, flags) {
        Ok(received) => received,
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let rights = |message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    };
    let descriptors = ancillary.drain().filter_map(rights).flatten().collect();
    bytes.truncate(received.bytes);
    let cut = received.flags.contains(ReturnFlags::TRUNC);
    Ok(Some(Peeked { bytes, cut, descriptors, sender: received.address }))
}

/// How many bytes, from a stream socket's peek offset on, came in sends that end within the first `bytes` bytes.
///
/// The kernel copies one send after another and stops at the first that the buffer cannot take; `bytes` is rounded to
/// no page, the buffer ends exactly there, and behind it nothing is mapped. Thus the answer is where the send begins
/// that holds the byte behind.
///
/// # Errors
/// As `mmap(2)` and `recvmsg(2)`.
pub fn peek_whole_sends(socket: impl AsFd, bytes: usize) -> io::Result<usize> {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
    const PAGE: usize = 4096;
    let room = bytes.next_multiple_of(PAGE);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice. Its last page is made inaccessible and no
    // reference to it or to any other of its bytes is ever made: only the kernel writes to it. It is unmapped below, by
    // the only one who knows its address.
    unsafe {
        let start = mmap_anonymous(std::ptr::null_mut(), room + PAGE, protection, MapFlags::PRIVATE)?;
        let guarded = mprotect(start.byte_add(room), PAGE, MprotectFlags::empty());
        let counted = guarded.map_err(io::Error::from).and_then(|()| {
            let place = start.byte_add(room - bytes);
            let mut vector = libc::iovec { iov_base: place, iov_len: bytes + 1 };
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut vector;
            message.msg_iovlen = 1;
            let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
            match libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) {
                count @ 0.. => Ok((count as usize).min(bytes)),
                _ => match io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::EFAULT) => Ok(0),
                    error => Err(error),
                },
            }
        });
        munmap(start, room + PAGE)?;
        counted
    }
}

/// Makes [`peek`] begin this many bytes into the queue; a negative offset ends that (`SO_PEEK_OFF`).
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_peek_offset(socket: impl AsFd, offset: i32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn a_peek_takes_nothing_out_and_goes_on_where_it_is_told_to() {
        let (one, other) = UnixDatagram::pair().unwrap();
        assert!(peek(&other, 10).unwrap().is_none());
        one.send(b"first").unwrap();
        one.send(b"second").unwrap();
        set_peek_offset(&other, 0).unwrap();
        assert_eq!(peek(&other, 10).unwrap().unwrap().bytes, b"first");
        set_peek_offset(&other, 5).unwrap();
        let second = peek(&other, 3).unwrap().unwrap();
        assert_eq!((second.bytes.as_slice(), second.cut), (&b"sec"[..], true));
        set_peek_offset(&other, -1).unwrap();
        let mut bytes = [0; 10];
        assert_eq!(other.recv(&mut bytes).unwrap(), 5);
    }

    #[test]
    fn an_option_reads_back_as_it_was_set() {
        let (one, _other) = UnixStream::pair().unwrap();
        set_option(&one, libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
        assert_eq!(option(&one, libc::SOL_SOCKET, libc::SO_PASSCRED).unwrap(), 1_i32.to_ne_bytes());
        assert_eq!(filter_instructions(&one).unwrap(), 0);
    }
}
