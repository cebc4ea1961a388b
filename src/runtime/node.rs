//! Node.js: a `node` of this machine and the unmodified `aws-lambda-ric` from npm, whose native part is compiled here.
//!
//! npm picks the newest client of the major version that fits. **Only the client itself is kept**: what it needs to be
//! compiled (node-gyp and a hundred packages, the sources of curl) stays behind in the work directory. Beside it lie
//! three files of ours: `bootstrap`, which starts it, and two that it loads.
//!
//! Deliberately absent: the AWS SDK, which a function's package brings along (docs/runtimes.md).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::language::{CLIENT_DIR, Clients, Interpreter, Language, Start};
use super::places::{self, children, variable};
use super::progress::Progress;
use super::tools;

/// The major versions that can be installed.
const MAJORS: [u32; 3] = [20, 22, 24];

/// The npm package of the client.
const PACKAGE: &str = "aws-lambda-ric";

/// What lies beside the client: our own files.
const OWN_FILES: [(&str, &str); 3] = [
    ("bootstrap", include_str!("../../runtimes/node/bootstrap")),
    ("rekindle-main.mjs", include_str!("../../runtimes/node/rekindle-main.mjs")),
    ("rekindle-preload.cjs", include_str!("../../runtimes/node/rekindle-preload.cjs")),
];

/// What of the installed package only its own compilation needs.
const BUILD_LEFTOVERS: [&str; 6] = ["build", "deps", "node-addon-api", "node_modules", "scripts", "src"];

/// Where the client looks for modules, behind the function's own (Lambda Developer Guide, configuration-envvars).
const NODE_PATH_TAIL: &str = "/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task";

/// Asks an interpreter who it is and what it needs.
const PROBE: &str = "const maps = require('fs').readFileSync('/proc/self/maps', 'utf8').split('\\n');\
    const files = maps.map((line) => line.split(/\\s+/).slice(5).join(' ')).filter((path) => path.startsWith('/'));\
    console.log(JSON.stringify({version: process.versions.node, program: process.execPath, \
    release: process.release.name, mapped: [...new Set(files)]}))";

/// What an interpreter says about itself.
#[derive(Debug, Clone, Deserialize)]
struct Facts {
    version: String,
    program: PathBuf,
    release: String,
    mapped: Vec<PathBuf>,
}

/// A runtime identifier of the form `nodejsN.x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId {
    major: u32,
}

impl NodeId {
    /// See [`super::language::parse`].
    pub fn language(id: &str) -> Option<Box<dyn Language>> {
        let major = id.strip_prefix("nodejs")?.strip_suffix(".x")?;
        let major = MAJORS.into_iter().find(|known| known.to_string() == major)?;
        Some(Box::new(Self { major }))
    }

    fn matches(self, facts: &Facts) -> bool {
        facts.release == "node" && numbers(&facts.version).first() == Some(&self.major)
    }

    /// Whether its client is of major version 4: that one refuses handlers with callbacks, as AWS does from Node.js 24 on,
    /// but not before.
    fn has_client_4(self) -> bool {
        self.major >= 24
    }

    /// What is asked of npm. Newer npm asks before it runs a package's scripts; this one's compile it.
    fn project(self) -> String {
        let wanted = if self.has_client_4() { ">=4.0.2" } else { "^3.3.0" };
        serde_json::json!({
            "private": true,
            "dependencies": { PACKAGE: wanted },
            "allowScripts": { PACKAGE: true },
        })
        .to_string()
    }

    /// The programs that compiling the client takes. Client 4 ships curl's `configure`, client 3 makes it.
    fn build_tools(self) -> Vec<&'static str> {
        let mut tools = vec!["cmake", "make", "g++", "python3", "tar"];
        tools.extend(if self.has_client_4() {
            ["xz"].as_slice()
        } else {
            ["autoconf", "automake", "libtoolize"].as_slice()
        });
        tools
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "nodejs{}.x", self.major)
    }
}

impl Language for NodeId {
    fn name(&self) -> &'static str {
        "nodejs"
    }

    fn title(&self) -> &'static str {
        "Node.js"
    }

    fn find(&self, from: Option<&Path>) -> Result<Interpreter> {
        let places = match from {
            Some(path) if path.is_dir() => vec![path.join("bin/node"), path.join("node")],
            Some(path) => vec![path.to_path_buf()],
            None => candidates(),
        };
        let mut known: Vec<Facts> = places.iter().filter_map(|program| ask(program)).collect();
        known.retain(|facts| self.matches(facts));
        // A stable sort: of equals, the one found first stays first.
        known.sort_by_key(|facts| std::cmp::Reverse(numbers(&facts.version)));
        let mut refusals = Vec::new();
        for facts in &known {
            match judge(facts) {
                Ok(interpreter) => return Ok(interpreter),
                Err(refusal) => refusals.push(refusal.to_string()),
            }
        }
        bail!(explain_absence(*self, from, &refusals))
    }

    fn fetch(&self, interpreter: &Interpreter, dir: &Path, progress: &Progress) -> Result<Clients> {
        let path = search_path(interpreter);
        check_tools(*self, &path)?;
        let work = dir.with_file_name("build");
        progress.step("compiling the AWS client for Node.js (curl and a native module, about two minutes)");
        compile(*self, interpreter, &work, &path)?;
        keep_client(&work, dir).with_context(|| format!("install runtime {self}: keep the client"))?;
        progress.step("checking the client");
        verify(*self, interpreter, dir)
    }

    fn describe(&self, interpreter: &Interpreter) -> Start {
        let node_path = format!("/opt/nodejs/node{}/node_modules:{NODE_PATH_TAIL}", self.major);
        Start {
            argv: vec![
                "/bin/sh".to_owned(),
                format!("{CLIENT_DIR}/bootstrap"),
                interpreter.program_inside().display().to_string(),
            ],
            env: BTreeMap::from([("NODE_PATH".to_owned(), node_path)]),
        }
    }

    fn is_current(&self, dir: &Path) -> bool {
        tools::holds(dir, &OWN_FILES)
    }
}

fn ask(program: &Path) -> Option<Facts> {
    serde_json::from_slice(&tools::ask(program, &["-e", PROBE])?).ok()
}

/// Where a `node` may be, best guess first. Nothing is checked here.
fn candidates() -> Vec<PathBuf> {
    let home = places::home();
    let share = variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
    let mut dirs = places::path_dirs();
    dirs.extend(children(&variable("NVM_DIR").unwrap_or_else(|| home.join(".nvm")).join("versions/node")));
    let fnm = variable("FNM_DIR").unwrap_or_else(|| share.join("fnm")).join("node-versions");
    dirs.extend(children(&fnm).into_iter().map(|dir| dir.join("installation")));
    dirs.extend(children(&home.join(".volta/tools/image/node")));
    dirs.extend(children(&home.join(".asdf/installs/nodejs")));
    dirs.extend(children(&share.join("mise/installs/node")));
    dirs.extend(children(Path::new("/usr/local/n/versions/node")));
    dirs.extend(["/usr", "/usr/local", "/opt/nodejs"].map(PathBuf::from));
    places::programs("node", dirs)
}

/// Whether a sandbox would show everything that the interpreter needs.
fn judge(facts: &Facts) -> Result<Interpreter> {
    let program = facts.program.canonicalize()?;
    let Some(prefix) = program.parent().filter(|dir| dir.ends_with("bin")).and_then(Path::parent) else {
        bail!("{} is not in a directory bin, so one bind cannot show its installation", program.display());
    };
    places::check_readable(prefix, &[prefix, &program])?;
    places::check_shown(&program, prefix, &facts.mapped)?;
    let (program, prefix) = (program.clone(), prefix.to_path_buf());
    Ok(Interpreter { program, prefix, version: facts.version.clone(), extras: Vec::new() })
}

fn explain_absence(id: NodeId, from: Option<&Path>, refusals: &[String]) -> String {
    let major = id.major;
    let remedy = format!(
        "install one with your system's packages (https://nodejs.org/en/download) or `nvm install {major}`, or name one \
         with --from"
    );
    match (from, refusals) {
        (Some(path), []) => {
            format!("install runtime {id}: {} is not a working Node.js {major}", path.display())
        }
        (None, []) => {
            format!(
                "install runtime {id}: no Node.js {major} was found on PATH or where version managers keep it; {remedy}"
            )
        }
        (_, refusals) => format!("install runtime {id}: {}; {remedy}", refusals.join("; ")),
    }
}

/// PATH with the interpreter's own directory first, so that npm and node-gyp run with it.
fn search_path(interpreter: &Interpreter) -> OsString {
    let own = interpreter.prefix.join("bin");
    std::env::join_paths(std::iter::once(own).chain(places::path_dirs()))
        .unwrap_or_else(|_| std::env::var_os("PATH").unwrap_or_default())
}

/// Names everything that compiling the client lacks at once.
fn check_tools(id: NodeId, path: &OsString) -> Result<()> {
    let is_there = |tool: &str| std::env::split_paths(path).any(|dir| dir.join(tool).is_file());
    if !is_there("npm") {
        bail!(
            "install runtime {id}: npm is missing; remedy: install it beside node (`sudo apt install npm`)"
        );
    }
    let mut missing: Vec<&str> = id.build_tools().into_iter().filter(|tool| !is_there(tool)).collect();
    // Client 3 comes with a node-gyp that needs what Python 3.12 has dropped.
    let mut python = Command::new("python3");
    python.args(["-c", "import distutils"]).env("PATH", path);
    if missing.is_empty() && !id.has_client_4() && tools::finish(&mut python).is_err() {
        missing.push("distutils of python3");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing
        .iter()
        .map(|tool| match *tool {
            "libtoolize" => "libtool",
            "xz" => "xz-utils",
            "distutils of python3" => "python3-setuptools",
            other => other,
        })
        .collect();
    bail!(
        "install runtime {id}: the AWS client is compiled here, and {} is missing; remedy: `sudo apt install {}`",
        missing.join(", "),
        packages.join(" ")
    )
}

/// Lets npm fetch and compile the client in `work`, with the user's own registry settings.
fn compile(id: NodeId, interpreter: &Interpreter, work: &Path, path: &OsString) -> Result<()> {
    let context = || format!("install runtime {id}: make {}", work.display());
    std::fs::create_dir_all(work).with_context(context)?;
    std::fs::write(work.join("package.json"), id.project()).with_context(context)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts=false"]);
    npm.arg("--prefix").arg(work).current_dir(work).env("PATH", path);
    npm.env_remove("NODE_OPTIONS").env_remove("NODE_PATH");
    if interpreter.prefix.join("include/node/node_api.h").is_file() {
        // Without this node-gyp downloads the headers that lie right here.
        npm.env("npm_config_nodedir", &interpreter.prefix);
    }
    tools::finish(&mut npm)
        .with_context(|| format!("install runtime {id}: fetch and compile {PACKAGE} with npm"))?;
    Ok(())
}

/// Moves the compiled client to its directory, without what only its compilation needed, and adds our files.
fn keep_client(work: &Path, dir: &Path) -> std::io::Result<()> {
    let package = dir.join("node_modules").join(PACKAGE);
    std::fs::create_dir_all(package.parent().unwrap_or(dir))?;
    std::fs::rename(work.join("node_modules").join(PACKAGE), &package)?;
    for name in BUILD_LEFTOVERS {
        let leftover = package.join(name);
        if leftover.is_dir() {
            std::fs::remove_dir_all(leftover)?;
        }
    }
    for (name, text) in OWN_FILES {
        std::fs::write(dir.join(name), text)?;
    }
    std::fs::remove_dir_all(work)
}

/// Loads the client's native module with the interpreter and returns the client's version.
fn verify(id: NodeId, interpreter: &Interpreter, dir: &Path) -> Result<Clients> {
    const CHECK: &str = "const fs = require('fs'), path = require('path'); const home = process.argv[1];\
        const native = ['rapid-client.node', 'dist/rapid-client.node'].map((name) => path.join(home, name));\
        require(native.find((file) => fs.existsSync(file)) ?? native[0]);\
        console.log(JSON.parse(fs.readFileSync(path.join(home, 'package.json'), 'utf8')).version)";
    let mut node = Command::new(&interpreter.program);
    node.args(["-e", CHECK]).arg(dir.join("node_modules").join(PACKAGE)).env_remove("NODE_OPTIONS");
    // The module asks for it when it is loaded; it connects to nothing yet.
    node.env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001");
    let output = tools::finish(&mut node)
        .with_context(|| format!("install runtime {id}: load the client's native module"))?;
    let version = String::from_utf8_lossy(&output).trim().to_owned();
    Ok(Clients::from([(PACKAGE.to_owned(), version)]))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_node_is_refused() {
        let language = NodeId::language("nodejs20.x").unwrap();
        let error = language.find(Some(Path::new("/bin/false"))).unwrap_err().to_string();
        assert_eq!(error, "install runtime nodejs20.x: /bin/false is not a working Node.js 20");
    }

    #[test]
    fn everything_that_compiling_lacks_is_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for tool in ["npm", "make", "g++", "python3", "tar"] {
            std::fs::write(dir.path().join(tool), "").unwrap();
        }
        let error = check_tools(NodeId { major: 20 }, &dir.path().into()).unwrap_err().to_string();
        assert!(error.contains("cmake, autoconf, automake, libtoolize is missing"), "{error}");
        assert!(error.contains("apt install cmake autoconf automake libtool`"), "{error}");
    }

    #[test]
    fn the_function_starts_through_the_bootstrap() {
        let language = NodeId::language("nodejs22.x").unwrap();
        let interpreter = Interpreter {
            program: "/home/me/.nvm/versions/node/v22.1.0/bin/node".into(),
            prefix: "/home/me/.nvm/versions/node/v22.1.0".into(),
            version: "22.1.0".to_owned(),
            extras: Vec::new(),
        };
        let start = language.describe(&interpreter);
        assert_eq!(start.argv, ["/bin/sh", "/var/runtime/bootstrap", "/var/lang/bin/node"]);
        assert!(start.env["NODE_PATH"].starts_with("/opt/nodejs/node22/node_modules:"));
    }
}
