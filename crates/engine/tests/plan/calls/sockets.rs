//! Calls about sockets.

use crate::files::{Net, Unix, What};
use crate::world::{EADDRINUSE, EBADF, ECONNREFUSED, EINVAL, EPIPE, Outcome, World};

/// The port on which the platform listens in every sandbox.
pub const PLATFORM_PORT: u16 = 9001;
const STREAM: u64 = libc::SOCK_STREAM as u64;

/// The port of a `struct sockaddr_in` or `struct sockaddr_in6`.
fn port(address: &[u8]) -> u16 {
    u16::from_be_bytes([address[2], address[3]])
}

/// Whether a socket that is bound to one address gets what goes to another.
fn serves(bound: &[u8], address: &[u8]) -> bool {
    let any = match bound.len() {
        16 => bound[4..8] == [0; 4],
        28 => bound[8..24] == [0; 16],
        _ => return false,
    };
    let mapped = bound.len() == address.len() || any && bound.len() == 28;
    // An address of the other family that holds one of IPv4 leads to the sockets of IPv4.
    let four = bound.len() == 16 && address.len() == 28 && address[18..20] == [0xff, 0xff];
    port(bound) == port(address) && (bound == address || any && mapped || four)
}

impl World<'_> {
    pub fn socket_call(&mut self, task: usize, number: i64, args: [u64; 6]) -> Option<Outcome> {
        let space = self.processes[self.tasks[task].process].space;
        let [first, second, third, fourth, fifth, sixth] = args;
        if number == libc::SYS_socket {
            return Some(Outcome::Result(self.socket(task, first, second, third)));
        }
        if number == libc::SYS_socketpair {
            let near = self.socket(task, first, second, third);
            let far = self.socket(task, first, second, third);
            let (one, other) = (self.file(task, near as u64).unwrap(), self.file(task, far as u64).unwrap());
            for (at, peer) in [(one, other), (other, one)] {
                let What::Unix(unix) = &mut self.files[at].what else {
                    panic!("a pair of other than Unix sockets")
                };
                (unix.peer, unix.connected) = (Some(peer), true);
            }
            self.spaces[space]
                .write(fourth, &[(near as i32).to_ne_bytes(), (far as i32).to_ne_bytes()].concat());
            return Some(Outcome::Result(0));
        }
        let calls = [
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_connect,
            libc::SYS_accept4,
            libc::SYS_getsockname,
            libc::SYS_setsockopt,
            libc::SYS_shutdown,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
        ];
        if !calls.contains(&number) {
            return None;
        }
        let Some(file) = self.file(task, first) else { return Some(Outcome::Result(EBADF)) };
        let bytes = |world: &Self, address: u64, count: u64| world.spaces[space].read(address, count);
        let result = match number {
            libc::SYS_bind => {
                let address = bytes(self, second, third);
                self.bind(file, address)
            }
            libc::SYS_listen => self.listen(file, second),
            libc::SYS_connect => {
                let address = bytes(self, second, third);
                self.connect(file, address)
            }
            libc::SYS_accept4 => return Some(self.accept(task, file)),
            libc::SYS_getsockname => match &self.files[file].what {
                What::Net(net) => {
                    let address = net.address.clone();
                    self.spaces[space].write(second, &address);
                    0
                }
                _ => EINVAL,
            },
            libc::SYS_setsockopt => {
                let value = bytes(self, fourth, fifth);
                self.set_option(file, second, third, value)
            }
            libc::SYS_shutdown => match &mut self.files[file].what {
                What::Unix(Unix { shutdown, .. }) | What::Net(Net { shutdown, .. }) => {
                    *shutdown = Some(second);
                    0
                }
                _ => EINVAL,
            },
            libc::SYS_sendto => {
                let content = bytes(self, second, third);
                let to = (sixth > 0).then(|| bytes(self, fifth, sixth));
                self.send_to(file, content, to)
            }
            _ => self.send_message(task, file, second),
        };
        Some(Outcome::Result(result))
    }

    fn socket(&mut self, task: usize, family: u64, kind: u64, protocol: u64) -> i64 {
        let what = match family as i32 {
            libc::AF_UNIX => What::Unix(Unix { kind, ..Unix::default() }),
            libc::AF_NETLINK => What::Netlink { kind, protocol, address: Vec::new() },
            _ => What::Net(Net { family, kind, protocol, ..Net::default() }),
        };
        self.fresh(task, what, libc::O_RDWR as u64)
    }

    fn bind(&mut self, file: usize, address: Vec<u8>) -> i64 {
        let reuses = |net: &Net| {
            let last = net.options.iter().rev().find(|(_, name, _)| *name == libc::SO_REUSEADDR as u64);
            last.is_some_and(|(_, _, value)| value[0] != 0)
        };
        let taken = |world: &Self, at: usize| match (&world.files[at].what, &world.files[file].what) {
            (What::Unix(unix), What::Unix(_)) => unix.name == address[2..],
            (What::Net(net), What::Net(own)) => {
                let conflict = !reuses(net) || !reuses(own) || net.backlog > 0;
                net.address == address && net.kind == own.kind && conflict
            }
            _ => false,
        };
        if (0..self.files.len()).any(|at| at != file && taken(self, at) && self.is_open(at)) {
            return EADDRINUSE;
        }
        match &mut self.files[file].what {
            What::Unix(unix) => unix.name = address[2..].to_vec(),
            What::Net(net) => net.address = address,
            What::Netlink { address: bound, .. } => *bound = address,
            other => panic!("{other:?} is bound"),
        }
        0
    }

    fn listen(&mut self, file: usize, backlog: u64) -> i64 {
        let port = self.next_port;
        match &mut self.files[file].what {
            What::Unix(unix) => unix.backlog = backlog,
            What::Net(net) => {
                net.backlog = backlog;
                if net.address.is_empty() {
                    net.address = vec![0; 16];
                    net.address[0] = libc::AF_INET as u8;
                    net.address[2..4].copy_from_slice(&port.to_be_bytes());
                    self.next_port += 1;
                }
            }
            _ => return EINVAL,
        }
        0
    }

    fn connect(&mut self, file: usize, address: Vec<u8>) -> i64 {
        if let What::Unix(_) = &self.files[file].what {
            let named = |what: &What| matches!(what, What::Unix(unix) if unix.name == address[2..]);
            let Some(to) = (0..self.files.len()).find(|&at| named(&self.files[at].what) && self.is_open(at))
            else {
                return ECONNREFUSED;
            };
            let What::Unix(unix) = &mut self.files[file].what else { unreachable!() };
            (unix.peer, unix.connected) = (Some(to), true);
            return 0;
        }
        let What::Net(net) = &self.files[file].what else { return EINVAL };
        if net.kind != STREAM {
            let What::Net(net) = &mut self.files[file].what else { unreachable!() };
            net.peer = Some(address);
            return 0;
        }
        let listens =
            |what: &What| matches!(what, What::Net(net) if net.backlog > 0 && serves(&net.address, &address));
        let listener = (0..self.files.len()).find(|&at| listens(&self.files[at].what) && self.is_open(at));
        let from = net.address.clone();
        let Some(listener) = listener else {
            if port(&address) != PLATFORM_PORT {
                return ECONNREFUSED;
            }
            let What::Net(net) = &mut self.files[file].what else { unreachable!() };
            net.platform = Some(PLATFORM_PORT);
            return 0;
        };
        let What::Net(server) = self.files[listener].what.clone() else { unreachable!() };
        let end = Net {
            address: address.clone(),
            peer: Some(from),
            other: Some(file),
            backlog: 0,
            waiting: Vec::new(),
            ..server
        };
        self.files.push(crate::files::Description::new(What::Net(end), libc::O_RDWR as u64));
        let end = self.files.len() - 1;
        let What::Net(server) = &mut self.files[listener].what else { unreachable!() };
        server.waiting.push(end);
        let What::Net(net) = &mut self.files[file].what else { unreachable!() };
        (net.peer, net.other) = (Some(address), Some(end));
        0
    }

    fn accept(&mut self, task: usize, file: usize) -> Outcome {
        let What::Net(net) = &mut self.files[file].what else { return Outcome::Result(EINVAL) };
        if net.waiting.is_empty() {
            return Outcome::Blocked;
        }
        let end = net.waiting.remove(0);
        Outcome::Result(self.allocate(task, end))
    }

    fn set_option(&mut self, file: usize, level: u64, name: u64, value: Vec<u8>) -> i64 {
        match &mut self.files[file].what {
            What::Unix(Unix { options, .. }) | What::Net(Net { options, .. }) => {
                options.retain(|(known_level, known, _)| (*known_level, *known) != (level, name));
                options.push((level, name, value));
                0
            }
            _ => EINVAL,
        }
    }

    fn send_to(&mut self, file: usize, content: Vec<u8>, to: Option<Vec<u8>>) -> i64 {
        let count = content.len() as i64;
        let What::Net(net) = self.files[file].what.clone() else { return EINVAL };
        if let Some(other) = net.other.filter(|_| to.is_none()) {
            if !self.is_open(other) {
                return EPIPE;
            }
            let What::Net(other) = &mut self.files[other].what else { unreachable!() };
            other.queue.push((Vec::new(), content));
            return count;
        }
        let Some(to) = to.or(net.peer) else { return EINVAL };
        let gets = |what: &What| match what {
            What::Net(other) => {
                other.kind == net.kind
                    && serves(&other.address, &to)
                    && other.peer.as_ref().is_none_or(|peer| *peer == net.address)
            }
            _ => false,
        };
        let Some(at) = (0..self.files.len()).find(|&at| gets(&self.files[at].what) && self.is_open(at))
        else {
            return ECONNREFUSED;
        };
        let What::Net(other) = &mut self.files[at].what else { unreachable!() };
        other.queue.push((net.address, content));
        count
    }

    fn send_message(&mut self, task: usize, file: usize, header: u64) -> i64 {
        let space = &self.spaces[self.processes[self.tasks[task].process].space];
        let words = space.words(header, 7);
        let vector = space.words(words[2], 2);
        let content = space.read(vector[0], vector[1]);
        let name = (words[1] > 0).then(|| space.read(words[0], words[1]));
        let mut files = Vec::new();
        if words[5] > 0 {
            let control = space.read(words[4], words[5]);
            assert_eq!(u64::from_ne_bytes(control[..8].try_into().unwrap()), words[5]);
            for number in control[16..].chunks_exact(4) {
                let number = i32::from_ne_bytes(number.try_into().unwrap());
                match self.file(task, number as u64) {
                    Some(file) => files.push(file),
                    None => return EBADF,
                }
            }
        }
        let What::Unix(unix) = &self.files[file].what else { return EINVAL };
        let to = match name {
            Some(name) => {
                let named = |what: &What| matches!(what, What::Unix(unix) if unix.name == name[2..]);
                (0..self.files.len()).find(|&at| named(&self.files[at].what) && self.is_open(at))
            }
            None => unix.peer,
        };
        let Some(to) = to.filter(|&to| self.is_open(to)) else { return EPIPE };
        let What::Unix(to) = &mut self.files[to].what else { unreachable!() };
        let count = content.len() as i64;
        to.queue.push((content, files));
        count
    }
}
