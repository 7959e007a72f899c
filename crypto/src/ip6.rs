//! The IPv6 address of a PeerId (wire.md 6.9).

use core::net::Ipv6Addr;

use blake2::{Blake2s256, Digest};

use crate::identity::PeerId;

/// The first two bytes of the IPv6 address of a PeerId. The prefix is a /16 of `fd00::/8` (RFC
/// 4193), and not all of it, so that the prefixes of local networks and containers stay reachable.
const PREFIX: [u8; 2] = [0xfd, 0x53];

/// The hash covers this text and the Ed25519 key.
const LABEL: &[u8] = b"strowger ip6";

impl PeerId {
    /// The IPv6 address of the peer: `fd53`, then the first 14 bytes of BLAKE2s(`strowger ip6` |
    /// Ed25519 key).
    ///
    /// Finding a key for a given address takes about 2^112 attempts, so the address identifies the
    /// PeerId.
    pub fn ip6(&self) -> Ipv6Addr {
        let (_, key) = self.as_bytes().split_at(self.as_bytes().len() - 32);
        let hash = Blake2s256::new().chain_update(LABEL).chain_update(key).finalize();
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&PREFIX);
        bytes[2..].copy_from_slice(&hash[..14]);
        Ipv6Addr::from(bytes)
    }

    /// Whether this is an address in `fd53::/16`, where only PeerIds have addresses.
    pub fn is_peer_ip6(address: &Ipv6Addr) -> bool {
        address.octets().starts_with(&PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use strowger_testkit::wire_md;

    use super::*;

    /// The addresses in the document were computed with hashlib of Python.
    ///
    /// wire.md: W6-120.
    #[test]
    fn the_addresses_are_those_of_the_document() {
        let peers = wire_md::table("handshake-example");
        let peers = peers.iter().find(|row| row[0] == "PeerId").expect("the row of PeerIds");
        for (row, peer_id) in wire_md::table("peer-ip6").iter().zip(&peers[1..]) {
            let address: Ipv6Addr = row[1].trim_matches('`').parse().expect("an address");
            let peer_id: PeerId = peer_id.trim_matches('`').parse().expect("a PeerId");
            assert_eq!(peer_id.ip6(), address);
            assert!(PeerId::is_peer_ip6(&address));
        }
        assert_eq!(wire_md::table("peer-ip6").len(), 2);
        assert!(!PeerId::is_peer_ip6(&"fd54::1".parse().expect("an address")));
    }
}
