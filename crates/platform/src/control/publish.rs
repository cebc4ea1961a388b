//! PublishVersion (rules: Lambda Developer Guide, configuration-versions).

use model::error::ApiError;
use model::function::PublishStatus;
use model::limits;
use model::names::FunctionReference;
use model::settings::ApplyOn;
use model::validation::Violations;

use super::create::fresh_ids;
use super::{Control, Described, failed, function_only};

/// What PublishVersion asks for.
#[derive(Debug, Clone, Default)]
pub struct PublishRequest {
    /// The package that `$LATEST` must have, in base64.
    pub code_sha256: Option<String>,
    /// A description for the version alone.
    pub description: Option<String>,
    /// The revision that the caller has seen.
    pub revision_id: Option<String>,
}

impl Control {
    /// Publishes `$LATEST` as the next version. Without a change since the last one, that one is answered. With
    /// SnapStart the answer is Pending and the snapshot is built in the background.
    ///
    /// # Errors
    /// `ResourceConflictException` while the function is being changed, `PreconditionFailedException` for another
    /// revision, `InvalidParameterValueException` for another package, `TooManyRequestsException` when too many
    /// snapshots wait to be built.
    pub async fn publish_version(
        &self,
        reference: FunctionReference,
        request: PublishRequest,
    ) -> Result<Described, ApiError> {
        let name = function_only(reference)?;
        if let Some(description) = &request.description {
            let mut violations = Violations::default();
            violations.length("description", description, 0, limits::DESCRIPTION_CHARS_MAX);
            violations.into_result()?;
        }
        let latest = self.latest(&name).await?;
        latest.status.check_changeable(&self.home().arn(&name))?;
        Self::check_revision(request.revision_id.as_deref(), latest.revision_id)?;
        let current = latest.code.sha256.base64();
        if let Some(given) = request.code_sha256.filter(|given| !given.is_empty() && *given != current) {
            return Err(ApiError::code_sha256_mismatch(&given, &current));
        }
        let last = self.meta().last_version(&name).await.map_err(failed)?;
        if let Some(last) = last.filter(|last| last.is_same_as(&latest)) {
            return Ok(self.described_version(last));
        }
        self.check_runtime(&latest.settings)?;
        self.check_builds(latest.settings.snap_start == ApplyOn::PublishedVersions)?;
        let version = latest.to_version(request.description, PublishStatus::Alone, fresh_ids());
        let published = self.meta().publish(&latest, latest.revision_id, version).await;
        let published = published.map_err(self.write_error(&name))?;
        self.changed(&name);
        self.finish_in_background(published.clone());
        Ok(self.described_version(published))
    }
}
