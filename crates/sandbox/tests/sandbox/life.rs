//! How environments and sandboxes end, and that nothing of them is left.

use super::*;

pub fn ends_are_reported(bench: &mut Bench) {
    for (script, expected) in [
        ("exit 0", Exit::Status(0)),
        ("exit 7", Exit::Status(7)),
        ("kill -KILL $$", Exit::Signal(9)),
        ("kill -SEGV $$", Exit::Signal(11)),
        ("sleep 100 & exit 3", Exit::Status(3)),
    ] {
        let environment = bench.shell(script);
        assert_eq!(bench.output_of_killed(environment), expected, "{script}");
    }
}

pub fn orphans_are_reaped_and_can_be_watched(bench: &mut Bench) {
    let mut environment = bench.shell(
        "sh -c 'sleep 0.2 & sleep 0.1 & :'; sh -c 'sh -c \"sleep 0.3; exit 5\" & echo $!'; sleep 0.5; \
         cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '; exec sleep 60",
    );
    let orphan: i32 = environment.line().parse().unwrap();
    assert_eq!(environment.line(), "0", "zombies are left");
    // It ended before anyone asked.
    environment.sandbox.watch(orphan, None).unwrap();
    assert_eq!(environment.exit(), Exit::Status(5));
    environment.sandbox.kill(&mut bench.reaper);
}

/// What a restore does: a process of another family enters, and its child goes on inside on its own.
pub fn a_clone_made_outside_becomes_a_child_of_init(bench: &mut Bench) {
    const NUMBER: i32 = 77;
    let mut sandbox = bench.start();
    let grant = sandbox
        .lease(&Lease { clock: Some(ClockOffsets { monotonic_ns: 0, boottime_ns: 9 }), ..bench.lease() })
        .unwrap();
    let files = sandbox.join_files().unwrap();
    let ends = sandbox.take_environment_ends().unwrap();
    sandbox.watch(NUMBER, None).unwrap();

    let clone = || {
        for procs in &files.procs {
            rustix::io::write(procs, b"0").unwrap();
        }
        if let Some(time) = &grant.time_namespace {
            rustix::thread::move_into_link_name_space(time.as_fd(), None).unwrap();
        }
        while rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(1) {
            std::thread::yield_now();
        }
        let hosts = std::fs::read_to_string("/etc/hostname").unwrap();
        rustix::io::write(&ends.stdout, hosts.as_bytes()).unwrap();
        // Until the test has seen it alive.
        let mut bytes = [0];
        rustix::io::read(&ends.connection, &mut bytes).unwrap();
        5
    };
    let middle = || {
        let rest = Namespaces::MOUNT
            | Namespaces::NETWORK
            | Namespaces::INTER_PROCESS_COMMUNICATION
            | Namespaces::HOST_NAME_AND_NIS_DOMAIN_NAME;
        linux::namespace::join(sandbox.pidfd(), rest).unwrap();
        let unified = files.unified.as_ref().map(AsFd::as_fd);
        let how = Fork { pids: &[NUMBER], cgroup: unified, ..Fork::default() };
        linux::process::fork(&how, clone).unwrap();
        0
    };
    let template = linux::process::fork(&Fork::default(), || {
        linux::namespace::join(sandbox.pidfd(), Namespaces::PROCESS_ID).unwrap();
        let middle = linux::process::fork(&Fork::default(), middle).unwrap();
        wait_for(&middle);
        0
    })
    .unwrap();
    wait_for(&template);

    let mut environment = Environment { ends: sandbox.take_server_ends().unwrap(), sandbox, running: None };
    assert_eq!(environment.line(), "sandbox-1");
    assert!(environment.sandbox.main_pid().is_some());
    assert!(environment.sandbox.memory_peak_mib() > 0);
    rustix::io::write(&environment.ends.connection, b"x").unwrap();
    assert_eq!(environment.exit(), Exit::Status(5));
    environment.sandbox.kill(&mut bench.reaper);
}

pub fn a_program_that_cannot_run_is_refused(bench: &mut Bench) {
    let mut sandbox = bench.start();
    sandbox.lease(&bench.lease()).unwrap();
    let error = sandbox.exec(program(&["/var/lang/bin/none"])).unwrap_err();
    assert!(error.to_string().contains("execute /var/lang/bin/none: No such file"), "{error}");
    sandbox.kill(&mut bench.reaper);
}

pub fn a_bad_layout_names_its_stage(bench: &mut Bench) {
    for (source, target, part) in [
        ("/nonexistent", "/var/lang", "stage Runtime: /nonexistent"),
        ("/usr", "/../escape", "must not hold"),
        ("/usr", "relative", "is not absolute"),
    ] {
        let bind = RootBind { source: source.into(), target: target.into() };
        let error = bench.try_start(vec![bind]).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Runs `server` in a process that is then killed without warning.
fn in_a_server_that_dies(server: impl FnOnce(&OwnedFd)) -> Vec<rustix::process::Pid> {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let child = linux::process::fork(&Fork::default(), || {
        server(&write);
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    })
    .unwrap();
    drop(write);
    let pids = line(&read);
    linux::process::signal(&child.pidfd, rustix::process::Signal::KILL).unwrap();
    wait_for(&child);
    pids.split(' ').map(|pid| rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

fn wait_until_gone(pids: &[rustix::process::Pid]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        assert!(Instant::now() < deadline, "processes outlive their server");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn a_sandbox_dies_with_its_server(bench: &mut Bench) {
    let pids = in_a_server_that_dies(|write| {
        let environment = bench.shell("sleep 60 & echo up; sleep 60");
        environment.line();
        let text =
            format!("{} {}\n", environment.sandbox.init_pid(), environment.sandbox.main_pid().unwrap());
        rustix::io::write(write, text.as_bytes()).unwrap();
    });
    wait_until_gone(&pids);
    clear_the_dead(bench, 0);
}

/// What the record of this very process would have another server do: the test process is alive, so its groups are
/// emptied here by the same function that clears a dead server's.
fn clear_the_dead(bench: &mut Bench, expected: usize) {
    let mut remaining = Vec::new();
    for place in bench.abilities.cgroups.trees() {
        let parent = place.base.join(format!("rekindle-test-{}", std::process::id()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !sandbox::cgroup::remove_tree(&parent) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        remaining.extend(parent.exists().then_some(parent));
    }
    assert_eq!(remaining.len(), expected, "{remaining:?}");
}

pub fn leftovers_of_a_dead_server_go(bench: &mut Bench) {
    let abilities = bench.abilities.clone();
    let state = bench.directory.join("state");
    let pids = in_a_server_that_dies(|write| {
        let mark = format!("test-{}", std::process::id());
        bench.maker = Some(SandboxMaker::new(&state, &abilities, &mark).unwrap());
        let mut environment = bench.shell("sleep 60 & echo up; sleep 60");
        environment.line();
        environment.sandbox.freeze().unwrap();
        let text = format!("{} {}\n", environment.sandbox.init_pid(), std::process::id());
        rustix::io::write(write, text.as_bytes()).unwrap();
    });
    let server = pids[1];
    let parents: Vec<PathBuf> = abilities
        .cgroups
        .trees()
        .iter()
        .map(|place| place.base.join(format!("rekindle-test-{server}")))
        .collect();
    assert!(parents.iter().all(|parent| parent.exists()));
    assert_eq!(bench.maker.as_ref().unwrap().clean_leftovers(), Vec::<PathBuf>::new());
    assert!(parents.iter().all(|parent| !parent.exists()));
    wait_until_gone(&pids);
}

pub fn two_hundred_cycles_leave_nothing(bench: &mut Bench) {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let children = || {
        std::fs::read_to_string("/proc/self/task/".to_owned() + &std::process::id().to_string() + "/children")
            .unwrap()
    };
    let (descriptors_before, mounts_before) = (descriptors(), mounts());
    for round in 0..200 {
        let sandbox = bench.start();
        if round % 4 == 0 {
            let environment = bench.shell_in(sandbox, &bench.lease(), "sleep 60");
            environment.sandbox.kill(&mut bench.reaper);
        } else {
            sandbox.kill(&mut bench.reaper);
        }
        bench.reaper.tick();
    }
    bench.reap();
    assert_eq!(descriptors(), descriptors_before);
    assert_eq!(mounts(), mounts_before);
    assert_eq!(children().trim(), "");
    for place in bench.abilities.cgroups.trees() {
        let parent = place.base.join(format!("rekindle-test-{}", std::process::id()));
        let groups = std::fs::read_dir(parent).unwrap().flatten().filter(|entry| entry.path().is_dir());
        assert_eq!(groups.count(), 0);
    }
}
