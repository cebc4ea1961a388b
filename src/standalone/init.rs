//! The first process of a clone's PID namespace: it makes the place, reaps, and passes signals on.
//!
//! It ends with the clone's first process, and the kernel then ends what that one left behind. Started by a command
//! that waits, it ends with that command too. It leads a process group of its own, so that Ctrl-C does not reach it but
//! the clone; what is sent to it by `kill`, from wherever, goes to the clone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use linux::channel::Channel;
use linux::mount::{AttributeChange, MountAttrFlags, set_attributes};
use linux::namespace::Namespaces;
use linux::process;
use linux::signal::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

/// Signals that are passed on to the clone: `SIGHUP`, `SIGINT`, `SIGQUIT`, `SIGUSR1`, `SIGUSR2`, `SIGTERM`, `SIGWINCH`.
pub const PASSED_ON: [i32; 7] = [1, 2, 3, 10, 12, 15, 28];
/// `SIGCHLD`.
const CHILD: i32 = 17;
/// The longest message in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;
const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// What a clone's place is like.
#[derive(Debug)]
pub struct Setup {
    /// `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` of the checkpoint, in nanoseconds.
    pub clocks_ns: (i64, i64),
    /// Whether loopback has to be brought up.
    pub own_network: bool,
    /// Directories that the clone sees as they are and changes for itself alone.
    pub private: Vec<PathBuf>,
    /// Where Unix sockets of the clone will be bound.
    pub sockets: Vec<PathBuf>,
    /// Whether the clone goes on when the command has ended.
    pub detached: bool,
    /// Whether this is a user namespace of one user.
    pub one_user: bool,
}

/// What init tells the command.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The place is made; the time namespace comes along.
    Ready,
    /// It cannot be made.
    Failed(String),
    /// The clone's first process is known; a pidfd of it comes along.
    Watching,
    /// It was stopped, as by Ctrl-Z.
    Stopped,
    /// It has ended: its exit code, or 128 and the number of its signal.
    Ended(i32),
}

/// What the command tells init: the ID of the clone's first process, inside.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watch(pub i32);

/// Is init until the clone has ended. Gives its own exit status.
pub fn run(setup: &Setup, channel: &Channel) -> i32 {
    match prepare(setup) {
        Ok((signals, time)) => {
            let told = send(channel, &FromInit::Ready, &[time]);
            i32::from(told.and_then(|()| Init { setup, channel, root: None }.serve(&signals)).is_err())
        }
        Err(error) => {
            // A command that has died hears nothing.
            let _ = send(channel, &FromInit::Failed(format!("{error:#}")), &[]);
            1
        }
    }
}

fn send(channel: &Channel, message: &FromInit, descriptors: &[OwnedFd]) -> Result<()> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    Ok(channel.send(&serde_json::to_vec(message)?, &borrowed)?)
}

fn prepare(setup: &Setup) -> Result<(Signals, OwnedFd)> {
    if !setup.detached {
        process::die_with_parent().context("set the parent death signal")?;
    }
    process::reset_signal_actions();
    let mut taken = PASSED_ON.to_vec();
    taken.push(CHILD);
    let signals = Signals::take(&taken).context("take signals")?;
    if setup.detached {
        rustix::process::setsid().context("start a session")?;
    } else {
        // In the session of the terminal, or else what the clone's groups do there would be nobody's business and Ctrl-Z
        // would not stop them (orphaned process groups, setpgid(2)).
        rustix::process::setpgid(None, None).context("start a process group")?;
    }
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).context("keep mounts from the host")?;
    for directory in &setup.private {
        make_private(directory, setup.one_user)
            .with_context(|| format!("make a private view of {}", directory.display()))?;
    }
    for socket in &setup.sockets {
        let own = setup.private.iter().any(|directory| socket.starts_with(directory));
        remove_left(socket, own).with_context(|| format!("make room for the socket {}", socket.display()))?;
    }
    attach(file_system("proc", &[])?, Path::new("/proc")).context("mount /proc")?;
    if setup.own_network {
        linux::namespace::bring_loopback_up().context("bring loopback up")?;
    }
    let time = time_namespace(setup.clocks_ns)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    rustix::process::chdir("/").context("enter /")?;
    Ok((signals, time))
}

struct Init<'a> {
    setup: &'a Setup,
    channel: &'a Channel,
    root: Option<Root>,
}

/// The clone's first process.
struct Root {
    pid: i32,
    pidfd: OwnedFd,
}

impl Init<'_> {
    /// Serves until the clone's first process has ended.
    fn serve(&mut self, signals: &Signals) -> Result<()> {
        let mut connected = true;
        loop {
            let (message, signal) = {
                let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(self.channel, PollFlags::IN)];
                let count = if connected { 2 } else { 1 };
                rustix::io::retry_on_intr(|| poll(&mut fds[..count], None))?;
                (connected && !fds[1].revents().is_empty(), !fds[0].revents().is_empty())
            };
            if message {
                connected = self.obey()?;
                if !connected && (!self.setup.detached || self.root.is_none()) {
                    return Ok(());
                }
            }
            while signal && let Some(taken) = signals.next()? {
                if taken.number != CHILD {
                    self.pass_on(taken.number);
                } else if self.reap()? {
                    return Ok(());
                }
            }
        }
    }

    /// Learns which process to watch. False when the command has gone.
    fn obey(&mut self) -> Result<bool> {
        let Some(message) = self.channel.receive(MESSAGE_BYTES_MAX)? else { return Ok(false) };
        let Watch(pid) = serde_json::from_slice(&message.bytes)?;
        let number = Pid::from_raw(pid).context("watch a process")?;
        let pidfd = rustix::process::pidfd_open(number, PidfdFlags::empty()).context("find the clone")?;
        send(self.channel, &FromInit::Watching, &[pidfd.try_clone()?])?;
        self.root = Some(Root { pid, pidfd });
        Ok(true)
    }

    fn pass_on(&self, number: i32) {
        if let Some(root) = &self.root {
            // It may have ended.
            let _ = linux::signal::send(&root.pidfd, number);
        }
    }

    /// Reaps whatever has ended. True when the clone's first process has.
    fn reap(&self) -> Result<bool> {
        if let Some(root) = &self.root {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            if let Ok(Some(_)) = rustix::process::waitid(WaitId::PidFd(root.pidfd.as_fd()), options) {
                let _ = send(self.channel, &FromInit::Stopped, &[]);
            }
        }
        while let Some((pid, status)) = process::reap_any()? {
            if self.root.as_ref().is_some_and(|root| root.pid == pid.as_raw_nonzero().get()) {
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                let _ = send(self.channel, &FromInit::Ended(code.unwrap_or(1)), &[]);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Makes a time namespace in which the clocks go on from the checkpoint.
fn time_namespace((monotonic_ns, boottime_ns): (i64, i64)) -> Result<OwnedFd> {
    use rustix::time::{ClockId, clock_gettime};
    let host = std::fs::read_to_string("/proc/self/timens_offsets").context("read the clock offsets")?;
    linux::namespace::unshare(Namespaces::TIME).context("make a time namespace")?;
    let line = |name: &str, clock, then_ns: i64| {
        let now = clock_gettime(clock);
        let offset_ns =
            then_ns - (now.tv_sec * NANOSECONDS_PER_SECOND + now.tv_nsec as i64) + offset_of(&host, name);
        let seconds = offset_ns.div_euclid(NANOSECONDS_PER_SECOND);
        format!("{name} {seconds} {}\n", offset_ns.rem_euclid(NANOSECONDS_PER_SECOND))
    };
    let offsets = line("monotonic", ClockId::Monotonic, monotonic_ns)
        + &line("boottime", ClockId::Boottime, boottime_ns);
    std::fs::write("/proc/self/timens_offsets", offsets).context("set the clock offsets")?;
    rustix::fs::open("/proc/self/ns/time_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("open the time namespace")
}

/// The offset that a clock has already, in nanoseconds: the command may itself live in a time namespace.
fn offset_of(offsets: &str, clock: &str) -> i64 {
    let line = offsets.lines().find_map(|line| line.strip_prefix(clock)).unwrap_or_default();
    let mut words = line.split_whitespace().map(|word| word.parse::<i64>().unwrap_or(0));
    let (seconds, nanoseconds) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
    seconds * NANOSECONDS_PER_SECOND + nanoseconds
}

/// Lays an overlay over a directory: the clone reads what is there and writes into memory of its own.
fn make_private(directory: &Path, one_user: bool) -> Result<()> {
    let original = std::fs::metadata(directory)?;
    if !original.is_dir() {
        bail!("it is no directory");
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let lower = rustix::mount::open_tree(CWD, directory, flags).context("copy its mount")?;
    attach(file_system("tmpfs", &[])?, directory)?;
    let [lower_place, upper, work] = ["lower", "upper", "work"].map(|name| directory.join(name));
    for place in [&lower_place, &upper, &work] {
        std::fs::create_dir(place)?;
    }
    std::fs::set_permissions(&upper, original.permissions())?;
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(&upper, Some(original.uid()), Some(original.gid()))?;
    attach(lower, &lower_place)?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, path) in [("lowerdir", &lower_place), ("upperdir", &upper), ("workdir", &work)] {
        rustix::mount::fsconfig_set_string(&context, key, path.as_path())?;
    }
    rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    if one_user {
        rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
    }
    rustix::mount::fsconfig_create(&context).context("create an overlay")?;
    let overlay = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    rustix::mount::unmount(&lower_place, UnmountFlags::DETACH)?;
    attach(overlay, directory)
}

/// Removes a socket that a process left behind. One that still answers belongs to somebody, unless this is the clone's
/// `own` view of it.
fn remove_left(socket: &Path, own: bool) -> Result<()> {
    match std::fs::symlink_metadata(socket) {
        Ok(metadata) if !metadata.file_type().is_socket() => bail!("a file stands there that is no socket"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let answers = |error: &io::Error| error.kind() != io::ErrorKind::ConnectionRefused;
    let somebody = match UnixStream::connect(socket) {
        Ok(_) => true,
        // The socket may be of another type, which is said only where somebody is bound to it.
        Err(error) => answers(&error),
    };
    if somebody && !own {
        bail!(
            "somebody listens on it; end who does, or give the clone its own view of the directory with --private"
        );
    }
    Ok(std::fs::remove_file(socket)?)
}

fn file_system(kind: &str, options: &[(&str, &str)]) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let none = MountAttrFlags::empty();
    set_attributes(&mount, AttributeChange { set: none, clear: none, private: true, recursive: false })?;
    Ok(mount)
}

fn attach(mount: OwnedFd, place: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, place, flags)
        .with_context(|| format!("attach {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_the_kernel_are_read() {
        let text = "monotonic           -5         500000000\nboottime             7         0\n";
        assert_eq!(offset_of(text, "monotonic"), -4_500_000_000);
        assert_eq!(offset_of(text, "boottime"), 7_000_000_000);
        assert_eq!(offset_of("", "monotonic"), 0);
    }
}
