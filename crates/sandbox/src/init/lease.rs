//! A lease: the version's code, layers, size and content of `/tmp`, and clocks, added to a ready sandbox.
//!
//! It happens before any function code runs in the sandbox, so paths can be trusted here; the trees of the host come as
//! descriptors of detached mounts, because no path of the host exists inside.

use std::os::fd::OwnedFd;
use std::path::Path;

use linux::namespace::Namespaces;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, UnmountFlags};

use super::mounts::{OWN, attach};
use super::{Context, Step};
use crate::layout::{ClockOffsets, TMP_DEFAULT_MIB};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// What a lease brings, its trees detached and protected already.
pub(super) struct Grant {
    pub tmp_mib: u32,
    pub task: Option<OwnedFd>,
    pub opt: Option<OwnedFd>,
    pub tmp_lower: Option<OwnedFd>,
    pub clock: Option<ClockOffsets>,
    /// Whether the sandbox has a user namespace of its own.
    pub only_user: bool,
}

/// Adds everything; the time namespace where one was asked for.
pub(super) fn lease(grant: Grant) -> Step<Option<OwnedFd>> {
    if let Some(tree) = grant.task {
        attach(tree, Path::new("/var/task"))?;
    }
    if let Some(tree) = grant.opt {
        attach(tree, Path::new("/opt"))?;
    }
    if grant.tmp_mib != TMP_DEFAULT_MIB {
        resize_tmp(grant.tmp_mib)?;
    }
    if let Some(lower) = grant.tmp_lower {
        lay_tmp_over(lower, grant.only_user)?;
    }
    grant.clock.map(|clock| time_namespace(clock, grant.only_user)).transpose()
}

fn resize_tmp(size_mib: u32) -> Step {
    let context = rustix::mount::fspick(CWD, "/tmp", FsPickFlags::FSPICK_CLOEXEC).context("open /tmp")?;
    rustix::mount::fsconfig_set_string(&context, "size", format!("{size_mib}m").as_str())
        .context(format_args!("set the size of /tmp to {size_mib} MiB"))?;
    rustix::mount::fsconfig_reconfigure(&context).context(format_args!("resize /tmp to {size_mib} MiB"))
}

/// Mounts an overlay on `/tmp`: `lower` below, and above it directories of the tmpfs that is already there and that
/// goes on holding every change, within its size.
fn lay_tmp_over(lower: OwnedFd, only_user: bool) -> Step {
    for (place, mode) in [("/tmp/lower", 0o755), ("/tmp/work", 0o700), ("/tmp/upper", 0o1777)] {
        rustix::fs::mkdir(place, Mode::from_raw_mode(mode)).context(format_args!("make {place}"))?;
        rustix::fs::chmodat(CWD, place, Mode::from_raw_mode(mode), AtFlags::empty())
            .context(format_args!("set the mode of {place}"))?;
    }
    attach(lower, Path::new("/tmp/lower"))?;
    let context =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("open file system overlay")?;
    let mut options = vec![("lowerdir", "/tmp/lower"), ("upperdir", "/tmp/upper"), ("workdir", "/tmp/work")];
    // Only there do trusted attributes exist, which renaming a directory of the snapshot needs.
    if !only_user {
        options.push(("redirect_dir", "on"));
    }
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, key, value)
            .context(format_args!("set {key} of overlay"))?;
    }
    // What is synced to memory is no safer there.
    rustix::mount::fsconfig_set_flag(&context, "volatile").context("set volatile of overlay")?;
    if only_user {
        rustix::mount::fsconfig_set_flag(&context, "userxattr").context("set userxattr of overlay")?;
    }
    rustix::mount::fsconfig_create(&context).context("create overlay")?;
    let overlay =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, OWN).context("mount overlay")?;
    // The overlay has its own hold on the lower tree.
    rustix::mount::unmount("/tmp/lower", UnmountFlags::DETACH).context("detach the lower tree of /tmp")?;
    attach(overlay, Path::new("/tmp"))
}

/// Makes a time namespace whose clocks are the host's plus the offsets; children of init are born in it.
fn time_namespace(clock: ClockOffsets, only_user: bool) -> Step<OwnedFd> {
    linux::namespace::unshare(Namespaces::TIME).context("make a time namespace")?;
    let line = |name: &str, offset_ns: i64| {
        let seconds = offset_ns.div_euclid(NANOSECONDS_PER_SECOND);
        format!("{name} {seconds} {}\n", offset_ns.rem_euclid(NANOSECONDS_PER_SECOND))
    };
    let offsets = line("monotonic", clock.monotonic_ns) + &line("boottime", clock.boottime_ns);
    // The file of an unreadable process belongs to the host's root, who does not exist in a user namespace of one user.
    // No function code runs yet that could use the moment.
    if only_user {
        linux::process::set_readable_by_user(true).context("become readable")?;
    }
    let written = std::fs::write("/proc/self/timens_offsets", &offsets)
        .context(format_args!("set the clock offsets {}", offsets.trim_end().replace('\n', ", ")));
    let namespace =
        rustix::fs::open("/proc/self/ns/time_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context("open the time namespace");
    if only_user {
        linux::process::set_readable_by_user(false).context("become unreadable")?;
    }
    written?;
    namespace
}

/// Checks that a descriptor is there for each tree that the request names, and takes them in their order.
pub(super) fn trees(descriptors: Vec<OwnedFd>, wanted: [bool; 3]) -> Step<[Option<OwnedFd>; 3]> {
    let expected = wanted.iter().filter(|wanted| **wanted).count();
    if descriptors.len() != expected {
        return Err(format!("{} trees came with a lease of {expected}", descriptors.len()));
    }
    let mut next = descriptors.into_iter();
    Ok(wanted.map(|wanted| if wanted { next.next() } else { None }))
}
