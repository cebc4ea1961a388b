//! What the control plane asks of whoever runs functions: exactly the methods of `fleet::Fleet`.
//!
//! It is a trait so that the control plane can be tested without sandboxes. Deliberately absent: anything about how a
//! function runs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use host::protocol::{Failure, SnapshotFacts, SnapshotId};

use crate::invocation::{Invocation, Outcome};
use crate::version::VersionSpec;

/// Runs functions and makes snapshots.
pub trait Runner: Send + Sync + 'static {
    /// Runs one event. `Err` only when no environment could be had at all.
    fn invoke(
        &self,
        spec: Arc<VersionSpec>,
        invocation: Invocation,
    ) -> BoxFuture<'_, Result<Outcome, InvokeFailure>>;

    /// Initializes the version and stores its snapshot under this name.
    fn publish(
        &self,
        spec: Arc<VersionSpec>,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<SnapshotFacts, PublishFailure>>;

    /// Takes down idle environments of the version, or of all versions, and lets busy ones finish.
    fn retire(&self, function: &str, version: Option<&str>);

    /// Deletes a snapshot; unknown names are no error.
    fn delete_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Deletes every snapshot that is not named.
    fn retain_snapshots(&self, snapshots: Vec<SnapshotId>) -> BoxFuture<'_, Result<(), Failure>>;
}

/// Why a snapshot was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum PublishFailure {
    #[error("{message}")]
    InitError { message: String },
    #[error("initialization timed out after {seconds} seconds")]
    InitTimeout { seconds: u64 },
    #[error("initialization with its warm-up events timed out after {seconds} seconds, in {during}")]
    WarmUpTimeout { seconds: u64, during: String },
    #[error("{message}")]
    HookError { message: String },
    #[error("{message}")]
    Exited { message: String },
    #[error("{message}")]
    Unsupported { message: String },
    #[error("{message}")]
    Internal { message: String },
}

/// Why no environment could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum InvokeFailure {
    #[error("{message}")]
    AfterRestoreHook { message: String },
    #[error("restore took too long")]
    RestoreTimeout,
    #[error("too many environments")]
    Throttled,
    #[error("{message}")]
    NoRuntime { message: String },
    #[error("{message}")]
    Internal { message: String },
}
