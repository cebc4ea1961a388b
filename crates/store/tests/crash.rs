//! A writer that is killed at any moment leaves every snapshot that it has reported, whole, and nothing of
//! the one that it was writing.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use common::{CHUNK, Fixture, child_dir, noise, open, read, spawn_child, write};

const ROUNDS: u64 = 20;

fn pages(seed: u64) -> Vec<u8> {
    // Half of the chunks are common to all, so that kills hit shared chunks too.
    (0..8).flat_map(|n| noise(if n % 2 == 0 { n } else { seed * 100 + n }, CHUNK)).collect()
}

#[test]
fn a_killed_writer_leaves_whole_snapshots_only() {
    let fixture = Fixture::new();
    let reported = fixture.dir.path().join("reported");
    let mut committed = 0;
    for round in 0..ROUNDS {
        let mut child = spawn_child("child_writer", fixture.dir.path(), round);
        std::thread::sleep(Duration::from_millis(20 + round * 37 % 400));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "the child ended by itself");

        let store = open(fixture.dir.path());
        assert_eq!(fixture.writers(), 0, "opening removes what a dead writer left");
        let list = store.list().unwrap();
        for name in fs::read_to_string(&reported).unwrap_or_default().lines() {
            assert!(list.iter().any(|snapshot| snapshot.as_str() == name), "{name} was reported and is gone");
        }
        for snapshot in &list {
            let seed = snapshot.as_str().rsplit_once('-').unwrap().1.parse().unwrap();
            assert!(read(&store, snapshot.as_str()).unwrap() == pages(seed), "{snapshot} has other bytes");
        }
        // The last two go on to the next round.
        let kept = &list[list.len().saturating_sub(2)..];
        store.retain(kept).unwrap();
        fs::write(&reported, kept.iter().map(|snapshot| format!("{snapshot}\n")).collect::<String>())
            .unwrap();
        let needed = if kept.is_empty() { 0 } else { 4 + 4 * kept.len() };
        assert_eq!(fixture.chunks().len(), needed, "round {round}");
        committed += list.len();
    }
    assert!(
        committed > ROUNDS as usize,
        "the children hardly came to commit anything: the test tested nothing"
    );
}

/// Not a test by itself: writes snapshots and reports each, until it is killed.
#[test]
fn child_writer() {
    let Some((dir, round)) = child_dir() else { return };
    let store = open(&dir);
    let mut reported = fs::OpenOptions::new().append(true).create(true).open(dir.join("reported")).unwrap();
    for number in 0.. {
        let seed = round * 1000 + number;
        let name = format!("round{round}-{seed}");
        write(&store, &name, &pages(seed)).unwrap();
        reported.write_all(format!("{name}\n").as_bytes()).unwrap();
    }
}
