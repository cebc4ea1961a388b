//! The life cycle of a function and of a version: events in, new status out.
//!
//! One pure function, [`Status::after`], holds every step; who drives it (`platform::control`) only stores what comes
//! out. The values are those that the SDK waiters look for (Lambda Developer Guide, functions-states):
//!
//! | event | state | last update |
//! | --- | --- | --- |
//! | created | Pending, Creating | absent |
//! | published with SnapStart | Pending, Creating | InProgress |
//! | published without | Active | Successful |
//! | updated | unchanged | InProgress, Creating |
//! | settled | Active | Successful |
//! | failed, was Pending | Failed | Failed |
//! | failed, was being updated | unchanged | Failed |
//!
//! Deliberately absent: Inactive. AWS takes snapshots away that were not used for 14 days; this server keeps them.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::limits;

/// The member `State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Being made; cannot be invoked.
    Pending,
    /// Can be invoked.
    Active,
    /// Could not be made.
    Failed,
}

impl State {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Failed => "Failed",
        }
    }
}

/// The member `LastUpdateStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastUpdate {
    /// Under way.
    InProgress,
    /// Done.
    Successful,
    /// Given up; what was there before keeps serving.
    Failed,
}

impl LastUpdate {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
        }
    }
}

/// The members `StateReasonCode` and `LastUpdateStatusReasonCode`, as far as this server has cause to send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReasonCode {
    /// Work is under way.
    Creating,
    /// The function's own code failed.
    FunctionError,
    /// Initialization took too long.
    #[serde(rename = "FunctionError.InitTimeout")]
    InitTimeout,
    /// The runtime failed or exited during initialization.
    #[serde(rename = "FunctionError.RuntimeInitError")]
    RuntimeInitError,
    /// This server failed.
    InternalError,
}

impl ReasonCode {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::FunctionError => "FunctionError",
            Self::InitTimeout => "FunctionError.InitTimeout",
            Self::RuntimeInitError => "FunctionError.RuntimeInitError",
            Self::InternalError => "InternalError",
        }
    }
}

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people.
    pub text: String,
}

impl Reason {
    /// A reason whose text is cut to [`limits::STATE_REASON_CHARS_MAX`].
    pub fn new(code: ReasonCode, text: &str) -> Self {
        Self { code, text: text.chars().take(limits::STATE_REASON_CHARS_MAX).collect() }
    }

    fn creating() -> Self {
        Self::new(ReasonCode::Creating, "The function is being created.")
    }
}

/// Where a function or version stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it can be invoked.
    pub state: State,
    /// Why, when it cannot.
    pub state_reason: Option<Reason>,
    /// How the last change went; `None` while the first one is under way.
    pub last_update: Option<LastUpdate>,
    /// Why, when it is not done.
    pub last_update_reason: Option<Reason>,
}

/// What happens to a function or version after it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its code or configuration was changed.
    Updated,
    /// The work in the background is done.
    Settled,
    /// The work in the background was given up.
    Failed(Reason),
}

/// An event that cannot happen in this status. The driver's view is out of date: it reads again and gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event does not fit the state {}", .0.as_str())]
pub struct Misfit(pub State);

impl Status {
    /// A function that was just created, and a version that is published together with it.
    pub fn created() -> Self {
        Self {
            state: State::Pending,
            state_reason: Some(Reason::creating()),
            last_update: None,
            last_update_reason: None,
        }
    }

    /// A version that was just published and has no snapshot to wait for.
    pub fn published() -> Self {
        Self {
            state: State::Active,
            state_reason: None,
            last_update: Some(LastUpdate::Successful),
            last_update_reason: None,
        }
    }

    /// A version that was just published and whose snapshot is to be made.
    pub fn snapshotting() -> Self {
        Self {
            state: State::Pending,
            state_reason: Some(Reason::creating()),
            last_update: Some(LastUpdate::InProgress),
            last_update_reason: Some(Reason::creating()),
        }
    }

    /// The status after `event`.
    ///
    /// # Errors
    /// [`Misfit`] when the event cannot happen now.
    pub fn after(&self, event: Event) -> Result<Self, Misfit> {
        let updating = self.last_update == Some(LastUpdate::InProgress);
        match (event, self.state) {
            (Event::Updated, State::Active) if !updating => Ok(Self {
                state: self.state,
                state_reason: self.state_reason.clone(),
                last_update: Some(LastUpdate::InProgress),
                last_update_reason: Some(Reason::creating()),
            }),
            (Event::Settled, State::Pending) => Ok(Self::published()),
            (Event::Settled, State::Active) if updating => Ok(Self::published()),
            (Event::Failed(reason), State::Pending) => Ok(Self {
                state: State::Failed,
                state_reason: Some(reason.clone()),
                last_update: Some(LastUpdate::Failed),
                last_update_reason: Some(reason),
            }),
            (Event::Failed(reason), State::Active) if updating => Ok(Self {
                state: self.state,
                state_reason: self.state_reason.clone(),
                last_update: Some(LastUpdate::Failed),
                last_update_reason: Some(reason),
            }),
            (_, state) => Err(Misfit(state)),
        }
    }

    /// Whether work in the background is still due: after a restart it is taken up again.
    pub fn is_unfinished(&self) -> bool {
        self.state == State::Pending || self.last_update == Some(LastUpdate::InProgress)
    }

    /// Whether it can be invoked.
    ///
    /// # Errors
    /// `ResourceConflictException` that names the state.
    pub fn check_invokable(&self) -> Result<(), ApiError> {
        match self.state {
            State::Active => Ok(()),
            state => Err(ApiError::wrong_state(state.as_str())),
        }
    }

    /// Whether `$LATEST` can be updated or published; `arn` is the function's.
    ///
    /// # Errors
    /// `ResourceConflictException`, in the words for a function being created or for one being updated.
    pub fn check_changeable(&self, arn: &str) -> Result<(), ApiError> {
        self.check_invokable()?;
        if self.is_unfinished() {
            return Err(ApiError::update_in_progress(arn));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Event {
        Event::Failed(Reason::new(ReasonCode::InternalError, "disk full"))
    }

    #[test]
    fn a_function_becomes_active_and_is_updated() {
        let status = Status::created();
        assert!(status.check_invokable().is_err());
        let status = status.after(Event::Settled).expect("pending");
        assert_eq!(status, Status::published());
        let status = status.after(Event::Updated).expect("active");
        assert!(status.check_invokable().is_ok(), "the old code keeps serving");
        assert!(
            status
                .check_changeable("arn")
                .expect_err("updating")
                .message
                .contains("An update is in progress")
        );
        assert_eq!(status.after(Event::Settled), Ok(Status::published()));
    }

    #[test]
    fn a_failed_update_leaves_the_function_active_and_changeable() {
        let updating = Status::published().after(Event::Updated).expect("active");
        let failed = updating.after(failure()).expect("updating");
        assert_eq!((failed.state, failed.last_update), (State::Active, Some(LastUpdate::Failed)));
        assert!(failed.check_changeable("arn").is_ok());
    }

    #[test]
    fn a_failed_snapshot_is_final() {
        let failed = Status::snapshotting().after(failure()).expect("pending");
        assert_eq!(failed.state, State::Failed);
        for event in [Event::Settled, Event::Updated, failure()] {
            assert_eq!(failed.after(event), Err(Misfit(State::Failed)));
        }
    }

    #[test]
    fn late_events_do_not_fit() {
        assert_eq!(Status::published().after(Event::Settled), Err(Misfit(State::Active)));
        assert_eq!(Status::published().after(failure()), Err(Misfit(State::Active)));
    }
}
