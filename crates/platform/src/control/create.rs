//! CreateFunction.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use meta::MetaError;
use model::error::ApiError;
use model::function::{FunctionExtras, FunctionRecord, PublishStatus};
use model::lifecycle::Status;
use model::names::{FunctionReference, Version};
use model::settings::{ApplyOn, Settings, SettingsRequest};
use uuid::Uuid;

use super::{Control, Described, code_failed, failed, function_only, tags};

/// What CreateFunction asks for.
#[derive(Debug, Clone)]
pub struct NewFunction {
    /// The name, in any form.
    pub reference: FunctionReference,
    /// The configuration as sent.
    pub settings: SettingsRequest,
    /// The deployment package.
    pub zip: Bytes,
    /// Whether version 1 is published at once.
    pub publish: bool,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl Control {
    /// Creates a function. The answer is Pending; the function becomes Active a moment later.
    ///
    /// # Errors
    /// `ResourceConflictException` when the name is taken; what [`Settings::create`] and the package checks refuse.
    pub async fn create_function(&self, new: NewFunction) -> Result<Described, ApiError> {
        let name = function_only(new.reference)?;
        let settings = Settings::create(new.settings)?;
        tags::check(&new.tags)?;
        self.check_runtime(&settings)?;
        if self.meta().record(&name, Version::Latest).await.map_err(failed)?.is_some() {
            return Err(ApiError::function_exists(&name));
        }
        let builds_snapshot = new.publish && settings.snap_start == ApplyOn::PublishedVersions;
        self.check_builds(builds_snapshot)?;
        let _code_in_use = self.0.code_lock.read().await;
        self.check_storage(new.zip.len()).await?;
        let code = self.0.code.put(new.zip).await.map_err(code_failed)?;
        let revision_id = Uuid::new_v4();
        let latest = FunctionRecord {
            name,
            version: Version::Latest,
            settings,
            code,
            revision_id,
            content_id: revision_id,
            last_modified: Timestamp::now(),
            status: Status::created(),
            latest_description: None,
            snapshot: None,
        };
        let extras = FunctionExtras { tags: new.tags, reserved_concurrency: None };
        let publish = new.publish.then(|| latest.to_version(None, PublishStatus::WithFunction, fresh_ids()));
        let created = self.meta().create_function(&latest, &extras, publish).await;
        let published = created.map_err(|error| match error {
            MetaError::Exists => ApiError::function_exists(&latest.name),
            error => failed(error),
        })?;
        self.changed(&latest.name);
        self.finish_in_background(latest.clone());
        if let Some(version) = &published {
            self.finish_in_background(version.clone());
        }
        Ok(self.described(published.unwrap_or(latest)))
    }

    /// A runtime must be installed here, and SnapStart must be possible with it.
    pub(super) fn check_runtime(&self, settings: &Settings) -> Result<(), ApiError> {
        let runtime = settings.runtime.as_str();
        let installed =
            self.0.runtimes.get(runtime).ok_or_else(|| ApiError::runtime_not_installed(runtime))?;
        if settings.snap_start == ApplyOn::PublishedVersions && !installed.snap_start {
            return Err(ApiError::snap_start_unsupported(runtime));
        }
        Ok(())
    }

    /// All packages together must fit the account's storage.
    pub(super) async fn check_storage(&self, more_bytes: usize) -> Result<(), ApiError> {
        let usage = self.meta().usage().await.map_err(failed)?;
        let after = usage.code_bytes.saturating_add(more_bytes as u64);
        if after > model::limits::CODE_TOTAL_BYTES_MAX {
            return Err(ApiError::code_storage_exceeded());
        }
        Ok(())
    }
}

/// Random ids for [`FunctionRecord::to_version`].
pub(super) fn fresh_ids() -> [Uuid; 2] {
    [Uuid::new_v4(), Uuid::new_v4()]
}
