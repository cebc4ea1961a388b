//! Whatever happens to the files of a store, reading gives the written bytes or a clear error; it never gives
//! other bytes and never panics. Each kind of damage has an error of its own.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{CHUNK, Fixture, id, noise, open, read, write};
use store::chunk::ChunkError;
use store::manifest::ManifestError;
use store::{CollectError, OpenError, ReadError, Scope, Store};

fn chunk_error(fixture: &Fixture, name: &str) -> ChunkError {
    match read(&fixture.store, name) {
        Err(error @ ReadError::Chunk { .. }) => {
            assert!(error.to_string().starts_with(&format!("read snapshot {name}: chunk ")), "{error}");
            let ReadError::Chunk { source, .. } = error else { unreachable!() };
            *source
        }
        other => panic!("a chunk's error was expected: {:?}", other.map(|bytes| bytes.len())),
    }
}

fn manifest_error(fixture: &Fixture, name: &str) -> ManifestError {
    match fixture.store.read(&id(name)).map(drop) {
        Err(ReadError::Manifest { snapshot, source }) if snapshot == id(name) => source,
        other => panic!("a manifest's error was expected: {other:?}"),
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, bytes: usize) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..bytes]).unwrap();
}

#[test]
fn damaged_chunks_are_told_apart() {
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, 2 * CHUNK)).unwrap();
    let chunks = fixture.chunks();
    let sound: Vec<Vec<u8>> = chunks.iter().map(|path| fs::read(path).unwrap()).collect();
    let check = |damage: &dyn Fn(&Path), is_right: fn(&ChunkError) -> bool| {
        damage(&chunks[0]);
        let error = chunk_error(&fixture, "a");
        assert!(is_right(&error), "{error}");
        fs::write(&chunks[0], &sound[0]).unwrap();
    };
    check(&|path| flip(path, 5000), |error| matches!(error, ChunkError::Corrupt));
    check(&|path| flip(path, 50), |error| matches!(error, ChunkError::Corrupt));
    check(&|path| flip(path, 0), |error| matches!(error, ChunkError::Foreign));
    check(&|path| flip(path, 4), |error| matches!(error, ChunkError::Version { .. }));
    check(&|path| flip(path, 6), |error| matches!(error, ChunkError::Header));
    check(&|path| cut(path, 5000), |error| matches!(error, ChunkError::Length { have: 5000, .. }));
    check(&|path| cut(path, 0), |error| matches!(error, ChunkError::Length { have: 0, .. }));
    check(&|path| fs::write(path, vec![0; 3 * CHUNK]).unwrap(), |error| matches!(error, ChunkError::Foreign));
    check(&|path| fs::write(path, &sound[1]).unwrap(), |error| matches!(error, ChunkError::Swapped { .. }));
    check(&|path| fs::remove_file(path).unwrap(), |error| matches!(error, ChunkError::Missing));
    assert_eq!(read(&fixture.store, "a").unwrap(), noise(1, 2 * CHUNK));
}

#[test]
fn a_bulk_read_finds_the_one_bad_chunk() {
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, 16 * CHUNK)).unwrap();
    flip(&fixture.chunks()[7], 9999);
    let reader = fixture.store.read(&id("a")).unwrap();
    for threads in [1, 2] {
        let result = reader.for_each_chunk::<ReadError>("pages", threads, |_, _| Ok(()));
        assert!(
            matches!(result, Err(ReadError::Chunk { source, .. }) if matches!(*source, ChunkError::Corrupt))
        );
    }
}

#[test]
fn damaged_manifests_are_told_apart() {
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, CHUNK)).unwrap();
    write(&fixture.store, "b", &noise(2, CHUNK)).unwrap();
    let path = fixture.manifest("a");
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        flip(&path, at);
        let _ = manifest_error(&fixture, "a");
        fs::write(&path, &sound).unwrap();
    }
    flip(&path, sound.len() - 1);
    assert_eq!(manifest_error(&fixture, "a"), ManifestError::Corrupt);
    for bytes in [0, 10, 55, 56, sound.len() - 1] {
        fs::write(&path, &sound[..bytes]).unwrap();
        assert!(matches!(manifest_error(&fixture, "a"), ManifestError::Length { .. }), "cut at {bytes}");
    }
    fs::write(&path, [&sound[..], b"x"].concat()).unwrap();
    assert!(matches!(manifest_error(&fixture, "a"), ManifestError::Length { .. }));
    fs::copy(fixture.manifest("b"), &path).unwrap();
    assert_eq!(manifest_error(&fixture, "a"), ManifestError::OtherSnapshot { found: "b".into() });
    fs::write(&path, &sound).unwrap();
    assert_eq!(read(&fixture.store, "a").unwrap(), noise(1, CHUNK));
}

#[test]
fn another_key_is_named_as_the_cause_and_removes_nothing() {
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, CHUNK)).unwrap();
    let other_keys = fixture.dir.path().join("other-keys");
    Store::open(&fixture.dir.path().join("empty"), &other_keys).unwrap();
    let store = Store::open(&fixture.dir.path().join("snapshots"), &other_keys).unwrap();
    let error = store.read(&id("a")).map(drop).unwrap_err();
    assert!(matches!(error, ReadError::Manifest { source: ManifestError::WrongKey { .. }, .. }), "{error}");
    assert!(matches!(store.collect(), Err(CollectError::Unreadable { .. })));
    assert_eq!(read(&fixture.store, "a").unwrap(), noise(1, CHUNK));
}

#[test]
fn an_unreadable_manifest_keeps_chunks_until_it_is_deleted() {
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, CHUNK)).unwrap();
    write(&fixture.store, "b", &noise(2, CHUNK)).unwrap();
    flip(&fixture.manifest("a"), 100);
    let deleted = fixture.store.delete(&id("b")).unwrap();
    assert_eq!((deleted.snapshots, deleted.chunks), (1, 0));
    assert_eq!(fixture.chunks().len(), 2);
    let deleted = fixture.store.delete(&id("a")).unwrap();
    assert_eq!((deleted.snapshots, deleted.chunks), (1, 2));
    assert_eq!(fixture.chunks().len(), 0);
}

#[test]
fn a_damaged_chunk_is_not_inherited_but_repaired_by_the_next_writer() {
    let fixture = Fixture::new();
    let pages = noise(1, 4 * CHUNK);
    write(&fixture.store, "a", &pages).unwrap();
    let chunks = fixture.chunks();
    flip(&chunks[0], 1234);
    cut(&chunks[1], 0);
    let stored = write(&fixture.store, "b", &pages).unwrap();
    assert_eq!((stored.chunks_new, stored.chunks_shared), (2, 2));
    assert_eq!(read(&fixture.store, "b").unwrap(), pages);
    assert_eq!(read(&fixture.store, "a").unwrap(), pages, "the older snapshot is whole again too");
}

#[test]
fn chunks_of_another_scope_do_not_open() {
    let fixture = Fixture::new();
    write(&fixture.store, "a", &noise(1, CHUNK)).unwrap();
    let local = fixture.chunks().remove(0);
    let mut writer = fixture.store.create(&id("b"), &"other".parse::<Scope>().unwrap()).unwrap();
    writer.stream("pages").unwrap().write(&noise(1, CHUNK)).unwrap();
    writer.commit(b"head of b".to_vec()).unwrap();
    let other = fixture.chunks().into_iter().find(|path| *path != local).unwrap();
    fs::copy(&other, &local).unwrap();
    assert!(matches!(chunk_error(&fixture, "a"), ChunkError::Swapped { .. }));
    assert_eq!(read(&fixture.store, "b").unwrap(), noise(1, CHUNK));
}

#[test]
fn the_store_is_private_and_says_what_is_wrong_with_its_key() {
    let fixture = Fixture::new();
    let dir = fixture.dir.path();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let key = dir.join("keys/snapshots.key");
    assert_eq!(mode(&dir.join("snapshots")), 0o700);
    assert_eq!(mode(&dir.join("keys")), 0o700);
    assert_eq!(mode(&key), 0o600);
    write(&fixture.store, "a", b"x").unwrap();
    assert_eq!(mode(&fixture.manifest("a")), 0o600);
    assert_eq!(mode(&fixture.chunks()[0]), 0o600);

    let open = || Store::open(&dir.join("snapshots"), &dir.join("keys")).map(drop);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(), Err(OpenError::KeyExposed { mode: 0o640, .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    flip(&key, 20);
    assert!(matches!(open(), Err(OpenError::KeyMalformed { .. })));
    fs::remove_file(&key).unwrap();
    assert!(matches!(open(), Err(OpenError::KeyMissing { .. })));
    fs::write(dir.join("snapshots/format"), "rekindle snapshot store 2\n").unwrap();
    assert!(matches!(open(), Err(OpenError::Format { found, .. }) if found == "rekindle snapshot store 2"));
}

#[test]
fn what_lies_on_the_disk_shows_nothing_of_the_content() {
    let fixture = Fixture::new();
    let secret = b"AKIA-this-is-a-secret-that-was-in-memory";
    let mut writer = fixture.store.create(&id("a"), &Scope::local()).unwrap();
    writer.stream("pages").unwrap().write(secret).unwrap();
    writer.commit(secret.to_vec()).unwrap();
    for path in fixture.chunks().into_iter().chain([fixture.manifest("a")]) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(8).any(|window| secret.windows(8).any(|part| part == window)), "{path:?}");
    }
    let reopened = open(fixture.dir.path());
    assert_eq!(reopened.read(&id("a")).unwrap().head(), secret);
}
