//! Python: CPython of this machine, `awslambdaric` and `snapshot-restore-py` from PyPI.
//!
//! Deliberately absent: how an interpreter is found and judged (`interpreter`, `probe`) and how pip is used (`client`).

mod client;
mod interpreter;
mod probe;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

pub use interpreter::PythonId;

use super::language::{CLIENT_DIR, Clients, Interpreter, Language, Start};
use super::progress::Progress;

/// What the search path of Lambda is (facts: the value recorded on AWS), behind the interpreter's own libraries.
const LIBRARY_PATH_TAIL: &str =
    "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib";

impl PythonId {
    /// See [`super::language::parse`].
    pub fn language(id: &str) -> Option<Box<dyn Language>> {
        Some(Box::new(Self::parse(id)?))
    }
}

impl Language for PythonId {
    fn name(&self) -> &'static str {
        "python"
    }

    fn title(&self) -> &'static str {
        "Python"
    }

    fn find(&self, from: Option<&Path>) -> Result<Interpreter> {
        interpreter::find(*self, from)
    }

    fn fetch(&self, interpreter: &Interpreter, dir: &Path, progress: &Progress) -> Result<Clients> {
        client::fetch(*self, interpreter, dir)?;
        progress.step("compiling the client");
        client::compile(*self, interpreter, dir)?;
        progress.step("checking the client");
        client::verify(*self, interpreter, dir)
    }

    /// The interpreter runs with `-S`, so that packages installed on the host stay out of functions; the bootstrap does
    /// the rest of what `site` does.
    fn describe(&self, interpreter: &Interpreter) -> Start {
        let library_path = format!("{}:{LIBRARY_PATH_TAIL}", interpreter.lang_dir().join("lib").display());
        Start {
            argv: vec![
                interpreter.program_inside().display().to_string(),
                "-S".to_owned(),
                format!("{CLIENT_DIR}/{}", client::BOOTSTRAP_FILE),
            ],
            env: BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), library_path)]),
        }
    }

    fn is_current(&self, dir: &Path) -> bool {
        client::has_this_bootstrap(dir)
    }
}
