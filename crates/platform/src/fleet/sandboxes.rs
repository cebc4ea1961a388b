//! The sandboxes that wait ready, as the API role sees them: one pool for each root file system.
//!
//! The host role keeps as many ready as it was told; this mirror says how many, hands them out and lets invocations
//! queue for the next one. How many depends on recent demand: [`Demand`] is the rule, pure.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use host::protocol::{Command, RootSpec, SandboxId, SnapshotId};
use tokio::sync::oneshot;

use crate::host_client::HostClient;
use crate::session::Session;

/// The period over which demand is counted.
const WINDOW: Duration = Duration::from_secs(10);

/// A sandbox that waits ready; its session is already served.
pub(super) struct ReadySandbox {
    pub(super) id: SandboxId,
    pub(super) session: Arc<Session>,
    /// The connection on which a restored runtime's pending call continues.
    pub(super) connection: OwnedFd,
    /// Read ends of its stdout and stderr.
    pub(super) pipes: [OwnedFd; 2],
}

/// Bounds on how many sandboxes wait ready in each pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) floor: u32,
    pub(super) ceiling: u32,
}

/// All pools.
pub(super) struct Sandboxes {
    host: HostClient,
    bounds: Bounds,
    wait_max: Duration,
    pools: Mutex<HashMap<Arc<RootSpec>, Pool>>,
    /// Sandboxes in which a clone of a snapshot waits already.
    standbys: Mutex<HashMap<SnapshotId, Vec<ReadySandbox>>>,
    /// The server stops, or the host role has ended: there will be no more sandboxes.
    closed: AtomicBool,
}

struct Pool {
    ready: VecDeque<ReadySandbox>,
    waiting: VecDeque<oneshot::Sender<Result<ReadySandbox, String>>>,
    demand: Demand,
    /// What the host role was told last.
    told: u32,
}

impl Sandboxes {
    pub(super) fn new(host: HostClient, bounds: Bounds, wait_max: Duration) -> Self {
        let closed = AtomicBool::new(false);
        Self { host, bounds, wait_max, pools: Mutex::default(), standbys: Mutex::default(), closed }
    }

    /// Makes sure that sandboxes of this root wait ready.
    pub(super) fn prepare(&self, root: &Arc<RootSpec>, now: Instant) {
        let mut pools = self.pools();
        let pool = self.pool(&mut pools, root, now);
        let target = pool.demand.target(now);
        self.tell(root, pool, target);
    }

    /// Takes a ready sandbox, best one in which a clone of `snapshot` waits already, or waits for one.
    ///
    /// # Errors
    /// Why there is none, for the log and the owner of the server.
    pub(super) async fn take(
        &self,
        root: &Arc<RootSpec>,
        snapshot: Option<&SnapshotId>,
    ) -> Result<ReadySandbox, String> {
        if let Some(standby) = snapshot.and_then(|snapshot| self.take_standby(snapshot)) {
            return Ok(standby);
        }
        let receiver = {
            let now = Instant::now();
            let mut pools = self.pools();
            if self.closed.load(Ordering::Relaxed) {
                return Err(closed(root));
            }
            let pool = self.pool(&mut pools, root, now);
            pool.demand.take(now);
            if let Some(ready) = pool.ready.pop_front() {
                return Ok(ready);
            }
            let target = pool.demand.target(now);
            self.tell(root, pool, target);
            let (sender, receiver) = oneshot::channel();
            pool.waiting.push_back(sender);
            receiver
        };
        match tokio::time::timeout(self.wait_max, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(closed(root)),
            Err(_) => Err(format!(
                "take a sandbox for {}: none became ready within {} seconds; see the log of the host role",
                root.name,
                self.wait_max.as_secs()
            )),
        }
    }

    fn take_standby(&self, snapshot: &SnapshotId) -> Option<ReadySandbox> {
        let mut standbys = self.standbys();
        let waiting = standbys.get_mut(snapshot)?;
        let standby = waiting.pop();
        if waiting.is_empty() {
            standbys.remove(snapshot);
        }
        standby
    }

    /// A clone of a snapshot waits in a sandbox. Comes back when the server stops.
    pub(super) fn offer_standby(&self, snapshot: SnapshotId, ready: ReadySandbox) -> Option<ReadySandbox> {
        if self.closed.load(Ordering::Relaxed) {
            return Some(ready);
        }
        self.standbys().entry(snapshot).or_default().push(ready);
        None
    }

    /// A sandbox became ready: it goes to whoever waits longest. Comes back when no one knows its pool.
    pub(super) fn offer(&self, root: &RootSpec, mut ready: ReadySandbox) -> Option<ReadySandbox> {
        let mut pools = self.pools();
        let Some(pool) = pools.get_mut(root) else { return Some(ready) };
        while let Some(waiting) = pool.waiting.pop_front() {
            match waiting.send(Ok(ready)) {
                Ok(()) => return None,
                Err(Ok(back)) => ready = back,
                Err(Err(_)) => return None,
            }
        }
        pool.ready.push_back(ready);
        None
    }

    /// No sandbox of this root can be made: whoever waits is told. The next to ask makes the host role try again.
    pub(super) fn failed(&self, root: &RootSpec, message: &str) {
        let mut pools = self.pools();
        let Some(pool) = pools.get_mut(root) else { return };
        pool.told = 0;
        for waiting in pool.waiting.drain(..) {
            let _ = waiting.send(Err(format!("make a sandbox for {}: {message}", root.name)));
        }
    }

    /// A ready sandbox is gone. False when it was not ready.
    pub(super) fn forget(&self, id: SandboxId) -> bool {
        self.standbys().retain(|_, waiting| {
            waiting.iter().filter(|ready| ready.id == id).for_each(|ready| ready.session.end());
            waiting.retain(|ready| ready.id != id);
            !waiting.is_empty()
        });
        let mut pools = self.pools();
        pools.values_mut().any(|pool| {
            let before = pool.ready.len();
            pool.ready.retain(|ready| {
                if ready.id == id {
                    ready.session.end();
                }
                ready.id != id
            });
            pool.ready.len() != before
        })
    }

    /// Adapts the pools to the demand: grows them at once and shrinks them when a period was quiet.
    pub(super) fn adapt(&self, now: Instant) {
        for (root, pool) in self.pools().iter_mut() {
            let target = pool.demand.target(now);
            // What is too many goes by our own hand, so that both sides agree on which are left.
            while pool.ready.len() > target as usize
                && let Some(extra) = pool.ready.pop_back()
            {
                extra.session.end();
                drop(self.host.send(Command::Kill { sandbox: extra.id }));
            }
            if pool.told != 0 {
                self.tell(root, pool, target);
            }
        }
    }

    /// Takes every pool down; whoever waits is told.
    pub(super) fn close(&self) {
        let mut pools = self.pools();
        self.closed.store(true, Ordering::Relaxed);
        for (root, pool) in pools.iter_mut() {
            self.tell(root, pool, 0);
            pool.ready.drain(..).for_each(|ready| ready.session.end());
        }
        pools.clear();
        self.standbys().drain().flat_map(|(_, waiting)| waiting).for_each(|ready| ready.session.end());
    }

    fn standbys(&self) -> MutexGuard<'_, HashMap<SnapshotId, Vec<ReadySandbox>>> {
        self.standbys.lock().expect("nothing panics while it holds this lock")
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<Arc<RootSpec>, Pool>> {
        self.pools.lock().expect("nothing panics while it holds this lock")
    }

    fn pool<'a>(
        &self,
        pools: &'a mut HashMap<Arc<RootSpec>, Pool>,
        root: &Arc<RootSpec>,
        now: Instant,
    ) -> &'a mut Pool {
        pools.entry(root.clone()).or_insert_with(|| Pool {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            demand: Demand::new(self.bounds, now),
            told: 0,
        })
    }

    fn tell(&self, root: &Arc<RootSpec>, pool: &mut Pool, ready: u32) {
        if pool.told == ready {
            return;
        }
        pool.told = ready;
        let reply = self.host.send(Command::Pool { root: (**root).clone(), ready });
        let name = root.name.clone();
        tokio::spawn(async move {
            if let Err(failure) = reply.await {
                tracing::error!(pool = name, %failure, "size a pool of sandboxes");
            }
        });
    }
}

fn closed(root: &RootSpec) -> String {
    format!("take a sandbox for {}: the host role has ended or the server is stopping", root.name)
}

/// How many sandboxes should wait ready: as many as were taken in the busiest of the present and the last period.
#[derive(Debug)]
struct Demand {
    bounds: Bounds,
    since: Instant,
    taken: u32,
    taken_before: u32,
}

impl Demand {
    fn new(bounds: Bounds, now: Instant) -> Self {
        Self { bounds, since: now, taken: 0, taken_before: 0 }
    }

    fn take(&mut self, now: Instant) {
        self.turn(now);
        self.taken = self.taken.saturating_add(1);
    }

    fn target(&mut self, now: Instant) -> u32 {
        self.turn(now);
        self.taken.max(self.taken_before).clamp(self.bounds.floor, self.bounds.ceiling)
    }

    fn turn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            self.taken_before = if elapsed < 2 * WINDOW { self.taken } else { 0 };
            self.taken = 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_follows_demand_between_its_bounds() {
        let start = Instant::now();
        let mut demand = Demand::new(Bounds { floor: 4, ceiling: 32 }, start);
        assert_eq!(demand.target(start), 4);
        (0..10).for_each(|_| demand.take(start));
        assert_eq!(demand.target(start), 10);
        assert_eq!(demand.target(start + WINDOW), 10, "the last period still counts");
        assert_eq!(demand.target(start + 3 * WINDOW), 4);
        (0..100).for_each(|_| demand.take(start + 3 * WINDOW));
        assert_eq!(demand.target(start + 3 * WINDOW), 32);
    }
}
