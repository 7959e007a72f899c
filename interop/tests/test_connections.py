"""Connections of two endpoints of `strowger_link` over a relay (wire.md 6)."""

import os
import unittest
import unittest.mock
from random import Random

from harness.connections import CHAT, ECHO, TO_A, TO_B, TO_B_7, TO_B_10, ConnectionCase
from strowger_link.carriage import Process
from strowger_link.connection import fields, items, packets, tables
from strowger_link.connection.carrier import ProcessCarrier
from strowger_link.connection.connection import Connection
from strowger_link.connection.messages import Closed, TooLong, Unsupported
from strowger_link.identity import Identity


class Handshakes(ConnectionCase):
    def test_by_peer_id(self):
        """wire.md: W6-10, W6-12, W6-23, W6-29, W6-125."""
        # Planned: W6-32.
        a, b = self.two()
        ours = a.connect(TO_B, peer_id=b.identity.public)
        ours.send(ECHO, b"hello")
        self.until(lambda: ours.current, "XX 2")
        # The message leaves behind XX 3, before any packet of the peer was opened.
        self.assertFalse(ours.current.confirmed)
        last_two = [packet for way, _, packet in a.carrier.log if way == "out"][-2:]
        self.assertEqual([packet[0] >> 4 for packet in last_two], [1, 4])
        self.until(lambda: ours.received, "the echo")
        self.assertEqual(ours.received, [(ECHO, b"hello")])
        (theirs,) = b.connections
        self.until(lambda: not theirs.own.unsettled(), "the table of the responder")
        self.assertEqual(ours.peer.entries, [tables.Entry(ECHO)])
        self.assertEqual(theirs.peer.entries, [tables.Entry(ECHO)])
        self.assertEqual((theirs.public, theirs.id), (a.identity.public, ours.id))
        lengths = [len(packet) for _, _, packet in self.kinds(a, "out", packets.INITIATION)]
        self.assertEqual(lengths[0], 896)
        self.assertEqual({path.label for path in theirs.paths.all}, {TO_A})

    def test_by_static_key(self):
        """wire.md: W6-10, W6-12, W6-18, W6-27."""
        # Planned: W6-138, W6-153.
        a, b = self.two()
        ours = a.connect(TO_B, key=b.identity.static_key)
        self.until(lambda: ours.current, "the response")
        self.assertEqual(ours.public, b.identity.public)
        self.assertEqual(ours.peer.entries, [tables.Entry(ECHO)])
        self.assertFalse(ours.own.unsettled())
        response = fields.Fields.decode(ours.current.peer_hello.later)
        self.assertEqual(response.id, bytes(8))
        self.echo(ours)
        (theirs,) = b.connections
        self.assertEqual((theirs.id, theirs.public), (ours.id, a.identity.public))
        self.assertNotEqual(ours.id, bytes(8))
        self.assertEqual(self.kinds(a, "out", packets.SEALED)[0][2][:1], b"\x40")

    def test_a_known_peer(self):
        # Planned: W6-198, W6-199.
        a, b = self.two()
        for step in (1, 0):  # by PeerId first, by static key then
            ours, _ = self.connected(a, b)
            self.assertEqual(ours.current.step, step)
            ours.close()
            self.until(lambda: not a.connections and not b.connections, "the end")
        a.hide_identity = True
        ours, _ = self.connected(a, b)
        self.assertEqual(ours.current.step, 1)

    def test_a_hello_without_an_id(self):
        # Planned: W6-200.
        a, b = self.two()
        for id_ in (bytes(8), b""):
            make_hello = Connection.make_hello

            def without(connection, index, **fields_of_hello):
                hello = make_hello(connection, index, **fields_of_hello)  # noqa: B023
                later = fields.Fields(id=bytes(8)).encode() if id_ else b""  # noqa: B023
                return hello.with_(later=later)

            for to in ({"key": b.identity.static_key}, {"peer_id": b.identity.public}):
                before = b.discards["handshake_malformed"]
                with unittest.mock.patch.object(Connection, "make_hello", without):
                    a.connect(TO_B, within_s=1, **to)
                    self.until(lambda: b.discards["handshake_malformed"] > before, "it")  # noqa: B023
                a.connections.clear()
        self.assertEqual(b.connections, [])

    def test_by_label_alone(self):
        """wire.md: W6-10, W6-121."""
        a, b = self.two(b={"accept_without_peer_id": True})
        ours = a.connect(TO_B)
        self.echo(ours)
        self.assertEqual(ours.public, b.identity.public)
        other = a.connect(TO_B_7, peer_id=b.identity.public)
        self.assertIs(other, ours)

    def test_by_label_alone_is_not_accepted(self):
        """wire.md: W6-10."""
        a, b = self.two()
        ours = a.connect(TO_B, within_s=1.0)
        self.until(lambda: ours.events, "the end of the attempt")
        self.assertEqual(ours.events, [("failed", "no answer")])
        self.assertGreaterEqual(b.discards["handshake_mac"], 1)
        self.assertEqual(self.kinds(b, "out", packets.RESPONSE), [])

    def test_a_wrong_peer_id(self):
        """wire.md: W6-10, W6-23."""
        a, b = self.two()
        stranger = Identity.for_connections(os.urandom(32))
        ours = a.connect(TO_B, peer_id=stranger.public, within_s=1.0)
        self.until(lambda: ours.events, "the end of the attempt")
        self.assertGreaterEqual(b.discards["handshake_mac"], 1)
        self.assertEqual(self.kinds(b, "out", packets.RESPONSE), [])
        self.assertEqual(b.connections, [])

    def test_a_static_key_of_another_identity(self):
        """wire.md: W6-11."""
        a, b = self.two()
        stranger = Identity.for_connections(os.urandom(32))
        ours = a.connect(TO_B, key=b.identity.static_key, peer_id=stranger.public, within_s=1.0)
        self.until(lambda: ours.events, "the end of the attempt")
        self.assertEqual(ours.events, [("failed", "another identity")])
        self.assertEqual(a.discards["handshake_identity"], 1)
        self.assertEqual((ours.handshakes, b.connections), (0, []))

    def test_an_identity_that_may_not_connect(self):
        """wire.md: W6-192."""
        a, b = self.two(b={"allow": lambda public: None})
        for fields_of_connect in (
            {"peer_id": b.identity.public},
            {"key": b.identity.static_key},
        ):
            before = b.discards["not_allowed"]
            ours = a.connect(TO_B, within_s=1.0, **fields_of_connect)
            self.until(lambda: b.discards["not_allowed"] > before, "not_allowed")  # noqa: B023
            ours.close()
            self.until(lambda: a.connections == [], "the connection is forgotten")
        self.assertEqual(b.connections, [])

    def test_cookies(self):
        """wire.md: W6-13, W6-23."""
        a, b = self.two()
        for fields_of_connect in (
            {"peer_id": b.identity.public},
            {"key": b.identity.static_key},
        ):
            b.under_load = True
            ours = a.connect(TO_B, **fields_of_connect)
            self.until(lambda: ours.cookie, "a cookie")  # noqa: B023
            self.assertEqual(self.kinds(b, "out", packets.RESPONSE), [])
            self.echo(ours)
            first, second = self.kinds(a, "out", packets.INITIATION)[-2:]
            del first
            self.assertNotEqual(second[2][-16:], bytes(16))
            b.carrier.log.clear()
            a.carrier.log.clear()
            ours.close()
            self.until(lambda: not a.connections and not b.connections, "the end")

    def test_both_ends_connect_at_once(self):
        """wire.md: W4-13, W6-139."""
        a, b = self.two()
        ours = a.connect(TO_B, key=b.identity.static_key)
        theirs = b.connect(TO_A, key=a.identity.static_key)

        def same_keys():
            one, other = ours.current, theirs.current
            return one and other and one.keys.transcript == other.keys.transcript

        self.until(same_keys, "the same keys")
        self.echo(ours)
        self.until(lambda: ours.id == theirs.id, "the same id")
        self.assertEqual((len(a.connections), len(b.connections)), (1, 1))

    def test_both_ends_connect_by_peer_id_at_once(self):
        """wire.md: W4-7, W4-13, W6-139."""
        a, b = self.two()
        ours = a.connect(TO_B, peer_id=b.identity.public)
        theirs = b.connect(TO_A, peer_id=a.identity.public)

        def same_keys():
            one, other = ours.current, theirs.current
            return one and other and one.keys.transcript == other.keys.transcript

        self.until(same_keys, "the same keys")
        self.echo(ours)
        self.until(lambda: ours.id == theirs.id, "the same id")
        self.assertEqual((len(a.connections), len(b.connections)), (1, 1))

    def test_new_keys(self):
        """wire.md: W4-92, W6-122, W6-195."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        known = list(ours.peer.entries), ours.id
        for round_ in range(3):
            sent = [b"%d %d" % (round_, number) for number in range(10)]
            former = ours.current
            for number, message in enumerate(sent):
                ours.send(ECHO, message)
                if number == 5:
                    (ours if round_ % 2 == 0 else theirs).begin()
            self.until(lambda: ours.current is not former, "new keys")  # noqa: B023
            self.until(lambda: len(ours.received) == 10 * (round_ + 1), "echoes")  # noqa: B023
            self.assertEqual([one for _, one in ours.received[-10:]], sent)
            self.assertEqual(ours.current.step, 0)  # IKpsk2
        self.assertEqual((ours.peer.entries, ours.id), known)
        self.assertEqual((ours.restarts, theirs.restarts), (0, 0))

    def test_several_labels(self):
        """wire.md: W6-12, W6-14, W6-135, W6-136, W6-137."""
        a, b = self.two()
        receive, a.carrier.receive = a.carrier.receive, list  # `a` reads no response for now
        ours = a.connect(TO_B, key=b.identity.static_key, more_labels=(TO_B_7, TO_B_10))
        self.until(lambda: len(self.kinds(b, "out", packets.RESPONSE)) >= 3, "three responses")
        came = self.kinds(b, "in", packets.INITIATION)[:3]
        went = self.kinds(b, "out", packets.RESPONSE)[:3]
        self.assertEqual(len({packet for *_, packet in came}), 1)
        self.assertEqual(len({packet for *_, packet in went}), 1)
        self.assertEqual([label for _, label, _ in came], [label for _, label, _ in went])
        self.assertEqual(len({label for _, label, _ in came}), 3)
        a.carrier.receive = receive
        self.echo(ours)
        self.assertIn(ours.paths.active.label, (TO_B, TO_B_7, TO_B_10))
        (theirs,) = b.connections
        came = {label for _, label, _ in came}
        self.until(
            lambda: came == {one.label for one in theirs.paths.all if one.state == "validated"},
            "each label answers a challenge",
        )
        self.assertGreaterEqual({label for _, label, _ in self.kinds(b, "out", 8)}, came)


class Messages(ConnectionCase):
    def test_names_and_numbers(self):
        """wire.md: W6-3, W6-34, W6-82."""
        # Planned: W6-151, W6-157.
        a, b = self.two(b={"serves": {CHAT: 0, ECHO: 0}})
        ours = a.connect(TO_B, peer_id=b.identity.public)
        ours.send(ECHO, b"named")
        self.until(lambda: ours.peer.complete and ours.received, "the peer's table")
        self.assertEqual(ours.peer.number_of(ECHO), 2)
        self.assertEqual(ours.sent_numbers, set())
        self.echo(ours, b"numbered")
        self.assertEqual(ours.sent_numbers, {2})
        self.echo(ours, b"")

    def test_a_long_table(self):
        """wire.md: W6-72, W6-154, W6-155, W6-156."""
        names = {b"/%d/" % number + b"x" * 100: number % 4 for number in range(60)}
        a, b = self.two(a={"serves": dict(names)}, b={"serves": {**names, ECHO: 0}})
        for fields_of_connect in (
            {"peer_id": b.identity.public},
            {"key": b.identity.static_key},
        ):
            ours, theirs = self.connected(a, b, **fields_of_connect)
            self.assertEqual([entry.name for entry in ours.peer.entries], [*names, ECHO])
            self.assertEqual(theirs.peer.entries, [tables.Entry(*one) for one in names.items()])
            self.assertTrue(ours.peer.complete and theirs.peer.complete)
            self.echo(ours)
            ours.close()
            self.until(lambda: not a.connections and not b.connections, "the end")

    def test_a_table_grows(self):
        """wire.md: W6-150, W6-154."""
        # Planned: W6-151.
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        b.handlers[CHAT] = lambda connection, message: connection.send(CHAT, message)
        theirs.own.add(tables.Entry(CHAT), b.clock())
        self.until(lambda: ours.peer.number_of(CHAT) == 2, "the new entry")
        self.echo(ours, name=CHAT)
        self.assertEqual(ours.own.entries, [tables.Entry(ECHO), tables.Entry(CHAT)])
        self.until(lambda: theirs.peer.number_of(CHAT) == 2, "the entry of the sender")

    def test_lost_table_items_are_repeated(self):
        """wire.md: W6-154."""
        # Planned: W6-141.
        a, b = self.two()
        dropped = []
        send = b.carrier.send

        def lossy(label, packet, **header):
            if packet[0] >> 4 == packets.SEALED and len(dropped) < 4:
                dropped.append(packet)
                return
            send(label, packet, **header)

        b.carrier.send = lossy
        ours, _ = self.connected(a, b)
        self.assertEqual(len(dropped), 4)
        self.assertEqual(ours.peer.entries, [tables.Entry(ECHO)])

    def test_unknown_protocols(self):
        """wire.md: W6-35, W6-84, W6-85, W6-97, W6-158."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        ours.send(CHAT, b"1")
        ours.send(CHAT, b"2")
        self.until(lambda: ours.events, "unsupported")
        self.assertEqual(ours.events, [("unsupported", CHAT)])
        self.discarded_here(b, "unknown_protocol", 2)
        with self.assertRaises(Unsupported):
            ours.send(CHAT, b"3")
        self.echo(ours)
        # An entry with this name ends the refusal.
        b.handlers[CHAT] = lambda connection, message: connection.send(CHAT, message)
        theirs.own.add(tables.Entry(CHAT), b.clock())
        self.until(lambda: CHAT not in ours.refused, "the new entry")
        self.echo(ours, name=CHAT)

    def test_an_unknown_number(self):
        """wire.md: W6-3, W6-35, W6-158."""
        a, b = self.two()
        ours, _ = self.connected(a, b)
        for _ in range(3):
            ours.send_sealed(packets.SEALED, packets.message_body(200, b"hello"))
        self.discarded_here(b, "unknown_protocol", 3)
        self.echo(ours)
        self.assertEqual(ours.events, [])  # this end has not sent to an entry with that number

    def test_forbidden_names(self):
        """wire.md: W6-35."""
        # Planned: W6-32.
        a, b = self.two(b={"serves": {CHAT: 0, ECHO: 0}, "allow": lambda public: {ECHO}})
        ours, _ = self.connected(a, b)
        self.assertEqual([entry.name for entry in ours.peer.entries], [ECHO])
        ours.send(CHAT, b"1")
        self.until(lambda: ours.events, "unsupported")
        self.assertEqual(ours.events, [("unsupported", CHAT)])

    def test_a_table_that_contradicts_itself(self):
        # Planned: W6-36.
        a, b = self.two()
        ours, _ = self.connected(a, b)
        ours.send_items(items.Item(items.TABLE, first=1, entries=(tables.Entry(ECHO, 1),)))
        self.until(lambda: ours.events, "a goodbye")
        self.assertEqual(ours.events[0][:2], ("goodbye", 0))
        self.assertEqual(b.discards["table_conflict"], 1)
        self.until(lambda: not b.connections, "the end")

    def test_faulty_items(self):
        """wire.md: W6-74, W6-75, W6-76, W6-8."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        body = bytes.fromhex("00 f0000142 060000 0b000100 06000107 020001")
        ours.send_sealed(packets.SEALED, body)
        self.until(lambda: theirs.events, "stay")
        self.assertEqual(theirs.events, [("stay", 7)])
        self.assertEqual(b.discards["malformed_item"], 2)
        ours.send_sealed(packets.SEALED, b"\xffhello")
        self.discarded_here(b, "bad_protocol_number")
        self.echo(ours)

    def test_identify(self):
        """wire.md: W6-91, W6-92, W6-97."""
        # Planned: W6-171.
        a, b = self.two()
        ours, _ = self.connected(a, b)
        ours.send_items(items.Item(items.PADDING, length=9), items.Item(items.IDENTIFY))
        self.until(lambda: ours.identity_answers, "the answer")
        answer = ours.identity_answers[0]
        self.assertEqual((answer.bits, answer.mtu, answer.hops), (64, b.mtu, 63))
        self.assertEqual(answer.label, TO_A)
        for _ in range(20):
            ours.send_items(items.Item(items.IDENTIFY))
        self.until(lambda: b.discards["over_budget"], "the rate")

    def test_receive_report(self):
        """wire.md: W6-94, W6-193."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        self.echo(ours)
        opened, newest = theirs.current.packets[0], theirs.current.windows[0].edge - 1
        theirs.report(0)
        self.until(lambda: ours.reports, "a report")
        self.assertEqual(
            ours.reports, [items.Item(items.RECEIVE_REPORT, packets=opened, newest=newest)]
        )
        ours.begin()
        self.until(lambda: theirs.current.own_hello.index != 0 and theirs.handshakes == 2, "new keys")
        self.assertLess(theirs.current.packets[0], opened)

    def test_leaving(self):
        """wire.md: W6-86, W6-87, W6-168."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        theirs.stay_with = 10
        ours.send_items(items.Item(items.LEAVING, seconds=30, code=2, text="update"))
        self.until(lambda: ours.events, "stay")
        self.assertEqual(theirs.events, [("leaving", 30, 2, "update")])
        self.assertEqual(ours.events, [("stay", 10)])
        self.echo(ours)

    def test_pass_through(self):
        """wire.md: W6-38, W6-39, W6-43, W6-50, W6-51, W6-52, W6-160, W6-161."""
        serves = {ECHO: 0, b"/quic": tables.FLAG_PASS_THROUGH}
        a, b = self.two(a={"serves": serves}, b={"serves": serves, "seal_wish": 1})
        ours, theirs = self.connected(a, b)
        ours.send_pass_through(b"/quic", b"\x40quic")
        self.until(lambda: theirs.received, "the message")
        self.assertEqual(theirs.received, [(b"/quic", b"\x40quic")])
        self.assertEqual(len(self.kinds(a, "out", packets.PASS_THROUGH)), 1)
        for name, message in ((b"/quic", b"\xc0long"), (ECHO, b"\x40")):
            ours.send_pass_through(name, message)  # sealed
        self.until(lambda: len(theirs.received) == 3, "sealed messages")
        self.assertEqual(len(self.kinds(a, "out", packets.PASS_THROUGH)), 1)
        theirs.send_pass_through(b"/quic", b"\x40")  # the wish of `a` is 0
        self.until(lambda: (b"/quic", b"\x40") in ours.received, "a sealed message")
        self.assertEqual(self.kinds(b, "out", packets.PASS_THROUGH), [])
        opened = theirs.packets_opened
        index = ours.current.peer_index
        for reason, number, message in (
            ("pass_through_refused", 1, b"\x40"),
            ("unknown_protocol", 9, b"\x40"),
            ("bad_protocol_number", 0, b"\x40"),
            ("bad_protocol_number", 255, b"\x40"),
            ("long_header", 2, b"\x80"),
            ("too_short", 2, b""),
        ):
            before = b.discards[reason]
            a.send(TO_B, packets.pass_through(0, index, number, message))
            self.until(lambda: b.discards[reason] > before, reason)  # noqa: B023
        a.send(TO_B, packets.pass_through(0, index ^ 1, 2, b"\x40"))
        self.discarded_here(b, "no_session")
        self.assertEqual(theirs.packets_opened, opened)

    def test_lengths(self):
        """wire.md: W6-46, W6-182."""
        a, b = self.two()
        ours, _ = self.connected(a, b)
        longest = ours.message_max(ECHO)
        self.assertEqual(longest, 1192 - 25)
        self.echo(ours, os.urandom(longest))
        with self.assertRaises(TooLong):
            ours.send(ECHO, bytes(longest + 1))


class EarlyMessages(ConnectionCase):
    SERVES = {ECHO: tables.FLAG_EARLY, CHAT: 0}

    def test_delivered(self):
        """wire.md: W6-20, W6-21, W6-64, W6-65, W6-147, W6-148."""
        long_ago = {"wall_clock_ns": _clock_from_the_past()}
        a, b = self.two(b={"serves": self.SERVES, **long_ago})
        ours = a.connect(TO_B, key=b.identity.static_key, early=(ECHO, b"early"))
        self.until(lambda: ours.current, "the response")
        self.assertEqual(ours.events, [("early", fields.DELIVERED)])
        self.assertEqual(b.early_received, [(a.identity.public, ECHO, b"early")])
        # A renewal carries none.
        ours.begin()
        self.until(lambda: ours.handshakes == 2, "new keys")
        self.assertEqual(len(b.early_received), 1)
        hello = fields.Fields.decode(ours.current.own_hello.later)
        self.assertIsNone(hello.early)

    def test_not_delivered(self):
        """wire.md: W6-21, W6-65, W6-149."""
        # The process of `b` started less than 10 s ago.
        a, b = self.two(b={"serves": self.SERVES})
        ours = a.connect(TO_B, key=b.identity.static_key, early=(ECHO, b"early"))
        self.until(lambda: ours.received, "the echo of the sealed message")
        self.assertEqual(ours.events, [("early", fields.NOT_DELIVERED)])
        self.assertEqual(ours.received, [(ECHO, b"early")])
        self.assertEqual(b.early_received, [])

    def test_refused(self):
        """wire.md: W6-21, W6-65, W6-149."""
        a, b = self.two(b={"serves": self.SERVES, "wall_clock_ns": _clock_from_the_past()})
        ours = a.connect(TO_B, key=b.identity.static_key, early=(b"/none", b"early"))
        self.until(lambda: ours.current, "the response")
        self.assertEqual(ours.events, [("unsupported", b"/none"), ("early", fields.REFUSED)])
        with self.assertRaises(Unsupported):
            ours.send(b"/none", b"")
        self.assertEqual(b.early_received, [])

    def test_without_the_flag(self):
        """wire.md: W6-21, W6-65, W6-149."""
        a, b = self.two(b={"serves": self.SERVES, "wall_clock_ns": _clock_from_the_past()})
        ours = a.connect(TO_B, key=b.identity.static_key, early=(CHAT, b"early"))
        self.until(lambda: b.connections and b.connections[0].received, "the sealed message")
        self.assertEqual(b.connections[0].received, [(CHAT, b"early")])
        self.assertEqual(ours.events, [("early", fields.NOT_DELIVERED)])
        self.assertEqual(b.early_received, [])

    def test_by_peer_id_there_is_none(self):
        """wire.md: W6-20, W6-149."""
        a, b = self.two(b={"serves": self.SERVES, "wall_clock_ns": _clock_from_the_past()})
        ours = a.connect(TO_B, peer_id=b.identity.public, early=(ECHO, b"early"))
        self.until(lambda: ours.received, "the echo of the sealed message")
        self.assertEqual(b.early_received, [])


class Paths(ConnectionCase):
    def test_challenges(self):
        """wire.md: W6-55, W6-56, W6-57, W6-175."""
        a, b = self.two()
        ours, _ = self.connected(a, b)
        for body, answered in ((b"12345678", True), (b"12345678" + b"\xff" * 700, True), (b"1234567", False)):
            before = len(self.kinds(a, "in", packets.ANSWER))
            ours.send_sealed(packets.CHALLENGE, body)
            self.echo(ours)
            if answered:
                self.until(lambda: len(self.kinds(a, "in", packets.ANSWER)) > before, "a response")  # noqa: B023
                self.assertEqual(len(self.kinds(a, "in", packets.ANSWER)[-1][2]), 32)
            else:
                self.assertEqual(len(self.kinds(a, "in", packets.ANSWER)), before)
        self.assertTrue(ours.probe(1192))
        self.until(lambda: len(self.kinds(a, "in", packets.ANSWER)) == 3, "the probe")
        self.assertEqual(len(self.kinds(a, "out", packets.CHALLENGE)[-1][2]), 1192)

    def test_another_label(self):
        """wire.md: W6-40, W6-41, W6-93, W6-172, W6-173, W6-178, W6-179, W6-180."""
        for lanes in (1, 2):
            a, b = self.two(a={"lanes": lanes}, b={"lanes": lanes})
            ours, theirs = self.connected(a, b)
            before = ours.current.keys.transcript, list(ours.peer.entries), ours.id
            ours.set_label(TO_B_7)
            ours.send(ECHO, b"meanwhile")
            self.until(lambda: ours.paths.active.label == TO_B_7, "the new label is active")  # noqa: B023
            self.until(lambda: (ECHO, b"meanwhile") in ours.received, "nothing is held back")  # noqa: B023
            self.assertEqual(ours.paths.active.lane, lanes - 1)
            self.until(lambda: theirs.paths.active.label != TO_A, "the peer follows")  # noqa: B023
            self.echo(ours)
            after = ours.current.keys.transcript, list(ours.peer.entries), ours.id
            self.assertEqual(after, before)
            messages = self.kinds(b, "out", packets.SEALED)
            self.assertEqual(messages[-1][1], theirs.paths.active.label)
            self.assertEqual({path.state for path in ours.paths.all}, {"validated"})

    def test_a_label_that_leads_nowhere(self):
        """wire.md: W6-176, W6-178."""
        a, b = self.two()
        ours, _ = self.connected(a, b)
        path = ours.set_label(0x1F)  # slot 7 is empty
        self.until(lambda: path.state == "abandoned", "the label is abandoned")
        self.assertEqual(ours.paths.active.label, TO_B)
        self.echo(ours)

    def test_an_error_is_a_hint(self):
        """wire.md: W6-44, W6-184."""
        a, b = self.two()
        ours, _ = self.connected(a, b)
        ours.set_label(0x1F)
        self.until(lambda: ours.hints, "an error of the relay")
        self.assertEqual(ours.hints[0][0], 0x1F)
        self.echo(ours)

    def test_silence(self):
        """wire.md: W6-45, W6-132, W6-186."""
        a, b = self.two()
        ours, _ = self.connected(a, b)
        self.echo(ours)
        send, a.carrier.send = a.carrier.send, lambda *_, **__: None
        receive, a.carrier.receive = a.carrier.receive, list
        ours.send(ECHO, b"lost")
        self.until(lambda: ours.gone, "the peer is gone")
        self.assertTrue(ours.can_seal())
        ours.send(ECHO, b"waits")
        self.assertEqual(len(ours.waiting), 1)
        ours.current.born -= 5
        self.until(lambda: ours.attempts, "a handshake")
        a.carrier.send, a.carrier.receive = send, receive
        self.until(lambda: (ECHO, b"waits") in ours.received, "the message that waited")
        self.assertFalse(ours.gone)

    def test_the_credit_of_a_label(self):
        """wire.md: W6-42."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        path = theirs.paths.add(0x19, b.clock())  # slot 4 is empty
        self.assertFalse(theirs.send_sealed(packets.SEALED, b"", path=path))
        path.credit = 100
        self.assertTrue(theirs.send_sealed(packets.SEALED, bytes(20), path=path))
        self.assertFalse(theirs.send_sealed(packets.SEALED, bytes(20), path=path))


class Processes(ConnectionCase):
    UNIX = '[[unix]]\nname = "local"\npath = "{folder}/local"\nslot = 4\n'
    TO_PROCESS = 0x19

    def test_a_process_on_a_slot(self):
        """wire.md: W6-10, W6-13."""
        # Planned: W6-130.
        relay, (carrier,) = self.carriers(1, self.UNIX)
        a = self.endpoint(carrier)
        b = self.endpoint(ProcessCarrier(Process(relay.folder / "local")))
        self.addCleanup(b.close)
        for end in (a, b):
            end.handlers[ECHO] = lambda connection, message: (
                message.startswith(b"echo") and connection.send(ECHO, message[4:])
            )
        # A process is served when it has sent its first packet, so it begins.
        theirs = b.connect(TO_A, key=a.identity.static_key)
        theirs.send(ECHO, b"echo1")
        self.until(lambda: theirs.received, "an echo")
        (ours,) = a.connections
        self.assertEqual({path.label for path in ours.paths.all}, {self.TO_PROCESS})
        ours.close()
        self.until(lambda: not a.connections and not b.connections, "the end")
        ours = a.connect(self.TO_PROCESS, peer_id=b.identity.public)
        ours.send(ECHO, b"echo2")
        self.until(lambda: ours.received, "an echo")
        self.assertEqual({path.label for path in b.connections[0].paths.all}, {TO_A})


class Restarts(ConnectionCase):
    def test_the_peer_restarts(self):
        """wire.md: W6-19, W6-53, W6-140, W6-143, W6-144."""
        a, b = self.two()
        for fields_of_connect in (
            {"peer_id": b.identity.public},
            {"key": b.identity.static_key},
        ):
            ours, _ = self.connected(a, b, **fields_of_connect)
            self.echo(ours)
            former, had_id = ours.current, ours.id
            b = self.endpoint(b.carrier, b.identity.seed, serves={CHAT: 0, ECHO: 0})
            b.handlers[ECHO] = lambda connection, message: connection.send(ECHO, message)
            ours._unknown_at = -1e9
            ours.current.born -= 5
            ours.send(ECHO, b"to keys that are gone")
            self.until(lambda: ours.current is not former, "new keys")  # noqa: B023
            self.assertEqual(ours.restarts, 1)
            self.assertEqual(ours.events, [("peer_restarted",)])
            self.assertGreaterEqual(len(self.kinds(b, "out", packets.UNKNOWN)), 1)
            self.echo(ours, b"to the new keys")
            self.assertEqual(ours.peer.number_of(ECHO), 2)
            self.assertEqual((ours.id, b.connections[0].id), (had_id, had_id))
            ours.close()
            self.until(lambda: not a.connections and not b.connections, "the end")  # noqa: B023

    def test_this_end_restarts(self):
        """wire.md: W6-140."""
        # Planned: W6-138.
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        self.echo(ours)
        a = self.endpoint(a.carrier, a.identity.seed, serves={CHAT: 0, ECHO: 0})
        again = a.connect(TO_B, key=b.identity.static_key)
        self.echo(again)
        self.assertEqual(theirs.restarts, 1)
        self.assertEqual((theirs.id, b.connections), (again.id, [theirs]))
        self.assertEqual(theirs.peer.number_of(ECHO), 2)

    def test_the_peer_has_restarted_before_xx(self):
        """wire.md: W6-95, W6-140."""
        # Planned: W6-141.
        a, b = self.two(a={"hide_identity": True})
        ours, _ = self.connected(a, b)
        self.echo(ours)
        self.assertEqual(ours.peer.number_of(ECHO), 1)
        b = self.endpoint(b.carrier, b.identity.seed, serves={CHAT: 0, ECHO: 0})
        b.handlers[ECHO] = lambda connection, message: connection.send(ECHO, message)
        ours.begin()
        former = ours.current
        self.until(lambda: ours.current is not former, "XX 2")
        self.assertFalse(ours.numbers_are_known())
        self.echo(ours, b"by name")  # number 1 is another protocol now
        self.until(lambda: ours.peer.number_of(ECHO) == 2, "the new table")
        self.assertEqual((ours.restarts, ours.events), (1, [("peer_restarted",)]))
        self.echo(ours, b"by number")
        self.assertEqual(b.connections[0].id, ours.id)
        # A renewal by XX of the same connection is no restart.
        former = ours.current
        ours.begin()
        self.until(lambda: ours.current is not former and ours.numbers_are_known(), "new keys")
        self.assertEqual(ours.restarts, 1)
        self.echo(ours)

    def test_unknown_connection_must_match(self):
        """wire.md: W6-54, W6-143, W6-144, W6-145."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        self.echo(ours)
        before, handshakes = len(self.kinds(a, "out", packets.INITIATION)), ours.handshakes
        index, counter = ours.current.peer_index, ours.current.counters[0]

        def kind_7(head, index, counter):
            return b"\x70" + bytes(7) + bytes([head]) + index.to_bytes(3, "big") + counter.to_bytes(4, "big")

        for forged, reason in (
            (kind_7(0x40, index ^ 1, 0), "unknown_connection_ignored"),
            (kind_7(0x40, index, counter), "unknown_connection_ignored"),
            (kind_7(0x42, index, 0), "unknown_connection_ignored"),
            (kind_7(0x40, index, 0)[:-1], "malformed"),
            (kind_7(0x10, index, 0), "malformed"),
        ):
            counted = a.discards[reason]
            b.send(TO_A, forged)
            self.until(lambda: a.discards[reason] > counted, reason)  # noqa: B023
        self.assertEqual(len(self.kinds(a, "out", packets.INITIATION)), before)
        b.send(TO_A, kind_7(0x40, index, 0))
        self.discarded_here(a, "unknown_connection_ignored", 4)  # the keys are too young
        ours.current.born -= 5
        for _ in range(2):
            b.send(TO_A, kind_7(0x40, index, 0))
        self.discarded_here(a, "unknown_connection_ignored", 5)
        self.until(lambda: ours.handshakes > handshakes, "a handshake")
        self.assertEqual((ours.restarts, theirs.restarts), (0, 0))
        self.echo(ours)

    def test_what_gets_no_answer(self):
        """wire.md: W6-6, W6-7, W6-19, W6-53."""
        a, b = self.two()
        for packet, reason in (
            (b"\x41" * 31, "no_session"),
            (b"\x61" * 40, "no_session"),
            (b"\x71" * 40, "malformed"),
            (b"\x21" * 40, "malformed"),
            (b"\x51" * 40, "bad_connection_kind"),
            (b"\x01" * 40, "bad_connection_kind"),
            (b"\xa1" * 40, "bad_connection_kind"),
            (b"\x41" * 7, "too_short"),
            (b"\x41" * 23, "too_short"),
        ):
            before = b.discards[reason]
            a.send(TO_B, packet)
            self.until(lambda: b.discards[reason] > before, reason)  # noqa: B023
        self.assertEqual([one for one in b.carrier.log if one[0] == "out"], [])
        a.send(TO_B, b"\x91" * 32)
        self.until(lambda: self.kinds(a, "in", packets.UNKNOWN), "kind 7")
        self.assertEqual(a.carrier.log[-1][2], b"\x70" + bytes(7) + b"\x91" * 8)

    def test_damaged_packets(self):
        """wire.md: W6-37, W6-70, W6-75."""
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        self.echo(ours)
        random = Random(6)
        packets_of_a = [packet for way, _, packet in a.carrier.log if way == "out"]
        for _ in range(300):
            packet = bytearray(random.choice(packets_of_a))
            for _ in range(random.choice((0, 1, 3))):
                packet[random.randrange(len(packet))] ^= 1 << random.randrange(8)
            a.send(TO_B, bytes(packet[: random.choice((len(packet), random.randrange(len(packet) + 1)))]))
            a.poll(0)
            b.poll(0)
        # Items of any content, sealed: none of them ends the connection but a goodbye.
        for _ in range(300):
            op = random.choice((*range(7), *range(9, 20)))
            body = random.randbytes(random.choice((0, 1, 2, 3, 8, 25, 68)))
            item = bytes([op]) + len(body).to_bytes(2, "big") + body
            if op == items.TABLE and items.decode(item).items:
                continue  # an entry that contradicts the table ends the connection
            ours.send_sealed(packets.SEALED, b"\0" + item)
            b.poll(0)
        self.echo(ours)
        self.assertEqual(b.connections, [theirs])

    def test_the_rate_of_kind_7(self):
        """wire.md: W6-142."""
        a, b = self.two()
        for _ in range(60):
            a.send(TO_B, b"\x41" * 32)
        self.until(lambda: b.discards["no_session"] == 60, "all packets")
        self.assertLess(len(self.kinds(b, "out", packets.UNKNOWN)), 40)


class Goodbyes(ConnectionCase):
    def test_goodbye(self):
        """wire.md: W6-88, W6-90, W6-163, W6-164, W6-166."""
        # Planned: W6-165.
        a, b = self.two()
        ours, theirs = self.connected(a, b)
        ours.close(code=2, retry_after_s=3600, text="update")
        self.until(lambda: ours.events, "goodbye_ack")
        self.assertEqual(theirs.events, [("goodbye", 2, 3600, "update")])
        self.assertEqual(ours.events, [("goodbye_ack", 2, 0)])
        with self.assertRaises(Closed):
            ours.send(ECHO, b"")
        with self.assertRaises(Closed):
            b.connect(TO_A, peer_id=a.identity.public)
        self.until(lambda: not a.connections and not b.connections, "the end")
        again, _ = self.connected(a, b)  # it answers handshakes
        self.echo(again)

    def test_a_goodbye_that_is_not_answered(self):
        """wire.md: W6-164."""
        # Planned: W6-165.
        a, b = self.two()
        ours, _ = self.connected(a, b)
        a.carrier.receive = list
        a.carrier.log.clear()
        said = a.clock()
        ours.close()
        self.until(lambda: not a.connections, "the end")
        self.assertGreaterEqual(a.clock() - said, 1.0)
        self.assertEqual(len(self.kinds(a, "out", packets.SEALED)), 3)

    def test_goodbye_of_one_protocol(self):
        """wire.md: W6-88, W6-163."""
        a, b = self.two(b={"serves": {ECHO: 0, CHAT: 0}})
        ours, theirs = self.connected(a, b)
        ours.close_protocol(ECHO, code=5, text="full")
        self.until(lambda: ours.events, "goodbye_ack")
        self.assertEqual(ours.events, [("goodbye_ack", 5, 1)])
        self.assertEqual(theirs.events, [("closed", ECHO, 5, "full")])
        with self.assertRaises(Closed):
            theirs.send(ECHO, b"")
        ours.send(CHAT, b"the connection stays")
        self.until(lambda: theirs.received, "a message to the other protocol")


def _clock_from_the_past():
    """A wall clock that stood a minute earlier when it was first read."""
    import time

    read = []

    def clock():
        read.append(1)
        return time.time_ns() - (60 * 10**9 if len(read) == 1 else 0)

    return clock


if __name__ == "__main__":
    unittest.main()
