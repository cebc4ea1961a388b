//! Netlink sockets: bound or not, with nothing on the way.

use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt;

use super::{Files, REOPEN};
use crate::checkpoint::{CheckpointError, Doing};
use crate::image::{Kind, Netlink};

const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
const GROUPS_MAX: usize = 32;

impl Files<'_> {
    pub(super) fn netlink(&mut self, index: usize, copy: &OwnedFd) -> Result<Kind, CheckpointError> {
        let pid = self.entries[index].held.pid;
        if linux::socket::peek(copy, 1).doing("look at a netlink socket", pid)?.is_some() {
            return Err(self.refused(index, "a netlink socket with unread messages", REOPEN));
        }
        let memberships = linux::socket::option(copy, libc::SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS);
        let beyond = memberships.unwrap_or_default().into_iter().skip(GROUPS_MAX / 8);
        if beyond.into_iter().any(|byte| byte != 0) {
            return Err(self.refused(index, "a netlink socket in a group beyond the first 32", REOPEN));
        }
        let address = rustix::net::getsockname(copy).doing("look at a netlink socket", pid)?;
        let address = SocketAddrNetlink::try_from(address).doing("look at a netlink socket", pid)?;
        let socket_type = sockopt::socket_type(copy).doing("look at a netlink socket", pid)?;
        let protocol = sockopt::socket_protocol(copy).doing("look at a netlink socket", pid)?;
        Ok(Kind::Netlink(Netlink {
            socket_type: socket_type.as_raw() as i32,
            protocol: protocol.map_or(0, |protocol| protocol.as_raw().get() as i32),
            bound: address.pid() != 0,
            port: address.pid(),
            groups: address.groups(),
        }))
    }
}
