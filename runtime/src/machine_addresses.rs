//! The machine's own IP and MAC addresses, and the broadcast addresses of its networks. Checks
//! whether a peer can have an address.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use strowger_io::sys::{
    addresses::{AddressKind, InterfaceAddress, Mac, interface_addresses},
    probe::interface_name,
};

use crate::address::is_wildcard_for;

/// The addresses of this machine and the broadcast addresses of its networks, each with its
/// interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineAddresses {
    ips: HashMap<IpAddr, String>,
    /// Link-local addresses, each with its interface.
    link_local: HashSet<(Ipv6Addr, String)>,
    broadcasts: HashMap<Ipv4Addr, String>,
    macs: HashMap<String, Mac>,
}

impl MachineAddresses {
    /// The current addresses in this network namespace. The result is empty if the kernel refuses
    /// to list them.
    pub fn now() -> Self {
        Self::of(interface_addresses().unwrap_or_default())
    }

    /// Makes the tables from a list of addresses.
    pub fn of(entries: Vec<InterfaceAddress>) -> Self {
        let mut own = Self::default();
        for InterfaceAddress { interface, at } in entries {
            match at {
                AddressKind::Mac(mac) => _ = own.macs.insert(interface, mac),
                AddressKind::Ip(ip, broadcasts) => {
                    for broadcast in broadcasts {
                        own.broadcasts.insert(broadcast, interface.clone());
                    }
                    match ip {
                        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                            own.link_local.insert((ip, interface));
                        }
                        ip => _ = own.ips.insert(ip, interface),
                    }
                }
            }
        }
        own
    }

    /// The reason why no peer that is reached through a UDP listener can have this address; `None`
    /// if a peer can. `listeners` are the addresses on which the relay listens.
    pub fn unusable_ip(
        &self,
        at: SocketAddr,
        listeners: impl IntoIterator<Item = SocketAddr>,
    ) -> Option<String> {
        if let IpAddr::V4(ip) = at.ip()
            && let Some(interface) = self.broadcasts.get(&ip)
        {
            return Some(format!(
                "{ip} is the broadcast address of the network at {interface}: need the address of one host"
            ));
        }
        let interface = self.interface_of(at)?;
        let is_there = |listener: &SocketAddr| {
            let is_its = is_wildcard_for(*listener, at) || listener.ip() == at.ip();
            listener.port() == at.port() && is_its
        };
        let listener = listeners.into_iter().find(is_there)?;
        let ip = at.ip();
        Some(format!(
            "this relay itself listens there: its listener is at {listener}, and {interface} has {ip}"
        ))
    }

    /// The interface that has this address.
    fn interface_of(&self, at: SocketAddr) -> Option<String> {
        match at {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                let on_link = (*v6.ip(), interface_name(v6.scope_id())?);
                self.link_local.get(&on_link).map(|(_, interface)| interface.clone())
            }
            at => self.ips.get(&at.ip()).cloned(),
        }
    }

    /// The reason why no peer that is reached through an interface can have this MAC address;
    /// `None` if a peer can.
    pub fn unusable_mac(&self, mac: Mac, interface: &str) -> Option<String> {
        let is_own = self.macs.get(interface) == Some(&mac);
        is_own.then(|| format!("{interface} itself has it: need the address of the peer"))
    }
}

/// Whether this machine has the address: `bind` does not fail with `EADDRNOTAVAIL`. Other errors
/// count as yes.
pub fn is_on_this_machine(at: SocketAddr) -> bool {
    let mut any_port = at;
    any_port.set_port(0);
    let bound = UdpSocket::bind(any_port);
    !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 198.51.100.1/24 and 2001:db8::1 on interface `lan`, and a loopback interface.
    fn machine() -> MachineAddresses {
        let entry = |interface: &str, at| InterfaceAddress { interface: interface.to_owned(), at };
        let ip = |text: &str, broadcasts: &[Ipv4Addr]| {
            AddressKind::Ip(text.parse().unwrap(), broadcasts.to_vec())
        };
        MachineAddresses::of(vec![
            entry("lan", ip("198.51.100.1", &[Ipv4Addr::new(198, 51, 100, 255)])),
            entry("lan", ip("2001:db8::1", &[])),
            entry("lo", ip("fe80::1", &[])),
            entry("lo", ip("127.0.0.1", &[Ipv4Addr::new(127, 255, 255, 255)])),
        ])
    }

    #[test]
    fn a_peer_cannot_have_an_address_where_this_relay_listens() {
        let own = machine();
        let listeners = ["198.51.100.1:7000", "0.0.0.0:7001", "[::]:7002"];
        let why = |at: &str| {
            let listeners = listeners.map(|at| at.parse().unwrap());
            own.unusable_ip(at.parse().unwrap(), listeners)
        };
        for (at, words) in [
            ("198.51.100.255:9", ["broadcast", "lan"]),
            ("127.255.255.255:9", ["broadcast", "lo"]),
            ("198.51.100.1:7000", ["listens there", "198.51.100.1:7000"]),
            ("198.51.100.1:7001", ["listens there", "0.0.0.0:7001"]),
            ("198.51.100.1:7002", ["listens there", "[::]:7002"]),
            ("[2001:db8::1]:7002", ["listens there", "[::]:7002"]),
            ("[fe80::1%1]:7002", ["listens there", "lo has fe80::1"]),
        ] {
            let why = why(at).unwrap_or_else(|| panic!("{at} is taken"));
            assert!(words.iter().all(|word| why.contains(word)), "{at}: {why}");
        }
        // Another relay on this machine, and other hosts, can have these addresses.
        for at in [
            "198.51.100.1:9",
            "198.51.100.2:7000",
            "127.0.0.1:7000",
            "[2001:db8::1]:7001",
            "[2001:db8::2]:7002",
            "[fe80::1%77]:7002",
            "198.51.100.254:9",
        ] {
            assert_eq!(why(at), None, "{at}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_found_and_another_is_not() {
        assert!(is_on_this_machine("127.0.0.1:7000".parse().expect("an address")));
        assert!(!is_on_this_machine("192.0.2.77:7000".parse().expect("an address")));
    }
}
