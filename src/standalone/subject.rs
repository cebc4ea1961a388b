//! Which tree of processes is meant, and what of it belongs to the terminal or the shell that started it.
//!
//! Standard input, output and error that are a pipe, a socket or a terminal lead to somebody outside of the tree: a
//! restore connects them to its own. Files stay files. Processes that this command cannot checkpoint for a reason that
//! is known ahead are refused here, before anything is stopped.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::{Context, Result, bail};
use engine::checkpoint::Subject;
use engine::image::{External, Image, Kind, OpenFile};

/// The three standard descriptors, by number.
const STREAMS: [External; 3] = [External::Stdin, External::Stdout, External::Stderr];

/// Describes the tree whose root is `pid`.
///
/// # Errors
/// Why it cannot be checkpointed, with what to do.
pub fn subject(pid: i32) -> Result<Subject> {
    let status = status(pid)?;
    refuse_own_ancestor(pid)?;
    if fs::read_link(format!("/proc/{pid}/exe"))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    {
        bail!("process {pid} is a thread of the kernel or has ended: there is nothing to save");
    }
    if namespace_ids(&status).last() == Some(&1) {
        bail!(
            "process {pid} is the first of its PID namespace (a container's, for example); name a process below it, \
             or run rekindle inside the container"
        );
    }
    let identity = |path: String| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let theirs = identity(format!("/proc/{pid}/root")).with_context(|| denied(pid))?;
    if theirs != identity("/proc/self/root".to_owned())? {
        bail!(
            "process {pid} sees other files than this command (a container, chroot): run rekindle where it lives"
        );
    }
    let externals = STREAMS.into_iter().enumerate();
    let externals = externals.filter_map(|(number, stream)| Some((outside(pid, number)?, stream))).collect();
    Ok(Subject { pid, init: None, externals, platform: None, writable: None })
}

/// What to do when the right is missing.
pub fn denied(pid: i32) -> String {
    format!(
        "look into process {pid}: run this command as root (sudo), which has CAP_SYS_PTRACE and \
         CAP_CHECKPOINT_RESTORE"
    )
}

/// Gives each standard descriptor of the tree its own stream. A shell opens its terminal once for all three, so they
/// are one open file there; where they are restored they may be three.
pub fn part_streams(image: &mut Image) {
    for (number, stream) in STREAMS.into_iter().enumerate() {
        let number = number as i32;
        let is_external = |file: &OpenFile| matches!(file.kind, Some(Kind::External(_)));
        let descriptors = image.processes.iter().flat_map(|process| &process.descriptors);
        let mut shared: Vec<u32> = descriptors
            .filter(|descriptor| descriptor.number == number)
            .map(|descriptor| descriptor.file)
            .filter(|&file| is_external(&image.open_files[file as usize]))
            .filter(|&file| image.open_files[file as usize].kind != Some(Kind::External(stream as i32)))
            .collect();
        shared.sort_unstable();
        shared.dedup();
        for file in shared {
            let own = image.open_files.len() as u32;
            let copy = OpenFile {
                kind: Some(Kind::External(stream as i32)),
                ..image.open_files[file as usize].clone()
            };
            image.open_files.push(copy);
            redirect(image, number, file, own);
        }
    }
}

/// Lets descriptor `number` of every process, and what watches it by that number, mean another open file.
fn redirect(image: &mut Image, number: i32, from: u32, to: u32) {
    let descriptors = image.processes.iter_mut().flat_map(|process| &mut process.descriptors);
    for descriptor in descriptors.filter(|descriptor| descriptor.number == number && descriptor.file == from)
    {
        descriptor.file = to;
    }
    for file in &mut image.open_files {
        let Some(Kind::Epoll(epoll)) = &mut file.kind else { continue };
        for member in epoll.members.iter_mut().filter(|member| member.number == number && member.file == from)
        {
            member.file = to;
        }
    }
}

/// The inode behind a standard descriptor, if it leads outside.
fn outside(pid: i32, number: usize) -> Option<u64> {
    let path = format!("/proc/{pid}/fd/{number}");
    let metadata = fs::metadata(&path).ok()?;
    let kind = metadata.file_type();
    let is_terminal = || {
        let target = fs::read_link(&path).unwrap_or_default();
        kind.is_char_device()
            && ["/dev/pts/", "/dev/tty", "/dev/console"]
                .iter()
                .any(|name| target.to_string_lossy().starts_with(name))
    };
    (kind.is_fifo() || kind.is_socket() || is_terminal()).then(|| metadata.ino())
}

fn status(pid: i32) -> Result<String> {
    if pid <= 0 {
        bail!("{pid} is no process ID");
    }
    fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("find process {pid}; `ps` or `pgrep` tell the ID of a program"))
}

/// The process's IDs, one for each PID namespace that it is in, the innermost last.
fn namespace_ids(status: &str) -> Vec<i32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A tree that holds this very command would wait for itself.
fn refuse_own_ancestor(pid: i32) -> Result<()> {
    let mut ancestor = std::process::id() as i32;
    while ancestor > 0 {
        if ancestor == pid {
            bail!("process {pid} is this command or what started it; run rekindle from another terminal");
        }
        let status = fs::read_to_string(format!("/proc/{ancestor}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        ancestor = parent.and_then(|word| word.trim().parse().ok()).unwrap_or(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::image::{Descriptor, Process};

    use super::*;

    #[test]
    fn one_terminal_becomes_three_streams() {
        let descriptor = |number| Descriptor { number, close_on_exec: false, file: 0 };
        let root = Process { descriptors: [0, 1, 2, 9].map(descriptor).to_vec(), ..Process::default() };
        let terminal = OpenFile { kind: Some(Kind::External(External::Stdin as i32)), ..OpenFile::default() };
        let mut image = Image { processes: vec![root], open_files: vec![terminal], ..Image::default() };
        part_streams(&mut image);
        let kinds: Vec<_> = image.processes[0]
            .descriptors
            .iter()
            .map(|descriptor| image.open_files[descriptor.file as usize].kind.clone())
            .collect();
        let stream = |external: External| Some(Kind::External(external as i32));
        let expected = [External::Stdin, External::Stdout, External::Stderr, External::Stdin];
        assert_eq!(kinds, expected.map(stream));
    }

    #[test]
    fn this_process_is_refused() {
        let error = subject(std::process::id() as i32).unwrap_err();
        assert!(error.to_string().contains("another terminal"));
    }
}
