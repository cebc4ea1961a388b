//! The stored record of a function: one for `$LATEST` and one for each published version.
//!
//! The record is what the metadata keeps, as JSON beside a format number that can be read first (crate `meta`). New
//! members need a serde default; a member that changes its meaning needs a new format number.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::lifecycle::{State, Status};
use crate::names::{FunctionName, Home, Version};
use crate::settings::{ApplyOn, Settings};

/// The deployment package of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// SHA-256 of the package as uploaded.
    pub sha256: Sha256,
    /// Size of the package as uploaded, in bytes.
    pub size_bytes: u64,
}

/// A SHA-256 digest: hex as a name on disk and in the database, base64 on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// As the member `CodeSha256` carries it.
    pub fn base64(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// As 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || digits.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.hex()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_hex(&text).ok_or("a SHA-256 digest is 64 lower-case hex digits")
    }
}

/// `$LATEST` or a published version of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// The function.
    pub name: FunctionName,
    /// Which version this is.
    pub version: Version,
    /// Its configuration.
    pub settings: Settings,
    /// Its code.
    pub code: Code,
    /// Changes with every step of the record, also when work in the background completes.
    pub revision_id: Uuid,
    /// Changes with code or configuration only: environments with equal ids may stand in for each other.
    pub content_id: Uuid,
    /// When code or configuration changed last.
    pub last_modified: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// Of a published version: what `$LATEST` had as description, when PublishVersion gave another one.
    #[serde(default)]
    pub latest_description: Option<String>,
    /// Of a version published with SnapStart: its snapshot, being built or ready.
    #[serde(default)]
    pub snapshot: Option<Uuid>,
}

impl FunctionRecord {
    /// The log group: the configured one or `/aws/lambda/<name>`.
    pub fn log_group(&self) -> String {
        match &self.settings.logging.log_group {
            Some(group) => group.clone(),
            None => format!("/aws/lambda/{}", self.name),
        }
    }

    /// The ARN of this very version.
    pub fn qualified_arn(&self, home: &Home) -> String {
        home.qualified_arn(&self.name, self.version)
    }

    /// The snapshot to restore from, once it is durable.
    pub fn ready_snapshot(&self) -> Option<Uuid> {
        self.snapshot.filter(|_| self.status.state == State::Active)
    }

    /// Whether publishing `latest` would only repeat this version (Lambda Developer Guide, configuration-versions). A
    /// description of its own does not make a version new. A version that failed is not repeated: publishing again is
    /// how its owner tries again.
    pub fn is_same_as(&self, latest: &FunctionRecord) -> bool {
        let mut source = self.settings.clone();
        if let Some(own) = &self.latest_description {
            source.description.clone_from(own);
        }
        self.status.state != State::Failed && self.code == latest.code && source == latest.settings
    }

    /// A version of this `$LATEST`, to be numbered when it is stored. `ids` are fresh random UUIDs: revision and
    /// snapshot.
    pub fn to_version(&self, description: Option<String>, status: PublishStatus, ids: [Uuid; 2]) -> Self {
        let snap_start = self.settings.snap_start == ApplyOn::PublishedVersions;
        let status = match (status, snap_start) {
            (PublishStatus::WithFunction, _) => Status::created(),
            (PublishStatus::Alone, true) => Status::snapshotting(),
            (PublishStatus::Alone, false) => Status::published(),
        };
        let mut version = Self {
            revision_id: ids[0],
            content_id: ids[0],
            status,
            latest_description: None,
            snapshot: snap_start.then_some(ids[1]),
            ..self.clone()
        };
        if let Some(description) = description {
            version.latest_description =
                Some(std::mem::replace(&mut version.settings.description, description));
        }
        version
    }
}

/// How a version comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishStatus {
    /// By CreateFunction with `Publish`: it is Pending like its function.
    WithFunction,
    /// By PublishVersion or an update with `Publish`.
    Alone,
}

/// What is kept of a function apart from its versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionExtras {
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// `ReservedConcurrentExecutions`.
    #[serde(default)]
    pub reserved_concurrency: Option<u32>,
}

/// A time in the form of the member `LastModified`, such as `2026-03-09T10:11:12.345+0000`.
pub fn format_last_modified(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_digests_have_their_forms() {
        let time: Timestamp = "2026-03-09T10:11:12.3456Z".parse().expect("a time");
        assert_eq!(format_last_modified(time), "2026-03-09T10:11:12.345+0000");
        let digest = Sha256([0xab; 32]);
        assert_eq!(Sha256::from_hex(&digest.hex()), Some(digest));
        assert_eq!(Sha256::from_hex(&"+1".repeat(32)), None);
        assert_eq!(Sha256::from_hex("é"), None);
        assert_eq!(digest.base64().len(), 44);
    }
}
