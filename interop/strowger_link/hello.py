"""The hello, the payload of handshake messages, and the agreement (wire.md 4)."""

import struct
from dataclasses import dataclass, replace

from .identity import PROOF_BYTES

IK_INITIATION_PAYLOAD_BYTES = 760

SEAL_FULL, SEAL_EITHER, SEAL_HEADER_ONLY = 0, 1, 2

_FIXED = struct.Struct(">BBBBBBBHIQ")  # offsets 2 to 22


class Malformed(Exception):
    """A message that does not have the form of its kind (`handshake_malformed`)."""


class Disagreement(Exception):
    """Two hellos that give no link (W4-63)."""


@dataclass(frozen=True)
class Hello:
    """One end's part of the agreement (W4-4). The defaults are those of a plain peer."""

    index: int = 0
    timestamp: int = 0
    proof: bytes = bytes(PROOF_BYTES)
    oldest: int = 1
    newest: int = 1
    suites: int = 1
    seal_wish: int = SEAL_FULL
    widths: int = 7
    flags: int = 0
    lanes: int = 1
    mtu: int = 9216
    scheme: bytes = bytes.fromhex("6114458100")
    table: bytes = b""
    later: bytes = b""  # fields of later versions

    def with_(self, **fields):
        """A copy with other values of these fields."""
        return replace(self, **fields)

    def encode(self):
        """The bytes of W4-4, without padding."""
        body = _FIXED.pack(
            self.oldest,
            self.newest,
            self.suites,
            self.seal_wish,
            self.widths,
            self.flags,
            self.lanes,
            self.mtu,
            self.index,
            self.timestamp,
        )
        body += self.proof + bytes([len(self.scheme)]) + self.scheme
        body += struct.pack(">H", len(self.table)) + self.table + self.later
        return struct.pack(">H", len(body)) + body

    @classmethod
    def decode(cls, payload):
        """Reads a payload; raises `Malformed` (W4-45, W4-46, W4-47, W4-48, W4-49, W4-50, W4-51, W4-52, W4-53, W4-54, W4-55, W4-56, W4-57)."""
        length = int.from_bytes(payload[:2], "big")
        body, padding = payload[2 : 2 + length], payload[2 + length :]
        if len(payload) < 2 or len(body) < length or length < 128:
            raise Malformed("length of the hello")
        if any(padding):
            raise Malformed("padding")
        values = _FIXED.unpack_from(body)
        proof = body[21:125]
        scheme_bytes = body[125]
        if scheme_bytes > 64 or len(body) < 128 + scheme_bytes:
            raise Malformed("scheme")
        scheme = body[126 : 126 + scheme_bytes]
        rest = body[126 + scheme_bytes :]
        table_bytes = int.from_bytes(rest[:2], "big")
        if table_bytes > 512 or len(rest) < 2 + table_bytes:
            raise Malformed("protocol table")
        oldest, newest, suites, seal_wish, widths, flags, lanes, mtu, index, timestamp = values
        if oldest > newest:
            raise Malformed("versions")  # W4-47
        if seal_wish > 2:
            raise Malformed("seal wish")  # W4-49
        if flags & ~1:
            raise Malformed("flags")  # W4-51
        if not 1 <= lanes <= 16:
            raise Malformed("lanes")  # W4-52
        if mtu < 576:
            raise Malformed("MTU")  # W4-53
        if not 1 <= index <= 0xFFFFFF:
            raise Malformed("session index")  # W4-54
        return cls(
            index, timestamp, proof, oldest, newest, suites, seal_wish, widths, flags, lanes, mtu,
            scheme, rest[2 : 2 + table_bytes], rest[2 + table_bytes :],
        )  # fmt: skip


def padded(hello_bytes):
    """The payload of an IK initiation: 760 bytes (W4-32)."""
    return hello_bytes.ljust(IK_INITIATION_PAYLOAD_BYTES, b"\0")


@dataclass(frozen=True)
class Agreement:
    """What both ends compute from both hellos (W4-62)."""

    version: int
    suite: int
    header_only: bool
    widths: int
    mtu: int


def agree(one, other):
    """The agreement of two hellos, in either order; raises `Disagreement` (W4-62, W13-4)."""
    version = min(one.newest, other.newest)
    if version < max(one.oldest, other.oldest):
        raise Disagreement("version")
    suites = one.suites & other.suites & 1
    if suites == 0:
        raise Disagreement("suite")
    wishes = {one.seal_wish, other.seal_wish}
    if wishes == {SEAL_FULL, SEAL_HEADER_ONLY}:
        raise Disagreement("seal mode")
    widths = one.widths & other.widths & 7
    if widths == 0:
        raise Disagreement("label widths")
    if (one.flags | other.flags) & 1 and one.scheme != other.scheme:
        raise Disagreement("scheme")
    return Agreement(version, 0, SEAL_FULL not in wishes, widths, min(one.mtu, other.mtu))
