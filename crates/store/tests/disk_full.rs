//! A disk that fills up at any point of writing gives a clean error, leaves no half snapshot, harms no other
//! one, and is free again. Needs root, to mount small file systems.

mod common;

use std::path::Path;

use common::{CHUNK, id, noise, open, read, write};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use store::WriteError;
use tempfile::TempDir;

struct Small(TempDir);

impl Small {
    fn mount(bytes: usize) -> Option<Self> {
        let small = TempDir::new().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        match mount("tmpfs", small.path(), "tmpfs", MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Self(small)),
            Err(error) => {
                eprintln!(
                    "!!! NOT RUN: the full disk was not tested: mounting a small tmpfs: {error}; run as root !!!"
                );
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_gives_a_clean_error_wherever_it_strikes() {
    // From too small for a third of the chunks to large enough, in steps that strike at chunks and at the
    // manifest.
    let (mut full, mut done) = (0, 0);
    for step in 0..36 {
        let bytes = 5 * CHUNK + step * (CHUNK / 4 - 4096);
        let Some(small) = Small::mount(bytes) else { return };
        let store = open(small.path());
        let kept = noise(1, CHUNK);
        write(&store, "kept", &kept).unwrap();
        let before = store.usage().unwrap();
        match write(&store, "large", &noise(2, 9 * CHUNK + CHUNK / 2)) {
            Ok(_) => {
                done += 1;
                assert!(read(&store, "large").unwrap() == noise(2, 9 * CHUNK + CHUNK / 2));
                store.delete(&id("large")).unwrap();
            }
            Err(error) => {
                full += 1;
                assert!(matches!(error, WriteError::DiskFull { .. }), "{error}");
            }
        }
        assert_eq!(store.usage().unwrap(), before, "{bytes} bytes: the disk is as it was");
        assert_eq!(std::fs::read_dir(small.path().join("snapshots/writers")).unwrap().count(), 0);
        assert_eq!(read(&store, "kept").unwrap(), kept);
        write(&store, "small", &noise(3, CHUNK)).unwrap();
        assert_eq!(read(&store, "small").unwrap(), noise(3, CHUNK));
    }
    assert!(full > 5 && done > 5, "{full} times full, {done} times not: the sizes are badly chosen");
}

#[test]
fn a_disk_without_room_for_the_manifest_is_full_too() {
    let Some(small) = Small::mount(4 * CHUNK) else { return };
    let store = open(small.path());
    let mut writer = store.create(&id("a"), &store::Scope::local()).unwrap();
    writer.stream("pages").unwrap().write(b"little").unwrap();
    let error = writer.commit(noise(1, 5 * CHUNK)).unwrap_err();
    assert!(matches!(error, WriteError::DiskFull { .. }), "{error}");
    assert_eq!(store.usage().unwrap(), store::Usage::default());
    write(&store, "b", b"still works").unwrap();
}

#[test]
fn calls_after_the_first_error_say_that_there_was_one() {
    let Some(small) = Small::mount(4 * CHUNK) else { return };
    let store = open(small.path());
    let mut writer = store.create(&id("a"), &store::Scope::local()).unwrap();
    let error = (0..200).find_map(|seed| writer.stream("pages").unwrap().write(&noise(seed, CHUNK)).err());
    assert!(matches!(error, Some(WriteError::DiskFull { .. })), "{error:?}");
    let error = writer.stream("pages").unwrap().write(&noise(1, CHUNK)).unwrap_err();
    assert!(matches!(error, WriteError::Failed { .. }), "{error}");
    assert!(matches!(writer.commit(Vec::new()), Err(WriteError::Failed { .. })));
}
