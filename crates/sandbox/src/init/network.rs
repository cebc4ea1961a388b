//! Stage `Network`: loopback, the listening socket of the Runtime API, and connections made ahead.
//!
//! A restored environment has a request pending on a connection. It goes on with a fresh one, made here by connecting
//! to ourselves before anyone else can, so that no clone ever waits for a handshake.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{Context, Step};
use crate::layout::RUNTIME_API_PORT;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// Both ends of an established connection.
pub(super) struct Connection {
    /// The end that was accepted.
    pub server: OwnedFd,
    /// The end that connected.
    pub client: OwnedFd,
}

/// What this stage makes.
pub(super) struct Network {
    /// Listens on the Runtime API's port.
    pub listener: OwnedFd,
    /// A connection to it.
    pub connection: Connection,
    /// Listen on the exposed ports, in their order.
    pub exposed: Vec<OwnedFd>,
}

/// Brings loopback up and makes the listening sockets and one connection.
pub(super) fn make(exposed_ports: &[u16]) -> Step<Network> {
    linux::namespace::bring_loopback_up().context("bring loopback up")?;
    let listener = listen(RUNTIME_API_PORT)?;
    let connection = connect(&listener)?;
    let exposed = exposed_ports.iter().map(|&port| listen(port)).collect::<Step<_>>()?;
    Ok(Network { listener, connection, exposed })
}

/// Makes connections when the Runtime API's listener already belongs to the server, which would accept them first: they
/// come from a listener of their own, so their server's port is another one. No client looks at it.
pub(super) fn more(count: u8) -> Step<Vec<Connection>> {
    let listener = listen(0)?;
    (0..count).map(|_| connect(&listener)).collect()
}

fn listen(port: u16) -> Step<OwnedFd> {
    let socket = socket()?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    rustix::net::bind(&socket, &address).context(format_args!("bind {address}"))?;
    rustix::net::listen(&socket, BACKLOG).context(format_args!("listen on {address}"))?;
    Ok(socket)
}

/// Connects to `listener` and accepts. Nobody else is in this network namespace, or nobody knows the listener, so the
/// next connection in its queue is ours.
fn connect(listener: &OwnedFd) -> Step<Connection> {
    let client = socket()?;
    let address =
        SocketAddr::try_from(rustix::net::getsockname(listener).context("read the listener's address")?)
            .context("read the listener's address")?;
    rustix::net::connect(&client, &address).context(format_args!("connect to {address}"))?;
    let server = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)
        .context(format_args!("accept on {address}"))?;
    for end in [&client, &server] {
        rustix::net::sockopt::set_tcp_nodelay(end, true).context("set TCP_NODELAY")?;
    }
    Ok(Connection { server, client })
}

fn socket() -> Step<OwnedFd> {
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("make a socket")
}
