//! Standby environments: clones made ahead, and parked before their release, for versions that are in use.
//!
//! Everything of a restore that takes time is behind such a clone: fork, copies of the pages that a first request
//! writes, threads, reseeding. There is one for each snapshot that was restored lately, it is made when nothing else is
//! to be done, and it goes when nobody asks for it. It belongs to no pool: the API role is told which snapshot it is
//! for, so it is never taken for another one.

use std::time::{Duration, Instant};

use sandbox::{Sandbox, Starting};

use super::templates::Release;
use super::{Exit, Held, Parked, Purpose, Role, hold};
use crate::protocol::{Event, Lease, RootSpec, SandboxId, SnapshotId};

/// Standby environments of all snapshots together.
const STANDBYS_MAX: usize = 8;
/// How long a standby environment waits for its request.
const STANDBY_MAX: Duration = Duration::from_secs(60);

impl Role {
    /// Starts the sandbox of a standby clone, if one is wanted. True when there was something to do.
    pub(super) fn stand_by(&mut self) -> bool {
        let Some(snapshot) = self.wanted_standbys.pop_first() else { return false };
        let parked = self.sandboxes.values().filter(|held| held.parked.is_some());
        let there = |held: &Held| held.snapshot.as_ref() == Some(&snapshot);
        let starting = |(_, purpose): &(Starting, Purpose)| matches!(purpose, Purpose::Standby(_, wanted, _) if *wanted == snapshot);
        if parked.clone().count() >= STANDBYS_MAX
            || parked.clone().any(there)
            || self.starting.values().any(starting)
        {
            return true;
        }
        let used = self
            .sandboxes
            .values()
            .find(|held| there(held))
            .and_then(|held| Some((held.root.clone(), held.lease.clone()?)));
        let Some((root, lease)) = used else { return true };
        let purpose = Purpose::Standby(root.clone(), snapshot, lease);
        if let Err(failure) = self.start(&root, purpose) {
            tracing::warn!("a standby environment cannot be made: {failure}");
        }
        true
    }

    pub(super) fn park(
        &mut self,
        number: u64,
        sandbox: Sandbox,
        root: RootSpec,
        snapshot: SnapshotId,
        lease: Lease,
    ) {
        let Some((mut held, ends)) = hold(number, sandbox, root) else { return };
        // From the start, so that a kill does not take it for one of a pool.
        held.lease = Some(lease.clone());
        self.sandboxes.insert(number, held);
        match self.clone_for(number, &lease, &snapshot, Release::Told) {
            Ok((release, main_tid)) => {
                if let Some(held) = self.sandboxes.get_mut(&number) {
                    held.parked = Some(Parked { release, since: Instant::now() });
                    self.announce(number, &self.sandboxes[&number].root, Some(snapshot), &ends);
                }
                self.watch_clone(number, main_tid);
            }
            Err(failure) => {
                tracing::warn!(snapshot = snapshot.0, "a standby environment cannot be made: {failure}");
                self.kill(number);
            }
        }
    }

    /// Takes down standby environments that nobody has asked for in a while, or all of a snapshot.
    pub(super) fn stand_down(&mut self, snapshot: Option<&SnapshotId>) {
        let old = |parked: &Parked| parked.since.elapsed() > STANDBY_MAX;
        let meant = |held: &Held| {
            let parked = held.parked.as_ref()?;
            let deleted = snapshot.is_some() && held.snapshot.as_ref() == snapshot;
            (deleted || old(parked)).then_some(())
        };
        let numbers: Vec<u64> =
            self.sandboxes.iter().filter_map(|(number, held)| meant(held).map(|()| *number)).collect();
        for number in numbers {
            let exit = Exit::Signal(rustix::process::Signal::KILL.as_raw());
            self.event(Event::Exited { sandbox: SandboxId(number), exit, out_of_memory: false }, &[]);
            self.kill(number);
        }
    }
}
