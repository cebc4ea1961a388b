//! Checkpoints that strike at random moments: a program that does everything at once, for many rounds.
//!
//! A round is one checkpoint of a program in full motion, and one or two restores of it. After each the program looks at
//! every checksum, counter and queue (`crates/engine/tests/guests/stress.c`). The program that was checkpointed goes on
//! and is asked as well, then it is killed and a clone takes its place. What the engine may refuse of a moment is counted
//! and tried again. Every life of some rounds has a seed of its own.
//!
//! `REKINDLE_STRESS_ROUNDS` says how many rounds; without it, as many as fit into [`SHORT`]. `REKINDLE_STRESS_SEED` sets
//! the first seed: moments still differ from run to run.
//!
//! Without a test harness: the host role must have one thread, so it is this binary started again.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/guest.rs"]
mod guest;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use driver::{Driver, Environment, become_role};
use host::protocol::{Command, Failure, FailureKind, SnapshotId};

/// How long the rounds take where no number of them is given.
const SHORT: Duration = Duration::from_secs(25);
/// Rounds of one life.
const GENERATIONS: u64 = 12;
/// The longest time that a program runs on before a checkpoint strikes, in microseconds.
const RUN_MAX_US: u64 = 20_000;
/// How often a refused checkpoint is tried again.
const TRIES_MAX: u32 = 50;
/// How often a restore that was not ready in time is tried again, and how it says so: the template's limit of time, and
/// that of a process that waits for the go-between's end.
const RESTORES_MAX: u32 = 5;
const LATE: [&str; 2] = ["has not reported within", "getppid("];
/// What a clone whose template is gone is refused with.
const ORPHANED: &str = "not found by that name";
/// Longer than the guest itself waits for what does not come, so that it can tell.
const PATIENCE: Duration = Duration::from_secs(60);
/// Failures after which nothing new is learned.
const FAILURES_MAX: usize = 10;

fn main() {
    become_role();
    if !rustix::process::geteuid().is_root() {
        eprintln!("\nNOT RUN: the random program: it needs root\n");
        println!("test result: ok. 0 passed; 0 failed; 1 ignored");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let program = match guest::build(directory.path()) {
        Ok(guest) => std::fs::read(guest).expect("the guest was built"),
        Err(error) => {
            eprintln!("\nNOT RUN: the random program: {error:#}\n");
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored");
            std::process::exit(1);
        }
    };
    let failures = rounds(&program);
    let verdict = if failures == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failures} failed; 0 ignored", u32::from(failures == 0));
    if failures > 0 {
        std::process::exit(1);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// What happened so far.
#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    restores: u64,
    /// Lives that ended early because a template had to be made anew: its clones cannot be checkpointed any more.
    orphaned: u64,
    /// Moments that were refused and restores that came too late, by reason.
    refused: BTreeMap<String, u64>,
}

/// Lives one after the other; gives how many have failed.
fn rounds(program: &[u8]) -> usize {
    let wanted = number("REKINDLE_STRESS_ROUNDS");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let first = number("REKINDLE_STRESS_SEED").unwrap_or(now);
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut failures = 0;
    let goes_on = |tally: &Tally| match wanted {
        Some(wanted) => tally.rounds < wanted,
        None => start.elapsed() < SHORT,
    };
    println!("stress: the first seed is {first}");
    for seed in first.. {
        if !goes_on(&tally) || failures >= FAILURES_MAX {
            break;
        }
        if let Err(error) = life(program, seed, &mut tally, &goes_on) {
            failures += 1;
            println!("stress: seed {seed}, round {}: {error:#}\n", tally.rounds);
        }
    }
    let Tally { rounds, restores, orphaned, refused } = tally;
    println!(
        "stress: {rounds} rounds, {restores} restores, {orphaned} orphans, {failures} failures in {:?}",
        start.elapsed()
    );
    for (reason, count) in refused {
        println!("stress: {count} times tried again: {reason}");
    }
    failures
}

/// One life of a program: initialized once, then checkpointed and restored again and again.
fn life(program: &[u8], seed: u64, tally: &mut Tally, goes_on: &dyn Fn(&Tally) -> bool) -> Result<()> {
    let mut random = Random(seed);
    let mut driver = Driver::start(("guest", program), &["/var/task/guest", "stress"])?;
    let text = seed.to_string();
    let (mut environment, _) = driver.init(&[("GUEST_CONNECT", "127.0.0.1:9001"), ("GUEST_SEED", &text)])?;
    check(&mut environment).context("before any checkpoint")?;
    for generation in 1..=GENERATIONS {
        tally.rounds += 1;
        let round = round(&mut driver, environment, generation, &mut random, tally);
        environment = match round.with_context(|| format!("generation {generation}")) {
            Ok(Some(next)) => next,
            Ok(None) => {
                tally.orphaned += 1;
                break;
            }
            Err(error) => {
                let _ = std::fs::write(format!("/tmp/stress-{seed}.threads"), threads_below(driver.role()));
                return Err(error).with_context(|| format!("exits: {:?}", driver.exits));
            }
        };
        if !goes_on(tally) {
            break;
        }
    }
    Ok(())
}

/// One checkpoint and the restores of it. Gives a clone, unless the original is an orphan.
fn round(
    driver: &mut Driver,
    mut original: Environment,
    generation: u64,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<Option<Environment>> {
    let snapshot = SnapshotId(format!("generation{generation}"));
    if !strike(driver, &original, &snapshot, random, tally)? {
        return Ok(None);
    }
    if random.below(2) == 0 {
        check(&mut original).context("the original, after its checkpoint")?;
    }
    driver.ask(Command::Kill { sandbox: original.sandbox })??;
    let mut clone = restore(driver, &snapshot, tally)?;
    if random.below(4) == 0 {
        let mut other = restore(driver, &snapshot, tally)?;
        check(&mut other).context("the second clone")?;
        driver.ask(Command::Kill { sandbox: other.sandbox })??;
    }
    // Sometimes the next checkpoint strikes a clone that has not been asked anything.
    if random.below(4) > 0 {
        check(&mut clone).context("the clone")?;
    }
    // Its snapshot stays until the end, and its template with it.
    Ok(Some(clone))
}

/// Checkpoints at a random moment, and again where that moment was refused. False when it is an orphan.
fn strike(
    driver: &mut Driver,
    environment: &Environment,
    snapshot: &SnapshotId,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<bool> {
    let pending_port = environment.pending_port()?;
    for _ in 0..TRIES_MAX {
        std::thread::sleep(Duration::from_micros(random.below(RUN_MAX_US)));
        let sandbox = environment.sandbox;
        match driver.ask(Command::Checkpoint { sandbox, snapshot: snapshot.clone(), pending_port })? {
            Ok(_) => return Ok(true),
            Err(failure) if failure.message.contains(ORPHANED) => return Ok(false),
            Err(failure) if failure.kind == FailureKind::Unsupported => {
                *tally.refused.entry(reason(&failure)).or_default() += 1;
            }
            Err(failure) => return Err(failure).context("checkpoint"),
        }
    }
    bail!("every one of {TRIES_MAX} moments was refused")
}

/// Restores. On a host that is too busy a clone may not be ready in time, which takes nothing from the snapshot: that is
/// counted and tried again.
fn restore(driver: &mut Driver, snapshot: &SnapshotId, tally: &mut Tally) -> Result<Environment> {
    for _ in 0..RESTORES_MAX {
        let parked = driver.standbys.iter().position(|standby| standby.snapshot.as_ref() == Some(snapshot));
        let ready = match parked {
            Some(index) => driver.standbys.remove(index),
            None => driver.take_ready()?,
        };
        let (sandbox, lease) = (ready.sandbox, driver.lease());
        match driver.ask(Command::Restore { sandbox, lease, snapshot: snapshot.clone() })? {
            Ok(_) => {
                tally.restores += 1;
                return ready.environment();
            }
            Err(failure) if LATE.iter().any(|late| failure.message.contains(late)) => {
                *tally.refused.entry(reason(&failure)).or_default() += 1;
                driver.ask(Command::Kill { sandbox })??;
            }
            Err(failure) => return Err(failure).context("restore"),
        }
    }
    bail!("none of {RESTORES_MAX} restores was ready in time")
}

/// A message without its numbers, which tell moments apart and not reasons.
fn reason(failure: &Failure) -> String {
    failure.message.replace(|letter: char| letter.is_ascii_digit(), "")
}

fn check(environment: &mut Environment) -> Result<()> {
    environment.connection.get_ref().set_read_timeout(Some(PATIENCE))?;
    let answer = environment.ask("check")?;
    ensure!(answer == "ok", "{answer}");
    Ok(())
}

/// Where the threads of every process below `role` are: for what hangs.
fn threads_below(role: u32) -> String {
    use std::fmt::Write;
    let mut shown = String::new();
    let mut processes = vec![role];
    while let Some(process) = processes.pop() {
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            processes.extend(read("children").split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            let status = read("status");
            let of =
                |field| status.lines().find_map(|line: &str| line.strip_prefix(field)).unwrap_or_default();
            let (name, state) = (of("Name:"), of("State:"));
            let (stack, call) = (read("stack"), read("syscall"));
            let top = stack.lines().next().unwrap_or_default();
            let _ = writeln!(shown, "{process} {name} {state} {top} {}", call.trim());
        }
    }
    shown
}

/// A small generator (SplitMix64), so that a run can be told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
