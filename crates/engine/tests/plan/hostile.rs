//! Images that no checkpoint writes: each is refused when it is read, so that nothing behind has to think of it.

use engine::image::{
    Backing, Descriptor, FORMAT, Host, Image, Inotify, Kind, Layout, Mapping, OpenFile, PageRun, Pipe,
    Process, Thread, Timer, Watch, decode, encode,
};
use engine::plan::{HostFacts, PlanError, plan};

const START: u64 = 0x10_0000;
const PAGES: u64 = 4 * 4096;

/// One process with a private mapping and an end of a pipe, and nothing wrong.
fn good() -> Image {
    let mapping = Mapping { start: START, end: START + PAGES, protection: 3, ..Mapping::default() };
    let mut registers = vec![0; 27];
    registers[19] = START + PAGES;
    let thread = Thread { tid: 2, registers, xsave: vec![0; 2696], ..Thread::default() };
    let process = Process {
        pid: 2,
        cwd: "/".to_owned(),
        executable: "/usr/x".to_owned(),
        layout: Layout::default(),
        mappings: vec![mapping],
        runs: vec![PageRun { address: START, bytes: PAGES, offset: 0 }],
        threads: vec![thread],
        descriptors: vec![Descriptor { number: 3, close_on_exec: false, file: 0 }],
        credentials: engine::image::Credentials {
            users: vec![1; 4],
            groups: vec![1; 4],
            ..Default::default()
        },
        ..Process::default()
    };
    let pipe = Kind::Pipe(Pipe { id: 1, read: true, content: vec![vec![1; 9]], capacity_bytes: 4096 });
    Image {
        format: FORMAT,
        host: Host::default(),
        processes: vec![process],
        open_files: vec![OpenFile { kind: Some(pipe), ..OpenFile::default() }],
        ..Image::default()
    }
}

fn child(image: &mut Image) -> &mut Process {
    let mut child = image.processes[0].clone();
    (child.pid, child.threads[0].tid, child.parent) = (3, 3, 1);
    child.runs.clear();
    image.processes.push(child);
    image.processes.last_mut().unwrap()
}

fn timer(id: u32) -> Timer {
    Timer { id, setting: vec![0; 4], ..Timer::default() }
}

fn watch(descriptor: i32) -> OpenFile {
    let watch = Watch { descriptor, mask: 2, path: "/tmp".to_owned() };
    OpenFile { kind: Some(Kind::Inotify(Inotify { watches: vec![watch] })), ..OpenFile::default() }
}

type Harm = (&'static str, fn(&mut Image));

const HARMS: &[Harm] = &[
    ("pages where the engine may lie", |image| image.processes[0].runs[0].address = 0x2000_0000_0000),
    ("pages that reach beyond their mapping", |image| image.processes[0].runs[0].bytes += 4096),
    ("pages of a shared view", |image| image.processes[0].mappings[0].backing = Backing::Vdso.into()),
    ("a mapping of what nobody knows", |image| image.processes[0].mappings[0].backing = 77),
    ("a mapping at address zero", |image| image.processes[0].mappings[0].start = 0),
    ("a guard outside of its mapping", |image| image.processes[0].mappings[0].guards = vec![0, 4096]),
    ("a guard that ends before it begins", |image| {
        image.processes[0].mappings[0].guards = vec![START + 4096, START];
    }),
    ("a stack at address zero", |image| image.processes[0].threads[0].registers[19] = 8),
    ("a path with a zero byte", |image| image.processes[0].cwd = "/\0".to_owned()),
    ("timers without end", |image| image.processes[0].timers = vec![timer(u32::MAX)]),
    ("timers in no order", |image| image.processes[0].timers = vec![timer(1), timer(1)]),
    ("watches without end", |image| image.open_files.push(watch(i32::MAX))),
    ("a watch with a negative number", |image| image.open_files.push(watch(-1))),
    ("a pipe that holds more than it can", |image| {
        let Some(Kind::Pipe(pipe)) = &mut image.open_files[0].kind else { unreachable!() };
        pipe.content[0] = vec![0; 5000];
    }),
    ("a pidfd of a stranger", |image| image.open_files[0].kind = Some(Kind::PidFd(77))),
    ("a descriptor of nothing", |image| image.open_files[0].kind = None),
    ("a descriptor beyond all limits", |image| image.processes[0].descriptors[0].number = i32::MAX),
    ("nobody to act as", |image| image.processes[0].credentials.users.clear()),
    ("an end by a signal that there is not", |image| child(image).ended = Some(100)),
    ("a child of the dead", |image| {
        child(image).ended = Some(0);
        let mut orphan = image.processes[0].clone();
        (orphan.pid, orphan.threads[0].tid, orphan.parent, orphan.runs) = (4, 4, 2, Vec::new());
        image.processes.push(orphan);
    }),
    ("two processes with one ID", |image| {
        let child = child(image);
        (child.pid, child.threads[0].tid) = (2, 2);
    }),
    ("a group without a leader", |image| image.processes[0].group = 9),
    ("descriptors shared with a stranger", |image| {
        let child = child(image);
        (child.parent, child.shares_descriptors) = (0, 1);
    }),
    ("generations without end", |image| {
        for generation in 1..100 {
            let child = child(image);
            (child.pid, child.threads[0].tid, child.parent) =
                (generation + 2, generation + 2, generation as u32);
        }
    }),
];

#[test]
fn what_no_checkpoint_writes_is_refused() {
    assert_eq!(decode(&encode(&good())).unwrap(), good());
    plan(&good(), &HostFacts::default()).unwrap();
    for (what, harm) in HARMS {
        let mut image = good();
        harm(&mut image);
        assert!(decode(&encode(&image)).is_err(), "{what} is taken for an image");
    }
}

/// The address space is full: there is no room behind the hole for what the image wants to keep there.
#[test]
fn an_image_that_leaves_no_hole_is_refused() {
    let mut image = good();
    let whole = |process: &mut Process| {
        let mapping = &mut process.mappings[0];
        (mapping.start, mapping.end) = (START, 0x5800_0000_0000);
    };
    whole(&mut image.processes[0]);
    let decoded = decode(&encode(&image)).unwrap();
    assert_eq!(plan(&decoded, &HostFacts::default()), Err(PlanError::NoHole));
}

/// As many processes as an image may have, each the child of the one before as far as that is allowed.
#[test]
fn the_largest_family_is_planned() {
    let mut image = good();
    for index in 1..1024_u32 {
        let child = child(&mut image);
        let pid = index as i32 + 2;
        (child.pid, child.threads[0].tid, child.parent) = (pid, pid, if index % 64 == 0 { 1 } else { index });
    }
    let image = decode(&encode(&image)).unwrap();
    plan(&image, &HostFacts::default()).unwrap();
}
