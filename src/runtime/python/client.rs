//! Fetches the unmodified AWS client for Python from PyPI, with pip, into a directory.
//!
//! **Nothing of it is changed**: what runs functions here is byte for byte what AWS publishes, and `bootstrap.py`
//! beside it only starts it. Wheels only, so that no compiler is needed.
//!
//! Deliberately absent: pinned versions. The newest client that supports the interpreter is taken, as AWS does; the
//! versions are written down in `runtime.json`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::interpreter::{self, PythonId};
use crate::runtime::language::{Clients, Interpreter};
use crate::runtime::tools::{self, finish};

/// What starts the client; it lies beside it as `bootstrap.py`.
const BOOTSTRAP: &str = include_str!("../../../runtimes/python/bootstrap.py");

/// The file name of the bootstrap in the client's directory.
pub const BOOTSTRAP_FILE: &str = "bootstrap.py";

/// The packages that make the client.
const PACKAGES: [&str; 2] = ["awslambdaric", "snapshot-restore-py"];

/// Fetches the client for `interpreter` into `dir`, which must not exist.
///
/// # Errors
///
/// If no pip is to be had or pip fails. The message holds pip's own words.
pub fn fetch(id: PythonId, interpreter: &Interpreter, dir: &Path) -> Result<()> {
    let has_pip = has_pip(&interpreter.program);
    let mut pip = if has_pip {
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
    if !has_pip {
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
    tools::holds(dir, &[(BOOTSTRAP_FILE, BOOTSTRAP)])
}

/// Compiles the client ahead: sandboxes show it read-only, so no init could keep the result.
///
/// # Errors
///
/// If the interpreter fails to compile it.
pub fn compile(id: PythonId, interpreter: &Interpreter, dir: &Path) -> Result<()> {
    let mut python = Command::new(&interpreter.program);
    python.args(["-I", "-m", "compileall", "-q", "-s"]).arg(dir).args(["-p", "/var/runtime"]).arg(dir);
    finish(&mut python).with_context(|| format!("install runtime {id}: compile the client"))?;
    Ok(())
}

/// Imports the client with the interpreter and returns the version of each package.
///
/// # Errors
///
/// If an import fails.
pub fn verify(id: PythonId, interpreter: &Interpreter, dir: &Path) -> Result<Clients> {
    const CHECK: &str = "import sys, json; sys.path.insert(0, sys.argv[1])\n\
        import awslambdaric.__main__, awslambdaric.bootstrap, snapshot_restore_py\n\
        from importlib.metadata import version\n\
        print(json.dumps({name: version(name) for name in sys.argv[2:]}))";
    let mut python = Command::new(&interpreter.program);
    python.args(["-I", "-B", "-S", "-c", CHECK]).arg(dir).args(PACKAGES);
    let output = finish(&mut python).with_context(|| {
        format!("install runtime {id}: import the client with {}", interpreter.program.display())
    })?;
    serde_json::from_slice(&output).with_context(|| format!("install runtime {id}: read client versions"))
}

/// Whether that Python can run pip.
pub fn has_pip(program: &Path) -> bool {
    tools::ask(program, &["-m", "pip", "--version"]).is_some()
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
