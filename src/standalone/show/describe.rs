//! Open files, addresses and waits in a few words.

use std::net::{Ipv4Addr, Ipv6Addr};

use engine::image::{External, Image, Kind, OpenFile, Socket, Thread};

/// `ORIG_RAX` and `RAX` in `struct user_regs_struct`.
const CALL: usize = 15;
const RESULT: usize = 10;

/// The system calls in which threads usually wait.
const WAITS: &[(u64, &str)] = &[
    (0, "read"),
    (1, "write"),
    (7, "poll"),
    (23, "select"),
    (34, "pause"),
    (35, "nanosleep"),
    (42, "connect"),
    (43, "accept"),
    (45, "recvfrom"),
    (47, "recvmsg"),
    (61, "wait4"),
    (128, "rt_sigtimedwait"),
    (130, "rt_sigsuspend"),
    (202, "futex"),
    (219, "restart_syscall"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (247, "waitid"),
    (257, "openat"),
    (270, "pselect6"),
    (271, "ppoll"),
    (281, "epoll_pwait"),
    (288, "accept4"),
    (441, "epoll_pwait2"),
];

/// What a thread waits in: a system call that it will make again, or nothing, when it was computing.
pub fn wait(thread: &Thread) -> Option<String> {
    let register = |index: usize| thread.registers.get(index).copied();
    let number = [CALL, RESULT].into_iter().filter_map(register).find(|&number| number < 0x400)?;
    let known = WAITS.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    match (known, register(CALL)) {
        (Some(name), _) => Some(name),
        (None, Some(call)) if call == number => Some(format!("system call {number}")),
        _ => None,
    }
}

/// What an open file is.
pub fn open_file(image: &Image, file: &OpenFile) -> String {
    let Some(kind) = &file.kind else { return "nothing".to_owned() };
    match kind {
        Kind::Path(path) => match &path.fifo {
            Some(content) => format!("FIFO {}, {} bytes wait", path.path, content.len()),
            None if path.offset > 0 => format!("file {}, at byte {}", path.path, path.offset),
            None => format!("file {}", path.path),
        },
        Kind::External(stream) => external(*stream).to_owned(),
        Kind::Inode(inode) => format!("file without a name #{}, at byte {}", inode.inode, inode.offset),
        Kind::EventFd(event) => format!("eventfd, counter {}", event.count),
        Kind::Epoll(epoll) => {
            let members: Vec<String> = epoll.members.iter().map(|member| member.number.to_string()).collect();
            format!("epoll set of descriptors [{}]", members.join(" "))
        }
        Kind::Connection(connection) => format!("connection to 127.0.0.1:{}", connection.port),
        Kind::Pipe(pipe) => {
            let waiting: usize = pipe.content.iter().map(Vec::len).sum();
            let end = if pipe.read { "read" } else { "write" };
            format!("{end} end of pipe {}, {waiting} bytes wait", pipe.id)
        }
        Kind::Unix(unix) => unix_socket(unix),
        Kind::Closed(closed) => format!("connection to {}: comes back closed", closed.peer),
        Kind::TimerFd(timer) if timer.value_ns == 0 => "timerfd, disarmed".to_owned(),
        Kind::TimerFd(timer) => format!("timerfd, {} ms left", timer.value_ns / 1_000_000),
        Kind::Socket(socket) => inet_socket(socket),
        Kind::Loopback(loopback) => {
            format!("{}, connected to {}", inet_socket(&loopback.socket), address(&loopback.peer))
        }
        Kind::SignalFd(mask) => format!("signalfd, signals {mask:#x}"),
        Kind::Inotify(inotify) => {
            let paths: Vec<&str> = inotify.watches.iter().map(|watch| watch.path.as_str()).collect();
            format!("inotify, watches [{}]", paths.join(" "))
        }
        Kind::PidFd(pid) => match image.processes.iter().find(|process| process.pid == *pid) {
            Some(process) => format!("pidfd of process {pid} ({})", name(process)),
            None => format!("pidfd of process {pid}"),
        },
        Kind::Netlink(netlink) => format!("netlink socket, protocol {}", netlink.protocol),
        Kind::Terminal(terminal) => {
            let side = if terminal.master { "master" } else { "slave" };
            format!("{side} of pseudoterminal {}", terminal.id)
        }
    }
}

/// The name of a process: that of its main thread.
pub fn name(process: &engine::image::Process) -> &str {
    process.threads.first().map_or("ended", |thread| thread.name.as_str())
}

fn external(stream: i32) -> &'static str {
    match External::try_from(stream) {
        Ok(External::Stdin) => "standard input of whoever restores",
        Ok(External::Stdout) => "standard output of whoever restores",
        Ok(External::Stderr) => "standard error of whoever restores",
        Ok(External::Pending) | Err(_) => "connection to the platform",
    }
}

fn unix_socket(unix: &engine::image::Unix) -> String {
    let name = String::from_utf8_lossy(&unix.name).replace('\0', "@");
    let named = if name.is_empty() { String::new() } else { format!(" {name}") };
    let waiting = match unix.queue.len() {
        0 => String::new(),
        count => format!(", {count} messages wait"),
    };
    match (unix.backlog, unix.peer) {
        (0, 0) => format!("Unix socket {}{named}{waiting}", unix.id),
        (0, peer) => format!("Unix socket {}{named}, connected to {peer}{waiting}", unix.id),
        _ => format!("Unix socket {} listens on{named}", unix.id),
    }
}

fn inet_socket(socket: &Socket) -> String {
    let kind = if socket.socket_type == 1 { "TCP" } else { "UDP" };
    match (socket.backlog, socket.address.is_empty()) {
        (0, true) => format!("{kind} socket"),
        (0, false) => format!("{kind} socket at {}", address(&socket.address)),
        _ => format!("{kind} socket listens on {}", address(&socket.address)),
    }
}

/// A `struct sockaddr` of IPv4 or IPv6.
fn address(bytes: &[u8]) -> String {
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[2], bytes[3]]);
    match (bytes.first(), bytes.len()) {
        (Some(2), 8..) => {
            format!("{}:{}", Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]), port(bytes))
        }
        (Some(10), 24..) => {
            let octets: [u8; 16] = bytes[8..24].try_into().unwrap_or_default();
            format!("[{}]:{}", Ipv6Addr::from(octets), port(bytes))
        }
        _ => "an address of another family".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_lie_in_the_kernel() {
        assert_eq!(address(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), "127.0.0.1:8080");
        let mut six = vec![10, 0, 0, 80, 0, 0, 0, 0];
        six.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
        assert_eq!(address(&six), "[::1]:80");
        assert_eq!(address(&[1]), "an address of another family");
    }

    #[test]
    fn a_thread_that_computes_waits_in_nothing() {
        let mut registers = vec![0; 27];
        registers[CALL] = u64::MAX;
        registers[RESULT] = u64::MAX - 3;
        assert_eq!(wait(&Thread { registers: registers.clone(), ..Thread::default() }), None);
        registers[CALL] = 202;
        assert_eq!(wait(&Thread { registers, ..Thread::default() }).as_deref(), Some("futex"));
    }
}
