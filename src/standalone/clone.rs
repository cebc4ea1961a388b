//! One clone: a place with an init, a fork of the template in it, and what this command holds of both.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};
use linux::channel::{Channel, Message};
use linux::namespace::Namespaces;
use linux::process::{self, Child, Fork};
use rustix::process::{Pid, Signal};

use super::init::{self, FromInit, MESSAGE_BYTES_MAX, Setup, Watch};
use super::streams::Streams;
use super::template::Template;

/// A clone that stands.
#[derive(Debug)]
pub struct Clone {
    init: Child,
    channel: Channel,
    root: OwnedFd,
    /// Its first process as this command sees it.
    pub pid: Pid,
    release: OwnedFd,
}

impl Clone {
    /// Makes a place in fresh `namespaces` and forks the template into it. Nothing of the clone has run yet.
    ///
    /// # Errors
    /// Why it could not be made; nothing is left of it then.
    pub fn make(
        template: &mut Template,
        setup: &Setup,
        namespaces: Namespaces,
        streams: &Streams,
        root_pid: i32,
    ) -> Result<Self> {
        let (channel, inner) = Channel::pair().context("make a channel to a clone")?;
        let keep = [inner.as_fd()];
        let how = Fork { namespaces: Some(namespaces), keep: Some(&keep), ..Fork::default() };
        let init = process::fork(&how, || init::run(setup, &inner))
            .context("make namespaces for a clone; it needs root (CAP_SYS_ADMIN)")?;
        drop(inner);
        let settled = settle(template, &init, &channel, streams, root_pid);
        match settled.and_then(|(release, root)| Ok((release, process_id(root.as_fd())?, root))) {
            Ok((release, pid, root)) => Ok(Self { init, channel, root, pid, release }),
            Err(error) => {
                let _ = process::signal(&init.pidfd, Signal::KILL);
                Err(error)
            }
        }
    }

    /// Lets the clone go on where the checkpoint stopped it.
    ///
    /// # Errors
    /// When it has died meanwhile.
    pub fn release(&self) -> Result<()> {
        rustix::io::write(&self.release, b"g").context("release a clone")?;
        Ok(())
    }

    /// The init's channel, readable when there is news.
    pub fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Takes the news; an init that has died is the end of the clone.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn news(&self) -> Result<FromInit> {
        let killed = FromInit::Ended(128 + Signal::KILL.as_raw());
        match self.channel.receive(MESSAGE_BYTES_MAX)? {
            Some(message) => Ok(serde_json::from_slice(&message.bytes)?),
            None => Ok(killed),
        }
    }

    /// Sends its first process a signal.
    pub fn signal(&self, number: i32) {
        // It may have ended.
        let _ = linux::signal::send(&self.root, number);
    }

    /// Its init as this command sees it.
    pub fn init_pid(&self) -> Pid {
        self.init.pid
    }

    /// Waits until nothing is left of it.
    pub fn reap(&self) {
        let id = rustix::process::WaitId::PidFd(self.init.pidfd.as_fd());
        let exited = rustix::process::WaitIdOptions::EXITED;
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), exited));
    }

    /// Ends it.
    pub fn kill(&self) {
        let _ = process::signal(&self.init.pidfd, Signal::KILL);
    }
}

/// Waits for the place, puts the clone in, and has init watch it. Gives the end that releases it, and its pidfd.
fn settle(
    template: &mut Template,
    init: &Child,
    channel: &Channel,
    streams: &Streams,
    root_pid: i32,
) -> Result<(OwnedFd, OwnedFd)> {
    let time = heard(channel, &|message| matches!(message, FromInit::Ready))?;
    let (wait, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("make a pipe")?;
    let [stdin, stdout, stderr] = streams.descriptors();
    // In the order of `engine::plan::Received`. There is no platform that a request could be pending at.
    let pending = wait.as_fd();
    let descriptors = [init.pidfd.as_fd(), time.as_fd(), stdout, stderr, pending, wait.as_fd(), stdin];
    template.clone_into(&descriptors).map_err(|error| anyhow!(super::fit::plain(&error.to_string())))?;
    channel.send(&serde_json::to_vec(&Watch(root_pid))?, &[]).context("reach the clone's init")?;
    let root = heard(channel, &|message| matches!(message, FromInit::Watching))?;
    Ok((release, root))
}

/// Waits for a message that brings a descriptor.
fn heard(channel: &Channel, expected: &dyn Fn(&FromInit) -> bool) -> Result<OwnedFd> {
    let died = || anyhow!("the first process of a clone has died");
    let Message { bytes, descriptors } = channel.receive(MESSAGE_BYTES_MAX)?.ok_or_else(died)?;
    match serde_json::from_slice(&bytes)? {
        FromInit::Failed(message) => bail!("{message}"),
        message if expected(&message) => descriptors.into_iter().next().ok_or_else(died),
        message => bail!("the first process of a clone says {message:?}"),
    }
}

/// The process behind a pidfd as this process numbers it.
fn process_id(pidfd: BorrowedFd<'_>) -> Result<Pid> {
    use std::os::fd::AsRawFd;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    number.and_then(|number| Pid::from_raw(number.parse().ok()?)).context("the clone has died")
}
