"""What a relay makes of hellos: agreements and refusals."""

import os

from harness.case import RelayCase
from harness.peers import section
from strowger_link import handshake
from strowger_link.hello import Hello, agree
from strowger_link.linkheader import INITIATION, RESPONSE


class Raw:
    """A hello of any bytes."""

    def __init__(self, index, payload):
        self.index, self._payload = index, payload

    def encode(self):
        return self._payload


class Hellos(RelayCase):
    def setUp(self):
        super().setUp()
        self.peer = self.node()
        self.start()

    def start(self, **fields):
        """Starts the relay under test with this peer."""
        self.tested = self.relay(section(self.peer, address=False, slot=2, **fields))
        self.index = 0x100000

    def good(self, **fields):
        """A hello that is accepted, but for these fields."""
        self.index += 1
        values = {
            "index": self.index,
            "timestamp": self.peer.wall_clock_ns(),
            "proof": self.peer.identity.proof(),
        }
        return self.peer.hello.with_(**{**values, **fields})

    def initiate(self, hello):
        """Sends an initiation with this hello."""
        attempt = handshake.IkInitiator(
            self.peer.identity, self.peer.network, self.tested.static_key
        )
        self.peer.wire.clear()
        self.peer.send(attempt.initiation(hello), self.tested.address)
        return attempt

    def accepted(self, **fields):
        """The relay's hello in its answer to such a hello."""
        hello = self.good(**fields)
        attempt = self.initiate(hello)
        self.until(lambda: self.received(self.peer, RESPONSE), f"a response to {fields}")
        theirs, _ = attempt.read_response(self.received(self.peer, RESPONSE)[0])
        return agree(hello, theirs)

    def refused(self, reason, hello):
        """Checks that a hello is discarded for this reason and gets no answer."""
        before = self.tested.discards(reason)
        self.initiate(hello)
        self.discarded(self.tested, reason, before + 1)
        self.assertEqual(self.received(self.peer, RESPONSE), [])

    def refused_fields(self, reason, **fields):
        """The same for a good hello with these fields."""
        with self.subTest(**fields):
            self.refused(reason, self.good(**fields))

    def test_versions(self):
        """wire.md: W4-47, W4-62, W4-63, W13-3, W13-4."""
        self.assertEqual(self.accepted(oldest=1, newest=3).version, 1)
        self.assertEqual(self.accepted(oldest=0, newest=1).version, 1)
        self.refused_fields("handshake_disagreement", oldest=2, newest=2)
        self.refused_fields("handshake_disagreement", oldest=2, newest=255)
        self.refused_fields("handshake_disagreement", oldest=0, newest=0)
        self.refused_fields("handshake_malformed", oldest=2, newest=1)

    def test_suites_and_widths(self):
        """wire.md: W4-48, W4-50, W4-62, W4-63, W13-10."""
        self.assertEqual(self.accepted(suites=0xFF).suite, 0)
        self.refused_fields("handshake_disagreement", suites=0)
        self.refused_fields("handshake_disagreement", suites=0xFE)
        self.assertEqual(self.accepted(widths=0xF9).widths, 1)
        self.assertEqual(self.accepted(widths=4).widths, 4)
        self.refused_fields("handshake_disagreement", widths=0)
        self.refused_fields("handshake_disagreement", widths=8)

    def test_seal_wishes_of_a_full_relay(self):
        """wire.md: W4-49, W4-62, W4-63, W13-13."""
        self.assertFalse(self.accepted(seal_wish=0).header_only)
        self.assertFalse(self.accepted(seal_wish=1).header_only)
        self.refused_fields("handshake_disagreement", seal_wish=2)
        self.refused_fields("handshake_malformed", seal_wish=3)

    def test_seal_wishes_of_a_header_only_relay(self):
        """wire.md: W4-49, W4-62."""
        self.start(seal='"header-only"')
        self.assertFalse(self.accepted(seal_wish=0).header_only)
        self.assertTrue(self.accepted(seal_wish=1).header_only)
        self.assertTrue(self.accepted(seal_wish=2).header_only)

    def test_flags_and_schemes(self):
        """wire.md: W4-51, W4-56, W4-62, W4-63, W13-13."""
        other = bytes.fromhex("810c08")
        self.accepted(scheme=other)
        self.accepted(scheme=b"\xff" * 64)
        self.accepted(flags=1)
        self.refused_fields("handshake_disagreement", flags=1, scheme=other)
        self.refused_fields("handshake_malformed", flags=2)
        self.refused_fields("handshake_malformed", flags=0x81)

    def test_lanes(self):
        """wire.md: W4-52."""
        self.accepted(lanes=16)
        self.refused_fields("handshake_malformed", lanes=0)
        self.refused_fields("handshake_malformed", lanes=17)

    def test_mtu(self):
        """wire.md: W4-53, W4-62."""
        self.assertEqual(self.accepted(mtu=576).mtu, 576)
        self.assertEqual(self.accepted(mtu=65535).mtu, 9216)
        self.refused_fields("handshake_malformed", mtu=575)

    def test_session_indices(self):
        """wire.md: W4-54."""
        self.accepted(index=0xFFFFFF)
        self.refused("handshake_malformed", Raw(5, self.good(index=0).encode()))
        self.refused("handshake_malformed", Raw(5, self.good(index=0x1000000).encode()))

    def test_form(self):
        """wire.md: W4-45, W4-46, W4-57, W13-9."""
        self.accepted(table=os.urandom(512))
        self.accepted(later=os.urandom(40))
        good = self.good().encode()
        length = len(good) - 2

        def resized(size):
            return Raw(self.index, size.to_bytes(2, "big") + self.good().encode()[2:])

        self.refused("handshake_malformed", resized(759))  # more than the payload holds
        self.refused("handshake_malformed", resized(length - 1))  # ends before its last field
        self.refused("handshake_malformed", Raw(self.index, self.good().encode() + b"\0\1"))
        self.refused("handshake_malformed", self.good(scheme=bytes(65)))
        self.refused("handshake_malformed", self.good(table=bytes(513)))
        self.accepted(scheme=b"")

    def test_identity_proofs(self):
        """wire.md: W4-58."""
        self.refused_fields("handshake_identity", proof=bytes(104))
        good = self.peer.identity.proof()
        changed = good[:-1] + bytes([good[-1] ^ 1])
        self.refused_fields("handshake_identity", proof=changed)

    def test_timestamps(self):
        """wire.md: W4-16."""
        now = self.peer.wall_clock_ns()
        self.accepted(timestamp=now)
        self.refused_fields("handshake_stale", timestamp=now)
        self.refused_fields("handshake_stale", timestamp=now - 1)
        self.accepted(timestamp=now + 1)


class Responses(RelayCase):
    """Responses that a relay reads as the initiator."""

    def setUp(self):
        super().setUp()
        self.peer = self.node()
        self.tested = self.relay(section(self.peer, slot=2))

    def initiation(self, after=0):
        """The next initiation of the relay behind this many."""
        self.until(lambda: len(self.received(self.peer, INITIATION)) > after, "an initiation")
        return self.received(self.peer, INITIATION)[after]

    def response(self, initiation, **fields):
        """A response whose hello has these fields."""
        responder = handshake.IkResponder(self.peer.identity, self.peer.network, initiation)
        values = {"index": self.peer.new_index(), "proof": self.peer.identity.proof()}
        return responder.response(self.peer.hello.with_(**{**values, **fields}))[0]

    def handshakes(self):
        return self.tested.peer("peer")["handshakes"]

    def refused(self, after, reason, count, **fields):
        """Checks that such a response to the next initiation is discarded for this reason."""
        self.peer.send(self.response(self.initiation(after), **fields), self.tested.address)
        self.discarded(self.tested, reason, count)
        self.assertEqual(self.handshakes(), 0)

    def test_responses_that_are_refused(self):
        """wire.md: W4-53, W4-58, W4-62, W4-63, W13-4."""
        self.refused(0, "handshake_disagreement", 1, oldest=2, newest=2)
        self.refused(1, "handshake_disagreement", 2, seal_wish=2)
        self.refused(2, "handshake_malformed", 1, mtu=1)
        self.refused(3, "handshake_identity", 1, proof=bytes(104))

    def test_forged_responses_leave_the_attempt(self):
        """wire.md: W4-14, W4-26, W4-39, W4-43, W4-87."""
        initiation = self.initiation()
        good = self.response(initiation)

        def with_mac(message):
            key = self.tested.static_key
            return message + handshake.mac1(key, self.peer.network, message)

        forged = [
            ("malformed", good[:71]),
            ("handshake_mac", good[:-1] + bytes([good[-1] ^ 1])),
            ("handshake_unreadable", with_mac(good[:60] + bytes([good[60] ^ 1]) + good[61:-16])),
            ("handshake_unreadable", with_mac(good[:8] + bytes(32) + good[40:-16])),
            ("no_session", with_mac(good[:3] + bytes([good[3] ^ 1]) + good[4:-16])),
        ]
        for number, (reason, message) in enumerate(forged):
            self.peer.send(message, self.tested.address)
            self.discarded(self.tested, reason, 2 if number == 3 else 1)
        self.peer.send(good, self.tested.address)
        self.until(lambda: self.handshakes() == 1, "the good response")

    def test_the_attempt_behind_a_response_that_disagrees(self):
        """wire.md: W4-63, W4-95."""
        initiation = self.initiation()
        self.peer.send(self.response(initiation, oldest=2, newest=2), self.tested.address)
        self.discarded(self.tested, "handshake_disagreement", 1)
        # The attempt opens no other response; the next one does.
        self.peer.send(self.response(initiation), self.tested.address)
        self.discarded(self.tested, "handshake_unreadable", 1)
        self.assertEqual(self.handshakes(), 0)
        self.peer.send(self.response(self.initiation(1)), self.tested.address)
        self.until(lambda: self.handshakes() == 1, "the response to the next initiation")

    def test_both_ends_compute_the_same(self):
        """wire.md: W4-62."""
        one, other = Hello(seal_wish=1, mtu=1400, widths=3), Hello(seal_wish=2, widths=6)
        self.assertEqual(agree(one, other), agree(other, one))
        self.assertTrue(agree(one, other).header_only)
