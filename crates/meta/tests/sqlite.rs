//! The rules of [`meta::Meta`], checked against the embedded database.

use jiff::Timestamp;
use meta::{Meta as _, MetaError, Sqlite};
use model::alias::{AliasRecord, Share};
use model::function::{Code, FunctionExtras, FunctionRecord, PublishStatus, Sha256};
use model::lifecycle::{Event, Reason, ReasonCode, Status};
use model::names::{AliasName, FunctionName, Version};
use model::settings::{Settings, SettingsRequest};
use model::snapshot::{SnapshotMeasures, SnapshotState};
use tempfile::TempDir;
use uuid::Uuid;

async fn open() -> (TempDir, Sqlite) {
    let data = tempfile::tempdir().expect("a directory");
    let meta = Sqlite::open(&data.path().join("meta.db")).await.expect("a fresh database");
    (data, meta)
}

fn name(text: &str) -> FunctionName {
    text.parse().expect("a name")
}

fn function(text: &str) -> FunctionRecord {
    let request = SettingsRequest {
        runtime: Some("python3.12".into()),
        role: Some("arn:aws:iam::000000000000:role/any".into()),
        handler: Some("app.handler".into()),
        snap_start: Some("PublishedVersions".into()),
        ..Default::default()
    };
    FunctionRecord {
        name: name(text),
        version: Version::Latest,
        settings: Settings::create(request).expect("valid"),
        code: Code { sha256: Sha256([7; 32]), size_bytes: 100 },
        revision_id: Uuid::new_v4(),
        content_id: Uuid::new_v4(),
        last_modified: Timestamp::UNIX_EPOCH,
        status: Status::published(),
        latest_description: None,
        snapshot: None,
    }
}

fn version_of(latest: &FunctionRecord) -> FunctionRecord {
    latest.to_version(None, PublishStatus::Alone, [Uuid::new_v4(), Uuid::new_v4()])
}

fn settled(record: &FunctionRecord, event: Event) -> FunctionRecord {
    let status = record.status.after(event).expect("pending");
    FunctionRecord { status, revision_id: Uuid::new_v4(), ..record.clone() }
}

#[tokio::test]
async fn what_is_stored_is_there_after_opening_again() {
    let (data, meta) = open().await;
    let latest = function("f");
    let extras = FunctionExtras { reserved_concurrency: Some(3), ..FunctionExtras::default() };
    meta.create_function(&latest, &extras, None).await.expect("new");
    let twice = meta.create_function(&latest, &extras, None).await;
    assert!(matches!(twice, Err(MetaError::Exists)));
    meta.close().await;
    let meta = Sqlite::open(&data.path().join("meta.db")).await.expect("there");
    assert_eq!(meta.record(&latest.name, Version::Latest).await.expect("readable"), Some(latest.clone()));
    assert_eq!(meta.extras(&latest.name).await.expect("readable"), Some(extras));
    assert_eq!(meta.reserved_concurrency().await.expect("readable"), 3);
    assert_eq!(meta.codes().await.expect("readable").len(), 1);
}

#[tokio::test]
async fn the_second_writer_of_one_revision_loses() {
    let (_data, meta) = open().await;
    let latest = function("f");
    meta.create_function(&latest, &FunctionExtras::default(), None).await.expect("new");
    let changed = FunctionRecord { revision_id: Uuid::new_v4(), ..latest.clone() };
    meta.update(&changed, latest.revision_id).await.expect("current");
    assert!(matches!(meta.update(&changed, latest.revision_id).await, Err(MetaError::Conflict)));
    let publish = meta.publish(&changed, latest.revision_id, version_of(&changed)).await;
    assert!(matches!(publish, Err(MetaError::Conflict)));
    assert_eq!(meta.last_version(&latest.name).await.expect("readable"), None, "nothing was published");
}

#[tokio::test]
async fn version_numbers_are_never_used_twice() {
    let (_data, meta) = open().await;
    let latest = function("f");
    let none = FunctionExtras::default();
    let first = meta.create_function(&latest, &none, Some(version_of(&latest))).await.expect("new");
    assert_eq!(first.expect("published").version, Version::Number(1));
    let second = meta.publish(&latest, latest.revision_id, version_of(&latest)).await.expect("current");
    assert_eq!(second.version, Version::Number(2));
    meta.delete_version(&latest.name, 2).await.expect("there");
    meta.delete_function(&latest.name).await.expect("there");
    let third = meta.create_function(&latest, &none, Some(version_of(&latest))).await.expect("new");
    assert_eq!(third.expect("published").version, Version::Number(3));
}

#[tokio::test]
async fn a_snapshot_belongs_to_the_version_it_was_built_for() {
    let (_data, meta) = open().await;
    let latest = function("f");
    meta.create_function(&latest, &FunctionExtras::default(), None).await.expect("new");
    let pending = meta.publish(&latest, latest.revision_id, version_of(&latest)).await.expect("current");
    let id = pending.snapshot.expect("SnapStart is on");
    assert_eq!(meta.unfinished().await.expect("readable"), std::slice::from_ref(&pending));
    assert_eq!(meta.snapshots().await.expect("readable")[0].state, SnapshotState::Building);

    let ready = settled(&pending, Event::Settled);
    let measures = SnapshotMeasures { image_bytes: 5, ..SnapshotMeasures::default() };
    let foreign = meta.finish_snapshot(&ready, pending.revision_id, Uuid::new_v4(), &measures).await;
    assert!(matches!(foreign, Err(MetaError::Conflict)));
    meta.finish_snapshot(&ready, pending.revision_id, id, &measures).await.expect("waited for");
    let late = meta.finish_snapshot(&ready, pending.revision_id, id, &measures).await;
    assert!(matches!(late, Err(MetaError::Conflict)));
    assert!(meta.unfinished().await.expect("readable").is_empty());
    assert_eq!(meta.snapshots().await.expect("readable")[0].measures, Some(measures.clone()));
    assert_eq!(meta.delete_version(&latest.name, 1).await.expect("there"), [id]);
    let gone = meta.finish_snapshot(&ready, pending.revision_id, id, &measures).await;
    assert!(matches!(gone, Err(MetaError::Conflict)), "a deleted version stays deleted");
    assert!(meta.snapshots().await.expect("readable").is_empty());
}

#[tokio::test]
async fn a_failed_snapshot_is_forgotten() {
    let (_data, meta) = open().await;
    let latest = function("f");
    meta.create_function(&latest, &FunctionExtras::default(), None).await.expect("new");
    let pending = meta.publish(&latest, latest.revision_id, version_of(&latest)).await.expect("current");
    let id = pending.snapshot.expect("SnapStart is on");
    let reason = Reason::new(ReasonCode::FunctionError, "no");
    let failed = FunctionRecord { snapshot: None, ..settled(&pending, Event::Failed(reason)) };
    meta.drop_snapshot(&failed, pending.revision_id, id).await.expect("waited for");
    assert!(meta.snapshots().await.expect("readable").is_empty());
    assert!(meta.delete_function(&latest.name).await.expect("there").is_empty());
}

#[tokio::test]
async fn aliases_never_lead_nowhere() {
    let (_data, meta) = open().await;
    let latest = function("f");
    let none = FunctionExtras::default();
    meta.create_function(&latest, &none, Some(version_of(&latest))).await.expect("new");
    let alias = |routing| AliasRecord {
        function: latest.name.clone(),
        name: AliasName::parse("live", "name").expect("a name"),
        version: Version::Number(1),
        description: String::new(),
        routing,
        revision_id: Uuid::new_v4(),
    };
    let to_nowhere = alias(Some(Share { version: 9, weight: 0.5 }));
    assert!(matches!(meta.create_alias(&to_nowhere).await, Err(MetaError::NotFound)));
    let live = alias(None);
    meta.create_alias(&live).await.expect("new");
    assert!(matches!(meta.create_alias(&live).await, Err(MetaError::Exists)));
    assert!(matches!(meta.update_alias(&to_nowhere, live.revision_id).await, Err(MetaError::NotFound)));
    let deleted = meta.delete_version(&latest.name, 1).await;
    assert!(matches!(deleted, Err(MetaError::InUse(names)) if names == "live"));
    let found = meta.aliases(&latest.name, Some(Version::Number(1)), None, 10).await.expect("readable");
    assert_eq!(found, std::slice::from_ref(&live));
    assert!(meta.delete_alias(&latest.name, &live.name).await.expect("there"));
    assert!(!meta.delete_alias(&latest.name, &live.name).await.expect("readable"));
}

#[tokio::test]
async fn a_record_of_a_newer_format_is_refused_by_number() {
    let (data, meta) = open().await;
    meta.create_function(&function("f"), &FunctionExtras::default(), None).await.expect("new");
    meta.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(data.path().join("meta.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("there");
    sqlx::query("UPDATE versions SET format = 99").execute(&pool).await.expect("a column");
    pool.close().await;
    let meta = Sqlite::open(&data.path().join("meta.db")).await.expect("there");
    let error = meta.record(&name("f"), Version::Latest).await.expect_err("too new").to_string();
    assert!(error.contains("format 99"), "{error}");
}
