//! Invoke: find the version, check its state, count it, run it.

use bytes::Bytes;
use model::error::{ApiError, Exception};
use model::names::{FunctionReference, Version};

use super::Control;
use super::runner::InvokeFailure;
use crate::invocation::{Invocation, Outcome};

/// What a caller wants to be run.
#[derive(Debug, Clone)]
pub struct InvokeRequest {
    /// UUID of the request.
    pub request_id: String,
    /// The event: JSON.
    pub payload: Bytes,
    /// Decoded client context, when given.
    pub client_context: Option<String>,
    /// X-Ray trace header.
    pub trace_id: String,
    /// Whether the log's tail is wanted.
    pub log_tail: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Invoked {
    /// The function's answer.
    pub outcome: Outcome,
    /// The version that gave it.
    pub version: Version,
}

impl Control {
    /// Runs a function. `die` is uniform in [0, 1) and chooses between the versions of an alias.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, `ResourceConflictException` for a version that is not Active,
    /// `TooManyRequestsException`, `SnapStartException`, `SnapStartTimeoutException`, `ServiceException`. Errors of the
    /// function itself are outcomes.
    pub async fn invoke(
        &self,
        reference: &FunctionReference,
        request: InvokeRequest,
        die: f64,
    ) -> Result<Invoked, ApiError> {
        let resolved = self.resolve(reference).await?;
        let target = resolved.choose(die);
        target.status.check_invokable()?;
        let _running = self.0.concurrency.enter(&resolved.counter, resolved.reserved)?;
        let invocation = Invocation {
            request_id: request.request_id,
            invoked_arn: resolved.arn.clone(),
            payload: request.payload,
            client_context: request.client_context,
            trace_id: request.trace_id,
            log_tail: request.log_tail,
        };
        let outcome = self.0.runner.invoke(target.spec.clone(), invocation).await;
        let outcome = outcome.map_err(|failure| refusal(reference, failure))?;
        Ok(Invoked { outcome, version: target.version })
    }

    /// Whether a function could be invoked: Invoke with `DryRun`.
    ///
    /// # Errors
    /// As [`Control::invoke`], as far as it can be told without running anything.
    pub async fn check_invoke(&self, reference: &FunctionReference) -> Result<(), ApiError> {
        self.resolve(reference).await?.main.status.check_invokable()
    }
}

fn refusal(reference: &FunctionReference, failure: InvokeFailure) -> ApiError {
    tracing::warn!(function = %reference.function, %failure, "invocation found no environment");
    match failure {
        InvokeFailure::AfterRestoreHook { message } => ApiError::after_restore_hook(message),
        InvokeFailure::RestoreTimeout => ApiError::restore_timeout(),
        InvokeFailure::Throttled => ApiError::throttled("ConcurrentInvocationLimitExceeded"),
        InvokeFailure::NoRuntime { message } => ApiError::new(Exception::InvalidRuntime, message),
        InvokeFailure::Internal { message } => ApiError::service(message),
    }
}
