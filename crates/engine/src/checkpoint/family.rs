//! The processes of an image: finding them, stopping them, and telling who is who.
//!
//! A tree can grow while it is being stopped, so it is walked again until a walk finds nobody new. Then nothing in it
//! can change but by a signal that kills.

use std::cmp::Ordering;

use linux::descriptor::{Shared, compare_shared};
use linux::ptrace::Tracee;
use procfs_core::process::Stat;

use super::fields::Fields;
use super::walk::{Stopped, walk};
use super::{CheckpointError, Doing, Subject};

/// How often the tree is walked before it is given up: a fork bomb would never hold still.
const WALKS_MAX: usize = 1000;

/// The processes of an image, stopped, parents before their children.
pub struct Family {
    /// The processes; the first is the root.
    pub members: Vec<Member>,
}

/// A process of the image.
pub struct Member {
    /// Its ID as the host sees it.
    pub host_pid: i32,
    /// Its ID inside its PID namespace.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// Its parent as an index into the members plus one; zero for one outside.
    pub parent: u32,
    /// Process group and session as the host sees them.
    pub host_group: i32,
    /// See `host_group`.
    pub host_session: i32,
    /// Wait status of a zombie.
    pub ended: Option<u32>,
    /// `/proc/PID/stat`.
    pub stat: Stat,
    /// `/proc/PID/status`.
    pub status: Fields,
    /// Its threads, the main thread first; none for a zombie.
    pub threads: Vec<Task>,
}

/// A thread of the image.
pub struct Task {
    /// The thread, stopped.
    pub tracee: Tracee,
    /// Its ID inside its PID namespace.
    pub tid: i32,
    /// `/proc/PID/task/TID/status`.
    pub status: Fields,
}

impl Member {
    /// The main thread.
    pub fn main(&self) -> &Tracee {
        &self.threads[0].tracee
    }

    /// How messages call it.
    pub fn title(&self) -> String {
        format!("process {} ({})", self.pid, self.name)
    }
}

impl Family {
    /// Stops every process that belongs to the image.
    pub fn stop(subject: &Subject) -> Result<Self, CheckpointError> {
        let mut stopped = Stopped::default();
        for _ in 0..WALKS_MAX {
            let found = walk(subject)?;
            if !stopped.more(&found)? {
                let family = Self { members: stopped.members(found)? };
                family.refuse_strangers()?;
                family.refuse_shared(Shared::Memory, "its memory")?;
                // With its parent alone a process may share it.
                family.refuse_shared(Shared::FileSystem, "its working directory")?;
                family.members.iter().try_for_each(refuse_lonely_threads)?;
                return Ok(family);
            }
        }
        Err(CheckpointError::Unsupported {
            what: format!("process {}, which starts processes without end,", subject.pid),
            remedy: "stop starting processes before the snapshot",
        })
    }

    /// Whether a process shares working directory and file mode mask with its parent.
    pub fn shares_directory(&self, member: &Member) -> Result<bool, CheckpointError> {
        let Some(parent) = (member.parent as usize).checked_sub(1).map(|index| &self.members[index]) else {
            return Ok(false);
        };
        let order = compare_shared(parent.host_pid, member.host_pid, Shared::FileSystem);
        Ok(order.doing("compare the working directories", member.host_pid)?.is_eq())
    }

    /// The member with this ID as the host sees it.
    pub fn by_host_pid(&self, host_pid: i32) -> Option<&Member> {
        self.members.iter().find(|member| member.host_pid == host_pid)
    }

    /// The ID inside of a thread that the host sees as this one.
    pub fn tid_inside(&self, host_tid: i32) -> Option<i32> {
        let mut threads = self.members.iter().flat_map(|member| &member.threads);
        threads.find(|task| task.tracee.tid() == host_tid).map(|task| task.tid)
    }

    /// The ID inside of the process group or session that the host sees as this one; zero when its leader is not here.
    pub fn leader_inside(&self, host_id: i32) -> i32 {
        self.by_host_pid(host_id).map_or(0, |leader| leader.pid)
    }

    /// What of the processes themselves comes back different.
    pub fn warnings(&self) -> Vec<String> {
        let lost = |member: &&Member| self.leader_inside(member.host_group) == 0;
        // The root's own group may well be led from outside; what counts is a group that is left without its leader.
        let led_by_the_dead = |member: &&Member| {
            let leader = format!("/proc/{}", member.host_group);
            member.host_group != 0 && !std::path::Path::new(&leader).exists()
        };
        let groups = self.members.iter().filter(lost).filter(led_by_the_dead);
        groups
            .map(|member| {
                format!(
                    "{}: its process group has lost its leader and comes back as the group of its parent",
                    member.title()
                )
            })
            .collect()
    }

    /// Refuses processes that live in other namespaces than the root: they would come back in the wrong place.
    fn refuse_strangers(&self) -> Result<(), CheckpointError> {
        const KINDS: [&str; 7] = ["ns/user", "ns/mnt", "ns/net", "ns/pid", "ns/ipc", "ns/uts", "root"];
        let place = |member: &Member, kind: &str| {
            let path = format!("/proc/{}/{kind}", member.host_pid);
            std::fs::read_link(path).doing("look at the namespaces", member.host_pid)
        };
        let root = &self.members[0];
        for kind in KINDS {
            let expected = place(root, kind)?;
            for member in self.members[1..].iter().filter(|member| member.ended.is_none()) {
                if place(member, kind)? != expected {
                    return Err(CheckpointError::Unsupported {
                        what: format!("{}, which has {kind} of its own,", member.title()),
                        remedy: "end it before the snapshot, or start it without namespaces or a root of its own",
                    });
                }
            }
        }
        Ok(())
    }

    /// Refuses processes that share what usually only threads do.
    fn refuse_shared(&self, what: Shared, name: &str) -> Result<(), CheckpointError> {
        let mut seen: Vec<&Member> = Vec::new();
        for member in self.members.iter().filter(|member| member.ended.is_none()) {
            match position(&seen, member, what)? {
                Ok(_) if what == Shared::FileSystem && self.shares_directory(member)? => {}
                Ok(other) => {
                    return Err(CheckpointError::Unsupported {
                        what: format!(
                            "{}, which shares {name} with {},",
                            member.title(),
                            seen[other].title()
                        ),
                        remedy: "let it execute a program or end before the snapshot",
                    });
                }
                Err(place) => seen.insert(place, member),
            }
        }
        Ok(())
    }
}

/// Where a process is among others that are ordered by what they share, or where it would be.
pub fn position(
    ordered: &[&Member],
    member: &Member,
    what: Shared,
) -> Result<Result<usize, usize>, CheckpointError> {
    let mut failure = None;
    let place = ordered.binary_search_by(|other| {
        compare_shared(other.host_pid, member.host_pid, what).unwrap_or_else(|error| {
            failure = Some(error);
            Ordering::Equal
        })
    });
    failure.map_or(Ok(place), Err).doing("compare the memory", member.host_pid)
}

/// Refuses threads that have left what the threads of a process share.
fn refuse_lonely_threads(member: &Member) -> Result<(), CheckpointError> {
    let refuse = |task: &Task, what: &str| CheckpointError::Unsupported {
        what: format!("thread {} of {}, which has {what} of its own,", task.tid, member.title()),
        remedy: "end the thread before the snapshot",
    };
    for task in member.threads.iter().skip(1) {
        let (main, tid) = (member.host_pid, task.tracee.tid());
        for (what, name) in
            [(Shared::Descriptors, "descriptors"), (Shared::FileSystem, "a working directory")]
        {
            if compare_shared(main, tid, what).doing("compare the threads", main)?.is_ne() {
                return Err(refuse(task, name));
            }
        }
        for field in ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            if task.status.get(field) != member.status.get(field) {
                return Err(refuse(task, "credentials"));
            }
        }
    }
    Ok(())
}
