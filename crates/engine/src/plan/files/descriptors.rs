//! Puts the descriptors of each process at their numbers, and what hangs on numbers: epoll members and locks.

use super::Files;
use super::maker::{nonblocking, of_process, opening};
use crate::image::{Descriptor, Epoll, EpollMember, Image, Kind, Lock, Process};
use crate::plan::Context;
use crate::plan::list::{Arg, List};
use crate::plan::process::TRIES;
use crate::plan::template::{FILE, open};

const F_OFD_SETLK: u64 = 37;
/// [`Lock::kind`] of a record lock of the process, and of one of the open file.
const RECORD: u32 = 1;
const OPEN_FILE: u32 = 2;

/// Puts the descriptors of a process where they belong.
pub fn descriptors(list: &mut List, context: &Context<'_>, files: &Files, index: usize) {
    let process = &context.image.processes[index];
    let epolls = own_epolls(context.image, index);
    let is_live = |member: &EpollMember| {
        process.descriptors.iter().any(|known| known.number == member.number && known.file == member.file)
    };
    for (set, epoll) in &epolls {
        for member in epoll.members.iter().filter(|member| !is_live(member)) {
            if let Some(file) = files.operand(member.file) {
                let number = (member.number as u64).into();
                list.call(libc::SYS_dup3, &[file, number, 0.into()], None);
                add(list, files, *set, member);
            }
        }
    }
    for descriptor in &process.descriptors {
        number(list, context, files, descriptor);
    }
    // Every number below the engine's own is occupied; what the process does not use is let go.
    let mut next = 0;
    let ends = process.descriptors.iter().map(|descriptor| descriptor.number as u64);
    for used in ends.chain([context.control()]) {
        if used > next {
            list.exactly(libc::SYS_close_range, &[next.into(), (used - 1).into(), 0.into()], 0);
        }
        next = used + 1;
    }
    for (set, epoll) in &epolls {
        for member in epoll.members.iter().filter(|member| is_live(member)) {
            add(list, files, *set, member);
        }
    }
    locks(list, process);
}

fn number(list: &mut List, context: &Context<'_>, files: &Files, descriptor: &Descriptor) {
    let bits = if descriptor.close_on_exec { libc::O_CLOEXEC as u64 } else { 0 };
    let number = descriptor.number as u64;
    if let Some(file) = files.operand(descriptor.file) {
        list.exactly(libc::SYS_dup3, &[file, number.into(), bits.into()], number);
        return;
    }
    let file = &context.image.open_files[descriptor.file as usize];
    match &file.kind {
        Some(Kind::PidFd(pid)) => {
            let pid = await_process(list, *pid as u64);
            list.call(libc::SYS_pidfd_open, &[pid, nonblocking(file).into()], Some(FILE));
        }
        Some(Kind::Path(path)) => {
            await_process(list, of_process(path).unwrap_or_default().into());
            open(list, &path.path, opening(file), Some(FILE));
            let whence = (libc::SEEK_SET as u64).into();
            list.call(libc::SYS_lseek, &[Arg::Slot(FILE.into()), path.offset.into(), whence], None);
        }
        _ => return,
    }
    let made = Arg::Slot(FILE.into());
    list.exactly(libc::SYS_dup3, &[made, number.into(), bits.into()], number);
    list.exactly(libc::SYS_close, &[made], 0);
}

/// Waits for a process that may be about to be started by another one.
fn await_process(list: &mut List, pid: u64) -> Arg {
    list.wait_for(libc::SYS_kill, &[pid.into(), 0.into()], 0, TRIES);
    pid.into()
}

/// The epoll sets that this process is the first to have, each with its index among the open files.
fn own_epolls(image: &Image, index: usize) -> Vec<(u32, &Epoll)> {
    let has = |process: usize, file: u32| {
        image.processes[process].descriptors.iter().any(|descriptor| descriptor.file == file)
    };
    let sets = image.open_files.iter().enumerate().filter_map(|(number, file)| match &file.kind {
        Some(Kind::Epoll(epoll)) => Some((number as u32, epoll)),
        _ => None,
    });
    let owner = |file: u32| (0..image.processes.len()).find(|&process| has(process, file)).unwrap_or(0);
    sets.filter(|(file, _)| owner(*file) == index).collect()
}

fn add(list: &mut List, files: &Files, set: u32, member: &EpollMember) {
    let Some(set) = files.operand(set) else { return };
    // `struct epoll_event` is packed: 32 bits of events, then the data.
    let mut event = member.events.to_ne_bytes().to_vec();
    event.extend_from_slice(&member.data.to_ne_bytes());
    let event = list.data(&event, 8);
    let args = [set, (libc::EPOLL_CTL_ADD as u64).into(), (member.number as u64).into(), event.into()];
    list.exactly(libc::SYS_epoll_ctl, &args, 0);
}

/// Locks of open files, which need a descriptor only while they are taken.
fn locks(list: &mut List, process: &Process) {
    for lock in process.locks.iter().filter(|lock| lock.kind != RECORD) {
        let number = (lock.number as u64).into();
        if lock.kind == OPEN_FILE {
            record(list, lock, F_OFD_SETLK);
        } else {
            let how = if lock.exclusive { libc::LOCK_EX } else { libc::LOCK_SH } | libc::LOCK_NB;
            list.exactly(libc::SYS_flock, &[number, (how as u64).into()], 0);
        }
    }
}

/// Closes what the go-between has made, if the process has record locks: it would lose them if it closed any descriptor
/// of the file later.
pub fn close_made(list: &mut List, files: &Files, process: &Process) {
    let (first, end) = files.made;
    if end > first && process.locks.iter().any(|lock| lock.kind == RECORD) {
        list.exactly(libc::SYS_close_range, &[first.into(), (end - 1).into(), 0.into()], 0);
    }
}

/// Record locks of the process.
pub fn record_locks(list: &mut List, process: &Process) {
    for lock in process.locks.iter().filter(|lock| lock.kind == RECORD) {
        record(list, lock, libc::F_SETLK as u64);
    }
}

fn record(list: &mut List, lock: &Lock, command: u64) {
    let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as u64;
    // `struct flock`: type and whence in 16 bits each, start, length, owner.
    let words = list.words(&[kind | (libc::SEEK_SET as u64) << 16, lock.start, lock.bytes, 0]);
    list.exactly(libc::SYS_fcntl, &[(lock.number as u64).into(), command.into(), words.into()], 0);
}
