//! This server's own access key: made at the first start, kept in the data directory as an AWS credentials file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use api::auth::Credentials;
use model::names::Home;

/// The profile's name in the file, and the one that the banner proposes.
pub const PROFILE: &str = "rekindle";
/// The file's name in the data directory.
pub const FILE: &str = "credentials";
/// Letters of a key ID behind `AKIA`, as AWS has it.
const KEY_ID_LETTERS: usize = 16;
/// Letters of a secret, as AWS has it.
const SECRET_LETTERS: usize = 40;

/// Reads the key, or makes it.
///
/// # Errors
/// When the file cannot be read or written, or is not one of ours.
pub fn open(data_dir: &Path, home: &Home) -> Result<Credentials> {
    let path = data_dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(&path)?,
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix('='));
        line.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let (Some(id), Some(secret)) = (field("aws_access_key_id"), field("aws_secret_access_key")) else {
        bail!("{} holds no access key; delete it and start again for a new one", path.display());
    };
    Ok(Credentials::new(home, id, secret))
}

fn make(path: &Path) -> Result<String> {
    let id = letters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", KEY_ID_LETTERS);
    let secret = letters(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", SECRET_LETTERS);
    let text = format!("[{PROFILE}]\naws_access_key_id = AKIA{id}\naws_secret_access_key = {secret}\n");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(text)
}

/// Random letters. Both alphabets have a power of two of them, so none is preferred.
fn letters(alphabet: &[u8], count: usize) -> String {
    use rand::Rng;
    let mut random = rand::rng();
    (0..count).map(|_| alphabet[random.random_range(0..alphabet.len())] as char).collect()
}
