"""Control messages (wire.md 5)."""

import struct
from dataclasses import dataclass

from . import label as labels
from .header import HOPS_MAX, Packet, SwitchHeader
from .transport import Discarded

PING, PONG, TRACE, TRACE_REPLY, IDENTIFY, IDENTITY = 1, 2, 3, 4, 5, 6
ERROR, TOO_BIG, SLOT_MOVED, SLOT_GONE, CONGESTION, GOODBYE = 7, 8, 9, 10, 11, 12
REQUESTS = (PING, TRACE, IDENTIFY)

# W5-5
REASONS = {
    1: "hops_spent", 2: "label_spent", 3: "no_director", 4: "empty_slot", 5: "slot_gone",
    6: "u_turn", 7: "beyond_endpoint", 8: "return_path", 9: "label_full", 10: "too_big",
    11: "egress_full", 12: "link_down", 13: "keys_expired", 14: "exit_gone",
}  # fmt: skip

EGRESS_NOTHING, EGRESS_NEIGHBOUR, EGRESS_ENDPOINT, EGRESS_SELF = range(4)
NO_SLOT = 0xFFFFFF

PONG_PAYLOAD_MAX = 1392  # W5-37

_TRACE_REPLY = struct.Struct(">IIQQHH")  # slot in; type and slot out; times; frames; longest packet


@dataclass(frozen=True)
class Message:
    """A control message: kind, code, and the fields that its kind has."""

    kind: int
    code: int = 0
    id: int = 0
    payload: bytes = b""  # of ping and pong; the text of a goodbye
    slot_in: int = 0
    egress: int = 0
    slot_out: int = 0
    held_ns: int = 0
    time_ns: int = 0
    queued: int = 0
    longest: int = 0  # also of too big
    ed25519: bytes = b""
    x25519: bytes = b""
    slot: int = 0  # of slot moved and slot gone
    new_slot: int = 0
    retry_after_s: int = 0
    offending: SwitchHeader | None = None

    def encode(self):
        """The bytes of W5-21, W5-22, W5-23, W5-24, W5-25, W5-26, W5-27, W5-28, W5-29, W5-30, W5-31."""
        return bytes([1, self.kind, self.code, 0]) + self._fields()

    def _fields(self):
        identifier = self.id.to_bytes(4, "big")
        if self.kind in (PING, PONG):
            return identifier + self.payload
        if self.kind == TRACE:
            return identifier + bytes(28)
        if self.kind == TRACE_REPLY:
            return identifier + _TRACE_REPLY.pack(
                self.slot_in,
                self.egress << 24 | self.slot_out,
                self.held_ns,
                self.time_ns,
                self.queued,
                self.longest,
            )
        if self.kind == IDENTIFY:
            return identifier + bytes(64)
        if self.kind == IDENTITY:
            return identifier + self.ed25519 + self.x25519
        if self.kind == GOODBYE:
            return self.retry_after_s.to_bytes(4, "big") + self.payload
        offending = self.offending.encode()
        if self.kind == TOO_BIG:
            return self.longest.to_bytes(2, "big") + offending
        if self.kind == SLOT_MOVED:
            return self.slot.to_bytes(4, "big") + self.new_slot.to_bytes(4, "big") + offending
        if self.kind == SLOT_GONE:
            return self.slot.to_bytes(4, "big") + offending
        return offending  # error and congestion

    @classmethod
    def decode(cls, data):
        """Reads a message; raises `Discarded("unhandled")` (W5-1, W5-15, W5-16, W5-17)."""
        if len(data) < 4 or data[0] != 1:
            raise Discarded("unhandled")
        kind, code, rest = data[1], data[2], data[4:]
        try:
            return cls._read(kind, code, rest)
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise Discarded("unhandled") from error

    @classmethod
    def _read(cls, kind, code, rest):
        if kind in (PING, PONG) and len(rest) >= 4:
            return cls(kind, id=_u32(rest), payload=rest[4:])
        if (kind == TRACE and len(rest) == 32) or (kind == IDENTIFY and len(rest) == 68):
            return cls(kind, id=_u32(rest))
        if kind == TRACE_REPLY and len(rest) == 32:
            slot_in, out, held, time, queued, longest = _TRACE_REPLY.unpack(rest[4:])
            if out >> 24 > EGRESS_SELF:
                raise Discarded("unhandled")
            return cls(
                kind, code, _u32(rest), slot_in=slot_in, egress=out >> 24, slot_out=out & 0xFFFFFF,
                held_ns=held, time_ns=time, queued=queued, longest=longest,
            )  # fmt: skip
        if kind == IDENTITY and len(rest) == 68:
            return cls(kind, id=_u32(rest), ed25519=rest[4:36], x25519=rest[36:])
        if kind == GOODBYE and 4 <= len(rest) <= 132:
            rest[4:].decode("utf-8")
            return cls(kind, code, retry_after_s=_u32(rest), payload=rest[4:])
        if kind in (ERROR, CONGESTION):
            return cls(kind, code if kind == ERROR else 0, offending=_offending(rest))
        if kind == TOO_BIG:
            longest = int.from_bytes(rest[:2], "big")
            return cls(kind, longest=longest, offending=_offending(rest[2:]))
        if kind == SLOT_MOVED:
            offending = _offending(rest[8:])
            return cls(kind, slot=_u32(rest), new_slot=_u32(rest[4:]), offending=offending)
        if kind == SLOT_GONE:
            return cls(kind, slot=_u32(rest), offending=_offending(rest[4:]))
        raise Discarded("unhandled")


def _u32(data):
    return int.from_bytes(data[:4], "big")


def _offending(data):
    """The header that an error is about: as long as its first byte says (W5-2)."""
    width = data[0] & 15
    if width > 2 or len(data) != 8 + (8 << width):
        raise Discarded("unhandled")
    # The sender of an error copies the header as it was, so no field is checked here.
    first = bytes([0x10 | width])
    shift = int.from_bytes(data[4:6], "big")
    if shift >= 64 << width:
        raise Discarded("unhandled")
    return SwitchHeader.decode(first + data[1:])


def request(kind, identifier, label, payload=b"", *, bits=64, hops=HOPS_MAX, shift=4, **flags):
    """A request along a label that is complete with the return path (W5-39, W5-40, W5-41)."""
    header = SwitchHeader(
        label,
        shift,
        bits,
        control=True,
        telemetry=kind == TRACE,
        hops=hops,
        flow=identifier & 0xFFFF,
    ).with_(**flags)
    return Packet(header, Message(kind, id=identifier, payload=payload).encode())


def reply_to(packet, message):
    """The reply of a node that is not a switch, or None (W5-3, W5-32, W5-33, W5-34, W5-35, W5-6)."""
    header = packet.header
    try:
        back = labels.reverse(header.label, header.shift, header.bits)
    except labels.LabelError:
        return None
    label, shift = labels.from_neighbour(back, header.bits)
    reply = Packet(
        SwitchHeader(
            label,
            shift,
            header.bits,
            quiet=True,
            control=True,
            hops=HOPS_MAX - 1,
            class_=header.class_,
            flow=header.flow,
        ),
        message.encode(),
    )
    return reply if len(reply.encode()) <= len(packet.encode()) else None


def is_from_neighbour(header):
    """Whether only the neighbour itself can have sent this packet (W5-12)."""
    return labels.reverse_bits(header.label, header.bits) & ((1 << header.shift) - 1) == 1
