"""Path challenges, address validation, roaming and path MTU between Python nodes and a relay."""

from harness.case import RelayCase
from harness.peers import section
from strowger_link import control, linkheader
from strowger_link import label as labels
from strowger_link.carriage import UdpPort
from strowger_link.linkheader import ANSWER, CHALLENGE, SEALED


def ping_body():
    """A ping of the neighbour that nobody expects an answer to."""
    label, shift = labels.from_neighbour(1)
    return control.request(control.PING, 1, label, bytes(64), shift=shift).encode()


class PathCase(RelayCase):
    def port(self):
        """Another port at loopback."""
        port = UdpPort(("127.0.0.1", 0))
        self.addCleanup(port.close)
        return port


class Challenges(PathCase):
    def test_a_relay_answers_challenges(self):
        """wire.md: W3-21, W3-33, W3-44, W3-45."""
        _, node, link = self.linked()
        for length in (32, 33, 64, 1400):
            before = len(link.responses_received)
            link.send_challenge(link.paths.address, length)
            self.until(lambda: len(link.responses_received) > before, "a response")  # noqa: B023
            self.assertEqual(link.responses_received[-1], (length, link.paths.address))
            self.assertEqual(len(self.sent(node, CHALLENGE)[-1]), length)
        self.assertEqual({len(packet) for packet in self.received(node, ANSWER)}, {32})

    def test_padding_is_ignored(self):
        """wire.md: W3-21, W13-12."""
        _, node, link = self.linked()
        challenge = link.paths.challenge(link.paths.address, node.clock())
        packet = link.current.seal(CHALLENGE, challenge.token + b"padding" * 5)
        node.send(packet, link.paths.address)
        self.until(lambda: link.responses_received, "a response")

    def test_a_response_without_a_challenge_is_ignored(self):
        """wire.md: W3-48."""
        relay, node, link = self.linked()
        handled = relay.discards("handled")
        node.send(link.current.seal(ANSWER, b"anything"), relay.address)
        self.until(lambda: relay.discards("handled") == handled + 1, "it is handled")
        self.ping(link)

    def test_the_rate_of_challenges(self):
        """wire.md: W3-47."""
        relay, node, link = self.linked()
        for _ in range(400):
            node.send(link.current.seal(CHALLENGE, b"token..."), relay.address)
        self.until(lambda: relay.discards("over_budget") > 0, "over_budget")
        self.ping(link)

    def test_the_relay_answers_to_the_source(self):
        """wire.md: W3-45, W3-51, W3-53, W3-54."""
        relay, node, link = self.linked()
        moves = len(relay.events("roamed"))
        other = self.port()
        other.send(link.current.seal(CHALLENGE, b"12345678" + bytes(68)), relay.address)
        got = []

        def two():
            while (received := other.receive()) is not None:
                got.append(received[0])
            return len(got) >= 2

        self.until(two, "a response and a challenge")
        # 100 bytes came from there: a response and a challenge of 32 bytes each go back.
        self.assertEqual(sorted((p[0] >> 4, len(p)) for p in got), [(CHALLENGE, 32), (ANSWER, 32)])
        # The link stays where it is, since nobody answered.
        self.ping(link)
        self.assertEqual(len(relay.events("roamed")), moves)


class Roaming(PathCase):
    def moved(self, node):
        """Gives the node another port, and returns the former one."""
        former, node.port = node.port, UdpPort(("127.0.0.1", 0))
        self.addCleanup(former.close)
        return former

    def test_a_link_follows_a_peer(self):
        """wire.md: W3-23, W3-27, W3-48, W3-53, W3-54."""
        relay, node, link = self.linked()
        self.moved(node)
        address = "{}:{}".format(*node.port.address)

        def has_moved():
            link.request(control.PING, payload=bytes(64))
            return relay.peer("peer")["address"] == address

        self.until(has_moved, "the new address")
        self.ping(link)
        self.assertEqual(len(self.received(node, linkheader.RESPONSE)), 1)  # no new handshake

    def test_no_data_goes_to_an_address_that_is_not_validated(self):
        """wire.md: W3-50, W3-51, W3-52, W3-53, W3-54."""
        relay, node, link = self.linked()
        former = self.moved(node)
        while former.receive() is not None:
            pass
        node.wire.clear()

        def challenged():
            link.request(control.PING, payload=bytes(64))
            while (packet := node.port.receive()) is not None:
                node.wire.append(("in", *packet))  # it is not answered
            return self.received(node, CHALLENGE)

        self.until_true(challenged, "a challenge at the new address")
        self.assertEqual({len(packet) for packet in self.received(node, CHALLENGE)}, {32})
        link.request(control.PING, payload=bytes(64))
        got = []

        def pong():
            while (received := former.receive()) is not None:
                got.append(received[0])
            return any(packet[0] >> 4 == SEALED and len(packet) > 24 for packet in got)

        self.until_true(pong, "the pong at the former address")
        self.assertEqual([p for p in self.received(node, SEALED) if len(p) > 24], [])

    def test_a_keepalive_causes_no_challenge(self):
        """wire.md: W3-51."""
        relay, node, link = self.linked()
        self.until(lambda: node.clock() - link.current.born > 0.5, "half a second")
        handled = relay.discards("handled")
        other = self.port()
        other.send(link.current.seal_data(b""), relay.address)
        self.until(lambda: relay.discards("handled") > handled, "it is handled")
        self.ping(link)  # whatever the relay sends because of the keepalive has left before
        self.assertIsNone(other.receive())

    def test_data_behind_a_keepalive_causes_a_challenge(self):
        """wire.md: W3-51, W3-53."""
        relay, node, link = self.linked()
        self.until(lambda: node.clock() - link.current.born > 1.0, "a second")
        other = self.port()
        other.send(link.current.seal_data(b""), relay.address)  # it allows no challenge
        other.send(link.current.seal_data(ping_body()), relay.address)
        packet, _ = self.until(other.receive, "a challenge")
        self.assertEqual((packet[0] >> 4, len(packet)), (CHALLENGE, 32))

    def test_a_replayed_packet_moves_nothing(self):
        """wire.md: W3-37, W3-53."""
        relay, node, link = self.linked()
        self.ping(link)
        other = self.port()
        other.send(self.sent(node, SEALED)[-1], relay.address)
        self.discarded(relay, "replayed", 1)
        self.ping(link)
        self.assertIsNone(other.receive())

    def test_a_configured_address_that_is_wrong(self):
        """wire.md: W3-23, W3-50, W3-53, W3-57."""
        node, other = self.node(), self.node()
        text = section(other, slot=2).replace(
            other.identity.static_key.hex(), node.identity.static_key.hex()
        )
        relay = self.relay(text)
        link = node.add(key=relay.static_key, address=relay.address)
        self.until_up(relay, link)
        self.assertTrue(link.challenges_received)
        self.ping(link)

    def until_true(self, condition, what):
        """Waits without running the nodes."""
        nodes, self.nodes = self.nodes, []
        try:
            self.until(condition, what)
        finally:
            self.nodes = nodes


class OwnValidation(RelayCase):
    def test_two_python_nodes_where_one_moves(self):
        """wire.md: W3-23, W3-44, W3-48, W3-49, W3-50, W3-51, W3-53, W3-54."""
        one, other = self.node(), self.node()
        here = one.add(key=other.identity.static_key, address=other.port.address)
        there = other.add(key=one.identity.static_key)
        self.until(lambda: here.up and there.up, "a link")
        self.ping(here)
        one.port.close()
        one.port = UdpPort(("127.0.0.1", 0))
        here.request(1, payload=b"x" * 64)
        self.until(lambda: there.paths.address == one.port.address, "the new address")
        self.ping(here)
        self.ping(there)


class PathMtu(RelayCase):
    def test_the_relay_finds_the_longest_packet(self):
        """wire.md: W3-22, W3-58, W3-59, W3-60, W4-62."""
        relay, node, link = self.linked()
        self.until(lambda: relay.peer("peer")["mtu_found"], "the path MTU")
        self.assertEqual(relay.peer("peer")["mtu"], 9216)
        lengths = [length for length, _ in link.challenges_received]
        self.assertIn(9216, lengths)
        self.assertLessEqual(lengths[0], 64)

    def test_the_agreed_mtu_is_the_limit(self):
        """wire.md: W3-60, W4-53, W4-62."""
        relay, _, link = self.linked(link={"hello": self.node().hello.with_(mtu=1300)})
        self.until(lambda: relay.peer("peer")["mtu_found"], "the path MTU")
        self.assertEqual(relay.peer("peer")["mtu"], 1300)
        self.assertEqual(max(length for length, _ in link.challenges_received), 1300)

    def test_the_lengths_of_short_challenges(self):
        """wire.md: W3-52, W3-58."""
        relay, _, link = self.linked()
        self.until(lambda: relay.peer("peer")["mtu_found"], "the path MTU")
        lengths = [length for length, _ in link.challenges_received]
        self.assertLessEqual(lengths[0], 64)
        self.assertLessEqual({length for length in lengths if length <= 64}, {32, 64})
