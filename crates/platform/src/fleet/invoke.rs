//! One invocation from admission to REPORT.
//!
//! The answer goes to the caller as soon as it and its END line are there. The environment is free for the next
//! invocation from then on, even if its runtime has not yet asked for it; memory figure, REPORT and freezing follow.
//! A caller that wants the log's tail waits for REPORT too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use host::protocol::Command;
use tokio::sync::oneshot;

use crate::invocation::{Invocation, Outcome};
use crate::session::{Answered, Assignment, Deadline, Started};
use crate::version::VersionSpec;

use super::InvokeFailure;
use super::ending::{Document, Ending};
use super::lines::{self, ColdStart, Report};
use super::roster::Parked;
use super::shared::{Handle, NoPlace, Runtime, Shared};

/// How long an answered runtime may take to ask for the next invocation when its timeout is nearly over.
const SETTLE_MIN: Duration = Duration::from_secs(1);

/// How long an invocation waits for a runtime that has answered and not yet asked for the next one, before another
/// environment is found for it. Clients ask within a fraction of a millisecond.
const LINGER_MAX: Duration = Duration::from_millis(50);

/// One invocation on its way.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: Arc<VersionSpec>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) invocation: Invocation,
}

/// An invocation that an environment has been given, and how that ended.
pub(super) struct Served {
    pub(super) environment: Handle,
    pub(super) ending: Ending,
    /// When its duration begins and when it had to be done.
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    pub(super) ended: Instant,
    pub(super) cold_start: Option<ColdStart>,
    /// START is written when the runtime takes the event; an init that fails inside the invocation has none yet.
    pub(super) start_written: bool,
}

/// Counts an invocation for as long as it lives.
struct Admission(Arc<Shared>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.roster().leave();
    }
}

/// See [`super::Fleet::invoke`].
pub(super) async fn invoke(
    shared: &Arc<Shared>,
    spec: Arc<VersionSpec>,
    invocation: Invocation,
) -> Result<Outcome, InvokeFailure> {
    let runtime = shared.runtime(&spec.runtime).ok_or_else(|| no_runtime(&spec.runtime))?;
    if shared.roster().enter().is_err() {
        shared.counters.count_throttle();
        return Err(InvokeFailure::Throttled);
    }
    let admission = Admission(shared.clone());
    shared.counters.count_invocation();
    let job = Job { shared: shared.clone(), spec, runtime, invocation };
    let (sender, receiver) = oneshot::channel();
    // A task of its own: a caller that hangs up ends neither the invocation nor the care for its environment.
    tokio::spawn(job.run(admission, sender));
    let stopped = "the server stopped while the invocation ran".to_owned();
    receiver.await.unwrap_or(Err(InvokeFailure::Internal { message: stopped }))
}

/// What callers are told of a runtime that is not installed.
pub(super) fn no_runtime(id: &str) -> InvokeFailure {
    let message = format!("runtime {id} is not installed; run `rekindle runtime install {id}`");
    InvokeFailure::NoRuntime { message }
}

impl Job {
    async fn run(self, admission: Admission, sender: oneshot::Sender<Result<Outcome, InvokeFailure>>) {
        match self.serve().await {
            Ok(served) => self.finish(served, admission, sender).await,
            Err(failure) => {
                drop(admission);
                // The caller may have hung up.
                let _ = sender.send(Err(failure));
            }
        }
    }

    async fn serve(&self) -> Result<Served, InvokeFailure> {
        loop {
            let reused = self.shared.roster().reuse(&self.spec.key);
            let Some((environment, frozen)) = reused else { break };
            if let Some(served) = self.serve_warm(environment, frozen).await {
                return Ok(served);
            }
        }
        if let Some(snapshot) = &self.spec.snapshot
            && let Some(served) = self.serve_restored(snapshot).await?
        {
            return Ok(served);
        }
        self.serve_initialized().await
    }

    /// `None` when the environment turned out to be of no use and the function has not seen the event.
    async fn serve_warm(&self, environment: Handle, frozen: bool) -> Option<Served> {
        let thaw = frozen.then(|| self.shared.host.send(Command::Thaw { sandbox: environment.id }));
        environment.log.clear_tail();
        let log = environment.log.clone();
        let start = self.start_line();
        self.assign(&environment, self.timeout(), move |_| log.platform(&start));
        if let Some(thaw) = thaw
            && let Err(failure) = thaw.await
        {
            tracing::warn!(%failure, sandbox = environment.id.0, "thaw an environment; killed");
            self.shared.kill(&environment);
            return None;
        }
        let delivery = match tokio::time::timeout(LINGER_MAX, environment.session.started()).await {
            Ok(Started::Delivered(delivery)) => delivery,
            Ok(_) => {
                self.shared.kill(&environment);
                return None;
            }
            Err(_) if environment.session.unassign() => {
                self.park_when_it_asks(environment);
                return None;
            }
            // It asked in this very moment.
            Err(_) => match environment.session.started().await {
                Started::Delivered(delivery) => delivery,
                _ => {
                    self.shared.kill(&environment);
                    return None;
                }
            },
        };
        Some(self.await_answer(environment, delivery.at, delivery.deadline, None).await)
    }

    /// The runtime still works on something after its last answer: it is busy until it asks for the next invocation.
    fn park_when_it_asks(&self, environment: Handle) {
        let shared = self.shared.clone();
        let deadline = Instant::now() + self.timeout_duration();
        tokio::spawn(async move {
            let waiting = tokio::time::timeout_at(deadline.into(), environment.session.parked()).await;
            if !matches!(waiting, Ok(true)) {
                shared.kill(&environment);
                return;
            }
            let parked = shared.roster().park(environment.id, Instant::now());
            shared.settle(&environment, parked, deadline).await;
        });
    }

    /// Waits for the answer of an environment that has taken the event.
    pub(super) async fn await_answer(
        &self,
        environment: Handle,
        began: Instant,
        deadline: Instant,
        cold_start: Option<ColdStart>,
    ) -> Served {
        let answered = tokio::time::timeout_at(deadline.into(), environment.session.answered()).await;
        let (ending, ended) = match answered {
            Ok(Answered::Answer(answer)) => {
                let at = answer.at;
                (Ending::Answered(answer), at)
            }
            Ok(Answered::Ended(ended)) => {
                self.shared.counters.count_exit();
                (Ending::Exited(ended), Instant::now())
            }
            Err(_) => {
                self.shared.counters.count_timeout();
                (Ending::TimedOut, Instant::now())
            }
        };
        Served { environment, ending, began, deadline, ended, cold_start, start_written: true }
    }

    pub(super) fn assign(
        &self,
        environment: &Handle,
        deadline: Deadline,
        on_delivery: impl FnOnce(Instant) + Send + 'static,
    ) {
        environment.session.assign(Assignment {
            invocation: self.invocation.clone(),
            deadline,
            on_delivery: Box::new(on_delivery),
        });
    }

    pub(super) fn start_line(&self) -> String {
        lines::start(&self.invocation.request_id, &self.spec.key.version)
    }

    pub(super) fn timeout(&self) -> Deadline {
        Deadline::AfterDelivery(self.timeout_duration())
    }

    pub(super) fn timeout_duration(&self) -> Duration {
        Duration::from_secs(self.spec.timeout_s.into())
    }
}

/// After the invocation.
impl Job {
    async fn finish(
        &self,
        served: Served,
        admission: Admission,
        sender: oneshot::Sender<Result<Outcome, InvokeFailure>>,
    ) {
        let environment = &served.environment;
        let usage = self.shared.usage(environment.id);
        let usable = served.ending.leaves_environment_usable();
        if !served.start_written {
            environment.log.platform(&self.start_line());
        }
        let answer_first = usable && !self.invocation.log_tail;
        if answer_first {
            environment.log.platform(&lines::end(&self.invocation.request_id));
            let parked = self.shared.roster().park(environment.id, Instant::now());
            self.answer(&served, Vec::new(), admission, sender);
            let report = self.report(&served, usage.await);
            environment.log.platform_late(&report);
            self.settle(&served, parked).await;
            return;
        }
        let memory_peak_mib = usage.await;
        if !usable {
            self.shared.kill(environment);
        }
        environment.log.platform(&lines::end(&self.invocation.request_id));
        environment.log.platform(&self.report(&served, memory_peak_mib));
        let tail = environment.log.tail();
        let parked = usable.then(|| self.shared.roster().park(environment.id, Instant::now()));
        self.answer(&served, tail, admission, sender);
        if let Some(parked) = parked {
            self.settle(&served, parked).await;
        }
    }

    fn answer(
        &self,
        served: &Served,
        log_tail: Vec<u8>,
        admission: Admission,
        sender: oneshot::Sender<Result<Outcome, InvokeFailure>>,
    ) {
        let Document { payload, function_error } =
            served.ending.document(&self.invocation.request_id, self.spec.timeout_s);
        let payload = if payload.is_empty() { Bytes::from_static(b"null") } else { payload };
        drop(admission);
        // The caller may have hung up.
        let function_error = function_error.then(|| "Unhandled".to_owned());
        let _ = sender.send(Ok(Outcome { payload, function_error, log_tail }));
    }

    fn report(&self, served: &Served, memory_peak_mib: Option<u32>) -> String {
        let measured = served.ended.saturating_duration_since(served.began);
        let out_of_memory = matches!(&served.ending, Ending::Exited(ended) if ended.out_of_memory);
        let memory_mib = self.spec.memory_mib;
        lines::report(&Report {
            request_id: &self.invocation.request_id,
            duration: served.ending.duration(measured, self.spec.timeout_s),
            memory_mib,
            memory_peak_mib: if out_of_memory {
                memory_mib
            } else {
                memory_peak_mib.unwrap_or(0).min(memory_mib)
            },
            cold_start: served.cold_start,
            status: served.ending.status(),
        })
    }

    async fn settle(&self, served: &Served, parked: Parked) {
        let deadline = served.deadline.max(Instant::now() + SETTLE_MIN);
        self.shared.settle(&served.environment, parked, deadline).await;
    }
}

impl From<NoPlace> for InvokeFailure {
    fn from(no_place: NoPlace) -> Self {
        match no_place {
            NoPlace::Throttled => Self::Throttled,
            NoPlace::NoSandbox(message) => Self::Internal { message },
        }
    }
}
