//! Walking a tree of processes and stopping what is found.

use std::collections::{HashMap, HashSet};
use std::io;

use linux::ptrace::Tracee;
use procfs_core::FromRead;
use procfs_core::process::Stat;

use super::family::{Member, Task};
use super::fields::{self, Fields};
use super::threads::undisturb;
use super::{CheckpointError, Doing, Subject};

/// As many as an image may have.
const PROCESSES_MAX: usize = 1024;
/// Threads of all processes: as many as the largest sandbox may have, and more.
const THREADS_MAX: usize = 1 << 16;
const STATUS_BYTES_MAX: u64 = 1 << 20;
const CHILDREN_BYTES_MAX: u64 = 1 << 20;

/// A process that a walk came by.
pub struct Found {
    host_pid: i32,
    parent: u32,
}

/// Every process of the image, parents before children.
pub fn walk(subject: &Subject) -> Result<Vec<Found>, CheckpointError> {
    let mut found = vec![Found { host_pid: subject.pid, parent: 0 }];
    let mut known = HashSet::from([subject.pid]);
    for sibling in subject.init.map_or(Ok(Vec::new()), children)? {
        if known.insert(sibling) {
            found.push(Found { host_pid: sibling, parent: 0 });
        }
    }
    let mut next = 0;
    while next < found.len() {
        for child in children(found[next].host_pid)? {
            if known.insert(child) {
                found.push(Found { host_pid: child, parent: next as u32 + 1 });
            }
        }
        next += 1;
    }
    if found.len() > PROCESSES_MAX {
        return Err(CheckpointError::Unsupported {
            what: format!("a tree of {} processes", found.len()),
            remedy: "have at most 1024 processes at the snapshot",
        });
    }
    if known.contains(&(std::process::id() as i32)) {
        return Err(CheckpointError::Unsupported {
            what: format!("process {}, whose descendant is making this checkpoint,", subject.pid),
            remedy: "checkpoint it from outside of it, such as from another terminal",
        });
    }
    Ok(found)
}

/// The children of a process; none of one that is gone.
fn children(pid: i32) -> Result<Vec<i32>, CheckpointError> {
    let mut children = Vec::new();
    for tid in threads(pid)? {
        let path = format!("/proc/{pid}/task/{tid}/children");
        match fields::read(&path, CHILDREN_BYTES_MAX) {
            Ok(text) => children.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok())),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error).doing("list the children", pid),
        }
    }
    Ok(children)
}

/// Thread IDs of a process as the host sees them; none of one that is gone.
fn threads(pid: i32) -> Result<Vec<i32>, CheckpointError> {
    let entries = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error).doing("list the threads", pid),
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether a thread is dead, or gone by now.
fn has_ended(tid: i32) -> bool {
    stat(tid).map_or_else(|error| is_gone(&error), |stat| "ZX".contains(stat.state))
}

fn stat(pid: i32) -> io::Result<Stat> {
    let text = fields::read(&format!("/proc/{pid}/stat"), STATUS_BYTES_MAX)?;
    Stat::from_read(text.as_bytes()).map_err(io::Error::other)
}

/// The threads that have been stopped so far.
#[derive(Default)]
pub struct Stopped {
    threads: HashMap<i32, Vec<Tracee>>,
    seen: HashSet<i32>,
}

impl Stopped {
    /// Stops the threads that are not stopped yet and tells whether there were any.
    pub fn more(&mut self, found: &[Found]) -> Result<bool, CheckpointError> {
        let mut seized = Vec::new();
        let mut changed = false;
        for process in found {
            let pid = process.host_pid;
            match stat(pid) {
                Ok(stat) if stat.state == 'Z' && stat.num_threads <= 1 => continue,
                Ok(stat) if stat.state == 'Z' => {
                    return Err(CheckpointError::Unsupported {
                        what: format!(
                            "process {pid} ({}), whose main thread has ended before the others,",
                            stat.comm
                        ),
                        remedy: "let the main thread wait for the others",
                    });
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => {
                    changed = true;
                    continue;
                }
                Err(error) => return Err(error).doing("read the status", pid),
            }
            for tid in threads(pid)? {
                if self.seen.contains(&tid) {
                    continue;
                }
                changed = true;
                match Tracee::seize(tid) {
                    Ok(tracee) => {
                        self.seen.insert(tid);
                        seized.push((pid, tracee));
                    }
                    Err(error) if is_gone(&error) => {}
                    // It is ending: the next walk will not see it, or as a zombie.
                    Err(_) if has_ended(tid) => {}
                    Err(error) => return Err(error).doing("stop a thread", tid),
                }
            }
        }
        if self.seen.len() > THREADS_MAX {
            return Err(CheckpointError::Unsupported {
                what: format!("a tree of {} threads", self.seen.len()),
                remedy: "have fewer threads at the snapshot",
            });
        }
        self.settle(seized)?;
        Ok(changed)
    }

    /// Waits for threads that were asked to stop. All are asked before the first is waited for.
    fn settle(&mut self, seized: Vec<(i32, Tracee)>) -> Result<(), CheckpointError> {
        for (pid, mut tracee) in seized {
            let tid = tracee.tid();
            match tracee.await_stop() {
                Ok(()) => {
                    undisturb(&tracee).doing("look at a stopped thread", tid)?;
                    self.threads.entry(pid).or_default().push(tracee);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(CheckpointError::Unsupported {
                        what: format!("thread {tid} of process {pid}, which the kernel does not let stop,"),
                        remedy: "it may be in vfork, or wait for a device: let it finish before the snapshot",
                    });
                }
                Err(error) => return Err(error).doing("stop a thread", tid),
            }
        }
        Ok(())
    }

    /// The processes, when a walk has found nobody new.
    pub fn members(mut self, found: Vec<Found>) -> Result<Vec<Member>, CheckpointError> {
        found.into_iter().map(|process| self.member(&process)).collect()
    }

    fn member(&mut self, process: &Found) -> Result<Member, CheckpointError> {
        let host_pid = process.host_pid;
        let read = |path: String| fields::read(&path, STATUS_BYTES_MAX).doing("read the status", host_pid);
        let stat = stat(host_pid).doing("read the status", host_pid)?;
        let status = Fields { text: read(format!("/proc/{host_pid}/status"))? };
        let mut threads = Vec::new();
        for tracee in self.threads.remove(&host_pid).unwrap_or_default() {
            let status = Fields { text: read(format!("/proc/{host_pid}/task/{}/status", tracee.tid()))? };
            threads.push(Task { tid: inside(&status, host_pid)?, tracee, status });
        }
        // The main thread has the process's ID and goes first.
        threads.sort_by_key(|task| (task.tracee.tid() != host_pid, task.tracee.tid()));
        let ended = (stat.state == 'Z').then(|| stat.exit_code.unwrap_or(0) as u32);
        let whole = ended.is_some() || threads.first().is_some_and(|main| main.tracee.tid() == host_pid);
        whole
            .then_some(())
            .ok_or(io::ErrorKind::NotFound)
            .map_err(io::Error::from)
            .doing("stop", host_pid)?;
        Ok(Member {
            host_pid,
            pid: inside(&status, host_pid)?,
            name: stat.comm.clone(),
            parent: process.parent,
            host_group: stat.pgrp,
            host_session: stat.session,
            ended,
            stat,
            status,
            threads: if ended.is_some() { Vec::new() } else { threads },
        })
    }
}

/// The ID inside the PID namespace.
fn inside(status: &Fields, pid: i32) -> Result<i32, CheckpointError> {
    let own = status.words("NSpid").last().and_then(|id| id.parse().ok());
    own.ok_or(io::ErrorKind::InvalidData).map_err(io::Error::from).doing("read the process ID", pid)
}
