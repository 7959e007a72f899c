"""Protocol tables: the names that one end of a connection accepts (wire.md 6.5)."""

from dataclasses import dataclass

from .. import primitives

FLAG_PASS_THROUGH, FLAG_EARLY = 1, 2  # W6-67
NAME_BYTES_MIN, NAME_BYTES_MAX = 2, 128
ENTRIES_MAX, TABLE_BYTES_MAX, HELLO_BYTES_MAX = 254, 8192, 512  # W6-33, W6-72
STATE_HASH_BYTES = 8


class MalformedTable(Exception):
    """Entries that have no effect as a whole (W6-70)."""


def name_is_valid(name):
    """Whether these bytes are a protocol name (W6-31)."""
    return (
        NAME_BYTES_MIN <= len(name) <= NAME_BYTES_MAX
        and name[:1] == b"/"
        and all(0x21 <= byte <= 0x7E for byte in name)
    )


@dataclass(frozen=True)
class Entry:
    """One protocol: its name and flags (W6-30)."""

    name: bytes
    flags: int = 0

    def encode(self):
        """The bytes of the entry."""
        return bytes([self.flags, len(self.name)]) + self.name


def encode(entries):
    """The bytes of these entries (W6-30)."""
    return b"".join(entry.encode() for entry in entries)


def decode(data):
    """The entries in these bytes; raises `MalformedTable` (W6-30, W6-33, W6-70)."""
    if len(data) > TABLE_BYTES_MAX:
        raise MalformedTable("bytes")
    entries, at = [], 0
    while at < len(data):
        if len(data) < at + 2 or len(data) < at + 2 + data[at + 1]:
            raise MalformedTable("the end is inside an entry")
        name = data[at + 2 : at + 2 + data[at + 1]]
        if not name_is_valid(name):
            raise MalformedTable("name")
        entries.append(Entry(name, data[at]))
        at += 2 + len(name)
    if len(entries) > ENTRIES_MAX:
        raise MalformedTable("entries")
    return entries


def fitting(entries, room=HELLO_BYTES_MAX):
    """As many of the first entries as fit so many bytes, each of them complete (W6-72)."""
    chosen, used = [], 0
    for entry in entries:
        used += len(entry.encode())
        if used > room:
            break
        chosen.append(entry)
    return chosen


def table_hash(entries):
    """HASH over the bytes of all entries (W6-71)."""
    return primitives.blake2s(encode(entries))


def number_of(entries, name):
    """The number of a name, the lowest if it occurs twice; None without one (W6-68, W6-69)."""
    for number, entry in enumerate(entries, 1):
        if entry.name == name:
            return number
    return None
