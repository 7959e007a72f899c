"""Handshakes that others begin, in the order of checks of wire.md 4 (wire.md 6.3, 6.8)."""

import os

from .. import cookie, handshake
from ..domain import CONNECTION
from ..hello import Disagreement, Malformed
from ..identity import BadIdentity, check_proof
from ..linkheader import STEP_IK, STEP_XX, STEP_XX_3
from ..primitives import Unreadable
from ..transport import Discarded
from . import fields
from .connection import Connection
from .early import EarlyMessages, Timestamps

SECRET_S = 120.0  # W4-66
INITIATIONS_A_SECOND = 200  # W6-24
MARKS_MAX = 65_536  # W6-26
COPIES_S, COPIES_MAX = 2.0, 3  # W6-136


class Bucket:
    """A rate: so many a second, as many at once."""

    def __init__(self, rate, clock):
        self.rate, self.clock, self.left, self.at = rate, clock, float(rate), clock()

    def level(self):
        """What is left, as a part of the whole."""
        now = self.clock()
        self.left, self.at = min(self.rate, self.left + self.rate * (now - self.at)), now
        return self.left / self.rate

    def take(self):
        """Takes one; false if none is left."""
        if self.level() * self.rate < 1:
            return False
        self.left -= 1
        return True


class Responder:
    """The part of an endpoint that answers messages of kind 1."""

    def __init__(self, clock, wall_clock_ns):
        self.clock = clock
        self.early_received = []  # (Ed25519 key, name, message)
        self.under_load = False  # for tests; else half of the budget (W6-24)
        self._timestamps, self._early = Timestamps(), EarlyMessages(wall_clock_ns)
        self._secrets, self._secret_since = [(0, os.urandom(32))], clock()
        self._marks = {}  # number of a secret: the handshakes completed under it
        self._copies = {}  # bytes of an initiation: (when, response, labels, generation)
        self._initiations = Bucket(INITIATIONS_A_SECOND, clock)

    def on_initiation(self, packet, header, arrival):
        try:
            key = self._mac_key(packet, header)
            source = arrival.source
            if (self.under_load or self._initiations.level() < 0.5) and not (
                self._has_cookie(packet, source)
                or (header.lane == STEP_XX_3 and self._responder_of(packet, header, source, key))
            ):
                self._send_cookie(packet, source, key, arrival)
                return
            if not self._initiations.take():
                raise Discarded("over_budget")
            if header.lane == STEP_IK:
                self._on_ik(packet, arrival)
            elif header.lane == STEP_XX:
                self._on_xx_1(packet, source, key, arrival)
            else:
                self._on_xx_3(packet, header, source, key, arrival)
        except handshake.BadMac as error:
            name = "handshake_network" if error.other_network else "handshake_mac"
            raise Discarded(name) from error
        except Malformed as error:
            raise Discarded("handshake_malformed") from error
        except Unreadable as error:
            raise Discarded("handshake_unreadable") from error
        except BadIdentity as error:
            raise Discarded("handshake_identity") from error
        except Disagreement as error:
            raise Discarded("handshake_disagreement") from error

    def _mac_key(self, packet, header):
        """K of this message; raises `BadMac` (W6-10, W6-121)."""
        if header.lane == STEP_IK:
            keys = [self.identity.static_key]
        else:
            keys = [self.identity.public]
            if self.accept_without_peer_id:
                keys.append(handshake.XX_MAC_KEY)
        for key in keys:
            try:
                handshake.check_mac1(packet, key, self.network, CONNECTION)
                return key
            except handshake.BadMac as error:
                refused = error
        raise refused

    def _current_secrets(self):
        """The secret before and the current one, with their epochs (W4-66)."""
        if self.clock() - self._secret_since >= SECRET_S:
            self._secrets = [self._secrets[-1], (self._secrets[-1][0] + 1, os.urandom(32))]
            self._secret_since = self.clock()
            kept = [epoch for epoch, _ in self._secrets]
            self._marks = {epoch: had for epoch, had in self._marks.items() if epoch in kept}
        return self._secrets

    def _has_cookie(self, packet, source):
        return any(
            handshake.check_mac2(packet, cookie.cookie_for(secret, source))
            for _, secret in self._current_secrets()
        )

    def _send_cookie(self, packet, source, key, arrival):
        made = cookie.cookie_for(self._current_secrets()[-1][1], source)
        nonce = os.urandom(24)
        self.reply(arrival, cookie.reply(packet, made, nonce, key, self.network, CONNECTION))

    def _own_hello(self):
        return self.hello.with_(timestamp=0, proof=self.identity.proof())

    def _peer(self, key, public):
        """The connection with this identity, or a new one that is not yet established."""
        found = self.find(None, public) or self.find(key, None)
        if found is not None and found.public in (None, public):
            return found
        for connection, _ in self.sessions.values():
            if connection.public == public and connection.forget_at is None:
                return connection  # it has *next* keys
        return Connection(self, key=key, public=public, entries=self.entries_for(public))

    def _on_ik(self, packet, arrival):
        if self._is_a_copy(packet, arrival):
            return
        responder = handshake.IkResponder(self.identity, self.network, packet)
        hello, key = responder.hello, responder.peer_static
        entries, stated = _checked(hello)
        if key == self.identity.static_key:
            raise Discarded("handshake_ourselves")
        public = check_proof(hello.proof, key, CONNECTION)
        if self.allow(public) is None:
            raise Discarded("not_allowed")  # W6-192
        if self._timestamps.is_stale(public, hello.timestamp):
            raise Discarded("handshake_stale")
        connection = self._peer(key, public)
        if connection.own_handshake_goes_on(key):
            return
        own = self._own_hello()
        agreement = fields.agreement(own, hello)
        result = None
        if stated.early is not None:
            result, deliver = self._early.result(
                public, stated, hello.timestamp, connection.own.entries, self._timestamps, self.clock()
            )
            if deliver:
                self.early_received.append((public, stated.early.name, stated.early.message))
        knows = connection.established and connection.id == stated.id
        self._timestamps.accept(public, hello.timestamp)
        answer_id = stated.id if knows else fields.UNKNOWN_ID
        own = connection.make_hello(self.new_index(), id=answer_id, result=result)
        message, keys = responder.response(own)
        generation = connection.answered(
            keys, own, hello, (entries, stated), agreement, STEP_IK, arrival
        )
        generation.peer_key, generation.knew_id = key, knows
        connection.public = public
        self._copies[packet] = (self.clock(), message, [arrival.back], generation)
        self.reply(arrival, message)

    def _is_a_copy(self, packet, arrival):
        """W6-136: the same response to the same initiation by another label."""
        now = self.clock()
        self._copies = {one: had for one, had in self._copies.items() if now - had[0] < COPIES_S}
        if packet not in self._copies:
            return False
        _, message, answered, generation = self._copies[packet]
        if arrival.back in answered or len(answered) >= COPIES_MAX:
            raise Discarded("handshake_stale")
        answered.append(arrival.back)
        generation.answered_labels.append((arrival.back, arrival.header.bits))
        self.reply(arrival, message)
        return True

    def _responder_of(self, packet, header, source, key):
        """The responder whose R this XX 3 has, and the number of its secret (W4-68)."""
        for epoch, secret in self._current_secrets():
            responder = handshake.XxResponder(
                self.identity, self.network, secret, epoch, mac_key=key
            )
            if header.index & 1 == epoch & 1 and responder.is_ours(packet, source):
                return responder, epoch
        return None

    def _on_xx_1(self, packet, source, key, arrival):
        epoch, secret = self._current_secrets()[-1]
        if len(self._marks.get(epoch, ())) >= MARKS_MAX:
            raise Discarded("over_budget")  # W6-26
        responder = handshake.XxResponder(self.identity, self.network, secret, epoch, mac_key=key)
        self.reply(arrival, responder.second(packet, source, self._own_hello()))

    def _on_xx_3(self, packet, header, source, mac_key, arrival):
        found = self._responder_of(packet, header, source, mac_key)
        if found is None:
            raise Discarded("no_session")
        responder, epoch = found
        key, hello, own, keys = responder.read_third(packet, source, self._own_hello())
        entries, stated = _checked(hello)
        if hello.index != header.counter:
            raise Discarded("no_session")  # W4-31
        if key == self.identity.static_key:
            raise Discarded("handshake_ourselves")
        public = check_proof(hello.proof, key, CONNECTION)
        if own.index in self.sessions or own.index in self.attempts:
            raise Discarded("over_budget")
        if self.allow(public) is None:
            raise Discarded("not_allowed")
        if self._timestamps.is_stale(public, hello.timestamp):
            raise Discarded("handshake_stale")
        agreement = fields.agreement(own, hello)
        marks = self._marks.setdefault(epoch, set())
        mark = packet[8:120]
        if mark in marks:
            raise Discarded("handshake_stale")  # W6-26
        if len(marks) >= MARKS_MAX:
            raise Discarded("over_budget")
        marks.add(mark)
        connection = self._peer(key, public)
        if connection.third is not None and self.identity.static_key < key:
            return  # W4-7
        self._timestamps.accept(public, hello.timestamp)
        connection.public = public
        connection.forget_attempts()
        generation = connection.answered(
            keys, own, hello, (entries, stated), agreement, STEP_XX, arrival
        )
        generation.peer_key = key
        generation.knew_id = connection.established and connection.id == stated.id
        connection.validated_by_handshake(arrival.back, arrival.header.bits)  # W6-137


def _checked(hello):
    """What `fields.check` returns, for the hello of an initiator, which states an id (W6-200)."""
    entries, stated = fields.check(hello)
    if stated.id in (None, fields.UNKNOWN_ID):
        raise Malformed("no connection id")
    return entries, stated
