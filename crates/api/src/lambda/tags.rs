//! Tags.

use std::collections::BTreeMap;

use axum::response::Response;
use http::StatusCode;
use model::error::ApiError;
use model::validation::Violations;
use serde::{Deserialize, Serialize};

use super::Call;
use crate::respond;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tags {
    tags: Option<BTreeMap<String, String>>,
}

pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    let tags = call.control().tags(call.function()?).await?;
    respond::json(StatusCode::OK, &Tags { tags: Some(tags) })
}

pub(super) async fn tag(call: Call) -> Result<Response, ApiError> {
    let Some(tags) = call.json::<Tags>()?.tags else { return Err(missing("tags")) };
    call.control().tag(call.function()?, tags).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn untag(call: Call) -> Result<Response, ApiError> {
    let keys = call.query_all("tagKeys");
    if keys.is_empty() {
        return Err(missing("tagKeys"));
    }
    call.control().untag(call.function()?, &keys).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

fn missing(field: &str) -> ApiError {
    let mut violations = Violations::default();
    violations.missing(field);
    violations.into_error()
}
