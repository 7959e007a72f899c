"""The cryptographic functions of the link protocol (wire.md 4, "Functions")."""

import hashlib
import hmac as hmac_module
import struct

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEY_BYTES = 32
TAG_BYTES = 16


class Unreadable(Exception):
    """A ciphertext or an X25519 key that must be refused."""


def mac(key, label, *parts):
    """Keyed BLAKE2s over label and parts, each after its length as u64 (W4-18)."""
    state = hashlib.blake2s(key=key)
    for part in (label.encode("ascii"), *parts):
        state.update(struct.pack(">Q", len(part)))
        state.update(part)
    return state.digest()


def mac16(key, label, *parts):
    """The first 16 bytes of `mac` (W4-18)."""
    return mac(key, label, *parts)[:16]


def same(one, other):
    """Compares two byte strings in constant time."""
    return hmac_module.compare_digest(one, other)


def blake2s(data):
    """HASH of Noise: BLAKE2s without key, 32 bytes of output (W4-19)."""
    return hashlib.blake2s(data).digest()


def hkdf(chaining_key, material, outputs):
    """HKDF of section 4.3 of Noise over HMAC-BLAKE2s (W4-19)."""

    def hmac(key, data):
        return hmac_module.new(key, data, hashlib.blake2s).digest()

    temporary = hmac(chaining_key, material)
    results, last = [], b""
    for number in range(1, outputs + 1):
        last = hmac(temporary, last + bytes([number]))
        results.append(last)
    return results


def x25519_public(private):
    """The public key of this private key."""
    return x25519.X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private, public):
    """X25519; refuses a result of 32 zeros (W4-20)."""
    try:
        peer = x25519.X25519PublicKey.from_public_bytes(public)
        return x25519.X25519PrivateKey.from_private_bytes(private).exchange(peer)
    except ValueError as error:
        raise Unreadable("X25519 gives zeros") from error


def nonce(counter):
    """Four zero bytes and the counter, least significant byte first (W3-9)."""
    return bytes(4) + struct.pack("<Q", counter)


def seal(key, counter, data, additional):
    """ChaCha20-Poly1305: the ciphertext and its tag of 16 bytes (W3-5, W4-19)."""
    return ChaCha20Poly1305(key).encrypt(nonce(counter), data, additional)


def unseal(key, counter, data, additional):
    """The opposite of `seal`; raises `Unreadable` if the tag is wrong."""
    try:
        return ChaCha20Poly1305(key).decrypt(nonce(counter), data, additional)
    except InvalidTag as error:
        raise Unreadable("wrong tag") from error


def hchacha20(key, prefix):
    """HChaCha20 of draft-irtf-cfrg-xchacha-03, section 2.2: a key from a key and 16 bytes."""
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + prefix))

    def rotate(value, bits):
        return ((value << bits) | (value >> (32 - bits))) & 0xFFFFFFFF

    def quarter_round(a, b, c, d):
        for first, second, third, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[first] = (state[first] + state[second]) & 0xFFFFFFFF
            state[third] = rotate(state[third] ^ state[first], bits)

    for _ in range(10):
        for column in range(4):
            quarter_round(column, column + 4, column + 8, column + 12)
        for diagonal in range(4):
            quarter_round(
                diagonal,
                (diagonal + 1) % 4 + 4,
                (diagonal + 2) % 4 + 8,
                (diagonal + 3) % 4 + 12,
            )
    return struct.pack("<8I", *state[:4], *state[12:])


def xseal(key, nonce24, data, additional):
    """XChaCha20-Poly1305 (W4-74)."""
    subkey = hchacha20(key, nonce24[:16])
    return ChaCha20Poly1305(subkey).encrypt(bytes(4) + nonce24[16:], data, additional)


def xunseal(key, nonce24, data, additional):
    """The opposite of `xseal`; raises `Unreadable` if the tag is wrong."""
    subkey = hchacha20(key, nonce24[:16])
    try:
        return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce24[16:], data, additional)
    except InvalidTag as error:
        raise Unreadable("wrong tag") from error


def ed25519_public(seed):
    """The public key of this seed (RFC 8032)."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def ed25519_sign(seed, message):
    """A signature of 64 bytes (RFC 8032)."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def ed25519_verify(public, signature, message):
    """Whether the signature is right, verified strictly (W4-21)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    if int.from_bytes(signature[32:], "little") >= _ORDER:
        return False
    if not _is_point_of_large_order(public) or not _is_point_of_large_order(signature[:32]):
        return False
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME


def _is_point_of_large_order(encoded):
    """Whether this is a point of edwards25519 (RFC 8032, 5.1.3) whose order is above 8."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _PRIME:
        return False
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME
    x = pow(square, (_PRIME + 3) // 8, _PRIME)
    if (x * x - square) % _PRIME != 0:
        x = x * pow(2, (_PRIME - 1) // 4, _PRIME) % _PRIME
    if (x * x - square) % _PRIME != 0 or (x == 0 and sign == 1):
        return False
    for _ in range(3):  # eight times the point; the sign of x does not matter
        product = _D * x * x * y * y
        x, y = (
            2 * x * y * pow(1 + product, -1, _PRIME) % _PRIME,
            (y * y + x * x) * pow(1 - product, -1, _PRIME) % _PRIME,
        )
    return (x, y) != (0, 1)
