"""The link header, the first 8 bytes of every packet (wire.md 3.1)."""

import struct
from dataclasses import dataclass

LINK_HEADER_BYTES = 8
PACKET_BYTES_MAX = 9216

INITIATION, RESPONSE, COOKIE, SEALED, SEALED_HEADER, PLAIN, BEACON, CHALLENGE, ANSWER = range(1, 10)

# The step of a handshake message, in place of the lane (W4-2).
STEP_IK, STEP_XX, STEP_XX_3 = 0, 1, 2


@dataclass(frozen=True)
class LinkHeader:
    """Kind, lane, receiver's session index, low half of the counter (W3-1)."""

    kind: int
    lane: int
    index: int
    counter: int

    def encode(self):
        """The 8 bytes."""
        first = (self.kind << 28) | (self.lane << 24) | self.index
        return struct.pack(">II", first, self.counter & 0xFFFFFFFF)

    @classmethod
    def decode(cls, packet):
        """Reads the first 8 bytes of a packet."""
        first, counter = struct.unpack_from(">II", packet)
        return cls(first >> 28, (first >> 24) & 15, first & 0xFFFFFF, counter)


def plain(counter):
    """The link header of plain data (W3-2)."""
    return LinkHeader(PLAIN, 0, 0, counter).encode()
