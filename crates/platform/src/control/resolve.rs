//! From a reference to the version that serves it, without asking the database each time.
//!
//! What was resolved is kept until anything of its function changes. A reader that was overtaken by a change must not
//! put its old answer in: it remembers the cache's generation from before it read, and the answer is kept only if no
//! change came in between.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError, RwLock};

use model::error::ApiError;
use model::function::FunctionRecord;
use model::lifecycle::Status;
use model::limits;
use model::names::{FunctionName, FunctionReference, Qualifier, Version};

use super::background::snapshot_id;
use super::{Control, failed};
use crate::version::{VersionKey, VersionSpec};

/// What a reference leads to.
pub(super) struct Resolved {
    /// The main version.
    pub(super) main: Target,
    /// An alias's second version and its share.
    pub(super) second: Option<(f64, Target)>,
    /// Reserved concurrency of the function.
    pub(super) reserved: Option<u32>,
    /// Running invocations of the function.
    pub(super) counter: Arc<AtomicU32>,
    /// The ARN as addressed.
    pub(super) arn: String,
}

/// One version, ready to be run.
pub(super) struct Target {
    pub(super) status: Status,
    pub(super) version: Version,
    pub(super) spec: Arc<VersionSpec>,
}

impl Resolved {
    /// The version for one invocation; `die` is uniform in [0, 1).
    pub(super) fn choose(&self, die: f64) -> &Target {
        match &self.second {
            Some((weight, target)) if die < *weight => target,
            _ => &self.main,
        }
    }
}

/// What was resolved before.
#[derive(Default)]
pub(super) struct Cache(RwLock<Known>);

/// A qualifier of some function and what it leads to. A function has few of them, so a list is searched.
type Entry = (Option<Qualifier>, Arc<Resolved>);

#[derive(Default)]
struct Known {
    generation: u64,
    count: usize,
    by_function: HashMap<FunctionName, Vec<Entry>>,
}

impl Cache {
    fn get(&self, reference: &FunctionReference) -> (u64, Option<Arc<Resolved>>) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entries = known.by_function.get(&reference.function);
        let found = entries.and_then(|entries| entries.iter().find(|(key, _)| *key == reference.qualifier));
        (known.generation, found.map(|(_, resolved)| resolved.clone()))
    }

    fn put(&self, reference: &FunctionReference, generation: u64, resolved: Arc<Resolved>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation {
            return;
        }
        if known.count >= limits::RESOLVED_MAX {
            *known = Known { generation, ..Known::default() };
        }
        known.count += 1;
        let entries = known.by_function.entry(reference.function.clone()).or_default();
        entries.push((reference.qualifier.clone(), resolved));
    }

    /// Forgets all about a function.
    pub(super) fn forget(&self, name: &FunctionName) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.generation += 1;
        let forgotten = known.by_function.remove(name).map_or(0, |entries| entries.len());
        known.count -= forgotten.min(known.count);
    }
}

impl Control {
    /// What a reference leads to.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; without a qualifier its text names `$LATEST`, as AWS's does for Invoke.
    pub(super) async fn resolve(&self, reference: &FunctionReference) -> Result<Arc<Resolved>, ApiError> {
        let (generation, found) = self.0.resolved.get(reference);
        if let Some(found) = found {
            return Ok(found);
        }
        let resolved = Arc::new(self.look_up(reference).await?);
        self.0.resolved.put(reference, generation, resolved.clone());
        Ok(resolved)
    }

    async fn look_up(&self, reference: &FunctionReference) -> Result<Resolved, ApiError> {
        let name = &reference.function;
        let arn = self.home().arn_as_addressed(reference);
        let not_found = || match &reference.qualifier {
            None => ApiError::function_not_found(self.home().qualified_arn(name, Version::Latest)),
            Some(_) => ApiError::function_not_found(&arn),
        };
        let (main, second) = match &reference.qualifier {
            None => (Version::Latest, None),
            Some(Qualifier::Version(version)) => (*version, None),
            Some(Qualifier::Alias(alias)) => {
                let alias = self.meta().alias(name, alias).await.map_err(failed)?.ok_or_else(not_found)?;
                (alias.version, alias.routing)
            }
        };
        let extras = self.meta().extras(name).await.map_err(failed)?.ok_or_else(not_found)?;
        let record = self.meta().record(name, main).await.map_err(failed)?.ok_or_else(not_found)?;
        let second = match second {
            None => None,
            Some(share) => {
                let version = Version::Number(share.version);
                let record = self.meta().record(name, version).await.map_err(failed)?;
                Some((share.weight, self.target(record.ok_or_else(not_found)?)))
            }
        };
        Ok(Resolved {
            main: self.target(record),
            second,
            reserved: extras.reserved_concurrency,
            counter: self.0.concurrency.counter(name),
            arn: arn.clone(),
        })
    }

    fn target(&self, record: FunctionRecord) -> Target {
        let spec = Arc::new(self.spec(&record));
        Target { status: record.status, version: record.version, spec }
    }

    /// What it takes to run a version.
    pub(super) fn spec(&self, record: &FunctionRecord) -> VersionSpec {
        let settings = &record.settings;
        VersionSpec {
            key: VersionKey {
                function: record.name.to_string(),
                version: record.version.to_string(),
                revision: record.content_id.to_string(),
            },
            arn: record.qualified_arn(self.home()),
            region: self.home().region.clone(),
            runtime: settings.runtime.to_string(),
            handler: settings.handler.clone(),
            environment: settings.environment.clone().unwrap_or_default(),
            timeout_s: settings.timeout_s,
            memory_mib: settings.memory_mib,
            tmp_mib: settings.ephemeral_storage_mib,
            task_dir: self.0.code.task_dir(&record.code.sha256),
            log_group: record.log_group(),
            snapshot: record.ready_snapshot().map(snapshot_id),
        }
    }
}
