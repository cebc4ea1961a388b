//! `rekindle restore`: a folder into running processes, once or many times.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use engine::image::Image;
use serde::Serialize;

use super::authority::Authority;
use super::clone::Clone;
use super::fit;
use super::folder::Folder;
use super::foreground;
use super::init::Setup;
use super::streams::{StreamArguments, Streams};
use super::template::Template;
use super::terminal::Terminal;

/// The most clones of one restore.
const CLONES_MAX: u32 = 1000;

/// What `rekindle restore` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  rekindle restore game.saved
      Bring a program back in this terminal. Ctrl-C reaches it; its exit code is this command's.
  rekindle restore db.saved --detach --stdout db.log --stderr db.log
      Bring a server back in the background and print its process ID.
  rekindle restore kernel.saved --detach --count 4 --network none --private /tmp --stdout kernel-{}.log
      Four clones of one checkpoint. They share all memory that none of them writes to. Each has a network of its own,
      in which all can listen on the same port, and its own view of /tmp.

Every clone lives in a PID namespace of its own, so that each process keeps its ID; ps on the host shows other IDs. Its
clocks go on from the checkpoint. Files are the host's: two clones that write to the same file write to the same file,
unless --private gives each its own view. When the first process of a clone ends, the others of that clone are ended.")]
pub struct RestoreArguments {
    /// The folder that `rekindle checkpoint` has written.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Leave the processes running in the background and print the process ID of each clone.
    #[arg(long)]
    detach: bool,
    /// How many clones to make.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLONES_MAX)))]
    count: u32,
    /// The network of the clones: `host`, or `none` for one of each clone's own with nothing but loopback.
    #[arg(long, value_enum, default_value_t = Network::Host)]
    network: Network,
    /// Give each clone its own view of this directory: it sees what is there, and what it writes is its own and gone
    /// when it ends. Can be given several times.
    #[arg(long, value_name = "DIR")]
    private: Vec<PathBuf>,
    #[command(flatten)]
    streams: StreamArguments,
    /// Print JSON: with --detach to standard output, else to standard error when the clones stand.
    #[arg(long)]
    json: bool,
}

/// See [`RestoreArguments::network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// The host's.
    Host,
    /// One of its own, with loopback only.
    None,
}

/// What is printed of a restore.
#[derive(Debug, Serialize)]
struct Report {
    /// How long it took to load the checkpoint, in milliseconds.
    load_ms: f64,
    clones: Vec<CloneReport>,
}

/// What is printed of a clone.
#[derive(Debug, Serialize)]
struct CloneReport {
    /// Its first process, as the host numbers it.
    pid: i32,
    /// The first process of its PID namespace, as the host numbers it.
    init_pid: i32,
    /// How long it took to make it, in milliseconds.
    clone_ms: f64,
}

/// Carries out `rekindle restore`. Gives the exit code of the restored program.
///
/// # Errors
/// Why it cannot be restored; nothing runs then.
pub fn run(arguments: &RestoreArguments) -> Result<ExitCode> {
    let folder = Folder::open(&arguments.dir)?;
    fit::check(&folder.image)?;
    let authority = Authority::take(&folder.image, arguments.network)?;
    let alone = arguments.detach || arguments.count > 1;
    let image = if alone { led_by_itself(&folder.image) } else { folder.image.clone() };
    let start = Instant::now();
    let mut template = Template::load(&folder, &image, authority, alone)?;
    let load_ms = milliseconds(start);
    let (clones, reports) = make(arguments, &image, authority, &mut template)?;
    drop(template);
    let report = Report { load_ms, clones: reports };
    if arguments.detach {
        clones.iter().try_for_each(Clone::release)?;
        print(arguments, &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.json {
        eprintln!("{}", serde_json::to_string(&report)?);
    }
    let signals = foreground::signals()?;
    let mut terminal = Terminal::find();
    if let [clone] = clones.as_slice() {
        terminal.lend(clone.pid);
    }
    clones.iter().try_for_each(Clone::release)?;
    let_go_of_streams();
    let code = foreground::wait(&clones, &signals, &mut terminal)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The image with a session of its own, led by its first process: for clones that have nothing to do with the terminal,
/// and whose signals to their own group must not reach each other.
fn led_by_itself(image: &Image) -> Image {
    let mut image = image.clone();
    let leader = image.root().pid;
    for process in &mut image.processes {
        if process.session == 0 {
            process.session = leader;
        }
        if process.group == 0 {
            process.group = leader;
        }
    }
    image
}

fn make(
    arguments: &RestoreArguments,
    image: &Image,
    authority: Authority,
    template: &mut Template,
) -> Result<(Vec<Clone>, Vec<CloneReport>)> {
    let private = arguments.private.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    let setup = Setup {
        clocks_ns: (image.monotonic_ns as i64, image.boottime_ns as i64),
        own_network: arguments.network == Network::None,
        private,
        sockets: fit::socket_paths(image),
        detached: arguments.detach,
        one_user: authority == Authority::OneUser,
    };
    let namespaces = authority.namespaces(arguments.network);
    let (mut clones, mut reports): (Vec<Clone>, Vec<CloneReport>) = (Vec::new(), Vec::new());
    for number in 1..=arguments.count as usize {
        let start = Instant::now();
        let made = Streams::open(&arguments.streams, number, arguments.detach)
            .and_then(|streams| Clone::make(template, &setup, namespaces, &streams, image.root().pid));
        match made {
            Ok(clone) => {
                reports.push(CloneReport {
                    pid: clone.pid.as_raw_nonzero().get(),
                    init_pid: clone.init_pid().as_raw_nonzero().get(),
                    clone_ms: milliseconds(start),
                });
                clones.push(clone);
            }
            Err(error) => {
                clones.iter().for_each(Clone::kill);
                bail!("clone {number} of {}: {error:#}", arguments.count);
            }
        }
    }
    Ok((clones, reports))
}

/// Whoever reads what the program writes shall see the end when the program closes it, not when this command ends.
fn let_go_of_streams() {
    use rustix::fs::{Mode, OFlags};
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn print(arguments: &RestoreArguments, report: &Report) -> Result<()> {
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        report.clones.iter().for_each(|clone| println!("{}", clone.pid));
    }
    Ok(())
}
