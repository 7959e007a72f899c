"""How connection packets reach a relay: over a link, or as a process on a slot (wire.md 1.3, 6)."""

import select
from dataclasses import dataclass

from .. import label as labels
from ..header import HOPS_MAX, Packet, SwitchHeader
from ..transport import Discarded


@dataclass(frozen=True)
class Arrival:
    """A packet that has arrived, and where an answer to it goes."""

    packet: Packet
    slot: int  # the ingress slot; 0 where there is one link
    back: int | None  # the return label; None if none is possible (W1.3-13)

    @property
    def header(self):
        """The switch header, as received."""
        return self.packet.header

    @property
    def payload(self):
        """The connection packet."""
        return self.packet.payload

    @property
    def length(self):
        """The bytes that W6-42 counts: all but link header and link tag."""
        return self.header.length + len(self.payload)

    @property
    def source(self):
        """S of cookies and of XX without state (W6-13)."""
        width = self.header.bits // 8
        return self.slot.to_bytes(4, "big") + bytes([width]) + self.back.to_bytes(width, "big")


def sent_header(label, shift, bits, fields):
    """The switch header of a packet that an endpoint sends (W6-127, W6-128, W6-129)."""
    return SwitchHeader(label, shift, bits, **{"hops": HOPS_MAX, **fields})


class LinkCarrier:
    """Sends and receives over a link of a node that is not a switch (W1.3-14, W1.3-15)."""

    packet_bytes_max = 9216

    def __init__(self, link):
        self.link, self.node = link, link.node
        self.log = []  # ("out" or "in", label, packet)

    def send(self, label, payload, *, bits=64, **fields):
        """Sends a connection packet along a label that begins at the relay."""
        complete, shift = labels.from_neighbour(label, bits)
        self.log.append(("out", label, payload))
        self.link.send(Packet(sent_header(complete, shift, bits, fields), payload))

    def wait(self, timeout_s):
        """Runs the node for at most this long."""
        self.node.poll(timeout_s)

    def receive(self):
        """What has arrived since the last call."""
        arrived, self.link.inbox = self.link.inbox, []
        return [self._arrival(packet) for packet in arrived]

    def _arrival(self, packet):
        header = packet.header
        try:
            back = labels.reverse(header.label, header.shift, header.bits)
        except labels.LabelError:
            back = None
        self.log.append(("in", back, packet.payload))
        return Arrival(packet, 0, back)

    def errors(self):
        """Errors and notices about packets that this link has sent: packet and message."""
        found, self.link.errors = self.link.errors, []
        return found

    def close(self):
        """Closes the node."""
        self.node.close()


class ProcessCarrier:
    """Sends and receives as a process on a slot of a relay (wire.md 8.3, W1.3-4, W1.3-6)."""

    packet_bytes_max = 9216

    def __init__(self, process, scheme="v3x5x8"):
        self.process, self.scheme = process, labels.SCHEMES[scheme]
        process.socket.setblocking(False)
        self.log = []

    def send(self, label, payload, *, bits=64, **fields):
        """Sends a connection packet along a label that begins at the relay."""
        complete, shift = labels.from_endpoint(label, bits)
        self.log.append(("out", label, payload))
        try:
            self.process.send(Packet(sent_header(complete, shift, bits, fields), payload).encode())
        except BlockingIOError:
            pass  # lost, as on any full queue

    def wait(self, timeout_s):
        """Waits at most this long for a packet."""
        select.select([self.process.socket], [], [], timeout_s)

    def receive(self):
        """What has arrived since the last call."""
        arrived = []
        while True:
            try:
                slot, _, body = self.process.receive()
            except BlockingIOError:
                return arrived
            if not body:
                return arrived
            try:
                packet = Packet.decode(body)
            except Discarded:
                continue
            header = packet.header
            try:
                back = labels.reverse(header.label, header.shift, header.bits, self.scheme, slot)
            except labels.LabelError:
                back = None
            self.log.append(("in", back, packet.payload))
            arrived.append(Arrival(packet, slot, back))

    def errors(self):
        """A process gets errors as packets with C, which the endpoint does not read here."""
        return []

    def close(self):
        """Ends the process's connection to the relay."""
        self.process.close()
