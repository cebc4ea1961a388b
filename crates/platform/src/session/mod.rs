//! The Runtime API session of one environment: between the fleet, which has invocations, and a server of the Runtime
//! API, which has a runtime's calls.
//!
//! The rules are in the pure [`machine`]; this driver keeps what travels (events, answers, faults) and lets both sides
//! wait for each other. A session lives from the moment its sandbox waits ready, so that the server listens before
//! there is a runtime, until the environment is taken down; **an answer for anything but the running invocation is
//! refused**, so late results cannot reach a wrong caller.
//!
//! Deliberately absent: HTTP (a [`Frontend`] speaks it) and timeouts (the fleet's: only it knows which one counts).

pub mod credentials;
mod machine;
mod refusal;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use host::protocol::Exit;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot, watch};
use uuid::Uuid;

use crate::invocation::Invocation;

use credentials::{Credentials, Vault};
use machine::{Effect, Input, Machine, Phase, Ticket};
pub use machine::{Mode, PendingCall, PendingRoute};
pub use refusal::{PAYLOAD_BYTES_MAX, Refusal};

/// Bodies of one environment that are read at one time. A runtime sends one; more is code that calls the API itself.
const BODIES_MAX: usize = 2;

/// Serves sessions to runtimes. The crate that knows HTTP implements it.
pub trait Frontend: Send + Sync + 'static {
    /// Serves the Runtime API to whoever connects to `listener`, until the session ends.
    fn listen(&self, session: Arc<Session>, listener: OwnedFd);

    /// Serves the Runtime API on an accepted connection, as if the request `pending` had just been read on it.
    fn resume(&self, session: Arc<Session>, connection: OwnedFd, pending: PendingRoute);
}

/// An event as a runtime gets it from `invocation/next`.
#[derive(Debug, Clone)]
pub struct NextEvent {
    /// `Lambda-Runtime-Aws-Request-Id`.
    pub request_id: String,
    /// `Lambda-Runtime-Invocation-Id`: names this attempt.
    pub invocation_id: String,
    /// `Lambda-Runtime-Deadline-Ms`, Unix epoch.
    pub deadline_ms: u64,
    /// `Lambda-Runtime-Invoked-Function-Arn`.
    pub invoked_arn: String,
    /// `Lambda-Runtime-Trace-Id`.
    pub trace_id: String,
    /// `Lambda-Runtime-Client-Context`.
    pub client_context: Option<String>,
    /// The event.
    pub payload: Bytes,
}

/// Until when an invocation may run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deadline {
    /// This long from when the runtime takes the event.
    AfterDelivery(Duration),
    /// Until this moment, whenever the runtime takes the event: an init inside the invocation has used some of it.
    At(Instant),
}

/// An invocation on its way to a runtime.
pub(crate) struct Assignment {
    pub(crate) invocation: Invocation,
    pub(crate) deadline: Deadline,
    /// Called when the runtime takes the event, before it gets it: writes the log lines that come before its output.
    pub(crate) on_delivery: Box<dyn FnOnce(Instant) + Send>,
}

/// When an invocation reached the runtime and when it has to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) at: Instant,
    pub(crate) deadline: Instant,
}

/// What a runtime answered.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeAnswer {
    pub(crate) kind: AnswerKind,
    pub(crate) payload: Bytes,
    pub(crate) at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    Response,
    Error,
    TooLarge,
}

/// An error that a runtime reported of itself: `init/error` or `restore/error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuntimeFault {
    /// `Category.Reason`, such as `Runtime.ImportModuleError`.
    pub(crate) error_type: String,
    pub(crate) payload: Bytes,
}

/// How an environment's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `None` when the platform took the environment down.
    pub(crate) exit: Option<Exit>,
    pub(crate) out_of_memory: bool,
}

/// What an init or a restore came to.
#[derive(Debug)]
pub(crate) enum Started {
    Delivered(Delivery),
    /// The runtime waits, and nothing is assigned to it.
    Pending(PendingCall),
    InitError(RuntimeFault),
    RestoreError(RuntimeFault),
    Ended(Ended),
}

/// What an invocation came to.
#[derive(Debug)]
pub(crate) enum Answered {
    Answer(RuntimeAnswer),
    Ended(Ended),
}

/// The Runtime API session of one environment.
pub struct Session {
    inner: Mutex<Inner>,
    /// Tells the fleet that something changed.
    changed: Notify,
    /// Tells the server to close.
    ended: watch::Sender<bool>,
    /// Bounds the memory that one environment's answers take.
    bodies: Semaphore,
}

struct Inner {
    machine: Machine,
    ticket_last: Ticket,
    /// Wakes the waiting call of the runtime.
    waiter: Option<oneshot::Sender<NextEvent>>,
    assignment: Option<Assignment>,
    invocation_id: String,
    delivery: Option<Delivery>,
    answer: Option<RuntimeAnswer>,
    fault: Option<RuntimeFault>,
    end: Option<Ended>,
    vault: Option<Vault>,
}

/// The runtime's side.
impl Session {
    /// GET invocation/next, from the local port `port` of the runtime. Waits until there is an invocation.
    ///
    /// # Errors
    /// When the call is not allowed in the present state, or the environment is taken down.
    pub async fn next(&self, port: u16) -> Result<NextEvent, Refusal> {
        let (ticket, receiver) = {
            let mut inner = self.inner();
            inner.ticket_last += 1;
            let ticket = inner.ticket_last;
            match inner.machine.apply(Input::Next { ticket, port })? {
                Effect::Deliver(_) => {
                    let assignment = inner.assignment.take();
                    let assignment = assignment.expect("the machine delivers only what was assigned");
                    return Ok(self.deliver(inner, assignment));
                }
                _ => {
                    // Replacing the sender refuses a call that waited before.
                    let (sender, receiver) = oneshot::channel();
                    inner.waiter = Some(sender);
                    (ticket, receiver)
                }
            }
        };
        self.changed.notify_waiters();
        let _abandon = AbandonOnDrop { session: self, ticket };
        receiver.await.map_err(|_| Refusal::Ended)
    }

    /// GET restore/next, from the local port `port` of the runtime. Returns at once in a restored environment, and
    /// only with an error in one that is to be checkpointed.
    ///
    /// # Errors
    /// When the call is not allowed in the present state, the environment is not one for SnapStart, or it is taken
    /// down.
    pub async fn restore_next(&self, port: u16) -> Result<(), Refusal> {
        let ticket = {
            let mut inner = self.inner();
            inner.ticket_last += 1;
            let ticket = inner.ticket_last;
            match inner.machine.apply(Input::RestoreNext { ticket, port })? {
                Effect::Proceed => return Ok(()),
                _ => ticket,
            }
        };
        self.changed.notify_waiters();
        let _abandon = AbandonOnDrop { session: self, ticket };
        self.ended().await;
        Err(Refusal::Ended)
    }

    /// Whether an answer for this invocation would be taken now: to refuse before a body is read. `invocation_id` is
    /// the echo of the header `Lambda-Runtime-Invocation-Id`, when the runtime sent it.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequestId`] or [`Refusal::InvalidInvocationId`].
    pub fn expects(&self, request_id: &str, invocation_id: Option<&str>) -> Result<(), Refusal> {
        let inner = self.inner();
        inner.machine.expects(request_id)?;
        match invocation_id {
            Some(echoed) if echoed != inner.invocation_id => Err(Refusal::InvalidInvocationId),
            _ => Ok(()),
        }
    }

    /// Waits until the server may take the memory for one more body of this environment; the permit is held while it
    /// is read.
    pub async fn room_for_body(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.bodies.acquire().await.ok()
    }

    /// POST invocation/{id}/response.
    ///
    /// # Errors
    /// When this is not the running invocation.
    pub fn respond(&self, request_id: &str, payload: Bytes) -> Result<(), Refusal> {
        self.answer(request_id, AnswerKind::Response, payload)
    }

    /// POST invocation/{id}/error. The body is the error document of the caller's answer; `error_type` is the value of
    /// the header `Lambda-Runtime-Function-Error-Type`, used only when there is no body.
    ///
    /// # Errors
    /// When this is not the running invocation.
    pub fn fail(&self, request_id: &str, payload: Bytes, error_type: Option<&str>) -> Result<(), Refusal> {
        let payload = if payload.is_empty() {
            let error_type = category(error_type);
            serde_json::json!({ "errorType": error_type, "errorMessage": "" }).to_string().into()
        } else {
            payload
        };
        self.answer(request_id, AnswerKind::Error, payload)
    }

    /// The response is over the limit: the invocation fails. Gives what to refuse the call with.
    pub fn respond_too_large(&self, request_id: &str) -> Refusal {
        match self.answer(request_id, AnswerKind::TooLarge, Bytes::new()) {
            Ok(()) => Refusal::TooLarge,
            Err(refusal) => refusal,
        }
    }

    /// POST init/error.
    ///
    /// # Errors
    /// When the runtime is not starting.
    pub fn init_error(&self, payload: Bytes, error_type: Option<&str>) -> Result<(), Refusal> {
        self.fault(Input::InitError, payload, error_type)
    }

    /// POST restore/error.
    ///
    /// # Errors
    /// When the runtime is not being restored.
    pub fn restore_error(&self, payload: Bytes, error_type: Option<&str>) -> Result<(), Refusal> {
        self.fault(Input::RestoreError, payload, error_type)
    }

    /// Whether the routes of the restore protocol and of the credentials exist.
    pub fn is_snap_start(&self) -> bool {
        self.inner().machine.mode().is_snap_start()
    }

    /// Whether the environment is going to be checkpointed: connections that its client keeps open would be in the
    /// snapshot, and come back without the socket options that the client has set.
    pub fn is_before_snapshot(&self) -> bool {
        self.inner().machine.mode() == Mode::BeforeSnapshot
    }

    /// The credentials behind the token of the credentials endpoint; `None` for a wrong token.
    pub fn credentials(&self, token: &str) -> Option<Credentials> {
        self.inner().vault.as_mut()?.open(token, Timestamp::now())
    }

    /// Resolves when the environment is taken down: whoever serves this session closes its sockets then.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives in `self`.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

/// The platform's side.
impl Session {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                machine: Machine::new(),
                ticket_last: 0,
                waiter: None,
                assignment: None,
                invocation_id: String::new(),
                delivery: None,
                answer: None,
                fault: None,
                end: None,
                vault: None,
            }),
            changed: Notify::new(),
            ended: watch::Sender::new(false),
            bodies: Semaphore::new(BODIES_MAX),
        }
    }

    /// A runtime is about to be started or restored.
    pub(crate) fn begin(&self, mode: Mode, vault: Option<Vault>) {
        let mut inner = self.inner();
        inner.vault = vault;
        let begun = inner.machine.apply(Input::Begin(mode));
        debug_assert!(begun.is_ok());
    }

    /// Gives the runtime an invocation: now if it waits for one, or when it asks.
    pub(crate) fn assign(&self, assignment: Assignment) {
        let mut inner = self.inner();
        inner.delivery = None;
        inner.answer = None;
        let request_id = assignment.invocation.request_id.clone();
        match inner.machine.apply(Input::Assign { request_id: &request_id }) {
            Ok(Effect::Deliver(_)) => {
                let waiter = inner.waiter.take();
                let event = self.deliver(inner, assignment);
                // A client that went away in this moment loses the event: its invocation times out.
                if let Some(waiter) = waiter {
                    let _ = waiter.send(event);
                }
            }
            _ => inner.assignment = Some(assignment),
        }
    }

    /// Takes back an invocation that the runtime has not asked for. False when it has.
    pub(crate) fn unassign(&self) -> bool {
        let mut inner = self.inner();
        let applied = inner.machine.apply(Input::Unassign);
        debug_assert!(applied.is_ok());
        inner.assignment.take().is_some()
    }

    /// Waits for what an init or a restore comes to.
    pub(crate) async fn started(&self) -> Started {
        self.until(|inner| {
            let fault = || inner.fault.clone().expect("the machine was told of the fault with its body");
            match (inner.delivery, inner.machine.phase()) {
                (Some(delivery), _) => Some(Started::Delivered(delivery)),
                (_, Phase::InitError) => Some(Started::InitError(fault())),
                (_, Phase::RestoreError) => Some(Started::RestoreError(fault())),
                (_, Phase::Ended) => Some(Started::Ended(inner.ended())),
                _ => inner.machine.pending().map(Started::Pending),
            }
        })
        .await
    }

    /// Waits until the assigned invocation is answered.
    pub(crate) async fn answered(&self) -> Answered {
        self.until(|inner| match (&inner.answer, inner.machine.phase()) {
            (Some(answer), _) => Some(Answered::Answer(answer.clone())),
            (None, Phase::Ended) => Some(Answered::Ended(inner.ended())),
            _ => None,
        })
        .await
    }

    /// Waits until the runtime asks for the next invocation, or is gone. True when it waits.
    pub(crate) async fn parked(&self) -> bool {
        self.until(|inner| match inner.machine.phase() {
            Phase::Ended => Some(false),
            Phase::Ready => Some(true),
            _ => None,
        })
        .await
    }

    /// The process ended.
    pub(crate) fn exited(&self, exit: Exit, out_of_memory: bool) {
        self.finish(Ended { exit: Some(exit), out_of_memory });
    }

    /// The environment is taken down: every call is refused and the server closes.
    pub(crate) fn end(&self) {
        self.finish(Ended { exit: None, out_of_memory: false });
        self.ended.send_replace(true);
    }
}

impl Session {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds this lock")
    }

    async fn until<T>(&self, probe: impl Fn(&Inner) -> Option<T>) -> T {
        loop {
            // Made before the look, so that no change between the look and the wait is missed.
            let changed = self.changed.notified();
            if let Some(found) = probe(&self.inner()) {
                return found;
            }
            changed.await;
        }
    }

    /// Records the delivery, runs its callback outside the lock and makes the event.
    fn deliver(&self, mut inner: MutexGuard<'_, Inner>, assignment: Assignment) -> NextEvent {
        let at = Instant::now();
        let deadline = match assignment.deadline {
            Deadline::AfterDelivery(timeout) => at + timeout,
            Deadline::At(deadline) => deadline,
        };
        inner.delivery = Some(Delivery { at, deadline });
        inner.invocation_id = Uuid::new_v4().to_string();
        let invocation_id = inner.invocation_id.clone();
        drop(inner);
        (assignment.on_delivery)(at);
        self.changed.notify_waiters();
        let Invocation { request_id, invoked_arn, payload, client_context, trace_id, .. } =
            assignment.invocation;
        NextEvent {
            request_id,
            invocation_id,
            deadline_ms: epoch_ms(deadline.saturating_duration_since(at)),
            invoked_arn,
            trace_id,
            client_context,
            payload,
        }
    }

    fn answer(&self, request_id: &str, kind: AnswerKind, payload: Bytes) -> Result<(), Refusal> {
        let mut inner = self.inner();
        inner.machine.apply(Input::Answer { request_id })?;
        inner.answer = Some(RuntimeAnswer { kind, payload, at: Instant::now() });
        if inner.machine.mode() == Mode::BeforeSnapshot {
            // A warm-up event is over; what the init comes to is still to be seen.
            inner.delivery = None;
        }
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    fn fault(&self, input: Input<'_>, payload: Bytes, error_type: Option<&str>) -> Result<(), Refusal> {
        let mut inner = self.inner();
        inner.machine.apply(input)?;
        inner.fault = Some(RuntimeFault { error_type: category(error_type), payload });
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }

    fn finish(&self, end: Ended) {
        let mut inner = self.inner();
        // A runtime reports its error and then exits: the report is what counts.
        let reported = matches!(inner.machine.phase(), Phase::InitError | Phase::RestoreError);
        if !reported || end.exit.is_none() {
            let applied = inner.machine.apply(Input::End);
            debug_assert!(applied.is_ok());
        }
        inner.end.get_or_insert(end);
        inner.waiter = None;
        drop(inner);
        self.changed.notify_waiters();
    }

    fn abandon(&self, ticket: Ticket) {
        let applied = self.inner().machine.apply(Input::Abandon { ticket });
        debug_assert!(applied.is_ok());
    }
}

impl Inner {
    fn ended(&self) -> Ended {
        self.end.unwrap_or(Ended { exit: None, out_of_memory: false })
    }
}

/// Takes a waiting call back when its client has gone away and the server drops the future.
struct AbandonOnDrop<'a> {
    session: &'a Session,
    ticket: Ticket,
}

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.session.abandon(self.ticket);
    }
}

/// Wall clock in milliseconds, `after` from now.
fn epoch_ms(after: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + after).as_millis()).unwrap_or(u64::MAX)
}

/// The error type as it is shown: only `Runtime.Name` and `Function.Name` pass (emulator: `GetValidRuntimeOrFunctionErrorType`).
fn category(error_type: Option<&str>) -> String {
    let given = error_type.unwrap_or_default();
    let reason = given.strip_prefix("Runtime.").or_else(|| given.strip_prefix("Function."));
    let valid = reason.is_some_and(|reason| {
        reason.len() >= 2
            && reason.len() <= 128
            && reason.starts_with(|letter: char| letter.is_ascii_uppercase())
            && reason.bytes().all(|byte| byte.is_ascii_alphabetic())
    });
    match given {
        _ if valid => given.to_owned(),
        _ if given.starts_with("Function.") => "Function.Unknown".to_owned(),
        _ => "Runtime.Unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn assignment(request_id: &str, deliveries: &Arc<AtomicU32>) -> Assignment {
        let deliveries = deliveries.clone();
        Assignment {
            invocation: Invocation {
                request_id: request_id.into(),
                invoked_arn: "arn".into(),
                payload: Bytes::from_static(b"{}"),
                client_context: None,
                trace_id: "Root=1".into(),
                log_tail: false,
            },
            deadline: Deadline::AfterDelivery(Duration::from_secs(3)),
            on_delivery: Box::new(move |_| {
                deliveries.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    #[tokio::test]
    async fn a_waiting_runtime_gets_the_event_and_the_platform_its_answer() {
        let session = Arc::new(Session::new());
        let deliveries = Arc::new(AtomicU32::new(0));
        session.begin(Mode::OnDemand, None);
        let runtime = tokio::spawn({
            let session = session.clone();
            async move {
                let event = session.next(4000).await.unwrap();
                assert!(session.expects(&event.request_id, Some("wrong")).is_err());
                session.expects(&event.request_id, Some(&event.invocation_id)).unwrap();
                session.respond(&event.request_id, event.payload).unwrap();
                session.respond(&event.request_id, Bytes::new()).unwrap_err()
            }
        });
        let Started::Pending(call) = session.started().await else { panic!("the runtime waits") };
        assert_eq!(call, PendingCall { route: PendingRoute::InvocationNext, port: 4000 });
        session.assign(assignment("a", &deliveries));
        let Answered::Answer(answer) = session.answered().await else { panic!("the runtime answers") };
        assert_eq!((answer.kind, &answer.payload[..]), (AnswerKind::Response, &b"{}"[..]));
        assert_eq!(runtime.await.unwrap(), Refusal::InvalidRequestId);
        assert_eq!(deliveries.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_restored_runtime_finds_its_event_assigned() {
        let session = Session::new();
        let deliveries = Arc::new(AtomicU32::new(0));
        session.begin(Mode::Restored, None);
        session.assign(assignment("a", &deliveries));
        session.restore_next(1).await.unwrap();
        assert_eq!(session.next(2).await.unwrap().request_id, "a");
        assert!(matches!(session.started().await, Started::Delivered(_)));
    }

    #[tokio::test]
    async fn a_call_whose_client_goes_away_can_be_made_again() {
        let session = Session::new();
        session.begin(Mode::OnDemand, None);
        let given_up = tokio::time::timeout(Duration::from_millis(5), session.next(1)).await;
        assert!(given_up.is_err());
        session.assign(assignment("a", &Arc::default()));
        assert_eq!(session.next(2).await.unwrap().request_id, "a");
    }

    #[tokio::test]
    async fn the_end_wakes_everybody_and_a_report_outlives_the_exit() {
        let session = Arc::new(Session::new());
        session.begin(Mode::OnDemand, None);
        let waiting = tokio::spawn({
            let session = session.clone();
            async move { session.next(1).await.unwrap_err() }
        });
        session.started().await;
        session.end();
        assert_eq!(waiting.await.unwrap(), Refusal::Ended);
        session.ended().await;
        assert!(!session.parked().await);

        let session = Session::new();
        session.begin(Mode::OnDemand, None);
        session.init_error(Bytes::from_static(b"{}"), Some("Runtime.ImportModuleError")).unwrap();
        session.exited(Exit::Status(1), false);
        let Started::InitError(fault) = session.started().await else { panic!("the report counts") };
        assert_eq!(fault.error_type, "Runtime.ImportModuleError");
    }

    #[test]
    fn error_types_are_categories() {
        assert_eq!(category(Some("Function.Gone")), "Function.Gone");
        assert_eq!(category(Some("Function.<b>")), "Function.Unknown");
        assert_eq!(category(Some("unhandled")), "Runtime.Unknown");
        assert_eq!(category(None), "Runtime.Unknown");
    }
}
