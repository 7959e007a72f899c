"""Cookies: proofs that a sender receives at its address (wire.md 4, "Cookies")."""

from . import primitives
from .domain import LINK
from .linkheader import COOKIE, LinkHeader
from .primitives import mac, mac16

COOKIE_REPLY_BYTES = 64


def cookie_for(secret, source):
    """The cookie of this source (W4-73), as the relay computes it."""
    return mac16(secret, "strowger cookie", source)


def source_of(address, own_port):
    """S: the bytes of a source address, and the receiver's own port number (W4-73)."""
    return address + own_port.to_bytes(2, "big")


def nonce_for(secret, source, packet):
    """The nonce of the reply to this packet, as the relay computes it (W4-75)."""
    return mac(secret, "strowger cookie nonce", source, packet[:-16])[:24]


def _key(receiver_static, network, domain):
    return mac(receiver_static, domain.cookie_key, network)


def reply(packet, cookie, nonce, receiver_static, network, domain=LINK):
    """The cookie reply to this message of kind 1 (W4-25, W4-74)."""
    header = LinkHeader.decode(packet)
    message = LinkHeader(COOKIE, header.lane, header.counter & 0xFFFFFF, 0).encode() + nonce
    return message + primitives.xseal(
        _key(receiver_static, network, domain), nonce, cookie, packet[-32:-16]
    )


def read_reply(reply_packet, message, receiver_static, network, domain=LINK):
    """The cookie in the reply to `message`; raises `Unreadable` (W4-77)."""
    key = _key(receiver_static, network, domain)
    return primitives.xunseal(key, reply_packet[8:32], reply_packet[32:64], message[-32:-16])
