//! The errors of this crate: what failed, on what, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::stage::Stage;

/// Why something about a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call on the host's side failed.
    #[error("{what}: {cause}")]
    Host {
        /// What was tried, on what.
        what: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The first process could not make its sandbox.
    #[error("make sandbox, stage {stage:?}: {message}")]
    Stage {
        /// The stage that failed.
        stage: Stage,
        /// What failed in it.
        message: String,
    },
    /// The first process refused a request.
    #[error("sandbox {id}: {message}")]
    Refused {
        /// The sandbox.
        id: u64,
        /// What failed.
        message: String,
    },
    /// The first process is gone, and the sandbox with it.
    #[error("sandbox {id} has ended")]
    Gone {
        /// The sandbox.
        id: u64,
    },
    /// The first process did not answer in time.
    #[error("sandbox {id} did not answer within {timeout_ms} ms: kill it")]
    Silent {
        /// The sandbox.
        id: u64,
        /// How long was waited, in milliseconds.
        timeout_ms: u64,
    },
    /// The first process said something that no version of ours says.
    #[error("sandbox {id} sent an unexpected message: {message}")]
    Unexpected {
        /// The sandbox.
        id: u64,
        /// What it was.
        message: String,
    },
    /// A path of a layout cannot be used.
    #[error("bind target {0} must be absolute and free of `..`")]
    Target(PathBuf),
}

impl SandboxError {
    /// For `map_err`: names what was tried.
    pub(crate) fn host<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        |cause| Self::Host { what, cause: cause.into() }
    }

    /// As [`host`](Self::host), for a path.
    pub(crate) fn at<E: Into<io::Error>>(what: &str, path: &Path) -> impl FnOnce(E) -> Self {
        let what = format!("{what} {}", path.display());
        |cause| Self::Host { what, cause: cause.into() }
    }
}
