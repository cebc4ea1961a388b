//! Deployment packages on disk: checked, unpacked once, found by their SHA-256.
//!
//! Layout: `code/<sha256>/package.zip` as uploaded and `code/<sha256>/task/`, which sandboxes mount at `/var/task`.
//! **A directory `code/<sha256>` is complete or absent**: it is made under `tmp/`, flushed to disk and then
//! renamed, and only after that may the metadata refer to it. So what was acknowledged survives a kill at any moment.
//!
//! [`check_archive`] is the pure part: bytes in, a list of what would be written out. Deliberately absent: who
//! refers to a package; `control` knows and says what may go.

mod archive;
mod unpack;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::error::ApiError;
use model::function::{Code, Sha256};
use model::limits;
use sha2::Digest as _;
use tokio::task::spawn_blocking;

pub use archive::{ArchiveError, Entry, EntryKind, check_archive};

/// What directories under `tmp/` that belong to this module are called.
const TMP_PREFIX: &str = "code-";

/// The packages of all functions.
#[derive(Debug, Clone)]
pub struct CodeStore {
    code_dir: PathBuf,
    tmp_dir: PathBuf,
}

impl CodeStore {
    /// Uses `code/` and `tmp/` of the data directory, which are made if absent.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let store = Self { code_dir: data_dir.join("code"), tmp_dir: data_dir.join("tmp") };
        std::fs::create_dir_all(&store.code_dir)?;
        std::fs::create_dir_all(&store.tmp_dir)?;
        Ok(store)
    }

    /// Where the unpacked code of a package is.
    pub fn task_dir(&self, sha256: &Sha256) -> PathBuf {
        self.dir(sha256).join("task")
    }

    /// Where the package itself is.
    pub fn package(&self, sha256: &Sha256) -> PathBuf {
        self.dir(sha256).join("package.zip")
    }

    /// Checks a package without keeping it.
    ///
    /// # Errors
    /// As [`CodeStore::put`].
    pub async fn check(&self, zip: Bytes) -> Result<Code, CodeError> {
        check_size(&zip)?;
        off_thread(move || {
            check_archive(&zip)?;
            Ok(describe(&zip))
        })
        .await
    }

    /// Checks and unpacks a package; returns when it is durable. A package that is there already costs nothing.
    ///
    /// # Errors
    /// [`CodeError::Refused`] for a package that must not be unpacked, [`CodeError::Disk`] when it could not be.
    pub async fn put(&self, zip: Bytes) -> Result<Code, CodeError> {
        check_size(&zip)?;
        let store = self.clone();
        off_thread(move || {
            let entries = check_archive(&zip)?;
            let code = describe(&zip);
            let dir = store.dir(&code.sha256);
            if !dir.exists() {
                let tmp = store.tmp_dir.join(format!("{TMP_PREFIX}{}", uuid::Uuid::new_v4()));
                let done = unpack::unpack(&zip, &entries, &tmp).and_then(|()| publish(&tmp, &dir));
                if done.is_err() {
                    discard(&tmp);
                }
                done?;
            }
            // Also for a package that someone else is just making: its name must be durable before anybody refers
            // to it.
            std::fs::File::open(&store.code_dir)?.sync_all()?;
            Ok(code)
        })
        .await
    }

    /// Every package that is there.
    ///
    /// # Errors
    /// [`CodeError::Disk`] when the directory cannot be read.
    pub async fn list(&self) -> Result<BTreeSet<Sha256>, CodeError> {
        let store = self.clone();
        off_thread(move || {
            let mut found = BTreeSet::new();
            for entry in std::fs::read_dir(&store.code_dir)? {
                found.extend(entry?.file_name().to_str().and_then(Sha256::from_hex));
            }
            Ok(found)
        })
        .await
    }

    /// Removes every package that is not in `keep`, and what an earlier life left half-made.
    ///
    /// # Errors
    /// [`CodeError::Disk`] when a directory cannot be read; a package that cannot be removed is only logged.
    pub async fn retain(&self, keep: BTreeSet<Sha256>) -> Result<(), CodeError> {
        let store = self.clone();
        off_thread(move || {
            for entry in std::fs::read_dir(&store.tmp_dir)? {
                let entry = entry?;
                if entry.file_name().as_encoded_bytes().starts_with(TMP_PREFIX.as_bytes()) {
                    discard(&entry.path());
                }
            }
            for entry in std::fs::read_dir(&store.code_dir)? {
                let entry = entry?;
                let sha256 = entry.file_name().to_str().and_then(Sha256::from_hex);
                if sha256.is_some_and(|sha256| !keep.contains(&sha256)) {
                    store.remove(&entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    fn dir(&self, sha256: &Sha256) -> PathBuf {
        self.code_dir.join(sha256.hex())
    }

    /// Renames first, so that a removal that is interrupted leaves no half of a package under its name.
    fn remove(&self, dir: &Path) -> io::Result<()> {
        let tmp = self.tmp_dir.join(format!("{TMP_PREFIX}{}", uuid::Uuid::new_v4()));
        std::fs::rename(dir, &tmp)?;
        discard(&tmp);
        Ok(())
    }
}

/// Why a package was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The package is at fault; the caller is told why.
    #[error("{0}")]
    Refused(ApiError),
    /// The disk is at fault.
    #[error("deployment package cannot be stored: {0}")]
    Disk(#[from] io::Error),
}

impl From<ArchiveError> for CodeError {
    fn from(error: ArchiveError) -> Self {
        let refusal = match error {
            ArchiveError::Empty => ApiError::empty_zip(),
            ArchiveError::TooLarge => ApiError::unzipped_too_large(),
            ArchiveError::Unreadable => ApiError::bad_zip(),
            ArchiveError::Refused(cause) => {
                let mut refusal = ApiError::bad_zip();
                refusal.message = format!("{} ({cause})", refusal.message);
                refusal
            }
        };
        Self::Refused(refusal)
    }
}

fn check_size(zip: &[u8]) -> Result<(), CodeError> {
    if zip.len() as u64 > limits::CODE_ZIPPED_BYTES_MAX {
        return Err(CodeError::Refused(ApiError::zipped_too_large()));
    }
    Ok(())
}

fn describe(zip: &[u8]) -> Code {
    Code { sha256: Sha256(sha2::Sha256::digest(zip).into()), size_bytes: zip.len() as u64 }
}

/// Makes the finished directory visible under its name. Someone else may have made the same package meanwhile; his is
/// as good.
fn publish(tmp: &Path, dir: &Path) -> Result<(), CodeError> {
    if let Err(cause) = std::fs::rename(tmp, dir) {
        if !dir.exists() {
            return Err(cause.into());
        }
        discard(tmp);
    }
    Ok(())
}

fn discard(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => tracing::warn!(path = %path.display(), %cause, "remove directory failed"),
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CodeError> + Send + 'static,
) -> Result<T, CodeError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(cause) => Err(CodeError::Disk(io::Error::other(cause))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::archive::tests::zip_of;

    #[tokio::test]
    async fn a_package_is_kept_once_and_removed_when_nobody_wants_it() {
        let data = tempfile::tempdir().expect("a directory");
        let store = CodeStore::open(data.path()).expect("fresh directory");
        let zip = Bytes::from(zip_of(&[("app.py", b"x = 1"), ("lib/a.txt", b"a")]));
        let code = store.put(zip.clone()).await.expect("a good package");
        assert_eq!(store.put(zip.clone()).await.expect("again"), code);
        let task = store.task_dir(&code.sha256);
        assert_eq!(std::fs::read(task.join("app.py")).expect("unpacked"), b"x = 1");
        assert_eq!(std::fs::read(store.package(&code.sha256)).expect("kept"), zip);

        store.retain([code.sha256].into()).await.expect("readable");
        assert!(task.exists());
        std::fs::create_dir(data.path().join("tmp/code-left-behind")).expect("writable");
        store.retain([].into()).await.expect("readable");
        assert!(!task.exists());
        assert_eq!(std::fs::read_dir(data.path().join("tmp")).expect("readable").count(), 0);
    }

    #[tokio::test]
    async fn a_refused_package_leaves_nothing_behind() {
        let data = tempfile::tempdir().expect("a directory");
        let store = CodeStore::open(data.path()).expect("fresh directory");
        let refused = store.put(Bytes::from_static(b"no zip")).await.expect_err("no zip");
        assert!(matches!(refused, CodeError::Refused(error) if error == ApiError::bad_zip()));
        assert_eq!(std::fs::read_dir(data.path().join("tmp")).expect("readable").count(), 0);
        assert_eq!(std::fs::read_dir(data.path().join("code")).expect("readable").count(), 0);
    }
}
