//! Where control groups are mounted and what they offer, from `/proc/self/mountinfo` and `/proc/self/cgroup`.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The controllers that a sandbox can use.
const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];

/// The v2 group that the server's own processes move to where they are in the way.
const SERVER_GROUP: &str = "rekindle-server";

/// The version of a control group tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Version {
    /// A tree of its own for one or a few controllers.
    V1,
    /// The unified tree.
    V2,
}

/// A tree in which groups can be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// Its version.
    pub version: Version,
    /// The directory of the calling process's own group.
    pub base: PathBuf,
    /// The controllers that the tree offers.
    pub controllers: Vec<String>,
}

/// Which tree gives what a sandbox needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Places {
    /// Memory limit, peak and the count of out-of-memory kills.
    pub memory: Option<Place>,
    /// Share of the processors.
    pub cpu: Option<Place>,
    /// Number of processes and threads.
    pub pids: Option<Place>,
    /// Freezing.
    pub freezer: Option<Place>,
}

impl Places {
    /// Finds the trees of this machine in which the calling process can make groups.
    pub fn probe() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let mut places = parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        places.retain(|place| can_make_groups(&place.base));
        for place in places.iter_mut().filter(|place| place.version == Version::V2) {
            place.controllers = handed_down(&place.base);
        }
        choose(&places)
    }

    /// Every tree that is used, once.
    pub fn trees(&self) -> Vec<&Place> {
        let mut trees: Vec<&Place> = Vec::new();
        for place in [&self.memory, &self.cpu, &self.pids, &self.freezer].into_iter().flatten() {
            if !trees.iter().any(|tree| tree.base == place.base) {
                trees.push(place);
            }
        }
        trees
    }
}

/// The controllers that a v2 group can hand to groups below it, after asking it to.
///
/// A group other than the root that holds processes itself hands none down. Where only processes of this program are
/// in it, as in a delegated scope or a container of its own, they move to a group below and make room.
fn handed_down(base: &Path) -> Vec<String> {
    let words = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(base.join(file)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let ask =
        |controller: &String| std::fs::write(base.join("cgroup.subtree_control"), format!("+{controller}"));
    let wanted: Vec<String> =
        words("cgroup.controllers").into_iter().filter(|name| NEEDED.contains(&name.as_str())).collect();
    let busy = |error: io::Error| error.kind() == io::ErrorKind::ResourceBusy;
    if wanted.iter().any(|controller| ask(controller).is_err_and(busy)) && make_room(base).is_ok() {
        for controller in &wanted {
            let _ = ask(controller);
        }
    }
    let handed = words("cgroup.subtree_control");
    wanted.into_iter().filter(|name| handed.contains(name)).collect()
}

/// Moves the processes of this program from `base` to a group of their own below it.
fn make_room(base: &Path) -> io::Result<()> {
    let own = std::fs::read_link("/proc/self/exe")?;
    let server = base.join(SERVER_GROUP);
    if let Err(error) = std::fs::create_dir(&server)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    for pid in std::fs::read_to_string(base.join("cgroup.procs"))?.lines() {
        if std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == own) {
            std::fs::write(server.join("cgroup.procs"), pid)?;
        }
    }
    Ok(())
}

/// Picks a tree for each need.
fn choose(places: &[Place]) -> Places {
    let with = |controller: &str| {
        places.iter().find(|place| place.controllers.iter().any(|name| name == controller)).cloned()
    };
    let unified = places.iter().find(|place| place.version == Version::V2);
    Places {
        memory: with("memory"),
        cpu: with("cpu"),
        pids: with("pids"),
        // Every v2 group can be frozen, without a controller. It is preferred: what v2 froze still dies of SIGKILL and
        // stops for a tracer, and its end can be waited for.
        freezer: unified.cloned().or_else(|| with("freezer")),
    }
}

fn can_make_groups(base: &Path) -> bool {
    let probe = base.join(format!("rekindle-probe-{}", std::process::id()));
    std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).is_ok()
}

/// The trees and the calling process's own group in each, v1 first. Controllers of v2 are not told here.
fn parse(mountinfo: &str, own: &str) -> Vec<Place> {
    let mut places: Vec<Place> = mountinfo.lines().filter_map(|line| place_of(line, own)).collect();
    places.sort_by_key(|place| place.version == Version::V2);
    places
}

/// Reads one line of `mountinfo` (`proc_pid_mountinfo(5)`): fields, a dash, then file system, source and options.
fn place_of(line: &str, own: &str) -> Option<Place> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ');
    let (root, mount) = (fields.nth(3)?, fields.next()?);
    let mut rest = rest.split(' ');
    let kind = rest.next()?;
    let options = rest.nth(1).unwrap_or_default();
    let (version, controllers, group) = match kind {
        "cgroup2" => (Version::V2, Vec::new(), own_group(own, "")?),
        "cgroup" => {
            let named = |option: &&str| own_group(own, option).is_some();
            let controllers: Vec<String> = options.split(',').filter(named).map(str::to_owned).collect();
            let group = own_group(own, controllers.first()?)?;
            (Version::V1, controllers, group)
        }
        _ => return None,
    };
    // In a container without a cgroup namespace the mount shows only part of the tree: that of its root.
    let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    // A process that made room before stands one below where sandboxes go.
    let below = if below.ends_with(SERVER_GROUP) { below.parent().unwrap_or(below) } else { below };
    Some(Place { version, base: Path::new(mount).join(below), controllers })
}

/// The path of the calling process's group in the tree of `controller` (empty: v2), from `/proc/self/cgroup`.
fn own_group<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";
    const HYBRID_OWN: &str = "\
9:name=systemd:/
8:pids:/user
6:freezer:/
4:memory:/a/b
1:cpu,cpuacct:/
0::/
";

    #[test]
    fn a_hybrid_host_gives_limits_by_v1_and_freezing_by_v2() {
        let places = choose(&parse(HYBRID_MOUNTS, HYBRID_OWN));
        assert_eq!(places.memory.unwrap().base, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(places.cpu.unwrap().controllers, ["cpu", "cpuacct"]);
        assert_eq!(places.pids.unwrap().base, Path::new("/sys/fs/cgroup/pids/user"));
        assert_eq!(places.freezer.unwrap().version, Version::V2);
    }

    #[test]
    fn a_pure_v1_host_freezes_by_its_controller() {
        let v1: String = HYBRID_MOUNTS.lines().take(6).map(|line| format!("{line}\n")).collect();
        let places = choose(&parse(&v1, HYBRID_OWN));
        assert_eq!(places.freezer.unwrap().base, Path::new("/sys/fs/cgroup/freezer"));
    }

    #[test]
    fn a_unified_host_has_one_tree_for_everything() {
        let mounts = "41 31 0:38 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let mut places = parse(mounts, "0::/user.slice/user-1000.slice/run.scope\n");
        places[0].controllers = ["cpu", "memory", "pids"].map(str::to_owned).to_vec();
        let places = choose(&places);
        assert_eq!(places.trees().len(), 1);
        let base = Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/run.scope");
        assert_eq!(places.memory.unwrap().base, base);
    }

    #[test]
    fn a_container_that_sees_part_of_the_tree_uses_the_part() {
        let mounts = "9 8 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let places = parse(mounts, "4:memory:/docker/abc\n");
        assert_eq!(places[0].base, Path::new("/sys/fs/cgroup/memory/"));
    }
}
