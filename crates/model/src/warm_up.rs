//! Warm-up events: what a function is given before its snapshot, so that what only a first request does (imports inside
//! the handler, compilation, caches) is in the snapshot.
//!
//! They are declared by two environment variables, which belong to the configuration and are therefore as versioned as
//! the snapshot itself. Tags would not be: they belong to the function, and a changed tag makes no new version.
//! Deliberately absent: who delivers the events (`platform::fleet`).

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use crate::error::ApiError;
use crate::limits::WARM_UP_EVENTS_MAX;

/// The variable that says how many events are run.
pub const EVENTS_VARIABLE: &str = "REKINDLE_WARM_UP_EVENTS";
/// The variable that holds the event, as JSON.
pub const EVENT_VARIABLE: &str = "REKINDLE_WARM_UP_EVENT";
/// The event when none is given.
const EVENT_DEFAULT: &str = "{}";

/// The warm-up that a function declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmUp {
    /// How many events are run, from 1 to [`WARM_UP_EVENTS_MAX`].
    pub events: u32,
    /// The payload of each, valid JSON.
    pub event: String,
}

impl WarmUp {
    /// Reads the declaration out of a function's variables; `None` when it declares no events.
    ///
    /// # Errors
    /// `InvalidParameterValueException` for a count that is no number or too large, for an event that is no JSON, and
    /// for an event without a count.
    pub fn of(variables: &BTreeMap<String, String>) -> Result<Option<Self>, ApiError> {
        let event = variables.get(EVENT_VARIABLE);
        let Some(count) = variables.get(EVENTS_VARIABLE) else {
            return match event {
                None => Ok(None),
                Some(_) => Err(ApiError::invalid(format!(
                    "{EVENT_VARIABLE} is given without {EVENTS_VARIABLE}: set that to the number of warm-up events"
                ))),
            };
        };
        let events = number(count).ok_or_else(|| {
            ApiError::invalid(format!(
                "{EVENTS_VARIABLE} must be a whole number from 0 to {WARM_UP_EVENTS_MAX}, the number of warm-up events"
            ))
        })?;
        let event = event.map_or(EVENT_DEFAULT, String::as_str);
        serde_json::from_str::<IgnoredAny>(event)
            .map_err(|error| ApiError::invalid(format!("{EVENT_VARIABLE} must be JSON: {error}")))?;
        Ok((events > 0).then(|| Self { events, event: event.to_owned() }))
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|count| digits && *count <= WARM_UP_EVENTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(events: Option<&str>, event: Option<&str>) -> Result<Option<(u32, String)>, String> {
        let given = [(EVENTS_VARIABLE, events), (EVENT_VARIABLE, event)];
        let variables = given
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let warm_up = WarmUp::of(&variables).map_err(|error| error.message)?;
        Ok(warm_up.map(|warm_up| (warm_up.events, warm_up.event)))
    }

    #[test]
    fn a_declaration_is_a_count_and_an_event() {
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(of(Some("0"), None), Ok(None));
        assert_eq!(of(Some("3"), None), Ok(Some((3, "{}".into()))));
        assert_eq!(of(Some("1000"), Some("[1, null]")), Ok(Some((1000, "[1, null]".into()))));
    }

    #[test]
    fn bad_declarations_are_refused_with_what_to_do() {
        for count in ["", "many", "-1", "+1", "1.5", "1001", "99999999999"] {
            assert!(of(Some(count), None).unwrap_err().contains("from 0 to 1000"), "{count}");
        }
        assert!(of(Some("1"), Some("{")).unwrap_err().starts_with("REKINDLE_WARM_UP_EVENT must be JSON: "));
        assert!(of(None, Some("{}")).unwrap_err().contains("without REKINDLE_WARM_UP_EVENTS"));
    }
}
