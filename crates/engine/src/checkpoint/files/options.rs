//! Socket options that differ from those of a fresh socket of the same kind.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};

use crate::image::SocketOption;

const SO_BUF_LOCK: i32 = 72;
const SO_PASSPIDFD: i32 = 76;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;
const TCP_NOTSENT_LOWAT: i32 = 25;
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;
const IP_MULTICAST_ALL: i32 = 49;

/// Options of every socket.
const COMMON: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
];
/// Options of Unix sockets. Credentials are asked for by the receiver.
const UNIX: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_PASSCRED),
    (libc::SOL_SOCKET, libc::SO_PASSSEC),
    (libc::SOL_SOCKET, SO_PASSPIDFD),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF),
];
const INTERNET: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IP, libc::IP_RECVTTL),
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
];
const INTERNET_6: &[(i32, i32)] = &[
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
];
const TCP: &[(i32, i32)] = &[
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT),
];
const UDP: &[(i32, i32)] = &[
    (libc::IPPROTO_UDP, libc::UDP_CORK),
    (libc::IPPROTO_UDP, UDP_SEGMENT),
    (libc::IPPROTO_UDP, UDP_GRO),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP),
    (libc::IPPROTO_IP, IP_MULTICAST_ALL),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP),
];
/// Buffer sizes and the bits of `SO_BUF_LOCK` that tell whether they were set: without, the kernel changes them as it
/// likes.
const BUFFERS: [(i32, i32); 2] = [(libc::SO_SNDBUF, 1), (libc::SO_RCVBUF, 2)];

/// What kind of socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketKind {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub socket_type: i32,
    /// `IPPROTO_*`.
    pub protocol: i32,
}

/// Options of fresh sockets, by kind.
#[derive(Default)]
pub struct Fresh(HashMap<SocketKind, Vec<SocketOption>>);

impl Fresh {
    /// The options of `socket` that differ from a fresh one's.
    ///
    /// # Errors
    /// As `socket(2)` and `getsockopt(2)`.
    pub fn differences(&mut self, kind: SocketKind, socket: &OwnedFd) -> io::Result<Vec<SocketOption>> {
        let fresh = match self.0.entry(kind) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let socket = rustix::net::socket_with(
                    AddressFamily::from_raw(kind.family as u16),
                    SocketType::from_raw(kind.socket_type as u32),
                    SocketFlags::CLOEXEC,
                    std::num::NonZeroU32::new(kind.protocol as u32).map(Protocol::from_raw),
                )?;
                place.insert(values(kind, &socket))
            }
        };
        let mut found = values(kind, socket);
        found.retain(|option| !fresh.contains(option));
        found.extend(buffers(socket));
        Ok(found)
    }
}

/// The options that a socket of this kind has, but for those that this kernel does not know.
fn values(kind: SocketKind, socket: impl AsFd) -> Vec<SocketOption> {
    let by_family: &[&[(i32, i32)]] = match kind.family {
        libc::AF_UNIX => &[COMMON, UNIX],
        libc::AF_INET6 => &[COMMON, INTERNET, INTERNET_6],
        _ => &[COMMON, INTERNET],
    };
    let by_protocol = match (kind.family, kind.socket_type) {
        (libc::AF_UNIX, _) => &[],
        (_, libc::SOCK_STREAM) => TCP,
        _ => UDP,
    };
    let names = by_family.iter().copied().flatten().chain(by_protocol);
    let value = |&(level, option): &(i32, i32)| {
        Some(SocketOption { level, option, value: linux::socket::option(&socket, level, option).ok()? })
    };
    names.filter_map(value).collect()
}

fn buffers(socket: &OwnedFd) -> Vec<SocketOption> {
    let number = |option| {
        let value = linux::socket::option(socket, libc::SOL_SOCKET, option).ok()?;
        Some(i32::from_ne_bytes(value.try_into().ok()?))
    };
    let locked = number(SO_BUF_LOCK).unwrap_or(0);
    let set = BUFFERS.iter().filter(|(_, bit)| locked & bit != 0);
    let option = |&(option, _): &(i32, i32)| {
        // The kernel doubles what it is given.
        let value = (number(option)? / 2).to_ne_bytes().to_vec();
        Some(SocketOption { level: libc::SOL_SOCKET, option, value })
    };
    set.filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_what_was_set_differs() {
        let kind = SocketKind { family: libc::AF_INET, socket_type: libc::SOCK_STREAM, protocol: 6 };
        let mut fresh = Fresh::default();
        let plain = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        assert_eq!(fresh.differences(kind, &plain).unwrap(), []);
        rustix::net::sockopt::set_tcp_nodelay(&plain, true).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&plain, 10_000).unwrap();
        let told: Vec<_> = fresh.differences(kind, &plain).unwrap();
        let expected =
            [(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1), (libc::SOL_SOCKET, libc::SO_RCVBUF, 10_000)];
        let expected = expected.map(|(level, option, value): (i32, i32, i32)| SocketOption {
            level,
            option,
            value: value.to_ne_bytes().to_vec(),
        });
        assert_eq!(told, expected);
        // The standard library's listeners allow their address to be used again.
        let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        assert_eq!(fresh.differences(kind, &listener).unwrap().len(), 1);
    }
}
