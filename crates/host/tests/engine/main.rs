//! The engine in its sandboxes, end to end: a real interpreter is initialized, checkpointed and restored many times
//! through the host role's own protocol.
//!
//! Without a test harness: the host role must have one thread, so it is this binary started again, and the cases run
//! one after the other.

#[path = "../support/driver.rs"]
mod driver;

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use driver::{Case, Driver, Environment, become_role, run_cases};
use host::protocol::Command;
use serde_json::Value;

const PYTHON: &str = "/usr/bin/python3";

/// A case runs whole or says why not.
type Run = fn() -> Result<()>;

fn main() {
    become_role();
    let cases: &[(&str, Run)] = &[
        ("a_clone_is_what_was_checkpointed", a_clone_is_what_was_checkpointed),
        ("two_clones_share_nothing_they_must_not", two_clones_share_nothing_they_must_not),
        ("a_thousand_restores_all_answer", a_thousand_restores_all_answer),
        ("a_standby_clone_waits_and_is_its_own", a_standby_clone_waits_and_is_its_own),
        ("a_large_heap_comes_back_whole", a_large_heap_comes_back_whole),
        ("a_damaged_snapshot_is_refused", a_damaged_snapshot_is_refused),
        ("a_child_process_comes_back", a_child_process_comes_back),
        ("the_end_of_a_clone_is_reported", the_end_of_a_clone_is_reported),
    ];
    if !std::path::Path::new(PYTHON).exists() || !rustix::process::geteuid().is_root() {
        eprintln!("\nNOT RUN: {} engine cases: they need root and {PYTHON}\n", cases.len());
        println!("test result: ok. 0 passed; 0 failed; {} ignored", cases.len());
        return;
    }
    let cases: Vec<Case> =
        cases.iter().map(|&(name, case)| (name.to_owned(), Box::new(case) as Box<_>)).collect();
    run_cases(&cases);
}

fn start() -> Result<Driver> {
    let program = include_bytes!("guest.py");
    Driver::start(("guest.py", program), &[PYTHON, "/var/task/guest.py"])
}

/// Has the guest evaluate an expression.
fn ask(environment: &mut Environment, expression: &str) -> Result<Value> {
    Ok(serde_json::from_str(&environment.ask(expression)?)?)
}

fn text<'a>(probe: &'a Value, field: &str) -> &'a str {
    probe[field].as_str().unwrap_or_default()
}

fn a_clone_is_what_was_checkpointed() -> Result<()> {
    let mut driver = start()?;
    let (mut original, _) = driver.init(&[])?;
    let before = ask(&mut original, "probe")?;
    let snapshot = driver.snapshot("whole", &[])?;
    let mut clone = driver.restore(&snapshot)?;
    let after = ask(&mut clone, "probe")?;
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
    let mut driver = start()?;
    let snapshot = driver.snapshot("two", &[])?;
    let (mut one, mut other) = (driver.restore(&snapshot)?, driver.restore(&snapshot)?);
    let (first, second) = (ask(&mut one, "probe")?, ask(&mut other, "probe")?);
    for field in ["urandom", "ssl", "sysgenid"] {
        ensure!(first[field] != second[field], "{field} repeats: {}", first[field]);
    }
    // Each had its own copy of the shared mapping, although the other has written to its own by now.
    ensure!(text(&second, "shared") == "share", "shared memory is shared between clones");
    ask(&mut one, "open('/tmp/mine', 'w').write('x')")?;
    ensure!(
        ask(&mut other, "os.path.exists('/tmp/mine')")? == Value::Bool(false),
        "/tmp is shared between clones"
    );
    Ok(())
}

fn a_thousand_restores_all_answer() -> Result<()> {
    let mut driver = start()?;
    let snapshot = driver.snapshot("many", &[])?;
    driver.ask(Command::Prepare { snapshot: snapshot.clone() })??;
    let mut times = Vec::new();
    for _ in 0..1000 {
        while driver.ready.is_empty() {
            driver.hear()?;
        }
        let start = Instant::now();
        let mut clone = driver.restore(&snapshot)?;
        ensure!(ask(&mut clone, "ping")? == "pong", "a wrong answer");
        times.push(start.elapsed());
        driver.ask(Command::Kill { sandbox: clone.sandbox })??;
    }
    times.sort();
    println!("restore to answer: median {:?}, p99 {:?}, least {:?}", times[500], times[990], times[0]);
    Ok(())
}

fn a_standby_clone_waits_and_is_its_own() -> Result<()> {
    let mut driver = start()?;
    let snapshot = driver.snapshot("standby", &[])?;
    let mut first = driver.restore(&snapshot)?;
    while driver.standbys.is_empty() {
        driver.hear()?;
    }
    let parked = driver.standbys.remove(0);
    let mut second = driver.restore_into(parked, &snapshot)?;
    let (one, other) = (ask(&mut first, "probe")?, ask(&mut second, "probe")?);
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
    let mut driver = start()?;
    let snapshot = driver.snapshot("large", &[("HEAP_MIB", "300")])?;
    let start = Instant::now();
    driver.ask(Command::Prepare { snapshot: snapshot.clone() })??;
    println!("template of 300 MiB: {:?}", start.elapsed());
    let start = Instant::now();
    let mut clone = driver.restore(&snapshot)?;
    ensure!(ask(&mut clone, "ping")? == "pong", "a wrong answer");
    println!("restore of 300 MiB: {:?}", start.elapsed());
    ensure!(
        ask(&mut clone, "hashlib.sha256(HEAP).hexdigest() == HEAP_DIGEST")? == Value::Bool(true),
        "the heap differs"
    );
    Ok(())
}

fn a_damaged_snapshot_is_refused() -> Result<()> {
    let mut driver = start()?;
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

fn a_child_process_comes_back() -> Result<()> {
    let mut driver = start()?;
    let (mut environment, pending_port) = driver.init(&[])?;
    let spawn = "subprocess.Popen(['/bin/cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)";
    ask(&mut environment, &format!("globals().__setitem__('child', {spawn})"))?;
    let snapshot = driver.checkpoint("child", environment, pending_port)?;
    for _ in 0..2 {
        let mut clone = driver.restore(&snapshot)?;
        let exchange = "(child.communicate(b'still there')[0].decode(), child.wait())";
        ensure!(
            ask(&mut clone, exchange)? == serde_json::json!(["still there", 0]),
            "the child is not whole"
        );
    }
    Ok(())
}

fn the_end_of_a_clone_is_reported() -> Result<()> {
    let mut driver = start()?;
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
