//! Unused code goes: found, left alone for a while, then removed.
//!
//! An invocation that began before an update may still read the old code, so a package stays for as long as an
//! invocation can last after the last version that refers to it is gone. The metadata is asked again, with the door
//! shut to new packages, right before anything is removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::error::ApiError;
use model::function::Sha256;
use model::limits;
use tokio::time::Instant;

use super::{Control, code_failed, failed};

/// How often unused packages are looked for, in seconds.
const SWEEP_S: u64 = 60;

impl Control {
    /// Removes every package that no version refers to. For the start, when nothing runs.
    pub(super) async fn remove_unused_code(&self) -> Result<(), ApiError> {
        let _alone = self.0.code_lock.write().await;
        let used = self.meta().codes().await.map_err(failed)?;
        self.0.code.retain(used).await.map_err(code_failed)
    }

    /// Looks for unused packages now and then, for as long as the control plane lives.
    pub(super) fn sweep_code_in_background(&self) {
        let control = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut unused_since = HashMap::new();
            loop {
                tokio::time::sleep(Duration::from_secs(SWEEP_S)).await;
                let Some(inner) = control.upgrade() else { return };
                if let Err(error) = Control(inner).sweep_code(&mut unused_since).await {
                    tracing::warn!(%error, "remove unused code failed; it is tried again");
                }
            }
        });
    }

    /// One look: what is newly unused is remembered, what has been for long enough is removed.
    async fn sweep_code(&self, unused_since: &mut HashMap<Sha256, Instant>) -> Result<(), ApiError> {
        let _alone = self.0.code_lock.write().await;
        let used = self.meta().codes().await.map_err(failed)?;
        let mut kept = self.0.code.list().await.map_err(code_failed)?;
        let now = Instant::now();
        unused_since.retain(|sha256, _| kept.contains(sha256) && !used.contains(sha256));
        for sha256 in kept.difference(&used) {
            unused_since.entry(*sha256).or_insert(now);
        }
        let grace = Duration::from_secs(limits::CODE_GRACE_S);
        let due = |sha256: &Sha256| unused_since.get(sha256).is_some_and(|since| now - *since >= grace);
        let before = kept.len();
        kept.retain(|sha256| !due(sha256));
        match kept.len() {
            after if after == before => Ok(()),
            _ => self.0.code.retain(kept).await.map_err(code_failed),
        }
    }
}
