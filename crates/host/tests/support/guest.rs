//! The guest program: built from `crates/engine/tests/guests`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Compiles the guest into `directory` and gives its path.
pub fn build(directory: &Path) -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/guests");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&sources)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    files.sort();
    let guest = directory.join("guest");
    let status = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&guest)
        .args(&files)
        .status()
        .context("run cc")?;
    ensure!(status.success(), "the guest does not compile");
    Ok(guest)
}
