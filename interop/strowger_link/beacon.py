"""Beacons, which announce a node to an Ethernet segment (wire.md 10)."""

from dataclasses import dataclass

from . import primitives
from .linkheader import BEACON, LinkHeader
from .primitives import mac, mac16, same
from .transport import Discarded

GROUP = bytes.fromhex("03737472 6f77")  # W10-6
BEACON_BYTES = 896
_LINK_HEADER = LinkHeader(BEACON, 0, 0, 0).encode()


@dataclass(frozen=True)
class Beacon:
    """What a beacon names: the keys of a node."""

    static_key: bytes
    ed25519: bytes


def _signed(network, static_key):
    return b"strowger-beacon-1:" + bytes([len(network)]) + network + static_key


def mac_over(network, before):
    """The mac behind these bytes of a beacon (W10-4)."""
    return mac16(mac(bytes(32), "strowger beacon key", network), "strowger beacon mac", before)


def encode(identity, network):
    """The beacon of this node (W10-1, W10-2, W10-3, W10-4, W10-7, W10-8)."""
    signature = primitives.ed25519_sign(identity.seed, _signed(network, identity.static_key))
    before = _LINK_HEADER + b"\x01\0\0\0" + identity.static_key + identity.public + signature
    before += bytes(740)
    return before + mac_over(network, before)


def decode(packet, network):
    """Checks and reads a beacon; raises `Discarded` (W10-16, W10-17, W10-24)."""
    if len(packet) != BEACON_BYTES or packet[:8] != _LINK_HEADER or packet[8] != 1:
        raise Discarded("malformed")
    if not same(packet[-16:], mac_over(network, packet[:-16])):
        raise Discarded("bad_seal")
    static_key, ed25519, signature = packet[12:44], packet[44:76], packet[76:140]
    if not primitives.ed25519_verify(ed25519, signature, _signed(network, static_key)):
        raise Discarded("bad_seal")
    return Beacon(static_key, ed25519)
