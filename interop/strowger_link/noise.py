"""The symmetric state of Noise, revision 34, section 5.2, with the functions of W4-19."""

from . import primitives
from .domain import LINK

IK_NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
XX_NAME = b"Noise_XX_25519_ChaChaPoly_BLAKE2s"


def prologue(network, domain=LINK):
    """The prologue of both handshakes in the network of this name (W4-23, W6-22)."""
    return domain.prologue + bytes([len(network)]) + network


class SymmetricState:
    """Chaining key, transcript and cipher of one handshake."""

    def __init__(self, name, network, domain=LINK):
        # W4-19: both names are longer than 32 bytes. W4-38: then MixHash(prologue).
        self.hash = self.chaining_key = primitives.blake2s(name)
        self.key = None
        self.counter = 0
        self.mix_hash(prologue(network, domain))

    def copy(self):
        """An independent copy, so that a message that is refused changes nothing."""
        other = object.__new__(SymmetricState)
        other.__dict__.update(self.__dict__)
        return other

    def mix_hash(self, data):
        """MixHash."""
        self.hash = primitives.blake2s(self.hash + data)

    def mix_key(self, material):
        """MixKey."""
        self.chaining_key, self.key = primitives.hkdf(self.chaining_key, material, 2)
        self.counter = 0

    def mix_key_and_hash(self, material):
        """MixKeyAndHash."""
        self.chaining_key, temporary, self.key = primitives.hkdf(self.chaining_key, material, 3)
        self.mix_hash(temporary)
        self.counter = 0

    def encrypt_and_hash(self, data):
        """EncryptAndHash. Without a key the data stays in clear."""
        if self.key is not None:
            data = primitives.seal(self.key, self.counter, data, self.hash)
            self.counter += 1
        self.mix_hash(data)
        return data

    def decrypt_and_hash(self, data):
        """DecryptAndHash; raises `Unreadable` if the tag is wrong."""
        clear = data
        if self.key is not None:
            clear = primitives.unseal(self.key, self.counter, data, self.hash)
            self.counter += 1
        self.mix_hash(data)
        return clear

    def split(self):
        """Split: the keys from initiator to responder, and back (W4-64)."""
        return tuple(primitives.hkdf(self.chaining_key, b"", 2))
