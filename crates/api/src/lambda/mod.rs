//! The operations of the Lambda API: JSON in, `platform::control`, JSON out. One file per group.

mod account;
mod aliases;
mod call;
mod concurrency;
mod configuration;
mod functions;
mod invoke;
mod requests;
mod tags;
mod versions;

use axum::response::Response;
use model::error::ApiError;

pub(crate) use call::Call;

use crate::routes::Operation;

/// Carries out the operation of a call.
pub(crate) async fn dispatch(call: Call) -> Result<Response, ApiError> {
    match call.route.operation {
        Operation::CreateAlias => aliases::create(call).await,
        Operation::CreateFunction => functions::create(call).await,
        Operation::DeleteAlias => aliases::delete(call).await,
        Operation::DeleteFunction => functions::delete(call).await,
        Operation::DeleteFunctionConcurrency => concurrency::delete(call).await,
        Operation::GetAccountSettings => account::settings(call).await,
        Operation::GetAlias => aliases::get(call).await,
        Operation::GetFunction => functions::get(call).await,
        Operation::GetFunctionCodeSigningConfig => account::code_signing(call).await,
        Operation::GetFunctionConcurrency => concurrency::get(call).await,
        Operation::GetFunctionConfiguration => functions::get_configuration(call).await,
        Operation::GetFunctionRecursionConfig => account::recursion(call).await,
        Operation::GetPolicy => account::policy(call).await,
        Operation::GetRuntimeManagementConfig => account::runtime_management(call).await,
        Operation::Invoke => invoke::invoke(call).await,
        Operation::ListAliases => aliases::list(call).await,
        Operation::ListFunctions => functions::list(call).await,
        Operation::ListTags => tags::list(call).await,
        Operation::ListVersionsByFunction => versions::list(call).await,
        Operation::PublishVersion => versions::publish(call).await,
        Operation::PutFunctionConcurrency => concurrency::put(call).await,
        Operation::TagResource => tags::tag(call).await,
        Operation::UntagResource => tags::untag(call).await,
        Operation::UpdateAlias => aliases::update(call).await,
        Operation::UpdateFunctionCode => functions::update_code(call).await,
        Operation::UpdateFunctionConfiguration => functions::update_configuration(call).await,
    }
}
