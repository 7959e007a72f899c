//! Alternate ports: a peer that has not answered for a minute also gets initiations from another local UDP port,
//! every other time. A router on the path may hold state for the port in use, for instance with an address that it
//! no longer has, for as long as packets keep coming; only a new flow gets new state. The owner of the switch opens
//! the port, and the link moves there if the peer answers there.

use std::collections::BTreeMap;

use strowger_crypto::Nanos;
use strowger_frame::Address;

use super::Location;
use crate::{
    Now,
    control::{Event, PortId, base::Base},
};

/// How long a peer may be silent before an alternate port is tried: three times as long as a peer takes to start,
/// and less than the two to three minutes for which routers keep the state of a flow.
pub(super) const WANTED_AFTER_NS: u64 = 60_000_000_000;

/// After this an alternate port may be as stale as the first port, and another one is wanted.
const STALE_AFTER: Nanos = Nanos::from_secs(300);

/// The least time between two events that ask for an alternate port.
const REQUEST_EVERY: Nanos = Nanos::from_secs(30);

/// The newest alternate of each port that has one, and when one was last requested.
#[derive(Debug, Default)]
pub(super) struct Alternates(BTreeMap<PortId, Alternate>);

#[derive(Debug, Default)]
struct Alternate {
    port: Option<(PortId, Nanos)>,
    requested: Option<Nanos>,
}

impl Alternates {
    /// Sets the alternate of a port; returns the one before.
    pub(super) fn set(&mut self, port: PortId, alternate: PortId, now: Now) -> Option<PortId> {
        let entry = self.0.entry(port).or_default();
        entry.port.replace((alternate, Nanos(now.0))).map(|(former, _)| former)
    }

    /// Where else an initiation goes to a silent peer at this configured location. Requests an alternate port by
    /// an event where there is none, or a stale one.
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
