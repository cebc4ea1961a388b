//! Pseudoterminals of which both sides are in the image.

use std::os::fd::OwnedFd;

use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Kind, Terminal};

/// `/dev/ptmx`.
const MASTER: (u32, u32) = (5, 2);
/// Slaves have eight major numbers, of 256 minor ones each (Documentation/admin-guide/devices.txt).
const SLAVE_MAJORS: std::ops::Range<u32> = 136..144;

impl Files<'_> {
    pub(super) fn terminal(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let device = entry.stat.st_rdev;
        let number = (rustix::fs::major(device), rustix::fs::minor(device));
        let (pid, link) = (entry.held.pid, entry.link.clone());
        if number != MASTER && !SLAVE_MAJORS.contains(&number.0) {
            return Err(self.refused(index, &format!("the device {link}"), REOPEN));
        }
        let copy = self.copy(index)?;
        if rustix::io::ioctl_fionread(&copy).is_ok_and(|waiting| waiting > 0) {
            return Err(self.refused(index, "a terminal with unread input", "read it before the snapshot"));
        }
        if number == MASTER {
            return self.master(index, &copy);
        }
        let id = (number.0 - SLAVE_MAJORS.start) * 256 + number.1;
        linux::terminal::settings(&copy).doing("read a terminal's settings", pid)?;
        Ok(Kind::Terminal(Terminal { id, master: false, ..Terminal::default() }))
    }

    fn master(&self, index: usize, copy: &OwnedFd) -> Result<Kind, CheckpointError> {
        let pid = self.entries[index].held.pid;
        const ASK: &str = "read a terminal's settings";
        if linux::terminal::packet_mode(copy).doing(ASK, pid)? {
            return Err(self.refused(index, "a terminal in packet mode", REOPEN));
        }
        Ok(Kind::Terminal(Terminal {
            id: linux::terminal::number(copy).doing(ASK, pid)?,
            master: true,
            termios: linux::terminal::settings(copy).doing(ASK, pid)?.to_vec(),
            window: linux::terminal::window(copy).doing(ASK, pid)?.to_vec(),
        }))
    }

    /// A slave side needs its master.
    pub(super) fn resolve_terminals(&self) -> Result<(), CheckpointError> {
        let terminals = || {
            self.entries.iter().enumerate().filter_map(|(index, entry)| match &entry.kind {
                Some(Kind::Terminal(terminal)) => Some((index, terminal)),
                _ => None,
            })
        };
        for (index, slave) in terminals().filter(|(_, terminal)| !terminal.master) {
            if !terminals().any(|(_, other)| other.master && other.id == slave.id) {
                let what =
                    format!("terminal {}, which belongs to a process outside of the snapshot", slave.id);
                return Err(self.refused(index, &what, REOPEN));
            }
        }
        for member in &self.family.members {
            let controlled_by = slave_number(member.stat.tty_nr);
            if terminals().any(|(_, terminal)| controlled_by == Some(terminal.id)) {
                return Err(CheckpointError::Unsupported {
                    what: format!("{}, whose controlling terminal is part of the snapshot,", member.title()),
                    remedy: "open the terminal with O_NOCTTY, or end the process before the snapshot",
                });
            }
        }
        Ok(())
    }
}

/// The number of the pseudoterminal that `/proc/PID/stat` names as controlling terminal. Minor numbers are split there.
fn slave_number(device: i32) -> Option<u32> {
    let (major, minor) =
        ((device >> 8) as u32 & 0xfff, (device & 0xff) as u32 | (device as u32 >> 12) & 0xf_ff00);
    SLAVE_MAJORS.contains(&major).then(|| (major - SLAVE_MAJORS.start) * 256 + minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controlling_terminal_is_told_by_its_number() {
        assert_eq!(slave_number(136 << 8 | 5), Some(5));
        assert_eq!(slave_number(0), None);
        assert_eq!(slave_number(4 << 8 | 1), None);
    }
}
