//! What of open files can only be set when every process stands.

use super::Files;
use crate::image::{Kind, SEALS_NONE, TimerFd};
use crate::plan::Context;
use crate::plan::list::{Arg, List};

const F_SETSIG: u64 = 10;
const F_SETLEASE: u64 = 1024;
const F_ADD_SEALS: u64 = 1033;
const F_SEAL_FUTURE_WRITE: u32 = 0x10;
const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;

/// Owners by process ID, leases, armed timers, the last seals. Runs in
/// the first process.
pub fn settle(list: &mut List, context: &Context<'_>, files: &Files) {
    for (index, file) in context.image.open_files.iter().enumerate() {
        let Some(number) = files.operand(index as u32) else { continue };
        if file.owner != 0 {
            let set = |list: &mut List, command: u64, value: i32| {
                list.attempt(libc::SYS_fcntl, &[number, command.into(), (value as i64 as u64).into()]);
            };
            set(list, libc::F_SETOWN as u64, file.owner);
            set(list, F_SETSIG, file.owner_signal);
            if file.status_flags & libc::O_ASYNC as u32 != 0 {
                set(list, libc::F_SETFL as u64, file.status_flags as i32);
            }
        }
        if file.lease != 0 {
            let args = [number, F_SETLEASE.into(), u64::from(file.lease - 1).into()];
            list.exactly(libc::SYS_fcntl, &args, 0);
        }
        if let Some(Kind::TimerFd(timer)) = &file.kind {
            arm(list, number, timer);
        }
    }
    for (inode, number) in context.image.inodes.iter().zip(&files.inodes) {
        if inode.seals != SEALS_NONE && inode.seals & F_SEAL_FUTURE_WRITE != 0 {
            let args = [(*number).into(), F_ADD_SEALS.into(), u64::from(inode.seals).into()];
            list.exactly(libc::SYS_fcntl, &args, 0);
        }
    }
}

fn arm(list: &mut List, number: Arg, timer: &TimerFd) {
    if timer.value_ns > 0 {
        let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000];
        // A moment of the wall clock stays that moment; every other clock goes on from where it stood.
        let (value_ns, flags) = match timer.moment_ns {
            0 => (timer.value_ns, 0),
            moment_ns => (moment_ns, u64::from(timer.flags)),
        };
        let [interval, value] = [split(timer.interval_ns), split(value_ns)];
        let address = list.words(&[interval[0], interval[1], value[0], value[1]]);
        list.exactly(libc::SYS_timerfd_settime, &[number, flags.into(), address.into(), 0.into()], 0);
    }
    if timer.ticks > 0 {
        // A kernel without checkpoint support cannot: then the next expiry is the first that is seen.
        let ticks = list.words(&[timer.ticks]);
        list.attempt(libc::SYS_ioctl, &[number, TFD_IOC_SET_TICKS.into(), ticks.into()]);
    }
}
