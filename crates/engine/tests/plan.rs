//! The plan as a pure value: whatever the image, carrying the lists out on a model of a process gives the image back.
//!
//! The model knows address ranges, descriptors, threads and privilege, and nothing else. It refuses what the kernel
//! would refuse (a fixed mapping over another, a descriptor that is not open) and what must never happen (function code
//! before all privilege is gone).

use std::collections::{BTreeMap, BTreeSet};

use engine::image::{
    Backing, Descriptor, EventFd, External, Host, Image, Kind, Layout, MappedFile, Mapping, PageRun,
    PathDescriptor, Pipe, Thread, flags,
};
use engine::ops::{Code, Expect, NO_SLOT, Op};
use engine::plan::{HostFacts, Plan, RECEIVED, plan};
use proptest::prelude::*;

const PAGE: u64 = 4096;
const FILES: u32 = 3;

/// What the model keeps of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    end: u64,
    protection: u64,
    shared: bool,
}

/// A process and the thread that walks the list in it.
#[derive(Debug, Clone)]
struct Model<'a> {
    plan: &'a Plan,
    memory: BTreeMap<u64, Area>,
    descriptors: BTreeSet<i64>,
    slots: Vec<u64>,
    privileged: bool,
    reported: bool,
    released: Vec<i64>,
    /// Thread ID of whoever walks.
    thread: i64,
}

impl Model<'_> {
    fn word(&self, address: u64) -> u64 {
        let start = (address - self.plan.area.data()) as usize;
        u64::from_ne_bytes(self.plan.data[start..start + 8].try_into().unwrap())
    }

    fn free(&self) -> i64 {
        (0..).find(|number| !self.descriptors.contains(number)).unwrap()
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.memory.range(..end).any(|(_, area)| area.end > start)
    }

    fn unmap(&mut self, start: u64, end: u64) {
        let hit: Vec<u64> =
            self.memory.range(..end).filter(|(_, area)| area.end > start).map(|(at, _)| *at).collect();
        for at in hit {
            let area = self.memory.remove(&at).unwrap();
            if at < start {
                self.memory.insert(at, Area { end: start, ..area.clone() });
            }
            if area.end > end {
                self.memory.insert(end, area);
            }
        }
    }

    /// Carries out operations from `from` to `to`; children in models of their own, which are given back.
    fn run(&mut self, from: u32, to: u32) -> Vec<Self> {
        let mut children = Vec::new();
        let mut index = from;
        while index < to {
            let op = self.plan.ops[index as usize];
            let mut args = op.args;
            for (operand, arg) in args.iter_mut().enumerate() {
                if op.slots & (1 << operand) != 0 {
                    *arg = self.slots[*arg as usize];
                }
            }
            let result = if op.code == Code::Clone {
                let end = index + 1 + op.count;
                assert!(end <= to, "a child's list leaves its parent's");
                children.extend(self.child(index + 1, end, args[0]));
                index = end - 1;
                7
            } else {
                self.step(&op, args)
            };
            match op.expect {
                Expect::Any => {}
                Expect::NotNegative => assert!(result >= 0, "{index}: {op:?} gave {result}"),
                Expect::Exactly => assert_eq!(result, op.expected, "{index}: {op:?}"),
            }
            if op.out != NO_SLOT {
                self.slots[op.out as usize] = result as u64;
            }
            index += 1;
        }
        children
    }

    fn child(&self, from: u32, to: u32, arguments: u64) -> Vec<Self> {
        let mut child = self.clone();
        let set_tid = self.word(arguments + 8 * 8);
        child.thread = self.word(set_tid) as u32 as i64;
        let mut all = child.run(from, to);
        all.push(child);
        all
    }

    fn step(&mut self, op: &Op, args: [u64; 6]) -> i64 {
        let [first, second, third, ..] = args;
        match op.code {
            Code::Call => {
                assert!(!self.privileged, "function code is called with privilege");
                op.expected
            }
            Code::Sigreturn => {
                assert!(!self.privileged, "a thread goes on with privilege");
                assert!(first % 64 == 0 && first >= self.plan.area.data());
                self.released.push(self.thread);
                0
            }
            Code::Report => {
                self.reported = true;
                0
            }
            Code::Copy => {
                assert!(self.overlaps(first, first + third) && self.overlaps(second, second + third));
                0
            }
            Code::Syscall | Code::Await => self.system_call(op, args),
            _ => 0,
        }
    }

    fn system_call(&mut self, op: &Op, args: [u64; 6]) -> i64 {
        let [first, second, third, fourth, ..] = args;
        let number = i64::from(op.number);
        match number {
            libc::SYS_mmap => {
                let (start, end) = (first, first + second);
                assert!(fourth & libc::MAP_FIXED_NOREPLACE as u64 != 0, "a mapping at no fixed place");
                assert!(!self.overlaps(start, end), "{start:#x} is mapped already");
                let shared = fourth & libc::MAP_PRIVATE as u64 == 0 && fourth & 0x08 == 0;
                self.memory.insert(start, Area { end, protection: third, shared });
                start as i64
            }
            libc::SYS_munmap => {
                self.unmap(first, first + second);
                0
            }
            libc::SYS_mprotect => {
                let area = self.memory.get_mut(&first).expect("a whole mapping is protected");
                assert_eq!(area.end, first + second);
                area.protection = third;
                0
            }
            libc::SYS_mremap => {
                let area = self.memory.remove(&first).expect("a whole mapping is moved");
                let to = args[4];
                self.unmap(to, to + third);
                self.memory.insert(to, Area { end: to + third, ..area });
                to as i64
            }
            libc::SYS_dup3 => {
                assert!(self.descriptors.contains(&(first as i64)), "{first} is not open");
                self.descriptors.insert(second as i64);
                second as i64
            }
            libc::SYS_close => {
                assert!(self.descriptors.remove(&(first as i64)), "{first} is not open");
                0
            }
            libc::SYS_close_range => {
                self.descriptors.retain(|&number| number < first as i64);
                0
            }
            libc::SYS_openat2 | libc::SYS_eventfd2 | libc::SYS_epoll_create1 | libc::SYS_socket => {
                let free = self.free();
                self.descriptors.insert(free);
                free
            }
            libc::SYS_pipe2 | libc::SYS_socketpair => {
                for _ in 0..2 {
                    let free = self.free();
                    self.descriptors.insert(free);
                }
                0
            }
            libc::SYS_write | libc::SYS_fcntl | libc::SYS_lseek => {
                assert!(self.descriptors.contains(&(first as i64)), "{first} is not open");
                op.expected
            }
            libc::SYS_capset => {
                self.privileged = false;
                0
            }
            libc::SYS_setns => {
                assert!(self.privileged && !self.reported);
                0
            }
            _ => op.expected,
        }
    }
}

fn mapping(start: u64, pages: u64, backing: Backing, protection: u32, bits: u32) -> Mapping {
    Mapping {
        start,
        end: start + pages * PAGE,
        protection,
        backing: backing.into(),
        file: (start / PAGE % u64::from(FILES)) as u32,
        offset: 0,
        flags: bits,
        guards: Vec::new(),
    }
}

fn thread(tid: i32) -> Thread {
    let mut registers = vec![0; 27];
    registers[19] = 0x7ff0_0000_0000;
    Thread {
        tid,
        registers,
        xsave: vec![0; 2696],
        robust_list: vec![0x1000, 24],
        rseq: vec![0x2000, 32, 0x5305_3053],
        tid_address: 0x3000,
        name: format!("t{tid}"),
        ..Thread::default()
    }
}

prop_compose! {
    fn mappings()(
        parts in prop::collection::vec((1_u64..64, 1_u64..700, 0_usize..4, 0_u32..8, any::<bool>(), 0_usize..5), 1..40)
    ) -> (Vec<Mapping>, Vec<PageRun>) {
        let backings = [Backing::Anonymous, Backing::File, Backing::SharedAnonymous, Backing::SharedFile];
        let bits = [0, flags::NO_RESERVE, flags::DONT_FORK, flags::LOCKED, flags::NO_HUGE];
        let (mut address, mut offset) = (0x10_0000_u64, 0);
        let (mut all, mut runs) = (Vec::new(), Vec::new());
        for (gap, pages, backing, protection, filled, bit) in parts {
            address += gap * PAGE;
            let mapping = mapping(address, pages, backings[backing], protection, bits[bit]);
            if filled && mapping.backing() != Backing::SharedFile {
                let bytes = pages.div_ceil(2) * PAGE;
                runs.push(PageRun { address, bytes, offset });
                offset += bytes;
            }
            address = mapping.end;
            all.push(mapping);
        }
        (all, runs)
    }
}

fn kind(choice: usize, number: i32, lower: i32) -> Kind {
    match choice {
        0 => Kind::Path(PathDescriptor { path: "/usr/x".to_owned(), offset: number as u64 }),
        1 => Kind::External(External::Stdout.into()),
        2 => Kind::EventFd(EventFd { count: 3, semaphore: false }),
        3 if lower >= 0 => Kind::Duplicate(lower),
        4 => Kind::Epoll(engine::image::Epoll { members: Vec::new() }),
        _ => Kind::External(External::Pending.into()),
    }
}

prop_compose! {
    fn descriptors()(parts in prop::collection::vec((1_i32..6, 0_usize..7, any::<bool>()), 0..30)) -> Vec<Descriptor> {
        let (mut number, mut all) = (-1, Vec::<Descriptor>::new());
        let pipe = |id, read| Kind::Pipe(Pipe { id, read, content: b"x".to_vec(), capacity_bytes: 65536 });
        for (step, choice, close_on_exec) in parts {
            let lower = all.last().map_or(-1, |descriptor| descriptor.number);
            number += step;
            let (kind, other) = match choice {
                6 => (pipe(number as u64, true), Some(pipe(number as u64, false))),
                _ => (kind(choice, number, lower), None),
            };
            all.push(Descriptor { number, close_on_exec, status_flags: 0, kind: Some(kind) });
            if let Some(other) = other {
                number += 1;
                all.push(Descriptor { number, close_on_exec: false, status_flags: 0, kind: Some(other) });
            }
        }
        all
    }
}

prop_compose! {
    fn images()(
        (mappings, runs) in mappings(),
        descriptors in descriptors(),
        threads in 1_i32..8,
        reseeds in 0_usize..3,
    ) -> Image {
        Image {
            format: engine::image::FORMAT,
            host: Host::default(),
            pid: 2,
            executable: "/usr/bin/x".to_owned(),
            cwd: "/".to_owned(),
            layout: Layout { auxv: vec![0; 32], ..Layout::default() },
            mappings,
            runs,
            threads: (0..threads).map(|index| thread(2 + index)).collect(),
            descriptors,
            reseed_functions: vec![0x1234; reseeds],
            files: (0..FILES).map(|index| MappedFile { path: format!("/usr/{index}"), ..MappedFile::default() }).collect(),
            uid: 993,
            gid: 990,
            ..Image::default()
        }
    }
}

fn start<'a>(plan: &'a Plan, joins: usize) -> Model<'a> {
    let whole = Area {
        end: plan.area.bytes(plan.data.len(), plan.ops.len()) + plan.area.scratch,
        protection: 7,
        shared: false,
    };
    let mut memory = BTreeMap::from([(0x40_0000, Area { end: 0x50_0000, protection: 5, shared: false })]);
    memory.insert(plan.area.start, whole);
    let control = i64::from(plan.control);
    let received = (control + 1..).take(RECEIVED + joins);
    let mut slots: Vec<u64> = received.clone().map(|number| number as u64).collect();
    slots.resize(engine::ops::SLOTS, 0);
    Model {
        plan,
        memory,
        descriptors: (0..=control).collect(),
        slots,
        privileged: true,
        reported: false,
        released: Vec::new(),
        thread: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn carrying_a_plan_out_gives_the_image(image in images(), joins in 0_usize..4) {
        let facts = HostFacts { cgroup_joins: joins, change_user: true, ..HostFacts::default() };
        let plan = plan(&image, &facts).unwrap();
        let mut template = start(&plan, joins);
        prop_assert!(template.run(plan.map.start, plan.map.end).is_empty());
        for run in &image.runs {
            let (_, area) = template.memory.range(..=run.address).next_back().unwrap();
            prop_assert!(area.end >= run.address + run.bytes && area.protection & 2 != 0, "pages cannot be filled in");
        }
        prop_assert!(template.run(plan.finish.start, plan.finish.end).is_empty());
        prop_assert_eq!(&template.descriptors, &(0..=i64::from(plan.control)).collect::<BTreeSet<_>>());

        template.descriptors.extend(template.slots.iter().take(RECEIVED + joins).map(|&number| number as i64));
        let children = template.run(plan.clone.start, plan.clone.end);
        prop_assert_eq!(&template.descriptors, &(0..=i64::from(plan.control)).collect::<BTreeSet<_>>());
        prop_assert!(template.released.is_empty() && template.privileged, "the template itself never goes on");

        let mut released: Vec<i64> = children.iter().flat_map(|child| child.released.clone()).collect();
        released.sort_unstable();
        let wanted: Vec<i64> = image.threads.iter().map(|thread| thread.tid.into()).collect();
        prop_assert_eq!(released, wanted);
        let clone = children.iter().find(|child| child.thread == 2).unwrap();
        prop_assert!(clone.reported);
        let numbers: BTreeSet<i64> = image.descriptors.iter().map(|descriptor| descriptor.number.into()).collect();
        prop_assert_eq!(&clone.descriptors, &numbers);
        check_memory(&image, clone)?;
    }

    #[test]
    fn the_same_image_gives_the_same_plan(image in images()) {
        let facts = HostFacts::default();
        prop_assert_eq!(plan(&image, &facts).unwrap(), plan(&image, &facts).unwrap());
    }

    #[test]
    fn the_interpreter_lies_apart_from_everything(image in images(), taken in 0_u64..64) {
        let start = engine::plan::area::LOWEST + taken * (1 << 28);
        let facts = HostFacts { occupied: vec![(start, start + (1 << 30))], ..HostFacts::default() };
        let plan = plan(&image, &facts).unwrap();
        let end = plan.area.scratch + plan.area.bytes(plan.data.len(), plan.ops.len());
        prop_assert!(plan.area.scratch >= start + (1 << 30) || end <= start);
    }
}

fn check_memory(image: &Image, clone: &Model<'_>) -> Result<(), TestCaseError> {
    let mut left = clone.memory.clone();
    left.remove(&clone.plan.area.start);
    for mapping in &image.mappings {
        let area = left.remove(&mapping.start);
        let shared = matches!(mapping.backing(), Backing::SharedAnonymous | Backing::SharedFile);
        let wanted = Area { end: mapping.end, protection: mapping.protection.into(), shared };
        prop_assert_eq!(area, Some(wanted), "mapping at {:#x}", mapping.start);
    }
    prop_assert!(left.is_empty(), "left over: {:?}", left);
    Ok(())
}
