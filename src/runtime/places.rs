//! Where interpreters may be on this machine, and whether a sandbox would show them.
//!
//! What every language's search has in common. Deliberately absent: names of programs and the places of one language's
//! version managers (each language's own file).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The directories that a sandbox shows as the host has them.
const SHOWN_DIRS: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/sbin"];

/// What a sandbox shows of `/etc` wherever the host has it (the rest of it is the sandbox's own).
const SHOWN_OF_ETC: [&str; 4] =
    ["/etc/alternatives", "/etc/ssl/certs", "/etc/pki/ca-trust", "/etc/pki/tls/certs"];

/// The user's home directory, or nothing's.
pub fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_default()
}

/// The path that an environment variable holds, if it is set and not empty.
pub fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The directories of PATH.
pub fn path_dirs() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

/// What lies in `dir`, by name; nothing if it cannot be read.
pub fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

/// The files called `name` in `dirs` or in the `bin` of each, in that order, each path once.
pub fn programs(name: &str, dirs: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let places = dirs.into_iter().flat_map(|dir| [dir.join(name), dir.join("bin").join(name)]);
    places.filter(|program| program.is_file() && seen.insert(program.clone())).collect()
}

/// Whether a sandbox shows `path` without a bind of its own.
pub fn is_shown(path: &Path) -> bool {
    SHOWN_DIRS.iter().any(|dir| path.starts_with(dir))
}

/// Whether a sandbox shows this path of `/etc` as the host has it.
pub fn is_shown_of_etc(path: &Path) -> bool {
    SHOWN_OF_ETC.iter().any(|dir| path.starts_with(dir))
}

/// Checks that functions may read `paths` of the installation at `prefix`.
///
/// # Errors
///
/// If one is closed to other users; the message names the remedy.
pub fn check_readable(prefix: &Path, paths: &[&Path]) -> Result<()> {
    if let Some(path) = paths.iter().find(|path| !is_readable_by_all(path)) {
        let (path, prefix) = (path.display(), prefix.display());
        bail!("{path} is not readable by everyone (remedy: chmod -R o+rX {prefix})");
    }
    Ok(())
}

/// Checks that a sandbox that shows `prefix` also shows every file of `mapped`.
///
/// # Errors
///
/// If one lies elsewhere; the message names it.
pub fn check_shown(program: &Path, prefix: &Path, mapped: &[PathBuf]) -> Result<()> {
    if let Some(library) = mapped.iter().find(|path| !is_shown(path) && !path.starts_with(prefix)) {
        bail!("{} needs {}, which a sandbox does not show", program.display(), library.display());
    }
    Ok(())
}

/// Functions run as a user of their own, which is "other" for every file of the host. What its owner may run or search,
/// others must be able to as well.
fn is_readable_by_all(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| {
        let mode = metadata.permissions().mode();
        let needed = 0o4 | ((mode & 0o100) >> 6);
        mode & needed == needed
    })
}
