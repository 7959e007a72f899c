//! Attaches a neighbour, a peer or a unix endpoint for a client of the control socket.

use strowger_engine::link::Rights;
use strowger_frame::Address;
use strowger_runtime::{
    Neighbor, NeighborError, Peer, PeerKey, PortInfo, PortKind, SlowPath, files::Opener,
};

use crate::relay::{config, control::AttachRequest};
use strowger_runtime::{address::AddressText, key_files};
use strowger_wire::Slot;

/// The port with this name. Without a name, the only listener.
fn port_of<'p>(ports: &'p [PortInfo], listener: Option<&str>) -> Result<&'p PortInfo, String> {
    let is_listener = |port: &&PortInfo| port.is_shared() && port.alternate_of.is_none();
    let names = || {
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        names.join(", ")
    };
    match listener {
        Some(wanted) => ports.iter().find(|port| port.name == wanted).ok_or_else(|| {
            format!("no port has the name \"{wanted}\"; the ports are: {}", names())
        }),
        None => {
            let mut listeners = ports.iter().filter(is_listener);
            match (listeners.next(), listeners.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(
                    "this relay has no [[udp]] and no [[ethernet]]; add one to its configuration"
                        .to_owned(),
                ),
                (Some(_), Some(_)) => Err(format!("name the listener, one of: {}", names())),
            }
        }
    }
}

/// Attaches the neighbour, peer or endpoint that a client requests, and returns its slot.
///
/// # Errors
/// One line with the failed operation and the reason.
pub(super) fn attach(relay: &mut SlowPath, request: AttachRequest) -> Result<Slot, String> {
    config::check_name(&request.name)?;
    let port = port_of(relay.ports(), request.listener.as_deref())?;
    let (is_unix, behind) = (matches!(port.kind, PortKind::Unix { .. }), port.name.clone());
    if let Some(at) = request.address
        && !port.fits(at)
        && !is_unix
    {
        return Err(format!(
            "{} is no address behind {behind}; name another listener",
            AddressText(at)
        ));
    }
    let plain = port.is_plain();
    let AttachRequest { name, address, slot, key, peer_id, psk, rights, .. } = request;
    let refused = |error: NeighborError| match error {
        NeighborError::Address { at, why } => {
            format!("peer \"{name}\": address \"{at}\" is not usable: {why}")
        }
        NeighborError::NameTaken { name, slot } => {
            format!("the name \"{name}\" belongs to slot {slot}; choose another")
        }
        error => error.to_string(),
    };
    let who = match (key, peer_id) {
        (Some(key), Some(identity)) => Some(PeerKey::both(key, identity)),
        (Some(key), None) => Some(key.into()),
        (None, Some(identity)) => Some(identity.into()),
        (None, None) => None,
    };
    let neighbor = match (is_unix, address, who) {
        (true, None, None) => Neighbor::endpoint(&name),
        (true, ..) => {
            return Err(format!("{behind} is a unix socket: it takes no address and no key"));
        }
        (false, at, Some(who)) => {
            let default = Rights { control: false, ..Rights::ALL };
            let mut peer = Peer::new(who).name(&name).rights(rights.unwrap_or(default));
            peer = at.into_iter().fold(peer.behind(behind), |peer, at| peer.at(at));
            peer = slot.into_iter().fold(peer, |peer, slot| peer.slot(slot));
            if let Some(file) = psk {
                let psk = key_files::read_psk(&file, &Opener::default())
                    .map_err(|error| error.to_string())?;
                peer = peer.psk(psk);
            }
            return relay.add_peer(peer).map_err(refused);
        }
        (false, _, None) if !plain => {
            return Err(format!(
                "links behind {behind} are sealed: give the peer's key or PeerId, or write seal = \"plain\" in \
                 its section"
            ));
        }
        (false, Some(Address::Only), None) | (false, None, None) => {
            return Err(format!("a neighbour behind {behind} needs an address"));
        }
        (false, Some(address), None) => Neighbor::new(&name, address),
    };
    let neighbor = slot.into_iter().fold(neighbor.behind(behind), |it, slot| it.slot(slot));
    relay.add_neighbor(neighbor).map_err(refused)
}
