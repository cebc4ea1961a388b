//! Ruby: an interpreter of this machine and the unmodified `aws_lambda_ric` from RubyGems, or from a file that the user names.
//!
//! `gem` fetches, with the user's own sources, picks the newest client that supports the interpreter, and checks it
//! against the digests inside. Beside the client lie three files of ours: `bootstrap`, which starts it, and two that are
//! loaded.
//!
//! Deliberately absent: Bundler. A function's package brings its gems along in `vendor/bundle`, as on AWS.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::language::{CLIENT_DIR, Clients, Interpreter, Language, Start};
use super::places::{self, children, variable};
use super::progress::Progress;
use super::tools;

/// The releases that can be installed.
const RELEASES: [&str; 5] = ["3.1", "3.2", "3.3", "3.4", "4.0"];

/// The gem of the client.
const GEM: &str = "aws_lambda_ric";

/// What lies beside the client: our own files.
const OWN_FILES: [(&str, &str); 3] = [
    ("bootstrap", include_str!("../../runtimes/ruby/bootstrap")),
    ("rekindle-main.rb", include_str!("../../runtimes/ruby/rekindle-main.rb")),
    ("rekindle-randomness.rb", include_str!("../../runtimes/ruby/rekindle-randomness.rb")),
];

/// Asks an interpreter who it is and what it needs.
const PROBE: &str = "require 'json'; require 'rbconfig'; require 'openssl'; require 'socket'; \
    mapped = File.readlines('/proc/self/maps').map { |line| line.split(' ', 6)[5].to_s.chomp }; \
    puts JSON.generate(version: RUBY_VERSION, engine: RUBY_ENGINE, program: RbConfig.ruby, \
    mapped: mapped.select { |path| path.start_with?('/') }.uniq)";

/// What an interpreter says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Facts {
    version: String,
    engine: String,
    program: PathBuf,
    mapped: Vec<PathBuf>,
}

/// A runtime identifier of the form `rubyN.N`, and where its client comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RubyId {
    release: &'static str,
    client: Option<PathBuf>,
}

impl RubyId {
    /// See [`super::language::parse`].
    pub fn language(id: &str) -> Option<Box<dyn Language>> {
        let release = id.strip_prefix("ruby")?;
        let release = RELEASES.into_iter().find(|known| *known == release)?;
        Some(Box::new(Self { release, client: None }))
    }

    fn matches(&self, facts: &Facts) -> bool {
        facts.engine == "ruby"
            && facts.version.strip_prefix(self.release).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl fmt::Display for RubyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ruby{}", self.release)
    }
}

impl Language for RubyId {
    fn name(&self) -> &'static str {
        "ruby"
    }

    fn title(&self) -> &'static str {
        "Ruby"
    }

    fn with_client(&self, client: &Path) -> Result<Box<dyn Language>> {
        ensure!(client.is_file(), "install runtime {self}: {} is not a gem's file", client.display());
        Ok(Box::new(Self { client: Some(client.to_path_buf()), ..self.clone() }))
    }

    fn find(&self, from: Option<&Path>) -> Result<Interpreter> {
        let places = match from {
            Some(path) if path.is_dir() => vec![path.join("bin/ruby")],
            Some(path) => vec![path.to_path_buf()],
            None => candidates(self.release),
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
        bail!(explain_absence(self, from, &refusals))
    }

    fn fetch(&self, interpreter: &Interpreter, dir: &Path, progress: &Progress) -> Result<Clients> {
        let context = |what: &str| format!("install runtime {self}: {what}");
        tools::put(dir, &OWN_FILES).with_context(|| context("write what starts the client"))?;
        install_gem(interpreter, self.client.as_deref(), &dir.join("gems"))
            .with_context(|| context("fetch the client"))?;
        progress.step("checking the client");
        let version = verify(interpreter, dir).with_context(|| context("load the client"))?;
        Ok(Clients::from([(GEM.to_owned(), version)]))
    }

    fn describe(&self, interpreter: &Interpreter) -> Start {
        // Ruby names the places of gems by the release's first version, which all of its patches are compatible with.
        let gems = format!("{}.0", self.release);
        let path = format!("/var/task/vendor/bundle/ruby/{gems}:/opt/ruby/gems/{gems}");
        Start {
            argv: vec![
                "/bin/sh".to_owned(),
                format!("{CLIENT_DIR}/bootstrap"),
                interpreter.program_inside().display().to_string(),
            ],
            env: BTreeMap::from([
                ("GEM_PATH".to_owned(), path),
                ("RUBYLIB".to_owned(), "/opt/ruby/lib".to_owned()),
            ]),
        }
    }

    fn is_current(&self, dir: &Path) -> bool {
        // The gem that an installed client was unpacked from is kept beside it, so it can be compared.
        let is_same = |client: &PathBuf| {
            let content = std::fs::read(client).unwrap_or_default();
            children(&dir.join("gems/cache"))
                .iter()
                .any(|file| std::fs::read(file).is_ok_and(|kept| kept == content))
        };
        tools::holds(dir, &OWN_FILES) && self.client.as_ref().is_none_or(is_same)
    }
}

fn ask(program: &Path) -> Option<Facts> {
    serde_json::from_slice(&tools::ask(program, &["-e", PROBE])?).ok()
}

/// Where a `ruby` may be, best guess first. Nothing is checked here.
fn candidates(release: &str) -> Vec<PathBuf> {
    let home = places::home();
    let share = variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
    let mut dirs = places::path_dirs();
    dirs.extend(children(&variable("RBENV_ROOT").unwrap_or_else(|| home.join(".rbenv")).join("versions")));
    dirs.extend(children(&home.join(".rvm/rubies")));
    dirs.extend(children(&home.join(".rubies")));
    dirs.extend(children(Path::new("/opt/rubies")));
    dirs.extend(children(&home.join(".asdf/installs/ruby")));
    dirs.extend(children(&share.join("mise/installs/ruby")));
    dirs.extend(["/usr", "/usr/local"].map(PathBuf::from));
    let mut found = places::programs("ruby", dirs.clone());
    found.extend(places::programs(&format!("ruby{release}"), dirs));
    found
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

fn explain_absence(id: &RubyId, from: Option<&Path>, refusals: &[String]) -> String {
    let release = id.release;
    let remedy = format!(
        "install one with your system's packages (`sudo apt install ruby`) or `rbenv install {release}`, or name one with \
         --from"
    );
    match (from, refusals) {
        (Some(path), []) => {
            format!("install runtime {id}: {} is not a working Ruby {release}", path.display())
        }
        (None, []) => format!(
            "install runtime {id}: no Ruby {release} was found on PATH or where version managers keep it; {remedy}"
        ),
        (_, refusals) => format!("install runtime {id}: {}; {remedy}", refusals.join("; ")),
    }
}

/// Lets `gem` fetch the client, or take it from a file, and unpack it below `dir`.
fn install_gem(interpreter: &Interpreter, file: Option<&Path>, dir: &Path) -> Result<()> {
    let mut gem = Command::new(&interpreter.program);
    gem.args(["-S", "gem", "install", "--no-document", "--no-user-install"]).arg("--install-dir").arg(dir);
    match file {
        // What it needs is part of Ruby itself.
        Some(file) => gem.args(["--local", "--ignore-dependencies"]).arg(file),
        None => gem.arg(GEM),
    };
    // `-S` looks for `gem` in PATH; the interpreter's own goes first.
    let own = interpreter.prefix.join("bin");
    if let Ok(path) = std::env::join_paths(std::iter::once(own).chain(places::path_dirs())) {
        gem.env("PATH", path);
    }
    tools::finish(bare(&mut gem))
        .context("remedy: fix the sources of `gem`, or name the gem's file with --client")?;
    Ok(())
}

/// Loads the client with the interpreter and returns its version.
fn verify(interpreter: &Interpreter, dir: &Path) -> Result<String> {
    const CHECK: &str = "$LOAD_PATH.concat(Dir[\"#{ARGV[0]}/gems/gems/*/lib\"]); require 'aws_lambda_ric'; \
        require File.join(ARGV[0], 'rekindle-randomness'); puts AwsLambdaRIC::VERSION";
    let mut ruby = Command::new(&interpreter.program);
    let answer = tools::finish(bare(ruby.args(["-e", CHECK]).arg(dir)))?;
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

/// A command without the settings of whoever runs the install.
fn bare(command: &mut Command) -> &mut Command {
    for name in ["RUBYOPT", "RUBYLIB", "GEM_HOME", "GEM_PATH", "BUNDLE_GEMFILE"] {
        command.env_remove(name);
    }
    command
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_ruby_is_refused() {
        let language = RubyId::language("ruby3.4").unwrap();
        let error = language.find(Some(Path::new("/bin/false"))).unwrap_err().to_string();
        assert_eq!(error, "install runtime ruby3.4: /bin/false is not a working Ruby 3.4");
    }

    #[test]
    fn only_the_release_that_is_asked_for_matches() {
        let facts = |version: &str, engine: &str| Facts {
            version: version.to_owned(),
            engine: engine.to_owned(),
            program: "/usr/bin/ruby".into(),
            mapped: Vec::new(),
        };
        let id = RubyId { release: "3.1", client: None };
        assert!(id.matches(&facts("3.1.2", "ruby")));
        assert!(!id.matches(&facts("3.10.0", "ruby")));
        assert!(!id.matches(&facts("3.1.4", "jruby")));
    }

    #[test]
    fn gems_are_looked_for_where_aws_has_them() {
        let language = RubyId::language("ruby3.3").unwrap();
        let interpreter = Interpreter {
            program: "/usr/bin/ruby3.3".into(),
            prefix: "/usr".into(),
            version: "3.3.8".to_owned(),
            extras: Vec::new(),
        };
        let start = language.describe(&interpreter);
        assert_eq!(start.argv, ["/bin/sh", "/var/runtime/bootstrap", "/usr/bin/ruby3.3"]);
        assert_eq!(start.env["GEM_PATH"], "/var/task/vendor/bundle/ruby/3.3.0:/opt/ruby/gems/3.3.0");
    }
}
