"""Connection packets: kinds, messages, path challenges, unknown connection (wire.md 6.1 and 6.2)."""

from dataclasses import dataclass

from .. import primitives
from ..linkheader import LINK_HEADER_BYTES, PACKET_BYTES_MAX, LinkHeader
from ..primitives import TAG_BYTES
from ..transport import OPEN_END_S, Discarded, Window, lane_key, open_packet, seal_packet

HEADER_BYTES = LINK_HEADER_BYTES

INITIATION, RESPONSE, COOKIE, SEALED = 1, 2, 3, 4
PASS_THROUGH, UNKNOWN, CHALLENGE, ANSWER = 6, 7, 8, 9

# W6-1
KINDS = {
    INITIATION: "handshake initiation",
    RESPONSE: "handshake response",
    COOKIE: "cookie",
    SEALED: "sealed message",
    PASS_THROUGH: "pass-through message",
    UNKNOWN: "unknown connection",
    CHALLENGE: "path challenge",
    ANSWER: "path response",
}
SEALED_KINDS = (SEALED, CHALLENGE, ANSWER)

CONTROL, RESERVED = 0, 255  # protocol numbers (W6-3, W6-8)
TOKEN_BYTES = 8
ANSWERED_BYTES_MIN = 32  # W6-53
SEAL_PACKETS_MAX, RENEW_PACKETS = 1 << 61, 1 << 60  # W3-39, W3-40


def header_of(packet):
    """The connection header of a packet; raises `Discarded` (W6-2, W6-6, W6-7, W2-17)."""
    if len(packet) > PACKET_BYTES_MAX:
        raise Discarded("too_long")
    if len(packet) < HEADER_BYTES:
        raise Discarded("too_short")
    header = LinkHeader.decode(packet)
    if header.kind not in KINDS:
        raise Discarded("bad_connection_kind")
    return header


# Bodies of kind 4


def message_body(number, message):
    """The body of a sealed message (W6-37)."""
    return bytes([number]) + message


def read_message_body(body):
    """Protocol number and message; None for an empty body (W6-3, W6-8, W6-9)."""
    if not body:
        return None
    if body[0] == RESERVED:
        raise Discarded("bad_protocol_number")
    return body[0], body[1:]


# Kind 6


def pass_through(lane, index, number, message):
    """A pass-through packet (W6-38, W6-52)."""
    return LinkHeader(PASS_THROUGH, lane, index, 0).encode() + bytes([number]) + message


def read_pass_through(packet):
    """Protocol number and message; raises `Discarded` (W6-38, W6-39, W6-50, W6-51)."""
    if len(packet) < HEADER_BYTES + 2:
        raise Discarded("too_short")
    number, message = packet[HEADER_BYTES], packet[HEADER_BYTES + 1 :]
    if number in (CONTROL, RESERVED):
        raise Discarded("bad_protocol_number")
    if message[0] & 0x80:
        raise Discarded("long_header")
    return number, message


# Kind 7


def unknown_connection(packet):
    """The answer to a packet without a session, or None if there is none (W6-19, W6-53)."""
    if len(packet) < ANSWERED_BYTES_MIN or packet[0] >> 4 not in SEALED_KINDS:
        return None
    return bytes([UNKNOWN << 4]) + bytes(7) + packet[:HEADER_BYTES]


def read_unknown_connection(packet):
    """The header that the sender received; raises `Discarded("malformed")` (W6-54)."""
    if len(packet) != 16 or packet[:8] != bytes([UNKNOWN << 4]) + bytes(7):
        raise Discarded("malformed")
    header = LinkHeader.decode(packet[8:])
    if header.kind not in SEALED_KINDS:
        raise Discarded("malformed")
    return header


# Kinds 8 and 9


def challenge_body(token, padding=0):
    """The body of a path challenge (W6-55)."""
    return token + bytes(padding)


def response_to(body):
    """The body of the response to a challenge with this body, or None (W6-56, W6-57)."""
    return body[:TOKEN_BYTES] if len(body) >= TOKEN_BYTES else None


def token_of_response(body):
    """The token of a response, or None if it is ignored (W6-57)."""
    return body if len(body) == TOKEN_BYTES else None


# Keys


@dataclass(frozen=True)
class Opened:
    """A packet whose tag is right."""

    kind: int
    lane: int
    counter: int
    body: bytes
    newest: bool  # its counter is above all earlier ones of its lane


class Generation:
    """One generation of keys of a connection: both directions, all lanes (W6-2, W4-64, W4-65)."""

    def __init__(self, keys, own_hello, peer_hello, agreement, domain, *, initiator, step, born):
        self.keys, self.agreement = keys, agreement
        self.own_hello, self.peer_hello = own_hello, peer_hello
        self.initiator, self.step, self.born = initiator, step, born
        self.own_index, self.peer_index = own_hello.index, peer_hello.index
        self.confirmed = False  # a packet was opened under these keys
        self._seal_keys = [lane_key(keys.seal, lane, domain) for lane in range(own_hello.lanes)]
        self._open_keys = [lane_key(keys.open, lane, domain) for lane in range(peer_hello.lanes)]
        self.counters = [0] * own_hello.lanes
        self.windows = [Window() for _ in self._open_keys]
        self.packets, self.marked = [0] * peer_hello.lanes, [0] * peer_hello.lanes  # W6-94

    def age(self, now):
        """Seconds since this end computed the keys."""
        return now - self.born

    def seal(self, kind, body, lane=0):
        """The next packet of this lane (W3-7, W3-35)."""
        counter = self.counters[lane]
        if counter >= SEAL_PACKETS_MAX:
            raise Discarded("keys_expired")
        self.counters[lane] = counter + 1
        return seal_packet(self._seal_keys[lane], kind, lane, self.peer_index, counter, body)

    def open(self, packet, header, now, *, congested=False):
        """Opens a packet for `own_index`, in the order of W3-38; raises `Discarded` (W6-2)."""
        if len(packet) < HEADER_BYTES + TAG_BYTES:
            raise Discarded("too_short")
        if self.age(now) >= OPEN_END_S:
            raise Discarded("keys_expired")
        if header.lane >= len(self._open_keys):
            raise Discarded("bad_seal")
        window = self.windows[header.lane]
        counter = window.counter_of(header.counter)
        try:
            body = open_packet(self._open_keys[header.lane], counter, packet)
        except primitives.Unreadable as error:
            raise Discarded("bad_seal") from error
        newest = counter >= window.edge
        window.accept(counter)
        self.packets[header.lane] += 1
        self.marked[header.lane] += congested
        return Opened(header.kind, header.lane, counter, body, newest)
