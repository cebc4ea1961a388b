//! Whether this host can restore an image, told before anything is made, in words for a person who has no server.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use engine::image::{Image, Kind};
use engine::template::check_host;

/// Checks the host's kernel, processor and files against what the image needs.
///
/// # Errors
/// What is missing or has changed.
pub fn check(image: &Image) -> Result<()> {
    check_host(image, "").map_err(|error| anyhow!(plain(&error.to_string())))?;
    if image.processes.iter().flat_map(|process| &process.threads).any(|thread| thread.tid == 1) {
        bail!("the image holds the first process of a PID namespace, whose place a restore needs");
    }
    for process in image.processes.iter().filter(|process| process.ended.is_none()) {
        if !Path::new(&process.cwd).is_dir() {
            bail!(
                "{}, the working directory of process {}, is gone; make it again",
                process.cwd,
                process.pid
            );
        }
    }
    for file in &image.open_files {
        let Some(Kind::Path(open)) = &file.kind else { continue };
        // A clone has a /proc of its own, with its own processes in it.
        if open.path.starts_with("/proc/") {
            continue;
        }
        if let Err(error) = fs::symlink_metadata(&open.path) {
            bail!("{}, which the processes have open: {error}; put it back where it was", open.path);
        }
    }
    Ok(())
}

/// Paths to which Unix sockets of the image are bound: what is left of them stands in the way of the new ones.
pub fn socket_paths(image: &Image) -> Vec<PathBuf> {
    let names = image.open_files.iter().filter_map(|file| match &file.kind {
        Some(Kind::Unix(unix)) if !unix.accepted => Some(unix.name.as_slice()),
        _ => None,
    });
    let bound = names.filter(|name| name.first() == Some(&b'/'));
    bound
        .map(|name| PathBuf::from(OsStr::from_bytes(name.split(|byte| *byte == 0).next().unwrap_or(name))))
        .collect()
}

/// An error of the engine without the advice that is for users of the server.
pub fn plain(message: &str) -> String {
    let hint = match message.contains("Address already in use") {
        true => {
            "; an address or socket of the checkpoint is in use on this host: end who has it (see ss -tulpnx), wait a \
             minute for its connections to expire, or give clones their own with --network none and --private DIR"
        }
        false => "",
    };
    let message = message
        .replace("publish the version again on this host", "take the checkpoint again on this machine")
        .replace("publish the version again", "take the checkpoint again")
        .replace("the snapshot", "the checkpoint")
        .replace("of the server", "of this shell");
    message + hint
}
