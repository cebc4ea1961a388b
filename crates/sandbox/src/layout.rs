//! What a sandbox is made of, in the words of its user: the root file system, what a lease adds, what is executed.
//!
//! These are plain values; nothing here acts. The constants are the places and numbers that AWS Lambda gives an
//! environment, so that code which knows them by heart finds them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The user that function code runs as, inside and outside (`sbx_user1051` on AWS Lambda).
pub const FUNCTION_UID: u32 = 993;
/// The group that function code runs as.
pub const FUNCTION_GID: u32 = 990;
/// The name of that user.
pub const FUNCTION_USER: &str = "sbx_user1051";
/// The port of the Runtime API on every sandbox's own loopback.
pub const RUNTIME_API_PORT: u16 = 9001;
/// How many processes and threads an environment may have (AWS Lambda quota).
pub const PROCESSES_MAX: u32 = 1_024;
/// How many descriptors a process of the environment may have (AWS Lambda quota).
pub const OPEN_FILES_MAX: u64 = 1_024;
/// Size of `/tmp` until a lease says otherwise, in MiB (the default of `EphemeralStorage`).
pub const TMP_DEFAULT_MIB: u32 = 512;
/// Size of `/dev/shm` in MiB. What is in it counts as memory of the environment.
pub const SHM_MIB: u32 = 64;
/// Memory in MB at which an environment gets one whole processor (AWS Lambda documentation, "Configure memory").
pub const MEMORY_MB_PER_PROCESSOR: u32 = 1_769;

/// The read-only part of a sandbox's root file system that differs between runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootLayout {
    /// For logs: the runtime's identifier.
    pub name: String,
    /// Read-only binds beyond the system directories, mounted in this order.
    pub binds: Vec<RootBind>,
    /// Ports of the sandbox's own loopback, besides the Runtime API's, on which a socket of the server's listens.
    pub exposed_ports: Vec<u16>,
}

/// One read-only bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootBind {
    /// A directory of the host.
    pub source: PathBuf,
    /// Where the sandbox sees it: absolute, without `..`.
    pub target: PathBuf,
}

/// What a function version adds to a ready sandbox.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    /// Size of `/tmp` in MiB.
    pub tmp_mib: u32,
    /// A directory of the host, mounted read-only at `/var/task`.
    pub task_dir: Option<PathBuf>,
    /// A directory of the host, mounted read-only at `/opt`.
    pub opt_dir: Option<PathBuf>,
    /// A directory of the host whose content `/tmp` starts with: the files of a snapshot. It is never written; changes
    /// go to memory above it.
    pub tmp_lower_dir: Option<PathBuf>,
    /// Where monotonic time goes on from; none keeps the host's.
    pub clock: Option<ClockOffsets>,
}

/// What is added to the host's clocks inside a time namespace (`time_namespaces(7)`), in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffsets {
    /// Added to `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// Added to `CLOCK_BOOTTIME`.
    pub boottime_ns: i64,
}

/// What a lease gives back.
#[derive(Debug)]
pub struct LeaseGrant {
    /// The time namespace with the asked offsets, for a clone to enter by `setns`; what init executes is born in it.
    pub time_namespace: Option<OwnedFd>,
}

/// A program to run as the function's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; the program is a path inside the sandbox.
    pub argv: Vec<String>,
    /// The whole environment, as names and values.
    pub env: Vec<(String, String)>,
    /// Working directory inside the sandbox.
    pub cwd: String,
    /// Soft and hard limit of open descriptors.
    pub open_files_max: u64,
}
