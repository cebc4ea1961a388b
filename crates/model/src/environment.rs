//! Environment variables of a function: which names and how much.
//!
//! Source of the rules: Lambda Developer Guide, configuration-envvars; the texts are recorded ones.

use std::collections::BTreeMap;

use crate::error::ApiError;
use crate::limits;
use crate::validation::Violations;
use crate::warm_up::WarmUp;

/// The names that the platform sets and a function may not.
const RESERVED: &[&str] = &[
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_METADATA_API",
    "AWS_LAMBDA_METADATA_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// Checks what a request wants as `Environment.Variables`.
///
/// # Errors
/// `ValidationException` for a malformed name, `InvalidParameterValueException` for reserved names, for too much and for
/// a bad declaration of warm-up events.
pub fn check(variables: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let reserved: Vec<&str> =
        variables.keys().map(String::as_str).filter(|name| RESERVED.contains(name)).collect();
    if !reserved.is_empty() {
        return Err(ApiError::invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have \
             provided contains reserved keys that are currently not supported for modification. Reserved keys used in \
             this request: {}",
            reserved.join(", ")
        )));
    }
    if !variables.keys().all(|name| is_name(name)) {
        let mut violations = Violations::default();
        violations.sentence(
            "Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member \
             must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
        );
        return Err(violations.into_error());
    }
    if variables.values().any(|value| value.contains('\0')) {
        return Err(ApiError::invalid("environment variables must not contain NUL characters"));
    }
    let measured = serde_json::to_string(variables).map_err(|_| ApiError::internal())?;
    if measured.len() > limits::ENVIRONMENT_BYTES_MAX {
        return Err(ApiError::invalid(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have \
             provided exceeded the 4KB limit. String measured: {measured}"
        )));
    }
    WarmUp::of(variables).map(drop)
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first_fits = bytes.next().is_some_and(|first| first.is_ascii_alphabetic());
    first_fits && text.len() >= 2 && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(name: &str, value: &str, want: Option<&str>) {
        let variables = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        match (super::check(&variables), want) {
            (Ok(()), None) => {}
            (Err(error), Some(want)) => assert!(error.message.contains(want), "{error}"),
            (got, want) => panic!("{name}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn names_and_sizes() {
        check_one("STAGE", "dev", None);
        check_one("AWS_REGION", "x", Some("Reserved keys used in this request: AWS_REGION"));
        check_one("1X", "x", Some("Map keys must satisfy constraint"));
        check_one("X", "x", Some("Map keys must satisfy constraint"));
        check_one("BIG", &"x".repeat(4097), Some("exceeded the 4KB limit. String measured: {\"BIG\":\"xxx"));
        check_one("NUL", "a\0b", Some("NUL"));
        check_one("REKINDLE_WARM_UP_EVENTS", "some", Some("REKINDLE_WARM_UP_EVENTS must be a whole number"));
    }
}
