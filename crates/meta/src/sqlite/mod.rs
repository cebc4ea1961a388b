//! Metadata in SQLite: the embedded default.
//!
//! One file, write-ahead log, `synchronous = FULL`: a commit is on disk before it is acknowledged. Writers take the
//! write lock at the start of the transaction (`BEGIN IMMEDIATE`), so a transaction never fails half-way for want of
//! it. Queries are checked at run time; there is no database at build time.
//!
//! This file opens the database and answers [`Meta`]; `rows` turns rows into records; `write` has the statements that
//! change something.

mod rows;
mod write;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use model::alias::AliasRecord;
use model::function::{FunctionExtras, FunctionRecord, Sha256};
use model::names::{AliasName, FunctionName, Version};
use model::snapshot::{SnapshotMeasures, SnapshotRecord};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlitePool};
use uuid::Uuid;

use crate::{Answer, Meta, MetaError, Usage};
use rows::{column, corrupt, number};

/// Connections to the database: readers do not wait for the one writer.
const CONNECTIONS_MAX: u32 = 4;
/// How long a writer waits for another one, in seconds.
const BUSY_S_MAX: u64 = 10;

/// The embedded metadata database.
#[derive(Debug, Clone)]
pub struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens the database at `path`, makes it if it is not there, and brings its tables up to date.
    ///
    /// # Errors
    /// [`MetaError::Database`] when the file cannot be opened, [`MetaError::Migrate`] when it was made by a newer
    /// version.
    pub async fn open(path: &Path) -> Result<Self, MetaError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(BUSY_S_MAX));
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Ends all connections; what was acknowledged is on disk with or without it.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Meta for Sqlite {
    fn create_function<'a>(
        &'a self,
        latest: &'a FunctionRecord,
        extras: &'a FunctionExtras,
        publish: Option<FunctionRecord>,
    ) -> Answer<'a, Option<FunctionRecord>> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::insert_function(&mut tx, &latest.name, extras).await?;
            write::insert_record(&mut tx, latest).await?;
            let published = match publish {
                Some(version) => Some(write::insert_next_version(&mut tx, version).await?),
                None => None,
            };
            tx.commit().await?;
            Ok(published)
        })
    }

    fn update<'a>(&'a self, record: &'a FunctionRecord, expected: Uuid) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::update_record(&mut tx, record, expected).await?;
            Ok(tx.commit().await?)
        })
    }

    fn publish<'a>(
        &'a self,
        latest: &'a FunctionRecord,
        expected: Uuid,
        publish: FunctionRecord,
    ) -> Answer<'a, FunctionRecord> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::update_record(&mut tx, latest, expected).await?;
            let published = write::insert_next_version(&mut tx, publish).await?;
            tx.commit().await?;
            Ok(published)
        })
    }

    fn finish_snapshot<'a>(
        &'a self,
        record: &'a FunctionRecord,
        expected: Uuid,
        snapshot: Uuid,
        measures: &'a SnapshotMeasures,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::update_record(&mut tx, record, expected).await?;
            write::finish_snapshot(&mut tx, snapshot, measures).await?;
            Ok(tx.commit().await?)
        })
    }

    fn drop_snapshot<'a>(
        &'a self,
        record: &'a FunctionRecord,
        expected: Uuid,
        snapshot: Uuid,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::update_record(&mut tx, record, expected).await?;
            sqlx::query("DELETE FROM snapshots WHERE id = ?")
                .bind(snapshot.to_string())
                .execute(&mut *tx)
                .await?;
            Ok(tx.commit().await?)
        })
    }

    fn record<'a>(&'a self, name: &'a FunctionName, version: Version) -> Answer<'a, Option<FunctionRecord>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT function, version, format, record FROM versions WHERE function = ? AND version = ?",
            )
            .bind(name.as_str())
            .bind(column(version))
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(rows::record).transpose()
        })
    }

    fn last_version<'a>(&'a self, name: &'a FunctionName) -> Answer<'a, Option<FunctionRecord>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT function, version, format, record FROM versions WHERE function = ? AND version > 0
                 ORDER BY version DESC LIMIT 1",
            )
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(rows::record).transpose()
        })
    }

    fn versions<'a>(
        &'a self,
        name: &'a FunctionName,
        after: Option<Version>,
        limit: u32,
    ) -> Answer<'a, Vec<FunctionRecord>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT function, version, format, record FROM versions WHERE function = ? AND version > ?
                 ORDER BY version LIMIT ?",
            )
            .bind(name.as_str())
            .bind(after.map_or(-1, column))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::record).collect()
        })
    }

    fn functions<'a>(
        &'a self,
        published: bool,
        after: Option<(String, Version)>,
        limit: u32,
    ) -> Answer<'a, Vec<FunctionRecord>> {
        Box::pin(async move {
            let (name, version) = after.map_or((String::new(), -1), |(name, v)| (name, column(v)));
            let rows = sqlx::query(
                "SELECT function, version, format, record FROM versions
                 WHERE (function > ?1 OR (function = ?1 AND version > ?2)) AND (?3 OR version = 0)
                 ORDER BY function, version LIMIT ?4",
            )
            .bind(name)
            .bind(version)
            .bind(published)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::record).collect()
        })
    }

    fn extras<'a>(&'a self, name: &'a FunctionName) -> Answer<'a, Option<FunctionExtras>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT extras FROM functions WHERE name = ?")
                .bind(name.as_str())
                .fetch_optional(&self.pool)
                .await?;
            row.map(|row| rows::json(name.as_str(), row.try_get("extras")?)).transpose()
        })
    }

    fn set_extras<'a>(&'a self, name: &'a FunctionName, extras: &'a FunctionExtras) -> Answer<'a, ()> {
        Box::pin(async move {
            let done = sqlx::query("UPDATE functions SET extras = ? WHERE name = ?")
                .bind(rows::to_json(extras)?)
                .bind(name.as_str())
                .execute(&self.pool)
                .await?;
            if done.rows_affected() == 1 { Ok(()) } else { Err(MetaError::NotFound) }
        })
    }

    fn reserved_concurrency(&self) -> Answer<'_, u32> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT COALESCE(SUM(json_extract(extras, '$.reserved_concurrency')), 0) FROM functions",
            )
            .fetch_one(&self.pool)
            .await?;
            let sum: i64 = row.try_get(0)?;
            Ok(u32::try_from(sum).unwrap_or(u32::MAX))
        })
    }

    fn delete_function<'a>(&'a self, name: &'a FunctionName) -> Answer<'a, Vec<Uuid>> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            let snapshots = write::delete_function(&mut tx, name).await?;
            tx.commit().await?;
            Ok(snapshots)
        })
    }

    fn delete_version<'a>(&'a self, name: &'a FunctionName, version: u64) -> Answer<'a, Vec<Uuid>> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            let snapshots = write::delete_version(&mut tx, name, version).await?;
            tx.commit().await?;
            Ok(snapshots)
        })
    }

    fn create_alias<'a>(&'a self, alias: &'a AliasRecord) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::insert_alias(&mut tx, alias).await?;
            Ok(tx.commit().await?)
        })
    }

    fn update_alias<'a>(&'a self, alias: &'a AliasRecord, expected: Uuid) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            write::update_alias(&mut tx, alias, expected).await?;
            Ok(tx.commit().await?)
        })
    }

    fn alias<'a>(
        &'a self,
        function: &'a FunctionName,
        name: &'a AliasName,
    ) -> Answer<'a, Option<AliasRecord>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT name, format, record FROM aliases WHERE function = ? AND name = ?")
                .bind(function.as_str())
                .bind(name.as_str())
                .fetch_optional(&self.pool)
                .await?;
            row.as_ref().map(rows::alias).transpose()
        })
    }

    fn aliases<'a>(
        &'a self,
        function: &'a FunctionName,
        version: Option<Version>,
        after: Option<String>,
        limit: u32,
    ) -> Answer<'a, Vec<AliasRecord>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT name, format, record FROM aliases
                 WHERE function = ?1 AND name > ?2 AND (?3 IS NULL OR version = ?3 OR second = ?3)
                 ORDER BY name LIMIT ?4",
            )
            .bind(function.as_str())
            .bind(after.unwrap_or_default())
            .bind(version.map(column))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::alias).collect()
        })
    }

    fn delete_alias<'a>(&'a self, function: &'a FunctionName, name: &'a AliasName) -> Answer<'a, bool> {
        Box::pin(async move {
            let done = sqlx::query("DELETE FROM aliases WHERE function = ? AND name = ?")
                .bind(function.as_str())
                .bind(name.as_str())
                .execute(&self.pool)
                .await?;
            Ok(done.rows_affected() == 1)
        })
    }

    fn snapshots(&self) -> Answer<'_, Vec<SnapshotRecord>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT id, function, version, state, measures FROM snapshots")
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(rows::snapshot).collect()
        })
    }

    fn unfinished(&self) -> Answer<'_, Vec<FunctionRecord>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT function, version, format, record FROM versions WHERE unfinished = 1
                 ORDER BY function, version",
            )
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(rows::record).collect()
        })
    }

    fn codes(&self) -> Answer<'_, BTreeSet<Sha256>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT DISTINCT code_sha256 FROM versions").fetch_all(&self.pool).await?;
            rows.iter()
                .map(|row| {
                    let hex: String = row.try_get("code_sha256")?;
                    Sha256::from_hex(&hex).ok_or_else(|| corrupt("versions.code_sha256", &hex))
                })
                .collect()
        })
    }

    fn usage(&self) -> Answer<'_, Usage> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT COUNT(*) FILTER (WHERE version = 0) AS functions, COALESCE(SUM(code_bytes), 0) AS bytes
                 FROM versions",
            )
            .fetch_one(&self.pool)
            .await?;
            Ok(Usage {
                functions: number(row.try_get("functions")?)?,
                code_bytes: number(row.try_get("bytes")?)?,
            })
        })
    }
}

impl Sqlite {
    async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, MetaError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}
