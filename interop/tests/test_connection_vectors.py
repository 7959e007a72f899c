"""The examples and tables of wire.md 6, recomputed by the Python implementation."""

import re
import unittest
from pathlib import Path

from harness import specification
from harness.specification import example
from strowger_link import cookie, handshake, identity, noise, primitives, transport
from strowger_link.connection import certificate, exporter, fields, items, packets, tables
from strowger_link.domain import CONNECTION, LINK
from strowger_link.header import SwitchHeader
from strowger_link.hello import Hello, Malformed
from strowger_link.identity import Identity
from strowger_link.linkheader import LinkHeader
from strowger_link.transport import Discarded

NETWORK = b"example"
SEED_A, SEED_B = b"\xa0" * 32, b"\xb0" * 32
A, B = Identity.for_connections(SEED_A), Identity.for_connections(SEED_B)
LINK_A, LINK_B = Identity.from_seed(SEED_A), Identity.from_seed(SEED_B)
SECRET = b"\xc1" * 32
SOURCE = bytes.fromhex("00000003 08 0000000000004321")
STAMP = 1_700_000_000 * 10**9
ECHO = tables.Entry(b"/echo/1")
ID = bytes.fromhex("1112131415161718")

HELLO_A = Hello(
    index=0x0A0B0C,
    timestamp=STAMP,
    proof=A.proof(),
    seal_wish=0,
    widths=7,
    lanes=2,
    mtu=1424,
    scheme=b"",
    table=tables.encode([ECHO]),
    later=fields.Fields(id=bytes(range(1, 9)), idle_s=300).encode(),
)
HELLO_B = Hello(
    index=0x1A2B3C,
    proof=B.proof(),
    seal_wish=1,
    widths=1,
    lanes=1,
    mtu=1400,
    scheme=b"",
    table=tables.encode([ECHO]),
    later=fields.Fields(id=fields.UNKNOWN_ID).encode(),
)
HELLO_B_XX = HELLO_B.with_(table=b"", later=b"")

INDEX, LANE = 0xABCDEF, 1
KEY = transport.lane_key(bytes(range(32)), LANE, CONNECTION)
TOKEN = bytes(range(1, 9))
TABLE = [
    tables.Entry(b"/echo/1", tables.FLAG_EARLY),
    tables.Entry(b"/quic", tables.FLAG_PASS_THROUGH),
    tables.Entry(b"/voice/2"),
]


class Vectors(unittest.TestCase):
    def same(self, name, computed):
        """Compares the bytes with the example of this name."""
        self.assertEqual(computed.hex(), example(name).hex(), name)

    def discarded(self, reason, function, *arguments):
        """The function discards its packet for this reason."""
        with self.assertRaises(Discarded) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.reason, reason)


class Packets(Vectors):
    def seal(self, kind, counter, body):
        return transport.seal_packet(KEY, kind, LANE, INDEX, counter, body)

    def test_kinds(self):
        """wire.md: W6-1, W6-6, W6-7."""
        rows = {int(row[0]): row[1] for row in specification.table("connection-kinds")}
        self.assertEqual(rows, packets.KINDS)
        for first in range(256):
            packet = bytes([first]) + bytes(31)
            if first >> 4 in rows:
                self.assertEqual(packets.header_of(packet).kind, first >> 4)
            else:
                self.discarded("bad_connection_kind", packets.header_of, packet)
        for length in range(8):
            self.discarded("too_short", packets.header_of, b"\x41" * length)
        self.discarded("too_long", packets.header_of, b"\x41" * 9217)
        self.assertEqual(packets.header_of(b"\x41" * 9216).lane, 1)

    def test_sealed_messages(self):
        """wire.md: W6-2, W6-3, W6-9, W6-37."""
        self.same("connection-lane-key", KEY)
        self.same("connection-message", self.seal(4, 7, packets.message_body(3, b"hello")))
        self.same("connection-confirmation", self.seal(4, 0, b""))
        both = items.Item(items.TABLE_ACK, count=3), items.Item(items.STAY, weight=10)
        body = packets.message_body(packets.CONTROL, b"".join(item.encode() for item in both))
        self.same("connection-items", self.seal(4, 8, body))
        for name, counter, expected in (
            ("connection-message", 7, (3, b"hello")),
            ("connection-confirmation", 0, None),
            ("connection-items", 8, (0, bytes.fromhex("020001030600010a"))),
        ):
            opened = transport.open_packet(KEY, counter, example(name))
            self.assertEqual(packets.read_message_body(opened), expected)
        self.assertEqual(packets.read_message_body(b"\xfe"), (254, b""))

    def test_number_255_is_reserved(self):
        """wire.md: W6-8."""
        self.discarded("bad_protocol_number", packets.read_message_body, b"\xffhello")

    def test_pass_through(self):
        """wire.md: W6-38, W6-39, W6-50, W6-51, W6-52."""
        message = bytes.fromhex("40d0d1d2d3d4d5d6d7")
        self.same("connection-pass-through", packets.pass_through(LANE, INDEX, 2, message))
        read = packets.read_pass_through
        self.assertEqual(read(example("connection-pass-through")), (2, message))
        head = bytes.fromhex("61abcdef")
        self.assertEqual(read(head + b"\xff\xff\xff\xff\x02" + message), (2, message))
        self.discarded("bad_protocol_number", read, head + bytes(4) + b"\x00\x40")
        self.discarded("bad_protocol_number", read, head + bytes(4) + b"\xff\x40")
        self.discarded("too_short", read, head + bytes(4))
        self.discarded("too_short", read, head + bytes(4) + b"\x02")
        self.discarded("long_header", read, head + bytes(4) + b"\x02\xc0")
        self.assertEqual(read(head + bytes(4) + b"\x02\x7f"), (2, b"\x7f"))

    def test_unknown_connection(self):
        """wire.md: W6-19, W6-53, W6-54."""
        message = example("connection-message")
        answer = packets.unknown_connection(message + bytes(2))
        self.same("connection-unknown", answer)
        self.assertEqual(packets.read_unknown_connection(answer), LinkHeader(4, 1, INDEX, 7))
        for kind in range(16):
            packet = bytes([kind << 4 | 1]) + message[1:]
            answer = packets.unknown_connection(packet + bytes(2))
            self.assertEqual(answer is not None, kind in (4, 8, 9))
            self.assertIsNone(packets.unknown_connection(packet[:31]))
            known = example("connection-unknown")[:8] + packet[:8]
            if kind in (4, 8, 9):
                self.assertEqual(len(answer), 16)
                self.assertEqual(packets.read_unknown_connection(known).kind, kind)
            else:
                self.discarded("malformed", packets.read_unknown_connection, known)
        good = example("connection-unknown")
        for wrong in (good[:-1], good + b"\0", b"\x71" + good[1:], good[:7] + b"\1" + good[8:]):
            self.discarded("malformed", packets.read_unknown_connection, wrong)

    def test_path_challenges(self):
        """wire.md: W6-2, W6-55, W6-56, W6-57."""
        challenge = self.seal(8, 9, packets.challenge_body(TOKEN))
        self.same("connection-path-challenge", challenge)
        body = transport.open_packet(KEY, 9, challenge)
        self.same("connection-path-response", self.seal(9, 10, packets.response_to(body)))
        self.assertEqual(packets.challenge_body(TOKEN, 32), TOKEN + bytes(32))
        self.assertEqual(packets.response_to(TOKEN + b"\xff" * 700), TOKEN)
        self.assertIsNone(packets.response_to(TOKEN[:7]))
        self.assertEqual(packets.token_of_response(TOKEN), TOKEN)
        for wrong in (TOKEN[:7], TOKEN + b"\0", b""):
            self.assertIsNone(packets.token_of_response(wrong))

    def test_the_longest_messages(self):
        """wire.md 7: the table of the longest messages, with 64-bit labels and full sealing."""
        headers = 8 + SwitchHeader(1).length + 16 + packets.HEADER_BYTES + 1 + 16
        for underlay, below, message in specification.table("message-lengths"):
            self.assertEqual(int(underlay) - int(below.split()[0]) - headers, int(message))


class Hellos(Vectors):
    def test_fields(self):
        """wire.md: W6-58, W6-61, W6-62, W6-63, W6-64, W6-65, W6-66."""
        read = fields.Fields(
            id=ID,
            early=fields.Early(b"/echo/1", b"early"),
            result=fields.NOT_DELIVERED,
            idle_s=300,
            **fields.table_state(TABLE),
        )
        self.same("connection-hello-fields", read.encode())
        self.assertEqual(fields.Fields.decode(example("connection-hello-fields")), read)
        self.assertEqual(fields.Fields.decode(b""), fields.Fields())
        empty = fields.Fields(early=fields.Early(b"/a"))
        self.assertEqual(fields.Fields.decode(bytes.fromhex("030003022f61")), empty)

    def test_unknown_fields_and_any_order(self):
        """wire.md: W6-59, W6-61."""
        data = example("connection-hello-unknown-field")
        self.assertEqual(fields.Fields.decode(data), fields.Fields(idle_s=300))
        self.assertEqual(fields.Fields.decode(data[:6] * 3 + data), fields.Fields(idle_s=300))
        backwards = bytes.fromhex("050002012c 040001 02 010008") + ID
        expected = fields.Fields(id=ID, result=2, idle_s=300)
        self.assertEqual(fields.Fields.decode(backwards), expected)

    def test_malformed_fields(self):
        """wire.md: W6-60."""
        state = "02 0009 03 c59341293cdfa4f6"
        self.assertEqual(fields.Fields.decode(bytes.fromhex(state)).entries, 3)
        for wrong in (
            "01", "0100", "010008", "010008 11121314151617",  # incomplete
            "630003c0ff", "050002012c 63",
            "050002012c 050002012c",  # twice
            "010007 11121314151617", "010009 111213141516171819",  # lengths
            "020008 c59341293cdfa4f6", "02000a 03c59341293cdfa4f600",
            "020009 ffc59341293cdfa4f6",  # 255 entries
            "030002 022f", "030003 032f61", "030003 023031", "030004 022f2000",  # names
            "040000", "040001 03", "040002 0000", "050001 01", "050003 000000",
        ):  # fmt: skip
            with self.assertRaises(Malformed, msg=wrong):
                fields.Fields.decode(bytes.fromhex(wrong))

    def test_hellos_of_connections(self):
        """wire.md: W6-17, W6-70, W6-125."""
        for hello in (HELLO_A, HELLO_B):
            self.assertEqual(Hello.decode(hello.encode()), hello)
            self.assertEqual(fields.check(hello)[0], [ECHO])
        self.assertEqual(fields.check(HELLO_B_XX, second_of_xx=True), ([], fields.Fields()))
        for wrong in (
            {"seal_wish": 2},
            {"flags": 1},
            {"lanes": 5},
            {"scheme": bytes.fromhex("6114458100")},
            {"table": b"\0"},
            {"table": b"\0\x01/"},
            {"table": b"\0\x02ab"},
            {"later": b"\1"},
        ):
            with self.assertRaises(Malformed, msg=wrong):
                fields.check(HELLO_A.with_(**wrong))
        with self.assertRaises(Malformed):
            fields.check(HELLO_B, second_of_xx=True)
        for wrong in ({"lanes": 0}, {"mtu": 575}):
            with self.assertRaises(Malformed, msg=wrong):
                Hello.decode(HELLO_A.with_(**wrong).encode())

    def test_the_longest_hello(self):
        """wire.md: W6-28."""
        room = fields.HELLO_BYTES_MAX - len(HELLO_A.with_(later=b"").encode())
        longest = HELLO_A.with_(later=b"\x63" + (room - 3).to_bytes(2, "big") + bytes(room - 3))
        self.assertEqual(len(longest.encode()), 760)
        fields.check(longest)
        longer = HELLO_A.with_(later=b"\x63" + (room - 2).to_bytes(2, "big") + bytes(room - 2))
        with self.assertRaises(Malformed):
            fields.check(longer)

    def test_agreement(self):
        """wire.md: W6-17."""
        agreed = fields.agreement(HELLO_A.with_(seal_wish=1), HELLO_B)
        self.assertEqual((agreed.header_only, agreed.widths, agreed.mtu), (False, 1, 1400))


class Tables(Vectors):
    def test_example(self):
        """wire.md: W6-30, W6-67, W6-68, W6-71."""
        self.same("connection-table", tables.encode(TABLE))
        self.assertEqual(tables.decode(example("connection-table")), TABLE)
        self.same("connection-table-hash", tables.table_hash(TABLE)[:8])
        numbers = [tables.number_of(TABLE, entry.name) for entry in TABLE]
        self.assertEqual(numbers, [1, 2, 3])
        unknown_flags = [tables.Entry(b"/echo/1", 0xF0)]
        self.assertEqual(tables.decode(tables.encode(unknown_flags)), unknown_flags)

    def test_names(self):
        """wire.md: W6-31, W6-69."""
        for name in (b"/a", b"/" * 128, b"/!~", b"//"):
            self.assertTrue(tables.name_is_valid(name), name)
        for name in (b"", b"/", b"/" * 129, b"a/", b"/ ", b"/\x7f", b"/\xc3\xa4"):
            self.assertFalse(tables.name_is_valid(name), name)
        twice = [tables.Entry(b"/a"), tables.Entry(b"/A"), tables.Entry(b"/a", 1)]
        self.assertEqual(tables.number_of(twice, b"/a"), 1)
        self.assertEqual(tables.number_of(twice, b"/A"), 2)
        self.assertIsNone(tables.number_of(twice, b"/b"))

    def test_limits(self):
        """wire.md: W6-33, W6-70, W6-72."""
        most = [tables.Entry(b"/%d" % number) for number in range(254)]
        self.assertEqual(tables.decode(tables.encode(most)), most)
        with self.assertRaises(tables.MalformedTable):
            tables.decode(tables.encode([*most, tables.Entry(b"/more")]))
        longest = [tables.Entry(b"/".ljust(126, b"x"))] * 64
        self.assertEqual(len(tables.encode(longest)), 8192)
        self.assertEqual(len(tables.decode(tables.encode(longest))), 64)
        with self.assertRaises(tables.MalformedTable):
            tables.decode(tables.encode([*longest, tables.Entry(b"/a")]))
        self.assertEqual(tables.fitting(longest), longest[:4])
        self.assertEqual(tables.fitting(longest, 511), longest[:3])
        good = example("connection-table")
        for end in range(len(good)):
            if end in (0, 9, 16):
                continue
            with self.assertRaises(tables.MalformedTable, msg=end):
                tables.decode(good[:end])


class Items(Vectors):
    ITEMS = {
        "item-padding": items.Item(items.PADDING, length=5),
        "item-table": items.Item(items.TABLE, first=2, entries=tuple(TABLE[1:])),
        "item-table-empty": items.Item(items.TABLE, first=1),
        "item-table-ack": items.Item(items.TABLE_ACK, count=3),
        "item-named": items.Item(items.NAMED, name=b"/echo/1", message=b"hello"),
        "item-unsupported-number": items.Item(items.UNSUPPORTED, code=1, number=3),
        "item-unsupported-name": items.Item(items.UNSUPPORTED, code=2, name=b"/echo/1"),
        "item-leaving": items.Item(items.LEAVING, seconds=30, code=2, text="update"),
        "item-stay": items.Item(items.STAY, weight=10),
        "item-goodbye": items.Item(items.GOODBYE, seconds=3600, code=5, number=3, text="full"),
        "item-goodbye-ack": items.Item(items.GOODBYE_ACK, code=5, number=3),
        "item-identify": items.Item(items.IDENTIFY, length=68),
        "item-identify-answer": items.Item(
            items.IDENTIFY_ANSWER, hops=61, mtu=1400, label=0x80000000000000A2, text="strowger 0.1.0"
        ),
        "item-path": items.Item(items.PATH, lane=1, state=items.STANDBY),
        "item-receive-report": items.Item(
            items.RECEIVE_REPORT, lane=1, packets=1000, marked=3, newest=1007
        ),
        "item-connection-id": items.Item(items.CONNECTION_ID, id=ID),
    }

    def read(self, *encoded):
        return items.decode(b"".join(bytes.fromhex(one) for one in encoded))

    def refused(self, *encoded):
        """Each of these items is malformed, and the item behind it is read."""
        for one in encoded:
            read = self.read(one, "0600010a")
            self.assertEqual((len(read.items), read.malformed), (1, 1), one)

    def test_examples(self):
        """wire.md: W6-73, W6-78, W6-79, W6-80, W6-81, W6-82, W6-84, W6-85, W6-86, W6-87, W6-88,
        W6-89, W6-90, W6-91, W6-92, W6-93, W6-94, W6-95."""
        for name, item in self.ITEMS.items():
            self.same(name, item.encode())
            read = items.decode(example(name))
            self.assertEqual((read.items, read.malformed), ([item], 0), name)
        joined = b"".join(example(name) for name in self.ITEMS if name != "item-named")
        read = items.decode(joined + example("item-named"))
        self.assertEqual(len(read.items), len(self.ITEMS))

    def test_lengths(self):
        """wire.md: W6-77."""
        rows = {
            int(op): (name, int(lengths.split(" to ")[0]), int(lengths.split(" to ")[-1]))
            for op, name, lengths in specification.table("control-items")
        }
        self.assertEqual(rows, items.LENGTHS)
        zeros = (items.PADDING, items.IDENTIFY)
        for op, (_, shortest, longest) in rows.items():
            for length in (shortest - 1, longest + 1):
                if length < 0:
                    continue
                read = items.decode(bytes([op]) + length.to_bytes(2, "big") + bytes(length))
                self.assertEqual((read.items, read.malformed), ([], 1), (op, length))
            if op in zeros:
                data = bytes([op]) + longest.to_bytes(2, "big") + b"\xff" * longest
                self.assertEqual(len(items.decode(data).items), 1)

    def test_faults(self):
        """wire.md: W6-74, W6-75, W6-76."""
        read = items.decode(example("items-with-faults"))
        self.assertEqual(read.items, [items.Item(items.STAY, weight=7)])
        self.assertEqual(read.malformed, 2)
        read = self.read("0b0001000c0001000600010a")
        self.assertEqual((len(read.items), read.malformed), (1, 0))
        for end in ("06", "0600", "060001"):
            read = self.read("06000107", end)
            self.assertEqual((len(read.items), read.malformed), (1, 1))

    def test_tables(self):
        """wire.md: W6-79, W6-80, W6-81, W6-70."""
        self.refused("010001 00", "010001 ff")  # first numbers
        self.refused("010006 fe 00022f61 00")
        self.assertEqual(self.read("010005 fe 00022f61").malformed, 0)
        self.refused("010009 fe 00022f61 00022f62")  # its last number is 255
        self.refused("010005 01 00022061", "010004 01 00022f")
        self.assertEqual(self.read("010001 fe").items[0].first, 254)
        self.assertEqual(self.read("020001 fe").items[0].count, 254)
        self.refused("020001 ff")

    def test_named_is_the_last_item(self):
        """wire.md: W6-82, W6-83."""
        read = self.read("030003 022f61")
        self.assertEqual(read.items, [items.Item(items.NAMED, name=b"/a")])
        read = self.read("030003 022f61", "0600010a")
        self.assertEqual((len(read.items), read.malformed), (1, 1))
        self.assertEqual(self.read("030003 022f61", "00").malformed, 2)
        for wrong in ("030003 032f61", "030003 022f20", "030003 012f61"):
            self.assertEqual(self.read(wrong).malformed, 1)

    def test_values(self):
        """wire.md: W6-84, W6-85, W6-88, W6-89, W6-93, W6-94."""
        self.refused("040002 0100", "040002 01ff", "040003 016161")
        self.assertEqual(self.read("040002 63fe").items[0].code, 0x63)
        self.refused("070006 0000000005ff")
        self.assertEqual(self.read("070006 00000000eefe").items[0].code, 0xEE)
        self.refused("0d0002 0100", "0d0002 0104", "0d0002 1001")
        self.assertEqual(self.read("0d0002 0f03").items[0].state, items.ABANDONED)
        self.refused("0e0019 10" + "00" * 24)
        self.refused("0a000c 00030578" + "00" * 8)  # label width code 3
        self.refused("0a000c 00010578" + "00" * 8)  # a label of 128 bits is longer

    def test_text(self):
        """wire.md: W6-96."""
        self.refused("050004 001e02ff", "070007 00000e100503ff")
        self.refused("0a000d 00000578" + "00" * 8 + "ff")
        self.refused("0a002d 00000578" + "00" * 8 + "61" * 33)
        self.assertEqual(self.read("0a002c 00000578" + "00" * 8 + "61" * 32).malformed, 0)
        self.assertEqual(self.read("050083 001e02" + "61" * 128).malformed, 0)
        self.assertEqual(self.read("050005 001e02c3a4").items[0].text, "ä")

    def test_answers_are_not_longer(self):
        """wire.md: W6-97."""

        def length(name):
            return len(example(name))

        self.assertLessEqual(length("item-table-ack"), length("item-table-empty"))
        self.assertLessEqual(length("item-identify-answer"), length("item-identify"))
        longest = items.Item(items.IDENTIFY_ANSWER, bits=256, text="x" * 32)
        self.assertEqual(len(longest.encode()), length("item-identify"))
        name = b"/".ljust(128, b"x")
        refusal = items.Item(items.UNSUPPORTED, code=1, name=name).encode()
        self.assertLessEqual(len(refusal), len(items.Item(items.NAMED, name=name).encode()))
        farewell = items.Item(items.GOODBYE).encode()
        self.assertLessEqual(len(items.Item(items.GOODBYE_ACK).encode()), len(farewell))


class Certificates(Vectors):
    def test_examples(self):
        """wire.md: W6-98, W6-99, W6-100, W6-102."""
        made = certificate.issue(SEED_B, certificate.CONNECTION_KEY, B.static_key, STAMP, NETWORK)
        self.same("certificate-signed", made.signed_bytes(NETWORK))
        self.same("certificate", made.encode())
        read = certificate.read(example("certificate"), NETWORK, certificate.CONNECTION_KEY)
        self.assertEqual(read, made)
        made = certificate.issue(SEED_A, certificate.CONNECTION_KEY, A.static_key, STAMP, NETWORK)
        self.same("identity-certificate", made.encode())

    def test_the_newer_certificate(self):
        """wire.md: W6-101."""
        older, newer = (
            certificate.issue(SEED_B, certificate.CONNECTION_KEY, key, stamp, NETWORK)
            for key, stamp in ((B.static_key, STAMP), (A.static_key, STAMP + 1))
        )
        self.assertTrue(newer.replaces(older))
        self.assertFalse(older.replaces(newer))
        self.assertFalse(newer.replaces(newer))
        other = certificate.issue(SEED_B, certificate.LINK_KEY, B.static_key, STAMP + 2, NETWORK)
        self.assertFalse(other.replaces(older))
        other = certificate.issue(SEED_A, newer.role, B.static_key, STAMP + 2, NETWORK)
        self.assertFalse(other.replaces(older))

    def test_refused(self):
        """wire.md: W6-99, W6-100, W6-102, W6-103, W6-104."""
        good = example("certificate")

        def refused(data, network=NETWORK, role=certificate.CONNECTION_KEY):
            with self.assertRaises(certificate.BadCertificate):
                certificate.read(data, network, role)

        refused(good[:-1])
        refused(good + b"\0")
        refused(good, network=b"another")
        refused(good, role=certificate.LINK_KEY)
        for at in range(0, len(good), 7):
            refused(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        for role in (0, 4, 255):
            made = certificate.issue(SEED_B, role, B.static_key, STAMP, NETWORK)
            refused(made.encode(), role=role)
        flagged = certificate.Certificate(2, STAMP, B.public, B.static_key, flags=0x81)
        signature = primitives.ed25519_sign(SEED_B, flagged.signed_bytes(NETWORK))
        read = certificate.read(flagged.fixed() + signature, NETWORK, 2)
        self.assertEqual(read.key, B.static_key)

    def test_keys_that_are_refused(self):
        """wire.md: W6-103."""
        small = b"\x01".ljust(32, b"\0")
        forged = certificate.Certificate(2, STAMP, small, B.static_key)
        proof = example("identity-proof-refused-key")[40:]
        with self.assertRaises(certificate.BadCertificate):
            certificate.read(forged.fixed() + proof, NETWORK, 2)


class Handshakes(Vectors):
    def test_keys_and_texts(self):
        """wire.md: W6-10, W6-16, W6-22."""
        private = b"".join(node.static_private + node.static_key for node in (A, B))
        self.same("connection-keys", private)
        self.assertNotEqual(A.static_private, LINK_A.static_private)
        self.same("connection-prologue", noise.prologue(NETWORK, CONNECTION))
        self.same("connection-proof-a", A.proof())
        mac = primitives.mac
        keys = mac(B.static_key, CONNECTION.mac1_key, NETWORK)
        keys += mac(B.static_key, CONNECTION.cookie_key, NETWORK)
        self.same("connection-mac-keys", keys + mac(B.static_key, CONNECTION.hint_key))
        keys = mac(B.public, CONNECTION.mac1_key, NETWORK)
        keys += mac(B.public, CONNECTION.cookie_key, NETWORK)
        self.same("connection-mac-keys-by-peer-id", keys)

    def test_domains_are_apart(self):
        """wire.md: W6-22."""
        self.assertEqual(identity.check_proof(A.proof(), A.static_key, CONNECTION), A.public)
        crossed = Identity(SEED_A, A.static_private, LINK)
        with self.assertRaises(identity.BadIdentity):
            identity.check_proof(crossed.proof(), A.static_key, CONNECTION)
        with self.assertRaises(identity.BadIdentity):
            identity.check_proof(A.proof(), A.static_key, LINK)
        link = Identity(SEED_B, B.static_private, LINK)
        sender = handshake.IkInitiator(crossed, NETWORK, B.static_key)
        initiation = sender.initiation(HELLO_A)
        handshake.IkResponder(link, NETWORK, initiation)
        with self.assertRaises(handshake.BadMac):
            handshake.IkResponder(B, NETWORK, initiation)

    def lanes(self, keys):
        """The keys of the lanes in use: two of A, one of B."""
        used = [(keys.seal, 0), (keys.seal, 1), (keys.open, 0)]
        lane_keys = b"".join(transport.lane_key(*lane, CONNECTION) for lane in used)
        return keys.seal + keys.open + lane_keys

    def test_by_static_key(self):
        """wire.md: W6-10, W6-12, W6-17, W6-22, W6-27."""
        initiator = handshake.IkInitiator(A, NETWORK, B.static_key, ephemeral=b"\xa1" * 32)
        initiation = initiator.initiation(HELLO_A)
        self.same("connection-ik-initiation", initiation)
        responder = handshake.IkResponder(B, NETWORK, initiation)
        self.assertEqual((responder.hello, responder.peer_static), (HELLO_A, A.static_key))
        response, theirs = responder.response(HELLO_B, ephemeral=b"\xb1" * 32)
        self.same("connection-ik-response", response)
        self.assertLessEqual(len(response), len(initiation))
        hello, ours = initiator.read_response(response)
        self.assertEqual((hello, ours.seal, ours.open), (HELLO_B, theirs.open, theirs.seal))
        self.same("connection-ik-transcript", ours.transcript)
        self.same("connection-ik-keys", self.lanes(ours))

    def by_peer_id(self):
        """The handshake of the examples, and the keys of A."""
        initiator = handshake.XxInitiator(A, NETWORK, b"\xa1" * 32, mac_key=B.public)
        first = initiator.first(HELLO_A.index)
        responder = handshake.XxResponder(B, NETWORK, SECRET, epoch=1, mac_key=B.public)
        second = responder.second(first, SOURCE, HELLO_B_XX)
        peer_static, peer_hello, state = initiator.read_second(second)
        self.assertEqual(peer_static, B.static_key)
        fields.check(peer_hello, second_of_xx=True)
        third, ours = initiator.third(state, peer_hello, HELLO_A)
        return responder, first, second, third, ours

    def test_by_peer_id(self):
        """wire.md: W6-10, W6-12, W6-13, W6-17, W6-22, W6-23, W6-125."""
        responder, first, second, third, ours = self.by_peer_id()
        self.same("connection-xx-1", first)
        self.same("connection-xx-2", second)
        self.same("connection-xx-3", third)
        self.same("connection-xx-transcript", ours.transcript)
        self.same("connection-xx-keys", self.lanes(ours))
        self.assertLessEqual(len(second), len(first))
        self.assertTrue(responder.is_ours(third, SOURCE))
        self.assertFalse(responder.is_ours(third, SOURCE[:-1] + b"\0"))
        peer_static, peer_hello, _, theirs = responder.read_third(third, SOURCE, HELLO_B_XX)
        self.assertEqual((peer_static, peer_hello), (A.static_key, HELLO_A))
        self.assertEqual((ours.seal, ours.open), (theirs.open, theirs.seal))
        other = handshake.XxResponder(B, NETWORK, SECRET, epoch=1, mac_key=bytes(32))
        with self.assertRaises(handshake.BadMac):
            other.second(first, SOURCE, HELLO_B_XX)

    def test_cookie(self):
        """wire.md: W6-13, W6-22, W6-23."""
        first = example("connection-xx-1")
        made = cookie.cookie_for(SECRET, SOURCE)
        nonce = cookie.nonce_for(SECRET, SOURCE, first)
        reply = cookie.reply(first, made, nonce, B.public, NETWORK, CONNECTION)
        self.same("connection-cookie-reply", reply)
        self.assertEqual(cookie.read_reply(reply, first, B.public, NETWORK, CONNECTION), made)
        with self.assertRaises(primitives.Unreadable):
            cookie.read_reply(reply, first, B.public, NETWORK, LINK)

    def test_direct_link_psk(self):
        """wire.md: W6-25."""
        *_, ours = self.by_peer_id()
        x = exporter.exporter(ours.seal, ours.open)
        keys = (LINK_A.static_key, LINK_B.static_key)
        psk = exporter.direct_link_psk(x, b"\x0a" * 16, b"\x0b" * 16, *keys)
        self.same("connection-direct-psk", psk)


class Examples(unittest.TestCase):
    def test_every_example_of_connections_is_named(self):
        text = specification.DOCUMENT.read_text("utf-8")
        sections = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)
        names = re.findall(
            r"^```hex (\S+)", "".join(one for one in sections if one.startswith("6.")), re.MULTILINE
        )
        here = Path(__file__)
        tests = here.read_text("utf-8") + here.with_name("test_addresses.py").read_text("utf-8")
        self.assertEqual([name for name in names if f'"{name}"' not in tests], [])


if __name__ == "__main__":
    unittest.main()
