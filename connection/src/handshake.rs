//! Received handshake messages: macs and cookies, budgets, answers to unknown peers, and the
//! connections that continue the handshakes.

use std::collections::HashMap;

use arrayvec::ArrayVec;
use strowger_crypto::handshake::{
    Admission as Admitting, Admitted, CookieChecker, Load, Offer, Refused, could_be_handshake, ik,
    xx,
};
use strowger_crypto::session::{Input, XxRole};
use strowger_crypto::{EntropyFailed, Identity, Nanos, PeerId};
use strowger_wire::connection::{ConnectionId, EntryCount, HelloFields};
use strowger_wire::label::AnyLabel;
use strowger_wire::limits::MAC_BYTES;
use strowger_wire::link_header::{Kind, LinkHeader, SessionIndex, Step};
use strowger_wire::{Slot, with_label};

use crate::admission::{Admission, Origin, Verdict};
use crate::connection::drive::{discard_of, discard_of_refusal};
use crate::connection::early::{EarlyDelivery, EarlyVerdict};
use crate::connection::hello::Stated;
use crate::connection::{Answered, Connection};
use crate::connections::Connections;
use crate::counters::Discard;
use crate::error::ConnectError;
use crate::heap::map_bytes;
use crate::limits::{COPIES_KEPT_MAX, COPY_TIME, HOPS_LEFT};
use crate::packet::{PacketMark, Route};
use crate::sessions::Found;
use crate::shared::{By, Shared};

/// A stored response, for copies of its initiation that come by another label (wire.md W6-136).
struct Copy {
    response: Vec<u8>,
    labels: ArrayVec<AnyLabel, 3>,
    until: Nanos,
    place: u32,
}

/// The part of an endpoint that handles handshake messages.
pub(crate) struct Handshakes {
    checker: CookieChecker,
    offer: Offer,
    pub(crate) admission: Admission,
    copies: HashMap<[u8; MAC_BYTES], Copy>,
}

/// The result of a handled handshake message.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    /// The place of the connection that the message concerned; `None` if it concerned none.
    pub(crate) place: Option<u32>,
    /// An early message to deliver.
    pub(crate) early: Option<EarlyDelivery>,
}

impl Handshakes {
    pub(crate) fn new(shared: &mut Shared, now: Nanos) -> Result<Handshakes, EntropyFailed> {
        let Shared { config, entropy, .. } = shared;
        let mut checker = CookieChecker::new(&config.local, now, &mut **entropy)?;
        if config.accept_without_peer_id {
            checker.accept_without_peer_id(&config.local);
        }
        let mut key = [0; 8];
        entropy.fill(&mut key)?;
        let admission = Admission::new(config.has_own_thread, u64::from_be_bytes(key));
        let offer = Shared::base_offer(config);
        Ok(Handshakes { checker, offer, admission, copies: HashMap::new() })
    }

    /// Replaces cookie secrets whose time is over, and drops stored responses that have expired.
    pub(crate) fn poll(&mut self, now: Nanos, shared: &mut Shared) {
        let _ = self.checker.rotate(now, &mut *shared.entropy);
        if self.copies.values().any(|copy| copy.until <= now) {
            self.copies.retain(|_, copy| copy.until > now);
            if self.copies.is_empty() {
                self.copies = HashMap::new();
            }
        }
    }

    /// Bytes of memory of the tables that grow.
    pub(crate) fn memory(&self) -> usize {
        let responses = self.copies.values().map(|copy| copy.response.capacity());
        map_bytes(&self.copies) + responses.sum::<usize>() + self.checker.memory_bytes()
    }

    /// The time at which [`poll`](Self::poll) must erase secrets; `None` if there is nothing to
    /// erase.
    pub(crate) fn next_timeout(&self) -> Option<Nanos> {
        self.checker.erases_at()
    }

    /// Handles a message of kind 1, 2 or 3.
    pub(crate) fn handle(
        &mut self,
        now: Nanos,
        message: &[u8],
        by: &By,
        connections: &mut Connections,
        shared: &mut Shared,
    ) -> Result<Handled, Discard> {
        let header = LinkHeader::parse(message).map_err(|_| Discard::TooShort)?;
        if !could_be_handshake(&header, message.len()) {
            return Err(Discard::Malformed);
        }
        if header.kind != Kind::Initiation {
            return handle_answer(now, &header, message, by, connections, shared);
        }
        let _ = self.checker.rotate(now, &mut *shared.entropy);
        let source = source_of(by);
        let Some(admitted) =
            admit((&self.checker, &mut self.admission), now, &source, message, by, shared)?
        else {
            return Ok(Handled::default());
        };
        match admitted.step() {
            Step::Known => {
                let admitted = ik::read(&shared.config.local, &admitted);
                let initiation = admitted.map_err(discard_of_refusal)?;
                self.handle_initiation(now, initiation, message, by, connections, shared)
            }
            Step::Discover => {
                let local = &shared.config.local;
                let answer = xx::answer(&self.checker, local, &self.offer, &source, &admitted);
                reply(by, &answer.map_err(discard_of_refusal)?, shared);
                Ok(Handled::default())
            }
            Step::Finish => self.handle_finish(now, &source, &admitted, by, connections, shared),
        }
    }

    /// Handles an initiation of IK.
    fn handle_initiation(
        &mut self,
        now: Nanos,
        initiation: ik::Initiation,
        message: &[u8],
        by: &By,
        connections: &mut Connections,
        shared: &mut Shared,
    ) -> Result<Handled, Discard> {
        let mac = mac1_of(message);
        if let Some(copy) = mac.and_then(|mac| self.copies.get_mut(&mac))
            && copy.until > now
            && !copy.labels.contains(&by.label)
        {
            copy.labels.try_push(by.label).map_err(|_| Discard::HandshakeStale)?;
            let response = copy.response.clone();
            if let Some(connection) = connections.get_mut(copy.place) {
                connection.note_copy(by.label);
            }
            reply(by, &response, shared);
            return Ok(Handled::default());
        }
        states_id(initiation.offer())?;
        let known = shared.by_key.get(initiation.static_key()).copied();
        let place = match known {
            Some(place) => place,
            None => {
                let identity = initiation.identity().map_err(discard_of_refusal)?;
                find_or_make(now, &identity, connections, shared)?
            }
        };
        let connection = connections.get_mut(place).ok_or(Discard::NoSession)?;
        if !initiation.is_newer_than(&connection.session.guard()) {
            return Err(Discard::HandshakeStale);
        }
        let place = begin_again(now, place, connections, shared)?;
        let connection = connections.get_mut(place).ok_or(Discard::NoSession)?;
        let fields = HelloFields::parse(initiation.offer().fields.as_bytes()).unwrap_or_default();
        let id = connection.answer_to(fields.id);
        let verdict = connection.judge_early(now, &initiation, shared);
        let early_result = verdict.as_ref().map(|verdict| verdict.result);
        let stated = Stated { id: Some(id), early: None, early_result };
        connection.set_hello(stated, shared);
        connection.answering = Some(Box::new(Answered {
            index: SessionIndex::NONE,
            answer: None,
            entries: connection.stated,
            was_proven: connection.is_proven,
            labels: [by.label].into_iter().collect(),
        }));
        let input = Input::Initiation(Box::new(initiation));
        shared.last_response = None;
        let taken = connection.drive(now, input, Some(by), shared);
        let is_answered = connection.answering.take().is_none();
        connection.is_hello_due = true;
        taken.map_err(discard_of)?;
        if is_answered && let (Some(mac), Some(response)) = (mac, shared.last_response.take()) {
            self.keep_copy(now, mac, response, by, place);
        }
        let early = verdict.filter(|_| is_answered).and_then(|verdict| {
            let EarlyVerdict { result, delivery, id } = verdict;
            let peer = connections.get(place)?.peer;
            if delivery.is_some() {
                shared.memory.keep_result(now, peer, id, result);
            }
            delivery
        });
        Ok(Handled { place: Some(place), early })
    }

    fn keep_copy(
        &mut self,
        now: Nanos,
        mac: [u8; MAC_BYTES],
        response: Vec<u8>,
        by: &By,
        place: u32,
    ) {
        self.copies.retain(|_, copy| copy.until > now && copy.place != place);
        if self.copies.len() < COPIES_KEPT_MAX {
            let labels = [by.label].into_iter().collect();
            self.copies.insert(mac, Copy { response, labels, until: now.plus(COPY_TIME), place });
        }
    }

    /// Handles the third message of XX.
    fn handle_finish(
        &mut self,
        now: Nanos,
        source: &[u8],
        admitted: &Admitted<'_>,
        by: &By,
        connections: &mut Connections,
        shared: &mut Shared,
    ) -> Result<Handled, Discard> {
        let local = &shared.config.local;
        let finish = xx::read_finish(&self.checker, local, &self.offer, source, admitted)
            .map_err(discard_of_refusal)?;
        states_id(finish.offer())?;
        let peer = *finish.peer();
        let owner = shared.by_key.get(&peer.static_key).and_then(|place| connections.get(*place));
        if owner.is_some_and(|owner| owner.peer != peer.identity.peer_id()) {
            return Err(Discard::HandshakeIdentity);
        }
        let index = finish.our_index();
        if !shared.data.sessions.take(index) {
            // The sender starts a new handshake, with another index.
            return Err(Discard::OverBudget);
        }
        let taken = self.accept_finish(now, finish, by, connections, shared);
        let place = *taken.as_ref().unwrap_or(&u32::MAX);
        let is_owned = connections.get(place).is_some_and(|owner| owner.session.owns(index));
        if !is_owned {
            shared.data.sessions.close(index);
        }
        taken.map(|place| Handled { place: Some(place), early: None })
    }

    fn accept_finish(
        &mut self,
        now: Nanos,
        finish: xx::Finish,
        by: &By,
        connections: &mut Connections,
        shared: &mut Shared,
    ) -> Result<u32, Discard> {
        let place = find_or_make(now, finish.identity(), connections, shared)?;
        let place = begin_again(now, place, connections, shared)?;
        let connection = connections.get_mut(place).ok_or(Discard::NoSession)?;
        let fields = HelloFields::parse(finish.offer().fields.as_bytes()).unwrap_or_default();
        let answer = Some(connection.answer_to(fields.id));
        let mut guard = connection.session.guard();
        let accepted = finish.accept(&mut self.checker, &mut guard);
        let established = accepted.map_err(discard_of_refusal)?;
        connection.answering = Some(Box::new(Answered {
            index: SessionIndex::NONE,
            answer,
            entries: EntryCount::ZERO,
            was_proven: connection.is_proven,
            labels: [by.label].into_iter().collect(),
        }));
        let taken = connection.with_session(now, Some(by), shared, |session, context, outputs| {
            session.adopt(context, established, XxRole::Responder { guard }, outputs)
        });
        connection.answering = None;
        taken.map_err(discard_of)?;
        Ok(place)
    }
}

impl Connection {
    /// The id with which to answer a hello with this id (wire.md W6-138).
    fn answer_to(&self, stated: Option<ConnectionId>) -> ConnectionId {
        match stated {
            Some(id) if self.is_proven && id == self.id => id,
            _ => ConnectionId::UNKNOWN,
        }
    }

    /// Notes another label along which this end sent the newest response.
    fn note_copy(&mut self, label: AnyLabel) {
        if let Some(answered) = self.answered.last_mut() {
            let _ = answered.labels.try_push(label);
        }
    }
}

/// Checks that the hello of an initiator states a connection id (wire.md W6-200).
fn states_id(offer: &Offer) -> Result<(), Discard> {
    let fields = HelloFields::parse(offer.fields.as_bytes()).unwrap_or_default();
    match fields.id {
        Some(id) if id != ConnectionId::UNKNOWN => Ok(()),
        _ => Err(Discard::HandshakeMalformed),
    }
}

/// The connection with an identity, or a new one if the policy allows it.
fn find_or_make(
    now: Nanos,
    identity: &Identity,
    connections: &mut Connections,
    shared: &mut Shared,
) -> Result<u32, Discard> {
    let peer: PeerId = identity.peer_id();
    if let Some(place) = connections.of_peer(&peer) {
        return Ok(place);
    }
    if !shared.policy.may_connect(&peer) {
        return Err(Discard::NotAllowed);
    }
    let is_known = shared.policy.is_known(&peer);
    connections.make(now, *identity, is_known, shared).ok_or(Discard::OverBudget)
}

/// The connection that continues a handshake of the peer: a new one, if the peer has closed this
/// connection and connects again before this end removes it (wire.md W6-166).
fn begin_again(
    now: Nanos,
    place: u32,
    connections: &mut Connections,
    shared: &mut Shared,
) -> Result<u32, Discard> {
    let connection = connections.get_mut(place).ok_or(Discard::NoSession)?;
    if !connection.is_closing() {
        return Ok(place);
    }
    if !connection.has_said_goodbye() {
        return Err(Discard::Closed);
    }
    let identity = connection.peer.identity().map_err(|_| Discard::NoSession)?;
    connection.release(now, shared);
    connections.remove(place);
    find_or_make(now, &identity, connections, shared)
}

/// Checks the macs of a message of kind 1, and the budgets. `None` if a cookie was sent.
fn admit<'m>(
    (checker, admission): (&CookieChecker, &mut Admission),
    now: Nanos,
    source: &[u8],
    message: &'m [u8],
    by: &By,
    shared: &mut Shared,
) -> Result<Option<Admitted<'m>>, Discard> {
    let is_known = shared.known_labels.contains(now, &by.label);
    let demands = admission.demands_cookie(now, is_known);
    let load = if demands { Load::Heavy } else { Load::Normal };
    match checker.admit(source, message, load) {
        Err(why) => Err(discard_of_refusal(why)),
        Ok(Admitting::CookieReply(cookie)) => {
            shared.counters.cookies_sent += 1;
            reply(by, &cookie, shared);
            Ok(None)
        }
        Ok(Admitting::Admitted(admitted)) => {
            match admission.initiation(now, origin_of(by, shared), is_known, demands) {
                Verdict::Evaluate => Ok(Some(admitted)),
                Verdict::DemandCookie | Verdict::OverBudget => Err(Discard::OverBudget),
            }
        }
    }
}

/// The source of a handshake message (wire.md W6-13): slot, width of the label in bytes, label.
fn source_of(by: &By) -> ArrayVec<u8, 37> {
    let mut source = ArrayVec::new();
    source.extend(by.source.ingress().to_be_bytes());
    by.label.with_be_bytes(|label| {
        source.push(label.len() as u8);
        source.extend(label.iter().copied());
    });
    source
}

/// The part of the return path that switches near this node wrote.
fn origin_of(by: &By, shared: &Shared) -> Origin {
    let scheme = &shared.config.scheme;
    // The next director is that of the switch behind the link, whose scheme may differ. Even read
    // with this node's scheme, the bits distinguish the directors of that switch.
    let next = with_label!(by.label, label => {
        let first = label.decode(scheme).ok();
        let rest = first.map(|first| label.low() >> first.width());
        rest.and_then(|rest| scheme.decode(rest).ok()).map(|next| next.slot().number())
    });
    Origin { ingress: Slot::new(by.source.ingress()), next }
}

/// Sends an answer to a handshake message.
pub(crate) fn reply(by: &By, message: &[u8], shared: &mut Shared) {
    if let Some(route) = Route::along(by.label, HOPS_LEFT) {
        let mark = PacketMark { no_errors: true, ..by.mark };
        shared.out.push(&route, mark, message);
    }
}

/// The mac1 of an initiation, which identifies the message.
fn mac1_of(message: &[u8]) -> Option<[u8; MAC_BYTES]> {
    let (before, _) = message.split_last_chunk::<MAC_BYTES>()?;
    before.last_chunk::<MAC_BYTES>().copied()
}

/// Handles a response or a cookie reply.
fn handle_answer(
    now: Nanos,
    header: &LinkHeader,
    message: &[u8],
    by: &By,
    connections: &mut Connections,
    shared: &mut Shared,
) -> Result<Handled, Discard> {
    let Found::Attempt(place) = shared.data.sessions.find(header.index) else {
        return Err(Discard::NoSession);
    };
    let connection = connections.get_mut(place).ok_or(Discard::NoSession)?;
    if let Err(why) = connection.session.check_response(message) {
        connection.note_trouble(why);
        return Err(discard_of_refusal(why));
    }
    if header.kind == Kind::Response && !connection.may_read(header.index) {
        return Err(Discard::OverBudget);
    }
    let taken = connection.drive(now, Input::Message(message), Some(by), shared);
    if let Err(strowger_crypto::handshake::HandshakeError::Peer(why)) = taken {
        connection.note_trouble(why);
    }
    taken.map_err(discard_of)?;
    Ok(Handled { place: Some(place), early: None })
}

impl Connection {
    fn note_trouble(&mut self, why: Refused) {
        let trouble = match why {
            Refused::OtherIdentity(found) => ConnectError::WrongPeer { found },
            Refused::Disagreement(_) => ConnectError::Disagreement,
            Refused::WrongMac | Refused::Unreadable => {
                let responses = match self.trouble.as_deref() {
                    None => 1,
                    Some(ConnectError::NotAuthenticated { responses }) => {
                        responses.saturating_add(1)
                    }
                    // Keep an error that is more specific.
                    Some(_) => return,
                };
                ConnectError::NotAuthenticated { responses }
            }
            _ => return,
        };
        self.trouble = Some(Box::new(trouble));
    }
}
