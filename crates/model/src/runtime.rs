//! Runtime identifiers: which ones are known, and which ones AWS once had.
//!
//! Deliberately absent: whether a runtime is installed on this machine (`platform::runtimes`) and how it is started.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// The identifiers that may be given to a function. Older ones and those that AWS has in container images only are among
/// them: any interpreter that is installed can run.
pub const KNOWN: &[&str] = &[
    "nodejs18.x",
    "nodejs20.x",
    "nodejs22.x",
    "nodejs24.x",
    "java11",
    "java17",
    "java21",
    "java25",
    "python3.8",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "python3.15",
    "dotnet8",
    "dotnet9",
    "dotnet10",
    "ruby3.1",
    "ruby3.2",
    "ruby3.3",
    "ruby3.4",
    "ruby4.0",
    "provided.al2",
    "provided.al2023",
];

/// The identifiers that AWS refuses by now, in words of their own.
const RETIRED: &[&str] = &[
    "nodejs",
    "nodejs4.3",
    "nodejs4.3-edge",
    "nodejs6.10",
    "nodejs8.10",
    "nodejs10.x",
    "nodejs12.x",
    "nodejs14.x",
    "nodejs16.x",
    "java8",
    "java8.al2",
    "python2.7",
    "python3.6",
    "python3.7",
    "dotnetcore1.0",
    "dotnetcore2.0",
    "dotnetcore2.1",
    "dotnetcore3.1",
    "dotnet6",
    "go1.x",
    "ruby2.5",
    "ruby2.7",
    "provided",
];

/// A known runtime identifier, such as `python3.12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuntimeId(String);

impl RuntimeId {
    /// Reads the member `Runtime`.
    ///
    /// # Errors
    /// `InvalidParameterValueException`, in AWS's words, for an unknown and for a retired identifier.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if KNOWN.contains(&text) {
            return Ok(Self(text.into()));
        }
        if RETIRED.contains(&text) {
            return Err(ApiError::runtime_retired(text));
        }
        Err(ApiError::invalid(format!(
            "Value {text} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{}] or be a \
             valid ARN",
            KNOWN.join(", ")
        )))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RuntimeId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_retired_runtimes_are_told_apart() {
        assert!(RuntimeId::parse("python3.12").is_ok());
        let unknown = RuntimeId::parse("foo").expect_err("not a runtime").message;
        assert!(unknown.starts_with("Value foo at 'runtime' failed to satisfy constraint"), "{unknown}");
        let retired = RuntimeId::parse("python3.7").expect_err("retired").message;
        assert!(
            retired.starts_with("The runtime parameter of python3.7 is no longer supported"),
            "{retired}"
        );
    }
}
