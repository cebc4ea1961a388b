//! What the tests of the store share: a store in a directory of its own, content that is different for every
//! seed, and a way to run one test function in a process of its own.
#![allow(dead_code, missing_docs, reason = "every test file uses a part of this")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use store::{ReadError, Reader, Scope, SnapshotId, Store, Stored, WriteError};
use tempfile::TempDir;

pub const CHUNK: usize = store::limits::CHUNK_BYTES;

/// A store in a temporary directory.
pub struct Fixture {
    pub dir: TempDir,
    pub store: Store,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path());
        Self { dir, store }
    }

    pub fn manifest(&self, snapshot: &str) -> PathBuf {
        self.dir.path().join("snapshots/manifests").join(snapshot)
    }

    /// All files of chunks, sorted.
    pub fn chunks(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in std::fs::read_dir(self.dir.path().join("snapshots/chunks")).unwrap() {
            files.extend(std::fs::read_dir(dir.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
        }
        files.sort();
        files
    }

    /// Directories of writers, living or dead.
    pub fn writers(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("snapshots/writers")).unwrap().count()
    }
}

pub fn open(dir: &Path) -> Store {
    Store::open(&dir.join("snapshots"), &dir.join("keys")).unwrap()
}

pub fn id(name: &str) -> SnapshotId {
    name.parse().unwrap()
}

/// Writes a snapshot of one stream in the local scope.
pub fn write(store: &Store, name: &str, pages: &[u8]) -> Result<Stored, WriteError> {
    let mut writer = store.create(&id(name), &Scope::local())?;
    writer.stream("pages")?.write(pages)?;
    writer.commit(format!("head of {name}").into_bytes())
}

/// Reads the stream that [`write`] wrote, and its head.
pub fn read(store: &Store, name: &str) -> Result<Vec<u8>, ReadError> {
    let reader = store.read(&id(name))?;
    assert_eq!(reader.head(), format!("head of {name}").as_bytes());
    read_stream(&reader, "pages")
}

pub fn read_stream(reader: &Reader, stream: &str) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; reader.stream_bytes(stream) as usize];
    reader.read_at(stream, 0, &mut bytes)?;
    Ok(bytes)
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Runs the test function `name` of this test binary in a process of its own, in which [`child_dir`] is
/// `dir`.
pub fn spawn_child(name: &str, dir: &Path, argument: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("STORE_TEST_DIR", dir)
        .env("STORE_TEST_ARGUMENT", argument.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The directory and the argument of this process, when it is a child; a test function that is one only then
/// does its part.
pub fn child_dir() -> Option<(PathBuf, u64)> {
    let dir = std::env::var_os("STORE_TEST_DIR")?;
    let argument = std::env::var("STORE_TEST_ARGUMENT").unwrap().parse().unwrap();
    Some((dir.into(), argument))
}
