//! The life of init after the sandbox is whole: requests of the host role, and the ends of processes.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::channel::{Channel, Message};
use linux::process;
use rustix::event::{PollFd, PollFlags};
use rustix::process::WaitStatus;

use super::lease::Grant;
use super::{Step, exec, lease, network};
use crate::wire::{Exit, FromInit, PACKET_BYTES_MAX, ToInit};

/// How many ends of processes that nobody watches yet are remembered: a clone is made by another process and may end
/// before the host role has told its number.
const ENDED_MAX: usize = 64;

/// Sends one message.
pub(super) fn send(channel: &Channel, message: &FromInit, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, descriptors)
}

/// Serves until the channel closes: the host role is done with the sandbox, or dead. The kernel then kills everything
/// in the PID namespace.
pub(super) fn serve(channel: &Channel, only_user: bool) -> io::Result<()> {
    let signals = process::child_signal_descriptor()?;
    let mut init = Init { channel, only_user, watched: None, ended: VecDeque::new() };
    loop {
        let (message, child) = {
            let mut poll = [PollFd::new(channel, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
            match rustix::event::poll(&mut poll, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            (!poll[0].revents().is_empty(), !poll[1].revents().is_empty())
        };
        if child {
            init.reap(&signals)?;
        }
        if message {
            match channel.receive(PACKET_BYTES_MAX)? {
                Some(message) => init.answer(message)?,
                None => return Ok(()),
            }
        }
    }
}

struct Init<'a> {
    channel: &'a Channel,
    only_user: bool,
    watched: Option<i32>,
    ended: VecDeque<(i32, Exit)>,
}

impl Init<'_> {
    fn answer(&mut self, message: Message) -> io::Result<()> {
        let (reply, descriptors) = match self.obey(message) {
            Ok(answer) => answer,
            Err(message) => (FromInit::Refused { message }, Vec::new()),
        };
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        send(self.channel, &reply, &borrowed)?;
        self.report()
    }

    fn obey(&mut self, message: Message) -> Step<(FromInit, Vec<OwnedFd>)> {
        let request =
            serde_json::from_slice(&message.bytes).map_err(|error| format!("unknown request: {error}"))?;
        match request {
            ToInit::Lease { tmp_mib, task, opt, tmp_lower, clock } => {
                let [task, opt, tmp_lower] = lease::trees(message.descriptors, [task, opt, tmp_lower])?;
                let grant = Grant { tmp_mib, task, opt, tmp_lower, clock, only_user: self.only_user };
                Ok((FromInit::Done, lease::lease(grant)?.into_iter().collect()))
            }
            ToInit::Exec(spec) => {
                let child = exec::exec(&spec, &message.descriptors, self.only_user)?;
                let pid = child.pid.as_raw_nonzero().get();
                // Numbers come around again: an earlier bearer of this one is not meant.
                self.ended.clear();
                self.watched = Some(pid);
                Ok((FromInit::Started { pid }, vec![child.pidfd]))
            }
            ToInit::Watch { pid } => {
                self.watched = Some(pid);
                Ok((FromInit::Done, Vec::new()))
            }
            ToInit::Connect { count } => {
                let connections = network::more(count)?;
                let ends = connections.into_iter().flat_map(|pair| [pair.server, pair.client]).collect();
                Ok((FromInit::Done, ends))
            }
        }
    }

    /// Reaps every ended child: what the host role executed, and every orphan of the namespace.
    fn reap(&mut self, signals: &OwnedFd) -> io::Result<()> {
        // One read takes the one pending SIGCHLD; ends that come later make it pending again.
        let mut record = [0_u8; 128];
        match rustix::io::read(signals, &mut record) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some((pid, status)) = process::reap_any()? {
            if let Some(exit) = exit_of(status) {
                if self.ended.len() == ENDED_MAX {
                    self.ended.pop_front();
                }
                self.ended.push_back((pid.as_raw_nonzero().get(), exit));
            }
        }
        self.report()
    }

    /// Tells the host role of the end of the watched process, once.
    fn report(&mut self) -> io::Result<()> {
        let Some(watched) = self.watched else { return Ok(()) };
        let Some(at) = self.ended.iter().position(|(pid, _)| *pid == watched) else { return Ok(()) };
        let exit = self.ended[at].1;
        self.watched = None;
        self.ended.clear();
        send(self.channel, &FromInit::Exited(exit), &[])
    }
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Status).or_else(|| status.terminating_signal().map(Exit::Signal))
}
