"""The texts that keep keys, macs and signatures of links and connections apart (wire.md W6-22)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Domain:
    """One column of the table of W6-22."""

    prologue: bytes  # text and version
    proof: bytes
    mac1_key: str
    cookie_key: str
    hint_key: str
    lane_key: str


LINK = Domain(
    prologue=b"strowger link\x01",  # W4-23
    proof=b"strowger-link-static-key:",  # W4-5
    mac1_key="strowger mac1 key",  # W4-40
    cookie_key="strowger cookie key",  # W4-74
    hint_key="strowger key hint key",  # W4-17
    lane_key="strowger link lane key",  # W4-65
)
CONNECTION = Domain(
    prologue=b"strowger connection\x01",
    proof=b"strowger-connection-static-key:",
    mac1_key="strowger connection mac1 key",
    cookie_key="strowger connection cookie key",
    hint_key="strowger connection key hint key",
    lane_key="strowger connection lane key",
)
