"""An endpoint: the local user of one slot, and all its connections (wire.md 6.8)."""

import collections
import os
import time

from .. import cookie, handshake
from ..domain import CONNECTION
from ..hello import Hello
from ..identity import Identity
from ..linkheader import STEP_IK, STEP_XX_3
from ..primitives import Unreadable
from ..transport import Discarded
from . import fields, packets, tables
from .connection import CONNECT_S, Connection
from .messages import Closed
from .responder import Bucket, Responder

UNKNOWN_A_SECOND = 20  # W6-142
LANES, IDLE_S, MTU = 2, 300, 9100
PEERS_MAX = 1024  # W6-198


class Endpoint(Responder):
    """Accepts and makes connections over one carrier.

    `serves` maps protocol names to flags (W6-67). `allow` is the policy: it gets an Ed25519 key,
    and returns the names that this peer may use, or None if it may not connect (W6-192).
    """

    def __init__(self, carrier, seed, network=b"", *, serves=None, allow=None, lanes=LANES,
                 seal_wish=0, mtu=MTU, idle_s=IDLE_S, accept_without_peer_id=False,
                 hide_identity=False, clock=time.monotonic, wall_clock_ns=time.time_ns):  # fmt: skip
        Responder.__init__(self, clock, wall_clock_ns)
        self.carrier, self.network = carrier, network
        self.identity = Identity.for_connections(seed)
        self.serves, self.allow = dict(serves or {}), allow or (lambda public: self.serves)
        self.lanes, self.mtu, self.idle_s = lanes, mtu, idle_s
        self.accept_without_peer_id, self.hide_identity = accept_without_peer_id, hide_identity
        self.wall_clock_ns = wall_clock_ns
        self.hello = Hello(seal_wish=seal_wish, lanes=lanes, mtu=mtu, scheme=b"")
        self.connections, self.attempts, self.sessions = [], {}, {}
        self.discards = collections.Counter()
        self.handlers = {}  # name: function of connection and message
        self._timestamp = 0
        self._unknowns = {}  # a bucket for each ingress slot
        self._back_off = {}  # Ed25519 key: (until, the goodbye)
        self._peers = {}  # Ed25519 key: (connection key, entries when last seen) (W6-198)

    # Programs

    def connect(self, label, *, key=None, peer_id=None, bits=64, early=None, within_s=CONNECT_S,
                more_labels=()):  # fmt: skip
        """Begins a connection: by static key, by PeerId (an Ed25519 key), or by label alone."""
        if self._back_off.get(peer_id, (0,))[0] > self.clock():
            raise Closed(self._back_off[peer_id][1])  # W6-166
        if key is None and not self.hide_identity:
            key = self._peers.get(peer_id, (None,))[0]
        found = self.find(key, peer_id) if key or peer_id else None
        connection = found or Connection(
            self, key=key, public=peer_id, entries=self.entries_for(peer_id)
        )
        for one in (label, *more_labels):
            connection.paths.add(one, self.clock(), bits=bits, chosen=True)
        if found is None:
            connection.id = os.urandom(8)
            connection.early = fields.Early(*early) if early is not None else None
            self.connections.append(connection)
        connection.connect_until = self.clock() + within_s
        connection.tick()
        return connection

    def entries_for(self, public):
        """The table for a peer: only names that it may use (W6-32)."""
        allowed = self.allow(public) if public is not None else self.serves
        return [tables.Entry(name, self.serves[name]) for name in self.serves if name in (allowed or ())]

    def flags_for(self, name):
        """The flags of a name in this end's tables."""
        return self.serves.get(name, 0)

    def delivered(self, connection, name, message):
        """A message was delivered: calls the handler of its protocol."""
        if name in self.handlers:
            self.handlers[name](connection, message)

    def poll(self, timeout_s=0.01):
        """Handles what has arrived, waits at most this long for it, and does what is due."""
        self.carrier.wait(timeout_s)
        for arrival in self.carrier.receive():
            self.receive(arrival)
        for packet, message in self.carrier.errors():
            self.on_error(packet, message)
        for connection in list(self.connections):
            connection.tick()

    def close(self):
        """Closes the carrier, without goodbyes."""
        self.carrier.close()

    # What connections call

    def send(self, label, packet, **fields_of_header):
        """Sends a connection packet along a label."""
        self.carrier.send(label, packet, **fields_of_header)

    def new_index(self):
        """A connection index that is not in use (W3-28, W4-15)."""
        while True:
            index = int.from_bytes(os.urandom(3), "big")
            if index and index not in self.sessions and index not in self.attempts:
                return index

    def new_timestamp(self):
        """A timestamp above all earlier ones (W4-71)."""
        self._timestamp = max(self.wall_clock_ns(), self._timestamp + 1)
        return self._timestamp

    def adopt(self, connection, public):
        """Whether this connection may have this identity (W6-134)."""
        other = self.find(None, public)
        return other is None or other is connection

    def established(self, connection):
        """The connection exists from now on (W6-138)."""
        if connection not in self.connections:
            self.connections.append(connection)

    def released(self, connection):
        """The connection is at its end; another one with the same identity may begin."""
        connection.released = True

    def forgotten(self, connection):
        """Nothing of the connection is left."""
        if connection in self.connections:
            self.connections.remove(connection)

    def back_off(self, public, until, goodbye):
        """No handshake with this peer begins before this time (W6-166)."""
        self._back_off[public] = (until, goodbye)

    def remember(self, public, key, entries):
        """Keeps a peer's connection key and its table (W6-198)."""
        self._peers.pop(public, None)
        if len(self._peers) >= PEERS_MAX:
            self._peers.pop(next(iter(self._peers)))
        self._peers[public] = (key, list(entries))

    def may_be_early(self, public, name):
        """Whether an early message was allowed when the entry was last seen (W6-20)."""
        _, entries = self._peers.get(public, (None, []))
        number = tables.number_of(entries, name)
        return number is not None and bool(entries[number - 1].flags & tables.FLAG_EARLY)

    def find(self, key, public):
        for connection in self.connections:
            if connection.forget_at is not None:
                continue
            if public is not None and connection.public == public:
                return connection
            if key is not None and connection.key == key and connection.public in (None, public):
                return connection
        return None

    # Receiving

    def receive(self, arrival):
        """Handles one packet, and counts it if it is discarded."""
        try:
            self._receive(arrival)
        except Discarded as discarded:
            self.discards[discarded.reason] += 1

    def _receive(self, arrival):
        if arrival.header.control:
            raise Discarded("unsolicited")  # W6-187
        packet = arrival.payload
        header = packets.header_of(packet)
        if header.kind in (packets.SEALED, packets.CHALLENGE, packets.ANSWER):
            self._on_sealed(packet, header, arrival)
        elif header.kind == packets.PASS_THROUGH:
            connection, generation = self.sessions.get(header.index, (None, None))
            if connection is None:
                raise Discarded("no_session")
            connection.on_pass_through(packet, generation)
        elif header.kind == packets.UNKNOWN:
            self._on_unknown(packet)
        elif arrival.back is None:
            raise Discarded("no_return_path")  # W6-130
        elif header.kind == packets.COOKIE:
            self._on_cookie(packet, header)
        else:
            if not handshake.length_is_accepted(packet):
                raise Discarded("malformed")
            if header.kind == packets.RESPONSE:
                self._on_response(header, arrival)
            else:
                self.on_initiation(packet, header, arrival)

    def _on_sealed(self, packet, header, arrival):
        if len(packet) < 24:
            raise Discarded("too_short")
        connection, generation = self.sessions.get(header.index, (None, None))
        if connection is None:
            answer = packets.unknown_connection(packet)
            if answer is not None and not arrival.header.quiet:
                if arrival.back is None:
                    raise Discarded("no_return_path")
                bucket = self._unknowns.setdefault(
                    arrival.slot, Bucket(UNKNOWN_A_SECOND, self.clock)
                )
                if bucket.take():
                    self.reply(arrival, answer)
            raise Discarded("no_session")
        connection.on_sealed(generation, header, arrival)

    def reply(self, arrival, packet):
        """Sends a packet along the return label, with the fields of its cause (W6-126)."""
        header = arrival.header
        fields_of_header = {"flow": header.flow, "class_": header.class_, "quiet": True}
        self.send(arrival.back, packet, bits=header.bits, **fields_of_header)

    def _on_unknown(self, packet):
        """W6-143."""
        received = packets.read_unknown_connection(packet)
        for connection in list(self.connections):
            if connection.on_unknown(received):
                return
        raise Discarded("unknown_connection_ignored")

    def _on_response(self, header, arrival):
        connection, attempt = self.attempts.get(header.index, (None, None))
        if connection is None or attempt.noise.step != header.lane:
            raise Discarded("no_session")
        connection.on_response(attempt, arrival)

    def _on_cookie(self, packet, header):
        if header.lane > STEP_XX_3 or len(packet) != cookie.COOKIE_REPLY_BYTES:
            raise Discarded("malformed")
        connection, attempt = self.attempts.get(header.index, (None, None))
        if connection is None or attempt.noise.step != header.lane:
            raise Discarded("no_session")
        key = connection.key if header.lane == STEP_IK else attempt.noise.mac_key
        try:
            made = cookie.read_reply(packet, attempt.message, key, self.network, CONNECTION)
        except Unreadable as error:
            raise Discarded("handshake_unreadable") from error
        connection.on_cookie(made)

    def on_error(self, packet, message):
        """An error about a packet of this endpoint is a hint (W6-44, W6-184)."""
        del packet
        offending = message.offending
        for connection in self.connections:
            if offending.flow not in connection._flows.values():
                continue
            for path in connection.paths.all:
                if path.label == offending.forward and path.bits == offending.bits:
                    connection.on_hint(path, message)
                    return
        self.discards["unsolicited"] += 1
