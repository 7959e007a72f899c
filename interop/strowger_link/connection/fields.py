"""Fields of the hello of connections, and what that hello must be (wire.md 6.3 and 6.4)."""

import struct
from dataclasses import dataclass, replace

from ..hello import Malformed, agree
from . import tables

HELLO_BYTES_MAX = 760  # W6-28
LANES_MAX = 4
ID, TABLE_STATE, EARLY, RESULT, IDLE = 1, 2, 3, 4, 5
DELIVERED, REFUSED, NOT_DELIVERED = 0, 1, 2  # W6-65
UNKNOWN_ID = bytes(8)


@dataclass(frozen=True)
class Early:
    """An early message (W6-64)."""

    name: bytes
    message: bytes = b""

    def encode(self):
        """The value of field 3."""
        return bytes([len(self.name)]) + self.name + self.message


@dataclass(frozen=True)
class Fields:
    """What stands behind the protocol table. None: the field is absent (W6-58)."""

    id: bytes | None = None
    entries: int | None = None  # of the sender's table (W6-63)
    entries_hash: bytes = b""
    early: Early | None = None
    result: int | None = None
    idle_s: int | None = None

    def encode(self):
        """The bytes, in the order of the types (W6-61)."""
        values = {ID: self.id, EARLY: self.early and self.early.encode()}
        if self.entries is not None:
            values[TABLE_STATE] = bytes([self.entries]) + self.entries_hash
        if self.result is not None:
            values[RESULT] = bytes([self.result])
        if self.idle_s is not None:
            values[IDLE] = struct.pack(">H", self.idle_s)
        out = b""
        for kind in sorted(values):
            if values[kind] is not None:
                out += struct.pack(">BH", kind, len(values[kind])) + values[kind]
        return out

    @classmethod
    def decode(cls, data):
        """Reads the fields; raises `Malformed` (W6-58, W6-59, W6-60)."""
        found, at = {}, 0
        while at < len(data):
            if len(data) < at + 3:
                raise Malformed("the last field is incomplete")
            kind, length = struct.unpack_from(">BH", data, at)
            value, at = data[at + 3 : at + 3 + length], at + 3 + length
            if len(value) < length:
                raise Malformed("the last field is incomplete")
            if not ID <= kind <= IDLE:
                continue
            if kind in found:
                raise Malformed("a field occurs twice")
            found[kind] = value
        return cls(**_values(found))


def _values(found):
    values = {}
    for kind, value in found.items():
        if kind == ID:
            _check(len(value) == 8)
            values["id"] = value
        elif kind == TABLE_STATE:
            _check(len(value) == 9 and value[0] <= tables.ENTRIES_MAX)
            values["entries"], values["entries_hash"] = value[0], value[1:]
        elif kind == EARLY:
            _check(len(value) >= 3 and len(value) >= 1 + value[0])
            name = value[1 : 1 + value[0]]
            _check(tables.name_is_valid(name))
            values["early"] = Early(name, value[1 + value[0] :])
        elif kind == RESULT:
            _check(len(value) == 1 and value[0] <= NOT_DELIVERED)
            values["result"] = value[0]
        else:
            _check(len(value) == 2)
            values["idle_s"] = int.from_bytes(value, "big")
    return values


def _check(condition):
    if not condition:
        raise Malformed("the value of a field")


def table_state(entries):
    """The two fields of the state of a table (W6-63)."""
    return {
        "entries": len(entries),
        "entries_hash": tables.table_hash(entries)[: tables.STATE_HASH_BYTES],
    }


def check(hello, *, second_of_xx=False):
    """The entries and the fields of a hello of connections; raises `Malformed` (W6-17, W6-28)."""
    if len(hello.encode()) > HELLO_BYTES_MAX:
        raise Malformed("longer than 760 bytes")
    if hello.seal_wish > 1 or hello.flags != 0 or hello.lanes > LANES_MAX:
        raise Malformed("seal wish, flags or lanes")
    if hello.scheme:
        raise Malformed("a scheme")
    if second_of_xx and hello.table:
        raise Malformed("a protocol table in XX 2")  # W6-125
    try:
        entries = tables.decode(hello.table)
    except tables.MalformedTable as error:
        raise Malformed("protocol table") from error
    return entries, Fields.decode(hello.later)


def agreement(one, other):
    """The agreement of two hellos. Packets are sealed in full whatever the wishes (wire.md 6.3)."""
    return replace(agree(one, other), header_only=False)
