//! Peers of a configuration that have an address of this machine itself, or a broadcast address.

use strowger_frame::Address;
use strowger_runtime::own::Own;

use crate::relay::config::Config;
use strowger_runtime::address::Shown;

/// What is wrong with the addresses of peers and neighbours, a line each. Names of interfaces in the addresses
/// are resolved already.
pub(crate) fn faults(own: &Own, config: &Config) -> Vec<String> {
    let peers = config.peers.iter();
    let peers = peers.map(|peer| ("peer", &peer.name, peer.address, peer.listener));
    let neighbours = config.neighbours.iter();
    let neighbours =
        neighbours.map(|one| ("neighbour", &one.name, Some(one.address), one.listener));
    let fault = |(kind, name, at, listener): (&str, &String, Option<Address>, usize)| {
        let why = match at? {
            Address::Udp(at) => {
                own.unusable_ip(at, config.udp.iter().map(|listener| listener.address))
            }
            Address::Ether(mac) => {
                let ethernet = config.ethernet.get(listener.checked_sub(config.udp.len())?)?;
                own.unusable_mac(mac, &ethernet.interface)
            }
            Address::Only => None,
        };
        let at = Shown(at?);
        why.map(|why| format!("{kind} \"{name}\": address \"{at}\" is not usable: {why}"))
    };
    peers.chain(neighbours).filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use strowger_io::sys::addresses::{OwnAddress, OwnKind};

    use super::*;
    use crate::relay::config::parse;

    /// A machine with 198.51.100.1/24, 2001:db8::1 and a MAC address at `lan`.
    fn machine() -> Own {
        let entry = |interface: &str, at| OwnAddress { interface: interface.to_owned(), at };
        let ip = |text: &str, broadcasts: &[Ipv4Addr]| {
            OwnKind::Ip(text.parse().unwrap(), broadcasts.to_vec())
        };
        Own::of(vec![
            entry("lan", OwnKind::Mac([2, 0, 0, 0, 0, 1])),
            entry("other", OwnKind::Mac([2, 0, 0, 0, 0, 2])),
            entry("lan", ip("198.51.100.1", &[Ipv4Addr::new(198, 51, 100, 255)])),
            entry("lan", ip("2001:db8::1", &[])),
            entry("lo", ip("fe80::1", &[])),
            entry("lo", ip("127.0.0.1", &[Ipv4Addr::new(127, 255, 255, 255)])),
        ])
    }

    #[test]
    fn an_interface_s_own_mac_address_is_no_peer_s_behind_it() {
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
        assert!(faults[1].contains("neighbour \"a\"") && faults[1].contains("own address of lan"));
        // That of another interface may be another relay's, by a cable from one to the other.
        assert_eq!(super::faults(&machine(), &config("02:00:00:00:00:02")).len(), 1);
    }
}
