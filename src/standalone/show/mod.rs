//! `rekindle image`: what is in a checkpoint.
//!
//! The image becomes a [`View`] once, in plain words; the text and the JSON both print that.

mod describe;
mod view;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use engine::image::Image;
use engine::plan::Privilege;
use engine::template::host_facts;
use serde::{Deserialize, Serialize};

use super::fit::plain;
use super::folder::Folder;
use view::View;

/// What `rekindle image` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ImageCommand {
    /// Print what a checkpoint holds: processes, threads, memory, descriptors, and what its clones share.
    #[command(after_help = "\
Examples:
  rekindle image show game.saved
  rekindle image show game.saved --plan | less
      Every system call by which it is restored, in order.
  rekindle image show game.saved --json | jq '.processes[].descriptors'")]
    Show {
        /// The folder that `rekindle checkpoint` has written.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print the plan by which it is restored instead: every system call, in order.
        #[arg(long, conflicts_with = "json")]
        plan: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Carries out a `rekindle image` command.
///
/// # Errors
/// When the folder is no checkpoint or is damaged.
pub fn run(command: &ImageCommand) -> Result<ExitCode> {
    let ImageCommand::Show { dir, plan, json } = command;
    if *plan {
        print!("{}", plan_of(dir)?);
        return Ok(ExitCode::SUCCESS);
    }
    let folder = Folder::open(dir)?;
    let view = View::of(&folder.image, folder.image_bytes);
    if *json {
        println!("{}", serde_json::to_string_pretty(&view)?);
    } else {
        print!("{view}");
    }
    Ok(ExitCode::SUCCESS)
}

fn plan_of(dir: &Path) -> Result<engine::plan::Plan> {
    let folder = Folder::open(dir)?;
    let facts = engine::plan::HostFacts { privilege: Privilege::AsSaved, ..host_facts(0)? };
    engine::plan::plan(&folder.image, &facts).map_err(|error| anyhow!(plain(&error.to_string())))
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    processes: usize,
    threads: usize,
    mappings: usize,
    descriptors: usize,
}

impl Counts {
    /// Counts.
    pub fn of(image: &Image) -> Self {
        let sum = |count: fn(&engine::image::Process) -> usize| image.processes.iter().map(count).sum();
        Self {
            processes: image.processes.len(),
            threads: sum(|process| process.threads.len()),
            mappings: sum(|process| process.mappings.len()),
            descriptors: sum(|process| process.descriptors.len()),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processes, threads, mappings, descriptors } = *self;
        let of =
            |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        write!(
            out,
            "{}, {}, {}, {}",
            of(processes, "process", "processes"),
            of(threads, "thread", "threads"),
            of(mappings, "mapping", "mappings"),
            of(descriptors, "descriptor", "descriptors"),
        )
    }
}

/// Bytes for a person.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(12), "12 B");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(3 << 19), "1.5 MiB");
        assert_eq!(size(5 << 29), "2.50 GiB");
    }
}
