//! Interval timers and POSIX timers of a process.

use super::family::{Family, Member};
use super::fields;
use super::remote::{ANSWER_BYTES, CALLS_MAX, Remote};
use super::{CheckpointError, Doing};
use crate::image::{IntervalTimer, Timer};

const TIMERS_BYTES_MAX: u64 = 1 << 22;
/// Words of `struct itimerval` and of `struct itimerspec`.
const SETTING_WORDS: u64 = 4;

/// The interval timers that are armed, of the values that `getitimer` gives for each of them.
pub fn interval(values: &[u64]) -> Vec<IntervalTimer> {
    let timers = values.chunks_exact(SETTING_WORDS as usize).zip(0..);
    let timers = timers.filter_map(|(value, which)| {
        let (interval, left) = value.split_at(2);
        let armed = left != [0, 0];
        // The real-time timer starts anew when its signal is delivered; until then the kernel tells no time.
        let waits = which == libc::ITIMER_REAL as u32 && interval != [0, 0];
        let value = if armed { value.to_vec() } else { [interval, interval].concat() };
        (armed || waits).then_some(IntervalTimer { which, value })
    });
    timers.collect()
}

/// The POSIX timers, ascending by ID.
pub fn posix(family: &Family, member: &Member, remote: &Remote<'_>) -> Result<Vec<Timer>, CheckpointError> {
    let path = format!("/proc/{}/timers", member.host_pid);
    let text = fields::read(&path, TIMERS_BYTES_MAX).doing("read the timers", member.host_pid)?;
    let mut timers = parse(&text);
    timers.sort_by_key(|timer| timer.id);
    for timer in &mut timers {
        if timer.notify == libc::SIGEV_THREAD_ID {
            let gone = || CheckpointError::Unsupported {
                what: format!("timer {} of {}, whose thread has ended,", timer.id, member.title()),
                remedy: "delete the timer before the snapshot",
            };
            timer.thread = family.tid_inside(timer.thread).ok_or_else(gone)?;
        }
    }
    let at_once = ((ANSWER_BYTES / (SETTING_WORDS * 8)) as usize).min(CALLS_MAX);
    for part in timers.chunks_mut(at_once) {
        let place = |index: usize| index as u64 * SETTING_WORDS * 8;
        let arguments = part.iter().enumerate();
        let arguments: Vec<_> =
            arguments.map(|(index, timer)| [u64::from(timer.id), remote.place(place(index))]).collect();
        let calls: Vec<_> =
            arguments.iter().map(|arguments| (libc::SYS_timer_gettime, arguments.as_slice())).collect();
        let answers = remote.calls(member.main(), &calls)?;
        for (index, timer) in part.iter_mut().enumerate() {
            answers.result(index, "read a timer")?;
            timer.setting = answers.words::<4>(place(index)).to_vec();
        }
    }
    Ok(timers)
}

/// Entries like `ID: 0`, `signal: 14/00000000deadbeef`, `notify: signal/pid.42`, `ClockID: 1`.
fn parse(text: &str) -> Vec<Timer> {
    let mut timers: Vec<Timer> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name == "ID" {
            timers.push(Timer { id: value.parse().unwrap_or(0), ..Timer::default() });
        }
        let Some(timer) = timers.last_mut() else { continue };
        match name {
            "signal" => {
                let (signal, address) = value.split_once('/').unwrap_or((value, "0"));
                timer.signal = signal.parse().unwrap_or(0);
                timer.value = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap_or(0);
            }
            "notify" => {
                let (kind, target) = value.split_once('/').unwrap_or((value, ""));
                timer.notify = match kind {
                    "none" => libc::SIGEV_NONE,
                    "thread" => libc::SIGEV_THREAD,
                    _ => libc::SIGEV_SIGNAL,
                };
                if let Some(thread) = target.strip_prefix("tid.") {
                    timer.notify |= libc::SIGEV_THREAD_ID;
                    timer.thread = thread.parse().unwrap_or(0);
                }
            }
            "ClockID" => timer.clock = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    timers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_of_each_kind_are_told_apart() {
        let timers = parse(
            "ID: 0\nsignal: 14/00000000deadbeef\nnotify: signal/pid.42\nClockID: 1\n\
             ID: 3\nsignal: 34/000000000000002a\nnotify: signal/tid.43\nClockID: -6\n\
             ID: 4\nsignal: 0/0000000000000000\nnotify: none/pid.42\nClockID: 0\n",
        );
        let told: Vec<_> =
            timers.iter().map(|timer| (timer.id, timer.signal, timer.notify, timer.clock)).collect();
        assert_eq!(told, [(0, 14, 0, 1), (3, 34, 4, -6), (4, 0, 1, 0)]);
        assert_eq!((timers[0].value, timers[1].value, timers[1].thread), (0xdead_beef, 42, 43));
    }
}
