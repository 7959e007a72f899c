"""The command `python3 -m strowger_link peer` against a relay."""

import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness.peers import ALL_RIGHTS
from harness.relay import DEADLINE_S, Relay

FOLDER = Path(__file__).resolve().parents[1]


def ended(*arguments):
    """Runs the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "strowger_link", *arguments],
        cwd=FOLDER,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def strowger_link(*arguments):
    """Runs the command to its end and returns its standard output."""
    done = ended(*arguments)
    if done.returncode != 0:
        raise AssertionError(f"exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Command(unittest.TestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory(prefix="strowger-interop-"))
        self.key_file = f"{folder}/key"
        lines = strowger_link("key", self.key_file).splitlines()
        self.keys = dict(line.split() for line in lines)

    def test_pings_by_ik(self):
        """The guide's first command."""
        peer = f'[[peer]]\nname = "peer"\nkey = "{self.keys["key"]}"\nrights = {ALL_RIGHTS}\n'
        with Relay(peer) as relay:
            output = strowger_link(
                "peer",
                "--key-file",
                self.key_file,
                "--network",
                "interop",
                "--listen",
                "127.0.0.1:0",
                "--peer",
                f"{relay.static_key.hex()}@127.0.0.1:{relay.port}",
                "--ping",
                "2",
                "--identify",
            )
            self.assertEqual(output.count("pong after"), 2)
            self.assertIn(relay.static_key.hex(), output)
            self.assertIn("link up", output)

    def test_pings_by_xx(self):
        """The same for a relay of which only the address is known."""
        unknown = f"[unknown_peers]\nallow = true\nrights = {ALL_RIGHTS}\n"
        with Relay(unknown) as relay:
            output = strowger_link(
                "peer", "--network", "interop", "--listen", "127.0.0.1:0",
                "--peer", f"@127.0.0.1:{relay.port}", "--ping", "1",
            )  # fmt: skip
            self.assertEqual(output.count("pong after"), 1)

    def test_no_link(self):
        """Pings end with a reason if no node answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            address = f"@127.0.0.1:{silent.getsockname()[1]}"
            for wish in (("--ping", "1"), ("--identify",)):
                done = ended("peer", "--listen", "127.0.0.1:0", "--peer", address, "--wait", "1", *wish)
                self.assertEqual(done.returncode, 1)
                self.assertIn("no link after 1 s: see `strowger show events`", done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_wrong_input(self):
        """Each wrong argument or file gives one line."""
        key, folder = self.keys["key"], str(Path(self.key_file).parent)
        other = Path(folder) / "other"
        other.write_text(f"strowger-key 1 ed25519 {key} 00000000\n", encoding="utf-8")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
            busy.bind(("127.0.0.1", 0))
            port = busy.getsockname()[1]
            cases = [
                (2, "need --peer, --accept-unknown or both", "peer"),
                (2, "need KEY, @ADDRESS:PORT or both", "peer", "--peer", ""),
                (2, "need 64 hex digits", "peer", "--peer", f"{key[1:]}x@127.0.0.1:1"),
                (2, "need 64 hex digits", "peer", "--peer", f"{key[2:]}@127.0.0.1:1"),
                (2, "need ADDRESS:PORT", "peer", "--peer", f"{key}@127.0.0.1"),
                (2, "need ADDRESS:PORT", "peer", "--peer", "@127.0.0.1:65536"),
                (2, "need ADDRESS:PORT", "peer", "--accept-unknown", "--listen", "7000"),
                (2, "need 64 hex digits", "peer", "--peer", key, "--psk", "00"),
                (2, "not a number of pings", "peer", "--peer", key, "--ping", "-1"),
                (2, "label_not_hex at byte 1", "peer", "--peer", key, "--path", "1g"),
                (1, f"cannot listen at 127.0.0.1:{port}", "peer", "--peer", key,
                 "--listen", f"127.0.0.1:{port}"),
                (1, "not a key file of strowger_link", "key", str(other)),
                (1, "not a key file of strowger_link", "peer", "--peer", key, "--key-file", str(other)),
                (1, "Is a directory", "key", folder),
                (1, "No such file", "key", f"{folder}/none/key"),
            ]  # fmt: skip
            for code, part, *arguments in cases:
                with self.subTest(arguments=arguments):
                    done = ended(*arguments)
                    self.assertEqual(done.returncode, code, done.stderr)
                    self.assertIn(part, done.stderr)
                    self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
