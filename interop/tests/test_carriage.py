"""How a relay carries packets over UDP: addresses, families, and the outer IP header."""

import socket

from harness import skipped
from harness.case import RelayCase
from harness.namespace import allowed, within_namespace
from harness.peers import section
from harness.relay import free_port
from strowger_link import control
from strowger_link import label as labels
from strowger_link.carriage import UdpPort
from strowger_link.linkheader import RESPONSE, SEALED

# Fields of the IPv4 header.
_DONT_FRAGMENT = 0x4000


def listener(name, address, port):
    """The section of one more UDP listener."""
    host = f"[{address}]" if ":" in address else address
    return f'[[udp]]\nname = "{name}"\naddress = "{host}:{port}"\n'


class Udp(RelayCase):
    def test_ipv6(self):
        """wire.md: W8-9."""
        node = self.node()
        node.port.close()
        node.port = UdpPort(("::1", 0), socket.AF_INET6)
        port = free_port("::1")
        peer = section(node, address=False, slot=2, listener='"six"')
        relay = self.relay(listener("six", "::1", port), peer)
        link = node.add(key=relay.static_key, address=("::1", port, 0, 0))
        self.until_up(relay, link)
        self.ping(link)

    def test_the_source_of_answers(self):
        """wire.md: W8-6, W8-7."""
        node = self.node()
        port = free_port()
        peer = section(node, address=False, slot=2, listener='"any"')
        relay = self.relay(listener("any", "0.0.0.0", port), peer)
        # An address of the loopback network that is neither the first nor the route's choice.
        address = ("127.0.0.77", port)
        link = node.add(key=relay.static_key, address=address)
        self.until_up(relay, link)
        self.ping(link)
        sources = {source for way, _, source in node.wire if way == "in"}
        self.assertEqual(sources, {address})

    def test_one_datagram_carries_one_packet(self):
        """wire.md: W8-3, W8-4."""
        relay, node, link = self.linked()
        body = control.request(control.PING, 1, labels.from_neighbour(1)[0], bytes(64)).encode()
        two = link.current.seal_data(body) + link.current.seal_data(body)
        node.send(two, relay.address)
        self.discarded(relay, "bad_seal", 1)
        self.ping(link)

    def test_the_outer_header(self):
        """wire.md: W8-10, W8-11."""
        if not allowed():
            skipped.skip(self, "no right to make a network namespace")

        def alone():  # no other traffic, which would fill the capture
            try:
                self.check_the_outer_header()
            finally:
                self.doCleanups()

        within_namespace(alone)

    def check_the_outer_header(self):
        """Reads the IPv4 headers of a relay from a packet socket."""
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.addCleanup(capture.close)
        capture.bind(("lo", 0x0800))
        capture.setblocking(False)
        relay, node, link = self.linked()
        # The ecn and the class of the switch header are not copied.
        self.ping(link, ecn=3, class_=0xB8)
        link.send_challenge(link.paths.address)
        self.until(lambda: link.responses_received, "a response")
        kinds = set()
        while True:
            try:
                packet = capture.recv(65536)
            except BlockingIOError:
                break
            header_bytes = 4 * (packet[0] & 15)
            if packet[9] != socket.IPPROTO_UDP:
                continue
            if int.from_bytes(packet[header_bytes : header_bytes + 2], "big") != relay.port:
                continue
            kinds.add(packet[header_bytes + 8] >> 4)
            self.assertEqual(packet[1], 0)  # DSCP and ECN
            self.assertEqual(int.from_bytes(packet[6:8], "big"), _DONT_FRAGMENT)
        self.assertLessEqual({RESPONSE, SEALED}, kinds)
