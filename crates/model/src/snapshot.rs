//! What the metadata knows of a snapshot. The snapshot itself lies in the store, which the host role owns.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::FunctionName;

/// Where a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotState {
    /// Being made, or to be made again after a restart.
    Building,
    /// Durable.
    Ready,
}

/// A snapshot and the version that it belongs to. **A snapshot is built for one version and can never become another
/// version's.**
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Its name in the store.
    pub id: Uuid,
    /// The function.
    pub function: FunctionName,
    /// The published version.
    pub version: u64,
    /// Where it stands.
    pub state: SnapshotState,
    /// What is known once it is ready.
    pub measures: Option<SnapshotMeasures>,
}

/// Figures of a finished snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeasures {
    /// Memory pages and writable files, in bytes.
    pub image_bytes: u64,
    /// What it takes on disk, in bytes.
    pub stored_bytes: u64,
    /// How long the environment was stopped, in microseconds.
    pub checkpoint_us: u64,
    /// What a user should know.
    pub warnings: Vec<String>,
}
