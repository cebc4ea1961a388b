//! Clearing killed sandboxes away, a little at a time, from the host role's poll loop.
//!
//! A killed sandbox is not gone at once: the kernel first ends every process in it, which takes milliseconds for large
//! ones, and only then can the zombie be reaped and the groups removed. Nobody waits for that.

use std::os::fd::OwnedFd;

use crate::cgroup::Group;

/// How soon to look again while something is dying, in milliseconds.
const TICK_MS: u64 = 5;

/// The sandboxes that are dying.
#[derive(Debug, Default)]
pub struct Reaper {
    dying: Vec<Dying>,
}

#[derive(Debug)]
struct Dying {
    pidfd: Option<OwnedFd>,
    group: Group,
}

impl Reaper {
    /// Takes over a sandbox whose init was sent SIGKILL.
    pub(crate) fn add(&mut self, pidfd: OwnedFd, group: Group) {
        self.dying.push(Dying { pidfd: Some(pidfd), group });
    }

    /// Reaps and removes what is dead by now. Call it when [`Self::next_tick_ms`] has passed.
    pub fn tick(&mut self) {
        self.dying.retain_mut(|dying| !dying.clear());
    }

    /// When to call [`Self::tick`] next, in milliseconds; `None` when nothing is left to do.
    pub fn next_tick_ms(&self) -> Option<u64> {
        (!self.dying.is_empty()).then_some(TICK_MS)
    }

    /// How many sandboxes are not gone yet.
    pub fn remaining(&self) -> usize {
        self.dying.len()
    }
}

impl Dying {
    /// True when nothing is left.
    fn clear(&mut self) -> bool {
        let gone = self.pidfd.as_ref().is_none_or(|pidfd| linux::process::reap(pidfd).unwrap_or(true));
        if !gone {
            return false;
        }
        self.pidfd = None;
        if self.group.remove() {
            return true;
        }
        // A process that entered the group from outside, such as a half-made clone, is not in the sandbox's PID
        // namespace and did not die with it.
        self.group.kill();
        false
    }
}
