//! Asks a program whether it is a Python, which one, and what it needs: by running it.
//!
//! Names and version files lie (a pyenv shim on PATH may stand for an interpreter that is not there), so the
//! candidate itself is asked, with a time limit. Deliberately absent: any judgment about the answer.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

const PROBE: &str = include_str!("probe.py");

/// How long a candidate may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the answer is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

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
    /// Whether it can run pip.
    pub has_pip: bool,
    /// Every file that is mapped after the common extension modules were imported.
    pub mapped: Vec<PathBuf>,
}

/// Runs `program` and returns what it says, or `None` if it is no working Python 3.
pub fn ask(program: &Path) -> Option<Facts> {
    let mut child = Command::new(program)
        .args(["-I", "-c", PROBE])
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdout = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill().and_then(|()| child.wait()).ok();
                return None;
            }
            None => std::thread::sleep(POLL_INTERVAL),
        }
    };
    let text = reader.join().ok()?.ok()?;
    if status.success() { serde_json::from_slice(&text).ok() } else { None }
}
