//! Installs one runtime: find the interpreter, fetch the client, check it, and put it in place in one step.
//!
//! **A runtime is either wholly there or not there**: everything is made in a temporary directory, and `runtime.json`,
//! renamed into place last, is the commit. What an interrupted install left is removed by the next one.
//!
//! **A client that was put in place is never changed or removed by an install**: sandboxes that wait ready show it, and
//! environments and templates run from it. Each install adds a directory of its own, which also tells the server that
//! ready sandboxes show an older one. `rekindle runtime remove` removes them all.

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
    let place_context = || format!("install runtime {id}: put {} in place", place.display());
    std::fs::create_dir_all(&place).with_context(place_context)?;
    let runtime = describe(id, interpreter, &next_client_dir(&place), clients);
    std::fs::write(work.join(RUNTIME_FILE), serde_json::to_string_pretty(&runtime)?)
        .with_context(|| context("write"))?;
    put_in_place(work, &place, client_dir_of(&runtime)).with_context(place_context)?;
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

/// Whether what is installed is whole, in its place, and made with this very interpreter.
fn is_up_to_date(id: PythonId, interpreter: &Interpreter, home: &Path) -> bool {
    let Some(runtime) = Runtimes::open(home).get(&id.to_string()) else { return false };
    let place = home.canonicalize().unwrap_or_default().join(&runtime.id);
    let client_dir = client_dir_of(&runtime);
    let expected = describe(id, interpreter, client_dir, runtime.clients.clone());
    runtime == expected
        && client_dir.parent() == Some(&place)
        && runtime.missing_path().is_none()
        && client::has_this_bootstrap(client_dir)
}

/// Where the runtime's client lies on the host.
fn client_dir_of(runtime: &InstalledRuntime) -> &Path {
    let shown = runtime.binds.iter().find(|bind| bind.target == Path::new(CLIENT_DIR));
    shown.map_or(Path::new(""), |bind| &bind.source)
}

/// A name in `place` that no install has used: `client-1`, `client-2` and so on.
fn next_client_dir(place: &Path) -> PathBuf {
    let names = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("client-")?.parse::<u32>().ok();
    let latest = names.filter_map(number).max().unwrap_or(0);
    place.join(format!("client-{}", latest + 1))
}

/// Moves the client and then the description from `work` to `place`: the second move is the commit.
fn put_in_place(work: &Path, place: &Path, client_dir: &Path) -> std::io::Result<()> {
    std::fs::rename(work.join("client"), client_dir)?;
    std::fs::rename(work.join(RUNTIME_FILE), place.join(RUNTIME_FILE))?;
    std::fs::remove_dir_all(work)
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
    fn an_install_leaves_the_earlier_client_to_those_who_use_it() {
        let home = tempfile::tempdir().unwrap();
        let (place, work) = (home.path().join("python3.12"), home.path().join(".python3.12-1"));
        std::fs::create_dir(&place).unwrap();
        for text in ["old", "new"] {
            std::fs::create_dir_all(work.join("client")).unwrap();
            std::fs::write(work.join("client/file"), text).unwrap();
            std::fs::write(work.join(RUNTIME_FILE), text).unwrap();
            put_in_place(&work, &place, &next_client_dir(&place)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(place.join("client-1/file")).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(place.join("client-2/file")).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(place.join(RUNTIME_FILE)).unwrap(), "new");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
