//! The list that is carried out for every restore.
//!
//! Four parts in this order, each in the process that needs it:
//! 1. *Template*: enters the sandbox's PID namespace for its children and starts the go-between.
//! 2. *Go-between*: shares the template's memory, so it costs no copy; enters the other namespaces, starts the clone
//!    and ends, which makes the clone a child of the sandbox's init.
//! 3. *Clone*: enters the time namespace (which needs memory of its own), joins its control groups, makes
//!    descriptors, copies of shared memory, locks, timers, limits and threads.
//! 4. *Release*: all privilege is dropped, crypto libraries are reseeded, the host is told, and when it says so the
//!    threads go.
//!
//! Every descriptor is made at the lowest free number, which is known, and then moved to its own.

use super::area::{Area, VECTOR_BYTES, WRITE_SET_CALLS, WRITE_SET_RANGES_PER_CALL};
use super::list::{Arg, CloneArgs, List, MINUS_ONE};
use super::template::open;
use super::{HostFacts, RECEIVED, Received, frame};
use crate::image::{Backing, Descriptor, External, Image, Kind, Mapping, PageRun, Thread, flags};
use crate::ops::Code;

const SIGCHLD: u64 = libc::SIGCHLD as u64;
const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_CHILD_CLEARTID) as u64;
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
/// Tries before the clone gives up waiting for its go-between's end; each yields the processor.
const ORPHAN_TRIES: u32 = 1_000_000;
/// Bytes below a stack pointer that belong to the function that was interrupted, and room for alignment.
const RED_ZONE_BYTES: u64 = 256;
/// This thread itself where a pidfd is asked for (Linux 6.14).
const PIDFD_SELF: u64 = -10_000_i64 as u64;
/// The first of the slots that say how many ranges of the write set each call takes.
pub const WRITE_SET_SLOT: u32 = 20;
const CAPABILITY_VERSION: u64 = 0x2008_0522;

/// Writes the whole list. `highest` is the highest descriptor number of the image.
pub fn clone(list: &mut List, image: &Image, host: &HostFacts, area: &Area, highest: i32) {
    let control = highest as u64 + 1;
    let received = (RECEIVED + host.cgroup_joins) as u64;
    let spare = image.threads.iter().map(|thread| thread.tid).max().unwrap_or(0) as u64 + 1;
    let enter = [slot(Received::Sandbox), (libc::CLONE_NEWPID as u64).into()];
    list.exactly(libc::SYS_setns, &enter, 0);
    let go_between = CloneArgs {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        stack: area.child_stack(0),
        set_tid: list.words(&[spare]),
        ..CloneArgs::default()
    };
    list.child(&go_between, |list| {
        list.exactly(libc::SYS_setns, &[slot(Received::Sandbox), NAMESPACES.into()], 0);
        let set_tid = list.words(&[image.pid as u64]);
        let process = CloneArgs { exit_signal: SIGCHLD, set_tid, ..CloneArgs::default() };
        list.child(&process, |list| {
            populate(list, area);
            process_state(list, image, host, control + 1 + received);
            threads(list, image, host, area);
            release(list, image, host, area, control);
        });
        list.step(Code::Exit, &[0.into()]);
    });
    let args = [MINUS_ONE.into(), 0.into(), (libc::__WALL as u64).into(), 0.into()];
    list.call(libc::SYS_wait4, &args, None);
    for descriptor in 0..received {
        list.exactly(libc::SYS_close, &[Arg::Slot(descriptor)], 0);
    }
}

fn slot(received: Received) -> Arg {
    Arg::Slot(received as u64)
}

/// Copies the pages that earlier clones wrote to, in bulk, which costs less than a fault for each. How many ranges there
/// are comes with the request; a refusal costs speed only.
fn populate(list: &mut List, area: &Area) {
    for call in 0..WRITE_SET_CALLS {
        let vectors = area.write_set() + call * WRITE_SET_RANGES_PER_CALL * VECTOR_BYTES;
        let args = [
            PIDFD_SELF.into(),
            vectors.into(),
            Arg::Slot(u64::from(WRITE_SET_SLOT) + call),
            (libc::MADV_POPULATE_WRITE as u64).into(),
            0.into(),
        ];
        list.attempt(libc::SYS_process_madvise, &args);
    }
}

/// Everything but threads. `free` is the lowest free descriptor number.
fn process_state(list: &mut List, image: &Image, host: &HostFacts, free: u64) {
    let time = [slot(Received::TimeNamespace), (libc::CLONE_NEWTIME as u64).into()];
    list.exactly(libc::SYS_setns, &time, 0);
    let zero = list.data(b"0", 1);
    for index in 0..host.cgroup_joins {
        let file = Arg::Slot((RECEIVED + index) as u64);
        list.exactly(libc::SYS_write, &[file, zero.into(), 1.into()], 1);
    }
    if image.session_leader {
        list.call(libc::SYS_setsid, &[], None);
    }
    descriptors(list, image, free);
    let cwd = list.string(&image.cwd);
    list.exactly(libc::SYS_chdir, &[cwd.into()], 0);
    list.attempt(libc::SYS_umask, &[u64::from(image.umask).into()]);
    for timer in &image.interval_timers {
        let value = list.words(&timer.value);
        list.exactly(libc::SYS_setitimer, &[u64::from(timer.which).into(), value.into(), 0.into()], 0);
    }
    for limit in &image.limits {
        if !host.limits.contains(&(limit.resource, limit.soft, limit.hard)) {
            let value = list.words(&[limit.soft, limit.hard]);
            let args = [0.into(), u64::from(limit.resource).into(), value.into(), 0.into()];
            list.exactly(libc::SYS_prlimit64, &args, 0);
        }
    }
}

/// Shared memory, locks and the flag that would have kept a mapping out of the fork.
fn memory(list: &mut List, image: &Image, area: &Area) {
    for mapping in &image.mappings {
        let range = [mapping.start.into(), (mapping.end - mapping.start).into()];
        match mapping.backing() {
            Backing::SharedAnonymous => own_copy(list, image, mapping, area),
            Backing::SharedFile => shared_file(list, image, mapping),
            _ => {}
        }
        if mapping.flags & flags::DONT_FORK != 0 {
            let args = [range[0], range[1], (libc::MADV_DONTFORK as u64).into()];
            list.exactly(libc::SYS_madvise, &args, 0);
        }
        if mapping.flags & flags::LOCKED != 0 {
            list.attempt(libc::SYS_mlock, &range);
        }
    }
}

/// A shared mapping of the clone's own: made at the scratch range, filled from what the fork brought, moved over it.
fn own_copy(list: &mut List, image: &Image, mapping: &Mapping, area: &Area) {
    let bytes = mapping.end - mapping.start;
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let bits = (libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
    let args = [area.scratch.into(), bytes.into(), writable.into(), bits.into(), MINUS_ONE.into(), 0.into()];
    list.exactly(libc::SYS_mmap, &args, area.scratch);
    for (from, length) in pages_of(image, mapping) {
        let to = area.scratch + (from - mapping.start);
        list.step(Code::Copy, &[to.into(), from.into(), length.into()]);
    }
    let moved = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    let args = [area.scratch.into(), bytes.into(), bytes.into(), moved.into(), mapping.start.into()];
    list.exactly(libc::SYS_mremap, &args, mapping.start);
    if u64::from(mapping.protection) != writable {
        let args = [mapping.start.into(), bytes.into(), u64::from(mapping.protection).into()];
        list.exactly(libc::SYS_mprotect, &args, 0);
    }
}

fn pages_of<'a>(image: &'a Image, mapping: &'a Mapping) -> impl Iterator<Item = (u64, u64)> + 'a {
    let end = |run: &PageRun| run.address + run.bytes;
    let within = image.runs.iter().filter(move |run| run.address < mapping.end && end(run) > mapping.start);
    within.map(move |run| {
        let (from, to) = (run.address.max(mapping.start), end(run).min(mapping.end));
        (from, to - from)
    })
}

/// A shared mapping of a file that the sandbox has: the clone maps its own sandbox's file.
fn shared_file(list: &mut List, image: &Image, mapping: &Mapping) {
    const FILE: u32 = 16;
    let write = mapping.protection & libc::PROT_WRITE as u32 != 0;
    let access = if write { libc::O_RDWR } else { libc::O_RDONLY } as u64;
    open(list, &image.files[mapping.file as usize].path, access, Some(FILE));
    let bits = (libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE) as u64;
    let args = [
        mapping.start.into(),
        (mapping.end - mapping.start).into(),
        u64::from(mapping.protection).into(),
        bits.into(),
        Arg::Slot(FILE.into()),
        mapping.offset.into(),
    ];
    list.exactly(libc::SYS_mmap, &args, mapping.start);
    list.exactly(libc::SYS_close, &[Arg::Slot(FILE.into())], 0);
}

fn descriptors(list: &mut List, image: &Image, free: u64) {
    for descriptor in &image.descriptors {
        if let Some(kind) = &descriptor.kind {
            Maker { list, descriptor, free }.make(kind, &image.descriptors);
        }
    }
    for descriptor in &image.descriptors {
        if let Some(Kind::Epoll(epoll)) = &descriptor.kind {
            for member in &epoll.members {
                // `struct epoll_event` is packed: 32 bits of events, then the data.
                let mut event = member.events.to_ne_bytes().to_vec();
                event.extend_from_slice(&member.data.to_ne_bytes());
                let event = list.data(&event, 8);
                let set = descriptor.number as u64;
                let add = libc::EPOLL_CTL_ADD as u64;
                let args = [set.into(), add.into(), (member.number as u64).into(), event.into()];
                list.exactly(libc::SYS_epoll_ctl, &args, 0);
            }
        }
    }
    // The template keeps every number below its own reserved; what the image does not use is let go.
    let highest = image.descriptors.last().map_or(2, |descriptor| descriptor.number.max(2));
    let used = |number| image.descriptors.iter().any(|descriptor| descriptor.number == number);
    for number in (0..=highest).filter(|&number| !used(number)) {
        list.exactly(libc::SYS_close, &[(number as u64).into()], 0);
    }
}

/// Makes one descriptor.
struct Maker<'a> {
    list: &'a mut List,
    descriptor: &'a Descriptor,
    free: u64,
}

impl Maker<'_> {
    fn make(&mut self, kind: &Kind, all: &[Descriptor]) {
        match kind {
            Kind::Path(path) => {
                let status = u64::from(self.descriptor.status_flags);
                open(
                    self.list,
                    &path.path,
                    status & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) as u64,
                    None,
                );
                if path.offset != 0 {
                    let args = [self.free.into(), path.offset.into(), (libc::SEEK_SET as u64).into()];
                    self.list.exactly(libc::SYS_lseek, &args, path.offset);
                }
                self.take(self.free);
            }
            Kind::External(external) => self.external(External::try_from(*external)),
            Kind::Duplicate(original) => self.move_here((*original as u64).into()),
            Kind::EventFd(event) => {
                let bits = if event.semaphore { libc::EFD_SEMAPHORE } else { 0 } as u64 | self.nonblocking();
                self.list.exactly(libc::SYS_eventfd2, &[0.into(), bits.into()], self.free);
                if event.count > 0 {
                    let count = self.list.words(&[event.count]);
                    self.list.exactly(libc::SYS_write, &[self.free.into(), count.into(), 8.into()], 8);
                }
                self.take(self.free);
            }
            Kind::Epoll(_) => {
                self.list.exactly(libc::SYS_epoll_create1, &[0.into()], self.free);
                self.take(self.free);
            }
            Kind::TimerFd(timer) => self.timer(timer),
            Kind::Connection(connection) => self.connection(connection.port as u16),
            Kind::Closed(closed) => {
                self.socket(closed.family, closed.socket_type);
                self.take(self.free);
            }
            Kind::Listener(listener) => self.listener(listener),
            Kind::Pipe(pipe) => {
                if let Some((other, far)) = pipe_partner(all, self.descriptor.number, pipe.id, pipe.read) {
                    self.pair_of_pipe(pipe, other, far);
                }
            }
            Kind::UnixPair(pair) => {
                if let Some(other) = unix_partner(all, self.descriptor.number, pair.peer) {
                    self.pair_of_sockets(pair.socket_type, other);
                }
            }
        }
    }

    fn nonblocking(&self) -> u64 {
        u64::from(self.descriptor.status_flags) & libc::O_NONBLOCK as u64
    }

    /// Moves what stands at `from` to the descriptor's own number.
    fn take(&mut self, from: u64) {
        self.move_here(from.into());
        self.list.exactly(libc::SYS_close, &[from.into()], 0);
    }

    fn move_here(&mut self, from: Arg) {
        move_to(self.list, from, self.descriptor);
    }

    fn external(&mut self, external: Result<External, prost::UnknownEnumValue>) {
        let source = match external {
            Ok(External::Stdout) => Received::Stdout,
            Ok(External::Stderr) => Received::Stderr,
            Ok(External::Pending) | Err(_) => Received::Pending,
        };
        self.move_here(slot(source));
        if self.nonblocking() != 0 {
            self.set_status(self.descriptor.number as u64);
        }
    }

    fn set_status(&mut self, number: u64) {
        let status = u64::from(self.descriptor.status_flags);
        let args = [number.into(), (libc::F_SETFL as u64).into(), status.into()];
        self.list.exactly(libc::SYS_fcntl, &args, 0);
    }

    fn timer(&mut self, timer: &crate::image::TimerFd) {
        let args = [(timer.clock as u64).into(), self.nonblocking().into()];
        self.list.exactly(libc::SYS_timerfd_create, &args, self.free);
        if timer.value_ns > 0 {
            let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000];
            let [interval, value] = [split(timer.interval_ns), split(timer.value_ns)];
            let address = self.list.words(&[interval[0], interval[1], value[0], value[1]]);
            let args = [self.free.into(), 0.into(), address.into(), 0.into()];
            self.list.exactly(libc::SYS_timerfd_settime, &args, 0);
        }
        self.take(self.free);
    }

    fn socket(&mut self, family: i32, socket_type: i32) {
        let kind = socket_type as u64 | self.nonblocking();
        let args = [(family as u64).into(), kind.into(), 0.into()];
        self.list.exactly(libc::SYS_socket, &args, self.free);
    }

    /// Connects to the sandbox's own Runtime API. The socket turns nonblocking only when it is connected.
    fn connection(&mut self, port: u16) {
        let args = [(libc::AF_INET as u64).into(), (libc::SOCK_STREAM as u64).into(), 0.into()];
        self.list.exactly(libc::SYS_socket, &args, self.free);
        let mut address = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        address.extend_from_slice(&port.to_be_bytes());
        address.extend_from_slice(&[127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let address = self.list.data(&address, 8);
        self.list.exactly(libc::SYS_connect, &[self.free.into(), address.into(), 16.into()], 0);
        if self.nonblocking() != 0 {
            self.set_status(self.free);
        }
        self.take(self.free);
    }

    fn listener(&mut self, listener: &crate::image::Listener) {
        self.socket(listener.family, listener.socket_type);
        let one = self.list.words(&[1]);
        let (level, option) = (libc::SOL_SOCKET as u64, libc::SO_REUSEADDR as u64);
        let args = [self.free.into(), level.into(), option.into(), one.into(), 4.into()];
        self.list.exactly(libc::SYS_setsockopt, &args, 0);
        let address = self.list.data(&listener.address, 8);
        let bytes = listener.address.len() as u64;
        self.list.exactly(libc::SYS_bind, &[self.free.into(), address.into(), bytes.into()], 0);
        if listener.backlog > 0 {
            let args = [self.free.into(), u64::from(listener.backlog).into()];
            self.list.exactly(libc::SYS_listen, &args, 0);
        }
        self.take(self.free);
    }

    fn pair_of_pipe(&mut self, pipe: &crate::image::Pipe, other: &Descriptor, far: &crate::image::Pipe) {
        let numbers = self.list.words(&[0]);
        self.list.exactly(libc::SYS_pipe2, &[numbers.into(), 0.into()], 0);
        let (read, write) = (self.free, self.free + 1);
        let near_read = pipe.read;
        let (content, capacity) =
            if near_read { (&pipe.content, pipe.capacity_bytes) } else { (&far.content, far.capacity_bytes) };
        if capacity > 0 {
            let args = [write.into(), (libc::F_SETPIPE_SZ as u64).into(), u64::from(capacity).into()];
            self.list.call(libc::SYS_fcntl, &args, None);
        }
        if !content.is_empty() {
            let address = self.list.data(content, 1);
            let bytes = content.len() as u64;
            self.list.exactly(libc::SYS_write, &[write.into(), address.into(), bytes.into()], bytes);
        }
        let (near, far_end) = if near_read { (read, write) } else { (write, read) };
        self.finish_pair(near, far_end, other);
    }

    fn pair_of_sockets(&mut self, socket_type: i32, other: &Descriptor) {
        let numbers = self.list.words(&[0]);
        let args = [(libc::AF_UNIX as u64).into(), (socket_type as u64).into(), 0.into(), numbers.into()];
        self.list.exactly(libc::SYS_socketpair, &args, 0);
        self.finish_pair(self.free, self.free + 1, other);
    }

    fn finish_pair(&mut self, near: u64, far: u64, other: &Descriptor) {
        for (number, descriptor) in [(near, self.descriptor), (far, other)] {
            if descriptor.status_flags & libc::O_NONBLOCK as u32 != 0 {
                let status = u64::from(descriptor.status_flags);
                let args = [number.into(), (libc::F_SETFL as u64).into(), status.into()];
                self.list.exactly(libc::SYS_fcntl, &args, 0);
            }
            move_to(self.list, number.into(), descriptor);
            self.list.exactly(libc::SYS_close, &[number.into()], 0);
        }
    }
}

fn move_to(list: &mut List, from: Arg, descriptor: &Descriptor) {
    let bits = if descriptor.close_on_exec { libc::O_CLOEXEC as u64 } else { 0 };
    let number = descriptor.number as u64;
    list.exactly(libc::SYS_dup3, &[from, number.into(), bits.into()], number);
}

/// The other end of a pipe, if it has a higher number: each pair is made once, at its lower end.
fn pipe_partner(
    all: &[Descriptor],
    number: i32,
    id: u64,
    read: bool,
) -> Option<(&Descriptor, &crate::image::Pipe)> {
    all.iter().find_map(|other| match &other.kind {
        Some(Kind::Pipe(pipe)) if pipe.id == id && pipe.read != read && other.number > number => {
            Some((other, pipe))
        }
        _ => None,
    })
}

fn unix_partner(all: &[Descriptor], number: i32, peer: u64) -> Option<&Descriptor> {
    all.iter().find(|other| {
        other.number > number && matches!(&other.kind, Some(Kind::UnixPair(pair)) if pair.id == peer)
    })
}

/// Creates every thread but the main one. Each prepares itself, gives up its privilege and waits.
fn threads(list: &mut List, image: &Image, host: &HostFacts, area: &Area) {
    memory(list, image, area);
    for (index, thread) in image.threads.iter().enumerate().skip(1) {
        let arguments = CloneArgs {
            flags: THREAD,
            stack: area.child_stack(index as u64),
            tls: thread.registers[frame::register::FS_BASE],
            child_tid: thread.tid_address,
            set_tid: list.words(&[thread.tid as u64]),
            ..CloneArgs::default()
        };
        list.child(&arguments, |list| {
            thread_state(list, thread);
            drop_privilege(list, image, host);
            list.step(Code::Signal, &[area.ready_word().into(), 1.into()]);
            list.step(Code::Wait, &[area.release_word().into(), 1.into()]);
            go(list, thread);
        });
    }
}

fn thread_state(list: &mut List, thread: &Thread) {
    if let [head, bytes] = thread.robust_list[..] {
        list.exactly(libc::SYS_set_robust_list, &[head.into(), bytes.into()], 0);
    }
    if let [address, bytes, signature] = thread.rseq[..] {
        list.exactly(libc::SYS_rseq, &[address.into(), bytes.into(), 0.into(), signature.into()], 0);
    }
    let name = list.string(&thread.name);
    list.exactly(libc::SYS_prctl, &[(libc::PR_SET_NAME as u64).into(), name.into()], 0);
    let gs = thread.registers[frame::register::GS_BASE];
    if gs != 0 {
        list.exactly(libc::SYS_arch_prctl, &[ARCH_SET_GS.into(), gs.into()], 0);
    }
}

/// The raw calls change one thread only, so every thread makes them.
fn drop_privilege(list: &mut List, image: &Image, host: &HostFacts) {
    if host.change_user {
        let (uid, gid) = (u64::from(image.uid).into(), u64::from(image.gid).into());
        list.exactly(libc::SYS_setgroups, &[0.into(), 0.into()], 0);
        list.exactly(libc::SYS_setresgid, &[gid, gid, gid], 0);
        list.exactly(libc::SYS_setresuid, &[uid, uid, uid], 0);
    }
    let header = list.words(&[CAPABILITY_VERSION]);
    let none = list.words(&[0, 0, 0]);
    list.exactly(libc::SYS_capset, &[header.into(), none.into()], 0);
}

fn go(list: &mut List, thread: &Thread) {
    // The frame's own address stands in it, so its place is taken first and filled with the same length.
    let place = list.data(&[], frame::ALIGNMENT);
    list.data(&frame::frame(thread, place), 1);
    list.step(Code::Sigreturn, &[place.into()]);
}

/// The main thread's last steps.
fn release(list: &mut List, image: &Image, host: &HostFacts, area: &Area, control: u64) {
    let main = &image.threads[0];
    thread_state(list, main);
    if main.tid_address != 0 {
        list.call(libc::SYS_set_tid_address, &[main.tid_address.into()], None);
    }
    let base = main.registers[frame::register::FS_BASE];
    list.exactly(libc::SYS_arch_prctl, &[ARCH_SET_FS.into(), base.into()], 0);
    list.wait_for(libc::SYS_getppid, 1, ORPHAN_TRIES);
    drop_privilege(list, image, host);
    let others = image.threads.len() as u64 - 1;
    list.step(Code::Wait, &[area.ready_word().into(), others.into()]);
    if image.dumpable {
        list.exactly(libc::SYS_prctl, &[(libc::PR_SET_DUMPABLE as u64).into(), 1.into()], 0);
    }
    let stack = main.registers[frame::register::RSP] - RED_ZONE_BYTES;
    for function in &image.reseed_functions {
        list.function(*function, stack, 1);
    }
    list.step(Code::Report, &[]);
    // Here a clone can wait for its request with everything behind it that takes time.
    let byte = list.data(&[0], 1);
    list.exactly(libc::SYS_read, &[slot(Received::Release), byte.into(), 1.into()], 1);
    list.exactly(libc::SYS_close_range, &[control.into(), u64::from(u32::MAX).into(), 0.into()], 0);
    list.step(Code::Signal, &[area.release_word().into(), 1.into()]);
    go(list, main);
}
