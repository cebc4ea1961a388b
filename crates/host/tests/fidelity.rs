//! The fidelity table: every item that a process can hold, restored once, into two clones, and over five generations.
//!
//! The items are programs that check themselves (`crates/engine/tests/guests`). Each runs in a sandbox, is checkpointed
//! while it waits for its next command, and is asked after every restore whether all is as it was. What an engine may
//! refuse by name is counted as refused, with its reason printed.
//!
//! Without a test harness: the host role must have one thread, so it is this binary started again.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/guest.rs"]
mod guest;

use std::path::Path;
use std::process::Command as Process;

use anyhow::{Context, Result, ensure};
use driver::{Case, Driver, Environment, become_role, run_cases};
use host::protocol::Command;

/// How often a clone is checkpointed and restored again.
const GENERATIONS: usize = 5;

fn main() {
    become_role();
    if !rustix::process::geteuid().is_root() {
        eprintln!("\nNOT RUN: the fidelity table: it needs root\n");
        println!("test result: ok. 0 passed; 0 failed; 1 ignored");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let guest = match guest::build(directory.path()) {
        Ok(guest) => guest,
        Err(error) => {
            eprintln!("\nNOT RUN: the fidelity table: {error:#}\n");
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored");
            std::process::exit(1);
        }
    };
    let program = std::fs::read(&guest).expect("the guest was built");
    let refusable = list(&guest, "--list-refusable");
    let cases: Vec<Case> = list(&guest, "--list")
        .into_iter()
        .map(|item| {
            let may_refuse = refusable.contains(&item);
            let program = program.clone();
            let case = {
                let item = item.clone();
                move || row(&program, &item, may_refuse)
            };
            (item, Box::new(case) as Box<dyn Fn() -> Result<()>>)
        })
        .collect();
    run_cases(&cases);
}

fn list(guest: &Path, which: &str) -> Vec<String> {
    let output = Process::new(guest).arg(which).output().expect("the guest lists its items");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// One row of the table.
fn row(program: &[u8], item: &str, may_refuse: bool) -> Result<()> {
    let mut driver = Driver::start(("guest", program), &["/var/task/guest", item])?;
    let (environment, pending_port) = match driver.init(&[("GUEST_CONNECT", "127.0.0.1:9001")]) {
        Ok(started) => started,
        Err(error) if error.to_string().contains("skip: ") => {
            println!("     {item}: not run here: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let snapshot = match driver.checkpoint("first", environment, pending_port) {
        Ok(snapshot) => snapshot,
        Err(error) if is_refusal(&error) && may_refuse => {
            println!("     {item}: refused: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut one = driver.restore(&snapshot).context("restore once")?;
    check(&mut one).context("restored once")?;
    let mut other = driver.restore(&snapshot).context("restore a second time")?;
    check(&mut other).context("the second clone")?;
    check(&mut one).context("the first clone, with a second one beside it")?;
    let (first, second) = (one.ask("unique")?, other.ask("unique")?);
    ensure!(first == "-" || first != second, "two clones share {first}");
    driver.ask(Command::Kill { sandbox: other.sandbox })??;
    let mut environment = one;
    for generation in 2..=GENERATIONS {
        let port = environment.pending_port()?;
        let snapshot = match driver.checkpoint(&format!("generation{generation}"), environment, port) {
            Ok(snapshot) => snapshot,
            // Files under an overlay have lost what they are found by.
            Err(error) if is_refusal(&error) => {
                println!("     {item}: refused in generation {generation}: {error}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        environment =
            driver.restore(&snapshot).with_context(|| format!("restore generation {generation}"))?;
        check(&mut environment).with_context(|| format!("generation {generation}"))?;
    }
    Ok(())
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.to_string().contains("cannot be saved in a snapshot")
}

fn check(environment: &mut Environment) -> Result<()> {
    let answer = environment.ask("check")?;
    ensure!(answer == "ok", "{answer}");
    Ok(())
}
