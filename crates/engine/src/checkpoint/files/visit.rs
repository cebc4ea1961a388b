//! Being in the network namespace of the processes for a while: sockets are asked about where they live.

use std::os::fd::{AsFd, OwnedFd};

use linux::namespace::Namespaces;
use rustix::fs::{Mode, OFlags};

use crate::checkpoint::{CheckpointError, Doing};

/// The calling thread's stay in the network namespace of the processes.
pub struct Visit {
    home: Option<OwnedFd>,
}

impl Visit {
    /// Enters it, if it is another.
    pub fn enter(process: &OwnedFd, pid: i32) -> Result<Self, CheckpointError> {
        let there = rustix::fs::stat(format!("/proc/{pid}/ns/net")).doing("look at the network", pid)?;
        let path = "/proc/thread-self/ns/net";
        let here = rustix::fs::stat(path).doing("look at the network", pid)?;
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) {
            return Ok(Self { home: None });
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let home = rustix::fs::open(path, flags, Mode::empty()).doing("look at the network", pid)?;
        linux::namespace::join(process, Namespaces::NETWORK).doing("enter the network", pid)?;
        Ok(Self { home: Some(home) })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            let network = rustix::thread::LinkNameSpaceType::Network;
            // Who was allowed to leave is allowed to come back.
            let _ = rustix::thread::move_into_link_name_space(home.as_fd(), Some(network));
        }
    }
}
