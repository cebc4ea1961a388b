//! Giving up privilege for good, before code that is not ours is executed.
//!
//! `rustix` has every call; what is here is their order, which is easy to get wrong: the bounding set can only be
//! emptied with privilege, and a change of user empties the other sets by itself only when the old user was root.
//! Deliberately absent: gaining anything.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The highest capability that this crate knows the name of; the kernel's own last one is asked for beyond it.
const CAPABILITIES_MAX: u32 = 63;

/// Sets `no_new_privs`: no program executed from here on gains privilege by its file (`prctl(2)`).
///
/// # Errors
/// As `prctl(PR_SET_NO_NEW_PRIVS)`.
pub fn refuse_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Empties the capability bounding set of the calling thread, whatever capabilities the kernel knows.
///
/// # Errors
/// As `prctl(PR_CAPBSET_DROP)`: `EPERM` without `CAP_SETPCAP`.
pub fn empty_bounding_set() -> io::Result<()> {
    for number in 0..=CAPABILITIES_MAX {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel's last capability is passed.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the calling thread's real, effective and saved user and group the given ones and leaves every
/// supplementary group. The process must have one thread: each thread has credentials of its own.
///
/// # Errors
/// As `setgroups(2)`, `setresgid(2)`, `setresuid(2)`.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // The user goes last: with it goes the right to change the others.
    rustix::thread::set_thread_groups(&[])?;
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Empties the ambient, inheritable, permitted and effective capability sets of the calling thread.
///
/// # Errors
/// As `capset(2)`.
pub fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    Ok(rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?)
}

/// The effective capabilities of the calling thread.
///
/// # Errors
/// As `capget(2)`.
pub fn effective_capabilities() -> io::Result<CapabilitySet> {
    Ok(rustix::thread::capabilities(None)?.effective)
}
