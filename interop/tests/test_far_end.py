"""Connections of an endpoint of `strowger_link` to any other endpoint that echoes (wire.md 6).

`FarEnd` has the tests. A subclass says how the other endpoint is started.
"""

import os
import unittest
from contextlib import contextmanager
from random import Random

from harness import gateway, peers
from harness.connections import CHAT, ECHO, TO_A, TO_B, TO_B_7, TO_B_10, ConnectionCase
from harness.skipped import skip
from strowger_link import label as labels
from strowger_link.carriage import Process
from strowger_link.connection import fields, items, packets, tables
from strowger_link.connection.carrier import LinkCarrier, ProcessCarrier
from strowger_link.identity import Identity


class FarEnd:
    """What any endpoint must do that answers `/echo/1` with the same bytes."""

    # Labels to the far end, in which a director has 4, 7 and 10 bits, and from it to this end.
    to_far, to_far_7, to_far_10, to_near = TO_B, TO_B_7, TO_B_10, TO_A

    def far(self):
        """Starts relay and far end; sets `public`, `connection_key`, and the near `carrier`."""
        raise NotImplementedError

    def restart_far(self):
        """Ends the far end at once and starts it again, with the same keys."""
        raise NotImplementedError

    def stop_far(self):
        """Ends the far end as its user does."""
        raise NotImplementedError

    def far_serves(self, name):
        """The far end accepts one more protocol from now on, and echoes it."""
        raise NotImplementedError

    def far_allows_nobody(self):
        """The far end accepts no identity from now on. It may restart."""
        raise NotImplementedError

    def far_demands_cookies(self):
        """The far end demands cookies from now on (W6-24)."""
        raise NotImplementedError

    def far_connects(self, name, within_s=10):
        """A program of the far end connects to this end.

        Returns an object with `connected()`, `refused()` (the protocol is not accepted), `failed()`
        (by the time limit) and `closed()` (by this end), the list `received`, `send(message)`, and
        `stop()`, which closes the socket.
        """
        raise NotImplementedError

    def setUp(self):
        super().setUp()
        self.far()
        self.a = self.endpoint(self.carrier, serves={ECHO: 0, CHAT: 0})
        # The far end echoes `/echo/1`, and this end `/chat/1`.
        self.a.handlers[CHAT] = lambda connection, message: connection.send(CHAT, message)

    def near(self, **to):
        """A connection by PeerId or as given, on which an echo has come back."""
        ours = self.a.connect(self.to_far, **(to or {"peer_id": self.public}))
        self.echo(ours)
        self.until(lambda: not ours.own.unsettled(), "the own table is acknowledged")
        return ours

    @contextmanager
    def lossy(self, lose):
        """Loses what this end sends if `lose(packet)` is true."""
        send = self.carrier.send

        def sometimes(label, packet, **header):
            if not lose(packet):
                send(label, packet, **header)

        self.carrier.send = sometimes
        try:
            yield
        finally:
            self.carrier.send = send

    def quiet_for(self, seconds):
        """Runs all ends for a time in which nothing is expected."""
        end = self.a.clock() + seconds
        self.until(lambda: self.a.clock() > end, "time")

    def in_(self, kind):
        """The packets of this kind that have arrived."""
        return self.kinds(self.a, "in", kind)

    # Handshakes

    def test_by_peer_id(self):
        """wire.md: W6-10, W6-12, W6-17, W6-22, W6-23, W6-125."""
        # Planned: W6-32.
        ours = self.near()
        self.assertEqual(ours.key, self.connection_key)
        self.assertEqual(ours.current.step, 1)
        second = ours.current.peer_hello
        self.assertEqual(second.table, b"")
        self.assertLessEqual(max(len(one[2]) for one in self.in_(packets.RESPONSE)), 896)
        self.until(lambda: ours.peer.number_of(ECHO), "the table of the responder")
        self.echo(ours, b"by number")
        self.assertEqual(ours.sent_numbers, {ours.peer.number_of(ECHO)})

    def test_by_static_key(self):
        """wire.md: W6-10, W6-17, W6-22, W6-27."""
        # Planned: W6-32, W6-138.
        ours = self.near(key=self.connection_key)
        self.assertEqual((ours.public, ours.current.step), (self.public, 0))
        hello = ours.current.peer_hello
        entries, stated = fields.check(hello)
        self.assertIsNotNone(tables.number_of(entries, ECHO))
        self.assertEqual(stated.id, bytes(8))
        self.assertEqual(ours.peer.number_of(ECHO), tables.number_of(entries, ECHO))

    def test_a_wrong_peer_id(self):
        """wire.md: W6-10, W6-23."""
        stranger = Identity.for_connections(os.urandom(32))
        ours = self.a.connect(self.to_far, peer_id=stranger.public, within_s=1.5)
        self.until(lambda: ours.events, "the end of the attempt")
        self.assertEqual(ours.events, [("failed", "no answer")])
        self.assertEqual([one for one in self.carrier.log if one[0] == "in"], [])

    def test_by_label_alone(self):
        """wire.md: W6-10."""
        ours = self.a.connect(self.to_far, within_s=1.5)
        self.until(lambda: ours.events, "the end of the attempt")
        self.assertEqual([one for one in self.carrier.log if one[0] == "in"], [])

    def test_another_network(self):
        """wire.md: W6-22, W4-43."""
        self.a.network = b"another"
        for to in ({"peer_id": self.public}, {"key": self.connection_key}):
            ours = self.a.connect(self.to_far, within_s=1.5, **to)
            self.until(lambda: ours.events, "the end of the attempt")  # noqa: B023
            self.a.connections.clear()
        self.assertEqual([one for one in self.carrier.log if one[0] == "in"], [])

    def test_hellos_that_are_refused(self):
        """wire.md: W6-17, W6-60."""
        # Planned: W6-200.
        good = self.a.hello
        for wrong in (
            {"seal_wish": 2},
            {"flags": 1},
            {"lanes": 5},
            {"scheme": bytes.fromhex("6114458100")},
            {"mtu": 500},
            {"suites": 0},
            {"widths": 0},
            {"oldest": 2, "newest": 2},
        ):
            self.a.hello = good.with_(**wrong)
            ours = self.a.connect(self.to_far, key=self.connection_key, within_s=1.0)
            self.until(lambda: ours.events, "the end of the attempt")  # noqa: B023
            self.assertEqual(ours.events, [("failed", "no answer")], wrong)
            self.a.connections.clear()
        self.assertEqual(self.in_(packets.RESPONSE), [])
        self.a.hello = good
        self.near(key=self.connection_key)

    def test_new_keys(self):
        """wire.md: W4-92, W6-18, W6-122, W6-195."""
        # Planned: W6-138.
        ours = self.near()
        entries = list(ours.peer.entries)
        for round_ in range(3):
            former, before = ours.current, len(ours.received)
            sent = [b"%d %d" % (round_, number) for number in range(20)]
            for number, message in enumerate(sent):
                ours.send(ECHO, message)
                if number == 10:
                    ours.begin()
            self.until(lambda: ours.current is not former, "new keys")  # noqa: B023
            self.until(lambda: len(ours.received) == before + 20, "all echoes")  # noqa: B023
            self.assertEqual({one for _, one in ours.received[before:]}, set(sent))
            self.assertEqual(ours.current.step, 0)
            stated = fields.Fields.decode(ours.current.peer_hello.later)
            self.assertEqual(stated.id, ours.id)
        self.assertEqual(ours.peer.entries, entries)
        self.assertEqual(ours.restarts, 0)

    def test_new_keys_by_peer_id(self):
        """wire.md: W6-95."""
        # Planned: W6-141, W6-199.
        self.a.hide_identity = True
        ours = self.near()
        former = ours.current
        ours.begin()
        self.until(lambda: ours.current is not former and ours.numbers_are_known(), "new keys")
        self.assertEqual((ours.current.step, ours.restarts), (1, 0))
        self.echo(ours)

    def test_a_replayed_initiation(self):
        """wire.md: W4-16, W6-136."""
        ours = self.near(key=self.connection_key)
        initiation = self.kinds(self.a, "out", packets.INITIATION)[0][2]
        responses = len(self.in_(packets.RESPONSE))
        for _ in range(5):
            self.a.send(self.to_far, initiation)
        self.echo(ours)
        self.quiet_for(0.3)
        self.assertEqual(len(self.in_(packets.RESPONSE)), responses)
        # The same bytes by another label get the same response, by that label.
        self.a.send(self.to_far_7, initiation)
        self.until(lambda: len(self.in_(packets.RESPONSE)) > responses, "the response")
        self.assertEqual(self.in_(packets.RESPONSE)[-1][2], self.in_(packets.RESPONSE)[0][2])
        self.assertEqual(self.in_(packets.RESPONSE)[-1][1], self.to_far_7)
        self.echo(ours)

    def test_a_replayed_third_message(self):
        """wire.md: W6-26, W4-69."""
        ours = self.near()
        third = next(one[2] for one in self.kinds(self.a, "out", 1) if one[2][0] == 0x12)
        first = next(one[2] for one in self.kinds(self.a, "out", 1) if one[2][0] == 0x11)
        before = len(self.carrier.log)
        for _ in range(5):
            self.a.send(self.to_far, third)
        self.quiet_for(0.3)
        came = [one[2][0] >> 4 for one in self.carrier.log[before:] if one[0] == "in"]
        self.assertLessEqual(set(came), {packets.SEALED, packets.CHALLENGE, packets.ANSWER})
        self.echo(ours)
        # XX 1 is answered again with the same bytes: there is no state (W4-67).
        responses = self.in_(packets.RESPONSE)
        self.a.send(self.to_far, first)
        self.until(lambda: len(self.in_(packets.RESPONSE)) > len(responses), "XX 2 again")
        self.assertEqual(self.in_(packets.RESPONSE)[-1][2], responses[0][2])
        # From another source it gets another answer (W6-13).
        self.a.send(self.to_far_7, first)
        self.until(lambda: len(self.in_(packets.RESPONSE)) > len(responses) + 1, "another XX 2")
        self.assertNotEqual(self.in_(packets.RESPONSE)[-1][2], responses[0][2])

    def test_several_labels(self):
        """wire.md: W6-12, W6-14, W6-135, W6-136, W6-137."""
        receive, self.carrier.receive = self.carrier.receive, list
        more = (self.to_far_7, self.to_far_10)
        ours = self.a.connect(self.to_far, key=self.connection_key, more_labels=more)
        self.until(lambda: not ours.attempts[0].later, "three copies")
        self.quiet_for(0.1)
        self.carrier.receive = receive
        self.echo(ours)
        responses = [packet for _, _, packet in self.in_(packets.RESPONSE)]
        self.assertEqual(len(set(responses[:3])), 1)

    def test_cookies(self):
        """wire.md: W6-13, W6-23, W6-24, W4-72."""
        self.far_demands_cookies()
        for to in ({"peer_id": self.public}, {"key": self.connection_key}):
            self.carrier.log.clear()
            ours = self.near(**to)
            cookies = self.in_(packets.COOKIE)
            self.assertTrue(cookies)
            self.assertEqual({len(packet) for _, _, packet in cookies}, {64})
            ours.close()
            self.until(lambda: not self.a.connections, "the end")

    def test_a_wrong_mac_uses_no_budget(self):
        """wire.md: W4-43."""
        # Planned: W6-190.
        ours = self.near()
        message = bytearray(next(one[2] for one in self.kinds(self.a, "out", 1)))
        message[-20] ^= 1
        for _ in range(600):
            self.a.send(self.to_far, bytes(message))
        self.a.send(self.to_far, bytes(message[:-1]))
        self.echo(ours)
        other = self.a.connect(self.to_far, peer_id=self.public)
        self.assertIs(other, ours)
        self.assertEqual(self.in_(packets.COOKIE), [])

    # Messages and items

    def test_messages_of_all_lengths(self):
        """wire.md: W6-3, W6-37."""
        ours = self.near()
        self.until(lambda: ours.peer.number_of(ECHO), "the table")
        for length in (0, 1, 15, 16, 17, 255, 256, 1000, 1167):
            self.echo(ours, os.urandom(length))

    def test_messages_by_name(self):
        """wire.md: W6-73, W6-82."""
        ours = self.near()
        for length in (0, 1, 100, 1000):
            before, message = len(ours.received), os.urandom(length)
            ours.send_items(
                items.Item(items.PADDING, length=3),
                items.Item(items.NAMED, name=ECHO, message=message),
            )
            self.until(lambda: len(ours.received) > before, "the echo")  # noqa: B023
            self.assertEqual(ours.received[-1], (ECHO, message))

    def test_unknown_protocols(self):
        """wire.md: W6-35, W6-84, W6-85, W6-97, W6-158."""
        ours = self.near()
        ours.send(b"/none/1", b"hello")
        self.until(lambda: ours.events, "unsupported")
        self.assertEqual(ours.events, [("unsupported", b"/none/1")])
        unsupported = []
        ours._on_unsupported = unsupported.append
        for _ in range(5):
            ours.send_sealed(packets.SEALED, packets.message_body(200, b"hello"))
        self.until(lambda: unsupported, "unsupported")
        self.echo(ours)
        expected = items.Item(items.UNSUPPORTED, code=items.UNKNOWN_PROTOCOL, number=200)
        self.assertEqual(unsupported, [expected])

    def test_faulty_items(self):
        """wire.md: W6-74, W6-75, W6-76, W6-8."""
        ours = self.near()
        ours.send_sealed(packets.SEALED, bytes.fromhex("00 f0000142 060000 0b000100 06000107 020001"))
        ours.send_sealed(packets.SEALED, b"\xffhello")
        self.echo(ours)

    def test_identify(self):
        """wire.md: W6-91, W6-92, W6-97."""
        ours = self.near()
        ours.send_items(items.Item(items.IDENTIFY))
        self.until(lambda: ours.identity_answers, "the answer")
        answer = ours.identity_answers[0]
        self.assertEqual((answer.bits, answer.mtu), (64, ours.current.peer_hello.mtu))
        self.assertEqual(answer.hops, 63)
        self.assertGreater(len(answer.text), 0)

    def test_the_rate_of_identify(self):
        # Planned: W6-171.
        ours = self.near()
        for _ in range(30):
            ours.send_items(items.Item(items.IDENTIFY))
        self.echo(ours)
        self.assertLess(len(ours.identity_answers), 12)

    def test_table_items(self):
        """wire.md: W6-79, W6-80, W6-81, W6-97, W6-154, W6-156."""
        ours = self.near()
        acks = []
        ours._on_table_ack = acks.append
        have = len(ours.own.entries)
        ours.send_items(items.Item(items.TABLE, first=have + 3, entries=(tables.Entry(b"/gap"),)))
        self.until(lambda: len(acks) == 1, "an ack")
        ours.send_items(items.Item(items.TABLE, first=have + 1, entries=(tables.Entry(CHAT),)))
        self.until(lambda: len(acks) == 2, "an ack")
        ours.send_items(items.Item(items.TABLE, first=have + 2))
        self.until(lambda: len(acks) == 3, "an ack")
        self.assertEqual([ack.count for ack in acks], [have, have + 1, have + 1])
        self.echo(ours)

    def test_a_table_that_contradicts_itself(self):
        # Planned: W6-36.
        ours = self.near()
        wrong = tables.Entry(b"/other", 0)
        ours.send_items(items.Item(items.TABLE, first=1, entries=(wrong,)))
        self.until(lambda: ours.events, "a goodbye")
        self.assertEqual(ours.events[0][:2], ("goodbye", 0))
        self.until(lambda: not self.a.connections, "the end")

    def test_pass_through_is_refused(self):
        """wire.md: W6-39, W6-43, W6-50, W6-51, W6-160."""
        ours = self.near()
        self.until(lambda: ours.peer.number_of(ECHO), "the table")
        before = len(ours.received)
        for number in (0, ours.peer.number_of(ECHO), 200, 255):
            for message in (b"\x40hello", b"\xc0hello", b""):
                packet = packets.pass_through(0, ours.current.peer_index, number, message)
                self.a.send(self.to_far, packet)
        self.quiet_for(0.3)
        self.assertEqual(len(ours.received), before)
        self.assertEqual(ours.events, [])
        self.echo(ours)

    # Paths

    def test_challenges(self):
        """wire.md: W6-55, W6-56, W6-57, W6-175."""
        ours = self.near()
        for body in (b"12345678", b"12345678" + b"\xff" * 700):
            before = len(self.in_(packets.ANSWER))
            ours.send_sealed(packets.CHALLENGE, body)
            self.until(lambda: len(self.in_(packets.ANSWER)) > before, "a response")  # noqa: B023
            self.assertEqual(len(self.in_(packets.ANSWER)[-1][2]), 32)
        before = len(self.in_(packets.ANSWER))
        ours.send_sealed(packets.CHALLENGE, b"1234567")
        self.echo(ours)
        self.assertEqual(len(self.in_(packets.ANSWER)), before)

    def test_the_response_goes_where_the_challenge_came_from(self):
        """wire.md: W6-175."""
        ours = self.near()
        path = ours.paths.add(self.to_far_10, self.a.clock(), chosen=True)
        ours.send_sealed(packets.CHALLENGE, b"87654321", path=path, free=True)
        self.until(
            lambda: any(label == self.to_far_10 for _, label, _ in self.in_(packets.ANSWER)),
            "a response",
        )
        ours.send(ECHO, b"stays")
        self.until(lambda: (ECHO, b"stays") in ours.received, "the echo")
        self.assertEqual(self.in_(packets.SEALED)[-1][1], self.to_far)

    def test_another_label(self):
        """wire.md: W6-93, W6-178, W6-179, W6-180."""
        ours = self.near()
        keys = ours.current.keys.transcript
        ours.set_label(self.to_far_7)
        self.until(lambda: ours.paths.active.label == self.to_far_7, "the new label is active")

        def follows():
            self.echo(ours, os.urandom(8))
            return self.in_(packets.SEALED)[-1][1] == self.to_far_7

        self.until(follows, "the peer follows")
        self.assertEqual((ours.current.keys.transcript, ours.restarts), (keys, 0))

    def test_a_label_is_learnt_from_the_newest_packet_only(self):
        """wire.md: W6-41, W6-173."""
        ours = self.near()
        old = self.kinds(self.a, "out", packets.SEALED)[-1][2]
        for _ in range(3):
            self.a.send(self.to_far_7, old)  # replayed by another label
        self.echo(ours)
        self.quiet_for(0.5)
        challenged = [label for _, label, _ in self.in_(packets.CHALLENGE)]
        self.assertNotIn(self.to_far_7, challenged)
        self.echo(ours)
        self.assertEqual(self.in_(packets.SEALED)[-1][1], self.to_far)

    # Restarts, and what belongs to no connection

    def test_unknown_indices(self):
        """wire.md: W6-6, W6-7, W6-19, W6-53."""
        for packet in (
            b"\x41" * 31, b"\x61" * 40, b"\x71" * 40, b"\x21" * 40, b"\x51" * 40, b"\x01" * 40,
            b"\xa1" * 40, b"\x41" * 7, b"\x41" * 23, b"", b"\x70" + bytes(7) + b"\x41" * 8,
        ):  # fmt: skip
            self.a.send(self.to_far, packet)
        for kind in (0x41, 0x81, 0x91):
            self.a.send(self.to_far, bytes([kind]) * 32)
        self.until(lambda: len(self.in_(packets.UNKNOWN)) >= 3, "three of kind 7")
        self.quiet_for(0.3)
        came = [packet for way, _, packet in self.carrier.log if way == "in"]
        self.assertEqual(came, [b"\x70" + bytes(7) + bytes([kind]) * 8 for kind in (0x41, 0x81, 0x91)])

    def test_the_rate_of_kind_7(self):
        """wire.md: W6-142."""
        for _ in range(300):
            self.a.send(self.to_far, b"\x41" * 32)
        self.until(lambda: self.in_(packets.UNKNOWN), "kind 7")
        self.quiet_for(0.5)
        self.assertLess(len(self.in_(packets.UNKNOWN)), 60)

    def test_this_end_restarts(self):
        """wire.md: W6-140."""
        # Planned: W6-138.
        self.near()
        self.a = self.endpoint(self.carrier, self.a.identity.seed, serves={CHAT: 0})
        again = self.a.connect(self.to_far, key=self.connection_key)
        again.send(ECHO, b"after the restart")
        self.until(lambda: again.received, "the echo")
        self.assertEqual(again.received, [(ECHO, b"after the restart")])
        # The answer has the number of the new table: `/echo/1` was number 1 before.
        self.assertEqual(tables.number_of(again.own.entries, ECHO), 2)
        self.assertEqual(again.restarts, 0)

    def test_the_far_end_finds_the_restart_by_kind_7(self):
        """wire.md: W6-19, W6-53, W6-140, W6-143, W6-144."""
        ours = self.near()
        ours.send(ECHO, b"x" * 50)
        ours.send_items(items.Item(items.IDENTIFY))
        self.a = self.endpoint(self.carrier, self.a.identity.seed)
        self.until(lambda: self.kinds(self.a, "out", packets.UNKNOWN), "kind 7 is sent")
        self.until(lambda: self.a.connections, "the far end begins a handshake")

    def test_kind_7_must_match(self):
        """wire.md: W6-54, W6-143, W6-144, W6-145."""
        ours = self.near()
        index = ours.current.own_index

        def kind_7(head, index, counter):
            header = bytes([head]) + index.to_bytes(3, "big") + counter.to_bytes(4, "big")
            return b"\x70" + bytes(7) + header

        came = len(self.in_(packets.INITIATION))
        for forged in (
            kind_7(0x40, index ^ 1, 0),
            kind_7(0x40, index, 1_000_000),
            kind_7(0x4F, index, 0),
            kind_7(0x10, index, 0),
            kind_7(0x40, index, 0)[:-1],
        ):
            self.a.send(self.to_far, forged)
        self.echo(ours)
        self.quiet_for(0.5)
        self.assertEqual(len(self.in_(packets.INITIATION)), came)
        self.a.send(self.to_far, kind_7(0x40, index, 0))
        self.echo(ours)
        self.assertEqual(len(self.in_(packets.INITIATION)), came)  # the keys are too young
        self.quiet_for(5.2 - ours.current.age(self.a.clock()))
        for _ in range(3):
            self.a.send(self.to_far, kind_7(0x40, index, 0))
        self.until(lambda: len(self.in_(packets.INITIATION)) > came, "a handshake")
        self.until(lambda: ours.handshakes == 2, "it is finished")
        self.quiet_for(0.5)
        self.assertEqual(len(self.in_(packets.INITIATION)), came + 1)
        self.assertEqual(ours.restarts, 0)
        self.echo(ours)

    def test_the_far_end_restarts(self):
        """wire.md: W6-19, W6-53, W6-140, W6-142."""
        ours = self.near()
        former = ours.current
        ours.current.born -= 5
        self.restart_far()
        # The link of the far end comes up again; until then packets are lost.
        end = self.a.clock() + 30

        def again():
            if self.a.clock() < end and not ours.gone:
                ours.send_items(items.Item(items.IDENTIFY))
            return ours.current is not former

        self.until(again, "new keys")
        self.assertEqual(ours.events[-1], ("peer_restarted",))
        self.echo(ours, b"after the restart")

    # Ends

    def test_goodbye(self):
        """wire.md: W6-88, W6-90, W6-163, W6-164, W6-166."""
        # Planned: W6-165.
        ours = self.near()
        ours.close(code=2, text="update")
        self.until(lambda: ours.events, "goodbye_ack")
        self.assertEqual(ours.events, [("goodbye_ack", 2, 0)])
        self.until(lambda: not self.a.connections, "the end")
        self.near()  # it answers handshakes

    def test_lost_goodbyes(self):
        """wire.md: W6-164, W6-166."""
        ours = self.near()
        lost = []

        def two(packet):
            lost.append(packet)
            return len(lost) < 3

        with self.lossy(two):
            ours.close()
            self.until(lambda: ours.events, "goodbye_ack")
        self.assertEqual(ours.events, [("goodbye_ack", 0, 0)])

    def test_goodbye_of_one_protocol(self):
        """wire.md: W6-88, W6-90, W6-163."""
        ours = self.near()
        self.until(lambda: ours.peer.number_of(ECHO), "the table")
        ours.close_protocol(ECHO, code=5, text="full")
        self.until(lambda: ours.events, "goodbye_ack")
        self.assertEqual(ours.events, [("goodbye_ack", 5, ours.peer.number_of(ECHO))])

    def test_the_far_end_says_goodbye(self):
        """wire.md: W6-88, W6-89, W6-164."""
        # Planned: W6-169.
        ours = self.near()
        self.stop_far()
        self.until(lambda: ours.events, "a goodbye")
        self.assertEqual(ours.events[0][0], "goodbye")

    # The far end begins

    def begun(self, name=CHAT):
        """A connection that a program of the far end has begun, on which both ends have sent."""
        program = self.far_connects(name)
        self.until(program.connected, "the far end is connected")
        program.send(b"hello")
        self.until(lambda: program.received, "the echo of this end")
        self.assertEqual(program.received, [b"hello"])
        (ours,) = self.a.connections
        return program, ours

    def test_the_far_end_begins(self):
        """wire.md: W6-10, W6-12, W6-17, W6-22, W6-122."""
        # Planned: W6-198.
        program, ours = self.begun()
        self.assertEqual((ours.public, ours.key), (self.public, self.connection_key))
        self.assertEqual(self.in_(packets.INITIATION)[0][2][0], 0x11)
        self.assertEqual(self.in_(packets.INITIATION)[-1][2][0], 0x12)
        # Messages in both directions, each on its own protocol.
        for number, length in enumerate((0, 1, 15, 16, 17, 255, 256, 900, 1100), 2):
            message = os.urandom(length)
            program.send(message)
            self.until(lambda: len(program.received) == number, "the echo")  # noqa: B023
            self.assertEqual(program.received[-1], message)
        self.echo(ours, os.urandom(500))
        self.assertEqual(ours.restarts, 0)
        # Once more: now it has the connection key, and begins by it.
        ours.close(code=2, text="again")
        self.until(lambda: not self.a.connections, "the end")
        self.until(program.closed, "the far end knows")
        self.quiet_for(1.2)  # W6-166
        self.carrier.log.clear()
        _, ours = self.begun()
        self.assertEqual({one[2][0] for one in self.in_(packets.INITIATION)}, {0x10})
        self.assertEqual((ours.public, ours.current.step), (self.public, 0))

    def test_the_far_end_begins_with_a_cookie(self):
        """wire.md: W6-23, W6-24, W4-72."""
        self.a.under_load = True
        self.begun()
        self.assertTrue(self.kinds(self.a, "out", packets.COOKIE))

    def test_the_far_end_uses_the_same_connection(self):
        """wire.md: W6-150."""
        # Planned: W6-134, W6-151.
        ours = self.near()
        self.assertIs(self.begun()[1], ours)
        self.assertEqual(ours.handshakes, 1)
        self.until(lambda: ours.peer.number_of(CHAT), "the far end can be answered")

    def test_both_ends_begin_at_once(self):
        """wire.md: W6-139."""
        receive, self.carrier.receive = self.carrier.receive, list
        program = self.far_connects(CHAT)
        self.quiet_for(0.1)
        ours = self.a.connect(self.to_far, peer_id=self.public)
        self.carrier.receive = receive
        self.until(lambda: ours.connected() and program.connected(), "both ends are connected")
        self.quiet_for(0.2)  # what leaves behind an XX 3 that is ignored (W4-7) is lost
        self.echo(ours)
        program.send(b"hello")
        self.until(lambda: program.received, "the echo of this end")
        self.assertEqual((len(self.a.connections), ours.restarts), (1, 0))

    def test_the_far_end_is_refused_a_protocol(self):
        """wire.md: W6-35, W6-158."""
        program = self.far_connects(b"/none/1")

        def refused():
            if program.connected() and not program.refused():
                program.send(b"hello")
            return program.refused()

        self.until(refused, "unsupported")
        self.begun()

    def test_this_end_allows_nobody(self):
        """wire.md: W6-192, W6-201."""
        self.a.allow = lambda public: None
        program = self.far_connects(CHAT, within_s=1)
        self.until(lambda: self.a.discards["not_allowed"], "not_allowed")
        self.until(program.failed, "the time limit")
        self.assertEqual(program.received, [])
        self.assertEqual(self.a.connections, [])
        # A peer that is allowed again.
        self.a.allow = lambda public: self.a.serves
        self.begun()

    def test_the_far_end_allows_nobody(self):
        """wire.md: W6-192."""
        self.far_allows_nobody()
        for to in ({"peer_id": self.public}, {"key": self.connection_key}):
            self.carrier.log.clear()
            ours = self.a.connect(self.to_far, within_s=1.5, **to)
            ours.send(ECHO, b"hello")
            self.until(lambda: ours.events or ours.gone, "no answer")  # noqa: B023
            self.assertFalse(ours.connected())
            came = {one[2][0] for one in self.carrier.log if one[0] == "in"}
            self.assertLessEqual(came, {0x21, 0x70})
            self.a.connections.clear()

    def test_the_far_end_closes_a_protocol(self):
        """wire.md: W6-88, W6-163."""
        program, ours = self.begun()
        program.stop()
        self.until(lambda: ours.events, "a goodbye")
        self.assertEqual(ours.events[0][:2], ("closed", CHAT))
        self.echo(ours)
        self.assertEqual(self.a.connections, [ours])

    def test_the_table_of_the_far_end_grows(self):
        """wire.md: W6-150, W6-154, W6-158."""
        ours = self.near()
        more = b"/echo/2"
        ours.send(more, b"too early")
        self.until(lambda: ours.events, "unsupported")
        self.assertEqual(ours.events, [("unsupported", more)])
        known = list(ours.peer.entries)
        self.far_serves(more)
        self.until(lambda: ours.peer.number_of(more), "the new entry")
        self.assertEqual(ours.peer.entries[: len(known)], known)
        self.echo(ours, name=more)
        self.echo(ours)

    def test_a_table_in_several_packets(self):
        """wire.md: W6-33, W6-72, W6-154, W6-155."""
        self.a.serves |= {b"/many/%d/" % number + b"x" * 20: 0 for number in range(100)}
        ours = self.near(key=self.connection_key)
        self.assertEqual(ours.own.acked, 102)
        self.begun()

    # Damage, repetition, and what a reader on the way sees

    def test_damaged_packets(self):
        """wire.md: W6-6, W6-37, W6-70, W6-75."""
        ours = self.near()
        self.until(lambda: ours.peer.number_of(ECHO), "the table")
        random = Random(6)
        sent = [packet for way, _, packet in self.carrier.log if way == "out"]
        for _ in range(300):
            packet = bytearray(random.choice(sent))
            for _ in range(random.choice((1, 3))):
                packet[random.randrange(len(packet))] ^= 1 << random.randrange(8)
            end = random.choice((len(packet), random.randrange(len(packet))))
            self.a.send(self.to_far, bytes(packet[:end]))
            self.a.poll(0)
        for _ in range(300):
            op = random.choice((*range(7), *range(9, 20)))
            body = random.randbytes(random.choice((0, 1, 2, 3, 8, 25, 68)))
            item = bytes([op]) + len(body).to_bytes(2, "big") + body
            if op == items.TABLE and items.decode(item).items:
                continue  # an entry that contradicts the table ends the connection
            ours.send_sealed(packets.SEALED, b"\0" + item)
            self.a.poll(0)
        self.quiet_for(0.5)
        before = list(ours.received)
        self.echo(ours, b"after the damage")
        self.assertEqual(before, [(ECHO, b"hello")])
        self.assertEqual((self.a.connections, ours.restarts), ([ours], 0))

    def test_a_damaged_packet_is_not_the_packet(self):
        """wire.md: W6-37."""
        ours = self.near()
        held = []
        with self.lossy(lambda packet: held.append(packet) or True):
            ours.send(ECHO, b"whole")
        (whole,) = held
        for bit in range(0, 8 * len(whole), 5):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            self.a.send(self.to_far, bytes(damaged))
        self.quiet_for(0.2)
        self.assertEqual(ours.received, [(ECHO, b"hello")])
        self.a.send(self.to_far, whole)
        self.until(lambda: len(ours.received) == 2, "the echo")
        self.assertEqual(ours.received[-1], (ECHO, b"whole"))

    def test_replayed_and_reordered_packets(self):
        """wire.md: W6-37."""
        ours = self.near()
        held, texts = [], [b"%d" % number for number in range(50)]
        with self.lossy(lambda packet: held.append(packet) or True):
            for text in texts:
                ours.send(ECHO, text)
        for packet in [*reversed(held), *held, *held]:
            self.a.send(self.to_far, packet)
        self.until(lambda: len(ours.received) > 50, "the echoes")
        self.quiet_for(0.3)
        echoes = [message for _, message in ours.received[1:]]
        self.assertEqual(sorted(echoes), sorted(texts))

    def test_nothing_is_in_clear(self):
        """wire.md: W6-22, W6-37."""
        secret = b"nobody on the way can read this message"
        for to in ({"peer_id": self.public}, {"key": self.connection_key}):
            ours = self.near(**to)
            ours.send_items(items.Item(items.IDENTIFY))
            self.until(lambda: ours.identity_answers, "the identity")  # noqa: B023
            for _ in range(3):
                self.echo(ours, secret)
            ours.begin()
            self.until(lambda: ours.handshakes > 1, "new keys")  # noqa: B023
            self.echo(ours, secret)
            self.begun()
            ours.close(text="a goodbye")
            self.until(lambda: not self.a.connections, "the end")
        agent = ours.identity_answers[0].text
        agent = agent if isinstance(agent, bytes) else agent.encode()
        hidden = [
            secret[:12], ECHO, CHAT, b"a goodbye", agent, self.public, self.connection_key,
            self.a.identity.public, self.a.identity.static_key, ours.id,
        ]  # fmt: skip
        seen = b"".join(packet for _, _, packet in self.carrier.log)
        self.assertGreater(len(seen), 5000)
        for one in hidden:
            self.assertNotIn(one, seen)

    def test_an_early_message(self):
        """wire.md: W6-65, W6-149."""
        # The flag is absent, or the process is too young: it is sent again, and arrives once.
        ours = self.a.connect(self.to_far, key=self.connection_key, early=(ECHO, b"early"))
        self.until(lambda: ours.received, "the echo")
        self.quiet_for(0.3)
        self.assertEqual(ours.received, [(ECHO, b"early")])
        self.assertEqual(ours.events, [("early", fields.NOT_DELIVERED)])

    def test_an_early_message_of_an_unknown_protocol(self):
        """wire.md: W6-21, W6-65, W6-149."""
        ours = self.a.connect(self.to_far, key=self.connection_key, early=(b"/none/1", b"early"))
        self.until(lambda: ours.current, "the response")
        self.assertEqual(ours.events, [("unsupported", b"/none/1"), ("early", fields.REFUSED)])
        self.echo(ours)


class _Begun:
    """A program of the far end in Python."""

    def __init__(self, connection, name):
        self.connection, self.name = connection, name

    @property
    def received(self):
        return [message for name, message in self.connection.received if name == self.name]

    def connected(self):
        return self.connection.connected() and self.connection.peer.number_of(self.name)

    def refused(self):
        return self.connection.connected() and not self.connected()

    def closed(self):
        return any(event[0] == "goodbye" for event in self.connection.events)

    def failed(self):
        return any(event[0] == "failed" for event in self.connection.events)

    def send(self, message):
        self.connection.send(self.name, message)

    def stop(self):
        self.connection.close_protocol(self.name)


class PythonFarEnd(FarEnd, ConnectionCase):
    """The other end is an endpoint of this implementation."""

    def far(self):
        _, (self.carrier, self.far_carrier) = self.carriers()
        self._start(os.urandom(32))

    def _start(self, seed):
        self.b = self.endpoint(self.far_carrier, seed)
        self.b.handlers[ECHO] = lambda connection, message: connection.send(ECHO, message)
        self.public, self.connection_key = self.b.identity.public, self.b.identity.static_key

    def restart_far(self):
        self._start(self.b.identity.seed)

    def stop_far(self):
        for connection in self.b.connections:
            connection.close(code=1)

    def far_serves(self, name):
        self.b.serves[name] = 0
        self.b.handlers[name] = lambda connection, message: connection.send(name, message)
        for connection in self.b.connections:
            connection.own.add(tables.Entry(name), self.b.clock())

    def far_allows_nobody(self):
        self.b.allow = lambda public: None

    def far_demands_cookies(self):
        self.b.under_load = True

    def far_connects(self, name, within_s=10):
        connection = self.b.connect(
            self.to_near, peer_id=self.a.identity.public, within_s=within_s
        )
        connection.own.add(tables.Entry(name), self.b.clock())
        return _Begun(connection, name)


class GatewayFarEnd(FarEnd, ConnectionCase):
    """The other end is the local service of the command `strowger`, with programs that echo.

    It is a process on slot 3 of a second relay. The first one writes its return director in as
    many bits as the label has, so labels with wider directors have other return labels.
    """

    to_far, to_far_7, to_far_10 = (
        labels.splice(TO_B, label) for label in (TO_B, TO_B_7, TO_B_10)
    )
    to_near = labels.splice(TO_A, TO_A)

    def far(self):
        if gateway.program() is None:
            skip(self, "the program strowger-gateway is not beside the command")
        relay = self.relay()
        second = self.relay(
            _relay_section(relay, address=False),
            '[[unix]]\nname = "far"\npath = "{folder}/far"\nslot = 3\n',
        )
        relay.stop()
        node = self.node()
        relay.write(
            peers.section(node, address=False, slot=2) + _relay_section(second, slot=3)
        )
        relay.start()
        link = node.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, link)
        self.until(lambda: relay.peer("relay")["up"] and second.peer("relay")["up"], "the relays")
        self.carrier = LinkCarrier(link)
        self.gateway = gateway.Gateway(
            second.folder, second.folder / "far", self.network, ECHO.decode()
        )
        self.addCleanup(self.gateway.close)
        self.gateway.start()
        identity = Identity.for_connections(self.gateway.seed)
        self.public, self.connection_key = identity.public, identity.static_key

    def restart_far(self):
        self.gateway.restart()

    def stop_far(self):
        self.gateway.stop()

    def far_serves(self, name):
        self.gateway.echo(name.decode())

    def far_allows_nobody(self):
        stranger = Identity.for_connections(os.urandom(32))
        self.gateway.policy = ["--from", stranger.peer_id]
        self.gateway.restart()

    def far_connects(self, name, within_s=10):
        public = self.a.identity.public
        return self.gateway.connect(self.to_near, public, name.decode(), within_s)

    def test_cookies(self):
        """wire.md: W6-13, W6-23, W6-24, W4-72."""
        # A known sender can use the reserved half of the budget (W6-188).
        ours = self.near()
        first = next(one[2] for one in self.kinds(self.a, "out", 1) if one[2][0] == 0x11)
        for step, hide in ((0x11, True), (0x10, False)):
            self.a.hide_identity = hide
            self.carrier.log.clear()
            agreed = []

            def with_cookie():
                """Floods with XX 1, and renews the keys meanwhile."""
                if not ours.attempts and not ours.third:
                    agreed.append(ours.handshakes)  # noqa: B023
                    ours.begin()
                for _ in range(30):
                    self.a.send(self.to_far, first)
                own = [one[2] for one in self.kinds(self.a, "out", 1) if one[2] != first]
                with_mac2 = [one for one in own if one[0] == step and any(one[-16:])]  # noqa: B023
                return len(with_mac2) > 2 and len(set(agreed)) > 3  # noqa: B023

            self.until(with_cookie, "new keys with a cookie")
            self.assertTrue(self.in_(packets.COOKIE))
            self.assertEqual({len(one[2]) for one in self.in_(packets.COOKIE)}, {64})
        self.quiet_for(1)
        self.echo(ours)
        self.assertEqual(ours.restarts, 0)


class Programs(ConnectionCase):
    """Both ends are programs of one relay, at a socket such as `strowger init` writes."""

    def test_two_programs_of_a_relay(self):
        """wire.md: W6-10, W6-17, W1.3-6, W1.3-17."""
        if gateway.program() is None:
            skip(self, "the program strowger-gateway is not beside the command")
        relay = self.relay('[[unix]]\nname = "programs"\npath = "{folder}/programs"\nclients = 16\n')
        port = relay.folder / "programs"
        a = self.endpoint(ProcessCarrier(Process(port)), serves={ECHO: 0, CHAT: 0})
        self.addCleanup(a.close)
        a.handlers[CHAT] = lambda connection, message: connection.send(CHAT, message)
        a.send(TO_A, b"")  # this program is the first, and gets slot 0; the other one gets slot 2
        far = gateway.Gateway(relay.folder, port, self.network, ECHO.decode())
        self.addCleanup(far.close)
        far.start()
        to_near = 1 << 4 | labels.SCHEMES["v3x5x8"].encode(0, 4)
        ours = a.connect(TO_A, peer_id=Identity.for_connections(far.seed).public)
        self.echo(ours)
        program = far.connect(to_near, a.identity.public, CHAT.decode())
        self.until(program.connected, "the far end is connected")
        program.send(b"hello")
        self.until(lambda: program.received, "the echo of this end")
        self.assertEqual((program.received, a.connections), ([b"hello"], [ours]))


def _relay_section(relay, slot=2, *, address=True):
    """The `[[peer]]` section for another relay."""
    at = f'address = "127.0.0.1:{relay.port}"\n' if address else ""
    return (
        f'[[peer]]\nname = "relay"\nkey = "{relay.static_key.hex()}"\nslot = {slot}\n'
        f"{at}rights = {peers.ALL_RIGHTS}\n"
    )


if __name__ == "__main__":
    unittest.main()
