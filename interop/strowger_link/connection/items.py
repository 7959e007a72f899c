"""Control items: what one end of a connection says about the connection (wire.md 6.6)."""

import struct
from dataclasses import dataclass, field

from . import tables

PADDING, TABLE, TABLE_ACK, NAMED, UNSUPPORTED, LEAVING, STAY = range(7)
GOODBYE, GOODBYE_ACK, IDENTIFY, IDENTIFY_ANSWER, DIRECT, DIRECT_ANSWER = range(7, 13)
PATH, RECEIVE_REPORT, CONNECTION_ID = 13, 14, 15

# Name, shortest and longest body (W6-77). The ops 11 and 12 are skipped (W6-74).
LENGTHS = {
    PADDING: ("padding", 0, 9148),
    TABLE: ("table", 1, 8193),
    TABLE_ACK: ("table_ack", 1, 1),
    NAMED: ("named", 3, 9148),
    UNSUPPORTED: ("unsupported", 2, 129),
    LEAVING: ("leaving", 3, 131),
    STAY: ("stay", 1, 1),
    GOODBYE: ("goodbye", 6, 134),
    GOODBYE_ACK: ("goodbye_ack", 2, 2),
    IDENTIFY: ("identify", 68, 68),
    IDENTIFY_ANSWER: ("identify_answer", 12, 68),
    PATH: ("path", 2, 2),
    RECEIVE_REPORT: ("receive_report", 25, 25),
    CONNECTION_ID: ("connection_id", 8, 8),
}
ACTIVE, STANDBY, ABANDONED = 1, 2, 3  # states of a path (W6-93)
UNKNOWN_PROTOCOL, EARLY_REFUSED = 1, 2  # codes of unsupported (W6-85)
NOT_WANTED, MOVED = 5, 6  # codes of goodbye beside those of W5-31 (W6-89)
TEXT_BYTES_MAX, AGENT_BYTES_MAX = 128, 32  # W6-96


@dataclass(frozen=True)
class Item:
    """One item; which fields it has depends on `op`."""

    op: int
    first: int = 0  # of table: the number of its first entry
    entries: tuple = ()
    count: int = 0  # of table_ack
    name: bytes = b""  # of named and unsupported
    message: bytes = b""
    code: int = 0
    number: int = 0
    seconds: int = 0  # of leaving and goodbye
    text: str = ""  # of leaving and goodbye; the agent of identify_answer
    weight: int = 0
    hops: int = 0
    bits: int = 64  # the width of a label
    mtu: int = 0
    label: int = 0
    lane: int = 0
    state: int = 0
    packets: int = 0
    marked: int = 0
    newest: int = 0
    id: bytes = b""
    length: int = 0  # of padding

    def encode(self):
        """Op, length and body (W6-73)."""
        body = self.body()
        return struct.pack(">BH", self.op, len(body)) + body

    def body(self):
        """The body, by the figures of 6.6."""
        text = self.text.encode()
        return {
            PADDING: lambda: bytes(self.length),
            TABLE: lambda: bytes([self.first]) + tables.encode(self.entries),
            TABLE_ACK: lambda: bytes([self.count]),
            NAMED: lambda: bytes([len(self.name)]) + self.name + self.message,
            UNSUPPORTED: lambda: bytes([self.code]) + (self.name or bytes([self.number])),
            LEAVING: lambda: struct.pack(">HB", self.seconds, self.code) + text,
            STAY: lambda: bytes([self.weight]),
            GOODBYE: lambda: struct.pack(">IBB", self.seconds, self.code, self.number) + text,
            GOODBYE_ACK: lambda: bytes([self.code, self.number]),
            IDENTIFY: lambda: bytes(68),
            IDENTIFY_ANSWER: lambda: (
                struct.pack(">BBH", self.hops, {64: 0, 128: 1, 256: 2}[self.bits], self.mtu)
                + self.label.to_bytes(self.bits // 8, "big")
                + text
            ),
            PATH: lambda: bytes([self.lane, self.state]),
            RECEIVE_REPORT: lambda: struct.pack(
                ">BQQQ", self.lane, self.packets, self.marked, self.newest
            ),
            CONNECTION_ID: lambda: self.id,
        }[self.op]()


@dataclass
class Read:
    """The items of one message, and how many were malformed (W6-75)."""

    items: list = field(default_factory=list)
    malformed: int = 0


def decode(message):
    """Reads the items of a message to protocol number 0 (W6-73, W6-74, W6-75, W6-76)."""
    read, at = Read(), 0
    while at < len(message):
        if len(message) < at + 3:
            read.malformed += 1
            break
        op, length = struct.unpack_from(">BH", message, at)
        body, at = message[at + 3 : at + 3 + length], at + 3 + length
        if len(body) < length:
            read.malformed += 1
            break
        if op not in LENGTHS:
            continue
        try:
            _, shortest, longest = LENGTHS[op]
            if not shortest <= length <= longest or (op == NAMED and at < len(message)):
                raise ValueError("length")  # W6-77, W6-83
            read.items.append(_item(op, body))
        except (ValueError, tables.MalformedTable):
            read.malformed += 1
    return read


def _item(op, body):
    """The item with this body; raises `ValueError` or `MalformedTable`."""
    if op in (PADDING, IDENTIFY):
        return Item(op, length=len(body))  # W6-78, W6-91
    return _READERS[op](op, body)


def _need(condition):
    if not condition:
        raise ValueError("a value that 6.6 does not allow")


def _text(data, longest=TEXT_BYTES_MAX):
    _need(len(data) <= longest)
    return data.decode("utf-8")  # W6-96; a `UnicodeDecodeError` is a `ValueError`


def _table(op, body):
    entries = tables.decode(body[1:])
    _need(1 <= body[0] <= tables.ENTRIES_MAX)
    _need(body[0] + len(entries) - 1 <= tables.ENTRIES_MAX)  # W6-79
    return Item(op, first=body[0], entries=tuple(entries))


def _table_ack(op, body):
    _need(body[0] <= tables.ENTRIES_MAX)
    return Item(op, count=body[0])


def _named(op, body):
    name = body[1 : 1 + body[0]]
    _need(len(name) == body[0] and tables.name_is_valid(name))
    return Item(op, name=name, message=body[1 + body[0] :])


def _unsupported(op, body):
    if len(body) == 2:
        _need(1 <= body[1] <= 254)
        return Item(op, code=body[0], number=body[1])
    _need(tables.name_is_valid(body[1:]))
    return Item(op, code=body[0], name=body[1:])


def _leaving(op, body):
    seconds, code = struct.unpack_from(">HB", body)
    return Item(op, seconds=seconds, code=code, text=_text(body[3:]))


def _goodbye(op, body):
    seconds, code, number = struct.unpack_from(">IBB", body)
    _need(number != 255)
    return Item(op, seconds=seconds, code=code, number=number, text=_text(body[6:]))


def _identify_answer(op, body):
    hops, width, mtu = struct.unpack_from(">BBH", body)
    _need(width <= 2 and len(body) >= 4 + (8 << width))
    end = 4 + (8 << width)
    label, agent = int.from_bytes(body[4:end], "big"), _text(body[end:], AGENT_BYTES_MAX)
    return Item(op, hops=hops, bits=64 << width, mtu=mtu, label=label, text=agent)


def _path(op, body):
    _need(body[0] <= 15 and body[1] in (ACTIVE, STANDBY, ABANDONED))
    return Item(op, lane=body[0], state=body[1])


def _receive_report(op, body):
    lane, packets, marked, newest = struct.unpack(">BQQQ", body)
    _need(lane <= 15)
    return Item(op, lane=lane, packets=packets, marked=marked, newest=newest)


_READERS = {
    TABLE: _table,
    TABLE_ACK: _table_ack,
    NAMED: _named,
    UNSUPPORTED: _unsupported,
    LEAVING: _leaving,
    STAY: lambda op, body: Item(op, weight=body[0]),
    GOODBYE: _goodbye,
    GOODBYE_ACK: lambda op, body: Item(op, code=body[0], number=body[1]),
    IDENTIFY_ANSWER: _identify_answer,
    PATH: _path,
    RECEIVE_REPORT: _receive_report,
    CONNECTION_ID: lambda op, body: Item(op, id=body),
}
