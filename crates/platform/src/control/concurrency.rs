//! How many invocations run at one time: counting them, and reserving a share for one function.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::error::ApiError;
use model::function::FunctionExtras;
use model::limits;
use model::names::{FunctionName, FunctionReference};
use model::validation::Violations;

use super::{Control, failed};

/// Running invocations, in all and by function.
#[derive(Default)]
pub(super) struct Concurrency {
    all: Arc<AtomicU32>,
    functions: Mutex<HashMap<FunctionName, Arc<AtomicU32>>>,
    /// Changes of extras are read-modify-write; one at a time.
    pub(super) extras: tokio::sync::Mutex<()>,
}

/// An invocation that runs; it is counted until this is dropped.
pub(super) struct Running([Arc<AtomicU32>; 2]);

impl Concurrency {
    /// The counter of a function.
    pub(super) fn counter(&self, name: &FunctionName) -> Arc<AtomicU32> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.entry(name.clone()).or_default().clone()
    }

    /// Forgets a function; invocations that still run keep their counter.
    pub(super) fn forget(&self, name: &FunctionName) {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Counts one more invocation.
    ///
    /// # Errors
    /// `TooManyRequestsException` when the function's reservation or the account's limit is used up.
    pub(super) fn enter(
        &self,
        function: &Arc<AtomicU32>,
        reserved: Option<u32>,
    ) -> Result<Running, ApiError> {
        let running = Running([self.all.clone(), function.clone()]);
        let all = self.all.fetch_add(1, Ordering::Relaxed);
        let own = function.fetch_add(1, Ordering::Relaxed);
        if reserved.is_some_and(|reserved| own >= reserved) {
            return Err(ApiError::throttled("ReservedFunctionConcurrentInvocationLimitExceeded"));
        }
        if all >= limits::CONCURRENT_EXECUTIONS_MAX {
            return Err(ApiError::throttled("ConcurrentInvocationLimitExceeded"));
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for counter in &self.0 {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Control {
    /// What is reserved for a function.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub async fn reserved_concurrency(&self, reference: FunctionReference) -> Result<Option<u32>, ApiError> {
        let name = reference.unqualified()?;
        let extras = self.meta().extras(&name).await.map_err(failed)?;
        let extras = extras.ok_or_else(|| ApiError::function_not_found(self.home().arn(&name)))?;
        Ok(extras.reserved_concurrency)
    }

    /// Reserves concurrency for a function, or gives it back.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidParameterValueException` when too little would stay unreserved.
    pub async fn reserve_concurrency(
        &self,
        reference: FunctionReference,
        reserve: Option<i64>,
    ) -> Result<(), ApiError> {
        let name = reference.unqualified()?;
        let mut violations = Violations::default();
        violations.range("reservedConcurrentExecutions", reserve.unwrap_or(0), 0, i64::from(i32::MAX));
        violations.into_result()?;
        let reserve = reserve.map(|reserve| u32::try_from(reserve).unwrap_or(u32::MAX));
        let others = self.meta().reserved_concurrency().await.map_err(failed)?;
        self.change_extras(&name, |extras| {
            let others = others.saturating_sub(extras.reserved_concurrency.unwrap_or(0));
            let most = limits::CONCURRENT_EXECUTIONS_MAX - limits::UNRESERVED_EXECUTIONS_MIN;
            if others.saturating_add(reserve.unwrap_or(0)) > most {
                return Err(ApiError::reservation_too_large());
            }
            extras.reserved_concurrency = reserve;
            Ok(())
        })
        .await
    }

    /// Changes what is kept of a function apart from its versions.
    pub(super) async fn change_extras(
        &self,
        name: &FunctionName,
        change: impl FnOnce(&mut FunctionExtras) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let _alone = self.0.concurrency.extras.lock().await;
        let extras = self.meta().extras(name).await.map_err(failed)?;
        let mut extras = extras.ok_or_else(|| ApiError::function_not_found(self.home().arn(name)))?;
        change(&mut extras)?;
        self.meta().set_extras(name, &extras).await.map_err(self.write_error(name))?;
        self.changed(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_a_limit_and_ends_with_the_invocation() {
        let concurrency = Concurrency::default();
        let counter = concurrency.counter(&"f".parse().expect("a name"));
        let first = concurrency.enter(&counter, Some(1)).expect("one is reserved");
        let refused = concurrency.enter(&counter, Some(1)).map(drop).expect_err("one is too many");
        assert_eq!(refused.reason, Some("ReservedFunctionConcurrentInvocationLimitExceeded"));
        drop(first);
        assert!(concurrency.enter(&counter, Some(1)).is_ok());
        assert!(concurrency.enter(&counter, Some(0)).is_err(), "zero blocks the function");
        assert_eq!(counter.load(Ordering::Relaxed), 0, "refused and finished ones are not counted");
    }
}
