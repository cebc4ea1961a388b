//! The environments that live, as a pure state machine: who is busy, who is idle, who is frozen, who must go.
//!
//! ```text
//! reserve → enroll: Starting → Busy ⇄ Idle → Frozen → (Busy)      any → gone
//! ```
//!
//! An environment serves one invocation at a time. When it is done it is *idle*: still running for a moment, so that
//! an immediate next invocation needs no thaw; then *frozen*. The one used last is reused first, so that the others
//! grow old and go. **Memory is accounted from the reservation to the removal, and never exceeds the budget.**
//! No I/O and no clock: time comes in, and what is to be done goes out to the fleet.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use host::protocol::SandboxId;

use crate::version::VersionKey;

/// What the roster may admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Invocations at one time.
    pub(super) running_max: u32,
    /// Sum of the memory limits of all environments, in MiB.
    pub(super) memory_max_mib: u64,
}

/// The environments that live. `E` is the fleet's handle of one.
#[derive(Debug)]
pub(super) struct Roster<E> {
    capacity: Capacity,
    running: u32,
    memory_mib: u64,
    live: HashMap<SandboxId, Live<E>>,
    /// Idle and frozen environments of each version; the one used last is at the end.
    idle: HashMap<VersionKey, Vec<SandboxId>>,
    serial_last: u64,
}

#[derive(Debug)]
struct Live<E> {
    handle: E,
    key: VersionKey,
    memory_mib: u32,
    phase: Phase,
    /// Its version was retired: it goes when it is done.
    retired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Being initialized or restored.
    Starting,
    Busy,
    Idle {
        since: Instant,
        serial: u64,
    },
    Frozen {
        since: Instant,
    },
}

/// Over capacity: the caller is told to try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Throttled;

/// What becomes of an environment that is done with an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parked {
    /// It is idle; freeze it with this number when it still is after a moment.
    Idle { serial: u64 },
    /// Its version was retired, or it is not on the roster: kill it.
    Unwanted,
}

impl<E: Clone> Roster<E> {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            running: 0,
            memory_mib: 0,
            live: HashMap::new(),
            idle: HashMap::new(),
            serial_last: 0,
        }
    }

    /// Counts an invocation in.
    pub(super) fn enter(&mut self) -> Result<(), Throttled> {
        if self.running >= self.capacity.running_max {
            return Err(Throttled);
        }
        self.running += 1;
        Ok(())
    }

    /// Counts an invocation out.
    pub(super) fn leave(&mut self) {
        self.running -= 1;
    }

    /// Takes an idle environment of this version; true when it is frozen and must be thawed.
    pub(super) fn reuse(&mut self, key: &VersionKey) -> Option<(E, bool)> {
        let stack = self.idle.get_mut(key)?;
        let id = stack.pop()?;
        if stack.is_empty() {
            self.idle.remove(key);
        }
        let live = self.live.get_mut(&id).expect("whatever is idle lives");
        let frozen = matches!(live.phase, Phase::Frozen { .. });
        live.phase = Phase::Busy;
        Some((live.handle.clone(), frozen))
    }

    /// Reserves memory for a new environment. Idle environments that have to make room for it, the oldest first, come
    /// back to be killed.
    pub(super) fn reserve(&mut self, memory_mib: u32) -> Result<Vec<E>, Throttled> {
        let needed = u64::from(memory_mib);
        let idle_mib: u64 = self.idle.values().flatten().map(|id| u64::from(self.live[id].memory_mib)).sum();
        if self.memory_mib - idle_mib + needed > self.capacity.memory_max_mib {
            return Err(Throttled);
        }
        let mut evicted = Vec::new();
        while self.memory_mib + needed > self.capacity.memory_max_mib {
            let oldest = self.oldest_idle().expect("the idle ones were counted as room");
            evicted.extend(self.remove(oldest));
        }
        self.memory_mib += needed;
        Ok(evicted)
    }

    /// Gives a reservation back that came to nothing.
    pub(super) fn release(&mut self, memory_mib: u32) {
        self.memory_mib -= u64::from(memory_mib);
    }

    /// Puts the environment of a reservation on the roster.
    pub(super) fn enroll(&mut self, id: SandboxId, key: VersionKey, memory_mib: u32, handle: E) {
        let live = Live { handle, key, memory_mib, phase: Phase::Starting, retired: false };
        let before = self.live.insert(id, live);
        debug_assert!(before.is_none(), "the host role never gives a living sandbox's number again");
    }

    /// An environment has been started and serves its first invocation.
    pub(super) fn started(&mut self, id: SandboxId) {
        if let Some(live) = self.live.get_mut(&id) {
            live.phase = Phase::Busy;
        }
    }

    /// A busy environment is done.
    pub(super) fn park(&mut self, id: SandboxId, now: Instant) -> Parked {
        let Some(live) = self.live.get_mut(&id).filter(|live| !live.retired) else { return Parked::Unwanted };
        self.serial_last += 1;
        let serial = self.serial_last;
        live.phase = Phase::Idle { since: now, serial };
        self.idle.entry(live.key.clone()).or_default().push(id);
        Parked::Idle { serial }
    }

    /// Freezes an environment if it is still in the idle period of that number. True when it is to be frozen.
    pub(super) fn freeze(&mut self, id: SandboxId, serial: u64) -> bool {
        match self.live.get_mut(&id) {
            Some(live) => match live.phase {
                Phase::Idle { since, serial: current } if current == serial => {
                    live.phase = Phase::Frozen { since };
                    true
                }
                _ => false,
            },
            None => false,
        }
    }

    /// Removes an environment that is still in the idle period of that number: it never asked for the next invocation.
    pub(super) fn remove_idle(&mut self, id: SandboxId, serial: u64) -> Option<E> {
        match self.live.get(&id)?.phase {
            Phase::Idle { serial: current, .. } if current == serial => self.remove(id),
            _ => None,
        }
    }

    /// Removes an environment, whatever it does.
    pub(super) fn remove(&mut self, id: SandboxId) -> Option<E> {
        let live = self.live.remove(&id)?;
        self.memory_mib -= u64::from(live.memory_mib);
        if matches!(live.phase, Phase::Idle { .. } | Phase::Frozen { .. })
            && let Some(stack) = self.idle.get_mut(&live.key)
        {
            stack.retain(|idle| *idle != id);
            if stack.is_empty() {
                self.idle.remove(&live.key);
            }
        }
        Some(live.handle)
    }

    /// The handle of a living environment, and whether it is idle or frozen.
    pub(super) fn find(&self, id: SandboxId) -> Option<(E, bool)> {
        let live = self.live.get(&id)?;
        let idle = matches!(live.phase, Phase::Idle { .. } | Phase::Frozen { .. });
        Some((live.handle.clone(), idle))
    }

    /// Removes the environments that have been idle for longer than `idle_max`.
    pub(super) fn expire(&mut self, now: Instant, idle_max: Duration) -> Vec<E> {
        self.remove_where(|live| match live.phase {
            Phase::Idle { since, .. } | Phase::Frozen { since } => {
                now.saturating_duration_since(since) >= idle_max
            }
            _ => false,
        })
    }

    /// Removes idle environments of a function, or of one version of it; busy ones go when they are done.
    pub(super) fn retire(&mut self, function: &str, version: Option<&str>) -> Vec<E> {
        let concerned = |key: &VersionKey| {
            key.function == function && version.is_none_or(|version| key.version == version)
        };
        for live in self.live.values_mut().filter(|live| concerned(&live.key)) {
            live.retired = true;
        }
        self.remove_where(|live| {
            live.retired && matches!(live.phase, Phase::Idle { .. } | Phase::Frozen { .. })
        })
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> Vec<E> {
        self.remove_where(|_| true)
    }

    fn remove_where(&mut self, condition: impl Fn(&Live<E>) -> bool) -> Vec<E> {
        let found: Vec<SandboxId> =
            self.live.iter().filter(|(_, live)| condition(live)).map(|(id, _)| *id).collect();
        found.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    fn oldest_idle(&self) -> Option<SandboxId> {
        let age = |id: &SandboxId| match self.live[id].phase {
            Phase::Idle { since, .. } | Phase::Frozen { since } => Some((since, *id)),
            _ => None,
        };
        self.idle.values().flatten().filter_map(age).min_by_key(|(since, id)| (*since, *id)).map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(function: &str) -> VersionKey {
        VersionKey { function: function.into(), version: "1".into(), revision: "r".into() }
    }

    fn roster() -> Roster<u64> {
        Roster::new(Capacity { running_max: 3, memory_max_mib: 1000 })
    }

    fn start(roster: &mut Roster<u64>, id: u64, function: &str, memory_mib: u32) {
        roster.reserve(memory_mib).unwrap();
        roster.enroll(SandboxId(id), key(function), memory_mib, id);
        roster.started(SandboxId(id));
    }

    #[test]
    fn the_environment_used_last_is_reused_first_and_thawed_only_when_frozen() {
        let now = Instant::now();
        let mut roster = roster();
        start(&mut roster, 1, "f", 100);
        start(&mut roster, 2, "f", 100);
        let Parked::Idle { serial } = roster.park(SandboxId(1), now) else { panic!("it is wanted") };
        assert!(roster.freeze(SandboxId(1), serial));
        let Parked::Idle { serial } = roster.park(SandboxId(2), now) else { panic!("it is wanted") };
        assert_eq!(roster.reuse(&key("f")), Some((2, false)));
        assert!(!roster.freeze(SandboxId(2), serial));
        assert_eq!(roster.reuse(&key("f")), Some((1, true)));
        assert_eq!(roster.reuse(&key("f")), None);
        roster.park(SandboxId(2), now);
        assert!(!roster.freeze(SandboxId(2), serial), "that was an earlier idle period");
    }

    #[test]
    fn idle_environments_make_room_for_new_ones_and_busy_ones_do_not() {
        let now = Instant::now();
        let mut roster = roster();
        start(&mut roster, 1, "f", 400);
        start(&mut roster, 2, "g", 400);
        assert_eq!(roster.reserve(400), Err(Throttled));
        roster.park(SandboxId(2), now);
        roster.park(SandboxId(1), now + Duration::from_secs(1));
        assert_eq!(roster.reserve(400), Ok(vec![2]));
        assert_eq!(roster.reserve(400), Ok(vec![1]));
        roster.release(400);
        assert_eq!(roster.reserve(200), Ok(vec![]));
    }

    #[test]
    fn retired_environments_go_at_once_or_when_they_are_done() {
        let now = Instant::now();
        let mut roster = roster();
        start(&mut roster, 1, "f", 100);
        start(&mut roster, 2, "f", 100);
        start(&mut roster, 3, "g", 100);
        roster.park(SandboxId(1), now);
        roster.park(SandboxId(3), now);
        assert_eq!(roster.retire("f", Some("2")), Vec::<u64>::new());
        assert_eq!(roster.retire("f", None), [1]);
        assert_eq!(roster.park(SandboxId(2), now), Parked::Unwanted);
        assert_eq!(roster.expire(now + Duration::from_secs(300), Duration::from_secs(300)), [3]);
    }

    #[test]
    fn concurrency_is_limited() {
        let mut roster = roster();
        (0..3).for_each(|_| roster.enter().unwrap());
        assert_eq!(roster.enter(), Err(Throttled));
        roster.leave();
        roster.enter().unwrap();
    }

    proptest! {
        /// Whatever happens: no environment is given to two invocations, none comes back after it was removed, and
        /// the memory is that of the living and never over the budget.
        #[test]
        fn environments_are_leased_once_and_accounted(steps in prop::collection::vec((0u8..6, 0u64..8), 0..200)) {
            let mut roster = roster();
            let mut now = Instant::now();
            let mut next = 100u64;
            let mut busy: Vec<u64> = Vec::new();
            let mut gone: std::collections::HashSet<u64> = Default::default();
            for (step, number) in steps {
                now += Duration::from_secs(1);
                let function = if number % 2 == 0 { "f" } else { "g" };
                match step {
                    0 => if let Ok(evicted) = roster.reserve(100 * (number as u32 + 1)) {
                        gone.extend(evicted);
                        next += 1;
                        roster.enroll(SandboxId(next), key(function), 100 * (number as u32 + 1), next);
                        roster.started(SandboxId(next));
                        busy.push(next);
                    },
                    1 => if let Some((id, _)) = roster.reuse(&key(function)) {
                        prop_assert!(!busy.contains(&id) && !gone.contains(&id));
                        busy.push(id);
                    },
                    2 => if let Some(id) = busy.pop() {
                        match roster.park(SandboxId(id), now) {
                            Parked::Idle { serial } if number < 4 => {
                                prop_assert!(roster.freeze(SandboxId(id), serial));
                            }
                            Parked::Idle { .. } => {}
                            Parked::Unwanted => gone.extend(roster.remove(SandboxId(id))),
                        }
                    },
                    3 => if let Some(id) = busy.pop() {
                        gone.extend(roster.remove(SandboxId(id)));
                    },
                    4 => gone.extend(roster.expire(now, Duration::from_secs(number * 3))),
                    _ => if number == 0 { gone.extend(roster.retire(function, None)); },
                }
                let sum: u64 = roster.live.values().map(|live| u64::from(live.memory_mib)).sum();
                prop_assert_eq!(sum, roster.memory_mib);
                prop_assert!(sum <= 1000);
                let idle: usize = roster.idle.values().map(Vec::len).sum();
                prop_assert_eq!(idle + busy.len(), roster.live.len());
            }
        }
    }
}
