//! Standard input, output and error of a clone.
//!
//! In the foreground they are this command's own; a clone that is let go has none. Files can be named for each, `{}`
//! in a name being the number of the clone.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

/// Where the streams lead.
#[derive(Debug, Clone, Args)]
pub struct StreamArguments {
    /// Read standard input from this file; `{}` in its name stands for the number of the clone.
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Append standard output to this file; `{}` in its name stands for the number of the clone.
    #[arg(long, value_name = "FILE")]
    stdout: Option<PathBuf>,
    /// Append standard error to this file, which may be the same; `{}` in its name stands for the number of the clone.
    #[arg(long, value_name = "FILE")]
    stderr: Option<PathBuf>,
}

/// The streams of one clone: input, output, error.
#[derive(Debug)]
pub struct Streams([OwnedFd; 3]);

impl Streams {
    /// Opens the streams of clone `number`, which counts from one.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(arguments: &StreamArguments, number: usize, detached: bool) -> Result<Self> {
        let own: [BorrowedFd<'_>; 3] =
            [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let open = |index: usize, path: &Option<PathBuf>| -> Result<OwnedFd> {
            match path {
                Some(path) => file(&numbered(path, number), index > 0),
                None if detached => file(Path::new("/dev/null"), index > 0),
                None => own[index].try_clone_to_owned().context("share a standard stream"),
            }
        };
        Ok(Self([open(0, &arguments.stdin)?, open(1, &arguments.stdout)?, open(2, &arguments.stderr)?]))
    }

    /// Standard input, output and error.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        self.0.each_ref().map(AsFd::as_fd)
    }
}

fn file(path: &Path, write: bool) -> Result<OwnedFd> {
    let opened =
        if write { OpenOptions::new().append(true).create(true).open(path) } else { File::open(path) };
    Ok(opened.with_context(|| format!("open {}", path.display()))?.into())
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    PathBuf::from(path.to_string_lossy().replace("{}", &number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_stands_in_the_name() {
        assert_eq!(numbered(Path::new("a-{}.log"), 3), Path::new("a-3.log"));
    }
}
