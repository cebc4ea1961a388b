//! Cold starts: an environment for an invocation, restored from a snapshot or initialized.
//!
//! The invocation is assigned before there is a runtime, so that the runtime finds it at its first `invocation/next`.
//! A restored runtime's pending `restore/next` is answered while the host role still restores: the answer is in the
//! socket when the threads are released.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host::protocol::{Answer, Command, Exit, Failure, InitSpec, Lease, SnapshotId};

use crate::logs::LogStream;
use crate::session::credentials::{Vault, endpoint_token};
use crate::session::{Deadline, Delivery, Ended, Mode, PendingRoute, RuntimeFault, Started};
use crate::version::VersionSpec;

use super::InvokeFailure;
use super::ending::{Ending, exit_message, exit_type, fault_message};
use super::invoke::{Job, Served};
use super::lines::{self, ColdStart, InitPhase, Status};
use super::shared::{Handle, Runtime, Shared, failure_of};
use super::variables::{Purpose, variables};

/// Sandboxes that are tried for one init.
const INIT_ATTEMPTS_MAX: u32 = 2;

/// Why an init came to nothing.
#[derive(Debug)]
pub(super) enum InitFailure {
    Reported(RuntimeFault),
    Exited(Ended),
    TimedOut,
}

impl InitFailure {
    pub(super) fn status(&self) -> Status<'_> {
        match self {
            Self::Reported(fault) => Status::Error(&fault.error_type),
            Self::Exited(ended) => Status::Error(exit_type(*ended)),
            Self::TimedOut => Status::Timeout,
        }
    }
}

/// An environment whose init ran.
struct Initialized {
    environment: Handle,
    result: Result<Delivery, InitFailure>,
}

/// By a normal init.
impl Job {
    /// Init first, limited to 10 s; when it fails, once more inside the invocation, where the function's timeout counts
    /// and a failure is the outcome (Lambda Developer Guide, lambda-runtime-environment: suppressed init).
    pub(super) async fn serve_initialized(&self) -> Result<Served, InvokeFailure> {
        let (stream, log) = self.shared.log_stream(&self.spec);
        log.platform(&lines::init_start(&self.runtime.label, &self.runtime.version_arn(&self.spec.region)));
        let began = Instant::now();
        let limit = began + self.shared.config.init_max;
        let first = self.initialize(&log, &stream, self.timeout(), limit).await?;
        let failure = match first.result {
            Ok(delivery) => {
                let init = delivery.at.saturating_duration_since(began);
                let cold_start = Some(ColdStart::Init(init));
                return Ok(self
                    .await_answer(first.environment, delivery.at, delivery.deadline, cold_start)
                    .await);
            }
            Err(failure) => failure,
        };
        self.shared.kill(&first.environment);
        log.platform(&lines::init_report_failed(began.elapsed(), InitPhase::Init, failure.status()));
        self.serve_initialized_inside(&log, &stream).await
    }

    async fn serve_initialized_inside(
        &self,
        log: &Arc<LogStream>,
        stream: &str,
    ) -> Result<Served, InvokeFailure> {
        let began = Instant::now();
        let deadline = began + self.timeout_duration();
        let second = self.initialize(log, stream, Deadline::At(deadline), deadline).await?;
        let environment = second.environment;
        let failure = match second.result {
            Ok(_) => return Ok(self.await_answer(environment, began, deadline, None).await),
            Err(failure) => failure,
        };
        let ended = Instant::now();
        log.platform(&lines::init_report_failed(ended - began, InitPhase::Invoke, failure.status()));
        let ending = match failure {
            InitFailure::Reported(fault) => Ending::InitFailed(fault),
            InitFailure::Exited(ended) => {
                self.shared.counters.count_exit();
                Ending::Exited(ended)
            }
            InitFailure::TimedOut => {
                self.shared.counters.count_timeout();
                Ending::TimedOut
            }
        };
        Ok(Served { environment, ending, began, deadline, ended, cold_start: None, start_written: false })
    }

    async fn initialize(
        &self,
        log: &Arc<LogStream>,
        stream: &str,
        deadline: Deadline,
        limit: Instant,
    ) -> Result<Initialized, InvokeFailure> {
        self.shared.counters.count_init();
        let credentials = self.shared.credentials.issue(&self.spec);
        let purpose = Purpose::OnDemand { credentials: &credentials, log_stream: stream };
        let init = init_spec(&self.spec, &self.runtime, &purpose);
        let assign = |environment: &Handle| {
            let (log, start) = (log.clone(), self.start_line());
            self.assign(environment, deadline, move |_| log.platform(&start));
        };
        let environment =
            start_runtime(&self.shared, &self.spec, &self.runtime, log, init, None, assign).await?;
        let result = match tokio::time::timeout_at(limit.into(), environment.session.started()).await {
            Ok(Started::Delivered(delivery)) => Ok(delivery),
            Ok(Started::InitError(fault) | Started::RestoreError(fault)) => Err(InitFailure::Reported(fault)),
            Ok(Started::Ended(ended)) => Err(InitFailure::Exited(ended)),
            Ok(Started::Pending(_)) => {
                self.shared.kill(&environment);
                let message = "a runtime waits although its invocation was assigned".to_owned();
                return Err(InvokeFailure::Internal { message });
            }
            Err(_) => Err(InitFailure::TimedOut),
        };
        if result.is_ok() {
            self.shared.roster().started(environment.id);
            self.shared.post(Command::Settled { sandbox: environment.id });
        }
        Ok(Initialized { environment, result })
    }
}

/// By a restore.
impl Job {
    /// `None` when the restore failed and the function has not seen the event.
    ///
    /// # Errors
    /// When an after-restore hook failed or took too long: that is the function's failure, not the restore's.
    pub(super) async fn serve_restored(
        &self,
        snapshot: &SnapshotId,
    ) -> Result<Option<Served>, InvokeFailure> {
        let began = Instant::now();
        let (_, log) = self.shared.log_stream(&self.spec);
        let (environment, ends) = self.shared.place(&self.spec, &self.runtime, &log, Some(snapshot)).await?;
        let route = self.shared.pending_route(snapshot);
        let mode = match route {
            PendingRoute::RestoreNext => Mode::Restored,
            PendingRoute::InvocationNext => Mode::RestoredInNext,
        };
        environment.session.begin(mode, Some(vault(&self.shared, &self.spec, snapshot)));
        read_output(&log, ends.pipes);
        log.platform(&lines::restore_start(
            &self.runtime.label,
            &self.runtime.version_arn(&self.spec.region),
        ));
        let reply = self.shared.host.send(Command::Restore {
            sandbox: environment.id,
            lease: lease(&self.spec),
            snapshot: snapshot.clone(),
        });
        let proceed = || {
            self.assign_restored(&environment, began);
            self.shared.frontend.resume(environment.session.clone(), ends.connection, route);
        };
        // An event must not be taken before the runtime runs, an empty answer may.
        let proceed_later = match route {
            PendingRoute::RestoreNext => {
                proceed();
                None
            }
            PendingRoute::InvocationNext => Some(proceed),
        };
        let restored = match tokio::time::timeout(self.shared.config.restore_max, reply).await {
            Ok(Ok(Answer::Restored { restore_us })) => Ok(Duration::from_micros(restore_us)),
            Ok(Ok(_)) => Err(failure_of("the host role gave an answer that does not fit")),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(failure_of("the host role did not finish in time")),
        };
        let restoring = match restored {
            Ok(restoring) => restoring,
            Err(failure) => {
                self.fall_back(&environment, snapshot, began, &failure);
                return Ok(None);
            }
        };
        if let Some(proceed) = proceed_later {
            proceed();
        }
        self.await_hooks(environment, snapshot, began, restoring).await
    }

    fn assign_restored(&self, environment: &Handle, began: Instant) {
        let (log, start) = (environment.log.clone(), self.start_line());
        self.assign(environment, self.timeout(), move |at| {
            log.platform(&lines::restore_report(at.saturating_duration_since(began), None));
            log.platform(&start);
        });
    }

    async fn await_hooks(
        &self,
        environment: Handle,
        snapshot: &SnapshotId,
        began: Instant,
        restoring: Duration,
    ) -> Result<Option<Served>, InvokeFailure> {
        let limit = Instant::now() + self.shared.config.restore_max;
        let started = tokio::time::timeout_at(limit.into(), environment.session.started()).await;
        let report = |status| lines::restore_report(began.elapsed(), Some(status));
        let (line, failure) = match started {
            Ok(Started::Delivered(delivery)) => {
                self.shared.post(Command::Settled { sandbox: environment.id });
                let served = self.await_restored_answer(environment, delivery, began, restoring).await;
                return Ok(Some(served));
            }
            Ok(Started::RestoreError(fault) | Started::InitError(fault)) => {
                let message = fault_message(&fault);
                (report(Status::Error(&fault.error_type)), InvokeFailure::AfterRestoreHook { message })
            }
            // Hooks end a process with a status; a signal before the first invocation looks like a bad restore.
            Ok(Started::Ended(ended @ Ended { exit: Some(Exit::Status(_)), .. })) => {
                let message = exit_message(ended);
                (report(Status::Error(exit_type(ended))), InvokeFailure::AfterRestoreHook { message })
            }
            Ok(Started::Ended(ended)) => {
                let failure = failure_of(&format!("after the restore: {}", exit_message(ended)));
                self.fall_back(&environment, snapshot, began, &failure);
                return Ok(None);
            }
            Ok(Started::Pending(_)) => {
                self.fall_back(
                    &environment,
                    snapshot,
                    began,
                    &failure_of("the runtime did not take its event"),
                );
                return Ok(None);
            }
            Err(_) => (report(Status::Timeout), InvokeFailure::RestoreTimeout),
        };
        self.shared.kill(&environment);
        environment.log.platform(&line);
        Err(failure)
    }

    async fn await_restored_answer(
        &self,
        environment: Handle,
        delivery: Delivery,
        began: Instant,
        restoring: Duration,
    ) -> Served {
        self.shared.counters.count_restore();
        self.shared.roster().started(environment.id);
        let whole = delivery.at.saturating_duration_since(began);
        let cold_start = Some(ColdStart::Restore { whole, billed: whole.saturating_sub(restoring) });
        self.await_answer(environment, delivery.at, delivery.deadline, cold_start).await
    }

    /// A restore failed: its environment goes, the log says so, and a normal init is to serve the invocation.
    fn fall_back(&self, environment: &Handle, snapshot: &SnapshotId, began: Instant, failure: &Failure) {
        self.shared.counters.count_restore_failure();
        tracing::error!(
            function = self.spec.key.function,
            version = self.spec.key.version,
            snapshot = snapshot.0,
            restore_failures = self.shared.counters.restore_failures(),
            %failure,
            "restore an environment; a normal init serves the invocation"
        );
        self.shared.kill(environment);
        let status = Some(Status::Error("Sandbox.Failure"));
        environment.log.platform(&lines::restore_report(began.elapsed(), status));
    }
}

/// Starts a runtime in a sandbox; when the host role cannot, in another one.
///
/// With a name for the snapshot that is to be made of it, it is started for SnapStart.
pub(super) async fn start_runtime(
    shared: &Arc<Shared>,
    spec: &Arc<VersionSpec>,
    runtime: &Runtime,
    log: &Arc<LogStream>,
    init: InitSpec,
    snapshot: Option<&SnapshotId>,
    assign: impl Fn(&Handle),
) -> Result<Handle, InvokeFailure> {
    let mode = if snapshot.is_some() { Mode::BeforeSnapshot } else { Mode::OnDemand };
    let mut attempt = 1;
    loop {
        let (environment, ends) = shared.place(spec, runtime, log, None).await?;
        environment.session.begin(mode, snapshot.map(|snapshot| vault(shared, spec, snapshot)));
        assign(&environment);
        read_output(log, ends.pipes);
        let command = Command::Init { sandbox: environment.id, lease: lease(spec), init: init.clone() };
        let Err(failure) = shared.host.call(command).await else { return Ok(environment) };
        shared.kill(&environment);
        tracing::error!(function = spec.key.function, attempt, %failure, "start a runtime");
        if attempt == INIT_ATTEMPTS_MAX {
            let message = format!("start the runtime of {}: {failure}", spec.key.function);
            return Err(InvokeFailure::Internal { message });
        }
        attempt += 1;
    }
}

/// Begins to read the pipes of a sandbox; before anything runs in it, so that no platform line can come too early.
fn read_output(log: &Arc<LogStream>, pipes: [OwnedFd; 2]) {
    if let Err(error) = log.attach(pipes) {
        tracing::error!(%error, "read the output of an environment; it is lost");
    }
}

/// What the credentials endpoint of a SnapStart environment answers from.
fn vault(shared: &Arc<Shared>, spec: &Arc<VersionSpec>, snapshot: &SnapshotId) -> Vault {
    let (source, spec) = (shared.credentials.clone(), spec.clone());
    Vault::new(endpoint_token(snapshot), move || source.issue(&spec))
}

pub(super) fn init_spec(spec: &VersionSpec, runtime: &Runtime, purpose: &Purpose<'_>) -> InitSpec {
    InitSpec {
        argv: runtime.installed.argv.clone(),
        env: variables(spec, &runtime.installed, purpose),
        cwd: "/var/task".to_owned(),
    }
}

pub(super) fn lease(spec: &VersionSpec) -> Lease {
    Lease {
        task_dir: spec.task_dir.clone(),
        opt_dir: None,
        tmp_mib: spec.tmp_mib,
        memory_mib: spec.memory_mib,
    }
}
