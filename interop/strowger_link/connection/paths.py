"""The labels of one connection: validation, credit, challenges and the active path (wire.md 6.8)."""

import os
from dataclasses import dataclass, field

VALIDATING, VALIDATED, FAILING, ABANDONED = "validating", "validated", "failing", "abandoned"
LABELS_MAX = 8  # W6-40
CHALLENGE_TRIES = 3  # W6-176
TOKEN_S = 5.0  # W6-175
SHORT_CHALLENGE_BYTES = 32
LENGTH_START, LENGTH_MIN = 1208, 896  # W6-46, before the switch header is taken off


@dataclass
class Path:
    """A label with a lane (W6-40)."""

    label: int
    bits: int = 64
    chosen: bool = False  # otherwise learnt
    lane: int = 0
    state: str = VALIDATING
    rtt: float | None = None
    credit: int = 0  # bytes that may be sent before the label is validated
    used: float = 0.0
    wanted: bool = False  # becomes active once it is validated (W6-178, W6-180)
    tokens: dict = field(default_factory=dict)  # token: time of its first copy
    token: bytes | None = None
    tries: int = 0
    next_try: float | None = None
    last_short: float = -1e9
    refused: bool = False  # an error came about an initiation (W6-185)
    lane_heard: int | None = None  # the peer's lane of the newest packet by this label

    @property
    def may_carry_data(self):
        """Whether the label was validated before, so that its bytes are not counted."""
        return self.state in (VALIDATED, FAILING)


class Paths:
    """All labels of a connection, and which of them is active."""

    def __init__(self, lanes):
        self.lanes = lanes
        self.all, self.active = [], None
        self.changes = []  # (former path or None, new path), for `path` items
        self._next_lane = 0

    def find(self, label, bits=64):
        """The path of this label, or None."""
        return next((one for one in self.all if (one.label, one.bits) == (label, bits)), None)

    def add(self, label, now, *, bits=64, chosen=False):
        """The path of this label, a new one if there is none (W6-40, W6-172)."""
        path = self.find(label, bits)
        if path is not None:
            path.chosen = path.chosen or chosen
            return path
        if len(self.all) >= LABELS_MAX and not self._forget_one():
            return None
        path = Path(label, bits, chosen, self._next_lane % self.lanes, used=now)
        self._next_lane += 1
        self.all.append(path)
        if self.active is None:
            self.active = path
        return path

    def _forget_one(self):
        spare = [one for one in self.all if one is not self.active]
        abandoned = [one for one in spare if one.state == ABANDONED]
        learnt = sorted((one for one in spare if not one.chosen), key=lambda one: one.used)
        for one in abandoned + learnt:
            self.all.remove(one)
            return True
        return False

    def chosen_works(self):
        """Whether a chosen path is validated and not failing (W6-41)."""
        return any(one.chosen and one.state == VALIDATED for one in self.all)

    def activate(self, path):
        """Messages go along this path from now on."""
        if path is not self.active:
            self.changes.append((self.active, path))
            self.active = path
        path.wanted = False

    def validated(self, path):
        """The label of this path is validated (W6-42). Decides whether it becomes active."""
        first = path.state != VALIDATED
        path.state, path.next_try, path.tries = VALIDATED, None, 0
        active = self.active
        if active is None or active is path:
            self.active = path
            path.wanted = False
        elif path.chosen:
            if path.wanted or not (active.chosen and active.state == VALIDATED):
                self.activate(path)
        elif not self.chosen_works() and (path.wanted or active.state != VALIDATED):
            self.activate(path)  # W6-41, W6-180
        return first

    def restarted(self, label):
        """All labels but this one are to be validated again (W6-140)."""
        for path in self.all:
            if path.label != label:
                path.state, path.credit = VALIDATING, 0

    def all_failing(self):
        """No path answers (W6-186)."""
        for path in self.all:
            if path.state == VALIDATED:
                path.state = FAILING

    def standby(self):
        """Validated paths that are not active."""
        return [one for one in self.all if one is not self.active and one.state == VALIDATED]

    # Credit (W6-42)

    def heard(self, label, bits, length):
        """Authentic bytes came by this label."""
        path = self.find(label, bits)
        if path is not None and not path.may_carry_data:
            path.credit += length

    @staticmethod
    def may_send(path, length):
        """Whether so many bytes may go along the label. Spends the credit."""
        if path.may_carry_data:
            return True
        if path.credit < length:
            return False
        path.credit -= length
        return True

    # Challenges (W6-42, W6-55, W6-175, W6-176)

    def start_challenge(self, path, now):
        """Challenges the label three times with one token."""
        if path.next_try is None:
            path.token, path.tries, path.next_try = os.urandom(8), 0, now

    def due(self, path, now, rtt):
        """The token of a challenge that is due now, or None. Abandons a path without a response."""
        if path.next_try is None or now < path.next_try:
            return None
        if path.tries >= CHALLENGE_TRIES:
            path.next_try, path.wanted = None, False
            if path.state in (VALIDATING, FAILING):
                path.state = ABANDONED
            return None
        path.tries += 1
        interval = 1.0 if rtt is None else rtt + 0.05
        if not path.may_carry_data:
            interval = max(interval, 1.0)  # one challenge of 32 bytes a second (W6-42)
        path.next_try = now + interval
        path.tokens = {one: sent for one, sent in path.tokens.items() if now - sent[0] < TOKEN_S}
        first = path.tokens.get(path.token, (now, 0))[0]
        path.tokens[path.token] = (first, now)
        return path.token

    def answered(self, token, now):
        """The path whose challenge this token answers, and the time since its last copy."""
        for path in self.all:
            sent = path.tokens.get(token)
            if sent is not None and now - sent[1] < TOKEN_S:
                del path.tokens[token]
                sample = now - sent[1]
                path.rtt = sample if path.rtt is None else path.rtt + (sample - path.rtt) / 8
                return path
        return None
