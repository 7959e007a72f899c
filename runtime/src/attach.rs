//! Converts the program's peers and neighbors to specifications for the switch, and checks them.

use strowger_engine::{
    control::{Attach, SlotState, SlotView, Switch, peering::PeerSpec},
    link::Behind,
};
use strowger_frame::Address;

use crate::{
    address::{AddressText, in_scope_of, unusable_as_peer},
    error::NeighborError,
    machine_addresses::MachineAddresses,
    port_info::{PortInfo, PortKind},
    spec::{Neighbor, NeighborAddress, Peer},
};

/// The port through which a neighbor is reached: the port with the name `behind`, or without a name
/// a port that fits the address.
fn port_of<'p>(
    ports: &'p [PortInfo],
    behind: Option<&str>,
    at: Option<Address>,
    wants_plain: bool,
) -> Result<&'p PortInfo, NeighborError> {
    if let Some(name) = behind {
        let names = || ports.iter().map(|port| port.name.clone()).collect();
        let found = ports.iter().find(|port| port.name == name);
        return found
            .ok_or_else(|| NeighborError::NoSuchPort { name: name.to_owned(), ports: names() });
    }
    let fitting = || {
        ports.iter().filter(|port| {
            port.alternate_of.is_none() && port.is_shared() && at.is_none_or(|at| port.fits(at))
        })
    };
    let best = fitting().find(|port| port.is_plain() == wants_plain);
    best.or_else(|| fitting().next()).ok_or(NeighborError::NoPort)
}

/// Checks that a neighbor can have the address. Adds the listener's interface to a link-local
/// address that has none.
fn usable(
    at: NeighborAddress,
    ports: &[PortInfo],
    port: &PortInfo,
    machine: &MachineAddresses,
) -> Result<Address, NeighborError> {
    let at = at.0.map_err(|why| NeighborError::Address { at: String::new(), why })?;
    if !port.fits(at) {
        return Err(NeighborError::WrongKind { at, port: port.name.clone() });
    }
    let unusable =
        |at: Address, why| Err(NeighborError::Address { at: AddressText(at).to_string(), why });
    match (at, &port.kind) {
        (Address::Udp(to), PortKind::Udp { local, .. }) => {
            let to = in_scope_of(to, *local);
            let listeners = ports.iter().filter_map(PortInfo::local_address);
            let why = unusable_as_peer(to, listeners.clone());
            match why.or_else(|| machine.unusable_ip(to, listeners)) {
                Some(why) => unusable(Address::Udp(to), why),
                None => Ok(Address::Udp(to)),
            }
        }
        (Address::Ether(mac), PortKind::Ethernet(info)) => {
            let mut interfaces = info.reports.iter().map(|report| report.interface.as_str());
            match interfaces.find_map(|interface| machine.unusable_mac(mac, interface)) {
                Some(why) => unusable(at, why),
                None => Ok(at),
            }
        }
        _ => Ok(at),
    }
}

fn known(at: Option<&NeighborAddress>) -> Option<Address> {
    at.and_then(|at| at.0.as_ref().ok()).copied()
}

/// The specification of a peer for the switch.
pub(crate) fn peer_spec(
    ports: &[PortInfo],
    machine: &MachineAddresses,
    peer: Peer,
) -> Result<PeerSpec, NeighborError> {
    if peer.key.is_invalid {
        return Err(NeighborError::PeerId);
    }
    let port = port_of(ports, peer.behind.as_deref(), known(peer.at.as_ref()), false)?;
    let at = peer.at.map(|at| usable(at, ports, port, machine)).transpose()?;
    Ok(PeerSpec::discovered(peer.name, peer.key.identity, port.id)
        .with_key(peer.key.key)
        .with_psk(peer.psk)
        .with_address(at)
        .with_slot(peer.slot)
        .with_rights(peer.rights)
        .with_seal(peer.seal)
        .with_frame_bytes_max(peer.frame_bytes_max)
        .with_liveness(peer.liveness))
}

/// The specification of a neighbor with a plain link for the switch.
pub(crate) fn plain_attach(
    ports: &[PortInfo],
    machine: &MachineAddresses,
    neighbor: Neighbor,
) -> Result<Attach, NeighborError> {
    let wanted = known(Some(&neighbor.at));
    let port = port_of(ports, neighbor.behind.as_deref(), wanted, true)?;
    let at = usable(neighbor.at, ports, port, machine)?;
    if matches!(port.kind, PortKind::Unix { is_shared: true, .. }) {
        return Err(NeighborError::ForClients { port: port.name.clone() });
    }
    if !port.is_plain() && port.is_shared() {
        return Err(NeighborError::Sealed { port: port.name.clone() });
    }
    let behind = if neighbor.is_endpoint { Behind::Endpoint } else { Behind::Neighbour };
    Ok(Attach::plain(port.id, at, behind, neighbor.name).with_slot(neighbor.slot))
}

/// Checks that no slot has this name. Former numbers do not count, although they have the name of
/// their slot's user.
pub(crate) fn check_name(switch: &Switch, name: &str) -> Result<(), NeighborError> {
    let has_name = |view: &&SlotView| view.name == name && view.state != SlotState::Retiring;
    match switch.slots().iter().find(has_name) {
        Some(twin) => Err(NeighborError::NameTaken { name: name.to_owned(), slot: twin.slot }),
        None => Ok(()),
    }
}
