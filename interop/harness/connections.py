"""The base of tests of connections: two endpoints of `strowger_link`, each a peer of one relay."""

import os

from strowger_link.connection.carrier import LinkCarrier
from strowger_link.connection.endpoint import Endpoint

from . import peers
from .case import RelayCase

ECHO, CHAT = b"/echo/1", b"/chat/1"
# Labels from the relay to slots 2 and 3: directors of 4 bits, and to slot 3 of 7 and of 10 bits.
TO_A, TO_B, TO_B_7, TO_B_10 = 0x15, 0x17, 0x8A, 0x408


class ConnectionCase(RelayCase):
    """Starts a relay and endpoints at its slots, and ends them after the test."""

    network = "interop"

    def setUp(self):
        super().setUp()
        self.endpoints = []

    def until(self, condition, what):
        """Runs all endpoints, and the nodes without one, until the condition is true."""
        driven = {getattr(endpoint.carrier, "node", None) for endpoint in self.endpoints}
        others = [node for node in self.nodes if node not in driven]
        return peers.until([*self.endpoints, *others], condition, what)

    def carriers(self, count=2, sections=""):
        """A relay, and links to it from so many nodes, which have the slots from 2 on."""
        nodes = [self.node() for _ in range(count)]
        names = [f"node{number}" for number in range(count)]
        relay = self.relay(
            *(
                peers.section(node, name, address=False, slot=slot)
                for slot, (node, name) in enumerate(zip(nodes, names, strict=True), 2)
            ),
            sections,
        )
        links = [node.add(key=relay.static_key, address=relay.address) for node in nodes]
        for name, link in zip(names, links, strict=True):
            self.until_up(relay, link, name)
        return relay, [LinkCarrier(link) for link in links]

    def endpoint(self, carrier, seed=None, **fields):
        """An endpoint over this carrier, with a new identity."""
        fields = {"serves": {ECHO: 0}, **fields}
        endpoint = Endpoint(carrier, seed or os.urandom(32), self.network.encode(), **fields)
        self.endpoints = [one for one in self.endpoints if one.carrier is not carrier]
        self.endpoints.append(endpoint)
        return endpoint

    def two(self, a=None, b=None):
        """Two endpoints; the second answers each message to `/echo/1` with the same bytes."""
        _, (one, other) = self.carriers()
        a, b = self.endpoint(one, **(a or {})), self.endpoint(other, **(b or {}))
        b.handlers[ECHO] = lambda connection, message: connection.send(ECHO, message)
        return a, b

    def connected(self, a, b, **fields):
        """A connection from one to the other by PeerId, with its tables settled: both ends."""
        fields = fields or {"peer_id": b.identity.public}
        ours = a.connect(TO_B, **fields)
        self.until(lambda: b.connections and ours.current, "keys")
        theirs = b.connections[0]

        def settled():
            return (
                ours.connected()
                and theirs.connected()
                and not ours.own.unsettled()
                and not theirs.own.unsettled()
            )

        self.until(settled, "both tables are acknowledged")
        return ours, theirs

    def echo(self, connection, message=b"hello", name=ECHO):
        """Sends a message and waits for its echo."""
        before = len(connection.received)
        connection.send(name, message)
        self.until(lambda: len(connection.received) > before, f"the echo of {message!r}")
        self.assertEqual(connection.received[-1], (name, message))

    def discarded_here(self, endpoint, reason, count=1):
        """Waits until the endpoint has discarded so many packets for this reason."""
        self.until(lambda: endpoint.discards[reason] >= count, f"{count} times {reason}")
        self.assertEqual(endpoint.discards[reason], count, reason)

    @staticmethod
    def kinds(endpoint, way, kind):
        """The connection packets of this kind that the endpoint has sent or received."""
        return [one for one in endpoint.carrier.log if one[0] == way and one[2][0] >> 4 == kind]
