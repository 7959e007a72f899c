"""Identities of nodes: keys, identity proofs and PeerIds (wire.md 4, "Identity")."""

from dataclasses import dataclass

from . import primitives
from .domain import CONNECTION, LINK, Domain

PROOF_BYTES = 104
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class BadIdentity(Exception):
    """An identity proof that must be refused (W4-58)."""


@dataclass(frozen=True)
class Identity:
    """The Ed25519 seed of a node, and its X25519 private key for links or connections."""

    seed: bytes
    static_private: bytes
    domain: Domain = LINK

    @classmethod
    def from_seed(cls, seed):
        """A node that stores only its seed, as the relay does (wire.md 4, after W4-9)."""
        return cls(seed, primitives.mac(seed, "strowger x25519 static key"))

    @classmethod
    def for_connections(cls, seed):
        """The same identity with its connection key, made as in W6-16."""
        private = primitives.mac(seed, "strowger x25519 connection key")
        return cls(seed, private, CONNECTION)

    @property
    def public(self):
        """The Ed25519 public key."""
        return primitives.ed25519_public(self.seed)

    @property
    def static_key(self):
        """The X25519 static public key."""
        return primitives.x25519_public(self.static_private)

    @property
    def peer_id(self):
        """The PeerId as text."""
        return peer_id(self.public)

    def proof(self):
        """The identity proof (W4-5, W6-22)."""
        signature = primitives.ed25519_sign(self.seed, self.domain.proof + self.static_key)
        return bytes.fromhex("0a2408011220") + self.public + bytes.fromhex("1240") + signature


def check_proof(proof, static_key, domain=LINK):
    """The Ed25519 public key that the proof binds to this static key (W4-5, W4-58)."""
    constants = (proof[:6], proof[38:40])
    if len(proof) != PROOF_BYTES or constants != (b"\x0a\x24\x08\x01\x12\x20", b"\x12\x40"):
        raise BadIdentity("constant bytes")
    public = proof[6:38]
    if not primitives.ed25519_verify(public, proof[40:], domain.proof + static_key):
        raise BadIdentity("signature")
    return public


def peer_id(public):
    """The text of the PeerId of this Ed25519 public key (W4-59)."""
    number = int.from_bytes(b"\x00\x24\x08\x01\x12\x20" + public, "big")
    text = ""
    while number > 0:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" + text  # the first byte, 0, is the digit 1


def public_of_peer_id(text):
    """The Ed25519 public key in this PeerId (W4-59)."""
    number = 0
    for character in text:
        number = number * 58 + _ALPHABET.index(character)
    raw = number.to_bytes(38, "big")
    if raw[:6] != b"\x00\x24\x08\x01\x12\x20":
        raise ValueError(f"{text} is not the PeerId of an Ed25519 key")
    return raw[6:]
