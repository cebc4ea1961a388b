//! Metadata: functions, versions, aliases and snapshots, durable.
//!
//! [`Meta`] is the whole interface. Each method is one transaction: **what a method acknowledged survives the kill of
//! the process, and a method that failed changed nothing.** Changes are fenced by `RevisionId`: who writes names the
//! revision that he read, and gets [`MetaError::Conflict`] when someone was faster. A finished snapshot can therefore
//! update only the version that it was built for.
//!
//! [`sqlite`] is the embedded implementation. SQL stays inside this crate. Deliberately absent: rules of the service;
//! records are stored as they come.

pub mod sqlite;

use std::collections::BTreeSet;

use futures_util::future::BoxFuture;
use model::alias::AliasRecord;
use model::function::{FunctionExtras, FunctionRecord, Sha256};
use model::names::{AliasName, FunctionName, Version};
use model::snapshot::{SnapshotMeasures, SnapshotRecord};
use uuid::Uuid;

pub use sqlite::Sqlite;

/// A result that is on its way.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, MetaError>>;

/// Where functions live.
pub trait Meta: Send + Sync + 'static {
    /// Stores a new function and, when given, its first version, which is numbered here and returned.
    /// [`MetaError::Exists`] when the name is taken.
    fn create_function<'a>(
        &'a self,
        latest: &'a FunctionRecord,
        extras: &'a FunctionExtras,
        publish: Option<FunctionRecord>,
    ) -> Answer<'a, Option<FunctionRecord>>;

    /// Stores a changed record of a version that exists in revision `expected`.
    fn update<'a>(&'a self, record: &'a FunctionRecord, expected: Uuid) -> Answer<'a, ()>;

    /// Stores `$LATEST`, which must exist in revision `expected`, and a new version of it, which is numbered here and
    /// returned.
    fn publish<'a>(
        &'a self,
        latest: &'a FunctionRecord,
        expected: Uuid,
        publish: FunctionRecord,
    ) -> Answer<'a, FunctionRecord>;

    /// Stores the record of a version whose snapshot became durable, and the snapshot's measures.
    /// [`MetaError::Conflict`] when the version is gone or was not waiting for this snapshot.
    fn finish_snapshot<'a>(
        &'a self,
        record: &'a FunctionRecord,
        expected: Uuid,
        snapshot: Uuid,
        measures: &'a SnapshotMeasures,
    ) -> Answer<'a, ()>;

    /// Stores the record of a version whose snapshot was given up, and forgets the snapshot.
    fn drop_snapshot<'a>(
        &'a self,
        record: &'a FunctionRecord,
        expected: Uuid,
        snapshot: Uuid,
    ) -> Answer<'a, ()>;

    /// One version.
    fn record<'a>(&'a self, name: &'a FunctionName, version: Version) -> Answer<'a, Option<FunctionRecord>>;

    /// The published version with the highest number.
    fn last_version<'a>(&'a self, name: &'a FunctionName) -> Answer<'a, Option<FunctionRecord>>;

    /// The versions of one function by number, `$LATEST` first: at most `limit` after `after`.
    fn versions<'a>(
        &'a self,
        name: &'a FunctionName,
        after: Option<Version>,
        limit: u32,
    ) -> Answer<'a, Vec<FunctionRecord>>;

    /// All functions by name: at most `limit` after `after`; with `published`, each with all its versions.
    fn functions<'a>(
        &'a self,
        published: bool,
        after: Option<(String, Version)>,
        limit: u32,
    ) -> Answer<'a, Vec<FunctionRecord>>;

    /// What is kept of a function apart from its versions.
    fn extras<'a>(&'a self, name: &'a FunctionName) -> Answer<'a, Option<FunctionExtras>>;

    /// Replaces the extras. [`MetaError::NotFound`] when there is no such function.
    fn set_extras<'a>(&'a self, name: &'a FunctionName, extras: &'a FunctionExtras) -> Answer<'a, ()>;

    /// The reserved concurrency of all functions together.
    fn reserved_concurrency(&self) -> Answer<'_, u32>;

    /// Deletes a function with all its versions and aliases. Returns the snapshots that are no longer referred to.
    fn delete_function<'a>(&'a self, name: &'a FunctionName) -> Answer<'a, Vec<Uuid>>;

    /// Deletes a published version that no alias leads to ([`MetaError::InUse`]). Returns its snapshots.
    fn delete_version<'a>(&'a self, name: &'a FunctionName, version: u64) -> Answer<'a, Vec<Uuid>>;

    /// Stores a new alias.
    fn create_alias<'a>(&'a self, alias: &'a AliasRecord) -> Answer<'a, ()>;

    /// Stores a changed alias that exists in revision `expected`.
    fn update_alias<'a>(&'a self, alias: &'a AliasRecord, expected: Uuid) -> Answer<'a, ()>;

    /// One alias.
    fn alias<'a>(
        &'a self,
        function: &'a FunctionName,
        name: &'a AliasName,
    ) -> Answer<'a, Option<AliasRecord>>;

    /// The aliases of one function by name, at most `limit` after `after`; with `version`, only those that lead to it.
    fn aliases<'a>(
        &'a self,
        function: &'a FunctionName,
        version: Option<Version>,
        after: Option<String>,
        limit: u32,
    ) -> Answer<'a, Vec<AliasRecord>>;

    /// Deletes an alias; says whether there was one.
    fn delete_alias<'a>(&'a self, function: &'a FunctionName, name: &'a AliasName) -> Answer<'a, bool>;

    /// Every snapshot that a version refers to.
    fn snapshots(&self) -> Answer<'_, Vec<SnapshotRecord>>;

    /// Every record with work in the background that is not done.
    fn unfinished(&self) -> Answer<'_, Vec<FunctionRecord>>;

    /// The packages that any version refers to.
    fn codes(&self) -> Answer<'_, BTreeSet<Sha256>>;

    /// Counts for GetAccountSettings.
    fn usage(&self) -> Answer<'_, Usage>;
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Functions, without their versions.
    pub functions: u64,
    /// Packages of all versions, in bytes.
    pub code_bytes: u64,
}

/// Why metadata could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// There is no such function, version or alias.
    #[error("no such record")]
    NotFound,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// Someone else changed the record first.
    #[error("the record was changed by someone else")]
    Conflict,
    /// Aliases lead to the version; these are their names.
    #[error("aliases lead to the version: {0}")]
    InUse(String),
    /// A stored record cannot be read.
    #[error("metadata record {0} cannot be read: {1}; was the data directory written by a newer rekindle?")]
    Corrupt(String, String),
    /// The database failed.
    #[error("metadata database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The database could not be brought to this version's tables.
    #[error("metadata database could not be prepared: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}
