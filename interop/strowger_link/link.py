"""A link with one peer: keys, states, timers, validation and control messages (wire.md 4.1 to 4.6).

A link has no thread. `Node.poll` calls it with each packet, and `tick` as time passes.
"""

import random
from dataclasses import dataclass

from . import control, handshake, paths
from . import label as labels
from .header import Packet, SwitchHeader
from .hello import Disagreement, Malformed, agree
from .identity import BadIdentity, check_proof
from .linkheader import ANSWER, CHALLENGE, PACKET_BYTES_MAX
from .primitives import Unreadable
from .transport import OPEN_END_S, Discarded, Generation

ATTEMPT_S, ATTEMPTS_MAX = 10.0, 3  # W4-10
REKEY_INITIATOR_S, REKEY_RESPONDER_S, REKEY_SPACING_S = 120.0, 140.0, 5.0  # W4-104
IN_USE_S = 60.0  # W4-103
SILENT_S, SILENT_STEP_S, DETECTION_S = 5.0, 3.3, 15.0  # W4-108
CONFIRMATIONS_MAX = 20  # W4-98
WAITING_MAX, WAITING_S = 4, 10.0  # W4-106
OTHER_IDENTITY_S = 16.0
COOKIE_S = 120.0
DATA_BYTES_FIRST = 1452  # before the path MTU is known


@dataclass
class Attempt:
    """An initiation that awaits its answer."""

    handshake: object
    hello: object
    sent: float
    addresses: tuple
    spent: bool = False  # a response was decrypted and refused


class Link:
    """One peer of a node. `address` is configured; without it the peer begins."""

    def __init__(self, node, *, key=None, public=None, psk=handshake.NO_PSK, address=None,
                 hello=None, always=False, unknown=False):  # fmt: skip
        self.node, self.key, self.public, self.psk = node, key, public, psk
        self.hello = hello or node.hello
        self.always, self.unknown = always, unknown
        self.paths = paths.Paths(address)
        self.up = False
        self.found_by_xx = key is None
        # 4.2
        self.current, self.next, self.previous, self.attempts = None, [], [], []
        self.timestamp_sent = self.timestamp_accepted = 0
        self.agreement = self.peer_hello = None
        # Timers; None is a timer that does not run.
        self.retry_at, self.attempts_made, self.not_before = None, 0, 0.0
        self.confirm_at, self.confirmations, self.third, self.third_address = None, 0, None, None
        self.cookie, self.cookie_until = None, 0.0
        self.last_initiation, self.last_step = -1e9, None
        self.last_handshake_s = 0.0
        self.initiated_to = set()  # addresses of initiations since the link went up or down
        self.keepalive_sent = -1e9
        self.last_data = self.last_heard = -1e9
        self.unanswered_since, self.probes_sent, self.found_silent = None, 0, False
        self.validation_began = self.validation_at = None
        self.wanted_at_start = address is not None
        self.waiting, self.waiting_since = [], None
        # What tests and the command line look at
        self.bodies, self.inbox, self.replies, self.errors, self.goodbyes = [], [], [], [], []
        self.handshakes = self.rekeys = self.keepalives_opened = 0
        self.challenges_received, self.responses_received = [], []
        self._requests, self._sent_headers, self._next_id = {}, [], random.getrandbits(31)

    # Facts

    @property
    def now(self):
        """The time of the node."""
        return self.node.clock()

    @property
    def ours_is_smaller(self):
        """Whether the static key of this end is the smaller (wire.md 4.5)."""
        return self.node.identity.static_key < self.key

    def can_seal(self):
        """Whether there are keys that seal."""
        return self.current is not None and self.current.may_seal(self.now)

    def keys_are_wanted(self):
        """W4-103."""
        if self.paths.address is None:
            return False
        return (
            self.always
            or self.wanted_at_start
            or bool(self.waiting)
            or self.found_silent
            or self.now - self.last_data < IN_USE_S
        )

    # Initiator (W4-95)

    def begin(self):
        """Begins a handshake now: IKpsk2 if the peer's key is known, otherwise XX (W4-1)."""
        now = self.now
        if len(self.attempts) == ATTEMPTS_MAX:
            self._forget(self.attempts[0])
        cookie = self.cookie if now < self.cookie_until else None
        hello = self.hello.with_(
            index=self.node.new_index(),
            timestamp=self.new_timestamp(),
            proof=self.node.identity.proof(),
        )
        use_xx = self.key is None
        if self.found_by_xx and self.found_silent and self.attempts_made % 2 == 0:
            use_xx = True  # W4-8
        if use_xx:
            noise = handshake.XxInitiator(self.node.identity, self.node.network)
            message = noise.first(hello.index, cookie)
        else:
            noise = handshake.IkInitiator(self.node.identity, self.node.network, self.key, self.psk)
            message = noise.initiation(hello, cookie)
        # W4-109
        targets = [self.paths.address]
        if not self.up and self.paths.configured not in (None, self.paths.address):
            targets.append(self.paths.configured)
        attempt = Attempt(noise, hello, now, tuple(targets))
        self.attempts.append(attempt)
        self.node.attempts[hello.index] = (self, attempt)
        self.last_initiation, self.last_step = now, noise.step
        self.initiated_to.update(targets)
        self.attempts_made += 1
        self.retry_at = now + self._interval()
        for address in targets:
            self.node.send(message, address)

    def _interval(self):
        """W4-11, W4-82, W4-83."""
        interval = min(max(1.0, 1.5 * self.last_handshake_s), 4.0)
        doublings = (self.attempts_made - 1) // 3
        if self.can_seal():
            doublings = min(doublings, 1)
        interval = min(interval * 2**doublings, 16.0)
        return min(interval * random.uniform(1.0, 4 / 3), 16.0)

    def new_timestamp(self):
        """A timestamp that this peer has not seen (W4-71)."""
        self.timestamp_sent = max(self.node.wall_clock_ns(), self.timestamp_sent + 1)
        return self.timestamp_sent

    def _forget(self, attempt):
        self.attempts.remove(attempt)
        self.node.attempts.pop(attempt.hello.index, None)

    def forget_attempts(self):
        """Forgets all attempts (W4-81)."""
        for attempt in list(self.attempts):
            self._forget(attempt)

    def on_cookie(self, cookie):
        """Keeps the cookie for the next messages of kind 1 (W4-78)."""
        self.cookie, self.cookie_until = cookie, self.now + COOKIE_S

    def on_response(self, attempt, packet, address):
        """Reads the answer to an attempt (W4-95). Raises `Discarded`; the attempt then stays."""
        xx = attempt.handshake.step == handshake.STEP_XX
        if attempt.spent:
            raise Discarded("handshake_unreadable")  # only the peer can have made the first one
        try:
            if xx:
                peer_key, hello, state = attempt.handshake.read_second(packet)
            else:
                peer_key = self.key
                hello, keys = attempt.handshake.read_response(packet)
        except handshake.BadMac as error:
            raise Discarded("handshake_mac") from error
        except Unreadable as error:
            raise Discarded("handshake_unreadable") from error
        except Malformed as error:
            attempt.spent = not xx
            raise Discarded("handshake_malformed") from error
        attempt.spent = not xx
        if peer_key == self.node.identity.static_key:
            raise Discarded("handshake_ourselves")
        try:
            public = check_proof(hello.proof, peer_key)
        except BadIdentity as error:
            raise Discarded("handshake_identity") from error
        if public != (self.public or public) or (xx and peer_key != (self.key or peer_key)):
            if not xx:
                self._forget(attempt)
                self.not_before = self.now + OTHER_IDENTITY_S
            raise Discarded("handshake_identity")
        try:
            agreement = agree(attempt.hello, hello)
        except Disagreement as error:
            raise Discarded("handshake_disagreement") from error
        if xx:
            own = attempt.hello.with_(timestamp=self.new_timestamp())  # W4-55
            cookie = self.cookie if self.now < self.cookie_until else None
            third, keys = attempt.handshake.third(state, hello, own, cookie)
        self.key, self.public = peer_key, public
        self.last_handshake_s = self.now - attempt.sent
        generation = Generation(
            keys, attempt.hello, hello, agreement,
            initiator=True, step=attempt.handshake.step, born=self.now,
        )  # fmt: skip
        generation.duration_s = self.last_handshake_s
        self.forget_attempts()
        self.peer_hello = hello
        self.paths.handshake_source = address
        # W3-23, second case
        if self.initiated_to == {address} and not self.paths.validated:
            self.paths.validate(address)
        self.node.sessions[generation.own_index] = (self, generation)
        self._make_current(generation)
        self.confirmations = 0
        if xx:
            self.third, self.third_address, self.third_sent = third, address, 1
            self.node.send(third, address)
            self.confirm_at = self.now + 0.2
        else:
            self.third = None
            self._send_confirmation()
            self._consider_up()

    def _send_confirmation(self):
        """W4-98; after XX the third message again (W4-95)."""
        self.confirmations += 1
        if self.third is not None and self.confirmations > 1:
            if self.third_sent == 6:
                self.third, self.found_silent = None, True
                self.begin()
            else:
                self.third_sent += 1
                self.node.send(self.third, self.third_address)
        self.send_keepalive()
        more = self.confirmations < CONFIRMATIONS_MAX
        self.confirm_at = self.now + 1.0 if more else None

    # Responder (W4-96)

    def own_handshake_goes_on(self):
        """W4-99: a valid initiation of the peer gets no response."""
        if not self.ours_is_smaller:
            return False
        recent = self.now - self.last_initiation < 1.0
        if self.attempts and recent and self.last_step == handshake.STEP_IK:
            if self.can_seal() or self.attempts_made == 1:
                return True
        current = self.current
        return (
            current is not None
            and current.initiator
            and current.step == handshake.STEP_IK
            and self.now - current.born < 1.0
            and not self.found_silent
        )

    def answered(self, keys, own_hello, peer_hello, agreement, step, address):
        """Keys of a handshake that this end has answered are *next* (W4-12)."""
        generation = Generation(
            keys, own_hello, peer_hello, agreement, initiator=False, step=step, born=self.now
        )
        generation.answered_to, generation.peer_hello = address, peer_hello
        self.node.sessions[generation.own_index] = (self, generation)
        self.next.append(generation)
        if len(self.next) > 3:
            self.node.sessions.pop(self.next.pop(0).own_index, None)
        self.paths.handshake_source = address

    # Generations (wire.md 4.2)

    def _make_current(self, generation):
        """W4-91, W4-92, W4-93."""
        former = self.current
        dropped = []
        if generation in self.next:
            position = self.next.index(generation)
            dropped += self.next[:position]
            del self.next[: position + 1]
        elif generation.initiator:
            dropped += self.next
            self.next = []
        if former is not None:
            young = self.now - former.born < max(5.0, 2 * self.last_handshake_s)
            keep = self.previous[-1:] if young else []
            dropped += [old for old in self.previous if old not in keep]
            self.previous = [*keep, former]
            self.rekeys += 1
        for old in dropped:
            self.node.sessions.pop(old.own_index, None)
        self.current, self.agreement = generation, generation.agreement
        self.handshakes += 1
        self.retry_at, self.attempts_made, self.not_before = None, 0, 0.0
        self.validation_began = self.validation_at = None
        self.wanted_at_start = False

    def _own_keys_win(self, generation):
        """W4-100."""
        current = self.current
        if current is None or not current.initiator or current.step != handshake.STEP_IK:
            return False
        if self.now - current.born >= max(5.0, 2 * current.duration_s) or self.found_silent:
            return False
        return self.ours_is_smaller or generation.step != handshake.STEP_IK

    def _consider_up(self):
        """W4-107."""
        current = self.current
        if self.up or current is None or not self.paths.validated or not self.can_seal():
            return
        if current.confirmed or (current.initiator and current.step == handshake.STEP_IK):
            self.up = True
            self.initiated_to = set()
            self.found_silent = False
            self._flush()

    def go_down(self):
        """The link is down; its keys still open packets (W4-108)."""
        if self.up:
            self.initiated_to = set()
        self.up = False
        self.waiting, self.waiting_since = [], None

    # Receiving

    def on_opened(self, generation, kind, body, address, length):
        """A packet of this link was opened (W4-102)."""
        now = self.now
        self.last_heard, self.unanswered_since, self.probes_sent = now, None, 0
        self.found_silent = False
        first = not generation.confirmed
        generation.confirmed = True
        self.paths.heard(address, length)
        if generation in self.next:
            # W3-23, third case
            if generation.answered_to == address and self.paths.address in (None, address):
                self.paths.validate(address)
            if not self._own_keys_win(generation):
                self.peer_hello = generation.peer_hello
                self._make_current(generation)
                self.forget_attempts()
                self.confirm_at = self.third = None
                self.send_keepalive()
        elif generation is self.current and generation.initiator and first:
            self.confirm_at = self.third = None
        self._consider_up()
        if kind == ANSWER:
            self._on_answer(body, address)
            return
        if kind == CHALLENGE:
            self._on_challenge(body, address)
        elif body:
            self.last_data = now
            self._on_data(body)
        else:
            self.keepalives_opened += 1
            responder = generation is self.current and not generation.initiator
            if responder and now - self.keepalive_sent >= 0.5:
                self.send_keepalive()  # W4-101
        if not self.paths.is_validated(address) and self.paths.awaited(address, now) is None:
            self.send_challenge(address)  # W3-53

    def _on_challenge(self, body, address):
        """W3-44, W3-45, W3-46."""
        self.challenges_received.append((len(body) + 24, address))
        if len(body) >= 8 and self.can_seal():
            self._send_sealed(ANSWER, body[:8], address)

    def _on_answer(self, body, address):
        """W3-48, W3-54."""
        challenge = self.paths.answered(body[:8], address)
        if challenge is None:
            return
        self.responses_received.append((challenge.length, address))
        self.paths.validate(address)
        self._consider_up()

    def _on_data(self, body):
        self.bodies.append(body)
        packet = Packet.decode(body)
        header = packet.header
        if header.forward not in (1, 0x11) or not header.control:
            self.inbox.append(packet)
            return
        try:
            message = control.Message.decode(packet.payload)
        except Discarded:
            self.inbox.append(packet)
            raise
        self._on_control(packet, message)

    def _on_control(self, packet, message):
        identity = self.node.identity
        if message.kind == control.PING:
            payload = message.payload[: control.PONG_PAYLOAD_MAX]
            self._reply(packet, control.Message(control.PONG, id=message.id, payload=payload))
        elif message.kind == control.IDENTIFY:
            keys = {"ed25519": identity.public, "x25519": identity.static_key}
            self._reply(packet, control.Message(control.IDENTITY, id=message.id, **keys))
        elif message.kind == control.TRACE:
            answer = {"egress": control.EGRESS_SELF, "slot_out": labels.SELF_SLOT}
            self._reply(packet, control.Message(control.TRACE_REPLY, id=message.id, **answer))
        elif message.kind in (control.PONG, control.IDENTITY, control.TRACE_REPLY):
            if self._requests.pop(message.id, None) != message.kind - 1:
                raise Discarded("unsolicited")  # W5-70
            self.replies.append((packet, message))
        elif message.kind == control.GOODBYE:
            if not control.is_from_neighbour(packet.header):
                raise Discarded("unhandled")  # W5-12
            self.goodbyes.append(message)
            self.go_down()
            self.forget_attempts()
            self.retry_at = self.confirm_at = self.third = None
            # W5-13; 0 leaves the time to the receiver, here a second
            self.not_before = self.now + min(max(message.retry_after_s, 1), 3600)
        else:
            if not self._is_about_ours(message.offending):
                raise Discarded("unsolicited")  # W5-14
            self.errors.append((packet, message))

    def _reply(self, packet, message):
        reply = control.reply_to(packet, message)
        if reply is not None:
            self.send(reply)

    def _is_about_ours(self, offending):
        """W5-65, W5-66, W5-67, W5-68."""
        for when, sent in self._sent_headers:
            used = offending.shift - sent.shift
            if (
                self.now - when < 5.0
                and (offending.flow, offending.control, offending.telemetry)
                == (sent.flow, sent.control, sent.telemetry)
                and not offending.quiet
                and offending.bits == sent.bits
                and offending.hops <= sent.hops
                and used >= 0
                and offending.forward == sent.forward >> used
            ):
                return True
        return False

    # Sending

    def _send_sealed(self, kind, body, address, lane=0):
        """Seals and sends, unless W3-51 forbids it."""
        if self.current is None or not self.current.may_seal(self.now):
            return False
        if not self.paths.may_send(address, len(body) + 24):
            return False
        self.node.send(self.current.seal(kind, body, lane), address)
        if self.unanswered_since is None:
            self.unanswered_since = self.now
        return True

    def send_keepalive(self):
        """A keepalive to the address of the link (W4-101 and below)."""
        address = self.paths.address if self.paths.validated else self.paths.handshake_source
        self.keepalive_sent = self.now
        if self.current is not None:
            self._send_sealed(self.current.data_kind, b"", address)

    def send_challenge(self, address, length=None):
        """A path challenge to this address (W3-49, W3-52), also a probe of this length."""
        if self.current is None or not self.current.may_seal(self.now):
            return
        challenge = self.paths.challenge(address, self.now, length)
        body = paths.challenge_body(challenge.token, challenge.length)
        self._send_sealed(CHALLENGE, body, address)

    def send(self, packet, lane=0):
        """Sends a `Packet`, or keeps it until there are keys (W4-107, W4-106)."""
        self.last_data = self.now
        self._sent_headers = [entry for entry in self._sent_headers if self.now - entry[0] < 5.0]
        self._sent_headers.append((self.now, packet.header))
        self.send_body(packet.encode(), lane)

    def send_body(self, body, lane=0):
        """Sends the bytes between link header and tag."""
        if len(body) + 24 > self.longest_packet:
            self.node.discards["too_big"] += 1
        elif self.up and self.can_seal():
            self._send_sealed(self.current.data_kind, body, self.paths.address, lane)
        elif len(self.waiting) < WAITING_MAX and self.paths.address is not None:
            self.waiting.append((body, lane))
            self.waiting_since = self.waiting_since or self.now
        else:
            self.node.discards["link_down"] += 1

    @property
    def longest_packet(self):
        """W3-60: what is sent without a search for the path MTU."""
        if self.agreement is None:
            return PACKET_BYTES_MAX
        return min(DATA_BYTES_FIRST, self.agreement.mtu)

    def _flush(self):
        waiting, self.waiting, self.waiting_since = self.waiting, [], None
        for body, lane in waiting:
            self.send_body(body, lane)

    def request(self, kind, path=1, payload=b"", *, bits=64, **fields):
        """Sends a request along this label and returns its id."""
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        identifier = self._next_id
        label, shift = labels.from_neighbour(path, bits)
        fields = {"shift": shift, **fields}
        self._requests[identifier] = kind
        self.send(control.request(kind, identifier, label, payload, bits=bits, **fields))
        return identifier

    def expect(self, identifier, kind):
        """Accepts a reply to a request of this kind that the caller sends itself."""
        self._requests[identifier] = kind

    def reply_of(self, identifier):
        """The packet and the message of the reply to this request, or None."""
        return next((reply for reply in self.replies if reply[1].id == identifier), None)

    def goodbye(self, code=1, retry_after_s=0, text=""):
        """Ends the link (W5-62)."""
        label, shift = labels.from_neighbour(1)
        header = SwitchHeader(label, shift, quiet=True, control=True, hops=1)
        message = control.Message(
            control.GOODBYE, code, retry_after_s=retry_after_s, payload=text.encode()
        )
        self.send(Packet(header, message.encode()))

    # Time (W4-97)

    def tick(self):
        """Does what is due."""
        now = self.now
        for attempt in list(self.attempts):
            if now - attempt.sent >= ATTEMPT_S:
                self._forget(attempt)
        self._expire(now)
        if self.confirm_at is not None and now >= self.confirm_at:
            self._send_confirmation()
        self._tick_silence(now)
        self._tick_validation(now)
        if self.waiting_since is not None and now - self.waiting_since >= WAITING_S:
            self.go_down()
        if now >= self.not_before and self.keys_are_wanted() and self._handshake_is_due(now):
            self.begin()

    def _handshake_is_due(self, now):
        if self.retry_at is not None:
            return now >= self.retry_at
        if self.current is None or not self.can_seal():
            return True
        age = now - self.current.born
        rekey = REKEY_INITIATOR_S if self.current.initiator else REKEY_RESPONDER_S
        return age >= rekey or (not self.up and self.found_silent and age >= REKEY_SPACING_S)

    def _expire(self, now):
        def old(generation):
            return now - generation.born >= OPEN_END_S

        for generation in [g for g in (*self.next, *self.previous, self.current) if g and old(g)]:
            self.node.sessions.pop(generation.own_index, None)
            if generation is self.current:
                self.current = None
        self.next = [generation for generation in self.next if not old(generation)]
        self.previous = [generation for generation in self.previous if not old(generation)]
        if self.up and not self.can_seal():
            self.go_down()  # quiet or down; both send nothing (W4-107)

    def _tick_silence(self, now):
        """W4-108."""
        if not self.up or self.unanswered_since is None:
            return
        silent = now - max(self.last_heard, self.current.born)
        if silent >= DETECTION_S:
            self.found_silent = True
            self.go_down()
        elif self.probes_sent < 3 and silent >= SILENT_S + SILENT_STEP_S * self.probes_sent:
            self.probes_sent += 1
            self.send_challenge(self.paths.address)

    def _tick_validation(self, now):
        """W3-57."""
        if self.up or self.current is None or self.paths.validated or not self.can_seal():
            return
        if self.validation_began is None:
            self.validation_began = self.validation_at = now
        if now - self.validation_began >= 10.0:
            self.validation_began = None
            if self.paths.address is not None:
                self.begin()
        elif now >= self.validation_at:
            self.validation_at = now + 1.0
            address = self.paths.handshake_source or self.paths.address
            if address is not None:
                self.send_challenge(address)
