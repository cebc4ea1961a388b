//! Rows into records and back.
//!
//! The format number is read before the record, so that a record of a newer rekindle is refused with its number
//! instead of a parse error somewhere inside.

use model::alias::AliasRecord;
use model::function::FunctionRecord;
use model::names::Version;
use model::snapshot::{SnapshotRecord, SnapshotState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::MetaError;

/// The format of records that this version writes.
pub(super) const FORMAT: i64 = 1;

/// A version as a column: `$LATEST` is 0 and sorts first.
pub(super) fn column(version: Version) -> i64 {
    match version {
        Version::Latest => 0,
        Version::Number(number) => i64::try_from(number).unwrap_or(i64::MAX),
    }
}

pub(super) fn number(column: i64) -> Result<u64, MetaError> {
    u64::try_from(column).map_err(|_| corrupt("a count", &column.to_string()))
}

pub(super) fn record(row: &SqliteRow) -> Result<FunctionRecord, MetaError> {
    let function: String = row.try_get("function")?;
    let version: i64 = row.try_get("version")?;
    let subject = format!("{function}:{version}");
    check_format(&subject, row.try_get("format")?)?;
    json(&subject, row.try_get("record")?)
}

pub(super) fn alias(row: &SqliteRow) -> Result<AliasRecord, MetaError> {
    let name: String = row.try_get("name")?;
    check_format(&name, row.try_get("format")?)?;
    json(&name, row.try_get("record")?)
}

pub(super) fn snapshot(row: &SqliteRow) -> Result<SnapshotRecord, MetaError> {
    let id: String = row.try_get("id")?;
    let function: String = row.try_get("function")?;
    let state: String = row.try_get("state")?;
    let measures: Option<String> = row.try_get("measures")?;
    Ok(SnapshotRecord {
        function: function.parse().map_err(|_| corrupt(&id, &function))?,
        version: number(row.try_get("version")?)?,
        state: match state.as_str() {
            "building" => SnapshotState::Building,
            "ready" => SnapshotState::Ready,
            _ => return Err(corrupt(&id, &state)),
        },
        measures: measures.map(|text| json(&id, text)).transpose()?,
        id: id.parse().map_err(|_| corrupt("snapshots.id", &id))?,
    })
}

pub(super) fn json<T: DeserializeOwned>(subject: &str, text: String) -> Result<T, MetaError> {
    serde_json::from_str(&text).map_err(|cause| corrupt(subject, &cause.to_string()))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, MetaError> {
    serde_json::to_string(value).map_err(|cause| corrupt("to be written", &cause.to_string()))
}

pub(super) fn corrupt(subject: &str, cause: &str) -> MetaError {
    MetaError::Corrupt(subject.into(), cause.into())
}

fn check_format(subject: &str, format: i64) -> Result<(), MetaError> {
    if format == FORMAT {
        return Ok(());
    }
    Err(corrupt(subject, &format!("it has format {format}, this version reads format {FORMAT}")))
}
