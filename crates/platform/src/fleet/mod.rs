//! The fleet: every environment of this server, from the sandbox that waits ready to the kill.
//!
//! [`Fleet::invoke`] finds an idle environment of the version, or restores one from its snapshot, or initializes one;
//! gives it the invocation; and returns the outcome as soon as the runtime has answered. What need not come before the
//! answer (memory figure, REPORT line, freezing) comes after it. [`Fleet::publish`] initializes a version up to its
//! snapshot.
//!
//! | file | holds |
//! | --- | --- |
//! | `roster` | which environments live, which are busy, idle, frozen: pure |
//! | `sandboxes` | the mirror of the sandboxes that wait ready; the rule of demand is pure |
//! | `shared` | the shared state, the events of the host role, housekeeping, kills |
//! | `invoke`, `start` | one invocation: warm, restored or initialized |
//! | `publish`, `warm_up` | a version up to its snapshot |
//! | `variables`, `lines`, `ending` | the wire facts: environment, log lines, error documents |
//!
//! **A failed restore is never the caller's problem**: the invocation is served by a normal init, and the failure is
//! logged and counted. Deliberately absent: HTTP (crate `api`), metadata (`control`), how sandboxes and snapshots are
//! made (the host role).

mod config;
mod counters;
mod ending;
mod expose;
mod invoke;
mod lines;
mod publish;
mod roster;
mod sandboxes;
mod shared;
mod start;
mod variables;
mod warm_up;

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use host::protocol::{Command, Failure, SnapshotFacts, SnapshotId};

use crate::control::Runner;
pub use crate::control::{InvokeFailure, PublishFailure};
use crate::host_client::{HostClient, HostEvents};
use crate::invocation::{Invocation, Outcome};
use crate::logs::LogStore;
use crate::runtimes::Runtimes;
use crate::session::Frontend;
pub use crate::session::credentials::{Credentials, CredentialsSource, RandomCredentials};
use crate::version::VersionSpec;
pub use config::FleetConfig;
pub use counters::Counters;
use shared::Shared;

/// What a fleet is made of.
pub struct FleetParts {
    /// The host role.
    pub host: HostClient,
    /// Its events, from [`HostClient::start`].
    pub events: HostEvents,
    /// The installed runtimes.
    pub runtimes: Runtimes,
    /// Serves the Runtime API.
    pub frontend: Arc<dyn Frontend>,
    /// Issues the credentials of functions.
    pub credentials: Arc<dyn CredentialsSource>,
}

/// Every environment of this server. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Shared>);

impl Fleet {
    /// Starts the fleet: sandboxes of every installed runtime begin to get ready. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the directories of `config` cannot be made.
    pub fn new(config: FleetConfig, parts: FleetParts) -> io::Result<Self> {
        let logs = LogStore::open(&config.logs_dir)?;
        std::fs::create_dir_all(&config.marks_dir)?;
        let FleetParts { host, events, runtimes, frontend, credentials } = parts;
        let shared = Arc::new(Shared::new(config, host, runtimes, frontend, credentials, logs));
        shared.prepare_pools();
        tokio::spawn(shared::follow_events(shared.clone(), events));
        tokio::spawn(shared::keep_house(Arc::downgrade(&shared)));
        Ok(Self(shared))
    }

    /// Runs one event.
    ///
    /// The invocation goes on when this future is dropped, as it does on AWS when a caller hangs up.
    ///
    /// # Errors
    /// Only when no environment could be had at all; errors of the function are outcomes.
    pub async fn invoke(
        &self,
        spec: Arc<VersionSpec>,
        invocation: Invocation,
    ) -> Result<Outcome, InvokeFailure> {
        invoke::invoke(&self.0, spec, invocation).await
    }

    /// Initializes the version for SnapStart, with its warm-up events and before-snapshot hooks, and stores its snapshot under this name.
    /// Takes seconds.
    ///
    /// # Errors
    /// Why there is no snapshot; nothing is left behind.
    pub async fn publish(
        &self,
        spec: Arc<VersionSpec>,
        snapshot: SnapshotId,
    ) -> Result<SnapshotFacts, PublishFailure> {
        publish::publish(&self.0, spec, snapshot).await
    }

    /// Takes down idle environments of the version, or of all versions of the function, and lets busy ones finish.
    pub fn retire(&self, function: &str, version: Option<&str>) {
        self.0.retire(function, version);
    }

    /// Deletes a snapshot and frees its disk; unknown names are no error.
    ///
    /// # Errors
    /// The host role's.
    pub async fn delete_snapshot(&self, snapshot: SnapshotId) -> Result<(), Failure> {
        self.0.forget_pending_route(&snapshot);
        self.0.host.call(Command::Delete { snapshot }).await.map(drop)
    }

    /// Deletes every snapshot that is not named: what an earlier life of the server left behind.
    ///
    /// # Errors
    /// The host role's.
    pub async fn retain_snapshots(&self, snapshots: Vec<SnapshotId>) -> Result<(), Failure> {
        self.0.retain_pending_routes(&snapshots);
        self.0.host.call(Command::Retain { snapshots }).await.map(drop)
    }

    /// What has happened so far, in numbers.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Kills every environment, takes the pools down and writes the logs out.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

impl Runner for Fleet {
    fn invoke(
        &self,
        spec: Arc<VersionSpec>,
        invocation: Invocation,
    ) -> BoxFuture<'_, Result<Outcome, InvokeFailure>> {
        Box::pin(Fleet::invoke(self, spec, invocation))
    }

    fn publish(
        &self,
        spec: Arc<VersionSpec>,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<SnapshotFacts, PublishFailure>> {
        Box::pin(Fleet::publish(self, spec, snapshot))
    }

    fn retire(&self, function: &str, version: Option<&str>) {
        Fleet::retire(self, function, version);
    }

    fn delete_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(Fleet::delete_snapshot(self, snapshot))
    }

    fn retain_snapshots(&self, snapshots: Vec<SnapshotId>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(Fleet::retain_snapshots(self, snapshots))
    }
}

#[cfg(test)]
mod tests_support {
    //! Values that the tests of this module share.

    use host::protocol::SnapshotId;

    use crate::runtimes::InstalledRuntime;
    use crate::version::{VersionKey, VersionSpec};

    pub(super) fn spec(function: &str, snapshot: Option<&str>) -> VersionSpec {
        VersionSpec {
            key: VersionKey { function: function.into(), version: "1".into(), revision: "r".into() },
            arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{function}:1"),
            region: "us-east-1".into(),
            runtime: "python3.12".into(),
            handler: "app.handler".into(),
            environment: Default::default(),
            timeout_s: 3,
            memory_mib: 128,
            tmp_mib: 512,
            task_dir: "/code".into(),
            log_group: format!("/aws/lambda/{function}"),
            snapshot: snapshot.map(|name| SnapshotId(name.into())),
        }
    }

    pub(super) fn runtime() -> InstalledRuntime {
        serde_json::from_value(serde_json::json!({
            "id": "python3.12", "version": "3.12.1", "language": "python",
            "argv": ["/var/lang/bin/python3.12", "/var/runtime/bootstrap.py"],
            "env": { "PYTHONPATH": "/var/runtime" }, "snap_start": true,
        }))
        .unwrap()
    }
}
