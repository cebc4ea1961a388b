//! A version up to its snapshot: init with warm-up events and before-snapshot hooks, checkpoint, template.
//!
//! The init's only end that leads to a snapshot is a runtime that waits, in `restore/next` or (clients without the
//! protocol) in `invocation/next`: nothing is in flight then. The environment that was checkpointed does not run on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::protocol::{Answer, Command, Exit, FailureKind, SnapshotFacts, SnapshotId};
use model::warm_up::WarmUp;

use crate::logs::LogStream;
use crate::session::credentials::endpoint_token;
use crate::session::{PendingCall, Started};
use crate::version::VersionSpec;

use super::ending::{exit_message, exit_type, fault_message};
use super::invoke::no_runtime;
use super::lines::{self, InitPhase, Status};
use super::shared::{Handle, Shared};
use super::start::{init_spec, start_runtime};
use super::variables::Purpose;
use super::warm_up::Warming;
use super::{InvokeFailure, PublishFailure};

/// The status with which runtime clients exit when a before-snapshot hook failed.
const HOOK_EXIT_STATUS: i32 = 64;

/// The types under which runtime clients report a failed before-snapshot hook: Python and .NET, Java.
const HOOK_ERROR_TYPES: [&str; 2] = ["Runtime.BeforeSnapshotError", "Runtime.BeforeCheckpointError"];

/// How long a checkpoint may take. A large image is written in well under a minute; this catches a host role that hangs.
const CHECKPOINT_MAX: Duration = Duration::from_secs(600);

/// See [`super::Fleet::publish`].
pub(super) async fn publish(
    shared: &Arc<Shared>,
    spec: Arc<VersionSpec>,
    snapshot: SnapshotId,
) -> Result<SnapshotFacts, PublishFailure> {
    let runtime = shared.runtime(&spec.runtime).ok_or_else(|| no_runtime(&spec.runtime))?;
    if !runtime.installed.snap_start {
        let message = format!("runtime {} cannot be snapshotted", spec.runtime);
        return Err(PublishFailure::Unsupported { message });
    }
    let (_, log) = shared.log_stream(&spec);
    log.platform(&lines::init_start(&runtime.label, &runtime.version_arn(&spec.region)));
    let began = Instant::now();
    let token = endpoint_token(&snapshot);
    let init = init_spec(&spec, &runtime, &Purpose::SnapStart { endpoint_token: &token });
    let environment = start_runtime(shared, &spec, &runtime, &log, init, Some(&snapshot), |_| ()).await?;
    let result = snapshot_of(shared, &spec, &environment, &log, began, &snapshot).await;
    shared.kill(&environment);
    if result.is_ok() {
        // Waited for, so that the first invocation of an Active version does not wait for its template. A version whose
        // template cannot be made is Active all the same: its invocations are served by a normal init.
        if let Err(failure) = shared.host.call(Command::Prepare { snapshot }).await {
            tracing::error!(%failure, function = spec.key.function, "the template of a new snapshot was not made");
        }
    }
    result
}

async fn snapshot_of(
    shared: &Arc<Shared>,
    spec: &VersionSpec,
    environment: &Handle,
    log: &Arc<LogStream>,
    began: Instant,
    snapshot: &SnapshotId,
) -> Result<SnapshotFacts, PublishFailure> {
    let limit = shared.config.publish_init_min.max(Duration::from_secs(spec.timeout_s.into()));
    // It was checked with the configuration.
    let declared = WarmUp::of(&spec.environment)
        .map_err(|error| PublishFailure::InitError { message: error.message })?;
    let mut warming = Warming::new(spec, log, declared, began + limit);
    let started = tokio::time::timeout_at((began + limit).into(), warming.run(&environment.session)).await;
    let call = match started {
        Ok(Started::Pending(call)) => call,
        Ok(other) => {
            let failed = init_failed(other, warming.running());
            let line = lines::init_report_failed(
                began.elapsed(),
                InitPhase::Init,
                Status::Error(&failed.error_type),
            );
            log.platform(&line);
            return Err(failed.failure);
        }
        Err(_) => {
            log.platform(&lines::init_report_failed(began.elapsed(), InitPhase::Init, Status::Timeout));
            let seconds = limit.as_secs();
            return Err(match warming.running() {
                Some(during) => PublishFailure::WarmUpTimeout { seconds, during },
                None => PublishFailure::InitTimeout { seconds },
            });
        }
    };
    let warning = warming.report();
    if let Some(warning) = &warning {
        log.platform(&format!("WARNING {warning}"));
    }
    log.platform(&lines::init_report(began.elapsed()));
    let mut facts = checkpoint(shared, spec, environment, call, snapshot).await?;
    facts.warnings.extend(warning);
    Ok(facts)
}

async fn checkpoint(
    shared: &Arc<Shared>,
    spec: &VersionSpec,
    environment: &Handle,
    call: PendingCall,
    snapshot: &SnapshotId,
) -> Result<SnapshotFacts, PublishFailure> {
    // Known before the snapshot is durable, so that no durable snapshot lacks it.
    shared.remember_pending_route(snapshot, call.route).map_err(|error| PublishFailure::Internal {
        message: format!("remember how version {} of {} waits: {error}", spec.key.version, spec.key.function),
    })?;
    let command =
        Command::Checkpoint { sandbox: environment.id, snapshot: snapshot.clone(), pending_port: call.port };
    let failure = match tokio::time::timeout(CHECKPOINT_MAX, shared.host.call(command)).await {
        Ok(Ok(Answer::Checkpointed(facts))) => return Ok(facts),
        Ok(Ok(_)) => internal("the host role gave an answer that does not fit"),
        Ok(Err(failure)) if failure.kind == FailureKind::Unsupported => {
            PublishFailure::Unsupported { message: failure.message }
        }
        Ok(Err(failure)) => PublishFailure::Internal { message: failure.message },
        Err(_) => internal("the checkpoint did not finish in time"),
    };
    shared.forget_pending_route(snapshot);
    tracing::error!(function = spec.key.function, version = spec.key.version, %failure, "make a snapshot");
    Err(failure)
}

struct InitFailed {
    error_type: String,
    failure: PublishFailure,
}

/// `during` is the warm-up event that was running, if there was one.
fn init_failed(started: Started, during: Option<String>) -> InitFailed {
    match started {
        Started::InitError(fault) | Started::RestoreError(fault) => {
            let message = fault_message(&fault);
            let failure = match HOOK_ERROR_TYPES.contains(&fault.error_type.as_str()) {
                true => PublishFailure::HookError { message },
                false => PublishFailure::InitError { message },
            };
            InitFailed { error_type: fault.error_type, failure }
        }
        Started::Ended(ended) => {
            let message = exit_message(ended);
            let failure = match (ended.exit, during) {
                (_, Some(during)) => PublishFailure::Exited { message: format!("{during}: {message}") },
                (Some(Exit::Status(HOOK_EXIT_STATUS)), None) => PublishFailure::HookError { message },
                _ => PublishFailure::Exited { message },
            };
            InitFailed { error_type: exit_type(ended).to_owned(), failure }
        }
        Started::Pending(_) | Started::Delivered(_) => InitFailed {
            error_type: "Sandbox.Failure".to_owned(),
            failure: internal("a runtime took an event that nobody sent"),
        },
    }
}

fn internal(message: &str) -> PublishFailure {
    PublishFailure::Internal { message: message.to_owned() }
}

impl From<InvokeFailure> for PublishFailure {
    fn from(failure: InvokeFailure) -> Self {
        match failure {
            InvokeFailure::NoRuntime { message } => Self::Unsupported { message },
            other => Self::Internal { message: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Ended, RuntimeFault};
    use bytes::Bytes;

    fn fault(error_type: &str) -> Started {
        let payload = Bytes::from_static(br#"{"errorMessage":"boom","errorType":"ValueError"}"#);
        Started::InitError(RuntimeFault { error_type: error_type.into(), payload })
    }

    fn exited(status: i32) -> Started {
        Started::Ended(Ended { exit: Some(Exit::Status(status)), out_of_memory: false })
    }

    #[test]
    fn hooks_and_inits_fail_differently() {
        let message = "ValueError: boom".to_owned();
        let expected = PublishFailure::HookError { message: message.clone() };
        assert_eq!(init_failed(fault("Runtime.BeforeSnapshotError"), None).failure, expected);
        let expected = PublishFailure::InitError { message };
        assert_eq!(init_failed(fault("Runtime.ImportModuleError"), None).failure, expected);
        assert!(matches!(init_failed(exited(64), None).failure, PublishFailure::HookError { .. }));
        assert!(matches!(init_failed(exited(1), None).failure, PublishFailure::Exited { .. }));
        let message = "warm-up event 2 of 3: Runtime exited with error: exit status 64".to_owned();
        let during = Some("warm-up event 2 of 3".to_owned());
        assert_eq!(init_failed(exited(64), during).failure, PublishFailure::Exited { message });
    }
}
