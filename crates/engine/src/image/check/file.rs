//! Checks of open files.

use super::process::NUMBERS_MAX;
use super::{signal, text};
use crate::image::{External, Image, Kind, Loopback, OpenFile, Pipe, Socket, SocketOption, Unix};

/// Bytes of `sun_path`.
const UNIX_NAME_BYTES_MAX: usize = 108;
/// Bytes of a `struct sockaddr_storage`.
const ADDRESS_BYTES_MAX: usize = 128;
/// The most descriptors that one message carries (`SCM_MAX_FD`).
const MESSAGE_FILES_MAX: usize = 253;
/// Bytes of the longest option of a socket.
const OPTION_BYTES_MAX: usize = 4096;
/// What a pipe of unknown capacity holds.
const PIPE_BYTES: usize = 65536;
/// Bytes of a `struct termios` or `struct winsize` at most.
const TERMINAL_BYTES_MAX: usize = 64;
/// `F_UNLCK`: what a lease can be, plus one, is not more.
const LEASE_MAX: u32 = libc::F_UNLCK as u32;

/// Checks one open file.
pub fn open_file(image: &Image, file: &OpenFile) -> Result<(), &'static str> {
    let asks = u32::try_from(file.owner_signal).is_ok_and(signal) && file.lease <= LEASE_MAX;
    let known = |index: u32| (index as usize) < image.open_files.len();
    let whole = match &file.kind {
        None => false,
        Some(Kind::Path(path)) => text(&path.path),
        Some(Kind::External(external)) => External::try_from(*external).is_ok(),
        Some(Kind::Inode(inode)) => (inode.inode as usize) < image.inodes.len(),
        // The highest value would make the write that sets it fail.
        Some(Kind::EventFd(event)) => event.count < u64::MAX,
        Some(Kind::Epoll(epoll)) => {
            epoll.members.iter().all(|member| (0..NUMBERS_MAX).contains(&member.number) && known(member.file))
        }
        Some(Kind::Pipe(pipe)) => pipe_whole(pipe),
        Some(Kind::Unix(unix)) => {
            unix_whole(unix)
                && unix.queue.iter().flat_map(|message| &message.files).all(|&index| known(index))
        }
        Some(Kind::Socket(socket)) => socket_whole(socket),
        Some(Kind::Loopback(Loopback { socket, peer, .. })) => {
            socket_whole(socket) && peer.len() <= ADDRESS_BYTES_MAX
        }
        Some(Kind::Inotify(inotify)) => {
            let mut last = 0;
            inotify.watches.iter().all(|watch| {
                let good = watch.descriptor > last && text(&watch.path);
                last = watch.descriptor;
                good
            })
        }
        Some(Kind::PidFd(pid)) => image.processes.iter().any(|process| process.pid == *pid),
        Some(Kind::Terminal(terminal)) => {
            terminal.termios.len() <= TERMINAL_BYTES_MAX && terminal.window.len() <= TERMINAL_BYTES_MAX
        }
        Some(
            Kind::Connection(_) | Kind::Closed(_) | Kind::TimerFd(_) | Kind::SignalFd(_) | Kind::Netlink(_),
        ) => true,
    };
    if whole && asks { Ok(()) } else { Err("an open file is not whole") }
}

/// How many watch descriptors a restore counts up through for an open file.
pub fn watches(file: &OpenFile) -> u64 {
    match &file.kind {
        Some(Kind::Inotify(inotify)) => {
            inotify.watches.last().map_or(0, |watch| u64::from(watch.descriptor.unsigned_abs()))
        }
        _ => 0,
    }
}

/// More than it holds would have the restore wait for a reader for ever.
fn pipe_whole(pipe: &Pipe) -> bool {
    let room = if pipe.capacity_bytes == 0 { PIPE_BYTES } else { pipe.capacity_bytes as usize };
    pipe.content.iter().map(Vec::len).sum::<usize>() <= room
        && pipe.content.iter().all(|piece| !piece.is_empty())
}

fn unix_whole(unix: &Unix) -> bool {
    unix.name.len() <= UNIX_NAME_BYTES_MAX
        && (unix.peer == 0 || unix.peer != unix.id)
        && unix.queue.iter().all(|message| message.files.len() <= MESSAGE_FILES_MAX)
        && options_whole(&unix.options)
}

fn socket_whole(socket: &Socket) -> bool {
    socket.address.len() <= ADDRESS_BYTES_MAX
        && socket.queue.iter().all(|datagram| datagram.sender.len() <= ADDRESS_BYTES_MAX)
        && options_whole(&socket.options)
}

fn options_whole(options: &[SocketOption]) -> bool {
    options.iter().all(|option| option.value.len() <= OPTION_BYTES_MAX)
}
