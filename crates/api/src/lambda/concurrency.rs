//! Reserved concurrency.

use axum::response::Response;
use http::StatusCode;
use model::error::ApiError;
use model::validation::Violations;
use serde::{Deserialize, Serialize};

use super::Call;
use crate::respond;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Concurrency {
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_concurrent_executions: Option<i64>,
}

pub(super) async fn get(call: Call) -> Result<Response, ApiError> {
    let reserved = call.control().reserved_concurrency(call.function()?).await?;
    let reserved_concurrent_executions = reserved.map(i64::from);
    respond::json(StatusCode::OK, &Concurrency { reserved_concurrent_executions })
}

pub(super) async fn put(call: Call) -> Result<Response, ApiError> {
    let request: Concurrency = call.json()?;
    if request.reserved_concurrent_executions.is_none() {
        let mut violations = Violations::default();
        violations.missing("reservedConcurrentExecutions");
        return Err(violations.into_error());
    }
    call.control().reserve_concurrency(call.function()?, request.reserved_concurrent_executions).await?;
    respond::json(StatusCode::OK, &request)
}

pub(super) async fn delete(call: Call) -> Result<Response, ApiError> {
    call.control().reserve_concurrency(call.function()?, None).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
