//! Answers and errors as HTTP responses (protocol rest-json).

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use model::error::{ApiError, Exception};
use serde::Serialize;
use serde_json::{Map, Value};

/// The header that carries the request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// The header that names the exception; SDKs read it before the body.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// A JSON document with this status.
///
/// # Errors
/// `ServiceException` when the document cannot be written, which would be a defect of its type.
pub(crate) fn json(status: StatusCode, document: &impl Serialize) -> Result<Response, ApiError> {
    let text = serde_json::to_vec(document).map_err(|_| ApiError::internal())?;
    Ok(response(status, text.into()))
}

/// No content.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A JSON body that is written already.
pub(crate) fn response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error as AWS writes it: `{"Type":"User","message":"..."}`, the exception's name in a header.
pub(crate) fn error(error: &ApiError) -> Response {
    let exception = error.exception;
    let mut document = Map::new();
    if let Some(reason) = error.reason {
        document.insert("Reason".into(), reason.into());
    }
    if let Some(fault) = exception.fault() {
        document.insert("Type".into(), fault.into());
    }
    document.insert(exception.message_key().into(), Value::String(error.message.clone()));
    let status = StatusCode::from_u16(exception.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = response(status, Value::Object(document).to_string().into());
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(exception.name()));
    if exception == Exception::TooManyRequests {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
