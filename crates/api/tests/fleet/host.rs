//! A host role for tests: speaks the real protocol, but its sandboxes are threads of this process and its listeners
//! are on free ports of the real loopback. What it was asked is recorded, and what it should do wrong can be set.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::protocol::{
    Answer, Command, Event, Exit, Failure, FailureKind, FromHost, MESSAGE_BYTES_MAX, Reply, Request,
    RootSpec, SandboxId, SnapshotFacts, SnapshotId,
};
use linux::channel::Channel;

use crate::runtime::{self, Gate, Kept, World};

/// The host's end of the channel and all that it knows.
pub struct TestHost {
    channel: Channel,
    state: Mutex<State>,
    sandbox_last: AtomicU64,
    /// Every restore fails.
    pub restores_fail: AtomicBool,
    /// Restored processes die by a signal at once.
    pub restores_crash: AtomicBool,
    /// Sandboxes cannot be made.
    pub sandboxes_fail: AtomicBool,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<SandboxId, Sandbox>,
    images: HashMap<SnapshotId, Image>,
    commands: Vec<String>,
}

struct Sandbox {
    root: RootSpec,
    leased: bool,
    port: u16,
    connection: Option<TcpStream>,
    output: Option<[OwnedFd; 2]>,
    gate: Arc<Gate>,
    kept: Kept,
    env: BTreeMap<String, String>,
}

struct Image {
    env: BTreeMap<String, String>,
    waits_in_next: bool,
}

impl TestHost {
    /// Starts the host on a thread of its own.
    pub fn start(channel: Channel) -> Arc<Self> {
        let host = Arc::new(Self {
            channel,
            state: Mutex::default(),
            sandbox_last: AtomicU64::new(0),
            restores_fail: AtomicBool::new(false),
            restores_crash: AtomicBool::new(false),
            sandboxes_fail: AtomicBool::new(false),
        });
        let serving = host.clone();
        std::thread::spawn(move || serving.serve());
        host
    }

    /// How often a command of this name was asked.
    pub fn count(&self, command: &str) -> usize {
        self.state.lock().unwrap().commands.iter().filter(|name| *name == command).count()
    }

    /// Sandboxes that run something.
    pub fn leased(&self) -> usize {
        self.state.lock().unwrap().sandboxes.values().filter(|sandbox| sandbox.leased).count()
    }

    /// The variables of the process that was started last for this function.
    pub fn env_of(&self, function: &str) -> BTreeMap<String, String> {
        let state = self.state.lock().unwrap();
        let name = |env: &BTreeMap<String, String>| env.get("AWS_LAMBDA_FUNCTION_NAME").cloned();
        let found = state.sandboxes.values().find(|sandbox| name(&sandbox.env).as_deref() == Some(function));
        let image = state.images.values().find(|image| name(&image.env).as_deref() == Some(function));
        found.map(|sandbox| sandbox.env.clone()).or(image.map(|image| image.env.clone())).unwrap_or_default()
    }

    /// Closes the channel, as a host role does that is killed.
    pub fn die(&self) {
        rustix::net::shutdown(self.channel.as_fd(), rustix::net::Shutdown::Both).unwrap();
    }

    fn serve(self: Arc<Self>) {
        while let Ok(Some(message)) = self.channel.receive(MESSAGE_BYTES_MAX) {
            let Request { id, command } = serde_json::from_slice(&message.bytes).unwrap();
            let name = format!("{command:?}");
            let name = name.split([' ', '{']).next().unwrap().to_owned();
            self.state.lock().unwrap().commands.push(name);
            let result = self.carry_out(command);
            self.say(&FromHost::Reply(Reply { id, result }), &[]);
            self.fill_pools();
        }
        let ids: Vec<SandboxId> = self.state.lock().unwrap().sandboxes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.kill(id));
    }

    fn say(&self, packet: &FromHost, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        // The other side may be gone.
        let _ = self.channel.send(&serde_json::to_vec(packet).unwrap(), descriptors);
    }

    fn carry_out(self: &Arc<Self>, command: Command) -> Result<Answer, Failure> {
        match command {
            Command::Pool { root, ready } => {
                POOLS.with_borrow_mut(|pools| pools.insert(root, ready));
                Ok(Answer::Done)
            }
            Command::Init { sandbox, init, .. } => {
                self.run(sandbox, init.env, None)?;
                Ok(Answer::Started)
            }
            Command::Checkpoint { sandbox, snapshot, pending_port } => {
                self.checkpoint(sandbox, snapshot, pending_port)
            }
            Command::Prepare { .. } | Command::Retain { .. } => Ok(Answer::Done),
            Command::Restore { sandbox, snapshot, .. } => {
                std::thread::sleep(Duration::from_millis(1));
                if self.restores_fail.load(Ordering::Relaxed) {
                    return Err(failure(FailureKind::Unusable, "page chunk 3f2a is corrupt"));
                }
                let image = self
                    .state
                    .lock()
                    .unwrap()
                    .images
                    .get(&snapshot)
                    .map(|image| (image.env.clone(), image.waits_in_next));
                let (env, waits_in_next) =
                    image.ok_or_else(|| failure(FailureKind::NotFound, "no such snapshot"))?;
                self.run(sandbox, env, Some(waits_in_next))?;
                Ok(Answer::Restored { restore_us: 1000 })
            }
            Command::Freeze { sandbox } => self.gate(sandbox).map(|gate| gate.set(true)),
            Command::Settled { sandbox } => self.gate(sandbox).map(|_| Answer::Done),
            Command::Thaw { sandbox } => self.gate(sandbox).map(|gate| gate.set(false)),
            Command::Kill { sandbox } => {
                self.kill(sandbox);
                Ok(Answer::Done)
            }
            Command::Delete { snapshot } => {
                self.state.lock().unwrap().images.remove(&snapshot);
                Ok(Answer::Done)
            }
            Command::Usage { sandbox } => self.gate(sandbox).map(|_| Answer::Usage { memory_peak_mib: 42 }),
        }
    }

    fn gate(&self, id: SandboxId) -> Result<Arc<Gate>, Failure> {
        let state = self.state.lock().unwrap();
        let sandbox = state.sandboxes.get(&id).filter(|sandbox| sandbox.leased);
        Ok(sandbox.ok_or_else(|| failure(FailureKind::NotFound, "no such environment"))?.gate.clone())
    }

    fn run(
        self: &Arc<Self>,
        id: SandboxId,
        env: BTreeMap<String, String>,
        restored: Option<bool>,
    ) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap();
        let sandbox = state.sandboxes.get_mut(&id).filter(|sandbox| !sandbox.leased);
        let sandbox = sandbox.ok_or_else(|| failure(FailureKind::NotFound, "no such ready sandbox"))?;
        sandbox.leased = true;
        sandbox.env = env.clone();
        let connection = sandbox.connection.take().unwrap();
        let world = World {
            port: sandbox.port,
            env,
            output: sandbox.output.take().unwrap(),
            gate: sandbox.gate.clone(),
            kept: sandbox.kept.clone(),
        };
        world.kept.lock().unwrap().push(connection.try_clone().unwrap());
        let host = self.clone();
        let crash = restored.is_some() && self.restores_crash.load(Ordering::Relaxed);
        std::thread::spawn(move || {
            let exit = match restored {
                _ if crash => Some(Exit::Signal(11)),
                None => runtime::run(&world),
                Some(waits_in_next) => runtime::resume(&world, connection, waits_in_next),
            };
            if let Some(exit) = exit {
                let event = Event::Exited { sandbox: id, exit, out_of_memory: false };
                host.say(&FromHost::Event(event), &[]);
            }
        });
        Ok(())
    }

    fn checkpoint(&self, id: SandboxId, snapshot: SnapshotId, pending_port: u16) -> Result<Answer, Failure> {
        let mut state = self.state.lock().unwrap();
        let sandbox = state.sandboxes.get(&id).unwrap();
        let kept = sandbox.kept.lock().unwrap();
        let pending = kept.iter().find(|stream| stream.local_addr().unwrap().port() == pending_port);
        if pending.is_none() {
            return Err(failure(FailureKind::Unsupported, "no connection has that port"));
        }
        let env = sandbox.env.clone();
        drop(kept);
        if env.get("DOES").map(String::as_str) == Some("unsupported") {
            return Err(failure(FailureKind::Unsupported, "an io_uring is open"));
        }
        let waits_in_next = env.get("DOES").map(String::as_str) == Some("wait in next");
        state.images.insert(snapshot, Image { env, waits_in_next });
        Ok(Answer::Checkpointed(SnapshotFacts { image_bytes: 1, ..SnapshotFacts::default() }))
    }

    fn kill(&self, id: SandboxId) {
        let Some(sandbox) = self.state.lock().unwrap().sandboxes.remove(&id) else { return };
        sandbox.gate.close();
        for stream in sandbox.kept.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn fill_pools(&self) {
        let pools: Vec<(RootSpec, u32)> =
            POOLS.with_borrow(|pools| pools.iter().map(|(root, ready)| (root.clone(), *ready)).collect());
        for (root, wanted) in pools {
            let ready = |state: &State| {
                state.sandboxes.values().filter(|sandbox| !sandbox.leased && sandbox.root == root).count()
            };
            if self.sandboxes_fail.load(Ordering::Relaxed) && wanted > 0 {
                POOLS.with_borrow_mut(|pools| pools.remove(&root));
                let message = "no namespaces on this machine".to_owned();
                self.say(&FromHost::Event(Event::SandboxFailed { root, message }), &[]);
                continue;
            }
            while ready(&self.state.lock().unwrap()) < wanted as usize {
                self.make_sandbox(&root);
            }
        }
    }

    fn make_sandbox(&self, root: &RootSpec) {
        let id = SandboxId(self.sandbox_last.fetch_add(1, Ordering::Relaxed) + 1);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let (out, out_end) = rustix::pipe::pipe().unwrap();
        let (err, err_end) = rustix::pipe::pipe().unwrap();
        let sandbox = Sandbox {
            root: root.clone(),
            leased: false,
            port,
            connection: Some(connection),
            output: Some([out_end, err_end]),
            gate: Arc::default(),
            kept: Kept::default(),
            env: BTreeMap::new(),
        };
        self.state.lock().unwrap().sandboxes.insert(id, sandbox);
        let event = Event::SandboxReady { sandbox: id, root: root.clone(), standby: None };
        let descriptors = [listener.as_fd(), accepted.as_fd(), out.as_fd(), err.as_fd()];
        self.say(&FromHost::Event(event), &descriptors);
    }
}

thread_local! {
    /// What each pool should hold; known to the serving thread only.
    static POOLS: std::cell::RefCell<HashMap<RootSpec, u32>> = std::cell::RefCell::default();
}

fn failure(kind: FailureKind, message: &str) -> Failure {
    Failure { kind, message: message.to_owned() }
}
