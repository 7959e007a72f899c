"""The examples of wire.md 6.9, recomputed by the Python implementation."""

import unittest

from harness.specification import example, table
from strowger_link import address
from strowger_link.identity import Identity

SEEDS = {"A": b"\xa0" * 32, "B": b"\xb0" * 32}
A, B = (Identity.from_seed(seed).peer_id for seed in SEEDS.values())


class Addresses(unittest.TestCase):
    def test_text_and_bytes(self):
        """wire.md: W6-111, W6-113, W6-117, W6-118."""
        text = f"/ip4/192.0.2.1/udp/4737/strowger/p2p/{A}/switch/0000.4321.1234.4321/p2p/{B}/chat/1"
        self.assertEqual(address.to_bytes(text).hex(), example("address").hex())
        wide = ".".join(["0123.4567.89ab.cdef"] * 2)
        for text in (
            text,
            f"/ip6/2001:db8::1/udp/1/strowger/p2p/{A}",
            f"/ip4/192.0.2.1/udp/65535/strowger/switch/{wide}/p2p/{B}",
            f"/switch/{wide}.{wide}/p2p/{A}/switch/on",
            f"/p2p/{B}/voice/rtp/1",
            "/ip4/192.0.2.1/udp/4737/strowger/switch/some-protocol",
        ):
            self.assertEqual(address.to_text(address.to_bytes(text)), text)

    def test_ip6_of_a_peer(self):
        """wire.md: W6-120."""
        for name, expected in table("peer-ip6"):
            self.assertEqual(str(address.ip6(Identity.from_seed(SEEDS[name]).public)), expected)


if __name__ == "__main__":
    unittest.main()
