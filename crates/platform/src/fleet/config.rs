//! The settings of the fleet. Every default says where it comes from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::limits::{CONCURRENT_EXECUTIONS_MAX, INIT_S_MAX, PUBLISH_INIT_S_MIN, RESTORE_S_MAX};

/// How much of the machine's memory the limits of all environments may add up to, as a factor. It is above one because
/// limits are not use: environments restored from one snapshot share their pages, and idle ones do nothing.
const MEMORY_OVERCOMMIT: u64 = 4;

/// The settings of the fleet.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Directory of the functions' logs.
    pub logs_dir: PathBuf,
    /// Directory of small files that say which snapshots were made while the runtime waited in `invocation/next`.
    pub marks_dir: PathBuf,
    /// How long an environment may be idle before it is taken down.
    pub idle_max: Duration,
    /// How long an idle environment runs on before it is frozen: an immediate next invocation needs no thaw.
    pub freeze_delay: Duration,
    /// How long an invocation may wait for a sandbox.
    pub sandbox_wait_max: Duration,
    /// Limit of a normal init (Lambda: 10 s).
    pub init_max: Duration,
    /// Limit of a restore with its hooks (Lambda: 10 s).
    pub restore_max: Duration,
    /// Limit of an init before a snapshot; the function's timeout counts when it is longer (Lambda: 130 s).
    pub publish_init_min: Duration,
    /// Sandboxes that wait ready for each runtime at least.
    pub pool_floor: u32,
    /// Sandboxes that wait ready for each runtime at most.
    pub pool_ceiling: u32,
    /// Invocations at one time (Lambda: 1000 for an account).
    pub concurrency_max: u32,
    /// Sum of the memory limits of all environments, in MiB.
    pub memory_budget_mib: u64,
    /// Services of the host that functions reach at the same port of their own loopback.
    pub exposed: Vec<SocketAddr>,
}

impl FleetConfig {
    /// The defaults, for a server with this data directory on this machine.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            logs_dir: data_dir.join("logs"),
            marks_dir: data_dir.join("waiting-in-next"),
            idle_max: Duration::from_secs(300),
            freeze_delay: Duration::from_millis(20),
            sandbox_wait_max: Duration::from_secs(10),
            init_max: Duration::from_secs(INIT_S_MAX),
            restore_max: Duration::from_secs(RESTORE_S_MAX),
            publish_init_min: Duration::from_secs(PUBLISH_INIT_S_MIN),
            pool_floor: 4,
            pool_ceiling: 32,
            concurrency_max: CONCURRENT_EXECUTIONS_MAX,
            memory_budget_mib: MEMORY_OVERCOMMIT * machine_memory_mib(),
            exposed: Vec::new(),
        }
    }
}

fn machine_memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    // Both are `unsigned long`; the product is bytes and fits in 64 bits on every machine.
    (info.totalram * u64::from(info.mem_unit)) >> 20
}
