//! The runtimes that are installed on this machine: what `rekindle runtime install` wrote, read back.
//!
//! A runtime is one directory `runtimes/<id>/` with a `runtime.json` and the unmodified AWS client beside it. This
//! file knows that format and turns it into what the host role needs ([`RootSpec`]) and what an init needs (argument
//! vector and environment). It stands here, and not with the installer, because the server reads it on every start of
//! a pool and must not depend on how a runtime came to be.
//!
//! Deliberately absent: finding interpreters and calling pip (the binary's `runtime` module), and any cache: a runtime
//! installed while the server runs is seen at the next look.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use host::protocol::{Bind, RootSpec};
use serde::{Deserialize, Serialize};

/// The file of a runtime's directory that describes it. It is written last, so its presence means "complete".
pub const RUNTIME_FILE: &str = "runtime.json";

/// The longest runtime identifier that is looked up, in bytes.
const ID_BYTES_MAX: usize = 64;

/// The largest `runtime.json` that is read, in bytes.
const RUNTIME_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A runtime that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledRuntime {
    /// Identifier as in the Lambda API, such as `python3.12`.
    pub id: String,
    /// Version of the interpreter, such as `3.12.1`.
    pub version: String,
    /// Language, such as `python`.
    pub language: String,
    /// The interpreter's program on the host; empty where the function brings its own.
    #[serde(default)]
    pub interpreter: PathBuf,
    /// Program and arguments, as paths inside the sandbox.
    pub argv: Vec<String>,
    /// What the runtime adds to the environment of Lambda; a function's own variables win over it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Read-only binds beyond the system directories: interpreter and client.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// Whether published versions of this runtime can be snapshotted.
    pub snap_start: bool,
    /// Name and version of each client package that was installed.
    #[serde(default)]
    pub clients: BTreeMap<String, String>,
}

impl InstalledRuntime {
    /// The root file system that sandboxes of this runtime share.
    pub fn root_spec(&self) -> RootSpec {
        RootSpec { name: self.id.clone(), binds: self.binds.clone(), exposed_ports: Vec::new() }
    }

    /// What the log lines `INIT_START` and `RESTORE_START` call the runtime, such as `python:3.12.v1`,
    /// `nodejs:20.v1`, `java:17.v1`
    /// (shape: Lambda Developer Guide, monitoring-cloudwatchlogs-logformat).
    pub fn version_label(&self) -> String {
        let minor = self.id.strip_prefix(&self.language).unwrap_or(&self.version);
        let minor = minor.trim_start_matches('.').trim_end_matches(".x");
        format!("{}:{minor}.v1", self.language)
    }

    /// The first path that the runtime binds and that is gone, such as an interpreter removed since the install.
    pub fn missing_path(&self) -> Option<&Path> {
        self.binds.iter().map(|bind| bind.source.as_path()).find(|path| !path.exists())
    }
}

/// The directory of installed runtimes.
#[derive(Debug, Clone)]
pub struct Runtimes {
    dir: PathBuf,
}

impl Runtimes {
    /// Names the directory. It need not exist yet: then nothing is installed.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the runtime `id` is or would be installed.
    pub fn dir_of(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// The runtime of that identifier, if it is installed. A damaged one counts as absent and is logged.
    pub fn get(&self, id: &str) -> Option<InstalledRuntime> {
        if !is_id(id) {
            return None;
        }
        let runtime = read(&self.dir_of(id).join(RUNTIME_FILE))?;
        (runtime.id == id).then_some(runtime)
    }

    /// Every installed runtime, ordered by language and version number (`python3.9` before `python3.12`).
    pub fn all(&self) -> Vec<InstalledRuntime> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut found: Vec<InstalledRuntime> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|id| self.get(&id))
            .collect();
        found.sort_by_key(|runtime| (runtime.language.clone(), numbers(&runtime.id), runtime.id.clone()));
        found
    }
}

/// Whether `id` can be a runtime's directory name: it comes from API callers, so it must not lead out of the directory.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.starts_with('.') && id.bytes().all(plain)
}

fn numbers(id: &str) -> Vec<u32> {
    id.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn read(path: &Path) -> Option<InstalledRuntime> {
    let size_bytes = std::fs::metadata(path).ok()?.len();
    if size_bytes > RUNTIME_FILE_BYTES_MAX {
        tracing::warn!(path = %path.display(), size_bytes, "ignore runtime: its description is too large");
        return None;
    }
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "ignore runtime: reinstall it with `rekindle runtime install`");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &Path, id: &str) {
        let home = dir.join(id);
        std::fs::create_dir_all(&home).unwrap();
        let text = format!(
            r#"{{"id":"{id}","version":"3.12.1","language":"python",
                "argv":["/var/lang/bin/python3.12","/var/runtime/bootstrap.py"],
                "env":{{"PYTHONPATH":"/var/runtime"}},
                "binds":[{{"source":"/nonexistent/lang","target":"/var/lang"}}],
                "snap_start":true,"clients":{{"awslambdaric":"3.1.1"}}}}"#
        );
        std::fs::write(home.join(RUNTIME_FILE), text).unwrap();
    }

    #[test]
    fn reads_what_was_installed_in_order_of_version() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), "python3.12");
        install(dir.path(), "python3.9");
        let runtimes = Runtimes::open(dir.path());
        let ids: Vec<String> = runtimes.all().into_iter().map(|runtime| runtime.id).collect();
        assert_eq!(ids, ["python3.9", "python3.12"]);
        let runtime = runtimes.get("python3.12").unwrap();
        assert_eq!(runtime.root_spec().name, "python3.12");
        assert_eq!(runtime.root_spec().binds, runtime.binds);
        assert_eq!(runtime.version_label(), "python:3.12.v1");
        assert_eq!(runtime.missing_path(), Some(Path::new("/nonexistent/lang")));
    }

    #[test]
    fn the_version_label_has_the_shape_of_aws() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), "python3.12");
        let mut runtime = Runtimes::open(dir.path()).get("python3.12").unwrap();
        for (id, language, label) in [
            ("nodejs20.x", "nodejs", "nodejs:20.v1"),
            ("java17", "java", "java:17.v1"),
            ("provided.al2023", "provided", "provided:al2023.v1"),
        ] {
            (runtime.id, runtime.language) = (id.to_owned(), language.to_owned());
            assert_eq!(runtime.version_label(), label);
        }
    }

    #[test]
    fn absent_damaged_and_misnamed_runtimes_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::open(dir.path().join("none"));
        assert!(runtimes.all().is_empty());
        install(dir.path(), "python3.13");
        std::fs::write(dir.path().join("python3.13").join(RUNTIME_FILE), "{").unwrap();
        install(dir.path(), "python3.11");
        std::fs::rename(dir.path().join("python3.11"), dir.path().join("python3.10")).unwrap();
        let runtimes = Runtimes::open(dir.path());
        assert!(runtimes.all().is_empty());
        for id in ["python3.13", "python3.10", "../python3.13", "", ".", "a/b"] {
            assert_eq!(runtimes.get(id), None, "{id}");
        }
    }
}
