"""Both tables of one connection: what this end states, and what the peer has stated (wire.md 6.8)."""

from . import items, tables

FIRST_INTERVAL_S, INTERVAL_MAX_S, TRANSMISSIONS_MAX = 0.25, 8.0, 8  # W6-154


class Conflict(Exception):
    """The peer's table contradicts itself (W6-36)."""


class TableFull(Exception):
    """No entry can be added (W6-33, W6-151)."""


class OwnTable:
    """The names that this end accepts, and how many of them the peer has acknowledged."""

    def __init__(self, entries):
        self.entries = list(entries)
        self.sent = self.acked = 0
        self.must_state = False  # also if all is acknowledged or empty (W6-80, W6-141)
        self.due, self.interval, self.transmissions = None, FIRST_INTERVAL_S, 0

    def add(self, entry, now):
        """Adds a name at the end; without effect if it is there (W6-150, W6-151)."""
        if tables.number_of(self.entries, entry.name) is not None:
            return
        grown = [*self.entries, entry]
        if len(grown) > tables.ENTRIES_MAX or len(tables.encode(grown)) > tables.TABLE_BYTES_MAX:
            raise TableFull
        self.entries = grown
        self.state_again(now)

    def in_hello(self):
        """The entries that a hello has room for (W6-72)."""
        chosen = tables.fitting(self.entries)
        self.sent = max(self.sent, len(chosen))
        return chosen

    def acknowledged(self, count, now):
        """The peer has the first entries up to this number. False: it cannot (W6-156)."""
        if count > self.sent:
            return False
        progress = count > self.acked
        self.acked = max(self.acked, count)
        if self.acked == len(self.entries):
            self.must_state = False
        if not self.unsettled():
            self.due = None
        elif progress:
            self.state_again(now)
        return True

    def forget_acks(self, now):
        """The peer has restarted (W6-140)."""
        self.acked = 0
        self.state_again(now)

    def unsettled(self):
        """Whether something is to be sent."""
        return self.must_state or self.acked < len(self.entries)

    def state_again(self, now):
        """Begins to send what is not acknowledged, at once (W6-154)."""
        if self.unsettled():
            self.due, self.interval, self.transmissions = now, FIRST_INTERVAL_S, 0

    def heard(self, now):
        """A packet of the peer was opened: transmissions may go on."""
        if self.transmissions >= TRANSMISSIONS_MAX and self.unsettled():
            self.due, self.transmissions = now, 0
        elif self.due is not None:
            self.transmissions = 0

    def transmission(self, now, room):
        """The items to send now, or an empty list (W6-154, W6-155)."""
        if self.due is None or now < self.due or not self.unsettled():
            return []
        self.transmissions += 1
        self.due = now + self.interval if self.transmissions < TRANSMISSIONS_MAX else None
        self.interval = min(2 * self.interval, INTERVAL_MAX_S)
        chosen = tables.fitting(self.entries[self.acked :], room - 8)
        last = self.acked + len(chosen)
        self.sent = max(self.sent, last)
        out = []
        if chosen:
            out.append(items.Item(items.TABLE, first=self.acked + 1, entries=tuple(chosen)))
        if last == len(self.entries) and last < tables.ENTRIES_MAX:
            out.append(items.Item(items.TABLE, first=last + 1))
        return out


class PeerTable:
    """This end's copy of the peer's table."""

    def __init__(self):
        self.entries, self.complete = [], False
        self.expected = None  # the number of entries that the newest hello counts

    def number_of(self, name):
        """The number under which the peer accepts this name, or None."""
        return tables.number_of(self.entries, name)

    def flags_of(self, name):
        """The flags of this name; 0 if the peer has not stated it."""
        number = self.number_of(name)
        return self.entries[number - 1].flags if number else 0

    def take(self, first, entries):
        """Takes the entries that continue the copy; raises `Conflict` (W6-156, W6-36)."""
        for number, entry in enumerate(entries, first):
            if number <= len(self.entries):
                if self.entries[number - 1] != entry:
                    raise Conflict
            elif number == len(self.entries) + 1:
                self.entries.append(entry)
            else:
                break
        if not entries and first == len(self.entries) + 1:
            self.complete = True  # W6-155
        self._check_expected()

    def hello(self, entries, fields):
        """Takes the table and field 2 of a hello; raises `Conflict` (W6-36, W6-155)."""
        self.take(1, entries)
        if fields.entries is None:
            return
        if fields.entries == len(self.entries):
            state = tables.table_hash(self.entries)[: tables.STATE_HASH_BYTES]
            if state != fields.entries_hash:
                raise Conflict
        self.expected = fields.entries
        self._check_expected()

    def _check_expected(self):
        if self.expected is not None and len(self.entries) >= self.expected:
            self.complete = True
