//! `rekindle checkpoint`: a tree of processes into a folder.
//!
//! The work is done by a forked process that outlives this command: when the command dies in the middle, the worker
//! notices, gives up in order, removes what it wrote and lets the tree go on. **A tree is ended only when its folder is
//! complete**, and without having run in between.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use engine::checkpoint::{Checkpoint, CheckpointError, Sink, Subject, checkpoint_then};
use engine::image::Image;
use rustix::process::{Pid, Signal, getppid, kill_process};
use serde::{Deserialize, Serialize};

use super::folder::Partial;
use super::progress::Progress;
use super::show::{self, Counts};
use super::subject::{denied, part_streams, subject};
use super::worker;

/// What `rekindle checkpoint` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  rekindle checkpoint --pid 4711 --to game.saved
      Save the program and everything that it started, and end it.
  rekindle checkpoint --pid $(pgrep -o postgres) --to db.saved --leave-running
      Save a database server and let it go on.
  rekindle restore game.saved
      Bring it back; any number of times.

What is saved: memory, threads, open files, pipes, sockets, timers, children. What stays where it is: files on disk;
do not change those that the program has open before it is restored. Connections to other machines come back closed,
and are named. Something that cannot be saved is refused with its name, and the program goes on.

Programs of other users need root. The folder holds whatever the program has in memory, passwords too.")]
pub struct CheckpointArguments {
    /// The process to save, with all its children and theirs.
    #[arg(long, value_name = "PID")]
    pid: i32,
    /// The folder to write. It must not exist yet, and appears complete or not at all.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Let the processes go on afterwards. Without it they are ended, so that none runs twice.
    #[arg(long)]
    leave_running: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the worker tells of a finished checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Summary {
    #[serde(flatten)]
    counts: Counts,
    image_bytes: u64,
    page_bytes: u64,
    /// For how long the processes were stopped until their state was written, in milliseconds.
    pause_ms: f64,
    left_running: bool,
    warnings: Vec<String>,
}

/// Carries out `rekindle checkpoint`.
///
/// # Errors
/// Why there is no checkpoint; the processes go on then.
pub fn run(arguments: &CheckpointArguments) -> Result<ExitCode> {
    let subject = subject(arguments.pid)?;
    // The parent of the worker for as long as this command lives.
    let command = Some(rustix::process::getpid());
    let summary: Summary = worker::answer(|| {
        // Ctrl-C ends the command and not its worker, which gives up in order.
        let _ = rustix::process::setpgid(None, None);
        save(&subject, &arguments.to, arguments.leave_running, command)
    })?;
    print(arguments, &summary)?;
    Ok(ExitCode::SUCCESS)
}

fn save(subject: &Subject, to: &Path, leave_running: bool, command: Option<Pid>) -> Result<Summary> {
    let partial = RefCell::new(Partial::create(to)?);
    let progress = Progress::start("checkpoint", 0);
    let mut sink = FolderSink { partial: &partial, command, progress };
    let start = Instant::now();
    let while_stopped = |done: &mut Checkpoint, pids: &[i32]| -> Result<Option<u64>> {
        part_streams(&mut done.image);
        if leave_running {
            return Ok(None);
        }
        let written = finish(&partial, &done.image, command)?;
        for pid in pids.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            // One that has ended meanwhile is no process to end.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(Some(written))
    };
    let mut pause_ms = 0.0;
    let (done, written) = checkpoint_then(subject, &mut sink, |done, pids| {
        pause_ms = start.elapsed().as_secs_f64() * 1000.0;
        while_stopped(done, pids)
    })
    .map_err(|error| explain(error, subject.pid))?;
    let image_bytes = match written? {
        Some(bytes) => bytes,
        None => finish(&partial, &done.image, command)?,
    };
    Ok(Summary {
        counts: Counts::of(&done.image),
        image_bytes,
        page_bytes: done.image.page_bytes(),
        pause_ms,
        left_running: leave_running,
        warnings: done.warnings,
    })
}

fn finish(partial: &RefCell<Partial>, image: &Image, command: Option<Pid>) -> Result<u64> {
    abandoned(command).context("the command was ended")?;
    partial.borrow_mut().finish(image)
}

fn explain(error: CheckpointError, pid: i32) -> anyhow::Error {
    let is_denied = matches!(&error, CheckpointError::Call { source, .. }
        if source.kind() == io::ErrorKind::PermissionDenied);
    let error = anyhow::Error::new(error);
    if is_denied { error.context(denied(pid)) } else { error }
}

/// Writes to the folder while the command lives.
struct FolderSink<'a> {
    partial: &'a RefCell<Partial>,
    command: Option<Pid>,
    progress: Progress,
}

impl Sink for FolderSink<'_> {
    fn pages(&mut self, bytes: &[u8]) -> io::Result<()> {
        abandoned(self.command)?;
        self.progress.add(bytes.len() as u64);
        self.partial.borrow_mut().append(bytes)
    }

    fn files(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Err(io::Error::other("no files were asked for"))
    }
}

/// Fails when the command that asked has died.
fn abandoned(command: Option<Pid>) -> io::Result<()> {
    if getppid() == command { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}

fn print(arguments: &CheckpointArguments, summary: &Summary) -> Result<()> {
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(summary)?);
        return Ok(());
    }
    for warning in &summary.warnings {
        eprintln!("warning: {warning}");
    }
    println!("saved process {} to {}: {}", arguments.pid, arguments.to.display(), summary.counts);
    println!(
        "memory {}, state {}; the processes were stopped for {:.1} ms{}",
        show::size(summary.page_bytes),
        show::size(summary.image_bytes),
        summary.pause_ms,
        if summary.left_running { " and go on" } else { " and have been ended" },
    );
    println!("bring it back with: rekindle restore {}", arguments.to.display());
    Ok(())
}
