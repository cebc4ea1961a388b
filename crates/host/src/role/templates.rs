//! Restores: templates that are made when they are needed, those who wait for them, and clones of them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use linux::channel::Channel;
use rustix::pipe::PipeFlags;
use sandbox::Sandbox;

use super::{FILES, Held, Outcome, Purpose, Role, TEMPLATES_MAX, Task, TemplateState, Waiting, lease_of};
use crate::protocol::{Answer, Failure, Lease, SnapshotId};
use crate::snapshot::{self, internal};
use crate::template::{self, Made, Standing, unusable};
use crate::watch::Source;
use crate::worker::Worker;

impl Role {
    /// Serves `waiting` from the snapshot's template, which is made if there is none.
    pub(super) fn with_template(&mut self, snapshot: SnapshotId, waiting: Waiting) -> Option<Outcome> {
        match self.templates.get_mut(&snapshot) {
            Some(TemplateState::Standing { .. }) => {
                self.serve_waiting(&snapshot, &waiting);
                None
            }
            Some(TemplateState::Coming(queue)) => {
                queue.push(waiting);
                None
            }
            None => match self.start_template(&snapshot) {
                Ok(()) => {
                    self.templates.insert(snapshot, TemplateState::Coming(vec![waiting]));
                    None
                }
                Err(failure) => {
                    self.forget(&waiting);
                    Some(Err(failure))
                }
            },
        }
    }

    pub(super) fn start_template(&mut self, snapshot: &SnapshotId) -> Result<(), Failure> {
        let origin = snapshot::origin(&self.store, snapshot)?;
        self.start(&origin.root, Purpose::Template(snapshot.clone(), origin.lease))
    }

    pub(super) fn make_template(&mut self, snapshot: SnapshotId, mut home: Sandbox, lease: &Lease) {
        let files = self.config.data_dir.join(FILES).join(&snapshot.0);
        let made =
            home.lease(&lease_of(lease, None, None)).map_err(|error| internal(&error)).and_then(|_| {
                let (control, inner) = Channel::pair().map_err(|error| internal(&error))?;
                let store = self.store.clone();
                let (name, place) = (snapshot.clone(), files.clone());
                let work = || template::make(&store, &name, &home, (&control, inner.as_fd()), &place);
                let worker = Worker::start(work).map_err(|error| internal(&error))?;
                Ok((worker, control))
            });
        match made {
            Ok((worker, control)) => {
                let home = Box::new(home);
                let task = Task::Template { snapshot: snapshot.clone(), control, home, files };
                if let Err(failure) = self.work(worker, task) {
                    self.settle(&snapshot, Err(failure));
                }
            }
            Err(failure) => {
                home.kill(&mut self.reaper);
                self.settle(&snapshot, Err(failure));
            }
        }
    }

    pub(super) fn template_made(
        &mut self,
        snapshot: &SnapshotId,
        made: Result<Made, Failure>,
        control: Channel,
        home: Box<Sandbox>,
        files: PathBuf,
    ) {
        let standing = match made {
            Ok(made) => Standing::new(made, control, home, files),
            Err(failure) => Err((failure, home)),
        };
        match standing {
            Ok(standing) => {
                self.evict();
                self.settle(snapshot, Ok(standing));
            }
            Err((failure, home)) => {
                home.kill(&mut self.reaper);
                // What was to become the template is a child of this process and has ended. Children that others wait
                // for may be among those reaped here: they ask by pidfd, which tells of an end all the same.
                while let Ok(Some(_)) = linux::process::reap_any() {}
                self.settle(snapshot, Err(failure));
            }
        }
    }

    /// Answers everybody who waited for a template.
    pub(super) fn settle(&mut self, snapshot: &SnapshotId, outcome: Result<Standing, Failure>) {
        let Some(TemplateState::Coming(queue)) = self.templates.remove(snapshot) else {
            // It was deleted meanwhile.
            if let Ok(standing) = outcome {
                standing.end().kill(&mut self.reaper);
            }
            return;
        };
        let failure = match outcome {
            Ok(standing) => {
                let number = self.number();
                if let Err(error) = self.watch.add(Source::Template(number), standing.control()) {
                    tracing::warn!(%error, "the end of a template will not be noticed at once");
                }
                let state = TemplateState::Standing { number, standing: Box::new(standing) };
                self.templates.insert(snapshot.clone(), state);
                None
            }
            Err(failure) => Some(failure),
        };
        for waiting in queue {
            match &failure {
                None => self.serve_waiting(snapshot, &waiting),
                Some(failure) => {
                    self.forget(&waiting);
                    let (Waiting::Prepare { request } | Waiting::Restore { request, .. }) = waiting;
                    self.reply(request, Err(failure.clone()));
                }
            }
        }
    }

    /// A sandbox that was meant for a restore which does not take place is not in its pool any more.
    pub(super) fn forget(&mut self, waiting: &Waiting) {
        if let Waiting::Restore { sandbox, lease, .. } = waiting
            && let Some(held) = self.sandboxes.get_mut(sandbox)
        {
            held.lease = Some(lease.clone());
            let root = held.root.clone();
            self.pools.taken(&root);
        }
    }

    /// Answers a request whose template stands.
    pub(super) fn serve_waiting(&mut self, snapshot: &SnapshotId, waiting: &Waiting) {
        match waiting {
            Waiting::Prepare { request } => self.reply(*request, Ok(Answer::Done)),
            Waiting::Restore { request, sandbox, lease, since } => {
                let outcome = self.restore(*sandbox, lease, snapshot);
                if let Err(failure) = &outcome {
                    tracing::error!(snapshot = snapshot.0, sandbox, "restore failed: {failure}");
                }
                let main_tid = outcome.as_ref().ok().copied().flatten();
                let restore_us = since.elapsed().as_micros() as u64;
                self.reply(*request, outcome.map(|_| Answer::Restored { restore_us }));
                if let Some(main_tid) = main_tid {
                    self.watch_clone(*sandbox, main_tid);
                }
            }
        }
    }

    /// Has the sandbox report the end of its clone. Nobody waits for this: init remembers an earlier end.
    pub(super) fn watch_clone(&mut self, number: u64, main_tid: i32) {
        let Some(held) = self.sandboxes.get_mut(&number) else { return };
        if let Err(error) = held.sandbox.watch(main_tid, None) {
            tracing::error!(%error, sandbox = number, "the end of an environment will not be noticed");
        }
        self.reports(number);
    }

    /// Gives the number of the clone's main thread inside its sandbox, unless that is watched already.
    pub(super) fn restore(
        &mut self,
        number: u64,
        lease: &Lease,
        snapshot: &SnapshotId,
    ) -> Result<Option<i32>, Failure> {
        self.last_start = Instant::now();
        self.wanted_standbys.insert(snapshot.clone());
        if let Some(parked) = self.held(number)?.parked.take() {
            let_go(&parked.release)?;
            return Ok(None);
        }
        let root = self.held(number)?.root.clone();
        self.pools.taken(&root);
        let (_, main_tid) = self.clone_for(number, lease, snapshot, Release::Ahead)?;
        Ok(Some(main_tid))
    }

    /// Makes a clone in a sandbox that was not used yet, up to its release.
    pub(super) fn clone_for(
        &mut self,
        number: u64,
        lease: &Lease,
        snapshot: &SnapshotId,
        when: Release,
    ) -> Result<(OwnedFd, i32), Failure> {
        let Some(TemplateState::Standing { standing, .. }) = self.templates.get_mut(snapshot) else {
            return Err(unusable(&format!("the template of {} has died", snapshot.0)));
        };
        let Some(held) = self.sandboxes.get_mut(&number) else {
            return Err(internal(&format!("sandbox {number} is gone")));
        };
        held.lease = Some(lease.clone());
        held.snapshot = Some(snapshot.clone());
        match clone_into(standing, held, lease, when) {
            Ok(release) => Ok((release, standing.main_tid())),
            Err(failure) => {
                // Whether the template itself is whole after a failure is not known; making it anew is cheap.
                if !self.config.keep_failed {
                    self.drop_template(snapshot);
                }
                Err(failure)
            }
        }
    }

    /// Has the template of a clone that stands still after its first request learn from it.
    pub(super) fn learn(&mut self, number: u64) {
        let Some(held) = self.sandboxes.get(&number) else { return };
        let Some(snapshot) = &held.snapshot else { return };
        let Some(TemplateState::Standing { standing, .. }) = self.templates.get_mut(snapshot) else { return };
        // Asked first: listing processes reads files, and every freeze comes by here.
        if standing.has_learned() {
            return;
        }
        if let Some(clone) = held.sandbox.processes().first() {
            standing.learn(*clone);
        }
    }

    pub(super) fn template_died(&mut self, number: u64) {
        let dead = self.templates.iter().find_map(|(snapshot, state)| match state {
            TemplateState::Standing { number: own, .. } if *own == number => Some(snapshot.clone()),
            _ => None,
        });
        if let Some(snapshot) = dead {
            tracing::warn!(
                snapshot = snapshot.0,
                "the template has died; it is made again when it is needed"
            );
            self.drop_template(&snapshot);
        }
    }

    pub(super) fn drop_template(&mut self, snapshot: &SnapshotId) {
        match self.templates.remove(snapshot) {
            Some(TemplateState::Standing { standing, .. }) => {
                self.watch.remove(standing.control());
                standing.end().kill(&mut self.reaper);
            }
            // Those who wait for it hear of it when its worker ends.
            Some(coming @ TemplateState::Coming(_)) => {
                self.templates.insert(snapshot.clone(), coming);
            }
            None => {}
        }
    }

    pub(super) fn evict(&mut self) {
        let standing = self.templates.iter().filter_map(|(snapshot, state)| match state {
            TemplateState::Standing { standing, .. } => Some((standing.used, snapshot)),
            TemplateState::Coming(_) => None,
        });
        let standing: Vec<_> = standing.collect();
        if standing.len() >= TEMPLATES_MAX
            && let Some((_, oldest)) = standing.iter().min()
        {
            let oldest = (*oldest).clone();
            self.drop_template(&oldest);
        }
    }
}

/// When a clone may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// As soon as it is whole, without being told.
    Ahead,
    /// When it is told.
    Told,
}

/// Leases the sandbox, hands it to the template and waits until the clone is ready to go. Gives what lets it go.
fn clone_into(
    standing: &mut Standing,
    held: &mut Held,
    lease: &Lease,
    when: Release,
) -> Result<OwnedFd, Failure> {
    let start = Instant::now();
    let wanted = lease_of(lease, standing.files(), Some(standing.clock()));
    let grant = held.sandbox.lease(&wanted).map_err(|error| internal(&error))?;
    held.sandbox.set_memory_limit(lease.memory_mib).map_err(|error| internal(&error))?;
    let time = grant.time_namespace.ok_or_else(|| internal(&"the sandbox gave no time namespace"))?;
    let used = || internal(&"the sandbox was used before");
    let ends = held.sandbox.take_environment_ends().ok_or_else(used)?;
    let (wait, release) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| internal(&error))?;
    if when == Release::Ahead {
        let_go(&release)?;
    }
    let mut descriptors = vec![
        held.sandbox.pidfd(),
        time.as_fd(),
        ends.stdout.as_fd(),
        ends.stderr.as_fd(),
        ends.connection.as_fd(),
        wait.as_fd(),
        // The place of a standard input: that of a function is a file, so nothing refers to it.
        wait.as_fd(),
    ];
    descriptors.extend(held.joins.iter().map(AsFd::as_fd));
    let leased = start.elapsed();
    standing.clone_into(&descriptors).map_err(|error| unusable(&error))?;
    tracing::debug!(
        lease_us = leased.as_micros(),
        clone_us = (start.elapsed() - leased).as_micros(),
        "cloned"
    );
    Ok(release)
}

/// Lets a clone go that waits.
fn let_go(release: &OwnedFd) -> Result<(), Failure> {
    rustix::io::write(release, &[1]).map_err(|error| unusable(&error))?;
    Ok(())
}
