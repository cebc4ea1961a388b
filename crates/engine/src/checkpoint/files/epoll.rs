//! Epoll sets: which open file each member stands for.
//!
//! A member is a number and an open file, and the number may mean another file by now, in this process or in another
//! that inherited the set. The kernel tells the inode of a member's file, and `kcmp` tells the file itself.

use std::collections::HashMap;

use linux::descriptor::{EpollMember as Slot, compare_member};

use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Epoll, EpollMember, Kind};

/// A line of `/proc/PID/fdinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    number: i32,
    events: u32,
    data: u64,
    inode: Option<u64>,
}

/// Where open files are found: by process and number, and by inode.
#[derive(Default)]
struct Places {
    by_descriptor: HashMap<(i32, i32), usize>,
    by_inode: HashMap<u64, Vec<usize>>,
}

impl Files<'_> {
    pub(super) fn resolve_epoll(&mut self) -> Result<(), CheckpointError> {
        let mut places = Places::default();
        for (index, entry) in self.entries.iter().enumerate() {
            places.by_descriptor.insert((entry.held.pid, entry.held.number), index);
            places.by_inode.entry(entry.stat.st_ino).or_default().push(index);
        }
        for index in 0..self.entries.len() {
            if !matches!(self.entries[index].kind, Some(Kind::Epoll(_))) {
                continue;
            }
            let lines = parse(&self.entries[index].info.text);
            let mut members = Vec::with_capacity(lines.len());
            for (position, line) in lines.iter().enumerate() {
                let before = lines[..position].iter().filter(|other| other.number == line.number).count();
                let file = self.member(index, line, before as u32, &places)?;
                let Line { number, events, data, .. } = *line;
                members.push(EpollMember { number, events, data, file: file as u32 });
            }
            self.entries[index].kind = Some(Kind::Epoll(Epoll { members }));
        }
        Ok(())
    }

    /// The open file that a member stands for.
    fn member(
        &self,
        set: usize,
        line: &Line,
        before: u32,
        places: &Places,
    ) -> Result<usize, CheckpointError> {
        let epoll = self.entries[set].held;
        let slot = Slot { epoll, number: line.number, before };
        // Most often it is what the number means still.
        let guess = places.by_descriptor.get(&(epoll.pid, line.number));
        let likely = line.inode.and_then(|inode| places.by_inode.get(&inode));
        // Some file systems tell another inode than the one that the kernel keeps.
        let rest = 0..self.entries.len();
        for index in guess.copied().into_iter().chain(likely.into_iter().flatten().copied()).chain(rest) {
            let order = compare_member(self.entries[index].held, slot);
            if order.doing("look at an epoll set", epoll.pid)?.is_eq() {
                return Ok(index);
            }
        }
        let what = format!("an epoll set whose member {} is held by no process of the snapshot", line.number);
        Err(self.refused(set, &what, REOPEN))
    }
}

/// Lines like `tfd: 5 events: 19 data: 5 pos:0 ino:1 sdev:2`.
fn parse(info: &str) -> Vec<Line> {
    let member = |line: &str| {
        let mut words = line.split_whitespace();
        let number = words.nth(1)?.parse().ok()?;
        let events = u32::from_str_radix(words.nth(1)?, 16).ok()?;
        let data = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let inode = words.find_map(|word| u64::from_str_radix(word.strip_prefix("ino:")?, 16).ok());
        Some(Line { number, events, data, inode })
    };
    info.lines().filter(|line| line.starts_with("tfd:")).filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read() {
        let lines =
            parse("pos:\t0\ntfd:        5 events: 80000019 data:              7f  pos:0 ino:1a sdev:2\n");
        assert_eq!(lines, [Line { number: 5, events: 0x8000_0019, data: 0x7f, inode: Some(0x1a) }]);
    }
}
