"""What crosses a connection: messages, control items, tables, and its end (wire.md 6.2, 6.5, 6.6, 6.8)."""

from .. import label as labels
from ..transport import Discarded
from . import items, packets, protocols, tables

AGENT = "strowger_link (Python)"
WAITING_MAX, WAITING_BYTES_MAX, WAITING_S = 64, 65_536, 10.0  # W6-131
GOODBYE_TIMES, GOODBYE_END_S, KEYS_AFTER_CLOSE_S = (0.0, 0.25, 0.75), 1.0, 1.0  # W6-164, W6-165
PATH_TIMES = (0.0, 0.25, 0.75)  # W6-179
RETRY_MAX_S, RETRY_DEFAULT_S = 3600, 1  # W6-166
REFUSALS_A_SECOND, IDENTIFY_A_SECOND = 8, 4  # W6-35, W6-171
OVERHEAD = 25  # connection header, protocol number, tag (W6-182)


class Closed(Exception):
    """The connection or the socket is closed."""


class Full(Exception):
    """Too much waits (W6-131)."""


class TooLong(Exception):
    """A message longer than the path takes (W6-182)."""


class Unsupported(Exception):
    """The peer does not know the protocol, or does not allow it (W6-158)."""


class Messages:
    """The part of a connection that programs see. `Connection` has its paths and timers."""

    def __init__(self, entries):
        self.own, self.peer = protocols.OwnTable(entries), protocols.PeerTable()
        self.received, self.events, self.waiting = [], [], []
        self.sockets, self.refused, self.closed_names = set(), set(), set()  # names
        self.sent_numbers = set()
        self.last_message = self.last_peer_message = -1e9
        self.closing = self.forget_at = None  # since when; when the keys are dropped
        self.goodbyes = []  # (due times, item)
        self.path_items = []  # (due times, item, path)
        self.reports, self.identity_answers = [], []
        self.stay_with = None  # the weight with which `leaving` is answered
        self._replies, self._refusals, self._identified = [], {}, []
        self._identity_states = 0

    # Sending

    def send(self, name, message):
        """Sends a message, or keeps it until it can leave (W6-131, W6-34)."""
        if self.closing is not None or name in self.closed_names:
            raise Closed
        if name in self.refused:
            raise Unsupported
        self.own.add(tables.Entry(name, self.endpoint.flags_for(name)), self.now)  # W6-151
        self.sockets.add(name)
        if len(message) > self.message_max(name):
            raise TooLong
        if not self.waiting and self._send_now(name, message):
            return
        size = sum(len(one[1]) for one in self.waiting) + len(message)
        if len(self.waiting) >= WAITING_MAX or size > WAITING_BYTES_MAX:
            raise Full
        self.waiting.append((name, message, self.now))

    def message_max(self, name):
        """The longest message of this protocol (W6-182)."""
        longest = self.packet_max() - OVERHEAD
        if self.peer.number_of(name) is None:
            longest -= 4 + len(name)
        return longest

    def _send_now(self, name, message):
        if not self.may_send_messages():
            return False
        number = self.peer.number_of(name) if self.numbers_are_known() else None
        if number is None:
            item = items.Item(items.NAMED, name=name, message=message)
            body = packets.message_body(packets.CONTROL, item.encode())
        else:
            body = packets.message_body(number, message)
            self.sent_numbers.add(number)
        if not self.send_sealed(packets.SEALED, body, number=number or 0):
            return False
        self.last_message = self.now
        self.answer_is_due()
        return True

    def flush(self):
        """Sends what has waited, in its order."""
        while self.waiting and self._send_now(*self.waiting[0][:2]):
            self.waiting.pop(0)

    def send_pass_through(self, name, message):
        """Sends a message that QUIC has sealed; seals it if it must (W6-161)."""
        path, number = self.paths.active, self.peer.number_of(name)
        allowed = (
            number is not None
            and self.can_seal()
            and path.state == "validated"
            and self.current.peer_hello.seal_wish == 1
            and self.peer.flags_of(name) & tables.FLAG_PASS_THROUGH
            and message[:1] < b"\x80"
        )
        if not allowed:
            self.send(name, message)
            return
        lane = path.lane
        packet = packets.pass_through(lane, self.current.peer_index, number, message)
        self.endpoint.send(path.label, packet, bits=path.bits, flow=self.flow(lane, number))

    def send_items(self, *chosen, path=None):
        """Sends items in one packet. Whether they left."""
        body = packets.message_body(packets.CONTROL, b"".join(item.encode() for item in chosen))
        sent = self.send_sealed(packets.SEALED, body, path=path)
        if sent:
            self.answer_is_due()
        return sent

    def report(self, lane):
        """Sends a report of the peer's lane, under the keys that it is about (W6-193)."""
        current = self.current
        newest = max(current.windows[lane].edge - 1, 0)
        counts = {"packets": current.packets[lane], "marked": current.marked[lane]}
        self.send_items(items.Item(items.RECEIVE_REPORT, lane=lane, newest=newest, **counts))

    # Receiving

    def on_message(self, body, generation, lane, arrival):
        """The body of a sealed message that was opened."""
        read = packets.read_message_body(body)
        if read is None:
            self.answer_keepalive(generation)
            return
        number, message = read
        if number == packets.CONTROL:
            self._on_items(message, generation, lane, arrival)
            return
        self.last_peer_message = self.now
        if number > len(self.own.entries):
            self._refuse(items.Item(items.UNSUPPORTED, code=items.UNKNOWN_PROTOCOL, number=number))
        else:
            self._deliver(self.own.entries[number - 1].name, message)

    def on_pass_through(self, packet, generation):
        """A packet of kind 6 under these keys (W6-160, W6-43)."""
        number, message = packets.read_pass_through(packet)
        if number > len(self.own.entries):
            raise Discarded("unknown_protocol")
        entry = self.own.entries[number - 1]
        if generation.own_hello.seal_wish != 1 or not entry.flags & tables.FLAG_PASS_THROUGH:
            raise Discarded("pass_through_refused")
        self.received.append((entry.name, message))

    def _deliver(self, name, message):
        if self.closing is not None:
            raise Discarded("closed")
        self.last_message = self.now
        if name in self.closed_names:
            number = self.peer.number_of(name)
            own = tables.number_of(self.own.entries, name)
            self._refuse(
                items.Item(items.GOODBYE, number=number)
                if number
                else items.Item(items.UNSUPPORTED, code=items.UNKNOWN_PROTOCOL, number=own),
                reason="no_socket",
            )  # W6-167
        self.sockets.add(name)
        self.received.append((name, message))
        self.endpoint.delivered(self, name, message)

    def _refuse(self, item, reason="unknown_protocol"):
        """Answers an unknown number or name, within the limits, and discards (W6-35)."""
        key = (item.number, item.name)
        recent = {one: at for one, at in self._refusals.items() if self.now - at < 1.0}
        if key not in recent and len(recent) < REFUSALS_A_SECOND:
            recent[key] = self.now
            self.send_items(item)
        self._refusals = recent
        raise Discarded(reason)

    def _on_items(self, message, generation, lane, arrival):
        read = items.decode(message)
        self.endpoint.discards["malformed_item"] += read.malformed
        self._replies = []
        try:
            # The id first: it says whether the table in the same packet continues the copy.
            for item in sorted(read.items, key=lambda item: item.op != items.CONNECTION_ID):
                self._on_item(item, generation, lane, arrival)
        except protocols.Conflict:
            self.conflict()
            return
        finally:
            if self._replies and self.forget_at is None:
                self.send_items(*self._replies)
        if any(item.op != items.PADDING for item in read.items):
            self.last_peer_message = self.now

    def _on_item(self, item, generation, lane, arrival):
        if self.closing is not None and item.op not in (items.GOODBYE, items.GOODBYE_ACK):
            if item.op == items.NAMED:
                raise Discarded("closed")
            return
        handlers = {
            items.TABLE: self._on_table,
            items.TABLE_ACK: self._on_table_ack,
            items.NAMED: self._on_named,
            items.UNSUPPORTED: self._on_unsupported,
            items.LEAVING: self._on_leaving,
            items.STAY: lambda item: self.events.append(("stay", item.weight)),
            items.GOODBYE: self._on_goodbye,
            items.GOODBYE_ACK: self._on_goodbye_ack,
            items.IDENTIFY_ANSWER: self.identity_answers.append,
            items.RECEIVE_REPORT: self.reports.append,
        }
        if item.op == items.IDENTIFY:
            self._on_identify(arrival)
        elif item.op == items.PATH:
            self.on_path_item(item, lane, arrival)
        elif item.op == items.CONNECTION_ID:
            self.on_connection_id(item.id, generation)
        elif item.op in handlers:
            handlers[item.op](item)

    def _on_table(self, item):
        self.peer.take(item.first, item.entries)
        names = {entry.name for entry in item.entries}
        self.refused -= names  # W6-158
        self.endpoint.remember(self.public, self.key, self.peer.entries)
        self._replies = [one for one in self._replies if one.op != items.TABLE_ACK]
        self._replies.append(items.Item(items.TABLE_ACK, count=len(self.peer.entries)))

    def _on_table_ack(self, item):
        if not self.own.acknowledged(item.count, self.now):
            self.endpoint.discards["malformed_item"] += 1  # W6-156

    def _on_named(self, item):
        self.last_peer_message = self.now
        if tables.number_of(self.own.entries, item.name) is None:
            self._refuse(
                items.Item(items.UNSUPPORTED, code=items.UNKNOWN_PROTOCOL, name=item.name)
            )
        self._deliver(item.name, item.message)

    def _on_unsupported(self, item):
        """W6-158."""
        name = item.name
        if not name:
            if item.number not in self.sent_numbers:
                return
            name = self.peer.entries[item.number - 1].name
        elif self.peer.number_of(name) is not None:
            return
        if name not in self.refused:
            self.refused.add(name)
            self.events.append(("unsupported", name))

    def _on_leaving(self, item):
        """W6-168."""
        self.events.append(("leaving", item.seconds, item.code, item.text))
        if self.stay_with is not None:
            self._replies.append(items.Item(items.STAY, weight=self.stay_with))

    def _on_goodbye(self, item):
        """W6-163, W6-165, W6-166."""
        ack = items.Item(items.GOODBYE_ACK, code=item.code, number=item.number)
        if self.forget_at is not None:
            self.send_items(ack)
            return
        self._replies.append(ack)
        if item.number:
            if item.number <= len(self.own.entries):
                name = self.own.entries[item.number - 1].name
                self.closed_names.add(name)
                self.sockets.discard(name)
                self.events.append(("closed", name, item.code, item.text))
            return
        self.send_items(*self._replies)
        self._replies = []
        wait = min(item.seconds or RETRY_DEFAULT_S, RETRY_MAX_S)
        self.endpoint.back_off(self.public, self.now + wait, item)
        self.events.append(("goodbye", item.code, item.seconds, item.text))
        self.goodbyes = []
        self.end()

    def _on_goodbye_ack(self, item):
        for one in list(self.goodbyes):
            if (one[1].code, one[1].number) != (item.code, item.number):
                continue
            self.goodbyes.remove(one)
            self.events.append(("goodbye_ack", item.code, item.number))
            if item.number == 0 and self.forget_at is None:
                self.end()

    def _on_identify(self, arrival):
        """W6-171, W6-92."""
        self._identified = [at for at in self._identified if self.now - at < 1.0]
        if len(self._identified) >= IDENTIFY_A_SECOND:
            raise Discarded("over_budget")
        self._identified.append(self.now)
        header = arrival.header
        back = arrival.back or labels.reverse_bits(header.label, header.bits)
        self._replies.append(
            items.Item(
                items.IDENTIFY_ANSWER,
                hops=header.hops,
                bits=header.bits,
                mtu=self.endpoint.mtu,
                label=back,
                text=AGENT,
            )
        )

    # The end (W6-163 to W6-166)

    def close(self, code=0, retry_after_s=0, text=""):
        """Closes the connection with goodbyes."""
        if self.closing is not None:
            return
        self.closing = self.now
        self.waiting = []
        self.forget_attempts()
        self.retry_at = None
        if not self.can_seal():
            self.end()
            return
        item = items.Item(items.GOODBYE, seconds=retry_after_s, code=code, text=text)
        self.goodbyes.append(([self.now + at for at in GOODBYE_TIMES], item))
        self._tick_goodbyes()

    def close_protocol(self, name, code=0, text=""):
        """Closes the peer's socket of this protocol; the connection stays."""
        item = items.Item(items.GOODBYE, code=code, number=self.peer.number_of(name), text=text)
        self.closed_names.add(name)
        self.sockets.discard(name)
        self.goodbyes.append(([self.now + at for at in GOODBYE_TIMES], item))

    def conflict(self):
        """The peer's table contradicts itself (W6-36)."""
        self.endpoint.discards["table_conflict"] += 1
        self.events.append(("table_conflict",))
        self.send_items(items.Item(items.GOODBYE))
        self.end(at_once=True)

    def end(self, *, at_once=False):
        """Keeps the keys for a second, only to answer goodbyes, and then forgets the connection."""
        self.closing = self.now if self.closing is None else self.closing
        self.waiting = []
        self.forget_attempts()
        self.confirm_at = self.third = self.retry_at = None
        self.forget_at = self.now if at_once else self.now + KEYS_AFTER_CLOSE_S
        self.endpoint.released(self)

    # Time

    def _tick_goodbyes(self):
        for times, item in self.goodbyes:
            while times and times[0] <= self.now:
                times.pop(0)
                self.send_items(item)

    def tick_messages(self):
        """Tables, goodbyes, items about paths, and messages that have waited too long."""
        now = self.now
        self._tick_goodbyes()
        if self.closing is not None:
            if self.forget_at is None and now - self.closing >= GOODBYE_END_S:
                self.end()
            return
        late = [one for one in self.waiting if now - one[2] >= WAITING_S]
        for one in late:
            self.waiting.remove(one)
            self.endpoint.discards["waited_too_long"] += 1
        for former, path in self.paths.changes:
            self._announce(former, path)
        self.paths.changes.clear()
        for times, item, path in self.path_items:
            while times and times[0] <= now:
                times.pop(0)
                self.send_items(item, path=path)
        self.path_items = [one for one in self.path_items if one[0]]
        if self.can_seal() and self.paths.active is not None:
            chosen = self.own.transmission(now, self.packet_max() - OVERHEAD - 12)
            if chosen and self.own.must_state and self.connection_id_to_state is not None:
                chosen.insert(0, items.Item(items.CONNECTION_ID, id=self.connection_id_to_state))
            if chosen:
                self.send_items(*chosen)
        self.flush()

    def _announce(self, former, path):
        """W6-179."""
        times = [self.now + at for at in PATH_TIMES]
        active = items.Item(items.PATH, lane=path.lane, state=items.ACTIVE)
        self.path_items.append((times, active, path))
        if former is not None and former.lane != path.lane:
            state = items.ABANDONED if former.state in ("failing", "abandoned") else items.STANDBY
            item = items.Item(items.PATH, lane=former.lane, state=state)
            self.path_items.append((list(times), item, path))
