//! The two names that come from outside: of a snapshot and of a key scope. Parsed once, trusted from then on:
//! a [`SnapshotId`] is safe as a file name.
//!
//! Deliberately absent: any meaning. Which function or version a snapshot belongs to is not known here.

use std::fmt;
use std::str::FromStr;

use crate::limits::{SCOPE_BYTES_MAX, SNAPSHOT_ID_BYTES_MAX};

/// The name of a snapshot: 1 to 64 ASCII letters, digits, `-` and `_`. A UUID in practice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > SNAPSHOT_ID_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(NameError::SnapshotId { text: shorten(text) });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A key scope: snapshots of one scope are sealed under keys of that scope and share equal chunks; nothing is
/// shared, and nothing can be compared, across scopes. Any text of 1 to 2048 bytes: the ARN of a KMS key, for
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(String);

impl Scope {
    /// The scope of everything for which no key was asked.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > SCOPE_BYTES_MAX {
            return Err(NameError::Scope { bytes: text.len() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the name of a snapshot.
    #[error("snapshot name {text:?} is not 1 to 64 ASCII letters, digits, '-' and '_'")]
    SnapshotId {
        /// The beginning of what was given.
        text: String,
    },
    /// Not the name of a key scope.
    #[error("name of a key scope has {bytes} bytes: it must have 1 to {SCOPE_BYTES_MAX}")]
    Scope {
        /// Its length.
        bytes: usize,
    },
}

fn shorten(text: &str) -> String {
    text.chars().take(SNAPSHOT_ID_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_name_is_safe_as_a_file_name() {
        for good in ["a", "7f0c1c0e-9e4c-4f0e-8d56-0a3b8cf2b3d1", "with_underscore"] {
            assert_eq!(good.parse::<SnapshotId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a.b", "a\0b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad:?} was accepted");
        }
    }
}
