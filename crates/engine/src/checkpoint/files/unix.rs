//! Unix sockets: pairs, listeners, connections, and what waits in them.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use linux::socket_diag::UnixSocket;
use rustix::fs::Stat;
use rustix::net::{SocketAddrAny, SocketAddrUnix, sockopt};

use super::options::SocketKind;
use super::queue::{self, Order};
use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Kind, Unix, UnixMessage};

/// Stands for a peer that is gone: no socket has this inode.
const GONE: u64 = u64::MAX;

impl Files<'_> {
    pub(super) fn unix(&mut self, index: usize, copy: &OwnedFd) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let (pid, id) = (entry.held.pid, entry.stat.st_ino);
        let socket_type = sockopt::socket_type(copy).doing("look at a Unix socket", pid)?.as_raw() as i32;
        let told = match self.diag.unix_socket(id) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.refused(index, "a Unix socket of another network namespace", REOPEN));
            }
            told => told.doing("ask about a Unix socket", pid)?,
        };
        let order = match socket_type {
            libc::SOCK_STREAM => Order::Stream,
            libc::SOCK_SEQPACKET => Order::Packets,
            _ => Order::Datagrams,
        };
        let listens = told.backlog.is_some();
        if listens && told.waiting > 0 {
            let count = told.waiting;
            self.warn(index, &format!("{count} connections that wait to be accepted come back closed"));
        }
        let lonely_stream = order != Order::Datagrams && !told.connected;
        let queue = if listens || lonely_stream { Vec::new() } else { self.queue(index, copy, order)? };
        let kind = SocketKind { family: libc::AF_UNIX, socket_type, protocol: 0 };
        let options = self.fresh.differences(kind, copy).doing("read a socket's options", pid)?;
        let accepted = told.connected && order != Order::Datagrams && name_is_gone(&told, pid);
        let file = bound_file(&told, pid);
        Ok(Kind::Unix(Unix {
            id,
            peer: told.peer.unwrap_or(if told.connected { GONE } else { 0 }),
            socket_type,
            name: bound_name(told.name),
            backlog: told.backlog.map_or(0, |backlog| backlog.max(1)),
            queue,
            shutdown: u32::from(told.shutdown),
            options,
            accepted,
            mode: file.map_or(0, |file| file.st_mode & 0o7777),
            uid: file.map_or(0, |file| file.st_uid),
            gid: file.map_or(0, |file| file.st_gid),
        }))
    }

    fn queue(
        &mut self,
        index: usize,
        copy: &OwnedFd,
        order: Order,
    ) -> Result<Vec<UnixMessage>, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let pieces = queue::read(copy, order).doing("read what waits in a Unix socket", pid)?;
        let mut messages = Vec::with_capacity(pieces.len());
        for piece in pieces {
            self.count_queued(index, piece.bytes.len())?;
            let mut files = Vec::with_capacity(piece.files.len());
            for file in piece.files {
                files.push(self.intern_queued(index, file)? as u32);
            }
            let sender = piece.sender.map(sender_name).unwrap_or_default();
            messages.push(UnixMessage { bytes: piece.bytes, files, sender });
        }
        Ok(messages)
    }

    /// A peer must be in the image or gone, and only now is it known who was accepted from whom.
    pub(super) fn resolve_unix(&mut self) -> Result<(), CheckpointError> {
        let sockets: Vec<Unix> =
            self.entries.iter().filter_map(|entry| unix_of(entry.kind.as_ref())).cloned().collect();
        let ids: HashSet<u64> = sockets.iter().map(|unix| unix.id).chain([0, GONE]).collect();
        let listeners: HashSet<&[u8]> =
            sockets.iter().filter(|unix| unix.backlog > 0).map(|unix| unix.name.as_slice()).collect();
        for index in 0..self.entries.len() {
            let Some(unix) = unix_of(self.entries[index].kind.as_ref()) else { continue };
            let (peer, name) = (unix.peer, unix.name.clone());
            let here = ids.contains(&peer);
            if !here {
                let what = "a Unix socket that is connected to a process outside of the snapshot";
                return Err(self.refused(index, what, REOPEN));
            }
            if peer == GONE && unix.shutdown != SHUT && unix.socket_type != libc::SOCK_DGRAM {
                self.warn(index, "a connection that nobody has accepted yet comes back closed");
            }
            let listener = listeners.contains(name.as_slice());
            if let Some(Kind::Unix(unix)) = &mut self.entries[index].kind {
                unix.accepted |= unix.peer != 0 && unix.backlog == 0 && !name.is_empty() && listener;
            }
        }
        Ok(())
    }
}

/// [`Unix::shutdown`] of a socket whose other end is closed.
const SHUT: u32 = 3;

fn unix_of(kind: Option<&Kind>) -> Option<&Unix> {
    match kind {
        Some(Kind::Unix(unix)) => Some(unix),
        _ => None,
    }
}

/// Whether the name of a connected socket is a listener's that is gone: its file is not there any more.
fn name_is_gone(told: &UnixSocket, pid: i32) -> bool {
    told.name.starts_with(b"/") && bound_file(told, pid).is_none()
}

/// The file that a socket is bound to, if it is still there.
fn bound_file(told: &UnixSocket, pid: i32) -> Option<Stat> {
    let path = std::str::from_utf8(&told.name).ok().filter(|name| name.starts_with('/'))?;
    let path = path.trim_end_matches('\0');
    let file = rustix::fs::lstat(format!("/proc/{pid}/root{path}")).ok();
    file.filter(|file| Some(file.st_ino as u32) == told.file_inode)
}

/// `sun_path` of the sender of a message; empty when it has none.
fn sender_name(sender: SocketAddrAny) -> Vec<u8> {
    let Ok(sender) = SocketAddrUnix::try_from(sender) else { return Vec::new() };
    match (sender.path(), sender.abstract_name()) {
        (Some(path), _) => path.into_owned().into_bytes(),
        (_, Some(name)) => [&[0], name].concat(),
        _ => Vec::new(),
    }
}

/// A path without the zero that ends it; an abstract name as it is.
fn bound_name(mut name: Vec<u8>) -> Vec<u8> {
    if name.first().is_some_and(|first| *first != 0) {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_lose_their_zero() {
        assert_eq!(bound_name(b"/tmp/s\0".to_vec()), b"/tmp/s");
        assert_eq!(bound_name(b"\0ab\0".to_vec()), b"\0ab\0");
        assert_eq!(bound_name(Vec::new()), b"");
    }
}
