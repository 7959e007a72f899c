//! One peer: its session, and the state of the link to it. It passes events to the parts that
//! decide (the session, [`Reach`], [`PathMtu`], [`PeerLiveness`], [`Usage`], `Diagnosis`), and
//! executes their decisions.

use strowger_crypto::{
    Nanos, Sealed, StaticPublic,
    handshake::HandshakeError,
    limits::SEAL_REFUSED_AFTER,
    session::{Context, Input, NewKeys, Output, Session},
};
use strowger_frame::{Frame, Mark};
use strowger_wire::{
    Slot,
    limits::TAG_BYTES,
    link_header::{Kind, LinkHeader, SessionIndex, Step},
};

use super::{
    Agreed, DownReason, HandshakeOrigin, LinkState, Location, PeerSpec, PeerView,
    context::{LinkContext, Shared},
    idle::{DataFrames, Usage, UsageStep},
    intake::{HandshakeBudgets, KNOWN_PER_SECOND_EACH},
    liveness::{LivenessStep, PeerLiveness, Traffic},
    location::{Reach, Validation},
    nanos,
    path_mtu::{PROBES_UNTIL, PathMtu, TOKEN_BYTES},
    status::LinkStatus,
};
use crate::{
    Now,
    command::Command,
    control::{Event, base::Base},
    discard::Discard,
    limits::{FRAME_BYTES_MAX, GOODBYE_RETRY_S_MAX, GOODBYE_RETRY_S_MIN},
    rate::RateLimiter,
};

/// The minimum time, in nanoseconds (five seconds), that an unknown peer has for its first frame
/// after the handshake. The initiator repeats its confirmation every second.
const HEARD_WITHIN_NS: u64 = 5_000_000_000;

/// A peer and its link.
pub(super) struct Peer {
    spec: PeerSpec,
    /// The peer's static key, if it is known. [`Shared::keys`] contains the key too.
    key: Option<StaticPublic>,
    session: Session,
    /// The worker at which the peer's authenticated frames arrive, as far as is known. This worker
    /// sends the link's own messages.
    owner: u8,
    reach: Reach,
    status: LinkStatus,
    is_unknown: bool,
    keys_since: Option<Now>,
    handshakes: u64,
    /// Whether the peer has proved that it has the newest keys.
    is_confirmed: bool,
    /// The result of the last handshake, with the identity that the peer has proved.
    agreed: Option<Agreed>,
    /// The budgets for handshake messages from the peer's location.
    budgets: HandshakeBudgets,
    /// The rate limit of the peer's initiations from other locations.
    elsewhere: RateLimiter,
    liveness: PeerLiveness,
    usage: Usage,
    /// The path MTU discovery; `None` before the first keys.
    path: Option<PathMtu>,
}

impl Peer {
    /// Makes a peer without a link.
    pub(super) fn new(
        spec: PeerSpec,
        is_unknown: bool,
        session: Session,
        owner: u8,
        now: Now,
    ) -> Self {
        let written = spec.at.map(|at| Location { port: spec.port, at });
        Self {
            key: spec.key,
            session,
            owner,
            reach: Reach::new(spec.port, written),
            spec,
            status: LinkStatus::new(now),
            is_unknown,
            keys_since: None,
            handshakes: 0,
            is_confirmed: false,
            agreed: None,
            budgets: HandshakeBudgets::of_a_peer(),
            elsewhere: RateLimiter::per_second(KNOWN_PER_SECOND_EACH),
            liveness: PeerLiveness::default(),
            usage: Usage::default(),
            path: None,
        }
    }

    pub(super) fn spec(&self) -> &PeerSpec {
        &self.spec
    }

    /// The peer's static key, if it is known.
    pub(super) fn key(&self) -> Option<StaticPublic> {
        self.key
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    pub(super) fn reach(&self) -> &Reach {
        &self.reach
    }

    pub(super) fn reach_mut(&mut self) -> &mut Reach {
        &mut self.reach
    }

    pub(super) fn budgets_mut(&mut self) -> &mut HandshakeBudgets {
        &mut self.budgets
    }

    pub(super) fn state(&self) -> LinkState {
        self.status.state()
    }

    pub(super) fn status_mut(&mut self) -> &mut LinkStatus {
        &mut self.status
    }

    /// Whether the peer is an unknown peer: not configured, and accepted by the policy for unknown
    /// peers.
    pub(super) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Whether keys are needed for the peer's link.
    pub(super) fn is_wanted(&self) -> bool {
        self.usage.is_wanted()
    }

    /// The result of the last handshake, with the identity that the peer has proved.
    pub(super) fn agreed(&self) -> Option<Agreed> {
        self.agreed
    }

    fn keys_age_ns(&self, now: Now) -> Option<u64> {
        self.keys_since.map(|since| now.0.saturating_sub(since.0))
    }

    /// Whether the link has been in its present state for longer than a handshake takes.
    pub(super) fn has_waited(&self, now: Now) -> bool {
        self.status.age_ns(now) >= HEARD_WITHIN_NS
    }

    /// Whether the rate limit allows one more initiation of the peer from another location. If so,
    /// the initiation is counted.
    pub(super) fn may_initiate_elsewhere(&mut self, now: Now) -> bool {
        self.elsewhere.take(now)
    }

    /// Sets the worker that opens the peer's frames from now on.
    pub(super) fn set_owner(&mut self, worker: u8) {
        self.owner = worker;
    }

    /// Passes an input to the session, and executes the session's outputs.
    pub(super) fn drive(
        &mut self,
        input: Input<'_>,
        by: Option<HandshakeOrigin>,
        link: &mut LinkContext<'_>,
    ) -> Result<(), Discard> {
        self.with_session(by, link, |session, context, outputs| {
            session.handle(context, input, outputs)
        })
    }

    /// Calls `work` with the session, and executes the session's outputs. Returns the reason if the
    /// session refused the message.
    pub(super) fn with_session(
        &mut self,
        by: Option<HandshakeOrigin>,
        link: &mut LinkContext<'_>,
        work: impl FnOnce(
            &mut Session,
            &mut Context<'_>,
            &mut Vec<Output>,
        ) -> Result<(), HandshakeError>,
    ) -> Result<(), Discard> {
        let Shared { config, keys, sessions, .. } = &mut *link.shared;
        let (mut outputs, mut drawn) = (Vec::new(), None);
        let mut context = Context {
            now: nanos(link.now),
            local: &config.local,
            entropy: &mut *config.entropy,
            indices: &mut |entropy| {
                drawn = sessions.indices().draw(entropy);
                drawn
            },
            is_free: &|key| keys.get(key).is_none(),
        };
        let taken = work(&mut self.session, &mut context, &mut outputs);
        // If an attempt has begun, its session index is the last one drawn.
        if let Some(index) = drawn.filter(|index| self.session.awaits(*index)) {
            sessions.await_answer(index, link.mark);
        }
        let key = self.session.peer().copied();
        if key != self.key {
            // The handshake has revealed the key, or has changed it.
            let former = std::mem::replace(&mut self.key, key);
            keys.replace(&config.local, link.mark, former, key);
        }
        for output in outputs {
            self.apply(output, by, link);
        }
        taken.map_err(|why| self.status.note_refusal(why, link))
    }

    fn apply(&mut self, output: Output, by: Option<HandshakeOrigin>, link: &mut LinkContext<'_>) {
        match output {
            Output::Send(message) => self.send_handshake(message, by, link),
            Output::Open { index, openers } => {
                let owner = by.map_or(self.owner, |by| by.worker);
                if let Some(by) = by {
                    self.reach.note_handshake(index, by, self.status.is_down());
                }
                let out = &mut link.base.out;
                link.shared.sessions.open(index, link.mark, owner, openers, out);
            }
            Output::Seal(keys) => {
                // The handshake is fresh and authentic, so the peer's frames arrive at the worker
                // that received it.
                self.owner = link.shared.sessions.owner_of(keys.index).unwrap_or(self.owner);
                self.install(*keys, link);
            }
            Output::Confirm => self.confirm(link),
            Output::Close(index) => link.shared.sessions.close(index, &mut link.base.out),
            Output::Expired => self.handle_expiry(link),
        }
    }

    /// Sends new keys to the workers.
    fn install(&mut self, keys: NewKeys, link: &mut LinkContext<'_>) {
        let NewKeys { sealers, agreement, peer: proven, confirmed, .. } = keys;
        // The XX response offers the same length to every peer, because the peer is not known yet.
        // Apply the limit that is configured for this peer here.
        let ours = self.spec.frame_bytes_max.min(FRAME_BYTES_MAX as u16);
        let agreed = agreement.mtu.bytes().min(ours);
        // Keep the path MTU over an idle time.
        let is_known = !self.status.is_down();
        let path = self.path.take().filter(|path| is_known && path.agreed() == agreed);
        let path = self.path.insert(path.unwrap_or_else(|| PathMtu::new(agreed)));
        let limit = path.limit();
        self.handshakes += 1;
        self.agreed = Some(Agreed {
            peer_id: proven.identity.peer_id(),
            seal: agreement.seal,
            frame_bytes_max: agreed,
        });
        self.keys_since = Some(link.now);
        self.liveness.note_keys();
        self.is_confirmed = confirmed;
        self.reach.note_keys();
        self.usage.note_keys(link.now);
        if self.status.is_up() {
            link.report(Event::Rekeyed);
        } else if confirmed && self.reach.is_validated() {
            self.set_state(LinkState::Up, link);
        }
        link.seal(sealers, limit);
    }

    /// Sends a handshake message. A response is sent to the source of the initiation. An initiation
    /// is sent to the peer's locations, not to the source of the datagram that caused it, because
    /// any datagram may have caused it (R8). The third message of XX is sent to the source of the
    /// response, if an initiation was sent there.
    fn send_handshake(
        &mut self,
        message: Vec<u8>,
        by: Option<HandshakeOrigin>,
        link: &mut LinkContext<'_>,
    ) {
        let Ok(header) = LinkHeader::parse(&message) else { return };
        if header.kind == Kind::Response {
            self.status.note_answer();
            return link.answer(self.owner, self.reach.location(), by, message);
        }
        let is_msg3 = Step::from_lane(header.lane) == Some(Step::Finish);
        let written = self.reach.written().filter(|_| !is_msg3 && self.status.is_silent(link.now));
        let alternate = written.and_then(|at| link.shared.alternates.location(at, link.base));
        let is_down = self.status.is_down();
        let to = self.reach.destinations(is_msg3, is_down, alternate);
        if let Some((first, _)) = to.first() {
            self.status.note_attempt(first.at, link.now);
        }
        link.send_all(self.owner, to, &message);
    }

    /// Sends a keepalive with the newest keys, which proves to the peer that this node has them. As
    /// long as the link has no validated address, the keepalive is sent to the source of the
    /// handshake message that produced the keys.
    fn confirm(&mut self, link: &mut LinkContext<'_>) {
        if let Some((port, to)) = self.reach.confirmation() {
            link.say(self.owner, Sealed::Data, port, to, &[]);
        }
    }

    /// Handles the first opened frame of a session.
    pub(super) fn handle_opened(&mut self, session: SessionIndex, link: &mut LinkContext<'_>) {
        let _ = self.drive(Input::Opened(session), None, link);
        if !self.session.is_up() {
            return;
        }
        // A keepalive under former keys does not show that the peer has the current ones.
        self.is_confirmed |= self.session.current_index() == Some(session);
        if self.is_confirmed && self.reach.is_validated() {
            self.set_state(LinkState::Up, link);
        }
    }

    /// Handles the validation of the peer's location: brings the link up if the peer has confirmed
    /// the keys.
    pub(super) fn handle_validated(&mut self, link: &mut LinkContext<'_>) {
        if self.is_confirmed && self.session.is_up() {
            self.set_state(LinkState::Up, link);
        }
    }

    /// Notes that the peer's new keys result from a handshake with this location, at which the peer
    /// has received this node's response. Returns the two locations if this shows that two nodes
    /// have the peer's key.
    pub(super) fn note_receipt(&mut self, at: Location, now: Now) -> Option<[Location; 2]> {
        let age_ns = self.keys_age_ns(now).unwrap_or(u64::MAX);
        self.reach.note_keys_from(at, age_ns, now)
    }

    /// Handles a path challenge from `from`: sends the response to that location, even if it is not
    /// the peer's. The response is no longer than the challenge.
    pub(super) fn respond(
        &mut self,
        token: &[u8; TOKEN_BYTES],
        from: Location,
        frame: &Frame,
        link: &mut LinkContext<'_>,
    ) {
        self.reach.respond(from, frame.len() + TAG_BYTES);
        link.respond(self.owner, from, token);
    }

    /// Handles a response to a path challenge from `from`. Returns the location that it validates,
    /// if any.
    pub(super) fn handle_path_response(
        &mut self,
        token: &[u8],
        from: Option<Location>,
        link: &mut LinkContext<'_>,
    ) -> Option<Location> {
        let validated = self.reach.take_response(token, from);
        if validated.is_some() {
            self.is_confirmed = true;
        } else if from == self.reach.location()
            && let Some(path) = &mut self.path
        {
            let before = path.limit();
            if path.handle_response(token, nanos(link.now)) {
                let limit = path.limit();
                self.publish_limit(before, limit, link);
                self.poll_path(link);
            }
        }
        validated
    }

    /// Notes that a message of the link itself has arrived.
    pub(super) fn note_message(&mut self, now: Now) {
        self.liveness.note_message(now);
    }

    /// Sends a path challenge to `to`, or to the peer's location.
    pub(super) fn challenge(&mut self, to: Option<Location>, link: &mut LinkContext<'_>) {
        let entropy = &mut *link.shared.config.entropy;
        if let Some(challenge) = self.reach.challenge(to, link.now, entropy) {
            link.challenge(self.owner, challenge);
        }
    }

    /// Resets the path MTU: the link uses another path.
    pub(super) fn forget_path(&mut self, link: &mut LinkContext<'_>) {
        let Some(path) = &mut self.path else { return };
        let (before, agreed) = (path.limit(), path.agreed());
        *path = PathMtu::new(agreed);
        let limit = path.limit();
        self.publish_limit(before, limit, link);
    }

    /// Sends a new limit to the workers, and reports a limit that a search has found.
    fn publish_limit(&mut self, before: u16, limit: u16, link: &mut LinkContext<'_>) {
        let mark = link.mark;
        if before != limit {
            link.command_all(|_| Command::SetMtu(mark, limit));
        }
        let slot = link.base.slots.slot_of(mark);
        if let (Some(slot), Some(path)) = (slot, self.path.as_mut()) {
            link.base.out.events.extend(path.news().map(|bytes| Event::PathMtu(slot, bytes)));
        }
    }

    /// Notes that keys are needed for the link: the session begins a handshake when one is due.
    /// This call has no effect for unknown peers, and for peers whose location is unknown. Those
    /// peers must begin the handshake.
    pub(super) fn want(&mut self, link: &mut LinkContext<'_>) {
        if !self.is_unknown && self.reach.is_somewhere() {
            self.seek(link);
        }
    }

    /// As [`want`](Self::want), but for every peer.
    pub(super) fn seek(&mut self, link: &mut LinkContext<'_>) {
        if self.usage.want(link.now) {
            // This cannot fail: `Wanted` contains no message that could be refused.
            let _ = self.drive(Input::Wanted, None, link);
        }
    }

    /// Handles a frame that was to be sent on a link without keys.
    pub(super) fn wake(&mut self, link: &mut LinkContext<'_>) {
        self.usage.note_call(link.now);
        self.want(link);
    }

    /// Begins one handshake, and requests no later ones.
    pub(super) fn request_keys(&mut self, link: &mut LinkContext<'_>) {
        if !self.is_unknown && self.reach.is_somewhere() {
            let _ = self.drive(Input::Wanted, None, link);
            let _ = self.drive(Input::Unwanted, None, link);
        }
    }

    /// Handles a goodbye from the peer. The link goes down, and this node begins no handshake for
    /// the requested time. A time below a second counts as a second, and a time above an hour as an
    /// hour.
    pub(super) fn handle_goodbye(&mut self, retry_after_s: u32, link: &mut LinkContext<'_>) {
        let back_off_s = retry_after_s.clamp(GOODBYE_RETRY_S_MIN, GOODBYE_RETRY_S_MAX);
        let until = nanos(link.now).plus(Nanos::from_secs(u64::from(back_off_s)));
        let _ = self.with_session(None, link, |session, _, outputs| {
            session.back_off_until(until, outputs);
            Ok(())
        });
        self.set_state(LinkState::Down, link);
        let reason = DownReason::Goodbye { until: Now(until.0), pause_s: back_off_s };
        self.status.note_reason(reason, link.now);
        self.want(link);
        let _ = self.drive(Input::Lost, None, link);
    }

    /// Handles keys that are too old to seal with.
    fn handle_expiry(&mut self, link: &mut LinkContext<'_>) {
        let mark = link.mark;
        link.command_all(|_| Command::Unseal(mark));
        // The link becomes idle if it is up, this node may begin a handshake, and keys have not
        // been needed for longer than a handshake takes. Otherwise it goes down.
        let may_come = !self.is_unknown && self.reach.is_somewhere();
        if self.status.is_up() && may_come && !self.usage.has_waited(link.now) {
            return self.set_state(LinkState::Idle, link);
        }
        self.reach.invalidate();
        self.set_state(LinkState::Down, link);
        self.drop_pending(link);
    }

    /// Drops the frames that wait for keys of this link.
    fn drop_pending(&mut self, link: &mut LinkContext<'_>) {
        let mark = link.mark;
        link.command_all(|_| Command::DropPending(mark));
    }

    fn set_state(&mut self, state: LinkState, link: &mut LinkContext<'_>) {
        if self.status.change(state, link) {
            self.reach.forget_attempts();
            self.reach.suggested.next = None;
            if state == LinkState::Down {
                self.drop_pending(link);
            }
        }
    }

    /// Handles expired timers and the link's counters.
    pub(super) fn poll(&mut self, link: &mut LinkContext<'_>) {
        if self.session.next_timeout().is_some_and(|due| due <= nanos(link.now)) {
            let _ = self.drive(Input::Tick, None, link);
        }
        if self.age_due().is_some_and(|due| due <= nanos(link.now)) {
            self.handle_expiry(link);
        }
        self.poll_usage(link);
        self.poll_path(link);
        self.poll_liveness(link);
        self.poll_validation(link);
        self.status.report_trouble(self.reach.is_somewhere(), link);
    }

    fn poll_usage(&mut self, link: &mut LinkContext<'_>) {
        let Some(user) = link.base.slots.user(link.mark) else { return };
        let data = DataFrames::of(&user.tallies);
        match self.usage.poll(data, self.status.state(), self.spec.liveness.always, link.now) {
            UsageStep::Nothing => (),
            UsageStep::Wake => self.wake(link),
            UsageStep::Want => self.want(link),
            UsageStep::Unwant => {
                let _ = self.drive(Input::Unwanted, None, link);
            }
            UsageStep::GiveUp => self.set_state(LinkState::Down, link),
        }
    }

    fn poll_path(&mut self, link: &mut LinkContext<'_>) {
        let Some(at) = self.reach.location() else { return };
        let age_ns = self.keys_age_ns(link.now).unwrap_or(0);
        let Some(path) = &mut self.path else { return };
        if !self.status.is_up() || age_ns >= PROBES_UNTIL.0 {
            return path.pause();
        }
        let Some(token) = link.token() else { return };
        let before = path.limit();
        let probe = path.poll(nanos(link.now), self.usage.crossed(link.now), token);
        let limit = path.limit();
        if let Some(probe) = probe {
            link.probe(self.owner, at, probe);
        }
        self.publish_limit(before, limit, link);
    }

    fn poll_liveness(&mut self, link: &mut LinkContext<'_>) {
        let Some(user) = link.base.slots.user(link.mark) else { return };
        let traffic = Traffic::of(&user.tallies);
        if !self.status.is_up() {
            return self.liveness.skip(traffic);
        }
        let step = self.liveness.poll(self.spec.liveness, traffic, self.keys_since, link.now);
        match step {
            LivenessStep::Wait => (),
            LivenessStep::Probe => self.challenge(None, link),
            LivenessStep::Down => {
                self.set_state(LinkState::Down, link);
                self.want(link);
                // Keep the keys, which still open late frames. The new handshake tests whether the
                // peer is reachable.
                let _ = self.drive(Input::Lost, None, link);
            }
        }
    }

    /// Sends path challenges on a link that has keys but no validated address. If validation takes
    /// too long, begins a new handshake.
    fn poll_validation(&mut self, link: &mut LinkContext<'_>) {
        if !self.lacks_validation() {
            return;
        }
        let age_ns = self.keys_age_ns(link.now).unwrap_or(0);
        match self.reach.poll_validation(age_ns, link.now) {
            Validation::Wait | Validation::Restarted => (),
            Validation::Challenge(to) => self.challenge(Some(to), link),
            Validation::Restart => {
                self.drop_pending(link);
                let _ = self.drive(Input::Lost, None, link);
            }
        }
    }

    fn lacks_validation(&self) -> bool {
        !self.status.is_up() && !self.reach.is_validated() && self.session.is_up()
    }

    /// Whether the link has been down so long that the peer returns to its configured location.
    pub(super) fn is_lost(&self, now: Now) -> bool {
        self.return_due().is_some_and(|due| due <= nanos(now))
    }

    /// Whether this is an unknown peer whose link has been down for the detection time, and for at
    /// least five seconds. Such a peer loses its slot, even if its link was never up, and may begin
    /// a new handshake.
    pub(super) fn is_gone(&self, now: Now) -> bool {
        self.expiry_due().is_some_and(|due| due <= nanos(now))
    }

    /// The time at which [`poll`](Self::poll) has work for the session.
    pub(super) fn session_due(&self) -> Option<Nanos> {
        self.session.next_timeout()
    }

    /// The time at which [`poll`](Self::poll) has other work than that of
    /// [`session_due`](Self::session_due), or at which [`is_lost`](Self::is_lost) or
    /// [`is_gone`](Self::is_gone) changes, provided that the link carries no frame until then.
    pub(super) fn next_timeout(&self, mark: Mark, base: &Base) -> Option<Nanos> {
        let now = base.clock.now();
        let always = self.spec.liveness.always;
        let traffic = || Some(Traffic::of(&base.slots.user(mark)?.tallies));
        let liveness = self
            .status
            .is_up()
            .then(|| self.liveness.next_timeout(self.spec.liveness, traffic, self.keys_since));
        let validation =
            self.lacks_validation().then(|| self.reach.validation_due(self.keys_since));
        let parts = [
            self.age_due(),
            self.usage.next_timeout(self.status.state(), always),
            self.path_due(now),
            liveness.flatten(),
            validation.flatten(),
            self.return_due(),
            self.status.trouble_due(self.reach.is_somewhere(), now),
            self.expiry_due(),
        ];
        parts.into_iter().flatten().min()
    }

    /// The time at which the newest keys are too old to seal with. `None` unless a recovery has
    /// removed the session's record of these keys.
    fn age_due(&self) -> Option<Nanos> {
        let is_unknown = self.status.is_up() && !self.session.is_up();
        let since = self.keys_since.map_or(Nanos::ZERO, nanos);
        is_unknown.then(|| since.plus(SEAL_REFUSED_AFTER))
    }

    fn path_due(&self, now: Now) -> Option<Nanos> {
        let is_open = self.status.is_up() && self.reach.location().is_some();
        let path = self.path.as_ref().filter(|_| is_open)?;
        let due = path.next_timeout(self.usage.crossed(now))?;
        let until = self.keys_since.map(|since| nanos(since).plus(PROBES_UNTIL));
        Some(due).filter(|due| until.is_none_or(|until| *due < until))
    }

    fn return_due(&self) -> Option<Nanos> {
        let is_down = self.status.is_down();
        self.reach.return_due(self.status.since()).filter(|_| is_down)
    }

    fn expiry_due(&self) -> Option<Nanos> {
        let waits = self.is_unknown && !self.status.is_up();
        let for_ns = self.spec.liveness.detection_ns().max(HEARD_WITHIN_NS);
        waits.then(|| nanos(self.status.since()).plus(Nanos(for_ns)))
    }

    /// The view of the link.
    pub(super) fn view(&self, slot: Slot, now: Now) -> PeerView {
        let suggested = self.reach.suggested.address();
        PeerView {
            name: self.spec.name.clone(),
            slot,
            key: self.key,
            port: self.reach.port(),
            at: self.reach.location().map(|location| location.at),
            key_on_two_nodes: self.reach.conflict(now).map(|two| two.map(|location| location.at)),
            suggested: suggested.filter(|_| self.status.is_down()),
            state: self.status.shown(),
            down: self.status.reason(self.reach.is_somewhere(), now),
            rights: self.spec.rights,
            keys_since: self.keys_since,
            handshakes: self.handshakes,
            agreed: self.agreed,
            frame_bytes_max: self.path.as_ref().map(PathMtu::limit),
            is_path_found: self.path.as_ref().is_some_and(PathMtu::is_found),
            is_unknown: self.is_unknown,
        }
    }

    /// Resets the state that a panic of the slow path may have left half changed. The peer keeps
    /// its slot, its key and its address. The session must negotiate new keys.
    pub(super) fn reset(&mut self, workers: usize) {
        self.key = self.session.peer().copied();
        self.session.reset();
        self.reach.reset();
        self.liveness.reset();
        if usize::from(self.owner) >= workers {
            self.owner = 0;
        }
    }
}
