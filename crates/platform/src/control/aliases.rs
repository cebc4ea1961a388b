//! Aliases.

use std::collections::BTreeMap;

use meta::MetaError;
use model::alias::{AliasRecord, parse_routing};
use model::error::ApiError;
use model::lifecycle::State;
use model::limits;
use model::names::{AliasName, FunctionName, FunctionReference, Version};
use model::validation::Violations;
use uuid::Uuid;

use super::list::{Page, PageRequest};
use super::{Control, failed, function_only};

/// What CreateAlias asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAlias {
    /// The alias.
    pub name: AliasName,
    /// Its main version.
    pub version: Version,
    /// Free text.
    pub description: String,
    /// `AdditionalVersionWeights`.
    pub weights: BTreeMap<String, f64>,
}

/// What UpdateAlias asks for; `None` means unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AliasChange {
    /// Another main version.
    pub version: Option<Version>,
    /// Another text.
    pub description: Option<String>,
    /// Other weights; an empty map takes them away.
    pub weights: Option<BTreeMap<String, f64>>,
    /// The revision that the caller has seen.
    pub revision_id: Option<String>,
}

impl Control {
    /// Creates an alias.
    ///
    /// # Errors
    /// `ResourceConflictException` when it exists or a version is not Active, `ResourceNotFoundException` for a version
    /// that does not exist, and what [`parse_routing`] refuses.
    pub async fn create_alias(
        &self,
        reference: FunctionReference,
        new: NewAlias,
    ) -> Result<AliasRecord, ApiError> {
        let function = function_only(reference)?;
        check_description(&new.description)?;
        self.latest(&function).await?;
        if self.meta().alias(&function, &new.name).await.map_err(failed)?.is_some() {
            return Err(ApiError::alias_exists(self.home(), &function, &new.name));
        }
        let alias = AliasRecord {
            function,
            name: new.name,
            version: new.version,
            description: new.description,
            routing: parse_routing(new.version, &new.weights)?,
            revision_id: Uuid::new_v4(),
        };
        self.check_versions(&alias).await?;
        let created = self.meta().create_alias(&alias).await;
        created.map_err(|error| match error {
            MetaError::Exists => ApiError::alias_exists(self.home(), &alias.function, &alias.name),
            error => self.write_error(&alias.function)(error),
        })?;
        self.changed(&alias.function);
        Ok(alias)
    }

    /// One alias.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub async fn alias(
        &self,
        reference: FunctionReference,
        name: &AliasName,
    ) -> Result<AliasRecord, ApiError> {
        let function = function_only(reference)?;
        let alias = self.meta().alias(&function, name).await.map_err(failed)?;
        alias.ok_or_else(|| ApiError::alias_not_found(self.home(), &function, name))
    }

    /// Changes an alias.
    ///
    /// # Errors
    /// As [`Control::create_alias`]; `PreconditionFailedException` for another revision.
    pub async fn update_alias(
        &self,
        reference: FunctionReference,
        name: &AliasName,
        change: AliasChange,
    ) -> Result<AliasRecord, ApiError> {
        let function = function_only(reference)?;
        let current = self.meta().alias(&function, name).await.map_err(failed)?;
        let current =
            current.ok_or_else(|| ApiError::alias_not_found_on_update(self.home(), &function, name))?;
        Self::check_revision(change.revision_id.as_deref(), current.revision_id)?;
        let expected = current.revision_id;
        let alias = changed(current, change)?;
        self.check_versions(&alias).await?;
        let updated = self.meta().update_alias(&alias, expected).await;
        updated.map_err(self.write_error(&function))?;
        self.changed(&function);
        Ok(alias)
    }

    /// Deletes an alias. An unknown alias of a known function is no error.
    ///
    /// # Errors
    /// `ResourceNotFoundException` for an unknown function.
    pub async fn delete_alias(&self, reference: FunctionReference, name: &AliasName) -> Result<(), ApiError> {
        let function = function_only(reference)?;
        self.latest(&function).await?;
        self.meta().delete_alias(&function, name).await.map_err(failed)?;
        self.changed(&function);
        Ok(())
    }

    /// The aliases of a function by name; with `version`, only those that lead to it.
    ///
    /// # Errors
    /// `ResourceNotFoundException`, and as [`Control::list_functions`].
    pub async fn list_aliases(
        &self,
        reference: FunctionReference,
        version: Option<Version>,
        page: &PageRequest,
    ) -> Result<Page<AliasRecord>, ApiError> {
        let function = function_only(reference)?;
        let limit = page.limit()?;
        let after = page.after()?;
        self.latest(&function).await?;
        let aliases = self.meta().aliases(&function, version, after, limit + 1).await.map_err(failed)?;
        Ok(Page::new(aliases, limit, |alias| alias.name.to_string()))
    }

    /// An alias may lead only to versions that exist and are usable.
    async fn check_versions(&self, alias: &AliasRecord) -> Result<(), ApiError> {
        for version in alias.versions() {
            self.check_version(&alias.function, version).await?;
        }
        Ok(())
    }

    async fn check_version(&self, function: &FunctionName, version: Version) -> Result<(), ApiError> {
        let arn = self.home().qualified_arn(function, version);
        let record = self.meta().record(function, version).await.map_err(failed)?;
        let record = record.ok_or_else(|| ApiError::function_not_found(&arn))?;
        match (record.status.state, &record.status.state_reason) {
            (State::Active, _) => Ok(()),
            (State::Failed, Some(reason)) => Err(ApiError::failed_version(&arn, reason.code.as_str())),
            (state, _) => Err(ApiError::wrong_state(state.as_str())),
        }
    }
}

fn changed(current: AliasRecord, change: AliasChange) -> Result<AliasRecord, ApiError> {
    let version = change.version.unwrap_or(current.version);
    let description = change.description.unwrap_or(current.description);
    check_description(&description)?;
    let weights = change.weights.unwrap_or_else(|| {
        current.routing.iter().map(|share| (share.version.to_string(), share.weight)).collect()
    });
    let routing = parse_routing(version, &weights)?;
    Ok(AliasRecord { version, description, routing, revision_id: Uuid::new_v4(), ..current })
}

fn check_description(description: &str) -> Result<(), ApiError> {
    let mut violations = Violations::default();
    violations.length("description", description, 0, limits::DESCRIPTION_CHARS_MAX);
    violations.into_result()
}
