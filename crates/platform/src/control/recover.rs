//! What the control plane does at the start: half-made work of an earlier life is finished or begun again.

use model::error::ApiError;
use model::snapshot::SnapshotState;

use super::background::snapshot_id;
use super::{Control, failed};

impl Control {
    /// Takes up where an earlier life ended, however it ended. Snapshots that were not finished are deleted and built
    /// again; functions that were being created or updated become Active; code and snapshots that nothing refers to are
    /// removed.
    ///
    /// # Errors
    /// `ServiceException` when the metadata or the code directory cannot be read; the cause is logged.
    pub async fn recover(&self) -> Result<(), ApiError> {
        self.remove_unused_code().await?;
        self.sweep_code_in_background();
        let snapshots = self.meta().snapshots().await.map_err(failed)?;
        let ready = snapshots.iter().filter(|snapshot| snapshot.state == SnapshotState::Ready);
        let keep = ready.map(|snapshot| snapshot_id(snapshot.id)).collect();
        if let Err(failure) = self.0.runner.retain_snapshots(keep).await {
            // Serving goes on: what should have been deleted takes disk, no more.
            tracing::warn!(%failure, "delete unreferenced snapshots failed; the next start tries again");
        }
        for record in self.meta().unfinished().await.map_err(failed)? {
            tracing::info!(function = %record.name, version = %record.version, "taking up unfinished work");
            self.finish_in_background(record);
        }
        Ok(())
    }
}
