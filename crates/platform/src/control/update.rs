//! UpdateFunctionCode and UpdateFunctionConfiguration.

use bytes::Bytes;
use jiff::Timestamp;
use model::error::ApiError;
use model::function::{FunctionRecord, PublishStatus};
use model::lifecycle::Event;
use model::names::FunctionReference;
use model::settings::{ApplyOn, Settings, SettingsRequest};
use uuid::Uuid;

use super::create::fresh_ids;
use super::{Control, Described, code_failed, function_only};

/// What UpdateFunctionCode asks for.
#[derive(Debug, Clone, Default)]
pub struct CodeUpdate {
    /// The new deployment package.
    pub zip: Bytes,
    /// `Architectures`, when given.
    pub architectures: Option<Vec<String>>,
    /// Whether a version is published at once.
    pub publish: bool,
    /// Check everything, change nothing.
    pub dry_run: bool,
    /// The revision that the caller has seen.
    pub revision_id: Option<String>,
}

impl Control {
    /// Replaces the code of `$LATEST`.
    ///
    /// # Errors
    /// `ResourceConflictException` while another change is under way, `PreconditionFailedException` for another
    /// revision, and what the package checks refuse.
    pub async fn update_code(
        &self,
        reference: FunctionReference,
        update: CodeUpdate,
    ) -> Result<Described, ApiError> {
        let name = function_only(reference)?;
        let latest = self.latest(&name).await?;
        latest.status.check_changeable(&self.home().arn(&name))?;
        Self::check_revision(update.revision_id.as_deref(), latest.revision_id)?;
        let settings = latest
            .settings
            .clone()
            .update(SettingsRequest { architectures: update.architectures, ..Default::default() })?;
        let _code_in_use = self.0.code_lock.read().await;
        self.check_storage(update.zip.len()).await?;
        if update.dry_run {
            let code = self.0.code.check(update.zip).await.map_err(code_failed)?;
            return Ok(self.described(FunctionRecord { code, settings, ..latest }));
        }
        let builds_snapshot = update.publish && settings.snap_start == ApplyOn::PublishedVersions;
        self.check_builds(builds_snapshot)?;
        let code = self.0.code.put(update.zip).await.map_err(code_failed)?;
        let expected = latest.revision_id;
        let changed = FunctionRecord { code, ..change(latest, settings)? };
        let answer = if update.publish {
            let version = changed.to_version(None, PublishStatus::Alone, fresh_ids());
            let published = self.meta().publish(&changed, expected, version).await;
            let published = published.map_err(self.write_error(&name))?;
            self.finish_in_background(published.clone());
            self.described_version(published)
        } else {
            self.meta().update(&changed, expected).await.map_err(self.write_error(&name))?;
            self.described(changed.clone())
        };
        self.after_update(changed);
        Ok(answer)
    }

    /// Changes the configuration of `$LATEST`.
    ///
    /// # Errors
    /// As [`Control::update_code`]; and what [`Settings::update`] refuses.
    pub async fn update_configuration(
        &self,
        reference: FunctionReference,
        request: SettingsRequest,
        revision_id: Option<&str>,
    ) -> Result<Described, ApiError> {
        let name = function_only(reference)?;
        let latest = self.latest(&name).await?;
        latest.status.check_changeable(&self.home().arn(&name))?;
        Self::check_revision(revision_id, latest.revision_id)?;
        let settings = latest.settings.clone().update(request)?;
        let same = &latest.settings;
        if (&settings.runtime, settings.snap_start) != (&same.runtime, same.snap_start) {
            self.check_runtime(&settings)?;
        }
        let expected = latest.revision_id;
        let changed = change(latest, settings)?;
        self.meta().update(&changed, expected).await.map_err(self.write_error(&name))?;
        self.after_update(changed.clone());
        Ok(self.described(changed))
    }

    /// Environments of the old `$LATEST` serve nobody any more.
    fn after_update(&self, changed: FunctionRecord) {
        self.changed(&changed.name);
        self.0.runner.retire(changed.name.as_str(), Some("$LATEST"));
        self.finish_in_background(changed);
    }
}

fn change(latest: FunctionRecord, settings: Settings) -> Result<FunctionRecord, ApiError> {
    let status =
        latest.status.after(Event::Updated).map_err(|misfit| ApiError::wrong_state(misfit.0.as_str()))?;
    let revision_id = Uuid::new_v4();
    Ok(FunctionRecord {
        settings,
        status,
        revision_id,
        content_id: revision_id,
        last_modified: Timestamp::now(),
        ..latest
    })
}
