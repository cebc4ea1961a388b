//! `rekindle runtime`: install, list and remove the runtimes that functions can use.
//!
//! A runtime is an interpreter that this machine already has plus the unmodified AWS client from the language's own
//! registry. Installing writes `runtimes/<id>/` in the data directory; the server reads it (`platform::runtimes`).
//!
//! Deliberately absent: downloading interpreters. Every system has its own way to get one, and an error names it.

mod dotnet;
mod install;
mod java;
mod language;
mod node;
mod places;
mod progress;
mod provided;
mod python;
mod ruby;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use platform::runtimes::{InstalledRuntime, Runtimes};

use install::Wish;

/// What `rekindle runtime` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum RuntimeCommand {
    /// Install runtimes, such as `python3.12`: find the interpreter and fetch the AWS client for it.
    Install {
        /// Identifiers as in the Lambda API.
        #[arg(required = true, value_name = "RUNTIME")]
        ids: Vec<String>,
        /// Use this interpreter: a program, or the directory it was installed to.
        #[arg(long, value_name = "PATH")]
        from: Option<PathBuf>,
        /// Take the AWS client from here, not from the registry (.NET: a directory of DLLs; Ruby: a .gem file).
        #[arg(long, value_name = "PATH")]
        client: Option<PathBuf>,
        /// Install anew even if the runtime is there and works.
        #[arg(long)]
        force: bool,
    },
    /// List the installed runtimes.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an installed runtime. Functions that use it cannot start any more.
    Remove {
        /// Identifier, such as `python3.12`.
        id: String,
    },
}

/// Carries out a `rekindle runtime` command on the data directory.
///
/// # Errors
///
/// When an interpreter is missing or unfit, when the client cannot be fetched, or when files cannot be written. The
/// message names the remedy.
pub fn run(command: RuntimeCommand, data_dir: &Path) -> Result<()> {
    let home = data_dir.join("runtimes");
    match command {
        RuntimeCommand::Install { ids, from, client, force } => {
            if (from.is_some() || client.is_some()) && ids.len() > 1 {
                bail!("install runtimes: --from and --client are for one runtime, so give one");
            }
            let wish = Wish { from: from.as_deref(), client: client.as_deref(), force };
            ids.iter().try_for_each(|id| install::install(id, &wish, &home))
        }
        RuntimeCommand::List { json } => list(&Runtimes::open(home), json),
        RuntimeCommand::Remove { id } => remove(&Runtimes::open(home), &id),
    }
}

fn list(runtimes: &Runtimes, json: bool) -> Result<()> {
    let all = runtimes.all();
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else if all.is_empty() {
        println!("no runtime is installed; try: rekindle runtime install python3.12");
    } else {
        println!("{}", table(&all));
    }
    Ok(())
}

fn table(all: &[InstalledRuntime]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "RUNTIME",
        "VERSION",
        "SNAPSTART",
        "CLIENTS",
        "INTERPRETER",
    ]);
    for runtime in all {
        let clients: Vec<String> =
            runtime.clients.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let interpreter = match runtime.missing_path() {
            Some(path) => format!("missing: {}", path.display()),
            None => runtime.interpreter.display().to_string(),
        };
        let snap_start = if runtime.snap_start { "yes" } else { "no" };
        table.add_row([&runtime.id, &runtime.version, snap_start, &clients.join(", "), &interpreter]);
    }
    table
}

fn remove(runtimes: &Runtimes, id: &str) -> Result<()> {
    if runtimes.get(id).is_none() {
        bail!("remove runtime {id}: it is not installed");
    }
    let dir = runtimes.dir_of(id);
    std::fs::remove_dir_all(&dir)
        .with_context(|| format!("remove runtime {id}: delete {}", dir.display()))?;
    println!("removed {id}");
    Ok(())
}
