//! One program under measurement: its role, its snapshots, its live process and the samples so far.
//!
//! Each kind of request has a snapshot of its own, whose write set was learned from that kind.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::protocol::{Answer, Command, RootSpec, SnapshotId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::criu::Runner;
use crate::driver::{Driver, Environment, POOL, Ready};
use crate::facts;
use crate::report::{Checkpoint, Kind, Program, Samples, Template};

/// Longer than whatever a role does after a restore.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// For what a killed environment leaves to be done.
const QUIET: Duration = Duration::from_millis(20);

pub struct Subject {
    program: Program,
    driver: Driver,
    live: Option<Environment>,
    snapshots: BTreeMap<String, SnapshotId>,
    standby: bool,
    samples: Samples,
}

/// A role for a program.
pub fn start_role(program: &Program) -> Result<Driver> {
    let directory = tempfile::tempdir()?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(directory.path(), private)?;
    let root =
        RootSpec { name: program.name.clone(), binds: program.binds.clone(), exposed_ports: Vec::new() };
    Driver::start_with(directory, root, program.task.clone(), program.memory_mib, program.argv.clone())
}

pub fn environment_of(program: &Program) -> Vec<(&str, &str)> {
    program.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Subject {
    pub fn start(program: &Program, standby: bool) -> Result<Self> {
        let samples = Samples { name: program.name.clone(), ..Samples::default() };
        let mut subject = Self {
            driver: start_role(program)?,
            program: program.clone(),
            live: None,
            snapshots: BTreeMap::new(),
            standby,
            samples,
        };
        for kind in &program.kinds {
            let snapshot = subject.snapshot(kind)?;
            subject.build_template(&snapshot)?;
            subject.learn(kind, &snapshot)?;
            subject.snapshots.insert(kind.clone(), snapshot);
        }
        if program.forks {
            subject.live = Some(subject.driver.init(&environment_of(program))?.0);
        }
        Ok(subject)
    }

    pub fn finish(self) -> Samples {
        self.samples
    }

    /// An init and its checkpoint.
    fn snapshot(&mut self, name: &str) -> Result<SnapshotId> {
        let before = facts::guests(self.driver.role())?;
        let (environment, pending_port) = self.driver.init(&environment_of(&self.program))?;
        let guest = facts::guests(self.driver.role())?.difference(&before).next().copied();
        // The program must have come to where it reads its next line.
        std::thread::sleep(QUIET);
        let nonzero_bytes = facts::nonzero_private_bytes(guest.context("no process of the guest")?)?;
        let snapshot = SnapshotId(name.to_owned());
        let sandbox = environment.sandbox;
        let start = Instant::now();
        let command = Command::Checkpoint { sandbox, snapshot: snapshot.clone(), pending_port };
        let Answer::Checkpointed(facts) = self.driver.ask(command)?? else {
            bail!("no facts of a checkpoint")
        };
        self.samples.checkpoints.push(Checkpoint {
            pause_us: facts.checkpoint_us,
            durable_us: micros(start),
            image_bytes: facts.image_bytes,
            stored_bytes: facts.stored_bytes,
            nonzero_bytes,
        });
        self.driver.ask(Command::Kill { sandbox })??;
        Ok(snapshot)
    }

    fn build_template(&mut self, snapshot: &SnapshotId) -> Result<()> {
        let image_bytes = self.samples.checkpoints.last().map_or(0, |checkpoint| checkpoint.image_bytes);
        let start = Instant::now();
        self.driver.ask(Command::Prepare { snapshot: snapshot.clone() })??;
        self.samples.templates.push(Template { image_bytes, took_us: micros(start) });
        Ok(())
    }

    /// The first request after a publish: the role learns from it when the environment is frozen.
    fn learn(&mut self, kind: &str, snapshot: &SnapshotId) -> Result<()> {
        let mut environment = self.driver.restore(snapshot)?;
        environment.ask(kind)?;
        self.driver.ask(Command::Freeze { sandbox: environment.sandbox })??;
        self.driver.ask(Command::Kill { sandbox: environment.sandbox })??;
        Ok(())
    }

    /// One sample of every row, and of a cold init if `cold`.
    pub fn round(&mut self, cold: bool, mut criu: Option<&mut Runner>) -> Result<()> {
        if cold {
            self.cold()?;
        }
        for kind in self.program.kinds.clone() {
            self.fork(&kind)?;
            if let Some(criu) = criu.as_mut().filter(|criu| criu.has(&self.program.name)) {
                let took_us = criu.restore(&self.program.name, &kind)?;
                self.row(&kind).criu_us.push(took_us);
            }
            self.restore(&kind)?;
            if self.standby {
                self.standby(&kind)?;
            }
        }
        Ok(())
    }

    /// More templates of a program for which that matters.
    pub fn build_templates(&mut self, count: usize) -> Result<()> {
        if !self.program.template {
            return Ok(());
        }
        for _ in 0..count {
            let snapshot = self.snapshot("again")?;
            self.build_template(&snapshot)?;
            self.driver.ask(Command::Delete { snapshot })??;
        }
        Ok(())
    }

    fn row(&mut self, kind: &str) -> &mut Kind {
        self.samples.kinds.entry(kind.to_owned()).or_default()
    }

    fn cold(&mut self) -> Result<()> {
        self.settle(None)?;
        let start = Instant::now();
        let (mut environment, _) = self.driver.init(&environment_of(&self.program))?;
        environment.ask(&self.program.kinds[0])?;
        self.samples.cold_us.push(micros(start));
        self.driver.ask(Command::Kill { sandbox: environment.sandbox })??;
        Ok(())
    }

    fn fork(&mut self, kind: &str) -> Result<()> {
        self.settle(None)?;
        let Some(live) = &mut self.live else { return Ok(()) };
        let start = Instant::now();
        live.ask(&format!("fork {kind}"))?;
        let took_us = micros(start);
        self.row(kind).fork_us.push(took_us);
        Ok(())
    }

    fn restore(&mut self, kind: &str) -> Result<()> {
        self.settle(None)?;
        let ready = self.driver.take_ready()?;
        let (environment, took_us, released_us) = self.timed(kind, ready)?;
        self.row(kind).restore_us.push(took_us);
        self.row(kind).released_us.push(released_us);
        if self.standby {
            // Only while an environment of the snapshot lives is a standby clone made.
            self.settle(Some(kind))?;
        }
        self.driver.ask(Command::Kill { sandbox: environment.sandbox })??;
        Ok(())
    }

    fn standby(&mut self, kind: &str) -> Result<()> {
        self.settle(Some(kind))?;
        let snapshot = self.snapshots.get(kind);
        let at = self.driver.standbys.iter().position(|ready| ready.snapshot.as_ref() == snapshot);
        let ready = self.driver.standbys.remove(at.context("no standby clone")?);
        let (environment, took_us, _) = self.timed(kind, ready)?;
        self.row(kind).standby_us.push(took_us);
        self.driver.ask(Command::Kill { sandbox: environment.sandbox })??;
        Ok(())
    }

    /// Restores and waits for the answer to a request that lies there already. Gives the time to the answer and the
    /// role's own to the release.
    fn timed(&mut self, kind: &str, ready: Ready) -> Result<(Environment, u64, u64)> {
        let snapshot = self.snapshots[kind].clone();
        let (sandbox, lease) = (ready.sandbox, self.driver.lease());
        (&ready.connection).write_all(format!("{kind}\n").as_bytes())?;
        let mut environment = ready.environment()?;
        let start = Instant::now();
        let id = self.driver.post(Command::Restore { sandbox, lease, snapshot })?;
        let answer = environment.line();
        let took_us = micros(start);
        let reply = loop {
            if let Some(reply) = self.driver.hear()? {
                break reply;
            }
        };
        ensure!(reply.id == id, "a reply to another request");
        let Answer::Restored { restore_us } = reply.result? else { bail!("an answer that does not fit") };
        answer?;
        Ok((environment, took_us, restore_us))
    }

    /// Waits until the pool is full, and until a standby clone of a kind's snapshot waits.
    fn settle(&mut self, kind: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let exits: Vec<_> = self.driver.exits.drain(..).map(|(sandbox, _)| sandbox).collect();
            self.driver.standbys.retain(|ready| !exits.contains(&ready.sandbox));
            let snapshot = kind.map(|kind| &self.snapshots[kind]);
            let stands = |ready: &Ready| ready.snapshot.as_ref() == snapshot;
            let standby = snapshot.is_none() || self.driver.standbys.iter().any(stands);
            let full = self.driver.ready.len() >= POOL as usize;
            let wait =
                if full && standby { QUIET } else { deadline.saturating_duration_since(Instant::now()) };
            let wait = Timespec::try_from(wait).context("a short time")?;
            let channel = self.driver.channel();
            let spoke = poll(&mut [PollFd::from_borrowed_fd(channel, PollFlags::IN)], Some(&wait))? > 0;
            match (spoke, full && standby) {
                (true, _) => drop(self.driver.hear()?),
                (false, true) => return Ok(()),
                (false, false) => bail!("{}: pool full: {full}, standby: {standby}", self.program.name),
            }
        }
    }
}

pub fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}
