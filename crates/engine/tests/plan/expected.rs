//! Whether the world is what the image says, process by process and file by file.

use std::collections::{BTreeMap, BTreeSet};

use engine::image::{Backing, Mapping, Process, Thread, flags};
use engine::plan::frame;

use super::memory::{Area, Backed, LOCKED, PAGE};
use super::world::{State, World};

/// What must hold when the host is told that the clone is ready, and from then on.
pub fn ready(world: &World<'_>) {
    for process in &world.image.processes {
        let at =
            world.by_pid(process.pid.into()).unwrap_or_else(|| panic!("there is no process {}", process.pid));
        family(world, process, at);
        if process.ended.is_none() {
            state(world, process, at);
            memory(world, process, world.processes[at].space);
            threads(world, process, at);
            let table = world.processes[at].table;
            let shared =
                world.processes.iter().filter(|other| !other.reaped && other.table == table).count() > 1;
            // Whoever shares a table may still need the engine's descriptors, whose end would take the locks away.
            if !shared {
                locks(world, process, at);
            }
        }
    }
    super::expected_files::files(world);
}

/// What must hold when nobody runs the plan any more.
pub fn released(world: &World<'_>) {
    ready(world);
    for process in world.image.processes.iter().filter(|process| process.ended.is_none()) {
        let at = world.by_pid(process.pid.into()).unwrap();
        for thread in &process.threads {
            let task =
                world.tasks.iter().filter(|task| task.process == at && task.tid == i64::from(thread.tid));
            let tasks: Vec<_> = task.collect();
            assert_eq!(tasks.len(), 1, "thread {} is there once", thread.tid);
            assert_eq!(tasks[0].state, State::Released, "thread {} goes on", thread.tid);
            let place = tasks[0].frame.unwrap();
            let frame = frame::frame(thread, place);
            let space = &world.spaces[world.processes[at].space];
            assert_eq!(space.read(place, frame.len() as u64), frame, "the frame of thread {}", thread.tid);
            let filters: Vec<_> = thread.filters.iter().map(|filter| filter.program.clone()).collect();
            assert_eq!(tasks[0].filters, filters);
            assert_eq!(tasks[0].pending, thread.pending_signals);
        }
        assert_eq!(world.processes[at].pending, process.pending_signals);
        locks(world, process, at);
    }
    super::expected_files::closed(world);
}

fn family(world: &World<'_>, process: &Process, at: usize) {
    let model = &world.processes[at];
    let parent = match process.parent {
        0 => super::world::INIT,
        parent => world.image.processes[parent as usize - 1].pid.into(),
    };
    assert_eq!(model.parent, parent, "the parent of {}", process.pid);
    assert_eq!(
        (model.session, model.group),
        (process.session.into(), process.group.into()),
        "of {}",
        process.pid
    );
    let signal =
        process.ended.map(|status| i64::from(if status & 0x7f != 0 { status & 0x7f } else { status }));
    assert_eq!(model.status, signal, "the end of {}", process.pid);
    assert!(model.in_sandbox && model.in_time, "{} is in the sandbox", process.pid);
}

fn state(world: &World<'_>, process: &Process, at: usize) {
    let model = &world.processes[at];
    assert_eq!((&model.cwd, model.umask), (&process.cwd, process.umask.into()));
    assert_eq!(model.subreaper, process.child_subreaper);
    assert_eq!(model.personality, u64::from(process.personality));
    let score = if process.oom_score_adjustment == 0 {
        String::new()
    } else {
        process.oom_score_adjustment.to_string()
    };
    assert_eq!(model.oom_score, score);
    assert_eq!(model.reseeded, process.reseed_functions);
    assert!(!model.child_signal, "the end of a child is news to {}", process.pid);
    let actions: BTreeMap<u64, Vec<u64>> =
        process.signal_actions.iter().map(|action| (action.signal.into(), action.action.clone())).collect();
    assert_eq!(model.actions, actions, "signal actions of {}", process.pid);
    for limit in &process.limits {
        assert_eq!(model.limits.get(&limit.resource.into()), Some(&(limit.soft, limit.hard)));
    }
    let timers: BTreeMap<u64, Vec<u64>> =
        process.interval_timers.iter().map(|timer| (timer.which.into(), timer.value.clone())).collect();
    assert_eq!(model.interval_timers, timers);
    let ids: Vec<i64> = process.timers.iter().map(|timer| timer.id.into()).collect();
    assert_eq!(model.timers.keys().copied().collect::<Vec<_>>(), ids);
    for (timer, (clock, event, setting)) in process.timers.iter().zip(model.timers.values()) {
        let wanted = [timer.value, u64::from(timer.signal) | u64::from(timer.notify as u32) << 32];
        assert_eq!((*clock as i32, &event[..2], setting), (timer.clock, &wanted[..], &timer.setting));
        assert_eq!(event[2], u64::from(timer.thread as u32));
    }
}

fn threads(world: &World<'_>, process: &Process, at: usize) {
    let found: BTreeSet<i64> =
        world.tasks.iter().filter(|task| task.process == at).map(|task| task.tid).collect();
    let wanted: BTreeSet<i64> = process.threads.iter().map(|thread| thread.tid.into()).collect();
    assert_eq!(found, wanted, "threads of {}", process.pid);
    for thread in &process.threads {
        let task =
            world.tasks.iter().find(|task| task.process == at && task.tid == i64::from(thread.tid)).unwrap();
        assert!(!task.privileged, "thread {} has its privilege still", thread.tid);
        assert_eq!(task.name, thread.name);
        assert_eq!((&task.robust, &task.rseq), (&thread.robust_list, &thread.rseq));
        assert_eq!(task.bases, (thread.registers[21], thread.registers[22]), "of thread {}", thread.tid);
        assert_eq!((task.clear_tid, task.slack), (thread.tid_address, thread.timer_slack_ns));
        assert_eq!(task.death_signal, u64::from(thread.parent_death_signal));
        assert_eq!(task.scheduling.is_some(), !thread.scheduling.is_empty());
        acts_as(process, thread, task);
    }
}

fn acts_as(process: &Process, thread: &Thread, task: &super::world::Task) {
    let credentials = &process.credentials;
    let three = |ids: &[u32]| ids[..3].iter().map(|&id| u64::from(id)).collect::<Vec<_>>();
    assert_eq!(task.users, three(&credentials.users), "the user of thread {}", thread.tid);
    assert_eq!(task.groups, three(&credentials.groups));
    let supplementary: Vec<u8> = credentials.supplementary.iter().flat_map(|id| id.to_ne_bytes()).collect();
    assert_eq!(task.supplementary, supplementary);
    assert_eq!(task.no_new_privileges, credentials.no_new_privileges);
}

fn memory(world: &World<'_>, process: &Process, space: usize) {
    let space = &world.spaces[space];
    let mut left = space.areas.clone();
    let engine = left.0.remove(&world.plan.area.start).map(|(end, area)| (end, area.backed));
    assert_eq!(engine, Some((world.plan.area.stash(), Backed::Engine)));
    for mapping in &process.mappings {
        let area = left.0.remove(&mapping.start);
        let wanted = area_of(world, mapping, area.as_ref().map(|(_, area)| area));
        assert_eq!(area, Some((mapping.end, wanted)), "{}: mapping at {:#x}", process.pid, mapping.start);
    }
    assert!(left.0.is_empty(), "{}: left over: {:x?}", process.pid, left.0);
    pages(process, space);
    let guards: Vec<u64> = process.mappings.iter().flat_map(|mapping| mapping.guards.clone()).collect();
    let found: Vec<u64> = space.guards.0.iter().flat_map(|(start, (end, ()))| [*start, *end]).collect();
    assert_eq!(found, guards, "guards of {}", process.pid);
    assert_eq!(space.executable, process.executable);
    let layout = &process.layout;
    let words = [
        layout.start_code,
        layout.end_code,
        layout.start_data,
        layout.end_data,
        layout.start_brk,
        layout.brk,
        layout.start_stack,
        layout.arg_start,
        layout.arg_end,
        layout.env_start,
        layout.env_end,
    ];
    assert_eq!(space.layout, (words.to_vec(), layout.auxv.clone()), "layout of {}", process.pid);
    assert_eq!(space.membarrier & process.membarrier, process.membarrier);
    assert_eq!((space.dumpable, space.huge_pages_disabled), (process.dumpable, process.huge_pages_disabled));
}

fn pages(process: &Process, space: &super::memory::Space) {
    let mut left = space.pages.clone();
    for run in &process.runs {
        let mut next = run.address;
        for (start, end, saved) in left.take(run.address, run.address + run.bytes) {
            assert_eq!(
                (start, saved.0),
                (next, run.offset + (start - run.address)),
                "pages of {}",
                process.pid
            );
            next = end;
        }
        assert_eq!(next, run.address + run.bytes, "{}: pages at {:#x}", process.pid, run.address);
    }
    assert!(left.0.is_empty(), "{}: pages of nobody: {:x?}", process.pid, left.0);
}

fn area_of(world: &World<'_>, mapping: &Mapping, found: Option<&Area>) -> Area {
    let path = || world.image.files[mapping.file as usize].path.clone();
    let backed = match mapping.backing() {
        Backing::Anonymous => Backed::Anonymous,
        Backing::Vdso => Backed::Vdso,
        Backing::File => Backed::File(path(), mapping.offset),
        Backing::SharedFile => Backed::SharedFile(path(), mapping.offset),
        // Which inode of the world it is is compared when all files are known.
        Backing::Inode => match found.map(|area| &area.backed) {
            Some(Backed::Inode(inode, _)) => Backed::Inode(*inode, mapping.offset),
            _ => Backed::Inode(usize::MAX, mapping.offset),
        },
    };
    let has = |flag: u32| mapping.flags & flag != 0;
    let mut bits = 0;
    let shared = matches!(mapping.backing(), Backing::Inode | Backing::SharedFile);
    let anonymous = mapping.backing() == Backing::Anonymous;
    for (flag, bit, held) in [
        (flags::GROWS_DOWN, libc::MAP_GROWSDOWN as u64, anonymous),
        (flags::NO_RESERVE, libc::MAP_NORESERVE as u64, anonymous || shared),
        (flags::DROPPABLE, 8, anonymous),
    ] {
        bits |= if has(flag) && held { bit } else { 0 };
    }
    let private = matches!(mapping.backing(), Backing::Anonymous | Backing::File);
    let advice = [
        (flags::HUGE, libc::MADV_HUGEPAGE as u64, private),
        (flags::NO_HUGE, libc::MADV_NOHUGEPAGE as u64, private),
        (flags::DONT_FORK, libc::MADV_DONTFORK as u64, true),
        (flags::WIPE_ON_FORK, libc::MADV_WIPEONFORK as u64, true),
        (flags::DONT_DUMP, libc::MADV_DONTDUMP as u64, true),
        (flags::LOCKED, LOCKED, true),
    ];
    let advice = advice.iter().filter(|(flag, _, held)| has(*flag) && *held).map(|(_, advice, _)| *advice);
    let name = mapping.name.clone();
    Area { bits, advice: advice.collect(), name, ..Area::new(mapping.protection.into(), backed) }
}

/// Every page of the stream that the plan wants has a place.
pub fn fill(world: &mut World<'_>) {
    for load in &world.plan.loads {
        let space = &mut world.spaces[0];
        let mut next = load.address;
        while next < load.address + load.bytes {
            let (_, (end, area)) =
                space.areas.0.range(..=next).next_back().expect("a page lies in a mapping");
            assert!(*end > next, "a page at {next:#x} lies in no mapping");
            assert!(area.protection & 2 != 0, "pages cannot be filled in");
            assert!(
                matches!(area.backed, Backed::Anonymous | Backed::File(..)),
                "pages go to {:?}",
                area.backed
            );
            next = *end;
        }
        assert_eq!(load.bytes % PAGE, 0);
        space.pages.put(load.address, load.address + load.bytes, super::memory::Saved(load.offset));
    }
}

fn locks(world: &World<'_>, process: &Process, at: usize) {
    let table = world.processes[at].table;
    for lock in &process.locks {
        let (file, _) = world.tables[table][&i64::from(lock.number)];
        let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as u64;
        let record = [kind, lock.start, lock.bytes];
        let description = &world.files[file];
        let held = match lock.kind {
            0 => description.flock == Some(if lock.exclusive { libc::LOCK_EX } else { libc::LOCK_SH } as u64),
            1 => {
                let key = description.file_key().unwrap();
                world.record_locks.contains(&(table, key, record))
            }
            _ => description.own_locks.contains(&record),
        };
        assert!(held, "{} has lost a lock of kind {}", process.pid, lock.kind);
    }
}
