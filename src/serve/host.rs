//! Starting the host role, and being it.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context, Result};
use host::role::{self, Config};
use linux::channel::Channel;

use crate::cli::{HostRoleArguments, ServeArguments};

/// The started host role.
pub struct HostRole(Child);

impl HostRole {
    /// Waits for its end, which follows the end of the channel.
    pub fn wait_for_end(mut self) {
        if let Err(error) = self.0.wait() {
            tracing::warn!(%error, "waiting for the host role failed");
        }
    }
}

/// Starts this program again as the host role and gives the channel to it. The caller must have one thread.
///
/// # Errors
/// When the process cannot be started.
pub fn start(arguments: &ServeArguments, data_dir: &Path) -> Result<(HostRole, Channel)> {
    let (ours, theirs) = Channel::pair().context("make the channel between the roles")?;
    let theirs = linux::process::inherited(theirs.into()).context("pass the channel on")?;
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.arg("host-role").arg("--data-dir").arg(data_dir);
    command.args(["--mark", &std::process::id().to_string()]);
    if arguments.keep_failed {
        command.arg("--keep-failed");
    }
    command.env(CHANNEL, theirs.as_raw_fd().to_string());
    // Ctrl-C in a terminal reaches the whole group; the host role ends when the API role has.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().context("start the host role")?;
    drop(theirs);
    Ok((HostRole(child), ours))
}

/// The environment variable that tells the host role its channel.
const CHANNEL: &str = "REKINDLE_HOST_CHANNEL";

/// Is the host role until the API role ends.
///
/// # Errors
/// When it was not started by `rekindle serve`, or cannot go on.
pub fn main(arguments: &HostRoleArguments, data_dir: &Path) -> Result<ExitCode> {
    super::start_log();
    let number = std::env::var(CHANNEL).ok().and_then(|number| number.parse::<i32>().ok());
    let number = number.context("the host role is started by `rekindle serve`")?;
    let channel = linux::process::inherit(number).context("take over the channel")?;
    let config = Config {
        data_dir: data_dir.to_owned(),
        mark: arguments.mark.clone(),
        keep_failed: arguments.keep_failed,
    };
    role::run(channel.into(), config).context("the host role")?;
    Ok(ExitCode::SUCCESS)
}
