"""The base of tests that run nodes of `strowger_link` against relays."""

import unittest

from strowger_link import control

from . import peers
from .relay import Relay

PAYLOAD = b"interoperability" * 4


class RelayCase(unittest.TestCase):
    """Starts relays and nodes, and ends them after the test."""

    def setUp(self):
        self.nodes = []

    def node(self, **fields):
        """A node with a port of its own. The arguments are those of `peer_node`."""
        node = peers.peer_node(**fields)
        self.nodes.append(node)
        self.addCleanup(node.close)
        return node

    def relay(self, *sections, **fields):
        """A relay with these sections."""
        return self.enterContext(Relay("\n".join(sections), **fields))

    def until(self, condition, what):
        """Runs all nodes until the condition is true."""
        return peers.until(self.nodes, condition, what)

    def until_up(self, relay, link, name="peer"):
        """Runs all nodes until both ends consider the link up."""
        self.until(lambda: link.up and link.current.confirmed, "the link is up here")
        return self.until(lambda: relay.peer(name)["up"] and relay.peer(name), "it is up there")

    def linked(self, *more, slot=2, node=None, link=None, **fields):
        """A relay, a node and the link between them, begun by the node."""
        node = node or self.node()
        fields = {"slot": slot, **fields}
        relay = self.relay(peers.section(node, address=False, **fields), *more)
        link = node.add(key=relay.static_key, address=relay.address, **(link or {}))
        self.until_up(relay, link)
        return relay, node, link

    def ping(self, link, path=1, payload=PAYLOAD, **fields):
        """Sends a ping and returns the reply's packet and message."""
        identifier = link.request(control.PING, path, payload, **fields)
        return self.until(lambda: link.reply_of(identifier), "a pong")

    def ask_and_run(self, relay, request):
        """Lets a relay send a request, runs the nodes, and returns all replies."""
        number = relay.ask(request)["request"]
        replies = []

        def done():
            reply = relay.ask({"replies": number})
            replies.extend(reply["replies"])
            return reply["done"]

        self.until(done, f"replies to {request}")
        return replies

    def sent(self, node, kind):
        """The packets of this kind that the node has sent."""
        return [p for way, p, _ in node.wire if way == "out" and p and p[0] >> 4 == kind]

    def received(self, node, kind):
        """The packets of this kind that the node has received."""
        return [p for way, p, _ in node.wire if way == "in" and p and p[0] >> 4 == kind]

    def discarded(self, relay, reason, count=1):
        """Runs the nodes until the relay has discarded this many packets for this reason."""
        self.until(lambda: relay.discards(reason) >= count, f"{count} times {reason}")
        self.assertEqual(relay.discards(reason), count, reason)
