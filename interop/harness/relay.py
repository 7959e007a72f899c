"""Relays as processes of the command `strowger`, each with a folder of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What takes longer than this hangs. No test passes or fails by a shorter time.
DEADLINE_S = 60.0


def command():
    """The command under test: the environment variable `STROWGER`, or the debug build."""
    default = Path(__file__).resolve().parents[2] / "target" / "debug" / "strowger"
    path = os.environ.get("STROWGER", str(default))
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is not built: cargo build -p strowger-cli")
    return path


def eventually(condition, what):
    """Calls `condition` until it returns something true, and returns that."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise TimeoutError(f"not within {DEADLINE_S:.0f} s: {what}")


def free_port(address="127.0.0.1"):
    """A UDP port of this address that no other socket uses now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


class Relay:
    """A relay that runs. Use it in a `with` statement, which ends the process."""

    def __init__(self, sections, network="interop", prefix=()):
        """Starts a relay and returns when it is ready.

        `sections` is the configuration without `control`, `identity` and the first `[[udp]]`
        section, which this class writes. In it, `{folder}` is the folder of the relay. `prefix` is
        a command that runs the relay, for example `ip netns exec NAME`.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="strowger-interop-")
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        key = self.folder / "key"
        run("key", "new", str(key))
        identity = json.loads(run("key", "id", "--json", str(key)))
        self.static_key = bytes.fromhex(identity["key"])
        self.peer_id = identity["peer_id"]
        self.network = network
        self._prefix = list(prefix)
        self.write(sections)
        self._process = None
        self.start()

    def write(self, sections):
        """Writes the configuration. A relay that runs does not read it."""
        text = (
            f'control.socket = "{self.folder}/control"\n'
            f'[identity]\nkey = "{self.folder}/key"\nnetwork = "{self.network}"\n'
            f'[[udp]]\naddress = "127.0.0.1:{self.port}"\n'
        )
        sections = sections.replace("{folder}", str(self.folder))
        (self.folder / "relay.toml").write_text(text + sections, encoding="utf-8")

    def start(self):
        """Starts the process with the configuration in the folder."""
        with open(self.folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*self._prefix, command(), "relay", "--config", str(self.folder / "relay.toml")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        output = ""
        for line in self._process.stdout:
            output += line
            if line == "ready\n":
                return
        self._show_log()
        raise RuntimeError(f"the relay ended with {self._process.wait()} after:\n{output}")

    def stop(self):
        """Ends the process as an operator does: it says goodbye to its peers."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._wait()

    def kill(self):
        """Ends the process at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._wait()

    def _wait(self):
        if self._process is not None:
            self._process.communicate(timeout=DEADLINE_S)
            self._show_log()

    def _show_log(self):
        """Prints the log once. `interop/run` shows it only if the test fails."""
        log = self.folder / "log"
        if log.exists():
            print(log.read_text(encoding="utf-8", errors="replace"), end="", file=sys.stderr)
            log.unlink()

    def ask(self, request):
        """Sends a request to the control socket and returns the reply, both as objects."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(DEADLINE_S)
            control.connect(str(self.folder / "control"))
            control.sendall(json.dumps(request).encode() + b"\n")
            with control.makefile("r", encoding="utf-8") as replies:
                return json.loads(replies.readline())

    def peer(self, name):
        """The row of `show peers` with this name, or None."""
        peers = self.ask({"show": "peers"})["peers"]
        return next((peer for peer in peers if peer["name"] == name), None)

    def events(self, kind):
        """All events of this kind."""
        events = self.ask({"show": "events"})["events"]
        return [event for event in events if event["event"] == kind]

    def discards(self, reason):
        """The number of packets that were discarded for this reason."""
        return self.ask({"show": "discards"})["discards"].get(reason, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self._process.stdout.close()
        self._folder.cleanup()


def run(*arguments):
    """Runs the command to its end and returns its standard output."""
    done = subprocess.run(
        [command(), *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"strowger {' '.join(arguments)}: {done.stderr}")
    return done.stdout
