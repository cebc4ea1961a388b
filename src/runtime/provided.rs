//! Custom runtimes: the function brings its own program, `bootstrap`, which speaks the Runtime API itself.
//!
//! There is nothing to find and nothing to fetch. What lies in the place of a client is a script of ours that looks for
//! the program where AWS does. Deliberately absent: Amazon Linux. The program sees this host's `/usr`, so it is linked
//! statically or built for a system as old as this one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::language::{CLIENT_DIR, Clients, Interpreter, Language, Start};
use super::progress::Progress;
use super::tools;

/// The systems whose runtimes can be installed: the endings of their identifiers.
const SYSTEMS: [&str; 2] = ["al2", "al2023"];

/// What lies in the place of a client: our own file.
const OWN_FILES: [(&str, &str); 1] = [("bootstrap", include_str!("../../runtimes/provided/bootstrap"))];

/// A runtime identifier of the form `provided.SYSTEM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvidedId {
    system: &'static str,
}

impl ProvidedId {
    /// See [`super::language::parse`].
    pub fn language(id: &str) -> Option<Box<dyn Language>> {
        let system = id.strip_prefix("provided.")?;
        let system = SYSTEMS.into_iter().find(|known| *known == system)?;
        Some(Box::new(Self { system }))
    }
}

impl fmt::Display for ProvidedId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "provided.{}", self.system)
    }
}

impl Language for ProvidedId {
    fn name(&self) -> &'static str {
        "provided"
    }

    fn title(&self) -> &'static str {
        "custom runtime"
    }

    fn find(&self, from: Option<&Path>) -> Result<Interpreter> {
        ensure!(from.is_none(), "install runtime {self}: it has no interpreter, so --from names nothing");
        Ok(Interpreter {
            program: PathBuf::new(),
            prefix: PathBuf::from("/usr"),
            version: self.system.to_owned(),
            extras: Vec::new(),
        })
    }

    fn fetch(&self, _: &Interpreter, dir: &Path, _: &Progress) -> Result<Clients> {
        tools::put(dir, &OWN_FILES).with_context(|| format!("install runtime {self}"))?;
        Ok(Clients::new())
    }

    fn describe(&self, _: &Interpreter) -> Start {
        let argv = vec!["/bin/sh".to_owned(), format!("{CLIENT_DIR}/bootstrap")];
        Start { argv, env: BTreeMap::new() }
    }

    fn is_current(&self, dir: &Path) -> bool {
        tools::holds(dir, &OWN_FILES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_interpreter_to_choose() {
        let language = ProvidedId::language("provided.al2023").unwrap();
        assert!(language.find(None).unwrap().is_of_the_system());
        let error = language.find(Some(Path::new("/usr/bin/env"))).unwrap_err().to_string();
        assert_eq!(error, "install runtime provided.al2023: it has no interpreter, so --from names nothing");
    }
}
