"""Which labels a connection uses: validation, learning, challenges, hints (wire.md 6.8, Paths)."""

from .. import control
from ..linkheader import STEP_IK
from ..transport import Discarded
from . import items, packets
from .paths import LENGTH_MIN, LENGTH_START, SHORT_CHALLENGE_BYTES, Paths

CHALLENGES_A_SECOND, CHALLENGES_AT_ONCE = 160, 16  # W3-47


class Labels:
    """The part of a connection that decides along which label a packet goes."""

    def __init__(self, lanes):
        self.paths = Paths(lanes)
        self.length, self.hints = LENGTH_START, []
        self._learnt_at = -1e9
        self._challenges, self._challenged_at = float(CHALLENGES_AT_ONCE), 0.0

    def paths_for_handshake(self):
        """Where initiations go: the active path, then other chosen ones."""
        active = self.paths.active
        chosen = [one for one in self.paths.all if one.chosen and one is not active]
        found = ([active] if active is not None else []) + chosen
        return [one for one in found if not one.refused]

    def set_label(self, label, bits=64):
        """Another label to the peer; it becomes active when it is validated (W6-178)."""
        path = self.paths.add(label, self.now, bits=bits, chosen=True)
        if path is None or path is self.paths.active:
            return path
        path.wanted = True
        if path.state == "validated":
            self.paths.activate(path)
        else:
            path.state = "validating"
            self.paths.start_challenge(path, self.now)
        return path

    def validate_by_response(self, attempt, arrival):
        """W6-135."""
        if len(attempt.labels) == 1:
            self.validated_by_handshake(*attempt.labels[0])
        elif (arrival.back, arrival.header.bits) in attempt.labels:
            self.validated_by_handshake(arrival.back, arrival.header.bits)
        else:
            if arrival.back is not None:
                learnt = self.paths.add(arrival.back, self.now, bits=arrival.header.bits)
                if learnt is not None:
                    learnt.credit += arrival.length
                    self.paths.active = learnt
            for label, bits in attempt.labels:
                path = self.paths.find(label, bits)
                if path is not None and path.state != "validated":
                    path.wanted = True
                    self.paths.start_challenge(path, self.now)

    def validated_by_handshake(self, label, bits):
        path = self.paths.find(label, bits) or self.paths.add(label, self.now, bits=bits)
        if path is None:
            return
        if path.rtt is None:
            path.rtt = self.handshake_rtt
        self.paths.validated(path)

    def validate_by_first_packet(self, generation, arrival):
        """W6-137."""
        sent = generation.answered_labels
        if generation.step != STEP_IK or len(sent) == 1:
            self.validated_by_handshake(*sent[0])
            return
        # A relay can copy initiation and packet, and give both any return path.
        for label, bits in sent:
            path = self.paths.add(label, self.now, bits=bits)
            if path is not None and path.state != "validated":
                path.credit += generation.initiation_bytes
                self.paths.start_challenge(path, self.now)
        self.paths.heard(arrival.back, arrival.header.bits, arrival.length)

    def on_path_item(self, item, lane, arrival):
        """An item about the paths of the peer, in a packet of this lane (W6-180)."""
        if item.state == items.ACTIVE and item.lane == lane and arrival.back is not None:
            path = self.paths.find(arrival.back, arrival.header.bits)
            if path is None or path is self.paths.active or self.paths.chosen_works():
                return
            path.wanted = True
            if path.state == "validated":
                self.paths.activate(path)
            else:
                self.paths.start_challenge(path, self.now)
        elif item.state == items.ABANDONED:
            for path in self.paths.all:
                if not path.chosen and path.state == "validated" and path.lane_heard == item.lane:
                    path.state = "failing"

    def learn(self, opened, arrival):
        """W6-173, W6-41."""
        if opened.kind not in (packets.SEALED, packets.CHALLENGE) or not opened.newest:
            return
        if arrival.back is None:
            return
        bits = arrival.header.bits
        path = self.paths.find(arrival.back, bits)
        if path is None or path.state == "abandoned":
            if self.now - self._learnt_at < 1.0:
                return
            self._learnt_at = self.now
            path = path or self.paths.add(arrival.back, self.now, bits=bits)
            if path is None:
                return
            path.state, path.credit = "validating", path.credit + arrival.length
            self.paths.start_challenge(path, self.now)
        path.lane_heard, path.used = opened.lane, self.now

    def rtt(self, path):
        """The RTT of a path, or that of the last handshake (W6-176, W6-177)."""
        return path.rtt if path.rtt is not None else self.handshake_rtt

    def on_hint(self, path, message):
        """An error about a packet along this path (W6-183, W6-184)."""
        self.hints.append((path.label, message.kind, message.code))
        if self.current is None:
            # W6-185: the next initiation goes along other labels
            path.refused = message.kind in (control.ERROR, control.SLOT_GONE)
            self.failed_stage = control.REASONS.get(message.code, "an error")
            return
        if message.kind == control.TOO_BIG:
            self.length = max(LENGTH_MIN, min(self.length, message.longest - 24))
        elif message.kind in (control.ERROR, control.SLOT_GONE):
            if path.state == "validated":
                path.state = "failing"
            for other in self.paths.standby():
                if path is self.paths.active:
                    self.paths.activate(other)
            self.paths.start_challenge(path, self.now)

    def on_challenge(self, body, arrival):
        """W6-175, W3-47."""
        passed = self.now - self._challenged_at
        self._challenged_at = self.now
        self._challenges = min(CHALLENGES_AT_ONCE, self._challenges + CHALLENGES_A_SECOND * passed)
        if self._challenges < 1:
            raise Discarded("over_budget")
        self._challenges -= 1
        token = packets.response_to(body)
        if token is None or not self.can_seal() or arrival.back is None:
            return
        path = self.paths.find(arrival.back, arrival.header.bits)
        if path is not None:
            self.send_sealed(packets.ANSWER, token, path=path)
        else:
            packet = self.current.seal(packets.ANSWER, token, 0)
            flow, bits = self.flow(0, 0), arrival.header.bits
            self.endpoint.send(arrival.back, packet, bits=bits, flow=flow)
        active, validated = self.paths.active, path is not None and path.may_carry_data
        if not validated and active is not None and active.state == "validated":
            self.send_sealed(packets.ANSWER, token)

    def on_answer(self, body):
        token = packets.token_of_response(body)
        path = self.paths.answered(token, self.now) if token is not None else None
        if path is None:
            return
        self.paths.validated(path)
        self.flush()

    def tick_challenges(self, now):
        for path in list(self.paths.all):
            token = self.paths.due(path, now, self.rtt(path)) if self.can_seal() else None
            if token is not None:
                body = packets.challenge_body(token)
                free = not path.may_carry_data and now - path.last_short >= 1.0
                if self.send_sealed(packets.CHALLENGE, body, path=path, free=free) and free:
                    path.last_short = now

    def probe(self, length):
        """A challenge along the active path whose connection packet has this length (W6-46)."""
        path = self.paths.active
        self.paths.start_challenge(path, self.now)
        path.tokens[path.token] = (self.now, self.now)
        body = packets.challenge_body(path.token, length - SHORT_CHALLENGE_BYTES)
        path.next_try = None
        return self.send_sealed(packets.CHALLENGE, body, path=path)
