//! The terminal that a restore in the foreground lends to its clone, as a shell does for a job.
//!
//! A process group that is not the foreground one gets no Ctrl-C and must not read. A clone that leads a group of its
//! own in the session of this command is therefore made the foreground, and this command when the clone stops or ends.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, getpgid, getpgrp, getsid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The controlling terminal, if this command has one.
#[derive(Debug)]
pub struct Terminal {
    tty: Option<OwnedFd>,
    lent: bool,
}

impl Terminal {
    /// Finds it.
    pub fn find() -> Self {
        let tty = rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok();
        Self { tty, lent: false }
    }

    /// Whether this is a clone to lend it to: one that leads a group of its own in this command's session.
    pub fn is_for(&self, root: Pid) -> bool {
        let leads = getpgid(Some(root)).is_ok_and(|group| group == root);
        self.tty.is_some() && leads && getsid(Some(root)).ok() == getsid(None).ok()
    }

    /// Makes the group that `root` leads the foreground, if this command is that now.
    pub fn lend(&mut self, root: Pid) {
        if self.is_ours() && self.is_for(root) {
            self.lent = self.tty.as_ref().is_some_and(|tty| tcsetpgrp(tty, root).is_ok());
        }
    }

    /// Makes this command the foreground again and tells whether it was lent. `SIGTTOU` must be blocked.
    pub fn take_back(&mut self) -> bool {
        if let (Some(tty), true) = (&self.tty, self.lent) {
            // A terminal that is gone is nobody's.
            let _ = tcsetpgrp(tty, getpgrp());
        }
        std::mem::take(&mut self.lent)
    }

    /// Whether this command is the foreground.
    pub fn is_ours(&self) -> bool {
        self.tty.as_ref().is_some_and(|tty| tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
    }
}
