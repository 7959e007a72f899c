"""The examples of wire.md 5.5, recomputed by the Python implementation."""

import re
import unittest
from pathlib import Path

from harness import specification
from harness.specification import example
from strowger_link import address, lookup
from strowger_link.identity import Identity
from strowger_link.transport import Discarded

NETWORK, ID = b"example", 0x01020304
A, B = Identity.for_connections(b"\xa0" * 32), Identity.from_seed(b"\xb0" * 32)
NONCE = bytes(range(1, 17))
STAMP = 1_700_000_001 * 10**9


class Vectors(unittest.TestCase):
    def same(self, name, computed):
        """Compares the bytes with the example of this name."""
        self.assertEqual(computed.hex(), example(name).hex(), name)

    def unhandled(self, function, message):
        """The function discards this message."""
        with self.assertRaisesRegex(Discarded, "unhandled"):
            function(message)

    def test_announce(self):
        """wire.md: W5-80, W5-81, W5-82."""
        certificate = example("identity-certificate")
        fields = {"id": ID, "slot": 4, "seconds": 300, "stamp": STAMP}
        made = lookup.announce(A.seed, NETWORK, B.public, certificate, **fields)
        self.same("control-announce", made)
        self.assertTrue(lookup.announcement_is_signed(made, NETWORK, B.public))
        self.assertFalse(lookup.announcement_is_signed(made, b"another", B.public))
        self.assertFalse(lookup.announcement_is_signed(made, NETWORK, A.public))
        self.same("control-announced", lookup.announced(ID, 0, 300))
        self.same("control-announced-refused", lookup.announced(ID, 5, 0))

    def test_find(self):
        """wire.md: W5-83, W5-84, W5-85."""
        self.same("control-find", lookup.find(NONCE, A.public))
        certificate = example("identity-certificate")
        self.same("control-found", lookup.found(NONCE, 4, 9, 299, 2048, certificate))
        self.same("control-found-nothing", lookup.found(NONCE))
        read = lookup.read_found(example("control-found"))
        self.assertEqual(read, (4, 9, 299, 2048, certificate))
        self.assertIsNone(lookup.read_found(example("control-found-nothing")))

    def test_observed(self):
        """wire.md: W5-86, W5-87."""
        self.same("control-observed-request", lookup.observed_request(ID))
        for name, ip in (("control-observed-reply", "192.0.2.1"),
                         ("control-observed-reply-ipv6", "2001:db8::1")):  # fmt: skip
            self.same(name, lookup.observed_reply(ID, ip, 4737))
            self.assertEqual(lookup.read_observed_reply(example(name)), (ip, 4737))
        self.assertIsNone(lookup.read_observed_reply(lookup.observed_reply(ID)))

    def test_resolve(self):
        """wire.md: W5-88, W5-89."""
        self.same("control-resolve", lookup.resolve(ID, A.public))
        packed = address.ip6(A.public).packed
        self.same("control-resolve-address", lookup.resolve(ID, packed))
        self.assertEqual(lookup.read_target(example("control-resolve")), A.public)
        self.assertEqual(lookup.read_target(example("control-resolve-address")), packed)
        certificate = example("identity-certificate")
        routes = [
            lookup.Route(0x19, 64, 2048, 0, 299),
            lookup.Route(1 << 64 | 0xAB2, 128, 0, 1000, 0),
        ]
        self.same("control-resolved", lookup.resolved(ID, A.public, certificate, routes))
        read = lookup.read_resolved(example("control-resolved"))
        self.assertEqual(read, (A.public, certificate, routes))
        self.same("control-resolved-nothing", lookup.resolved(ID))
        read = lookup.read_resolved(example("control-resolved-nothing"))
        self.assertEqual(read, (bytes(32), None, []))

    def test_refused(self):
        """wire.md: W5-16, W5-90."""
        for name in _names():
            message = example(name)
            lookup.check(message)
            self.unhandled(lookup.check, message[:-1])
            self.unhandled(lookup.check, message + b"\0")
        self.unhandled(lookup.read_found, lookup.found(NONCE, 60, 1))
        self.unhandled(lookup.read_found, lookup.found(NONCE, 4, 16))
        self.assertEqual(lookup.read_found(lookup.found(NONCE, 59, 1))[0], 59)
        reply = lookup.observed_reply(ID)
        self.unhandled(lookup.read_observed_reply, reply[:8] + b"\5" + reply[9:])
        for kind in (0, 3):
            message = example("control-resolve")
            self.unhandled(lookup.read_target, message[:8] + bytes([kind]) + message[9:])
        message = example("control-resolved")
        self.unhandled(lookup.read_resolved, message[:178] + b"\7" + message[179:])

    def test_every_example_is_named_in_this_file(self):
        here = Path(__file__).read_text("utf-8")
        self.assertEqual([name for name in _names() if f'"{name}"' not in here], [])


def _names():
    text = specification.DOCUMENT.read_text("utf-8")
    part = re.search(r"^### 5\.5 (.*?)^## 6\. ", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```hex (\S+)", part[1], re.MULTILINE)


if __name__ == "__main__":
    unittest.main()
