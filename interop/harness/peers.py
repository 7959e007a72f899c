"""Peers of a relay: nodes of `strowger_link` at loopback addresses."""

import os
import time

from strowger_link.carriage import UdpPort
from strowger_link.identity import Identity
from strowger_link.node import Node

from .relay import DEADLINE_S

ALL_RIGHTS = '["transit", "endpoints", "control"]'


def until(nodes, condition, what):
    """Runs these nodes until `condition` returns something true, and returns that."""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        for node in nodes:
            node.poll(0.005)
        value = condition()
        if value:
            return value
    raise TimeoutError(f"not within {DEADLINE_S:.0f} s: {what}")


def peer_node(network="interop", address="127.0.0.1", identity=None, **fields):
    """A node with a new identity at a free port of this address."""
    identity = identity or Identity.from_seed(os.urandom(32))
    return Node(identity, UdpPort((address, 0)), network.encode(), **fields)


def section(node, name="peer", *, address=True, key=True, peer_id=False, **fields):
    """The `[[peer]]` section of a relay for this node."""
    lines = ["[[peer]]", f'name = "{name}"']
    if key:
        lines.append(f'key = "{node.identity.static_key.hex()}"')
    if peer_id:
        lines.append(f'peer_id = "{node.identity.peer_id}"')
    if address:
        lines.append('address = "{}:{}"'.format(*node.port.address))
    fields = {"rights": ALL_RIGHTS, **fields}
    lines += [f"{field} = {value}" for field, value in fields.items()]
    return "\n".join(lines) + "\n"
