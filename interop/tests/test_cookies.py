"""Cookies: a relay under load, and a Python node under load."""

import os

from harness.case import RelayCase
from harness.peers import section
from strowger_link import cookie, handshake
from strowger_link.carriage import UdpPort
from strowger_link.linkheader import COOKIE, INITIATION, RESPONSE


class Flood:
    """Sends first messages of XX with a right mac1 and without a cookie, from many addresses."""

    def __init__(self, case, relay, count=64):
        self.relay = relay
        self.ports = [UdpPort((f"127.0.{1 + i}.1", 0)) for i in range(count)]
        for port in self.ports:
            case.addCleanup(port.close)
        self.network = relay.network.encode()

    def send(self, count):
        """Sends this many messages."""
        for number in range(count):
            first = bytes.fromhex("11000000") + os.urandom(3).rjust(4, b"\0") + os.urandom(32)
            first += b"\1" + bytes(823)  # refused behind the budget, before any curve operation
            message = first + handshake.mac1(bytes(32), self.network, first) + bytes(16)
            self.ports[number % len(self.ports)].send(message, self.relay.address)

    def precede(self, port):
        """Sends a part of the flood before each packet of this port.

        So the relay reads the packet when the flood has just used up what its budget gained.
        """
        send = port.send

        def flooded(packet, address):
            if packet[0] >> 4 == INITIATION:
                self.send(400)
            send(packet, address)

        port.send = flooded
        return send

    def received(self):
        """All packets that came back."""
        packets = []
        for port in self.ports:
            while (received := port.receive()) is not None:
                packets.append(received[0])
        return packets


class RelayUnderLoad(RelayCase):
    def loaded(self, *sections):
        """A relay that accepts unknown peers, and a flood."""
        relay = self.relay("[unknown_peers]\nallow = true\nrights = [\"control\"]\n", *sections)
        return relay, Flood(self, relay)

    def through(self, sections, link):
        """The node and the kinds of its cookie replies, after it got through the load.

        A message that arrives just when the budget has grown is answered without a cookie. Then
        another node tries at another relay.
        """
        for _ in range(10):
            node = self.node(address="127.0.0.2")
            relay, flood = self.loaded(*sections(node))
            made = link(node, relay)
            send = flood.precede(node.port)
            self.until(lambda: made.up, "the link is up")  # noqa: B023
            node.port.send = send
            self.ping(made)
            self.nodes.remove(node)
            relay.kill()
            replies = self.received(node, COOKIE)
            first, last = self.sent(node, INITIATION)[0], self.sent(node, INITIATION)[-1]
            self.assertEqual(first[-16:], bytes(16))
            if replies and last[-16:] != bytes(16):
                return node, replies
        raise AssertionError("the relay was never under load")

    def test_ik_gets_through_with_a_cookie(self):
        """wire.md: W4-25, W4-42, W4-44, W4-72, W4-74, W4-76."""
        node, replies = self.through(
            lambda node: [section(node, address=False, slot=2)],
            lambda node, relay: node.add(key=relay.static_key, address=relay.address),
        )
        for reply in replies:
            self.assertEqual((len(reply), reply[0], reply[4:8]), (64, 0x30, bytes(4)))
        self.assertEqual(node.discards["handshake_unreadable"], 0)

    def test_xx_gets_through_with_a_cookie(self):
        """wire.md: W4-25, W4-41, W4-42, W4-72, W4-74."""
        node, replies = self.through(
            lambda node: [], lambda node, relay: node.add(address=relay.address)
        )
        self.assertLessEqual({reply[0] for reply in replies}, {0x31, 0x32})
        self.assertEqual(node.discards["handshake_unreadable"], 0)

    def test_cookies_of_other_sources_are_not_accepted(self):
        """wire.md: W4-72, W4-73, W4-75, W4-76."""
        relay, flood = self.loaded()
        node, other = self.node(address="127.0.0.2"), self.node(address="127.0.0.3")
        attempt = handshake.XxInitiator(node.identity, node.network)
        first = attempt.first(0x123456)

        def cookie_to(sender, message):
            count = len(self.received(sender, COOKIE))

            def got():
                flood.send(400)
                sender.send(message, relay.address)
                sender.poll(0.05)
                return len(self.received(sender, COOKIE)) > count

            self.until(got, "a cookie")
            reply = self.received(sender, COOKIE)[-1]
            key = handshake.XX_MAC_KEY
            return cookie.read_reply(reply, message, key, sender.network), reply[8:32]

        mine, nonce = cookie_to(node, first)
        theirs, other_nonce = cookie_to(other, first)
        self.assertNotEqual(mine, theirs)
        self.assertNotEqual(nonce, other_nonce)
        with_mine = attempt.first(0x123456, mine)
        # From the other source the cookie is not valid: a cookie reply, and the one for it.
        again, _ = cookie_to(other, with_mine)
        self.assertEqual(again, theirs)
        before = len(self.received(node, RESPONSE))

        def answered():
            flood.send(400)
            node.send(with_mine, relay.address)
            node.poll(0.05)
            return len(self.received(node, RESPONSE)) > before

        self.until(answered, "a response at the source of the cookie")

    def test_replies_are_not_longer_and_a_wrong_mac1_gets_none(self):
        """wire.md: W4-27, W4-43, W4-72."""
        relay, flood = self.loaded()
        node = self.node(address="127.0.0.2")
        flood.send(400)
        self.until(lambda: any(p[0] >> 4 == COOKIE for p in flood.received()), "a cookie")
        message = b"\x11" + bytes(895)
        node.send(message, relay.address)
        self.until(lambda: relay.discards("handshake_mac") == 1, "handshake_mac")
        self.assertEqual([p for way, p, _ in node.wire if way == "in"], [])


class NodeUnderLoad(RelayCase):
    def test_the_relay_gets_through_with_a_cookie_by_ik(self):
        """wire.md: W4-42, W4-77, W4-78."""
        node = self.node()
        node.under_load = True
        relay = self.relay(section(node, slot=2))
        link = node.add(key=relay.static_key)
        self.until_up(relay, link)
        initiations = self.received(node, INITIATION)
        self.assertEqual(initiations[0][-16:], bytes(16))
        self.assertNotEqual(initiations[-1][-16:], bytes(16))
        self.assertNotEqual(initiations[0][8:40], initiations[-1][8:40])
        self.ping(link)

    def test_the_relay_gets_through_with_a_cookie_by_xx(self):
        """wire.md: W4-42, W4-77, W4-78."""
        node = self.node(accept_unknown=True)
        node.under_load = True
        relay = self.relay(section(node, key=False, peer_id=True, slot=2))
        self.until(lambda: node.links, "the third message")
        self.until_up(relay, node.links[0])

    def test_forged_cookie_replies(self):
        """wire.md: W4-14, W4-26, W4-77, W4-87."""
        node = self.node()
        relay = self.relay(section(node, slot=2))
        self.until(lambda: self.received(node, INITIATION), "an initiation")
        initiation = self.received(node, INITIATION)[0]
        made, nonce = os.urandom(16), os.urandom(24)
        key = node.identity.static_key
        good = cookie.reply(initiation, made, nonce, key, node.network)
        node.send(b"\x31" + good[1:], relay.address)  # the lane of another message
        self.discarded(relay, "no_session", 1)
        node.send(good[:3] + bytes([good[3] ^ 1]) + good[4:], relay.address)
        self.discarded(relay, "no_session", 2)
        node.send(good[:-1] + bytes([good[-1] ^ 1]), relay.address)
        self.discarded(relay, "handshake_unreadable", 1)
        node.send(good[:-1], relay.address)
        self.discarded(relay, "malformed", 1)
        # The attempt is still pending.
        link = node.add(key=relay.static_key)
        node.receive(initiation, relay.address)
        self.until_up(relay, link)
        self.assertEqual(len(self.received(node, INITIATION)), 2)  # the replayed one, no new one
