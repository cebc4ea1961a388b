//! Installs one runtime: find the interpreter, fetch the client, check it, and put it in place in one step.
//!
//! **A runtime is either wholly there or not there**: everything is made in a temporary directory, and `runtime.json`,
//! renamed into place last, is the commit. What an interrupted install left is removed by the next one.
//!
//! **A client that was put in place is never changed or removed by an install**: sandboxes that wait ready show it, and
//! environments and templates run from it. Each install adds a directory of its own, which also tells the server that
//! ready sandboxes show an older one. `rekindle runtime remove` removes them all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::protocol::Bind;
use platform::runtimes::{InstalledRuntime, RUNTIME_FILE, Runtimes};

use super::language::{self, CLIENT_DIR, Clients, Interpreter, LANG_DIR, Language};
use super::progress::Progress;
use super::tools;

/// What the user wants of an install beyond the runtime's name.
pub struct Wish<'a> {
    /// This interpreter, and no other.
    pub from: Option<&'a Path>,
    /// The client that lies here, not the one of the registry.
    pub client: Option<&'a Path>,
    /// Install even what is there and current.
    pub force: bool,
}

/// Installs the runtime `id` under `home` (the data directory's `runtimes`).
///
/// # Errors
///
/// As [`language::parse`], [`Language::with_client`], [`Language::find`] and [`Language::fetch`]; and when files cannot be
/// written.
pub fn install(id: &str, wish: &Wish<'_>, home: &Path) -> Result<()> {
    let mut language = language::parse(id)?;
    if let Some(client) = wish.client {
        language = language.with_client(client)?;
    }
    let progress = Progress::start(id);
    progress.step("looking for an interpreter");
    let interpreter = language.find(wish.from)?;
    if !wish.force && is_up_to_date(&*language, &interpreter, home) {
        progress.finish(&format!(
            "is installed already{}; --force installs it anew",
            in_brackets(&interpreter.program)
        ));
        return Ok(());
    }
    std::fs::create_dir_all(home)
        .with_context(|| format!("install runtime {id}: make {}", home.display()))?;
    let home = home.canonicalize()?;
    remove_leftovers(&home, id);
    let work = home.join(format!(".{id}-{}", std::process::id()));
    let result = build(&*language, &interpreter, &home, &work, &progress);
    if result.is_err() {
        std::fs::remove_dir_all(&work).ok();
    }
    let runtime = result?;
    let clients: Vec<String> =
        runtime.clients.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let parts = [format!("{} {}{}", language.title(), runtime.version, in_brackets(&interpreter.program))];
    progress.finish(&format!("installed: {}", [&parts, &clients[..]].concat().join(", ")));
    Ok(())
}

/// The program, as an addition to a message; nothing where the function brings its own.
fn in_brackets(program: &Path) -> String {
    if program.as_os_str().is_empty() { String::new() } else { format!(" ({})", program.display()) }
}

fn build(
    language: &dyn Language,
    interpreter: &Interpreter,
    home: &Path,
    work: &Path,
    progress: &Progress,
) -> Result<InstalledRuntime> {
    let context = |what: &str| format!("install runtime {language}: {what} {}", work.display());
    std::fs::create_dir_all(work).with_context(|| context("make"))?;
    let client_dir = work.join("client");
    progress.step(&format!("fetching the AWS client for {} {}", language.title(), interpreter.version));
    let clients = language.fetch(interpreter, &client_dir, progress)?;
    tools::open_to_all(&client_dir).with_context(|| context("open up"))?;
    let place = home.join(language.to_string());
    let place_context = || format!("install runtime {language}: put {} in place", place.display());
    std::fs::create_dir_all(&place).with_context(place_context)?;
    let runtime = describe(language, interpreter, &next_client_dir(&place), clients);
    std::fs::write(work.join(RUNTIME_FILE), serde_json::to_string_pretty(&runtime)?)
        .with_context(|| context("write"))?;
    put_in_place(work, &place, client_dir_of(&runtime)).with_context(place_context)?;
    Ok(runtime)
}

/// What the server needs to know about the runtime.
fn describe(
    language: &dyn Language,
    interpreter: &Interpreter,
    client_dir: &Path,
    clients: Clients,
) -> InstalledRuntime {
    let mut binds = vec![Bind { source: client_dir.to_path_buf(), target: PathBuf::from(CLIENT_DIR) }];
    if !interpreter.is_of_the_system() {
        binds.push(Bind { source: interpreter.prefix.clone(), target: PathBuf::from(LANG_DIR) });
    }
    let extras = interpreter.extras.iter();
    binds.extend(extras.map(|path| Bind { source: path.clone(), target: path.clone() }));
    let start = language.describe(interpreter);
    InstalledRuntime {
        id: language.to_string(),
        version: interpreter.version.clone(),
        language: language.name().to_owned(),
        interpreter: interpreter.program.clone(),
        argv: start.argv,
        env: start.env,
        binds,
        snap_start: true,
        clients,
    }
}

/// Whether what is installed is whole, in its place, and made with this very interpreter.
fn is_up_to_date(language: &dyn Language, interpreter: &Interpreter, home: &Path) -> bool {
    let Some(runtime) = Runtimes::open(home).get(&language.to_string()) else { return false };
    let place = home.canonicalize().unwrap_or_default().join(&runtime.id);
    let client_dir = client_dir_of(&runtime);
    let expected = describe(language, interpreter, client_dir, runtime.clients.clone());
    runtime == expected
        && client_dir.parent() == Some(&place)
        && runtime.missing_path().is_none()
        && language.is_current(client_dir)
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
fn remove_leftovers(home: &Path, id: &str) {
    let mark = format!(".{id}-");
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&mark) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(prefix: &str, extras: &[&str]) -> InstalledRuntime {
        let interpreter = Interpreter {
            program: Path::new(prefix).join("bin/python3.12"),
            prefix: prefix.into(),
            version: "3.12.1".to_owned(),
            extras: extras.iter().map(PathBuf::from).collect(),
        };
        let language = language::parse("python3.12").unwrap();
        describe(&*language, &interpreter, Path::new("/data/client"), Clients::new())
    }

    #[test]
    fn an_interpreter_outside_of_the_system_is_bound_at_var_lang() {
        let runtime = described("/home/me/python", &[]);
        assert_eq!(runtime.argv, ["/var/lang/bin/python3.12", "-S", "/var/runtime/bootstrap.py"]);
        assert_eq!(runtime.binds.len(), 2);
        assert!(runtime.env["LD_LIBRARY_PATH"].starts_with("/var/lang/lib:"));
    }

    #[test]
    fn an_interpreter_of_the_system_needs_no_bind() {
        let runtime = described("/usr", &[]);
        assert_eq!(runtime.argv[0], "/usr/bin/python3.12");
        assert_eq!(runtime.binds.len(), 1);
    }

    #[test]
    fn what_an_interpreter_keeps_elsewhere_is_shown_at_its_own_path() {
        let runtime = described("/usr", &["/etc/python3.12"]);
        let target = PathBuf::from("/etc/python3.12");
        assert_eq!(runtime.binds[1], Bind { source: target.clone(), target });
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
