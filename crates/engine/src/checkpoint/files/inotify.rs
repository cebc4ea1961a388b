//! Inotify instances: the kernel tells the inode of what is watched, and a name is looked for.

use rustix::fs::makedev;

use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Inotify, Kind, Watch};

/// Bits of a device number that are the minor one, as the kernel keeps it.
const MINOR_BITS: u32 = 20;

/// A line of `/proc/PID/fdinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    descriptor: i32,
    inode: u64,
    device: u64,
    mask: u32,
}

impl Files<'_> {
    pub(super) fn inotify(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let copy = self.copy(index)?;
        if rustix::io::ioctl_fionread(&copy).doing("look at a watch", pid)? > 0 {
            return Err(self.refused(
                index,
                "an inotify instance with events that nobody has read",
                "read them before the snapshot, or close it and open it again in an after-restore hook",
            ));
        }
        let mut watches = Vec::new();
        for line in parse(&self.entries[index].info.text) {
            let found = self.places.find(self.subject, &self.entries, (line.device, line.inode));
            let Some(path) = found else {
                let what =
                    format!("an inotify instance whose watch {} has no name that is found", line.descriptor);
                return Err(self.refused(index, &what, REOPEN));
            };
            watches.push(Watch { descriptor: line.descriptor, mask: line.mask, path });
        }
        watches.sort_by_key(|watch| watch.descriptor);
        Ok(Kind::Inotify(Inotify { watches }))
    }
}

/// Lines like `inotify wd:1 ino:2 sdev:800013 mask:3ce ignored_mask:0 fhandle-bytes:8 ...`.
fn parse(info: &str) -> Vec<Line> {
    let watch = |line: &str| {
        let field = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            u64::from_str_radix(word?, 16).ok()
        };
        let device = field("sdev:")?;
        Some(Line {
            descriptor: field("wd:")? as i32,
            inode: field("ino:")?,
            device: makedev((device >> MINOR_BITS) as u32, (device & ((1 << MINOR_BITS) - 1)) as u32),
            mask: field("mask:")? as u32,
        })
    };
    info.lines().filter(|line| line.starts_with("inotify ")).filter_map(watch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_read() {
        let lines =
            parse("pos:\t0\ninotify wd:2 ino:1a sdev:800013 mask:3ce ignored_mask:0 fhandle-bytes:8\n");
        assert_eq!(lines, [Line { descriptor: 2, inode: 0x1a, device: makedev(8, 0x13), mask: 0x3ce }]);
    }
}
