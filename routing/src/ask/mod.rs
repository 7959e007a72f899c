//! Sources that ask switches: [`AskRelay`] asks the own switch, [`AskNeighbours`] its neighbours
//! (wire.md 5.5).

mod neighbours;
mod relay;

pub use neighbours::AskNeighbours;
pub use relay::AskRelay;

use core::net::Ipv6Addr;

use strowger_crypto::{Certificate, Identity, Nanos, NetworkId, PeerId};
use strowger_wire::{certificate::KeyRole, limits::KEY_BYTES};

use crate::peer_routing::LookupTarget;

/// The address of a target. That of a PeerId is its hash.
fn address_of(target: &LookupTarget) -> Ipv6Addr {
    match target {
        LookupTarget::Peer(peer) => peer.ip6(),
        LookupTarget::Address(address) => *address,
    }
}

/// The peer with this Ed25519 key, if it is the target.
fn wanted(target: &LookupTarget, key: &[u8; KEY_BYTES]) -> Option<PeerId> {
    let peer = Identity::from_bytes(key).ok()?.peer_id();
    target.is(&peer).then_some(peer)
}

/// The certificate of the connection key of this peer, if it is valid.
fn certificate_of(peer: &PeerId, bytes: &[u8], network: &NetworkId) -> Option<Certificate> {
    let certificate = Certificate::verify(bytes, KeyRole::Connection, network).ok()?;
    (certificate.identity().peer_id() == *peer).then_some(certificate)
}

/// The time at which a label expires; `None` if `seconds` is 0, which means that the label does not
/// expire.
fn expiry(now: Nanos, seconds: u32) -> Option<Nanos> {
    (seconds > 0).then(|| now.plus(Nanos::from_secs(seconds.into())))
}

/// A length on the wire, where 0 means unknown.
fn known_mtu(mtu: u16) -> Option<u16> {
    (mtu > 0).then_some(mtu)
}
