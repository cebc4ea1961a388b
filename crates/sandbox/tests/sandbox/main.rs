//! Sandboxes against a real kernel: what is inside, what is not, limits, ends, and what is left.
//!
//! The program has no test harness: sandboxes are forked from a single-threaded process, and the harness has threads.
//! The cases run one after the other; `cargo test -p rekindle-sandbox --test sandbox NAME` runs those whose name holds
//! NAME. Where the privilege is missing, it says so and passes.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linux::namespace::Namespaces;
use linux::process::{Child, Fork};
use rustix::event::{PollFd, PollFlags, Timespec};
use sandbox::cgroup::{Place, Places, Version};
use sandbox::{
    ClockOffsets, ExecSpec, Exit, ExitReport, HostAbilities, Lease, NotReady, Privilege, Reaper, RootBind,
    RootLayout, Running, Sandbox, SandboxError, SandboxMaker, ServerEnds,
};

mod inside;
mod life;
mod limits;

type Case = (&'static str, fn(&mut Bench));

const CASES: &[Case] = &[
    ("identity_of_function_code", inside::identity_of_function_code),
    ("nothing_of_the_host_is_visible", inside::nothing_of_the_host_is_visible),
    ("nothing_but_tmp_and_shm_is_writable", inside::nothing_but_tmp_and_shm_is_writable),
    ("devices_work_and_are_few", inside::devices_work_and_are_few),
    ("init_cannot_be_touched_from_inside", inside::init_cannot_be_touched_from_inside),
    ("code_layers_and_runtime_are_mounted", inside::code_layers_and_runtime_are_mounted),
    ("tmp_has_the_size_of_the_lease", inside::tmp_has_the_size_of_the_lease),
    ("tmp_starts_with_the_files_of_a_snapshot", inside::tmp_starts_with_the_files_of_a_snapshot),
    ("clocks_have_the_offsets_of_the_lease", inside::clocks_have_the_offsets_of_the_lease),
    ("only_loopback_and_the_runtime_api", inside::only_loopback_and_the_runtime_api),
    ("limits_of_a_process_are_those_of_lambda", inside::limits_of_a_process_are_those_of_lambda),
    ("ends_are_reported", life::ends_are_reported),
    ("orphans_are_reaped_and_can_be_watched", life::orphans_are_reaped_and_can_be_watched),
    ("a_clone_made_outside_becomes_a_child_of_init", life::a_clone_made_outside_becomes_a_child_of_init),
    ("a_program_that_cannot_run_is_refused", life::a_program_that_cannot_run_is_refused),
    ("a_bad_layout_names_its_stage", life::a_bad_layout_names_its_stage),
    ("frozen_code_stands_still", limits::frozen_code_stands_still),
    ("a_frozen_sandbox_can_be_killed", limits::a_frozen_sandbox_can_be_killed),
    ("memory_limit_kills_and_says_so", limits::memory_limit_kills_and_says_so),
    ("fork_bombs_are_stopped", limits::fork_bombs_are_stopped),
    ("processor_time_is_limited", limits::processor_time_is_limited),
    ("a_sandbox_dies_with_its_server", life::a_sandbox_dies_with_its_server),
    ("leftovers_of_a_dead_server_go", life::leftovers_of_a_dead_server_go),
    ("two_hundred_cycles_leave_nothing", life::two_hundred_cycles_leave_nothing),
    ("timings", timings),
];

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let abilities = HostAbilities::probe();
    if abilities.privilege == Privilege::None {
        eprintln!("\n*** SANDBOX TESTS DID NOT RUN: no privilege to make sandboxes here ***\n");
        return;
    }
    for finding in abilities.findings().iter().filter(|finding| !finding.present) {
        eprintln!("*** not on this machine: {}: {}", finding.subject, finding.detail);
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, case) in
        CASES.iter().filter(|(name, _)| filter.as_ref().is_none_or(|part| name.contains(part)))
    {
        let mut bench = Bench::new(&abilities, name);
        let result = catch_unwind(AssertUnwindSafe(|| {
            case(&mut bench);
            bench.finish();
        }));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        match result {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
    }
    println!("\ntest result: {passed} passed; {} failed", failed.len());
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}

/// What each case works with.
struct Bench {
    abilities: HostAbilities,
    directory: PathBuf,
    maker: Option<SandboxMaker>,
    reaper: Reaper,
    next_id: u64,
}

/// A sandbox with a program in it.
struct Environment {
    sandbox: Sandbox,
    ends: ServerEnds,
    running: Option<Running>,
}

impl Bench {
    fn new(abilities: &HostAbilities, name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("rekindle-sandbox-{}-{name}", std::process::id()));
        std::fs::create_dir_all(directory.join("task")).unwrap();
        let mark = format!("test-{}", std::process::id());
        let maker = SandboxMaker::new(&directory.join("state"), abilities, &mark).unwrap();
        Self {
            abilities: abilities.clone(),
            directory,
            maker: Some(maker),
            reaper: Reaper::default(),
            next_id: 0,
        }
    }

    /// Goes on with other control groups.
    fn remake(&mut self, cgroups: Places) {
        self.reap();
        self.maker = None;
        let mark = format!("test-{}", std::process::id());
        let abilities = HostAbilities { cgroups, ..self.abilities.clone() };
        self.maker = Some(SandboxMaker::new(&self.directory.join("state"), &abilities, &mark).unwrap());
        self.abilities = abilities;
    }

    fn start(&mut self) -> Sandbox {
        self.start_with(Vec::new())
    }

    fn start_with(&mut self, binds: Vec<RootBind>) -> Sandbox {
        self.try_start(binds).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start(&mut self, binds: Vec<RootBind>) -> Result<Sandbox, SandboxError> {
        self.next_id += 1;
        let layout = RootLayout { name: "test".to_owned(), binds, exposed_ports: Vec::new() };
        let mut starting = self.maker.as_ref().unwrap().start(self.next_id, &layout)?;
        loop {
            assert!(readable(starting.as_fd(), Duration::from_secs(5)), "the sandbox does not start");
            starting = match starting.ready(&mut self.reaper) {
                Ok(sandbox) => return Ok(sandbox),
                Err(NotReady::Wait(starting)) => starting,
                Err(NotReady::Failed(error)) => return Err(error),
            };
        }
    }

    fn lease(&self) -> Lease {
        Lease { tmp_mib: 512, task_dir: Some(self.directory.join("task")), ..Lease::default() }
    }

    /// Runs a shell script in a sandbox of its own.
    fn shell(&mut self, script: &str) -> Environment {
        let sandbox = self.start();
        self.shell_in(sandbox, &self.lease(), script)
    }

    fn shell_in(&self, mut sandbox: Sandbox, lease: &Lease, script: &str) -> Environment {
        sandbox.lease(lease).unwrap();
        let ends = sandbox.take_server_ends().unwrap();
        let running = sandbox.exec(program(&["/bin/sh", "-c", script])).unwrap();
        Environment { sandbox, ends, running: Some(running) }
    }

    /// Runs a script to its end and gives its output.
    fn output(&mut self, script: &str) -> String {
        let environment = self.shell(script);
        self.output_of(environment).1
    }

    fn output_of(&mut self, mut environment: Environment) -> (Exit, String) {
        let exit = environment.exit();
        let mut text = String::new();
        std::fs::File::from(environment.ends.stdout).read_to_string(&mut text).unwrap();
        let mut errors = String::new();
        std::fs::File::from(environment.ends.stderr).read_to_string(&mut errors).unwrap();
        if !errors.is_empty() {
            eprintln!("    stderr: {}", errors.trim_end());
        }
        environment.sandbox.kill(&mut self.reaper);
        (exit, text)
    }

    /// As `output_of`, where a process of the environment may still hold its output.
    fn output_of_killed(&mut self, mut environment: Environment) -> Exit {
        let exit = environment.exit();
        assert!(environment.sandbox.on_message().is_none(), "an end is reported once");
        environment.sandbox.kill(&mut self.reaper);
        exit
    }

    fn reap(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Some(tick_ms) = self.reaper.next_tick_ms() {
            assert!(Instant::now() < deadline, "a killed sandbox does not go");
            self.reaper.tick();
            std::thread::sleep(Duration::from_millis(tick_ms.min(1)));
        }
    }

    /// Every case ends with nothing left.
    fn finish(&mut self) {
        self.reap();
        self.maker = None;
        assert_eq!(groups(&self.abilities), Vec::<PathBuf>::new());
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

impl Environment {
    fn exit(&mut self) -> Exit {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.sandbox.on_message() {
                Some(ExitReport::Exited(exit)) => return exit,
                Some(ExitReport::Gone) => panic!("init is gone"),
                None => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(readable(self.sandbox.as_fd(), left), "no end is reported");
        }
    }

    /// Waits for a line of output.
    fn line(&self) -> String {
        line(&self.ends.stdout)
    }
}

fn line(from: &OwnedFd) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        assert!(readable(from.as_fd(), Duration::from_secs(20)), "no output");
        if rustix::io::read(from, &mut byte).unwrap() == 0 {
            break;
        }
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

fn program(argv: &[&str]) -> ExecSpec {
    let env = [("PATH", "/usr/bin:/bin"), ("LANG", "C"), ("MARK", "a value")];
    ExecSpec {
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        cwd: "/var/task".to_owned(),
        open_files_max: 1024,
    }
}

fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut poll = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut poll, Some(&Timespec::try_from(timeout).unwrap())).unwrap() > 0
}

/// The control groups of this test program that exist.
fn groups(abilities: &HostAbilities) -> Vec<PathBuf> {
    let trees = abilities.cgroups.trees();
    let own = trees.iter().map(|place| place.base.join(format!("rekindle-test-{}", std::process::id())));
    own.filter(|path| path.exists()).collect()
}

fn wait_for(child: &Child) {
    while !linux::process::reap(&child.pidfd).unwrap() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Not a test: prints how long each step takes here.
fn timings(bench: &mut Bench) {
    let mut times: Vec<(&str, Vec<f64>)> = [
        "start call",
        "start to ready",
        "lease",
        "lease with clock",
        "exec",
        "freeze",
        "thaw",
        "kill call",
        "kill to gone",
    ]
    .map(|name| (name, Vec::new()))
    .to_vec();
    for round in 0..30 {
        let mut samples = Vec::new();
        let mut last = Instant::now();
        let mut lap = |samples: &mut Vec<f64>| {
            samples.push(last.elapsed().as_secs_f64() * 1e6);
            last = Instant::now();
        };
        let layout = RootLayout { name: "test".to_owned(), binds: Vec::new(), exposed_ports: Vec::new() };
        let starting = bench.maker.as_ref().unwrap().start(1000 + round, &layout).unwrap();
        samples.push(0.0);
        lap(&mut samples);
        samples.swap(0, 1);
        samples.truncate(1);
        let begun = samples[0];
        readable(starting.as_fd(), Duration::from_secs(5));
        let Ok(mut sandbox) = starting.ready(&mut bench.reaper) else { panic!("not ready") };
        lap(&mut samples);
        samples[1] += begun;
        let clock = Some(ClockOffsets { monotonic_ns: 1, boottime_ns: 1 });
        let with_clock = round % 2 == 0;
        sandbox.lease(&Lease { clock: clock.filter(|_| with_clock), ..bench.lease() }).unwrap();
        lap(&mut samples);
        let lease = samples.pop().unwrap();
        samples.push(if with_clock { f64::NAN } else { lease });
        samples.push(if with_clock { lease } else { f64::NAN });
        sandbox.exec(program(&["/bin/sh", "-c", "sleep 60 & sleep 60"])).unwrap();
        lap(&mut samples);
        sandbox.freeze().unwrap();
        lap(&mut samples);
        sandbox.thaw().unwrap();
        lap(&mut samples);
        sandbox.kill(&mut bench.reaper);
        lap(&mut samples);
        while bench.reaper.remaining() > 0 {
            bench.reaper.tick();
            std::thread::sleep(Duration::from_micros(100));
        }
        lap(&mut samples);
        for ((_, times), sample) in times.iter_mut().zip(samples) {
            times.push(sample);
        }
    }
    for (name, mut times) in times {
        times.retain(|time| !time.is_nan());
        times.sort_by(f64::total_cmp);
        let (median, least, most) = (times[times.len() / 2], times[0], times[times.len() - 1]);
        println!("    {name:18} median {median:7.0} us, min {least:7.0}, max {most:7.0}");
    }
}
