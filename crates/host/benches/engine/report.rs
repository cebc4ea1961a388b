//! What the benchmark is told and what it tells. Times are in microseconds, sizes in bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use host::protocol::Bind;
use serde::{Deserialize, Serialize};

/// What to measure.
#[derive(Debug, Deserialize)]
pub struct Spec {
    pub programs: Vec<Program>,
    /// Samples of each row.
    pub count: usize,
    /// Cold inits of each program, which take seconds.
    pub cold_count: usize,
    /// Templates made of each program that asks for it.
    pub template_count: usize,
    /// Whether standby clones are measured.
    pub standby: bool,
    /// CRIU's binary.
    pub criu: Option<PathBuf>,
    pub burst: Option<Crowd>,
    pub idle: Option<Crowd>,
}

/// Many clones of one program.
#[derive(Debug, Deserialize)]
pub struct Crowd {
    pub program: String,
    pub count: usize,
}

/// A program with the line protocol of `bench/engine-workloads/guest.py`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Program {
    pub name: String,
    /// Its directory, which sandboxes show at `/var/task`.
    pub task: PathBuf,
    pub binds: Vec<Bind>,
    pub env: BTreeMap<String, String>,
    /// How it is started in a sandbox.
    pub argv: Vec<String>,
    /// How it is started outside, for CRIU, with this environment.
    pub outside_argv: Vec<String>,
    pub outside_env: BTreeMap<String, String>,
    /// The kinds of request that it answers.
    pub kinds: Vec<String>,
    /// Whether it can answer by a fork of itself.
    pub forks: bool,
    /// Whether making its template is measured.
    pub template: bool,
    pub memory_mib: u32,
}

/// All samples.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub programs: Vec<Samples>,
    pub burst: Option<Burst>,
    pub idle: Option<Idle>,
}

/// The samples of one program.
#[derive(Debug, Default, Serialize)]
pub struct Samples {
    pub name: String,
    /// From the start of an init to the first answer.
    pub cold_us: Vec<u64>,
    /// By kind of request.
    pub kinds: BTreeMap<String, Kind>,
    pub checkpoints: Vec<Checkpoint>,
    pub templates: Vec<Template>,
}

/// From the start of a fork or restore to the first answer.
#[derive(Debug, Default, Serialize)]
pub struct Kind {
    pub fork_us: Vec<u64>,
    pub criu_us: Vec<u64>,
    pub restore_us: Vec<u64>,
    /// Until the role says that the clone was released.
    pub released_us: Vec<u64>,
    pub standby_us: Vec<u64>,
}

#[derive(Debug, Default, Serialize)]
pub struct Checkpoint {
    /// How long the program stood still.
    pub pause_us: u64,
    /// Until the snapshot was durable.
    pub durable_us: u64,
    pub image_bytes: u64,
    pub stored_bytes: u64,
    /// Pages of private memory that hold anything but zeros.
    pub nonzero_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Template {
    pub image_bytes: u64,
    pub took_us: u64,
}

/// Restores that are all asked for at once.
#[derive(Debug, Default, Serialize)]
pub struct Burst {
    pub count: usize,
    /// From the burst's start to each answer.
    pub answers_us: Vec<u64>,
    pub failures: Vec<String>,
}

/// Clones that wait, each after one answer.
#[derive(Debug, Default, Serialize)]
pub struct Idle {
    pub wanted: usize,
    pub count: usize,
    /// Why there are not as many as wanted.
    pub stopped_by: Option<String>,
    pub took_us: u64,
    /// Of each clone, from `smaps_rollup`.
    pub private_bytes: Vec<u64>,
    pub resident_bytes: Vec<u64>,
    pub proportional_bytes: Vec<u64>,
    /// What the machine has less than before, for all.
    pub machine_bytes: u64,
}
