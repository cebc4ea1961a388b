//! Aliases.

use std::collections::BTreeMap;

use axum::response::Response;
use http::StatusCode;
use model::alias::AliasRecord;
use model::error::ApiError;
use model::names::{AliasName, Home, Version};
use model::validation::Violations;
use platform::control::{AliasChange, NewAlias};
use serde::{Deserialize, Serialize};

use super::Call;
use crate::respond;

/// CreateAlias and UpdateAlias.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    name: Option<String>,
    function_version: Option<String>,
    description: Option<String>,
    routing_config: Option<RoutingRequest>,
    revision_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RoutingRequest {
    additional_version_weights: Option<BTreeMap<String, f64>>,
}

/// `AliasConfiguration`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Alias {
    alias_arn: String,
    name: String,
    function_version: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing_config: Option<RoutingConfig>,
    revision_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RoutingConfig {
    additional_version_weights: BTreeMap<String, f64>,
}

/// ListAliases.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Aliases {
    aliases: Vec<Alias>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

pub(super) async fn create(call: Call) -> Result<Response, ApiError> {
    let request: Request = call.json()?;
    let mut violations = Violations::default();
    if request.name.is_none() {
        violations.missing("name");
    }
    if request.function_version.is_none() {
        violations.missing("functionVersion");
    }
    violations.into_result()?;
    let new = NewAlias {
        name: AliasName::parse(&request.name.unwrap_or_default(), "name")?,
        version: Version::parse(&request.function_version.unwrap_or_default(), "functionVersion")?,
        description: request.description.unwrap_or_default(),
        weights: request.routing_config.and_then(|r| r.additional_version_weights).unwrap_or_default(),
    };
    let alias = call.control().create_alias(call.function()?, new).await?;
    respond::json(StatusCode::CREATED, &Alias::new(call.control().home(), alias))
}

pub(super) async fn get(call: Call) -> Result<Response, ApiError> {
    let alias = call.control().alias(call.function()?, &call.alias()?).await?;
    respond::json(StatusCode::OK, &Alias::new(call.control().home(), alias))
}

pub(super) async fn update(call: Call) -> Result<Response, ApiError> {
    let request: Request = call.json()?;
    let version = request.function_version.as_deref();
    let change = AliasChange {
        version: version.map(|text| Version::parse(text, "functionVersion")).transpose()?,
        description: request.description,
        weights: request.routing_config.map(|r| r.additional_version_weights.unwrap_or_default()),
        revision_id: request.revision_id,
    };
    let alias = call.control().update_alias(call.function()?, &call.alias()?, change).await?;
    respond::json(StatusCode::OK, &Alias::new(call.control().home(), alias))
}

pub(super) async fn delete(call: Call) -> Result<Response, ApiError> {
    call.control().delete_alias(call.function()?, &call.alias()?).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    let version = call.function_version()?;
    let page = call.control().list_aliases(call.function()?, version, &call.page()?).await?;
    let home = call.control().home();
    let aliases = page.items.into_iter().map(|alias| Alias::new(home, alias)).collect();
    respond::json(StatusCode::OK, &Aliases { aliases, next_marker: page.next_marker })
}

impl Alias {
    fn new(home: &Home, alias: AliasRecord) -> Self {
        Self {
            alias_arn: home.qualified_arn(&alias.function, &alias.name),
            name: alias.name.to_string(),
            function_version: alias.version.to_string(),
            description: alias.description,
            routing_config: alias.routing.map(|share| RoutingConfig {
                additional_version_weights: [(share.version.to_string(), share.weight)].into(),
            }),
            revision_id: alias.revision_id.to_string(),
        }
    }
}
