//! The few ways in which a sandbox mounts: a fresh file system, a read-only copy of a tree, a copy of one file.
//!
//! All of them make a *detached* mount first, set its attributes, and attach it last, so that no mount is ever visible
//! without its protection.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::mount::{AttributeChange, MountAttrFlags, set_attributes};
use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags};

use super::{Context, Step};

/// Attributes of every mount of the host's directories.
pub(super) const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Attributes of every mount that holds files of the sandbox itself.
pub(super) const OWN: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Makes a file system with these options, detached.
pub(super) fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Step<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .context(format_args!("open file system {kind}"))?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)
            .context(format_args!("set {key}={value} of {kind}"))?;
    }
    rustix::mount::fsconfig_create(&context).context(format_args!("create {kind}"))?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .context(format_args!("mount {kind}"))
}

/// Attaches a detached mount at `target`.
pub(super) fn attach(mount: impl AsFd, target: &Path) -> Step {
    rustix::mount::move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context(format_args!("attach {}", target.display()))
}

/// Copies the mounts of the directory or file `source`, with every mount below it, and gives them `attributes`.
pub(super) fn copy_tree(source: &Path, attributes: MountAttrFlags) -> Step<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, source, flags)
        .context(format_args!("copy the mount of {}", source.display()))?;
    protect(&tree, attributes).context(format_args!("protect the mount of {}", source.display()))?;
    Ok(tree)
}

/// Adds attributes to a mount and everything below it.
pub(super) fn protect(mount: impl AsFd, attributes: MountAttrFlags) -> std::io::Result<()> {
    set_attributes(
        mount,
        AttributeChange { set: attributes, clear: MountAttrFlags::empty(), private: true, recursive: true },
    )
}

/// Binds `source` at `target`, which is made first: as a directory or as an empty file.
pub(super) fn bind(source: &Path, target: &Path, attributes: MountAttrFlags) -> Step {
    let metadata = std::fs::metadata(source).context(source.display())?;
    if metadata.is_dir() {
        make_directory(target)?;
    } else {
        std::fs::write(target, "").context(format_args!("make {}", target.display()))?;
    }
    attach(copy_tree(source, attributes)?, target)
}

/// Makes a directory and its parents.
pub(super) fn make_directory(path: &Path) -> Step {
    std::fs::create_dir_all(path).context(format_args!("make directory {}", path.display()))
}
