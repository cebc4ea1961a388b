//! Calls about processes, threads, signals and credentials.

use crate::files::What;
use crate::memory::Backed;
use crate::world::{EBADF, ECHILD, EINVAL, ENOENT, EPERM, Outcome, World};

const SECCOMP_FILTER_FLAG_TSYNC: u64 = 1;

const RECEIVED_SANDBOX: usize = 0;
const RECEIVED_TIME: usize = 1;
const PR_SET_VMA: i32 = 0x5356_4d41;
const ESRCH: i64 = -3;
const NO_FILE: u64 = u32::MAX as u64;

impl World<'_> {
    pub fn process_call(&mut self, task: usize, number: i64, args: [u64; 6]) -> Option<Outcome> {
        let at = self.tasks[task].process;
        let space = self.processes[at].space;
        let [first, second, third, fourth, ..] = args;
        let result = match number {
            libc::SYS_setns => self.setns(task, first as i64, second),
            libc::SYS_setsid => self.setsid(at),
            libc::SYS_setpgid => self.setpgid(at, first as i64, second as i64),
            libc::SYS_getppid => self.processes[at].parent,
            libc::SYS_waitid | libc::SYS_wait4 => return Some(self.wait(at, number, first, second)),
            libc::SYS_rt_sigtimedwait => {
                self.processes[at].child_signal = false;
                0
            }
            libc::SYS_exit_group => {
                self.end(at, ((first & 0xff) << 8) as i64);
                return Some(Outcome::Gone);
            }
            libc::SYS_kill => return Some(self.kill(at, first as i64, second as i64)),
            libc::SYS_chdir => {
                self.processes[at].cwd = self.spaces[space].text(first);
                0
            }
            libc::SYS_umask => {
                self.processes[at].umask = first;
                0
            }
            libc::SYS_setitimer => {
                let value = self.spaces[space].words(second, 4);
                self.processes[at].interval_timers.insert(first, value);
                0
            }
            libc::SYS_personality => {
                self.processes[at].personality = first;
                0
            }
            libc::SYS_prlimit64 => {
                let value = self.spaces[space].words(third, 2);
                if self.processes[at].limits.get(&second).is_some_and(|(_, hard)| value[1] > *hard)
                    && !self.tasks[task].privileged
                {
                    return Some(Outcome::Result(EPERM));
                }
                self.processes[at].limits.insert(second, (value[0], value[1]));
                0
            }
            libc::SYS_rt_sigaction => {
                let action = self.spaces[space].words(second, 4);
                if [libc::SIGKILL, libc::SIGSTOP].contains(&(first as i32)) {
                    EINVAL
                } else {
                    self.processes[at].actions.remove(&first);
                    if action != [0; 4] {
                        self.processes[at].actions.insert(first, action);
                    }
                    0
                }
            }
            libc::SYS_rt_sigprocmask => 0,
            libc::SYS_rt_sigqueueinfo | libc::SYS_rt_tgsigqueueinfo => {
                let thread = number == libc::SYS_rt_tgsigqueueinfo;
                let info = self.spaces[space].read(if thread { fourth } else { third }, 128);
                assert_eq!(first as i64, self.processes[at].pid);
                assert_eq!(u64::from(info[0]), if thread { third } else { second });
                if thread {
                    assert_eq!(second as i64, self.tasks[task].tid);
                    self.tasks[task].pending.push(info);
                } else {
                    self.processes[at].pending.push(info);
                }
                0
            }
            libc::SYS_timer_create | libc::SYS_timer_delete | libc::SYS_timer_settime => {
                self.timer(at, number, args)
            }
            libc::SYS_prctl => self.prctl(task, args),
            libc::SYS_arch_prctl => {
                match first {
                    0x1002 => self.tasks[task].bases.0 = second,
                    0x1001 => self.tasks[task].bases.1 = second,
                    other => panic!("arch_prctl({other:#x})"),
                }
                0
            }
            _ => return self.thread_call(task, number, args),
        };
        Some(Outcome::Result(result))
    }

    fn thread_call(&mut self, task: usize, number: i64, args: [u64; 6]) -> Option<Outcome> {
        let [first, second, third, fourth, ..] = args;
        let space = self.processes[self.tasks[task].process].space;
        let thread = &mut self.tasks[task];
        let result = match number {
            libc::SYS_set_robust_list => {
                thread.robust = vec![first, second];
                0
            }
            libc::SYS_rseq => {
                assert!(thread.rseq.is_empty() && third == 0);
                thread.rseq = vec![first, second, fourth];
                0
            }
            libc::SYS_set_tid_address => {
                thread.clear_tid = first;
                thread.tid
            }
            libc::SYS_sched_setattr => {
                thread.scheduling = Some(second);
                0
            }
            libc::SYS_sched_setaffinity | libc::SYS_setpriority => 0,
            libc::SYS_lchown | libc::SYS_fchown | libc::SYS_chmod => 0,
            libc::SYS_setgroups | libc::SYS_setresgid | libc::SYS_setresuid if !thread.privileged => EPERM,
            libc::SYS_setgroups => {
                thread.supplementary = self.spaces[space].read(second, first * 4);
                0
            }
            libc::SYS_setresgid => {
                thread.groups = vec![first, second, third];
                0
            }
            libc::SYS_setresuid => {
                thread.users = vec![first, second, third];
                // A change of user clears it.
                thread.death_signal = 0;
                0
            }
            libc::SYS_capset => {
                assert_eq!(self.spaces[space].words(second, 3), [0; 3], "capabilities are kept");
                thread.privileged = false;
                0
            }
            libc::SYS_seccomp => {
                let header = self.spaces[space].words(second.max(third), 2);
                let program = self.spaces[space].read(header[1], header[0] * 8);
                if !thread.privileged && !thread.no_new_privileges {
                    EPERM
                } else if second & SECCOMP_FILTER_FLAG_TSYNC == 0 {
                    thread.filters.push(program);
                    0
                } else {
                    let (process, had) = (thread.process, thread.filters.clone());
                    for other in self.tasks.iter_mut().filter(|other| other.process == process) {
                        assert_eq!(other.filters, had, "a thread has filters of its own already");
                        other.filters.push(program.clone());
                    }
                    0
                }
            }
            _ => return None,
        };
        Some(Outcome::Result(result))
    }

    fn setns(&mut self, task: usize, descriptor: i64, kinds: u64) -> i64 {
        assert!(self.tasks[task].privileged && !self.reported, "a namespace is entered late");
        let process = self.tasks[task].process;
        let Some(&(file, _)) = self.tables[self.processes[process].table].get(&descriptor) else {
            return EBADF;
        };
        let alone =
            self.tasks.iter().filter(|other| other.process == process && other.tid != self.tasks[task].tid);
        if kinds == libc::CLONE_NEWTIME as u64 {
            assert_eq!(self.files[file].what, What::Received(RECEIVED_TIME));
            assert!(alone.count() == 0, "a time namespace takes processes of one thread only");
            self.processes[process].in_time = true;
        } else {
            assert_eq!(self.files[file].what, What::Received(RECEIVED_SANDBOX));
        }
        0
    }

    fn setsid(&mut self, at: usize) -> i64 {
        let pid = self.processes[at].pid;
        if self.processes.iter().any(|process| !process.reaped && process.group == pid) {
            return EPERM;
        }
        (self.processes[at].session, self.processes[at].group) = (pid, pid);
        pid
    }

    fn setpgid(&mut self, at: usize, pid: i64, group: i64) -> i64 {
        assert_eq!(pid, 0, "a process moves only itself");
        let process = self.processes[at].clone();
        if process.session == process.pid {
            return EPERM;
        }
        let group = if group == 0 { process.pid } else { group };
        let same = |other: &crate::world::Process| {
            !other.reaped && other.group == group && other.session == process.session
        };
        if group != process.pid && !self.processes.iter().any(same) {
            return EPERM;
        }
        self.processes[at].group = group;
        0
    }

    fn wait(&mut self, at: usize, number: i64, first: u64, second: u64) -> Outcome {
        let pid = self.processes[at].pid;
        let child = if number == libc::SYS_waitid {
            assert_eq!(first, u64::from(libc::P_PID));
            self.by_pid(second as i64).filter(|child| self.processes[*child].parent == pid)
        } else {
            self.processes.iter().position(|child| child.parent == pid && !child.reaped)
        };
        let Some(child) = child else { return Outcome::Result(ECHILD) };
        if self.processes[child].status.is_none() {
            return Outcome::Blocked;
        }
        if number == libc::SYS_waitid {
            return Outcome::Result(0);
        }
        self.processes[child].reaped = true;
        Outcome::Result(self.processes[child].pid)
    }

    fn kill(&mut self, at: usize, pid: i64, signal: i64) -> Outcome {
        if signal == 0 {
            return Outcome::Result(if self.by_pid(pid).is_some() { 0 } else { ESRCH });
        }
        assert_eq!(pid, self.processes[at].pid, "a process ends only itself");
        assert!(!self.processes[at].actions.contains_key(&(signal as u64)), "the signal has an action");
        self.end(at, signal);
        Outcome::Gone
    }

    fn timer(&mut self, at: usize, number: i64, [first, second, third, ..]: [u64; 6]) -> i64 {
        let space = self.processes[at].space;
        let process = &mut self.processes[at];
        match number {
            libc::SYS_timer_create => {
                let event = self.spaces[space].words(second, 3);
                self.spaces[space].write(third, &(process.next_timer as u32).to_ne_bytes());
                process.timers.insert(process.next_timer, (first, event, Vec::new()));
                process.next_timer += 1;
                0
            }
            libc::SYS_timer_delete => {
                if process.timers.remove(&(first as i64)).is_some() {
                    0
                } else {
                    EINVAL
                }
            }
            _ => match process.timers.get_mut(&(first as i64)) {
                Some(timer) => {
                    timer.2 = self.spaces[space].words(third, 4);
                    0
                }
                None => EINVAL,
            },
        }
    }

    fn prctl(&mut self, task: usize, args: [u64; 6]) -> i64 {
        let at = self.tasks[task].process;
        let space = self.processes[at].space;
        let [option, second, third, ..] = args;
        match option as i32 {
            libc::PR_SET_NAME => self.tasks[task].name = self.spaces[space].text(second),
            libc::PR_SET_TIMERSLACK => self.tasks[task].slack = second,
            libc::PR_SET_PDEATHSIG => self.tasks[task].death_signal = second,
            libc::PR_SET_NO_NEW_PRIVS => self.tasks[task].no_new_privileges = true,
            libc::PR_SET_DUMPABLE => self.spaces[space].dumpable = second == 1,
            libc::PR_SET_CHILD_SUBREAPER => self.processes[at].subreaper = true,
            libc::PR_SET_THP_DISABLE => self.spaces[space].huge_pages_disabled = true,
            libc::PR_SET_MM => return self.memory_map(task, third),
            libc::PR_SET_KEEPCAPS => {}
            PR_SET_VMA => {
                let name = self.spaces[space].text(args[4]);
                match self.spaces[space].exact(args[2], args[3]) {
                    Some(area) => area.name = name,
                    None => return EINVAL,
                }
            }
            other => panic!("the model does not know prctl {other}"),
        }
        0
    }

    fn memory_map(&mut self, task: usize, address: u64) -> i64 {
        assert!(self.tasks[task].privileged, "the layout is set without privilege");
        let process = &self.processes[self.tasks[task].process];
        let space = &mut self.spaces[process.space];
        let words = space.words(address, 13);
        let auxv = space.read(words[11], words[12] & NO_FILE);
        space.layout = (words[..11].to_vec(), auxv);
        if words[12] >> 32 != NO_FILE {
            let number = (words[12] >> 32) as i64;
            let Some(&(file, _)) = self.tables[process.table].get(&number) else { return EBADF };
            let What::Path { path, .. } = &self.files[file].what else { return ENOENT };
            let mapped = |area: &crate::memory::Area| matches!(&area.backed, Backed::File(known, _) if *known == space.executable);
            if space.areas.0.values().any(|(_, area)| mapped(area)) {
                return -16;
            }
            space.executable = path.clone();
        }
        0
    }
}
