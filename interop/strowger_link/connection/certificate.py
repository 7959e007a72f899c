"""Identity certificates: an identity's signature over another key of its node (wire.md 6.7)."""

import struct
from dataclasses import dataclass

from .. import primitives

LINK_KEY, CONNECTION_KEY, NODE_KEY = 1, 2, 3  # roles (W6-99)
CERTIFICATE_BYTES = 138
_SIGNED = struct.Struct(">BBQ32s32s")


class BadCertificate(Exception):
    """A certificate that is refused (W6-99, W6-103, W6-104)."""


@dataclass(frozen=True)
class Certificate:
    """What an identity certifies (W6-98)."""

    role: int
    stamp: int  # ns since 1970 (W6-101)
    identity: bytes
    key: bytes
    flags: int = 0
    signature: bytes = b""

    def fixed(self):
        """Bytes 0 to 73."""
        return _SIGNED.pack(self.role, self.flags, self.stamp, self.identity, self.key)

    def signed_bytes(self, network):
        """What the identity signs in this network (W6-102)."""
        return b"strowger-certificate-1:" + bytes([len(network)]) + network + self.fixed()

    def encode(self):
        """The 138 bytes."""
        return self.fixed() + self.signature

    def replaces(self, other):
        """Whether this is the newer certificate of the same identity and role (W6-101)."""
        same = (self.identity, self.role) == (other.identity, other.role)
        return same and self.stamp > other.stamp


def issue(seed, role, key, stamp, network):
    """A certificate that the identity with this seed signs (W6-98, W6-100, W6-102)."""
    bare = Certificate(role, stamp, primitives.ed25519_public(seed), key)
    signature = primitives.ed25519_sign(seed, bare.signed_bytes(network))
    return Certificate(role, stamp, bare.identity, key, 0, signature)


def read(data, network, role):
    """Reads a certificate for a key of this role; raises `BadCertificate`."""
    if len(data) != CERTIFICATE_BYTES or data[0] not in (LINK_KEY, CONNECTION_KEY, NODE_KEY):
        raise BadCertificate("length or role")
    found, flags, stamp, identity, key = _SIGNED.unpack_from(data)
    certificate = Certificate(found, stamp, identity, key, flags, data[_SIGNED.size :])
    message = certificate.signed_bytes(network)
    if not primitives.ed25519_verify(identity, certificate.signature, message):
        raise BadCertificate("signature")  # W6-103
    if found != role:
        raise BadCertificate("role")  # W6-104
    return certificate
