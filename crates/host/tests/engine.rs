//! The engine in its sandboxes, end to end: a real interpreter is initialized, checkpointed and restored many times
//! through the host role's own protocol.
//!
//! Without a test harness: the host role must have one thread, so it is this binary started again, and the cases run
//! one after the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command as Process};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::protocol::{
    Answer, Command, Event, Failure, FromHost, InitSpec, Lease, MESSAGE_BYTES_MAX, Request, RootSpec,
    SandboxId, SnapshotId,
};
use host::role::{self, Config};
use linux::channel::Channel;
use serde_json::Value;

const ROLE: &str = "--host-role";
const PYTHON: &str = "/usr/bin/python3";

/// A case that ran whole or says why not.
type Case = fn() -> Result<()>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == ROLE) {
        return run_role(&arguments[2], &arguments[3]);
    }
    let cases: &[(&str, Case)] = &[
        ("a_clone_is_what_was_checkpointed", a_clone_is_what_was_checkpointed),
        ("two_clones_share_nothing_they_must_not", two_clones_share_nothing_they_must_not),
        ("a_thousand_restores_all_answer", a_thousand_restores_all_answer),
        ("a_standby_clone_waits_and_is_its_own", a_standby_clone_waits_and_is_its_own),
        ("a_large_heap_comes_back_whole", a_large_heap_comes_back_whole),
        ("a_damaged_snapshot_is_refused", a_damaged_snapshot_is_refused),
        ("a_child_process_is_refused", a_child_process_is_refused),
        ("the_end_of_a_clone_is_reported", the_end_of_a_clone_is_reported),
    ];
    if !std::path::Path::new(PYTHON).exists() || !rustix::process::geteuid().is_root() {
        eprintln!("\nNOT RUN: {} engine cases: they need root and {PYTHON}\n", cases.len());
        println!("test result: ok. 0 passed; 0 failed; {} ignored", cases.len());
        return;
    }
    let filter = arguments.get(1).filter(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
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
struct Driver {
    role: Child,
    channel: Channel,
    next: u64,
    ready: Vec<Ready>,
    /// Sandboxes in which a clone waits.
    standbys: Vec<Ready>,
    exits: Vec<(SandboxId, host::protocol::Exit)>,
    directory: tempfile::TempDir,
    root: RootSpec,
}

struct Ready {
    sandbox: SandboxId,
    listener: TcpListener,
    connection: TcpStream,
    _stdout: OwnedFd,
    stderr: OwnedFd,
}

/// An environment and the connection to it.
struct Environment {
    sandbox: SandboxId,
    connection: BufReader<TcpStream>,
    stderr: OwnedFd,
}

impl Driver {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let task = directory.path().join("task");
        std::fs::create_dir(&task)?;
        std::fs::write(task.join("guest.py"), include_str!("guest.py"))?;
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let (channel, inner) = Channel::pair()?;
        let mut process = Process::new(std::env::current_exe()?);
        process.arg(ROLE).arg(directory.path());
        let inner = linux::process::inherited(inner.into())?;
        let role = process.arg(inner.as_raw_fd().to_string()).spawn()?;
        drop(inner);
        let root = RootSpec { name: "python3".to_owned(), binds: Vec::new(), exposed_ports: Vec::new() };
        let mut driver = Self {
            role,
            channel,
            next: 0,
            ready: Vec::new(),
            standbys: Vec::new(),
            exits: Vec::new(),
            directory,
            root,
        };
        let pool = Command::Pool { root: driver.root.clone(), ready: 3 };
        driver.ask(pool)??;
        Ok(driver)
    }

    fn lease(&self) -> Lease {
        Lease { task_dir: self.directory.path().join("task"), opt_dir: None, tmp_mib: 512, memory_mib: 1769 }
    }

    fn ask(&mut self, command: Command) -> Result<Result<Answer, Failure>> {
        self.next += 1;
        let request = Request { id: self.next, command };
        self.channel.send(&serde_json::to_vec(&request)?, &[])?;
        loop {
            if let Some(reply) = self.hear()? {
                ensure!(reply.id == self.next, "a reply to another request");
                return Ok(reply.result);
            }
        }
    }

    fn hear(&mut self) -> Result<Option<host::protocol::Reply>> {
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
                place.push(Ready { sandbox, listener, connection, _stdout: stdout, stderr });
            }
            FromHost::Event(Event::SandboxFailed { message, .. }) => bail!("no sandbox: {message}"),
            FromHost::Event(Event::Exited { sandbox, exit, .. }) => self.exits.push((sandbox, exit)),
        }
        Ok(None)
    }

    fn take_ready(&mut self) -> Result<Ready> {
        while self.ready.is_empty() {
            self.hear()?;
        }
        Ok(self.ready.remove(0))
    }

    /// A normal init of the guest, up to its announcement. Gives the port of its end.
    fn init(&mut self, env: &[(&str, &str)]) -> Result<(Environment, u16)> {
        let ready = self.take_ready()?;
        let environment: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let init = InitSpec {
            argv: vec![PYTHON.to_owned(), "/var/task/guest.py".to_owned()],
            env: environment,
            cwd: "/var/task".to_owned(),
        };
        let lease = self.lease();
        self.ask(Command::Init { sandbox: ready.sandbox, lease, init })??;
        let (connection, peer) = ready.listener.accept()?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut environment = Environment {
            sandbox: ready.sandbox,
            connection: BufReader::new(connection),
            stderr: ready.stderr,
        };
        ensure!(environment.line()? == "ready", "the guest has not announced itself");
        Ok((environment, peer.port()))
    }

    /// A snapshot of the guest.
    fn snapshot(&mut self, name: &str, env: &[(&str, &str)]) -> Result<SnapshotId> {
        let (environment, pending_port) = self.init(env)?;
        let snapshot = SnapshotId(name.to_owned());
        let sandbox = environment.sandbox;
        // The guest must have come to its `recv`.
        std::thread::sleep(Duration::from_millis(50));
        self.ask(Command::Checkpoint { sandbox, snapshot: snapshot.clone(), pending_port })??;
        self.ask(Command::Kill { sandbox })??;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &SnapshotId) -> Result<Environment> {
        let ready = self.take_ready()?;
        self.restore_into(ready, snapshot)
    }

    fn restore_into(&mut self, ready: Ready, snapshot: &SnapshotId) -> Result<Environment> {
        let lease = self.lease();
        self.ask(Command::Restore { sandbox: ready.sandbox, lease, snapshot: snapshot.clone() })??;
        ready.connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Environment {
            sandbox: ready.sandbox,
            connection: BufReader::new(ready.connection),
            stderr: ready.stderr,
        })
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

impl Environment {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.connection.read_line(&mut line);
        if read.as_ref().is_ok_and(|&count| count > 0) {
            return Ok(line.trim_end().to_owned());
        }
        let mut errors = vec![0; 65536];
        rustix::io::ioctl_fionbio(&self.stderr, true)?;
        let count = rustix::io::read(&self.stderr, &mut errors).unwrap_or(0);
        bail!("the guest said nothing ({read:?}); on stderr: {}", String::from_utf8_lossy(&errors[..count]));
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        self.connection.get_mut().write_all(format!("{command}\n").as_bytes())?;
        Ok(serde_json::from_str(&self.line()?)?)
    }
}

fn text<'a>(probe: &'a Value, field: &str) -> &'a str {
    probe[field].as_str().unwrap_or_default()
}

fn a_clone_is_what_was_checkpointed() -> Result<()> {
    let mut driver = Driver::start()?;
    let (mut original, _) = driver.init(&[])?;
    let before = original.ask("probe")?;
    let snapshot = driver.snapshot("whole", &[])?;
    let mut clone = driver.restore(&snapshot)?;
    let after = clone.ask("probe")?;
    for field in [
        "pid",
        "tid",
        "ppid",
        "uid",
        "gid",
        "groups",
        "heap",
        "shared",
        "pipe",
        "pair",
        "eventfd",
        "tmp",
        "rest",
        "counter",
        "cwd",
        "dumpable",
        "children",
        "descriptors",
        "threads",
    ] {
        ensure!(before[field] == after[field], "{field}: {} became {}", before[field], after[field]);
    }
    for field in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Threads",
        "SigCgt",
        "SigBlk",
    ] {
        let line = |probe: &Value| {
            text(probe, "status")
                .lines()
                .find(|line| line.starts_with(&format!("{field}:")))
                .map(str::to_owned)
        };
        ensure!(line(&before) == line(&after), "{:?} became {:?}", line(&before), line(&after));
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    ensure!((after["time"].as_f64().unwrap_or(0.0) - now).abs() < 2.0, "the wall clock is wrong");
    Ok(())
}

fn two_clones_share_nothing_they_must_not() -> Result<()> {
    let mut driver = Driver::start()?;
    let snapshot = driver.snapshot("two", &[])?;
    let (mut one, mut other) = (driver.restore(&snapshot)?, driver.restore(&snapshot)?);
    let (first, second) = (one.ask("probe")?, other.ask("probe")?);
    for field in ["urandom", "ssl", "sysgenid"] {
        ensure!(first[field] != second[field], "{field} repeats: {}", first[field]);
    }
    // Each had its own copy of the shared mapping, although the other has written to its own by now.
    ensure!(text(&second, "shared") == "share", "shared memory is shared between clones");
    one.ask("open('/tmp/mine', 'w').write('x')")?;
    ensure!(other.ask("os.path.exists('/tmp/mine')")? == Value::Bool(false), "/tmp is shared between clones");
    Ok(())
}

fn a_thousand_restores_all_answer() -> Result<()> {
    let mut driver = Driver::start()?;
    let snapshot = driver.snapshot("many", &[])?;
    driver.ask(Command::Prepare { snapshot: snapshot.clone() })??;
    let mut times = Vec::new();
    for _ in 0..1000 {
        while driver.ready.is_empty() {
            driver.hear()?;
        }
        let start = Instant::now();
        let mut clone = driver.restore(&snapshot)?;
        ensure!(clone.ask("ping")? == "pong", "a wrong answer");
        times.push(start.elapsed());
        driver.ask(Command::Kill { sandbox: clone.sandbox })??;
    }
    times.sort();
    println!("restore to answer: median {:?}, p99 {:?}, least {:?}", times[500], times[990], times[0]);
    Ok(())
}

fn a_standby_clone_waits_and_is_its_own() -> Result<()> {
    let mut driver = Driver::start()?;
    let snapshot = driver.snapshot("standby", &[])?;
    let mut first = driver.restore(&snapshot)?;
    while driver.standbys.is_empty() {
        driver.hear()?;
    }
    let parked = driver.standbys.remove(0);
    let mut second = driver.restore_into(parked, &snapshot)?;
    let (one, other) = (first.ask("probe")?, second.ask("probe")?);
    for field in ["urandom", "ssl", "sysgenid"] {
        ensure!(one[field] != other[field], "{field} repeats: {}", one[field]);
    }
    for field in ["pid", "uid", "heap", "tmp", "threads", "descriptors"] {
        ensure!(one[field] == other[field], "{field}: {} and {}", one[field], other[field]);
    }
    // Deleting the snapshot takes down the next one, which waits by now or is being made.
    driver.ask(Command::Delete { snapshot })??;
    Ok(())
}

fn a_large_heap_comes_back_whole() -> Result<()> {
    let mut driver = Driver::start()?;
    let snapshot = driver.snapshot("large", &[("HEAP_MIB", "300")])?;
    let start = Instant::now();
    driver.ask(Command::Prepare { snapshot: snapshot.clone() })??;
    println!("template of 300 MiB: {:?}", start.elapsed());
    let start = Instant::now();
    let mut clone = driver.restore(&snapshot)?;
    ensure!(clone.ask("ping")? == "pong", "a wrong answer");
    println!("restore of 300 MiB: {:?}", start.elapsed());
    ensure!(
        clone.ask("hashlib.sha256(HEAP).hexdigest() == HEAP_DIGEST")? == Value::Bool(true),
        "the heap differs"
    );
    Ok(())
}

fn a_damaged_snapshot_is_refused() -> Result<()> {
    let mut driver = Driver::start()?;
    let snapshot = driver.snapshot("damaged", &[])?;
    let chunks = driver.directory.path().join("snapshots/chunks");
    let largest =
        files_below(&chunks)?.into_iter().max_by_key(|path| path.metadata().map_or(0, |data| data.len()));
    let largest = largest.context("no chunk")?;
    let mut bytes = Vec::new();
    std::fs::File::open(&largest)?.read_to_end(&mut bytes)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes)?;
    let ready = driver.take_ready()?;
    let lease = driver.lease();
    let refused = driver.ask(Command::Restore { sandbox: ready.sandbox, lease, snapshot })?;
    let failure = refused.err().context("a damaged snapshot was restored")?;
    ensure!(failure.kind == host::protocol::FailureKind::Unusable, "{failure:?}");
    Ok(())
}

fn files_below(directory: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

fn a_child_process_is_refused() -> Result<()> {
    let mut driver = Driver::start()?;
    let (mut environment, pending_port) = driver.init(&[])?;
    environment.ask("os.posix_spawn('/bin/sleep', ['sleep', '60'], {})")?;
    let snapshot = SnapshotId("child".to_owned());
    let sandbox = environment.sandbox;
    let failure =
        driver.ask(Command::Checkpoint { sandbox, snapshot, pending_port })?.err().context("not refused")?;
    ensure!(failure.kind == host::protocol::FailureKind::Unsupported, "{failure:?}");
    ensure!(failure.message.contains("sleep"), "the child is not named: {failure}");
    Ok(())
}

fn the_end_of_a_clone_is_reported() -> Result<()> {
    let mut driver = Driver::start()?;
    let snapshot = driver.snapshot("end", &[])?;
    let mut clone = driver.restore(&snapshot)?;
    clone.connection.get_mut().write_all(b"sys.exit(7)\n")?;
    while driver.exits.iter().all(|(sandbox, _)| *sandbox != clone.sandbox) {
        driver.hear()?;
    }
    let exit = driver.exits.iter().find(|(sandbox, _)| *sandbox == clone.sandbox).map(|(_, exit)| *exit);
    ensure!(exit == Some(host::protocol::Exit::Status(7)), "{exit:?}");
    Ok(())
}
