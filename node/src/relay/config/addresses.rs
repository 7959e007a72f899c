//! Resolves the interface names in a configuration's addresses, and finds addresses that a peer
//! cannot have because they belong to this machine or its networks.

use std::{fmt, net::SocketAddr};

use strowger_frame::Address;
use strowger_runtime::{address::AddressText, machine_addresses::MachineAddresses};

use super::Config;

impl Config {
    /// Replaces names of interfaces in addresses by their current interface indexes.
    ///
    /// # Errors
    /// A line for each address whose interface is missing. Such an address is unchanged.
    pub(crate) fn resolve(&mut self) -> Result<(), Vec<String>> {
        let interfaces = std::mem::take(&mut self.interfaces);
        let mut absent = Vec::new();
        let mut resolve = |whose: &dyn fmt::Display, at: &mut SocketAddr| match interfaces
            .resolve(*at)
        {
            Ok(resolved) => *at = resolved,
            Err(name) => {
                let shown = interfaces.shown(*at);
                let why =
                    format!("{whose}: address \"{shown}\": this machine has no interface {name}");
                absent.push(why);
            }
        };
        for listener in &mut self.udp {
            resolve(&format_args!("listener \"{}\"", listener.name), &mut listener.address);
        }
        for peer in &mut self.peers {
            if let Some(Address::Udp(at)) = &mut peer.address {
                resolve(&format_args!("peer \"{}\"", peer.name), at);
            }
        }
        for neighbour in &mut self.neighbours {
            if let Address::Udp(at) = &mut neighbour.address {
                resolve(&format_args!("neighbour \"{}\"", neighbour.name), at);
            }
        }
        if absent.is_empty() { Ok(()) } else { Err(absent) }
    }
}

/// Checks the addresses of peers and neighbours. Returns a line for each address on which this
/// relay itself listens, for each broadcast address, and for each MAC address of the port's own
/// interface. Names of interfaces must be resolved.
pub(crate) fn faults(machine: &MachineAddresses, config: &Config) -> Vec<String> {
    let peers = config.peers.iter();
    let peers = peers.map(|peer| ("peer", &peer.name, peer.address, peer.listener));
    let neighbours = config.neighbours.iter();
    let neighbours =
        neighbours.map(|one| ("neighbour", &one.name, Some(one.address), one.listener));
    let fault = |(kind, name, at, listener): (&str, &String, Option<Address>, usize)| {
        let why = match at? {
            Address::Udp(at) => {
                machine.unusable_ip(at, config.udp.iter().map(|listener| listener.address))
            }
            Address::Ether(mac) => {
                let ethernet = config.ethernet.get(listener.checked_sub(config.udp.len())?)?;
                machine.unusable_mac(mac, &ethernet.interface)
            }
            Address::Only => None,
        };
        let at = AddressText(at?);
        why.map(|why| format!("{kind} \"{name}\": address \"{at}\" is not usable: {why}"))
    };
    peers.chain(neighbours).filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use strowger_io::sys::addresses::{AddressKind, InterfaceAddress};

    use super::*;
    use crate::relay::config::parse;

    /// A machine with 198.51.100.1/24 and a MAC address on interface `lan`, and another interface.
    fn machine() -> MachineAddresses {
        let entry = |interface: &str, at| InterfaceAddress { interface: interface.to_owned(), at };
        let [own, broadcast] = [1, 255].map(|host| Ipv4Addr::new(198, 51, 100, host));
        MachineAddresses::of(vec![
            entry("lan", AddressKind::Ip(own.into(), vec![broadcast])),
            entry("lan", AddressKind::Mac([2, 0, 0, 0, 0, 1])),
            entry("other", AddressKind::Mac([2, 0, 0, 0, 0, 2])),
        ])
    }

    #[test]
    fn a_peer_cannot_have_the_mac_address_of_the_interface_it_is_behind() {
        let config = |mac: &str| {
            parse(&format!(
                "[identity]\nkey = \"k\"\n[[udp]]\naddress = \"127.0.0.1:7000\"\n[[ethernet]]\n\
                 interface = \"lan\"\nseal = \"plain\"\n[[neighbour]]\nname = \"a\"\n\
                 address = \"{mac}\"\nlistener = \"lan\"\n[[peer]]\nname = \"p\"\n\
                 key = \"{}\"\naddress = \"198.51.100.255:7\"\nlistener = \"udp\"\n",
                "01".repeat(32)
            ))
            .unwrap()
        };
        let faults = super::faults(&machine(), &config("02:00:00:00:00:01"));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("peer \"p\": address \"198.51.100.255:7\" is not usable"));
        assert!(faults[1].contains("neighbour \"a\"") && faults[1].contains("lan itself has it"));
        // The address of another interface is allowed: that interface may belong to another relay,
        // with a cable between the two.
        assert_eq!(super::faults(&machine(), &config("02:00:00:00:00:02")).len(), 1);
    }
}
