//! The AWS client for .NET: three packages from NuGet, or the files of a directory.
//!
//! Its assemblies lie flat in the runtime's directory, where the client itself looks for its registry of hooks. **The
//! newest release wins, in its build for the newest .NET that is not newer than the one that runs it.** Deliberately absent:
//! reading the packages' own dependencies, which are these three.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::nuget::{Package, Source};
use crate::runtime::language::Clients;
use crate::runtime::places::children;

/// The package that is the client proper.
pub const MAIN_PACKAGE: &str = "Amazon.Lambda.RuntimeSupport";

/// The file without which there is no client.
pub const MAIN_FILE: &str = "Amazon.Lambda.RuntimeSupport.dll";

/// The client and what it needs.
const PACKAGES: [&str; 3] = [MAIN_PACKAGE, "Amazon.Lambda.Core", "SnapshotRestore.Registry"];

/// The oldest framework that is looked for in a package.
const MAJOR_MIN: u32 = 6;

/// Fetches the packages and puts their assemblies for .NET `major` into `dir`.
///
/// # Errors
///
/// If the registry does not answer, or has nothing for this .NET.
pub fn fetch(major: u32, dir: &Path) -> Result<Clients> {
    let source = Source::open()?;
    let mut clients = Clients::new();
    for id in PACKAGES {
        let (package, version) = source.newest(id)?;
        unpack(package, major, dir).with_context(|| format!("unpack {id} {version}"))?;
        clients.insert(id.to_owned(), version);
    }
    Ok(clients)
}

/// Copies the assemblies of `from` to `dir`. Their versions are found out when the client is loaded.
///
/// # Errors
///
/// If one cannot be copied.
pub fn copy(from: &Path, dir: &Path) -> Result<Clients> {
    for file in assemblies(from) {
        std::fs::copy(&file, dir.join(file.file_name().unwrap_or_default()))
            .with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(Clients::new())
}

/// Whether `dir` holds the very assemblies of `from`.
pub fn is_copied(from: &Path, dir: &Path) -> bool {
    assemblies(from).iter().all(|file| {
        let copied = std::fs::read(dir.join(file.file_name().unwrap_or_default()));
        matches!((std::fs::read(file), copied), (Ok(original), Ok(copied)) if original == copied)
    })
}

fn assemblies(dir: &Path) -> Vec<PathBuf> {
    children(dir).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "dll")).collect()
}

fn unpack(mut package: Package, major: u32, dir: &Path) -> Result<()> {
    for framework in (MAJOR_MIN..=major).rev() {
        let folder = format!("lib/net{framework}.0/");
        let names = package.files(|name| name.strip_prefix(&folder).is_some_and(is_assembly));
        for name in &names {
            package.unpack(name, &dir.join(&name[folder.len()..]))?;
        }
        if !names.is_empty() {
            return Ok(());
        }
    }
    bail!("it has nothing for .NET {major} and older")
}

/// Whether this is the name of an assembly, and of nothing in a directory below.
fn is_assembly(name: &str) -> bool {
    name.ends_with(".dll") && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_is_known_again() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(from.path().join(MAIN_FILE), "one").unwrap();
        std::fs::write(from.path().join("readme.txt"), "no assembly").unwrap();
        assert!(!is_copied(from.path(), to.path()));
        copy(from.path(), to.path()).unwrap();
        assert!(is_copied(from.path(), to.path()));
        assert!(!to.path().join("readme.txt").exists());
        std::fs::write(from.path().join(MAIN_FILE), "two").unwrap();
        assert!(!is_copied(from.path(), to.path()));
    }

    #[test]
    fn the_newest_build_that_runs_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let package = || {
            Package::of(&[
                ("lib/net8.0/A.dll", "eight"),
                ("lib/net10.0/A.dll", "ten"),
                ("lib/net10.0/de/A.resources.dll", "texts"),
                ("lib/netstandard2.0/A.dll", "standard"),
            ])
        };
        for (major, text) in [(8, "eight"), (9, "eight"), (10, "ten")] {
            unpack(package(), major, dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(dir.path().join("A.dll")).unwrap(), text);
        }
        assert!(unpack(package(), 7, dir.path()).is_err());
    }
}
