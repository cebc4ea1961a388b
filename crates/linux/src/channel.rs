//! A socket pair on which one message is one packet and file descriptors travel beside it.
//!
//! The roles of the server, the processes of a sandbox and the templates all talk this way. Packets keep their
//! boundaries (`SOCK_SEQPACKET`), so there is no framing to get wrong.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The most descriptors that one message carries; the kernel's own limit is 253 (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 250;

/// One end of a message channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// The bytes of the packet.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Makes a connected pair, both ends close-on-exec and blocking.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Room for the largest message of the host protocol several times over, where the kernel allows it.
        for end in [&a, &b] {
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(end, 1 << 20);
        }
        Ok((Self(a), Self(b)))
    }

    /// Sends one message. Blocks while the other side's queue is full, unless the channel was made nonblocking.
    ///
    /// # Errors
    /// As `sendmsg(2)`; `EPIPE` when the other end is gone (no `SIGPIPE` is raised).
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); ancillary_bytes(descriptors.len())];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// Receives one message of at most `bytes_max` bytes; `None` when the other end is closed.
    ///
    /// # Errors
    /// As `recvmsg(2)`; `EMSGSIZE` when the packet was longer than `bytes_max` (the packet is lost).
    pub fn receive(&self, bytes_max: usize) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; bytes_max];
        let mut space = vec![MaybeUninit::uninit(); ancillary_bytes(DESCRIPTORS_MAX)];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let descriptors: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        if received.bytes == 0 && descriptors.is_empty() {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        Ok(Some(Message { bytes, descriptors }))
    }

    /// Makes sends and receives return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// As `ioctl(FIONBIO)`.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, nonblocking)?)
    }
}

fn ancillary_bytes(descriptors: usize) -> usize {
    if descriptors == 0 { 0 } else { rustix::cmsg_space!(ScmRights(descriptors)) }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_boundary_and_its_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        a.send(b"one", &[write.as_fd()]).unwrap();
        a.send(b"two", &[]).unwrap();
        let first = b.receive(64).unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.descriptors.len()), (&b"one"[..], 1));
        rustix::io::write(&first.descriptors[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
        assert_eq!(b.receive(64).unwrap().unwrap().bytes, b"two");
    }

    #[test]
    fn the_end_of_the_other_side_is_none_and_a_long_packet_is_refused() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&[0; 100], &[]).unwrap();
        assert_eq!(b.receive(10).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        drop(a);
        assert!(b.receive(10).unwrap().is_none());
    }
}
