//! Deleting frees the disk at once, collecting takes nothing that is needed, and both hold with writers in
//! several threads and processes at work.

mod common;

use common::{CHUNK, Fixture, child_dir, id, noise, open, read, spawn_child, write};
use store::{Collected, ReadError, Scope};

#[test]
fn deleting_frees_what_no_other_snapshot_needs() {
    let fixture = Fixture::new();
    let (a, b, c) = (noise(1, CHUNK), noise(2, CHUNK), noise(3, CHUNK));
    write(&fixture.store, "ab", &[&a[..], &b].concat()).unwrap();
    write(&fixture.store, "bc", &[&b[..], &c].concat()).unwrap();
    assert_eq!(fixture.chunks().len(), 3);
    let deleted = fixture.store.delete(&id("ab")).unwrap();
    assert_eq!((deleted.snapshots, deleted.chunks), (1, 1));
    assert!(deleted.bytes >= CHUNK as u64);
    assert!(matches!(fixture.store.read(&id("ab")), Err(ReadError::NotFound { .. })));
    assert_eq!(read(&fixture.store, "bc").unwrap(), [&b[..], &c].concat());
    assert_eq!(fixture.store.delete(&id("ab")).unwrap(), Collected::default());
    fixture.store.delete(&id("bc")).unwrap();
    assert_eq!(fixture.store.usage().unwrap(), store::Usage::default());
}

#[test]
fn retain_deletes_all_others() {
    let fixture = Fixture::new();
    for name in ["a", "b", "c"] {
        write(&fixture.store, name, &noise(name.as_bytes()[0].into(), CHUNK)).unwrap();
    }
    let retained = fixture.store.retain(&[id("b"), id("unknown")]).unwrap();
    assert_eq!((retained.snapshots, retained.chunks), (2, 2));
    assert_eq!(fixture.store.list().unwrap(), [id("b")]);
    assert_eq!(read(&fixture.store, "b").unwrap(), noise(u64::from(b'b'), CHUNK));
}

#[test]
fn a_writer_keeps_what_it_shares_while_its_only_owner_is_deleted() {
    let fixture = Fixture::new();
    let pages = noise(1, 4 * CHUNK);
    write(&fixture.store, "old", &pages).unwrap();
    let mut writer = fixture.store.create(&id("new"), &Scope::local()).unwrap();
    writer.stream("pages").unwrap().write(&pages).unwrap();
    // The pool has taken its links when its queue is empty; deleting earlier or later must both be right.
    std::thread::sleep(std::time::Duration::from_millis(200));
    fixture.store.delete(&id("old")).unwrap();
    assert_eq!(fixture.chunks().len(), 0);
    assert_eq!(fixture.writers(), 1, "a living writer's directory stays");
    let stored = writer.commit(b"head of new".to_vec()).unwrap();
    assert_eq!((stored.chunks_new, stored.chunks_shared), (0, 4));
    assert_eq!(read(&fixture.store, "new").unwrap(), pages);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let fixture = Fixture::new();
    let mut writer = fixture.store.create(&id("a"), &Scope::local()).unwrap();
    writer.stream("pages").unwrap().write(&noise(1, 20 * CHUNK)).unwrap();
    drop(writer);
    assert_eq!((fixture.chunks().len(), fixture.writers()), (0, 0));
    assert!(fixture.store.list().unwrap().is_empty());
}

#[test]
fn threads_write_read_delete_and_collect_at_once() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let store = &fixture.store;
            scope.spawn(move || work(store, worker, 12));
        }
        scope.spawn(|| (0..60).for_each(|_| _ = fixture.store.collect().unwrap()));
    });
    fixture.store.retain(&[]).unwrap();
    assert_eq!((fixture.chunks().len(), fixture.writers()), (0, 0));
}

#[test]
fn processes_write_read_delete_and_collect_at_once() {
    let fixture = Fixture::new();
    let mut children: Vec<_> =
        (0..2).map(|worker| spawn_child("child_worker", fixture.dir.path(), worker)).collect();
    children.push(spawn_child("child_collector", fixture.dir.path(), 0));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let left = fixture.store.list().unwrap();
    assert_eq!(left.len(), 2, "each worker leaves its last snapshot");
    for snapshot in left {
        read(&fixture.store, snapshot.as_str()).unwrap();
    }
    fixture.store.retain(&[]).unwrap();
    assert_eq!((fixture.chunks().len(), fixture.writers()), (0, 0));
}

/// Not a test by itself: what the children of the test above do.
#[test]
fn child_worker() {
    let Some((dir, worker)) = child_dir() else { return };
    work(&open(&dir), worker, 25);
}

/// Not a test by itself: a third process that collects all the time and opens the store anew each time.
#[test]
fn child_collector() {
    let Some((dir, _)) = child_dir() else { return };
    for _ in 0..120 {
        open(&dir).collect().unwrap();
    }
}

/// Writes snapshots out of a few chunks that all workers use, checks each, and deletes the one before.
fn work(store: &store::Store, worker: u64, rounds: u64) {
    for round in 0..rounds {
        let pages: Vec<u8> =
            (0..4).flat_map(|n| noise((round * 3 + n * (worker + 1)) % 7, CHUNK / 2)).collect();
        let name = format!("w{worker}-{round}");
        write(store, &name, &pages).unwrap();
        assert!(read(store, &name).unwrap() == pages);
        if round > 0 {
            store.delete(&id(&format!("w{worker}-{}", round - 1))).unwrap();
        }
        assert!(read(store, &name).unwrap() == pages);
    }
}

#[test]
fn a_lock_that_stays_too_long_only_delays_collecting() {
    let fixture = Fixture::new();
    let mut writer = fixture.store.create(&id("a"), &Scope::local()).unwrap();
    writer.stream("pages").unwrap().write(b"x").unwrap();
    // As if a forked child had kept the writer's descriptors: the lock outlives the writer.
    std::mem::forget(writer);
    fixture.store.collect().unwrap();
    assert_eq!(fixture.writers(), 1);
    write(&open(fixture.dir.path()), "a", b"y").unwrap();
    assert_eq!(read(&fixture.store, "a").unwrap(), b"y");
}
