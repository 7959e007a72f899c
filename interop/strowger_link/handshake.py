"""The messages of IKpsk2 and XX, both roles (wire.md 4, "Messages" and "mac1 and mac2")."""

import os
from dataclasses import dataclass

from . import noise, primitives
from .domain import LINK
from .hello import Hello, Malformed, padded
from .linkheader import (
    INITIATION,
    RESPONSE,
    STEP_IK,
    STEP_XX,
    STEP_XX_3,
    LinkHeader,
)
from .primitives import Unreadable, dh, mac, mac16, same, x25519_public

INITIATION_BYTES = 896
NO_MAC2 = bytes(16)
NO_PSK = bytes(32)
XX_MAC_KEY = bytes(32)  # K of all messages of XX (W4-41)
_XX_1_PAYLOAD = bytes(824)  # W4-34


class BadMac(Exception):
    """A message with a wrong mac1 (W4-43). `other_network`: its key hint is right (W4-17)."""

    def __init__(self, other_network):
        super().__init__("another network" if other_network else "mac1")
        self.other_network = other_network


@dataclass(frozen=True)
class Keys:
    """What a handshake gives: the keys of the two directions, and its transcript (W4-64)."""

    seal: bytes
    open: bytes
    transcript: bytes


def mac1(receiver_static, network, before, domain=LINK):
    """mac1 of a message whose bytes before it are `before` (W4-40, W6-10)."""
    key = mac(receiver_static, domain.mac1_key, network)
    return mac16(key, "strowger mac1", before)


def mac2(cookie, before):
    """mac2 of a message whose bytes before it are `before`; zeros without cookie (W4-42)."""
    return NO_MAC2 if cookie is None else mac16(cookie, "strowger mac2", before)


def key_hint(receiver_static, ephemeral_public, domain=LINK):
    """Bytes 1 to 3 of an IK initiation (W4-17)."""
    key = mac(receiver_static, domain.hint_key)
    return int.from_bytes(mac(key, "strowger key hint", ephemeral_public)[:3], "big")


def length_is_accepted(packet):
    """Whether a packet of kind 1 or 2 has a step and a length of W4-25 (W4-26)."""
    header, length = LinkHeader.decode(packet), len(packet)
    if header.kind == INITIATION:
        if header.lane == STEP_XX_3:
            return 136 <= length <= INITIATION_BYTES
        return header.lane in (STEP_IK, STEP_XX) and length == INITIATION_BYTES
    return header.lane in (STEP_IK, STEP_XX) and 72 <= length <= INITIATION_BYTES


def check_mac1(packet, receiver_static, network, domain=LINK):
    """Raises `BadMac` unless mac1 of this packet of kind 1 or 2 is right (W4-43)."""
    header = LinkHeader.decode(packet)
    end = len(packet) - (32 if header.kind == INITIATION else 16)
    if same(packet[end : end + 16], mac1(receiver_static, network, packet[:end], domain)):
        return
    hinted = header.kind == INITIATION and header.lane == STEP_IK and header.index != 0
    raise BadMac(hinted and header.index == key_hint(receiver_static, packet[8:40], domain))


def check_mac2(packet, cookie):
    """Whether mac2 of this packet of kind 1 is that of the cookie (W4-44)."""
    return same(packet[-16:], mac2(cookie, packet[:-16]))


def _finish(message, receiver_static, network, cookie, domain, *, with_mac2):
    message += mac1(receiver_static, network, message, domain)
    if with_mac2:
        message += mac2(cookie, message)
    return message


class IkInitiator:
    """One attempt of IKpsk2 by the initiator."""

    step = STEP_IK

    def __init__(self, identity, network, peer_static, psk=NO_PSK, ephemeral=None):
        self.identity, self.network, self.peer_static, self.psk = identity, network, peer_static, psk
        self.ephemeral = ephemeral or os.urandom(32)
        self.state = None
        self.message = None

    def initiation(self, hello, cookie=None):
        """The first message (W4-32, W4-38)."""
        state = noise.SymmetricState(noise.IK_NAME, self.network, self.identity.domain)
        state.mix_hash(self.peer_static)
        public = x25519_public(self.ephemeral)
        hint = key_hint(self.peer_static, public, self.identity.domain)
        message = LinkHeader(INITIATION, STEP_IK, hint, hello.index).encode() + public
        state.mix_hash(public)
        state.mix_key(public)
        state.mix_key(dh(self.ephemeral, self.peer_static))
        message += state.encrypt_and_hash(self.identity.static_key)
        state.mix_key(dh(self.identity.static_private, self.peer_static))
        message += state.encrypt_and_hash(padded(hello.encode()))
        self.state = state
        self.message = _finish(message, self.peer_static, self.network, cookie, self.identity.domain, with_mac2=True)
        return self.message

    def read_response(self, packet):
        """The responder's hello and the keys; raises `Unreadable`, `Malformed` or `BadMac`.

        A response that is refused leaves the attempt as it was (W4-87).
        """
        check_mac1(packet, self.identity.static_key, self.network, self.identity.domain)
        state = self.state.copy()
        public = packet[8:40]
        state.mix_hash(public)
        state.mix_key(public)
        state.mix_key(dh(self.ephemeral, public))
        state.mix_key(dh(self.identity.static_private, public))
        state.mix_key_and_hash(self.psk)
        hello = Hello.decode(state.decrypt_and_hash(packet[40:-16]))
        to_responder, to_initiator = state.split()
        return hello, Keys(to_responder, to_initiator, state.hash)


class IkResponder:
    """Reads one initiation of IKpsk2 and answers it."""

    def __init__(self, identity, network, packet):
        """Reads the first message; raises `Unreadable`, `Malformed` or `BadMac`."""
        check_mac1(packet, identity.static_key, network, identity.domain)
        state = noise.SymmetricState(noise.IK_NAME, network, identity.domain)
        state.mix_hash(identity.static_key)
        self.peer_ephemeral = packet[8:40]
        state.mix_hash(self.peer_ephemeral)
        state.mix_key(self.peer_ephemeral)
        state.mix_key(dh(identity.static_private, self.peer_ephemeral))
        self.peer_static = state.decrypt_and_hash(packet[40:88])
        state.mix_key(dh(identity.static_private, self.peer_static))
        self.hello = Hello.decode(state.decrypt_and_hash(packet[88:864]))
        self.network, self.domain, self.state = network, identity.domain, state

    def response(self, hello, psk=NO_PSK, ephemeral=None):
        """The second message and the keys (W4-33, W4-38)."""
        ephemeral, state = ephemeral or os.urandom(32), self.state
        public = x25519_public(ephemeral)
        message = LinkHeader(RESPONSE, STEP_IK, self.hello.index, hello.index).encode() + public
        state.mix_hash(public)
        state.mix_key(public)
        state.mix_key(dh(ephemeral, self.peer_ephemeral))
        state.mix_key(dh(ephemeral, self.peer_static))
        state.mix_key_and_hash(psk)
        message += state.encrypt_and_hash(hello.encode())
        to_responder, to_initiator = state.split()
        message = _finish(message, self.peer_static, self.network, None, self.domain, with_mac2=False)
        return message, Keys(to_initiator, to_responder, state.hash)


class XxInitiator:
    """One attempt of XX by the initiator. `mac_key` is K (W4-41, W6-10)."""

    step = STEP_XX

    def __init__(self, identity, network, ephemeral=None, mac_key=XX_MAC_KEY):
        self.identity, self.network, self.mac_key = identity, network, mac_key
        self.ephemeral = ephemeral or os.urandom(32)
        self.index = None
        self.state = None
        self.message = None

    def first(self, index, cookie=None):
        """XX 1 (W4-34, W4-38)."""
        state = noise.SymmetricState(noise.XX_NAME, self.network, self.identity.domain)
        public = x25519_public(self.ephemeral)
        message = LinkHeader(INITIATION, STEP_XX, 0, index).encode() + public + _XX_1_PAYLOAD
        state.mix_hash(public)
        state.mix_hash(_XX_1_PAYLOAD)
        self.index, self.state = index, state
        self.message = _finish(message, self.mac_key, self.network, cookie, self.identity.domain, with_mac2=True)
        return self.message

    def read_second(self, packet):
        """Reads XX 2: the responder's static key and hello, and the state for `third`."""
        check_mac1(packet, self.mac_key, self.network, self.identity.domain)
        if len(packet) < 120:
            raise Unreadable("shorter than XX 2")
        state = self.state.copy()
        public = packet[8:40]
        state.mix_hash(public)
        state.mix_key(dh(self.ephemeral, public))
        peer_static = state.decrypt_and_hash(packet[40:88])
        state.mix_key(dh(self.ephemeral, peer_static))
        hello = Hello.decode(state.decrypt_and_hash(packet[88:-16]))
        return peer_static, hello, (state, public)

    def third(self, second, peer_hello, hello, cookie=None):
        """XX 3, after `second` from `read_second`, and the keys (W4-37, W4-38)."""
        state, peer_ephemeral = second[0].copy(), second[1]
        message = LinkHeader(INITIATION, STEP_XX_3, peer_hello.index, hello.index).encode()
        message += x25519_public(self.ephemeral)
        message += state.encrypt_and_hash(self.identity.static_key)
        state.mix_key(dh(self.identity.static_private, peer_ephemeral))
        message += state.encrypt_and_hash(hello.encode())
        to_responder, to_initiator = state.split()
        message = _finish(message, self.mac_key, self.network, cookie, self.identity.domain, with_mac2=True)
        return message, Keys(to_responder, to_initiator, state.hash)


class XxResponder:
    """Answers messages of XX without state but a secret (W4-6).

    Index and ephemeral key are computed as the relay computes them (wire.md 4, after W4-67).
    """

    def __init__(self, identity, network, secret, epoch, mac_key=XX_MAC_KEY):
        self.identity, self.network, self.mac_key = identity, network, mac_key
        self.secret, self.epoch = secret, epoch & 1

    def index(self, source, ephemeral_public, initiator_index):
        """R (W4-15, W4-66)."""
        index_bytes = initiator_index.to_bytes(4, "big")
        drawn = mac(self.secret, "strowger xx index", source, ephemeral_public, index_bytes)
        even = int.from_bytes(drawn[:3], "big") & ~1
        return (even or 2) | self.epoch

    def ephemeral(self, source, ephemeral_public, initiator_index, hello):
        """The ephemeral private key for this XX 1 and this hello (W4-67)."""
        index_bytes = initiator_index.to_bytes(4, "big")
        return mac(
            self.secret,
            "strowger xx ephemeral",
            source,
            ephemeral_public,
            index_bytes,
            hello.encode(),
        )

    def _second(self, source, peer_ephemeral, initiator_index, hello):
        hello = hello.with_(index=self.index(source, peer_ephemeral, initiator_index), timestamp=0)
        ephemeral = self.ephemeral(source, peer_ephemeral, initiator_index, hello)
        state = noise.SymmetricState(noise.XX_NAME, self.network, self.identity.domain)
        state.mix_hash(peer_ephemeral)
        state.mix_hash(_XX_1_PAYLOAD)
        public = x25519_public(ephemeral)
        message = LinkHeader(RESPONSE, STEP_XX, initiator_index, hello.index).encode() + public
        state.mix_hash(public)
        state.mix_key(dh(ephemeral, peer_ephemeral))
        message += state.encrypt_and_hash(self.identity.static_key)
        state.mix_key(dh(self.identity.static_private, peer_ephemeral))
        message += state.encrypt_and_hash(hello.encode())
        message = _finish(message, self.mac_key, self.network, None, self.identity.domain, with_mac2=False)
        return message, hello, state, ephemeral

    def second(self, packet, source, hello):
        """XX 2, the answer to this XX 1; raises `BadMac`, `Malformed`, `Unreadable` (W4-36)."""
        check_mac1(packet, self.mac_key, self.network, self.identity.domain)
        index = LinkHeader.decode(packet).counter
        if not 1 <= index <= 0xFFFFFF:
            raise Malformed("index of XX 1")  # W4-30
        if any(packet[40:864]):
            raise Malformed("payload of XX 1")  # W4-35
        return self._second(source, packet[8:40], index, hello)[0]

    def is_ours(self, packet, source):
        """Whether R of this XX 3 is the one that this secret gives (W4-68)."""
        header = LinkHeader.decode(packet)
        if not 1 <= header.counter <= 0xFFFFFF:
            return False
        return header.index == self.index(source, packet[8:40], header.counter)

    def read_third(self, packet, source, hello):
        """Reads XX 3: the peer's static key, its hello, the own hello and the keys."""
        check_mac1(packet, self.mac_key, self.network, self.identity.domain)
        header = LinkHeader.decode(packet)
        _, hello, state, ephemeral = self._second(source, packet[8:40], header.counter, hello)
        peer_static = state.decrypt_and_hash(packet[40:88])
        state.mix_key(dh(ephemeral, peer_static))
        peer_hello = Hello.decode(state.decrypt_and_hash(packet[88:-32]))
        to_responder, to_initiator = state.split()
        return peer_static, peer_hello, hello, Keys(to_initiator, to_responder, state.hash)
