//! Many clones: all asked for at once, or all there at once.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Result, bail};
use host::protocol::{Answer, Command};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::driver::{Driver, Environment};
use crate::facts;
use crate::report::{Burst, Idle, Program};
use crate::subject::{environment_of, micros, start_role};

/// How long nothing may happen in a burst.
const SILENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Sandboxes wait ready and the template stands; then `count` restores are asked for in a row, each with a request.
pub fn burst(program: &Program, count: usize) -> Result<Burst> {
    let mut driver = start_role(program)?;
    let kind = program.kinds.first().map_or("", String::as_str);
    let snapshot = driver.snapshot("burst", &environment_of(program))?;
    let mut first = driver.restore(&snapshot)?;
    first.ask(kind)?;
    driver.ask(Command::Freeze { sandbox: first.sandbox })??;
    driver.ask(Command::Kill { sandbox: first.sandbox })??;
    driver.pool(count as u32)?;
    while driver.ready.len() < count {
        driver.hear()?;
    }
    let waiting: Vec<_> = driver.ready.drain(..count).collect();
    // The pool is not refilled while the burst is measured.
    driver.pool(0)?;
    let lease = driver.lease();
    let mut environments = Vec::new();
    let start = Instant::now();
    for ready in waiting {
        (&ready.connection).write_all(format!("{kind}\n").as_bytes())?;
        let (sandbox, snapshot) = (ready.sandbox, snapshot.clone());
        driver.post(Command::Restore { sandbox, lease: lease.clone(), snapshot })?;
        environments.push(Some(ready.environment()?));
    }
    let mut burst = Burst { count, ..Burst::default() };
    let mut done = Vec::new();
    while burst.answers_us.len() + burst.failures.len() < count {
        collect(&mut driver, &mut environments, &mut done, start, &mut burst)?;
    }
    Ok(burst)
}

/// Takes what has come: answers of environments, replies of the role.
fn collect(
    driver: &mut Driver,
    environments: &mut [Option<Environment>],
    done: &mut Vec<Environment>,
    start: Instant,
    burst: &mut Burst,
) -> Result<()> {
    let waiting: Vec<usize> =
        (0..environments.len()).filter(|index| environments[*index].is_some()).collect();
    let mut entries = vec![PollFd::from_borrowed_fd(driver.channel(), PollFlags::IN)];
    let sockets = waiting.iter().filter_map(|index| environments[*index].as_ref());
    entries
        .extend(sockets.map(|one| PollFd::from_borrowed_fd(one.connection.get_ref().as_fd(), PollFlags::IN)));
    if poll(&mut entries, Some(&SILENCE))? == 0 {
        bail!("{} of {} environments gave no answer", waiting.len(), burst.count);
    }
    let spoke: Vec<bool> = entries.iter().map(|entry| !entry.revents().is_empty()).collect();
    for (index, _) in waiting.iter().zip(&spoke[1..]).filter(|(_, spoke)| **spoke) {
        let Some(mut environment) = environments[*index].take() else { continue };
        match environment.line() {
            Ok(_) => burst.answers_us.push(micros(start)),
            Err(error) => burst.failures.push(format!("{error:#}")),
        }
        done.push(environment);
    }
    if spoke[0]
        && let Some(reply) = driver.hear()?
        && let Err(failure) = reply.result
    {
        burst.failures.push(failure.message);
    }
    Ok(())
}

/// Restores clones, one after the other, until there are `count` that have answered once and wait.
pub fn idle(program: &Program, count: usize) -> Result<Idle> {
    let mut driver = start_role(program)?;
    let kind = program.kinds.first().map_or("", String::as_str);
    let snapshot = driver.snapshot("idle", &environment_of(program))?;
    driver.ask(Command::Prepare { snapshot: snapshot.clone() })??;
    let before = facts::available()?;
    let start = Instant::now();
    let mut clones = Vec::new();
    let mut idle = Idle { wanted: count, ..Idle::default() };
    while clones.len() < count && idle.stopped_by.is_none() {
        let clone = driver.restore(&snapshot).and_then(|mut clone| {
            clone.ask(kind)?;
            Ok(clone)
        });
        match clone {
            Ok(clone) => clones.push(clone),
            Err(error) => idle.stopped_by = Some(format!("{error:#}")),
        }
        // As the server does between two requests of an environment.
        if let Some(clone) = clones.last() {
            let Answer::Done = driver.ask(Command::Freeze { sandbox: clone.sandbox })?? else {
                bail!("an answer that does not fit");
            };
        }
    }
    idle.took_us = micros(start);
    idle.count = clones.len();
    idle.machine_bytes = before.saturating_sub(facts::available()?);
    for guest in facts::guests(driver.role())? {
        let Ok((private, resident, proportional)) = facts::memory(guest) else { continue };
        idle.private_bytes.push(private);
        idle.resident_bytes.push(resident);
        idle.proportional_bytes.push(proportional);
    }
    Ok(idle)
}
