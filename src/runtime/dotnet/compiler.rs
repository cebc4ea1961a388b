//! Compiles our own C# against the framework that will run it, and tries it.
//!
//! The compiler is that of the SDK, if the installation has one; else it is fetched from NuGet, and not kept. A package of
//! .NET for tests has it in a directory `csc`. Deliberately absent: MSBuild.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::nuget::Source;
use super::{FRAMEWORK, numbers};
use crate::runtime::language::Interpreter;
use crate::runtime::places::children;
use crate::runtime::tools;

/// The compiler's package, and where the compiler is in it.
const PACKAGE: &str = "Microsoft.Net.Compilers.Toolset";
const PACKAGE_DIR: &str = "tasks/netcore/bincore/";

/// What comes of our sources.
const OUTPUT: &str = "Rekindle.dll";

/// The framework's assemblies for the version of an installation.
pub fn framework_dir(prefix: &Path, version: &str) -> PathBuf {
    prefix.join("shared").join(FRAMEWORK).join(version)
}

/// Compiles `sources` of `dir`, which also holds the client, to one program there.
///
/// # Errors
///
/// If there is no compiler, or if it does not like the sources. The message holds its own words.
pub fn compile<'a>(
    interpreter: &Interpreter,
    dir: &Path,
    sources: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let fetched = dir.with_file_name("compiler");
    let compiler = match installed(&interpreter.prefix) {
        Some(compiler) => compiler,
        None => {
            fetch(&fetched).context("fetch a C# compiler (remedy: install the .NET SDK, which has one)")?
        }
    };
    let framework = framework_dir(&interpreter.prefix, &interpreter.version);
    let references = children(&framework).into_iter().filter(|path| is_reference(path));
    let mut command = dotnet(interpreter);
    command.arg(&compiler).args([
        "-nologo",
        "-noconfig",
        "-nostdlib",
        "-deterministic",
        "-optimize",
        "-unsafe",
    ]);
    command.args(["-nullable:enable", "-target:exe"]).arg(option("-out:", &dir.join(OUTPUT)));
    command.args(references.chain(client_assemblies(dir)).map(|path| option("-r:", &path)));
    tools::finish(command.args(sources.map(|name| dir.join(name))))?;
    std::fs::remove_dir_all(fetched).ok();
    Ok(())
}

/// Loads the client with the launcher and returns its version.
///
/// # Errors
///
/// If it cannot be loaded. The message holds .NET's own words.
pub fn verify(interpreter: &Interpreter, dir: &Path) -> Result<String> {
    let config = dir.with_file_name("check.runtimeconfig.json");
    let framework = serde_json::json!({ "name": FRAMEWORK, "version": interpreter.version });
    let text = serde_json::json!({ "runtimeOptions": { "frameworks": [framework] } });
    std::fs::write(&config, text.to_string())?;
    let mut command = dotnet(interpreter);
    command.arg("--runtimeconfig").arg(&config).arg(dir.join(OUTPUT)).arg("--check");
    let answer = tools::finish(&mut command)?;
    std::fs::remove_file(config)?;
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

/// `dotnet exec`, free of the settings of whoever runs the install.
fn dotnet(interpreter: &Interpreter) -> Command {
    let mut command = Command::new(&interpreter.program);
    command
        .arg("exec")
        .env("DOTNET_ROOT", &interpreter.prefix)
        .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1");
    command.env_remove("DOTNET_STARTUP_HOOKS");
    command
}

/// The compiler of the newest SDK of an installation.
fn installed(prefix: &Path) -> Option<PathBuf> {
    let mut sdks = children(&prefix.join("sdk"));
    sdks.sort_by_key(|dir| numbers(&dir.file_name().unwrap_or_default().to_string_lossy()));
    let places = sdks.into_iter().rev().map(|dir| dir.join("Roslyn/bincore/csc.dll"));
    places.chain([prefix.join("csc/csc.dll")]).find(|compiler| compiler.is_file())
}

fn fetch(dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let (mut package, _) = Source::open()?.newest(PACKAGE)?;
    // Its texts in other languages lie in directories below.
    for name in package.files(|name| name.strip_prefix(PACKAGE_DIR).is_some_and(|rest| !rest.contains('/'))) {
        package.unpack(&name, &dir.join(&name[PACKAGE_DIR.len()..]))?;
    }
    Ok(dir.join("csc.dll"))
}

/// Whether this is an assembly that can be compiled against; native libraries end otherwise.
fn is_reference(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("System.") && name.ends_with(".dll")
}

fn client_assemblies(dir: &Path) -> impl Iterator<Item = PathBuf> {
    children(dir).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("Amazon.Lambda.") && name.ends_with(".dll")
    })
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_of_the_newest_sdk_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(installed(dir.path()), None);
        for version in ["8.0.100", "10.0.100", "9.0.300"] {
            let place = dir.path().join("sdk").join(version).join("Roslyn/bincore");
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("csc.dll"), "").unwrap();
        }
        assert!(installed(dir.path()).unwrap().starts_with(dir.path().join("sdk/10.0.100")));
    }
}
