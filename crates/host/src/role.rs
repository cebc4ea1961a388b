//! The loop of the host role.
//!
//! **One thread, no waiting for function code**: the loop waits for the kernel, for the sandboxes' own inits and for
//! templates in which no function code runs, each with a time limit. Checkpoints and the making of templates go to
//! workers. Pools are refilled when no request is left to answer.

mod standby;
mod templates;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::checkpoint::{Platform, Subject};
use engine::image::External;
use linux::channel::Channel;
use sandbox::{
    ExecSpec, ExitReport, HostAbilities, NotReady, Reaper, Sandbox, SandboxMaker, ServerEnds, Starting,
};
use store::Store;

use crate::pool::{Pools, Urgency, layout};
use crate::protocol::{
    Answer, Command, Event, Exit, Failure, FailureKind, FromHost, InitSpec, Lease, MESSAGE_BYTES_MAX,
    RUNTIME_API_PORT, Reply, Request, RootSpec, SandboxId, SnapshotFacts, SnapshotId,
};
use crate::snapshot::{self, Origin, internal};
use crate::template::{Made, Standing, join_files};
use crate::watch::{Source, Watch};
use crate::worker::Worker;

/// The directory of an environment that its snapshot keeps.
const WRITABLE: &str = "/tmp";
/// Where the writable files of snapshots are laid out while their templates stand, below the data directory.
const FILES: &str = "snapshot-files";
/// How many templates stand at a time; the least recently used one goes.
const TEMPLATES_MAX: usize = 64;
/// Limit of open descriptors, as AWS Lambda has it.
const OPEN_FILES_MAX: u64 = 1024;

/// How often standby environments are looked through, in milliseconds.
const STANDBY_TICK_MS: u64 = 1000;

/// How long pools that are not empty wait for their refill after an environment was started. Making a sandbox takes
/// milliseconds of processor time that a restored function is better off with.
const REFILL_DELAY_MS: u64 = 15;

/// How long the end of the role may take.
const END_MAX: Duration = Duration::from_secs(5);

/// What the host role is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server's data directory.
    pub data_dir: PathBuf,
    /// Tells this server from every other on the machine.
    pub mark: String,
    /// Leave what a failed restore left behind stopped, for a debugger, instead of killing it.
    pub keep_failed: bool,
}

/// Why the host role cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The store.
    #[error("cannot open the snapshot store: {0}")]
    Store(#[from] store::OpenError),
    /// Sandboxes.
    #[error("cannot prepare for sandboxes: {0}")]
    Sandboxes(#[from] sandbox::SandboxError),
    /// Waiting.
    #[error("cannot wait for work: {0}")]
    Wait(#[from] io::Error),
}

/// Runs until the API role closes its end.
///
/// # Errors
/// [`RoleError`] when the role cannot start or cannot wait any more.
pub fn run(channel: Channel, config: Config) -> Result<(), RoleError> {
    let abilities = HostAbilities::probe();
    let store = Store::open(&config.data_dir.join("snapshots"), &config.data_dir.join("keys"))?;
    let maker = SandboxMaker::new(&config.data_dir.join("sandboxes"), &abilities, &config.mark)?;
    for left in maker.clean_leftovers() {
        tracing::warn!(path = %left.display(), "something of an earlier server could not be removed");
    }
    clear(&config.data_dir.join(FILES))?;
    let watch = Watch::new()?;
    watch.add(Source::Api, &channel)?;
    let mut role = Role {
        channel,
        config,
        store,
        maker,
        watch,
        reaper: Reaper::default(),
        pools: Pools::default(),
        next_number: 1,
        last_start: Instant::now(),
        wanted_standbys: BTreeSet::new(),
        starting: HashMap::new(),
        sandboxes: HashMap::new(),
        workers: HashMap::new(),
        templates: HashMap::new(),
    };
    let served = role.serve();
    role.end();
    served
}

struct Role {
    channel: Channel,
    config: Config,
    store: Store,
    maker: SandboxMaker,
    watch: Watch,
    reaper: Reaper,
    pools: Pools,
    next_number: u64,
    /// When an environment was last started: the processors are its own for a moment.
    last_start: Instant,
    /// Snapshots that were restored since standby environments were last made.
    wanted_standbys: BTreeSet<SnapshotId>,
    starting: HashMap<u64, (Starting, Purpose)>,
    sandboxes: HashMap<u64, Held>,
    workers: HashMap<u64, (Worker, Task)>,
    templates: HashMap<SnapshotId, TemplateState>,
}

/// What a starting sandbox is for.
enum Purpose {
    Pool(RootSpec),
    Template(SnapshotId, Lease),
    Standby(RootSpec, SnapshotId, Lease),
}

/// A sandbox and what is known of it.
struct Held {
    sandbox: Sandbox,
    root: RootSpec,
    lease: Option<Lease>,
    stdout_inode: u64,
    stderr_inode: u64,
    /// `cgroup.procs` of its groups, opened ahead for a clone to join.
    joins: Vec<OwnedFd>,
    /// The snapshot that it was restored from.
    snapshot: Option<SnapshotId>,
    /// The clone in it waits for its release.
    parked: Option<Parked>,
}

/// A clone that waits for its request.
struct Parked {
    /// A byte written here lets it go.
    release: OwnedFd,
    since: Instant,
}

/// What a worker was asked to do.
enum Task {
    Checkpoint { request: u64 },
    Template { snapshot: SnapshotId, control: Channel, home: Box<Sandbox>, files: PathBuf },
}

enum TemplateState {
    /// Its sandbox or its worker is on the way; these requests wait for it.
    Coming(Vec<Waiting>),
    Standing {
        number: u64,
        standing: Box<Standing>,
    },
}

enum Waiting {
    Prepare { request: u64 },
    Restore { request: u64, sandbox: u64, lease: Lease, since: Instant },
}

type Outcome = Result<Answer, Failure>;

impl Role {
    fn serve(&mut self) -> Result<(), RoleError> {
        loop {
            let ready = self.watch.wait(self.idle_ms())?;
            if ready.is_empty() {
                self.reaper.tick();
                self.refill();
            }
            for source in ready {
                match source {
                    Source::Api => match self.channel.receive(MESSAGE_BYTES_MAX) {
                        Ok(Some(message)) => self.request(&message.bytes),
                        Ok(None) => return Ok(()),
                        // It died with messages of ours unread.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                        Err(error) => return Err(error.into()),
                    },
                    Source::Sandbox(number) => self.sandbox_spoke(number),
                    Source::Worker(number) => self.worker_spoke(number),
                    Source::Template(number) => self.template_died(number),
                }
            }
        }
    }

    /// How long to wait for work before something may be done that nobody waits for.
    fn idle_ms(&self) -> Option<u64> {
        let tick_ms = self.reaper.next_tick_ms();
        if self.pools.wanted(Urgency::Empty).is_some() {
            return Some(0);
        }
        let later_ms = if self.pools.wanted(Urgency::Low).is_some() || !self.wanted_standbys.is_empty() {
            Some(REFILL_DELAY_MS)
        } else {
            self.sandboxes.values().any(|held| held.parked.is_some()).then_some(STANDBY_TICK_MS)
        };
        tick_ms.into_iter().chain(later_ms).min()
    }

    /// Kills everything that this role made and waits until it is gone, within [`END_MAX`].
    fn end(&mut self) {
        for (_, (worker, _)) in self.workers.drain() {
            drop(worker);
        }
        for (_, (starting, _)) in self.starting.drain() {
            starting.kill(&mut self.reaper);
        }
        for (_, held) in self.sandboxes.drain() {
            held.sandbox.kill(&mut self.reaper);
        }
        for (_, state) in self.templates.drain() {
            if let TemplateState::Standing { standing, .. } = state {
                standing.end().kill(&mut self.reaper);
            }
        }
        let deadline = Instant::now() + END_MAX;
        while let Some(tick_ms) = self.reaper.next_tick_ms() {
            if Instant::now() > deadline {
                tracing::warn!(
                    remaining = self.reaper.remaining(),
                    "sandboxes resist; the next start removes them"
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(tick_ms));
            self.reaper.tick();
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn request(&mut self, bytes: &[u8]) {
        let request: Request = match serde_json::from_slice(bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "the API role sent what is no request");
                return;
            }
        };
        if let Some(result) = self.command(request.id, request.command) {
            self.reply(request.id, result);
        }
    }

    /// Carries out a command. `None`: the reply comes later.
    fn command(&mut self, request: u64, command: Command) -> Option<Outcome> {
        match command {
            Command::Pool { root, ready } => {
                self.pools.set_target(&root, ready);
                Some(Ok(Answer::Done))
            }
            Command::Init { sandbox, lease, init } => Some(self.init(sandbox.0, lease, init)),
            Command::Checkpoint { sandbox, snapshot, pending_port } => {
                self.checkpoint(request, sandbox.0, snapshot, pending_port)
            }
            Command::Prepare { snapshot } => self.with_template(snapshot, Waiting::Prepare { request }),
            Command::Restore { sandbox, lease, snapshot } => {
                let waiting = Waiting::Restore { request, sandbox: sandbox.0, lease, since: Instant::now() };
                self.with_template(snapshot, waiting)
            }
            Command::Settled { sandbox } => Some(self.settled(sandbox.0)),
            Command::Freeze { sandbox } => {
                let frozen = self.steer(sandbox.0, Sandbox::freeze);
                self.learn(sandbox.0);
                Some(frozen)
            }
            Command::Thaw { sandbox } => Some(self.steer(sandbox.0, Sandbox::thaw)),
            Command::Kill { sandbox } => {
                self.kill(sandbox.0);
                Some(Ok(Answer::Done))
            }
            Command::Delete { snapshot } => Some(self.delete(&snapshot)),
            Command::Retain { snapshots } => Some(self.retain(&snapshots)),
            Command::Usage { sandbox } => Some(
                self.held(sandbox.0)
                    .map(|held| Answer::Usage { memory_peak_mib: held.sandbox.memory_peak_mib() }),
            ),
        }
    }

    fn reply(&self, id: u64, result: Outcome) {
        self.send(&FromHost::Reply(Reply { id, result }), &[]);
    }

    fn event(&self, event: Event, descriptors: &[BorrowedFd<'_>]) {
        self.send(&FromHost::Event(event), descriptors);
    }

    fn send(&self, message: &FromHost, descriptors: &[BorrowedFd<'_>]) {
        let sent = serde_json::to_vec(message).map_err(io::Error::from);
        if let Err(error) = sent.and_then(|bytes| self.channel.send(&bytes, descriptors)) {
            // The loop ends when it reads the end of the channel.
            tracing::error!(%error, "the API role cannot be reached");
        }
    }

    fn held(&mut self, number: u64) -> Result<&mut Held, Failure> {
        let missing = || Failure {
            kind: FailureKind::NotFound,
            message: format!("sandbox {number} does not exist any more"),
        };
        self.sandboxes.get_mut(&number).ok_or_else(missing)
    }

    // Sandboxes.

    fn refill(&mut self) {
        let quiet = self.last_start.elapsed() >= Duration::from_millis(REFILL_DELAY_MS);
        let urgency = if quiet { Urgency::Low } else { Urgency::Empty };
        let Some(root) = self.pools.wanted(urgency) else {
            if quiet && !self.stand_by() {
                self.stand_down(None);
            }
            return;
        };
        self.pools.started(&root);
        let purpose = Purpose::Pool(root.clone());
        if let Err(failure) = self.start(&root, purpose) {
            self.pools.settled(&root, false);
            self.event(Event::SandboxFailed { root, message: failure.message }, &[]);
        }
    }

    fn start(&mut self, root: &RootSpec, purpose: Purpose) -> Result<(), Failure> {
        let number = self.number();
        let starting = self.maker.start(number, &layout(root)).map_err(|error| internal(&error))?;
        self.watch.add(Source::Sandbox(number), &starting).map_err(|error| internal(&error))?;
        self.starting.insert(number, (starting, purpose));
        Ok(())
    }

    fn sandbox_spoke(&mut self, number: u64) {
        if let Some((starting, purpose)) = self.starting.remove(&number) {
            self.started(number, starting, purpose);
        } else {
            self.reports(number);
        }
    }

    fn started(&mut self, number: u64, starting: Starting, purpose: Purpose) {
        match (starting.ready(&mut self.reaper), purpose) {
            (Err(NotReady::Wait(starting)), purpose) => {
                self.starting.insert(number, (starting, purpose));
            }
            (Err(NotReady::Failed(error)), Purpose::Pool(root)) => {
                self.pools.settled(&root, false);
                self.event(Event::SandboxFailed { root, message: error.to_string() }, &[]);
            }
            (Err(NotReady::Failed(error)), Purpose::Template(snapshot, _)) => {
                self.settle(&snapshot, Err(internal(&error)));
            }
            (Err(NotReady::Failed(error)), Purpose::Standby(..)) => {
                tracing::warn!(%error, "a standby environment cannot be made");
            }
            (Ok(sandbox), Purpose::Pool(root)) => self.pooled(number, sandbox, root),
            (Ok(sandbox), Purpose::Standby(root, snapshot, lease)) => {
                self.park(number, sandbox, root, snapshot, lease);
            }
            (Ok(sandbox), Purpose::Template(snapshot, lease)) => {
                // Its init's later reports are of no interest; its death takes the template's files with it.
                self.watch.remove(&sandbox);
                self.make_template(snapshot, sandbox, &lease);
            }
        }
    }

    fn pooled(&mut self, number: u64, sandbox: Sandbox, root: RootSpec) {
        self.pools.settled(&root, true);
        let Some((held, ends)) = hold(number, sandbox, root) else { return };
        self.announce(number, &held.root, None, &ends);
        self.sandboxes.insert(number, held);
    }

    fn announce(&self, number: u64, root: &RootSpec, standby: Option<SnapshotId>, ends: &ServerEnds) {
        let event = Event::SandboxReady { sandbox: SandboxId(number), root: root.clone(), standby };
        let mut descriptors =
            vec![ends.listener.as_fd(), ends.connection.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()];
        descriptors.extend(ends.exposed.iter().map(AsFd::as_fd));
        self.event(event, &descriptors);
    }

    fn reports(&mut self, number: u64) {
        let Some(held) = self.sandboxes.get_mut(&number) else { return };
        while let Some(report) = held.sandbox.on_message() {
            let exit = match report {
                ExitReport::Exited(sandbox::Exit::Status(status)) => Exit::Status(status),
                ExitReport::Exited(sandbox::Exit::Signal(signal)) => Exit::Signal(signal),
                ExitReport::Gone => Exit::Signal(rustix::process::Signal::KILL.as_raw()),
            };
            let out_of_memory = held.sandbox.oom_killed();
            let event = Event::Exited { sandbox: SandboxId(number), exit, out_of_memory };
            let message = FromHost::Event(event);
            if report == ExitReport::Gone {
                self.send(&message, &[]);
                self.kill(number);
                return;
            }
            if let Ok(bytes) = serde_json::to_vec(&message) {
                // An API role that is gone is noticed by the loop.
                let _ = self.channel.send(&bytes, &[]);
            }
        }
    }

    fn init(&mut self, number: u64, lease: Lease, init: InitSpec) -> Outcome {
        self.last_start = Instant::now();
        let root = self.held(number)?.root.clone();
        self.pools.taken(&root);
        let held = self.held(number)?;
        let granted = held.sandbox.lease(&lease_of(&lease, None, None)).map_err(|error| internal(&error))?;
        drop(granted);
        held.sandbox.set_memory_limit(lease.memory_mib).map_err(|error| internal(&error))?;
        let program = ExecSpec {
            argv: init.argv,
            env: init.env.into_iter().collect(),
            cwd: init.cwd,
            open_files_max: OPEN_FILES_MAX,
        };
        held.sandbox.exec(program).map_err(|error| internal(&error))?;
        held.lease = Some(lease);
        self.reports(number);
        Ok(Answer::Started)
    }

    /// Gives the environment the share of processors of its memory size.
    fn settled(&mut self, number: u64) -> Outcome {
        let held = self.held(number)?;
        if let Some(lease) = &held.lease {
            held.sandbox.set_cpu_limit(lease.memory_mib).map_err(|error| internal(&error))?;
        }
        Ok(Answer::Done)
    }

    fn steer(
        &mut self,
        number: u64,
        act: impl FnOnce(&mut Sandbox) -> Result<(), sandbox::SandboxError>,
    ) -> Outcome {
        act(&mut self.held(number)?.sandbox).map_err(|error| internal(&error))?;
        Ok(Answer::Done)
    }

    fn kill(&mut self, number: u64) {
        if let Some(held) = self.sandboxes.remove(&number) {
            self.watch.remove(&held.sandbox);
            if held.lease.is_none() {
                self.pools.taken(&held.root);
            }
            held.sandbox.kill(&mut self.reaper);
        }
    }

    // Snapshots.

    fn checkpoint(
        &mut self,
        request: u64,
        number: u64,
        snapshot: SnapshotId,
        pending_port: u16,
    ) -> Option<Outcome> {
        let started = self.start_checkpoint(number, snapshot, pending_port);
        match started {
            Ok(worker) => self.work(worker, Task::Checkpoint { request }).err().map(Err),
            Err(failure) => Some(Err(failure)),
        }
    }

    fn start_checkpoint(
        &mut self,
        number: u64,
        snapshot: SnapshotId,
        pending_port: u16,
    ) -> Result<Worker, Failure> {
        let store = self.store.clone();
        let held = self.held(number)?;
        let nothing = || internal(&format!("nothing runs in sandbox {number}"));
        let main = held.sandbox.main_pid().ok_or_else(nothing)?;
        let subject = Subject {
            pid: main.as_raw_nonzero().get(),
            init: Some(held.sandbox.init_pid().as_raw_nonzero().get()),
            externals: vec![(held.stdout_inode, External::Stdout), (held.stderr_inode, External::Stderr)],
            platform: Some(Platform { port: RUNTIME_API_PORT, pending_port }),
            writable: Some(WRITABLE.into()),
        };
        let origin = Origin { root: held.root.clone(), lease: held.lease.clone().ok_or_else(nothing)? };
        Worker::start(move || snapshot::write(&store, &snapshot, &subject, &origin))
            .map_err(|error| internal(&error))
    }

    fn work(&mut self, worker: Worker, task: Task) -> Result<(), Failure> {
        let number = self.number();
        self.watch.add(Source::Worker(number), &worker).map_err(|error| internal(&error))?;
        self.workers.insert(number, (worker, task));
        Ok(())
    }

    fn worker_spoke(&mut self, number: u64) {
        let Some((mut worker, task)) = self.workers.remove(&number) else { return };
        match task {
            Task::Checkpoint { request } => match worker.answer::<SnapshotFacts>() {
                None => {
                    self.workers.insert(number, (worker, Task::Checkpoint { request }));
                }
                Some(result) => {
                    self.watch.remove(&worker);
                    self.reply(request, result.map(Answer::Checkpointed));
                }
            },
            Task::Template { snapshot, control, home, files } => match worker.answer::<Made>() {
                None => {
                    self.workers.insert(number, (worker, Task::Template { snapshot, control, home, files }));
                }
                Some(result) => {
                    self.watch.remove(&worker);
                    self.template_made(&snapshot, result, control, home, files);
                }
            },
        }
    }

    fn delete(&mut self, snapshot: &SnapshotId) -> Outcome {
        self.stand_down(Some(snapshot));
        self.drop_template(snapshot);
        let name = snapshot::name(snapshot)?;
        self.store.delete(&name).map_err(|error| internal(&error))?;
        clear(&self.config.data_dir.join(FILES).join(&snapshot.0)).map_err(|error| internal(&error))?;
        Ok(Answer::Done)
    }

    fn retain(&mut self, snapshots: &[SnapshotId]) -> Outcome {
        let names = snapshots.iter().map(snapshot::name).collect::<Result<Vec<_>, _>>()?;
        self.store.retain(&names).map_err(|error| internal(&error))?;
        Ok(Answer::Done)
    }
}

/// Takes note of a ready sandbox, and the server's ends of it.
fn hold(number: u64, mut sandbox: Sandbox, root: RootSpec) -> Option<(Held, ServerEnds)> {
    let ends = sandbox.take_server_ends()?;
    let inode = |end: &OwnedFd| rustix::fs::fstat(end).map_or(0, |stat| stat.st_ino);
    let (stdout_inode, stderr_inode) = (inode(&ends.stdout), inode(&ends.stderr));
    let joins = join_files(&sandbox).unwrap_or_else(|failure| {
        tracing::error!(sandbox = number, "its clone will not join its groups: {failure}");
        Vec::new()
    });
    let held =
        Held { sandbox, root, lease: None, stdout_inode, stderr_inode, joins, snapshot: None, parked: None };
    Some((held, ends))
}

fn lease_of(lease: &Lease, files: Option<PathBuf>, clock: Option<sandbox::ClockOffsets>) -> sandbox::Lease {
    sandbox::Lease {
        tmp_mib: lease.tmp_mib,
        task_dir: Some(lease.task_dir.clone()),
        opt_dir: lease.opt_dir.clone(),
        tmp_lower_dir: files,
        clock,
    }
}

/// Removes a directory that may not be there.
fn clear(directory: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
