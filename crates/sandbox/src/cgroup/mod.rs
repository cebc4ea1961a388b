//! Control groups: where they are on this machine, and one group per sandbox.
//!
//! Both versions are real: cgroup v1 has a tree for each controller (or several), v2 has one tree for all, and hybrid
//! hosts have both. [`Places`] says, for each thing that a sandbox needs, which tree gives it; [`Group`] is one sandbox's
//! directories in those trees. A thing that no tree gives is absent, never an error: the sandbox then runs without that
//! limit, and `doctor` says so.
//!
//! Groups are made below the group that the host role itself runs in, so that limits which an operator put on the
//! server hold for its functions too, and so that a delegated subtree is enough.

mod group;
mod places;

pub use group::{Group, JoinFiles};
pub use places::{Place, Places, Version};

use std::io;
use std::path::{Path, PathBuf};

/// The name of every parent group of ours starts with this.
const PARENT_PREFIX: &str = "rekindle-";

/// The groups that hold all sandboxes of one server: one in each tree.
#[derive(Debug)]
pub struct Parent {
    places: Places,
    name: String,
}

impl Parent {
    /// Makes the parent groups.
    ///
    /// # Errors
    /// The path and the kernel's answer, when a directory cannot be made.
    pub fn make(places: &Places, mark: &str) -> Result<Self, (PathBuf, io::Error)> {
        let parent = Self { places: places.clone(), name: format!("{PARENT_PREFIX}{mark}") };
        for directory in parent.directories() {
            make_directory(&directory).map_err(|error| (directory.clone(), error))?;
        }
        parent.delegate();
        Ok(parent)
    }

    /// The directories of the parent groups.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.places.trees().into_iter().map(|place| place.base.join(&self.name)).collect()
    }

    /// Makes the group of one sandbox.
    ///
    /// # Errors
    /// The path and the kernel's answer, when a directory cannot be made.
    pub fn group(&self, id: u64) -> Result<Group, (PathBuf, io::Error)> {
        let group = Group::new(&self.places, &self.name, id);
        for directory in group.directories() {
            make_directory(directory).map_err(|error| (directory.to_owned(), error))?;
        }
        Ok(group)
    }

    /// In v2, hands the controllers of the base down to the parent and on to the sandboxes' groups.
    fn delegate(&self) {
        for place in self.places.trees() {
            if place.version == Version::V2 {
                for controller in &place.controllers {
                    let own = place.base.join("cgroup.subtree_control");
                    let below = place.base.join(&self.name).join("cgroup.subtree_control");
                    for file in [own, below] {
                        // What the tree cannot hand down shows when a limit is set; the probe said it can.
                        let _ = std::fs::write(file, format!("+{controller}"));
                    }
                }
            }
        }
    }
}

/// Asks the kernel to favor moves between groups over forks and exits (`favordynmods`, Linux 6.0).
///
/// A restored clone joins its groups by a write, and by default the kernel lets such a write wait for an RCU grace
/// period: 15 ms instead of 0.1 ms were measured. The setting is the machine's, not ours alone; it makes forks a
/// little dearer, and stays when the server ends, because another server may rely on it.
///
/// # Errors
/// As `fsconfig(2)`: an older kernel, or no right to configure control groups.
pub fn favor_moves() -> io::Result<()> {
    use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsopen};
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "favordynmods")?;
    // Creating applies the option to the one hierarchy that exists; nothing is mounted.
    Ok(fsconfig_create(&context)?)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Kills what runs in the groups below `parent` and removes them and it. True when nothing of it is left.
///
/// For the groups of a server that is dead: nobody adds to them any more. Call again while it says false.
pub fn remove_tree(parent: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(parent) else { return !parent.exists() };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        group::kill_directory(&entry.path());
        let _ = std::fs::remove_dir(entry.path());
    }
    group::kill_directory(parent);
    match std::fs::remove_dir(parent) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether a path names a parent group of ours, as [`Parent::make`] makes them.
pub fn is_parent(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PARENT_PREFIX))
}
