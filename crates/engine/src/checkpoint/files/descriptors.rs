//! Collecting: from descriptors of processes to open files.

use std::cmp::Ordering;
use std::fs;
use std::os::fd::OwnedFd;

use linux::descriptor::{Held, Shared, compare};
use rustix::fs::FileType;

use super::{Entry, Files, Group, Table, locks};
use crate::checkpoint::family::{Member, position};
use crate::checkpoint::fields::{self, Fields};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Descriptor, External};

/// Most of it is members of epoll sets and watches, some 100 bytes each.
const INFO_BYTES_MAX: u64 = 32 << 20;
/// Descriptors of all processes.
const DESCRIPTORS_MAX: usize = 1 << 16;

impl Files<'_> {
    /// Finds every open file and gives the table of each process.
    pub(super) fn collect(&mut self) -> Result<Vec<Table>, CheckpointError> {
        let mut tables = Vec::new();
        // Processes with a table of their own, as `kcmp` orders them.
        let mut owners: Vec<&Member> = Vec::new();
        let mut total = 0;
        let family = self.family;
        for member in &family.members {
            if member.ended.is_some() {
                tables.push(Table::default());
                continue;
            }
            match position(&owners, member, Shared::Descriptors)? {
                Ok(place) => {
                    let owner = owners[place].host_pid;
                    let index = family.members.iter().position(|other| other.host_pid == owner).unwrap_or(0);
                    tables.push(Table { shared_with: index as u32 + 1, ..Table::default() });
                }
                Err(place) => {
                    owners.insert(place, member);
                    let table = self.table(member)?;
                    total += table.descriptors.len();
                    tables.push(table);
                }
            }
            if total > DESCRIPTORS_MAX {
                return Err(CheckpointError::Unsupported {
                    what: format!("{}, which has too many open files,", member.title()),
                    remedy: "close some before the snapshot",
                });
            }
        }
        Ok(tables)
    }

    fn table(&mut self, member: &Member) -> Result<Table, CheckpointError> {
        let pid = member.host_pid;
        let mut numbers: Vec<i32> = fs::read_dir(format!("/proc/{pid}/fd"))
            .doing("list the descriptors", pid)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let mut table = Table::default();
        for number in numbers {
            let title = format!("descriptor {number} of {}", member.title());
            let known = self.entries.len();
            let mut entry = self.entry(Held { pid, number }, title)?;
            let close_on_exec = entry.flags() & libc::O_CLOEXEC != 0;
            entry.external = self.external(&entry, number);
            let found = locks::parse(&entry.info.text, number);
            let file = self.intern(entry)?;
            table.descriptors.push(Descriptor { number, close_on_exec, file: file as u32 });
            // A lock of an open file belongs to whoever has it first; a record lock to each process that holds one.
            for lock in found {
                let again = table.locks.iter().any(|other| {
                    let number = other.number;
                    let same_file = table
                        .descriptors
                        .iter()
                        .any(|descriptor| descriptor.number == number && descriptor.file == file as u32);
                    same_file && locks::same(other, &lock)
                });
                if !again && (lock.kind == locks::RECORD || file >= known) {
                    table.locks.push(lock);
                }
            }
        }
        Ok(table)
    }

    pub(super) fn entry(&self, held: Held, title: String) -> Result<Entry, CheckpointError> {
        let Held { pid, number } = held;
        let path = format!("/proc/{pid}/fd/{number}");
        let link = fs::read_link(&path).doing("read a descriptor", pid)?;
        let text = fields::read(&format!("/proc/{pid}/fdinfo/{number}"), INFO_BYTES_MAX);
        let mut entry = Entry {
            held,
            own: None,
            title,
            link: link.to_string_lossy().into_owned(),
            stat: rustix::fs::stat(&path).doing("look at a descriptor", pid)?,
            info: Fields { text: text.doing("read a descriptor", pid)? },
            external: None,
            lease: None,
            kind: None,
        };
        if entry.path_only() {
            // Following the link of a path-only file that is a symbolic link would lead on to its target.
            entry.stat = rustix::fs::lstat(format!("/proc/{pid}/root{}", entry.link)).unwrap_or(entry.stat);
        }
        Ok(entry)
    }

    /// The index of an open file, which is added if it is not known yet.
    fn intern(&mut self, entry: Entry) -> Result<usize, CheckpointError> {
        let group = Group {
            device: entry.stat.st_dev,
            inode: entry.stat.st_ino,
            link: entry.link.clone(),
            external: entry.external,
        };
        let ordered = self.groups.entry(group).or_default();
        let mut failure = None;
        let place = ordered.binary_search_by(|&other| {
            compare(self.entries[other].held, entry.held).unwrap_or_else(|error| {
                failure = Some(error);
                Ordering::Equal
            })
        });
        match failure.map_or(Ok(place), Err).doing("compare descriptors", entry.held.pid)? {
            Ok(place) => Ok(ordered[place]),
            Err(place) => {
                ordered.insert(place, self.entries.len());
                self.entries.push(entry);
                Ok(self.entries.len() - 1)
            }
        }
    }

    /// The index of an open file that was found in the queue of the socket `carrier`.
    pub(super) fn intern_queued(&mut self, carrier: usize, file: OwnedFd) -> Result<usize, CheckpointError> {
        let title = format!("an open file that waits in {}", self.entries[carrier].title);
        let mut entry = self.entry(Self::own_held(&file), title)?;
        entry.external = self.external(&entry, -1);
        entry.own = Some(file);
        self.intern(entry)
    }

    /// What of the platform's this is. A terminal may be all of standard input, output and error, and then the number
    /// of the descriptor tells.
    fn external(&self, entry: &Entry, number: i32) -> Option<External> {
        let terminal = || entry.file_type() == FileType::CharacterDevice && entry.link.starts_with("/dev/");
        let kind = entry.link.starts_with("pipe:[") || entry.link.starts_with("socket:[") || terminal();
        let listed = self.subject.externals.iter().filter(|(inode, _)| *inode == entry.stat.st_ino);
        let candidates: Vec<External> = listed.map(|(_, external)| *external).collect();
        if !kind || candidates.is_empty() {
            return None;
        }
        let wanted = match (number, entry.access()) {
            (0, _) => External::Stdin,
            (1, _) => External::Stdout,
            (2, _) => External::Stderr,
            (_, libc::O_RDONLY) => External::Stdin,
            _ => External::Stdout,
        };
        let found = candidates.iter().find(|candidate| **candidate == wanted).or(candidates.first()).copied();
        // The platform holds the other end of a pipe; this end is no use to it.
        let reads = entry.link.starts_with("pipe:[") && entry.access() == libc::O_RDONLY;
        found.filter(|external| !(reads && [External::Stdout, External::Stderr].contains(external)))
    }
}
