//! The state that all parts of the fleet share, and what keeps it true: the host role's events, housekeeping, kills.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use host::protocol::{Answer, Command, Event, Failure, FailureKind, RootSpec, SandboxId, SnapshotId};
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;

use crate::host_client::{HostClient, HostEvent, HostEvents};
use crate::logs::{LogStore, LogStream};
use crate::runtimes::{InstalledRuntime, Runtimes};
use crate::session::credentials::CredentialsSource;
use crate::session::{Frontend, PendingRoute, Session};
use crate::version::VersionSpec;

use super::config::FleetConfig;
use super::counters::Counters;
use super::roster::{Capacity, Parked, Roster};
use super::sandboxes::{Bounds, ReadySandbox, Sandboxes};

/// How often idle environments are looked through and pools adapted.
const HOUSEKEEPING_MAX: Duration = Duration::from_secs(1);
const HOUSEKEEPING_MIN: Duration = Duration::from_millis(10);

/// How long a description of a runtime is trusted before it is read again: it changes only by an install.
const RUNTIME_FRESH: Duration = Duration::from_secs(5);

/// How long the host role may take for the kills of a shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// How long the host role may take to tell a memory figure.
const USAGE_MAX: Duration = Duration::from_secs(1);

/// One environment: a sandbox with a runtime in it.
pub(super) struct Environment {
    pub(super) id: SandboxId,
    pub(super) session: Arc<Session>,
    pub(super) log: Arc<LogStream>,
}

pub(super) type Handle = Arc<Environment>;

/// What a sandbox brings beyond its environment.
pub(super) struct Ends {
    pub(super) connection: OwnedFd,
    pub(super) pipes: [OwnedFd; 2],
}

/// A runtime with what is derived from its description.
pub(super) struct Runtime {
    pub(super) installed: InstalledRuntime,
    pub(super) root: Arc<RootSpec>,
    /// As in `INIT_START`, such as `python:3.12.v1`.
    pub(super) label: String,
    /// 64 hexadecimal digits that identify this build of it.
    pub(super) fingerprint: String,
}

/// Why an environment could not be placed.
pub(super) enum NoPlace {
    Throttled,
    NoSandbox(String),
}

/// What all parts of the fleet share.
pub(super) struct Shared {
    pub(super) config: FleetConfig,
    pub(super) host: HostClient,
    pub(super) frontend: Arc<dyn Frontend>,
    pub(super) credentials: Arc<dyn CredentialsSource>,
    pub(super) logs: LogStore,
    pub(super) counters: Counters,
    pub(super) sandboxes: Sandboxes,
    runtimes: Runtimes,
    runtimes_read: Mutex<HashMap<String, (Instant, Arc<Runtime>)>>,
    roster: Mutex<Roster<Handle>>,
    pending_routes: Mutex<HashMap<SnapshotId, PendingRoute>>,
}

impl Shared {
    pub(super) fn new(
        config: FleetConfig,
        host: HostClient,
        runtimes: Runtimes,
        frontend: Arc<dyn Frontend>,
        credentials: Arc<dyn CredentialsSource>,
        logs: LogStore,
    ) -> Self {
        let bounds = Bounds { floor: config.pool_floor, ceiling: config.pool_ceiling };
        let capacity =
            Capacity { running_max: config.concurrency_max, memory_max_mib: config.memory_budget_mib };
        Self {
            sandboxes: Sandboxes::new(host.clone(), bounds, config.sandbox_wait_max),
            host,
            frontend,
            credentials,
            logs,
            counters: Counters::default(),
            runtimes,
            runtimes_read: Mutex::default(),
            roster: Mutex::new(Roster::new(capacity)),
            pending_routes: Mutex::default(),
            config,
        }
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster<Handle>> {
        self.roster.lock().expect("nothing panics while it holds this lock")
    }

    /// The root of a runtime's sandboxes, with the ports that this server exposes.
    fn root_spec(&self, installed: &InstalledRuntime) -> RootSpec {
        let exposed_ports = self.config.exposed.iter().map(SocketAddr::port).collect();
        RootSpec { exposed_ports, ..installed.root_spec() }
    }

    /// Sandboxes of every installed runtime begin to get ready.
    pub(super) fn prepare_pools(&self) {
        for installed in self.runtimes.all() {
            match installed.missing_path() {
                Some(path) => {
                    tracing::warn!(runtime = installed.id, path = %path.display(), "the runtime is incomplete; install it again");
                }
                None => self.sandboxes.prepare(&Arc::new(self.root_spec(&installed)), Instant::now()),
            }
        }
    }

    /// The installed runtime of that name.
    pub(super) fn runtime(&self, id: &str) -> Option<Arc<Runtime>> {
        let now = Instant::now();
        let mut read = self.runtimes_read.lock().expect("nothing panics while it holds this lock");
        if let Some((when, runtime)) = read.get(id)
            && now.saturating_duration_since(*when) < RUNTIME_FRESH
        {
            return Some(runtime.clone());
        }
        let Some(installed) = self.runtimes.get(id) else {
            read.remove(id);
            return None;
        };
        let runtime = match read.remove(id) {
            Some((_, runtime)) if runtime.installed == installed => runtime,
            _ => {
                let root = self.root_spec(&installed);
                Arc::new(Runtime::new(installed, root))
            }
        };
        read.insert(id.to_owned(), (now, runtime.clone()));
        Some(runtime)
    }

    /// Takes a sandbox for a new environment of the version and puts it on the roster.
    pub(super) async fn place(
        &self,
        spec: &VersionSpec,
        runtime: &Runtime,
        log: &Arc<LogStream>,
        snapshot: Option<&SnapshotId>,
    ) -> Result<(Handle, Ends), NoPlace> {
        let evicted = self.roster().reserve(spec.memory_mib).map_err(|_| NoPlace::Throttled)?;
        evicted.iter().for_each(|environment| self.take_down(environment));
        let ready = match self.sandboxes.take(&runtime.root, snapshot).await {
            Ok(ready) => ready,
            Err(message) => {
                self.roster().release(spec.memory_mib);
                return Err(NoPlace::NoSandbox(message));
            }
        };
        let ReadySandbox { id, session, connection, pipes } = ready;
        let environment = Arc::new(Environment { id, session, log: log.clone() });
        self.roster().enroll(id, spec.key.clone(), spec.memory_mib, environment.clone());
        Ok((environment, Ends { connection, pipes }))
    }

    /// Kills an environment and forgets it.
    pub(super) fn kill(&self, environment: &Handle) {
        if self.roster().remove(environment.id).is_some() {
            self.take_down(environment);
        }
    }

    /// Kills an environment that is off the roster.
    fn take_down(&self, environment: &Handle) {
        self.post(Command::Kill { sandbox: environment.id });
        environment.session.end();
        environment.log.detach();
    }

    /// Sends a request whose reply matters only when it is a failure, and then only to the log.
    pub(super) fn post(&self, command: Command) {
        let reply = self.host.send(command);
        tokio::spawn(async move {
            match reply.await {
                Ok(_) => {}
                // The environment ended by itself in the meantime.
                Err(failure) if failure.kind == FailureKind::NotFound => {}
                Err(failure) => tracing::warn!(%failure, "the host role refused a request"),
            }
        });
    }

    /// The peak memory of an environment. Asked at once; the answer is awaited separately.
    pub(super) fn usage(&self, id: SandboxId) -> impl Future<Output = Option<u32>> + use<> {
        let reply = self.host.send(Command::Usage { sandbox: id });
        async move {
            match tokio::time::timeout(USAGE_MAX, reply).await {
                Ok(Ok(Answer::Usage { memory_peak_mib })) => Some(memory_peak_mib),
                _ => None,
            }
        }
    }

    /// Puts a served environment back: idle, then frozen when it stays idle. `deadline` is that of its invocation:
    /// until then the runtime must have asked for the next one.
    pub(super) async fn settle(&self, environment: &Handle, parked: Parked, deadline: Instant) {
        let Parked::Idle { serial } = parked else {
            self.kill(environment);
            return;
        };
        let waiting = tokio::time::timeout_at(deadline.into(), environment.session.parked()).await;
        if !matches!(waiting, Ok(true)) {
            let removed = self.roster().remove_idle(environment.id, serial);
            if removed.is_some() {
                self.take_down(environment);
            }
            return;
        }
        tokio::time::sleep(self.config.freeze_delay).await;
        // Sent under the lock, so that a thaw of the next invocation cannot overtake it.
        let mut roster = self.roster();
        if roster.freeze(environment.id, serial) {
            self.post(Command::Freeze { sandbox: environment.id });
        }
    }

    pub(super) fn retire(&self, function: &str, version: Option<&str>) {
        let retired = self.roster().retire(function, version);
        retired.iter().for_each(|environment| self.take_down(environment));
    }

    pub(super) async fn shutdown(&self) {
        self.sandboxes.close();
        let environments = self.roster().clear();
        let kills: Vec<_> = environments
            .iter()
            .map(|environment| {
                environment.session.end();
                environment.log.detach();
                self.host.send(Command::Kill { sandbox: environment.id })
            })
            .collect();
        let _ = tokio::time::timeout(SHUTDOWN_MAX, futures_util::future::join_all(kills)).await;
        let logs = self.logs.clone();
        let _ = tokio::task::spawn_blocking(move || logs.flush()).await;
    }

    /// A new log stream of the version.
    pub(super) fn log_stream(&self, spec: &VersionSpec) -> (String, Arc<LogStream>) {
        let name = stream_name(spec, jiff::Timestamp::now());
        let stream = LogStream::new(&self.logs, &spec.log_group, &name);
        (name, stream)
    }
}

/// Which call the runtime of a snapshot waits in. Nearly all wait in `restore/next`; for the others a mark is kept in
/// a file of the snapshot's name, because a restore must continue the same call after a restart of the server too.
impl Shared {
    pub(super) fn pending_route(&self, snapshot: &SnapshotId) -> PendingRoute {
        let mut known = self.pending_routes();
        *known.entry(snapshot.clone()).or_insert_with(|| match self.mark_of(snapshot).exists() {
            true => PendingRoute::InvocationNext,
            false => PendingRoute::RestoreNext,
        })
    }

    pub(super) fn remember_pending_route(
        &self,
        snapshot: &SnapshotId,
        route: PendingRoute,
    ) -> std::io::Result<()> {
        if route == PendingRoute::InvocationNext {
            std::fs::File::create(self.mark_of(snapshot))?.sync_all()?;
            std::fs::File::open(&self.config.marks_dir)?.sync_all()?;
        }
        self.pending_routes().insert(snapshot.clone(), route);
        Ok(())
    }

    pub(super) fn forget_pending_route(&self, snapshot: &SnapshotId) {
        self.pending_routes().remove(snapshot);
        // Usually there is none.
        let _ = std::fs::remove_file(self.mark_of(snapshot));
    }

    pub(super) fn retain_pending_routes(&self, snapshots: &[SnapshotId]) {
        let Ok(marks) = std::fs::read_dir(&self.config.marks_dir) else { return };
        for mark in marks.filter_map(|mark| mark.ok()?.file_name().into_string().ok()) {
            if !snapshots.iter().any(|snapshot| snapshot.0 == mark) {
                self.forget_pending_route(&SnapshotId(mark));
            }
        }
    }

    fn pending_routes(&self) -> MutexGuard<'_, HashMap<SnapshotId, PendingRoute>> {
        self.pending_routes.lock().expect("nothing panics while it holds this lock")
    }

    fn mark_of(&self, snapshot: &SnapshotId) -> PathBuf {
        // Snapshots are named by UUIDs; whatever else it were, it would stay one plain file name.
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        self.config.marks_dir.join(snapshot.0.replace(|letter| !plain(letter), "_"))
    }
}

impl Runtime {
    fn new(installed: InstalledRuntime, root: RootSpec) -> Self {
        let text = serde_json::to_vec(&installed).unwrap_or_default();
        let fingerprint = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { root: Arc::new(root), label: installed.version_label(), fingerprint, installed }
    }

    /// As in `INIT_START`.
    pub(super) fn version_arn(&self, region: &str) -> String {
        format!("arn:aws:lambda:{region}::runtime:{}", self.fingerprint)
    }
}

/// `YYYY/MM/DD/[<version>]<32 hex>`; with a log group of the user's own the function's name is in front of the version
/// (Lambda Developer Guide, monitoring-cloudwatchlogs-loggroups).
fn stream_name(spec: &VersionSpec, now: jiff::Timestamp) -> String {
    let date = now.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y/%m/%d").to_string();
    let id = uuid::Uuid::new_v4().simple();
    let function = match spec.log_group.strip_prefix("/aws/lambda/") {
        Some(function) if function == spec.key.function => "",
        _ => &spec.key.function,
    };
    format!("{date}/{function}[{}]{id}", spec.key.version)
}

/// Hears what the host role says until it ends.
pub(super) async fn follow_events(shared: Arc<Shared>, mut events: HostEvents) {
    while let Some(HostEvent { event, descriptors }) = events.recv().await {
        match event {
            Event::SandboxReady { sandbox, root, standby } => {
                sandbox_ready(&shared, sandbox, &root, standby, descriptors);
            }
            Event::SandboxFailed { root, message } => {
                tracing::error!(pool = root.name, message, "no sandbox can be made");
                shared.sandboxes.failed(&root, &message);
            }
            Event::Exited { sandbox, exit, out_of_memory } => {
                let found = shared.roster().find(sandbox);
                match found {
                    Some((environment, idle)) => {
                        environment.session.exited(exit, out_of_memory);
                        if idle {
                            shared.kill(&environment);
                        }
                    }
                    None => drop(shared.sandboxes.forget(sandbox)),
                }
            }
        }
    }
    // The host role took everything down with itself.
    shared.sandboxes.close();
    let lost = shared.roster().clear();
    for environment in lost {
        environment.session.end();
        environment.log.detach();
    }
}

fn sandbox_ready(
    shared: &Shared,
    id: SandboxId,
    root: &RootSpec,
    standby: Option<SnapshotId>,
    mut descriptors: Vec<OwnedFd>,
) {
    let exposed = descriptors.split_off(descriptors.len().min(4));
    let Ok([listener, connection, stdout, stderr]) = <[OwnedFd; 4]>::try_from(descriptors) else {
        tracing::error!(sandbox = id.0, "a sandbox came without its descriptors; killed");
        shared.post(Command::Kill { sandbox: id });
        return;
    };
    let session = Arc::new(Session::new());
    shared.frontend.listen(session.clone(), listener);
    for (listener, service) in exposed.into_iter().zip(&shared.config.exposed) {
        if let Err(error) = super::expose::expose(&session, listener, *service) {
            tracing::error!(%error, %service, sandbox = id.0, "a function will not reach a service");
        }
    }
    let ready = ReadySandbox { id, session, connection, pipes: [stdout, stderr] };
    let unwanted = match standby {
        Some(snapshot) => shared.sandboxes.offer_standby(snapshot, ready),
        None => shared.sandboxes.offer(root, ready),
    };
    if let Some(unwanted) = unwanted {
        unwanted.session.end();
        shared.post(Command::Kill { sandbox: id });
    }
}

/// Often enough that an environment is not idle for half as long again as it may.
fn housekeeping(idle_max: Duration) -> Duration {
    (idle_max / 2).clamp(HOUSEKEEPING_MIN, HOUSEKEEPING_MAX)
}

/// Takes old environments down and adapts the pools, until the fleet is gone.
pub(super) async fn keep_house(shared: Weak<Shared>) {
    let Some(period) = shared.upgrade().map(|shared| housekeeping(shared.config.idle_max)) else { return };
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let now = Instant::now();
        let expired = shared.roster().expire(now, shared.config.idle_max);
        expired.iter().for_each(|environment| shared.take_down(environment));
        shared.sandboxes.adapt(now);
    }
}

/// For the log and for failures that become messages.
pub(super) fn failure_of(what: &str) -> Failure {
    Failure { kind: FailureKind::Internal, message: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::tests_support::spec;

    #[test]
    fn streams_are_named_as_in_cloudwatch() {
        let now: jiff::Timestamp = "2026-03-09T23:00:00Z".parse().unwrap();
        let mut spec = spec("hello", None);
        let name = stream_name(&spec, now);
        assert!(name.starts_with("2026/03/09/[1]") && name.len() == 46, "{name}");
        spec.log_group = "shared".into();
        assert!(stream_name(&spec, now).starts_with("2026/03/09/hello[1]"));
    }
}
