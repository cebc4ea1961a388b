//! What waits to be read from a socket, read without taking it out.

use std::io;
use std::os::fd::OwnedFd;

use linux::socket::{Peeked, peek, peek_whole_sends, set_peek_offset};
use rustix::net::SocketAddrAny;

/// Enough for most messages at once.
const PIECE_BYTES: usize = 256 << 10;
/// More than any socket's buffer of an ordinary user holds.
const PIECE_BYTES_MAX: usize = 64 << 20;
/// Messages in one queue; each costs the kernel some hundred bytes of a buffer.
const PIECES_MAX: usize = 1 << 17;

/// A message, or a piece of a stream.
#[derive(Debug)]
pub struct Piece {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Open files that it carries.
    pub files: Vec<OwnedFd>,
    /// Who sent it, if it has a name.
    pub sender: Option<SocketAddrAny>,
}

/// How a socket keeps what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As bytes.
    Stream,
    /// As messages; one without bytes says that nothing more comes (`SOCK_SEQPACKET`).
    Packets,
    /// As messages, which may have no bytes (`SOCK_DGRAM`).
    Datagrams,
}

/// Everything that waits to be read from a socket. Its peek offset is put back afterwards.
pub fn read(socket: &OwnedFd, order: Order) -> io::Result<Vec<Piece>> {
    let before = linux::socket::option(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
    let before = before.try_into().map_or(-1, i32::from_ne_bytes);
    let pieces = read_from(socket, order);
    set_peek_offset(socket, before)?;
    pieces
}

fn read_from(socket: &OwnedFd, order: Order) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    loop {
        let Some(seen) = whole(socket, order, offset)? else { return Ok(pieces) };
        if seen.bytes.is_empty() && order != Order::Datagrams {
            return Ok(pieces);
        }
        if pieces.len() >= PIECES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many messages wait in a socket"));
        }
        let Peeked { mut bytes, descriptors: files, sender, .. } = seen;
        let begin = offset;
        offset += bytes.len();
        if order == Order::Stream && !files.is_empty() {
            // Bytes that were sent before the files must not bring them along; a peek ends with the send that has them.
            set_peek_offset(socket, begin as i32)?;
            let plain = peek_whole_sends(socket, bytes.len() - 1)?;
            let rest = bytes.split_off(plain);
            if plain > 0 {
                pieces.push(Piece { bytes, files: Vec::new(), sender: None });
            }
            bytes = rest;
        }
        pieces.push(Piece { bytes, files, sender });
    }
}

/// Whether a peek has to be made again with more room. One that fills the room of a stream may tell of files that only
/// come with later bytes.
fn incomplete(seen: &Peeked, order: Order, room: usize) -> bool {
    match order {
        Order::Stream => !seen.descriptors.is_empty() && seen.bytes.len() == room,
        Order::Packets | Order::Datagrams => seen.cut,
    }
}

/// The message at `offset`, not cut.
fn whole(socket: &OwnedFd, order: Order, offset: usize) -> io::Result<Option<Peeked>> {
    let mut room = PIECE_BYTES;
    loop {
        let at = i32::try_from(offset).map_err(|_| io::ErrorKind::InvalidData)?;
        set_peek_offset(socket, at)?;
        match peek(socket, room)? {
            Some(seen) if room < PIECE_BYTES_MAX && incomplete(&seen, order, room) => room *= 4,
            seen => return Ok(seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use linux::channel::Channel;

    use super::*;

    #[test]
    fn datagrams_keep_their_boundaries_even_without_bytes() {
        let (one, other) = UnixDatagram::pair().unwrap();
        for message in [&b"first"[..], b"", b"second"] {
            one.send(message).unwrap();
        }
        let other = OwnedFd::from(other);
        for _ in 0..2 {
            let bytes: Vec<_> =
                read(&other, Order::Datagrams).unwrap().into_iter().map(|piece| piece.bytes).collect();
            assert!(
                bytes.starts_with(&[b"first".to_vec()]) && bytes.ends_with(&[b"second".to_vec()]),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn files_come_with_the_bytes_that_they_were_sent_with() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"be").unwrap();
        one.write_all(b"fore").unwrap();
        let (pipe, _write) = rustix::pipe::pipe().unwrap();
        let sender = Channel::from(OwnedFd::from(one.try_clone().unwrap()));
        sender.send(b"with", &[pipe.as_fd()]).unwrap();
        one.write_all(b"after").unwrap();
        let mut reader = other.try_clone().unwrap();
        let other = OwnedFd::from(other);
        let pieces = read(&other, Order::Stream).unwrap();
        let told: Vec<_> = pieces.iter().map(|piece| (piece.bytes.as_slice(), piece.files.len())).collect();
        assert_eq!(told, [(&b"before"[..], 0), (b"with", 1), (b"after", 0)]);
        let mut all = [0; 6];
        reader.read_exact(&mut all).unwrap();
        assert_eq!(&all, b"before", "nothing was taken out");
    }

    #[test]
    fn a_long_message_is_not_cut() {
        let (one, other) = UnixDatagram::pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&one, 1 << 20).unwrap();
        let long = vec![7; 150_000];
        if one.send(&long).is_ok() {
            assert_eq!(read(&OwnedFd::from(other), Order::Datagrams).unwrap()[0].bytes, long);
        }
    }

    #[test]
    fn the_end_of_a_stream_is_no_message() {
        let (one, other) = UnixStream::pair().unwrap();
        drop(one);
        assert!(read(&OwnedFd::from(other), Order::Stream).unwrap().is_empty());
    }
}
