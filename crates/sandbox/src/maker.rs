//! Making sandboxes: the host's side of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::channel::Channel;
use linux::namespace::Namespaces;
use linux::process::{self, Child, Fork};
use rustix::process::{Pid, Signal};

use crate::abilities::{HostAbilities, Privilege};
use crate::cgroup::{Group, Parent};
use crate::error::SandboxError;
use crate::init::{self, Setup};
use crate::layout::RootLayout;
use crate::leftovers;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;
use crate::wire::{FromInit, PACKET_BYTES_MAX};

/// Makes sandboxes for one server and owns their parent control groups.
///
/// It must be used from a single-threaded process, which is the parent of every sandbox: when that process ends, so do
/// they.
#[derive(Debug)]
pub struct SandboxMaker {
    state_dir: PathBuf,
    mark: String,
    /// The process whose sandboxes these are.
    owner: u32,
    privilege: Privilege,
    parent: Parent,
}

/// A sandbox that is being made.
#[derive(Debug)]
pub struct Starting {
    id: u64,
    child: Child,
    channel: Channel,
    group: Group,
}

impl SandboxMaker {
    /// Prepares to make sandboxes: makes the parent groups and writes down who made them.
    ///
    /// `state_dir` is a directory of the server's own, made when it is missing; `mark` tells this server from every other
    /// on the machine and is part of file names.
    ///
    /// # Errors
    /// When the directory, the record or a group cannot be made.
    pub fn new(state_dir: &Path, abilities: &HostAbilities, mark: &str) -> Result<Self, SandboxError> {
        std::fs::create_dir_all(state_dir).map_err(SandboxError::at("make directory", state_dir))?;
        // Restores are slower without it, and right.
        let _ = crate::cgroup::favor_moves();
        let parent = Parent::make(&abilities.cgroups, mark).map_err(group_error)?;
        leftovers::write(state_dir, mark, parent.directories())
            .map_err(SandboxError::at("write the server's record in", state_dir))?;
        Ok(Self {
            state_dir: state_dir.to_owned(),
            mark: mark.to_owned(),
            owner: std::process::id(),
            privilege: abilities.privilege,
            parent,
        })
    }

    /// Removes what servers that are dead left behind, with the processes in it. Returns what resisted, for the log.
    pub fn clean_leftovers(&self) -> Vec<PathBuf> {
        leftovers::clean(&self.state_dir)
    }

    /// Starts a sandbox. It announces itself on its channel after a millisecond or two: poll it and call
    /// [`Starting::ready`].
    ///
    /// # Errors
    /// When a group or the process cannot be made.
    pub fn start(&self, id: u64, root: &RootLayout) -> Result<Starting, SandboxError> {
        let mut group = self.parent.group(id).map_err(group_error)?;
        match self.start_in(id, root, &group) {
            Ok((child, channel)) => Ok(Starting { id, child, channel, group }),
            Err(error) => {
                group.remove();
                Err(error)
            }
        }
    }

    fn start_in(&self, id: u64, root: &RootLayout, group: &Group) -> Result<(Child, Channel), SandboxError> {
        group.limit_processes().map_err(SandboxError::host("limit processes"))?;
        let mut namespaces = Namespaces::PROCESS_ID
            | Namespaces::MOUNT
            | Namespaces::NETWORK
            | Namespaces::INTER_PROCESS_COMMUNICATION
            | Namespaces::HOST_NAME_AND_NIS_DOMAIN_NAME;
        let only_user = match self.privilege {
            Privilege::OneUser { uid, gid } => {
                namespaces |= Namespaces::USER;
                Some((uid, gid))
            }
            Privilege::Full | Privilege::None => None,
        };
        let setup = Setup {
            layout: root.clone(),
            scratch: self.state_dir.clone(),
            host_name: format!("sandbox-{id}"),
            only_user,
        };
        let (channel, inner) = Channel::pair().map_err(SandboxError::host("make a channel"))?;
        channel.set_nonblocking(true).map_err(SandboxError::host("make a channel nonblocking"))?;
        let keep = [inner.as_fd()];
        let how = Fork { namespaces: Some(namespaces), keep: Some(&keep), ..Fork::default() };
        let child = process::fork(&how, || init::run(&setup, &inner))
            .map_err(SandboxError::host("fork the first process of a sandbox"))?;
        Ok((child, channel))
    }
}

impl Drop for SandboxMaker {
    /// Kills what is left in the groups and takes them down; what resists, and the record that names it, is for the
    /// next server's `clean_leftovers`. A forked child that drops its copy touches nothing.
    fn drop(&mut self) {
        if std::process::id() == self.owner && leftovers::remove_groups(self.parent.directories()).is_empty()
        {
            leftovers::forget(&self.state_dir, &self.mark);
        }
    }
}

impl Starting {
    /// The number it was started with.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its first process, as a number of the host.
    pub fn init_pid(&self) -> Pid {
        self.child.pid
    }

    /// Its first process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Takes the announcement when it is there. Call it when the channel ([`AsFd`]) is readable.
    ///
    /// # Errors
    /// The starting sandbox back, when it has not announced itself yet; the reason, when it never will: it has been given
    /// to `reaper` then.
    #[expect(
        clippy::result_large_err,
        reason = "the starting sandbox is moved back once, on a rare early wake-up"
    )]
    pub fn ready(self, reaper: &mut Reaper) -> Result<Sandbox, NotReady> {
        let message = match self.channel.receive(PACKET_BYTES_MAX) {
            Ok(Some(message)) => message,
            Ok(None) => return Err(self.fail(reaper, None)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(NotReady::Wait(self)),
            Err(_) => return Err(self.fail(reaper, None)),
        };
        match serde_json::from_slice(&message.bytes) {
            Ok(FromInit::Ready) => match split(message.descriptors) {
                Ok((ends, exposed)) => {
                    Ok(Sandbox::new(self.id, self.child, self.channel, self.group, ends, exposed))
                }
                Err(_) => Err(self.unexpected(reaper, "a wrong number of descriptors")),
            },
            Ok(FromInit::Failed { stage, message }) => {
                Err(self.fail(reaper, Some(SandboxError::Stage { stage, message })))
            }
            _ => Err(self.unexpected(reaper, &String::from_utf8_lossy(&message.bytes))),
        }
    }

    /// Gives the sandbox up.
    pub fn kill(self, reaper: &mut Reaper) {
        let _ = process::signal(&self.child.pidfd, Signal::KILL);
        reaper.add(self.child.pidfd, self.group);
    }

    fn fail(self, reaper: &mut Reaper, error: Option<SandboxError>) -> NotReady {
        let error = error.unwrap_or(SandboxError::Gone { id: self.id });
        self.kill(reaper);
        NotReady::Failed(error)
    }

    fn unexpected(self, reaper: &mut Reaper, message: &str) -> NotReady {
        let error = SandboxError::Unexpected { id: self.id, message: message.to_owned() };
        self.fail(reaper, Some(error))
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// The seven descriptors that every sandbox announces, and those of its exposed ports.
fn split(mut descriptors: Vec<OwnedFd>) -> Result<([OwnedFd; 7], Vec<OwnedFd>), Vec<OwnedFd>> {
    let exposed = descriptors.split_off(descriptors.len().min(7));
    <[OwnedFd; 7]>::try_from(descriptors).map(|ends| (ends, exposed))
}

/// Why a starting sandbox is not ready.
#[derive(Debug)]
pub enum NotReady {
    /// It is still being made.
    Wait(Starting),
    /// It cannot be made.
    Failed(SandboxError),
}

fn group_error((path, cause): (PathBuf, std::io::Error)) -> SandboxError {
    SandboxError::at("make control group", &path)(cause)
}
