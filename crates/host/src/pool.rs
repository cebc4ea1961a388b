//! Ready sandboxes: one pool for each root, kept at its size while nothing more urgent is to be done.

use std::collections::HashMap;

use sandbox::{RootBind, RootLayout};

use crate::protocol::RootSpec;

/// How many sandboxes of one root may be starting at a time.
const STARTING_MAX: u32 = 4;

/// How soon a pool needs a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It is below its size.
    Low,
    /// Nothing waits ready: the next request will wait.
    Empty,
}

/// How full the pools are.
#[derive(Debug, Default)]
pub struct Pools {
    by_root: HashMap<RootSpec, Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    target: u32,
    ready: u32,
    starting: u32,
    /// After a failure no other start is tried until somebody asks again.
    broken: bool,
}

impl Pools {
    /// Sets how many are to wait.
    pub fn set_target(&mut self, root: &RootSpec, target: u32) {
        let pool = self.by_root.entry(root.clone()).or_default();
        pool.target = target;
        pool.broken = false;
    }

    /// A root of which a sandbox should be started, if there is one of this urgency.
    pub fn wanted(&self, urgency: Urgency) -> Option<RootSpec> {
        let lacks = |pool: &Pool| {
            let short = pool.ready + pool.starting < pool.target;
            let urgent = urgency == Urgency::Low || pool.ready == 0;
            !pool.broken && short && urgent && pool.starting < STARTING_MAX
        };
        self.by_root.iter().find(|(_, pool)| lacks(pool)).map(|(root, _)| root.clone())
    }

    /// One was started.
    pub fn started(&mut self, root: &RootSpec) {
        self.by_root.entry(root.clone()).or_default().starting += 1;
    }

    /// A starting one became ready, or failed.
    pub fn settled(&mut self, root: &RootSpec, ready: bool) {
        if let Some(pool) = self.by_root.get_mut(root) {
            pool.starting = pool.starting.saturating_sub(1);
            pool.ready += u32::from(ready);
            pool.broken |= !ready;
        }
    }

    /// A ready one was taken, or lost.
    pub fn taken(&mut self, root: &RootSpec) {
        if let Some(pool) = self.by_root.get_mut(root) {
            pool.ready = pool.ready.saturating_sub(1);
            pool.broken = false;
        }
    }
}

/// The sandbox crate's view of a root.
#[must_use]
pub fn layout(root: &RootSpec) -> RootLayout {
    let bind =
        |bind: &crate::protocol::Bind| RootBind { source: bind.source.clone(), target: bind.target.clone() };
    RootLayout {
        name: root.name.clone(),
        binds: root.binds.iter().map(bind).collect(),
        exposed_ports: root.exposed_ports.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_filled_to_its_target_and_refilled_when_one_is_taken() {
        let root = RootSpec { name: "python3.12".to_owned(), binds: Vec::new(), exposed_ports: Vec::new() };
        let mut pools = Pools::default();
        assert_eq!(pools.wanted(Urgency::Low), None);
        pools.set_target(&root, 1);
        assert_eq!(pools.wanted(Urgency::Low).as_ref(), Some(&root));
        pools.started(&root);
        assert_eq!(pools.wanted(Urgency::Low), None);
        pools.settled(&root, true);
        assert_eq!(pools.wanted(Urgency::Low), None);
        pools.taken(&root);
        assert!(pools.wanted(Urgency::Low).is_some());
    }

    #[test]
    fn a_root_that_cannot_be_made_is_not_tried_for_ever() {
        let root = RootSpec { name: "broken".to_owned(), binds: Vec::new(), exposed_ports: Vec::new() };
        let mut pools = Pools::default();
        pools.set_target(&root, 2);
        pools.started(&root);
        pools.settled(&root, false);
        assert_eq!(pools.wanted(Urgency::Low), None);
        pools.set_target(&root, 2);
        assert!(pools.wanted(Urgency::Low).is_some());
    }
}
