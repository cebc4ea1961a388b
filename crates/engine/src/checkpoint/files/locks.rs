//! Locks on files, from `/proc/PID/fdinfo`.

use crate::image::Lock;

/// [`Lock::kind`] of `flock(2)`.
const WHOLE: u32 = 0;
/// [`Lock::kind`] of a record lock, which belongs to a process.
pub const RECORD: u32 = 1;
/// [`Lock::kind`] of a record lock of an open file.
const OPEN_FILE: u32 = 2;

/// The locks in lines like `lock: 1: POSIX  ADVISORY  WRITE 42 fe:01:1234 0 EOF`. Leases are told elsewhere.
pub fn parse(info: &str, number: i32) -> Vec<Lock> {
    info.lines().filter_map(|line| lock(line.strip_prefix("lock:")?, number)).collect()
}

/// Whether two locks on one file are the same, through whichever descriptor.
pub fn same(one: &Lock, other: &Lock) -> bool {
    Lock { number: 0, ..one.clone() } == Lock { number: 0, ..other.clone() }
}

fn lock(line: &str, number: i32) -> Option<Lock> {
    let mut words = line.split_whitespace().skip(1);
    let kind = match words.next()? {
        "FLOCK" => WHOLE,
        "POSIX" => RECORD,
        "OFDLCK" => OPEN_FILE,
        _ => return None,
    };
    let exclusive = words.nth(1)? == "WRITE";
    let start: u64 = words.nth(2)?.parse().ok()?;
    let bytes = match words.next()? {
        "EOF" => 0,
        end => end.parse::<u64>().ok()?.checked_sub(start)? + 1,
    };
    Some(Lock { number, kind, exclusive, start, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_each_kind_are_read() {
        let locks = parse(
            "pos:\t0\nlock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF\n\
             lock:\t2: POSIX  ADVISORY  READ 359 fe:01:12 100 199\nlock:\t3: OFDLCK ADVISORY  WRITE -1 fe:01:12 5 5\n\
             lock:\t4: LEASE  ACTIVE    READ  359 fe:01:12 0 EOF\n",
            7,
        );
        let told: Vec<_> =
            locks.iter().map(|lock| (lock.kind, lock.exclusive, lock.start, lock.bytes)).collect();
        assert_eq!(told, [(WHOLE, true, 0, 0), (RECORD, false, 100, 100), (OPEN_FILE, true, 5, 1)]);
        assert!(locks.iter().all(|lock| lock.number == 7));
    }
}
