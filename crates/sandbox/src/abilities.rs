//! What this machine can do for sandboxes, asked once at start and printed by `rekindle doctor`.
//!
//! Each lack comes with a remedy. Nothing here fails: an ability that cannot be probed is absent. Probing makes groups
//! and processes that end at once, and leaves nothing behind.

use std::path::Path;

use linux::credential;
use linux::namespace::Namespaces;
use linux::process::probe_namespaces;
use rustix::mount::FsOpenFlags;
use rustix::thread::CapabilitySet;
use serde::Serialize;

use crate::cgroup::{Place, Places, Version};
use crate::layout::FUNCTION_UID;

/// What this machine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostAbilities {
    /// The control group trees in use.
    pub cgroups: Places,
    /// Whether the calling process may make sandboxes, and how.
    pub privilege: Privilege,
    /// Whether user namespaces can be made.
    pub user_namespaces: bool,
    /// Whether time namespaces can be made: without, monotonic time jumps at a restore.
    pub time_namespaces: bool,
    /// Whether overlays can be mounted: without, files that a snapshot has in `/tmp` must be copied.
    pub overlay: bool,
}

/// What the calling process is allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Privilege {
    /// It has the privilege, and the function's user exists beside it.
    Full,
    /// It has the privilege in a user namespace with no other user than its own: each sandbox gets a user namespace.
    OneUser {
        /// The user as the calling process sees itself.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// It cannot make sandboxes.
    None,
}

/// One line of `rekindle doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub subject: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// How it is there, or what its lack costs.
    pub detail: String,
    /// What to do about the lack.
    pub remedy: Option<&'static str>,
}

impl HostAbilities {
    /// Asks the kernel.
    pub fn probe() -> Self {
        let privilege = privilege();
        let from = if privilege == Privilege::None { Namespaces::USER } else { Namespaces::empty() };
        Self {
            cgroups: Places::probe(),
            privilege,
            user_namespaces: probe_namespaces(Namespaces::USER).is_ok(),
            time_namespaces: probe_namespaces(from | Namespaces::TIME).is_ok(),
            overlay: has_overlay(),
        }
    }

    /// Each ability as a line for people, with a remedy where it is missing.
    pub fn findings(&self) -> Vec<Finding> {
        let cgroups = &self.cgroups;
        vec![
            self.privilege_finding(),
            place("memory limit", &cgroups.memory, "functions can use all of the host's memory"),
            place(
                "processor share",
                &cgroups.cpu,
                "functions can use every processor whatever their memory size",
            ),
            place(
                "process limit",
                &cgroups.pids,
                "a fork bomb in a function can fill the host's process table",
            ),
            place(
                "freezer",
                &cgroups.freezer,
                "idle environments are stopped by signals, which they can see",
            ),
            Finding {
                subject: "time namespaces",
                present: self.time_namespaces,
                detail: choose(
                    self.time_namespaces,
                    "monotonic time goes on across a restore",
                    "timers fire at restore",
                ),
                remedy: (!self.time_namespaces).then_some("use Linux 5.6 or newer with CONFIG_TIME_NS"),
            },
            Finding {
                subject: "overlayfs",
                present: self.overlay,
                detail: choose(
                    self.overlay,
                    "files of a snapshot in /tmp are shared",
                    "they are copied at each restore",
                ),
                remedy: (!self.overlay).then_some("load the kernel module: modprobe overlay"),
            },
            Finding {
                subject: "user namespaces",
                present: self.user_namespaces,
                detail: choose(self.user_namespaces, "can be made", "an ordinary user cannot run the server"),
                remedy: (!self.user_namespaces).then_some(
                    "only needed without root: raise user.max_user_namespaces, and on Ubuntu \
                     set kernel.apparmor_restrict_unprivileged_userns=0",
                ),
            },
        ]
    }

    fn privilege_finding(&self) -> Finding {
        let (present, detail) = match self.privilege {
            Privilege::Full => (true, format!("sandboxes run as user {FUNCTION_UID}")),
            Privilege::OneUser { uid, .. } => (true, format!("in a user namespace that has only user {uid}")),
            Privilege::None => (false, "no sandbox can be made".to_owned()),
        };
        Finding {
            subject: "privilege",
            present,
            detail,
            remedy: (!present).then_some("start the server as root"),
        }
    }
}

fn choose(present: bool, with: &str, without: &str) -> String {
    if present { with } else { without }.to_owned()
}

fn place(subject: &'static str, place: &Option<Place>, without: &str) -> Finding {
    let detail = match place {
        Some(Place { version: Version::V1, base, .. }) => format!("cgroup v1 at {}", base.display()),
        Some(Place { version: Version::V2, base, .. }) => format!("cgroup v2 at {}", base.display()),
        None => without.to_owned(),
    };
    let remedy = place.is_none().then_some(
        "run as root, or delegate control groups to the server: systemd-run --user --scope -p Delegate=yes",
    );
    Finding { subject, present: place.is_some(), detail, remedy }
}

fn privilege() -> Privilege {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETPCAP;
    if !credential::effective_capabilities().is_ok_and(|have| have.contains(needed)) {
        return Privilege::None;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if is_mapped(&map, FUNCTION_UID) {
        Privilege::Full
    } else {
        Privilege::OneUser {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

/// Whether a user exists in the namespace whose map this is (`user_namespaces(7)`).
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (first, count) = (first.unwrap_or(0), count.unwrap_or(0));
        (first..first.saturating_add(count)).contains(&u64::from(uid))
    })
}

/// Opening it also loads the kernel module where there is one.
fn has_overlay() -> bool {
    rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).is_ok()
        || std::fs::read_to_string(Path::new("/proc/filesystems"))
            .is_ok_and(|list| list.contains("\toverlay"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_there_when_a_range_of_the_map_holds_it() {
        assert!(is_mapped("         0          0 4294967295\n", FUNCTION_UID));
        assert!(!is_mapped("0 1000 1\n", FUNCTION_UID));
        assert!(is_mapped("0 1000 1\n1 100000 65536\n", FUNCTION_UID));
        assert!(!is_mapped("", FUNCTION_UID));
    }

    #[test]
    fn every_lack_has_a_remedy() {
        let nothing = HostAbilities {
            cgroups: Places::default(),
            privilege: Privilege::None,
            user_namespaces: false,
            time_namespaces: false,
            overlay: false,
        };
        for finding in nothing.findings() {
            assert!(!finding.present && finding.remedy.is_some(), "{finding:?}");
        }
    }
}
