//! Names: functions, versions, aliases, qualifiers and their ARNs.
//!
//! What a caller sends is text in one of several forms; [`FunctionReference::parse`] turns it into types once, and
//! inside nobody checks again. **A value of a type of this module is always well-formed.** Patterns and lengths are
//! those of the Lambda service model.
//!
//! Deliberately absent: whether the named thing exists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::limits;
use crate::validation::Violations;

/// The pattern of `FunctionName`, quoted in refusals.
const FUNCTION_PATTERN: &str = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?";
/// The pattern of `Qualifier`, quoted in refusals.
const QUALIFIER_PATTERN: &str = r"(|[a-zA-Z0-9$_-]+)";
/// The pattern of an alias name, quoted in refusals.
const ALIAS_PATTERN: &str = r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)";
/// The pattern of a version, quoted in refusals.
const VERSION_PATTERN: &str = r"(\$LATEST|[0-9]+)";

/// Where this server pretends to be: the parts of an ARN that are the same for all its functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Account, twelve digits.
    pub account: String,
}

impl Default for Home {
    fn default() -> Self {
        Self { region: "us-east-1".into(), account: "000000000000".into() }
    }
}

impl Home {
    /// The ARN of a function without qualifier.
    pub fn arn(&self, function: &FunctionName) -> String {
        format!("arn:aws:lambda:{}:{}:function:{function}", self.region, self.account)
    }

    /// The ARN of a version or alias.
    pub fn qualified_arn(&self, function: &FunctionName, qualifier: impl fmt::Display) -> String {
        format!("{}:{qualifier}", self.arn(function))
    }

    /// The ARN as it was addressed: with the qualifier, if there was one.
    pub fn arn_as_addressed(&self, reference: &FunctionReference) -> String {
        match &reference.qualifier {
            None => self.arn(&reference.function),
            Some(qualifier) => self.qualified_arn(&reference.function, qualifier),
        }
    }
}

/// A bare function name: 1 to 64 letters, digits, hyphens and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

impl FunctionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of an alias: 1 to 128 letters, digits, hyphens and underscores, and not only digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(String);

impl AliasName {
    /// Reads the name that a request gives at `field`.
    ///
    /// # Errors
    /// `ValidationException` when it is too long or holds other characters.
    pub fn parse(text: &str, field: &str) -> Result<Self, ApiError> {
        let mut violations = Violations::default();
        violations.length(field, text, 1, limits::QUALIFIER_CHARS_MAX);
        if !is_word(text) || is_number(text) {
            violations.pattern(field, text, ALIAS_PATTERN);
        }
        violations.into_result()?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `$LATEST` or a published number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Version {
    /// The version that can be changed.
    Latest,
    /// A published version; numbers start at 1.
    Number(u64),
}

impl Version {
    /// Reads the version that a request gives at `field`.
    ///
    /// # Errors
    /// `ValidationException` when it is neither `$LATEST` nor a number.
    pub fn parse(text: &str, field: &str) -> Result<Self, ApiError> {
        text.parse().map_err(|BadName| {
            let mut violations = Violations::default();
            violations.pattern(field, text, VERSION_PATTERN);
            violations.into_error()
        })
    }

    /// Whether this is `$LATEST`.
    pub fn is_latest(self) -> bool {
        self == Self::Latest
    }
}

/// What comes after the name: a version or an alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Qualifier {
    /// `$LATEST` or a number.
    Version(Version),
    /// Anything else.
    Alias(AliasName),
}

impl Qualifier {
    /// Reads the query parameter `Qualifier`.
    ///
    /// # Errors
    /// `ValidationException` when it is too long or holds other characters.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut violations = Violations::default();
        violations.length("qualifier", text, 1, limits::QUALIFIER_CHARS_MAX);
        violations.into_result()?;
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        if is_word(text) {
            return Ok(Self::Alias(AliasName(text.into())));
        }
        let mut violations = Violations::default();
        violations.pattern("qualifier", text, QUALIFIER_PATTERN);
        Err(violations.into_error())
    }
}

/// A function as a request names it, with the qualifier, if any, from either place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionReference {
    /// The function.
    pub function: FunctionName,
    /// The version or alias, when one was named.
    pub qualifier: Option<Qualifier>,
}

impl FunctionReference {
    /// Reads a function name in any accepted form (name, `account:function:name`, ARN; each with an optional
    /// `:qualifier`) together with the query parameter `Qualifier`.
    ///
    /// # Errors
    /// `ValidationException` for a malformed name, `InvalidParameterValueException` for a name that is too long or
    /// for qualifiers that disagree, `ResourceNotFoundException` for another region, `AccessDeniedException` for
    /// another account.
    pub fn parse(home: &Home, text: &str, qualifier: Option<&str>) -> Result<Self, ApiError> {
        let parts = split(text)?;
        if let Some(region) = parts.region.filter(|region| *region != home.region) {
            return Err(ApiError::other_region(region, &home.region));
        }
        if let Some(account) = parts.account.filter(|account| *account != home.account) {
            return Err(ApiError::other_account(account, &home.account));
        }
        if parts.name.chars().count() > limits::FUNCTION_NAME_CHARS_MAX {
            return Err(ApiError::name_too_long(parts.name));
        }
        let derived = parts.qualifier.map(Qualifier::parse).transpose()?;
        let given = qualifier.map(Qualifier::parse).transpose()?;
        if derived.is_some() && given.is_some() && derived != given {
            return Err(ApiError::qualifier_mismatch());
        }
        Ok(Self { function: FunctionName(parts.name.into()), qualifier: given.or(derived) })
    }

    /// The function of a reference that must not carry a qualifier.
    ///
    /// # Errors
    /// `InvalidParameterValueException` when it does.
    pub fn unqualified(self) -> Result<FunctionName, ApiError> {
        match self.qualifier {
            None => Ok(self.function),
            Some(_) => Err(ApiError::unqualified_only()),
        }
    }
}

/// A text that is not a name of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed name")]
pub struct BadName;

impl FromStr for FunctionName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let fits = is_word(text) && text.len() <= limits::FUNCTION_NAME_CHARS_MAX;
        if fits { Ok(Self(text.into())) } else { Err(BadName) }
    }
}

impl FromStr for Version {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text == "$LATEST" {
            return Ok(Self::Latest);
        }
        if !is_number(text) {
            return Err(BadName);
        }
        text.parse().map(Self::Number).map_err(|_| BadName)
    }
}

impl TryFrom<String> for FunctionName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl TryFrom<String> for AliasName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let fits = is_word(&text) && !is_number(&text) && text.len() <= limits::QUALIFIER_CHARS_MAX;
        if fits { Ok(Self(text)) } else { Err(BadName) }
    }
}

impl TryFrom<String> for Version {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0
    }
}

impl From<AliasName> for String {
    fn from(name: AliasName) -> Self {
        name.0
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => out.write_str("$LATEST"),
            Self::Number(number) => write!(out, "{number}"),
        }
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(out),
            Self::Alias(alias) => alias.fmt(out),
        }
    }
}

/// Reads a role ARN: `arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+`. No role is ever assumed here;
/// it is kept because clients send it and expect it back.
pub fn is_role_arn(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("arn:") else { return false };
    let Some((partition, rest)) = rest.split_once(":iam::") else { return false };
    let Some((account, role)) = rest.split_once(":role") else { return false };
    let role_fits = role.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@-_/".contains(c));
    is_partition(partition) && is_account(account) && role_fits && !role.trim_start_matches('/').is_empty()
}

/// The pattern of a role ARN, quoted in refusals.
pub const ROLE_PATTERN: &str = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+";

/// Whether `text` has the form of an account: twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && is_number(text)
}

/// Whether `text` has the form of a region, such as `eu-west-1`, `us-gov-east-1` or `us-isob-east-1`.
pub fn is_region(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('-').collect();
    if parts.len() == 4 {
        let special = parts.remove(1);
        let iso_letter = special.strip_prefix("iso").map(str::as_bytes);
        let iso = matches!(iso_letter, Some([]) | Some([b'a'..=b'z']));
        if special != "gov" && !iso {
            return false;
        }
    }
    let [country, area, number] = parts[..] else { return false };
    country.len() == 2 && is_lower(country) && is_lower(area) && number.len() == 1 && is_number(number)
}

/// The parts of a function name as it was sent.
struct Parts<'a> {
    region: Option<&'a str>,
    account: Option<&'a str>,
    name: &'a str,
    qualifier: Option<&'a str>,
}

/// Takes the optional prefixes off from the left, as the service's pattern does: a segment that could be a prefix is
/// one whenever something is left after it.
fn split(text: &str) -> Result<Parts<'_>, ApiError> {
    if text.chars().count() > limits::FUNCTION_REFERENCE_READ_CHARS_MAX {
        let mut violations = Violations::default();
        violations.length("functionName", text, 1, limits::FUNCTION_REFERENCE_CHARS_MAX);
        return Err(violations.into_error());
    }
    let segments: Vec<&str> = text.split(':').collect();
    let mut rest = &segments[..];
    if let ["arn", partition, "lambda", more @ ..] = rest
        && is_partition(partition)
        && !more.is_empty()
    {
        rest = more;
    }
    let mut take = |fits: fn(&str) -> bool| match rest {
        [first, more @ ..] if !more.is_empty() && fits(first) => {
            rest = more;
            Some(*first)
        }
        _ => None,
    };
    let region = take(is_region);
    let account = take(is_account);
    take(|segment| segment == "function");
    match rest {
        [name] if is_word(name) => Ok(Parts { region, account, name, qualifier: None }),
        [name, qualifier] if is_word(name) && (*qualifier == "$LATEST" || is_word(qualifier)) => {
            Ok(Parts { region, account, name, qualifier: Some(qualifier) })
        }
        _ => {
            let mut violations = Violations::default();
            violations.pattern("functionName", text, FUNCTION_PATTERN);
            Err(violations.into_error())
        }
    }
}

fn is_partition(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix("aws")
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphabetic() || c == '-'))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_lower(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Exception;

    fn check(text: &str, qualifier: Option<&str>, want: Result<(&str, Option<&str>), Exception>) {
        let got = FunctionReference::parse(&Home::default(), text, qualifier);
        let got = got.as_ref().map(|r| (r.function.as_str(), r.qualifier.as_ref().map(Qualifier::to_string)));
        match (got, want) {
            (Ok((name, qualifier)), Ok(want)) => assert_eq!((name, qualifier.as_deref()), want, "{text}"),
            (Err(error), Err(want)) => assert_eq!(error.exception, want, "{text}: {error}"),
            (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn every_accepted_form_is_read() {
        check("hello", None, Ok(("hello", None)));
        check("hello:7", None, Ok(("hello", Some("7"))));
        check("hello", Some("$LATEST"), Ok(("hello", Some("$LATEST"))));
        check("hello:live", Some("live"), Ok(("hello", Some("live"))));
        check("000000000000:function:hello", None, Ok(("hello", None)));
        check("000000000000:function:hello:$LATEST", None, Ok(("hello", Some("$LATEST"))));
        check("function:hello", None, Ok(("hello", None)));
        check("function:7", None, Ok(("7", None)));
        check("function", None, Ok(("function", None)));
        check("arn:aws:lambda:us-east-1:000000000000:function:hello", None, Ok(("hello", None)));
        check("arn:aws-cn:lambda:us-east-1:000000000000:function:hello:p", None, Ok(("hello", Some("p"))));
    }

    #[test]
    fn malformed_and_foreign_names_are_refused() {
        check("", None, Err(Exception::Validation));
        check("a b", None, Err(Exception::Validation));
        check("../etc/passwd", None, Err(Exception::Validation));
        check("hello:", None, Err(Exception::Validation));
        check("hello:a:b", None, Err(Exception::Validation));
        check("hello", Some(""), Err(Exception::Validation));
        check("hello", Some("a b"), Err(Exception::Validation));
        check("hello:1", Some("2"), Err(Exception::InvalidParameterValue));
        check(&"a".repeat(65), None, Err(Exception::InvalidParameterValue));
        check(&"a".repeat(300), None, Err(Exception::Validation));
        check("arn:aws:lambda:us-west-2:000000000000:function:hello", None, Err(Exception::ResourceNotFound));
        check("123456789012:function:hello", None, Err(Exception::AccessDenied));
    }

    #[test]
    fn roles_and_regions() {
        assert!(is_role_arn("arn:aws:iam::123456789012:role/service/lambda-ex"));
        assert!(!is_role_arn("arn:aws:iam::12345:role/x"));
        assert!(!is_role_arn("lambda-ex"));
        assert!(is_region("us-gov-east-1") && is_region("us-iso-east-1") && is_region("us-isob-east-1"));
        assert!(!is_region("us-foo-east-1") && !is_region("useast1"));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,300}", qualifier in proptest::option::of(".{0,140}")) {
            let _ = FunctionReference::parse(&Home::default(), &text, qualifier.as_deref());
        }

        #[test]
        fn an_arn_leads_back_to_its_parts(name in "[a-zA-Z0-9_-]{1,64}", alias in "[a-z][a-zA-Z0-9_-]{0,60}", number in 1u64..) {
            let home = Home::default();
            let function: FunctionName = name.parse().expect("the pattern is that of a name");
            for qualifier in [
                Qualifier::Version(Version::Latest),
                Qualifier::Version(Version::Number(number)),
                Qualifier::Alias(AliasName(alias.clone())),
            ] {
                let arn = home.qualified_arn(&function, &qualifier);
                let back = FunctionReference::parse(&home, &arn, None).expect("an ARN of ours");
                prop_assert_eq!(&back.function, &function);
                prop_assert_eq!(home.arn_as_addressed(&back), arn);
                prop_assert_eq!(back.qualifier, Some(qualifier));
            }
        }

        #[test]
        fn versions_are_written_as_they_are_read(number: u64) {
            let version = Version::Number(number);
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }
    }
}
