//! Alternate ports: after a link has been down for a minute, every other initiation is sent from
//! another local UDP port. A router on the path may hold stale state for the current port, for
//! instance an old address, as long as packets keep arriving. A new flow creates new state. The
//! caller of the switch opens the alternate port. The link moves to the alternate port if the peer
//! answers there.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;
use strowger_frame::Address;

use super::Location;
use crate::{
    Now,
    control::{Event, PortId, base::Base},
};

/// The time, in nanoseconds, for which a peer must be silent before an alternate port is tried. It
/// is three times the start-up time of a peer, and less than the two to three minutes for which
/// routers keep the state of a flow.
pub(super) const WANTED_AFTER_NS: u64 = 60_000_000_000;

/// The age above which an alternate port counts as stale: routers may hold stale state for this
/// port too. The switch then requests another one.
const STALE_AFTER: Nanos = Nanos::from_secs(300);

/// The minimum time between two events that request an alternate port.
const REQUEST_EVERY: Nanos = Nanos::from_secs(30);

/// The newest alternate of each port that has one, and the time of the last event that requested an
/// alternate.
#[derive(Debug, Default)]
pub(super) struct Alternates(BTreeMap<PortId, Alternate>);

#[derive(Debug, Default)]
struct Alternate {
    port: Option<(PortId, Nanos)>,
    requested: Option<Nanos>,
}

impl Alternates {
    /// Sets the alternate of a port; returns the previous one.
    pub(super) fn set(&mut self, port: PortId, alternate: PortId, now: Now) -> Option<PortId> {
        let entry = self.0.entry(port).or_default();
        entry.port.replace((alternate, Nanos(now.0))).map(|(former, _)| former)
    }

    /// The destination, through the alternate port, of an initiation to a silent peer with this
    /// configured location. If there is no alternate port, or only a stale one, an event requests
    /// one, at most every 30 s.
    pub(super) fn location(&mut self, written: Location, base: &mut Base) -> Option<Location> {
        let Location { port, at } = written;
        if !matches!(at, Address::Udp(_)) {
            return None;
        }
        let now = Nanos(base.clock.now().0);
        let entry = self.0.entry(port).or_default();
        let is_stale = entry.port.is_none_or(|(_, since)| now.since(since) >= STALE_AFTER);
        let may_request = entry.requested.is_none_or(|last| now.since(last) >= REQUEST_EVERY);
        if is_stale && may_request {
            entry.requested = Some(now);
            base.out.events.push(Event::WantsAlternate(port));
        }
        let (alternate, _) = entry.port?;
        base.ports.is_plugged(alternate).then_some(Location { port: alternate, at })
    }
}
