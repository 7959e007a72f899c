"""The commands `python3 -m strowger_link listen` and `connect`, over a relay."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness.peers import ALL_RIGHTS
from harness.relay import DEADLINE_S, Relay

FOLDER = Path(__file__).resolve().parents[1]
TO_LISTENER = "0000.0000.0000.0017"  # slot 3 of the relay


def run(*arguments):
    """Runs the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "strowger_link", *arguments],
        cwd=FOLDER, env=os.environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


class Command(unittest.TestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="strowger-interop-"))
        self.files = {name: f"{folder}/{name}" for name in ("caller", "listener")}
        self.keys = {
            name: dict(line.split() for line in run("key", file).stdout.splitlines())
            for name, file in self.files.items()
        }
        peers = "".join(
            f'[[peer]]\nname = "{name}"\nkey = "{self.keys[name]["key"]}"\nslot = {slot}\n'
            f"rights = {ALL_RIGHTS}\n"
            for slot, name in enumerate(self.files, 2)
        )
        self.relay = self.enterContext(Relay(peers))

    def link(self, name):
        """The arguments that make the link to the relay."""
        peer = f"{self.relay.static_key.hex()}@127.0.0.1:{self.relay.port}"
        return ("--key-file", self.files[name], "--network", "interop", "--listen", "127.0.0.1:0",
                "--peer", peer)  # fmt: skip

    def listener(self):
        """The listener as a process, when it has said its key."""
        process = subprocess.Popen(
            [sys.executable, "-m", "strowger_link", "listen", *self.link("listener")],
            cwd=FOLDER, env=os.environ, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for line in process.stdout:
            if line.startswith("connection_key"):
                self.assertEqual(line.split()[1], self.keys["listener"]["connection_key"])
                return process
        raise AssertionError("the listener has ended")

    def test_connect_and_listen(self):
        """The guide's commands: by PeerId, by connection key."""
        self.listener()
        keys = self.keys["listener"]
        for to in (("--peer-id", keys["peer_id"]), ("--connection-key", keys["connection_key"])):
            done = run("connect", *self.link("caller"), "--path", TO_LISTENER, *to,
                       "--message", "hello", "--message", "again")  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("/echo/1 b'hello'", done.stdout)
            self.assertIn("/echo/1 b'again'", done.stdout)
            self.assertIn("goodbye_ack", done.stdout)

    def test_refused(self):
        """An unknown protocol, a wrong PeerId, and an argument that is none."""
        self.listener()
        right, wrong = (self.keys[name]["peer_id"] for name in ("listener", "caller"))
        link = self.link("caller")
        done = run("connect", *link, "--path", TO_LISTENER, "--peer-id", right, "--name", "/none")
        self.assertEqual(done.returncode, 1)
        self.assertIn("unsupported", done.stdout)
        done = run("connect", *link, "--path", TO_LISTENER, "--peer-id", wrong, "--wait", "2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no answer", done.stdout)
        for arguments in (("--peer-id", "x"), ("--connection-key", "12")):
            done = run("connect", *link, "--path", TO_LISTENER, *arguments)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1))


if __name__ == "__main__":
    unittest.main()
