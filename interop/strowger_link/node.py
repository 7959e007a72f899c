"""A node that is not a switch: one port, one identity, and its links (wire.md 3.7, 4, 10.2)."""

import collections
import os
import select
import time

from . import beacon, cookie, handshake
from .hello import Disagreement, Hello, Malformed, agree
from .identity import BadIdentity, check_proof
from .link import Link
from .linkheader import (
    ANSWER,
    BEACON,
    CHALLENGE,
    COOKIE,
    INITIATION,
    PACKET_BYTES_MAX,
    PLAIN,
    RESPONSE,
    SEALED,
    SEALED_HEADER,
    STEP_IK,
    STEP_XX,
    STEP_XX_3,
    LinkHeader,
)
from .primitives import Unreadable
from .transport import Discarded

SECRET_S = 120.0  # W4-66


class Node:
    """Receives at a port, and keeps the links of one identity."""

    def __init__(self, identity, port, network=b"", *, hello=None, accept_unknown=False, clock=time.monotonic):
        self.identity, self.port, self.network = identity, port, network
        self.hello = hello or Hello()
        self.accept_unknown, self.clock = accept_unknown, clock
        self.wall_clock_ns = time.time_ns
        self.links = []
        self.sessions, self.attempts = {}, {}  # by the index that this end has chosen
        self.under_load = False
        self.discards = collections.Counter()
        self.beacons = []  # valid beacons and their sources
        self.wire = []  # what was sent and received: ("out" or "in", packet, address)
        self._secrets, self._secret_since = [(0, os.urandom(32))], clock()
        self._marks = collections.deque(maxlen=1024)

    def add(self, **fields):
        """A link with a peer; the arguments are those of `Link`."""
        link = Link(self, **fields)
        self.links.append(link)
        return link

    def new_index(self):
        """A session index that is not in use (W3-28, W4-15)."""
        while True:
            index = int.from_bytes(os.urandom(3), "big")
            if index != 0 and index not in self.sessions and index not in self.attempts:
                return index

    def send(self, packet, address):
        """Sends a packet as it is."""
        self.wire.append(("out", packet, address))
        self.port.send(packet, address)

    def poll(self, timeout_s=0.01):
        """Handles what has arrived, waits at most this long for it, and does what is due."""
        select.select([self.port.socket], [], [], timeout_s)
        while (received := self.port.receive()) is not None:
            if received[0] or received[1]:
                self.receive(*received)
        for link in self.links:
            link.tick()

    def close(self):
        """Closes the port."""
        self.port.close()

    # Receiving

    def receive(self, packet, address):
        """Handles one packet, and counts it if it is discarded (wire.md 3.7)."""
        self.wire.append(("in", packet, address))
        try:
            self._receive(packet, address)
        except Discarded as discarded:
            self.discards[discarded.reason] += 1

    def _receive(self, packet, address):
        if len(packet) < 8:
            raise Discarded("too_short")
        if len(packet) > PACKET_BYTES_MAX:
            raise Discarded("too_long")
        header = LinkHeader.decode(packet)
        if header.kind in (SEALED, SEALED_HEADER, CHALLENGE, ANSWER):
            self._on_sealed(packet, header, address)
        elif header.kind in (INITIATION, RESPONSE):
            if not handshake.length_is_accepted(packet):
                raise Discarded("malformed")
            if header.kind == RESPONSE:
                self._on_response(packet, header, address)
            else:
                self._on_initiation(packet, header, address)
        elif header.kind == COOKIE:
            self._on_cookie(packet, header)
        elif header.kind == BEACON:
            self._on_beacon(packet, address)
        elif header.kind == PLAIN and all(link.paths.address != address for link in self.links):
            raise Discarded("unknown_sender")
        else:
            raise Discarded("bad_link_kind")

    def _on_sealed(self, packet, header, address):
        link, generation = self.sessions.get(header.index, (None, None))
        if link is None:
            raise Discarded("no_session")
        kind, body = generation.open(packet, self.clock())
        link.on_opened(generation, kind, body, address, len(packet))

    def _on_response(self, packet, header, address):
        link, attempt = self.attempts.get(header.index, (None, None))
        if link is None or attempt.handshake.step != header.lane:
            raise Discarded("no_session")
        link.on_response(attempt, packet, address)

    def _on_cookie(self, packet, header):
        if header.lane > STEP_XX_3 or len(packet) != cookie.COOKIE_REPLY_BYTES:
            raise Discarded("malformed")
        link, attempt = self.attempts.get(header.index, (None, None))
        if link is None or attempt.handshake.step != header.lane:
            raise Discarded("no_session")
        key = link.key if header.lane == STEP_IK else handshake.XX_MAC_KEY
        try:
            made = cookie.read_reply(packet, attempt.handshake.message, key, self.network)
        except Unreadable as error:
            raise Discarded("handshake_unreadable") from error
        link.on_cookie(made)

    # Handshakes that others begin, in the order of wire.md 4, "Order of checks"

    def _on_initiation(self, packet, header, address):
        key = self.identity.static_key if header.lane == STEP_IK else handshake.XX_MAC_KEY
        try:
            handshake.check_mac1(packet, key, self.network)
            source = cookie.source_of(self.port.source_bytes(address), 0)
            proves_source = self._has_cookie(packet, source) or (
                header.lane == STEP_XX_3 and self._responder_of(packet, header, source) is not None
            )  # W4-72, W4-110
            if self.under_load and not proves_source:
                self._send_cookie(packet, source, key, address)
                return
            if header.lane == STEP_IK:
                self._on_ik(packet, address)
            elif header.lane == STEP_XX:
                self._on_xx_1(packet, source, address)
            else:
                self._on_xx_3(packet, header, source, address)
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

    def _has_cookie(self, packet, source):
        return any(
            handshake.check_mac2(packet, cookie.cookie_for(secret, source))
            for _, secret in self._current_secrets()
        )

    def _send_cookie(self, packet, source, key, address):
        made = cookie.cookie_for(self._current_secrets()[-1][1], source)
        self.send(cookie.reply(packet, made, os.urandom(24), key, self.network), address)

    def _current_secrets(self):
        """The secret before and the current one, with their epochs (W4-66)."""
        if self.clock() - self._secret_since >= SECRET_S:
            self._secrets = [self._secrets[-1], (self._secrets[-1][0] + 1, os.urandom(32))]
            self._secret_since = self.clock()
        return self._secrets

    def _link_of(self, peer_key, proof):
        """The link of this static key; of this identity if its key is not known (W4-9)."""
        for link in self.links:
            if link.key == peer_key:
                return link
        public = check_proof(proof, peer_key)
        for link in self.links:
            if link.key is None and link.public == public:
                return link
        return None

    def _on_ik(self, packet, address):
        responder = handshake.IkResponder(self.identity, self.network, packet)
        if responder.peer_static == self.identity.static_key:
            raise Discarded("handshake_ourselves")
        link = self._link_of(responder.peer_static, responder.hello.proof)
        if link is None:
            raise Discarded("unknown_peer")
        if responder.hello.timestamp <= link.timestamp_accepted:
            raise Discarded("handshake_stale")
        known_key, link.key = link.key, responder.peer_static
        if link.own_handshake_goes_on():
            link.key = known_key
            return
        link.key = known_key
        own = link.hello.with_(index=self.new_index(), timestamp=0, proof=self.identity.proof())
        agreement = agree(own, responder.hello)
        public = check_proof(responder.hello.proof, responder.peer_static)
        if public != (link.public or public):
            raise Discarded("handshake_identity")
        link.key, link.public = responder.peer_static, public
        link.timestamp_accepted = responder.hello.timestamp
        message, keys = responder.response(own, link.psk)
        link.answered(keys, own, responder.hello, agreement, STEP_IK, address)
        self.send(message, address)

    def _own_hello(self):
        return self.hello.with_(timestamp=0, proof=self.identity.proof())

    def _on_xx_1(self, packet, source, address):
        if not self.accept_unknown and all(link.key is not None for link in self.links):
            raise Discarded("unknown_peer")
        epoch, secret = self._current_secrets()[-1]
        responder = handshake.XxResponder(self.identity, self.network, secret, epoch)
        self.send(responder.second(packet, source, self._own_hello()), address)

    def _responder_of(self, packet, header, source):
        """The responder whose R this XX 3 has, if there is one (W4-68)."""
        for epoch, secret in self._current_secrets():
            responder = handshake.XxResponder(self.identity, self.network, secret, epoch)
            if header.index & 1 == epoch & 1 and responder.is_ours(packet, source):
                return responder
        return None

    def _on_xx_3(self, packet, header, source, address):
        responder = self._responder_of(packet, header, source)
        if responder is None:
            raise Discarded("no_session")
        peer_key, hello, own, keys = responder.read_third(packet, source, self._own_hello())
        if hello.index != header.counter:
            raise Discarded("no_session")  # W4-31
        if peer_key == self.identity.static_key:
            raise Discarded("handshake_ourselves")
        public = check_proof(hello.proof, peer_key)
        if own.index in self.sessions or own.index in self.attempts:
            raise Discarded("over_budget")
        link = self._link_of(peer_key, hello.proof)
        if link is None:
            if not self.accept_unknown:
                raise Discarded("unknown_peer")
            link = Link(self, key=peer_key, public=public, unknown=True)
            link.found_by_xx = True
        if link.psk != handshake.NO_PSK:
            raise Discarded("not_allowed")  # W4-70
        if hello.timestamp <= link.timestamp_accepted:
            raise Discarded("handshake_stale")
        if link.third is not None and link.ours_is_smaller:
            return  # W4-7
        agreement = agree(own, hello)
        if packet[8:120] in self._marks:
            raise Discarded("handshake_stale")
        if public != (link.public or public):
            raise Discarded("handshake_identity")
        self._marks.append(packet[8:120])
        if link not in self.links:
            self.links.append(link)
        link.key, link.public, link.timestamp_accepted = peer_key, public, hello.timestamp
        link.forget_attempts()
        link.answered(keys, own, hello, agreement, STEP_XX, address)

    # Beacons

    def _on_beacon(self, packet, address):
        """W10-15, W10-16, W10-17, W10-18, W10-19, W10-20, W10-21, W10-22, W10-23, W10-24, W10-25, W10-26, W10-28, W10-29, without beginning handshakes: tests and callers decide."""
        if not getattr(self.port, "beacons", False):
            raise Discarded("bad_link_kind")
        read = beacon.decode(packet, self.network)
        if read.static_key != self.identity.static_key:
            self.beacons.append((read, address))

    def send_beacon(self):
        """Sends a beacon to the segment (W10-6)."""
        self.send(beacon.encode(self.identity, self.network), beacon.GROUP)
