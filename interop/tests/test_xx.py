"""XX between the Python implementation and a relay, in both roles."""

import os
import tempfile
from pathlib import Path

from harness import relay as relays
from harness.case import RelayCase
from harness.peers import section
from strowger_link import handshake
from strowger_link.linkheader import INITIATION, RESPONSE, LinkHeader

UNKNOWN_PEERS = '[unknown_peers]\nallow = true\nrights = ["control"]\n'


class AsInitiator(RelayCase):
    def hub(self, *sections):
        """A relay that accepts unknown peers."""
        return self.relay(UNKNOWN_PEERS, *sections)

    def answered(self, relay, node, message):
        """Sends a message and returns the response to it."""
        before = len(self.received(node, RESPONSE))
        node.send(message, relay.address)
        self.until(lambda: len(self.received(node, RESPONSE)) > before, "a response")
        return self.received(node, RESPONSE)[-1]

    def own_hello(self, node, index):
        return node.hello.with_(
            index=index, timestamp=node.wall_clock_ns(), proof=node.identity.proof()
        )

    def test_an_unknown_peer_gets_a_link(self):
        """wire.md: W4-1, W4-6, W4-25, W4-36, W4-37, W4-38, W4-41, W4-64, W4-70."""
        relay, node = self.hub(), self.node()
        link = node.add(address=relay.address)
        self.until_up(relay, link, node.identity.peer_id)
        (second,) = self.received(node, RESPONSE)
        self.assertEqual(second[0], 0x21)
        self.assertEqual(len(second), 120 + len(link.peer_hello.encode()))
        self.assertEqual(link.key, relay.static_key)
        self.assertTrue(relay.peer(node.identity.peer_id)["unknown"])
        self.ping(link)

    def test_renewal_by_ik(self):
        """wire.md: W4-8, W4-105."""
        relay, node = self.hub(), self.node()
        link = node.add(address=relay.address)
        self.until_up(relay, link, node.identity.peer_id)
        link.begin()
        self.assertEqual(self.sent(node, INITIATION)[-1][0], 0x10)
        self.until(lambda: link.handshakes == 2 and link.current.confirmed, "new keys")
        self.ping(link)

    def test_the_third_message_is_repeated(self):
        """wire.md: W4-6, W4-94."""
        relay, node = self.hub(), self.node()
        link, send, lost = node.add(address=relay.address), node.port.send, []

        def lossy(packet, address):
            if packet[0] == 0x12 and not lost:
                lost.append(packet)
            else:
                send(packet, address)

        node.port.send = lossy
        self.until(lambda: link.current is not None, "keys")
        self.assertFalse(link.up)
        self.until_up(relay, link, node.identity.peer_id)
        self.assertEqual({p for p in self.sent(node, INITIATION) if p[0] == 0x12}, set(lost))
        self.assertGreater(relay.discards("no_session"), 0)  # the keepalive before the second copy

    def test_a_replayed_third_message_has_no_effect(self):
        """wire.md: W4-69."""
        relay, node = self.hub(), self.node()
        link = node.add(address=relay.address)
        self.until_up(relay, link, node.identity.peer_id)
        third = self.sent(node, INITIATION)[-1]
        self.assertEqual(third[0], 0x12)
        node.send(third, relay.address)
        refused = ("handshake_stale", "over_budget")
        self.until(lambda: sum(map(relay.discards, refused)) == 1, "a refused copy")
        self.ping(link)

    def test_the_same_first_message_gets_the_same_second(self):
        """wire.md: W4-67, W4-15, W4-30."""
        relay, node = self.hub(), self.node()
        attempt = handshake.XxInitiator(node.identity, node.network)
        first = attempt.first(0x123456)
        second = self.answered(relay, node, first)
        self.assertEqual(self.answered(relay, node, first), second)
        header = LinkHeader.decode(second)
        self.assertEqual(header.index, 0x123456)
        self.assertTrue(1 <= header.counter <= 0xFFFFFF)
        _, hello, _ = attempt.read_second(second)
        self.assertEqual(hello.index, header.counter)
        other = handshake.XxInitiator(node.identity, node.network).first(0x123456)
        self.assertNotEqual(self.answered(relay, node, other)[8:40], second[8:40])

    def test_first_messages_that_are_refused(self):
        """wire.md: W4-26, W4-30, W4-35, W4-43."""
        relay, node = self.hub(), self.node()
        attempt = handshake.XxInitiator(node.identity, node.network)
        first = attempt.first(0x123456)

        def with_mac(message):
            return message + handshake.mac1(bytes(32), node.network, message) + bytes(16)

        node.send(with_mac(first[:500] + b"\1" + first[501:-32]), relay.address)
        self.discarded(relay, "handshake_malformed", 1)
        node.send(with_mac(first[:4] + bytes(4) + first[8:-32]), relay.address)
        self.discarded(relay, "handshake_malformed", 2)
        node.send(with_mac(first[:4] + b"\1" + first[5:-32]), relay.address)
        self.discarded(relay, "handshake_malformed", 3)
        node.send(first[:-32] + bytes(32), relay.address)
        self.discarded(relay, "handshake_mac", 1)
        node.send(first[:-1], relay.address)
        self.discarded(relay, "malformed", 1)
        node.send(b"\x13" + first[1:], relay.address)
        self.discarded(relay, "malformed", 2)
        self.assertEqual(self.received(node, RESPONSE), [])

    def test_third_messages_that_are_refused(self):
        """wire.md: W4-31, W4-39, W4-61, W4-68, W4-27."""
        relay, node = self.hub(), self.node()
        attempt = handshake.XxInitiator(node.identity, node.network)
        second = self.answered(relay, node, attempt.first(0x123456))
        _, peer_hello, state = attempt.read_second(second)

        def with_mac(message):
            return message + handshake.mac1(bytes(32), node.network, message) + bytes(16)

        third, _ = attempt.third(state, peer_hello, self.own_hello(node, 0x123457))
        node.send(third, relay.address)  # I is another one, so R does not belong to it
        self.discarded(relay, "no_session", 1)
        # I in the link header as in XX 1, and another one in the hello
        moved = with_mac(third[:4] + (0x123456).to_bytes(4, "big") + third[8:-32])
        node.send(moved, relay.address)
        self.discarded(relay, "no_session", 2)
        third, _ = attempt.third(state, peer_hello, self.own_hello(node, 0x123456))
        node.send(with_mac(third[:100] + bytes([third[100] ^ 1]) + third[101:-32]), relay.address)
        self.discarded(relay, "handshake_unreadable", 1)
        other = self.node()
        other.send(third, relay.address)  # from another source
        self.discarded(relay, "no_session", 3)
        # A forged copy has not used up the handshake.
        self.assertIsNone(relay.peer(node.identity.peer_id))
        node.send(third, relay.address)
        self.until(lambda: relay.peer(node.identity.peer_id), "the peer has a slot")
        self.assertEqual(len(self.received(node, RESPONSE)), 1)

    def test_a_relay_that_accepts_no_unknown_peers(self):
        """wire.md: W4-6."""
        node = self.node()
        relay = self.relay(section(self.node(), address=False))
        node.add(address=relay.address)
        self.until(lambda: relay.discards("unknown_peer"), "unknown_peer")
        self.assertEqual(self.received(node, RESPONSE), [])

    def test_a_peer_with_a_psk_is_refused(self):
        """wire.md: W4-70."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="strowger-interop-")))
        relays.run("key", "psk", str(folder / "psk"))
        node = self.node()
        relay = self.hub(section(node, address=False, psk=f'"{folder}/psk"'))
        node.add(address=relay.address)
        self.until(lambda: relay.discards("not_allowed"), "not_allowed")
        self.assertFalse(relay.peer("peer")["up"])

    def test_a_configured_peer_by_xx(self):
        """wire.md: W4-9, W4-70."""
        node = self.node()
        relay = self.relay(section(node, key=False, peer_id=True, address=False, slot=2))
        link = node.add(address=relay.address)
        self.until_up(relay, link)
        self.assertFalse(relay.peer("peer")["unknown"])
        self.ping(link)

    def test_a_configured_identity_by_ik(self):
        """wire.md: W4-9, W4-58."""
        node = self.node()
        relay = self.relay(section(node, key=False, peer_id=True, address=False, slot=2))
        link = node.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, link)
        self.ping(link)
        stranger = self.node()
        stranger.add(key=relay.static_key, address=relay.address)
        self.until(lambda: relay.discards("unknown_peer"), "unknown_peer")
        self.assertEqual(self.received(stranger, RESPONSE), [])

    def test_a_wrong_proof_is_refused(self):
        """wire.md: W4-21, W4-58."""
        relay, node = self.hub(), self.node()
        good = node.identity.proof()
        wrong = [
            good[:-1] + bytes([good[-1] ^ 0x40]),  # signature
            b"\x0b" + good[1:],  # constant bytes
            good[:6] + b"\1" + bytes(31) + good[38:],  # a key of small order
            good[:6] + os.urandom(32) + good[38:],  # another key
        ]
        for number, proof in enumerate(wrong, 1):
            attempt = handshake.XxInitiator(node.identity, node.network)
            second = self.answered(relay, node, attempt.first(0x200000 + number))
            _, peer_hello, state = attempt.read_second(second)
            hello = self.own_hello(node, 0x200000 + number).with_(proof=proof)
            node.send(attempt.third(state, peer_hello, hello)[0], relay.address)
            self.discarded(relay, "handshake_identity", number)


class AsResponder(RelayCase):
    def test_the_relay_begins(self):
        """wire.md: W4-1, W4-6, W4-25, W4-34, W4-35, W4-37, W4-38, W4-55, W4-98."""
        node = self.node(accept_unknown=True)
        relay = self.relay(section(node, key=False, peer_id=True, slot=2))
        self.until(lambda: node.links, "a link")
        (link,) = node.links
        self.until_up(relay, link)
        first, third = self.received(node, INITIATION)[0], self.received(node, INITIATION)[-1]
        self.assertEqual((first[0], len(first)), (0x11, 896))
        self.assertEqual(third[0], 0x12)
        self.assertEqual(third[8:40], first[8:40])
        self.assertEqual(link.key, relay.static_key)
        self.assertEqual(relay.peer("peer")["key"], node.identity.static_key.hex())
        self.ping(link)

    def test_another_identity_is_refused(self):
        """wire.md: W4-60, W4-88."""
        node, other = self.node(accept_unknown=True), self.node()
        text = section(other, key=False, peer_id=True, address=False)
        relay = self.relay(text + 'address = "{}:{}"\n'.format(*node.port.address))
        self.until(lambda: relay.discards("handshake_identity"), "handshake_identity")
        self.assertTrue(all(p[0] != 0x12 for p in self.received(node, INITIATION)))

    def test_both_begin(self):
        """wire.md: W4-7, W4-13, W4-100."""
        node = self.node()
        relay = self.relay(section(node, key=False, peer_id=True, slot=2))
        # The first message of the relay waits in the socket while this end begins.
        link = node.add(public=None, address=relay.address)
        link.begin()
        self.until_up(relay, link)
        self.ping(link)
        self.assertTrue(relay.peer("peer")["up"])
