//! Finding a name for a file of which only the inode is known.
//!
//! First what the processes are known to use is looked at, with all directories above it, then the writable files and
//! the working directories are walked. Both are bounded: it is a search, not a list of everything.

use std::collections::{HashMap, HashSet, VecDeque};

use rustix::fs::{AtFlags, FileType};

use super::Entry;
use crate::checkpoint::Subject;
use crate::checkpoint::family::Family;
use crate::checkpoint::smaps::Map;

const ENTRIES_MAX: usize = 50_000;

/// A device and an inode on it.
pub type Identity = (u64, u64);

/// Names by inode.
pub struct Places {
    pid: i32,
    known: HashMap<Identity, String>,
    /// Paths to look at, taken from before the first search.
    used: Vec<String>,
    starts: Vec<String>,
    looked: bool,
}

impl Places {
    /// Notes where to look; looking is left to the first search.
    pub fn new(family: &Family, maps: &[Vec<Map>]) -> Self {
        let link = |member: &crate::checkpoint::family::Member, name: &str| {
            let target = std::fs::read_link(format!("/proc/{}/{name}", member.host_pid)).ok()?;
            target.into_os_string().into_string().ok()
        };
        let starts: Vec<String> = family.members.iter().filter_map(|member| link(member, "cwd")).collect();
        let mut used: Vec<String> = maps
            .iter()
            .flatten()
            .filter(|map| map.name.starts_with('/'))
            .map(|map| map.name.clone())
            .collect();
        used.dedup();
        Self { pid: family.members[0].host_pid, known: HashMap::new(), used, starts, looked: false }
    }

    /// A name of this inode.
    pub fn find(&mut self, subject: &Subject, entries: &[Entry], wanted: Identity) -> Option<String> {
        if !self.looked {
            self.looked = true;
            self.look_at_used(entries);
            let writable = subject.writable.iter().filter_map(|path| path.to_str().map(str::to_owned));
            let starts: VecDeque<String> = writable.chain(self.starts.clone()).collect();
            self.walk(starts);
        }
        self.known.get(&wanted).cloned()
    }

    fn look_at_used(&mut self, entries: &[Entry]) {
        let open = entries.iter().map(|entry| entry.link.clone()).filter(|link| link.starts_with('/'));
        let paths: Vec<String> = std::mem::take(&mut self.used).into_iter().chain(open).collect();
        for path in paths.iter().chain(&self.starts.clone()) {
            let mut path = path.as_str();
            // Upwards, until a directory that has been looked at.
            while self.look_at(path).is_some_and(|new| new) && path != "/" {
                path = match path.rsplit_once('/') {
                    Some(("", _)) | None => "/",
                    Some((directory, _)) => directory,
                };
            }
        }
    }

    /// Notes a path; tells whether it is new, and nothing when it is not there.
    fn look_at(&mut self, path: &str) -> Option<bool> {
        let stat = rustix::fs::lstat(format!("/proc/{}/root{path}", self.pid)).ok()?;
        let new = self.known.len() < ENTRIES_MAX && !self.known.contains_key(&(stat.st_dev, stat.st_ino));
        if new {
            self.known.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        Some(new)
    }

    fn walk(&mut self, mut directories: VecDeque<String>) {
        let mut left = ENTRIES_MAX;
        let mut walked = HashSet::new();
        while let Some(directory) = directories.pop_front() {
            let Ok(entries) = std::fs::read_dir(format!("/proc/{}/root{directory}", self.pid)) else {
                continue;
            };
            for entry in entries.flatten() {
                left -= 1;
                if left == 0 {
                    return;
                }
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = format!("{}/{name}", directory.trim_end_matches('/'));
                let at = format!("/proc/{}/root{path}", self.pid);
                let Ok(stat) = rustix::fs::statat(rustix::fs::CWD, at, AtFlags::SYMLINK_NOFOLLOW) else {
                    continue;
                };
                let identity = (stat.st_dev, stat.st_ino);
                self.known.entry(identity).or_insert_with(|| path.clone());
                let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if directory && walked.insert(identity) {
                    directories.push_back(path);
                }
            }
        }
    }
}
