"""Requests, replies, errors and goodbyes between the Python implementation and a relay."""

import os

from harness.case import PAYLOAD, RelayCase
from harness.peers import section
from strowger_link import control
from strowger_link import label as labels
from strowger_link.header import Packet, SwitchHeader
from strowger_link.identity import Identity
from strowger_link.linkheader import INITIATION


def data(path, payload=bytes(40), *, bits=64, **fields):
    """A packet of a node that is not a switch, along this label."""
    label, shift = labels.from_neighbour(path, bits)
    return Packet(SwitchHeader(label, **{"shift": shift, "bits": bits, **fields}), payload)


class Requests(RelayCase):
    def test_ping(self):
        """wire.md: W5-3, W5-21, W5-32, W5-33, W5-34, W5-35, W5-36, W5-37, W1.3-4, W1.3-5,
        W1.3-14, W1.3-15, W2-6."""
        _, _, link = self.linked()
        for size in (0, 1, 100, 1000, 1392):
            payload = os.urandom(size)
            packet, message = self.ping(link, payload=payload, class_=0x2E, ecn=2)
            self.assertEqual(message.payload, payload)
            header = packet.header
            self.assertEqual((header.label, header.shift), (1 << 63 | 1, 4))
            self.assertTrue(header.quiet and header.control)
            self.assertFalse(header.telemetry)
            self.assertEqual((header.ecn, header.class_, header.hops), (0, 0x2E, 63))
            self.assertEqual(header.flow, message.id & 0xFFFF)

    def test_the_reserved_fields_are_ignored(self):
        """wire.md: W5-19, W5-20, W2-2, W2-10, W2-13."""
        _, _, link = self.linked()
        link.expect(0x77, control.PING)
        packet = control.request(control.PING, 0x77, labels.from_neighbour(1)[0], PAYLOAD)
        odd = b"\x01\x01\xff\xff" + packet.payload[4:]
        link.send(Packet(packet.header.with_(zero=7), odd))
        reply, message = self.until(lambda: link.reply_of(0x77), "a pong")
        self.assertEqual(message.payload, PAYLOAD)
        self.assertEqual(reply.header.zero, 0)
        self.assertEqual(reply.payload[:4], b"\x01\x02\0\0")

    def test_the_end_marker_above_slot_1(self):
        """wire.md: W1.3-1, W1.3-8, W1.3-9."""
        relay, _, link = self.linked()
        self.ping(link, path=0x11)
        link.send(data(0x21))
        self.discarded(relay, "beyond_endpoint", 1)

    def test_identify(self):
        """wire.md: W5-3, W5-24, W5-25."""
        relay, _, link = self.linked()
        identifier = link.request(control.IDENTIFY)
        _, message = self.until(lambda: link.reply_of(identifier), "an identity")
        self.assertEqual(message.x25519, relay.static_key)
        self.assertEqual(message.ed25519, link.public)

    def test_trace_of_the_relay(self):
        """wire.md: W5-22, W5-23, W5-43, W5-46."""
        _, _, link = self.linked()
        for hops in (0, 1, 2):
            identifier = link.request(control.TRACE, hops=hops)
            packet, message = self.until(lambda: link.reply_of(identifier), "a reply")  # noqa: B023
            self.assertEqual((message.slot_in, message.egress, message.slot_out), (2, 3, 1))
            self.assertEqual((message.code, message.queued, message.longest), (0, 0, 0))
            self.assertFalse(packet.header.telemetry)

    def test_trace_through_the_relay(self):
        """wire.md: W5-4, W5-23, W5-43, W5-44, W5-45, W2-15, W1.2-3."""
        other = self.node()
        relay, node, link = self.linked(section(other, "other", address=False, slot=9))
        there = other.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, there, "other")
        cases = [
            (0xA2, (2, 1, 9, 0)),  # slot 9, a neighbour
            (0x1B, (2, 0, 5, 4)),  # slot 5, empty
            (0x15, (2, 0, 2, 6)),  # slot 2, where it came from
        ]
        for number, (path, expected) in enumerate(cases, 1):
            identifier = link.request(control.TRACE, path, hops=0)
            _, message = self.until(lambda: link.reply_of(identifier), "a reply")  # noqa: B023
            found = (message.slot_in, message.egress, message.slot_out, message.code)
            self.assertEqual(found, expected)
            self.assertEqual(relay.discards("hops_spent"), number)
        self.assertGreater(message.time_ns, 0)
        # With one hop more it reaches the other node.
        identifier = link.request(control.TRACE, 0xA2, hops=1)
        self.until(lambda: there.inbox or link.reply_of(identifier), "it arrives")

    def test_requests_of_the_relay(self):
        """wire.md: W1.3-16, W5-11, W5-32, W5-39, W5-40, W5-41."""
        relay, node, link = self.linked()
        (pong,) = self.ask_and_run(relay, {"ping": {"label": "0000.0000.0000.0015"}})
        self.assertTrue(pong["pong"])
        replies = self.ask_and_run(relay, {"identify": {"label": "0000.0000.0000.0015"}})
        self.assertIn(node.identity.peer_id, str(replies))
        replies = self.ask_and_run(relay, {"trace": {"label": "0000.0000.0000.0015"}})
        self.assertTrue(replies)
        requests = [Packet.decode(body) for body in link.bodies]
        requests = [packet for packet in requests if packet.payload[1] in control.REQUESTS]
        for packet in requests:
            header, message = packet.header, control.Message.decode(packet.payload)
            self.assertTrue(header.control and not header.quiet)
            self.assertEqual(header.telemetry, message.kind == control.TRACE)
            self.assertEqual(header.flow, message.id & 0xFFFF)
            self.assertEqual((header.label, header.shift), (1 << 63 | 1, 4))
            if message.kind == control.PING:
                self.assertGreaterEqual(len(message.payload), 48)

    def test_an_identity_reply_changes_no_peer(self):
        """wire.md: W5-79."""
        relay, node, link = self.linked()

        def known():
            peers, links = (relay.ask({"show": what})[what] for what in ("peers", "links"))
            return [(p["key"], p["peer_id"]) for p in peers], [one["slot"] for one in links]

        before, identity = known(), node.identity
        node.identity = Identity.from_seed(os.urandom(32))  # the reply names another node
        replies = self.ask_and_run(relay, {"identify": {"label": "0000.0000.0000.0015"}})
        self.assertIn(node.identity.peer_id, str(replies))
        node.identity = identity
        self.assertEqual(known(), before)
        self.ping(link)

    def test_unsolicited_replies_and_errors(self):
        """wire.md: W5-14, W5-65, W5-70."""
        relay, _, link = self.linked()
        offending = SwitchHeader(0x800000000000001B, flow=0x0304)
        messages = [
            control.Message(control.PONG, id=5, payload=b""),
            control.Message(control.IDENTITY, id=5, ed25519=bytes(32), x25519=bytes(32)),
            control.Message(control.TRACE_REPLY, id=5),
            control.Message(control.ERROR, 4, offending=offending),
            control.Message(control.TOO_BIG, longest=1000, offending=offending),
            control.Message(control.SLOT_MOVED, slot=5, new_slot=6, offending=offending),
            control.Message(control.SLOT_GONE, slot=5, offending=offending),
            control.Message(control.CONGESTION, offending=offending),
        ]
        for number, message in enumerate(messages, 1):
            link.send(data(1, message.encode(), control=True, quiet=True))
            self.discarded(relay, "unsolicited", number)

    def test_messages_that_are_unhandled(self):
        """wire.md: W5-1, W5-2, W5-12, W5-15, W5-16, W5-17, W5-18, W13-15, W5-75, W5-76."""
        relay, node, link = self.linked()
        ping = control.Message(control.PING, id=5, payload=PAYLOAD).encode()
        offending = SwitchHeader(0x800000000000001B).encode()
        goodbye = control.Message(control.GOODBYE, 1, payload=b"bye").encode()
        bodies = [
            b"\x02" + ping[1:],  # version
            b"\x00" + ping[1:],
            b"\x01\x00\0\0" + bytes(36),  # kinds
            b"\x01\x0d\0\0" + bytes(36),
            b"\x01\xff\0\0" + bytes(36),
            b"",  # lengths
            ping[:3],
            ping[:7],
            control.Message(control.TRACE, id=5).encode()[:-1],
            control.Message(control.TRACE, id=5).encode() + b"\0",
            control.Message(control.IDENTIFY, id=5).encode()[:-1],
            control.Message(control.IDENTIFY, id=5).encode() + b"\0",
            control.Message(control.TRACE_REPLY, id=5).encode() + b"\0",
            b"\x01\x07\x04\0" + offending[:-1],
            b"\x01\x07\x04\0" + offending + b"\0",
            b"\x01\x07\x04\0" + b"\x13" + offending[1:],  # a width that is not defined
            b"\x01\x08\0\0" + offending,
            b"\x01\x0c\0\0" + bytes(3),
            goodbye[:8] + bytes(129),
            goodbye[:8] + b"\xff\xfe",  # not UTF-8
            b"\x01\x04\0\0" + bytes(8) + b"\x04" + bytes(23),  # type of egress
        ]
        for number, body in enumerate(bodies, 1):
            with self.subTest(body=body[:16].hex()):
                link.send(data(1, body, control=True))
                self.discarded(relay, "unhandled", number)
        link.send(data(1, ping))  # without C
        self.discarded(relay, "unhandled", len(bodies) + 1)
        # A goodbye that did not come from the neighbour itself
        distant = SwitchHeader(0x4500000000000001, 11, quiet=True, control=True)
        link.send(Packet(distant, goodbye))
        self.discarded(relay, "unhandled", len(bodies) + 2)
        self.assertTrue(relay.peer("peer")["up"])
        self.assertEqual(link.errors, [])
        self.ping(link)

    def test_the_rate_of_replies(self):
        """wire.md: W5-10."""
        relay, _, link = self.linked()
        for _ in range(300):
            link.request(control.PING, payload=PAYLOAD)
        self.until(lambda: relay.discards("over_budget") > 0, "over_budget")
        self.until(lambda: link.replies, "a reply")


class Errors(RelayCase):
    def error(self, link, packet):
        """Sends a packet and returns the packet and the message of the error about it."""
        before = len(link.errors)
        link.send(packet)
        self.until(lambda: len(link.errors) > before, "an error")
        return link.errors[-1]

    def check(self, relay, link, packet, reason, kind=control.ERROR):
        """Checks the error that this packet causes, and that the packet is counted."""
        before = relay.discards(reason)
        answer, message = self.error(link, packet)
        code = next(code for code, name in control.REASONS.items() if name == reason)
        self.assertEqual((message.kind, message.code), (kind, code if kind == control.ERROR else 0))
        sent, header = packet.header, answer.header
        hops = min(sent.hops, 64) if code >= 10 else sent.hops  # W5-49
        self.assertEqual(message.offending, sent.with_(zero=0, hops=hops))
        self.assertEqual((header.class_, header.flow), (sent.class_, sent.flow))
        self.assertEqual((header.bits, header.ecn, header.hops), (sent.bits, 0, 63))
        self.assertTrue(header.quiet and header.control and not header.telemetry)
        self.assertLessEqual(len(answer.encode()), len(packet.encode()))
        self.assertEqual(relay.discards(reason), before + 1)
        return message

    def test_reasons_of_the_label(self):
        """wire.md: W1.2-3, W1.2-4, W1.2-8, W1.2-12, W2-4, W2-15, W5-5, W5-7, W5-26, W5-32, W5-33,
        W5-34, W5-49, W5-50, W5-52, W1.3-9."""
        relay, _, link = self.linked()
        fields = {"flow": 0x0304, "class_": 0x2E, "ecn": 1, "zero": 5, "hops": 200}
        self.check(relay, link, data(0x1B, **{**fields, "hops": 0}), "hops_spent")
        self.check(relay, link, data(0, **fields), "label_spent")
        self.check(relay, link, data(0x1B, **fields), "empty_slot")
        self.check(relay, link, data(0x15, **fields), "u_turn")
        self.check(relay, link, data(0x21, **fields), "beyond_endpoint")

    def test_no_director(self):
        """wire.md: W1.2-4, W5-5, W1.1-24."""
        relay, _, link = self.linked('[switch]\nscheme = "v4x8"\n')
        self.check(relay, link, data(0x200), "no_director")

    def test_return_path_and_full_labels(self):
        """wire.md: W1.2-4, W1.2-6, W5-5."""
        other = self.node()
        relay, node, link = self.linked(
            section(other, "other", address=False, slot=2), slot=9
        )
        there = other.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, there, "other")
        # Slot 9 does not fit the 4 bits of the director of slot 2.
        self.check(relay, link, data(0x15), "return_path")
        # Slot 2 in 7 bits with 57 bits used has no room; with 56 it has.
        full = Packet(SwitchHeader(1 << 63 | 0b0000110, 57), bytes(40))
        self.check(relay, link, full, "label_full")
        link.send(Packet(SwitchHeader(1 << 63 | 0b10000110, 56), bytes(40)))
        self.until(lambda: there.inbox, "the packet")

    def test_slot_gone(self):
        """wire.md: W1.2-4, W5-29, W5-52."""
        other = self.node()
        relay, _, link = self.linked(section(other, "other", address=False, slot=3))
        relay.ask({"detach": 3})
        message = self.check(relay, link, data(0x17), "slot_gone", control.SLOT_GONE)
        self.assertEqual(message.slot, 3)

    def test_link_down(self):
        """wire.md: W3-56, W5-5."""
        other = self.node()
        relay, _, link = self.linked(section(other, "other", address=False, slot=3))
        self.check(relay, link, data(0x17), "link_down")

    def test_too_big(self):
        """wire.md: W3-60, W5-27, W5-52."""
        other = self.node()
        relay, _, link = self.linked(section(other, "other", address=False, slot=3))
        hello = other.hello.with_(mtu=600)
        there = other.add(key=relay.static_key, address=relay.address, hello=hello)
        self.until_up(relay, there, "other")
        # The search may try less than the agreed MTU, so it must have ended.
        self.until(lambda: relay.peer("other")["mtu_found"], "the path MTU")
        packet = data(0x17, bytes(600), hops=200)
        message = self.check(relay, link, packet, "too_big", control.TOO_BIG)
        self.assertEqual(message.longest, 600 - 16)
        link.send(data(0x17, bytes(600 - 16 - 24)))  # exactly the longest
        self.until(lambda: there.inbox, "the longest packet")

    def test_slot_moved(self):
        """wire.md: W1.2-10, W5-28, W5-53."""
        other = self.node()
        relay, _, link = self.linked(section(other, "other", address=False, slot=3))
        there = other.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, there, "other")
        relay.ask({"renumber": {"slot": 3, "to": 9}})
        packet = data(0x17)
        _, message = self.error(link, packet)
        self.assertEqual((message.kind, message.slot, message.new_slot), (control.SLOT_MOVED, 3, 9))
        self.assertEqual(message.offending, packet.header)
        (arrived,) = self.until(lambda: there.inbox, "the packet is forwarded")
        # The other way, slot 9 does not fit 4 bits, so the return path gets the former number.
        there.send(data(0x15))
        arrived = self.until(lambda: link.inbox, "the packet")[0]
        back = labels.reverse(arrived.header.label, arrived.header.shift)
        self.assertEqual(back & 0xF, 0x7)

    def test_errors_of_wide_labels(self):
        """wire.md: W5-35, W5-51, W5-7."""
        relay, _, link = self.linked()
        for bits in (128, 256):
            packet = data(0x1B, bytes(100), bits=bits)
            self.check(relay, link, packet, "empty_slot")

    def test_packets_that_cause_no_error(self):
        """wire.md: W2-4, W5-8, W5-51, W5-56."""
        relay, _, link = self.linked()
        pong = control.Message(control.PONG, id=1, payload=bytes(40)).encode()
        silent = [
            data(0x1B, quiet=True),  # E
            data(0x1B, pong, control=True),  # C, and no request
            data(0x1B, bytes(19)),  # the error would be longer
        ]
        for number, packet in enumerate(silent, 1):
            link.send(packet)
            self.discarded(relay, "empty_slot", number)
        self.ping(link)
        self.assertEqual(link.errors, [])
        self.check(relay, link, data(0x1B, bytes(20)), "empty_slot")
        request = control.Message(control.PING, id=1, payload=bytes(40)).encode()
        self.check(relay, link, data(0x1B, request, control=True, flow=1), "empty_slot")

    def test_the_rate_of_errors(self):
        """wire.md: W5-61."""
        relay, _, link = self.linked()
        for _ in range(200):
            link.send(data(0x1B))
        self.discarded(relay, "empty_slot", 200)
        self.ping(link)
        self.assertLess(len(link.errors), 200)
        self.assertGreater(len(link.errors), 0)


class Rights(RelayCase):
    def test_without_transit(self):
        """wire.md: W1.2-12, W5-9, W5-57."""
        other = self.node()
        relay, _, link = self.linked(
            section(other, "other", address=False, slot=3), rights='["control"]'
        )
        there = other.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, there, "other")
        for path in (0x17, 0x1B, 0x15, 0x21):
            before = len(link.errors)
            link.send(data(path))
            self.until(lambda: len(link.errors) > before, "an error")  # noqa: B023
            self.assertEqual(link.errors[-1][1].code, 4)
        self.assertEqual(relay.discards("not_allowed"), 1)
        self.assertEqual(relay.discards("empty_slot"), 1)
        self.assertEqual(there.inbox, [])

    def test_without_control(self):
        """wire.md: W5-55, W5-59, W1.2-12, W5-60."""
        relay, _, link = self.linked(rights='["transit", "endpoints"]')
        for number, kind in enumerate(control.REQUESTS, 1):
            before = len(link.errors)
            link.request(kind, payload=PAYLOAD)
            self.until(lambda: len(link.errors) > before, "an error")  # noqa: B023
            self.assertEqual(link.errors[-1][1].code, 4)
            self.assertEqual(relay.discards("not_allowed"), number)
        link.request(control.TRACE, 0x1B, hops=0)
        self.until(lambda: len(link.errors) == 4, "an error")
        self.assertEqual(link.errors[-1][1].code, 1)
        self.assertEqual(link.replies, [])
        link.goodbye()
        self.until(lambda: relay.events("goodbye"), "a goodbye needs no right")


class Goodbyes(RelayCase):
    def test_a_relay_that_stops(self):
        """wire.md: W5-12, W5-31, W5-62."""
        relay, _, link = self.linked()
        relay.stop()
        self.until(lambda: link.goodbyes, "a goodbye")
        self.assertEqual(link.goodbyes[0].code, 1)
        header = Packet.decode(link.bodies[-1]).header
        self.assertTrue(header.quiet and header.control)
        self.assertEqual((header.label, header.shift), (1 << 63 | 1, 4))
        self.assertGreaterEqual(header.hops, 1)
        self.assertFalse(link.up)

    def test_a_slot_that_is_detached(self):
        """wire.md: W5-31."""
        relay, _, link = self.linked()
        relay.ask({"detach": 2})
        self.until(lambda: link.goodbyes, "a goodbye")
        self.assertEqual(link.goodbyes[0].code, 3)
        self.assertGreater(link.goodbyes[0].retry_after_s, 1)

    def test_our_goodbye(self):
        """wire.md: W5-13, W5-63, W4-107, W5-74."""
        node = self.node()
        relay = self.relay(section(node, slot=2))
        link = node.add(key=relay.static_key)
        self.until_up(relay, link)
        before = len(self.received(node, INITIATION))
        said = node.clock()
        link.goodbye(code=2, retry_after_s=2, text="restarting")
        self.until(lambda: relay.events("goodbye"), "the goodbye")
        self.assertFalse(relay.peer("peer")["up"])
        self.assertIn("restarting", str(relay.events("goodbye")))
        self.until(lambda: len(self.received(node, INITIATION)) > before, "an initiation")
        self.assertGreaterEqual(node.clock() - said, 2.0)

    def test_we_may_return_at_once(self):
        """wire.md: W5-63."""
        relay, node, link = self.linked()
        link.goodbye(code=2, retry_after_s=3600)
        self.until(lambda: relay.events("goodbye"), "the goodbye")
        self.until(lambda: not relay.peer("peer")["up"], "the link is down")
        link.begin()
        self.until(lambda: relay.peer("peer")["up"], "the link is up again")
        self.ping(link)

    def test_the_rate_of_goodbyes(self):
        """wire.md: W5-72."""
        relay, _, link = self.linked()
        for _ in range(50):
            link.goodbye()
        self.until(lambda: relay.discards("over_budget") > 0, "over_budget")
