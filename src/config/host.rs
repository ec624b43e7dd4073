//! What the defaults want to know about the machine, read once at start.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Facts of the machine and the user; tests write them down instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name of the host.
    pub name: String,
    /// Home directory, without a slash at the end.
    pub home: String,
    /// Cores the process may use, ascending.
    pub cores: Vec<usize>,
    /// An address of this host that others may know, if it has one.
    pub address: Option<Ipv4Addr>,
}

impl Host {
    /// Looks at this machine. What cannot be found out stays empty and the keys that would
    /// follow from it say so when they are needed.
    pub fn detect() -> Host {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
        let mut cores: Vec<usize> = core_affinity::get_core_ids()
            .map(|ids| ids.into_iter().map(|core| core.id).collect())
            .unwrap_or_default();
        if cores.is_empty() {
            cores.push(0);
        }
        cores.sort_unstable();
        Host {
            name: name.trim().to_owned(),
            home: home.trim_end_matches('/').to_owned(),
            cores,
            address: routed_address(),
        }
    }
}

/// The address this host would use towards others: connecting a datagram socket picks the route
/// and sends nothing. 192.0.2.1 is reserved for documentation (RFC 5737).
fn routed_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_core() {
        let host = Host::detect();
        assert!(!host.cores.is_empty());
        assert!(host.cores.is_sorted());
    }
}
