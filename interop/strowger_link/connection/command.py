"""The commands `connect` and `listen` of `python3 -m strowger_link`."""

import argparse
import time

from ..identity import public_of_peer_id
from ..label import to_text
from .carrier import LinkCarrier
from .endpoint import Endpoint
from .messages import Unsupported

CLOSE_S = 2.0


def add_arguments(parser, *, connect):
    """The arguments of one of the two commands, beside those of the link."""
    parser.add_argument("--name", type=_name, default=b"/echo/1", metavar="/NAME",
                        help="the protocol; the default is /echo/1")  # fmt: skip
    if not connect:
        parser.add_argument("--accept-without-peer-id", action="store_true",
                            help="answer XX that names no PeerId (W6-10)")  # fmt: skip
        return
    parser.add_argument("--peer-id", type=_peer_id, metavar="PEERID", help="whom to reach; XX")
    parser.add_argument("--connection-key", type=_key, metavar="HEX",
                        help="the other end's connection key; IKpsk2")  # fmt: skip
    parser.add_argument("--message", action="append", metavar="TEXT",
                        help="a message to send; the default is `hello`")  # fmt: skip


def _name(text):
    return text.encode("ascii")


def _peer_id(text):
    try:
        return public_of_peer_id(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f'"{text}" is not a PeerId') from error


def _key(text):
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise argparse.ArgumentTypeError(f'"{text}" is not a key: need 64 hex digits')
    return key


def show(identity, output):
    """Prints the connection key of this identity."""
    output(f"connection_key {identity.static_key.hex()}")


class Watch:
    """Prints what has changed at an endpoint."""

    def __init__(self, endpoint, output):
        self.endpoint, self.output = endpoint, output
        self.seen = {}

    def look(self):
        """Prints changes since the last call."""
        for connection in self.endpoint.connections:
            events, handshakes, messages = self.seen.get(connection, (0, 0, 0))
            for event in connection.events[events:]:
                self.output(" ".join(str(one) for one in event))
            if connection.handshakes != handshakes:
                active = connection.paths.active
                where = to_text(active.label, active.bits) if active else "no label"
                self.output(f"keys {connection.handshakes} with {connection.public.hex()} by {where}")
            for name, message in connection.received[messages:]:
                self.output(f"{name.decode()} {message!r}")
            self.seen[connection] = (
                len(connection.events), connection.handshakes, len(connection.received)
            )  # fmt: skip


def listen(link, seed, network, arguments, output):
    """Answers each message of the protocol with the same bytes, until it is interrupted."""
    endpoint = Endpoint(
        LinkCarrier(link), seed, network, serves={arguments.name: 0},
        accept_without_peer_id=arguments.accept_without_peer_id,
    )  # fmt: skip
    endpoint.handlers[arguments.name] = lambda connection, message: connection.send(
        arguments.name, message
    )
    show(endpoint.identity, output)
    watch = Watch(endpoint, output)
    while True:
        endpoint.poll(0.1)
        watch.look()


def connect(link, seed, network, arguments, output):
    """Sends the messages, waits for as many, says goodbye, and returns an exit code."""
    endpoint = Endpoint(LinkCarrier(link), seed, network, serves={})
    show(endpoint.identity, output)
    watch = Watch(endpoint, output)
    end = time.monotonic() + arguments.wait
    while not link.up and time.monotonic() < end:
        endpoint.poll(0.1)
    connection = endpoint.connect(
        arguments.path, key=arguments.connection_key, peer_id=arguments.peer_id,
        within_s=arguments.wait,
    )  # fmt: skip
    messages = [one.encode() for one in arguments.message or ["hello"]]
    end = time.monotonic() + arguments.wait
    try:
        for message in messages:
            connection.send(arguments.name, message)
        while len(connection.received) < len(messages) and time.monotonic() < end:
            endpoint.poll(0.05)
            watch.look()
            if connection.failed_stage or connection.refused:
                break
    except Unsupported:
        pass
    answered = len(connection.received) >= len(messages)
    if not answered:
        discards = " ".join(f"{reason}={count}" for reason, count in endpoint.discards.items() if count)
        output(f"no answer: {connection.failed_stage or 'time'} {discards}")
    connection.close()
    end = time.monotonic() + CLOSE_S
    while endpoint.connections and time.monotonic() < end:
        endpoint.poll(0.05)
        watch.look()
    return 0 if answered else 1
