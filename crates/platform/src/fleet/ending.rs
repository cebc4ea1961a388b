//! How invocations end, and what the caller is told of each ending: the error documents of Lambda, word for word
//! (recorded answers, Lambda Developer Guide).

use std::time::Duration;

use bytes::Bytes;
use host::protocol::Exit;
use serde_json::json;

use crate::session::{AnswerKind, Ended, PAYLOAD_BYTES_MAX, RuntimeAnswer, RuntimeFault};

use super::lines::Status;

/// How an invocation ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The runtime answered.
    Answered(RuntimeAnswer),
    /// The process ended first.
    Exited(Ended),
    /// The function's timeout passed first.
    TimedOut,
    /// The init inside the invocation was reported as failed by the runtime.
    InitFailed(RuntimeFault),
}

/// What the caller gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) payload: Bytes,
    pub(super) function_error: bool,
}

impl Ending {
    /// Whether the environment can serve another invocation.
    pub(super) fn leaves_environment_usable(&self) -> bool {
        matches!(self, Self::Answered(_))
    }

    /// The answer or the error document.
    pub(super) fn document(&self, request_id: &str, timeout_s: u32) -> Document {
        let failed = |payload: Bytes| Document { payload, function_error: true };
        match self {
            Self::Answered(answer) => match answer.kind {
                AnswerKind::Response => Document { payload: answer.payload.clone(), function_error: false },
                AnswerKind::Error => failed(answer.payload.clone()),
                AnswerKind::TooLarge => failed(document("Function.ResponseSizeTooLarge", &too_large())),
            },
            Self::Exited(ended) => {
                let message = format!("RequestId: {request_id} Error: {}", exit_message(*ended));
                failed(document(exit_type(*ended), &message))
            }
            Self::TimedOut => {
                let seconds = f64::from(timeout_s);
                let message =
                    format!("RequestId: {request_id} Error: Task timed out after {seconds:.2} seconds");
                failed(document("Sandbox.Timedout", &message))
            }
            Self::InitFailed(fault) => failed(fault.payload.clone()),
        }
    }

    /// What REPORT says of it. Errors that a runtime answers with are its own business.
    pub(super) fn status(&self) -> Option<Status<'_>> {
        match self {
            Self::Answered(answer) if answer.kind == AnswerKind::TooLarge => {
                Some(Status::Error("Function.ResponseSizeTooLarge"))
            }
            Self::Answered(_) => None,
            Self::Exited(ended) => Some(Status::Error(exit_type(*ended))),
            Self::TimedOut => Some(Status::Timeout),
            Self::InitFailed(fault) => Some(Status::Error(&fault.error_type)),
        }
    }

    /// The duration to report: a timeout is never longer than the timeout.
    pub(super) fn duration(&self, measured: Duration, timeout_s: u32) -> Duration {
        match self {
            Self::TimedOut => measured.min(Duration::from_secs(timeout_s.into())),
            _ => measured,
        }
    }
}

/// The error type of a process that ended.
pub(super) fn exit_type(ended: Ended) -> &'static str {
    if ended.out_of_memory { "Runtime.OutOfMemory" } else { "Runtime.ExitError" }
}

/// The words for how a process ended.
pub(super) fn exit_message(ended: Ended) -> String {
    match ended.exit {
        Some(Exit::Status(0)) => "Runtime exited without providing a reason".to_owned(),
        Some(Exit::Status(status)) => format!("Runtime exited with error: exit status {status}"),
        Some(Exit::Signal(signal)) => format!("Runtime exited with error: signal: {}", signal_name(signal)),
        None => "Runtime exited with error: signal: killed".to_owned(),
    }
}

/// The message of an error document that a runtime sent, or what is known without one.
pub(super) fn fault_message(fault: &RuntimeFault) -> String {
    let field = |name: &str| {
        let document: serde_json::Value = serde_json::from_slice(&fault.payload).ok()?;
        Some(document.get(name)?.as_str()?.to_owned()).filter(|text| !text.is_empty())
    };
    match (field("errorType"), field("errorMessage")) {
        (Some(error_type), Some(message)) => format!("{error_type}: {message}"),
        (None, Some(message)) => message,
        (Some(error_type), None) => error_type,
        (None, None) => fault.error_type.clone(),
    }
}

fn document(error_type: &str, message: &str) -> Bytes {
    json!({ "errorType": error_type, "errorMessage": message }).to_string().into()
}

fn too_large() -> String {
    format!("Response payload size exceeded maximum allowed payload size ({PAYLOAD_BYTES_MAX} bytes).")
}

/// The names that AWS shows are those of Go's `syscall.Signal`.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        31 => "bad system call",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ending: &Ending, payload: &str, status: Option<Status<'_>>) {
        let document = ending.document("id", 3);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&document.payload).unwrap(),
            serde_json::from_str::<serde_json::Value>(payload).unwrap()
        );
        assert!(document.function_error);
        assert_eq!(ending.status(), status);
    }

    fn exited(exit: Exit, out_of_memory: bool) -> Ending {
        Ending::Exited(Ended { exit: Some(exit), out_of_memory })
    }

    #[test]
    fn endings_have_the_words_of_lambda() {
        check(
            &exited(Exit::Status(0), false),
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: id Error: Runtime exited without providing a reason"}"#,
            Some(Status::Error("Runtime.ExitError")),
        );
        check(
            &exited(Exit::Status(127), false),
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: id Error: Runtime exited with error: exit status 127"}"#,
            Some(Status::Error("Runtime.ExitError")),
        );
        check(
            &exited(Exit::Signal(9), true),
            r#"{"errorType":"Runtime.OutOfMemory","errorMessage":"RequestId: id Error: Runtime exited with error: signal: killed"}"#,
            Some(Status::Error("Runtime.OutOfMemory")),
        );
        check(
            &Ending::TimedOut,
            r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: id Error: Task timed out after 3.00 seconds"}"#,
            Some(Status::Timeout),
        );
    }

    #[test]
    fn the_message_of_a_fault_is_found_or_made_up_from_its_type() {
        let fault = |payload: &'static str| RuntimeFault {
            error_type: "Runtime.AfterRestoreError".into(),
            payload: Bytes::from_static(payload.as_bytes()),
        };
        assert_eq!(
            fault_message(&fault(r#"{"errorMessage":"boom","errorType":"ValueError"}"#)),
            "ValueError: boom"
        );
        assert_eq!(fault_message(&fault("no json")), "Runtime.AfterRestoreError");
    }
}
