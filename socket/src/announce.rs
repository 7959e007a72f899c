//! Announces a node to its switch, so that other nodes find it (wire.md 5.5).

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use strowger_crypto::{AnnouncePlace, Certificate, Identity, IdentityKey, Nanos, NetworkId};
use strowger_routing::{
    ControlReply, LookupResult, LookupTarget, Outcome, PeerRouting, Question, QuestionQueue, Route,
};
use strowger_wire::{Label, control::Message, label::AnyLabel};

use crate::{
    limits::{ANNOUNCE_AGAIN, ANNOUNCE_RETRY, ANNOUNCE_S},
    reply::lock,
};

/// The place of a node: its slot, and the Ed25519 key of the switch; zeros if the switch has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) switch: [u8; 32],
}

/// The place of a node, which changes when the switch has restarted.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedPlace(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Counts the changes, so that a reader takes the lock only after one.
    version: AtomicU32,
    place: Mutex<Option<Place>>,
}

impl SharedPlace {
    pub(crate) fn set(&self, place: Option<Place>) {
        *lock(&self.0.place) = place;
        self.0.version.fetch_add(1, Ordering::Release);
    }

    fn version(&self) -> u32 {
        self.0.version.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self) -> Option<Place> {
        *lock(&self.0.place)
    }
}

/// Routing that also announces the node. Announcements are control messages, and use the same queue
/// and replies as the questions of routing.
pub(crate) struct Announcing {
    inner: Box<dyn PeerRouting>,
    key: IdentityKey,
    network: NetworkId,
    certificate: Certificate,
    place: SharedPlace,
    seen: u32,
    due: Option<Nanos>,
    wall_at_zero: u64,
    id: u32,
}

/// The label of the own switch.
const OWN_SWITCH: AnyLabel = AnyLabel::W64(Label::here());

impl Announcing {
    pub(crate) fn new(
        inner: Box<dyn PeerRouting>,
        key: IdentityKey,
        network: NetworkId,
        place: SharedPlace,
        wall_at_zero: u64,
    ) -> Self {
        let certificate = key.certify_connection_key(wall_at_zero, &network);
        let due = Some(Nanos::ZERO);
        let seen = place.version();
        Self { inner, key, network, certificate, place, seen, due, wall_at_zero, id: 0 }
    }

    /// Sends an announcement if one is due.
    fn announce(&mut self, now: Nanos, out: &mut QuestionQueue) {
        let version = self.place.version();
        if version != self.seen {
            (self.seen, self.due) = (version, Some(now));
        }
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let place = self.place.get();
        let switch = place.and_then(|place| Identity::from_bytes(&place.switch).ok());
        let (Some(place), Some(switch)) = (place, switch) else {
            // There is no switch, or the switch has no identity and therefore accepts no
            // announcements.
            self.due = None;
            return;
        };
        self.due = Some(now.plus(ANNOUNCE_RETRY));
        self.id = self.id.wrapping_add(1);
        let stamp = self.wall_at_zero.saturating_add(now.0);
        let at = AnnouncePlace { network: &self.network, switch: &switch, slot: place.slot };
        let announcement = self.key.announce(&at, &self.certificate, ANNOUNCE_S, stamp);
        let message = announcement.message(self.id).to_vec();
        let _ = out.push(Question { to: OWN_SWITCH, message });
    }
}

impl PeerRouting for Announcing {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        self.inner.lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.inner.cancel(target);
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        match reply.message {
            Message::Announced { id, verdict, .. }
                if id == self.id && reply.from == OWN_SWITCH && verdict.is_taken() =>
            {
                self.due = Some(now.plus(ANNOUNCE_AGAIN));
            }
            Message::Announced { .. } => {}
            _ => self.inner.handle_reply(now, reply, out),
        }
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        self.announce(now, out);
        self.inner.poll(now, out)
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.inner.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        let is_new = self.place.version() != self.seen;
        let due = if is_new { Some(Nanos::ZERO) } else { self.due };
        due.into_iter().chain(self.inner.next_timeout()).min()
    }
}

#[cfg(test)]
mod tests {
    use strowger_crypto::{SeededEntropy, verify_announcement};
    use strowger_routing::NoRouting;

    use super::*;

    /// An announcement is repeated until the switch accepts it, then before it expires, and at once
    /// after the slot has changed.
    #[test]
    fn a_node_announces_itself_until_the_switch_takes_it() {
        let entropy = &mut SeededEntropy::new(3);
        let key = IdentityKey::generate(entropy).unwrap();
        let peer = key.public().peer_id();
        let switch = IdentityKey::generate(entropy).unwrap().public();
        let network = NetworkId::new(b"n").unwrap();
        let place = SharedPlace::default();
        let inner = Box::new(NoRouting::default());
        let mut announcing = Announcing::new(inner, key, network, place.clone(), 1 << 60);
        let mut out = QuestionQueue::new();
        let mut now = Nanos::from_secs(1);
        let poll = |announcing: &mut Announcing, now, out: &mut QuestionQueue| {
            assert!(announcing.poll(now, out).is_none());
            out.pop().map(|question| question.message)
        };
        assert_eq!(poll(&mut announcing, now, &mut out), None);

        place.set(Some(Place { slot: 4, switch: switch.to_bytes() }));
        assert_eq!(announcing.next_timeout(), Some(Nanos::ZERO));
        for slot in [4, 9] {
            place.set(Some(Place { slot, switch: switch.to_bytes() }));
            for _ in 0..2 {
                let bytes = poll(&mut announcing, now, &mut out).expect("an announcement");
                assert_eq!(poll(&mut announcing, now, &mut out), None);
                let Ok(Message::Announce { announcement, .. }) = Message::parse(&bytes) else {
                    panic!("{bytes:02x?}")
                };
                let at = AnnouncePlace { network: &network, switch: &switch, slot };
                let certificate = verify_announcement(&announcement, &at).unwrap();
                assert_eq!(certificate.identity().peer_id(), peer);
                now = now.plus(ANNOUNCE_RETRY);
                assert_eq!(announcing.next_timeout(), Some(now));
            }
            let verdict = strowger_wire::control::AnnounceVerdict::TAKEN;
            let message = Message::Announced { id: announcing.id, verdict, seconds: ANNOUNCE_S };
            let reply = ControlReply { from: OWN_SWITCH, message };
            announcing.handle_reply(now, &reply, &mut out);
            assert_eq!(announcing.next_timeout(), Some(now.plus(ANNOUNCE_AGAIN)));
        }
    }
}
