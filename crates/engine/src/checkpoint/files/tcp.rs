//! What the kernel tells of a TCP connection.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// States of a connection (include/net/tcp_states.h).
pub const LISTEN: u8 = 10;
/// The other end writes no more.
pub const CLOSE_WAIT: u8 = 8;
/// This end has said that it writes no more: FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING.
pub const WRITES_NO_MORE: [u8; 4] = [4, 5, 9, 11];

/// What `TCP_INFO` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// State of the connection (include/net/tcp_states.h).
    pub state: u8,
    /// Of a listener: connections that wait.
    pub waiting: u32,
    /// Of a listener: how many may wait.
    pub backlog: u32,
    /// Bytes that the application has written and the kernel has not sent yet.
    pub unsent_bytes: u32,
    /// Bytes that were sent, each counted once.
    pub sent_bytes: u64,
    /// Bytes that were received.
    pub received_bytes: u64,
}

/// What `TCP_INFO` tells of a socket.
pub fn info(socket: &OwnedFd) -> Info {
    linux::socket::option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)
        .map(|bytes| parse(&bytes))
        .unwrap_or_default()
}

/// Reads `struct tcp_info` (include/uapi/linux/tcp.h); of a listener two fields mean its backlog.
fn parse(bytes: &[u8]) -> Info {
    const WAITING: usize = 24;
    const BACKLOG: usize = 28;
    const RECEIVED: usize = 128;
    const UNSENT: usize = 144;
    const SENT: usize = 200;
    const SENT_AGAIN: usize = 208;
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.map_or(0, u32::from_ne_bytes)
    };
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    Info {
        state: bytes.first().copied().unwrap_or(0),
        waiting: word(WAITING),
        backlog: word(BACKLOG),
        unsent_bytes: word(UNSENT),
        sent_bytes: long(SENT).saturating_sub(long(SENT_AGAIN)),
        received_bytes: long(RECEIVED),
    }
}

/// Whether a TCP socket without a peer has had one.
pub fn over(socket: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::RDHUP)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_tells_its_backlog() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let told = info(&OwnedFd::from(listener));
        assert_eq!((told.state, told.waiting), (LISTEN, 1));
        assert!(told.backlog > 0);
        drop(client);
    }

    #[test]
    fn a_fresh_socket_is_not_over() {
        let fresh =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        assert!(!over(&fresh.unwrap()));
    }
}
