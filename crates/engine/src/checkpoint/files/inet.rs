//! TCP and UDP sockets: unconnected ones, connections to the platform, connections within the image, and all others,
//! which come back closed.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::sockopt;

use super::address::{address, address_bytes, plain, reaches};
use super::options::SocketKind;
use super::queue::{self, Order};
use super::{Files, REOPEN, tcp};
use crate::checkpoint::{CheckpointError, Doing, Platform};
use crate::image::{Closed, Connection, Datagram, External, Kind, Loopback, Socket};

const IPPROTO_MPTCP: i32 = 262;
/// Bit of [`Loopback::shutdown`].
const SHUT_WRITE: u32 = 2;
const QUEUE_BYTES_MAX: usize = 64 << 20;
const LOOK: &str = "look at a socket";

/// A connected socket whose other end is looked for when all are known.
pub struct Endpoint {
    index: usize,
    local: SocketAddr,
    peer: SocketAddr,
    info: tcp::Info,
    loopback: Loopback,
}

impl Endpoint {
    fn stream(&self) -> bool {
        self.loopback.socket.socket_type == libc::SOCK_STREAM
    }
}

impl Files<'_> {
    pub(super) fn inet(&mut self, index: usize, copy: &OwnedFd) -> Result<Kind, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let kind = SocketKind {
            family: i32::from(sockopt::socket_domain(copy).doing(LOOK, pid)?.as_raw()),
            socket_type: sockopt::socket_type(copy).doing(LOOK, pid)?.as_raw() as i32,
            protocol: sockopt::socket_protocol(copy)
                .doing(LOOK, pid)?
                .map_or(0, |known| known.as_raw().get() as i32),
        };
        let stream = match (kind.socket_type, kind.protocol) {
            (libc::SOCK_STREAM, libc::IPPROTO_TCP | IPPROTO_MPTCP) => true,
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP) => false,
            (_, other) => return Err(self.refused(index, &format!("a socket of protocol {other}"), REOPEN)),
        };
        let internet = |any: rustix::net::SocketAddrAny| SocketAddr::try_from(any).ok();
        let local = rustix::net::getsockname(copy).ok().and_then(internet);
        let peer = rustix::net::getpeername(copy).ok().flatten().and_then(internet);
        let info = if stream { tcp::info(copy) } else { tcp::Info::default() };
        let options = self.fresh.differences(kind, copy).doing("read a socket's options", pid)?;
        let mut socket = Socket {
            family: kind.family,
            socket_type: kind.socket_type,
            protocol: kind.protocol,
            options,
            ..Socket::default()
        };
        socket.address = local.filter(|local| local.port() != 0).map(address_bytes).unwrap_or_default();
        if !stream {
            socket.queue = self.datagrams(index, copy)?;
        }
        match (local, peer) {
            (Some(local), Some(peer)) => self.connected(index, copy, local, peer, info, socket),
            _ if stream && info.state == tcp::LISTEN => {
                socket.backlog = info.backlog.max(1);
                if info.waiting > 0 {
                    let count = info.waiting;
                    self.warn(
                        index,
                        &format!("{count} connections that wait to be accepted come back closed"),
                    );
                }
                Ok(Kind::Socket(socket))
            }
            _ if stream && tcp::over(copy) => {
                self.warn(index, "a connection that is over comes back closed");
                Ok(closed(&socket, "nowhere".to_owned()))
            }
            _ => Ok(Kind::Socket(socket)),
        }
    }

    fn connected(
        &mut self,
        index: usize,
        copy: &OwnedFd,
        local: SocketAddr,
        peer: SocketAddr,
        info: tcp::Info,
        socket: Socket,
    ) -> Result<Kind, CheckpointError> {
        let stream = socket.socket_type == libc::SOCK_STREAM;
        let is_platform =
            |platform: &Platform| plain(peer) == SocketAddr::from((Ipv4Addr::LOCALHOST, platform.port));
        if let Some(platform) = self.subject.platform.filter(|_| stream).filter(is_platform) {
            return Ok(if local.port() == platform.pending_port {
                Kind::External(External::Pending.into())
            } else {
                Kind::Connection(Connection { port: u32::from(platform.port) })
            });
        }
        let queue = if stream { self.stream(index, copy)? } else { Vec::new() };
        let shutdown = if tcp::WRITES_NO_MORE.contains(&info.state) { SHUT_WRITE } else { 0 };
        let provisional = closed(&socket, peer.to_string());
        let loopback = Loopback { socket, peer: address_bytes(peer), queue, accepted: false, shutdown };
        self.endpoints.push(Endpoint { index, local: plain(local), peer: plain(peer), info, loopback });
        Ok(provisional)
    }

    fn datagrams(&mut self, index: usize, copy: &OwnedFd) -> Result<Vec<Datagram>, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let pieces = queue::read(copy, Order::Datagrams).doing("read what waits in a socket", pid)?;
        self.count_queued(index, pieces.iter().map(|piece| piece.bytes.len()).sum())?;
        let sender = |any: rustix::net::SocketAddrAny| SocketAddr::try_from(any).ok().map(address_bytes);
        let datagram = |piece: queue::Piece| Datagram {
            sender: piece.sender.and_then(sender).unwrap_or_default(),
            bytes: piece.bytes,
        };
        Ok(pieces.into_iter().map(datagram).collect())
    }

    /// What waits to be read from a TCP connection.
    fn stream(&mut self, index: usize, copy: &OwnedFd) -> Result<Vec<u8>, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let waiting = rustix::io::ioctl_fionread(copy).doing(LOOK, pid)? as usize;
        if waiting == 0 {
            return Ok(Vec::new());
        }
        self.count_queued(index, waiting)?;
        let seen = linux::socket::peek(copy, waiting.min(QUEUE_BYTES_MAX))
            .doing("read what waits in a socket", pid)?;
        let bytes = seen.map(|seen| seen.bytes).unwrap_or_default();
        if bytes.len() < waiting {
            return Err(self.refused(index, "a connection with urgent data", "read it before the snapshot"));
        }
        Ok(bytes)
    }

    /// Finds the two ends of each connection; one whose other end is not in the image comes back closed.
    pub(super) fn resolve_inet(&mut self) -> Result<(), CheckpointError> {
        let endpoints = std::mem::take(&mut self.endpoints);
        let bound = self.bound();
        let mut by_addresses = HashMap::new();
        for endpoint in &endpoints {
            by_addresses.insert((endpoint.stream(), endpoint.local, endpoint.peer), endpoint);
        }
        for endpoint in &endpoints {
            let other = by_addresses.get(&(endpoint.stream(), endpoint.peer, endpoint.local)).copied();
            let near = match other {
                Some(other) if endpoint.stream() => {
                    self.refuse_unsent(endpoint, other)?;
                    true
                }
                Some(_) => true,
                None if endpoint.stream() => gone(endpoint),
                None => bound.iter().any(|(listens, bound)| !*listens && reaches(*bound, endpoint.peer)),
            };
            if near {
                let accepted = endpoint.stream() && accepted(endpoint, other, &bound);
                let loopback = Loopback { accepted, ..endpoint.loopback.clone() };
                self.entries[endpoint.index].kind = Some(Kind::Loopback(loopback));
            } else {
                let peer = endpoint.peer;
                let what = format!(
                    "the connection to {peer} comes back closed; open it again in an after-restore hook or at first use"
                );
                self.warn(endpoint.index, &what);
            }
        }
        Ok(())
    }

    /// The addresses of all sockets, and whether each listens for TCP connections; the others are of UDP.
    fn bound(&self) -> Vec<(bool, SocketAddr)> {
        let of_kind = |kind: &Kind| match kind {
            Kind::Socket(socket) => Some(socket.clone()),
            _ => None,
        };
        let unconnected = self.entries.iter().filter_map(|entry| entry.kind.as_ref().and_then(of_kind));
        unconnected
            .filter(|socket| socket.backlog > 0 || socket.socket_type == libc::SOCK_DGRAM)
            .filter_map(|socket| Some((socket.backlog > 0, plain(address(&socket.address)?))))
            .collect()
    }

    /// What is neither in the queue of the one end nor in that of the other is in no image.
    fn refuse_unsent(&self, one: &Endpoint, other: &Endpoint) -> Result<(), CheckpointError> {
        if one.info.unsent_bytes == 0 && one.info.sent_bytes <= other.info.received_bytes {
            return Ok(());
        }
        let what = "a connection within the snapshot with data that the other end has had no room for";
        Err(self.refused(one.index, what, "read it before the snapshot"))
    }
}

/// Whether this end of a connection was accepted: the one with a listener's address, or else the later one.
fn accepted(endpoint: &Endpoint, other: Option<&Endpoint>, bound: &[(bool, SocketAddr)]) -> bool {
    let listens = |address| bound.iter().any(|(listens, bound)| *listens && reaches(*bound, address));
    match (listens(endpoint.local), listens(endpoint.peer)) {
        (true, false) => true,
        (false, true) => false,
        _ => other.is_some_and(|other| endpoint.index > other.index),
    }
}

/// Whether the other end was closed by a process that had said all it had to say, and was near: its address tells.
fn gone(endpoint: &Endpoint) -> bool {
    endpoint.info.state == tcp::CLOSE_WAIT && endpoint.peer.ip().is_loopback()
}

fn closed(socket: &Socket, peer: String) -> Kind {
    Kind::Closed(Closed { family: socket.family, socket_type: socket.socket_type, peer })
}
