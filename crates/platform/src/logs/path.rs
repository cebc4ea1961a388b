//! From the name of a log group and stream to a file.
//!
//! Group names come from users and may hold `/` and `..`; the mapping is strict, so that no name leads out of the
//! log directory, and one-to-one, so that no two groups share a file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The longest component that is kept as it is; file systems allow 255 bytes.
const COMPONENT_BYTES_MAX: usize = 180;

/// The file of a log stream below `root`.
pub fn stream_path(root: &Path, group: &str, stream: &str) -> PathBuf {
    let mut path = root.to_path_buf();
    match group.strip_prefix('/') {
        Some(group) => path.extend(group.split('/').map(component)),
        None => {
            path.push("%");
            path.extend(group.split('/').map(component));
        }
    }
    let (folders, name) = stream.rsplit_once('/').unwrap_or(("", stream));
    path.extend(folders.split('/').filter(|folder| !folder.is_empty()).map(component));
    path.push(format!("{}.log", component(name)));
    path
}

/// One component: plain characters stay, all others are written `%XX`; `.`, `..` and the empty name do not survive.
fn component(name: &str) -> String {
    if name.is_empty() {
        return "%%".to_owned();
    }
    let dots_only = name.bytes().all(|byte| byte == b'.');
    let mut written = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'.' if dots_only => written.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'#' | b'$' | b'[' | b']' => {
                written.push(char::from(byte));
            }
            _ => written.push_str(&format!("%{byte:02X}")),
        }
    }
    if written.len() > COMPONENT_BYTES_MAX {
        let digest = Sha256::digest(name.as_bytes());
        written.truncate(COMPONENT_BYTES_MAX - 34);
        written.push_str("%~");
        written.extend(digest[..16].iter().map(|byte| format!("{byte:02x}")));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn ordinary_names_look_as_expected() {
        let path = stream_path(Path::new("/l"), "/aws/lambda/hello", "2026/03/09/[$LATEST]0f");
        assert_eq!(path, Path::new("/l/aws/lambda/hello/2026/03/09/[$LATEST]0f.log"));
    }

    #[test]
    fn names_that_would_lead_elsewhere_do_not() {
        let path = stream_path(Path::new("/l"), "/../../etc", "x");
        assert_eq!(path, Path::new("/l/%2E%2E/%2E%2E/etc/x.log"));
        let long = stream_path(Path::new("/l"), &format!("/{}", "a".repeat(512)), "x");
        assert!(long.components().all(|component| component.as_os_str().len() <= 200));
    }

    proptest! {
        #[test]
        fn every_name_stays_below_the_root_and_has_a_file_of_its_own(a in r"[./a%\x00]{0,8}", b in r"[./a%\x00]{0,8}") {
            let root = Path::new("/root");
            let (path_a, path_b) = (stream_path(root, &a, "s"), stream_path(root, &b, "s"));
            let below = path_a.strip_prefix(root).unwrap();
            prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))));
            prop_assert_eq!(a == b, path_a == path_b);
        }
    }
}
