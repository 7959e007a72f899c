"""Label arithmetic on random requests, compared with `strowger conform` reply by reply."""

import json
import random
import subprocess
import unittest

from harness.relay import DEADLINE_S, command
from strowger_link import conform, label
from strowger_link.label import SCHEMES

COUNT = 4000

# For slots up to 4,095, with free prefixes, with a wide self form, and without a self form.
MORE = ["811448c100", "6114c58100", "6114c581302001", "621850", "622810"]
NAMES = [*SCHEMES, *MORE]


class Requests:
    """Makes requests that are near the limits more often than chance would."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def slot(self):
        choose = self.random
        return choose.choice([0, 1, 2, choose.randrange(8), choose.randrange(40), choose.randrange(300)])

    def label(self, bits):
        length = self.random.choice([1, 4, 5, 11, bits - 5, bits - 4, bits - 3, bits])
        value = self.random.getrandbits(length)
        if self.random.random() < 0.3:  # a path that ends
            value = 1 << self.random.randrange(bits) | value & 0xFFFF
        return value & ((1 << bits) - 1)

    def text(self, bits):
        return format(self.label(bits), "x")

    def request(self):
        bits = self.random.choice([64, 64, 128, 256])
        scheme = self.random.choice(NAMES)
        operation = self.random.choice(sorted(_MAKERS))
        request = {"op": operation, "scheme": scheme, **_MAKERS[operation](self, bits)}
        if operation in _WITHOUT_SCHEME:
            del request["scheme"]
        return {**request, "bits": bits} if bits != 64 else request


def _encode(make, bits):
    request = {"slot": make.slot()}
    if make.random.random() < 0.7:
        request["width"] = make.random.choice([4, 5, 7, 8, 9, 10, 14, 31])
    return request


def _widen(make, bits):
    if make.random.random() < 0.5:
        return {"label": make.text(bits), "asker": make.text(bits)}
    return {"label": make.text(bits), "ingress": make.slot()}


def _step(make, bits):
    return {
        "label": make.text(bits),
        "shift": make.random.choice([0, 1, 4, 11, bits - 11, bits - 5, bits - 4, bits - 1]),
        "from": make.slot(),
        "taken": sorted({make.slot() for _ in range(20)} - {1}),
    }


def _reverse(make, bits):
    request = {"label": make.text(bits), "shift": make.random.choice([0, 1, 4, 11, bits - 5, bits - 1])}
    if make.random.random() < 0.7:
        request["ingress"] = make.slot()
    return request


def _build(make, bits):
    hops = [
        {"scheme": make.random.choice(NAMES), "out": make.slot(), "in": make.slot()}
        for _ in range(make.random.choice([0, 1, 1, 2, 3, 8]))
    ]
    return {"per": make.random.choice(["switch", "link"]), "hops": hops}


_MAKERS = {
    "encode": _encode,
    "decode": lambda make, bits: {"label": make.text(bits)},
    "splice": lambda make, bits: {"onward": make.text(bits), "first": make.text(bits)},
    "unsplice": lambda make, bits: {"full": make.text(bits), "first": make.text(16)},
    "routes_through": lambda make, bits: {"label": make.text(bits), "via": make.text(16)},
    "hop_count": lambda make, bits: {"label": make.text(bits)},
    "convert": lambda make, bits: {
        "label": make.text(bits),
        "form": make.random.choice([0, 1, 2, 3, "canonical"]),
    },
    "widen": _widen,
    "step": _step,
    "reverse": _reverse,
    "build": _build,
}

_WITHOUT_SCHEME = ["splice", "unsplice", "routes_through"]


class Conform(unittest.TestCase):
    def test_random_requests(self):
        """wire.md: W1.1-16, W1.1-17, W1.1-19, W1.1-24, W1.1-25, W1.2-1, W1.2-4, W1.3-1, W1.3-7,
        W1.3-9, W1.4-1, W1.4-2, W1.4-3, W1.4-4, W1.4-5, W1.4-6, W1.4-7, W1.4-9, W1.4-10, W1.4-11,
        W1.4-12, W1.4-13, W1.4-14, W1.4-15, W1.5-1."""
        make = Requests(seed=20260101)
        requests = [make.request() for _ in range(COUNT)]
        theirs = answers(requests)
        different = [
            f"{json.dumps(request)}\n  ours {ours}\n  theirs {reply}"
            for request, reply in zip(requests, theirs, strict=True)
            if (ours := conform.answer(request)) != reply
        ]
        self.assertEqual(different[:5], [], f"{len(different)} replies differ")

    def test_random_serialisations(self):
        """wire.md: W1.1-2, W1.1-7, W1.1-9, W1.1-10, W1.1-11, W1.1-12, W1.1-14, W1.1-15, W1.1-20,
        W1.1-21, W1.1-22."""
        chance = random.Random(20260102)
        requests = []
        for _ in range(2000):
            data = bytearray(bytes.fromhex(chance.choice(["8000", "6114458100", "810c08", *MORE])))
            for _ in range(chance.randrange(3)):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            if chance.random() < 0.2:
                data = data[:-1]
            requests.append({"op": "scheme", "serialized": bytes(data).hex()})
        for request, reply in zip(requests, answers(requests), strict=True):
            ours = conform.answer(request)
            self.assertEqual(ours["sane"], reply["sane"], (request, ours, reply))
            if ours["sane"]:
                self.assertEqual(ours, reply, request)
                scheme = label.Scheme.read(bytes.fromhex(request["serialized"]))
                self.assertEqual(scheme.serialise().hex(), request["serialized"])


def answers(requests):
    """The replies of the command."""
    done = subprocess.run(
        [command(), "conform"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
