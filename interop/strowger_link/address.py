"""Addresses of peers as text and bytes, and the IPv6 address of a PeerId (wire.md 6.9)."""

import ipaddress

from .identity import peer_id, public_of_peer_id
from .primitives import blake2s

_IP4, _IP6, _UDP, _P2P = 4, 41, 273, 421
_SWITCH, _STROWGER, _PROTOCOL = 0x300053, 0x300054, 0x300055
_PEER_ID_PREFIX = b"\x00\x24\x08\x01\x12\x20"
_LABEL_BYTES = (8, 16, 32)


def varint(number):
    """An unsigned varint of multiformats (W6-117)."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def _peer(text):
    raw = _PEER_ID_PREFIX + public_of_peer_id(text)
    return varint(_P2P) + varint(len(raw)) + raw


def _label(text):
    raw = bytes.fromhex(text.replace(".", ""))
    return varint(_SWITCH) + bytes([_LABEL_BYTES.index(len(raw))]) + raw


def to_bytes(text):
    """The bytes of an address in the text of W6-111. The text must be valid."""
    words, out = text.split("/")[1:], b""
    if words and words[0] in ("ip4", "ip6"):
        ip = ipaddress.ip_address(words[1])
        out += varint(_IP4 if ip.version == 4 else _IP6) + ip.packed
        out += varint(_UDP) + int(words[3]).to_bytes(2, "big") + varint(_STROWGER)
        words = words[5:]
    if out and words[:1] == ["p2p"] and words[2:3] == ["switch"]:
        out, words = out + _peer(words[1]), words[2:]
    if words[:1] == ["switch"]:
        has_label = "." in words[1]
        out, words = out + (_label(words[1]) if has_label else b""), words[1 + has_label :]
    if words[:1] == ["p2p"]:
        out, words = out + _peer(words[1]), words[2:]
    if words:
        name = "".join("/" + word for word in words).encode()
        out += varint(_PROTOCOL) + varint(len(name)) + name
    return out


def _read_varint(data, at):
    number, shift = 0, 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number, at


def to_text(data):
    """The text of an address in bytes (W6-117). The bytes must be valid."""
    text, at, has_label, has_peer = "", 0, False, False
    while at < len(data):
        code, at = _read_varint(data, at)
        if code in (_IP4, _IP6):
            length = 4 if code == _IP4 else 16
            text += f"/ip{4 if code == _IP4 else 6}/{ipaddress.ip_address(data[at : at + length])}"
            at += length
        elif code == _UDP:
            text += f"/udp/{int.from_bytes(data[at : at + 2], 'big')}"
            at += 2
        elif code == _STROWGER:
            text += "/strowger"
        elif code == _SWITCH:
            digits = data[at + 1 : at + 1 + _LABEL_BYTES[data[at]]].hex()
            at, has_label = at + 1 + len(digits) // 2, True
            text += "/switch/" + ".".join(digits[i : i + 4] for i in range(0, len(digits), 4))
        elif code in (_P2P, _PROTOCOL):
            length, at = _read_varint(data, at)
            field, at = data[at : at + length], at + length
            if code == _P2P:
                text += "/p2p/" + peer_id(field[len(_PEER_ID_PREFIX) :])
                has_peer = True
            else:
                text += ("" if has_label or has_peer else "/switch") + field.decode("ascii")
        else:
            raise ValueError(f"code {code:#x}")
    return text


def ip6(public):
    """The IPv6 address of the peer with this Ed25519 public key (W6-120)."""
    return ipaddress.ip_address(b"\xfd\x53" + blake2s(b"strowger ip6" + public)[:14])
