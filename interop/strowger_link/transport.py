"""Sealing and opening packets, and the replay window (wire.md 3.2 to 3.4)."""

from . import primitives
from .domain import LINK
from .linkheader import ANSWER, CHALLENGE, LINK_HEADER_BYTES, SEALED, SEALED_HEADER, LinkHeader
from .primitives import TAG_BYTES, mac

CLEAR_FROM = 64  # bytes of a body that sealed-header data encrypts
WINDOW = 4032
SEAL_END_S, OPEN_END_S = 180.0, 190.0  # W3-10, W3-41


class Discarded(Exception):
    """A packet that is discarded; `reason` is its name in wire.md."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def lane_key(direction_key, lane, domain=LINK):
    """The key of one lane (W4-65, W6-22)."""
    return mac(direction_key, domain.lane_key, bytes([lane]))


def _parts(header, body):
    """What is encrypted, what stays in clear, and the additional data (W3-5, W3-6)."""
    encoded = header.encode()
    if header.kind != SEALED_HEADER:
        return body, b"", encoded
    clear = body[CLEAR_FROM:]
    return body[:CLEAR_FROM], clear, encoded + len(clear).to_bytes(4, "big")


def seal_packet(key, kind, lane, index, counter, body):
    """A sealed packet from link header to tag (W3-5, W3-6, W3-7)."""
    header = LinkHeader(kind, lane, index, counter)
    secret, clear, additional = _parts(header, body)
    sealed = primitives.seal(key, counter, secret, additional)
    return header.encode() + sealed[:-TAG_BYTES] + clear + sealed[-TAG_BYTES:]


def open_packet(key, counter, packet):
    """The body of a sealed packet; raises `Unreadable`."""
    secret, clear, additional = _parts(
        LinkHeader.decode(packet), packet[LINK_HEADER_BYTES:-TAG_BYTES]
    )
    return primitives.unseal(key, counter, secret + packet[-TAG_BYTES:], additional) + clear


class Window:
    """The counters that were accepted on one lane (W3-36, W3-8)."""

    def __init__(self, width=WINDOW):
        self.width, self.edge, self.seen = width, 0, set()

    def counter_of(self, low):
        """The counter with these low 32 bits; raises `Discarded("replayed")`."""
        lowest = max(self.edge - self.width, 0)
        counter = lowest + ((low - lowest) & 0xFFFFFFFF)
        if counter >= 1 << 64 or (counter < self.edge and counter in self.seen):
            raise Discarded("replayed")
        return counter

    def accept(self, counter):
        """Adds the counter of a packet whose tag is right."""
        self.seen.add(counter)
        if counter >= self.edge:
            self.edge = counter + 1
            lowest = self.edge - self.width
            self.seen = {number for number in self.seen if number >= lowest}


class Generation:
    """One generation of keys with a peer: both directions, all lanes (wire.md 4.2)."""

    def __init__(self, keys, own_hello, peer_hello, agreement, *, initiator, step, born,
                 domain=LINK):  # fmt: skip
        self.keys, self.agreement = keys, agreement
        self.initiator, self.step, self.born = initiator, step, born
        self.own_index, self.peer_index = own_hello.index, peer_hello.index
        self.data_kind = SEALED_HEADER if agreement.header_only else SEALED  # W3-33
        self.confirmed = False  # a packet was opened under these keys
        self._seal_keys = [lane_key(keys.seal, lane, domain) for lane in range(own_hello.lanes)]
        self._open_keys = [lane_key(keys.open, lane, domain) for lane in range(peer_hello.lanes)]
        self._counters = [0] * own_hello.lanes
        self._windows = [Window() for _ in self._open_keys]

    def may_seal(self, now):
        """Whether the keys are young enough (W3-10)."""
        return now - self.born < SEAL_END_S

    def seal(self, kind, body, lane=0, counter=None):
        """The next packet of this lane (W3-7, W3-35), or one with a greater counter."""
        if counter is None:
            counter = self._counters[lane]
        self._counters[lane] = max(self._counters[lane], counter + 1)
        return seal_packet(self._seal_keys[lane], kind, lane, self.peer_index, counter, body)

    def seal_data(self, body, lane=0):
        """A packet of data in the mode of the session."""
        return self.seal(self.data_kind, body, lane)

    def open(self, packet, now):
        """The kind and the body of a packet for `own_index`; raises `Discarded` (W3-38)."""
        header = LinkHeader.decode(packet)
        if len(packet) < LINK_HEADER_BYTES + TAG_BYTES:
            raise Discarded("too_short")
        if header.kind not in (self.data_kind, CHALLENGE, ANSWER):
            raise Discarded("bad_link_kind")  # W3-34
        if now - self.born >= OPEN_END_S:
            raise Discarded("keys_expired")
        if header.lane >= len(self._open_keys):
            raise Discarded("bad_seal")  # W3-30
        window = self._windows[header.lane]
        counter = window.counter_of(header.counter)
        try:
            body = open_packet(self._open_keys[header.lane], counter, packet)
        except primitives.Unreadable as error:
            raise Discarded("bad_seal") from error
        window.accept(counter)
        return header.kind, body
