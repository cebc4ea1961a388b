//! The command line: what can be asked, with what defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::runtime::RuntimeCommand;
use crate::snapshot::SnapshotCommand;
use crate::standalone::{self, CheckpointArguments, ImageCommand, RestoreArguments};
use crate::{doctor, runtime, serve, snapshot};

/// A self-hosted function platform, compatible with the AWS Lambda API, with real SnapStart.
///
/// Start with `rekindle runtime install python3.12`, then `rekindle serve`, and drive it with the AWS CLI or any AWS SDK.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where functions, snapshots, keys, runtimes and logs are kept.
    /// Default: `rekindle` in the user's data directory.
    #[arg(long, global = true, env = "REKINDLE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until Ctrl-C.
    Serve(ServeArguments),
    /// Print what this machine can do, and what to do about what it cannot.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Install, list and remove language runtimes.
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// Look at snapshots.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Save a running program with all its processes into a folder.
    Checkpoint(CheckpointArguments),
    /// Bring a saved program back, once or many times.
    Restore(RestoreArguments),
    /// Look at saved programs.
    #[command(subcommand)]
    Image(ImageCommand),
    /// The privileged half of the server; `serve` starts it.
    #[command(hide = true)]
    HostRole(HostRoleArguments),
}

/// What `rekindle serve` takes.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// Address and port of the Lambda API.
    #[arg(long, default_value = "127.0.0.1:9280", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// How callers prove who they are. `none` lets everybody who reaches the port do everything: for local play only.
    #[arg(long, value_enum, default_value_t = AuthMode::Sigv4)]
    pub auth: AuthMode,
    /// Region in ARNs and signatures.
    #[arg(long, default_value = "us-east-1")]
    pub region: String,
    /// Account in ARNs: twelve digits.
    #[arg(long, default_value = "000000000000")]
    pub account: String,
    /// Take an environment down when it has been idle for this many milliseconds.
    #[arg(long, default_value_t = 300_000, value_name = "MILLISECONDS")]
    pub idle_timeout_ms: u64,
    /// Sandboxes that wait ready for each runtime, at least.
    #[arg(long, default_value_t = 4, value_name = "COUNT")]
    pub pool: u32,
    /// Invocations at one time, at most.
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    pub concurrency: u32,
    /// Let functions reach this TCP service of the host, at the same port of their own 127.0.0.1. They have no other
    /// network. Can be given several times.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub expose: Vec<SocketAddr>,
    /// Leave a template whose restore failed as it is, for a debugger.
    #[arg(long)]
    pub keep_failed: bool,
}

/// See [`ServeArguments::auth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// AWS Signature Version 4 with this server's own access key.
    Sigv4,
    /// Nobody is asked.
    None,
}

/// What the host role is started with.
#[derive(Debug, Clone, Args)]
pub struct HostRoleArguments {
    /// Tells this server from every other on the machine.
    #[arg(long)]
    pub mark: String,
    /// See [`ServeArguments::keep_failed`].
    #[arg(long)]
    pub keep_failed: bool,
}

impl Arguments {
    /// Does what was asked.
    ///
    /// # Errors
    /// Whatever went wrong, for the user to read.
    pub fn run(self) -> Result<ExitCode> {
        // Not every command has need of one.
        let data_dir = || match self.data_dir {
            Some(dir) => std::path::absolute(dir).context("find the data directory"),
            None => default_data_dir(),
        };
        match self.command {
            Command::Serve(arguments) => serve::run(&arguments, &data_dir()?),
            Command::Doctor { json } => doctor::run(json, &data_dir()?),
            Command::Runtime(command) => runtime::run(command, &data_dir()?).map(|()| ExitCode::SUCCESS),
            Command::Snapshot(command) => snapshot::run(command, &data_dir()?).map(|()| ExitCode::SUCCESS),
            Command::Checkpoint(arguments) => standalone::checkpoint(&arguments),
            Command::Restore(arguments) => standalone::restore(&arguments),
            Command::Image(command) => standalone::image(&command),
            Command::HostRole(arguments) => serve::host::main(&arguments, &data_dir()?),
        }
    }
}

/// `$XDG_DATA_HOME/rekindle`, else `~/.local/share/rekindle` (XDG Base Directory Specification).
fn default_data_dir() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("rekindle"))
        .context("find the data directory: neither XDG_DATA_HOME nor HOME is set; name one with --data-dir")
}
