"""Secrets that two ends derive from the keys of their connection (W6-25)."""

from ..primitives import mac


def exporter(to_responder, to_initiator):
    """X of W6-25, from the two keys of W4-64."""
    return mac(to_responder, "strowger connection exporter", to_initiator)


def direct_link_psk(x, asking_nonce, answering_nonce, asking_key, answering_key):
    """The psk of a direct link; nonces of 16 bytes, link keys of 32."""
    parts = (asking_nonce, answering_nonce, asking_key, answering_key)
    return mac(x, "strowger direct link psk", *parts)
