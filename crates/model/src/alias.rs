//! Aliases: a name for a version, with at most one second version that gets a share of the invocations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ApiError;
use crate::names::{AliasName, FunctionName, Version};
use crate::validation::Violations;

/// A stored alias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AliasRecord {
    /// The function.
    pub function: FunctionName,
    /// The alias.
    pub name: AliasName,
    /// The main version.
    pub version: Version,
    /// Free text.
    pub description: String,
    /// The second version and its share.
    pub routing: Option<Share>,
    /// Changes with every update.
    pub revision_id: Uuid,
}

/// A published version and the share of invocations that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Always a published one.
    pub version: u64,
    /// 0.0 to 1.0.
    pub weight: f64,
}

impl AliasRecord {
    /// The version for one invocation; `die` is uniform in [0, 1).
    pub fn choose(&self, die: f64) -> Version {
        match self.routing {
            Some(share) if die < share.weight => Version::Number(share.version),
            _ => self.version,
        }
    }

    /// Every version that the alias may lead to.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        std::iter::once(self.version).chain(self.routing.map(|share| Version::Number(share.version)))
    }
}

/// Reads `RoutingConfig.AdditionalVersionWeights` for an alias of `main`. Empty weights mean none.
///
/// # Errors
/// `ValidationException` for malformed entries, `InvalidParameterValueException` for what the service refuses.
pub fn parse_routing(main: Version, weights: &BTreeMap<String, f64>) -> Result<Option<Share>, ApiError> {
    let mut violations = Violations::default();
    for (version, weight) in weights {
        if Version::parse(version, "version").map_or(true, Version::is_latest) {
            violations.sentence(
                "Value at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy \
                 constraint: [Member must satisfy regular expression pattern: [0-9]+]",
            );
        }
        if !(0.0..=1.0).contains(weight) {
            violations.sentence(
                "Value at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy \
                 constraint: [Member must have value between 0.0 and 1.0]",
            );
        }
    }
    violations.into_result()?;
    if weights.len() > 1 {
        return Err(ApiError::too_many_weights());
    }
    let Some((version, weight)) = weights.iter().next() else { return Ok(None) };
    let Version::Number(number) = Version::parse(version, "version")? else { return Ok(None) };
    match main {
        Version::Latest => Err(ApiError::weights_on_latest()),
        Version::Number(main) if main == number => {
            Err(ApiError::weight_for_same_version(Version::Number(number)))
        }
        Version::Number(_) => Ok(Some(Share { version: number, weight: *weight })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(main: &str, weights: &[(&str, f64)], want: Result<Option<u64>, &str>) {
        let weights = weights.iter().map(|(version, weight)| (version.to_string(), *weight)).collect();
        let main = main.parse().expect("a version");
        match (parse_routing(main, &weights), want) {
            (Ok(got), Ok(want)) => assert_eq!(got.map(|share| share.version), want),
            (Err(error), Err(want)) => assert!(error.message.contains(want), "{error}"),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn weights_follow_the_rules() {
        check("1", &[], Ok(None));
        check("1", &[("2", 0.5)], Ok(Some(2)));
        check("1", &[("1", 0.5)], Err("already included"));
        check("1", &[("2", 0.5), ("3", 0.1)], Err("cannot be greater than 1"));
        check("$LATEST", &[("2", 0.5)], Err("$LATEST is not supported"));
        check("1", &[("2", 1.5)], Err("between 0.0 and 1.0"));
        check("1", &[("2", f64::NAN)], Err("between 0.0 and 1.0"));
        check("1", &[("live", 0.5)], Err("[0-9]+"));
    }

    #[test]
    fn the_die_decides() {
        let alias = AliasRecord {
            function: "f".parse().expect("a name"),
            name: AliasName::parse("live", "name").expect("a name"),
            version: Version::Number(1),
            description: String::new(),
            routing: Some(Share { version: 2, weight: 0.25 }),
            revision_id: Uuid::nil(),
        };
        assert_eq!(alias.choose(0.2), Version::Number(2));
        assert_eq!(alias.choose(0.25), Version::Number(1));
        assert_eq!(alias.versions().count(), 2);
    }
}
