//! The API role's side of the host role, for tests: starts the role as a process of its own and drives it.
//!
//! The host role must have one thread, so it is the test's own binary started again.

// Not every program that includes this uses all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command as Process};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use host::protocol::{
    Answer, Command, Event, Failure, FromHost, InitSpec, Lease, MESSAGE_BYTES_MAX, Request, RootSpec,
    SandboxId, SnapshotId,
};
use host::role::{self, Config};
use linux::channel::Channel;
use rustix::event::{PollFd, PollFlags, poll};

const ROLE: &str = "--host-role";
/// Sandboxes that wait ready.
pub const POOL: u32 = 3;

/// Becomes the host role if this process was started as one.
pub fn become_role() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == ROLE) {
        run_role(&arguments[2], &arguments[3]);
        std::process::exit(0);
    }
}

/// A case and its name.
pub type Case = (String, Box<dyn Fn() -> Result<()>>);

/// Runs the cases whose names hold the first argument, one after the other, and ends with the runner's summary.
pub fn run_cases(cases: &[Case]) {
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in
        cases.iter().filter(|(name, _)| filter.as_ref().is_none_or(|filter| name.contains(filter)))
    {
        match case() {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED\n{error:?}");
                failed += 1;
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    if failed > 0 {
        std::process::exit(1);
    }
}

fn run_role(data_dir: &str, descriptor: &str) {
    // `REKINDLE_LOG=warn` shows what the role would tell the server's log.
    let filter = tracing_subscriber::EnvFilter::from_env("REKINDLE_LOG");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let channel =
        linux::process::inherit(descriptor.parse().expect("a number")).expect("the parent's socket");
    let config =
        Config { data_dir: data_dir.into(), mark: format!("test{}", std::process::id()), keep_failed: false };
    if let Err(error) = role::run(channel.into(), config) {
        eprintln!("the host role ended: {error}");
        std::process::exit(1);
    }
}

/// The API role's side.
pub struct Driver {
    role: Child,
    channel: Channel,
    next: u64,
    pub ready: Vec<Ready>,
    /// Sandboxes in which a clone waits.
    pub standbys: Vec<Ready>,
    pub exits: Vec<(SandboxId, host::protocol::Exit)>,
    pub directory: tempfile::TempDir,
    root: RootSpec,
    task: PathBuf,
    memory_mib: u32,
    argv: Vec<String>,
}

/// A sandbox that waits ready, and the platform's ends of it.
pub struct Ready {
    pub sandbox: SandboxId,
    /// The snapshot of which a clone waits in it.
    pub snapshot: Option<SnapshotId>,
    listener: TcpListener,
    pub connection: TcpStream,
    _stdout: OwnedFd,
    stderr: OwnedFd,
}

/// An environment and the connection to it.
pub struct Environment {
    pub sandbox: SandboxId,
    pub connection: BufReader<TcpStream>,
    stderr: OwnedFd,
}

impl Driver {
    /// Starts a host role whose sandboxes have a program in their task directory and run `argv`.
    pub fn start(program: (&str, &[u8]), argv: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let task = directory.path().join("task");
        std::fs::create_dir(&task)?;
        let file = task.join(program.0);
        std::fs::write(&file, program.1)?;
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let root = RootSpec { name: "python3".to_owned(), binds: Vec::new(), exposed_ports: Vec::new() };
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Self::start_with(directory, root, task, 1769, argv)
    }

    /// Starts a host role, with its data in `directory`, whose sandboxes of `memory_mib` have `root` and the task
    /// directory `task` and run `argv`.
    pub fn start_with(
        directory: tempfile::TempDir,
        root: RootSpec,
        task: PathBuf,
        memory_mib: u32,
        argv: Vec<String>,
    ) -> Result<Self> {
        let (channel, inner) = Channel::pair()?;
        let mut process = Process::new(std::env::current_exe()?);
        process.arg(ROLE).arg(directory.path());
        let inner = linux::process::inherited(inner.into())?;
        let role = process.arg(inner.as_raw_fd().to_string()).spawn()?;
        drop(inner);
        let mut driver = Self {
            role,
            channel,
            next: 0,
            ready: Vec::new(),
            standbys: Vec::new(),
            exits: Vec::new(),
            directory,
            root,
            task,
            memory_mib,
            argv,
        };
        driver.pool(POOL)?;
        Ok(driver)
    }

    /// Sets how many sandboxes wait ready.
    pub fn pool(&mut self, ready: u32) -> Result<()> {
        let root = self.root.clone();
        self.ask(Command::Pool { root, ready })??;
        Ok(())
    }

    /// The role's process.
    pub fn role(&self) -> u32 {
        self.role.id()
    }

    /// Readable when the role has said something.
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    pub fn lease(&self) -> Lease {
        Lease { task_dir: self.task.clone(), opt_dir: None, tmp_mib: 512, memory_mib: self.memory_mib }
    }

    /// Sends a request without waiting for its reply.
    pub fn post(&mut self, command: Command) -> Result<u64> {
        self.next += 1;
        let request = Request { id: self.next, command };
        self.channel.send(&serde_json::to_vec(&request)?, &[])?;
        Ok(self.next)
    }

    pub fn ask(&mut self, command: Command) -> Result<Result<Answer, Failure>> {
        let id = self.post(command)?;
        loop {
            if let Some(reply) = self.hear()? {
                ensure!(reply.id == id, "a reply to another request");
                return Ok(reply.result);
            }
        }
    }

    pub fn hear(&mut self) -> Result<Option<host::protocol::Reply>> {
        let message = self.channel.receive(MESSAGE_BYTES_MAX)?.context("the host role has died")?;
        match serde_json::from_slice(&message.bytes)? {
            FromHost::Reply(reply) => return Ok(Some(reply)),
            FromHost::Event(Event::SandboxReady { sandbox, standby, .. }) => {
                let [listener, connection, stdout, stderr] =
                    <[OwnedFd; 4]>::try_from(message.descriptors).ok().context("four descriptors")?;
                let (listener, connection) = (TcpListener::from(listener), TcpStream::from(connection));
                listener.set_nonblocking(false)?;
                connection.set_nonblocking(false)?;
                let place = if standby.is_some() { &mut self.standbys } else { &mut self.ready };
                place.push(Ready {
                    sandbox,
                    snapshot: standby,
                    listener,
                    connection,
                    _stdout: stdout,
                    stderr,
                });
            }
            FromHost::Event(Event::SandboxFailed { message, .. }) => bail!("no sandbox: {message}"),
            FromHost::Event(Event::Exited { sandbox, exit, .. }) => self.exits.push((sandbox, exit)),
        }
        Ok(None)
    }

    pub fn take_ready(&mut self) -> Result<Ready> {
        while self.ready.is_empty() {
            self.hear()?;
        }
        Ok(self.ready.remove(0))
    }

    /// A normal init of the guest, up to its announcement. Gives the port of its end.
    pub fn init(&mut self, env: &[(&str, &str)]) -> Result<(Environment, u16)> {
        let ready = self.take_ready()?;
        let environment: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let init = InitSpec { argv: self.argv.clone(), env: environment, cwd: "/var/task".to_owned() };
        let lease = self.lease();
        self.ask(Command::Init { sandbox: ready.sandbox, lease, init })??;
        self.await_guest(&ready)?;
        let (connection, peer) = ready.listener.accept()?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut environment = Environment {
            sandbox: ready.sandbox,
            connection: BufReader::new(connection),
            stderr: ready.stderr,
        };
        let said = environment.line()?;
        ensure!(said == "ready", "the guest has not announced itself but said: {said}");
        Ok((environment, peer.port()))
    }

    /// Waits until the guest connects. One that ends before has something to say for itself.
    fn await_guest(&mut self, ready: &Ready) -> Result<()> {
        loop {
            let mut entries = [
                PollFd::from_borrowed_fd(ready.listener.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN),
            ];
            poll(&mut entries, None)?;
            if !entries[0].revents().is_empty() {
                return Ok(());
            }
            self.hear()?;
            if let Some((_, exit)) = self.exits.iter().find(|(sandbox, _)| *sandbox == ready.sandbox) {
                bail!(
                    "the guest has ended before it connected ({exit:?}); on stderr: {}",
                    said(&ready.stderr)?
                );
            }
        }
    }

    /// A snapshot of the guest.
    pub fn snapshot(&mut self, name: &str, env: &[(&str, &str)]) -> Result<SnapshotId> {
        let (environment, pending_port) = self.init(env)?;
        self.checkpoint(name, environment, pending_port)
    }

    /// A snapshot of an environment, which ends.
    pub fn checkpoint(
        &mut self,
        name: &str,
        environment: Environment,
        pending_port: u16,
    ) -> Result<SnapshotId> {
        let snapshot = SnapshotId(name.to_owned());
        let sandbox = environment.sandbox;
        // The guest must have come to its `recv`.
        std::thread::sleep(Duration::from_millis(50));
        self.ask(Command::Checkpoint { sandbox, snapshot: snapshot.clone(), pending_port })??;
        self.ask(Command::Kill { sandbox })??;
        Ok(snapshot)
    }

    pub fn restore(&mut self, snapshot: &SnapshotId) -> Result<Environment> {
        let ready = self.take_ready()?;
        self.restore_into(ready, snapshot)
    }

    pub fn restore_into(&mut self, ready: Ready, snapshot: &SnapshotId) -> Result<Environment> {
        let lease = self.lease();
        self.ask(Command::Restore { sandbox: ready.sandbox, lease, snapshot: snapshot.clone() })??;
        ready.environment()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The role ends when its channel does, and everything that it made with it.
        if let Ok((channel, _)) = Channel::pair() {
            self.channel = channel;
        }
        let _ = self.role.wait();
    }
}

impl Ready {
    /// The environment that was restored into it.
    pub fn environment(self) -> Result<Environment> {
        self.connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Environment {
            sandbox: self.sandbox,
            connection: BufReader::new(self.connection),
            stderr: self.stderr,
        })
    }
}

impl Environment {
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.connection.read_line(&mut line);
        if read.as_ref().is_ok_and(|&count| count > 0) {
            return Ok(line.trim_end().to_owned());
        }
        bail!("the guest said nothing ({read:?}); on stderr: {}", said(&self.stderr)?);
    }

    /// Sends a line and gives the line that comes back.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.connection.get_mut().write_all(format!("{command}\n").as_bytes())?;
        self.line()
    }

    /// Port of the environment's end of the connection.
    pub fn pending_port(&self) -> Result<u16> {
        Ok(self.connection.get_ref().peer_addr()?.port())
    }
}

/// What was written to a pipe.
fn said(pipe: &OwnedFd) -> Result<String> {
    let mut text = vec![0; 65536];
    rustix::io::ioctl_fionbio(pipe, true)?;
    let count = rustix::io::read(pipe, &mut text).unwrap_or(0);
    Ok(String::from_utf8_lossy(&text[..count]).into_owned())
}
