//! Looking at a stored snapshot without restoring it, for people.

use std::path::Path;

use engine::template::host_facts;
use store::Store;

use crate::protocol::{Failure, SnapshotId};
use crate::snapshot::{self, internal};
use crate::template::unusable;

/// The plan by which this host would restore a snapshot, printed: every operation with its number, as failures name it.
///
/// # Errors
/// [`Failure`] when the snapshot cannot be read or planned for.
pub fn plan(data_dir: &Path, snapshot: &str) -> Result<String, Failure> {
    let store =
        Store::open(&data_dir.join("snapshots"), &data_dir.join("keys")).map_err(|error| internal(&error))?;
    let opened = snapshot::open(&store, &SnapshotId(snapshot.to_owned()))?;
    let facts = host_facts(JOINS_USUAL).map_err(|error| unusable(&error))?;
    let plan = engine::plan::plan(&opened.image, &facts).map_err(|error| unusable(&error))?;
    Ok(plan.to_string())
}

/// Control groups that a clone joins on most hosts; the server counts them for itself.
const JOINS_USUAL: usize = 4;
