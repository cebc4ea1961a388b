//! The credentials of function code: who issues them and how a session serves them.
//!
//! A normal environment gets a triple in its variables. An environment for SnapStart gets none (they would be in the
//! snapshot): it asks the credentials endpoint of its Runtime API with a token instead, and the session answers with
//! credentials of this environment's own, issued when they are first asked for and again before they expire.

use std::time::Duration;

use host::protocol::SnapshotId;
use jiff::Timestamp;
use rand::Rng;
use sha2::{Digest, Sha256};

use crate::version::VersionSpec;

/// How long issued credentials are valid; AWS roles for functions are good for at most 12 hours.
const VALID: Duration = Duration::from_secs(12 * 3600);

/// Credentials that expire sooner than this are issued anew when they are asked for.
const RENEW_BEFORE: Duration = Duration::from_secs(15 * 60);

/// Temporary credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `AccessKeyId`, such as `ASIA…`.
    pub access_key_id: String,
    /// `SecretAccessKey`.
    pub secret_access_key: String,
    /// `Token`.
    pub session_token: String,
    /// `Expiration`.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Issues credentials for the environments of a version.
pub trait CredentialsSource: Send + Sync + 'static {
    /// New credentials for one environment. Called off the response path; must not block.
    fn issue(&self, spec: &VersionSpec) -> Credentials;
}

/// Issues random credentials that open nothing: for functions that need some to be present, such as boto3 clients of
/// local services.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomCredentials;

impl CredentialsSource for RandomCredentials {
    fn issue(&self, _: &VersionSpec) -> Credentials {
        Credentials {
            access_key_id: format!("ASIA{}", letters(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")),
            secret_access_key: letters(40, ALPHANUMERIC),
            session_token: letters(356, ALPHANUMERIC),
            expires: Timestamp::now() + VALID,
        }
    }
}

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn letters(count: usize, alphabet: &[u8]) -> String {
    let mut random = rand::rng();
    (0..count).map(|_| char::from(alphabet[random.random_range(0..alphabet.len())])).collect()
}

/// The token of the credentials endpoint, as it is in the variables of every environment of this snapshot.
///
/// It follows from the snapshot's name, so that no restart of the server can lose it. The name is random and only the
/// server knows it; the token does not give it away.
pub(crate) fn endpoint_token(snapshot: &SnapshotId) -> String {
    let digest =
        Sha256::new().chain_update(b"rekindle credentials endpoint\0").chain_update(&snapshot.0).finalize();
    let bytes: [u8; 16] = digest[..16].try_into().expect("a SHA-256 digest has 32 bytes");
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// What a session needs to answer the credentials endpoint.
pub(crate) struct Vault {
    token: String,
    issue: Box<dyn Fn() -> Credentials + Send>,
    current: Option<Credentials>,
}

impl Vault {
    pub(crate) fn new(token: String, issue: impl Fn() -> Credentials + Send + 'static) -> Self {
        Self { token, issue: Box::new(issue), current: None }
    }

    /// The credentials behind `token`, fresh enough to be used; `None` for a wrong token.
    pub(crate) fn open(&mut self, token: &str, now: Timestamp) -> Option<Credentials> {
        if token != self.token {
            return None;
        }
        let fresh = self.current.take().filter(|credentials| credentials.expires > now + RENEW_BEFORE);
        let credentials = fresh.unwrap_or_else(|| (self.issue)());
        self.current = Some(credentials.clone());
        Some(credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_stable_and_looks_like_a_uuid() {
        let a = endpoint_token(&SnapshotId("a".into()));
        assert_eq!(a, endpoint_token(&SnapshotId("a".into())));
        assert_ne!(a, endpoint_token(&SnapshotId("b".into())));
        assert!(uuid::Uuid::parse_str(&a).is_ok());
    }

    #[test]
    fn credentials_are_kept_until_shortly_before_they_expire() {
        let issued = Timestamp::now();
        let counter = std::sync::atomic::AtomicU32::new(0);
        let mut vault = Vault::new("t".into(), move || Credentials {
            access_key_id: counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string(),
            secret_access_key: String::new(),
            session_token: String::new(),
            expires: issued + VALID,
        });
        let id = |found: Option<Credentials>| found.unwrap().access_key_id;
        assert_eq!(vault.open("wrong", issued), None);
        assert_eq!(id(vault.open("t", issued)), "0");
        assert_eq!(id(vault.open("t", issued)), "0");
        assert_eq!(id(vault.open("t", issued + VALID - RENEW_BEFORE)), "1");
    }
}
