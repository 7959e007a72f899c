//! Alternate ports: when a peer has not answered for a minute, every other initiation leaves by
//! another local UDP port. A router on the path may hold stale state for the port in use, for
//! instance an old address, for as long as packets keep coming. A new flow gets new state. The
//! owner of the switch opens the alternate port, and the link moves there if the peer answers
//! there.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;
use strowger_frame::Address;

use super::Location;
use crate::{
    Now,
    control::{Event, PortId, base::Base},
};

/// The time, in nanoseconds, that a peer is silent before an alternate port is tried: three times
/// the start-up time of a peer, and less than the two to three minutes for which routers keep the
/// state of a flow.
pub(super) const WANTED_AFTER_NS: u64 = 60_000_000_000;

/// The age at which an alternate port may be as stale as the first port, so that the switch
/// requests another one.
const STALE_AFTER: Nanos = Nanos::from_secs(300);

/// The least time between two events that request an alternate port.
const REQUEST_EVERY: Nanos = Nanos::from_secs(30);

/// The newest alternate of each port that has one, and the time of the last request for one.
#[derive(Debug, Default)]
pub(super) struct Alternates(BTreeMap<PortId, Alternate>);

#[derive(Debug, Default)]
struct Alternate {
    port: Option<(PortId, Nanos)>,
    requested: Option<Nanos>,
}

impl Alternates {
    /// Sets the alternate of a port; returns the former one.
    pub(super) fn set(&mut self, port: PortId, alternate: PortId, now: Now) -> Option<PortId> {
        let entry = self.0.entry(port).or_default();
        entry.port.replace((alternate, Nanos(now.0))).map(|(former, _)| former)
    }

    /// The further location for an initiation to a silent peer at this configured location. If
    /// there is no alternate port, or a stale one, an event requests one.
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
