//! Runs other programs for the installer: interpreters that are asked, package managers that fetch.
//!
//! **A program's own last words reach the user**, because they say why it failed. Deliberately absent: any knowledge of
//! what the programs do.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a candidate may take to say who it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the answer is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How much of a program's complaint is repeated to the user, in bytes from its end.
const COMPLAINT_BYTES_MAX: usize = 1500;

/// Runs `program` and returns what it prints, or `None` if it does not end well in time.
pub fn ask(program: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdout = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill().and_then(|()| child.wait()).ok();
                return None;
            }
            None => std::thread::sleep(POLL_INTERVAL),
        }
    };
    let text = reader.join().ok()?.ok()?;
    status.success().then_some(text)
}

/// Runs a command to its end and returns what it printed on standard output.
///
/// # Errors
///
/// If it cannot be started or fails; the message ends with its complaint.
pub fn finish(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let complaint = [output.stdout, output.stderr].concat();
        bail!("{program} ended with {}: {}", output.status, tail(&String::from_utf8_lossy(&complaint)));
    }
    Ok(output.stdout)
}

/// Whether `dir` holds each of these files with exactly this text.
pub fn holds(dir: &Path, files: &[(&str, &str)]) -> bool {
    files.iter().all(|(name, text)| std::fs::read(dir.join(name)).is_ok_and(|found| found == text.as_bytes()))
}

/// Puts files with these texts into `dir`, below directories that are made as needed.
///
/// # Errors
///
/// If one cannot be written; the message names it.
pub fn put(dir: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (name, text) in files {
        let file = dir.join(name);
        std::fs::create_dir_all(file.parent().unwrap_or(dir))
            .and_then(|()| std::fs::write(&file, text))
            .with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// Makes the directory readable for everyone, whatever the user's umask: functions run as a user of their own.
///
/// # Errors
///
/// If a file's mode cannot be changed.
pub fn open_to_all(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            open_to_all(&path)?;
        } else {
            let mode = path.metadata()?.permissions().mode();
            let run = if mode & 0o100 != 0 { 0o111 } else { 0 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode | 0o444 | run))?;
        }
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The end of a program's complaint: the last lines say why.
fn tail(text: &str) -> &str {
    let text = text.trim();
    let mut start = text.len().saturating_sub(COMPLAINT_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
