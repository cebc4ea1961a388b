//! The control plane: what the Lambda API can do to functions, versions and aliases, and how an invocation finds its
//! version.
//!
//! [`Control`] is the whole of it; each file adds one group of operations. All rules about one value are in crate
//! `model`; what needs to know what is stored is here. **An operation is one transaction of the metadata**, fenced by
//! the revision that was read; a caller that comes second is told that an update is in progress. **An answer is given
//! only after what it says is durable.** Work that follows an answer (a function becoming Active, a snapshot being
//! built) is written down as unfinished in the same transaction, and [`Control::recover`] takes it up after a restart.
//!
//! Deliberately absent: HTTP and JSON (crate `api`), SQL (crate `meta`), environments (`fleet`).

mod aliases;
mod background;
mod concurrency;
mod create;
mod delete;
mod events;
mod invoke;
mod list;
mod publish;
mod read;
mod recover;
mod resolve;
mod runner;
mod sweep;
mod tags;
mod update;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use meta::{Meta, MetaError};
use model::error::ApiError;
use model::function::FunctionRecord;
use model::limits;
use model::names::{FunctionName, FunctionReference, Home, Qualifier, Version};
use tokio::sync::{RwLock, Semaphore};

use crate::code::{CodeError, CodeStore};
use crate::runtimes::Runtimes;

pub use aliases::{AliasChange, NewAlias};
pub use create::NewFunction;
pub use invoke::{InvokeRequest, Invoked};
pub use list::{Page, PageRequest};
pub use publish::PublishRequest;
pub use read::{AccountSettings, FunctionDetails};
pub use runner::{InvokeFailure, PublishFailure, Runner};
pub use update::CodeUpdate;

/// What a control plane is made of.
pub struct Setup {
    /// The constant parts of ARNs.
    pub home: Home,
    /// Where functions are stored.
    pub meta: Arc<dyn Meta>,
    /// Where code is stored.
    pub code: CodeStore,
    /// Which runtimes are installed.
    pub runtimes: Runtimes,
    /// Who runs functions.
    pub runner: Arc<dyn Runner>,
}

/// The control plane. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    home: Home,
    meta: Arc<dyn Meta>,
    code: CodeStore,
    runtimes: Runtimes,
    runner: Arc<dyn Runner>,
    /// Held shared from storing a package until the metadata refers to it, and alone while packages are removed.
    code_lock: RwLock<()>,
    resolved: resolve::Cache,
    concurrency: concurrency::Concurrency,
    builds: Semaphore,
    builds_waiting: AtomicUsize,
    events: events::Limits,
}

/// A version, and the ARN under which it was addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What is stored.
    pub record: FunctionRecord,
    /// With the qualifier exactly as addressed.
    pub arn: String,
}

impl Control {
    /// A control plane over these parts. Call [`Control::recover`] before the first operation.
    pub fn new(setup: Setup) -> Self {
        Self(Arc::new(Inner {
            home: setup.home,
            meta: setup.meta,
            code: setup.code,
            runtimes: setup.runtimes,
            runner: setup.runner,
            code_lock: RwLock::new(()),
            resolved: resolve::Cache::default(),
            concurrency: concurrency::Concurrency::default(),
            builds: Semaphore::new(limits::SNAPSHOT_BUILDS_MAX),
            builds_waiting: AtomicUsize::new(0),
            events: events::Limits::default(),
        }))
    }

    /// The constant parts of this server's ARNs.
    pub fn home(&self) -> &Home {
        &self.0.home
    }

    /// The uploaded package of some version, by digest.
    pub fn package(&self, sha256: &model::function::Sha256) -> PathBuf {
        self.0.code.package(sha256)
    }

    fn meta(&self) -> &dyn Meta {
        &*self.0.meta
    }

    /// `$LATEST` of a function that must exist; `arn` is what a refusal names.
    async fn latest(&self, name: &FunctionName) -> Result<FunctionRecord, ApiError> {
        let record = self.meta().record(name, Version::Latest).await.map_err(failed)?;
        record.ok_or_else(|| ApiError::function_not_found(self.home().arn(name)))
    }

    /// The version that a reference leads to; of an alias with two versions, the main one.
    async fn referred(&self, reference: &FunctionReference) -> Result<FunctionRecord, ApiError> {
        let not_found = || ApiError::function_not_found(self.home().arn_as_addressed(reference));
        let name = &reference.function;
        let version = match &reference.qualifier {
            None => Version::Latest,
            Some(Qualifier::Version(version)) => *version,
            Some(Qualifier::Alias(alias)) => {
                let alias = self.meta().alias(name, alias).await.map_err(failed)?;
                alias.ok_or_else(not_found)?.version
            }
        };
        self.meta().record(name, version).await.map_err(failed)?.ok_or_else(not_found)
    }

    /// The record under the function's own ARN.
    fn described(&self, record: FunctionRecord) -> Described {
        let arn = self.home().arn(&record.name);
        Described { record, arn }
    }

    /// The record under its version's ARN.
    fn described_version(&self, record: FunctionRecord) -> Described {
        let arn = record.qualified_arn(self.home());
        Described { record, arn }
    }

    /// Forgets what was resolved of a function. To be called after every change and before its answer.
    fn changed(&self, name: &FunctionName) {
        self.0.resolved.forget(name);
    }

    /// Reads a `RevisionId` condition.
    fn check_revision(given: Option<&str>, current: uuid::Uuid) -> Result<(), ApiError> {
        match given {
            Some(given) if given != current.to_string() => Err(ApiError::revision_mismatch()),
            _ => Ok(()),
        }
    }

    /// A lost race means that someone else's update is in progress.
    fn write_error(&self, name: &FunctionName) -> impl FnOnce(MetaError) -> ApiError {
        let arn = self.home().arn(name);
        move |error| match error {
            MetaError::Conflict => ApiError::update_in_progress(&arn),
            MetaError::NotFound => ApiError::function_not_found(&arn),
            error => failed(error),
        }
    }
}

/// An operation on the function itself takes its name alone or with `$LATEST`.
fn function_only(reference: FunctionReference) -> Result<FunctionName, ApiError> {
    match reference.qualifier {
        None | Some(Qualifier::Version(Version::Latest)) => Ok(reference.function),
        Some(_) => Err(ApiError::unqualified_only()),
    }
}

/// What the metadata could not do is told to the log; the caller learns that it was not his fault.
fn failed(error: MetaError) -> ApiError {
    tracing::error!(%error, "metadata operation failed");
    ApiError::internal()
}

fn code_failed(error: CodeError) -> ApiError {
    match error {
        CodeError::Refused(refusal) => refusal,
        CodeError::Disk(cause) => {
            tracing::error!(%cause, "store deployment package failed");
            ApiError::internal()
        }
    }
}
