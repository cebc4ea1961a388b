//! The plan as a pure value: whatever the image, carrying the lists out on a model gives the image back.
//!
//! The model ([`world`], [`calls`]) knows address spaces, descriptor tables, open files, processes and privilege as the
//! kernel does. It refuses what the kernel would refuse (a fixed mapping over another, a descriptor that is not open, a
//! number that the plan has predicted wrongly) and what must never happen: function code before all privilege is gone,
//! a thread that goes before all are ready and the host was told, a descriptor of the engine's in a process that runs.
//! In the end everything is compared with the image ([`expected`]).
//!
//! Deliberately absent: what the kernel does with what it is given (that is for the tests with real processes), and the
//! content of anything but memory, pipes and queues.

mod calls;
mod expected;
mod expected_files;
mod files;
mod hostile;
mod image_files;
mod images;
mod memory;
mod world;

use engine::image::{Image, decode, encode};
use engine::ops::{Op, Report, Request, SLOTS};
use engine::plan::{HostFacts, Plan, PlanError, plan};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use images::images;
use world::World;

const NUMBER_LIMIT: (u64, u64) = (4096, 8192);

fn facts(joins: usize, soft: u64) -> HostFacts {
    let limits = vec![(libc::RLIMIT_NOFILE, soft, NUMBER_LIMIT.1)];
    HostFacts { cgroup_joins: joins, limits, ..HostFacts::default() }
}

/// Carries the three lists out, with `schedule` to choose who runs next.
fn restore(plan: &Plan, image: &Image, facts: &HostFacts, schedule: &[usize]) {
    let soft = facts.limits.first().map_or(NUMBER_LIMIT.0, |(_, soft, _)| *soft);
    let mut world = World::new(plan, image, (soft, NUMBER_LIMIT.1), expected::ready);
    let reserved = world.tables[0].clone();
    world.run(plan.map.clone(), |_| 0);
    expected::fill(&mut world);
    world.run(plan.finish.clone(), |_| 0);
    assert_eq!(world.tables[0], reserved, "the template keeps a descriptor");

    world.receive(facts.cgroup_joins);
    let mut turns = schedule.iter().cycle().copied();
    world.run(plan.clone.clone(), |_| turns.next().unwrap_or(0));
    assert_eq!(world.tables[0], reserved, "the template keeps a descriptor");
    assert!(world.tasks.iter().all(|task| task.process != 0 || task.frame.is_none()), "the template goes on");
    expected::released(&world);
    for process in world.processes.iter().filter(|process| process.in_sandbox && process.status.is_none()) {
        assert_eq!(process.joined, facts.cgroup_joins as u64, "control groups of {}", process.pid);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn carrying_a_plan_out_gives_the_image(
        image in images(),
        joins in 0_usize..4,
        tight in any::<bool>(),
        schedule in prop::collection::vec(0_usize..64, 1..64),
    ) {
        let roomy = facts(joins, NUMBER_LIMIT.0);
        let control = plan(&image, &roomy).unwrap().control as u64;
        // A limit that is enough for the loader, and not for making the files.
        let facts = if tight { facts(joins, control + 2) } else { roomy };
        let plan = plan(&image, &facts).unwrap();
        restore(&plan, &image, &facts, &schedule);
    }

    #[test]
    fn what_a_checkpoint_writes_is_read_as_it_was(image in images()) {
        prop_assert_eq!(decode(&encode(&image)).unwrap(), image);
    }

    #[test]
    fn the_same_image_gives_the_same_plan(image in images()) {
        let facts = HostFacts::default();
        prop_assert_eq!(plan(&image, &facts).unwrap(), plan(&image, &facts).unwrap());
    }

    #[test]
    fn the_engine_lies_apart_from_everything(image in images(), taken in 0_u64..64) {
        let start = engine::plan::area::LOWEST + taken * (1 << 28);
        let facts = HostFacts { occupied: vec![(start, start + (1 << 30))], ..HostFacts::default() };
        let plan = plan(&image, &facts).unwrap();
        prop_assert!(plan.area.start >= start + (1 << 30) || plan.area.end() <= start);
    }

    #[test]
    fn an_image_with_any_byte_changed_gives_a_plan_or_an_error(image in images(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encode(&image);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(image) = decode(&bytes) {
            let _ = plan(&image, &facts(0, NUMBER_LIMIT.0));
        }
    }
}

#[test]
fn more_descriptors_than_the_host_allows_are_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let image = images().new_tree(&mut runner).unwrap().current();
    let facts = HostFacts { limits: vec![(libc::RLIMIT_NOFILE, 4, 4)], ..HostFacts::default() };
    assert!(matches!(plan(&image, &facts), Err(PlanError::Descriptors { limit: 4, .. })));
}

/// Not a test: writes images of every kind for the fuzzer to start from (see fuzz/README.md).
#[test]
#[ignore = "writes to fuzz/corpus"]
fn seeds_for_the_fuzzer() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/engine_image");
    std::fs::create_dir_all(&directory).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for index in 0..200 {
        let image = images().new_tree(&mut runner).unwrap().current();
        std::fs::write(directory.join(format!("seed-{index:03}")), encode(&image)).unwrap();
    }
}

/// The host and the interpreter are two builds that read these from each other's memory.
#[test]
fn the_wire_has_no_room_that_nobody_writes() {
    assert_eq!(size_of::<Op>(), 4 + 4 + 6 * 8 + 4 + 4 + 4 + 4 + 8);
    assert_eq!(size_of::<Request>(), 8 + 4 + 4 + (SLOTS - engine::ops::DESCRIPTOR_SLOTS) * 8);
    assert_eq!(size_of::<Report>(), 8 + 4 + 4 + 8);
    assert_eq!(std::mem::offset_of!(Op, expected), size_of::<Op>() - 8);
    assert_eq!(std::mem::offset_of!(Report, result), 16);
    assert_eq!(size_of::<engine::ops::Context>(), 3 * 8 + SLOTS * 8);
}
