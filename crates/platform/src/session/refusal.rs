//! Why a call of the Runtime API is refused, with the texts that AWS documents.
//!
//! No HTTP statuses here: the server that speaks HTTP maps each kind to one.

/// The largest event and the largest response, in bytes: 6 MiB and 100 bytes (emulator: `MaxPayloadSize`).
pub const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024 + 100;

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The identifier is not that of the running invocation, or its answer was already taken.
    #[error("Invalid request ID")]
    InvalidRequestId,
    /// The echoed `Lambda-Runtime-Invocation-Id` is not the one that was given.
    #[error("Invalid invocation ID")]
    InvalidInvocationId,
    /// An unknown value of `Lambda-Runtime-Function-Response-Mode`.
    #[error("Invalid function response mode")]
    InvalidResponseMode,
    /// The body is shorter than announced.
    #[error("HTTP request detected as truncated")]
    Truncated,
    /// The call is not allowed in the present state.
    #[error(
        "State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"
    )]
    InvalidStateTransition {
        /// The present state.
        from: &'static str,
        /// The state that the call asks for.
        to: &'static str,
    },
    /// The body is over [`PAYLOAD_BYTES_MAX`].
    #[error("Exceeded maximum allowed payload size ({PAYLOAD_BYTES_MAX} bytes).")]
    TooLarge,
    /// The environment is being taken down.
    #[error("Internal Server Error")]
    Ended,
    /// The route does not exist for this kind of environment.
    #[error("404 page not found")]
    NoSuchRoute,
}

impl Refusal {
    /// The `errorType` of the answer.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::InvalidRequestId => "InvalidRequestID",
            Self::InvalidInvocationId => "InvalidInvocationId",
            Self::InvalidResponseMode => "InvalidFunctionResponseMode",
            Self::Truncated => "TruncatedHTTPRequest",
            Self::InvalidStateTransition { .. } => "InvalidStateTransition",
            Self::TooLarge => "RequestEntityTooLarge",
            Self::Ended => "InternalServerError",
            Self::NoSuchRoute => "NoSuchRoute",
        }
    }
}
