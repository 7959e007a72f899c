//! Alternate ports: a peer that is asked and has answered nothing for a minute is asked from another local UDP port,
//! every other time. A router on the way may hold state for the port that we keep (an address that it has no more, say), which lives
//! as long as we send; only a flow that it does not know gets new state. Nothing is opened here: the owner of the
//! switch opens the port, and the link moves there if the peer answers there.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;
use strowger_frame::{Address, Mark};

use super::{
    super::{Event, PortId, base::Base},
    LinkState, Links, Location,
};
use crate::Now;

/// How long a peer may answer nothing before it is asked by an alternate port: three times as long as a start of the
/// peer takes, and shorter than the two to three minutes for which routers keep the state of a flow in use.
const WANTED_AFTER_NS: u64 = 60_000_000_000;

/// An alternate port is as stale as the first one after this: another is wanted.
const STALE_AFTER: Nanos = Nanos::from_secs(300);

/// That one is wanted is said this often at most.
const SAID_EVERY: Nanos = Nanos::from_secs(30);

/// The newest alternate of each port that has one, and when one was last wanted.
#[derive(Debug, Default)]
pub(super) struct Alternates(BTreeMap<PortId, Alternate>);

#[derive(Debug, Default)]
struct Alternate {
    port: Option<(PortId, Nanos)>,
    said: Option<Nanos>,
}

impl Links {
    /// From now on peers behind `port` that do not answer are asked by `alternate`, too: another UDP port that is
    /// plugged in. Peers that are down and were last behind the alternate before are where their operator wrote, so that
    /// it can be [unplugged](Self::unplug) unless a link leads by it.
    pub(in crate::control) fn set_alternate(
        &mut self,
        port: PortId,
        alternate: PortId,
        base: &mut Base,
    ) {
        let now = Nanos(base.clock.now().0);
        let Some(peering) = &mut self.peering else { return };
        let entry = peering.alternates.0.entry(port).or_default();
        let former = entry.port.replace((alternate, now)).map(|(former, _)| former);
        let left = |peer: &super::Peer| {
            peer.state == LinkState::Down && former == Some(peer.port) && former != Some(alternate)
        };
        let marks: Vec<Mark> =
            peering.peers.iter().filter(|(_, peer)| left(peer)).map(|(&mark, _)| mark).collect();
        for mark in marks {
            self.look_where_written(mark, base);
        }
    }

    /// An initiation leaves for a peer: where it is to go as well, if the peer has been silent for long.
    pub(super) fn alternate_of(&mut self, mark: Mark, base: &mut Base) -> Option<Location> {
        let now = base.clock.now();
        let peering = self.peering.as_mut()?;
        let peer = peering.peers.get(&mark)?;
        let Location { port, at } = peer.reach.written?;
        if !is_silent(peer, now) || !matches!(at, Address::Udp(_)) {
            return None;
        }
        let now = Nanos(now.0);
        let entry = peering.alternates.0.entry(port).or_default();
        let is_stale = entry.port.is_none_or(|(_, since)| now.since(since) >= STALE_AFTER);
        let may_say = entry.said.is_none_or(|said| now.since(said) >= SAID_EVERY);
        let alternate = entry.port.map(|(alternate, _)| Location { port: alternate, at });
        if is_stale && may_say {
            entry.said = Some(now);
            base.out.events.push(Event::WantsAlternate(port));
        }
        alternate.filter(|alternate| base.ports.is_plugged(alternate.port))
    }
}

fn is_silent(peer: &super::Peer, now: Now) -> bool {
    peer.state == LinkState::Down && now.0.saturating_sub(peer.down_since.0) >= WANTED_AFTER_NS
}
