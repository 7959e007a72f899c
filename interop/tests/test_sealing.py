"""Sealed packets between the Python implementation and a relay: modes, lanes, replay, refusals."""

import os

from harness.case import PAYLOAD, RelayCase
from harness.peers import section
from harness.relay import free_port
from strowger_link import control, handshake, linkheader, transport
from strowger_link import label as labels
from strowger_link.header import Packet
from strowger_link.hello import Hello, agree
from strowger_link.linkheader import CHALLENGE, SEALED, SEALED_HEADER, LinkHeader


def ping_body(identifier=7, payload=PAYLOAD, **fields):
    """A ping of the neighbour, as the bytes between link header and tag."""
    label, shift = labels.from_neighbour(1)
    packet = control.request(control.PING, identifier, label, payload, shift=shift)
    return Packet(packet.header.with_(**fields), packet.payload).encode()


class Sealing(RelayCase):
    def answered(self, link, packet, identifier):
        """Sends a sealed ping and waits for its pong."""
        link.expect(identifier, control.PING)
        link.node.send(packet, link.paths.address)
        return self.until(lambda: link.reply_of(identifier), "a pong")[1]

    def test_full_mode(self):
        """wire.md: W3-1, W3-5, W3-7, W3-9, W3-33, W3-35, W4-65."""
        relay, node, link = self.linked()
        for size in (0, 1, 63, 64, 65, 1000):
            payload = os.urandom(size)
            self.assertEqual(self.ping(link, payload=payload)[1].payload, payload)
        sealed = self.received(node, SEALED)
        self.assertEqual(self.received(node, SEALED_HEADER), [])
        counters = [LinkHeader.decode(packet).counter for packet in sealed]
        self.assertEqual(len(set(counters)), len(counters))
        self.assertEqual(relay.discards("bad_seal"), 0)

    def test_header_only_mode(self):
        """wire.md: W3-6, W3-32, W3-33, W3-34, W3-42, W4-49."""
        node = self.node(hello=Hello(seal_wish=2))
        relay, node, link = self.linked(node=node, seal='"header-only"')
        for size in (0, 40, 41, 1000):
            payload = os.urandom(size)
            packet, message = self.ping(link, payload=payload)
            self.assertEqual(message.payload, payload)
            sealed = self.received(node, SEALED_HEADER)[-1]
            self.assertEqual(sealed[8 + 64 : -16], packet.encode()[64:])
        self.assertEqual(self.received(node, SEALED), [])
        # The bytes behind the first 64 are not authenticated; their number is.
        sealed = link.current.seal_data(ping_body(1, b"x" * 100))
        changed = sealed[:-20] + b"y" + sealed[-19:]
        self.assertIn(b"y", self.answered(link, changed, 1).payload)
        sealed = link.current.seal_data(ping_body(2, b"x" * 100))
        node.send(sealed[:-20] + sealed[-16:], relay.address)
        self.discarded(relay, "bad_seal", 1)
        node.send(link.current.seal(SEALED, ping_body(3)), relay.address)
        self.discarded(relay, "bad_link_kind", 1)
        link.send_challenge(link.paths.address)
        self.until(lambda: link.responses_received, "a response, sealed in full")

    def test_the_other_kind_in_full_mode(self):
        """wire.md: W3-34."""
        relay, node, link = self.linked()
        node.send(link.current.seal(SEALED_HEADER, ping_body()), relay.address)
        self.discarded(relay, "bad_link_kind", 1)

    def test_replay_and_forgery(self):
        """wire.md: W3-8, W3-36, W3-37, W4-86."""
        relay, node, link = self.linked()
        keys = link.current
        ping = keys.seal(SEALED, ping_body(1), counter=5000)
        forged = ping[:-1] + bytes([ping[-1] ^ 1])
        node.send(forged, relay.address)
        self.discarded(relay, "bad_seal", 1)
        self.answered(link, ping, 1)  # the forgery has not used up its counter
        node.send(ping, relay.address)
        self.discarded(relay, "replayed", 1)
        # Any order within the window, each once.
        for identifier, counter in ((2, 4999), (3, 2953), (4, 3000)):
            packet = keys.seal(SEALED, ping_body(identifier), counter=counter)
            self.answered(link, packet, identifier)
            node.send(packet, relay.address)
            self.discarded(relay, "replayed", identifier)
        # Far older: tried as a counter that is 2^32 greater.
        node.send(keys.seal(SEALED, ping_body(5), counter=3), relay.address)
        self.discarded(relay, "bad_seal", 2)
        # A forgery with a great counter does not move the window.
        far = transport.seal_packet(b"f" * 32, SEALED, 0, keys.peer_index, 10**6, ping_body(6))
        node.send(far, relay.address)
        self.discarded(relay, "bad_seal", 3)
        self.answered(link, keys.seal(SEALED, ping_body(7), counter=4998), 7)

    def test_counters_above_32_bits(self):
        """wire.md: W3-7, W3-9, W3-36."""
        _, _, link = self.linked()
        for identifier, counter in ((1, 2**31), (2, 2**32 - 1), (3, 2**32), (4, 2**32 + 2**31)):
            packet = link.current.seal(SEALED, ping_body(identifier), counter=counter)
            self.answered(link, packet, identifier)

    def test_lanes(self):
        """wire.md: W3-4, W3-30, W4-52, W4-65, W3-67."""
        node = self.node(hello=Hello(lanes=4))
        relay, node, link = self.linked(node=node)
        for lane in (3, 0, 2, 1):
            packet = link.current.seal(SEALED, ping_body(10 + lane), lane)
            self.answered(link, packet, 10 + lane)
        key = transport.lane_key(link.current.keys.seal, 4)
        packet = transport.seal_packet(key, SEALED, 4, link.current.peer_index, 0, ping_body(20))
        node.send(packet, relay.address)
        self.discarded(relay, "bad_seal", 1)

    def test_lanes_of_a_relay_with_workers(self):
        """wire.md: W3-30, W4-52."""
        _, _, link = self.linked("[switch]\nworkers = 2\n")
        self.assertEqual(link.peer_hello.lanes, 2)
        self.ping(link)

    def test_the_index_selects_the_keys(self):
        """wire.md: W3-26, W3-27, W3-64."""
        relay, node, link = self.linked()
        keys = link.current
        wrong = transport.seal_packet(
            transport.lane_key(keys.keys.seal, 0), SEALED, 0, keys.peer_index ^ 1, 50, ping_body()
        )
        node.send(wrong, relay.address)
        self.discarded(relay, "no_session", 1)
        node.send(keys.seal(SEALED, b""), relay.address)  # and a good one is accepted
        self.ping(link)

    def test_packets_that_are_refused(self):
        """wire.md: W3-24, W3-25, W3-38, W2-17, W8-13, W10-12, W3-65, W3-66, W3-64, W4-26."""
        relay, node, link = self.linked()
        index = link.current.peer_index
        stranger = self.node()
        cases = [
            (node, b"", "too_short"),
            (node, b"\x40123456", "too_short"),
            (node, LinkHeader(SEALED, 0, index, 99).encode() + bytes(15), "too_short"),
            (node, link.current.seal(SEALED, bytes(9193)), "too_long"),
            (node, bytes(100), "bad_link_kind"),
            (node, b"\xa0" + bytes(99), "bad_link_kind"),
            (node, b"\xf0" + bytes(99), "bad_link_kind"),
            (node, b"\x70" + bytes(895), "bad_link_kind"),
            (node, linkheader.plain(1) + ping_body(), "bad_link_kind"),
            (stranger, linkheader.plain(1) + ping_body(), "unknown_sender"),
            (node, b"\x30" + bytes(63), "no_session"),
            (node, b"\x20" + bytes(206), "no_session"),
            (node, b"\x22" + bytes(206), "malformed"),
            (node, b"\x20" + bytes(63), "malformed"),
            (node, b"\x20" + bytes(896), "malformed"),
            (node, b"\x30" + bytes(62), "malformed"),
            (node, b"\x33" + bytes(63), "malformed"),
            (node, b"\x10" + bytes(894), "malformed"),
            (node, b"\x12" + bytes(134), "malformed"),
        ]
        expected = {}
        for sender, packet, reason in cases:
            with self.subTest(packet=packet[:8].hex(), length=len(packet), reason=reason):
                sent = len(self.received(sender, SEALED))
                expected[reason] = expected.get(reason, 0) + 1
                sender.send(packet, relay.address)
                self.discarded(relay, reason, expected[reason])
                self.assertEqual(len(self.received(sender, SEALED)), sent)
        self.ping(link)
        self.assertEqual(stranger.wire, [entry for entry in stranger.wire if entry[0] == "out"])

    def test_the_longest_packet(self):
        """wire.md: W2-17, W5-77."""
        relay, _, link = self.linked()
        body = ping_body(1, bytes(range(256)) * 40)[: 9216 - 24]
        message = self.answered(link, link.current.seal(SEALED, body), 1)
        self.assertEqual(message.payload, (bytes(range(256)) * 6)[:1392])
        self.assertEqual(relay.discards("too_long"), 0)

    def test_bodies_that_are_refused(self):
        """wire.md: W2-1, W2-3, W2-8, W2-18."""
        relay, node, link = self.linked()
        good = ping_body()
        cases = [
            (good[:7], "too_short"),
            (good[:15], "too_short"),
            (b"\x11" + good[1:20], "too_short"),
            (b"\x20" + good[1:], "bad_version"),
            (b"\x23" + good[1:], "bad_version"),
            (b"\x13" + good[1:], "bad_width"),
            (b"\x1f" + good[1:8], "bad_width"),
            (good[:4] + b"\0\x40" + good[6:], "bad_header"),
            (good[:4] + b"\xff\xff" + good[6:], "bad_header"),
        ]
        expected = {}
        for body, reason in cases:
            with self.subTest(body=body.hex(), reason=reason):
                expected[reason] = expected.get(reason, 0) + 1
                node.send(link.current.seal(SEALED, body), relay.address)
                self.discarded(relay, reason, expected[reason])
        self.ping(link)

    def test_keepalives(self):
        """wire.md: W3-42, W3-43, W4-101."""
        relay, node, link = self.linked()
        before = link.keepalives_opened
        # Half a second after the last one, the responder answers a keepalive.
        self.until(lambda: node.clock() - link.current.born > 0.6, "half a second")
        link.send_keepalive()
        self.until(lambda: link.keepalives_opened > before, "a keepalive")
        self.assertEqual(len(self.received(node, SEALED)[-1]), 24)
        self.assertEqual(relay.discards("too_short"), 0)

    def test_the_initiator_answers_no_keepalive(self):
        """wire.md: W4-101, W3-43."""
        node = self.node()
        relay = self.relay(section(node, slot=2))
        link = node.add(key=relay.static_key)
        self.until_up(relay, link)
        self.until(lambda: node.clock() - link.current.born > 0.6, "half a second")
        handled = relay.discards("handled")
        before = len(self.received(node, SEALED))
        link.send_keepalive()
        self.until(lambda: relay.discards("handled") > handled, "the keepalive is handled")
        self.ping(link)
        data = [packet for packet in self.received(node, SEALED)[before:] if len(packet) == 24]
        self.assertEqual(data, [])

    def test_new_keys_while_the_old_ones_open(self):
        """wire.md: W4-86, W4-92, W4-93, W4-12, W3-28."""
        relay, node, link = self.linked()
        old = link.current
        link.begin()
        self.until(lambda: link.current is not old and link.current.confirmed, "new keys")
        self.assertNotEqual(old.peer_index, link.current.peer_index)
        self.answered(link, old.seal(SEALED, ping_body(1)), 1)
        self.assertEqual(relay.discards("no_session"), 0)
        # Generations behind the previous ones are gone.
        for _ in range(3):
            last = link.current
            link.begin()
            self.until(lambda: link.current is not last and link.current.confirmed, "new keys")
        node.send(old.seal(SEALED, ping_body(2)), relay.address)
        self.discarded(relay, "no_session", 1)

    def test_keys_that_were_answered_and_never_used(self):
        """wire.md: W4-12, W4-91, W4-92."""
        relay, node, link = self.linked()
        unused = []
        for _ in range(4):
            attempt = handshake.IkInitiator(node.identity, node.network, relay.static_key)
            hello = node.hello.with_(
                index=node.new_index(),
                timestamp=link.new_timestamp(),
                proof=node.identity.proof(),
            )
            before = len(self.received(node, linkheader.RESPONSE))
            node.send(attempt.initiation(hello), relay.address)
            self.until(
                lambda: len(self.received(node, linkheader.RESPONSE)) > before, "a response"
            )
            theirs, keys = attempt.read_response(self.received(node, linkheader.RESPONSE)[-1])
            unused.append(
                transport.Generation(
                    keys, hello, theirs, agree(hello, theirs), initiator=True, step=0, born=node.clock()
                )
            )
        # The relay still seals with the former keys, and has dropped the first of four.
        self.assertEqual(LinkHeader.decode(self.sent(node, SEALED)[-1]).index, link.current.peer_index)
        self.ping(link)
        node.send(unused[0].seal(SEALED, b""), relay.address)
        self.discarded(relay, "no_session", 1)
        # A packet under the third makes it current and drops the second; the fourth stays.
        for generation in unused[1:]:
            node.sessions[generation.own_index] = (link, generation)
        link.current = unused[2]
        self.ping(link)
        node.send(unused[1].seal(SEALED, b""), relay.address)
        self.discarded(relay, "no_session", 2)
        link.current = unused[3]
        self.ping(link)


class Plain(RelayCase):
    def test_a_plain_link(self):
        """wire.md: W3-2, W3-3, W3-29, W8-12, W2-9, W3-66."""
        node = self.node()
        lab = '[[udp]]\nname = "lab"\naddress = "127.0.0.1:{port}"\nseal = "plain"\n'
        port = free_port()
        relay = self.relay(
            lab.format(port=port),
            '[[neighbour]]\nname = "peer"\nslot = 2\nlistener = "lab"\n'
            + 'address = "{}:{}"\n'.format(*node.port.address),
        )
        address = ("127.0.0.1", port)
        # Lane, index and counter are ignored.
        for number, head in enumerate(("6000000000000001", "6fabcdef00000001"), 1):
            node.send(bytes.fromhex(head) + ping_body(), address)
            self.until(lambda: len(self.received(node, 6)) == number, "a pong")  # noqa: B023
        first, second = self.received(node, 6)
        self.assertEqual((first[:8].hex(), second[:8].hex()), ("6000000000000001", "6000000000000002"))
        self.assertEqual(Packet.decode(first[8:]).payload[1], control.PONG)
        node.send(linkheader.plain(1) + bytes(15), address)
        self.discarded(relay, "too_short", 1)
        stranger = self.node()
        stranger.send(linkheader.plain(1) + ping_body(), address)
        self.discarded(relay, "unknown_sender", 1)


class Challenges(RelayCase):
    def test_a_short_challenge_gets_no_response(self):
        """wire.md: W3-46."""
        _, node, link = self.linked()
        node.send(link.current.seal(CHALLENGE, b"1234567"), link.paths.address)
        link.send_challenge(link.paths.address)
        self.until(lambda: link.responses_received, "a response to the good one")
        answers = self.received(node, linkheader.ANSWER)
        self.assertEqual(len(answers), 1)
