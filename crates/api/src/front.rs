//! What happens to every request before its operation: id, route, signature, body.
//!
//! Order matters: the headers of the signature are checked before the body is read, and the body is bounded by its
//! operation's limit before it is kept. A body over the limit is read and thrown away for a while, because a client
//! whose connection is reset while it still sends never gets to read the refusal.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use model::error::{ApiError, Exception};
use model::limits;
use uuid::Uuid;

use crate::auth::Auth;
use crate::lambda::{self, Call};
use crate::respond::{self, REQUEST_ID};
use crate::routes::{self, Operation};
use crate::server::Shared;
use crate::sigv4::{Claim, Signed};

/// Bodies above this are hashed off the runtime's threads.
const HASH_INLINE_BYTES_MAX: usize = 1024 * 1024;

/// Answers one request of the Lambda API.
pub(crate) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let request_id = Uuid::new_v4();
    let answered = answer(shared, request, request_id).await;
    let mut response = answered.unwrap_or_else(|error| {
        tracing::debug!(%request_id, %error, "request refused");
        respond::error(&error)
    });
    if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn answer(shared: Arc<Shared>, request: Request, request_id: Uuid) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let claim = match &shared.auth {
        Auth::None => {
            check_origin(&parts.headers)?;
            None
        }
        Auth::Keys(credentials) => Some(Claim::read(&parts.headers, credentials, Timestamp::now())?),
    };
    let route = routes::find(&parts.method, parts.uri.path()).ok_or_else(|| unknown(&parts))?;
    let large = route.operation.body_bytes_max() > limits::INVOKE_PAYLOAD_BYTES_MAX;
    let _slot = match large {
        true => shared.large_bodies.acquire().await.ok(),
        false => None,
    };
    let body = read_body(&parts.headers, body, route.operation).await?;
    if let (Some(claim), Auth::Keys(credentials)) = (claim, &shared.auth) {
        let sha256 = sha256(&body).await?;
        let signed = Signed {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
        };
        claim.verify(credentials, signed, sha256.as_ref())?;
    }
    let call = Call::new(&shared, route, parts, body, request_id)?;
    lambda::dispatch(call).await
}

/// Without signatures, any web page that a local browser shows could call; browsers tell where a page comes from.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let place = origin.as_bytes().split(|byte| *byte == b'/').next_back();
    if place == headers.get(HOST).map(HeaderValue::as_bytes) {
        return Ok(());
    }
    let text = "web pages of other places may not call a server that checks no signatures";
    Err(ApiError::new(Exception::AccessDenied, text))
}

fn unknown(parts: &Parts) -> ApiError {
    let (method, path) = (&parts.method, parts.uri.path());
    tracing::info!(%method, path, "unknown operation");
    ApiError::new(
        Exception::UnknownOperation,
        format!("{method} {path} is no operation of the Lambda API that this server has"),
    )
}

async fn read_body(headers: &HeaderMap, body: Body, operation: Operation) -> Result<Bytes, ApiError> {
    let patience = Duration::from_secs(limits::REQUEST_BODY_S_MAX);
    match tokio::time::timeout(patience, collect(headers, body, operation)).await {
        Ok(collected) => collected,
        Err(_) => {
            Err(ApiError::new(Exception::InvalidRequestContent, "the request body took too long to arrive"))
        }
    }
}

async fn collect(headers: &HeaderMap, mut body: Body, operation: Operation) -> Result<Bytes, ApiError> {
    let limit = operation.body_bytes_max();
    let too_large = || ApiError::request_too_large(limit, &operation.name());
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        // Who asks first ("Expect: 100-continue") has not begun to send.
        if !headers.contains_key(EXPECT) {
            drain(&mut body, limits::REQUEST_DRAIN_BYTES_MAX).await;
        }
        return Err(too_large());
    }
    let mut collected = BytesMut::with_capacity(length.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| {
            ApiError::new(
                Exception::InvalidRequestContent,
                format!("the request body cannot be read: {cause}"),
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > limit {
            drop(collected);
            drain(&mut body, limits::REQUEST_DRAIN_BYTES_MAX).await;
            return Err(too_large());
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

async fn drain(body: &mut Body, mut left: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

async fn sha256(body: &Bytes) -> Result<digest::Digest, ApiError> {
    if body.len() <= HASH_INLINE_BYTES_MAX {
        return Ok(digest::digest(&digest::SHA256, body));
    }
    let body = body.clone();
    let hashed = tokio::task::spawn_blocking(move || digest::digest(&digest::SHA256, &body)).await;
    hashed.map_err(|_| ApiError::internal())
}
