//! Finds the Python interpreters of this machine and says which of them can run functions, and how.
//!
//! Candidates come from PATH, pyenv, uv and the system directories; the newest release wins. An interpreter is fit if
//! a sandbox shows everything it needs: the sandbox has the host's system directories, and the interpreter's own
//! prefix at `/var/lang`. **An interpreter is never used on trust: it was asked (`probe`) before.**
//!
//! Deliberately absent: installing interpreters.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::client;
use super::probe::{self, Facts};
use crate::runtime::language::Interpreter;
use crate::runtime::places::{self, children, variable};

/// The minor versions of Python 3 that can be installed.
const MINORS: std::ops::RangeInclusive<u32> = 9..=14;

/// A runtime identifier of the form `python3.N`, N from 9 to 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PythonId {
    minor: u32,
}

impl PythonId {
    /// Reads an identifier; `None` if it is not one of the Python runtimes that can be installed.
    pub fn parse(id: &str) -> Option<Self> {
        let minor = id.strip_prefix("python3.")?.parse().ok()?;
        (MINORS.contains(&minor) && id == format!("python3.{minor}")).then_some(Self { minor })
    }

    /// The version without its patch level, such as `3.12`.
    pub fn short_version(self) -> String {
        format!("3.{}", self.minor)
    }

    fn matches(self, facts: &Facts) -> bool {
        facts.implementation == "CPython"
            && !facts.free_threaded
            && (facts.version.0, facts.version.1) == (3, self.minor)
    }
}

impl fmt::Display for PythonId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "python3.{}", self.minor)
    }
}

/// Finds the best interpreter for `id`: the one at `from` if given, else the newest release on this machine.
///
/// # Errors
///
/// If there is none, or only unfit ones. The message names the remedy.
pub fn find(id: PythonId, from: Option<&Path>) -> Result<Interpreter> {
    let places = match from {
        Some(path) if path.is_dir() => vec![path.join("bin").join(id.to_string())],
        Some(path) => vec![path.to_path_buf()],
        None => candidates(id),
    };
    let mut known: Vec<Facts> = Vec::new();
    for facts in places.iter().filter_map(|program| ask(id, program)) {
        if !known.iter().any(|earlier| earlier.base_prefix == facts.base_prefix) {
            known.push(facts);
        }
    }
    // A stable sort: of equals, the one found first (PATH before pyenv before uv) stays first.
    known.sort_by_key(|facts| std::cmp::Reverse((facts.is_final, facts.version)));
    let mut refusals = Vec::new();
    for facts in &known {
        match judge(id, facts) {
            Ok(interpreter) => return Ok(interpreter),
            Err(refusal) => refusals.push(refusal.to_string()),
        }
    }
    bail!(explain_absence(id, from, &refusals))
}

/// A Python of any version that can run pip, for an interpreter that cannot.
pub fn find_any_with_pip() -> Option<PathBuf> {
    MINORS.rev().flat_map(|minor| candidates(PythonId { minor })).find_map(|program| {
        let facts = probe::ask(&program)?;
        (facts.version.0 == 3 && client::has_pip(&program)).then_some(program)
    })
}

/// Asks a candidate; for a virtual environment its base, because that is what a sandbox shows.
fn ask(id: PythonId, program: &Path) -> Option<Facts> {
    let facts = probe::ask(program).filter(|facts| id.matches(facts))?;
    if facts.prefix == facts.base_prefix {
        return Some(facts);
    }
    probe::ask(&facts.base_prefix.join("bin").join(id.to_string())).filter(|facts| id.matches(facts))
}

fn explain_absence(id: PythonId, from: Option<&Path>, refusals: &[String]) -> String {
    let short = id.short_version();
    let remedy = format!(
        "install one with your system's packages (`sudo apt install python{short}`), `pyenv install {short}` or \
         `uv python install {short}`, or name one with --from"
    );
    match (from, refusals) {
        (Some(path), []) => {
            format!("install runtime {id}: {} is not a working Python {short}", path.display())
        }
        (None, []) => {
            format!("install runtime {id}: no Python {short} was found on PATH, under pyenv or uv; {remedy}")
        }
        (_, refusals) => format!("install runtime {id}: {}; {remedy}", refusals.join("; ")),
    }
}

/// Where an interpreter of that version may be, best guess first. Nothing is checked here.
fn candidates(id: PythonId) -> Vec<PathBuf> {
    let name = id.to_string();
    let home = places::home();
    let mut dirs = places::path_dirs();
    dirs.extend(children(&variable("PYENV_ROOT").unwrap_or_else(|| home.join(".pyenv")).join("versions")));
    let uv_home = variable("UV_PYTHON_INSTALL_DIR").unwrap_or_else(|| {
        variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("uv/python")
    });
    dirs.extend(children(&uv_home));
    dirs.extend(["/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    places::programs(&name, dirs)
}

/// Whether a sandbox would show everything that the interpreter needs.
fn judge(id: PythonId, facts: &Facts) -> Result<Interpreter> {
    let prefix = facts.base_prefix.canonicalize()?;
    let program = prefix.join("bin").join(id.to_string());
    if facts.base_exec_prefix.canonicalize()? != prefix {
        bail!("{} keeps machine-dependent files elsewhere, so one bind cannot show it", prefix.display());
    }
    if !program.is_file() {
        bail!("{} has no bin/{id}", prefix.display());
    }
    places::check_readable(&prefix, &[&prefix, &program, &facts.standard_library])?;
    let hidden = |path: &&PathBuf| {
        !places::is_shown(path) && !path.starts_with(&prefix) && !path.starts_with(&facts.base_prefix)
    };
    if let Some(library) = facts.mapped.iter().find(hidden) {
        bail!("{} needs {}, which a sandbox does not show", program.display(), library.display());
    }
    let (major, minor, patch) = facts.version;
    Ok(Interpreter { program, prefix, version: format!("{major}.{minor}.{patch}"), extras: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn absence_names_every_remedy() {
        let id = PythonId::parse("python3.13").unwrap();
        let text = explain_absence(id, None, &[]);
        for remedy in ["apt install python3.13", "pyenv install 3.13", "uv python install 3.13", "--from"] {
            assert!(text.contains(remedy), "{text}");
        }
    }

    #[test]
    fn a_program_that_is_no_python_is_refused() {
        let id = PythonId::parse("python3.12").unwrap();
        let error = find(id, Some(Path::new("/bin/false"))).unwrap_err().to_string();
        assert_eq!(error, "install runtime python3.12: /bin/false is not a working Python 3.12");
    }

    #[test]
    fn a_library_outside_of_the_sandbox_is_refused() {
        let prefix = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(prefix.path().join("bin")).unwrap();
        let program = prefix.path().join("bin/python3.12");
        std::fs::write(&program, "").unwrap();
        for path in [prefix.path(), &program] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut facts = Facts {
            implementation: "CPython".to_owned(),
            version: (3, 12, 4),
            is_final: true,
            free_threaded: false,
            prefix: prefix.path().to_path_buf(),
            base_prefix: prefix.path().to_path_buf(),
            base_exec_prefix: prefix.path().to_path_buf(),
            standard_library: prefix.path().to_path_buf(),
            mapped: vec!["/usr/lib/libc.so.6".into(), prefix.path().join("lib/libpython3.12.so")],
        };
        let id = PythonId::parse("python3.12").unwrap();
        let interpreter = judge(id, &facts).unwrap();
        assert_eq!(interpreter.version, "3.12.4");
        assert!(!interpreter.is_of_the_system());

        facts.mapped.push("/opt/openssl/lib/libssl.so.3".into());
        let refusal = judge(id, &facts).unwrap_err().to_string();
        assert!(refusal.contains("/opt/openssl/lib/libssl.so.3"), "{refusal}");
    }
}
