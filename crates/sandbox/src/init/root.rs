//! The stages that make the root file system. Until the pivot, the new root is the working directory: its paths are
//! relative, the host's absolute.

use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use linux::mount::{AttributeChange, MountAttrFlags, set_attributes};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};

use super::mounts::{OWN, READ_ONLY, attach, bind, copy_tree, file_system, make_directory};
use super::{Context, Step};
use crate::layout::{FUNCTION_GID, FUNCTION_UID, FUNCTION_USER, RootLayout, SHM_MIB, TMP_DEFAULT_MIB};

/// The directories of programs and libraries, taken as the host has them: links stay links.
const SYSTEM_DIRECTORIES: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is bound from the host's `/etc` where it exists: what the dynamic linker, certificate stores and programs
/// under `/etc/alternatives` need. Nothing that tells of the host's users or services.
const HOST_FILES: [&str; 8] = [
    "etc/ld.so.cache",
    "etc/alternatives",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "etc/pki/ca-trust",
    "etc/pki/tls/certs",
    "etc/mime.types",
    "etc/os-release",
];

/// The devices that every program may use.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Entries of `/proc` that steer the kernel: visible, but read-only.
const PROC_READ_ONLY: [&str; 4] = ["sys", "bus", "irq", "fs"];

/// Entries of `/proc` that tell of the host or give a handle on its kernel: covered by an empty file or directory.
const PROC_COVERED: [&str; 12] = [
    "acpi",
    "asound",
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "modules",
    "sched_debug",
    "scsi",
    "timer_list",
];

/// Stage `Propagation`.
pub(super) fn leave_peer_groups() -> Step {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("open /")?;
    let none = MountAttrFlags::empty();
    set_attributes(root, AttributeChange { set: none, clear: none, private: true, recursive: true })
        .context("make every mount private")
}

/// Stage `Root`.
pub(super) fn mount_root(scratch: &Path) -> Step {
    let root = file_system("tmpfs", &[("mode", "0755"), ("size", "4m"), ("nr_inodes", "1024")], OWN)?;
    attach(root, scratch)?;
    rustix::process::chdir(scratch).context(format_args!("enter {}", scratch.display()))
}

/// Stage `System`.
pub(super) fn bind_system() -> Step {
    for name in SYSTEM_DIRECTORIES {
        let source = Path::new("/").join(name);
        let Ok(metadata) = source.symlink_metadata() else { continue };
        if metadata.is_symlink() {
            let target = std::fs::read_link(&source).context(source.display())?;
            symlink(target, name).context(format_args!("link {name}"))?;
        } else {
            bind(&source, Path::new(name), READ_ONLY)?;
        }
    }
    Ok(())
}

/// Stage `Files`.
pub(super) fn make_files(host_name: &str) -> Step {
    make_directory(Path::new("etc"))?;
    let write = |name: &str, text: String| std::fs::write(name, text).context(format_args!("write /{name}"));
    write(
        "etc/passwd",
        format!(
            "root:x:0:0:root:/:/sbin/nologin\n{FUNCTION_USER}:x:{FUNCTION_UID}:{FUNCTION_GID}::/:/sbin/nologin\n"
        ),
    )?;
    write("etc/group", format!("root:x:0:\n{FUNCTION_USER}:x:{FUNCTION_GID}:\n"))?;
    write("etc/hosts", format!("127.0.0.1 localhost {host_name}\n::1 localhost\n"))?;
    write("etc/hostname", format!("{host_name}\n"))?;
    write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned())?;
    // A copy, so that a link into a directory that does not exist inside is no obstacle.
    write("etc/resolv.conf", std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())?;
    // AWS Lambda runs everywhere in UTC.
    symlink("/usr/share/zoneinfo/UTC", "etc/localtime").context("link /etc/localtime")?;
    for name in HOST_FILES {
        let source = Path::new("/").join(name);
        if source.exists() {
            make_directory(source.strip_prefix("/").unwrap_or(&source).parent().unwrap_or(Path::new("etc")))?;
            bind(&source, Path::new(name), READ_ONLY)?;
        }
    }
    Ok(())
}

/// Stage `Devices`.
pub(super) fn make_devices() -> Step {
    make_directory(Path::new("dev"))?;
    let devices = file_system("tmpfs", &[("mode", "0755"), ("size", "64k"), ("nr_inodes", "64")], OWN)?;
    attach(&devices, Path::new("dev"))?;
    for name in DEVICES {
        // Read-only does not keep a device from being written; it keeps its inode, which is the host's, as it is.
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        bind(&Path::new("/dev").join(name), &Path::new("dev").join(name), attributes)?;
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, Path::new("dev").join(link)).context(format_args!("link /dev/{link}"))?;
    }
    make_generation_file()?;
    make_directory(Path::new("dev/shm"))?;
    let shared = file_system("tmpfs", &[("mode", "1777"), ("size", &format!("{SHM_MIB}m"))], OWN)?;
    attach(shared, Path::new("dev/shm"))?;
    set_attributes(
        devices,
        AttributeChange {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC,
            clear: MountAttrFlags::empty(),
            private: true,
            recursive: false,
        },
    )
    .context("make /dev read-only")
}

/// `/dev/sysgenid`: four random bytes that differ between sandboxes. AWS-LC maps it and takes new randomness from the
/// kernel when the number is not the one it saw last, as after a restore into another sandbox.
fn make_generation_file() -> Step {
    let mut generation = [0_u8; 4];
    rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(&mut generation, rustix::rand::GetRandomFlags::empty())
    })
    .context("take randomness")?;
    let path = Path::new("dev/sysgenid");
    std::fs::write(path, generation).context("write /dev/sysgenid")?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o444)).context("protect /dev/sysgenid")
}

/// Stage `Processes`.
pub(super) fn mount_proc() -> Step {
    make_directory(Path::new("proc"))?;
    let attributes = OWN | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach(file_system("proc", &[("hidepid", "invisible")], attributes)?, Path::new("proc"))?;
    for name in PROC_READ_ONLY {
        let path = Path::new("proc").join(name);
        if path.exists() {
            attach(copy_tree(&path, READ_ONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC)?, &path)?;
        }
    }
    for name in PROC_COVERED {
        let path = Path::new("proc").join(name);
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            let cover = file_system("tmpfs", &[("mode", "0555"), ("size", "4k")], READ_ONLY)?;
            attach(cover, &path)?;
        } else {
            attach(copy_tree(Path::new("dev/null"), MountAttrFlags::MOUNT_ATTR_RDONLY)?, &path)?;
        }
    }
    Ok(())
}

/// Stage `Temporary`.
pub(super) fn mount_tmp() -> Step {
    make_directory(Path::new("tmp"))?;
    let size = format!("{TMP_DEFAULT_MIB}m");
    attach(file_system("tmpfs", &[("mode", "1777"), ("size", &size)], OWN)?, Path::new("tmp"))
}

/// Stage `Runtime`.
pub(super) fn bind_runtime(layout: &RootLayout) -> Step {
    for place in ["var/task", "var/runtime", "var/lang", "opt"] {
        make_directory(Path::new(place))?;
    }
    for entry in &layout.binds {
        bind(&entry.source, &inside(&entry.target)?, READ_ONLY)?;
    }
    Ok(())
}

/// The path of `target` relative to the new root.
fn inside(target: &Path) -> Step<PathBuf> {
    let relative = target.strip_prefix("/").map_err(|_| format!("{} is not absolute", target.display()))?;
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(relative.to_owned())
    } else {
        Err(format!("{} must not hold `..`", target.display()))
    }
}

/// Stage `Pivot`.
pub(super) fn pivot() -> Step {
    // With both arguments the same, the old root ends up on top of the new one and can be detached by the same name
    // (pivot_root(2)); no directory for it is needed inside.
    rustix::process::pivot_root(".", ".").context("pivot to the new root")?;
    unmount(".", UnmountFlags::DETACH).context("detach the old root")?;
    rustix::process::chdir("/").context("enter the new root")?;
    let root =
        rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .context("open /")?;
    set_attributes(
        root,
        AttributeChange {
            set: MountAttrFlags::MOUNT_ATTR_RDONLY,
            clear: MountAttrFlags::empty(),
            private: true,
            recursive: false,
        },
    )
    .context("make the root read-only")
}
