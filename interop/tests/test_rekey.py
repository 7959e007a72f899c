"""What takes minutes: new keys, idle links, silent peers, and the search for the path MTU."""

import threading
import time
import unittest

from harness.peers import peer_node, section
from harness.relay import DEADLINE_S, Relay
from strowger_link import control
from strowger_link import label as labels
from strowger_link.label import SCHEMES
from strowger_link.linkheader import CHALLENGE, INITIATION

PING_EVERY_S = 5.0
_DEADLINE_S = 240.0
NARROW_BYTES = 1300


class Background:
    """A relay with six peers. A thread runs the peers and pings until `stop`."""

    started = None

    def __init__(self):
        self.nodes = [peer_node() for _ in range(6)]
        ours, theirs, patient, quiet, silent, narrow = self.nodes
        self.relay = Relay(
            section(ours, "ours", address=False)
            + section(theirs, "theirs")
            + section(patient, "patient", address=False)
            + section(quiet, "quiet", address=False)
            + section(silent, "silent", address=False)
            + section(narrow, "narrow", address=False)
        )
        address = self.relay.address
        key = self.relay.static_key
        self.ours = ours.add(key=key, address=address)
        self.theirs = theirs.add(key=key)
        self.patient = patient.add(key=key, address=address)
        self.quiet = quiet.add(key=key, address=address)
        self.silent = silent.add(key=key, address=address)
        self.narrow = narrow.add(key=key, address=address)
        _make_narrow(narrow.port)
        self.links = [
            self.ours, self.theirs, self.patient, self.quiet, self.silent, self.narrow
        ]  # fmt: skip
        self.pings = {link: [] for link in self.links[:3]}
        self.born = {}
        self.quiet_at_145 = None  # what was seen of the quiet link when its keys were that old
        self.failure = None
        self._end, self.silence = threading.Event(), threading.Event()
        self.began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        next_ping = next_request = 0.0
        try:
            while not self._end.is_set():
                for node in self.nodes:
                    if node is not self.silent.node or not self.silence.is_set():
                        node.poll(0.02)
                for link in self.links:
                    if link.current is not None and link.current.confirmed:
                        self.born.setdefault(link, link.current.born)
                if self.silence.is_set() and time.monotonic() >= next_request:
                    next_request = time.monotonic() + 1.0
                    if self.relay.peer("silent")["up"]:
                        self.ping_from_the_relay("silent")
                if self.quiet_at_145 is None and self._age(self.quiet) > 145:
                    begun = [p for to, p, _ in self.quiet.node.wire if to == "in" and p[0] >> 4 == 1]
                    up = self.relay.peer("quiet")["up"]
                    self.quiet_at_145 = (self.quiet.rekeys, begun, up)
                if self.patient.current is not None:
                    self.patient.not_before = float("inf")  # this end begins no handshake
                if len(self.born) == 6 and time.monotonic() >= next_ping:
                    next_ping = time.monotonic() + PING_EVERY_S
                    for link, sent in self.pings.items():
                        sent.append(link.request(control.PING, payload=bytes(64)))
        except BaseException as error:
            self.failure = error
            raise

    def _age(self, link):
        """Seconds since the first keys of this link."""
        return time.monotonic() - self.born.get(link, float("inf"))

    def ping_from_the_relay(self, name):
        """Lets the relay send a ping to this peer. Returns the number of the request."""
        slot = self.relay.peer(name)["slot"]
        director, width = SCHEMES["v3x5x8"].encode_narrowest(slot)
        label = labels.to_text(1 << width | director)
        return self.relay.ask({"ping": {"label": label}})["request"]

    def wait(self, condition, what):
        """Waits for the thread until the condition is true."""
        # The tests in between may take longer than the deadline.
        end = max(self.began + _DEADLINE_S, time.monotonic() + DEADLINE_S)
        while not condition():
            if self.failure is not None:
                raise AssertionError("the thread has failed") from self.failure
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.05)

    def stop(self):
        """Ends the thread, the nodes and the relay."""
        self._end.set()
        self._thread.join()
        for node in self.nodes:
            node.close()
        self.relay.__exit__()


def _make_narrow(port):
    """Loses the packets to this port that are longer than a path of `NARROW_BYTES` takes."""
    receive = port.receive

    def only_short():
        received = receive()
        if received is not None and len(received[0]) > NARROW_BYTES:
            return b"", None
        return received

    port.receive = only_short


def setUpModule():
    """Starts the relay, unless a test has."""
    if Background.started is None:
        Background.started = Background()


def tearDownModule():
    """The suite calls this when it leaves the module; only the last class ends the relay."""


class Begin(unittest.TestCase):
    def test_the_links_come_up(self):
        """wire.md: W4-107."""
        background = Background.started
        background.wait(lambda: len(background.born) == 6, "six links")
        for name in ("ours", "theirs", "patient", "quiet", "silent", "narrow"):
            background.wait(lambda: background.relay.peer(name)["up"], name)  # noqa: B023
        background.silence.set()  # from now on one node says nothing, and the relay pings it


class Check(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        Background.started.stop()
        Background.started = None

    def initiations(self, link, way):
        return [p for to, p, _ in link.node.wire if to == way and p and p[0] >> 4 == INITIATION]

    def test_0_a_silent_peer(self):
        """wire.md: W3-52, W4-108, W4-109."""
        background = Background.started
        background.wait(lambda: not background.relay.peer("silent")["up"], "the link is down")
        port, kinds = background.silent.node.port, []

        def initiation():
            while (received := port.receive()) is not None:
                kinds.append((received[0][0] >> 4, len(received[0])))
            return any(kind == INITIATION for kind, _ in kinds)

        background.wait(initiation, "an initiation to the peer that seems gone")
        self.assertGreaterEqual(kinds.count((CHALLENGE, 64)), 3)

    def test_0_the_path_mtu(self):
        """wire.md: W3-22, W3-59, W3-60."""
        background = Background.started
        background.wait(lambda: background.relay.peer("narrow")["mtu_found"], "the path MTU")
        found = background.relay.peer("narrow")["mtu"]
        self.assertLessEqual(found, NARROW_BYTES)
        self.assertGreaterEqual(found, 1232)
        tried = [length for length, _ in background.narrow.challenges_received]
        self.assertIn(found, tried)

    def test_1_begun_by_the_node(self):
        """wire.md: W4-92, W4-104, W4-105."""
        background = Background.started
        background.wait(lambda: background.ours.rekeys >= 1, "new keys by the node")
        self.assertTrue(background.ours.current.initiator)
        self.assertEqual(len(self.initiations(background.ours, "in")), 0)

    def test_2_begun_by_the_relay_as_initiator(self):
        """wire.md: W4-104, W4-105."""
        background = Background.started
        link = background.theirs
        background.wait(lambda: link.rekeys >= 1, "new keys by the relay")
        self.assertFalse(link.current.initiator)
        age = link.current.born - background.born[link]
        self.assertGreaterEqual(age, 119.0)  # both ends compute the keys at about the same time
        self.assertEqual(self.initiations(link, "out"), [])

    def test_3_begun_by_the_relay_as_responder(self):
        """wire.md: W4-104, W4-105."""
        background = Background.started
        link = background.patient
        background.wait(lambda: link.rekeys >= 1, "new keys by the relay, the responder")
        self.assertFalse(link.current.initiator)
        self.assertGreaterEqual(link.current.born - background.born[link], 139.0)

    def test_4_no_packet_was_lost(self):
        """wire.md: W4-86, W4-93, W4-105."""
        background = Background.started
        for link, pings in background.pings.items():
            counted = len(pings)
            background.wait(
                lambda: all(link.reply_of(ping) for ping in pings[:counted]),  # noqa: B023
                "all pongs",
            )
            self.assertGreaterEqual(link.handshakes, 2)
            self.assertTrue(link.up)

    def test_5_an_idle_link_got_no_keys(self):
        """wire.md: W4-103, W4-104, W4-106."""
        background = Background.started
        background.wait(lambda: background.quiet_at_145 is not None, "the age of a rekey")
        self.assertEqual(background.quiet_at_145, (0, [], True))

    def test_6_an_idle_link_begins_again(self):
        """wire.md: W4-106, W4-107, W3-10."""
        background = Background.started
        link, relay = background.quiet, background.relay
        background.wait(lambda: relay.peer("quiet")["idle"], "the keys have expired")
        self.assertFalse(relay.peer("quiet")["up"])
        request = background.ping_from_the_relay("quiet")
        replies = []

        def done():
            reply = relay.ask({"replies": request})
            replies.extend(reply["replies"])
            return reply["done"]

        background.wait(done, "the ping that has waited for keys is answered")
        self.assertTrue(replies[0]["pong"])
        self.assertEqual(len(self.initiations(link, "in")), 1)
        self.assertTrue(relay.peer("quiet")["up"])
