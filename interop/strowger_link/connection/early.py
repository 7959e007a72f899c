"""Early messages and timestamps at a responder (wire.md W6-21, W6-146, W6-148)."""

from . import fields, tables

CLOCK_NS = 10 * 10**9
RESULTS_MAX, TIMESTAMPS_MAX, RESULT_S = 1024, 16_384, 20.0


class Timestamps:
    """The greatest accepted timestamp of each identity (W4-16, W6-146)."""

    def __init__(self):
        self.greatest, self.floor = {}, 0

    def is_stale(self, public, timestamp):
        """Whether a handshake with this timestamp is refused."""
        return timestamp <= self.greatest.get(public, 0)

    def accept(self, public, timestamp):
        """Keeps the timestamp of a handshake that was accepted."""
        self.greatest.pop(public, None)
        if len(self.greatest) >= TIMESTAMPS_MAX:
            oldest = next(iter(self.greatest))
            self.floor = max(self.floor, self.greatest.pop(oldest))
        self.greatest[public] = timestamp


class EarlyMessages:
    """What is remembered of early messages, so that each is delivered once."""

    def __init__(self, wall_clock_ns):
        self.wall_clock_ns, self.started = wall_clock_ns, wall_clock_ns()
        self.results = {}  # (identity, id): (result, when)

    def result(self, public, stated, timestamp, entries, timestamps, now):
        """The result, and whether the message is to be delivered now (W6-21, W6-148)."""
        self.results = {one: had for one, had in self.results.items() if now - had[1] < RESULT_S}
        key = (public, stated.id)
        if key in self.results:
            return self.results[key][0], False
        number = tables.number_of(entries, stated.early.name)
        if number is None:
            return fields.REFUSED, False
        wall = self.wall_clock_ns()
        fresh = (
            entries[number - 1].flags & tables.FLAG_EARLY
            and timestamp >= self.started + CLOCK_NS
            and abs(timestamp - wall) <= CLOCK_NS
            and timestamp >= timestamps.floor
            and len(self.results) < RESULTS_MAX
        )
        if not fresh:
            return fields.NOT_DELIVERED, False
        self.results[key] = (fields.DELIVERED, now)
        return fields.DELIVERED, True
