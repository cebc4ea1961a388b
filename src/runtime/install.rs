//! Installs one runtime: find the interpreter, fetch the client, check it, and put it in place in one step.
//!
//! **A runtime is either wholly there or not there**: everything is made in a temporary directory, `runtime.json` is
//! written last, and a rename puts it in place. What an interrupted install left is removed by the next one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use host::protocol::Bind;
use indicatif::{ProgressBar, ProgressStyle};
use platform::runtimes::{InstalledRuntime, RUNTIME_FILE, Runtimes};

use super::client;
use super::interpreter::{self, Interpreter, PythonId};

/// Where a sandbox shows the interpreter of a runtime that is not the system's.
const LANG_DIR: &str = "/var/lang";

/// Where a sandbox shows the client.
const CLIENT_DIR: &str = "/var/runtime";

/// What the search path of Lambda is (facts: the value recorded on AWS), behind the interpreter's own libraries.
const LIBRARY_PATH_TAIL: &str =
    "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib";

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(80);

/// Installs the runtime `id` under `home` (the data directory's `runtimes`).
///
/// # Errors
///
/// As [`interpreter::find`] and [`client::fetch`]; and when files cannot be written.
pub fn install(id: &str, from: Option<&Path>, force: bool, home: &Path) -> Result<()> {
    let id = PythonId::parse(id)?;
    let progress = Progress::start(id);
    progress.step("looking for an interpreter");
    let interpreter = interpreter::find(id, from)?;
    if !force && is_up_to_date(id, &interpreter, home) {
        progress.finish(&format!(
            "is installed already ({}); --force installs it anew",
            interpreter.program.display()
        ));
        return Ok(());
    }
    std::fs::create_dir_all(home)
        .with_context(|| format!("install runtime {id}: make {}", home.display()))?;
    let home = home.canonicalize()?;
    remove_leftovers(&home, id);
    let work = home.join(format!(".{id}-{}", std::process::id()));
    let result = build(id, &interpreter, &home, &work, &progress);
    if result.is_err() {
        std::fs::remove_dir_all(&work).ok();
    }
    let runtime = result?;
    let clients: Vec<String> =
        runtime.clients.iter().map(|(name, version)| format!("{name} {version}")).collect();
    progress.finish(&format!(
        "installed: Python {} of {}, {}",
        runtime.version,
        interpreter.prefix.display(),
        clients.join(", ")
    ));
    Ok(())
}

fn build(
    id: PythonId,
    interpreter: &Interpreter,
    home: &Path,
    work: &Path,
    progress: &Progress,
) -> Result<InstalledRuntime> {
    let context = |what: &str| format!("install runtime {id}: {what} {}", work.display());
    std::fs::create_dir_all(work).with_context(|| context("make"))?;
    let client_dir = work.join("client");
    progress.step(&format!("fetching the AWS client for Python {}", interpreter.version));
    client::fetch(id, interpreter, &client_dir)?;
    progress.step("compiling the client");
    client::compile(id, interpreter, &client_dir)?;
    client::open_to_all(&client_dir).with_context(|| context("open up"))?;
    progress.step("checking the client");
    let clients = client::verify(id, interpreter, &client_dir)?;
    let place = home.join(id.to_string());
    let runtime = describe(id, interpreter, &place.join("client"), clients);
    std::fs::write(work.join(RUNTIME_FILE), serde_json::to_string_pretty(&runtime)?)
        .with_context(|| context("write"))?;
    put_in_place(work, &place)
        .with_context(|| format!("install runtime {id}: put {} in place", place.display()))?;
    Ok(runtime)
}

/// What the server needs to know about the runtime. The interpreter runs with `-S`, so that packages installed on the
/// host stay out of functions; the bootstrap does the rest of what `site` does.
fn describe(
    id: PythonId,
    interpreter: &Interpreter,
    client_dir: &Path,
    clients: BTreeMap<String, String>,
) -> InstalledRuntime {
    let mut binds = vec![Bind { source: client_dir.to_path_buf(), target: PathBuf::from(CLIENT_DIR) }];
    let lang_dir = if interpreter.is_of_the_system() {
        interpreter.prefix.clone()
    } else {
        binds.push(Bind { source: interpreter.prefix.clone(), target: PathBuf::from(LANG_DIR) });
        PathBuf::from(LANG_DIR)
    };
    let program = lang_dir.join("bin").join(id.to_string());
    let library_path = format!("{}:{LIBRARY_PATH_TAIL}", lang_dir.join("lib").display());
    InstalledRuntime {
        id: id.to_string(),
        version: interpreter.version.clone(),
        language: "python".to_owned(),
        argv: vec![
            program.display().to_string(),
            "-S".to_owned(),
            format!("{CLIENT_DIR}/{}", client::BOOTSTRAP_FILE),
        ],
        env: BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), library_path)]),
        binds,
        snap_start: true,
        clients,
    }
}

/// Whether what is installed is whole and made with this very interpreter.
fn is_up_to_date(id: PythonId, interpreter: &Interpreter, home: &Path) -> bool {
    let Some(runtime) = Runtimes::open(home).get(&id.to_string()) else { return false };
    let client_dir = home.canonicalize().unwrap_or_default().join(&runtime.id).join("client");
    let expected = describe(id, interpreter, &client_dir, runtime.clients.clone());
    runtime == expected && runtime.missing_path().is_none() && client::has_this_bootstrap(&client_dir)
}

/// Replaces `place` by `work`. A rename cannot replace a directory that is not empty, so the old one steps aside first.
fn put_in_place(work: &Path, place: &Path) -> std::io::Result<()> {
    let aside = work.with_extension("old");
    let replaces = place.exists();
    if replaces {
        std::fs::rename(place, &aside)?;
    }
    std::fs::rename(work, place)?;
    if replaces {
        std::fs::remove_dir_all(&aside)?;
    }
    Ok(())
}

/// Removes what an interrupted install of the same runtime left. Failing to is no reason to stop.
fn remove_leftovers(home: &Path, id: PythonId) {
    let mark = format!(".{id}-");
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&mark) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// A spinner on a terminal; without one, a line when the work is done.
struct Progress {
    id: PythonId,
    bar: ProgressBar,
}

impl Progress {
    fn start(id: PythonId) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_prefix(id.to_string());
        bar.enable_steady_tick(TICK);
        Self { id, bar }
    }

    fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    fn finish(&self, what: &str) {
        self.bar.finish_and_clear();
        println!("{} {what}", self.id);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(prefix: &str) -> Interpreter {
        Interpreter {
            program: Path::new(prefix).join("bin/python3.12"),
            prefix: prefix.into(),
            version: "3.12.1".to_owned(),
            has_pip: true,
        }
    }

    #[test]
    fn an_interpreter_outside_of_the_system_is_bound_at_var_lang() {
        let id = PythonId::parse("python3.12").unwrap();
        let runtime =
            describe(id, &interpreter("/home/me/python"), Path::new("/data/client"), BTreeMap::new());
        assert_eq!(runtime.argv, ["/var/lang/bin/python3.12", "-S", "/var/runtime/bootstrap.py"]);
        assert_eq!(runtime.binds.len(), 2);
        assert!(runtime.env["LD_LIBRARY_PATH"].starts_with("/var/lang/lib:"));
    }

    #[test]
    fn an_interpreter_of_the_system_needs_no_bind() {
        let id = PythonId::parse("python3.12").unwrap();
        let runtime = describe(id, &interpreter("/usr"), Path::new("/data/client"), BTreeMap::new());
        assert_eq!(runtime.argv[0], "/usr/bin/python3.12");
        assert_eq!(runtime.binds.len(), 1);
    }

    #[test]
    fn an_install_replaces_the_earlier_one() {
        let home = tempfile::tempdir().unwrap();
        let (place, work) = (home.path().join("python3.12"), home.path().join(".python3.12-1"));
        for (dir, text) in [(&place, "old"), (&work, "new")] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("file"), text).unwrap();
        }
        put_in_place(&work, &place).unwrap();
        assert_eq!(std::fs::read_to_string(place.join("file")).unwrap(), "new");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
