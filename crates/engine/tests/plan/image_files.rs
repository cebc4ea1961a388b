//! Open files of images: every kind that a checkpoint writes, in any order.

use engine::image::{
    Closed, Connection, Datagram, Epoll, EpollMember, EventFd, External, Image, InodeFile, Inotify, Kind,
    Loopback, Netlink, OpenFile, Path, Pipe, Socket, SocketOption, Terminal, TimerFd, Unix, UnixMessage,
    Watch,
};

use super::images::Tape;

const NONBLOCK: u32 = libc::O_NONBLOCK as u32;

/// Fills in the open files. Queues and sets follow when it is known who has what.
pub fn open_files(tape: &mut Tape, image: &mut Image) {
    let mut files = Vec::new();
    for id in 0..tape.below(9) as u32 {
        match tape.below(17) {
            0 => files.push(path(tape)),
            1 => files.push(of(Kind::EventFd(EventFd {
                count: tape.below(3) as u64,
                semaphore: tape.below(2) == 1,
            }))),
            2 => files.push(of(Kind::Epoll(Epoll::default()))),
            3 => pipes(tape, id, &mut files),
            4 | 5 => pair(tape, u64::from(id), &mut files),
            6 => unconnected(tape, u64::from(id), &mut files),
            7 => external(tape, &mut files),
            8 => {
                let ns = tape.below(3) as u64 * 1_500_000_000;
                files.push(of(Kind::TimerFd(TimerFd {
                    clock: 1,
                    value_ns: ns,
                    interval_ns: ns / 3,
                    ticks: 0,
                    ..TimerFd::default()
                })));
            }
            9 => files.push(of(Kind::SignalFd(0x40 + u64::from(id)))),
            10 => files.push(of(Kind::Inotify(inotify(tape)))),
            11 => {
                let pid = image.processes[tape.below(image.processes.len())].pid;
                files.push(of(Kind::PidFd(pid)));
            }
            12 => fifo(tape, id, &mut files),
            13 => terminal(tape, id, &mut files),
            14 => stream(tape, id as u16, &mut files),
            15 => datagrams(tape, id as u16, &mut files),
            _ => single(tape, id as u16, &mut files),
        }
    }
    for (index, _) in image.inodes.iter().enumerate() {
        let access = *tape.pick(&[libc::O_RDWR, libc::O_RDONLY]) as u32;
        let kind = Kind::Inode(InodeFile { inode: index as u32, offset: tape.below(3) as u64 });
        files.push(OpenFile { status_flags: access, ..of(kind) });
    }
    for file in &mut files {
        if tape.one_in(4) && !matches!(file.kind, Some(Kind::Epoll(_) | Kind::PidFd(_))) {
            file.status_flags |= NONBLOCK;
        }
        if tape.one_in(8) && !matches!(file.kind, Some(Kind::Epoll(_) | Kind::PidFd(_) | Kind::External(_))) {
            (file.owner, file.owner_signal) = (image.processes[0].pid, 10);
        }
    }
    for at in (1..files.len()).rev() {
        let other = tape.below(at + 1);
        // Zero leaves the order.
        files.swap(at, at - other);
    }
    first_has_the_content(tape, &mut files);
    queues(tape, &mut files);
    image.open_files = files;
}

fn of(kind: Kind) -> OpenFile {
    OpenFile { kind: Some(kind), ..OpenFile::default() }
}

fn path(tape: &mut Tape) -> OpenFile {
    let (name, offset) = (tape.below(3), tape.below(3) as u64 * 100);
    let flags = *tape.pick(&[0, libc::O_RDWR | libc::O_APPEND, libc::O_WRONLY]) as u32;
    let lease = if tape.one_in(5) { 1 } else { 0 };
    let kind = Kind::Path(Path { path: format!("/tmp/{name}"), offset, fifo: None });
    OpenFile { status_flags: flags, lease, ..of(kind) }
}

fn pipes(tape: &mut Tape, id: u32, files: &mut Vec<OpenFile>) {
    let packets = if tape.one_in(4) { libc::O_DIRECT as u32 } else { 0 };
    let capacity_bytes = *tape.pick(&[0, 65536, 4096]);
    let (readers, writers) = *tape.pick(&[(1, 1), (1, 0), (0, 1), (2, 1), (1, 2), (2, 2)]);
    for end in 0..readers + writers {
        let pipe = Pipe { id: id.into(), read: end < readers, content: Vec::new(), capacity_bytes };
        let access = if end < readers { libc::O_RDONLY } else { libc::O_WRONLY } as u32;
        files.push(OpenFile { status_flags: access | packets, ..of(Kind::Pipe(pipe)) });
    }
}

fn pair(tape: &mut Tape, id: u64, files: &mut Vec<OpenFile>) {
    let socket_type = *tape.pick(&[libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET]);
    let (near, far) = (100 + id * 2, 101 + id * 2);
    let end = |id: u64, peer: u64| Unix { id, peer, socket_type, ..Unix::default() };
    let mut one = end(near, far);
    if tape.one_in(3) {
        one.name = format!("/tmp/s{id}").into_bytes();
        one.accepted = tape.below(2) == 1 && socket_type == libc::SOCK_STREAM;
    }
    if tape.one_in(4) {
        let value = 1_i32.to_ne_bytes().to_vec();
        one.options.push(SocketOption { level: 1, option: libc::SO_PASSCRED, value });
    }
    one.shutdown = if tape.one_in(5) { 2 } else { 0 };
    files.push(of(Kind::Unix(one)));
    if !tape.one_in(3) {
        files.push(of(Kind::Unix(end(far, near))));
    }
}

/// A listener, or a datagram socket with a name and perhaps somebody who sends to it.
fn unconnected(tape: &mut Tape, id: u64, files: &mut Vec<OpenFile>) {
    let listens = tape.below(2) == 0;
    let server = Unix {
        id: 200 + id * 4,
        name: format!("\0name {id}").into_bytes(),
        socket_type: if listens { libc::SOCK_STREAM } else { libc::SOCK_DGRAM },
        backlog: if listens { 5 } else { 0 },
        ..Unix::default()
    };
    let clients = if listens { 0 } else { tape.below(3) as u64 };
    for client in 1..=clients {
        let (id, peer) = (server.id + client, server.id);
        files.push(of(Kind::Unix(Unix { id, peer, socket_type: libc::SOCK_DGRAM, ..Unix::default() })));
    }
    files.push(of(Kind::Unix(server)));
}

fn external(tape: &mut Tape, files: &mut Vec<OpenFile>) {
    let kind = Kind::External((*tape.pick(&[External::Stdout, External::Stderr, External::Pending])).into());
    if files.iter().all(|file| file.kind.as_ref() != Some(&kind)) {
        files.push(of(kind));
    }
}

fn inotify(tape: &mut Tape) -> Inotify {
    let mut descriptor = 0;
    let paths = ["/", "/proc", "/dev", "/var", "/usr"];
    let count = tape.below(4);
    let watches = paths[..count].iter().map(|path| {
        descriptor += 1 + *tape.pick(&[0, 0, 1, 300]);
        Watch { descriptor, mask: 2, path: (*path).to_owned() }
    });
    Inotify { watches: watches.collect() }
}

fn fifo(tape: &mut Tape, id: u32, files: &mut Vec<OpenFile>) {
    for _ in 0..1 + tape.below(2) {
        let access = *tape.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]) as u32;
        let path = Path { path: format!("/fifo{id}"), offset: 0, fifo: Some(Vec::new()) };
        files.push(OpenFile { status_flags: access, ..of(Kind::Path(path)) });
    }
}

fn terminal(tape: &mut Tape, id: u32, files: &mut Vec<OpenFile>) {
    let all: [&[bool]; 4] = [&[true, false], &[true], &[false], &[false, true, false]];
    let sides = *tape.pick(&all);
    for &master in sides {
        let (termios, window) = if master { (vec![7; 36], vec![1; 8]) } else { (Vec::new(), Vec::new()) };
        files.push(of(Kind::Terminal(Terminal { id, master, termios, window })));
    }
}

/// 127.0.0.1, or any address.
fn address(port: u16, any: bool) -> Vec<u8> {
    let mut address = vec![0; 16];
    address[0] = libc::AF_INET as u8;
    address[2..4].copy_from_slice(&port.to_be_bytes());
    if !any {
        address[4] = 127;
        address[7] = 1;
    }
    address
}

fn socket(socket_type: i32, address: Vec<u8>) -> Socket {
    Socket { family: libc::AF_INET, socket_type, address, ..Socket::default() }
}

/// Connections over the loopback interface, with and without the listener that accepted them, whole and half closed.
fn stream(tape: &mut Tape, id: u16, files: &mut Vec<OpenFile>) {
    let server_port = 1000 + id * 10;
    if tape.below(2) == 1 {
        let any = tape.below(2) == 1;
        let listener = Socket { backlog: 8, ..socket(libc::SOCK_STREAM, address(server_port, any)) };
        files.push(of(Kind::Socket(listener)));
    }
    for connection in 1..=1 + tape.below(2) as u16 {
        let ends = [address(server_port, false), address(server_port + connection, false)];
        let closed = tape.below(4);
        for (end, accepted) in [(0, true), (1, false)] {
            if closed == end + 2 {
                continue;
            }
            files.push(of(Kind::Loopback(Loopback {
                socket: socket(libc::SOCK_STREAM, ends[end].clone()),
                peer: ends[1 - end].clone(),
                queue: vec![b'q'; tape.below(3)],
                accepted,
                shutdown: if tape.one_in(4) { 2 } else { 0 },
            })));
        }
    }
}

/// Connected datagram sockets with what waits in them.
fn datagrams(tape: &mut Tape, id: u16, files: &mut Vec<OpenFile>) {
    let ports = [2000 + id * 10, 2001 + id * 10];
    for (own, other) in [(0, 1), (1, 0)] {
        let queue = (0..tape.below(3))
            .map(|at| Datagram { sender: address(ports[other], false), bytes: vec![at as u8] });
        let socket =
            Socket { queue: queue.collect(), ..socket(libc::SOCK_DGRAM, address(ports[own], false)) };
        files.push(of(Kind::Loopback(Loopback {
            socket,
            peer: address(ports[other], false),
            ..Loopback::default()
        })));
    }
}

fn single(tape: &mut Tape, id: u16, files: &mut Vec<OpenFile>) {
    let kind = match tape.below(5) {
        0 => Kind::Connection(Connection { port: 9001 }),
        1 => {
            let (family, socket_type) = *tape.pick(&[
                (libc::AF_INET, libc::SOCK_STREAM),
                (libc::AF_INET6, libc::SOCK_STREAM),
                (libc::AF_INET, libc::SOCK_DGRAM),
            ]);
            Kind::Closed(Closed { family, socket_type, peer: String::new() })
        }
        2 => {
            let sender = address(4000 + id, false);
            let queue =
                (0..tape.below(3)).map(|at| Datagram { sender: sender.clone(), bytes: vec![at as u8; 4] });
            Kind::Socket(Socket {
                queue: queue.collect(),
                ..socket(libc::SOCK_DGRAM, address(3000 + id, false))
            })
        }
        3 => Kind::Socket(socket(libc::SOCK_STREAM, Vec::new())),
        _ => Kind::Netlink(Netlink {
            socket_type: libc::SOCK_RAW,
            protocol: 0,
            bound: id.is_multiple_of(2),
            port: 0,
            groups: 1,
        }),
    };
    files.push(of(kind));
}

/// What waits in a pipe or a FIFO is kept with its first reader.
fn first_has_the_content(tape: &mut Tape, files: &mut [OpenFile]) {
    let mut known = Vec::new();
    for file in files {
        match &mut file.kind {
            Some(Kind::Pipe(pipe)) if pipe.read && !known.contains(&pipe.id.to_string()) => {
                known.push(pipe.id.to_string());
                let pieces = if file.status_flags & libc::O_DIRECT as u32 != 0 { 2 } else { 1 };
                pipe.content = vec![vec![b'x'; 5]; tape.below(2) * pieces];
            }
            Some(Kind::Path(Path { path, fifo: Some(content), .. })) if !known.contains(path) => {
                known.push(path.clone());
                *content = vec![b'f'; tape.below(2) * 3];
            }
            _ => {}
        }
    }
}

/// Messages may carry every open file but pidfds, those that come later in the list and the socket itself too.
fn queues(tape: &mut Tape, files: &mut [OpenFile]) {
    let carried: Vec<u32> = (0..files.len() as u32)
        .filter(|file| !matches!(files[*file as usize].kind, Some(Kind::PidFd(_))))
        .collect();
    for file in files {
        let Some(Kind::Unix(unix)) = &mut file.kind else { continue };
        let connected_one_way = unix.id >= 200 && unix.peer != 0;
        if unix.backlog > 0 || connected_one_way {
            continue;
        }
        for at in 0..tape.below(3) {
            let files = (0..tape.below(3)).map(|_| *tape.pick(&carried)).collect();
            unix.queue.push(UnixMessage { bytes: vec![at as u8; 3], files, ..UnixMessage::default() });
        }
    }
}

/// The first open file that is neither behind a descriptor nor in a message that waits in one that is.
pub fn unheld(image: &Image) -> Option<u32> {
    let mut held = vec![false; image.open_files.len()];
    let descriptors = image.processes.iter().flat_map(|process| &process.descriptors);
    let mut open: Vec<u32> = descriptors.map(|descriptor| descriptor.file).collect();
    while let Some(file) = open.pop() {
        if !std::mem::replace(&mut held[file as usize], true)
            && let Some(Kind::Unix(unix)) = &image.open_files[file as usize].kind
        {
            open.extend(unix.queue.iter().flat_map(|message| &message.files));
        }
    }
    held.iter().position(|held| !held).map(|file| file as u32)
}

/// Gives epoll sets their members: some that stand where they were added, and some whose number means another file.
pub fn members(tape: &mut Tape, image: &mut Image) {
    let pollable: Vec<u32> = (0..image.open_files.len() as u32)
        .filter(|file| match &image.open_files[*file as usize].kind {
            Some(Kind::Path(path)) => path.fifo.is_some(),
            Some(Kind::Inode(_) | Kind::PidFd(_) | Kind::Epoll(_)) => false,
            _ => true,
        })
        .collect();
    let sets: Vec<usize> = (0..image.open_files.len())
        .filter(|file| matches!(image.open_files[*file].kind, Some(Kind::Epoll(_))))
        .collect();
    for set in sets {
        let has = |process: &&engine::image::Process| {
            process.descriptors.iter().any(|known| known.file as usize == set)
        };
        let owner = image.processes.iter().find(has).unwrap_or(&image.processes[0]);
        let mut members: Vec<EpollMember> = Vec::new();
        for _ in 0..tape.below(4) {
            let live: Vec<_> =
                owner.descriptors.iter().filter(|known| pollable.contains(&known.file)).collect();
            let (number, file) = if !live.is_empty() && tape.below(2) == 0 {
                let descriptor = tape.pick(&live);
                (descriptor.number, descriptor.file)
            } else if !pollable.is_empty() {
                (tape.below(12) as i32, *tape.pick(&pollable))
            } else {
                continue;
            };
            if members.iter().all(|member| (member.number, member.file) != (number, file)) {
                members.push(EpollMember { number, events: 1, data: tape.below(9) as u64, file });
            }
        }
        image.open_files[set].kind = Some(Kind::Epoll(Epoll { members }));
    }
}
