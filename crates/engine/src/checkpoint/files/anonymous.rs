//! Files that are made by a call of their own: eventfd, timerfd, signalfd, epoll sets, inotify, pidfd.

use std::time::Duration;

use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Epoll, EventFd, Kind, TimerFd};

/// How often a timer that may be about to expire is looked at.
const TIMER_LOOKS: u32 = 3;

impl Files<'_> {
    pub(super) fn anonymous(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let name = entry.link.strip_prefix("anon_inode:").unwrap_or(&entry.link);
        let name = name.trim_matches(['[', ']']);
        match name {
            "eventfd" => Ok(Kind::EventFd(EventFd {
                count: entry.info.number("eventfd-count", 16),
                semaphore: entry.info.number("eventfd-semaphore", 10) == 1,
            })),
            // Its members are found when all open files are known.
            "eventpoll" => Ok(Kind::Epoll(Epoll::default())),
            "timerfd" => self.timer(index),
            "signalfd" => Ok(Kind::SignalFd(entry.info.number("sigmask", 16))),
            "inotify" => self.inotify(index),
            _ if name.starts_with("pidfd") => self.pidfd(index),
            "io_uring" => Err(self.refused(
                index,
                "an io_uring instance",
                "run it without io_uring (UV_USE_IO_URING=0 for Node.js), or close the ring in a before-snapshot hook",
            )),
            "userfaultfd" => Err(self.refused(index, "a userfaultfd", "end its use before the snapshot")),
            other => {
                let what = format!("a descriptor of kind {other}");
                Err(self.refused(index, &what, REOPEN))
            }
        }
    }

    fn timer(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let pid = self.entries[index].held.pid;
        let copy = self.copy(index)?;
        let nanoseconds =
            |time: rustix::time::Timespec| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        let mut looks = 0;
        loop {
            // Asking moves a periodic timer that has expired on to its next expiry; the ticks are counted then.
            let setting = rustix::time::timerfd_gettime(&copy).doing("read a timer", pid)?;
            let title = self.entries[index].title.clone();
            let info = self.entry(self.entries[index].held, title)?.info;
            let clock = info.number("clockid", 10) as i32;
            let flags = info.number("settime flags", 8) as u32;
            let value_ns = nanoseconds(setting.it_value);
            let by_wall_clock = [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_ALARM].contains(&clock)
                && flags & libc::TFD_TIMER_ABSTIME as u32 != 0;
            let now_ns = nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Realtime));
            let timer = TimerFd {
                clock,
                value_ns,
                interval_ns: nanoseconds(setting.it_interval),
                ticks: info.number("ticks", 10),
                moment_ns: if by_wall_clock && value_ns > 0 { now_ns + value_ns } else { 0 },
                flags,
            };
            looks += 1;
            // One whose time has come reads like one that is not armed until its interrupt has run.
            let unclear = timer.value_ns == 0 && (timer.interval_ns > 0 || timer.ticks == 0);
            if !unclear || looks == TIMER_LOOKS {
                return Ok(Kind::TimerFd(timer));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn pidfd(&mut self, index: usize) -> Result<Kind, CheckpointError> {
        let entry = &self.entries[index];
        let host_pid = entry.info.get("Pid").and_then(|pid| pid.parse().ok()).unwrap_or(-1);
        let of_thread = entry.flags() & libc::O_EXCL != 0;
        match self.family.by_host_pid(host_pid) {
            Some(member) if !of_thread => Ok(Kind::PidFd(member.pid)),
            _ => {
                let what = if of_thread {
                    "a pidfd of a thread"
                } else if host_pid > 0 {
                    "a pidfd of a process outside of the snapshot"
                } else {
                    "a pidfd of a process that is gone"
                };
                Err(self.refused(index, what, REOPEN))
            }
        }
    }
}
