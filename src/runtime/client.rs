//! Fetches the unmodified AWS client for Python from PyPI, with pip, into a directory.
//!
//! **Nothing of it is changed**: what runs functions here is byte for byte what AWS publishes, and `bootstrap.py`
//! beside it only starts it. Wheels only, so that no compiler is needed.
//!
//! Deliberately absent: pinned versions. The newest client that supports the interpreter is taken, as AWS does; the
//! versions are written down in `runtime.json`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::interpreter::{self, Interpreter, PythonId};

/// What starts the client; it lies beside it as `bootstrap.py`.
const BOOTSTRAP: &str = include_str!("../../runtimes/python/bootstrap.py");

/// The file name of the bootstrap in the client's directory.
pub const BOOTSTRAP_FILE: &str = "bootstrap.py";

/// The packages that make the client.
const PACKAGES: [&str; 2] = ["awslambdaric", "snapshot-restore-py"];

/// How much of pip's complaint is repeated to the user, in bytes from its end.
const COMPLAINT_BYTES_MAX: usize = 1500;

/// Fetches the client for `interpreter` into `dir`, which must not exist.
///
/// # Errors
///
/// If no pip is to be had or pip fails. The message holds pip's own words.
pub fn fetch(id: PythonId, interpreter: &Interpreter, dir: &Path) -> Result<()> {
    let mut pip = if interpreter.has_pip {
        Command::new(&interpreter.program)
    } else {
        let Some(other) = interpreter::find_any_with_pip() else {
            bail!(
                "install runtime {id}: {} has no pip and no other Python here has one; \
                 remedy: `sudo apt install python3-pip`",
                interpreter.program.display()
            );
        };
        Command::new(other)
    };
    pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:", "--target"]).arg(dir);
    if !interpreter.has_pip {
        pip.args(for_another_python(id));
    }
    pip.args(PACKAGES);
    // PIP_USER would contradict --target; the user's own index settings are kept.
    pip.env("PIP_USER", "0").env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_ROOT_USER_ACTION", "ignore");
    pip.env("PIP_NO_INPUT", "1").env_remove("PYTHONPATH").env_remove("PYTHONHOME");
    finish(&mut pip)
        .with_context(|| format!("install runtime {id}: fetch {} with pip", PACKAGES.join(" and ")))?;
    std::fs::write(dir.join(BOOTSTRAP_FILE), BOOTSTRAP)
        .with_context(|| format!("install runtime {id}: write {BOOTSTRAP_FILE}"))
}

/// Whether the client in `dir` is started by the bootstrap that this binary carries, not by an older one.
pub fn has_this_bootstrap(dir: &Path) -> bool {
    std::fs::read(dir.join(BOOTSTRAP_FILE)).is_ok_and(|text| text == BOOTSTRAP.as_bytes())
}

/// Compiles the client ahead: sandboxes show it read-only, so no init could keep the result.
///
/// # Errors
///
/// If the interpreter fails to compile it.
pub fn compile(id: PythonId, interpreter: &Interpreter, dir: &Path) -> Result<()> {
    let mut python = Command::new(&interpreter.program);
    python.args(["-I", "-m", "compileall", "-q", "-s"]).arg(dir).args(["-p", "/var/runtime"]).arg(dir);
    finish(&mut python).with_context(|| format!("install runtime {id}: compile the client"))
}

/// Imports the client with the interpreter and returns the version of each package.
///
/// # Errors
///
/// If an import fails.
pub fn verify(id: PythonId, interpreter: &Interpreter, dir: &Path) -> Result<BTreeMap<String, String>> {
    const CHECK: &str = "import sys, json; sys.path.insert(0, sys.argv[1])\n\
        import awslambdaric.__main__, awslambdaric.bootstrap, snapshot_restore_py\n\
        from importlib.metadata import version\n\
        print(json.dumps({name: version(name) for name in sys.argv[2:]}))";
    let mut python = Command::new(&interpreter.program);
    python.args(["-I", "-B", "-S", "-c", CHECK]).arg(dir).args(PACKAGES);
    let output = python.stdin(Stdio::null()).output().context("start the interpreter")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("install runtime {id}: the client cannot be imported: {}", tail(&complaint));
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("install runtime {id}: read client versions"))
}

/// Makes the directory readable for everyone, whatever the user's umask: functions run as a user of their own.
///
/// # Errors
///
/// If a file's mode cannot be changed.
pub fn open_to_all(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            open_to_all(&path)?;
        } else {
            let mode = path.metadata()?.permissions().mode();
            let run = if mode & 0o100 != 0 { 0o111 } else { 0 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode | 0o444 | run))?;
        }
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Arguments that make one Python's pip choose wheels for another one on the same machine.
fn for_another_python(id: PythonId) -> Vec<String> {
    let short = id.short_version();
    let machine = std::env::consts::ARCH;
    let tag = format!("cp{}", short.replace('.', ""));
    let mut arguments =
        vec!["--python-version".to_owned(), short, "--implementation".to_owned(), "cp".to_owned()];
    for abi in [tag.as_str(), "abi3", "none"] {
        arguments.extend(["--abi".to_owned(), abi.to_owned()]);
    }
    for system in ["manylinux_2_28", "manylinux_2_17", "manylinux2014"] {
        arguments.extend(["--platform".to_owned(), format!("{system}_{machine}")]);
    }
    arguments
}

fn finish(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, tail(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

/// The end of a program's complaint: the last lines say why.
fn tail(text: &str) -> &str {
    let text = text.trim();
    let mut start = text.len().saturating_sub(COMPLAINT_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
