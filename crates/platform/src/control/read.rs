//! GetFunction, GetFunctionConfiguration and GetAccountSettings.

use model::error::ApiError;
use model::function::FunctionExtras;
use model::limits;
use model::names::FunctionReference;

use super::{Control, Described, failed};

/// What GetFunction tells beyond the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDetails {
    /// The configuration.
    pub described: Described,
    /// Tags and reserved concurrency.
    pub extras: FunctionExtras,
}

/// What GetAccountSettings tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountSettings {
    /// Concurrency that is not reserved for single functions.
    pub unreserved_concurrency: u32,
    /// Functions, without their versions.
    pub function_count: u64,
    /// Packages of all versions, in bytes.
    pub code_bytes: u64,
}

impl Control {
    /// The version that a reference leads to.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub async fn function(&self, reference: &FunctionReference) -> Result<Described, ApiError> {
        let record = self.referred(reference).await?;
        Ok(Described { record, arn: self.home().arn_as_addressed(reference) })
    }

    /// The version that a reference leads to, and what is kept of its function.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub async fn function_details(&self, reference: &FunctionReference) -> Result<FunctionDetails, ApiError> {
        let described = self.function(reference).await?;
        let extras = self.meta().extras(&reference.function).await.map_err(failed)?.unwrap_or_default();
        Ok(FunctionDetails { described, extras })
    }

    /// Limits and usage of the whole server.
    ///
    /// # Errors
    /// `ServiceException` when the metadata cannot be read.
    pub async fn account_settings(&self) -> Result<AccountSettings, ApiError> {
        let usage = self.meta().usage().await.map_err(failed)?;
        let reserved = self.meta().reserved_concurrency().await.map_err(failed)?;
        Ok(AccountSettings {
            unreserved_concurrency: limits::CONCURRENT_EXECUTIONS_MAX.saturating_sub(reserved),
            function_count: usage.functions,
            code_bytes: usage.code_bytes,
        })
    }
}
