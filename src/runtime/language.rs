//! What the installer must know of a language, and the one place that knows which languages there are.
//!
//! A language is a file (or folder) beside this one with a type for its runtime identifiers. [`parse`] asks each in turn.
//! **Nothing outside of those files depends on which language it is**: to add one, write the file and add it to
//! [`LANGUAGES`].
//!
//! Deliberately absent: how the result is put in place (`install`) and the server's view of it (`platform::runtimes`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::dotnet::DotnetId;
use super::java::JavaId;
use super::node::NodeId;
use super::places;
use super::progress::Progress;
use super::provided::ProvidedId;
use super::python::PythonId;
use super::ruby::RubyId;

/// Where a sandbox shows the interpreter of a runtime that is not the system's.
pub const LANG_DIR: &str = "/var/lang";

/// Where a sandbox shows the client.
pub const CLIENT_DIR: &str = "/var/runtime";

/// Name and version of each package of a client.
pub type Clients = BTreeMap<String, String>;

/// Reads an identifier, or says that it is none of this language's.
type Parser = fn(&str) -> Option<Box<dyn Language>>;

/// Every language: how its identifiers are read, and how the message about an unknown one names them.
const LANGUAGES: &[(Parser, &str)] = &[
    (PythonId::language, "python3.9 to python3.14"),
    (NodeId::language, "nodejs20.x, nodejs22.x, nodejs24.x"),
    (JavaId::language, "java11, java17, java21, java25"),
    (DotnetId::language, "dotnet8, dotnet9, dotnet10"),
    (RubyId::language, "ruby3.1 to ruby3.4, ruby4.0"),
    (ProvidedId::language, "provided.al2, provided.al2023"),
];

/// A runtime of some language, such as `python3.12`; its `Display` is the identifier.
pub trait Language: fmt::Display {
    /// The language as `runtime.json` names it: what the identifier begins with, such as `python`.
    fn name(&self) -> &'static str;

    /// The language as users write it, such as `Python`.
    fn title(&self) -> &'static str;

    /// The same runtime with its client taken from `client`, a path of this machine, not from the registry.
    ///
    /// # Errors
    ///
    /// If the language's package manager has such a setting of its own, or if nothing fit lies there.
    fn with_client(&self, client: &Path) -> Result<Box<dyn Language>> {
        bail!("install runtime {self}: --client {} is for .NET and Ruby only", client.display());
    }

    /// Finds the best interpreter: the one at `from` (a program or an installation directory) if given, else the newest
    /// fit one of this machine.
    ///
    /// # Errors
    ///
    /// If there is none, or only unfit ones. The message names the remedy.
    fn find(&self, from: Option<&Path>) -> Result<Interpreter>;

    /// Fetches the unmodified AWS client into `dir`, which must not exist, puts beside it what starts it, checks that
    /// the interpreter can load it, and returns what was fetched. Sandboxes will show `dir` at [`CLIENT_DIR`].
    ///
    /// # Errors
    ///
    /// If a tool is missing or fails. The message holds the tool's own words, or the remedy.
    fn fetch(&self, interpreter: &Interpreter, dir: &Path, progress: &Progress) -> Result<Clients>;

    /// How the runtime is started in a sandbox.
    fn describe(&self, interpreter: &Interpreter) -> Start;

    /// Whether what this binary would put beside the client lies in `dir`, not that of an older release.
    fn is_current(&self, dir: &Path) -> bool;
}

/// How a runtime is started; every path is one inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What the runtime adds to the environment of Lambda; a function's own variables win over it.
    pub env: BTreeMap<String, String>,
}

/// An interpreter that was asked who it is and that sandboxes can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// The program on the host, below `prefix`.
    pub program: PathBuf,
    /// Where it is installed, without symbolic links.
    pub prefix: PathBuf,
    /// Version with patch level, such as `3.12.1`.
    pub version: String,
    /// What it needs from outside of its prefix and of the system directories, such as `/etc/java-17-openjdk`. A sandbox
    /// shows it at the same path.
    pub extras: Vec<PathBuf>,
}

impl Interpreter {
    /// Whether a sandbox sees it in the system directories, so that it needs no bind of its own.
    pub fn is_of_the_system(&self) -> bool {
        places::is_shown(&self.prefix)
    }

    /// Where a sandbox sees its prefix.
    pub fn lang_dir(&self) -> PathBuf {
        if self.is_of_the_system() { self.prefix.clone() } else { PathBuf::from(LANG_DIR) }
    }

    /// Where a sandbox sees its program.
    pub fn program_inside(&self) -> PathBuf {
        match self.program.strip_prefix(&self.prefix) {
            Ok(inner) => self.lang_dir().join(inner),
            Err(_) => self.program.clone(),
        }
    }
}

/// Reads a runtime identifier as in the Lambda API.
///
/// # Errors
///
/// If no runtime of that name can be installed; the message names those that can.
pub fn parse(id: &str) -> Result<Box<dyn Language>> {
    if let Some(language) = LANGUAGES.iter().find_map(|(parse, _)| parse(id)) {
        return Ok(language);
    }
    let known: Vec<&str> = LANGUAGES.iter().map(|(_, names)| *names).collect();
    bail!("install runtime {id}: it is unknown; choose one of {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_finds_its_language() {
        for (id, name) in [
            ("python3.9", "python"),
            ("python3.14", "python"),
            ("nodejs20.x", "nodejs"),
            ("java17", "java"),
            ("dotnet10", "dotnet"),
            ("ruby3.4", "ruby"),
            ("provided.al2023", "provided"),
        ] {
            let language = parse(id).unwrap();
            assert_eq!((language.to_string().as_str(), language.name()), (id, name));
        }
    }

    #[test]
    fn an_unknown_identifier_is_answered_with_the_known_ones() {
        for id in [
            "python3.8",
            "python3.15",
            "python3",
            "python3.012",
            "python3.12 ",
            "nodejs20",
            "java8",
            "java017",
            "cobol",
            "",
        ] {
            let error = parse(id).err().expect("not a runtime").to_string();
            assert!(error.contains("python3.9 to python3.14"), "{error}");
        }
    }

    #[test]
    fn a_program_is_seen_where_its_prefix_is_shown() {
        let mut interpreter = Interpreter {
            program: "/home/me/node/bin/node".into(),
            prefix: "/home/me/node".into(),
            version: "20.1.0".to_owned(),
            extras: Vec::new(),
        };
        assert_eq!(interpreter.program_inside(), Path::new("/var/lang/bin/node"));
        (interpreter.program, interpreter.prefix) = ("/usr/bin/node".into(), "/usr".into());
        assert_eq!(interpreter.program_inside(), Path::new("/usr/bin/node"));
    }
}
