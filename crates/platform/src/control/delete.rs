//! DeleteFunction, with and without qualifier.

use meta::MetaError;
use model::error::ApiError;
use model::names::{FunctionName, FunctionReference, Qualifier, Version};

use super::{Control, failed};

impl Control {
    /// Deletes a version, or a function with all its versions and aliases, and their snapshots.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidParameterValueException` for `$LATEST` and for an alias;
    /// `ResourceConflictException` for a version that aliases lead to.
    pub async fn delete_function(&self, reference: FunctionReference) -> Result<(), ApiError> {
        match &reference.qualifier {
            None => self.delete_whole(&reference.function).await,
            Some(Qualifier::Version(Version::Latest)) => Err(ApiError::latest_cannot_be_deleted()),
            Some(Qualifier::Version(Version::Number(number))) => {
                self.delete_version(&reference, *number).await
            }
            Some(Qualifier::Alias(_)) => {
                Err(ApiError::invalid("Deletion of aliases is not currently supported."))
            }
        }
    }

    async fn delete_whole(&self, name: &FunctionName) -> Result<(), ApiError> {
        let deleted = self.meta().delete_function(name).await;
        let snapshots = deleted.map_err(|error| match error {
            MetaError::NotFound => ApiError::function_not_found(self.home().arn(name)),
            error => failed(error),
        })?;
        self.changed(name);
        self.0.concurrency.forget(name);
        self.0.runner.retire(name.as_str(), None);
        self.delete_snapshots(snapshots);
        Ok(())
    }

    async fn delete_version(&self, reference: &FunctionReference, number: u64) -> Result<(), ApiError> {
        let name = &reference.function;
        let arn = self.home().arn_as_addressed(reference);
        let deleted = self.meta().delete_version(name, number).await;
        let snapshots = match deleted {
            Ok(snapshots) => snapshots,
            // A version that is gone already is no error, as long as the function exists.
            Err(MetaError::NotFound) => return self.latest(name).await.map(drop),
            Err(MetaError::InUse(aliases)) => return Err(ApiError::version_in_use(&arn, &aliases)),
            Err(error) => return Err(failed(error)),
        };
        self.changed(name);
        self.0.runner.retire(name.as_str(), Some(&number.to_string()));
        self.delete_snapshots(snapshots);
        Ok(())
    }
}
