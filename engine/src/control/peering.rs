//! Sealed links: the identities of peers, the handshakes that give links their keys, and the
//! liveness and location of each peer. The module reads no clock, and receives from handshake
//! sockets only through the `Port` trait. It neither seals nor opens packets. The workers do so,
//! with keys from this module.
//!
//! | event | effect |
//! |---|---|
//! | a handshake message of a peer | keys (wire.md section 4); by itself it does not change a known location |
//! | a fresh authenticated packet from a new address | a path challenge is sent there; the location stays |
//! | the path response, from that address | the link's location changes: its address and its port |
//! | a beacon of a peer whose link is down | one handshake message is sent there; the location stays |
//! | no frame for `interval` although frames were sent | a probe: a path challenge is sent to the peer's location |
//! | no data for some time | the keys expire, and the link is idle; the next packet wakes it |
//! | the response to a long path challenge | the path accepts frames of that length |
//! | no frame for `interval` times `multiplier` | the link is down (RFC 5880, section 6.8.4); a handshake begins |
//!
//! `Links` is composed of smaller owners. `LinkTable` has the peers and the sessions, `Intake`
//! decides which handshakes are read, `Beacons` sends and receives beacons, and `Schedule` computes
//! when each peer is due.

mod alternate;
mod beacons;
mod conflict;
mod context;
mod diagnosis;
mod idle;
mod indices;
mod intake;
mod liveness;
mod location;
mod lookup;
mod path_mtu;
mod peer;
mod peers;
mod schedule;
mod sessions;
mod sources;
mod spec;
mod status;
mod table;

use std::mem;

use strowger_crypto::{LocalIdentity, Nanos, handshake::SchemeBytes, session::Input};
use strowger_frame::{Burst, Mark};
use strowger_wire::{
    Scheme, Slot,
    link_header::{Kind, LinkHeader, SessionIndex},
};

use self::{beacons::Beacons, intake::Intake, schedule::Schedule, table::LinkTable};
pub use self::{
    diagnosis::DownReason,
    idle::LinkState,
    location::Location,
    spec::{
        Agreed, BeaconSpec, Liveness, PeerError, PeerSpec, PeerView, PeeringConfig,
        UnknownPeerPolicy,
    },
};
use super::{PortId, base::Base, messages::Goodbye};
use crate::{
    Now,
    command::{HandshakeDatagram, Punt, PuntKind},
    discard::Discard,
    limits::HANDSHAKE_BURSTS_MAX,
    session::RxSession,
};

/// All sealed links of one switch.
#[derive(Default)]
pub(super) struct Links {
    /// `None` before the identity is set.
    active: Option<Active>,
}

/// The parts that exist once the node has an identity.
struct Active {
    table: LinkTable,
    intake: Intake,
    beacons: Beacons,
    schedule: Schedule,
}

/// The source of a handshake message, and the worker that received it. The response is sent to this
/// source.
#[derive(Clone, Copy, Debug)]
struct HandshakeOrigin {
    from: Location,
    worker: u8,
    bytes: usize,
    is_response: bool,
}

impl HandshakeOrigin {
    fn of(datagram: &HandshakeDatagram) -> Self {
        let from = Location { port: PortId(datagram.port), at: datagram.from };
        let bytes = datagram.frame.bytes();
        let is_response = LinkHeader::parse(bytes).is_ok_and(|h| h.kind == Kind::Response);
        Self { from, worker: datagram.worker, bytes: bytes.len(), is_response }
    }
}

impl Links {
    /// Sets this node's identity.
    pub(super) fn set_identity(
        &mut self,
        mut config: PeeringConfig,
        now: Now,
        base: &Base,
    ) -> Result<(), PeerError> {
        let intake = Intake::new(&mut config, now)?;
        let table = LinkTable::new(config, base)?;
        let (beacons, schedule) = (Beacons::default(), Schedule::default());
        self.active = Some(Active { table, intake, beacons, schedule });
        Ok(())
    }

    /// This node's identity, if it is set.
    pub(super) fn local_identity(&self) -> Option<&LocalIdentity> {
        self.active.as_ref().map(|active| active.table.shared().local())
    }

    /// Adds a configured peer.
    pub(super) fn add_peer(
        &mut self,
        spec: PeerSpec,
        now: Now,
        base: &mut Base,
    ) -> Result<Slot, PeerError> {
        let active = self.active.as_mut().ok_or(PeerError::NoIdentity)?;
        active.table.add(spec, now, base)
    }

    /// Removes the peers whose slots are being detached.
    pub(super) fn drop_detached(&mut self, base: &mut Base) {
        match &mut self.active {
            Some(active) => active.table.drop_detached(base),
            None => drop(base.slots.take_detached()),
        }
    }

    /// Whether the peer of a link is known. A node without an identity has no sealed links.
    pub(super) fn has_peer(&self, mark: Mark) -> bool {
        self.active.as_ref().is_none_or(|active| active.table.peers().contains(mark))
    }

    /// All links, in order of their slots.
    pub(super) fn peers(&self, base: &Base) -> Vec<PeerView> {
        self.active.as_ref().map(|active| active.table.views(base)).unwrap_or_default()
    }

    /// Offers the larger scheme on new links.
    pub(super) fn offer_scheme(&mut self, base: &Base) {
        if let Some(active) = &mut self.active {
            active.table.offer_scheme(base);
        }
    }

    /// Sets whether beacons are sent and received on a port. With `None`, neither happens.
    pub(super) fn set_beacon(&mut self, port: PortId, spec: Option<BeaconSpec>, base: &mut Base) {
        if let Some(Active { table, beacons, .. }) = &mut self.active
            && base.ports.is_plugged(port)
        {
            beacons.set(port, spec, table.shared_mut(), base);
        }
    }

    /// Stops beacons on a port that is being unplugged.
    pub(super) fn drop_beacon(&mut self, port: PortId) {
        if let Some(active) = &mut self.active {
            active.beacons.drop_port(port);
        }
    }

    /// Sets the alternate of a port. Every other initiation to a silent peer of the port is then
    /// sent through the alternate.
    pub(super) fn set_alternate(&mut self, port: PortId, alternate: PortId, base: &mut Base) {
        if let Some(active) = &mut self.active {
            active.table.set_alternate(port, alternate, base);
        }
    }

    /// Informs the peers of this node's new address.
    pub(super) fn show_where_we_are(&mut self, now: Now, base: &mut Base) {
        if let Some(active) = &mut self.active {
            active.table.show_where_we_are(now, base);
        }
    }

    /// The latest timestamp that this node's handshakes can carry before the next snapshot; 0 if
    /// the node has no identity.
    pub(super) fn stamps_until(&self, now: Now) -> u64 {
        self.active.as_ref().map_or(0, |active| active.table.stamps_until(now))
    }

    /// Ensures that no later timestamp of a handshake is below `wall_ns`, in nanoseconds since
    /// 1970.
    pub(super) fn stamp_from(&mut self, wall_ns: u64, now: Now) {
        if let Some(active) = &mut self.active {
            active.table.stamp_from(wall_ns, now);
        }
    }

    /// Rotates the secrets whose rotation is due, before handshakes are checked with them.
    pub(super) fn renew_secrets(&mut self, now: Now) {
        if let Some(Active { table, intake, .. }) = &mut self.active {
            intake.renew_secrets(&mut table.shared_mut().config, now);
        }
    }

    /// Handles a worker's punt about a link.
    pub(super) fn handle(&mut self, punt: Punt, now: Now, base: &mut Base) {
        if let Punt::LinkMessage { worker, link, .. } = &punt {
            base.note_taken(*link, *worker, PuntKind::LinkMessage);
            base.held.count(Discard::Handled);
        }
        let Some(Active { table, .. }) = &mut self.active else { return };
        match punt {
            Punt::LinkMessage { link, kind, from, frame, .. } => {
                let from = from.map(|(port, at)| Location { port: PortId(port), at });
                table.handle_link_message(link, kind, from, &frame, now, base);
            }
            Punt::FirstFrame(session) => table.handle_opened(session, now, base),
            Punt::Roamed { link, port, from: at, bytes } => {
                let from = Location { port: PortId(port), at };
                table.handle_roamed(link, from, usize::from(bytes), now, base);
            }
            Punt::Migrate(session, worker) => {
                table.shared_mut().sessions.migrate(session, worker, &mut base.out);
            }
            Punt::RekeyDue(mark) => {
                if let Some((peer, mut link)) = table.link(mark, now, base) {
                    let _ = peer.drive(Input::RekeyDue, None, &mut link);
                }
            }
            Punt::Unsealed(mark) => {
                if let Some((peer, mut link)) = table.link(mark, now, base) {
                    peer.wake(&mut link);
                }
            }
            Punt::SendFailed { port, to, errno } => {
                let mark = table.link_at(Location { port: PortId(port), at: to });
                if let Some(peer) = table.peers_mut().get_mut(mark) {
                    peer.status_mut().note_reason(DownReason::Unreachable { to, errno }, now);
                }
            }
            // `ControlMessages` handles these.
            Punt::Packet { .. } | Punt::Dropped(_) | Punt::AliasUsed { .. } => (),
        }
    }

    /// Handles a goodbye from the peer on a slot.
    pub(super) fn handle_goodbye(&mut self, goodbye: Goodbye, now: Now, base: &mut Base) {
        if let Some(active) = &mut self.active {
            active.table.handle_goodbye(goodbye, now, base);
        }
    }

    /// Handles first the handshakes and beacons that have arrived, then the expired timers.
    pub(super) fn poll(&mut self, now: Now, base: &mut Base) {
        self.handle_punted(now, base);
        self.read_handshake_sockets(now, base);
        if let Some(Active { table, beacons, schedule, .. }) = &mut self.active {
            schedule.poll(table, now, base);
            beacons.poll(table.shared_mut(), now, base);
        }
    }

    /// The time at which [`poll`](Self::poll) has work.
    pub(super) fn next_timeout(&self, base: &Base) -> Option<Now> {
        let Active { table, intake, beacons, schedule, .. } = self.active.as_ref()?;
        let due =
            [schedule.next_timeout(table, base), beacons.next_timeout(), intake.next_timeout()];
        due.into_iter().flatten().min().map(|due| Now(due.0))
    }

    /// Handles the handshakes that workers have punted, those from known locations first. Messages
    /// that arrive during this call are handled in the next poll.
    fn handle_punted(&mut self, now: Now, base: &mut Base) {
        let punts = base.out.workers.punts();
        for _ in 0..punts.handshakes.len() {
            let Some(datagram) = punts.handshakes.pop() else { break };
            base.note_taken(datagram.link, datagram.worker, PuntKind::HandshakeDatagram);
            base.held.hold(1);
            self.handle_datagram(&datagram, now, base);
        }
        for _ in 0..punts.unknown_peers.len() {
            let Some(datagram) = punts.unknown_peers.pop() else { break };
            base.held.hold(1);
            self.handle_datagram(&datagram, now, base);
        }
    }

    /// Reads a limited number of bursts from each handshake socket. Further messages stay in the
    /// socket's buffer, or are dropped by the kernel.
    fn read_handshake_sockets(&mut self, now: Now, base: &mut Base) {
        for port in base.ports.ids() {
            for _ in 0..HANDSHAKE_BURSTS_MAX {
                let Some(mut burst) = base.ports.receive(port) else { break };
                let is_last = !burst.is_full();
                self.handle_burst(port, &mut burst, now, base);
                if is_last {
                    break;
                }
            }
        }
    }

    fn handle_burst(&mut self, port: PortId, burst: &mut Burst, now: Now, base: &mut Base) {
        base.held.hold(burst.len() as u64);
        for frame in burst.drain(..) {
            if !LinkHeader::parse(frame.bytes()).is_ok_and(|head| head.kind.is_handshake()) {
                base.end_handshake(port, Discard::BadLinkKind);
                continue;
            }
            let origin = base.ports.origin(port, &frame, base.out.workers.len());
            let Some((from, worker)) = origin else { return };
            let at = Location { port, at: from };
            let known = self.active.as_ref().map(|active| active.table.link_at(at));
            let link = known.unwrap_or(Mark::unknown(0));
            let datagram = HandshakeDatagram { worker, port: port.0, link, from, frame };
            self.handle_datagram(&datagram, now, base);
        }
    }

    /// Handles a handshake message or a beacon, and counts its outcome.
    fn handle_datagram(&mut self, datagram: &HandshakeDatagram, now: Now, base: &mut Base) {
        let taken = self.dispatch(datagram, now, base);
        base.end_handshake(PortId(datagram.port), taken.err().unwrap_or(Discard::Handled));
    }

    fn dispatch(
        &mut self,
        datagram: &HandshakeDatagram,
        now: Now,
        base: &mut Base,
    ) -> Result<(), Discard> {
        let header = LinkHeader::parse(datagram.frame.bytes()).map_err(|_| Discard::Malformed)?;
        let active = self.active.as_mut().ok_or(Discard::Unhandled)?;
        let Active { table, intake, beacons, .. } = active;
        match header.kind {
            Kind::Beacon => beacons.handle(datagram, table, now, base),
            _ => intake.handle(datagram, beacons, table, now, base),
        }
    }

    /// Reports the links that have come up: every worker now forwards their data.
    pub(super) fn show_opened(&mut self, now: Now, base: &mut Base) {
        while let Some(mark) = base.out.workers.next_opened() {
            if let Some(active) = &mut self.active
                && let Some((peer, mut link)) = active.table.link(mark, now, base)
            {
                peer.status_mut().show(LinkState::Up, &mut link);
            }
        }
    }

    /// Sends the responses to handshakes. Responses for a port that was unplugged in the meantime
    /// are dropped.
    pub(super) fn send_answers(&mut self, base: &mut Base) {
        let Some(active) = &mut self.active else { return };
        for (port, to, message) in mem::take(&mut active.table.shared_mut().answers) {
            base.ports.send(port, to, &message);
        }
    }

    /// Handles the keys of a session that a worker has returned: the session has ended, or is
    /// moving to another worker.
    pub(super) fn take_session_back(&mut self, session: Box<RxSession>, base: &mut Base) {
        if let Some(active) = &mut self.active {
            active.table.take_session_back(session, base);
        }
    }

    /// Notes that all sessions that were moving to this worker have moved.
    pub(super) fn end_moves(&mut self, to: u8) {
        if let Some(active) = &mut self.active {
            active.table.shared_mut().sessions.end_moves(to);
        }
    }

    /// Recovers from a panic of the slow path: keeps the slot, the key and the address of each
    /// peer, and resets the state that the panic may have left half changed. The workers use their
    /// present keys until these expire. In the next poll, new handshakes begin on the links that
    /// were up or needed keys. The slow path does not have the counters of keys in use, so it must
    /// not send these keys to the workers again (R5).
    pub(super) fn recover(&mut self, now: Now, base: &mut Base) {
        if let Some(Active { table, beacons, schedule, .. }) = &mut self.active {
            table.recover(now, base);
            beacons.recover(base);
            *schedule = Schedule::recovering();
        }
    }

    /// Marks the listed sessions that belong to no peer as retired. These sessions end when their
    /// keys expire.
    pub(super) fn retire_unknown(&mut self, sessions: &[SessionIndex], now: Now) {
        if let Some(active) = &mut self.active {
            active.table.retire_unknown(sessions, now);
        }
    }
}

fn scheme_bytes(scheme: &Scheme) -> SchemeBytes {
    SchemeBytes::new(scheme.serialize().as_bytes()).unwrap_or_default()
}

fn nanos(now: Now) -> Nanos {
    Nanos(now.0)
}
