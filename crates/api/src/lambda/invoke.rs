//! Invoke.

use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use model::error::ApiError;
use model::limits;
use model::validation::Violations;
use platform::control::{InvokeRequest, Invoked};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::Call;
use crate::respond;

/// Longest trace header that is passed on, in bytes.
const TRACE_BYTES_MAX: usize = 512;

pub(super) async fn invoke(call: Call) -> Result<Response, ApiError> {
    let reference = call.function()?;
    match call.header("x-amz-invocation-type").unwrap_or("RequestResponse") {
        "RequestResponse" => {
            let trace_id = trace_id(&call);
            let request = request(&call, trace_id.clone(), log_tail(&call)?)?;
            let wants_tail = request.log_tail;
            let invoked = call.control().invoke(&reference, request, die(call.request_id)).await?;
            Ok(answer(invoked, &trace_id, wants_tail))
        }
        "Event" => {
            if call.body.len() > limits::EVENT_PAYLOAD_BYTES_MAX {
                return Err(ApiError::event_too_large(call.body.len()));
            }
            let request = request(&call, trace_id(&call), false)?;
            call.control().accept_event(reference, request, die(call.request_id)).await?;
            Ok(respond::empty(StatusCode::ACCEPTED))
        }
        "DryRun" => {
            call.control().check_invoke(&reference).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        other => {
            let mut violations = Violations::default();
            violations.not_in("invocationType", other, &["Event", "RequestResponse", "DryRun"]);
            Err(violations.into_error())
        }
    }
}

fn request(call: &Call, trace_id: String, log_tail: bool) -> Result<InvokeRequest, ApiError> {
    Ok(InvokeRequest {
        request_id: call.request_id.to_string(),
        payload: payload(&call.body)?,
        client_context: call.header("x-amz-client-context").map(client_context).transpose()?,
        trace_id,
        log_tail,
    })
}

/// The event. No body at all means an empty object: runtimes parse what they get.
fn payload(body: &Bytes) -> Result<Bytes, ApiError> {
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let text = std::str::from_utf8(body).map_err(ApiError::payload_not_json)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(ApiError::payload_not_json)?;
    Ok(body.clone())
}

fn client_context(header: &str) -> Result<String, ApiError> {
    if header.len() > limits::CLIENT_CONTEXT_BYTES_MAX {
        return Err(ApiError::client_context_too_large(header.len()));
    }
    let bytes = BASE64_STANDARD.decode(header).map_err(ApiError::bad_client_context)?;
    let text = String::from_utf8(bytes).map_err(ApiError::bad_client_context)?;
    serde_json::from_str::<IgnoredAny>(&text).map_err(ApiError::bad_client_context)?;
    // It travels on to the runtime as a header, so it may not break lines.
    Ok(text.replace(['\r', '\n'], " "))
}

fn log_tail(call: &Call) -> Result<bool, ApiError> {
    match call.header("x-amz-log-type") {
        None | Some("None") => Ok(false),
        Some("Tail") => Ok(true),
        Some(other) => {
            let mut violations = Violations::default();
            violations.not_in("logType", other, &["None", "Tail"]);
            Err(violations.into_error())
        }
    }
}

fn answer(invoked: Invoked, trace_id: &str, wants_tail: bool) -> Response {
    let Invoked { outcome, version } = invoked;
    let mut response = respond::response(StatusCode::OK, outcome.payload.into());
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    set("x-amz-executed-version", &version.to_string());
    set("x-amzn-trace-id", trace_id);
    if let Some(kind) = outcome.function_error {
        set("x-amz-function-error", &kind);
    }
    if wants_tail {
        let from = outcome.log_tail.len().saturating_sub(limits::LOG_TAIL_BYTES_MAX);
        set("x-amz-log-result", &BASE64_STANDARD.encode(&outcome.log_tail[from..]));
    }
    response
}

/// The caller's trace header, or a new one in X-Ray's form.
fn trace_id(call: &Call) -> String {
    let given = call.header("x-amzn-trace-id").filter(|text| text.len() <= TRACE_BYTES_MAX);
    if let Some(given) = given {
        return given.to_owned();
    }
    let random = Uuid::new_v4().simple().to_string();
    let seconds = Timestamp::now().as_second();
    let (root, parent) = (&random[..24], &call.request_id.simple().to_string()[..16]);
    format!("Root=1-{seconds:08x}-{root};Parent={parent};Sampled=0")
}

/// The request's id is random enough to choose a version by: its last 53 bits as a number in [0, 1).
fn die(request_id: Uuid) -> f64 {
    const BITS: u32 = 53;
    let bits = request_id.as_u128() & ((1 << BITS) - 1);
    bits as f64 / (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_payload(body: &'static [u8], want: Result<&'static [u8], &str>) {
        match (payload(&Bytes::from_static(body)), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(error), Err(want)) => assert!(error.message.starts_with(want), "{error}"),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn events_are_json() {
        const BAD: &str = "Could not parse request body into json: Could not parse payload into json: ";
        check_payload(b"", Ok(b"{}"));
        check_payload(b" [1, \"a\"] ", Ok(b" [1, \"a\"] "));
        check_payload(b"{", Err(BAD));
        check_payload(b"{} {}", Err(BAD));
        check_payload(b"\"\xff\"", Err(BAD));
    }

    #[test]
    fn client_contexts_are_small_base64_json() {
        assert_eq!(client_context(&BASE64_STANDARD.encode("{\"a\":\n1}")), Ok("{\"a\": 1}".into()));
        assert!(client_context("%").is_err());
        assert!(client_context(&BASE64_STANDARD.encode("{")).is_err());
        assert!(client_context(&"A".repeat(3584)).is_err());
    }

    #[test]
    fn the_die_is_within_its_bounds() {
        assert_eq!(die(Uuid::nil()), 0.0);
        let most = die(Uuid::max());
        assert!(most < 1.0 && most > 0.999);
    }
}
