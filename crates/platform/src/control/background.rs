//! Work that follows an answer: functions become Active, snapshots are built.
//!
//! Each piece of work ends in one write that is fenced by the revision it started from, so a result that comes late,
//! after the version was deleted or changed, changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::protocol::{SnapshotFacts, SnapshotId};
use meta::MetaError;
use model::error::ApiError;
use model::function::FunctionRecord;
use model::lifecycle::{Event, Reason, ReasonCode};
use model::limits;
use model::snapshot::SnapshotMeasures;
use uuid::Uuid;

use super::Control;
use super::runner::PublishFailure;

/// What the documents say of a version whose initialization failed; the cause is appended.
const INIT_FAILED: &str = "An error occurred during function initialization.";
/// How often a write that the database refused is tried again before it is left to the next start.
const WRITE_TRIES_MAX: u32 = 5;

impl Control {
    /// Brings an unfinished record to its end. Records that are done already are left alone.
    pub(super) fn finish_in_background(&self, record: FunctionRecord) {
        if !record.status.is_unfinished() {
            return;
        }
        let control = self.clone();
        match record.snapshot {
            Some(snapshot) => {
                self.0.builds_waiting.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move { control.build_snapshot(record, snapshot).await });
            }
            None => {
                tokio::spawn(async move { control.settle(record).await });
            }
        }
    }

    /// Refuses one more snapshot when too many wait already.
    pub(super) fn check_builds(&self, one_more: bool) -> Result<(), ApiError> {
        let waiting = self.0.builds_waiting.load(Ordering::Relaxed);
        if one_more && waiting >= limits::SNAPSHOT_BUILDS_WAITING_MAX {
            return Err(ApiError::throttled("ConcurrentSnapshotCreateLimitExceeded"));
        }
        Ok(())
    }

    /// Deletes snapshots that no version refers to any more.
    pub(super) fn delete_snapshots(&self, snapshots: Vec<Uuid>) {
        let control = self.clone();
        tokio::spawn(async move {
            for snapshot in snapshots {
                control.delete_snapshot(snapshot).await;
            }
        });
    }

    async fn settle(&self, record: FunctionRecord) {
        let Ok(status) = record.status.after(Event::Settled) else { return };
        let settled = FunctionRecord { status, revision_id: Uuid::new_v4(), ..record.clone() };
        let write = || self.meta().update(&settled, record.revision_id);
        self.conclude(&record, write).await;
    }

    async fn build_snapshot(&self, record: FunctionRecord, snapshot: Uuid) {
        let permit = self.0.builds.acquire().await;
        let started = std::time::Instant::now();
        let built = if self.is_current(&record).await {
            let spec = Arc::new(self.spec(&FunctionRecord { snapshot: None, ..record.clone() }));
            Some(self.0.runner.publish(spec, snapshot_id(snapshot)).await)
        } else {
            None
        };
        drop(permit);
        self.0.builds_waiting.fetch_sub(1, Ordering::Relaxed);
        let (function, version) = (&record.name, record.version);
        match built {
            None => self.delete_snapshot(snapshot).await,
            Some(Ok(facts)) => {
                let elapsed_ms = started.elapsed().as_millis();
                let (image_bytes, stored_bytes) = (facts.image_bytes, facts.stored_bytes);
                tracing::info!(%function, %version, %snapshot, elapsed_ms, image_bytes, stored_bytes, "snapshot built");
                self.keep_snapshot(&record, snapshot, facts).await;
            }
            Some(Err(failure)) => {
                tracing::warn!(%function, %version, %failure, "snapshot failed");
                self.give_up_snapshot(&record, snapshot, &failure).await;
            }
        }
    }

    async fn keep_snapshot(&self, record: &FunctionRecord, snapshot: Uuid, facts: SnapshotFacts) {
        let Ok(status) = record.status.after(Event::Settled) else { return };
        let active = FunctionRecord { status, revision_id: Uuid::new_v4(), ..record.clone() };
        let measures = SnapshotMeasures {
            image_bytes: facts.image_bytes,
            stored_bytes: facts.stored_bytes,
            checkpoint_us: facts.checkpoint_us,
            warnings: facts.warnings,
        };
        let write = || self.meta().finish_snapshot(&active, record.revision_id, snapshot, &measures);
        if !self.conclude(record, write).await {
            self.delete_snapshot(snapshot).await;
        }
    }

    async fn give_up_snapshot(&self, record: &FunctionRecord, snapshot: Uuid, failure: &PublishFailure) {
        let Ok(status) = record.status.after(Event::Failed(reason(failure))) else { return };
        let given_up =
            FunctionRecord { status, revision_id: Uuid::new_v4(), snapshot: None, ..record.clone() };
        let write = || self.meta().drop_snapshot(&given_up, record.revision_id, snapshot);
        self.conclude(record, write).await;
        self.delete_snapshot(snapshot).await;
    }

    /// Writes the end of some work; says whether it was still wanted. A database that fails is asked again: the answer
    /// was given long ago, and nobody else will.
    async fn conclude<'a>(&self, record: &FunctionRecord, write: impl Fn() -> meta::Answer<'a, ()>) -> bool {
        for attempt in 1..=WRITE_TRIES_MAX {
            match write().await {
                Ok(()) => {
                    self.changed(&record.name);
                    return true;
                }
                Err(MetaError::Conflict) => return false,
                Err(error) => {
                    let (function, version) = (&record.name, record.version);
                    tracing::error!(%function, %version, %error, attempt, "finish background work failed");
                    tokio::time::sleep(Duration::from_millis(200) * attempt).await;
                }
            }
        }
        // Left unfinished in the metadata: the next start does the work again. What was made is kept for it.
        true
    }

    async fn is_current(&self, record: &FunctionRecord) -> bool {
        let stored = self.meta().record(&record.name, record.version).await;
        match stored {
            Ok(Some(stored)) => stored.revision_id == record.revision_id,
            Ok(None) => false,
            // Unknown is no reason to give up: the write at the end is fenced.
            Err(_) => true,
        }
    }

    async fn delete_snapshot(&self, snapshot: Uuid) {
        if let Err(failure) = self.0.runner.delete_snapshot(snapshot_id(snapshot)).await {
            tracing::warn!(%snapshot, %failure, "delete snapshot failed; the next start tries again");
        }
    }
}

/// A snapshot's name as the host role knows it.
pub(super) fn snapshot_id(snapshot: Uuid) -> SnapshotId {
    SnapshotId(snapshot.to_string())
}

fn reason(failure: &PublishFailure) -> Reason {
    let code = match failure {
        PublishFailure::InitError { .. } | PublishFailure::HookError { .. } => ReasonCode::FunctionError,
        PublishFailure::InitTimeout { .. } | PublishFailure::WarmUpTimeout { .. } => ReasonCode::InitTimeout,
        PublishFailure::Exited { .. } => ReasonCode::RuntimeInitError,
        PublishFailure::Unsupported { .. } | PublishFailure::Internal { .. } => ReasonCode::InternalError,
    };
    let text = match code {
        ReasonCode::InternalError => format!("The snapshot could not be made: {failure}"),
        _ => format!("{INIT_FAILED} {failure}"),
    };
    Reason::new(code, &text)
}
