//! Every error that an API caller can be told, in one place: its name, its HTTP status, its text and the shape of its
//! document.
//!
//! The texts are those that AWS answers, where they are on record; they are quoted exactly, because tools match on
//! them. What only the log may say does not belong here: internal failures become [`ApiError::internal`].
//! Deliberately absent: HTTP types. The status is a plain number.

use crate::names::{AliasName, FunctionName, Home, Version};

/// The exceptions that this server raises. Names and statuses are those of the Lambda service model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the exceptions' names without the word Exception")]
pub enum Exception {
    AccessDenied,
    CodeSigningConfigNotFound,
    CodeStorageExceeded,
    IncompleteSignature,
    InvalidParameterValue,
    InvalidRequestContent,
    InvalidRuntime,
    InvalidSignature,
    MissingAuthenticationToken,
    PreconditionFailed,
    RequestEntityTooLarge,
    ResourceConflict,
    ResourceNotFound,
    Serialization,
    Service,
    SnapStart,
    SnapStartTimeout,
    TooManyRequests,
    UnknownOperation,
    UnrecognizedClient,
    Validation,
}

impl Exception {
    /// The full name, as in the header `x-amzn-ErrorType`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::CodeSigningConfigNotFound => "CodeSigningConfigNotFoundException",
            Self::CodeStorageExceeded => "CodeStorageExceededException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::InvalidParameterValue => "InvalidParameterValueException",
            Self::InvalidRequestContent => "InvalidRequestContentException",
            Self::InvalidRuntime => "InvalidRuntimeException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::PreconditionFailed => "PreconditionFailedException",
            Self::RequestEntityTooLarge => "RequestEntityTooLargeException",
            Self::ResourceConflict => "ResourceConflictException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Serialization => "SerializationException",
            Self::Service => "ServiceException",
            Self::SnapStart => "SnapStartException",
            Self::SnapStartTimeout => "SnapStartTimeoutException",
            Self::TooManyRequests => "TooManyRequestsException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::Validation => "ValidationException",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::CodeStorageExceeded
            | Self::IncompleteSignature
            | Self::InvalidParameterValue
            | Self::InvalidRequestContent
            | Self::Serialization
            | Self::SnapStart
            | Self::Validation => 400,
            Self::AccessDenied
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken
            | Self::UnrecognizedClient => 403,
            Self::CodeSigningConfigNotFound | Self::ResourceNotFound | Self::UnknownOperation => 404,
            Self::SnapStartTimeout => 408,
            Self::ResourceConflict => 409,
            Self::PreconditionFailed => 412,
            Self::RequestEntityTooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Service => 500,
            Self::InvalidRuntime => 502,
        }
    }

    /// The key of the text in the error document. AWS spells it both ways; typed SDKs fill only the modeled one.
    pub fn message_key(self) -> &'static str {
        match self {
            Self::CodeStorageExceeded
            | Self::IncompleteSignature
            | Self::InvalidParameterValue
            | Self::InvalidRequestContent
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken
            | Self::PreconditionFailed
            | Self::ResourceConflict
            | Self::Serialization
            | Self::TooManyRequests
            | Self::UnrecognizedClient
            | Self::Validation => "message",
            Self::AccessDenied
            | Self::CodeSigningConfigNotFound
            | Self::InvalidRuntime
            | Self::RequestEntityTooLarge
            | Self::ResourceNotFound
            | Self::Service
            | Self::SnapStart
            | Self::SnapStartTimeout
            | Self::UnknownOperation => "Message",
        }
    }

    /// The value of the key `Type`, or `None` for the errors of the front end, which carry none.
    pub fn fault(self) -> Option<&'static str> {
        match self {
            Self::AccessDenied
            | Self::IncompleteSignature
            | Self::InvalidSignature
            | Self::MissingAuthenticationToken
            | Self::RequestEntityTooLarge
            | Self::UnrecognizedClient
            | Self::UnknownOperation
            | Self::Validation => None,
            _ if self.status() >= 500 => Some("Service"),
            _ => Some("User"),
        }
    }
}

/// An error as the caller is told it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", exception.name())]
pub struct ApiError {
    /// Which exception.
    pub exception: Exception,
    /// Its text.
    pub message: String,
    /// The member `Reason` of `TooManyRequestsException`.
    pub reason: Option<&'static str>,
}

impl ApiError {
    /// Any exception with any text; the constructors below hold the recorded ones.
    pub fn new(exception: Exception, message: impl Into<String>) -> Self {
        Self { exception, message: message.into(), reason: None }
    }

    /// `InvalidParameterValueException` with this text.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exception::InvalidParameterValue, message)
    }

    /// Something that AWS offers and this server does not (yet).
    pub fn unsupported(what: &str, instead: &str) -> Self {
        Self::invalid(format!("{what} is not supported by this server: {instead}"))
    }

    /// An internal failure. The cause goes to the log, not to the caller.
    pub fn internal() -> Self {
        Self::new(Exception::Service, "The service encountered an internal error. Please try again.")
    }

    /// An internal failure whose cause the owner of this server can act on.
    pub fn service(message: impl Into<String>) -> Self {
        Self::new(Exception::Service, message)
    }
}

/// Names and where they lead.
impl ApiError {
    /// No such function, version or alias; `arn` is written as the caller addressed it.
    pub fn function_not_found(arn: impl std::fmt::Display) -> Self {
        Self::new(Exception::ResourceNotFound, format!("Function not found: {arn}"))
    }

    /// A bare name of more than 64 characters.
    pub fn name_too_long(name: &str) -> Self {
        Self::invalid(format!(
            "1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: Member \
             must have length less than or equal to 64"
        ))
    }

    /// The name's suffix and the query parameter disagree.
    pub fn qualifier_mismatch() -> Self {
        Self::invalid("The derived qualifier from the function name does not match the specified qualifier.")
    }

    /// An ARN of another region.
    pub fn other_region(theirs: &str, ours: &str) -> Self {
        Self::new(
            Exception::ResourceNotFound,
            format!("Functions from '{theirs}' are not reachable in this region ('{ours}')"),
        )
    }

    /// An ARN of another account.
    pub fn other_account(theirs: &str, ours: &str) -> Self {
        Self::new(
            Exception::AccessDenied,
            format!("functions of account {theirs} are not reachable: this server is account {ours}"),
        )
    }

    /// A qualified name where only the function itself can be meant.
    pub fn unqualified_only() -> Self {
        Self::invalid(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this \
             operation. Please specify either a function name or an unqualified function ARN.",
        )
    }

    /// Tags on something other than a function.
    pub fn tags_on_qualified() -> Self {
        Self::invalid(
            "Tags on function aliases and versions are not supported. Please specify a function ARN.",
        )
    }

    /// More than 50 tags.
    pub fn too_many_tags() -> Self {
        Self::invalid("Number of tags exceeds resource tag limit.")
    }
}

/// Functions, versions and their code.
impl ApiError {
    /// CreateFunction of a name that exists.
    pub fn function_exists(name: &FunctionName) -> Self {
        Self::new(Exception::ResourceConflict, format!("Function already exist: {name}"))
    }

    /// DeleteFunction with `Qualifier=$LATEST`.
    pub fn latest_cannot_be_deleted() -> Self {
        Self::invalid("$LATEST version cannot be deleted without deleting the function.")
    }

    /// DeleteFunction of a version that aliases point at.
    pub fn version_in_use(arn: &str, aliases: &str) -> Self {
        Self::new(
            Exception::ResourceConflict,
            format!("Version {arn} cannot be deleted because aliases point to it: {aliases}"),
        )
    }

    /// An update while another one is under way.
    pub fn update_in_progress(arn: &str) -> Self {
        Self::new(
            Exception::ResourceConflict,
            format!(
                "The operation cannot be performed at this time. An update is in progress for resource: {arn}"
            ),
        )
    }

    /// An operation on a function or version in the wrong state.
    pub fn wrong_state(state: &str) -> Self {
        Self::new(
            Exception::ResourceConflict,
            format!(
                "The operation cannot be performed at this time. The function is currently in the following \
                 state: {state}"
            ),
        )
    }

    /// An alias for a version that failed.
    pub fn failed_version(arn: &str, code: &str) -> Self {
        Self::new(
            Exception::ResourceConflict,
            format!("The version {arn} is in the state Failed (StateReasonCode: {code}) and cannot be used."),
        )
    }

    /// `RevisionId` is not the current one.
    pub fn revision_mismatch() -> Self {
        Self::new(
            Exception::PreconditionFailed,
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to \
             retrieve the latest Revision Id",
        )
    }

    /// `CodeSha256` of PublishVersion is not that of `$LATEST`.
    pub fn code_sha256_mismatch(given: &str, current: &str) -> Self {
        Self::invalid(format!(
            "CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({current}). Please try again \
             with the CodeSHA256 in $LATEST."
        ))
    }

    /// The package is no zip archive, or one that must not be unpacked.
    pub fn bad_zip() -> Self {
        Self::invalid("Could not unzip uploaded file. Please check your file, then try to upload again.")
    }

    /// A zip archive of zero bytes.
    pub fn empty_zip() -> Self {
        Self::invalid("Uploaded file must be a non-empty zip")
    }

    /// The package unpacks to too much.
    pub fn unzipped_too_large() -> Self {
        Self::invalid(format!(
            "Unzipped size must be smaller than {} bytes",
            crate::limits::CODE_UNZIPPED_BYTES_MAX
        ))
    }

    /// The package itself is too large for a direct upload.
    pub fn zipped_too_large() -> Self {
        Self::new(
            Exception::RequestEntityTooLarge,
            format!("Zipped size must be smaller than {} bytes", crate::limits::CODE_ZIPPED_BYTES_MAX),
        )
    }

    /// All packages together are too large.
    pub fn code_storage_exceeded() -> Self {
        Self::new(Exception::CodeStorageExceeded, "Code storage limit exceeded.")
    }

    /// The request body is too large.
    pub fn request_too_large(limit_bytes: usize, operation: &str) -> Self {
        Self::new(
            Exception::RequestEntityTooLarge,
            format!("Request must be smaller than {limit_bytes} bytes for the {operation} operation"),
        )
    }

    /// The payload of an asynchronous invocation is too large.
    pub fn event_too_large(bytes: usize) -> Self {
        Self::new(
            Exception::RequestEntityTooLarge,
            format!(
                "{bytes} byte payload is too large for the Event invocation type (limit {} bytes)",
                crate::limits::EVENT_PAYLOAD_BYTES_MAX
            ),
        )
    }

    /// A runtime identifier that Lambda once had.
    pub fn runtime_retired(runtime: &str) -> Self {
        Self::invalid(format!(
            "The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda \
             functions. We recommend you use a supported runtime while creating or updating functions."
        ))
    }

    /// A runtime that this server knows but has not installed.
    pub fn runtime_not_installed(runtime: &str) -> Self {
        Self::invalid(format!(
            "The runtime {runtime} is not installed on this server. Run `rekindle runtime install {runtime}` on it \
             first."
        ))
    }

    /// SnapStart on something that cannot have it; `what` is a runtime identifier or the like.
    pub fn snap_start_unsupported(what: &str) -> Self {
        Self::invalid(format!("{what} is not supported for SnapStart enabled functions."))
    }

    /// A layer that does not exist.
    pub fn layer_not_found(arn: &str) -> Self {
        Self::invalid(format!("Layer version {arn} does not exist."))
    }

    /// A code signing configuration that does not exist, named in CreateFunction.
    pub fn code_signing_config_not_found(arn: &str) -> Self {
        Self::new(
            Exception::CodeSigningConfigNotFound,
            format!(
                "The code signing configuration cannot be found. Check that the provided configuration is not \
                 deleted: {arn}."
            ),
        )
    }

    /// GetPolicy of a function that has none.
    pub fn no_policy() -> Self {
        Self::new(Exception::ResourceNotFound, "The resource you requested does not exist.")
    }

    /// Too much concurrency is reserved.
    pub fn reservation_too_large() -> Self {
        Self::invalid(format!(
            "Specified ReservedConcurrentExecutions for function decreases account's \
             UnreservedConcurrentExecution below its minimum value of [{}].",
            crate::limits::UNRESERVED_EXECUTIONS_MIN
        ))
    }
}

/// Aliases.
impl ApiError {
    /// No such alias, on GetAlias.
    pub fn alias_not_found(home: &Home, function: &FunctionName, alias: &AliasName) -> Self {
        let arn = home.qualified_arn(function, alias.as_str());
        Self::new(Exception::ResourceNotFound, format!("Cannot find alias arn: {arn}"))
    }

    /// No such alias, on UpdateAlias.
    pub fn alias_not_found_on_update(home: &Home, function: &FunctionName, alias: &AliasName) -> Self {
        let arn = home.qualified_arn(function, alias.as_str());
        Self::new(Exception::ResourceNotFound, format!("Alias not found: {arn}"))
    }

    /// The alias exists.
    pub fn alias_exists(home: &Home, function: &FunctionName, alias: &AliasName) -> Self {
        let arn = home.qualified_arn(function, alias.as_str());
        Self::new(Exception::ResourceConflict, format!("Alias already exists: {arn}"))
    }

    /// Weights on an alias whose version is `$LATEST`.
    pub fn weights_on_latest() -> Self {
        Self::invalid("$LATEST is not supported for an alias pointing to more than 1 version")
    }

    /// A weight for the alias's own version.
    pub fn weight_for_same_version(version: Version) -> Self {
        Self::invalid(format!(
            "Invalid function version {version}. Function version {version} is already included in routing \
             configuration."
        ))
    }

    /// More than one additional version.
    pub fn too_many_weights() -> Self {
        Self::invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
    }
}

/// Invoke.
impl ApiError {
    /// The payload is not JSON.
    pub fn payload_not_json(detail: impl std::fmt::Display) -> Self {
        Self::new(
            Exception::InvalidRequestContent,
            format!("Could not parse request body into json: Could not parse payload into json: {detail}"),
        )
    }

    /// The client context cannot be used.
    pub fn bad_client_context(detail: impl std::fmt::Display) -> Self {
        Self::new(
            Exception::InvalidRequestContent,
            format!("Client context must be a valid Base64-encoded JSON object: {detail}"),
        )
    }

    /// The client context is too long.
    pub fn client_context_too_large(bytes: usize) -> Self {
        Self::new(
            Exception::InvalidRequestContent,
            format!(
                "Client context must be no more than {} bytes, but {bytes} were given",
                crate::limits::CLIENT_CONTEXT_BYTES_MAX
            ),
        )
    }

    /// An after-restore hook failed.
    pub fn after_restore_hook(message: impl Into<String>) -> Self {
        Self::new(Exception::SnapStart, message)
    }

    /// The restore took too long.
    pub fn restore_timeout() -> Self {
        Self::new(
            Exception::SnapStartTimeout,
            "Lambda couldn't restore the snapshot within the timeout limit.",
        )
    }

    /// Too many invocations at one time; `reason` is a value of the enum `ThrottleReason`.
    pub fn throttled(reason: &'static str) -> Self {
        Self { exception: Exception::TooManyRequests, message: "Rate Exceeded.".into(), reason: Some(reason) }
    }
}

/// Signatures.
impl ApiError {
    /// The request carries no signature.
    pub fn missing_authentication() -> Self {
        Self::new(Exception::MissingAuthenticationToken, "Missing Authentication Token")
    }

    /// The access key is not this server's.
    pub fn unknown_access_key() -> Self {
        Self::new(Exception::UnrecognizedClient, "The security token included in the request is invalid.")
    }

    /// The signature is not the one that the secret gives.
    pub fn wrong_signature() -> Self {
        Self::new(
            Exception::InvalidSignature,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttles_are_retryable_and_name_their_reason() {
        let error = ApiError::throttled("ReservedFunctionConcurrentInvocationLimitExceeded");
        assert_eq!(error.exception.status(), 429);
        assert_eq!(error.exception.fault(), Some("User"));
        assert_eq!(error.message, "Rate Exceeded.");
    }

    #[test]
    fn front_end_errors_carry_no_type() {
        assert_eq!(Exception::Validation.fault(), None);
        assert_eq!(Exception::Service.fault(), Some("Service"));
    }
}
