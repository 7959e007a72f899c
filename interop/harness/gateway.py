"""The endpoint of the command `strowger`: its local service, and programs of it (docs/api.md)."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path

from strowger_link.identity import peer_id
from strowger_link.label import to_text

from .relay import DEADLINE_S, command, eventually, run

DATAGRAM_BYTES = 16 << 10


def program():
    """The program with sockets, which the command runs, or None if it is not built."""
    found = Path(command()).with_name("strowger-gateway")
    return found if found.exists() else None


class Gateway:
    """The local service at a unix port of a relay, and a program that echoes one protocol."""

    def __init__(self, folder, port, network, protocol):
        self.folder, self.port, self.network = Path(folder), port, network
        self.path = self.folder / "api"
        self.protocol, self.key = protocol, self.folder / "gateway.key"
        run("key", "new", str(self.key))
        self.seed = bytes.fromhex(self.key.read_text("utf-8").split()[3])
        self.policy = ["--anyone"]
        self._process, self.echoes, self.programs = None, [], []

    def start(self):
        """Starts the service, and the program that echoes once the service is ready."""
        self.path.unlink(missing_ok=True)
        log = self.folder / "gateway.log"
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [
                    command(), "api", "--listen", str(self.path), "--socket", str(self.port),
                    "--key", str(self.key), "--network", self.network, *self.policy,
                ],
                stdout=output,
                stderr=output,
            )  # fmt: skip
        eventually(self._is_ready, f"the service of strowger api: see {log}")
        self.echo(self.protocol)

    def _is_ready(self):
        if self._process.poll() is not None:
            text = (self.folder / "gateway.log").read_text("utf-8", "replace")
            raise RuntimeError(f"strowger api ended with {self._process.returncode}: {text}")
        try:
            _connected(self.path).close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def echo(self, protocol):
        """Starts a program that accepts this protocol and echoes."""
        self.echoes.append(Echo(self.path, protocol))

    def connect(self, label, public, protocol, timeout_s=10):
        """A program that connects to this identity along a label that begins at the relay."""
        peer = f"/switch/{to_text(label)}/p2p/{peer_id(public)}"
        request = {"peer": peer, "protocol": protocol, "timeout_s": timeout_s}
        self.programs.append(Program(self.path, {"connect": request}))
        return self.programs[-1]

    def stop(self, number=signal.SIGTERM):
        """Ends the service by this signal, and its programs."""
        self._process.send_signal(number)
        self._process.wait(DEADLINE_S)
        for one in (*self.echoes, *self.programs):
            one.stop()
        self.echoes, self.programs = [], []

    def restart(self):
        """Ends the service at once, and starts it again."""
        self.stop(signal.SIGKILL)
        self.start()

    def close(self):
        """Ends what runs."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)


def _connected(path):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(str(path))
    return one


class Program:
    """A program with one request, which is read when the test looks."""

    def __init__(self, path, request):
        self._socket = _connected(path)
        self._socket.send(json.dumps(request).encode())
        self._socket.setblocking(False)
        self._said, self._messages = [], []

    def _read(self):
        while self._socket.fileno() >= 0:
            try:
                datagram = self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError:
                datagram = b""
            if not datagram:
                self._socket.close()
            elif datagram[:1] == b"\0":
                self._messages.append(datagram[1:])
            else:
                self._said.append(json.loads(datagram))

    def said(self, key):
        """What the service has said under this key, the newest last."""
        self._read()
        return [one[key] for one in self._said if key in one]

    @property
    def received(self):
        """The messages of the peer."""
        self._read()
        return self._messages

    def connected(self):
        """Whether the socket is open."""
        return bool(self.said("connected"))

    def refused(self):
        """Whether the peer does not accept the protocol."""
        return any(error["name"] == "unsupported" for error in self.said("error"))

    def failed(self):
        """Whether the connect has failed, or the socket has ended without the peer."""
        errors = [error["name"] for error in (*self.said("error"), *self.said("closed"))]
        return bool({"timeout", "refused", "not_allowed", "not_confirmed"} & set(errors))

    def closed(self):
        """Whether the peer has closed."""
        return any(closed["name"] == "by_peer" for closed in self.said("closed"))

    def send(self, message):
        """Sends a message."""
        self._socket.send(b"\0" + message)

    def stop(self):
        """Closes the socket."""
        self._socket.close()


class Echo:
    """A program that answers each message of a protocol with the same bytes, in a thread."""

    def __init__(self, path, protocol):
        self._listener = _connected(path)
        self._listener.settimeout(DEADLINE_S)
        self._listener.send(json.dumps({"listen": {"protocol": protocol}}).encode())
        answer = json.loads(self._listener.recv(DATAGRAM_BYTES))
        if "listening" not in answer:
            raise RuntimeError(f"the service refuses to listen: {answer}")
        self._end, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        sockets = {self._listener}
        while True:
            ready, _, _ = select.select([*sockets, self._end], [], [])
            if self._end in ready:
                break
            for one in ready:
                try:
                    datagram, descriptors, _, _ = socket.recv_fds(one, DATAGRAM_BYTES, 1)
                    if datagram[:1] == b"\0":
                        one.send(datagram)
                except OSError:
                    datagram, descriptors = b"", []
                sockets |= {socket.socket(fileno=descriptor) for descriptor in descriptors}
                if not datagram:
                    sockets.discard(one)
                    one.close()
        for one in sockets:
            one.close()

    def stop(self):
        """Ends the thread and its sockets."""
        os.close(self._wake)
        self._thread.join()
        os.close(self._end)
