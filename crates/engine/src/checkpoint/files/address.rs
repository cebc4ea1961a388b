//! Internet addresses: as the kernel's bytes, and when two of them mean the same place.

use std::net::{IpAddr, SocketAddr};

/// Whether a socket bound to `bound` is reached at `address`.
pub fn reaches(bound: SocketAddr, address: SocketAddr) -> bool {
    bound.port() == address.port() && (bound.ip() == address.ip() || bound.ip().is_unspecified())
}

/// An address of the fourth version in the clothes of the sixth without them.
pub fn plain(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
pub fn address_bytes(address: SocketAddr) -> Vec<u8> {
    match address {
        SocketAddr::V4(address) => {
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&address.port().to_be_bytes());
            bytes.extend_from_slice(&address.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
            bytes
        }
        SocketAddr::V6(address) => {
            let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&address.port().to_be_bytes());
            bytes.extend_from_slice(&address.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&address.ip().octets());
            bytes.extend_from_slice(&address.scope_id().to_ne_bytes());
            bytes
        }
    }
}

/// The address in bytes that [`address_bytes`] made.
pub fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match bytes.len() {
        16 => IpAddr::from(<[u8; 4]>::try_from(&bytes[4..8]).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_bytes() {
        for text in ["127.0.0.1:9001", "[::1]:80", "0.0.0.0:1"] {
            let known: SocketAddr = text.parse().unwrap();
            assert_eq!(address(&address_bytes(known)), Some(known));
        }
        assert_eq!(address(b""), None);
    }

    #[test]
    fn an_address_is_the_same_in_other_clothes() {
        let dressed: SocketAddr = "[::ffff:127.0.0.1]:7".parse().unwrap();
        assert_eq!(plain(dressed), "127.0.0.1:7".parse().unwrap());
        assert!(reaches("0.0.0.0:7".parse().unwrap(), plain(dressed)));
        assert!(!reaches("0.0.0.0:8".parse().unwrap(), plain(dressed)));
    }
}
