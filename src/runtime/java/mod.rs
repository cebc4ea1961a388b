//! Java: a JDK or JRE of this machine and the unmodified AWS client from Maven Central.
//!
//! Beside the client lie a shell script and two small classes of ours. They are compiled here, so that the repository
//! holds no binaries, and with the Eclipse compiler, which runs on a mere JRE; it is fetched the same way and not kept.
//!
//! Deliberately absent: which jars make the client (`jars`), and `org.crac`, which a function brings along as on AWS.

mod jars;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use jars::{CLIENT_JARS, COMPILER};

use super::language::{CLIENT_DIR, Clients, Interpreter, Language, Start};
use super::places::{self, children, variable};
use super::progress::Progress;
use super::tools;

/// The feature versions that can be installed.
const FEATURES: [u32; 4] = [11, 17, 21, 25];

/// The client's native library, inside its jar.
const NATIVE_LIBRARY: &str = if cfg!(target_arch = "aarch64") {
    "jni/libaws-lambda-jni.linux-aarch_64.so"
} else {
    "jni/libaws-lambda-jni.linux-x86_64.so"
};

/// What lies beside the client: our own files.
const OWN_FILES: [(&str, &str); 5] = [
    ("bootstrap", include_str!("../../../runtimes/java/bootstrap")),
    ("jvm.settings", include_str!("../../../runtimes/java/jvm.settings")),
    ("jvm-snapshot.settings", include_str!("../../../runtimes/java/jvm-snapshot.settings")),
    ("src/rekindle/Launcher.java", include_str!("../../../runtimes/java/src/rekindle/Launcher.java")),
    ("src/rekindle/Randomness.java", include_str!("../../../runtimes/java/src/rekindle/Randomness.java")),
];

/// The packages of the base module that our hook reaches into.
const OPENED: [&str; 5] =
    ["java.lang", "java.security", "java.util", "java.util.concurrent", "sun.security.provider"];

/// The directories of an installation in which distributions put links to elsewhere.
const LINKING_DIRS: [&str; 3] = ["conf", "lib", "lib/security"];

/// How deep links are looked for below those directories.
const LINK_DEPTH_MAX: usize = 4;

/// A runtime identifier of the form `javaN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JavaId {
    feature: u32,
}

impl JavaId {
    /// See [`super::language::parse`].
    pub fn language(id: &str) -> Option<Box<dyn Language>> {
        let feature = id.strip_prefix("java")?;
        let feature = FEATURES.into_iter().find(|known| known.to_string() == feature)?;
        Some(Box::new(Self { feature }))
    }
}

impl fmt::Display for JavaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "java{}", self.feature)
    }
}

impl Language for JavaId {
    fn name(&self) -> &'static str {
        "java"
    }

    fn title(&self) -> &'static str {
        "Java"
    }

    fn find(&self, from: Option<&Path>) -> Result<Interpreter> {
        let places = match from {
            Some(path) if path.is_dir() => vec![path.join("bin/java")],
            Some(path) => vec![path.to_path_buf()],
            None => candidates(),
        };
        let mut known: Vec<Facts> = Vec::new();
        for facts in places.iter().filter_map(|program| Facts::ask(program)) {
            if facts.numbers.first() == Some(&self.feature) && !known.contains(&facts) {
                known.push(facts);
            }
        }
        // A stable sort: of equals, the one found first (JAVA_HOME before PATH) stays first.
        known.sort_by_key(|facts| std::cmp::Reverse(facts.numbers.clone()));
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
        let context = |what: &str| format!("install runtime {self}: {what}");
        let lib = dir.join("lib");
        std::fs::create_dir_all(&lib).with_context(|| context("make the client's directory"))?;
        for jar in &CLIENT_JARS {
            jar.fetch(&lib).with_context(|| context("fetch the client"))?;
        }
        let client_jar = lib.join(CLIENT_JARS[0].file_name());
        unpack_native_library(&client_jar, &lib)
            .with_context(|| context("unpack the client's native library"))?;
        for (name, text) in OWN_FILES {
            let file = dir.join(name);
            std::fs::create_dir_all(file.parent().unwrap_or(dir))
                .and_then(|()| std::fs::write(&file, text))
                .with_context(|| context(&format!("write {name}")))?;
        }
        progress.step("compiling the launcher");
        compile(interpreter, dir).with_context(|| context("compile the launcher"))?;
        std::fs::write(dir.join("snapshot.options"), snapshot_options(&interpreter.program))
            .with_context(|| context("write snapshot.options"))?;
        progress.step("checking the client");
        verify(interpreter, dir).with_context(|| context("load the client"))?;
        Ok(CLIENT_JARS.iter().map(|jar| (jar.artifact.to_owned(), jar.version.to_owned())).collect())
    }

    fn describe(&self, interpreter: &Interpreter) -> Start {
        Start {
            argv: vec![
                "/bin/sh".to_owned(),
                format!("{CLIENT_DIR}/bootstrap"),
                interpreter.program_inside().display().to_string(),
                self.feature.to_string(),
            ],
            env: [("JAVA_HOME".to_owned(), interpreter.lang_dir().display().to_string())].into(),
        }
    }

    fn is_current(&self, dir: &Path) -> bool {
        tools::holds(dir, &OWN_FILES) && CLIENT_JARS.iter().all(|jar| jar.is_at(&dir.join("lib")))
    }
}

/// What a Java says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    program: PathBuf,
    version: String,
    numbers: Vec<u32>,
    is_hotspot: bool,
}

impl Facts {
    fn ask(program: &Path) -> Option<Self> {
        let text = String::from_utf8(tools::ask(program, &["--version"])?).ok()?;
        let (version, is_hotspot) = read_version(&text)?;
        let numbers = version.split(['.', '+', '-']).map_while(|part| part.parse().ok()).collect();
        Some(Self { program: program.canonicalize().ok()?, version, numbers, is_hotspot })
    }
}

/// Reads what `java --version` prints: the version, and whether the virtual machine is HotSpot.
fn read_version(text: &str) -> Option<(String, bool)> {
    let version = text.lines().next()?.split_whitespace().nth(1)?;
    version
        .starts_with(|first: char| first.is_ascii_digit())
        .then(|| (version.to_owned(), !text.contains("OpenJ9")))
}

/// Where a `java` may be, best guess first. Nothing is checked here.
fn candidates() -> Vec<PathBuf> {
    let home = places::home();
    let mut dirs: Vec<PathBuf> = variable("JAVA_HOME").into_iter().collect();
    dirs.extend(places::path_dirs());
    for parent in ["/usr/lib/jvm", "/usr/lib64/jvm", "/usr/java", "/opt/java", "/opt"] {
        dirs.extend(children(Path::new(parent)));
    }
    let sdkman = variable("SDKMAN_DIR").unwrap_or_else(|| home.join(".sdkman"));
    dirs.extend(children(&sdkman.join("candidates/java")));
    dirs.extend(children(&home.join(".jdks")));
    places::programs("java", dirs)
}

/// Whether a sandbox would show everything that the interpreter needs.
fn judge(facts: &Facts) -> Result<Interpreter> {
    let program = &facts.program;
    let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    if !facts.is_hotspot {
        bail!("{} is OpenJ9; the settings of functions are for HotSpot", program.display());
    }
    let modules = prefix.join("lib/modules");
    if !modules.is_file() {
        bail!("{} is not a program of a Java installation but stands for one", program.display());
    }
    places::check_readable(prefix, &[prefix, program, &modules])?;
    let extras = linked_elsewhere(prefix);
    if let Some(path) = extras.iter().find(|path| !path.starts_with("/etc")) {
        bail!("{} needs {}, which a sandbox does not show", program.display(), path.display());
    }
    Ok(Interpreter {
        program: program.clone(),
        prefix: prefix.to_path_buf(),
        version: facts.version.clone(),
        extras,
    })
}

/// The directories that links of the installation at `prefix` lead to and that a sandbox does not show by itself, such as
/// `/etc/java-17-openjdk` of Debian; those below another one are left out.
fn linked_elsewhere(prefix: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for dir in LINKING_DIRS {
        collect_links(&prefix.join(dir), prefix, LINK_DEPTH_MAX, &mut found);
    }
    let all: Vec<PathBuf> = found.into_iter().collect();
    all.iter()
        .filter(|path| !all.iter().any(|other| other != *path && path.starts_with(other)))
        .cloned()
        .collect()
}

fn collect_links(dir: &Path, prefix: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    for path in children(dir) {
        if !path.is_symlink() {
            if path.is_dir() && depth > 0 {
                collect_links(&path, prefix, depth - 1, found);
            }
            continue;
        }
        // A link to nothing is nothing to show.
        let Ok(target) = path.canonicalize() else { continue };
        if !places::is_shown(&target) && !places::is_shown_of_etc(&target) && !target.starts_with(prefix) {
            found.extend(target.parent().map(Path::to_path_buf));
        }
    }
}

fn explain_absence(id: JavaId, from: Option<&Path>, refusals: &[String]) -> String {
    let feature = id.feature;
    let remedy = format!(
        "install one with your system's packages (`sudo apt install openjdk-{feature}-jre-headless`) or SDKMAN \
         (https://sdkman.io), or name one with --from"
    );
    match (from, refusals) {
        (Some(path), []) => {
            format!("install runtime {id}: {} is not a working Java {feature}", path.display())
        }
        (None, []) => format!(
            "install runtime {id}: no Java {feature} was found in JAVA_HOME, on PATH, in /usr/lib/jvm or under SDKMAN; {remedy}"
        ),
        (_, refusals) => format!("install runtime {id}: {}; {remedy}", refusals.join("; ")),
    }
}

/// Puts the native library where the bootstrap points to. By itself the client would copy it to `/tmp` in every init.
fn unpack_native_library(jar: &Path, lib: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(jar)?)?;
    let mut entry = archive.by_name(NATIVE_LIBRARY)?;
    std::io::copy(&mut entry, &mut std::fs::File::create(lib.join("libaws-lambda-jni.so"))?)?;
    Ok(())
}

/// Compiles our classes to `rekindle/`; functions see them at `/var/runtime/rekindle`.
fn compile(interpreter: &Interpreter, dir: &Path) -> Result<()> {
    let compiler = COMPILER.fetch(dir)?;
    let mut java = Command::new(&interpreter.program);
    java.arg("-jar").arg(&compiler).args(["-source", "11", "-target", "11", "-nowarn", "-proc:none"]);
    java.arg("-cp").arg(class_path(dir)).arg("-d").arg(dir.join("rekindle"));
    java.args(OWN_FILES.iter().filter(|(name, _)| name.ends_with(".java")).map(|(name, _)| dir.join(name)));
    tools::finish(java.env_remove("JAVA_TOOL_OPTIONS"))?;
    std::fs::remove_file(compiler)?;
    Ok(())
}

/// The options that open to our hook what it renews. The further generators moved between modules over the years, and
/// Java 11 and some small JREs have none.
fn snapshot_options(java: &Path) -> String {
    let describe = |module: &str| tools::ask(java, &["--describe-module", module]).unwrap_or_default();
    let in_base = String::from_utf8_lossy(&describe("java.base")).contains("jdk.internal.random");
    let in_own = !describe("jdk.random").is_empty();
    let base = OPENED.iter().map(|package| format!("java.base/{package}"));
    base.chain(in_base.then(|| "java.base/jdk.internal.random".to_owned()))
        .chain(in_own.then(|| "jdk.random/jdk.random".to_owned()))
        .map(|package| format!("--add-opens={package}=ALL-UNNAMED\n"))
        .collect()
}

/// Loads the client's native part and our classes with the interpreter.
fn verify(interpreter: &Interpreter, dir: &Path) -> Result<()> {
    let mut java = Command::new(&interpreter.program);
    java.arg(format!("@{}", dir.join("snapshot.options").display()));
    java.arg("-cp").arg(class_path(dir)).args(["rekindle.Launcher", "--check"]);
    java.arg(dir.join("lib/libaws-lambda-jni.so"));
    tools::finish(java.env_remove("JAVA_TOOL_OPTIONS"))?;
    Ok(())
}

/// Our classes and the client, file by file: the compiler knows no wildcards.
fn class_path(dir: &Path) -> String {
    let jars = CLIENT_JARS.iter().map(|jar| dir.join("lib").join(jar.file_name()));
    let places = std::iter::once(dir.join("rekindle")).chain(jars);
    places.map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_common_distributions_are_read() {
        let debian = "openjdk 17.0.15 2025-04-15\nOpenJDK Runtime Environment\nOpenJDK 64-Bit Server VM";
        assert_eq!(read_version(debian), Some(("17.0.15".to_owned(), true)));
        let oracle =
            "java 21 2023-09-19 LTS\nJava(TM) SE Runtime Environment\nJava HotSpot(TM) 64-Bit Server VM";
        assert_eq!(read_version(oracle), Some(("21".to_owned(), true)));
        let semeru = "openjdk 17.0.8 2023-07-18\nIBM Semeru Runtime\nEclipse OpenJ9 VM";
        assert_eq!(read_version(semeru), Some(("17.0.8".to_owned(), false)));
        assert_eq!(read_version("no java here"), None);
    }

    #[test]
    fn a_program_that_is_no_java_is_refused() {
        let language = JavaId::language("java17").unwrap();
        let error = language.find(Some(Path::new("/bin/false"))).unwrap_err().to_string();
        assert_eq!(error, "install runtime java17: /bin/false is not a working Java 17");
    }

    #[test]
    fn what_links_lead_to_is_shown_once() {
        let dir = tempfile::tempdir().unwrap();
        let (prefix, etc) = (dir.path().join("jdk"), dir.path().join("etc/java"));
        std::fs::create_dir_all(prefix.join("conf/security")).unwrap();
        std::fs::create_dir_all(etc.join("security")).unwrap();
        for name in ["net.properties", "security/java.security"] {
            std::fs::write(etc.join(name), "").unwrap();
            std::os::unix::fs::symlink(etc.join(name), prefix.join("conf").join(name)).unwrap();
        }
        std::os::unix::fs::symlink("/nonexistent/file", prefix.join("conf/broken")).unwrap();
        assert_eq!(linked_elsewhere(&prefix), [etc.canonicalize().unwrap()]);
    }
}
