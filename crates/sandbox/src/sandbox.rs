//! A ready sandbox, as the host role holds it.
//!
//! Every call waits for our own init at most, for [`REPLY_TIMEOUT`], and never for function code. What function code
//! could have written is not read: figures come from the kernel, messages from init.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use linux::channel::Channel;
use linux::mount::{AttributeChange, MountAttrFlags, set_attributes};
use linux::process::{self, Child};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cgroup::{Group, JoinFiles};
use crate::error::SandboxError;
use crate::layout::{ExecSpec, Lease, LeaseGrant};
use crate::reaper::Reaper;
use crate::wire::{Exit, FromInit, PACKET_BYTES_MAX, ToInit};

/// How long init may take for an answer. It takes microseconds; a machine that is out of memory, longer.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often stopping by signals looks for processes that were made meanwhile.
const STOP_ROUNDS_MAX: usize = 20;

/// A ready sandbox.
#[derive(Debug)]
pub struct Sandbox {
    id: u64,
    child: Child,
    channel: Channel,
    group: Group,
    server_ends: Option<ServerEnds>,
    environment_ends: Option<EnvironmentEnds>,
    /// Reports that came while an answer was awaited.
    reports: VecDeque<ExitReport>,
    main: Option<Pid>,
    /// The number that a watched process has inside, where its number on the host was not told.
    inner_main: Option<i32>,
    frozen: bool,
}

/// What belongs to the server's side of a sandbox.
#[derive(Debug)]
pub struct ServerEnds {
    /// Listens on the sandbox's own `127.0.0.1:9001`.
    pub listener: OwnedFd,
    /// The accepted end of the connection that was made ahead.
    pub connection: OwnedFd,
    /// Read end of the environment's standard output.
    pub stdout: OwnedFd,
    /// Read end of its standard error.
    pub stderr: OwnedFd,
    /// Listen on the exposed ports, in their order.
    pub exposed: Vec<OwnedFd>,
}

/// What belongs to the environment's side of a sandbox.
#[derive(Debug)]
pub struct EnvironmentEnds {
    /// The connecting end of the connection that was made ahead.
    pub connection: OwnedFd,
    /// Write end of standard output.
    pub stdout: OwnedFd,
    /// Write end of standard error.
    pub stderr: OwnedFd,
}

/// A program that init executed.
#[derive(Debug)]
pub struct Running {
    /// The process, as a number of the host; `None` when it has ended and been reaped already.
    pub pid: Option<Pid>,
    /// Its number inside the sandbox.
    pub inner_pid: i32,
    /// The process.
    pub pidfd: OwnedFd,
}

/// What a sandbox reports unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReport {
    /// The executed or watched process ended.
    Exited(Exit),
    /// Init itself is gone, and everything in the sandbox with it.
    Gone,
}

impl Sandbox {
    pub(crate) fn new(
        id: u64,
        child: Child,
        channel: Channel,
        group: Group,
        ends: [OwnedFd; 7],
        exposed: Vec<OwnedFd>,
    ) -> Self {
        let [listener, server, client, stdout_read, stderr_read, stdout, stderr] = ends;
        Self {
            id,
            child,
            channel,
            group,
            server_ends: Some(ServerEnds {
                listener,
                connection: server,
                stdout: stdout_read,
                stderr: stderr_read,
                exposed,
            }),
            environment_ends: Some(EnvironmentEnds { connection: client, stdout, stderr }),
            reports: VecDeque::new(),
            main: None,
            inner_main: None,
            frozen: false,
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its first process, as a number of the host. The namespaces of the sandbox are this process's.
    pub fn init_pid(&self) -> Pid {
        self.child.pid
    }

    /// Its first process: what `setns` takes to enter the sandbox.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// The main process of the environment, as a number of the host: what [`Self::exec`] started or
    /// [`Self::watch`] was told, looked up where it was only told the number inside. `None` when it has ended.
    pub fn main_pid(&self) -> Option<Pid> {
        self.main.or_else(|| {
            let inner = self.inner_main?;
            self.processes().into_iter().find(|pid| inner_number(*pid) == Some(inner))
        })
    }

    /// Gives away the server's ends, once. They should not stay open in this process: its copies would keep the
    /// Runtime API's socket alive.
    pub fn take_server_ends(&mut self) -> Option<ServerEnds> {
        self.server_ends.take()
    }

    /// Gives away the environment's ends, once, for a clone to be made with. [`Self::exec`] takes them by itself.
    pub fn take_environment_ends(&mut self) -> Option<EnvironmentEnds> {
        self.environment_ends.take()
    }

    /// Adds what a version brings. Once, before anything runs in the sandbox.
    ///
    /// # Errors
    /// [`SandboxError::Host`] for a directory that cannot be taken, [`SandboxError::Refused`] with init's reason, and the
    /// errors of talking to it. The sandbox is of no use afterwards: kill it.
    pub fn lease(&mut self, lease: &Lease) -> Result<LeaseGrant, SandboxError> {
        let tree = |path: &Option<std::path::PathBuf>| path.as_deref().map(detached_tree).transpose();
        let trees = [tree(&lease.task_dir)?, tree(&lease.opt_dir)?, tree(&lease.tmp_lower_dir)?];
        let request = ToInit::Lease {
            tmp_mib: lease.tmp_mib,
            task: trees[0].is_some(),
            opt: trees[1].is_some(),
            tmp_lower: trees[2].is_some(),
            clock: lease.clock,
        };
        let descriptors: Vec<_> = trees.iter().flatten().map(AsFd::as_fd).collect();
        let mut granted = self.ask_done(&request, &descriptors)?;
        Ok(LeaseGrant { time_namespace: granted.pop() })
    }

    /// Executes a program as the function's user. It returns when the program runs; its end comes by
    /// [`Self::on_message`].
    ///
    /// # Errors
    /// [`SandboxError::Refused`] when the program cannot be executed, and the errors of talking to init.
    pub fn exec(&mut self, spec: ExecSpec) -> Result<Running, SandboxError> {
        let Some(ends) = self.environment_ends.take() else {
            let message = "its output was given away already".to_owned();
            return Err(SandboxError::Refused { id: self.id, message });
        };
        let procs = self.group.procs_files().map_err(SandboxError::host("open cgroup.procs"))?;
        let mut descriptors = vec![ends.stdout.as_fd(), ends.stderr.as_fd()];
        descriptors.extend(procs.iter().map(AsFd::as_fd));
        let (reply, mut received) = self.ask(&ToInit::Exec(spec), &descriptors)?;
        match (reply, received.pop()) {
            (FromInit::Started { pid: inner_pid }, Some(pidfd)) => {
                let pid = pid_of(&pidfd).ok();
                self.main = pid;
                Ok(Running { pid, inner_pid, pidfd })
            }
            (reply, _) => Err(self.unexpected(&reply)),
        }
    }

    /// Has init report the end of a process that it did not start: `inner_pid` inside the sandbox, `pid` on the host.
    /// It may have ended already.
    ///
    /// # Errors
    /// The errors of talking to init.
    pub fn watch(&mut self, inner_pid: i32, pid: Option<Pid>) -> Result<(), SandboxError> {
        self.main = pid;
        self.inner_main = Some(inner_pid);
        self.ask_done(&ToInit::Watch { pid: inner_pid }, &[]).map(drop)
    }

    /// Makes more connected pairs like the one that was made ahead, as server's end and client's end.
    /// Their server's port is not 9001: the listener of that port is the server's.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] with init's reason, and the errors of talking to it.
    pub fn more_connections(&mut self, count: u8) -> Result<Vec<(OwnedFd, OwnedFd)>, SandboxError> {
        let mut ends = self.ask_done(&ToInit::Connect { count }, &[])?.into_iter();
        Ok(std::iter::from_fn(|| Some((ends.next()?, ends.next()?))).collect())
    }

    /// Takes one report, without waiting. Call it until it says `None` when the channel ([`AsFd`]) is readable **and
    /// after every other call**: a report may have come while that waited for its answer.
    pub fn on_message(&mut self) -> Option<ExitReport> {
        if let Some(report) = self.reports.pop_front() {
            return Some(report);
        }
        match self.channel.receive(PACKET_BYTES_MAX) {
            Ok(Some(message)) => match serde_json::from_slice(&message.bytes) {
                Ok(FromInit::Exited(exit)) => Some(ExitReport::Exited(exit)),
                _ => None,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(None) | Err(_) => Some(ExitReport::Gone),
        }
    }

    /// Limits the environment's memory, and gives it the share of processors that goes with it.
    ///
    /// # Errors
    /// As writing to the control group.
    pub fn limit(&self, memory_mib: u32) -> Result<(), SandboxError> {
        self.set_memory_limit(memory_mib)?;
        self.set_cpu_limit(memory_mib)
    }

    /// Limits the environment's memory in MiB. Without a memory controller it does nothing.
    ///
    /// # Errors
    /// As writing to the control group.
    pub fn set_memory_limit(&self, memory_mib: u32) -> Result<(), SandboxError> {
        self.group.limit_memory(memory_mib).map_err(SandboxError::host("limit memory"))
    }

    /// Gives the environment the share of processors that belongs to a memory size in MiB. Without a processor
    /// controller it does nothing.
    ///
    /// # Errors
    /// As writing to the control group.
    pub fn set_cpu_limit(&self, memory_mib: u32) -> Result<(), SandboxError> {
        self.group.limit_cpu(memory_mib).map_err(SandboxError::host("limit processors"))
    }

    /// Whether the kernel killed a process of the environment for going over its memory limit.
    pub fn oom_killed(&self) -> bool {
        self.group.oom_killed()
    }

    /// The most memory that the environment had so far, in MiB, rounded up: the larger of what was charged to its group
    /// and what was resident in its main process (which also counts pages shared with a template).
    pub fn memory_peak_mib(&self) -> u32 {
        let resident = self.main_pid().and_then(resident_peak_bytes).unwrap_or(0);
        let bytes = self.group.memory_peak_bytes().unwrap_or(0).max(resident);
        u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
    }

    /// The environment's processes, as numbers of the host, without init.
    pub fn processes(&self) -> Vec<Pid> {
        self.group.processes().unwrap_or_else(|| processes_below(self.child.pid))
    }

    /// What a clone needs to join the environment's groups by itself.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn join_files(&self) -> Result<JoinFiles, SandboxError> {
        self.group.join_files().map_err(SandboxError::host("open control groups"))
    }

    /// Stops every process of the environment from running. Init goes on.
    ///
    /// # Errors
    /// `TimedOut` inside [`SandboxError::Host`] when a process does not stop; it may stop later.
    pub fn freeze(&mut self) -> Result<(), SandboxError> {
        self.frozen = true;
        if !self.group.freeze().map_err(SandboxError::host("freeze"))? {
            self.stop_by_signals();
        }
        Ok(())
    }

    /// Lets the environment run again.
    ///
    /// # Errors
    /// As writing to the control group.
    pub fn thaw(&mut self) -> Result<(), SandboxError> {
        if !self.group.thaw().map_err(SandboxError::host("thaw"))? {
            self.signal_all(Signal::CONT);
        }
        self.frozen = false;
        Ok(())
    }

    /// Kills everything in the sandbox, frozen or not, and leaves its removal to `reaper`.
    pub fn kill(self, reaper: &mut Reaper) {
        let _ = process::signal(&self.child.pidfd, Signal::KILL);
        if self.frozen {
            // In a frozen v1 group nothing dies before the thaw, and init's end waits for all of them.
            self.group.kill();
        }
        reaper.add(self.child.pidfd, self.group);
    }

    fn stop_by_signals(&self) {
        let mut stopped = Vec::new();
        for _ in 0..STOP_ROUNDS_MAX {
            let mut processes = self.processes();
            processes.retain(|pid| !stopped.contains(pid));
            if processes.is_empty() {
                return;
            }
            self.signal_all(Signal::STOP);
            stopped.extend(processes);
        }
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.processes() {
            let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // Listed again after opening, the number cannot have passed to a process outside.
            if self.processes().contains(&pid) {
                let _ = process::signal(process, signal);
            }
        }
    }

    /// Asks, and expects `Done`.
    fn ask_done(
        &mut self,
        request: &ToInit,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Vec<OwnedFd>, SandboxError> {
        match self.ask(request, descriptors)? {
            (FromInit::Done, received) => Ok(received),
            (reply, _) => Err(self.unexpected(&reply)),
        }
    }

    /// Asks and waits for the answer; reports that come first are kept for [`Self::on_message`].
    fn ask(
        &mut self,
        request: &ToInit,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(FromInit, Vec<OwnedFd>), SandboxError> {
        let bytes = serde_json::to_vec(request)
            .map_err(|error| SandboxError::host("encode a request")(io::Error::from(error)))?;
        if bytes.len() > PACKET_BYTES_MAX {
            let message = format!("a request of {} bytes is too long", bytes.len());
            return Err(SandboxError::Refused { id: self.id, message });
        }
        self.channel.send(&bytes, descriptors).map_err(|error| self.lost(error))?;
        let deadline = Instant::now() + REPLY_TIMEOUT;
        loop {
            self.await_message(deadline)?;
            let message = match self.channel.receive(PACKET_BYTES_MAX) {
                Ok(Some(message)) => message,
                Ok(None) => return Err(SandboxError::Gone { id: self.id }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(self.lost(error)),
            };
            match serde_json::from_slice(&message.bytes) {
                Ok(FromInit::Exited(exit)) => self.reports.push_back(ExitReport::Exited(exit)),
                Ok(FromInit::Refused { message }) => {
                    return Err(SandboxError::Refused { id: self.id, message });
                }
                Ok(reply) => return Ok((reply, message.descriptors)),
                Err(error) => {
                    return Err(SandboxError::Unexpected { id: self.id, message: error.to_string() });
                }
            }
        }
    }

    fn await_message(&self, deadline: Instant) -> Result<(), SandboxError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut poll = [PollFd::new(&self.channel, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&timeout))) {
            Ok(0) => {
                let timeout_ms = REPLY_TIMEOUT.as_millis() as u64;
                Err(SandboxError::Silent { id: self.id, timeout_ms })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.lost(error.into())),
        }
    }

    fn lost(&self, error: io::Error) -> SandboxError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SandboxError::Gone { id: self.id },
            _ => SandboxError::host(format!("talk to sandbox {}", self.id))(error),
        }
    }

    fn unexpected(&self, reply: &FromInit) -> SandboxError {
        SandboxError::Unexpected { id: self.id, message: format!("{reply:?}") }
    }
}

impl AsFd for Sandbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Copies the mount of a directory of the host, read-only, for init to attach.
fn detached_tree(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree =
        rustix::mount::open_tree(CWD, path, flags).map_err(SandboxError::at("copy the mount of", path))?;
    let change = AttributeChange {
        set: MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV,
        clear: MountAttrFlags::empty(),
        private: true,
        recursive: false,
    };
    set_attributes(&tree, change).map_err(SandboxError::at("protect the mount of", path))?;
    Ok(tree)
}

/// The number of the process behind a pidfd in the caller's PID namespace, from the `Pid:` line of its fdinfo
/// (`pidfd_open(2)`).
fn pid_of(pidfd: &OwnedFd) -> io::Result<Pid> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    // A process that has been reaped has the number -1 there.
    number.filter(|number| *number > 0).and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound.into())
}

/// The highest resident memory of a process, from `VmHWM` of `/proc/PID/status`.
fn resident_peak_bytes(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The number of a process in its innermost PID namespace: the last of `NSpid` in `/proc/PID/status`.
fn inner_number(pid: Pid) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// The processes in the PID namespace of `init` but itself, where no control group lists them.
fn processes_below(init: Pid) -> Vec<Pid> {
    let namespace = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(init) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    numbers.filter(|pid| *pid != init && namespace(*pid).as_ref() == Some(&wanted)).collect()
}
