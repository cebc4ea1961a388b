//! The world in which the model carries a plan out: processes, their threads, and who runs next.
//!
//! Every thread takes one step at a time, in an order that the test chooses, so processes meet each other in every
//! state that a scheduler could bring about. When none can go on, the plan hangs, and the test says where.

use std::collections::{BTreeMap, BTreeSet};

use engine::image::Image;
use engine::ops::{Code, Context, Expect, NO_SLOT, Op};
use engine::plan::list::Shown;
use engine::plan::{Plan, RECEIVED, frame};

use super::files::{Description, Inode, Pipe, What};
use super::memory::{Area, Backed, Space};

/// The sandbox's init.
pub const INIT: i64 = 1;
pub const EPERM: i64 = -1;
pub const ENOENT: i64 = -2;
pub const EBADF: i64 = -9;
pub const ECHILD: i64 = -10;
pub const EEXIST: i64 = -17;
pub const EINVAL: i64 = -22;
pub const EMFILE: i64 = -24;
pub const EPIPE: i64 = -32;
pub const EADDRINUSE: i64 = -98;
pub const ECONNREFUSED: i64 = -111;

/// What a step came to.
#[derive(Debug)]
pub enum Outcome {
    Result(i64),
    /// It must wait; nothing has changed.
    Blocked,
    /// The thread runs no more of the plan.
    Gone,
}

/// A table of descriptors: number to open file and whether it is closed by `execve`.
pub type Table = BTreeMap<i64, (usize, bool)>;

#[derive(Debug, Clone, Default)]
pub struct Process {
    pub pid: i64,
    pub parent: i64,
    pub group: i64,
    pub session: i64,
    pub space: usize,
    pub table: usize,
    /// Wait status once it has ended, and whether it is gone for good.
    pub status: Option<i64>,
    pub reaped: bool,
    pub child_signal: bool,
    pub in_sandbox: bool,
    pub in_time: bool,
    pub joined: u64,
    pub cwd: String,
    pub umask: u64,
    pub actions: BTreeMap<u64, Vec<u64>>,
    pub limits: BTreeMap<u64, (u64, u64)>,
    pub interval_timers: BTreeMap<u64, Vec<u64>>,
    /// By ID: clock, event, setting.
    pub timers: BTreeMap<i64, (u64, Vec<u64>, Vec<u64>)>,
    pub next_timer: i64,
    pub subreaper: bool,
    pub personality: u64,
    pub oom_score: String,
    pub pending: Vec<Vec<u8>>,
    pub reseeded: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Until this process has let go of the address space.
    Vfork(usize),
    Done,
    Released,
}

#[derive(Debug, Clone)]
pub struct Task {
    pub process: usize,
    pub tid: i64,
    pub index: u32,
    pub end: u32,
    pub state: State,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub users: Vec<u64>,
    pub groups: Vec<u64>,
    pub supplementary: Vec<u8>,
    pub name: String,
    pub robust: Vec<u64>,
    pub rseq: Vec<u64>,
    pub bases: (u64, u64),
    pub clear_tid: u64,
    pub death_signal: u64,
    pub slack: u64,
    pub scheduling: Option<u64>,
    pub pending: Vec<Vec<u8>>,
    pub filters: Vec<Vec<u8>>,
    pub frame: Option<u64>,
}

pub struct World<'a> {
    pub plan: &'a Plan,
    pub image: &'a Image,
    pub spaces: Vec<Space>,
    pub tables: Vec<Table>,
    pub files: Vec<Description>,
    pub pipes: Vec<Pipe>,
    pub inodes: Vec<Inode>,
    pub terminals: usize,
    pub processes: Vec<Process>,
    pub tasks: Vec<Task>,
    /// Record locks: table, file, lock.
    pub record_locks: BTreeSet<(usize, String, [u64; 3])>,
    pub next_port: u16,
    pub reported: bool,
    /// What must hold when the host is told, and is looked at again before the first thread goes.
    pub ready: fn(&World<'_>),
}

impl<'a> World<'a> {
    /// The process that is to become the template, as the loader makes it.
    pub fn new(plan: &'a Plan, image: &'a Image, open_limit: (u64, u64), ready: fn(&World<'_>)) -> Self {
        let area = |backed| Area::new(7, backed);
        let mut space = Space {
            data: plan.data.clone(),
            data_start: plan.area.data(),
            slots: vec![0; engine::ops::SLOTS],
            slots_start: plan.area.context() + std::mem::offset_of!(Context, slots) as u64,
            executable: "the server".to_owned(),
            ..Space::default()
        };
        space.areas.put(0x40_0000, 0x50_0000, area(Backed::Loader));
        space.areas.put(0x7f00_0000_0000, 0x7f00_1000_0000, area(Backed::Loader));
        space.areas.put(plan.area.start, plan.area.stash(), area(Backed::Engine));
        let control = i64::from(plan.control);
        let files = vec![Description::new(What::Filler, 0), Description::new(What::Control, 2)];
        let mut table: Table = (0..control).map(|number| (number, (0, false))).collect();
        table.insert(control, (1, false));
        let limits = BTreeMap::from([(u64::from(libc::RLIMIT_NOFILE), open_limit)]);
        let template = Process { pid: 100_000, parent: 99_999, limits, ..Process::default() };
        Self {
            plan,
            image,
            spaces: vec![space],
            tables: vec![table],
            files,
            pipes: Vec::new(),
            inodes: Vec::new(),
            terminals: 0,
            processes: vec![template],
            tasks: Vec::new(),
            record_locks: BTreeSet::new(),
            next_port: 40_000,
            reported: false,
            ready,
        }
    }

    /// Gives the template the descriptors that come with a request.
    pub fn receive(&mut self, joins: usize) {
        for index in 0..RECEIVED + joins {
            self.files.push(Description::new(What::Received(index), 0));
            let number = (0..).find(|number| !self.tables[0].contains_key(number)).unwrap();
            self.tables[0].insert(number, (self.files.len() - 1, false));
            self.spaces[0].slots[index] = number as u64;
        }
    }

    /// Has the template carry out one of the plan's lists. `choose` picks one of so many threads.
    pub fn run(&mut self, list: std::ops::Range<u32>, mut choose: impl FnMut(usize) -> usize) {
        self.tasks.push(Task::new(0, 100_000, list.start, list.end));
        let mut blocked: BTreeSet<usize> = BTreeSet::new();
        loop {
            let runnable: Vec<usize> = (0..self.tasks.len())
                .filter(|task| self.tasks[*task].state == State::Ready && !blocked.contains(task))
                .collect();
            if runnable.is_empty() {
                break;
            }
            let task = runnable[choose(runnable.len()) % runnable.len()];
            if self.step(task) {
                blocked.clear();
            } else {
                blocked.insert(task);
            }
        }
        let waiting: Vec<String> = blocked.iter().map(|&task| self.shown(task)).collect();
        assert!(waiting.is_empty(), "nobody can go on:\n{}", waiting.join("\n"));
    }

    fn shown(&self, task: usize) -> String {
        let task = &self.tasks[task];
        let op = &self.plan.ops[task.index as usize];
        format!(
            "process {} thread {} at {}: {}",
            self.processes[task.process].pid,
            task.tid,
            task.index,
            Shown(op)
        )
    }

    /// Takes one step of a thread; false if it must wait.
    fn step(&mut self, task: usize) -> bool {
        let (index, end) = (self.tasks[task].index, self.tasks[task].end);
        if index >= end {
            self.end_of_list(task);
            return true;
        }
        let op = self.plan.ops[index as usize];
        let space = self.processes[self.tasks[task].process].space;
        let mut args = op.args;
        for (operand, arg) in args.iter_mut().enumerate() {
            if op.slots & (1 << operand) != 0 {
                *arg = self.spaces[space].slots[*arg as usize];
            }
        }
        let outcome = self.carry_out(task, &op, args);
        let Outcome::Result(result) = outcome else { return matches!(outcome, Outcome::Gone) };
        if op.code == Code::Await && result != op.expected {
            let opens = [libc::SYS_pidfd_open, libc::SYS_openat2].contains(&i64::from(op.number));
            assert!(result < 0 || !opens, "each try leaks a descriptor: {}", self.shown(task));
            return false;
        }
        let good = match op.expect {
            Expect::Any => true,
            Expect::NotNegative => result >= 0,
            Expect::Exactly => result == op.expected,
        };
        assert!(good, "gave {result}: {}", self.shown(task));
        if op.out != NO_SLOT {
            self.spaces[space].slots[op.out as usize] = result as u64;
        }
        self.tasks[task].index += 1 + if op.code == Code::Clone { op.count } else { 0 };
        true
    }

    /// The template goes on with its next request; any other thread ends.
    fn end_of_list(&mut self, task: usize) {
        self.tasks[task].state = State::Done;
        let process = self.tasks[task].process;
        if process != 0 {
            assert!(
                self.tasks[task].tid != self.processes[process].pid,
                "a process has come to the end of its list"
            );
        }
    }

    fn carry_out(&mut self, task: usize, op: &Op, args: [u64; 6]) -> Outcome {
        let process = self.tasks[task].process;
        let space = self.processes[process].space;
        match op.code {
            Code::Syscall | Code::Await => self.system_call(task, i64::from(op.number), args),
            Code::Clone => self.clone3(task, op, args[0]),
            Code::Signal => {
                *self.spaces[space].words.entry(args[0]).or_default() += args[1];
                Outcome::Result(0)
            }
            Code::Wait => {
                let word = self.spaces[space].words.get(&args[0]).copied().unwrap_or(0);
                if word >= args[1] { Outcome::Result(0) } else { Outcome::Blocked }
            }
            Code::Copy => {
                let bytes = self.spaces[space].read(args[1], args[2]);
                self.spaces[space].write(args[0], &bytes);
                Outcome::Result(0)
            }
            Code::Call => {
                assert!(self.unprivileged(process), "function code is called with privilege");
                self.processes[process].reseeded.push(args[0]);
                Outcome::Result(op.expected)
            }
            Code::Report => {
                assert!(!self.reported, "the host is told twice");
                (self.ready)(self);
                self.reported = true;
                Outcome::Result(0)
            }
            Code::Sigreturn => {
                self.sigreturn(task, args[0]);
                Outcome::Gone
            }
            Code::Exit => {
                self.end(process, 0);
                Outcome::Gone
            }
        }
    }

    /// Whether no thread of a process has any privilege.
    pub fn unprivileged(&self, process: usize) -> bool {
        self.tasks.iter().all(|task| task.process != process || !task.privileged)
    }

    fn sigreturn(&mut self, task: usize, frame: u64) {
        let process = self.tasks[task].process;
        assert!(self.reported, "a thread goes on before the host was told");
        assert!(self.unprivileged(process), "a thread goes on with privilege");
        (self.ready)(self);
        let engines = self.tables[self.processes[process].table]
            .iter()
            .filter(|(number, _)| **number >= i64::from(self.plan.control))
            .count();
        assert_eq!(engines, 0, "{}: descriptors of the engine are open", self.shown(task));
        assert_eq!(frame % frame::ALIGNMENT as u64, 0);
        self.tasks[task].frame = Some(frame);
        self.tasks[task].state = State::Released;
    }

    fn clone3(&mut self, task: usize, op: &Op, arguments: u64) -> Outcome {
        let parent = self.tasks[task].process;
        let from = self.processes[parent].clone();
        let words = self.spaces[from.space].words(arguments, 11);
        let (flags, exit_signal) = (words[0], words[4]);
        let has = |flag: i32| flags & flag as u64 != 0;
        let tid = self.spaces[from.space].words(words[8], 1)[0] as u32 as i64;
        assert_eq!(words[9], 1, "every thread has a chosen ID");
        assert!(self.tasks[task].privileged, "a thread with a chosen ID is created without privilege");
        let taken = |process: &Process| {
            !process.reaped && [process.pid, process.group, process.session].contains(&tid)
        };
        if self.processes.iter().any(taken)
            || self.tasks.iter().any(|task| self.lives(task) && task.tid == tid)
        {
            return Outcome::Result(EEXIST);
        }
        let (index, end) = (self.tasks[task].index + 1, self.tasks[task].index + 1 + op.count);
        assert!(end <= self.tasks[task].end, "a child's list leaves its parent's");
        let mut child = Task { index, end, tid, frame: None, ..self.tasks[task].clone() };
        child.rseq.clear();
        child.robust.clear();
        if has(libc::CLONE_THREAD) {
            let all = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_FILES | libc::CLONE_FS;
            assert_eq!(flags & all as u64, all as u64, "a thread shares everything");
            assert!(words[5] != 0, "a thread has a stack of its own");
            child.bases.0 = words[7];
            child.clear_tid = words[2];
            child.death_signal = 0;
            self.tasks.push(child);
            return Outcome::Result(tid);
        }
        let mut process =
            Process { pid: tid, parent: from.pid, in_sandbox: true, child_signal: false, ..from.clone() };
        if has(libc::CLONE_PARENT) {
            assert_eq!(exit_signal, 0, "clone3 refuses a signal with CLONE_PARENT");
            process.parent = from.parent;
        }
        (process.timers, process.next_timer, process.interval_timers) = (BTreeMap::new(), 0, BTreeMap::new());
        (process.subreaper, process.pending, process.reseeded) = (false, Vec::new(), Vec::new());
        if !has(libc::CLONE_VM) {
            self.spaces.push(self.spaces[from.space].fork());
            process.space = self.spaces.len() - 1;
        }
        if !has(libc::CLONE_FILES) {
            self.tables.push(self.tables[from.table].clone());
            process.table = self.tables.len() - 1;
        }
        child.process = self.processes.len();
        child.death_signal = 0;
        if has(libc::CLONE_VFORK) {
            self.tasks[task].state = State::Vfork(child.process);
        }
        self.processes.push(process);
        self.tasks.push(child);
        Outcome::Result(tid)
    }

    fn lives(&self, task: &Task) -> bool {
        task.state != State::Done && task.process != 0
    }

    /// Ends a process: its parent gets a zombie, its children get another parent, its descriptors close.
    pub fn end(&mut self, process: usize, status: i64) {
        let (pid, table) = (self.processes[process].pid, self.processes[process].table);
        for task in &mut self.tasks {
            if task.process == process {
                task.state = State::Done;
            } else if task.state == State::Vfork(process) {
                task.state = State::Ready;
            }
        }
        self.processes[process].status = Some(status);
        for at in 0..self.processes.len() {
            if self.processes[at].parent != pid || at == process {
                continue;
            }
            self.processes[at].parent = INIT;
            let dead = self.processes[at].status.is_some();
            self.processes[at].reaped |= dead;
            for task in self.tasks.iter().filter(|task| task.process == at) {
                assert_eq!(task.death_signal, 0, "the go-between's end kills {}", self.processes[at].pid);
            }
        }
        let others = self.processes.iter().any(|other| other.status.is_none() && other.table == table);
        if !others {
            let numbers: Vec<i64> = self.tables[table].keys().copied().collect();
            numbers.into_iter().for_each(|number| assert!(self.close(table, number)));
        }
        self.child_has_ended(process);
    }

    fn child_has_ended(&mut self, process: usize) {
        let parent = self.processes[process].parent;
        if parent == INIT {
            self.processes[process].reaped = true;
        } else if let Some(parent) =
            self.processes.iter_mut().find(|other| other.pid == parent && other.status.is_none())
        {
            let ignores = parent.actions.get(&(libc::SIGCHLD as u64)).is_some_and(|action| action[0] == 1);
            // The go-between has no exit signal, so its end cannot be ignored.
            if ignores && parent.in_sandbox {
                self.processes[process].reaped = true;
            } else {
                parent.child_signal |= parent.in_sandbox;
            }
        }
    }

    /// The process with this ID.
    pub fn by_pid(&self, pid: i64) -> Option<usize> {
        self.processes.iter().position(|process| process.pid == pid && !process.reaped)
    }

    /// Whether anything still refers to an open file.
    pub fn is_open(&self, file: usize) -> bool {
        let mut seen = BTreeSet::from([file]);
        let mut open = vec![file];
        // A message that waits holds its files as long as somebody holds the socket.
        while let Some(file) = open.pop() {
            if self.tables.iter().any(|table| table.values().any(|(known, _)| *known == file)) {
                return true;
            }
            for (holder, description) in self.files.iter().enumerate() {
                let What::Unix(unix) = &description.what else { continue };
                let carries = unix.queue.iter().any(|(_, files)| files.contains(&file));
                if carries && seen.insert(holder) {
                    open.push(holder);
                }
            }
        }
        false
    }
}

impl Task {
    pub fn new(process: usize, tid: i64, index: u32, end: u32) -> Self {
        Self {
            process,
            tid,
            index,
            end,
            state: State::Ready,
            privileged: true,
            no_new_privileges: false,
            users: vec![0; 3],
            groups: vec![0; 3],
            supplementary: Vec::new(),
            name: String::new(),
            robust: Vec::new(),
            rseq: Vec::new(),
            bases: (0, 0),
            clear_tid: 0,
            death_signal: 0,
            slack: 0,
            scheduling: None,
            pending: Vec::new(),
            filters: Vec::new(),
            frame: None,
        }
    }
}
