//! Sockets: made by the go-between with what waited in them.
//!
//! Single sockets are made first, then both ends of every connection between processes of the image, which may need a
//! listener among them, and when all stand their queues are filled from the other end.

use super::Place;
use super::maker::Maker;
use crate::image::{Connection, Kind, Loopback, Netlink, OpenFile, Socket, SocketOption, Unix};
use crate::ops::Code;
use crate::plan::Privilege;
use crate::plan::list::{Arg, MINUS_ONE};

/// Bytes of a `struct sockaddr_in` and of a `struct sockaddr_in6`.
const ADDRESS_BYTES: u64 = 16;
const ADDRESS6_BYTES: u64 = 28;
const AF_UNIX: u64 = libc::AF_UNIX as u64;
/// Where the port stands in either.
const PORT: u64 = 2;

/// Makes the socket of an open file.
pub fn make(maker: &mut Maker<'_, '_>, index: usize) {
    let image = maker.context.image;
    let file = &image.open_files[index];
    match &file.kind {
        Some(Kind::Unix(unix)) => as_user(maker, |maker| self::unix(maker, index, file, unix)),
        Some(Kind::Connection(connection)) => {
            let number = platform(maker, connection);
            maker.set_status(number.into(), file);
            maker.put(index, number);
        }
        Some(Kind::Closed(closed)) => {
            let number = if closed.socket_type == libc::SOCK_STREAM {
                reset(maker, closed.family)
            } else {
                socket(maker, closed.family, closed.socket_type, 0)
            };
            maker.set_status(number.into(), file);
            maker.put(index, number);
        }
        Some(Kind::Socket(saved)) => {
            let number = bound(maker, saved);
            if saved.backlog > 0 {
                let args = [number.into(), u64::from(saved.backlog).into()];
                maker.list.exactly(libc::SYS_listen, &args, 0);
            }
            maker.set_status(number.into(), file);
            maker.put(index, number);
        }
        Some(Kind::Netlink(netlink)) => {
            let number = self::netlink(maker, netlink);
            maker.set_status(number.into(), file);
            maker.put(index, number);
        }
        _ => {}
    }
}

/// Writes calls that are made as the user of the first process: a Unix socket tells its peer who made it, and leaves the
/// file that it is bound to behind. The saved IDs stay, and with them the way back.
fn as_user(maker: &mut Maker<'_, '_>, write: impl FnOnce(&mut Maker<'_, '_>)) {
    let credentials = &maker.context.image.root().credentials;
    let (user, group) = (effective(&credentials.users), effective(&credentials.groups));
    let changes = maker.context.host.privilege != Privilege::DropKeepUser && user != 0;
    let become_user = |maker: &mut Maker<'_, '_>, call: i64, id: u32| {
        let (keep, id) = (Arg::Value(MINUS_ONE), u64::from(id).into());
        maker.list.exactly(call, &[keep, id, keep], 0);
    };
    if changes {
        become_user(maker, libc::SYS_setresgid, group);
        become_user(maker, libc::SYS_setresuid, user);
    }
    write(maker);
    if changes {
        become_user(maker, libc::SYS_setresuid, 0);
        become_user(maker, libc::SYS_setresgid, 0);
    }
}

/// The effective ID of a list of real, effective, saved and file system ID.
fn effective(ids: &[u32]) -> u32 {
    ids.get(1).copied().unwrap_or(0)
}

fn socket(maker: &mut Maker<'_, '_>, family: i32, socket_type: i32, protocol: i32) -> u64 {
    let args = [(family as u64).into(), (socket_type as u64).into(), (protocol as u64).into()];
    maker.one(libc::SYS_socket, &args)
}

fn option(maker: &mut Maker<'_, '_>, number: u64, option: &SocketOption) {
    let value = maker.list.data(&option.value, 8);
    let (level, name) = (option.level as u64, option.option as u64);
    let args = [number.into(), level.into(), name.into(), value.into(), (option.value.len() as u64).into()];
    maker.list.exactly(libc::SYS_setsockopt, &args, 0);
}

fn flag(maker: &mut Maker<'_, '_>, number: u64, name: i32, on: bool) {
    let value = i32::from(on).to_ne_bytes().to_vec();
    option(maker, number, &SocketOption { level: libc::SOL_SOCKET, option: name, value });
}

/// A TCP or UDP socket with its options and its address.
fn bound(maker: &mut Maker<'_, '_>, saved: &Socket) -> u64 {
    let number = socket(maker, saved.family, saved.socket_type, saved.protocol);
    for saved_option in &saved.options {
        option(maker, number, saved_option);
    }
    if !saved.address.is_empty() {
        let reuses = reuses(saved);
        if !reuses {
            // A connection of an earlier life may still occupy the address.
            flag(maker, number, libc::SO_REUSEADDR, true);
        }
        bind(maker, number, &saved.address);
        if !reuses {
            flag(maker, number, libc::SO_REUSEADDR, false);
        }
    }
    number
}

fn bind(maker: &mut Maker<'_, '_>, number: u64, address: &[u8]) {
    let (place, bytes) = (maker.list.data(address, 8), address.len() as u64);
    maker.list.exactly(libc::SYS_bind, &[number.into(), place.into(), bytes.into()], 0);
}

/// Connects to the sandbox's own platform address.
fn platform(maker: &mut Maker<'_, '_>, connection: &Connection) -> u64 {
    let number = socket(maker, libc::AF_INET, libc::SOCK_STREAM, 0);
    let mut address = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(&(connection.port as u16).to_be_bytes());
    address.extend_from_slice(&[127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let place = maker.list.data(&address, 8);
    maker.list.exactly(libc::SYS_connect, &[number.into(), place.into(), ADDRESS_BYTES.into()], 0);
    // Every HTTP client sets it; without it an answer in two pieces takes 40 ms longer.
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
    option(maker, number, &SocketOption { level, option: name, value: 1_i32.to_ne_bytes().to_vec() });
    number
}

/// A connection whose other end has reset it: the next call on it gives `ECONNRESET`, as the user's guide warns.
fn reset(maker: &mut Maker<'_, '_>, family: i32) -> u64 {
    let listener = socket(maker, libc::AF_INET, libc::SOCK_STREAM, 0);
    let number = socket(maker, family, libc::SOCK_STREAM, 0);
    maker.list.exactly(libc::SYS_listen, &[listener.into(), 1.into()], 0);
    let address = maker.list.data(&[0; ADDRESS_BYTES as usize], 8);
    let bytes = maker.list.words(&[ADDRESS_BYTES]);
    maker.list.exactly(libc::SYS_getsockname, &[listener.into(), address.into(), bytes.into()], 0);
    let (place, length) = if family == libc::AF_INET6 {
        // The same port as an address of the other family: ::ffff:127.0.0.1.
        let mut mapped = vec![0; ADDRESS6_BYTES as usize];
        mapped[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        mapped[18..24].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        let place = maker.list.data(&mapped, 8);
        maker.list.step(Code::Copy, &[(place + PORT).into(), (address + PORT).into(), 2.into()]);
        (place, ADDRESS6_BYTES)
    } else {
        (address, ADDRESS_BYTES)
    };
    maker.list.exactly(libc::SYS_connect, &[number.into(), place.into(), length.into()], 0);
    let accepted = maker.one(libc::SYS_accept4, &[listener.into(), 0.into(), 0.into(), 0.into()]);
    // `struct linger`: on, zero seconds: the close resets.
    let at_once = SocketOption {
        level: libc::SOL_SOCKET,
        option: libc::SO_LINGER,
        value: [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat(),
    };
    option(maker, accepted, &at_once);
    maker.close(accepted);
    maker.close(listener);
    number
}

fn netlink(maker: &mut Maker<'_, '_>, netlink: &Netlink) -> u64 {
    let number = socket(maker, libc::AF_NETLINK, netlink.socket_type, netlink.protocol);
    if netlink.bound {
        let mut address = u32::from(libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
        address.extend_from_slice(&netlink.port.to_ne_bytes());
        address.extend_from_slice(&netlink.groups.to_ne_bytes());
        bind(maker, number, &address);
    }
    number
}

/// A Unix socket; a connected one with its other end, which is closed again later if nobody has it.
fn unix(maker: &mut Maker<'_, '_>, index: usize, file: &OpenFile, unix: &Unix) {
    let image = maker.context.image;
    let partner = image.open_files.iter().enumerate().find_map(|(at, other)| match &other.kind {
        Some(Kind::Unix(found)) if unix.peer != 0 && found.id == unix.peer && at != index => {
            Some((at, other, found))
        }
        _ => None,
    });
    // Connected to a socket that is not connected back: such a one is found by its name later.
    let one_way = partner.is_some_and(|(_, _, found)| found.peer != unix.id);
    if unix.peer == 0 || one_way {
        let number = socket(maker, libc::AF_UNIX, unix.socket_type, 0);
        name(maker, number, unix);
        if unix.backlog > 0 {
            let args = [number.into(), u64::from(unix.backlog).into()];
            maker.list.exactly(libc::SYS_listen, &args, 0);
        }
        maker.set_status(number.into(), file);
        maker.put(index, number);
        return;
    }
    let numbers = maker.list.words(&[0]);
    let args = [AF_UNIX.into(), (unix.socket_type as u64).into(), 0.into(), numbers.into()];
    maker.list.exactly(libc::SYS_socketpair, &args, 0);
    let (near, far) = (maker.numbers.take(), maker.numbers.take());
    name(maker, near, unix);
    maker.set_status(near.into(), file);
    maker.put(index, near);
    match partner {
        Some((at, other, found)) => {
            name(maker, far, found);
            maker.set_status(far.into(), other);
            maker.put(at, far);
        }
        // What it had sent before it was closed is still to be read.
        None => maker.closing.push((index, far)),
    }
}

/// Options, and the name unless that is the listener's.
fn name(maker: &mut Maker<'_, '_>, number: u64, unix: &Unix) {
    for saved in &unix.options {
        option(maker, number, saved);
    }
    if !unix.name.is_empty() && !unix.accepted {
        bind(maker, number, &address_of(&unix.name));
        if unix.name[0] != 0 {
            let path = maker.list.data(&[unix.name.as_slice(), &[0]].concat(), 1);
            let owner = [path.into(), u64::from(unix.uid).into(), u64::from(unix.gid).into()];
            maker.list.attempt(libc::SYS_lchown, &owner);
            maker.list.attempt(libc::SYS_chmod, &[path.into(), u64::from(unix.mode & 0o777).into()]);
        }
    }
}

/// `struct sockaddr_un`.
fn address_of(name: &[u8]) -> Vec<u8> {
    let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(name);
    address
}

/// Makes both ends of every connection over the loopback interface, and connects what is connected one way.
pub fn connect(maker: &mut Maker<'_, '_>) {
    let image = maker.context.image;
    let mut reusing = Vec::new();
    for (index, file) in image.open_files.iter().enumerate() {
        let Some(Kind::Loopback(near)) = &file.kind else { continue };
        if near.socket.socket_type != libc::SOCK_STREAM {
            let number = bound(maker, &near.socket);
            maker.set_status(number.into(), file);
            maker.put(index, number);
        } else if maker.places[index] == Place::Late {
            connection(maker, index, file, near, &mut reusing);
        }
    }
    for number in reusing {
        flag(maker, number, libc::SO_REUSEADDR, false);
    }
    // Connected when all are bound: a datagram socket needs nobody's consent.
    for (index, file) in image.open_files.iter().enumerate() {
        let Place::At(number) = maker.places[index] else { continue };
        let address = match &file.kind {
            Some(Kind::Loopback(near)) if near.socket.socket_type != libc::SOCK_STREAM => near.peer.clone(),
            Some(Kind::Unix(near)) => match one_way(image, near) {
                Some(far) => address_of(&far.name),
                None => continue,
            },
            _ => continue,
        };
        let (place, bytes) = (maker.list.data(&address, 8), address.len() as u64);
        maker.list.exactly(libc::SYS_connect, &[number.into(), place.into(), bytes.into()], 0);
    }
}

/// The socket that this one is connected to without being connected back.
fn one_way<'a>(image: &'a crate::image::Image, near: &Unix) -> Option<&'a Unix> {
    image.open_files.iter().find_map(|file| match &file.kind {
        Some(Kind::Unix(far)) if near.peer != 0 && far.id == near.peer && far.peer != near.id => Some(far),
        _ => None,
    })
}

/// A TCP connection within the image, or one whose other end was closed by its owner: then what that end had sent is
/// still to be read.
fn connection(
    maker: &mut Maker<'_, '_>,
    index: usize,
    file: &OpenFile,
    near: &Loopback,
    reusing: &mut Vec<u64>,
) {
    let image = maker.context.image;
    let other = image.open_files.iter().enumerate().find_map(|(at, other)| match &other.kind {
        Some(Kind::Loopback(far))
            if at != index
                && same(&far.socket.address, &near.peer)
                && same(&far.peer, &near.socket.address) =>
        {
            Some((at, other, far.clone()))
        }
        _ => None,
    });
    let far = other.as_ref().map_or_else(
        || Loopback {
            socket: Socket {
                address: near.peer.clone(),
                options: Vec::new(),
                queue: Vec::new(),
                ..near.socket.clone()
            },
            peer: near.socket.address.clone(),
            ..Loopback::default()
        },
        |(_, _, far)| far.clone(),
    );
    let (near_number, far_number) = if near.accepted {
        stream(maker, near, &far, reusing)
    } else {
        let (far_number, near_number) = stream(maker, &far, near, reusing);
        (near_number, far_number)
    };
    maker.set_status(near_number.into(), file);
    maker.put(index, near_number);
    match other {
        Some((at, other, _)) => {
            maker.set_status(far_number.into(), other);
            maker.put(at, far_number);
        }
        None => {
            send_stream(maker, far_number, &near.queue);
            reusing.retain(|number| *number != far_number);
            maker.close(far_number);
        }
    }
}

fn send_stream(maker: &mut Maker<'_, '_>, from: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        let (place, count) = (maker.list.data(bytes, 1), bytes.len() as u64);
        let args = [from.into(), place.into(), count.into(), 0.into(), 0.into(), 0.into()];
        maker.list.exactly(libc::SYS_sendto, &args, count);
    }
}

/// A TCP connection: the server's end and the client's. Sockets that share an address with a later one are left
/// `reusing` it for a while.
fn stream(
    maker: &mut Maker<'_, '_>,
    server: &Loopback,
    client: &Loopback,
    reusing: &mut Vec<u64>,
) -> (u64, u64) {
    let image = maker.context.image;
    let standing =
        image.open_files.iter().zip(&maker.places).find_map(|(file, place)| match (&file.kind, place) {
            (Some(Kind::Socket(socket)), Place::At(number))
                if socket.backlog > 0 && serves(&socket.address, &server.socket.address) =>
            {
                Some(*number)
            }
            _ => None,
        });
    let client_number = bound(maker, &client.socket);
    let listener = standing.unwrap_or_else(|| {
        let number = socket(maker, server.socket.family, server.socket.socket_type, server.socket.protocol);
        flag(maker, number, libc::SO_REUSEADDR, true);
        bind(maker, number, &server.socket.address);
        maker.list.exactly(libc::SYS_listen, &[number.into(), 1.into()], 0);
        number
    });
    // As the client has it: the two ends may be of different address families.
    let (place, bytes) = (maker.list.data(&client.peer, 8), client.peer.len() as u64);
    maker.list.exactly(libc::SYS_connect, &[client_number.into(), place.into(), bytes.into()], 0);
    let accepted = maker.one(libc::SYS_accept4, &[listener.into(), 0.into(), 0.into(), 0.into()]);
    for saved in &server.socket.options {
        option(maker, accepted, saved);
    }
    if standing.is_none() {
        maker.close(listener);
        if !reuses(&server.socket) {
            reusing.push(accepted);
        }
    }
    (accepted, client_number)
}

fn reuses(socket: &Socket) -> bool {
    let reuse =
        |option: &SocketOption| option.level == libc::SOL_SOCKET && option.option == libc::SO_REUSEADDR;
    socket.options.iter().any(reuse)
}

/// Whether two addresses are one, be it in the forms of both families.
fn same(one: &[u8], other: &[u8]) -> bool {
    plain(one) == plain(other)
}

/// An address of version 4 in its own form; others as they are.
fn plain(address: &[u8]) -> Vec<u8> {
    if address.len() == ADDRESS6_BYTES as usize && address[8..20] == MAPPED {
        let mut plain = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        plain.extend_from_slice(&address[2..4]);
        plain.extend_from_slice(&address[20..24]);
        plain.extend_from_slice(&[0; 8]);
        return plain;
    }
    address.to_vec()
}

/// `::ffff:0:0/96`.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Whether a listener bound to one address gets the connections to another.
fn serves(listener: &[u8], address: &[u8]) -> bool {
    let any = |address: &[u8]| match address.len() {
        16 => address[4..8] == [0; 4],
        28 => address[8..24] == [0; 16],
        _ => false,
    };
    listener == address
        || (listener.get(..4) == address.get(..4) && any(listener))
        || (listener.len() == 28 && any(listener) && listener.get(2..4) == address.get(2..4))
}

/// Fills the queues of all sockets, and shuts down what was shut down.
pub fn fill(maker: &mut Maker<'_, '_>) {
    let image = maker.context.image;
    for (index, file) in image.open_files.iter().enumerate() {
        match &file.kind {
            Some(Kind::Unix(unix)) => fill_unix(maker, index, unix),
            Some(Kind::Socket(socket)) => fill_datagrams(maker, socket),
            Some(Kind::Loopback(near)) if near.socket.socket_type == libc::SOCK_STREAM => {
                let far = image.open_files.iter().position(|other| {
                    matches!(&other.kind, Some(Kind::Loopback(far)) if same(&far.socket.address, &near.peer)
                        && same(&far.peer, &near.socket.address))
                });
                if let Some(Place::At(far)) = far.map(|far| maker.places[far]) {
                    send_stream(maker, far, &near.queue);
                }
            }
            Some(Kind::Loopback(near)) => fill_datagrams(maker, &near.socket),
            _ => {}
        }
    }
    for (_, number) in std::mem::take(&mut maker.closing) {
        maker.close(number);
    }
    for (index, file) in image.open_files.iter().enumerate() {
        let (Some(Kind::Unix(Unix { shutdown, .. })) | Some(Kind::Loopback(Loopback { shutdown, .. }))) =
            &file.kind
        else {
            continue;
        };
        let how = match shutdown & 3 {
            1 => libc::SHUT_RD,
            2 => libc::SHUT_WR,
            3 => libc::SHUT_RDWR,
            _ => continue,
        };
        if let Place::At(number) = maker.places[index] {
            // The other end may have gone, which shuts down by itself.
            maker.list.attempt(libc::SYS_shutdown, &[number.into(), (how as u64).into()]);
        }
    }
}

fn fill_unix(maker: &mut Maker<'_, '_>, index: usize, unix: &Unix) {
    let image = maker.context.image;
    if unix.queue.is_empty() {
        return;
    }
    let gone = maker.closing.iter().find(|(at, _)| *at == index).map(|(_, number)| *number);
    let partner = image.open_files.iter().position(|other| {
        matches!(&other.kind, Some(Kind::Unix(far)) if unix.peer != 0 && far.id == unix.peer && far.peer == unix.id)
    });
    let far = partner.and_then(|far| match maker.places[far] {
        Place::At(number) => Some(number),
        Place::Received(_) | Place::Late => None,
    });
    if let Some(far) = gone.or(far) {
        for message in &unix.queue {
            send(maker, far, message, None);
        }
    } else if !unix.name.is_empty() {
        let address = address_of(&unix.name);
        for message in &unix.queue {
            send_from(maker, unix, message, &address);
        }
    }
}

/// Sends a datagram from the socket that has its sender's name, or else from a passing one with that name.
fn send_from(maker: &mut Maker<'_, '_>, to: &Unix, message: &crate::image::UnixMessage, address: &[u8]) {
    let image = maker.context.image;
    let own =
        image.open_files.iter().zip(&maker.places).find_map(|(file, place)| match (&file.kind, place) {
            (Some(Kind::Unix(unix)), Place::At(number))
                if !unix.name.is_empty() && unix.name == message.sender =>
            {
                Some(*number)
            }
            _ => None,
        });
    if let Some(own) = own {
        return send(maker, own, message, Some(address));
    }
    let sender = socket(maker, libc::AF_UNIX, to.socket_type, 0);
    if !message.sender.is_empty() {
        let (name, bytes) =
            (maker.list.data(&address_of(&message.sender), 8), 2 + message.sender.len() as u64);
        maker.list.attempt(libc::SYS_bind, &[sender.into(), name.into(), bytes.into()]);
        if message.sender[0] != 0 {
            let path = maker.list.data(&[message.sender.as_slice(), &[0]].concat(), 1);
            maker.list.attempt(libc::SYS_unlink, &[path.into()]);
        }
    }
    send(maker, sender, message, Some(address));
    maker.close(sender);
}

fn fill_datagrams(maker: &mut Maker<'_, '_>, socket: &Socket) {
    for datagram in &socket.queue {
        datagram_from(maker, socket, &datagram.sender, &datagram.bytes);
    }
}

/// Sends one message with the open files that it carries.
fn send(maker: &mut Maker<'_, '_>, from: u64, message: &crate::image::UnixMessage, to: Option<&[u8]>) {
    let bytes = message.bytes.len() as u64;
    let base = maker.list.data(&message.bytes, 8);
    let vector = maker.list.words(&[base, bytes]);
    let numbers: Vec<u8> = message
        .files
        .iter()
        .filter_map(|&file| match maker.places[file as usize] {
            Place::At(number) => Some(number),
            // Descriptors that come with a request follow the control socket.
            Place::Received(received) => Some(maker.context.control() + 1 + received as u64),
            Place::Late => None,
        })
        .flat_map(|number| (number as i32).to_ne_bytes())
        .collect();
    let (control, control_bytes) = if numbers.is_empty() {
        (0, 0)
    } else {
        // `struct cmsghdr`: length, level, type; then the numbers.
        let length = 16 + numbers.len() as u64;
        let mut header = length.to_ne_bytes().to_vec();
        header.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        header.extend_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        header.extend_from_slice(&numbers);
        header.resize(header.len().next_multiple_of(8), 0);
        (maker.list.data(&header, 8), length)
    };
    let (name, name_bytes) = to.map_or((0, 0), |to| (maker.list.data(to, 8), to.len() as u64));
    let header = maker.list.words(&[name, name_bytes, vector, 1, control, control_bytes, 0]);
    let args: [Arg; 3] = [from.into(), header.into(), (libc::MSG_DONTWAIT as u64).into()];
    maker.list.exactly(libc::SYS_sendmsg, &args, bytes);
}

/// Sends a datagram to a socket from its sender's own socket, or else from a passing one at its sender's address where
/// that can be had.
fn datagram_from(maker: &mut Maker<'_, '_>, to: &Socket, sender: &[u8], bytes: &[u8]) {
    let image = maker.context.image;
    let own =
        image.open_files.iter().zip(&maker.places).find_map(|(file, place)| match (&file.kind, place) {
            (Some(Kind::Socket(socket) | Kind::Loopback(Loopback { socket, .. })), Place::At(number))
                if same(&socket.address, sender) && socket.socket_type == to.socket_type =>
            {
                Some(*number)
            }
            _ => None,
        });
    let number = own.unwrap_or_else(|| {
        let number = socket(maker, to.family, to.socket_type, to.protocol);
        flag(maker, number, libc::SO_REUSEADDR, true);
        let (place, length) = (maker.list.data(sender, 8), sender.len() as u64);
        maker.list.attempt(libc::SYS_bind, &[number.into(), place.into(), length.into()]);
        number
    });
    let (address, address_bytes) = (maker.list.data(&to.address, 8), to.address.len() as u64);
    let (content, count) = (maker.list.data(bytes, 1), bytes.len() as u64);
    let args = [number.into(), content.into(), count.into(), 0.into(), address.into(), address_bytes.into()];
    maker.list.attempt(libc::SYS_sendto, &args);
    if own.is_none() {
        maker.close(number);
    }
}
