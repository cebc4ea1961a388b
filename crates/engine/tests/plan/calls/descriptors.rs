//! Calls about descriptors and the files behind them.

use crate::files::{Description, Inode, Member, Pipe, What};
use crate::world::{EBADF, EEXIST, EINVAL, EMFILE, ENOENT, EPERM, Outcome, World};

const F_SETSIG: i32 = 10;
const F_SETLEASE: i32 = 1024;
const F_ADD_SEALS: i32 = 1033;
const F_OFD_SETLK: i32 = 37;
const SETTABLE: u64 =
    (libc::O_NONBLOCK | libc::O_APPEND | libc::O_DIRECT | libc::O_NOATIME | libc::O_ASYNC) as u64;
const EWOULDBLOCK: i64 = -11;
const RECEIVED_RELEASE: usize = 5;
const ENXIO: i64 = -6;

impl World<'_> {
    pub fn descriptor_call(&mut self, task: usize, number: i64, args: [u64; 6]) -> Option<Outcome> {
        let process = self.tasks[task].process;
        let (space, table) = (self.processes[process].space, self.processes[process].table);
        let [first, second, third, fourth, ..] = args;
        let result = match number {
            libc::SYS_read => return Some(self.read(task, first as i64)),
            libc::SYS_openat2 => self.open(task, second, third),
            libc::SYS_close => {
                if self.close(table, first as i64) {
                    0
                } else {
                    EBADF
                }
            }
            libc::SYS_close_range => {
                let hit: Vec<i64> =
                    self.tables[table].range(first as i64..=second as i64).map(|(at, _)| *at).collect();
                hit.into_iter().for_each(|number| assert!(self.close(table, number)));
                0
            }
            libc::SYS_dup3 => self.dup3(process, first as i64, second as i64, third),
            libc::SYS_dup => match self.file(task, first) {
                Some(file) => self.allocate(task, file),
                None => EBADF,
            },
            libc::SYS_memfd_create => {
                let name = self.spaces[space].text(first);
                let sealable = second & 2 != 0;
                self.inodes.push(Inode { name, sealable, ..Inode::default() });
                self.fresh(
                    task,
                    What::Memory { inode: self.inodes.len() - 1, offset: 0 },
                    libc::O_RDWR as u64,
                )
            }
            libc::SYS_eventfd2 => {
                let semaphore = second & libc::EFD_SEMAPHORE as u64 != 0;
                self.fresh(task, What::Event { count: first, semaphore }, second & SETTABLE)
            }
            libc::SYS_epoll_create1 => self.fresh(task, What::Epoll(Vec::new()), 0),
            libc::SYS_timerfd_create => self.fresh(task, What::Timer { clock: first, setting: None }, second),
            libc::SYS_signalfd4 => {
                let mask = self.spaces[space].words(second, 1);
                self.fresh(task, What::Signals(mask), fourth)
            }
            libc::SYS_inotify_init1 => {
                self.fresh(task, What::Watches { paths: Vec::new(), next: 1, queued: 0 }, first & SETTABLE)
            }
            libc::SYS_pidfd_open => match self.by_pid(first as i64) {
                Some(_) => self.fresh(task, What::PidFd(first as i64), second),
                None => -3,
            },
            libc::SYS_pipe2 => {
                self.pipes.push(Pipe {
                    capacity: 65536,
                    packets: second & libc::O_DIRECT as u64 != 0,
                    ..Pipe::default()
                });
                let pipe = self.pipes.len() - 1;
                let read = self.fresh(task, What::Pipe { pipe, read: true }, second);
                let write = self.fresh(task, What::Pipe { pipe, read: false }, second | 1);
                self.spaces[space]
                    .write(first, &[(read as i32).to_ne_bytes(), (write as i32).to_ne_bytes()].concat());
                0
            }
            libc::SYS_fcntl | libc::SYS_flock | libc::SYS_lseek | libc::SYS_ftruncate | libc::SYS_ioctl => {
                match self.file(task, first) {
                    Some(file) => self.control(task, file, number, args),
                    None => EBADF,
                }
            }
            libc::SYS_write | libc::SYS_pwrite64 => match self.file(task, first) {
                Some(file) => return Some(self.write(task, file, number, args)),
                None => EBADF,
            },
            libc::SYS_epoll_ctl => self.epoll_add(task, args),
            libc::SYS_inotify_add_watch | libc::SYS_inotify_rm_watch => self.watch(task, number, args),
            libc::SYS_timerfd_settime => {
                let setting = self.spaces[space].words(third, 4);
                match self.file(task, first).map(|file| &mut self.files[file].what) {
                    Some(What::Timer { setting: now, .. }) => {
                        *now = Some(setting);
                        0
                    }
                    _ => EINVAL,
                }
            }
            _ => return None,
        };
        Some(Outcome::Result(result))
    }

    /// The open file behind a descriptor of a thread.
    pub fn file(&self, task: usize, descriptor: u64) -> Option<usize> {
        let table = self.processes[self.tasks[task].process].table;
        self.tables[table].get(&(descriptor as i64)).map(|(file, _)| *file)
    }

    /// Puts an open file at the lowest free number.
    pub fn allocate(&mut self, task: usize, file: usize) -> i64 {
        let process = &self.processes[self.tasks[task].process];
        let table = &mut self.tables[process.table];
        let number = (0..).find(|number| !table.contains_key(number)).unwrap();
        if number >= process.limits[&u64::from(libc::RLIMIT_NOFILE)].0 as i64 {
            return EMFILE;
        }
        table.insert(number, (file, false));
        number
    }

    /// A new open file at the lowest free number.
    pub fn fresh(&mut self, task: usize, what: What, flags: u64) -> i64 {
        self.files.push(Description::new(what, flags));
        self.allocate(task, self.files.len() - 1)
    }

    /// Closes a descriptor, which ends record locks on its file; false if it is not open.
    pub fn close(&mut self, table: usize, number: i64) -> bool {
        let Some((file, _)) = self.tables[table].remove(&number) else { return false };
        if let Some(key) = self.files[file].file_key() {
            self.record_locks.retain(|(holder, locked, _)| (*holder, locked) != (table, &key));
        }
        if let What::Net(net) = &self.files[file].what
            && let (Some(other), false) = (net.other, self.is_open(file))
            && net.options.iter().any(|(_, name, _)| *name == libc::SO_LINGER as u64)
            && let What::Net(other) = &mut self.files[other].what
        {
            other.reset = true;
        }
        true
    }

    fn dup3(&mut self, process: usize, from: i64, to: i64, bits: u64) -> i64 {
        let process = &self.processes[process];
        let table = process.table;
        let Some(&(file, _)) = self.tables[table].get(&from) else { return EBADF };
        if from == to {
            return EINVAL;
        }
        if to >= process.limits[&u64::from(libc::RLIMIT_NOFILE)].0 as i64 {
            return EBADF;
        }
        self.close(table, to);
        self.tables[table].insert(to, (file, bits & libc::O_CLOEXEC as u64 != 0));
        to
    }

    fn open(&mut self, task: usize, path: u64, how: u64) -> i64 {
        let space = &self.spaces[self.processes[self.tasks[task].process].space];
        let (path, how) = (space.text(path), space.words(how, 3));
        let flags = how[0];
        if let Some(number) = path.strip_prefix("/proc/self/fd/") {
            let Some(file) = self.file(task, number.parse().unwrap()) else { return ENOENT };
            let what = match self.files[file].what.clone() {
                What::Memory { inode, .. } => What::Memory { inode, offset: 0 },
                What::Pipe { pipe, .. } => What::Pipe { pipe, read: flags & libc::O_ACCMODE as u64 == 0 },
                other => panic!("{other:?} is opened again"),
            };
            return self.fresh(task, what, flags);
        }
        if flags & libc::O_TMPFILE as u64 == libc::O_TMPFILE as u64 {
            self.inodes.push(Inode { directory: Some(path), mode: how[1], ..Inode::default() });
            return self.fresh(task, What::Memory { inode: self.inodes.len() - 1, offset: 0 }, flags);
        }
        if path == "/dev/pts/ptmx" {
            self.terminals += 1;
            let what = What::Terminal {
                pair: self.terminals,
                master: true,
                termios: Vec::new(),
                window: Vec::new(),
            };
            return self.fresh(task, what, flags);
        }
        if path.starts_with("/fifo") {
            return self.open_fifo(task, path, flags);
        }
        self.fresh(task, What::Path { path, offset: 0 }, flags)
    }

    /// A FIFO is a pipe with a name; its ends carry it in [`What::Path`], its content is kept by name.
    fn open_fifo(&mut self, task: usize, path: String, flags: u64) -> i64 {
        let is = |known: &What| matches!(known, What::Path { path: known, .. } if *known == path);
        let mut open = (0..self.files.len()).filter(|&file| is(&self.files[file].what) && self.is_open(file));
        let access = |file: usize| self.files[file].flags & libc::O_ACCMODE as u64;
        if flags & libc::O_ACCMODE as u64 == libc::O_WRONLY as u64 && open.all(|file| access(file) == 1) {
            assert!(flags & libc::O_NONBLOCK as u64 != 0, "the open of a FIFO waits for a reader for ever");
            return ENXIO;
        }
        let held = (0..self.files.len())
            .any(|file| is(&self.files[file].what) && self.is_open(file) && access(file) > 0);
        assert!(
            held || flags & (libc::O_NONBLOCK | libc::O_RDWR) as u64 != 0,
            "the open of a FIFO waits for a writer"
        );
        self.fresh(task, What::Path { path, offset: 0 }, flags)
    }

    fn read(&mut self, task: usize, descriptor: i64) -> Outcome {
        let Some(file) = self.file(task, descriptor as u64) else { return Outcome::Result(EBADF) };
        match self.files[file].what.clone() {
            What::Received(RECEIVED_RELEASE) if self.reported => Outcome::Result(1),
            What::Received(RECEIVED_RELEASE) => panic!("waits for its release before the host was told"),
            What::Pipe { pipe, read: true } => {
                if let Some(piece) = self.pipes[pipe].content.first_mut() {
                    piece.remove(0);
                    if piece.is_empty() {
                        self.pipes[pipe].content.remove(0);
                    }
                    return Outcome::Result(1);
                }
                if self.ends(pipe, false) { Outcome::Blocked } else { Outcome::Result(0) }
            }
            What::Watches { queued, .. } => {
                let What::Watches { queued: left, .. } = &mut self.files[file].what else { unreachable!() };
                *left -= queued.min(256);
                Outcome::Result(if queued == 0 { EWOULDBLOCK } else { 16 })
            }
            other => panic!("reads from {other:?}"),
        }
    }

    /// Whether an end of a pipe is open anywhere.
    pub fn ends(&self, pipe: usize, read: bool) -> bool {
        let is = |what: &What| *what == What::Pipe { pipe, read };
        (0..self.files.len()).any(|file| is(&self.files[file].what) && self.is_open(file))
    }

    fn write(
        &mut self,
        task: usize,
        file: usize,
        number: i64,
        [_, address, bytes, at, ..]: [u64; 6],
    ) -> Outcome {
        let process = self.tasks[task].process;
        let space = self.processes[process].space;
        if number == libc::SYS_pwrite64 {
            return Outcome::Result(self.write_pages(file, space, address, bytes, at));
        }
        let content = self.spaces[space].read(address, bytes);
        match self.files[file].what.clone() {
            What::Pipe { pipe, read: false } => {
                assert!(self.ends(pipe, true), "a write to a pipe that nobody reads");
                let pipe = &mut self.pipes[pipe];
                let waiting: u64 = pipe.content.iter().map(|piece| piece.len() as u64).sum();
                assert!(waiting + bytes <= pipe.capacity, "a write to a full pipe");
                match pipe.content.last_mut() {
                    Some(last) if !pipe.packets => last.extend(&content),
                    _ => pipe.content.push(content),
                }
            }
            What::Event { .. } => {
                let What::Event { count, .. } = &mut self.files[file].what else { unreachable!() };
                *count += u64::from_ne_bytes(content.try_into().unwrap());
            }
            What::Received(index) => {
                assert_eq!((index as u64, content), (7 + self.processes[process].joined, b"0".to_vec()));
                self.processes[process].joined += 1;
            }
            What::Path { path, .. } if path.starts_with("/proc/") => {
                assert_eq!(path, format!("/proc/{}/oom_score_adj", self.processes[process].pid));
                self.processes[process].oom_score = String::from_utf8(content).unwrap();
            }
            // The content of a FIFO is that of an inode with its path.
            What::Path { path, .. } if path.starts_with("/fifo") => {
                self.pipes.push(Pipe { content: vec![path.into_bytes(), content], ..Pipe::default() });
            }
            other => panic!("writes to {other:?}"),
        }
        Outcome::Result(bytes as i64)
    }

    fn write_pages(&mut self, file: usize, space: usize, address: u64, bytes: u64, at: u64) -> i64 {
        let What::Memory { inode, .. } = self.files[file].what else { return EINVAL };
        let rounded = bytes.next_multiple_of(crate::memory::PAGE);
        assert!(bytes <= 0x7fff_f000, "one write is at most this long");
        assert!(self.spaces[space].around(address, rounded).is_some(), "the pages are in the stash");
        let inode = &mut self.inodes[inode];
        assert!(at + bytes <= inode.bytes, "the write is within the file");
        for (start, end, saved) in self.spaces[space].pages.within(address, address + rounded) {
            inode.pages.put(start - address + at, end - address + at, saved);
        }
        bytes as i64
    }

    fn control(&mut self, task: usize, file: usize, number: i64, args: [u64; 6]) -> i64 {
        let [_, second, third, ..] = args;
        match number {
            libc::SYS_fcntl => self.fcntl(task, file, second as i32, third),
            libc::SYS_flock => {
                self.files[file].flock = Some(second & !(libc::LOCK_NB as u64));
                0
            }
            libc::SYS_lseek => match &mut self.files[file].what {
                What::Path { offset, .. } | What::Memory { offset, .. } => {
                    *offset = second;
                    second as i64
                }
                _ => -29,
            },
            libc::SYS_ftruncate => match self.files[file].what {
                What::Memory { inode, .. } => {
                    self.inodes[inode].bytes = second;
                    0
                }
                _ => EINVAL,
            },
            _ => self.ioctl(task, file, second, third),
        }
    }

    fn ioctl(&mut self, task: usize, file: usize, request: u64, argument: u64) -> i64 {
        let space = self.processes[self.tasks[task].process].space;
        let (short, long) = (|world: &Self| world.spaces[space].read(argument, 8), 36);
        match (&self.files[file].what, request) {
            (What::Timer { .. }, _) | (What::Terminal { master: true, .. }, 0x4004_5431) => 0,
            (What::Terminal { pair, master: true, .. }, 0x5441) => {
                let what =
                    What::Terminal { pair: *pair, master: false, termios: Vec::new(), window: Vec::new() };
                self.fresh(task, what, argument)
            }
            (What::Terminal { .. }, 0x5402 | 0x5414) => {
                let bytes =
                    if request == 0x5414 { short(self) } else { self.spaces[space].read(argument, long) };
                let What::Terminal { termios, window, .. } = &mut self.files[file].what else {
                    unreachable!()
                };
                *(if request == 0x5414 { window } else { termios }) = bytes;
                0
            }
            (other, _) => panic!("ioctl {request:#x} on {other:?}"),
        }
    }

    fn fcntl(&mut self, task: usize, file: usize, command: i32, value: u64) -> i64 {
        let process = self.tasks[task].process;
        let (space, table) = (self.processes[process].space, self.processes[process].table);
        match command {
            libc::F_SETFL => {
                self.files[file].flags = self.files[file].flags & !SETTABLE | value & SETTABLE;
            }
            libc::F_GETFD => {}
            libc::F_SETOWN => self.files[file].owner = value as i64,
            F_SETSIG => self.files[file].owner_signal = value as i64,
            F_SETLEASE => self.files[file].lease = Some(value),
            libc::F_SETPIPE_SZ => match self.files[file].what {
                What::Pipe { pipe, .. } => self.pipes[pipe].capacity = value.next_power_of_two().max(4096),
                _ => return EBADF,
            },
            F_ADD_SEALS => {
                let What::Memory { inode, .. } = self.files[file].what else { return EINVAL };
                let inode = &mut self.inodes[inode];
                if !inode.sealable || inode.seals & 1 != 0 {
                    return EPERM;
                }
                inode.seals |= value;
            }
            libc::F_SETLK => {
                let words = self.spaces[space].words(value, 3);
                let Some(key) = self.files[file].file_key() else { return EBADF };
                self.record_locks.insert((table, key, [words[0] & 0xffff, words[1], words[2]]));
            }
            F_OFD_SETLK => {
                let words = self.spaces[space].words(value, 4);
                assert_eq!(words[3], 0, "such a lock names no process");
                self.files[file].own_locks.push([words[0] & 0xffff, words[1], words[2]]);
            }
            other => panic!("the model does not know fcntl {other}"),
        }
        0
    }

    fn epoll_add(&mut self, task: usize, [set, operation, number, event, ..]: [u64; 6]) -> i64 {
        assert_eq!(operation, libc::EPOLL_CTL_ADD as u64);
        let (Some(set), Some(file)) = (self.file(task, set), self.file(task, number)) else { return EBADF };
        let space = self.processes[self.tasks[task].process].space;
        let event = self.spaces[space].read(event, 12);
        let pollable = match &self.files[file].what {
            What::Memory { .. } => false,
            What::Path { path, .. } => path.starts_with("/fifo"),
            _ => true,
        };
        if !pollable {
            return EPERM;
        }
        let number = number as i64;
        let What::Epoll(members) = &mut self.files[set].what else { return EINVAL };
        if set == file || members.iter().any(|member| (member.number, member.file) == (number, file)) {
            return EEXIST;
        }
        members.push(Member { number, file, event });
        0
    }

    fn watch(&mut self, task: usize, number: i64, [instance, second, third, ..]: [u64; 6]) -> i64 {
        let space = self.processes[self.tasks[task].process].space;
        let Some(file) = self.file(task, instance) else { return EBADF };
        let path = (number == libc::SYS_inotify_add_watch).then(|| self.spaces[space].text(second));
        let What::Watches { paths, next, queued } = &mut self.files[file].what else { return EINVAL };
        let Some(path) = path else {
            let before = paths.len();
            paths.retain(|(watch, _, _)| *watch != second as i64);
            *queued += 1;
            return if paths.len() < before { 0 } else { EINVAL };
        };
        if let Some((watch, _, mask)) = paths.iter_mut().find(|(_, known, _)| *known == path) {
            *mask = third;
            return *watch;
        }
        paths.push((*next, path, third));
        *next += 1;
        *next - 1
    }
}
