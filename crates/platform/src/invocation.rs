//! One invocation: what goes in and what comes out.

use bytes::Bytes;

/// An event on its way to a function.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// UUID; also the response header `x-amzn-RequestId`.
    pub request_id: String,
    /// ARN exactly as addressed, with the qualifier when there was one.
    pub invoked_arn: String,
    /// The event, at most 6 MiB.
    pub payload: Bytes,
    /// Decoded client context (JSON text), when given.
    pub client_context: Option<String>,
    /// X-Ray trace header; the front end makes one when the caller gave none.
    pub trace_id: String,
    /// Whether the caller wants the log's tail. Then the answer waits for the REPORT line, which needs the memory
    /// figure; without it both are off the response path and [`Outcome::log_tail`] is empty.
    pub log_tail: bool,
}

/// What an invocation came to. Function errors are outcomes too, not failures.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The function's answer, or the error document.
    pub payload: Bytes,
    /// `Unhandled` when the payload is an error document.
    pub function_error: Option<String>,
    /// The last 4 KiB of the invocation's log, from START (or INIT_START/RESTORE_START on a cold start) to REPORT.
    /// Empty unless [`Invocation::log_tail`] asked for it.
    pub log_tail: Vec<u8>,
}
