//! What has happened in the fleet, in numbers: for metrics, for `doctor` and for tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the server started.
#[derive(Debug, Default)]
pub struct Counters {
    invocations: AtomicU64,
    inits: AtomicU64,
    restores: AtomicU64,
    restore_failures: AtomicU64,
    throttles: AtomicU64,
    timeouts: AtomicU64,
    exits: AtomicU64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $count:ident;)*) => {
        impl Counters {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> u64 {
                    self.$name.load(Ordering::Relaxed)
                }

                pub(super) fn $count(&self) {
                    self.$name.fetch_add(1, Ordering::Relaxed);
                }
            )*
        }
    };
}

counters! {
    /// Invocations that were admitted.
    invocations, count_invocation;
    /// Environments that were initialized to serve an invocation, fall-backs included.
    inits, count_init;
    /// Environments that were restored from a snapshot.
    restores, count_restore;
    /// Restores that failed and were replaced by an init.
    restore_failures, count_restore_failure;
    /// Invocations that were refused for lack of capacity.
    throttles, count_throttle;
    /// Invocations that ran into the function's timeout.
    timeouts, count_timeout;
    /// Invocations whose process ended before it answered.
    exits, count_exit;
}
