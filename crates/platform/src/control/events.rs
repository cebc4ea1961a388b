//! Asynchronous invocations: accepted, answered, run afterwards.
//!
//! Events wait in memory, so a stop of the server loses those that have not run yet, and a function error is not
//! retried. Deliberately absent until there is a durable queue: retries, maximum age, destinations.

use std::sync::Arc;

use model::error::ApiError;
use model::names::FunctionReference;
use tokio::sync::Semaphore;

use super::Control;
use super::invoke::InvokeRequest;

/// Events that run at one time.
const RUNNING_MAX: usize = 100;
/// Events that are accepted and not done.
const ACCEPTED_MAX: usize = 10_000;

/// How many more events may be accepted, and how many of them may run.
pub(super) struct Limits {
    accepted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accepted: Arc::new(Semaphore::new(ACCEPTED_MAX)),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
        }
    }
}

impl Control {
    /// Accepts an event and returns at once.
    ///
    /// # Errors
    /// As [`Control::check_invoke`]; `TooManyRequestsException` when too many events wait.
    pub async fn accept_event(
        &self,
        reference: FunctionReference,
        request: InvokeRequest,
        die: f64,
    ) -> Result<(), ApiError> {
        self.check_invoke(&reference).await?;
        let limits = &self.0.events;
        let accepted = limits.accepted.clone().try_acquire_owned();
        let accepted = accepted.map_err(|_| ApiError::throttled("ConcurrentInvocationLimitExceeded"))?;
        let running = limits.running.clone();
        let control = self.clone();
        tokio::spawn(async move {
            let _running = running.acquire().await;
            let request_id = request.request_id.clone();
            match control.invoke(&reference, request, die).await {
                Ok(done) if done.outcome.function_error.is_none() => {}
                Ok(_) => {
                    tracing::warn!(function = %reference.function, request_id, "event ended in a function error");
                }
                Err(error) => {
                    tracing::warn!(function = %reference.function, request_id, %error, "event was lost");
                }
            }
            drop(accepted);
        });
        Ok(())
    }
}
