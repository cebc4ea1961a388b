//! The statements that change something. Each runs inside a transaction that its caller commits.

use model::alias::AliasRecord;
use model::function::{FunctionExtras, FunctionRecord};
use model::names::{FunctionName, Version};
use model::snapshot::SnapshotMeasures;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::rows::{FORMAT, column, number, to_json};
use crate::MetaError;

pub(super) async fn insert_function(
    tx: &mut SqliteConnection,
    name: &FunctionName,
    extras: &FunctionExtras,
) -> Result<(), MetaError> {
    let done = sqlx::query("INSERT INTO functions (name, extras) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(name.as_str())
        .bind(to_json(extras)?)
        .execute(tx)
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(MetaError::Exists) }
}

pub(super) async fn insert_record(
    tx: &mut SqliteConnection,
    record: &FunctionRecord,
) -> Result<(), MetaError> {
    sqlx::query(
        "INSERT INTO versions (function, version, revision_id, code_sha256, code_bytes, unfinished, format, record)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(record.name.as_str())
    .bind(column(record.version))
    .bind(record.revision_id.to_string())
    .bind(record.code.sha256.hex())
    .bind(i64::try_from(record.code.size_bytes).unwrap_or(i64::MAX))
    .bind(record.status.is_unfinished())
    .bind(FORMAT)
    .bind(to_json(record)?)
    .execute(tx)
    .await?;
    Ok(())
}

/// Numbers a version and stores it, with a row for its snapshot when it is to get one.
pub(super) async fn insert_next_version(
    tx: &mut SqliteConnection,
    mut record: FunctionRecord,
) -> Result<FunctionRecord, MetaError> {
    let row = sqlx::query(
        "INSERT INTO counters (function, next_version) VALUES (?, 2)
         ON CONFLICT (function) DO UPDATE SET next_version = next_version + 1
         RETURNING next_version - 1 AS version",
    )
    .bind(record.name.as_str())
    .fetch_one(&mut *tx)
    .await?;
    let version = number(row.try_get("version")?)?;
    record.version = Version::Number(version);
    insert_record(tx, &record).await?;
    if let Some(snapshot) = record.snapshot {
        sqlx::query("INSERT INTO snapshots (id, function, version, state) VALUES (?, ?, ?, 'building')")
            .bind(snapshot.to_string())
            .bind(record.name.as_str())
            .bind(column(record.version))
            .execute(&mut *tx)
            .await?;
    }
    Ok(record)
}

pub(super) async fn update_record(
    tx: &mut SqliteConnection,
    record: &FunctionRecord,
    expected: Uuid,
) -> Result<(), MetaError> {
    let done = sqlx::query(
        "UPDATE versions SET revision_id = ?, code_sha256 = ?, code_bytes = ?, unfinished = ?, format = ?, record = ?
         WHERE function = ? AND version = ? AND revision_id = ?",
    )
    .bind(record.revision_id.to_string())
    .bind(record.code.sha256.hex())
    .bind(i64::try_from(record.code.size_bytes).unwrap_or(i64::MAX))
    .bind(record.status.is_unfinished())
    .bind(FORMAT)
    .bind(to_json(record)?)
    .bind(record.name.as_str())
    .bind(column(record.version))
    .bind(expected.to_string())
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(MetaError::Conflict) }
}

pub(super) async fn finish_snapshot(
    tx: &mut SqliteConnection,
    snapshot: Uuid,
    measures: &SnapshotMeasures,
) -> Result<(), MetaError> {
    let done =
        sqlx::query("UPDATE snapshots SET state = 'ready', measures = ? WHERE id = ? AND state = 'building'")
            .bind(to_json(measures)?)
            .bind(snapshot.to_string())
            .execute(tx)
            .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(MetaError::Conflict) }
}

pub(super) async fn delete_function(
    tx: &mut SqliteConnection,
    name: &FunctionName,
) -> Result<Vec<Uuid>, MetaError> {
    let rows = sqlx::query("SELECT id FROM snapshots WHERE function = ?")
        .bind(name.as_str())
        .fetch_all(&mut *tx)
        .await?;
    let done =
        sqlx::query("DELETE FROM functions WHERE name = ?").bind(name.as_str()).execute(&mut *tx).await?;
    if done.rows_affected() == 1 { ids(&rows) } else { Err(MetaError::NotFound) }
}

pub(super) async fn delete_version(
    tx: &mut SqliteConnection,
    name: &FunctionName,
    version: u64,
) -> Result<Vec<Uuid>, MetaError> {
    let version = column(Version::Number(version));
    let aliases = sqlx::query(
        "SELECT name FROM aliases WHERE function = ?1 AND (version = ?2 OR second = ?2) ORDER BY name",
    )
    .bind(name.as_str())
    .bind(version)
    .fetch_all(&mut *tx)
    .await?;
    if !aliases.is_empty() {
        let names = aliases.iter().map(|row| row.try_get("name")).collect::<Result<Vec<String>, _>>()?;
        return Err(MetaError::InUse(names.join(", ")));
    }
    let snapshots = sqlx::query("SELECT id FROM snapshots WHERE function = ? AND version = ?")
        .bind(name.as_str())
        .bind(version)
        .fetch_all(&mut *tx)
        .await?;
    let done = sqlx::query("DELETE FROM versions WHERE function = ? AND version = ?")
        .bind(name.as_str())
        .bind(version)
        .execute(&mut *tx)
        .await?;
    if done.rows_affected() == 1 { ids(&snapshots) } else { Err(MetaError::NotFound) }
}

pub(super) async fn insert_alias(tx: &mut SqliteConnection, alias: &AliasRecord) -> Result<(), MetaError> {
    check_versions_exist(tx, alias).await?;
    let done = sqlx::query(
        "INSERT INTO aliases (function, name, version, second, revision_id, format, record)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(alias.function.as_str())
    .bind(alias.name.as_str())
    .bind(column(alias.version))
    .bind(alias.routing.map(|share| column(Version::Number(share.version))))
    .bind(alias.revision_id.to_string())
    .bind(FORMAT)
    .bind(to_json(alias)?)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(MetaError::Exists) }
}

pub(super) async fn update_alias(
    tx: &mut SqliteConnection,
    alias: &AliasRecord,
    expected: Uuid,
) -> Result<(), MetaError> {
    check_versions_exist(tx, alias).await?;
    let done = sqlx::query(
        "UPDATE aliases SET version = ?, second = ?, revision_id = ?, format = ?, record = ?
         WHERE function = ? AND name = ? AND revision_id = ?",
    )
    .bind(column(alias.version))
    .bind(alias.routing.map(|share| column(Version::Number(share.version))))
    .bind(alias.revision_id.to_string())
    .bind(FORMAT)
    .bind(to_json(alias)?)
    .bind(alias.function.as_str())
    .bind(alias.name.as_str())
    .bind(expected.to_string())
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(MetaError::Conflict) }
}

/// An alias never leads to a version that is gone, even when the version is deleted while the alias is made.
async fn check_versions_exist(tx: &mut SqliteConnection, alias: &AliasRecord) -> Result<(), MetaError> {
    for version in alias.versions() {
        let row = sqlx::query("SELECT 1 FROM versions WHERE function = ? AND version = ?")
            .bind(alias.function.as_str())
            .bind(column(version))
            .fetch_optional(&mut *tx)
            .await?;
        if row.is_none() {
            return Err(MetaError::NotFound);
        }
    }
    Ok(())
}

fn ids(rows: &[sqlx::sqlite::SqliteRow]) -> Result<Vec<Uuid>, MetaError> {
    rows.iter()
        .map(|row| {
            let id: String = row.try_get("id")?;
            id.parse().map_err(|_| super::rows::corrupt("snapshots.id", &id))
        })
        .collect()
}
