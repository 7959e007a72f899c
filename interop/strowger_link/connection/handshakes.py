"""Attempts, generations of keys and confirmation of one connection (wire.md 4.1 to 4.5, 6.3, 6.8)."""

import random
from dataclasses import dataclass, field

from .. import handshake
from ..domain import CONNECTION
from ..hello import Disagreement, Malformed
from ..identity import BadIdentity, check_proof
from ..linkheader import STEP_IK
from ..primitives import Unreadable
from ..transport import OPEN_END_S, SEAL_END_S, Discarded
from . import fields, packets

ATTEMPT_S, ATTEMPTS_MAX, LABELS_AT_ONCE, STAGGER_S = 10.0, 3, 3, 0.15  # W4-10, W6-14
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.4, 3.0  # W6-15
DOUBLED_MAX_S, JITTERED_MAX_S = 6.4, 8.0  # W6-123
REKEY_INITIATOR_S, REKEY_RESPONDER_S, REKEY_SPACING_S = 120.0, 140.0, 5.0  # W4-104
CONFIRMATIONS_MAX, THIRDS_MAX = 20, 6  # W4-98
OTHER_IDENTITY_S, COOKIE_S, NEXT_MAX = 16.0, 120.0, 3


@dataclass
class Attempt:
    """An initiation that awaits its answer."""

    noise: object
    hello: object
    message: bytes
    sent: float
    labels: list  # (label, bits), in the order of sending
    later: list = field(default_factory=list)  # (time, label, bits) of further copies (W6-14)
    spent: bool = False  # a response of IKpsk2 was decrypted and refused
    early: object = None


class Handshakes:
    """The keys of a connection. `Connection` adds what crosses it."""

    def __init__(self, endpoint, key, public):
        self.endpoint, self.key, self.public = endpoint, key, public
        self.found_by_xx = key is None  # W6-122
        self.current, self.next, self.previous, self.attempts = None, [], [], []
        self.retry_at, self.attempts_made, self.not_before = None, 0, 0.0
        self.confirm_at, self.confirmations = None, 0
        self.third, self.third_labels, self.thirds_sent = None, [], 0
        self.cookie, self.cookie_until = None, 0.0
        self.last_initiation, self.last_step, self.last_handshake_s = -1e9, None, 0.0
        self.handshake_rtt = None
        self.keepalive_sent = -1e9
        self.opened_ever = False  # a packet was opened in this connection
        self.gone = False
        self.handshakes = self.restarts = 0

    @property
    def now(self):
        """The time of the endpoint."""
        return self.endpoint.clock()

    def can_seal(self):
        """Whether there are keys that seal (W3-10)."""
        return self.current is not None and self.current.age(self.now) < SEAL_END_S

    # Initiator (W4-95)

    def begin(self):
        """Sends an initiation: by static key if it is known, by PeerId or label alone otherwise."""
        now = self.now
        targets = self.paths_for_handshake()[:LABELS_AT_ONCE]
        if not targets:
            self.retry_at = now + 1.0
            return
        if len(self.attempts) == ATTEMPTS_MAX:
            self.forget(self.attempts[0])
        use_xx = self.key is None or self.endpoint.hide_identity  # W6-199
        if self.found_by_xx and self.gone and self.attempts_made % 2 == 1:
            use_xx = True  # W6-122: by static key first
        cookie = self.cookie if now < self.cookie_until else None
        endpoint, early = self.endpoint, None
        index = endpoint.new_index()
        if use_xx:
            hello = self.make_hello(index)
            noise = handshake.XxInitiator(
                endpoint.identity, endpoint.network, mac_key=self.public or handshake.XX_MAC_KEY
            )
            message = noise.first(index, cookie)
        else:
            early = self.early_for_attempt()
            hello = self.make_hello(index, timestamp=endpoint.new_timestamp(), early=early)
            noise = handshake.IkInitiator(endpoint.identity, endpoint.network, self.key)
            message = noise.initiation(hello, cookie)
        attempt = Attempt(noise, hello, message, now, [], early=early)
        for number, path in enumerate(targets):
            attempt.later.append((now + number * STAGGER_S, path.label, path.bits))
        self.attempts.append(attempt)
        endpoint.attempts[index] = (self, attempt)
        self.last_initiation, self.last_step = now, noise.step
        self.attempts_made += 1
        self.retry_at = now + self._interval()
        if self.gone and self.can_seal():
            self.paths.start_challenge(self.paths.active, now)  # W6-186
        self.send_copies(attempt)

    def send_copies(self, attempt):
        """The copies of an initiation that are due (W6-14)."""
        for entry in [one for one in attempt.later if one[0] <= self.now]:
            attempt.later.remove(entry)
            attempt.labels.append(entry[1:])
            self.endpoint.send(entry[1], attempt.message, bits=entry[2], flow=self.flow(0, 0))

    def _interval(self):
        """W6-15, W6-123."""
        interval = min(max(INTERVAL_MIN_S, 1.5 * self.last_handshake_s), INTERVAL_MAX_S)
        doublings = self.attempts_made - 1
        if self.can_seal():
            doublings = min(doublings, 1)
        interval = min(interval * 2**doublings, max(DOUBLED_MAX_S, interval))
        return min(interval * random.uniform(1.0, 1.25), JITTERED_MAX_S)

    def forget(self, attempt):
        """An answer to this attempt is `no_session` from now on."""
        self.attempts.remove(attempt)
        self.endpoint.attempts.pop(attempt.hello.index, None)

    def forget_attempts(self):
        """Forgets all attempts (W4-81)."""
        for attempt in list(self.attempts):
            self.forget(attempt)

    def on_cookie(self, cookie):
        """Keeps the cookie for the next messages of kind 1 (W4-78)."""
        self.cookie, self.cookie_until = cookie, self.now + COOKIE_S

    def on_response(self, attempt, arrival):
        """Reads a response; raises `Discarded`. The attempt then stays (W4-87, W4-95, W6-11)."""
        packet, noise = arrival.payload, attempt.noise
        xx = noise.step != STEP_IK
        if attempt.spent:
            raise Discarded("handshake_unreadable")
        try:
            if xx:
                peer_key, hello, state = noise.read_second(packet)
            else:
                hello, keys = noise.read_response(packet)
                peer_key, attempt.spent = self.key, True
            entries, stated = fields.check(hello, second_of_xx=xx)
        except handshake.BadMac as error:
            raise Discarded("handshake_mac") from error
        except Unreadable as error:
            raise Discarded("handshake_unreadable") from error
        except Malformed as error:
            attempt.spent = not xx
            raise Discarded("handshake_malformed") from error
        if peer_key == self.endpoint.identity.static_key:
            raise Discarded("handshake_ourselves")
        try:
            public = check_proof(hello.proof, peer_key, CONNECTION)
        except BadIdentity as error:
            raise Discarded("handshake_identity") from error
        if public != (self.public or public):
            self.failed_stage = "another identity"
            if not xx:
                self.forget(attempt)
                self.not_before = self.now + OTHER_IDENTITY_S
            raise Discarded("handshake_identity")
        try:
            agreement = fields.agreement(attempt.hello, hello)
        except Disagreement as error:
            self.failed_stage = "disagreement"
            raise Discarded("handshake_disagreement") from error
        own = attempt.hello
        if xx:
            own = self.make_hello(own.index, timestamp=self.endpoint.new_timestamp())
            cookie = self.cookie if self.now < self.cookie_until else None
            third, keys = noise.third(state, hello, own, cookie)
        if not self.endpoint.adopt(self, public):
            raise Discarded("handshake_identity")  # it already has a connection (W6-134)
        self.key, self.public = peer_key, public
        self.last_handshake_s = self.handshake_rtt = self.now - attempt.sent
        generation = packets.Generation(
            keys, own, hello, agreement, CONNECTION, initiator=True, step=noise.step, born=self.now
        )
        generation.duration_s, generation.early = self.last_handshake_s, attempt.early
        generation.opened_before = self.opened_ever
        self.forget_attempts()
        self.endpoint.sessions[generation.own_index] = (self, generation)
        self.validate_by_response(attempt, arrival)
        self._make_current(generation)
        self.confirmations, self.third = 0, None
        if xx:
            self.third, self.thirds_sent = third, 0
            sent_by = [one for one in attempt.labels if one == (arrival.back, arrival.header.bits)]
            self.third_labels = sent_by or attempt.labels
            self._send_third()
            self.confirm_at = self.now + 0.2
        else:
            self._send_confirmation()
        self.on_keys(generation, entries, stated)

    def _send_third(self):
        self.thirds_sent += 1
        for label, bits in self.third_labels:
            self.endpoint.send(label, self.third, bits=bits, flow=self.flow(0, 0))

    def _send_confirmation(self):
        """W4-98; after XX the third message again."""
        self.confirmations += 1
        if self.third is not None and self.confirmations > 1:
            if self.thirds_sent == THIRDS_MAX:
                self.third = None
                self.peer_is_gone()
            else:
                self._send_third()
        self.send_keepalive()
        more = self.confirmations < CONFIRMATIONS_MAX
        self.confirm_at = self.now + 1.0 if more else None

    def send_keepalive(self):
        """A sealed packet with an empty body (W6-9)."""
        self.keepalive_sent = self.now
        self.send_sealed(packets.SEALED, b"")

    # Responder (W4-96)

    def own_handshake_goes_on(self, key):
        """W4-99: a valid initiation of the peer gets no response."""
        if not self.endpoint.identity.static_key < key:
            return False
        recent = self.now - self.last_initiation < 1.0
        if self.attempts and recent and self.last_step == STEP_IK:
            if self.can_seal() or self.attempts_made == 1:
                return True
        current = self.current
        return (
            current is not None
            and current.initiator
            and current.step == STEP_IK
            and current.age(self.now) < 1.0
            and not self.gone
        )

    def answered(self, keys, own, hello, read, agreement, step, arrival):
        """Keys of a handshake that this end has answered are *next* (W4-12)."""
        generation = packets.Generation(
            keys, own, hello, agreement, CONNECTION, initiator=False, step=step, born=self.now
        )
        generation.entries, generation.stated = read
        generation.answered_labels, generation.early = [(arrival.back, arrival.header.bits)], None
        generation.opened_before, generation.initiation_bytes = self.opened_ever, arrival.length
        self.endpoint.sessions[generation.own_index] = (self, generation)
        self.next.append(generation)
        if len(self.next) > NEXT_MAX:
            self._drop(self.next.pop(0))
        return generation

    # Generations (wire.md 4.2)

    def _drop(self, generation):
        self.endpoint.sessions.pop(generation.own_index, None)

    def _make_current(self, generation):
        """W4-91, W4-92, W4-93."""
        former, dropped = self.current, []
        if generation in self.next:
            position = self.next.index(generation)
            dropped += self.next[:position]
            del self.next[: position + 1]
        elif generation.initiator:
            dropped += self.next
            self.next = []
        if former is not None:
            young = former.age(self.now) < max(5.0, 2 * self.last_handshake_s)
            keep = self.previous[-1:] if young else []
            dropped += [old for old in self.previous if old not in keep]
            self.previous = [*keep, former]
        for old in dropped:
            self._drop(old)
        self.current = generation
        self.handshakes += 1
        self.gone = False
        self.retry_at, self.attempts_made, self.not_before = None, 0, 0.0

    def drop_earlier_keys(self):
        """The peer has restarted (W6-140)."""
        for old in self.previous:
            self._drop(old)
        self.previous = []

    def drop_all_keys(self):
        """The connection ends."""
        self.forget_attempts()
        for old in [*self.next, *self.previous, self.current]:
            if old is not None:
                self._drop(old)
        self.next, self.previous, self.current = [], [], None
        self.confirm_at = self.third = None

    def _own_keys_win(self, generation):
        """W4-100."""
        current = self.current
        if current is None or not current.initiator or current.step != STEP_IK or self.gone:
            return False
        if current.age(self.now) >= max(5.0, 2 * current.duration_s):
            return False
        smaller = self.endpoint.identity.static_key < self.key
        return smaller or generation.step != STEP_IK

    def used(self, generation, arrival):
        """A packet was opened under these keys (W4-96, W4-102)."""
        first, generation.confirmed = not generation.confirmed, True
        if generation in self.next:
            if not self._own_keys_win(generation):
                self.key = generation.peer_key
                self._make_current(generation)
                self.forget_attempts()
                self.confirm_at = self.third = None
                self.validate_by_first_packet(generation, arrival)
                self.on_keys(generation, generation.entries, generation.stated)
                self.send_keepalive()
        elif generation is self.current and generation.initiator and first:
            self.confirm_at = self.third = None
        self.opened_ever = True

    def answer_keepalive(self, generation):
        """W4-101."""
        responder = generation is self.current and not generation.initiator
        if responder and self.now - self.keepalive_sent >= 0.5:
            self.send_keepalive()

    # Time (W4-97)

    def tick_handshakes(self):
        """Does what is due."""
        now = self.now
        for attempt in list(self.attempts):
            if now - attempt.sent >= ATTEMPT_S:
                self.forget(attempt)
            else:
                self.send_copies(attempt)
        for generation in [*self.next, *self.previous, self.current]:
            if generation is not None and generation.age(now) >= OPEN_END_S:
                self._drop(generation)
                self.next = [one for one in self.next if one is not generation]
                self.previous = [one for one in self.previous if one is not generation]
                self.current = None if generation is self.current else self.current
        if self.confirm_at is not None and now >= self.confirm_at:
            self._send_confirmation()
        if now >= self.not_before and self.keys_are_wanted() and self._is_due(now):
            self.begin()

    def _is_due(self, now):
        if self.retry_at is not None:
            return now >= self.retry_at
        if not self.can_seal():
            return True
        current = self.current
        limit = REKEY_INITIATOR_S if current.initiator else REKEY_RESPONDER_S
        spaced = current.age(now) >= REKEY_SPACING_S
        worn = any(count >= packets.RENEW_PACKETS for count in current.counters)
        return current.age(now) >= limit or (spaced and (worn or self.gone))
