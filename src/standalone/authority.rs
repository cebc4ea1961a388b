//! By which right clones are made: as root, or in a user namespace of this command's own.
//!
//! Making PID, mount and time namespaces needs `CAP_SYS_ADMIN`. An ordinary user has it inside a user namespace, in
//! which there is one user only and no right over the host's network.

use anyhow::{Context, Result, bail};
use engine::image::Image;
use engine::plan::Privilege;
use linux::namespace::{Namespaces, unshare};
use rustix::thread::CapabilitySet;

use super::restore::Network;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Everything comes back as it was, users and capabilities too.
    Root,
    /// Everything comes back as the caller's user, without capabilities.
    OneUser,
}

impl Authority {
    /// Takes what this process can have. A process that is not root is in a user namespace afterwards.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn take(image: &Image, network: Network) -> Result<Self> {
        if linux::credential::effective_capabilities()?.contains(CapabilitySet::SYS_ADMIN) {
            return Ok(Self::Root);
        }
        if network == Network::Host {
            bail!(
                "restoring into the host's network needs root (CAP_SYS_ADMIN); run it with sudo, or add --network none"
            );
        }
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let foreign =
            image.processes.iter().find(|process| process.credentials.users.iter().any(|id| *id != user));
        if let Some(process) = foreign {
            bail!(
                "process {} belongs to another user ({:?}), which needs root: run it with sudo",
                process.pid,
                process.credentials.users.first().unwrap_or(&0)
            );
        }
        let own = Namespaces::USER
            | Namespaces::MOUNT
            | Namespaces::NETWORK
            | Namespaces::INTER_PROCESS_COMMUNICATION
            | Namespaces::HOST_NAME_AND_NIS_DOMAIN_NAME;
        unshare(own).context(
            "make a user namespace, without which restoring needs root (see kernel.unprivileged_userns_clone, \
             user.max_user_namespaces and AppArmor); run it with sudo",
        )?;
        linux::process::set_readable_by_user(true).context("become readable")?;
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{user} {user} 1")),
            ("gid_map", format!("{group} {group} 1")),
        ] {
            std::fs::write(format!("/proc/self/{file}"), text)
                .with_context(|| format!("write /proc/self/{file}"))?;
        }
        Ok(Self::OneUser)
    }

    /// Who clones act as.
    pub fn privilege(self) -> Privilege {
        match self {
            Self::Root => Privilege::AsSaved,
            Self::OneUser => Privilege::DropKeepUser,
        }
    }

    /// The namespaces that each clone has of its own.
    pub fn namespaces(self, network: Network) -> Namespaces {
        let always = Namespaces::PROCESS_ID | Namespaces::MOUNT;
        let own = Namespaces::NETWORK
            | Namespaces::INTER_PROCESS_COMMUNICATION
            | Namespaces::HOST_NAME_AND_NIS_DOMAIN_NAME;
        match (self, network) {
            (Self::OneUser, _) => always | own,
            (Self::Root, Network::None) => always | Namespaces::NETWORK,
            (Self::Root, Network::Host) => always,
        }
    }
}
