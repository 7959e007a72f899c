"""A process on a slot of a relay (wire.md 8.3)."""

import os

from harness.case import RelayCase
from strowger_link import control
from strowger_link import label as labels
from strowger_link.carriage import Process, Train
from strowger_link.header import Packet, SwitchHeader
from strowger_link.label import SCHEMES

UNIX = '[[unix]]\nname = "local"\npath = "{folder}/local"\nslot = 4\n'


class OnASlot(RelayCase):
    def process(self, relay, link=None):
        """A process at the slot; with a link, one that the relay has accepted."""
        process = Process(relay.folder / "local")
        self.addCleanup(process.close)
        process.socket.settimeout(60)
        if link is not None:
            process.send(Packet(SwitchHeader(1 << 63 | 0x15, 1), bytes(40)).encode())
            self.until(lambda: link.inbox, "the first packet of the process")
            link.inbox.clear()
        return process

    def to_process(self, **fields):
        label, shift = labels.from_neighbour(0x19)
        return Packet(SwitchHeader(label, shift, **fields), b"hello" * 8)

    def test_both_directions(self):
        """wire.md: W1.3-2, W1.3-3, W1.3-4, W1.3-6, W1.3-12, W8-1, W8-2, W8-29, W8-30, W8-31."""
        relay, node, link = self.linked(UNIX)
        process = self.process(relay, link)
        scheme = SCHEMES["v3x5x8"]
        for number in (1, 2):
            sent = self.to_process(hops=9, class_=3, flow=number, ecn=1)
            link.send(sent)
            ingress, header, body = process.receive()
            self.assertEqual(ingress, 2)
            self.assertEqual(header, b"\x60\0\0\0" + number.to_bytes(4, "big"))
            self.assertEqual(Packet.decode(body), sent)
        back = labels.reverse(sent.header.label, sent.header.shift, 64, scheme, ingress)
        label, shift = labels.from_endpoint(back)
        answer = Packet(SwitchHeader(label, shift), b"world" * 8)
        process.send(answer.encode())
        self.until(lambda: link.inbox, "the answer")
        done = labels.step(scheme, label, shift, 4)
        expected = answer.header.with_(label=done.label, shift=done.shift, hops=63)
        self.assertEqual(link.inbox[0], Packet(expected, answer.payload))
        # The return label of this packet leads back to the process.
        returned = labels.reverse(done.label, done.shift)
        self.assertEqual(returned, 0x19)

    def test_trains(self):
        """wire.md: W8-39, W8-41, W8-43, W8-46, W8-48, W8-49."""
        relay, node, link = self.linked(UNIX)
        process = self.process(relay)
        greeting = process.greet()
        self.assertEqual((greeting.version, greeting.slot), (2, 4))
        self.assertEqual(greeting.scheme, SCHEMES["v3x5x8"].serialise())
        label, shift = labels.from_endpoint(0x15)
        texts = [bytes([number]) * (40 if number < 9 else 7) for number in range(10)]
        packets = [Packet(SwitchHeader(label, shift), text).encode() for text in texts]
        process.send_train(packets)
        self.until(lambda: len(link.inbox) == 10, "the packets of the train")
        self.assertEqual([packet.payload for packet in link.inbox], texts)
        process.send(packets[0])
        self.until(lambda: len(link.inbox) == 11, "a packet in the first form")
        sent = [self.to_process(flow=number) for number in range(20)]
        for packet in sent:
            link.send(packet)
        got = []
        while len(got) < len(sent):
            ingress, some = process.receive_train()
            self.assertEqual(ingress, 2)
            got += [Packet.decode(packet[8:]) for packet in some]
        self.assertEqual(got, sent)
        self.assertEqual(process.greet(), greeting)

    def test_messages_of_the_second_form_that_are_discarded(self):
        """wire.md: W8-40, W8-50, W8-51, W8-52."""
        relay, node, link = self.linked(UNIX)
        process = self.process(relay)
        label, shift = labels.from_endpoint(0x15)
        packet = Packet(SwitchHeader(label, shift), b"hello" * 8).encode()
        train = Train([packet, packet]).to_switch()
        process.send_message(train)  # before the greeting
        self.discarded(relay, "malformed", 1)
        mtu = process.greet().mtu
        wrong = [train[:7], train[:4] + b"\0\0" + train[6:], train[:7] + b"\1" + train[8:], train[:8]]
        wrong += [b"\xff\xff\xff\xffstrx\x02", Train([packet] * 65).to_switch(), bytes(4)]
        for number, message in enumerate(wrong, 2):
            process.send_message(message)
            self.discarded(relay, "malformed", number)
        process.send_message(train[:4] + (mtu + 1).to_bytes(2, "big") + train[6:])
        self.discarded(relay, "truncated", 1)
        self.assertEqual(link.inbox, [])
        process.send_message(train)
        self.until(lambda: len(link.inbox) == 2, "a good train")

    def test_the_forward_part_behind_an_endpoint(self):
        """wire.md: W1.3-2, W1.3-10, W1.3-11."""
        relay, node, link = self.linked(UNIX)
        process = self.process(relay, link)
        sent = self.to_process()
        bare = Packet(sent.header.with_(label=1 << 63 | 0x9), sent.payload)
        link.send(bare)
        self.assertEqual(Packet.decode(process.receive()[2]), bare)
        link.send(Packet(sent.header.with_(label=1 << 63 | 0x159), sent.payload))
        self.discarded(relay, "beyond_endpoint", 1)

    def test_messages_that_are_discarded(self):
        """wire.md: W8-27, W8-28."""
        relay, node, link = self.linked(UNIX)
        process = self.process(relay, link)
        good = Packet(SwitchHeader(1 << 63 | 0x15, 1), bytes(40)).encode()
        process.send_message(b"\0\0\0\1" + b"\x60" + bytes(7) + good)
        self.discarded(relay, "malformed", 1)
        process.send_message(b"\0\0\0")
        self.discarded(relay, "malformed", 2)
        process.send_message(bytes(4) + b"\x60" + bytes(7) + good + bytes(3000))
        self.discarded(relay, "truncated", 1)
        process.send(good)
        self.until(lambda: link.inbox, "a good packet")

    def test_one_process_at_a_time(self):
        """wire.md: W8-26, W8-32, W8-35."""
        relay, node, link = self.linked(UNIX)
        first = self.process(relay, link)
        second = self.process(relay)
        self.assertEqual(second.receive_message(), Process.BUSY)
        self.assertEqual(second.receive_message(), b"")
        good = Packet(SwitchHeader(1 << 63 | 0x15, 1), bytes(40)).encode()
        for _ in range(5):
            first.send(good)
        first.close()  # what it has sent is read
        self.until(lambda: len(link.inbox) == 5, "all packets")

        def next_process():
            process = Process(relay.folder / "local")
            process.socket.settimeout(0.05)
            link.send(self.to_process())
            node.poll(0)
            try:
                message = process.receive_message()
            except TimeoutError:
                message = b""
            process.close()
            return message not in (b"", Process.BUSY)

        self.until(next_process, "the next process is served")

    def test_without_a_process(self):
        """wire.md: W8-33."""
        relay, node, link = self.linked(UNIX)
        link.send(self.to_process())
        self.discarded(relay, "peer_gone", 1)

    def test_a_process_that_does_not_read(self):
        """wire.md: W5-30, W5-52, W8-34."""
        relay, node, link = self.linked(UNIX)
        process = self.process(relay, link)
        sent = 0

        def full():
            nonlocal sent
            for _ in range(50):
                link.send(self.to_process(flow=sent & 0xFFFF))
                sent += 1
            return relay.discards("egress_full") > 0

        self.until(full, "egress_full")
        self.until(lambda: link.errors, "a congestion notice")
        self.assertEqual(link.errors[0][1].kind, control.CONGESTION)
        lost = relay.discards("egress_full")
        process.socket.settimeout(0.5)
        got = 0
        try:
            while True:
                process.receive()
                got += 1
        except TimeoutError:
            pass
        self.assertGreaterEqual(got, 64)
        self.assertLessEqual(got + lost, sent)

    def test_the_relay_stops(self):
        """wire.md: W8-36."""
        relay = self.relay(UNIX)
        process = self.process(relay)
        relay.stop()
        self.assertEqual(process.receive_message(), b"")
        self.assertFalse(os.path.exists(relay.folder / "local"))
        with self.assertRaises(OSError):
            Process(relay.folder / "local")

    def test_rights_for_endpoints(self):
        """wire.md: W1.2-12, W5-9."""
        relay, node, link = self.linked(UNIX, rights='["transit", "control"]')
        process = self.process(relay, link)
        link.send(self.to_process())
        self.until(lambda: link.errors, "an error")
        self.assertEqual(link.errors[0][1].code, 4)
        self.assertEqual(relay.discards("not_allowed"), 1)
        process.socket.setblocking(False)
        with self.assertRaises(BlockingIOError):
            process.socket.recv(100)
