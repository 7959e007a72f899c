"""How packets are carried: UDP, Ethernet frames, and messages of a process on a slot (wire.md 8)."""

import socket
import struct
from dataclasses import dataclass

from . import beacon
from .linkheader import plain
from .transport import Discarded

ETHERTYPE = 0x88B5
_TPID = 0x8100
# The first bytes of a greeting, and of a train of a process.
GREETING = b"\xff\xff\xff\xfe"
REASON = b"\xff\xff\xff\xfd"  # of a refusal


class UdpPort:
    """A UDP socket; an address is what `sendto` takes (wire.md 8.1)."""

    def __init__(self, address, family=socket.AF_INET):
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET:
            # W8-10: Don't Fragment is set. The values are those of Linux.
            self.socket.setsockopt(socket.IPPROTO_IP, 10, 2)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.address = self.socket.getsockname()

    def send(self, packet, address):
        """Sends a packet. One that the path does not take is lost."""
        try:
            self.socket.sendto(packet, address)
        except (BlockingIOError, ConnectionRefusedError, OSError):
            pass

    def receive(self):
        """The next packet and its source, or None."""
        try:
            packet, address = self.socket.recvfrom(65536)
        except (BlockingIOError, ConnectionRefusedError):
            return None
        return packet, address

    def source_bytes(self, address):
        """The source in the input of cookies (W4-73)."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        return socket.inet_pton(family, address[0]) + address[1].to_bytes(2, "big")

    def close(self):
        """Closes the socket."""
        self.socket.close()


class Frame:
    """An Ethernet frame with one packet (W8-14, W8-15, W8-16, W8-17, W8-18, W8-19, W8-20, W8-21, W8-22, W8-23, W8-24, W8-25)."""

    def __init__(self, destination, source, packet, vlan=None, ethertype=ETHERTYPE):
        self.destination, self.source, self.packet = destination, source, packet
        self.vlan, self.ethertype = vlan, ethertype

    def encode(self):
        """The bytes, padded to 60."""
        tag = b"" if self.vlan is None else struct.pack(">HH", _TPID, self.vlan)
        head = self.destination + self.source + tag
        head += struct.pack(">HH", self.ethertype, len(self.packet))
        return (head + self.packet).ljust(60, b"\0")

    @classmethod
    def decode(cls, frame, own, *, vlan=None, beacons=False, ethertype=ETHERTYPE):
        """Reads a frame; raises `Discarded`. A frame of another protocol gives None (W8-18)."""
        if len(frame) < 14:
            return None
        destination, source, offset, tag = frame[:6], frame[6:12], 12, None
        if frame[12:14] == struct.pack(">H", _TPID):
            tag = int.from_bytes(frame[14:16], "big") & 0xFFF
            offset = 16
        if frame[offset : offset + 2] != ethertype.to_bytes(2, "big"):
            return None
        if (tag or None) != vlan:
            raise Discarded("unknown_sender")  # W8-23, W8-24
        if source[0] & 1 or source == bytes(6) or source == own:
            raise Discarded("unknown_sender")  # W8-21
        length = int.from_bytes(frame[offset + 2 : offset + 4], "big")
        packet = frame[offset + 4 : offset + 4 + length]
        if len(frame) < offset + 4 or len(packet) < length:
            raise Discarded("malformed")  # W8-17
        to_group = beacons and destination == beacon.GROUP and packet[:1] == b"\x70"
        if destination != own and not to_group:
            raise Discarded("unknown_sender")  # W8-19, W8-20, W10-11
        return cls(destination, source, packet, tag, ethertype)


class EthernetPort:
    """A packet socket at an interface; an address is a MAC address of 6 bytes."""

    _PACKET_AUXDATA, _SOL_PACKET = 8, 263
    _AUXDATA = struct.Struct("=IIIHHHH")
    _VLAN_VALID = 1 << 4

    def __init__(self, interface, own, *, vlan=None, beacons=False, ethertype=ETHERTYPE):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        self.socket.setsockopt(self._SOL_PACKET, self._PACKET_AUXDATA, 1)
        self.socket.bind((interface, 0x0003))
        if beacons:
            index = socket.if_nametoindex(interface)
            membership = struct.pack("iHH8s", index, 0, 6, beacon.GROUP)
            self.socket.setsockopt(self._SOL_PACKET, 1, membership)
        self.socket.setblocking(False)
        self.address = self.own = own
        self.vlan, self.beacons, self.ethertype = vlan, beacons, ethertype

    def send(self, packet, address):
        """Sends a packet to this station."""
        self.send_frame(Frame(address, self.own, packet, self.vlan, self.ethertype).encode())

    def send_frame(self, frame):
        """Sends a frame as it is."""
        try:
            self.socket.send(frame)
        except OSError:
            pass

    def receive_frame(self):
        """The next frame with its VLAN tag, or None."""
        try:
            frame, auxiliary, _, address = self.socket.recvmsg(65536, 256)
        except BlockingIOError:
            return None
        if address[2] == socket.PACKET_OUTGOING:
            return b""
        for level, kind, data in auxiliary:
            if level == self._SOL_PACKET and kind == self._PACKET_AUXDATA:
                status, _, _, _, _, tci, tpid = self._AUXDATA.unpack(data[: self._AUXDATA.size])
                if status & self._VLAN_VALID:  # the kernel took the tag off the frame
                    frame = frame[:12] + struct.pack(">HH", tpid or _TPID, tci) + frame[12:]
        return frame

    def receive(self):
        """The next packet and its source, or None. Other frames give an empty packet."""
        frame = self.receive_frame()
        if frame is None:
            return None
        try:
            read = Frame.decode(
                frame, self.own, vlan=self.vlan, beacons=self.beacons, ethertype=self.ethertype
            )
        except Discarded:
            read = None
        return (read.packet, read.source) if read else (b"", b"")

    def source_bytes(self, address):
        """The source in the input of cookies (W4-73)."""
        return address

    def close(self):
        """Closes the socket."""
        self.socket.close()


class Process:
    """A process on a slot of a switch (wire.md 8.3)."""

    BUSY = b"\xff\xff\xff\xff"
    REQUEST = BUSY + b"strw\x02"

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.sent = 0

    def send(self, packet):
        """Sends switch header and payload."""
        self.send_message(bytes(4) + plain(self.sent) + packet)
        self.sent += 1

    def send_message(self, message):
        """Sends a message as it is."""
        self.socket.send(message)

    def receive_message(self):
        """The next message; empty when the connection has ended."""
        return self.socket.recv(70_000)

    def receive(self):
        """Ingress slot, link header, and switch header with payload of the next packet."""
        message = self.receive_message()
        return int.from_bytes(message[:4], "big"), message[4:12], message[12:]

    def greet(self):
        """Asks for the second form (W8-39) and returns the greeting."""
        self.send_message(self.REQUEST)
        return Greeting.decode(self.receive_message())

    def send_train(self, packets):
        """Sends packets, each of switch header and payload, in one message (W8-49)."""
        self.send_message(Train(packets).to_switch())

    def receive_train(self):
        """Ingress slot and packets, link headers included, of the next train (W8-45)."""
        return Train.from_switch(self.receive_message())

    def close(self):
        """Ends the connection."""
        self.socket.close()


@dataclass(frozen=True)
class Refusal:
    """Why a switch refuses a process (W8-55)."""

    code: int
    seconds: int = 0
    text: str = ""

    def encode(self):
        """The message."""
        return struct.pack(">4sBI", REASON, self.code, self.seconds) + self.text.encode()

    @classmethod
    def decode(cls, message):
        """Reads the message; a wrong one raises `ValueError`. The text loses control characters."""
        if not 9 <= len(message) <= 209 or message[:4] != REASON:
            raise ValueError("not a refusal")
        _, code, seconds = struct.unpack(">4sBI", message[:9])
        text = "".join(one if one.isprintable() else "?" for one in message[9:].decode("utf-8"))
        return cls(code, seconds, text)


@dataclass(frozen=True)
class Greeting:
    """What a switch says of the slot of a process (W8-41)."""

    mtu: int
    slot: int
    scheme: bytes
    identity: bytes
    version: int = 2

    def encode(self):
        """The message."""
        fixed = struct.pack(">4sBHIB", GREETING, self.version, self.mtu, self.slot, len(self.scheme))
        return fixed + self.scheme + self.identity

    @classmethod
    def decode(cls, message):
        """Reads the message; a wrong one raises `ValueError` (W8-42)."""
        if len(message) < 12 or message[:4] != GREETING:
            raise ValueError("not a greeting")
        _, version, mtu, slot, scheme = struct.unpack(">4sBHIB", message[:12])
        if version != 2 or len(message) != 44 + scheme or mtu == 0:
            raise ValueError("a greeting of another version or length")
        return cls(mtu, slot, message[12 : 12 + scheme], message[12 + scheme :])


class Train:
    """Packets of one length in one message; the last one may be shorter (W8-46)."""

    def __init__(self, packets):
        self.packets = packets

    def to_switch(self):
        """The message of a process. The packets get their link headers here."""
        return self._encode(GREETING, [plain(0) + packet for packet in self.packets])

    def to_process(self, ingress):
        """The message of a switch. The packets have their link headers."""
        return self._encode(ingress.to_bytes(4, "big"), self.packets)

    @staticmethod
    def _encode(first, packets):
        segment = len(packets[0])
        assert all(len(one) == segment for one in packets[:-1]) and len(packets[-1]) <= segment
        return first + struct.pack(">HH", segment, 0) + b"".join(packets)

    @staticmethod
    def from_switch(message):
        """Ingress slot and packets of a message of a switch."""
        ingress, segment, _ = struct.unpack(">IHH", message[:8])
        body = message[8:]
        return ingress, [body[at : at + segment] for at in range(0, len(body), segment)]
