//! The front end's checks, which come before the service's own: type, length, range, enum and pattern.
//!
//! AWS collects all of them in one `ValidationException`; so does [`Violations`]. Deliberately absent: rules that
//! need to know anything beyond the one value.

use crate::error::{ApiError, Exception};

/// What is wrong with a request, in the order in which it was found.
#[derive(Debug, Default)]
pub struct Violations(Vec<String>);

impl Violations {
    /// A required member is missing.
    pub fn missing(&mut self, field: &str) {
        self.0.push(format!("Value null at '{field}' failed to satisfy constraint: Member must not be null"));
    }

    /// The text must be within these lengths, in characters.
    pub fn length(&mut self, field: &str, text: &str, min: usize, max: usize) {
        let chars = text.chars().count();
        if chars < min {
            self.add(field, text, &format!("Member must have length greater than or equal to {min}"));
        } else if chars > max {
            self.add(field, text, &format!("Member must have length less than or equal to {max}"));
        }
    }

    /// The number must be within this range.
    pub fn range<N: PartialOrd + std::fmt::Display>(&mut self, field: &str, value: N, min: N, max: N) {
        if value < min {
            let rule = format!("Member must have value greater than or equal to {min}");
            self.add(field, value, &rule);
        } else if value > max {
            let rule = format!("Member must have value less than or equal to {max}");
            self.add(field, value, &rule);
        }
    }

    /// The text is none of these values.
    pub fn not_in(&mut self, field: &str, text: &str, values: &[&str]) {
        self.add(field, text, &format!("Member must satisfy enum value set: [{}]", values.join(", ")));
    }

    /// The text does not match this pattern.
    pub fn pattern(&mut self, field: &str, text: &str, pattern: &str) {
        self.add(field, text, &format!("Member must satisfy regular expression pattern: {pattern}"));
    }

    /// The value breaks this rule.
    pub fn add(&mut self, field: &str, value: impl std::fmt::Display, rule: &str) {
        self.0.push(format!("Value '{value}' at '{field}' failed to satisfy constraint: {rule}"));
    }

    /// A complete sentence for what the other forms cannot say.
    pub fn sentence(&mut self, sentence: impl Into<String>) {
        self.0.push(sentence.into());
    }

    /// `Ok` when nothing is wrong.
    ///
    /// # Errors
    /// `ValidationException` with everything that was found.
    pub fn into_result(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    /// The exception for what was found.
    pub fn into_error(self) -> ApiError {
        let count = self.0.len();
        let noun = if count == 1 { "error" } else { "errors" };
        let message = format!("{count} validation {noun} detected: {}", self.0.join("; "));
        ApiError::new(Exception::Validation, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_collected_in_aws_words() {
        let mut violations = Violations::default();
        violations.not_in("snapStart.applyOn", "x", &["PublishedVersions", "None"]);
        let text = violations.into_error().message;
        assert_eq!(
            text,
            "1 validation error detected: Value 'x' at 'snapStart.applyOn' failed to satisfy constraint: Member must \
             satisfy enum value set: [PublishedVersions, None]"
        );
        let mut violations = Violations::default();
        violations.range("timeout", 901, 1, 900);
        violations.missing("role");
        assert_eq!(
            violations.into_error().message,
            "2 validation errors detected: Value '901' at 'timeout' failed to satisfy constraint: Member must have \
             value less than or equal to 900; Value null at 'role' failed to satisfy constraint: Member must not be \
             null"
        );
    }
}
