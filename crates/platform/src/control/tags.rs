//! Tags of functions.

use std::collections::BTreeMap;

use model::error::ApiError;
use model::limits;
use model::names::{FunctionName, FunctionReference};
use model::validation::Violations;

use super::{Control, failed};

impl Control {
    /// The tags of a function.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidParameterValueException` for a qualified ARN.
    pub async fn tags(&self, reference: FunctionReference) -> Result<BTreeMap<String, String>, ApiError> {
        let name = taggable(reference)?;
        let extras = self.meta().extras(&name).await.map_err(failed)?;
        let extras = extras.ok_or_else(|| ApiError::function_not_found(self.home().arn(&name)))?;
        Ok(extras.tags)
    }

    /// Adds tags, and replaces those with the same key.
    ///
    /// # Errors
    /// As [`Control::tags`]; and for too many or too long ones.
    pub async fn tag(
        &self,
        reference: FunctionReference,
        tags: BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        check(&tags)?;
        let name = taggable(reference)?;
        self.change_extras(&name, |extras| {
            extras.tags.extend(tags);
            check(&extras.tags)
        })
        .await
    }

    /// Removes tags; unknown keys are no error.
    ///
    /// # Errors
    /// As [`Control::tags`].
    pub async fn untag(&self, reference: FunctionReference, keys: &[String]) -> Result<(), ApiError> {
        let name = taggable(reference)?;
        self.change_extras(&name, |extras| {
            extras.tags.retain(|key, _| !keys.contains(key));
            Ok(())
        })
        .await
    }
}

/// Checks number and lengths.
pub(super) fn check(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if tags.len() > limits::TAGS_MAX {
        return Err(ApiError::too_many_tags());
    }
    let mut violations = Violations::default();
    for (key, value) in tags {
        violations.length("tags", key, 1, limits::TAG_KEY_CHARS_MAX);
        violations.length("tags", value, 0, limits::TAG_VALUE_CHARS_MAX);
    }
    violations.into_result()
}

fn taggable(reference: FunctionReference) -> Result<FunctionName, ApiError> {
    reference.unqualified().map_err(|_| ApiError::tags_on_qualified())
}
