"""IKpsk2 between the Python implementation and a relay, in both roles."""

import os
import select
import tempfile
from pathlib import Path

from harness import relay as relays
from harness.case import RelayCase
from harness.peers import section
from strowger_link import handshake
from strowger_link.identity import Identity
from strowger_link.linkheader import INITIATION, RESPONSE, SEALED, LinkHeader


class Ik(RelayCase):
    def psk(self, path):
        """Writes a psk file as an operator does and returns its 32 bytes."""
        relays.run("key", "psk", str(path))
        return bytes.fromhex(path.read_text().split()[-1])

    def test_as_initiator(self):
        """wire.md: W4-1, W4-4, W4-5, W4-25, W4-32, W4-33, W4-38, W4-40, W4-41, W4-64, W4-65,
        W4-101."""
        relay, node, link = self.linked()
        self.assertEqual(len(self.sent(node, INITIATION)), 1)
        (response,) = self.received(node, RESPONSE)
        # W4-33: 72 bytes and the hello; W4-25: both indices.
        self.assertEqual(len(response), 72 + len(link.peer_hello.encode()))
        header = LinkHeader.decode(response)
        self.assertEqual(header.index, link.current.own_index)
        self.assertEqual(header.counter, link.current.peer_index)
        self.assertEqual(link.peer_hello.timestamp, 0)
        self.ping(link)
        self.assertEqual(relay.discards("bad_seal"), 0)
        self.assertEqual(relay.peer("peer")["peer_id"], node.identity.peer_id)

    def test_as_responder(self):
        """wire.md: W4-1, W4-3, W4-17, W4-25, W4-32, W4-38, W4-40, W4-55, W4-64, W4-65, W4-98."""
        node = self.node()
        relay = self.relay(section(node, slot=2))
        link = node.add(key=relay.static_key)
        self.until_up(relay, link)
        initiation = self.received(node, INITIATION)[0]
        self.assertEqual(len(initiation), 896)
        hint = handshake.key_hint(node.identity.static_key, initiation[8:40])
        self.assertEqual(LinkHeader.decode(initiation).index, hint)
        self.assertEqual(initiation[-16:], bytes(16))
        self.assertFalse(link.current.initiator)
        self.assertGreater(link.peer_hello.timestamp, 1_600_000_000 * 10**9)
        # The initiator seals first: its keepalive has confirmed the keys.
        first = next(p for way, p, _ in node.wire if p[0] >> 4 == SEALED)
        self.assertEqual((len(first), first[4:8]), (24, bytes(4)))
        self.ping(link)

    def test_with_psk(self):
        """wire.md: W4-24, W4-38."""
        node = self.node()
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="strowger-interop-")))
        psk = self.psk(folder / "psk")
        for starts in ("node", "relay"):
            with self.subTest(starts=starts):
                relay = self.relay(
                    section(node, address=starts == "relay", slot=2, psk=f'"{folder}/psk"')
                )
                address = relay.address if starts == "node" else None
                link = node.add(key=relay.static_key, psk=psk, address=address)
                self.until_up(relay, link)
                self.ping(link)
                relay.kill()
                node.links.remove(link)

    def test_wrong_psk_as_responder(self):
        """wire.md: W4-24, W4-39, W4-63."""
        node = self.node()
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="strowger-interop-")))
        self.psk(folder / "psk")
        relay = self.relay(section(node, slot=2, psk=f'"{folder}/psk"'))
        node.add(key=relay.static_key, psk=os.urandom(32))
        self.until(lambda: relay.discards("handshake_unreadable") > 0, "a refused response")
        self.assertFalse(relay.peer("peer")["up"])

    def test_wrong_psk_as_initiator(self):
        """wire.md: W4-24, W4-39."""
        node = self.node()
        relay = self.relay(section(node, address=False, slot=2))
        link = node.add(key=relay.static_key, psk=os.urandom(32), address=relay.address)
        self.until(lambda: node.discards["handshake_unreadable"], "a response that is refused")
        self.assertFalse(link.up)
        self.assertFalse(relay.peer("peer")["up"])

    def test_another_network(self):
        """wire.md: W4-17, W4-22, W4-43."""
        node = self.node(network="elsewhere")
        relay = self.relay(section(node, address=False))
        node.add(key=relay.static_key, address=relay.address)
        self.until(lambda: relay.discards("handshake_network"), "handshake_network")
        self.assertEqual(self.received(node, RESPONSE), [])
        self.assertEqual(relay.discards("handshake_mac"), 0)

    def test_wrong_static_key_of_the_receiver(self):
        """wire.md: W4-40, W4-43."""
        node = self.node()
        relay = self.relay(section(node, address=False))
        other = self.node()
        node.add(key=other.identity.static_key, address=relay.address)
        self.until(lambda: relay.discards("handshake_mac"), "handshake_mac")
        self.assertEqual(self.received(node, RESPONSE), [])

    def test_an_unknown_node_is_refused(self):
        """wire.md: W4-9."""
        node = self.node()
        relay = self.relay(section(self.node(), address=False))
        node.add(key=relay.static_key, address=relay.address)
        self.until(lambda: relay.discards("unknown_peer"), "unknown_peer")
        self.assertEqual(self.received(node, RESPONSE), [])

    def test_another_identity_is_refused(self):
        """wire.md: W4-58, W4-60."""
        node = self.node()
        other = self.node()
        text = section(node, address=False).replace(
            "[[peer]]", f'[[peer]]\npeer_id = "{other.identity.peer_id}"'
        )
        relay = self.relay(text)
        node.add(key=relay.static_key, address=relay.address)
        self.until(lambda: relay.discards("handshake_identity"), "handshake_identity")
        self.assertEqual(self.received(node, RESPONSE), [])

    def test_a_replayed_initiation_is_stale(self):
        """wire.md: W4-16, W4-84, W4-85, W3-37."""
        relay, node, link = self.linked()
        (initiation,) = self.sent(node, INITIATION)
        node.send(initiation, relay.address)
        self.discarded(relay, "handshake_stale")
        self.ping(link)
        self.assertEqual(len(self.received(node, RESPONSE)), 1)

    def test_our_own_static_key_is_refused(self):
        """wire.md: W4-61."""
        relay = self.relay(section(self.node(), address=False))
        seed = bytes.fromhex((relay.folder / "key").read_text().split()[-2])
        node = self.node(identity=Identity.from_seed(seed))
        self.assertEqual(node.identity.static_key, relay.static_key)
        node.add(key=relay.static_key, address=relay.address)
        self.until(lambda: relay.discards("handshake_ourselves"), "handshake_ourselves")
        self.assertEqual(self.received(node, RESPONSE), [])

    def test_simultaneous_initiations(self):
        """wire.md: W4-13, W4-86, W4-99, W4-100."""
        for smaller in (True, False):
            with self.subTest(ours_is_smaller=smaller):
                while True:
                    node = self.node()
                    relay = self.relay(section(node, slot=2))
                    if (node.identity.static_key < relay.static_key) == smaller:
                        break
                    relay.kill()
                    self.nodes.remove(node)
                # The relay has begun. Its initiation waits in the socket while this end begins.
                ready, _, _ = select.select([node.port.socket], [], [], relays.DEADLINE_S)
                self.assertTrue(ready)
                link = node.add(key=relay.static_key, address=relay.address)
                link.begin()
                self.until_up(relay, link)
                self.ping(link)
                row = relay.peer("peer")
                self.assertEqual(link.current.initiator, smaller)
                self.assertTrue(row["up"])
                relay.kill()
