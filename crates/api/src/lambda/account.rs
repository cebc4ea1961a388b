//! The account, and what deployment tools ask of every function although the true answer is always the same here: no
//! code signing, no policy, runtimes that the owner of the server updates.

use axum::response::Response;
use http::StatusCode;
use model::error::ApiError;
use model::limits;
use serde_json::json;

use super::Call;
use crate::respond;

pub(super) async fn settings(call: Call) -> Result<Response, ApiError> {
    let settings = call.control().account_settings().await?;
    let document = json!({
        "AccountLimit": {
            "CodeSizeUnzipped": limits::CODE_UNZIPPED_BYTES_MAX,
            "CodeSizeZipped": limits::CODE_ZIPPED_BYTES_MAX,
            "ConcurrentExecutions": limits::CONCURRENT_EXECUTIONS_MAX,
            "TotalCodeSize": limits::CODE_TOTAL_BYTES_MAX,
            "UnreservedConcurrentExecutions": settings.unreserved_concurrency,
        },
        "AccountUsage": {
            "FunctionCount": settings.function_count,
            "TotalCodeSize": settings.code_bytes,
        },
    });
    respond::json(StatusCode::OK, &document)
}

pub(super) async fn code_signing(call: Call) -> Result<Response, ApiError> {
    let described = call.control().function(&call.function()?).await?;
    respond::json(StatusCode::OK, &json!({ "FunctionName": described.record.name }))
}

pub(super) async fn runtime_management(call: Call) -> Result<Response, ApiError> {
    let described = call.control().function(&call.function()?).await?;
    respond::json(StatusCode::OK, &json!({ "FunctionArn": described.arn, "UpdateRuntimeOn": "Auto" }))
}

pub(super) async fn recursion(call: Call) -> Result<Response, ApiError> {
    call.control().function(&call.function()?).await?;
    respond::json(StatusCode::OK, &json!({ "RecursiveLoop": "Terminate" }))
}

pub(super) async fn policy(call: Call) -> Result<Response, ApiError> {
    call.control().function(&call.function()?).await?;
    Err(ApiError::no_policy())
}
