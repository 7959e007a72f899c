"""The switch header (wire.md 2)."""

import struct
from dataclasses import dataclass, replace

from .transport import Discarded

HOPS_MAX = 64
SWITCH_HEADER_BYTES = 8  # without the label
_LABEL_BYTES = {0: 8, 1: 16, 2: 32}
_WIDTHS = {64: 0, 128: 1, 256: 2}


@dataclass(frozen=True)
class SwitchHeader:
    """Fields of the header; the defaults are those of a packet of a node that is not a switch."""

    label: int
    shift: int = 4
    bits: int = 64
    quiet: bool = False  # E: send no error about this packet
    control: bool = False  # C
    telemetry: bool = False  # T
    ecn: int = 0
    hops: int = HOPS_MAX
    class_: int = 0
    flow: int = 0
    version: int = 1
    zero: int = 0  # the three bits of W2-2

    def with_(self, **fields):
        """A copy with other values of these fields."""
        return replace(self, **fields)

    @property
    def length(self):
        """Bytes of this header: 16, 24 or 40."""
        return SWITCH_HEADER_BYTES + self.bits // 8

    @property
    def forward(self):
        """The forward part of the label (W1)."""
        return self.label & ((1 << (self.bits - self.shift)) - 1)

    def encode(self):
        """The bytes."""
        flags = self.quiet << 7 | self.control << 6 | self.telemetry << 5 | self.ecn << 3 | self.zero
        fixed = struct.pack(
            ">BBBBHH",
            self.version << 4 | _WIDTHS[self.bits],
            flags,
            self.hops,
            self.class_,
            self.shift,
            self.flow,
        )
        return fixed + self.label.to_bytes(self.bits // 8, "big")

    @classmethod
    def decode(cls, body):
        """Reads the header at the start of a body, in the order of wire.md 2; raises `Discarded`."""
        if len(body) < SWITCH_HEADER_BYTES:
            raise Discarded("too_short")
        first, flags, hops, class_, shift, flow = struct.unpack_from(">BBBBHH", body)
        if first >> 4 != 1:
            raise Discarded("bad_version")  # W2-1
        if first & 15 not in _LABEL_BYTES:
            raise Discarded("bad_width")  # W2-3
        label_bytes = _LABEL_BYTES[first & 15]
        if len(body) < SWITCH_HEADER_BYTES + label_bytes:
            raise Discarded("too_short")  # W2-18
        label = int.from_bytes(body[SWITCH_HEADER_BYTES : SWITCH_HEADER_BYTES + label_bytes], "big")
        if shift >= 8 * label_bytes:
            raise Discarded("bad_header")  # W2-8
        return cls(
            label, shift, 8 * label_bytes, bool(flags & 0x80), bool(flags & 0x40),
            bool(flags & 0x20), flags >> 3 & 3, hops, class_, flow, 1, flags & 7,
        )  # fmt: skip


@dataclass(frozen=True)
class Packet:
    """A switch header and its payload."""

    header: SwitchHeader
    payload: bytes = b""

    def encode(self):
        """The bytes between link header and tag."""
        return self.header.encode() + self.payload

    @classmethod
    def decode(cls, body):
        """Reads a body; raises `Discarded`."""
        header = SwitchHeader.decode(body)
        return cls(header, body[header.length :])
