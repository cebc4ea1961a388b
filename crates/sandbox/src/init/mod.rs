//! The first process of a sandbox: pid 1 of its PID namespace, a fork of the host role that never executes anything.
//!
//! It walks the [`Stage`]s, announces the sandbox and then serves the host role's few requests and reaps. Two things
//! make it safe beside hostile code: **it cannot be signaled from inside** (pid 1 gets no signal that it has no handler
//! for, and it has none), and **it cannot be read or traced from inside** (it is not dumpable, belongs to another user,
//! and is hidden in `/proc`). It holds no descriptor but its channel.
//!
//! Deliberately absent: anything that parses what function code wrote.

mod exec;
mod filter;
mod lease;
mod mounts;
mod network;
mod root;
mod serve;

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use linux::channel::Channel;
use linux::process;

use crate::layout::{FUNCTION_GID, FUNCTION_UID, RootLayout};
use crate::stage::Stage;
use crate::wire::FromInit;

/// What the host role decided before the first process was made.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The read-only part of the root.
    pub layout: RootLayout,
    /// An existing directory of the host to build the root on, seen by this sandbox's mount namespace alone.
    pub scratch: PathBuf,
    /// The host name inside.
    pub host_name: String,
    /// Where the host role has only one user: its user and group, to be mapped to the function's.
    pub only_user: Option<(u32, u32)>,
}

/// What a failing step says: what was tried, on what, and the kernel's answer.
type Step<T = ()> = Result<T, String>;

/// Names what was tried in the error of a call.
trait Context<T> {
    fn context(self, what: impl Display) -> Step<T>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Step<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// The two ends of a pipe.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Makes the sandbox and serves it until the host role closes the channel. Returns the exit status.
pub(crate) fn run(setup: &Setup, channel: &Channel) -> i32 {
    let mut parts = Parts::default();
    for stage in Stage::ALL {
        if let Err(message) = parts.make(stage, setup, channel) {
            serve::send(channel, &FromInit::Failed { stage, message }, &[]).ok();
            return 1;
        }
    }
    match serve::serve(channel, setup.only_user.is_some()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// What the stages hand on to later ones.
#[derive(Default)]
struct Parts {
    network: Option<network::Network>,
    logs: Option<(Pipe, Pipe)>,
}

impl Parts {
    fn make(&mut self, stage: Stage, setup: &Setup, channel: &Channel) -> Step {
        match stage {
            Stage::Guard => guard(),
            Stage::Identity => setup.only_user.map_or(Ok(()), map_only_user),
            Stage::Propagation => root::leave_peer_groups(),
            Stage::Root => root::mount_root(&setup.scratch),
            Stage::System => root::bind_system(),
            Stage::Files => root::make_files(&setup.host_name),
            Stage::Devices => root::make_devices(),
            Stage::Processes => root::mount_proc(),
            Stage::Temporary => root::mount_tmp(),
            Stage::Runtime => root::bind_runtime(&setup.layout),
            Stage::Pivot => root::pivot().and_then(|()| take_null_streams()),
            Stage::HostName => {
                rustix::system::sethostname(setup.host_name.as_bytes()).context("set host name")
            }
            Stage::Network => {
                self.network = Some(network::make(&setup.layout.exposed_ports)?);
                Ok(())
            }
            Stage::Logs => {
                self.logs = Some((log_pipe()?, log_pipe()?));
                Ok(())
            }
            Stage::Announce => self.announce(channel),
        }
    }

    fn announce(&mut self, channel: &Channel) -> Step {
        let (Some(network), Some((stdout, stderr))) = (self.network.take(), self.logs.take()) else {
            return Err("the stages ran out of order".to_owned());
        };
        let mut descriptors = vec![
            network.listener.as_fd(),
            network.connection.server.as_fd(),
            network.connection.client.as_fd(),
            stdout.read.as_fd(),
            stderr.read.as_fd(),
            stdout.write.as_fd(),
            stderr.write.as_fd(),
        ];
        descriptors.extend(network.exposed.iter().map(AsFd::as_fd));
        serve::send(channel, &FromInit::Ready, &descriptors).context("announce the sandbox")
    }
}

fn guard() -> Step {
    process::die_with_parent().context("set the parent death signal")?;
    process::block_signals().context("block signals")?;
    process::reset_signal_actions();
    process::set_readable_by_user(false).context("become unreadable")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::setsid().context("start a session")?;
    take_null_streams()
}

/// Makes `/dev/null` the standard streams: in place of the host role's own at first, and once there is a `/dev` inside,
/// that one, so that no process of the sandbox holds a file of the host.
fn take_null_streams() -> Step {
    use rustix::fs::{Mode, OFlags};
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("replace standard input")?;
    rustix::stdio::dup2_stdout(&null).context("replace standard output")?;
    rustix::stdio::dup2_stderr(&null).context("replace standard error")
}

/// Maps the one user that the host role has to the function's user. The kernel lets a process do so for itself once
/// `setgroups` is denied (`user_namespaces(7)`).
fn map_only_user((uid, gid): (u32, u32)) -> Step {
    process::set_readable_by_user(true).context("become readable")?;
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).context(format_args!("write /proc/self/{file}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{FUNCTION_UID} {uid} 1"))?;
    write("gid_map", format!("{FUNCTION_GID} {gid} 1"))?;
    process::set_readable_by_user(false).context("become unreadable")
}

/// A pipe that the function's user can also open by its name (`/dev/stdout`): a pipe belongs to who made it.
fn log_pipe() -> Step<Pipe> {
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a log pipe")?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(FUNCTION_UID), rustix::fs::Gid::from_raw(FUNCTION_GID));
    rustix::fs::fchown(&write, Some(uid), Some(gid)).context("give a log pipe to the function's user")?;
    Ok(Pipe { read, write })
}
