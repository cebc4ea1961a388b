//! The same programs, dumped and restored by CRIU, for figures beside ours.
//!
//! CRIU gives a process its old ID, so all this happens in a PID namespace of its own, whose first process is this
//! binary started again; lines of text go in and out. Images lie in memory (`/dev/shm`), which is CRIU at its best. A
//! program listens instead of being connected, because CRIU restores that without help.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::report::Program;
use crate::subject::micros;

/// The argument that makes this binary the runner.
pub const RUNNER: &str = "--criu-runner";
const FIRST_PORT: u16 = 19_001;
const START_MAX: Duration = Duration::from_secs(120);

/// The runner, as the benchmark holds it.
pub struct Runner {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    programs: Vec<String>,
}

impl Runner {
    pub fn start(criu: &Path) -> Result<Self> {
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(std::env::current_exe()?)
            .arg(RUNNER)
            .arg(criu)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            child,
            requests: requests.context("a pipe")?,
            answers: BufReader::new(answers.context("a pipe")?),
            programs: Vec::new(),
        })
    }

    /// Starts a program, warms it and dumps it.
    pub fn dump(&mut self, program: &Program) -> Result<()> {
        self.ask(&format!("dump {}", serde_json::to_string(program)?))?;
        self.programs.push(program.name.clone());
        Ok(())
    }

    pub fn has(&self, name: &str) -> bool {
        self.programs.iter().any(|program| program == name)
    }

    /// Microseconds from the start of a restore to the answer.
    pub fn restore(&mut self, name: &str, kind: &str) -> Result<u64> {
        Ok(self.ask(&format!("restore {name} {kind}"))?.parse()?)
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.requests, "{line}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", value)) => Ok(value.to_owned()),
            Some((_, error)) => bail!("{error}"),
            None => bail!("the runner is gone"),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The runner's life.
pub fn run() -> Result<()> {
    let criu = PathBuf::from(std::env::args().nth(2).context("the path of CRIU")?);
    let place = tempfile::tempdir_in("/dev/shm")?;
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    for line in std::io::stdin().lines() {
        let line = line?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match verb {
            "dump" => {
                let port = FIRST_PORT + images.len() as u16;
                serde_json::from_str(rest).map_err(Into::into).and_then(|program: Program| {
                    let image =
                        Image { criu: criu.clone(), directory: place.path().join(&program.name), port };
                    image.dump(&program)?;
                    images.insert(program.name, image);
                    Ok(0)
                })
            }
            _ => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                images.get(name).context("no such image").and_then(|image| image.restore(kind))
            }
        };
        match answer {
            Ok(value) => println!("ok {value}"),
            Err(error) => println!("error {}", format!("{error:#}").replace('\n', "; ")),
        }
    }
    Ok(())
}

struct Image {
    criu: PathBuf,
    directory: PathBuf,
    port: u16,
}

impl Image {
    fn dump(&self, program: &Program) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        let output = File::create(self.directory.join("output"))?;
        let mut command = Command::new("setsid");
        command.args(&program.outside_argv).env_clear().envs(&program.outside_env);
        command.env("BENCH_LISTEN", self.port.to_string()).current_dir(&program.task);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("start the program")?;
        let ask = |line: &str| self.ask(line, START_MAX);
        for kind in program.kinds.iter().chain(&program.kinds) {
            ask(kind).with_context(|| format!("ask for {kind}"))?;
        }
        std::thread::sleep(Duration::from_millis(200));
        let status = Command::new(&self.criu)
            .args(["dump", "--tree", &child.id().to_string(), "--log-file", "dump.log", "--images-dir"])
            .arg(&self.directory)
            .stdout(Stdio::null())
            .status()?;
        reap(child.id() as i32, true);
        ensure!(status.success(), "{}", self.last_error("dump.log"));
        Ok(())
    }

    fn restore(&self, kind: &str) -> Result<u64> {
        let pid_file = self.directory.join("pid");
        let _ = fs::remove_file(&pid_file);
        let start = Instant::now();
        let status = Command::new(&self.criu)
            .args(["restore", "--restore-detached", "--log-file", "restore.log", "--images-dir"])
            .arg(&self.directory)
            .arg("--pidfile")
            .arg(&pid_file)
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "{}", self.last_error("restore.log"));
        let answer = self.ask(kind, Duration::ZERO);
        let took_us = micros(start);
        reap(fs::read_to_string(&pid_file)?.trim().parse()?, false);
        answer?;
        Ok(took_us)
    }

    /// Connects, trying again for `patience`, and asks.
    fn ask(&self, line: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let connection = loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(connection) => break connection,
                Err(error) if Instant::now() >= deadline => return Err(error).context("connect"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        connection.set_read_timeout(Some(START_MAX))?;
        let mut reader = BufReader::new(&connection);
        (&connection).write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        for _ in ["ready", "answer"] {
            answer.clear();
            ensure!(reader.read_line(&mut answer)? > 0, "the program closed the connection");
        }
        Ok(answer)
    }

    fn last_error(&self, log: &str) -> String {
        let text = fs::read_to_string(self.directory.join(log)).unwrap_or_default();
        let error = text.lines().find(|line| line.contains("Error"));
        error.unwrap_or("CRIU gave no reason").to_owned()
    }
}

/// Ends a process, unless it has ended, and takes its status.
fn reap(pid: i32, ended: bool) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    if !ended {
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = waitpid(Some(pid), WaitOptions::empty());
}
