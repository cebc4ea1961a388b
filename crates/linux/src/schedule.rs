//! How a thread is scheduled: policy and processors.

use std::io;

/// Bytes of `struct sched_attr` that this crate knows (with utilization clamps, Linux 5.3).
pub const ATTRIBUTE_BYTES: usize = 56;
/// Bytes of a set of processors: 8192 of them, the most that Linux can be built for.
const PROCESSORS_BYTES_MAX: usize = 1024;

/// The scheduling attributes of a thread, `struct sched_attr` as `sched_getattr(2)` gives it.
///
/// # Errors
/// As `sched_getattr(2)`.
pub fn attributes(tid: i32) -> io::Result<[u8; ATTRIBUTE_BYTES]> {
    let mut attributes = [0_u8; ATTRIBUTE_BYTES];
    // SAFETY: the kernel writes at most the given number of bytes, which is the length of `attributes`.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, tid, attributes.as_mut_ptr(), ATTRIBUTE_BYTES, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

/// The processors that a thread may run on, as `sched_getaffinity(2)` gives them, without zeros at the end.
///
/// # Errors
/// As `sched_getaffinity(2)`.
pub fn affinity(tid: i32) -> io::Result<Vec<u8>> {
    let mut set = vec![0_u8; PROCESSORS_BYTES_MAX];
    // SAFETY: the kernel writes at most the given number of bytes, which is the length of `set`.
    let bytes =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid, PROCESSORS_BYTES_MAX, set.as_mut_ptr()) };
    if bytes < 0 {
        return Err(io::Error::last_os_error());
    }
    let used = set.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // Whole words, as the call that sets it wants them.
    set.truncate(used.next_multiple_of(8));
    Ok(set)
}

/// The priority of a thread's input and output, as `ioprio_get(2)` gives it: class and level; zero for none.
///
/// # Errors
/// As `ioprio_get(2)`.
pub fn io_priority(tid: i32) -> io::Result<u32> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: the call takes two numbers and writes to no memory.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_has_a_processor_and_attributes() {
        assert!(affinity(0).unwrap().iter().any(|byte| *byte != 0));
        let known = attributes(0).unwrap();
        assert!(u32::from_ne_bytes(known[..4].try_into().unwrap()) >= 48);
        assert_eq!(attributes(i32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
