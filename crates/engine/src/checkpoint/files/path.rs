//! Files that have a name, files that have lost theirs, FIFOs and devices.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags};

use super::{Files, REOPEN, pipe};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{InodeFile, Kind, Path};

/// Memory devices: null, zero, full, random, urandom, kmsg.
const MEMORY_MAJOR: u32 = 1;
/// `/dev/tty`.
const CONTROLLING_TERMINAL: (u32, u32) = (5, 0);
const RENAME: &str = "open it by a name under which it stays, or close it before the snapshot";

impl Files<'_> {
    /// A file or directory, by its name if it has one.
    pub(super) fn path(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let (kind, offset) = (entry.file_type(), entry.info.number("pos", 10));
        let nameless = entry.stat.st_nlink == 0 || self.inodes.is_memory(entry.stat.st_dev);
        let regular = kind == FileType::RegularFile && !entry.path_only();
        if regular {
            self.note_lease(index)?;
        }
        let entry = &self.entries[index];
        if regular && nameless {
            if entry.lease.is_some() {
                return Err(self.refused(index, "a file without a name that has a lease", REOPEN));
            }
            let inode = self.inodes.of_descriptor(&entry.proc_path(), &entry.link, entry.held.pid)?;
            return Ok(Kind::Inode(InodeFile { inode, offset }));
        }
        if regular && self.inodes.is_kept_by_name(&entry.link) {
            self.inodes.of_descriptor(&entry.proc_path(), &entry.link, entry.held.pid)?;
        }
        if kind == FileType::Directory && offset != 0 {
            let what = format!("the directory {} in the middle of a listing", entry.link);
            return Err(self.refused(index, &what, "finish or rewind the listing before the snapshot"));
        }
        if kind == FileType::Fifo && entry.stat.st_nlink == 0 && !entry.path_only() {
            return self.pipe(index);
        }
        if kind == FileType::BlockDevice {
            return Err(self.refused(index, &format!("the device {}", entry.link), REOPEN));
        }
        let path = self.name(index)?;
        let fifo = if kind == FileType::Fifo && !self.entries[index].path_only() {
            Some(self.fifo(index, &path)?)
        } else {
            None
        };
        Ok(Kind::Path(Path { path, offset, fifo }))
    }

    /// Notes the lease of an open file: whoever opens the file breaks it.
    fn note_lease(&mut self, index: usize) -> Result<(), CheckpointError> {
        let copy = self.copy(index)?;
        let lease = linux::descriptor::lease(&copy).doing("read a lease", self.entries[index].held.pid)?;
        self.entries[index].lease = (lease != libc::F_UNLCK).then_some(lease);
        Ok(())
    }

    /// A device that is no terminal, or else as a terminal.
    pub(super) fn device(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let number = (rustix::fs::major(entry.stat.st_rdev), rustix::fs::minor(entry.stat.st_rdev));
        if number.0 == MEMORY_MAJOR || entry.link == "/dev/sysgenid" {
            return self.path(index);
        }
        let pid = entry.held.pid;
        let has_terminal = self.family.by_host_pid(pid).is_some_and(|member| member.stat.tty_nr != 0);
        if number == CONTROLLING_TERMINAL && has_terminal {
            return self.path(index);
        }
        self.terminal(index)
    }

    /// The name under which the sandbox has the file.
    fn name(&mut self, index: usize) -> Result<String, CheckpointError> {
        let entry = &self.entries[index];
        let pid = self.place_of(index);
        let named = rustix::fs::lstat(format!("/proc/{pid}/root{}", entry.link));
        let open = (entry.stat.st_dev, entry.stat.st_ino);
        if entry.link.starts_with('/') && named.is_ok_and(|named| (named.st_dev, named.st_ino) == open) {
            return Ok(entry.link.clone());
        }
        // It may have another name: a hard link whose first name was removed.
        let elsewhere = self.places.find(self.subject, &self.entries, open);
        if let (Some(path), true) = (elsewhere, entry.stat.st_nlink > 0) {
            return Ok(path);
        }
        let what = format!("the open file {}, which is not found under that name any more", entry.link);
        Err(self.refused(index, &what, RENAME))
    }

    /// The process whose root the name of an open file counts from.
    fn place_of(&self, index: usize) -> i32 {
        let pid = self.entries[index].held.pid;
        if pid == Self::own_pid() { self.subject.pid } else { pid }
    }

    /// What waits in a FIFO, for its first open file; nothing for the others.
    fn fifo(&mut self, index: usize, path: &str) -> Result<Vec<u8>, CheckpointError> {
        let is_it =
            |kind: &Kind| matches!(kind, Kind::Path(other) if other.fifo.is_some() && other.path == path);
        if self.entries.iter().filter_map(|entry| entry.kind.as_ref()).any(is_it) {
            return Ok(Vec::new());
        }
        let pid = self.entries[index].held.pid;
        let end = self.readable(index).doing("open a FIFO", pid)?;
        let capacity = rustix::pipe::fcntl_getpipe_size(&end).doing("ask for a FIFO's size", pid)?;
        let content = pipe::content(&end, capacity).doing("read a FIFO", pid)?.concat();
        self.count_queued(index, content.len())?;
        Ok(content)
    }

    /// An end of a FIFO that can be read.
    fn readable(&mut self, index: usize) -> std::io::Result<OwnedFd> {
        let entry = &self.entries[index];
        if entry.access() != libc::O_WRONLY {
            return self.copy(index).map_err(std::io::Error::other);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::open(entry.proc_path(), flags, Mode::empty())?)
    }
}
