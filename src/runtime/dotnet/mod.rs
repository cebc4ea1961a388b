//! .NET: a `dotnet` of this machine and the unmodified AWS client from NuGet, or from a directory that the user names.
//!
//! Beside the client lie a shell script, which starts functions as AWS's managed runtime does, and two small classes of
//! ours: a launcher, because the client as NuGet has it is a library without an entry point, and a startup hook that
//! makes `Random.Shared` notice restores. They are compiled here, so that the repository holds no binaries, against the
//! very framework that will run them.
//!
//! **The variables of the runtime make .NET cheap to restore, and a function's own values win.** Compiled code is written
//! in place and not through a second view of it, which every clone would need a copy of; and the diagnostics server, with
//! its socket, its pipes and its threads, is off.
//!
//! Deliberately absent: the SDK and MSBuild. Functions come built.

mod client;
mod compiler;
mod nuget;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::language::{CLIENT_DIR, Clients, Interpreter, Language, Start};
use super::places::{self, children, variable};
use super::progress::Progress;
use super::tools;

/// The major versions that can be installed.
const MAJORS: [u32; 3] = [8, 9, 10];

/// The framework that says which .NET an installation has.
const FRAMEWORK: &str = "Microsoft.NETCore.App";

/// What lies beside the client: our own files.
const OWN_FILES: [(&str, &str); 3] = [
    ("bootstrap", include_str!("../../../runtimes/dotnet/bootstrap")),
    ("src/Launcher.cs", include_str!("../../../runtimes/dotnet/src/Launcher.cs")),
    ("src/SharedRandom.cs", include_str!("../../../runtimes/dotnet/src/SharedRandom.cs")),
];

/// Where a system's libraries are; .NET looks for ICU there.
const LIBRARY_DIRS: [&str; 5] =
    ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// The settings that a function may override.
const SETTINGS: [(&str, &str); 2] =
    [("DOTNET_EnableDiagnostics", "0"), ("DOTNET_EnableWriteXorExecute", "0")];

/// A runtime identifier of the form `dotnetN`, and where its client comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DotnetId {
    major: u32,
    client: Option<PathBuf>,
}

impl DotnetId {
    /// See [`super::language::parse`].
    pub fn language(id: &str) -> Option<Box<dyn Language>> {
        let major = id.strip_prefix("dotnet")?;
        let major = MAJORS.into_iter().find(|known| known.to_string() == major)?;
        Some(Box::new(Self { major, client: None }))
    }
}

impl fmt::Display for DotnetId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "dotnet{}", self.major)
    }
}

impl Language for DotnetId {
    fn name(&self) -> &'static str {
        "dotnet"
    }

    fn title(&self) -> &'static str {
        ".NET"
    }

    fn with_client(&self, client: &Path) -> Result<Box<dyn Language>> {
        ensure!(
            client.join(client::MAIN_FILE).is_file(),
            "install runtime {self}: {} holds no {}",
            client.display(),
            client::MAIN_FILE
        );
        Ok(Box::new(Self { client: Some(client.to_path_buf()), ..self.clone() }))
    }

    fn find(&self, from: Option<&Path>) -> Result<Interpreter> {
        let places = match from {
            Some(path) if path.is_dir() => vec![path.join("dotnet")],
            Some(path) => vec![path.to_path_buf()],
            None => candidates(),
        };
        let mut known: Vec<Facts> = Vec::new();
        for facts in places.iter().filter_map(|program| Facts::ask(program, self.major)) {
            if !known.contains(&facts) {
                known.push(facts);
            }
        }
        // A stable sort: of equals, the one found first stays first.
        known.sort_by_key(|facts| std::cmp::Reverse(numbers(&facts.version)));
        let mut refusals = Vec::new();
        for facts in &known {
            match judge(facts) {
                Ok(interpreter) => return Ok(interpreter),
                Err(refusal) => refusals.push(refusal.to_string()),
            }
        }
        bail!(explain_absence(self, from, &refusals))
    }

    fn fetch(&self, interpreter: &Interpreter, dir: &Path, progress: &Progress) -> Result<Clients> {
        let context = |what: &str| format!("install runtime {self}: {what}");
        std::fs::create_dir_all(dir).with_context(|| context("make the client's directory"))?;
        let mut clients = match &self.client {
            Some(client) => client::copy(client, dir).with_context(|| context("copy the client"))?,
            None => client::fetch(self.major, dir).with_context(|| context("fetch the client"))?,
        };
        tools::put(dir, &OWN_FILES).with_context(|| context("write the launcher"))?;
        progress.step("compiling the launcher");
        let sources = OWN_FILES.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".cs"));
        compiler::compile(interpreter, dir, sources).with_context(|| context("compile the launcher"))?;
        progress.step("checking the client");
        let version = compiler::verify(interpreter, dir).with_context(|| context("load the client"))?;
        clients.entry(client::MAIN_PACKAGE.to_owned()).or_insert(version);
        Ok(clients)
    }

    fn describe(&self, interpreter: &Interpreter) -> Start {
        let mut env: BTreeMap<String, String> =
            SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        env.insert("DOTNET_ROOT".to_owned(), interpreter.lang_dir().display().to_string());
        if !has_icu(LIBRARY_DIRS.iter().map(Path::new)) {
            // Without its library .NET does not start at all, unless it is told to do without.
            env.insert("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT".to_owned(), "1".to_owned());
        }
        Start {
            argv: vec![
                "/bin/sh".to_owned(),
                format!("{CLIENT_DIR}/bootstrap"),
                interpreter.program_inside().display().to_string(),
            ],
            env,
        }
    }

    fn is_current(&self, dir: &Path) -> bool {
        tools::holds(dir, &OWN_FILES)
            && self.client.as_ref().is_none_or(|client| client::is_copied(client, dir))
    }
}

/// What a `dotnet` says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    program: PathBuf,
    prefix: PathBuf,
    version: String,
}

impl Facts {
    /// Asks for the newest framework of this major version.
    fn ask(program: &Path, major: u32) -> Option<Self> {
        let text = String::from_utf8(tools::ask(program, &["--list-runtimes"])?).ok()?;
        let (version, prefix) = newest(&text, major)?;
        let prefix = prefix.canonicalize().ok()?;
        Some(Self { program: prefix.join("dotnet"), prefix, version })
    }
}

/// Reads what `dotnet --list-runtimes` prints: the newest framework of that major version, and where .NET is installed.
fn newest(text: &str, major: u32) -> Option<(String, PathBuf)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(FRAMEWORK)?.trim().split_once(" ["));
    let mut found: Vec<(&str, &str)> =
        lines.filter(|(version, _)| numbers(version).first() == Some(&major)).collect();
    found.sort_by_key(|(version, _)| numbers(version));
    let (version, frameworks) = found.pop()?;
    // PREFIX/shared/Microsoft.NETCore.App
    let prefix = Path::new(frameworks.trim_end_matches(']')).parent()?.parent()?;
    Some((version.to_owned(), prefix.to_path_buf()))
}

/// The numbers of a version; those of a preview come before those of its release.
fn numbers(version: &str) -> Vec<u32> {
    let (release, preview) =
        version.split_once('-').map_or((version, None), |(release, rest)| (release, Some(rest)));
    let mut numbers: Vec<u32> = release.split('.').map_while(|part| part.parse().ok()).collect();
    numbers.push(u32::from(preview.is_none()));
    numbers.extend(
        preview
            .into_iter()
            .flat_map(|rest| rest.split(['.', '-']))
            .filter_map(|part| part.parse::<u32>().ok()),
    );
    numbers
}

/// Where a `dotnet` may be, best guess first. Nothing is checked here.
fn candidates() -> Vec<PathBuf> {
    let home = places::home();
    let mut dirs: Vec<PathBuf> = variable("DOTNET_ROOT").into_iter().collect();
    dirs.extend(places::path_dirs());
    dirs.extend(
        ["/usr/share/dotnet", "/usr/lib/dotnet", "/usr/lib64/dotnet", "/opt/dotnet"].map(PathBuf::from),
    );
    dirs.push(home.join(".dotnet"));
    dirs.extend(children(&home.join(".asdf/installs/dotnet-core")));
    dirs.extend(children(&home.join(".local/share/mise/installs/dotnet")));
    places::programs("dotnet", dirs)
}

/// Whether a sandbox would show everything that the interpreter needs.
fn judge(facts: &Facts) -> Result<Interpreter> {
    let (program, prefix) = (&facts.program, &facts.prefix);
    ensure!(program.is_file(), "{} has frameworks but no program dotnet", prefix.display());
    let library = compiler::framework_dir(prefix, &facts.version).join("System.Private.CoreLib.dll");
    places::check_readable(prefix, &[prefix, program, &library])?;
    let (program, prefix) = (program.clone(), prefix.clone());
    Ok(Interpreter { program, prefix, version: facts.version.clone(), extras: Vec::new() })
}

fn explain_absence(id: &DotnetId, from: Option<&Path>, refusals: &[String]) -> String {
    let major = id.major;
    let remedy = format!(
        "install it with your system's packages or from https://dotnet.microsoft.com/download/dotnet/{major}.0 (the \
         ASP.NET Core runtime is enough to run functions), or name one with --from"
    );
    match (from, refusals) {
        (Some(path), []) => format!("install runtime {id}: {} is not a working .NET {major}", path.display()),
        (None, []) => format!(
            "install runtime {id}: no .NET {major} was found on PATH, in DOTNET_ROOT, /usr/share/dotnet or \
             /usr/lib/dotnet; {remedy}"
        ),
        (_, refusals) => format!("install runtime {id}: {}; {remedy}", refusals.join("; ")),
    }
}

/// Whether one of the directories holds the library that .NET's cultures need.
fn has_icu<'a>(dirs: impl Iterator<Item = &'a Path>) -> bool {
    let is_icu = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"libicuuc.so."))
    };
    dirs.flat_map(children).any(|path| is_icu(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "Microsoft.AspNetCore.App 10.0.12 [/opt/dotnet/shared/Microsoft.AspNetCore.App]\n\
        Microsoft.NETCore.App 8.0.28 [/opt/dotnet/shared/Microsoft.NETCore.App]\n\
        Microsoft.NETCore.App 10.0.2 [/opt/dotnet/shared/Microsoft.NETCore.App]\n\
        Microsoft.NETCore.App 10.0.12 [/opt/dotnet/shared/Microsoft.NETCore.App]\n";

    #[test]
    fn the_newest_framework_of_a_version_is_taken() {
        let prefix = PathBuf::from("/opt/dotnet");
        assert_eq!(newest(LIST, 10), Some(("10.0.12".to_owned(), prefix.clone())));
        assert_eq!(newest(LIST, 8), Some(("8.0.28".to_owned(), prefix)));
        assert_eq!(newest(LIST, 9), None);
    }

    #[test]
    fn a_preview_is_older_than_its_release() {
        let mut versions = ["10.0.1", "10.0.0", "10.0.0-rc.2.25502.107", "10.0.0-rc.1.25451.107", "9.0.11"];
        versions.sort_by_key(|version| numbers(version));
        assert_eq!(
            versions,
            ["9.0.11", "10.0.0-rc.1.25451.107", "10.0.0-rc.2.25502.107", "10.0.0", "10.0.1"]
        );
    }

    #[test]
    fn a_program_that_is_no_dotnet_is_refused() {
        let language = DotnetId::language("dotnet10").unwrap();
        let error = language.find(Some(Path::new("/bin/false"))).unwrap_err().to_string();
        assert_eq!(error, "install runtime dotnet10: /bin/false is not a working .NET 10");
    }

    #[test]
    fn a_directory_without_the_client_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let language = DotnetId::language("dotnet8").unwrap();
        let error = language.with_client(dir.path()).err().expect("there is none").to_string();
        assert!(error.ends_with("holds no Amazon.Lambda.RuntimeSupport.dll"), "{error}");
    }

    #[test]
    fn the_settings_that_make_restores_cheap_are_there() {
        let language = DotnetId::language("dotnet10").unwrap();
        let interpreter = Interpreter {
            program: "/opt/dotnet/dotnet".into(),
            prefix: "/opt/dotnet".into(),
            version: "10.0.12".to_owned(),
            extras: Vec::new(),
        };
        let start = language.describe(&interpreter);
        assert_eq!(start.argv[2], "/var/lang/dotnet");
        assert_eq!(start.env["DOTNET_EnableWriteXorExecute"], "0");
        assert_eq!(start.env["DOTNET_ROOT"], "/var/lang");
    }

    #[test]
    fn the_library_of_cultures_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_icu([dir.path()].into_iter()));
        std::fs::write(dir.path().join("libicuuc.so.72"), "").unwrap();
        assert!(has_icu([dir.path()].into_iter()));
    }
}
