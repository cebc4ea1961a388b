//! Functions: create, read, update, delete, list.

use axum::response::Response;
use http::StatusCode;
use model::error::ApiError;
use model::function::{FunctionExtras, Sha256};
use model::names::FunctionReference;
use model::validation::Violations;
use platform::control::{CodeUpdate, Described, FunctionDetails, NewFunction};
use serde::Serialize;
use std::collections::BTreeMap;

use super::Call;
use super::configuration::Configuration;
use super::requests;
use crate::respond;

/// GetFunction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Function {
    configuration: Configuration,
    code: CodeLocation,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<Concurrency>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CodeLocation {
    repository_type: &'static str,
    location: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Concurrency {
    reserved_concurrent_executions: u32,
}

/// ListFunctions.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Functions {
    functions: Vec<Configuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

pub(super) async fn create(call: Call) -> Result<Response, ApiError> {
    let mut request: requests::Function = call.json()?;
    let mut violations = Violations::default();
    for (field, missing) in [
        ("functionName", request.function_name.is_none()),
        ("role", request.role.is_none()),
        ("code", request.code.is_none()),
    ] {
        if missing {
            violations.missing(field);
        }
    }
    if let Some(package_type) =
        request.package_type.as_deref().filter(|kind| !["Zip", "Image"].contains(kind))
    {
        violations.not_in("packageType", package_type, &["Zip", "Image"]);
    }
    violations.into_result()?;
    if request.package_type.as_deref() == Some("Image") {
        return Err(ApiError::unsupported("PackageType Image", "send the code as a zip package"));
    }
    let name = request.function_name.take().unwrap_or_default();
    let new = NewFunction {
        reference: FunctionReference::parse(call.control().home(), &name, None)?,
        zip: request.code.take().unwrap_or_default().into_zip()?,
        publish: request.publish.unwrap_or(false),
        tags: request.tags.take().unwrap_or_default(),
        settings: request.settings()?,
    };
    let created = call.control().create_function(new).await?;
    configuration(&call, StatusCode::CREATED, created)
}

pub(super) async fn get(call: Call) -> Result<Response, ApiError> {
    let FunctionDetails { described, extras } = call.control().function_details(&call.function()?).await?;
    let FunctionExtras { tags, reserved_concurrency } = extras;
    let code = location(&call, &described.record.code.sha256);
    let concurrency =
        reserved_concurrency.map(|reserved| Concurrency { reserved_concurrent_executions: reserved });
    let configuration = Configuration::full(call.control().home(), described);
    respond::json(StatusCode::OK, &Function { configuration, code, tags, concurrency })
}

pub(super) async fn get_configuration(call: Call) -> Result<Response, ApiError> {
    let described = call.control().function(&call.function()?).await?;
    configuration(&call, StatusCode::OK, described)
}

pub(super) async fn update_code(call: Call) -> Result<Response, ApiError> {
    let reference = call.function()?;
    let request: requests::UpdateCode = call.json()?;
    let update = CodeUpdate {
        zip: request.code.into_zip()?,
        architectures: request.architectures,
        publish: request.publish.unwrap_or(false),
        dry_run: request.dry_run.unwrap_or(false),
        revision_id: request.revision_id,
    };
    let updated = call.control().update_code(reference, update).await?;
    configuration(&call, StatusCode::OK, updated)
}

pub(super) async fn update_configuration(call: Call) -> Result<Response, ApiError> {
    let reference = call.function()?;
    let mut request: requests::Function = call.json()?;
    let revision_id = request.revision_id.take();
    let settings = request.settings()?;
    let updated = call.control().update_configuration(reference, settings, revision_id.as_deref()).await?;
    configuration(&call, StatusCode::OK, updated)
}

pub(super) async fn delete(call: Call) -> Result<Response, ApiError> {
    call.control().delete_function(call.function()?).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    let published = match call.query("FunctionVersion") {
        None => false,
        Some("ALL") => true,
        Some(other) => {
            let mut violations = Violations::default();
            violations.not_in("functionVersion", other, &["ALL"]);
            return Err(violations.into_error());
        }
    };
    let page = call.control().list_functions(published, &call.page()?).await?;
    let functions = page.items.into_iter().map(Configuration::listed).collect();
    respond::json(StatusCode::OK, &Functions { functions, next_marker: page.next_marker })
}

fn configuration(call: &Call, status: StatusCode, described: Described) -> Result<Response, ApiError> {
    respond::json(status, &Configuration::full(call.control().home(), described))
}

fn location(call: &Call, sha256: &Sha256) -> CodeLocation {
    CodeLocation { repository_type: "S3", location: call.code_location(sha256) }
}
