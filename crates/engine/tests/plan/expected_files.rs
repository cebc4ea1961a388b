//! Whether the open files of the world are those of the image, shared as they were shared there.

use std::collections::BTreeMap;

use engine::image::{Backing, External, Image, Kind, OpenFile, SEALS_NONE, SocketOption};

use super::files::{Description, What};
use super::memory::Backed;
use super::world::World;

/// Which open file, pipe and inode of the image is which of the world.
#[derive(Default)]
struct Pairs {
    files: BTreeMap<u32, usize>,
    pipes: BTreeMap<u64, usize>,
    inodes: BTreeMap<u32, usize>,
    terminals: BTreeMap<u32, usize>,
}

fn pair<K: Ord + Copy + std::fmt::Debug>(pairs: &mut BTreeMap<K, usize>, one: K, other: usize) -> bool {
    if let Some(known) = pairs.get(&one) {
        assert_eq!(*known, other, "{one:?} was one and is two now");
        return false;
    }
    assert!(pairs.values().all(|known| *known != other), "{one:?} was not shared and is now");
    pairs.insert(one, other);
    true
}

/// Compares what the descriptors and mappings of all processes lead to.
pub fn files(world: &World<'_>) {
    compare(world);
}

/// What nobody had open is open no more.
pub fn closed(world: &World<'_>) {
    let pairs = compare(world);
    let mut held: Vec<(u64, bool)> = Vec::new();
    for index in pairs.files.keys() {
        if let Some(Kind::Pipe(pipe)) = &world.image.open_files[*index as usize].kind {
            held.push((pipe.id, pipe.read));
        }
    }
    for (id, pipe) in &pairs.pipes {
        for read in [true, false] {
            assert_eq!(world.ends(*pipe, read), held.contains(&(*id, read)), "an end of pipe {id}");
        }
    }
    for (file, description) in world.files.iter().enumerate() {
        let known = pairs.files.values().any(|known| *known == file);
        let late =
            matches!(description.what, What::PidFd(_) | What::Filler | What::Control | What::Received(_));
        let of_template = world.tables[0].values().any(|(open, _)| *open == file);
        assert!(known || late || of_template || !world.is_open(file), "{description:?} is open and nobody's");
    }
}

fn compare(world: &World<'_>) -> Pairs {
    let image = world.image;
    let mut pairs = Pairs::default();
    let mut open = Vec::new();
    for process in image.processes.iter().filter(|process| process.ended.is_none()) {
        let at = world.by_pid(process.pid.into()).unwrap();
        let table = &world.tables[world.processes[at].table];
        let descriptors = &owner(image, process).descriptors;
        let below =
            table.range(..i64::from(world.plan.control)).map(|(number, _)| *number).collect::<Vec<_>>();
        let numbers: Vec<i64> = descriptors.iter().map(|descriptor| descriptor.number.into()).collect();
        assert_eq!(below, numbers, "descriptors of {}", process.pid);
        for descriptor in descriptors {
            let (file, close_on_exec) = table[&i64::from(descriptor.number)];
            assert_eq!(close_on_exec, descriptor.close_on_exec, "{} of {}", descriptor.number, process.pid);
            // Each process opens a pidfd anew: it has no state that could be shared.
            if let Some(Kind::PidFd(pid)) = &image.open_files[descriptor.file as usize].kind {
                assert_eq!(world.files[file].what, What::PidFd(i64::from(*pid)));
            } else if pair(&mut pairs.files, descriptor.file, file) {
                open.push((descriptor.file, file));
            }
        }
        let space = &world.spaces[world.processes[at].space];
        for mapping in process.mappings.iter().filter(|mapping| mapping.backing() == Backing::Inode) {
            let Some((_, area)) = space.areas.0.get(&mapping.start) else { continue };
            let Backed::Inode(inode, _) = area.backed else { panic!("a view of {:?}", area.backed) };
            pair(&mut pairs.inodes, mapping.file, inode);
        }
    }
    while let Some((index, file)) = open.pop() {
        same(world, &image.open_files[index as usize], &world.files[file], &mut pairs, &mut open);
    }
    for (index, inode) in &pairs.inodes {
        self::inode(world, *index as usize, *inode);
    }
    epolls(world, &pairs);
    pairs
}

fn owner<'a>(image: &'a Image, process: &'a engine::image::Process) -> &'a engine::image::Process {
    match process.shares_descriptors {
        0 => process,
        shares => owner(image, &image.processes[shares as usize - 1]),
    }
}

type Open = Vec<(u32, usize)>;

fn same(world: &World<'_>, file: &OpenFile, found: &Description, pairs: &mut Pairs, open: &mut Open) {
    let kept = (libc::O_NONBLOCK | libc::O_APPEND) as u32 & file.status_flags;
    if !matches!(file.kind, Some(Kind::Epoll(_))) {
        let now = found.flags as u32 & (libc::O_NONBLOCK | libc::O_APPEND) as u32;
        assert_eq!(now, kept, "status flags of {file:?}");
    }
    assert_eq!(
        (found.owner, found.owner_signal),
        (file.owner.into(), file.owner_signal.into()),
        "owner of {file:?}"
    );
    assert_eq!(found.lease, (file.lease > 0).then(|| u64::from(file.lease - 1)));
    match (file.kind.as_ref().unwrap(), &found.what) {
        (Kind::Path(path), What::Path { path: known, offset }) => {
            assert_eq!((known, *offset), (&path.path, path.offset));
            let content = world
                .pipes
                .iter()
                .find(|pipe| pipe.content.first().is_some_and(|name| *name == path.path.as_bytes()));
            let content = content.map_or(&[][..], |pipe| &pipe.content[1]);
            assert!(
                path.fifo.as_ref().is_none_or(|fifo| fifo.is_empty() || fifo == content),
                "content of a FIFO"
            );
        }
        (Kind::External(external), What::Received(index)) => {
            let wanted = match External::try_from(*external).unwrap() {
                External::Stdout => 2,
                External::Stderr => 3,
                External::Pending => 4,
                External::Stdin => 6,
            };
            assert_eq!(*index, wanted);
        }
        (Kind::Inode(view), What::Memory { inode, offset }) => {
            assert_eq!(view.offset, *offset);
            assert_eq!(found.flags as i32 & libc::O_ACCMODE, file.status_flags as i32 & libc::O_ACCMODE);
            pair(&mut pairs.inodes, view.inode, *inode);
        }
        (Kind::EventFd(event), What::Event { count, semaphore }) => {
            assert_eq!((event.count, event.semaphore), (*count, *semaphore));
        }
        (Kind::Epoll(_), What::Epoll(_)) => {}
        (Kind::TimerFd(timer), What::Timer { clock, setting }) => {
            let split = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000];
            let wanted = [split(timer.interval_ns), split(timer.value_ns)].concat();
            assert_eq!(*clock as i32, timer.clock);
            assert_eq!(*setting, (timer.value_ns > 0).then_some(wanted));
        }
        (Kind::SignalFd(mask), What::Signals(found)) => assert_eq!(*found, vec![*mask]),
        (Kind::Pipe(pipe), What::Pipe { pipe: known, read }) => {
            assert_eq!(pipe.read, *read);
            pair(&mut pairs.pipes, pipe.id, *known);
            let content: Vec<u8> = pipe.content.concat();
            let found = world.pipes[*known].content.concat();
            assert!(content.is_empty() || content == found, "content of pipe {}", pipe.id);
            let capacity = u64::from(pipe.capacity_bytes);
            assert!(capacity == 0 || capacity == world.pipes[*known].capacity);
        }
        (Kind::Unix(unix), What::Unix(known)) => self::unix(world, unix, known, pairs, open),
        (Kind::Inotify(inotify), What::Watches { paths, queued, .. }) => {
            let watches = inotify.watches.iter();
            let watches: Vec<_> = watches
                .map(|watch| (watch.descriptor.into(), watch.path.clone(), watch.mask.into()))
                .collect();
            assert_eq!((paths, *queued), (&watches, 0));
        }
        (Kind::Terminal(side), What::Terminal { pair: number, master, termios, .. }) => {
            pair(&mut pairs.terminals, side.id, *number);
            assert_eq!((side.master, &side.termios), (*master, termios));
        }
        (Kind::Netlink(netlink), What::Netlink { kind, protocol, address }) => {
            assert_eq!((*kind as i32, *protocol as i32), (netlink.socket_type, netlink.protocol));
            assert_eq!(!address.is_empty(), netlink.bound);
        }
        (kind, What::Net(net)) => self::net(world, kind, net, pairs, open),
        (kind, other) => panic!("{kind:?} has become {other:?}"),
    }
}

fn unix(
    world: &World<'_>,
    unix: &engine::image::Unix,
    found: &super::files::Unix,
    pairs: &mut Pairs,
    open: &mut Open,
) {
    assert_eq!((unix.socket_type as u64, u64::from(unix.backlog)), (found.kind, found.backlog));
    assert!(unix.accepted || unix.name == found.name, "the name of a Unix socket");
    assert_eq!(options(&unix.options), found.options);
    assert_eq!(unix.peer != 0, found.connected);
    assert_eq!(unix.shutdown != 0, found.shutdown.is_some());
    let id_of = |file: &OpenFile| matches!(&file.kind, Some(Kind::Unix(other)) if unix.peer != 0 && other.id == unix.peer);
    let peer = world.image.open_files.iter().position(id_of);
    match (peer, found.peer) {
        (Some(peer), Some(known)) => {
            if pair(&mut pairs.files, peer as u32, known) {
                open.push((peer as u32, known));
            }
        }
        (None, Some(known)) => assert!(!world.is_open(known), "the other end was closed"),
        (peer, known) => assert!(peer.is_none() && known.is_none(), "a peer is {peer:?} and was {known:?}"),
    }
    assert_eq!(unix.queue.len(), found.queue.len(), "messages of socket {}", unix.id);
    for (message, (bytes, files)) in unix.queue.iter().zip(&found.queue) {
        assert_eq!(
            (&message.bytes, message.files.len()),
            (bytes, files.len()),
            "a message of socket {}",
            unix.id
        );
        for (index, file) in message.files.iter().zip(files) {
            if pair(&mut pairs.files, *index, *file) {
                open.push((*index, *file));
            }
        }
    }
}

fn options(saved: &[SocketOption]) -> Vec<(u64, u64, Vec<u8>)> {
    saved.iter().map(|saved| (saved.level as u64, saved.option as u64, saved.value.clone())).collect()
}

fn net(world: &World<'_>, kind: &Kind, net: &super::files::Net, pairs: &mut Pairs, open: &mut Open) {
    match kind {
        Kind::Connection(connection) => assert_eq!(net.platform.map(u32::from), Some(connection.port)),
        Kind::Closed(closed) => {
            assert_eq!((net.family as i32, net.kind as i32), (closed.family, closed.socket_type));
            assert_eq!(
                net.reset,
                closed.socket_type == libc::SOCK_STREAM,
                "a connection to the outside is reset"
            );
        }
        Kind::Socket(socket) => {
            assert_eq!((&net.address, net.backlog), (&socket.address, u64::from(socket.backlog)));
            assert!(net.peer.is_none() && net.waiting.is_empty());
            let queue: Vec<_> =
                socket.queue.iter().map(|gram| (gram.sender.clone(), gram.bytes.clone())).collect();
            assert_eq!(net.queue, queue);
        }
        Kind::Loopback(loopback) => {
            assert_eq!(net.address, loopback.socket.address);
            assert_eq!(net.peer.as_ref(), Some(&loopback.peer), "the other end of a connection");
            let datagrams = loopback.socket.queue.iter().map(|datagram| datagram.bytes.clone());
            let queue = [datagrams.collect::<Vec<_>>().concat(), loopback.queue.clone()].concat();
            let found: Vec<u8> = net.queue.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert_eq!(found, queue, "what waits in a connection");
            assert_eq!(loopback.shutdown != 0, net.shutdown.is_some());
            let far = world.image.open_files.iter().position(|file| {
                matches!(&file.kind, Some(Kind::Loopback(far))
                    if far.socket.address == loopback.peer && far.peer == loopback.socket.address)
            });
            match (far, net.other) {
                (Some(far), Some(other)) => {
                    if pair(&mut pairs.files, far as u32, other) {
                        open.push((far as u32, other));
                    }
                }
                (None, Some(other)) => assert!(!world.is_open(other), "the other end was closed"),
                _ => assert_ne!(net.kind, libc::SOCK_STREAM as u64),
            }
        }
        other => panic!("{other:?} has become an internet socket"),
    }
}

fn inode(world: &World<'_>, index: usize, found: usize) {
    let (inode, found) = (&world.image.inodes[index], &world.inodes[found]);
    assert_eq!((&inode.directory, inode.bytes), (&found.directory, found.bytes));
    if inode.directory.is_some() {
        assert_eq!(u64::from(inode.mode & 0o777), found.mode);
    } else {
        assert_eq!((&inode.name, inode.seals != SEALS_NONE), (&found.name, found.sealable));
        let seals = if inode.seals == SEALS_NONE { 0 } else { u64::from(inode.seals) };
        assert_eq!(found.seals, seals, "seals of {}", inode.name);
    }
    let runs = inode.runs.iter().flat_map(|run| {
        (0..run.bytes / 4096).map(move |page| (run.address + page * 4096, run.offset + page * 4096))
    });
    let pages = found.pages.0.iter().flat_map(|(start, (end, saved))| {
        (0..(end - start) / 4096).map(move |page| (start + page * 4096, saved.0 + page * 4096))
    });
    assert_eq!(pages.collect::<Vec<_>>(), runs.collect::<Vec<_>>(), "pages of inode {index}");
}

/// Members whose files are open somewhere; what has been closed by all has left the set.
fn epolls(world: &World<'_>, pairs: &Pairs) {
    for (index, file) in &pairs.files {
        let Some(Kind::Epoll(epoll)) = &world.image.open_files[*index as usize].kind else { continue };
        let What::Epoll(members) = &world.files[*file].what else { panic!("no epoll set") };
        let wanted = epoll.members.iter().filter_map(|member| {
            let event = [&member.events.to_ne_bytes()[..], &member.data.to_ne_bytes()].concat();
            Some((i64::from(member.number), *pairs.files.get(&member.file)?, event))
        });
        let found = members.iter().filter(|member| pairs.files.values().any(|file| *file == member.file));
        let found = found.map(|member| (member.number, member.file, member.event.clone()));
        let (mut wanted, mut found): (Vec<_>, Vec<_>) = (wanted.collect(), found.collect());
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "members of an epoll set");
    }
}
