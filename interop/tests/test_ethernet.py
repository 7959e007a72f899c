"""Links over Ethernet and beacons, each test in a network namespace with a veth pair."""

import functools
import os
import struct
import unittest

from harness import skipped
from harness.namespace import allowed, mac_of, veth_pair, within_namespace
from harness.peers import ALL_RIGHTS, until
from harness.relay import Relay
from strowger_link import beacon, control, linkheader
from strowger_link.carriage import EthernetPort, Frame
from strowger_link.identity import Identity
from strowger_link.linkheader import BEACON, INITIATION, LinkHeader
from strowger_link.node import Node

NETWORK = b"interop"
NEAR, FAR = "near0", "far0"  # the interface of the relay and that of the node

_stations = []  # those of the process of one test


def in_namespace(test):
    """Runs a test in a namespace with a veth pair, or skips it without the right."""

    @functools.wraps(test)
    def wrapper(self):
        if not allowed():
            skipped.skip(self, "no right to make a network namespace")

        def run():
            veth_pair(NEAR, FAR)
            try:
                test(self)
            finally:
                for node in _stations:
                    node.close()

        within_namespace(run)

    return wrapper


def lan(**fields):
    """The section of the relay's interface."""
    fields = {"backend": '"af_packet"', **fields}
    lines = ["[[ethernet]]", 'name = "lan"', f'interface = "{NEAR}"']
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in fields.items())]) + "\n"


def peer(identity, *, key=True, address=None, **fields):
    """The section of a peer behind that interface."""
    lines = ["[[peer]]", 'name = "peer"', 'listener = "lan"', f"rights = {ALL_RIGHTS}"]
    lines.append(f'key = "{identity.static_key.hex()}"' if key else f'peer_id = "{identity.peer_id}"')
    if address is not None:
        lines.append(f'address = "{address.hex(":")}"')
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in fields.items())]) + "\n"


def station(identity=None, *, vlan=None, beacons=True, **fields):
    """A node at the far interface."""
    port = EthernetPort(FAR, mac_of(FAR), vlan=vlan, beacons=beacons)
    node = Node(identity or Identity.from_seed(os.urandom(32)), port, NETWORK, **fields)
    _stations.append(node)
    return node


def received(node, kind):
    return [p for way, p, _ in node.wire if way == "in" and p and p[0] >> 4 == kind]


def ping(node, link, payload=b"ethernet" * 8):
    identifier = link.request(control.PING, payload=payload)
    _, message = until(node, lambda: link.reply_of(identifier), "a pong")
    assert message.payload == payload


class Links(unittest.TestCase):
    @in_namespace
    def test_a_link_and_pings(self):
        """wire.md: W8-14, W8-15, W8-16, W8-18, W8-19, W8-20."""
        node = station()
        with Relay(lan() + peer(node.identity, slot=2)) as relay:
            link = node.add(key=relay.static_key, address=mac_of(NEAR))
            until(node, lambda: link.up and link.current.confirmed, "a link")
            for size in (0, 1, 20, 1000):
                ping(node, link, bytes(size))
            # A keepalive has 24 bytes; any padding up to 60 is ignored.
            keepalive = link.current.seal_data(b"")
            frame = Frame(mac_of(NEAR), node.port.own, keepalive).encode()
            handled = relay.discards("handled")
            node.port.send_frame(frame[:40] + b"\xff" * 20)
            until(node, lambda: relay.discards("handled") > handled, "it is handled")
            self.assertEqual(relay.discards("bad_seal"), 0)

    @in_namespace
    def test_the_relay_begins(self):
        """wire.md: W8-14, W8-21, W4-109."""
        node = station()
        with Relay(lan() + peer(node.identity, address=node.port.own)) as relay:
            link = node.add(key=relay.static_key)
            until(node, lambda: link.up and link.current.confirmed, "a link")
            self.assertEqual(link.paths.address, mac_of(NEAR))
            ping(node, link)

    @in_namespace
    def test_frames_that_are_refused(self):
        """wire.md: W8-17, W8-18, W8-19, W8-21, W10-11, W10-12."""
        node = station()
        own, near = node.port.own, mac_of(NEAR)
        with Relay(lan() + peer(node.identity, slot=2)) as relay:
            link = node.add(key=relay.static_key, address=near)
            until(node, lambda: link.up and link.current.confirmed, "a link")
            keepalive = link.current.seal_data(b"")
            good = Frame(near, own, keepalive).encode()
            seen = relay.discards("handled")
            longer = good[:14] + struct.pack(">H", 47) + good[16:]
            node.port.send_frame(longer)
            until(node, lambda: relay.discards("malformed") == 1, "malformed")
            for source in (bytes(6), b"\x03" + own[1:], near):
                before = relay.discards("unknown_sender")
                node.port.send_frame(Frame(near, source, keepalive).encode())
                until(node, lambda: relay.discards("unknown_sender") > before, "refused")  # noqa: B023
            beacon_packet = beacon.encode(node.identity, NETWORK)
            ignored = [
                Frame(b"\x02" * 6, own, keepalive).encode(),  # to another station
                Frame(b"\xff" * 6, own, keepalive).encode(),  # to all
                Frame(beacon.GROUP, own, keepalive).encode(),  # to the group
                Frame(beacon.GROUP, own, beacon_packet).encode(),  # the port has no beacons
                good[:12] + b"\x88\xb6" + good[14:],  # another protocol
            ]
            for frame in ignored:
                node.port.send_frame(frame)
            node.port.send_frame(Frame(near, own, beacon_packet).encode())
            until(node, lambda: relay.discards("bad_link_kind") == 1, "the beacon is refused")
            self.assertEqual(relay.discards("handled"), seen)
            node.port.send_frame(good)  # none of them has used up its counter
            until(node, lambda: relay.discards("handled") == seen + 1, "it is handled")

    @in_namespace
    def test_a_vlan(self):
        """wire.md: W8-23, W8-18."""
        node = station(vlan=7)
        own, near = node.port.own, mac_of(NEAR)
        with Relay(lan(vlan=7) + peer(node.identity, slot=2)) as relay:
            link = node.add(key=relay.static_key, address=near)
            until(node, lambda: link.up and link.current.confirmed, "a link")
            ping(node, link)
            keepalive = link.current.seal_data(b"")
            seen = relay.discards("handled")
            node.port.send_frame(Frame(near, own, keepalive).encode())
            node.port.send_frame(Frame(near, own, keepalive, vlan=8).encode())
            ping(node, link)
            self.assertEqual(relay.discards("replayed"), 0)
            self.assertEqual(relay.discards("handled"), seen + 1)  # the ping
            # Priority and drop eligibility are ignored.
            node.port.send_frame(Frame(near, own, keepalive, vlan=0xF007).encode())
            until(node, lambda: relay.discards("handled") == seen + 2, "it is handled")

    @in_namespace
    def test_a_port_without_vlan(self):
        """wire.md: W8-24."""
        node = station()
        own, near = node.port.own, mac_of(NEAR)
        with Relay(lan() + peer(node.identity, slot=2)) as relay:
            link = node.add(key=relay.static_key, address=near)
            until(node, lambda: link.up and link.current.confirmed, "a link")
            keepalive = link.current.seal_data(b"")
            node.port.send_frame(Frame(near, own, keepalive, vlan=7).encode())
            ping(node, link)
            seen = relay.discards("handled")
            node.port.send_frame(Frame(near, own, keepalive).encode())
            until(node, lambda: relay.discards("handled") == seen + 1, "it is the first copy")


class Beacons(unittest.TestCase):
    @in_namespace
    def test_the_relay_sends_beacons(self):
        """wire.md: W10-1, W10-2, W10-3, W10-4, W10-6, W10-7, W10-8, W8-20."""
        node = station()
        with Relay(lan(beacon="true", beacon_s=1) + peer(node.identity)) as relay:
            until(node, lambda: len(node.beacons) >= 2, "two beacons")
            packets = received(node, BEACON)
            self.assertEqual(len(packets[0]), 896)
            self.assertEqual(packets[0][8:12], b"\x01\0\0\0")
            self.assertEqual(packets[0][140:880], bytes(740))
            self.assertEqual(packets[0], packets[1])  # it is the same in all beacons
            read, source = node.beacons[0]
            self.assertEqual((read.static_key, source), (relay.static_key, mac_of(NEAR)))
            with self.assertRaisesRegex(Exception, "bad_seal"):
                beacon.decode(packets[0], b"another")

    @in_namespace
    def test_a_beacon_of_a_peer(self):
        """wire.md: W10-5, W10-20, W10-26, W10-28, W4-27."""
        node = station()
        with Relay(lan(beacon="true", beacon_s=3600) + peer(node.identity)) as relay:
            link = node.add(key=relay.static_key)
            self.assertEqual(received(node, INITIATION), [])
            node.send_beacon()
            until(node, lambda: link.up and link.current.confirmed, "a link")
            self.assertEqual(received(node, INITIATION)[0][0], 0x10)
            ping(node, link)
            # The link is up and its address is known: further beacons cause nothing.
            before = len(received(node, INITIATION))
            handled = relay.discards("handled")
            node.send_beacon()
            until(node, lambda: relay.discards("handled") > handled, "it is handled")
            ping(node, link)
            self.assertEqual(len(received(node, INITIATION)), before)

    @in_namespace
    def test_a_beacon_of_an_unknown_node(self):
        """wire.md: W10-5, W10-20, W10-29."""
        node = station(accept_unknown=True)
        unknown = f"[unknown_peers]\nallow = true\nrights = {ALL_RIGHTS}\n"
        with Relay(unknown + lan(beacon="true", beacon_s=3600)) as relay:
            node.send_beacon()
            until(node, lambda: node.links and node.links[0].up, "a link")
            self.assertEqual(received(node, INITIATION)[0][0], 0x11)
            self.assertEqual(node.links[0].key, relay.static_key)
            ping(node, node.links[0])

    @in_namespace
    def test_a_beacon_of_a_peer_of_which_only_the_identity_is_known(self):
        """wire.md: W10-25, W10-29."""
        node = station(accept_unknown=True)
        with Relay(lan(beacon="true", beacon_s=3600) + peer(node.identity, key=False)) as relay:
            node.send_beacon()
            until(node, lambda: node.links and node.links[0].up, "a link")
            until(node, lambda: relay.peer("peer")["up"], "it is up there")

    @in_namespace
    def test_our_node_follows_a_beacon(self):
        """wire.md: W10-3, W4-9, W10-13."""
        node = station()
        with Relay(lan(beacon="true", beacon_s=1) + peer(node.identity)) as relay:
            until(node, lambda: node.beacons, "a beacon")
            read, source = node.beacons[0]
            link = node.add(key=read.static_key, address=source)
            until(node, lambda: link.up and link.current.confirmed, "a link")
            self.assertEqual(link.public, read.ed25519)
            self.assertTrue(relay.peer("peer")["up"])

    @in_namespace
    def test_beacons_that_are_refused(self):
        """wire.md: W10-1, W10-2, W10-7, W10-8, W10-16, W10-17, W10-18, W10-20, W10-24, W10-11."""
        node, stranger = station(), Identity.from_seed(os.urandom(32))
        with Relay(lan(beacon="true", beacon_s=3600) + peer(node.identity)) as relay:
            node.wire.clear()
            good = beacon.encode(node.identity, NETWORK)

            def with_mac(packet, network=NETWORK):
                return packet[:-16] + beacon.mac_over(network, packet[:-16])

            seed = bytes.fromhex((relay.folder / "key").read_text().split()[-2])
            small = good[:44] + b"\x01" + bytes(31) + good[76:]  # a key of small order
            cases = [
                ("malformed", good[:-1]),
                ("malformed", good + b"\0"),
                ("unknown_sender", b"\x71" + good[1:]),
                ("malformed", good[:7] + b"\x01" + good[8:]),
                ("malformed", with_mac(good[:8] + b"\x02" + good[9:])),
                ("bad_seal", good[:-1] + bytes([good[-1] ^ 1])),
                ("bad_seal", beacon.encode(node.identity, b"another")),
                ("bad_seal", with_mac(good[:76] + bytes([good[76] ^ 1]) + good[77:])),
                ("bad_seal", with_mac(small)),
                ("not_allowed", beacon.encode(stranger, NETWORK)),
                ("handled", beacon.encode(Identity.from_seed(seed), NETWORK)),
                ("unknown_sender", LinkHeader(linkheader.SEALED, 0, 1, 0).encode() + bytes(40)),
            ]
            for reason, packet in cases:
                before = relay.discards(reason)
                node.send(packet, beacon.GROUP)
                until(node, lambda: relay.discards(reason) > before, reason)  # noqa: B023
            self.assertEqual(received(node, INITIATION), [])
            # What a later version may use is ignored.
            odd = good[:9] + b"\1\2\3" + good[12:140] + os.urandom(740) + good[880:]
            node.send(with_mac(odd), beacon.GROUP)
            until(node, lambda: received(node, INITIATION), "an initiation")

    @in_namespace
    def test_another_identity_than_the_configured_one(self):
        """wire.md: W10-25, W10-13."""
        node = station()
        other = Identity.from_seed(os.urandom(32))
        text = peer(node.identity).replace("[[peer]]", f'[[peer]]\npeer_id = "{other.peer_id}"')
        with Relay(lan(beacon="true", beacon_s=3600) + text) as relay:
            node.send_beacon()
            until(node, lambda: relay.discards("not_allowed") == 1, "not_allowed")
            self.assertEqual(received(node, INITIATION), [])
