"""Announcements and lookups: control messages of kinds 18 to 25 (wire.md 5.5)."""

import ipaddress
import struct
from dataclasses import dataclass

from . import address, primitives
from .transport import Discarded

ANNOUNCE, FIND, FOUND, OBSERVED_REQUEST, OBSERVED_REPLY, RESOLVE, RESOLVED, ANNOUNCED = range(18, 26)

# W5-2
LENGTHS = {
    ANNOUNCE: 226, FIND: 173, FOUND: 173, OBSERVED_REQUEST: 28, OBSERVED_REPLY: 28,
    RESOLVE: 354, RESOLVED: 354, ANNOUNCED: 12,
}  # fmt: skip
CERTIFICATE_BYTES = 138
TARGET_KEY, TARGET_ADDRESS = 1, 2
_ANNOUNCE = struct.Struct(">IIQ")


def _head(kind, code=0):
    return bytes([1, kind, code, 0])


def check(message):
    """Kind and code; raises `Discarded("unhandled")` for another length (W5-16)."""
    if len(message) < 4 or message[0] != 1 or LENGTHS.get(message[1]) != len(message):
        raise Discarded("unhandled")
    return message[1], message[2]


# Announce


def announce(seed, network, switch, certificate, *, id, slot, seconds, stamp):
    """An announcement to the switch with this Ed25519 key (W5-80, W5-81)."""
    body = _ANNOUNCE.pack(slot, seconds, stamp) + certificate
    signature = primitives.ed25519_sign(seed, _announced_bytes(network, switch, body))
    return _head(ANNOUNCE) + id.to_bytes(4, "big") + body + signature


def _announced_bytes(network, switch, body):
    return b"strowger-announce-1:" + bytes([len(network)]) + network + switch + body


def announcement_is_signed(message, network, switch):
    """Whether the identity of its certificate has signed this announcement (W5-81)."""
    identity = message[24 + 10 : 24 + 42]
    signed = _announced_bytes(network, switch, message[8:162])
    return primitives.ed25519_verify(identity, message[162:], signed)


def announced(id, verdict, seconds):
    """The answer to an announcement (W5-82)."""
    return _head(ANNOUNCED, verdict) + struct.pack(">II", id, seconds)


# Find


def find_tag(nonce, public):
    """The tag of a search for this identity (W5-84)."""
    return primitives.mac16(nonce, "strowger find", address.ip6(public).packed[2:])


def find(nonce, public):
    """A search (W5-83)."""
    return _head(FIND) + nonce + find_tag(nonce, public) + bytes(137)


def found(nonce, width=0, director=0, seconds=0, longest=0, certificate=bytes(CERTIFICATE_BYTES)):
    """The answer to a search; with width 0 the peer is not there (W5-85)."""
    fields = struct.pack(">BQIH", width, director, seconds, longest)
    return _head(FOUND) + nonce + fields + certificate


def read_found(message):
    """Width, director, seconds, longest packet and certificate; None without a peer (W5-90)."""
    width, director, seconds, longest = struct.unpack_from(">BQIH", message, 20)
    if width == 0:
        return None
    if width > 59 or director >> width:
        raise Discarded("unhandled")
    return width, director, seconds, longest, message[35:]


# Observed


def observed_request(id):
    """Asks a neighbour for the address at which it reaches this node (W5-86)."""
    return _head(OBSERVED_REQUEST) + id.to_bytes(4, "big") + bytes(20)


def observed_reply(id, ip=None, port=0):
    """The answer (W5-87)."""
    packed = b"" if ip is None else ipaddress.ip_address(ip).packed
    version = {0: 0, 4: 4, 16: 6}[len(packed)]
    fields = id.to_bytes(4, "big") + bytes([version, 0]) + port.to_bytes(2, "big")
    return _head(OBSERVED_REPLY) + fields + packed.ljust(16, b"\0")


def read_observed_reply(message):
    """IP address and port, or None if the link has no UDP address (W5-87, W5-90)."""
    lengths = {0: 0, 4: 4, 6: 16}
    if message[8] not in lengths:
        raise Discarded("unhandled")
    if message[8] == 0:
        return None
    packed = message[12 : 12 + lengths[message[8]]]
    return str(ipaddress.ip_address(packed)), int.from_bytes(message[10:12], "big")


# Resolve


def resolve(id, target):
    """Asks for labels to an Ed25519 key (32 bytes) or an address in fd53::/16 (W5-88)."""
    kind = {32: TARGET_KEY, 16: TARGET_ADDRESS}[len(target)]
    head = _head(RESOLVE) + id.to_bytes(4, "big") + bytes([kind, 0, 0, 0])
    return head + target.ljust(32, b"\0") + bytes(310)


def read_target(message):
    """The target of a resolve message (W5-88, W5-90)."""
    if message[8] not in (TARGET_KEY, TARGET_ADDRESS):
        raise Discarded("unhandled")
    return message[12:44] if message[8] == TARGET_KEY else message[12:28]


@dataclass(frozen=True)
class Route:
    """One label of an answer (W5-89)."""

    label: int
    bits: int = 64
    longest: int = 0
    cost: int = 0
    seconds: int = 0

    def encode(self):
        """The 44 bytes."""
        width = self.bits // 8
        fields = struct.pack(">BBHII", width, 0, self.longest, self.cost, self.seconds)
        return fields + self.label.to_bytes(width, "big").ljust(32, b"\0")


def resolved(id, public=bytes(32), certificate=bytes(CERTIFICATE_BYTES), routes=()):
    """The answer to a resolve message (W5-89)."""
    labels = b"".join(route.encode() for route in routes).ljust(4 * 44, b"\0")
    return _head(RESOLVED) + id.to_bytes(4, "big") + public + certificate + labels


def read_resolved(message):
    """Ed25519 key, certificate or None, and labels (W5-89, W5-90)."""
    public, certificate, routes = message[8:40], message[40:178], []
    for at in range(178, len(message), 44):
        width, _, longest, cost, seconds = struct.unpack_from(">BBHII", message, at)
        if width not in (0, 8, 16, 32):
            raise Discarded("unhandled")
        if width:
            label = int.from_bytes(message[at + 12 : at + 12 + width], "big")
            routes.append(Route(label, 8 * width, longest, cost, seconds))
    return public, certificate if certificate[0] in (1, 2, 3) else None, routes
