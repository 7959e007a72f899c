"""The examples and tables of wire.md, recomputed by the Python implementation."""

import json
import re
import unittest
from pathlib import Path

from harness import specification
from harness.specification import example
from strowger_link import beacon, carriage, conform, control, cookie, handshake, identity, linkheader
from strowger_link import label as labels
from strowger_link import noise, primitives, transport
from strowger_link.header import Packet, SwitchHeader
from strowger_link.hello import Hello, agree
from strowger_link.identity import Identity

NETWORK = b"example"
# The seed of RFC 8032, section 7.1, test 1.
RFC_8032_TEST_1 = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
A = Identity.from_seed(b"\xa0" * 32)
B = Identity.from_seed(b"\xb0" * 32)
SOURCE = bytes.fromhex("c00002070fa0") + bytes.fromhex("0003")
SECRET = b"\xc1" * 32
ID = 0x01020304
CONNECTIONS = ("6.", "11.", "12.")  # sections that are not about links

HELLO_A = Hello(
    index=0x0A0B0C,
    timestamp=1_700_000_000 * 10**9,
    proof=A.proof(),
    seal_wish=0,
    widths=7,
    lanes=2,
    mtu=9216,
)
HELLO_B = Hello(
    index=0x1A2B3C, proof=B.proof(), seal_wish=1, widths=1, lanes=1, mtu=1400
)

class Vectors(unittest.TestCase):
    def same(self, name, computed):
        """Compares the bytes with the example of this name."""
        self.assertEqual(computed.hex(), example(name).hex(), name)


class Labels(Vectors):
    def test_schemes(self):
        """wire.md: W1.1-6, W1.1-7, W1.1-20, W1.1-22."""
        self.same("scheme-v3x5x8", labels.SCHEMES["v3x5x8"].serialise())
        for name, forms, slots, serialised in specification.table("schemes"):
            scheme = labels.SCHEMES[name]
            self.assertEqual(scheme.serialise().hex(), serialised)
            self.assertEqual(labels.Scheme.read(bytes.fromhex(serialised)), scheme)
            drawn = [form.strip().strip("`") for form in forms.split(",")]
            ours = [
                "n" * form.data_bits + format(form.prefix, f"0{form.prefix_bits}b")[: form.prefix_bits]
                for form in scheme.forms
            ]
            self.assertEqual(ours, drawn)
            for first, last, width in re.findall(r"(\d+)\.\.(\d+): (\d+)", slots):
                for slot in range(int(first), int(last) + 1):
                    if slot != 1:
                        self.assertEqual(scheme.encode_narrowest(slot)[1], int(width))

    def test_directors(self):
        """wire.md: W1.1-1, W1.1-3, W1.1-4, W1.1-5, W1.1-17, W1.1-18."""
        columns = [("f4", 4), ("f8", 8), ("v3x5x8", 4), ("v3x5x8", 7), ("v3x5x8", 10)]
        columns += [("v4x8", 5), ("v4x8", 9)]
        for slot, *directors in specification.table("directors"):
            for (name, width), director in zip(columns, directors, strict=True):
                scheme = labels.SCHEMES[name]
                if director == "-":
                    with self.assertRaisesRegex(labels.LabelError, "slot_too_wide"):
                        scheme.encode(int(slot), width)
                    continue
                self.assertEqual(scheme.encode(int(slot), width), int(director, 16), (name, slot))

    def test_every_director_decodes_to_its_slot(self):
        """wire.md: W1.1-16, W1.4-10."""
        for scheme in labels.SCHEMES.values():
            for width in scheme.widths():
                for slot in range(300):
                    if slot == 1:
                        continue  # its director has the width of the self form
                    try:
                        director = scheme.encode(slot, width)
                    except labels.LabelError:
                        continue
                    decoded = scheme.decode(1 << width | director)
                    self.assertEqual((decoded.slot, decoded.width), (slot, width))

    def test_step_and_return(self):
        """wire.md: W1.2-1, W1.2-9, W1.3-4."""
        before = int.from_bytes(example("label-step-before"), "big")
        scheme = labels.SCHEMES["v3x5x8"]
        done = labels.step(scheme, before, 4, 2)
        self.same("label-step-before", before.to_bytes(8, "big"))
        self.same("label-step-after", done.label.to_bytes(8, "big"))
        self.assertEqual((done.shift, done.out), (11, 9))
        back = labels.reverse(done.label, done.shift, 64, scheme, 2)
        self.same("label-return", back.to_bytes(8, "big"))

    def test_arithmetic(self):
        """wire.md: W1.4-1, W1.4-2, W1.4-3, W1.4-4, W1.4-5, W1.4-6, W1.4-7, W1.4-9, W1.4-10,
        W1.4-11, W1.4-12, W1.4-13, W1.4-14, W1.4-15."""
        for request, reply in specification.table("arithmetic"):
            self.assertEqual(conform.answer(json.loads(request)), json.loads(reply), request)

    def test_text(self):
        """wire.md: W1.4-8, W1.4-16, W1.4-17."""
        self.assertEqual(labels.to_text(0x432112344321), "0000.4321.1234.4321")
        for text in ("0000.4321.1234.4321", "4321.1234.4321", "432112344321", "0000.4321.1234.4321"):
            self.assertEqual(labels.from_text(text), 0x432112344321)
        self.assertEqual(labels.from_text("1.ABCD"), 0x1ABCD)
        for text, name, position in (
            ("", "label_empty", 0),
            ("12g4", "label_not_hex", 2),
            ("1234.12", "label_dot", 7),
            ("12345.6789", "label_dot", 5),
            ("1234.56789", "label_dot", 9),
            (".1234", "label_dot", 0),
            ("1234..1234", "label_dot", 5),
            ("0" * 17, "label_too_long", 16),
        ):
            with self.assertRaises(labels.LabelError) as caught:
                labels.from_text(text)
            self.assertEqual((caught.exception.name, caught.exception.position), (name, position))

    def test_schemes_that_are_not_sane(self):
        """wire.md: W1.1-2, W1.1-9, W1.1-10, W1.1-11, W1.1-12, W1.1-13, W1.1-14, W1.1-15."""
        form = labels.Form
        cases = {
            "no_forms": [],
            "too_many_forms": [form(1, 0, 1)] * 32,
            "needless_prefix": [form(4, 1, 1)],
            "no_prefix": [form(4, 1, 1), form(8, 0, 0)],
            "form_too_wide": [form(4, 1, 1), form(31, 0, 29)],
            "no_data": [form(0, 1, 1), form(8, 0, 1)],
            "prefix_too_wide": [form(4, 3, 1), form(8, 0, 1)],
            "not_ascending": [form(4, 1, 1), form(4, 0, 1)],
            "not_prefix_free": [form(4, 1, 1), form(8, 1, 2)],
        }
        for name, forms in cases.items():
            with self.assertRaises(labels.LabelError) as caught:
                labels.Scheme(forms)
            self.assertEqual(caught.exception.name, name)


class Headers(Vectors):
    def test_switch_header(self):
        """wire.md: W2-1, W2-3, W2-4."""
        fields = {"class_": 0x2E, "flow": 0xBEEF}
        header = SwitchHeader(
            0x80000000000000A2, quiet=True, control=True, telemetry=True, ecn=2, **fields
        )
        self.same("switch-header", header.encode())
        wide = SwitchHeader(1 << 127 | 0xA2, bits=128, **fields)
        self.same("switch-header-128", wide.encode())
        wider = SwitchHeader(1 << 255 | 0xA2, bits=256, **fields)
        self.same("switch-header-256", wider.encode())
        for one in (header, wide, wider):
            self.assertEqual(SwitchHeader.decode(one.encode()), one)

    def test_ethernet(self):
        """wire.md: W8-14, W8-15, W8-18, W8-23."""
        header = SwitchHeader(0x8000000000000001).encode()
        packet = linkheader.plain(1) + header
        here, there = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
        self.same("ethernet-frame", carriage.Frame(here, there, packet).encode())
        tagged = carriage.Frame(here, there, packet, vlan=7)
        self.same("ethernet-frame-vlan", tagged.encode())
        self.assertEqual(carriage.Frame.decode(tagged.encode(), here, vlan=7).packet, packet)

    def test_unix(self):
        """wire.md: W8-1, W8-2, W8-29, W8-30."""
        label, shift = labels.from_endpoint(0x15)
        out = Packet(SwitchHeader(label, shift), b"hello").encode()
        self.same("unix-to-switch", bytes(4) + linkheader.plain(0) + out)
        into = Packet(SwitchHeader(0x8000000000000019), b"hello").encode()
        self.same("unix-to-process", (2).to_bytes(4, "big") + linkheader.plain(1) + into)
        self.same("unix-busy", carriage.Process.BUSY)

    def test_unix_refusal(self):
        """wire.md: W8-55."""
        refusal = carriage.Refusal(2, 12, "12 left")
        self.same("unix-refusal", refusal.encode())
        self.assertEqual(carriage.Refusal.decode(example("unix-refusal")), refusal)
        self.assertEqual(carriage.Refusal.decode(carriage.REASON + bytes(5) + b"a\x1b").text, "a?")
        for wrong in (b"\xff\xff\xff\xfd", example("unix-busy"), example("unix-greeting")):
            with self.assertRaises(ValueError):
                carriage.Refusal.decode(wrong)

    def test_unix_trains(self):
        """wire.md: W8-39, W8-41, W8-42, W8-45, W8-46."""
        self.same("unix-request", carriage.Process.REQUEST)
        scheme = labels.SCHEMES["v3x5x8"].serialise()
        key = primitives.ed25519_public(bytes.fromhex(RFC_8032_TEST_1))
        greeting = carriage.Greeting(2048, 4, scheme, key)
        self.same("unix-greeting", greeting.encode())
        self.assertEqual(carriage.Greeting.decode(example("unix-greeting")), greeting)
        for wrong in (greeting.encode()[:-1], greeting.encode() + b"\0", b"", b"\xff\xff\xff\xff"):
            with self.assertRaises(ValueError):
                carriage.Greeting.decode(wrong)
        label, shift = labels.from_endpoint(0x15)
        header = SwitchHeader(label, shift)
        out = [Packet(header, text).encode() for text in (b"hello", b"hi")]
        self.same("unix-train-to-switch", carriage.Train(out).to_switch())
        into = SwitchHeader(0x8000000000000019)
        packets = [
            linkheader.plain(number) + Packet(into, text).encode()
            for number, text in ((1, b"hello"), (2, b"hi"))
        ]
        self.same("unix-train-to-process", carriage.Train(packets).to_process(2))
        read = carriage.Train.from_switch(example("unix-train-to-process"))
        self.assertEqual(read, (2, packets))


class Control(Vectors):
    def test_messages(self):
        """wire.md: W5-1, W5-2, W5-5, W5-21, W5-22, W5-23, W5-24, W5-25, W5-26, W5-27, W5-28, W5-29,
        W5-30, W5-31."""
        offending = SwitchHeader(0x800000000000001B, flow=0x0304)
        message = control.Message
        self.same("control-ping", message(control.PING, id=ID, payload=b"strowger").encode())
        self.same("control-pong", message(control.PONG, id=ID, payload=b"strowger").encode())
        self.same("control-trace-request", message(control.TRACE, id=ID).encode())
        times = {"held_ns": 1000, "time_ns": 2 * 10**9}
        reply = message(
            control.TRACE_REPLY, id=ID, slot_in=2, egress=1, slot_out=9, queued=3, longest=1384, **times
        )
        self.same("control-trace-reply", reply.encode())
        reply = message(
            control.TRACE_REPLY, 3, ID, slot_in=2, egress=0, slot_out=control.NO_SLOT, **times
        )
        self.same("control-trace-reply-discard", reply.encode())
        self.same("control-identity-request", message(control.IDENTIFY, id=ID).encode())
        node = Identity(b"\x07" * 32, _BEACON_PRIVATE)
        reply = message(control.IDENTITY, id=ID, ed25519=node.public, x25519=node.static_key)
        self.same("control-identity-reply", reply.encode())
        self.same("control-error", message(control.ERROR, 4, offending=offending).encode())
        too_big = message(control.TOO_BIG, longest=1384, offending=offending)
        self.same("control-too-big", too_big.encode())
        moved = message(control.SLOT_MOVED, slot=5, new_slot=9, offending=offending)
        self.same("control-slot-moved", moved.encode())
        gone = message(control.SLOT_GONE, slot=5, offending=offending)
        self.same("control-slot-gone", gone.encode())
        self.same("control-congestion", message(control.CONGESTION, offending=offending).encode())
        goodbye = message(control.GOODBYE, 1, payload=b"the relay stops")
        self.same("control-goodbye", goodbye.encode())
        text = specification.DOCUMENT.read_text("utf-8")
        text = text[: text.index("\n### 5.5 ")]  # see `test_lookup_vectors`
        for name in re.findall(r"^```hex (control-\S+)", text, re.MULTILINE):
            self.assertEqual(message.decode(example(name)).encode(), example(name), name)

    def test_ping_through_a_switch(self):
        """wire.md: W1.3-4, W1.3-5, W2-6, W5-3, W5-32, W5-33, W5-34, W5-35, W5-36, W5-39."""
        scheme = labels.SCHEMES["v3x5x8"]
        label, back = labels.build([(scheme, 9, 2), (scheme, 1, 2)])
        first, shift = labels.from_neighbour(label)
        ping = control.request(control.PING, ID, first, b"strowger", shift=shift)
        self.same("ping-p-to-a", ping.encode())
        at_b = _passed(scheme, ping, 2)
        self.same("ping-a-to-b", at_b.encode())
        back = labels.reverse(at_b.header.label, at_b.header.shift, 64, scheme, 2)
        message = control.Message.decode(at_b.payload)
        pong = Packet(
            at_b.header.with_(label=back, shift=0, quiet=True, hops=64),
            control.Message(control.PONG, id=message.id, payload=message.payload).encode(),
        )
        pong = _passed(scheme, pong, 1)
        self.same("pong-b-to-a", pong.encode())
        at_p = _passed(scheme, pong, 9)
        self.same("pong-a-to-p", at_p.encode())

    def test_ping_of_a_neighbour(self):
        """wire.md: W5-3, W5-32, W5-33, W5-36."""
        label, _ = labels.from_neighbour(1)
        ping = control.request(control.PING, ID, label, b"strowger")
        self.same("ping-neighbour", ping.encode())
        pong = control.Message(control.PONG, id=ID, payload=b"strowger")
        self.same("pong-neighbour", control.reply_to(ping, pong).encode())

    def test_trace(self):
        """wire.md: W5-22, W5-41."""
        label, _ = labels.from_neighbour(0xA2)
        self.same("trace-p-to-a", control.request(control.TRACE, ID, label, hops=0).encode())

    def test_error(self):
        """wire.md: W5-7, W5-26, W5-33, W5-51."""
        cause = Packet(SwitchHeader(0x800000000000001B, flow=0x0304), bytes(20))
        self.same("error-cause", cause.encode())
        error = Packet(
            SwitchHeader(0x8000000000000001, quiet=True, control=True, hops=63, flow=0x0304),
            control.Message(control.ERROR, 4, offending=cause.header).encode(),
        )
        self.same("error-reply", error.encode())
        self.assertLessEqual(len(error.encode()), len(cause.encode()))

    def test_goodbye(self):
        """wire.md: W5-12, W5-31, W5-62."""
        header = SwitchHeader(0x8000000000000001, quiet=True, control=True, hops=1)
        message = control.Message(control.GOODBYE, 1, payload=b"the relay stops")
        self.same("goodbye-a-to-p", Packet(header, message.encode()).encode())
        self.assertTrue(control.is_from_neighbour(header))
        self.assertFalse(control.is_from_neighbour(SwitchHeader(0x4500000000000001, 11)))


def _passed(scheme, packet, ingress):
    """The packet behind a switch at which it came in by this slot."""
    header = packet.header
    done = labels.step(scheme, header.label, header.shift, ingress)
    return Packet(
        header.with_(label=done.label, shift=done.shift, hops=header.hops - 1), packet.payload
    )


class Sealing(Vectors):
    KEY = transport.lane_key(bytes(range(32)), 2)
    INDEX = 0xABCDEF

    def seal(self, kind, counter, body):
        return transport.seal_packet(self.KEY, kind, 2, self.INDEX, counter, body)

    def test_sealed_packets(self):
        """wire.md: W3-1, W3-5, W3-6, W3-7, W3-9, W4-65."""
        self.same("lane-key-2", self.KEY)
        header = bytes.fromhex("10004000000000010000000000000413")
        self.same("sealed-full", self.seal(linkheader.SEALED, 7, header + b"hello"))
        body = header + bytes(range(0x54))
        sealed = self.seal(linkheader.SEALED_HEADER, 2**32 + 7, body)
        self.same("sealed-header-only", sealed)
        self.assertEqual(transport.open_packet(self.KEY, 2**32 + 7, sealed), body)

    def test_keepalives(self):
        """wire.md: W3-42."""
        self.same("keepalive-full", self.seal(linkheader.SEALED, 0, b""))
        self.same("keepalive-header-only", self.seal(linkheader.SEALED_HEADER, 0, b""))

    def test_path_challenges(self):
        """wire.md: W3-5, W3-21, W3-44."""
        token = bytes(range(1, 9))
        self.same("path-challenge", self.seal(linkheader.CHALLENGE, 8, token + bytes(32)))
        self.same("path-response", self.seal(linkheader.ANSWER, 9, token))

    def test_counters(self):
        """wire.md: W3-8, W3-36."""
        for edge, seen, low, expected in specification.table("counters"):
            window = transport.Window()
            for counter in seen.split() if seen != "-" else ():
                window.accept(int(counter))
            self.assertEqual(window.edge, int(edge))
            try:
                outcome = str(window.counter_of(int(low, 16)))
            except transport.Discarded as discarded:
                outcome = discarded.reason
            self.assertEqual(outcome, expected)


class Handshakes(Vectors):
    def test_functions(self):
        """wire.md: W4-17, W4-18, W4-23, W4-40, W4-74."""
        key = b"\x01" * 32
        self.same("mac", primitives.mac(key, "label", b"ab", b"", b"c"))
        self.same("prologue", noise.prologue(NETWORK))
        self.same("mac1-key", primitives.mac(B.static_key, "strowger mac1 key", NETWORK))
        self.same("cookie-key", primitives.mac(B.static_key, "strowger cookie key", NETWORK))
        self.same("key-hint-key", primitives.mac(B.static_key, "strowger key hint key"))

    def test_identities(self):
        """wire.md: W4-5, W4-58, W4-59."""
        keys = b"".join(node.public + node.static_private + node.static_key for node in (A, B))
        self.same("node-keys", keys)
        self.same("identity-proof-a", A.proof())
        self.same("identity-proof-b", B.proof())
        rows = dict((row[0], row[1:]) for row in specification.table("handshake-example"))
        self.assertEqual([A.peer_id, B.peer_id], [cell.strip("`") for cell in rows["PeerId"]])
        for node in (A, B):
            self.assertEqual(identity.check_proof(node.proof(), node.static_key), node.public)
            self.assertEqual(identity.public_of_peer_id(node.peer_id), node.public)

    def test_refused_proofs(self):
        """wire.md: W4-21, W4-58."""
        for name in (
            "identity-proof-refused-r",
            "identity-proof-refused-key",
            "identity-proof-refused-s",
        ):
            with self.assertRaises(identity.BadIdentity):
                identity.check_proof(example(name), B.static_key)

    def test_hellos(self):
        """wire.md: W4-4, W4-47, W4-48, W4-49, W4-50, W4-51, W4-52, W4-53, W4-54, W4-55, W4-56,
        W4-57, W4-62."""
        self.same("hello-a", HELLO_A.encode())
        self.same("hello-b", HELLO_B.encode())
        for hello in (HELLO_A, HELLO_B):
            self.assertEqual(Hello.decode(hello.encode()), hello)
            self.assertEqual(Hello.decode(hello.encode() + bytes(625)), hello)
        agreed = agree(HELLO_A, HELLO_B)
        self.assertEqual(agreed, agree(HELLO_B, HELLO_A))
        self.assertEqual((agreed.header_only, agreed.widths, agreed.mtu), (False, 1, 1400))

    def ik(self, psk):
        """Both messages of IKpsk2 and the keys of both ends."""
        initiator = handshake.IkInitiator(A, NETWORK, B.static_key, psk, b"\xa1" * 32)
        initiation = initiator.initiation(HELLO_A)
        responder = handshake.IkResponder(B, NETWORK, initiation)
        self.assertEqual((responder.hello, responder.peer_static), (HELLO_A, A.static_key))
        response, theirs = responder.response(HELLO_B, psk, b"\xb1" * 32)
        hello, ours = initiator.read_response(response)
        self.assertEqual((hello, ours.transcript), (HELLO_B, theirs.transcript))
        self.assertEqual((ours.seal, ours.open), (theirs.open, theirs.seal))
        return initiation, response, ours

    def lanes(self, keys):
        """The keys of the lanes in use: two of A, one of B."""
        used = [(keys.seal, 0), (keys.seal, 1), (keys.open, 0)]
        return keys.seal + keys.open + b"".join(transport.lane_key(*lane) for lane in used)

    def test_ik(self):
        """wire.md: W4-1, W4-19, W4-25, W4-32, W4-33, W4-38, W4-41, W4-64, W4-65."""
        initiation, response, keys = self.ik(handshake.NO_PSK)
        self.same("ik-initiation", initiation)
        self.same("ik-response", response)
        self.same("ik-transcript", keys.transcript)
        self.same("ik-keys", self.lanes(keys))

    def test_ik_with_psk(self):
        """wire.md: W4-24, W4-38, W4-39."""
        _, response, keys = self.ik(b"\x03" * 32)
        self.same("ik-psk-response", response)
        self.same("ik-psk-keys", keys.transcript + self.lanes(keys))
        other = handshake.IkInitiator(A, NETWORK, B.static_key, bytes(32), b"\xa1" * 32)
        other.initiation(HELLO_A)
        with self.assertRaises(primitives.Unreadable):
            other.read_response(response)

    def test_cookie(self):
        """wire.md: W4-42, W4-73, W4-74, W4-75, W4-77."""
        initiation = example("ik-initiation")
        made = cookie.cookie_for(SECRET, SOURCE)
        self.same("cookie", made)
        nonce = cookie.nonce_for(SECRET, SOURCE, initiation)
        reply = cookie.reply(initiation, made, nonce, B.static_key, NETWORK)
        self.same("cookie-reply", reply)
        self.assertEqual(cookie.read_reply(reply, initiation, B.static_key, NETWORK), made)
        self.same("ik-mac2", handshake.mac2(made, initiation[:-16]))

    def test_xx(self):
        """wire.md: W4-6, W4-34, W4-36, W4-37, W4-38, W4-41, W4-67, W4-68."""
        initiator = handshake.XxInitiator(A, NETWORK, b"\xa1" * 32)
        first = initiator.first(HELLO_A.index)
        self.same("xx-1", first)
        responder = handshake.XxResponder(B, NETWORK, SECRET, epoch=1)
        public = first[8:40]
        index = responder.index(SOURCE, public, HELLO_A.index)
        hello = HELLO_B.with_(index=index)
        ephemeral = responder.ephemeral(SOURCE, public, HELLO_A.index, hello)
        self.same("xx-responder", index.to_bytes(3, "big") + ephemeral)
        second = responder.second(first, SOURCE, HELLO_B)
        self.same("xx-2", second)
        peer_static, peer_hello, state = initiator.read_second(second)
        self.assertEqual((peer_static, peer_hello), (B.static_key, hello))
        third, ours = initiator.third(state, peer_hello, HELLO_A)
        self.same("xx-3", third)
        self.same("xx-transcript", ours.transcript)
        self.same("xx-keys", self.lanes(ours))
        self.assertTrue(responder.is_ours(third, SOURCE))
        self.assertFalse(responder.is_ours(third, SOURCE[:-1] + b"\x04"))
        peer_static, peer_hello, _, theirs = responder.read_third(third, SOURCE, HELLO_B)
        self.assertEqual((peer_static, peer_hello), (A.static_key, HELLO_A))
        self.assertEqual((ours.seal, ours.open), (theirs.open, theirs.seal))


_BEACON_PRIVATE = bytes.fromhex("eeaa39eb8e97c81ad41184258d237e35c66dc0d6f03fc43094a993d5bf929ac9")


class Beacons(Vectors):
    def test_beacon(self):
        """wire.md: W10-1, W10-2, W10-3, W10-4, W10-7, W10-8."""
        node = Identity(b"\x07" * 32, _BEACON_PRIVATE)
        made = beacon.encode(node, b"home")
        self.same("beacon", made)
        read = beacon.decode(made, b"home")
        self.assertEqual((read.static_key, read.ed25519), (node.static_key, node.public))
        with self.assertRaisesRegex(transport.Discarded, "bad_seal"):
            beacon.decode(made, b"another")


class Examples(unittest.TestCase):
    def test_every_example_of_the_link_protocol_is_named(self):
        text = specification.DOCUMENT.read_text("utf-8")
        sections = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)
        sections = [one for one in sections if not one.startswith(CONNECTIONS)]
        names = re.findall(r"^```hex (\S+)", "".join(sections), re.MULTILINE)
        here = Path(__file__).read_text("utf-8")
        here += Path(__file__).with_name("test_lookup_vectors.py").read_text("utf-8")
        self.assertEqual([name for name in names if f'"{name}"' not in here], [])


if __name__ == "__main__":
    unittest.main()
