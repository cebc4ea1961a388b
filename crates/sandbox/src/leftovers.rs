//! What an earlier server left behind when it was killed, found by the records that every server writes.
//!
//! A sandbox dies with its host role, and its mounts with it, for they are in namespaces of their own. What can remain are
//! control groups: as empty directories, or with processes that a v1 freezer holds and that therefore cannot die. A
//! record is one small file per server: who it is and which groups it made.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::cgroup;

/// What record files are called.
const EXTENSION: &str = "server";

/// How long to wait for killed processes to go.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who a server is and what it made.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    /// When the process started, in clock ticks since the machine did: a number that is taken again differs in it.
    started_ticks: u64,
    /// Which life of the machine that was.
    boot: String,
    groups: Vec<PathBuf>,
}

/// Writes the record of the calling process.
pub(crate) fn write(state_dir: &Path, mark: &str, groups: Vec<PathBuf>) -> io::Result<()> {
    let pid = std::process::id();
    let started_ticks = started_ticks(pid).ok_or(io::ErrorKind::NotFound)?;
    let record = Record { pid, started_ticks, boot: boot(), groups };
    let half = state_dir.join(format!("{mark}.half"));
    fs::write(&half, serde_json::to_vec(&record)?)?;
    fs::rename(half, path_of(state_dir, mark))
}

/// Removes a record whose groups are gone.
pub(crate) fn forget(state_dir: &Path, mark: &str) {
    let _ = fs::remove_file(path_of(state_dir, mark));
}

fn path_of(state_dir: &Path, mark: &str) -> PathBuf {
    state_dir.join(format!("{mark}.{EXTENSION}"))
}

/// Removes what dead servers left. Returns what could not be removed.
pub(crate) fn clean(state_dir: &Path) -> Vec<PathBuf> {
    let mut remaining = Vec::new();
    for entry in fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        let Some(record) = record else { continue };
        if is_alive(&record) {
            continue;
        }
        let groups = if record.boot == boot() { remove_groups(record.groups) } else { Vec::new() };
        if groups.is_empty() {
            let _ = fs::remove_file(&path);
        }
        remaining.extend(groups);
    }
    remaining
}

/// Kills what runs in these parent groups and removes them. Returns those that resisted.
pub(crate) fn remove_groups(mut groups: Vec<PathBuf>) -> Vec<PathBuf> {
    // The record is our own file, but what it names gets killed: nothing but a group of ours is touched.
    groups.retain(|group| cgroup::is_parent(group));
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        groups.retain(|group| !cgroup::remove_tree(group));
        if groups.is_empty() || Instant::now() > deadline {
            return groups;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(record: &Record) -> bool {
    record.boot == boot() && started_ticks(record.pid) == Some(record.started_ticks)
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything, so counting starts behind its last bracket.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie holds its number but is dead.
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_living_server_stays_and_of_a_dead_one_goes() {
        let directory = std::env::temp_dir().join(format!("rekindle-leftovers-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        write(&directory, "alive", Vec::new()).unwrap();
        let dead = Record { pid: std::process::id(), started_ticks: 1, boot: boot(), groups: Vec::new() };
        fs::write(directory.join("dead.server"), serde_json::to_vec(&dead).unwrap()).unwrap();
        assert!(clean(&directory).is_empty());
        assert!(directory.join("alive.server").exists());
        assert!(!directory.join("dead.server").exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn only_groups_of_ours_are_ever_removed() {
        assert!(remove_groups(vec![PathBuf::from("/sys/fs/cgroup/memory")]).is_empty());
    }
}
