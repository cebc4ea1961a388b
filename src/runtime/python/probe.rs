//! Asks a program whether it is a Python, which one, and what it needs: by running it.
//!
//! Names and version files lie (a pyenv shim on PATH may stand for an interpreter that is not there), so the
//! candidate itself is asked, with a time limit. Deliberately absent: any judgment about the answer.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::runtime::tools;

const PROBE: &str = include_str!("probe.py");

/// What an interpreter says about itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Facts {
    /// `CPython`, `PyPy` and so on.
    pub implementation: String,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Whether it is a release, not a release candidate.
    pub is_final: bool,
    /// Whether it is a build without the global lock: the AWS client is not made for those.
    pub free_threaded: bool,
    /// Where its packages are; differs from `base_prefix` in a virtual environment.
    pub prefix: PathBuf,
    /// Where it is installed (of a virtual environment: where its base is).
    pub base_prefix: PathBuf,
    /// Where its machine-dependent files are installed.
    pub base_exec_prefix: PathBuf,
    /// The directory of its standard library.
    pub standard_library: PathBuf,
    /// Every file that is mapped after the common extension modules were imported.
    pub mapped: Vec<PathBuf>,
}

/// Runs `program` and returns what it says, or `None` if it is no working Python 3.
pub fn ask(program: &Path) -> Option<Facts> {
    serde_json::from_slice(&tools::ask(program, &["-I", "-c", PROBE])?).ok()
}
