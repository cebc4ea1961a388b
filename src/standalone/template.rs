//! The template of one restore: loaded from a folder, forked into each clone, and ended when all clones stand.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow};
use engine::image::Image;
use engine::plan::HostFacts;
use engine::template::{Fill, host_facts, load};
use linux::channel::Channel;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::folder::{CHUNK_BYTES, Folder};
use super::progress::Progress;
use super::worker;

/// Threads that read, prove and write pages.
const LOADERS: usize = 2;

/// A template that stands.
#[derive(Debug)]
pub struct Template {
    engine: engine::template::Template,
    pidfd: OwnedFd,
}

/// What the worker tells of the template that it made.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    pid: i32,
    clone: Range<u32>,
    operations: Vec<String>,
    write_set: u64,
}

/// What a plan needs to know of this process and host.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn facts(authority: Authority) -> Result<HostFacts> {
    Ok(HostFacts { privilege: authority.privilege(), ..host_facts(0)? })
}

impl Template {
    /// Loads `image` with the pages of `folder`. `session` is made first for a template whose clones shall have nothing
    /// to do with the terminal of this command.
    ///
    /// # Errors
    /// When the folder is damaged or this host cannot restore it.
    pub fn load(folder: &Folder, image: &Image, authority: Authority, session: bool) -> Result<Self> {
        let (ours, theirs) = Channel::pair().context("make a channel to the template")?;
        let home = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let made: Made = worker::answer(|| {
            linux::process::die_with_parent()?;
            if session {
                rustix::process::setsid().context("start a session")?;
            }
            make(folder, image, authority, (&ours, theirs.as_fd()), home.as_fd())
        })?;
        let pidfd = Pid::from_raw(made.pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .context("find the template")?;
        let engine =
            engine::template::Template::new(ours, made.clone, made.operations, made.pid, made.write_set);
        Ok(Self { engine, pidfd })
    }

    /// Forks the template into the namespaces that `descriptors` name; the clone stands then, and waits.
    ///
    /// # Errors
    /// As [`engine::template::Template::clone_into`].
    pub fn clone_into(&mut self, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        Ok(self.engine.clone_into(descriptors)?)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // A killed process with much memory takes a while to go; its end is waited for, so that no zombie stays.
        let _ = linux::process::signal(&self.pidfd, Signal::KILL);
        let id = WaitId::PidFd(self.pidfd.as_fd());
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), WaitIdOptions::EXITED));
    }
}

fn make(
    folder: &Folder,
    image: &Image,
    authority: Authority,
    control: (&Channel, BorrowedFd<'_>),
    home: BorrowedFd<'_>,
) -> Result<Made> {
    let plan = engine::plan::plan(image, &facts(authority)?)?;
    let progress = Progress::start("restore: loading", image.page_bytes());
    let pid = load(&plan, control, home, |fill| pages(folder, fill, &progress))
        .map_err(|error| anyhow!(super::fit::plain(&error.to_string())))?;
    let operations = plan.operations();
    Ok(Made { pid, clone: plan.clone.clone(), operations, write_set: plan.area.write_set() })
}

/// Passes every page on. The template is made by now, so this process may have threads.
fn pages(folder: &Folder, fill: &Fill<'_>, progress: &Progress) -> Result<(), String> {
    let next = AtomicU64::new(0);
    let run = || -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        while let Some((offset, bytes)) = folder.chunk(next.fetch_add(1, Ordering::Relaxed), &mut buffer)? {
            fill(offset, bytes)?;
            progress.add(bytes.len() as u64);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..LOADERS).map(|_| scope.spawn(run)).collect();
        let mut result = run();
        for other in others {
            result = result.and(other.join().unwrap_or_else(|_| Err(io::Error::other("a loader panicked"))));
        }
        result
    })
    .map_err(|error| error.to_string())
}
