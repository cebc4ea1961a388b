//! The mount call that `rustix` lacks: `mount_setattr(2)`.
//!
//! Everything else of the mount interface (`open_tree`, `move_mount`, `fsopen`, `fsconfig`, `fsmount`, `fspick`,
//! `pivot_root`) is taken from `rustix` where it is used. Deliberately absent: what is mounted where.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

pub use rustix::mount::MountAttrFlags;

/// Changes to the attributes of a mount.
#[derive(Debug, Clone, Copy)]
pub struct AttributeChange {
    /// Attributes to turn on, such as `MOUNT_ATTR_RDONLY`.
    pub set: MountAttrFlags,
    /// Attributes to turn off.
    pub clear: MountAttrFlags,
    /// Whether the mount also leaves its peer group, so that no mount or unmount of the host shows up in it.
    pub private: bool,
    /// Whether every mount below it changes too.
    pub recursive: bool,
}

/// Changes the attributes of the mount that `mount` refers to (`mount_setattr(2)`, Linux 5.12).
///
/// `mount` is a descriptor of the root of a mount: of `open_tree` or `fsmount`, or an opened mount point.
///
/// # Errors
/// As `mount_setattr(2)`; `EINVAL` when the descriptor is not the root of a mount, `EPERM` without `CAP_SYS_ADMIN`.
pub fn set_attributes(mount: impl AsFd, change: AttributeChange) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(change.set.bits()),
        attr_clr: u64::from(change.clear.bits()),
        propagation: if change.private { libc::MS_PRIVATE } else { 0 },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, and the kernel reads exactly the given number of bytes from
    // `attributes`, which lives until the call has returned; it writes to none of our memory. `userns_fd` is only
    // read together with MOUNT_ATTR_IDMAP, which no caller sets by accident: a zero would then be refused.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
