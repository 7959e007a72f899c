"""Path challenges and the validation of addresses of one link (wire.md 3.4 and 3.5)."""

import os
from dataclasses import dataclass

CHALLENGE_BYTES = 32  # the shortest challenge, and every response (W3-21, W3-44)
VALIDATED_CHALLENGE_BYTES = 64  # W3-52
TOKEN_S = 5.0
_OVERHEAD = 32  # link header, token, tag


def challenge_body(token, length=CHALLENGE_BYTES):
    """The body of a challenge whose packet has this length (W3-21)."""
    return token + bytes(length - _OVERHEAD)


@dataclass
class Challenge:
    """A challenge that awaits its response."""

    token: bytes
    address: object
    length: int
    begun: float
    sent: float


class Paths:
    """The validated address of a link, and what is known of others."""

    def __init__(self, configured=None):
        self.configured = configured
        self.address = configured  # where initiations go
        self.validated = False
        self.challenges = []
        self.handshake_source = None  # of the peer's last handshake message
        self._credit_address, self._credit = None, 0

    def is_validated(self, address):
        """Whether data may be sent there (W3-50)."""
        return self.validated and address == self.address

    def validate(self, address):
        """The peer has proved that it receives there (W3-23, W3-54). Returns whether it moved."""
        moved = self.validated and address != self.address
        self.address, self.validated = address, True
        return moved

    def forget(self):
        """No address is validated any more."""
        self.validated = False

    # W3-51

    def heard(self, address, length):
        """An authentic packet of this length came from there."""
        if self.is_validated(address):
            return
        if address != self._credit_address:
            self._credit_address, self._credit = address, 0
        self._credit += length

    def may_send(self, address, length):
        """Whether a sealed packet of this length may go there. Spends the credit."""
        if self.is_validated(address):
            return True
        if address != self._credit_address or self._credit < length:
            return False
        self._credit -= length
        return True

    # Challenges

    def awaited(self, address, now):
        """The challenge to this address whose response is awaited, or None."""
        for challenge in self.challenges:
            if challenge.address == address and now - challenge.begun < TOKEN_S:
                return challenge
        return None

    def challenge(self, address, now, length=None):
        """A new challenge, or a copy of the one that is awaited (W3-49)."""
        if length is None:
            known = self.is_validated(address)
            length = VALIDATED_CHALLENGE_BYTES if known else CHALLENGE_BYTES  # W3-52
        challenge = self.awaited(address, now)
        if challenge is None or challenge.length != length:
            challenge = Challenge(os.urandom(8), address, length, now, now)
            self.challenges = [old for old in self.challenges if now - old.begun < TOKEN_S]
            self.challenges.append(challenge)
        challenge.sent = now
        return challenge

    def answered(self, token, address):
        """The challenge that this response ends, or None if it has no effect (W3-48)."""
        for challenge in self.challenges:
            if challenge.token == token and challenge.address == address:
                self.challenges.remove(challenge)
                return challenge
        return None
