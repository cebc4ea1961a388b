//! A store that version 1 of the format wrote, kept in `tests/golden/v1`, must be readable for as long as this program
//! says that it reads version 1. Its key protects nothing but these bytes.
//!
//! To make the files of a new version: `cargo test -p rekindle-store --test golden -- --ignored`, once, into a new
//! directory. Files of an old version are never made again.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{CHUNK, id, open, read_stream};
use store::Scope;
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn text() -> Vec<u8> {
    b"The quick brown fox jumps over the lazy dog. ".repeat(100)
}

#[test]
fn a_store_of_version_1_is_readable() {
    let dir = TempDir::new().unwrap();
    copy(&golden(), dir.path());
    let key = dir.path().join("keys/snapshots.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    // Git keeps no empty directories.
    for first in 0..=u8::MAX {
        fs::create_dir_all(dir.path().join(format!("snapshots/chunks/{first:02x}"))).unwrap();
    }
    fs::create_dir_all(dir.path().join("snapshots/writers")).unwrap();

    let store = open(dir.path());
    let reader = store.read(&id("golden")).unwrap();
    assert_eq!(reader.head(), b"head of a golden snapshot");
    let mut pages = vec![0; CHUNK];
    pages.extend_from_slice(&text());
    assert_eq!(read_stream(&reader, "pages").unwrap(), pages);
    assert_eq!(read_stream(&reader, "files").unwrap(), [1, 2, 3]);
    assert_eq!(store.collect().unwrap().chunks, 0, "its chunks are known to be needed");
}

#[test]
#[ignore = "makes the files that the test above reads"]
fn make() {
    assert!(!golden().exists(), "{:?} is there: files of an old version are never made again", golden());
    let store = open(&golden());
    let mut writer = store.create(&id("golden"), &Scope::local()).unwrap();
    let mut pages = writer.stream("pages").unwrap();
    pages.write_zeros(CHUNK as u64).unwrap();
    pages.write(&text()).unwrap();
    writer.stream("files").unwrap().write(&[1, 2, 3]).unwrap();
    writer.commit(b"head of a golden snapshot".to_vec()).unwrap();
    fs::remove_file(golden().join("snapshots/gate")).unwrap();
    for dir in fs::read_dir(golden().join("snapshots/chunks")).unwrap() {
        // Those with a chunk in them stay.
        let _ = fs::remove_dir(dir.unwrap().path());
    }
    fs::remove_dir(golden().join("snapshots/writers")).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
