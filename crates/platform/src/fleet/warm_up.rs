//! Warm-up events: what a runtime is given when it asks for invocations before its snapshot.
//!
//! **They come before the before-snapshot hooks**, so that these find the process as it goes into the snapshot, and
//! the after-restore hooks run as ever, by the unmodified client: once in every clone and never at publish. A runtime
//! without hooks asks by itself, since it waits in `invocation/next`; one with the restore protocol is led there by a
//! shim in front of the client. One that goes straight to `restore/next` is snapshotted without events, and the log says
//! so: to answer that call early would run the after-restore hooks here and never again in a clone.
//!
//! Deliberately absent: a limit for one event. All of them together have what is left of the init's time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use model::warm_up::WarmUp;
use serde_json::json;
use uuid::Uuid;

use crate::invocation::Invocation;
use crate::logs::LogStream;
use crate::session::{
    AnswerKind, Answered, Assignment, Deadline, Ended, PendingRoute, RuntimeAnswer, Session, Started,
};
use crate::version::VersionSpec;

use super::lines::{self, Status, WarmUpEvent};

/// The member of the client context's `custom` by which a function knows a warm-up event; its value is the event's
/// number, from 1.
const MARKER: &str = "rekindle-warm-up";

/// Longest error type that is repeated in a log line, in bytes.
const ERROR_TYPE_BYTES_MAX: usize = 128;

/// The warm-up of one version on its way to its snapshot.
pub(super) struct Warming<'a> {
    spec: &'a VersionSpec,
    log: &'a LogStream,
    declared: WarmUp,
    deadline: Instant,
    /// Events that were given to the runtime.
    given: u32,
    /// Whether the last one is still unanswered.
    is_running: bool,
    failed: u32,
    /// What the first of the failed ones failed with.
    first_error_type: Option<String>,
    took: Duration,
}

impl<'a> Warming<'a> {
    /// Nothing is run for a version that declares no events. `deadline` is that of the whole init.
    pub(super) fn new(
        spec: &'a VersionSpec,
        log: &'a LogStream,
        declared: Option<WarmUp>,
        deadline: Instant,
    ) -> Self {
        let declared = declared.unwrap_or(WarmUp { events: 0, event: String::new() });
        let (given, failed, took) = (0, 0, Duration::ZERO);
        Self { spec, log, declared, deadline, given, is_running: false, failed, first_error_type: None, took }
    }

    /// Answers the runtime's calls for invocations with events while there are any. Gives what the init comes to then.
    pub(super) async fn run(&mut self, session: &Session) -> Started {
        loop {
            let started = session.started().await;
            let asks =
                matches!(&started, Started::Pending(call) if call.route == PendingRoute::InvocationNext);
            if !asks || self.given == self.declared.events {
                return started;
            }
            if let Err(ended) = self.give(session).await {
                return Started::Ended(ended);
            }
        }
    }

    /// The event that is running, as in "warm-up event 2 of 3".
    pub(super) fn running(&self) -> Option<String> {
        self.is_running.then(|| format!("warm-up event {} of {}", self.given, self.declared.events))
    }

    /// Writes the summary, and gives what the snapshot's owner should know.
    pub(super) fn report(&self) -> Option<String> {
        let (events, given, failed) = (self.declared.events, self.given, self.failed);
        if events == 0 {
            return None;
        }
        self.log.platform(&lines::warm_up_report(given, events, failed, self.took));
        if given < events {
            return Some(format!(
                "{given} of {events} warm-up events ran: the runtime goes on to its snapshot without asking for more; \
                 prime it in a before-snapshot hook (docs/priming.md)"
            ));
        }
        let first = self.first_error_type.as_ref()?;
        Some(format!("{failed} of {events} warm-up events failed, the first one with {first}"))
    }

    async fn give(&mut self, session: &Session) -> Result<(), Ended> {
        self.given += 1;
        self.is_running = true;
        let invocation = self.invocation();
        let request_id = invocation.request_id.clone();
        let began = Instant::now();
        let deadline = Deadline::At(self.deadline);
        session.assign(Assignment { invocation, deadline, on_delivery: Box::new(|_| ()) });
        let answer = match session.answered().await {
            Answered::Answer(answer) => answer,
            Answered::Ended(ended) => return Err(ended),
        };
        self.is_running = false;
        let duration = answer.at.saturating_duration_since(began);
        self.took += duration;
        let error_type = error_type(&answer);
        self.log.platform(&lines::warm_up(&WarmUpEvent {
            request_id: &request_id,
            number: self.given,
            events: self.declared.events,
            duration,
            status: error_type.as_deref().map(Status::Error),
        }));
        self.failed += u32::from(error_type.is_some());
        self.first_error_type = self.first_error_type.take().or(error_type);
        Ok(())
    }

    fn invocation(&self) -> Invocation {
        let random = Uuid::new_v4().simple().to_string();
        let seconds = jiff::Timestamp::now().as_second();
        Invocation {
            request_id: Uuid::new_v4().to_string(),
            invoked_arn: self.spec.arn.clone(),
            payload: Bytes::from(self.declared.event.clone()),
            client_context: Some(json!({ "custom": { MARKER: self.given.to_string() } }).to_string()),
            trace_id: format!("Root=1-{seconds:08x}-{};Sampled=0", &random[..24]),
            log_tail: false,
        }
    }
}

/// The error type of an event that failed. It was chosen by the function, so only what looks like one is repeated.
fn error_type(answer: &RuntimeAnswer) -> Option<String> {
    let plain = |text: &&str| {
        !text.is_empty()
            && text.len() <= ERROR_TYPE_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match answer.kind {
        AnswerKind::Response => None,
        AnswerKind::TooLarge => Some("Function.ResponseSizeTooLarge".to_owned()),
        AnswerKind::Error => {
            let document: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            let given = document["errorType"].as_str().filter(plain);
            Some(given.unwrap_or("Unhandled").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_type_of_an_answer_is_the_functions_own_if_it_looks_like_one() {
        let of = |kind, payload: &'static str| {
            error_type(&RuntimeAnswer {
                kind,
                payload: Bytes::from_static(payload.as_bytes()),
                at: Instant::now(),
            })
        };
        assert_eq!(of(AnswerKind::Response, r#"{"errorType":"ValueError"}"#), None);
        assert_eq!(of(AnswerKind::Error, r#"{"errorType":"ValueError"}"#).as_deref(), Some("ValueError"));
        for payload in ["no json", "[]", r#"{"errorType":"two\nlines"}"#, r#"{"errorType":""}"#] {
            assert_eq!(of(AnswerKind::Error, payload).as_deref(), Some("Unhandled"), "{payload}");
        }
        assert_eq!(of(AnswerKind::TooLarge, "").as_deref(), Some("Function.ResponseSizeTooLarge"));
    }
}
