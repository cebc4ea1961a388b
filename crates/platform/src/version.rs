//! What it takes to run one version of a function, resolved from the metadata once and then trusted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use host::protocol::SnapshotId;

/// Identifies a version for pooling: two requests with equal keys may be served by the same environment.
///
/// `revision` makes `$LATEST` of before and after an update different keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// Bare function name.
    pub function: String,
    /// `$LATEST` or a number.
    pub version: String,
    /// Identifies code and configuration together.
    pub revision: String,
}

/// Everything that the fleet needs to know of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSpec {
    /// The pool key.
    pub key: VersionKey,
    /// The ARN of this very version, with its number or `$LATEST`.
    pub arn: String,
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Runtime identifier, such as `python3.12`.
    pub runtime: String,
    /// Handler, such as `app.handler`.
    pub handler: String,
    /// The user's environment variables.
    pub environment: BTreeMap<String, String>,
    /// `Timeout` in seconds.
    pub timeout_s: u32,
    /// `MemorySize` in MiB.
    pub memory_mib: u32,
    /// `EphemeralStorage` in MiB.
    pub tmp_mib: u32,
    /// The unpacked code on the host.
    pub task_dir: PathBuf,
    /// CloudWatch-style log group, such as `/aws/lambda/hello`.
    pub log_group: String,
    /// The snapshot to restore from; `None` means a normal init.
    pub snapshot: Option<SnapshotId>,
}
