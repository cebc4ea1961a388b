//! Freezing, and the limits of memory, processes and processor time.

use super::*;

/// By each freezer that this machine has, and by signals.
pub fn frozen_code_stands_still(bench: &mut Bench) {
    for cgroups in freezers(&bench.abilities) {
        bench.remake(cgroups);
        freeze_and_thaw(bench);
    }
}

/// The ways in which this machine can freeze: v2, v1, and no control groups at all.
fn freezers(abilities: &HostAbilities) -> Vec<Places> {
    let mut ways = vec![abilities.cgroups.clone(), Places::default()];
    let v1 = Path::new("/sys/fs/cgroup/freezer");
    if v1.join("cgroup.procs").exists() && abilities.cgroups.freezer.is_some() {
        let freezer =
            Place { version: Version::V1, base: v1.to_owned(), controllers: vec!["freezer".to_owned()] };
        ways.push(Places { freezer: Some(freezer), ..Places::default() });
    }
    ways
}

pub fn freeze_and_thaw(bench: &mut Bench) {
    let mut environment =
        bench.shell("(while :; do echo 1 > /tmp/child; done) & echo up; while :; do :; done");
    environment.line();
    assert!(environment.sandbox.processes().len() >= 2);
    let ticks = |pids: &[rustix::process::Pid]| -> Vec<u64> {
        pids.iter().map(|pid| processor_ticks(*pid)).collect()
    };
    for _ in 0..3 {
        environment.sandbox.freeze().unwrap();
        let processes = environment.sandbox.processes();
        let before = ticks(&processes);
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(ticks(&processes), before, "frozen code used the processor");
        assert!(environment.sandbox.more_connections(1).is_ok(), "init is frozen too");
        environment.sandbox.thaw().unwrap();
        std::thread::sleep(Duration::from_millis(60));
        assert_ne!(ticks(&processes), before, "thawed code does not run");
    }
    environment.sandbox.kill(&mut bench.reaper);
}

fn processor_ticks(pid: rustix::process::Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields.get(11..13).map_or(0, |times| times.iter().map(|time| time.parse::<u64>().unwrap()).sum())
}

pub fn a_frozen_sandbox_can_be_killed(bench: &mut Bench) {
    for cgroups in freezers(&bench.abilities) {
        bench.remake(cgroups);
        let mut environment = bench.shell("sleep 60 & echo up; sleep 60");
        environment.line();
        environment.sandbox.freeze().unwrap();
        environment.sandbox.kill(&mut bench.reaper);
        bench.reap();
    }
}

pub fn memory_limit_kills_and_says_so(bench: &mut Bench) {
    if bench.abilities.cgroups.memory.is_none() {
        return eprintln!("*** not run: no memory controller");
    }
    let sandbox = bench.start();
    sandbox.limit(64).unwrap();
    let mut environment =
        bench.shell_in(sandbox, &bench.lease(), "echo up; exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'");
    assert!(!environment.sandbox.oom_killed());
    assert_eq!(environment.exit(), Exit::Signal(9));
    assert!(environment.sandbox.oom_killed());
    let peak_mib = environment.sandbox.memory_peak_mib();
    assert!((60..=65).contains(&peak_mib), "{peak_mib} MiB");
    environment.sandbox.kill(&mut bench.reaper);

    let mut small = bench.shell("exit 0");
    assert_eq!(small.exit(), Exit::Status(0));
    assert!(!small.sandbox.oom_killed());
    assert!(small.running.as_ref().unwrap().pid.is_none_or(|pid| Some(pid) == small.sandbox.main_pid()));
    small.sandbox.kill(&mut bench.reaper);
}

pub fn fork_bombs_are_stopped(bench: &mut Bench) {
    if bench.abilities.cgroups.pids.is_none() {
        return eprintln!("*** not run: no process controller");
    }
    let environment = bench.shell("echo up; b() { b | b & }; b 2>/dev/null; sleep 60");
    environment.line();
    std::thread::sleep(Duration::from_millis(700));
    let count = environment.sandbox.processes().len();
    assert!(count <= 1024, "{count} processes");
    environment.sandbox.kill(&mut bench.reaper);
    bench.reap();
}

pub fn processor_time_is_limited(bench: &mut Bench) {
    if bench.abilities.cgroups.cpu.is_none() {
        return eprintln!("*** not run: no processor controller");
    }
    let sandbox = bench.start();
    sandbox.limit(177).unwrap();
    let environment = bench.shell_in(sandbox, &bench.lease(), "echo up; while :; do :; done");
    environment.line();
    let pid = environment.sandbox.main_pid().unwrap();
    let before = processor_ticks(pid);
    std::thread::sleep(Duration::from_secs(1));
    let ticks = processor_ticks(pid) - before;
    // A tenth of a processor: ten ticks of a hundredth of a second.
    assert!(ticks <= 20, "{ticks} ticks in a second");
    environment.sandbox.kill(&mut bench.reaper);
}
