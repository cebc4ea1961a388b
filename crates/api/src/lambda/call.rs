//! One authenticated request with its parts at hand.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HOST;
use http::request::Parts;
use jiff::Timestamp;
use model::error::{ApiError, Exception};
use model::function::Sha256;
use model::limits;
use model::names::{AliasName, FunctionReference, Version};
use platform::control::{Control, PageRequest};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::routes::{Route, percent_decode};
use crate::server::Shared;

/// A request on its way to its operation.
pub(crate) struct Call {
    shared: Arc<Shared>,
    pub(crate) route: Route,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) request_id: Uuid,
    query: Vec<(String, String)>,
}

impl Call {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        route: Route,
        parts: Parts,
        body: Bytes,
        request_id: Uuid,
    ) -> Result<Self, ApiError> {
        let query = parse_query(parts.uri.query().unwrap_or_default())?;
        Ok(Self { shared: shared.clone(), route, headers: parts.headers, body, request_id, query })
    }

    pub(crate) fn control(&self) -> &Control {
        &self.shared.control
    }

    /// A query parameter; of several with one name, the first.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All query parameters with this name.
    pub(crate) fn query_all(&self, name: &str) -> Vec<String> {
        self.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// The function named in the path, with the query parameter `Qualifier`.
    pub(crate) fn function(&self) -> Result<FunctionReference, ApiError> {
        FunctionReference::parse(self.control().home(), self.parameter(0), self.query("Qualifier"))
    }

    /// The alias named in the path.
    pub(crate) fn alias(&self) -> Result<AliasName, ApiError> {
        AliasName::parse(self.parameter(1), "name")
    }

    /// The query parameter `FunctionVersion` of ListAliases.
    pub(crate) fn function_version(&self) -> Result<Option<Version>, ApiError> {
        self.query("FunctionVersion").map(|text| Version::parse(text, "functionVersion")).transpose()
    }

    /// The query parameters `Marker` and `MaxItems`.
    pub(crate) fn page(&self) -> Result<PageRequest, ApiError> {
        let max_items = self.query("MaxItems").map(|text| text.parse::<i64>()).transpose();
        let max_items = max_items.map_err(|_| {
            ApiError::new(Exception::Serialization, "MaxItems can not be converted to an Integer")
        })?;
        Ok(PageRequest { marker: self.query("Marker").map(str::to_owned), max_items })
    }

    /// The JSON body; an empty one counts as `{}`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let text: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(text).map_err(|cause| {
            ApiError::new(
                Exception::Serialization,
                format!("Could not parse request body into json: {cause}"),
            )
        })
    }

    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Where this package can be downloaded, under the name by which the caller knows this server.
    pub(crate) fn code_location(&self, sha256: &Sha256) -> String {
        let host = self.header(HOST.as_str()).unwrap_or("127.0.0.1");
        self.shared.download.location(host, sha256, Timestamp::now())
    }

    fn parameter(&self, index: usize) -> &str {
        self.route.parameters.get(index).map_or("", String::as_str)
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let broken = || ApiError::new(Exception::Serialization, "the query string cannot be read");
    let decode = |text: &str| percent_decode(&text.replace('+', " ")).ok_or_else(broken);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    if pairs.clone().count() > limits::QUERY_PARAMETERS_MAX {
        return Err(broken());
    }
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}
