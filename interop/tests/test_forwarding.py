"""Packets between two Python nodes through a relay: label, shift, hops, return label, widths."""

import os

from harness.case import RelayCase
from harness.peers import section
from strowger_link import control
from strowger_link import label as labels
from strowger_link.header import Packet, SwitchHeader
from strowger_link.hello import Hello
from strowger_link.label import SCHEMES


class Forwarding(RelayCase):
    def pair(self, one=2, other=9, *more, **fields):
        """A relay with a node at each of two slots."""
        first, second = self.node(), self.node()
        relay = self.relay(
            section(first, "one", address=False, slot=one, **fields),
            section(second, "other", address=False, slot=other, **fields),
            *more,
        )
        here = first.add(key=relay.static_key, address=relay.address)
        there = second.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, here, "one")
        self.until_up(relay, there, "other")
        return relay, here, there

    def cross(self, link, other, packet):
        """Sends a packet and returns what arrives at the other node."""
        before = len(other.inbox)
        link.send(packet)
        self.until(lambda: len(other.inbox) > before, "the packet")
        return other.inbox[-1]

    def check_step(self, link, other, packet, scheme, ingress):
        """Checks that what arrives is one step of wire.md 1.2, and nothing else has changed."""
        sent, arrived = packet.header, self.cross(link, other, packet)
        done = labels.step(scheme, sent.label, sent.shift, ingress, sent.bits)
        hops = min(sent.hops, 64) - 1
        expected = sent.with_(label=done.label, shift=done.shift, hops=hops)
        self.assertEqual(arrived, Packet(expected, packet.payload))
        return arrived

    def test_label_shift_and_hops(self):
        """wire.md: W1.2-1, W1.2-2, W1.2-7, W1.2-8, W1.2-9, W2-6, W2-7, W2-10, W2-14, W3-5."""
        _, here, there = self.pair()
        scheme = SCHEMES["v3x5x8"]
        for bits in (64, 128, 256):
            label, _ = labels.build([(scheme, 9, 2)], bits)
            label, shift = labels.from_neighbour(label, bits)
            for hops in (1, 2, 63, 64, 65, 255):
                header = SwitchHeader(
                    label, shift, bits, hops=hops, class_=0xA5, flow=hops, ecn=1, zero=5
                )
                payload = os.urandom(100)
                self.check_step(here, there, Packet(header, payload), scheme, 2)

    def test_flags_are_passed_on(self):
        """wire.md: W2-4, W2-14."""
        _, here, there = self.pair()
        label, shift = labels.from_neighbour(0xA2)
        for flags in range(8):
            header = SwitchHeader(
                label, shift, quiet=bool(flags & 4), control=bool(flags & 2),
                telemetry=bool(flags & 1), ecn=flags & 3,
            )  # fmt: skip
            self.check_step(here, there, Packet(header, bytes(40)), SCHEMES["v3x5x8"], 2)

    def test_no_hops_left(self):
        """wire.md: W2-6, W2-15."""
        relay, here, there = self.pair()
        label, shift = labels.from_neighbour(0xA2)
        here.send(Packet(SwitchHeader(label, shift, hops=0), bytes(40)))
        self.discarded(relay, "hops_spent", 1)
        self.assertEqual(there.inbox, [])

    def test_the_return_label_leads_back(self):
        """wire.md: W1.2-1, W1.3-4, W1.2-6."""
        _, here, there = self.pair()
        scheme = SCHEMES["v3x5x8"]
        for bits in (64, 128, 256):
            label, back = labels.build([(scheme, 9, 2)], bits)
            label, shift = labels.from_neighbour(label, bits)
            arrived = self.cross(here, there, Packet(SwitchHeader(label, shift, bits), b"to " * 9))
            returned = labels.reverse(arrived.header.label, arrived.header.shift, bits)
            # The neighbour's own step, `0001`, ends the return path as if it were slot 1.
            self.assertEqual(returned, back)
            label, shift = labels.from_neighbour(returned, bits)
            answer = self.cross(there, here, Packet(SwitchHeader(label, shift, bits), b"fro" * 9))
            self.assertEqual(answer.header.forward, 1)

    def test_schemes(self):
        """wire.md: W1.1-4, W1.1-5, W1.1-17, W1.1-18, W1.2-1, W4-56."""
        for name, one, other in (("f4", 0, 15), ("f8", 2, 200), ("v4x8", 3, 100), ("v3x5x8", 33, 0)):
            with self.subTest(scheme=name):
                relay, here, there = self.pair(one, other, f'[switch]\nscheme = "{name}"\n')
                scheme = SCHEMES[name]
                self.assertEqual(here.peer_hello.scheme, scheme.serialise())
                for link, target, out, into in ((here, there, other, one), (there, here, one, other)):
                    label, _ = labels.build([(scheme, out, into)])
                    label, shift = labels.from_neighbour(label)
                    packet = Packet(SwitchHeader(label, shift), bytes(40))
                    self.check_step(link, target, packet, scheme, into)
                relay.kill()

    def test_pings_between_peers(self):
        """wire.md: W1.3-4, W5-12, W5-32."""
        relay, here, there = self.pair()
        scheme = SCHEMES["v3x5x8"]
        for bits in (64, 128, 256):
            # The other node reads the label 1 as its own.
            label, _ = labels.build([(scheme, 9, 2)], bits)
            path = labels.splice(1, label, bits)
            reply, _ = self.ping(here, path, bits=bits)
            self.assertEqual(reply.header.bits, bits)
        distant = labels.from_neighbour(0xA2)
        goodbye = control.Message(control.GOODBYE, 1).encode() + bytes(20)
        here.send(Packet(SwitchHeader(*distant, quiet=True, control=True), goodbye))
        self.until(lambda: there.node.discards["unhandled"], "a goodbye of a distant node")
        self.assertTrue(there.up)

    def test_order_of_one_flow(self):
        """wire.md: W2-16."""
        _, here, there = self.pair()
        label, shift = labels.from_neighbour(0xA2)
        for number in range(500):
            payload = number.to_bytes(4, "big") + bytes(36)
            here.send(Packet(SwitchHeader(label, shift, flow=7), payload))
            if number % 50 == 49:
                self.until(lambda: len(there.inbox) == number + 1, "all packets")  # noqa: B023
        got = [int.from_bytes(packet.payload[:4], "big") for packet in there.inbox]
        self.assertEqual(got, list(range(500)))

    def test_between_full_and_header_only(self):
        """wire.md: W3-6, W3-33, W1.2-2."""
        first, second = self.node(hello=Hello(seal_wish=2)), self.node()
        relay = self.relay(
            section(first, "one", address=False, slot=2, seal='"header-only"'),
            section(second, "other", address=False, slot=9),
        )
        here = first.add(key=relay.static_key, address=relay.address)
        there = second.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, here, "one")
        self.until_up(relay, there, "other")
        for link, target, out, into in ((here, there, 9, 2), (there, here, 2, 9)):
            label, _ = labels.build([(SCHEMES["v3x5x8"], out, into)])
            label, shift = labels.from_neighbour(label)
            packet = Packet(SwitchHeader(label, shift), os.urandom(500))
            self.check_step(link, target, packet, SCHEMES["v3x5x8"], into)

    def test_u_turns_if_they_are_allowed(self):
        """wire.md: W1.2-4, W1.2-1."""
        _, here, _ = self.pair(2, 9, "[switch]\nu_turns = true\n")
        label, shift = labels.from_neighbour(0x15)
        packet = Packet(SwitchHeader(label, shift), bytes(40))
        done = labels.step(SCHEMES["v3x5x8"], label, shift, 2, u_turns=True)
        arrived = self.cross(here, here, packet)
        self.assertEqual((arrived.header.label, arrived.header.shift), (done.label, done.shift))
