//! Published versions.

use axum::response::Response;
use http::StatusCode;
use model::error::ApiError;
use platform::control::PublishRequest;
use serde::{Deserialize, Serialize};

use super::Call;
use super::configuration::Configuration;
use crate::respond;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Publish {
    code_sha256: Option<String>,
    description: Option<String>,
    revision_id: Option<String>,
}

/// ListVersionsByFunction.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    versions: Vec<Configuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

pub(super) async fn publish(call: Call) -> Result<Response, ApiError> {
    let Publish { code_sha256, description, revision_id } = call.json()?;
    let request = PublishRequest { code_sha256, description, revision_id };
    let published = call.control().publish_version(call.function()?, request).await?;
    respond::json(StatusCode::CREATED, &Configuration::full(call.control().home(), published))
}

pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    let page = call.control().list_versions(call.function()?, &call.page()?).await?;
    let versions = page.items.into_iter().map(Configuration::listed).collect();
    respond::json(StatusCode::OK, &Versions { versions, next_marker: page.next_marker })
}
