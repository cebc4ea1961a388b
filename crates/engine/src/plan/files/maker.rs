//! Makes open files at known numbers, each kind in its own way. Sockets have a file of their own.

use std::collections::BTreeSet;

use super::{Numbers, Place, sockets};
use crate::image::{EventFd, External, Inotify, Kind, OpenFile, Path, Pipe, SEALS_NONE, Terminal};
use crate::plan::list::{Arg, List};
use crate::plan::template::{open_again, open_at, open_new, open_unnamed};
use crate::plan::{Context, Received};

const F_ADD_SEALS: u64 = 1033;
const F_SEAL_FUTURE_WRITE: u32 = 0x10;
const MFD_CLOEXEC: u64 = 1;
const MFD_ALLOW_SEALING: u64 = 2;
/// One call writes 2 GiB less a page at most.
const WRITE_BYTES_MAX: u64 = 1 << 30;
const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGPTPEER: u64 = 0x5441;
const TCSETS: u64 = 0x5402;
const TIOCSWINSZ: u64 = 0x5414;
/// Flags that say how a file was opened rather than what it is like since.
const OPENING: u32 =
    (libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_ASYNC | (libc::O_TMPFILE & !libc::O_DIRECTORY))
        as u32;

/// Makes open files and keeps book of their numbers.
pub struct Maker<'a, 'b> {
    pub list: &'a mut List,
    pub context: &'a Context<'b>,
    pub numbers: Numbers,
    pub places: Vec<Place>,
    pub inodes: Vec<u64>,
    /// Ends of Unix sockets that nobody has any more, by the index of the open file at the other end.
    pub closing: Vec<(usize, u64)>,
}

impl<'a, 'b> Maker<'a, 'b> {
    pub fn new(list: &'a mut List, context: &'a Context<'b>, numbers: Numbers) -> Self {
        let places = vec![Place::Late; context.image.open_files.len()];
        Self { list, context, numbers, places, inodes: Vec::new(), closing: Vec::new() }
    }

    /// Makes every inode with its content.
    pub fn inodes(&mut self) {
        for index in 0..self.context.image.inodes.len() {
            let number = self.inode(index);
            self.inodes.push(number);
        }
    }

    fn inode(&mut self, index: usize) -> u64 {
        let inode = &self.context.image.inodes[index];
        let number = self.numbers.take();
        match (&inode.path, &inode.directory) {
            (Some(path), _) => {
                open_new(self.list, path, u64::from(inode.mode & 0o777), number);
                let owner = [number.into(), u64::from(inode.uid).into(), u64::from(inode.gid).into()];
                self.list.attempt(libc::SYS_fchown, &owner);
            }
            (None, None) => {
                let name = self.list.string(&inode.name);
                let sealing = if inode.seals == SEALS_NONE { 0 } else { MFD_ALLOW_SEALING };
                let args = [name.into(), (MFD_CLOEXEC | sealing).into()];
                self.list.exactly(libc::SYS_memfd_create, &args, number);
            }
            (None, Some(directory)) => {
                open_unnamed(self.list, directory, u64::from(inode.mode & 0o777), number)
            }
        }
        if inode.bytes > 0 {
            self.list.exactly(libc::SYS_ftruncate, &[number.into(), inode.bytes.into()], 0);
        }
        for (address, run) in self.context.stash.runs(self.context.image, index) {
            // The last page of a file may be longer than the file.
            let bytes = run.bytes.min(inode.bytes.saturating_sub(run.address));
            for done in (0..bytes).step_by(WRITE_BYTES_MAX as usize) {
                let piece = (bytes - done).min(WRITE_BYTES_MAX);
                let (from, to) = ((address + done).into(), (run.address + done).into());
                self.list.exactly(libc::SYS_pwrite64, &[number.into(), from, piece.into(), to], piece);
            }
        }
        if inode.seals != SEALS_NONE && inode.seals & F_SEAL_FUTURE_WRITE == 0 {
            self.seal(number, inode.seals);
        }
        number
    }

    fn seal(&mut self, number: u64, seals: u32) {
        if seals != 0 {
            let args = [number.into(), F_ADD_SEALS.into(), u64::from(seals).into()];
            self.list.exactly(libc::SYS_fcntl, &args, 0);
        }
    }

    /// A FIFO opens for one side only while somebody has the other: this holds both for a while.
    pub fn hold_fifos(&mut self) -> Vec<u64> {
        let mut held = Vec::new();
        let mut paths = BTreeSet::new();
        for file in &self.context.image.open_files {
            let Some(Kind::Path(Path { path, fifo: Some(_), .. })) = &file.kind else { continue };
            if paths.insert(path.clone()) {
                let number = self.numbers.take();
                open_at(self.list, path, (libc::O_RDWR | libc::O_NONBLOCK) as u64, number);
                held.push(number);
            }
        }
        held
    }

    /// Makes one open file, and those that can only be made with it.
    pub fn file(&mut self, index: usize) {
        let file = &self.context.image.open_files[index];
        let place = match file.kind.as_ref() {
            None | Some(Kind::PidFd(_)) => return,
            // There is nothing of a process in /proc before it lives.
            Some(Kind::Path(path)) if of_process(path).is_some() => return,
            Some(Kind::External(external)) => {
                self.places[index] = Place::Received(self.external(file, External::try_from(*external)));
                return;
            }
            Some(Kind::Path(path)) => self.path(file, path),
            Some(Kind::Inode(inode)) => {
                let (number, original) = (self.numbers.take(), self.inodes[inode.inode as usize]);
                let bits = file.status_flags & !(OPENING | libc::O_DIRECTORY as u32);
                open_again(self.list, original, u64::from(bits), number);
                self.seek(number, inode.offset);
                number
            }
            Some(Kind::EventFd(event)) => self.event(file, event),
            Some(Kind::Epoll(_)) => self.one(libc::SYS_epoll_create1, &[0.into()]),
            Some(Kind::TimerFd(timer)) => {
                let args = [(timer.clock as u64).into(), nonblocking(file).into()];
                self.one(libc::SYS_timerfd_create, &args)
            }
            Some(Kind::SignalFd(mask)) => {
                let set = self.list.words(&[*mask]);
                let args = [u64::MAX.into(), set.into(), 8.into(), nonblocking(file).into()];
                self.one(libc::SYS_signalfd4, &args)
            }
            Some(Kind::Pipe(pipe)) => return self.pipe_ends(index, pipe),
            Some(Kind::Inotify(inotify)) => self.inotify(file, inotify),
            Some(Kind::Terminal(terminal)) => return self.terminal(index, terminal),
            // Both ends of a connection are made when every listener stands.
            Some(Kind::Loopback(_)) => return,
            Some(
                Kind::Unix(_) | Kind::Connection(_) | Kind::Closed(_) | Kind::Socket(_) | Kind::Netlink(_),
            ) => return sockets::make(self, index),
        };
        self.put(index, place);
    }

    /// Notes where an open file stands.
    pub fn put(&mut self, index: usize, number: u64) {
        if self.places[index] == Place::Late {
            self.places[index] = Place::At(number);
        }
    }

    /// A call that gives the next descriptor.
    pub fn one(&mut self, call: i64, args: &[Arg]) -> u64 {
        let number = self.numbers.take();
        self.list.exactly(call, args, number);
        number
    }

    /// Closes a descriptor.
    pub fn close(&mut self, number: u64) {
        self.list.exactly(libc::SYS_close, &[number.into()], 0);
        self.numbers.free(number);
    }

    /// Sets the status flags that differ from a fresh file's.
    pub fn set_status(&mut self, number: Arg, file: &OpenFile) {
        let settable =
            (libc::O_NONBLOCK | libc::O_APPEND | libc::O_DIRECT | libc::O_NOATIME) as u32 & file.status_flags;
        if settable != 0 {
            let args = [number, (libc::F_SETFL as u64).into(), u64::from(settable).into()];
            self.list.exactly(libc::SYS_fcntl, &args, 0);
        }
    }

    fn external(&mut self, file: &OpenFile, external: Result<External, prost::UnknownEnumValue>) -> Received {
        let received = match external {
            Ok(External::Stdout) => Received::Stdout,
            Ok(External::Stderr) => Received::Stderr,
            Ok(External::Stdin) => Received::Stdin,
            Ok(External::Pending) | Err(_) => Received::Pending,
        };
        if nonblocking(file) != 0 {
            self.set_status(Arg::Slot(received as u64), file);
        }
        received
    }

    fn path(&mut self, file: &OpenFile, path: &Path) -> u64 {
        let number = self.numbers.take();
        open_at(self.list, &path.path, opening(file), number);
        self.seek(number, path.offset);
        if let Some(content) = path.fifo.as_deref().filter(|content| !content.is_empty()) {
            let writer = self.numbers.take();
            open_at(self.list, &path.path, (libc::O_WRONLY | libc::O_NONBLOCK) as u64, writer);
            self.write(writer, content);
            self.close(writer);
        }
        number
    }

    fn seek(&mut self, number: u64, offset: u64) {
        if offset != 0 {
            let args = [number.into(), offset.into(), (libc::SEEK_SET as u64).into()];
            self.list.exactly(libc::SYS_lseek, &args, offset);
        }
    }

    fn write(&mut self, number: u64, bytes: &[u8]) {
        let (address, count) = (self.list.data(bytes, 1), bytes.len() as u64);
        self.list.exactly(libc::SYS_write, &[number.into(), address.into(), count.into()], count);
    }

    fn event(&mut self, file: &OpenFile, event: &EventFd) -> u64 {
        let bits = if event.semaphore { libc::EFD_SEMAPHORE } else { 0 } as u64 | nonblocking(file);
        let number = self.one(libc::SYS_eventfd2, &[0.into(), bits.into()]);
        if event.count > 0 {
            self.write(number, &event.count.to_ne_bytes());
        }
        number
    }

    /// A pipe: read end and write end.
    pub fn pipe(&mut self, flags: u64) -> (u64, u64) {
        let numbers = self.list.words(&[0]);
        self.list.exactly(libc::SYS_pipe2, &[numbers.into(), flags.into()], 0);
        (self.numbers.take(), self.numbers.take())
    }

    /// Every open file of one pipe. A further description of an end is opened through `/proc`.
    fn pipe_ends(&mut self, first: usize, pipe: &Pipe) {
        let image = self.context.image;
        let same = |file: &OpenFile| match &file.kind {
            Some(Kind::Pipe(other)) if other.id == pipe.id => Some((other.read, other.clone())),
            _ => None,
        };
        let ends: Vec<(usize, bool, Pipe)> = image.open_files[first..]
            .iter()
            .enumerate()
            .filter_map(|(index, file)| same(file).map(|(read, pipe)| (first + index, read, pipe)))
            .collect();
        let packets = ends
            .iter()
            .any(|(index, _, _)| image.open_files[*index].status_flags & libc::O_DIRECT as u32 != 0);
        let (read, write) = self.pipe(if packets { libc::O_DIRECT as u64 } else { 0 });
        let capacity = u64::from(pipe.capacity_bytes);
        if capacity > 0 {
            let args = [write.into(), (libc::F_SETPIPE_SZ as u64).into(), capacity.into()];
            self.list.call(libc::SYS_fcntl, &args, None);
        }
        for piece in ends.iter().flat_map(|(_, _, pipe)| &pipe.content) {
            self.write(write, piece);
        }
        let mut taken = [false, false];
        for (index, is_read, _) in &ends {
            let file = &image.open_files[*index];
            let end = if *is_read { read } else { write };
            // One that both reads and writes is neither end, but shares the pipe.
            let both = file.status_flags & libc::O_ACCMODE as u32 == libc::O_RDWR as u32;
            let used = &mut taken[usize::from(*is_read)];
            let number = if *used || both {
                let number = self.numbers.take();
                open_again(self.list, end, u64::from(file.status_flags & libc::O_ACCMODE as u32), number);
                number
            } else {
                end
            };
            *used |= !both;
            self.set_status(number.into(), file);
            self.put(*index, number);
        }
        for (used, end) in taken.into_iter().zip([write, read]) {
            if !used {
                self.close(end);
            }
        }
    }

    /// Watch descriptors count up from one, so those that are gone are made and removed again; what they leave in
    /// the queue is read away.
    fn inotify(&mut self, file: &OpenFile, inotify: &Inotify) -> u64 {
        let number = self.one(libc::SYS_inotify_init1, &[(libc::IN_NONBLOCK as u64).into()]);
        let watched = |path: &str| inotify.watches.iter().any(|watch| watch.path == path);
        let other = ["/", "/proc", "/dev", "/tmp", "/usr"].into_iter().find(|path| !watched(path));
        let root = self.list.string(other.unwrap_or("/etc"));
        let mut next = 1;
        for watch in &inotify.watches {
            while next < watch.descriptor {
                let mask = u64::from(libc::IN_DELETE_SELF);
                let args = [number.into(), root.into(), mask.into()];
                self.list.exactly(libc::SYS_inotify_add_watch, &args, next as u64);
                self.list.exactly(libc::SYS_inotify_rm_watch, &[number.into(), (next as u64).into()], 0);
                next += 1;
            }
            let path = self.list.string(&watch.path);
            let args = [number.into(), path.into(), u64::from(watch.mask).into()];
            self.list.exactly(libc::SYS_inotify_add_watch, &args, watch.descriptor as u64);
            next = watch.descriptor + 1;
        }
        let buffer = self.list.data(&[0; 4096], 8);
        for _ in 0..next.unsigned_abs().div_ceil(128) {
            self.list.attempt(libc::SYS_read, &[number.into(), buffer.into(), 4096.into()]);
        }
        let args = [number.into(), (libc::F_SETFL as u64).into(), nonblocking(file).into()];
        self.list.exactly(libc::SYS_fcntl, &args, 0);
        number
    }

    fn terminal(&mut self, first: usize, terminal: &Terminal) {
        let master = self.numbers.take();
        open_at(self.list, "/dev/pts/ptmx", (libc::O_RDWR | libc::O_NOCTTY) as u64, master);
        let unlocked = self.list.words(&[0]);
        self.list.exactly(libc::SYS_ioctl, &[master.into(), TIOCSPTLCK.into(), unlocked.into()], 0);
        let image = self.context.image;
        for (index, file) in image.open_files.iter().enumerate().skip(first) {
            let Some(Kind::Terminal(side)) = &file.kind else { continue };
            if side.id != terminal.id {
                continue;
            }
            let number = if side.master && self.places.iter().all(|place| *place != Place::At(master)) {
                master
            } else if side.master {
                self.one(libc::SYS_dup, &[master.into()])
            } else {
                let bits = (libc::O_RDWR | libc::O_NOCTTY) as u64;
                self.one(libc::SYS_ioctl, &[master.into(), TIOCGPTPEER.into(), bits.into()])
            };
            self.set_status(number.into(), file);
            for (bytes, request) in [(&side.termios, TCSETS), (&side.window, TIOCSWINSZ)] {
                if !bytes.is_empty() {
                    let address = self.list.data(bytes, 8);
                    let args = [number.into(), request.into(), address.into()];
                    self.list.exactly(libc::SYS_ioctl, &args, 0);
                }
            }
            self.put(index, number);
        }
    }
}

/// The process that a file of `/proc` is about.
pub fn of_process(path: &Path) -> Option<u32> {
    path.path.strip_prefix("/proc/")?.split('/').next()?.parse().ok()
}

/// Flags with which a path is opened again.
pub fn opening(file: &OpenFile) -> u64 {
    u64::from(file.status_flags & !OPENING)
}

/// `O_NONBLOCK` if the file has it.
pub fn nonblocking(file: &OpenFile) -> u64 {
    u64::from(file.status_flags) & libc::O_NONBLOCK as u64
}
