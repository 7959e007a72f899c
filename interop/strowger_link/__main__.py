"""The command `python3 -m strowger_link`: keys, a peer of a relay, and ends of connections."""

import argparse
import os
import socket
import sys
import time
from pathlib import Path

from . import control
from . import label as labels
from .carriage import UdpPort
from .connection import command as connections
from .hello import Hello
from .identity import Identity
from .node import Node


LINK_WAIT_S = 15.0


class Failed(Exception):
    """A reason to end with code 1, in one line."""


class _Parser(argparse.ArgumentParser):
    """Prints a usage error in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def main():
    """Reads the arguments and returns an exit code."""
    parser = _Parser(prog="strowger_link", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    key = commands.add_parser("key", help="make a key file if there is none, and print its keys")
    key.add_argument("file", type=Path, help="64 hex digits: an Ed25519 seed")

    peer = commands.add_parser("peer", help="be a peer of a relay over UDP until interrupted")
    listen = commands.add_parser("listen", help="accept connections, and answer each message with "
                                 "the same bytes, as a peer of a relay")  # fmt: skip
    connect = commands.add_parser("connect", help="make a connection to another endpoint, as a peer "
                                  "of a relay, send messages and wait for as many")  # fmt: skip
    for command in (peer, listen, connect):
        _add_link_arguments(command)
    connections.add_arguments(listen, connect=False)
    connections.add_arguments(connect, connect=True)
    peer.add_argument("--accept-unknown", action="store_true", help="answer XX of any node")
    peer.add_argument("--ping", type=_count, nargs="?", const=4, default=0, metavar="COUNT",
                      help="send so many pings, one a second, and end")  # fmt: skip
    peer.add_argument("--identify", action="store_true", help="ask the relay for its keys, and end")
    peer.add_argument("--path", type=_label, default="1", metavar="LABEL",
                      help="the label of the requests; 1 is the neighbour")  # fmt: skip
    connect.add_argument("--path", type=_label, required=True, metavar="LABEL",
                         help="the label from the relay to the other endpoint")  # fmt: skip
    connect.add_argument("--wait", type=float, default=LINK_WAIT_S, metavar="SECONDS",
                         help="how long to wait for the answers; the default is 15")  # fmt: skip
    peer.add_argument("--wait", type=float, default=LINK_WAIT_S, metavar="SECONDS",
                      help="with --ping or --identify: end with code 1 after so many seconds "
                           "without a link or without a reply; the default is 15")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.command == "peer" and not (arguments.peer or arguments.accept_unknown):
        peer.error("need --peer, --accept-unknown or both")
    if arguments.command in ("listen", "connect") and not arguments.peer:
        commands.choices[arguments.command].error("need --peer")
    try:
        return _key(arguments) if arguments.command == "key" else _peer(arguments)
    except Failed as failed:
        print(f"strowger_link {arguments.command}: {failed}", file=sys.stderr)
        return 1


def _add_link_arguments(parser):
    """What says how the link to the relay is made."""
    parser.add_argument("--key-file", type=Path, help="see `key`; without it, a new identity")
    parser.add_argument("--network", default="", help="the name of the network")
    parser.add_argument("--listen", type=_address, default="0.0.0.0:0", metavar="ADDRESS:PORT",
                      help="where to receive; port 0 is any free port")  # fmt: skip
    parser.add_argument(
        "--peer",
        type=_other_end,
        metavar="[KEY][@ADDRESS:PORT]",
        help="64 hex digits for IKpsk2, nothing for XX; without an address the other node begins",
    )
    parser.add_argument("--psk", type=_key_bytes, default=bytes(32), metavar="HEX",
                      help="the pre-shared key of the link, 64 hex digits, the same at both ends; "
                           "only with a KEY")  # fmt: skip
    parser.add_argument("--seal-wish", type=int, choices=(0, 1, 2), default=0,
                      help="how packets are sealed (W4-49): 0, full; 1, header-only if both ends "
                           "wish it; 2, header-only or no link; the default is 0")  # fmt: skip


def _bytes_32(text):
    """32 bytes from 64 hex digits; None if the text is something else."""
    if len(text) != 64 or not set(text) <= set("0123456789abcdefABCDEF"):
        return None
    return bytes.fromhex(text)


def _key_bytes(text):
    key = _bytes_32(text)
    if key is None:
        raise argparse.ArgumentTypeError(f'"{text}" is not a key: need 64 hex digits')
    return key


def _address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f'"{text}" is not an address: need ADDRESS:PORT')
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise argparse.ArgumentTypeError(f'"{text}": {error.strerror}') from None
    family, _, _, _, address = found[0]
    return family, address


def _other_end(text):
    key, _, address = text.partition("@")
    if not key and not address:
        raise argparse.ArgumentTypeError("need KEY, @ADDRESS:PORT or both")
    return _key_bytes(key) if key else None, _address(address)[1] if address else None


def _count(text):
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of pings')
    return int(text)


def _label(text):
    try:
        return labels.from_text(text)
    except labels.LabelError as error:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a label of 64 bits: {error.name} at byte {error.position}'
        ) from None


def _identity(path):
    if path is None:
        return Identity.from_seed(os.urandom(32))
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(os.urandom(32).hex() + "\n")
        seed = _bytes_32(path.read_bytes().decode("latin-1").strip())
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None
    if seed is None:
        raise Failed(
            f"{path} is not a key file of strowger_link: need 64 hex digits; "
            "the key files of `strowger` have another format"
        )
    return Identity.from_seed(seed)


def _key(arguments):
    identity = _identity(arguments.file)
    _show(identity)
    print(f"connection_key {Identity.for_connections(identity.seed).static_key.hex()}", flush=True)
    return 0


def _show(identity):
    print(f"peer_id {identity.peer_id}")
    print(f"key {identity.static_key.hex()}", flush=True)


def _peer(arguments):
    identity = _identity(arguments.key_file)
    family, listen = arguments.listen
    try:
        port = UdpPort(listen, family)
    except OSError as error:
        raise Failed("cannot listen at {}:{}: {}".format(*listen[:2], error.strerror)) from None
    network = arguments.network.encode()
    accept_unknown = arguments.command == "peer" and arguments.accept_unknown
    hello = Hello(seal_wish=arguments.seal_wish)
    node = Node(identity, port, network, hello=hello, accept_unknown=accept_unknown)
    _show(identity)
    print("listens at {}:{}".format(*node.port.address[:2]), flush=True)
    if arguments.peer is not None:
        key, address = arguments.peer
        always = arguments.command == "listen"
        link = node.add(key=key, address=address, psk=arguments.psk, always=always)
    try:
        if arguments.command == "peer":
            return _run(node, arguments)
        run = connections.listen if arguments.command == "listen" else connections.connect
        return run(link, identity.seed, network, arguments, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        return 0
    finally:
        for link in node.links:
            if link.up:
                link.goodbye(text="the peer stops")
        node.close()


def _run(node, arguments):
    path, wanted = arguments.path, arguments.ping or arguments.identify
    shown, pings, identity, next_ping = {}, {}, None, 0.0
    answered, last_up, asked = 0, time.monotonic(), 0.0
    while True:
        node.poll(0.1)
        if wanted and time.monotonic() > last_up + arguments.wait:
            raise Failed(
                f"no link after {arguments.wait:g} s: see `strowger show events` at the relay"
            )
        for link in node.links:
            _report(link, node, shown)
            if not link.up or (link.current.initiator and not link.current.confirmed):
                continue
            last_up = time.monotonic()
            if len(pings) < arguments.ping and time.monotonic() >= next_ping:
                next_ping = time.monotonic() + 1.0
                payload = os.urandom(56)
                pings[link.request(control.PING, path, payload)] = (time.monotonic(), payload)
            if arguments.identify and identity is None:
                identity, asked = link.request(control.IDENTIFY, path), time.monotonic()
            for packet, message in link.replies:
                del packet
                if message.kind == control.PONG and message.id in pings:
                    sent, payload = pings[message.id]
                    same = "" if message.payload == payload else ", another payload"
                    print(f"pong after {1000 * (time.monotonic() - sent):.1f} ms{same}", flush=True)
                    answered += 1
                elif message.kind == control.IDENTITY:
                    print(f"identity {message.ed25519.hex()} {message.x25519.hex()}", flush=True)
                    identity = -1
            link.replies.clear()
            for _, message in link.errors:
                reason = control.REASONS.get(message.code, message.code)
                print(f"error of kind {message.kind}: {reason}", flush=True)
            link.errors.clear()
        if identity not in (None, -1) and time.monotonic() > asked + arguments.wait:
            raise Failed(f"no reply to the identity request after {arguments.wait:g} s")
        pings_done = len(pings) >= arguments.ping and (
            answered >= len(pings) or time.monotonic() > next_ping + 2
        )
        if wanted and pings_done and (not arguments.identify or identity == -1):
            return 0 if answered == len(pings) else 1


def _report(link, node, shown):
    """Prints what has changed."""
    state = (link.up, link.handshakes, tuple(sorted(node.discards.items())))
    if shown.get(link) == state:
        return
    shown[link] = state
    word = "up" if link.up else "down"
    address = "{}:{}".format(*link.paths.address[:2]) if link.paths.address else "no address"
    mode = ""
    if link.agreement is not None:
        mode = ", header-only" if link.agreement.header_only else ", full"
        mode += f", MTU {link.agreement.mtu}"
    discards = " ".join(f"{reason}={count}" for reason, count in sorted(node.discards.items()))
    print(f"link {word}: {address}, handshakes {link.handshakes}{mode} {discards}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
