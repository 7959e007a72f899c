"""One connection: paths, silence, restarts of the peer, and its timers (wire.md 6.8)."""

import os
import random

from ..linkheader import STEP_IK
from ..transport import Discarded
from . import fields, packets, protocols, tables
from .handshakes import REKEY_SPACING_S, Handshakes
from .labels import Labels
from .messages import Messages

CONNECT_S, IN_USE_S = 10.0, 60.0  # W6-133, W6-132
SILENCE_MIN_S, SILENCE_MAX_S, ONE_WAY_MIN_S, ONE_WAY_S = 0.15, 4.0, 1.0, 10.0  # W6-45
UNKNOWN_SPACING_S = 5.0  # W6-145
RECENT_COUNTERS = 4096  # W6-143


class Connection(Handshakes, Labels, Messages):
    """What this endpoint has with one identity."""

    def __init__(self, endpoint, *, key=None, public=None, entries=()):
        Handshakes.__init__(self, endpoint, key, public)
        Labels.__init__(self, endpoint.lanes)
        Messages.__init__(self, entries)
        self.id = None
        self.established = False  # the endpoint has this connection
        self.connect_until = None
        self.failed_stage = None
        self.early, self.early_since = None, None
        self.connection_id_to_state = None  # as responder of XX (W6-141)
        self._id_read_under = set()
        self._flows = {}
        self._due_since, self._searching = None, False
        self._unknown_at, self._newest_used = -1e9, None
        self.packets_opened = 0
        self.peer_idle_s = None

    # Facts

    def flow(self, lane, number):
        """The flow of this lane and protocol number: random, and then the same."""
        return self._flows.setdefault((lane, number), random.getrandbits(16))

    def packet_max(self):
        """The longest connection packet (W6-46, W6-181)."""
        active = self.paths.active
        longest = self.length - 8 - (active.bits if active else 64) // 8
        if self.current is not None:
            longest = min(longest, self.current.peer_hello.mtu)
        return longest

    def may_send_messages(self):
        """Whether a message may leave now (the table of states in 6.8)."""
        active = self.paths.active
        return (
            self.can_seal()
            and not self.gone
            and self.closing is None
            and active is not None
            and active.state != "abandoned"
        )

    def connected(self):
        """Whether the peer has shown that it has the keys."""
        return self.current is not None and (
            self.current.confirmed or (self.current.initiator and self.current.step == STEP_IK)
        )

    def keys_are_wanted(self):
        """W6-132."""
        if self.closing is not None:
            return False
        connecting = self.connect_until is not None and self.handshakes == 0
        return connecting or bool(self.waiting) or self.now - self.last_message < IN_USE_S

    # Hellos

    def make_hello(self, index, timestamp=0, early=None, *, id=None, result=None, proof=None):
        """The hello of this end, with its table (W6-17, W6-18, W6-32)."""
        if self.id is None and id is None:
            self.id = os.urandom(8)
        stated = fields.Fields(
            id=self.id if id is None else id,
            early=early,
            result=result,
            idle_s=self.endpoint.idle_s,
            **fields.table_state(self.own.entries),
        )
        return self.endpoint.hello.with_(
            index=index,
            timestamp=timestamp,
            proof=proof or self.endpoint.identity.proof(),
            table=tables.encode(self.own.in_hello()),
            later=stated.encode(),
        )

    def early_for_attempt(self):
        """The early message of the first handshake, for 10 s (W6-20)."""
        if self.early is None or self.handshakes or self.opened_ever:
            return None
        self.early_since = self.early_since or self.now
        return self.early if self.now - self.early_since < 10.0 else None

    def _early_is_answered(self, generation, stated):
        """W6-149."""
        if self.early is None:
            return
        early, self.early = self.early, None
        result = stated.result if generation.early else fields.NOT_DELIVERED
        if result == fields.REFUSED:
            self.refused.add(early.name)
            self.events.append(("unsupported", early.name))
        elif result != fields.DELIVERED:
            self.waiting.insert(0, (early.name, early.message, self.now))
        self.events.append(("early", result))

    # Keys

    def on_keys(self, generation, entries, stated):
        """Keys have become current: what the hello of the peer says has effect now."""
        xx = generation.step != STEP_IK
        if generation.initiator:
            if not xx:
                self._read_id(stated.id or fields.UNKNOWN_ID, generation)
                self.own.acknowledged(len(tables.decode(generation.own_hello.table)), self.now)
        else:
            self._read_id(stated.id or fields.UNKNOWN_ID, generation)
            self.connection_id_to_state = None
            if xx:
                knew = generation.knew_id
                self.connection_id_to_state = self.id if knew else fields.UNKNOWN_ID
                self.own.must_state = True
            else:
                self.own.acknowledged(len(tables.decode(generation.own_hello.table)), self.now)
            self.endpoint.established(self)
        self.established = True
        if not (generation.initiator and xx):
            self.peer_idle_s = stated.idle_s
            try:
                self.peer.hello(entries, stated)
            except protocols.Conflict:
                self.conflict()
                return
            self.refused -= {entry.name for entry in self.peer.entries}
            self.endpoint.remember(self.public, self.key, self.peer.entries)
        self._early_is_answered(generation, stated)
        if not (generation.initiator and xx):
            self.own.state_again(self.now)  # XX 3 is repeated until it is acknowledged
        self._due_since, self._searching = None, False
        self.flush()

    def _read_id(self, read, generation):
        """W6-138, W6-139, W6-140."""
        if self.id is None:
            self.id = read
            return
        if read == self.id:
            return
        if generation.opened_before:
            self.peer_restarted()
        if read != fields.UNKNOWN_ID:
            self.id = read

    def peer_restarted(self):
        """W6-140."""
        self.peer = protocols.PeerTable()
        self.own.forget_acks(self.now)
        self.drop_earlier_keys()
        active = self.paths.active
        self.paths.restarted(active.label if active else None)
        self.refused.clear()
        self.sent_numbers.clear()
        self.restarts += 1
        self.events.append(("peer_restarted",))

    def on_connection_id(self, read, generation):
        """W6-141."""
        xx = generation.step != STEP_IK
        if not (generation.initiator and xx) or generation.own_index in self._id_read_under:
            return
        self._id_read_under.add(generation.own_index)
        if read == self.id or not generation.opened_before:
            return
        self.peer_restarted()
        if read != fields.UNKNOWN_ID:
            self.id = read

    def numbers_are_known(self):
        """Whether the peer's table is that of its present process.

        After XX the initiator learns only from `connection_id` whether the peer has restarted.
        Until then it names protocols, so that no message reaches another protocol.
        """
        current = self.current
        xx = current.initiator and current.step != STEP_IK and current.opened_before
        return not xx or current.own_index in self._id_read_under

    # Sending

    def send_sealed(self, kind, body, *, path=None, number=0, free=False):
        """Seals a packet and sends it, unless W6-42 forbids it. Whether it left."""
        path = path or self.paths.active
        if path is None or not self.can_seal():
            return False
        length = 8 + path.bits // 8 + packets.HEADER_BYTES + len(body) + 16
        if not free and not self.paths.may_send(path, length):
            return False
        packet = self.current.seal(kind, body, path.lane)
        flow = self.flow(path.lane, number)
        self.endpoint.send(path.label, packet, bits=path.bits, flow=flow)
        return True

    def answer_is_due(self):
        """A message or an item was sent (W6-45)."""
        if self._due_since is None:
            self._due_since = self.now

    # Receiving

    def on_sealed(self, generation, header, arrival):
        """A packet of kind 4, 8 or 9 for these keys; raises `Discarded`."""
        congested = arrival.header.ecn == 3
        opened = generation.open(arrival.payload, header, self.now, congested=congested)
        self.packets_opened += 1
        if opened.kind != packets.ANSWER:
            self.paths.heard(arrival.back, arrival.header.bits, arrival.length)
        was_first = generation.initiator and not generation.confirmed
        self.used(generation, arrival)
        if was_first and generation.step != STEP_IK:
            # W6-153: XX 3 is acknowledged
            self.own.acknowledged(len(tables.decode(generation.own_hello.table)), self.now)
        self.own.heard(self.now)
        self._due_since = None
        self._searching = False
        if self.gone:
            self.gone = False
        if generation is self.current:
            self._newest_used = generation
        former = generation is not self._newest_used and self._newest_used is self.current
        if self.closing is None and not former:  # W6-173
            self.learn(opened, arrival)
        if opened.kind == packets.CHALLENGE:
            self.on_challenge(opened.body, arrival)
        elif opened.kind == packets.ANSWER:
            self.on_answer(opened.body)
        else:
            self.on_message(opened.body, generation, opened.lane, arrival)

    def on_unknown(self, header):
        """Whether kind 7 with this header is about a recent packet (W6-143, W6-144, W6-145)."""
        mine = [one for one in (self.current, *self.previous) if one is not None]
        for generation in mine:
            if generation.peer_index != header.index or header.lane >= len(generation.counters):
                continue
            next_counter = generation.counters[header.lane]
            distance = (next_counter - 1 - header.counter) & 0xFFFFFFFF
            if distance < min(RECENT_COUNTERS, next_counter):
                self._begin_for_unknown()
                return True
        return False

    def _begin_for_unknown(self):
        young = self.current is not None and self.current.age(self.now) < REKEY_SPACING_S
        late = self.now - self._unknown_at >= UNKNOWN_SPACING_S
        if young or not late or self.third or self.attempts:
            raise Discarded("unknown_connection_ignored")
        self._unknown_at = self.now
        self.begin()

    # Time

    def peer_is_gone(self):
        """W6-186."""
        if not self.gone:
            self.gone = True
            self.events.append(("gone",))
            self.paths.all_failing()

    def tick(self):
        """Does what is due."""
        now = self.now
        if self.forget_at is not None and now >= self.forget_at:
            self.drop_all_keys()
            self.endpoint.forgotten(self)
            return
        self.tick_messages()
        if self.closing is not None:
            return
        if self.connect_until is not None:
            if self.connected():
                self.connect_until = None
            elif now >= self.connect_until:
                self.connect_until = None
                if self.handshakes:  # W6-201
                    self.failed_stage = "the peer may not allow this identity"
                    self.end(at_once=True)
                self.failed_stage = self.failed_stage or "no answer"
                self.events.append(("failed", self.failed_stage))
                self.waiting = []
                self.forget_attempts()
                self.retry_at = None
        self.tick_handshakes()
        self.tick_challenges(now)
        self._tick_silence(now)
        self._tick_idle(now)

    def _tick_silence(self, now):
        """W6-45, W6-186."""
        active = self.paths.active
        if self._due_since is None or active is None or not self.can_seal() or self.gone:
            return
        rtt = self.rtt(active) or 0.0
        one_way = now - self.last_peer_message >= ONE_WAY_S
        limit = max(4 * rtt, ONE_WAY_MIN_S) if one_way else max(2 * rtt, SILENCE_MIN_S)
        limit = min(limit, SILENCE_MAX_S)
        if not self._searching:
            if now - self._due_since > limit:
                self._searching = True
                for path in [active, *self.paths.standby()]:
                    self.paths.start_challenge(path, now)
        elif all(path.next_try is None for path in [active, *self.paths.standby()]):
            self.peer_is_gone()

    def _tick_idle(self, now):
        """W6-170."""
        if not self.established or self.sockets:
            return
        since = max(self.last_message, self.current.born if self.current else self.last_message)
        if now - since >= self.endpoint.idle_s:
            self.events.append(("idle",))
            self.end(at_once=True)
