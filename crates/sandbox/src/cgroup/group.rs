//! One sandbox's group: its directories, limits, figures, freezing and killing.
//!
//! Every file that is touched here belongs to the host's cgroup mounts, which no sandbox can see.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::places::{Place, Places, Version};
use crate::layout::{MEMORY_MB_PER_PROCESSOR, PROCESSES_MAX};

/// The period over which processor time is shared out, in microseconds. The kernel's usual one: short enough that an
/// environment which used its share soon goes on, long enough that a short request of a small function fits in one.
const CPU_PERIOD_US: u64 = 100_000;

/// The smallest share that the kernel accepts, in microseconds of a period.
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// How long freezing may take. A process that does not stop in this time sits in the kernel, in a call that cannot be
/// interrupted.
const FREEZE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long to sleep between two looks at a freezer.
const FREEZE_POLL: Duration = Duration::from_micros(50);

/// One sandbox's group.
#[derive(Debug)]
pub struct Group {
    memory: Option<Tree>,
    cpu: Option<Tree>,
    pids: Option<Tree>,
    freezer: Option<Tree>,
    directories: Vec<PathBuf>,
}

/// The group's directory in one tree.
#[derive(Debug, Clone)]
struct Tree {
    version: Version,
    directory: PathBuf,
}

/// What a new process needs to join the group by itself.
#[derive(Debug, Default)]
pub struct JoinFiles {
    /// `cgroup.procs` of each tree: writing `0` to one moves the writer.
    pub procs: Vec<OwnedFd>,
    /// The directory in the unified tree, for `CLONE_INTO_CGROUP`. Its `cgroup.procs` is not among `procs`.
    pub unified: Option<OwnedFd>,
}

impl Group {
    /// Names the group of sandbox `id`. Nothing is made yet.
    pub(super) fn new(places: &Places, parent: &str, id: u64) -> Self {
        let tree = |place: &Option<Place>| {
            place.as_ref().map(|place| Tree {
                version: place.version,
                directory: place.base.join(parent).join(id.to_string()),
            })
        };
        let (memory, cpu) = (tree(&places.memory), tree(&places.cpu));
        let (pids, freezer) = (tree(&places.pids), tree(&places.freezer));
        let directories =
            places.trees().into_iter().map(|place| place.base.join(parent).join(id.to_string()));
        Self { memory, cpu, pids, freezer, directories: directories.collect() }
    }

    /// Its directories, one in each tree.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Opens what a process needs to join.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn join_files(&self) -> io::Result<JoinFiles> {
        let unified = self.freezer.as_ref().filter(|tree| tree.version == Version::V2);
        let mut files = JoinFiles::default();
        for directory in &self.directories {
            if unified.is_some_and(|tree| tree.directory == *directory) {
                files.unified = Some(File::open(directory)?.into());
            } else {
                files.procs.push(open_to_write(&directory.join("cgroup.procs"))?);
            }
        }
        Ok(files)
    }

    /// Opens `cgroup.procs` of every tree, the unified one too.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn procs_files(&self) -> io::Result<Vec<OwnedFd>> {
        self.directories.iter().map(|directory| open_to_write(&directory.join("cgroup.procs"))).collect()
    }

    /// Limits processes and threads to what AWS Lambda allows. Nothing without the controller.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn limit_processes(&self) -> io::Result<()> {
        let Some(tree) = &self.pids else { return Ok(()) };
        tree.write("pids.max", &PROCESSES_MAX.to_string())
    }

    /// Limits memory, and swap to nothing beyond it. Nothing without the controller.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn limit_memory(&self, limit_mib: u32) -> io::Result<()> {
        let Some(tree) = &self.memory else { return Ok(()) };
        let bytes = (u64::from(limit_mib) << 20).to_string();
        match tree.version {
            Version::V1 => {
                // The sum with swap may never be the smaller of the two; it starts out unlimited.
                tree.write("memory.limit_in_bytes", &bytes)?;
                tree.write_if_there("memory.memsw.limit_in_bytes", &bytes)
            }
            Version::V2 => {
                tree.write("memory.max", &bytes)?;
                tree.write_if_there("memory.swap.max", "0")?;
                // Over its limit the group dies as a whole: half an environment is of no use. v1 has no such wish.
                tree.write_if_there("memory.oom.group", "1")
            }
        }
    }

    /// Gives the share of processors that AWS Lambda gives to this much memory. Nothing without the controller.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn limit_cpu(&self, memory_mib: u32) -> io::Result<()> {
        let Some(tree) = &self.cpu else { return Ok(()) };
        let quota_us = cpu_quota_us(memory_mib);
        match tree.version {
            Version::V1 => {
                tree.write("cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                tree.write("cpu.cfs_quota_us", &quota_us.to_string())
            }
            Version::V2 => tree.write("cpu.max", &format!("{quota_us} {CPU_PERIOD_US}")),
        }
    }

    /// Whether the kernel killed a process of the group for going over the memory limit.
    pub fn oom_killed(&self) -> bool {
        let Some(tree) = &self.memory else { return false };
        let file = match tree.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        tree.read(file).is_ok_and(|text| field(&text, "oom_kill").is_some_and(|count| count > 0))
    }

    /// The most memory that was charged to the group at one time, in bytes. Pages that a clone shares with its template
    /// are charged to the template's group.
    pub fn memory_peak_bytes(&self) -> Option<u64> {
        let tree = self.memory.as_ref()?;
        let file = match tree.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        tree.read(file).ok()?.trim().parse().ok()
    }

    /// The processes of the group, as numbers of the host; `None` when there is no tree at all.
    pub fn processes(&self) -> Option<Vec<Pid>> {
        let directory = self.directories.first()?;
        Some(processes_of(directory))
    }

    /// Freezes every process; true when all stand still. False when there is no freezer.
    ///
    /// # Errors
    /// `TimedOut` when a process did not stop within half a second; as `write(2)` otherwise.
    pub fn freeze(&self) -> io::Result<bool> {
        let Some(tree) = &self.freezer else { return Ok(false) };
        freeze(tree)?;
        Ok(true)
    }

    /// Lets every process run. False when there is no freezer.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn thaw(&self) -> io::Result<bool> {
        let Some(tree) = &self.freezer else { return Ok(false) };
        match tree.version {
            Version::V1 => tree.write("freezer.state", "THAWED")?,
            Version::V2 => tree.write("cgroup.freeze", "0")?,
        }
        Ok(true)
    }

    /// Kills every process of the group, frozen or not.
    pub fn kill(&self) {
        for directory in &self.directories {
            kill_directory(directory);
        }
    }

    /// Removes the directories; true when none is left. A group with processes that are still dying stays.
    pub fn remove(&mut self) -> bool {
        self.directories.retain(|directory| {
            std::fs::remove_dir(directory).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        self.directories.is_empty()
    }
}

impl Tree {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.directory.join(file);
        let file = open_to_write(&path)?;
        rustix::io::write(file, text.as_bytes())?;
        Ok(())
    }

    fn write_if_there(&self, file: &str, text: &str) -> io::Result<()> {
        match self.write(file, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn read(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.directory.join(file))
    }
}

/// Processor time per period for a memory size, in microseconds.
fn cpu_quota_us(memory_mib: u32) -> u64 {
    let share = CPU_PERIOD_US * u64::from(memory_mib) / u64::from(MEMORY_MB_PER_PROCESSOR);
    share.max(CPU_QUOTA_MIN_US)
}

/// Looks at the state until everything stands still. It takes tens of microseconds as a rule; the kernel's
/// notification of it (`cgroup.events` in v2) is held back for up to ten milliseconds, so it is not waited for.
fn freeze(tree: &Tree) -> io::Result<()> {
    let frozen = || match tree.version {
        Version::V1 => tree.read("freezer.state").map(|text| text.trim() == "FROZEN"),
        Version::V2 => tree.read("cgroup.events").map(|text| field(&text, "frozen") == Some(1)),
    };
    match tree.version {
        Version::V1 => tree.write("freezer.state", "FROZEN")?,
        Version::V2 => tree.write("cgroup.freeze", "1")?,
    }
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    while !frozen()? {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(FREEZE_POLL);
    }
    Ok(())
}

/// The number behind `name` in lines of a name and a number.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn open_to_write(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn processes_of(directory: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

/// Kills every process in one directory, whichever tree it is in.
pub(super) fn kill_directory(directory: &Path) {
    // v2 (Linux 5.14): all at once, however fast they fork.
    if std::fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // In a frozen v1 group SIGKILL waits for the thaw; sent first, no process runs any code after it.
    let opened: Vec<(Pid, OwnedFd)> = processes_of(directory)
        .into_iter()
        .filter_map(|pid| Some((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        .collect();
    // A number that is still listed was not given to another process before it was opened.
    let listed = processes_of(directory);
    for (_, process) in opened.iter().filter(|(pid, _)| listed.contains(pid)) {
        let _ = linux::process::signal(process, Signal::KILL);
    }
    let _ = std::fs::write(directory.join("freezer.state"), "THAWED");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_share_grows_with_memory() {
        assert_eq!(cpu_quota_us(1_769), 100_000);
        assert_eq!(cpu_quota_us(3_538), 200_000);
        assert_eq!(cpu_quota_us(128), 7_235);
        assert_eq!(cpu_quota_us(1), CPU_QUOTA_MIN_US);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "frozen"), None);
    }
}
