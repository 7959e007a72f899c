//! Neighbours, peers and users of unix endpoints that a client of the control socket attaches.

use strowger_crypto::Psk;
use strowger_engine::{
    control::{Attach, peering::PeerSpec},
    link::{Behind, Rights},
};
use strowger_frame::Address;

use super::Relay;
use crate::{
    address::{Shown, in_scope_of, unusable_as_peer},
    admin::AttachWish,
    config,
    files::Opener,
    key,
    own::Own,
    topology::{PortInfo, PortKind},
};

fn unusable(name: &str, at: Address, why: &str) -> String {
    format!("peer \"{name}\": address \"{}\" is not usable: {why}", Shown(at))
}

impl Relay {
    /// The port that a client means.
    fn port_of(&self, listener: Option<&str>) -> Result<&PortInfo, String> {
        let ports = &self.topology.ports;
        let is_listener = |port: &&PortInfo| {
            !matches!(port.kind, PortKind::Unix { .. }) && port.alternate_of.is_none()
        };
        let names = || {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            names.join(", ")
        };
        match listener {
            Some(wanted) => ports.iter().find(|port| port.name == wanted).ok_or_else(|| {
                format!("no port has the name \"{wanted}\"; there are: {}", names())
            }),
            None => {
                let mut listeners = ports.iter().filter(is_listener);
                match (listeners.next(), listeners.next()) {
                    (Some(only), None) => Ok(only),
                    (None, _) => {
                        Err("this relay has no [[udp]] and no [[ethernet]] to be behind".to_owned())
                    }
                    (Some(_), Some(_)) => Err(format!("say behind which listener: {}", names())),
                }
            }
        }
    }

    pub(super) fn attach(&mut self, wish: AttachWish) -> Result<u32, String> {
        config::check_name(&wish.name)?;
        let port = self.port_of(wish.listener.as_deref())?.clone();
        if let Some(at) = wish.address
            && !port.fits(at)
            && !matches!(port.kind, PortKind::Unix { .. })
        {
            let at = Shown(at);
            return Err(format!("{at} is no address behind {}; say another listener", port.name));
        }
        let mut wish = wish;
        if let (Some(Address::Udp(at)), PortKind::Udp { local, .. }) =
            (&mut wish.address, &port.kind)
        {
            *at = in_scope_of(*at, *local);
            let own = self.topology.ports.iter().filter_map(|port| match port.kind {
                PortKind::Udp { local, .. } => Some(local),
                PortKind::Ethernet(_) | PortKind::Unix { .. } => None,
            });
            let why = unusable_as_peer(*at, own.clone());
            if let Some(why) = why.or_else(|| Own::now().unusable_ip(*at, own)) {
                return Err(unusable(&wish.name, Address::Udp(*at), &why));
            }
        }
        if let (Some(Address::Ether(mac)), PortKind::Ethernet(wire)) = (wish.address, &port.kind) {
            let own = Own::now();
            let mut interfaces = wire.reports.iter().map(|report| report.interface.as_str());
            let why = interfaces.find_map(|interface| own.unusable_mac(mac, interface));
            if let Some(why) = why {
                return Err(unusable(&wish.name, Address::Ether(mac), &why));
            }
        }
        let (plain, PortInfo { id, name: behind, kind, .. }) = (port.is_plain(), port);
        let switch = &mut self.topology.switch;
        if let Some(twin) = switch.slots().iter().find(|view| view.name == wish.name) {
            return Err(format!("the name \"{}\" is that of slot {}", wish.name, twin.slot));
        }
        let AttachWish { name, address, slot, key, peer_id, psk, rights, .. } = wish;
        let is_peer = key.is_some() || peer_id.is_some();
        let (at, behind) = match (&kind, address, is_peer) {
            (PortKind::Unix { .. }, None, false) => (Address::Only, Behind::Endpoint),
            (PortKind::Unix { .. }, ..) => {
                return Err(format!("behind {behind} there is no address and no key"));
            }
            (_, at, true) => {
                let mut spec = PeerSpec::discovered(name, peer_id, id);
                spec.key = key;
                spec.psk = match psk {
                    Some(file) => {
                        key::psk(&file, &Opener::default()).map_err(|failure| failure.line)?
                    }
                    None => Psk::NONE,
                };
                spec.at = at;
                spec.slot = slot;
                spec.rights = rights.unwrap_or(Rights { control: false, ..Rights::ALL });
                let added = switch.add_peer(spec, self.topology.clock.now());
                let slot = added.map_err(|error| error.to_string())?;
                switch.welcome_strangers(id, true);
                // Whatever listener it comes in by, it is answered.
                for port in self.topology.ports.iter().filter(|port| port.has_sealed_links()) {
                    switch.welcome_strangers(port.id, true);
                }
                return Ok(slot);
            }
            (_, _, false) if !plain => {
                return Err(format!(
                    "behind {behind} links are sealed: name the peer's key or PeerId, or write seal = \
                     \"plain\" in its section"
                ));
            }
            (_, Some(address), false) => (address, Behind::Neighbour),
            (_, None, false) => return Err(format!("behind {behind} a neighbour has an address")),
        };
        let attach = Attach { slot, ..Attach::plain(id, at, behind, name) };
        switch.attach(attach).map_err(|error| error.to_string())
    }
}
