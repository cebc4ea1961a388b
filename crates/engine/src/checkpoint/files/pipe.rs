//! Pipes: both ends, and what waits between them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Kind, Pipe};

/// The most bytes that a pipe's content may have.
const PIPE_BYTES_MAX: usize = 16 << 20;

impl Files<'_> {
    pub(super) fn pipe(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let (pid, id) = (entry.held.pid, entry.stat.st_ino);
        // An end that was opened for both directions counts as a read end; its status flags tell.
        let read = entry.access() != libc::O_WRONLY;
        let copy = self.copy(index)?;
        let capacity = rustix::pipe::fcntl_getpipe_size(&copy).doing("ask for a pipe's size", pid)?;
        let first = read && !self.has_end(id, true);
        let content = if first { content(&copy, capacity).doing("read a pipe", pid)? } else { Vec::new() };
        self.count_queued(index, content.iter().map(Vec::len).sum())?;
        self.pipe_ends.insert((id, read));
        if self.entries[index].access() == libc::O_RDWR {
            self.pipe_ends.insert((id, false));
        }
        Ok(Kind::Pipe(Pipe { id, read, content, capacity_bytes: capacity as u32 }))
    }

    fn has_end(&self, id: u64, read: bool) -> bool {
        self.pipe_ends.contains(&(id, read))
    }

    /// An end that no process of the image holds must be closed, or somebody else would have to be there.
    pub(super) fn resolve_pipes(&mut self) -> Result<(), CheckpointError> {
        for index in 0..self.entries.len() {
            let Some(Kind::Pipe(Pipe { id, read, .. })) = &self.entries[index].kind else { continue };
            let (id, read) = (*id, *read);
            if self.has_end(id, !read) {
                continue;
            }
            let copy = self.copy(index)?;
            let closed = other_end_closed(&copy).doing("look at a pipe", self.entries[index].held.pid)?;
            if !closed {
                let what =
                    format!("one end of pipe {id}, whose other end a process outside of the snapshot holds");
                return Err(self.refused(index, &what, REOPEN));
            }
        }
        Ok(())
    }
}

fn other_end_closed(end: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(end, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now))?;
    Ok(polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// What waits in a pipe, without taking it out: one piece, or one for each packet of a packet pipe.
pub(super) fn content(pipe: &OwnedFd, capacity_bytes: usize) -> io::Result<Vec<Vec<u8>>> {
    let waiting = rustix::io::ioctl_fionread(pipe)? as usize;
    if waiting == 0 {
        return Ok(Vec::new());
    }
    if waiting > PIPE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than 16 MiB wait in a pipe"));
    }
    let flags = rustix::pipe::PipeFlags::NONBLOCK | rustix::pipe::PipeFlags::CLOEXEC;
    let (read, write) = rustix::pipe::pipe_with(flags)?;
    // As many places as the other has: each packet takes one, however short it is.
    rustix::pipe::fcntl_setpipe_size(&write, capacity_bytes)?;
    let copied = rustix::pipe::tee(pipe, &write, capacity_bytes, rustix::pipe::SpliceFlags::NONBLOCK)?;
    let mut pieces = Vec::new();
    let mut left = copied;
    let mut buffer = vec![0; copied];
    while left > 0 {
        let count = rustix::io::read(&read, &mut buffer)?;
        pieces.push(buffer[..count].to_vec());
        left -= count.clamp(1, left);
    }
    if copied < waiting {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the content of a pipe cannot be copied whole",
        ));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(flags: rustix::pipe::PipeFlags) -> (OwnedFd, OwnedFd, usize) {
        let (read, write) = rustix::pipe::pipe_with(flags).unwrap();
        let capacity = rustix::pipe::fcntl_getpipe_size(&read).unwrap();
        (read, write, capacity)
    }

    #[test]
    fn packets_stay_apart_and_a_stream_is_one_piece() {
        for (flags, expected) in [
            (rustix::pipe::PipeFlags::DIRECT, vec![b"ab".to_vec(), b"c".to_vec()]),
            (rustix::pipe::PipeFlags::empty(), vec![b"abc".to_vec()]),
        ] {
            let (read, write, capacity) = pipe(flags);
            rustix::io::write(&write, b"ab").unwrap();
            rustix::io::write(&write, b"c").unwrap();
            assert_eq!(content(&read, capacity).unwrap(), expected);
            assert_eq!(content(&read, capacity).unwrap(), expected, "nothing was taken out");
        }
    }

    #[test]
    fn a_full_pipe_is_copied_whole() {
        let (read, write, capacity) = pipe(rustix::pipe::PipeFlags::empty());
        rustix::io::write(&write, &vec![7; capacity]).unwrap();
        assert_eq!(content(&read, capacity).unwrap().concat(), vec![7; capacity]);
    }

    #[test]
    fn the_end_of_one_side_shows_at_the_other() {
        let (read, write, _) = pipe(rustix::pipe::PipeFlags::empty());
        assert!(!other_end_closed(&read).unwrap() && !other_end_closed(&write).unwrap());
        drop(write);
        assert!(other_end_closed(&read).unwrap());
        let (read, write, _) = pipe(rustix::pipe::PipeFlags::empty());
        drop(read);
        assert!(other_end_closed(&write).unwrap());
    }
}
