//! Who may call: nobody checked, or the owner of this server's one access key.

use model::names::Home;

/// How requests are authenticated.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Not at all: anybody who can reach the port may do anything.
    None,
    /// By AWS Signature Version 4 with this key.
    Keys(Credentials),
}

/// An access key of this server's own and where signatures must be scoped to.
#[derive(Clone)]
pub struct Credentials {
    /// Access key id; not secret.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Region that signatures must name.
    pub region: String,
}

impl Credentials {
    /// The credentials of a server at `home`.
    pub fn new(home: &Home, access_key_id: String, secret_access_key: String) -> Self {
        Self { access_key_id, secret_access_key, region: home.region.clone() }
    }
}

/// The secret stays out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}
