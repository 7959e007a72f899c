"""Messages to and from peers of a Strowger network, by PeerId and protocol name.

Relays on the path can read neither the messages nor who sends them. The local service `strowger api`
encrypts and decrypts; this package needs only the standard library.

    import strowger

    with strowger.connect("12D3KooW...", "/echo/1") as echo:
        echo.send(b"hello")
        print(echo.recv(timeout=5))

    with strowger.listen("/echo/1") as listener:
        for peer in listener:
            for message in peer:
                peer.send(message)

Messages are not acknowledged, not repeated and not ordered: what UDP is to IP addresses, a socket is
to PeerIds. A message arrives whole, once, or not at all.

docs/api.md describes the protocol between this package and the service.
"""

import array
import json
import os
import select
import socket as _socket
import threading
import time

__all__ = [
    "AlreadyOpen", "AlreadyTaken", "Busy", "Closed", "Disagreement", "Dropped", "Error", "Listener", "NoPath", "NoRoute",
    "NoService", "NotAllowed", "PathTooNarrow", "Refused", "Socket", "Timeout", "TooLong",
    "UnknownPeer", "Unsupported", "WrongPeer", "connect", "default_path", "identity", "listen",
]

# The first byte of a datagram with a message. A JSON object begins with "{".
_MESSAGE = b"\0"
# Longer than any datagram of the service.
_DATAGRAM_BYTES_MAX = 1 << 16


class Error(Exception):
    """An error of the service. `name` does not change between versions; the text says what to do.

    `fields` has what the service says besides, for example `found` of a `WrongPeer`.
    """

    def __init__(self, name, text, fields=None):
        super().__init__(text)
        self.name = name
        self.fields = fields or {}


class Timeout(Error, TimeoutError):
    """Nothing arrived in time, or the peer did not answer."""


class NoService(Error, ConnectionError):
    """No service listens at the path: run `strowger api`."""


class Closed(Error, ConnectionError):
    """The peer, the service or this program has closed the socket or the listener."""


class UnknownPeer(Error):
    """The text is no PeerId, no address, and no name of the address book."""


class NoRoute(Error):
    """No label leads to the peer."""


class WrongPeer(Error):
    """Another peer answers at the label; `fields["found"]` is its PeerId."""


class Unsupported(Error):
    """The peer accepts none of the protocols, or does not allow this node to use them."""


class Refused(Error):
    """The peer refused the connection."""


class Dropped(Error):
    """A switch on the path drops the packets: the label is old or wrong."""


class Disagreement(Error):
    """The two nodes have no common version or option."""


class NotAllowed(Error):
    """The policy of this node does not allow the peer."""


class PathTooNarrow(Error):
    """The path delivers no packets as long as a handshake."""


class AlreadyOpen(Error):
    """A socket for this peer and protocol is open already."""


class AlreadyTaken(Error):
    """Another program accepts the protocol already."""


class Busy(Error):
    """The service has reached its limit of programs, sockets or requests."""


class TooLong(Error, ValueError):
    """The message was not sent: it is longer than `fields["max"]` bytes."""


class NoPath(Error):
    """The message was not sent: no path to the peer works now."""


_ERRORS = {
    "timeout": Timeout, "closed": Closed, "node_closed": Closed, "unknown_peer": UnknownPeer,
    "no_route": NoRoute, "wrong_peer": WrongPeer, "unsupported": Unsupported, "refused": Refused,
    "dropped": Dropped, "disagreement": Disagreement, "not_allowed": NotAllowed, "path_too_narrow": PathTooNarrow, "already_open": AlreadyOpen,
    "already_taken": AlreadyTaken, "busy": Busy, "too_long": TooLong, "no_path": NoPath,
}


def _error(fields):
    fields = dict(fields)
    name, text = fields.pop("name", "unknown"), fields.pop("text", "")
    return _ERRORS.get(name, Error)(name, text, fields)


def default_path():
    """The path of the service: $STROWGER_API, or strowger-api.sock in $XDG_RUNTIME_DIR or in /run."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or "/run"
    return os.environ.get("STROWGER_API") or os.path.join(folder, "strowger-api.sock")


class _Channel:
    """One connection to the service: datagrams that are messages or JSON objects."""

    def __init__(self, stream):
        self._stream = stream
        self._stream.setblocking(False)

    @classmethod
    def open(cls, path):
        path = path or default_path()
        stream = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            # Blocks while the service has too many programs to accept.
            stream.connect(path)
        except OSError as error:
            stream.close()
            text = f"{path}: {error.strerror}; start the service: strowger api"
            raise NoService("no_service", text) from error
        return cls(stream)

    def fileno(self):
        return self._stream.fileno()

    def close(self):
        try:
            # Also ends the calls of other threads. Datagrams that were sent before still arrive.
            self._stream.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already
        self._stream.close()

    def _wait(self, event, deadline):
        """Waits until the socket is ready. Raises Timeout."""
        if self._stream.fileno() < 0:
            raise Closed("closed", "this program has closed the socket")
        poller = select.poll()
        poller.register(self._stream, event)
        left = None
        if deadline is not None:
            left = max(0.0, deadline - time.monotonic())
        if not poller.poll(None if left is None else left * 1000):
            raise Timeout("timeout", "nothing arrived in time" if event == select.POLLIN
                          else "the service has taken nothing in time")

    def send(self, datagram, deadline=None):
        while True:
            try:
                self._stream.send(datagram)
                return
            except (BlockingIOError, InterruptedError):
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                if self._stream.fileno() < 0:
                    raise Closed("closed", "this program has closed the socket") from error
                if isinstance(error, (BrokenPipeError, ConnectionResetError)):
                    raise Closed("closed", "the service has closed the socket") from error
                raise

    def receive(self, deadline=None):
        """The next datagram and its descriptors. Raises Timeout, or Closed at the end."""
        while True:
            try:
                space = _socket.CMSG_SPACE(array.array("i").itemsize)
                datagram, control, _, _ = self._stream.recvmsg(
                    _DATAGRAM_BYTES_MAX, space, _socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                self._wait(select.POLLIN, deadline)
                continue
            except ConnectionResetError:
                continue  # the end was reported; datagrams from before may follow
            except OSError as error:
                if self._stream.fileno() < 0:
                    raise Closed("closed", "this program has closed the socket") from error
                raise
            descriptors = array.array("i")
            for level, kind, data in control:
                if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                    descriptors.frombytes(data[:len(data) - len(data) % descriptors.itemsize])
            if not datagram:
                raise Closed("closed", "the service has ended the connection")
            return datagram, list(descriptors)

    def is_note_next(self):
        """Whether the next datagram has arrived and is a JSON object, without removing it."""
        try:
            return self._stream.recv(1, _socket.MSG_PEEK) == b"{"
        except (BlockingIOError, InterruptedError, ConnectionResetError):
            return False

    def ask(self, request, deadline=None):
        """Sends a request, and returns the answer and its descriptors."""
        try:
            self.send(json.dumps(request).encode(), deadline)
        except Closed:
            pass  # the service may have refused this program before; it has said why
        datagram, descriptors = self.receive(deadline)
        return json.loads(datagram), descriptors


def _deadline(timeout):
    return None if timeout is None else time.monotonic() + timeout


class Socket:
    """Messages to and from one peer in one protocol.

    Iterating over a socket gives messages until it is closed. A socket is a context manager, and
    works with `select` and `poll`. One thread may send while another receives.
    """

    def __init__(self, channel, fields):
        self._channel = channel
        self._closed = None
        # Held while a datagram is received and handled.
        self._receiving = threading.Lock()
        self.peer = fields["peer"]
        """The PeerId of the peer."""
        self.protocol = fields["protocol"]
        """The protocol of this socket."""
        self.message_max = fields["message_max"]
        """Bytes of the longest message when the socket was opened. It depends on the path."""

    def __repr__(self):
        return f"<strowger.Socket {self.protocol} with {self.peer}>"

    def _take_note(self, datagram):
        """Handles a JSON object. Raises the error that the object states."""
        note = json.loads(datagram)
        if "error" in note:
            error = _error(note["error"])
            if isinstance(error, TooLong) and "max" in error.fields:
                self.message_max = error.fields["max"]
            raise error
        if "closed" in note:
            fields = dict(note["closed"])
            self._closed = Closed(fields.pop("name", "closed"), fields.pop("text", ""), fields)
            raise self._closed
        # Ignore a note that this version does not know.

    def send(self, message, timeout=None):
        """Sends a message. Waits while the queue is full, up to `timeout` seconds.

        Raises the error of an earlier message that the service could not send (`TooLong`, `NoPath`),
        `Timeout`, or `Closed`.
        """
        # If another thread receives, that thread handles the notes.
        if self._receiving.acquire(blocking=False):
            try:
                while self._closed is None and self._channel.is_note_next():
                    self._take_note(self._channel.receive(_deadline(0))[0])
            finally:
                self._receiving.release()
        if self._closed is not None:
            raise self._closed
        self._channel.send(_MESSAGE + message, _deadline(timeout))

    def recv(self, timeout=None):
        """The next message, as bytes. Waits up to `timeout` seconds.

        Raises `Timeout`, `Closed` after the last message, or the error of a message that could not
        be sent.
        """
        deadline = _deadline(timeout)
        with self._receiving:
            while True:
                if self._closed is not None:
                    raise self._closed
                try:
                    datagram, descriptors = self._channel.receive(deadline)
                except Closed as closed:
                    self._closed = closed
                    raise
                for descriptor in descriptors:
                    os.close(descriptor)
                if datagram[:1] == _MESSAGE:
                    return datagram[1:]
                self._take_note(datagram)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.recv()
        except Closed:
            raise StopIteration from None

    def fileno(self):
        """The descriptor. It is readable when a message or the end has arrived."""
        return self._channel.fileno()

    def close(self):
        """Closes the socket. The peer gets a goodbye. Sent messages still leave."""
        if self._closed is None:
            self._closed = Closed("closed", "this program has closed the socket")
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Listener:
    """Accepts sockets that peers open. Iterating over a listener gives these sockets."""

    def __init__(self, channel, protocols):
        self._channel = channel
        self.protocols = protocols
        """The protocols that this listener accepts."""

    def accept(self, timeout=None):
        """The next socket that a peer has opened. Waits up to `timeout` seconds.

        Raises `Timeout`, or `Closed`.
        """
        deadline = _deadline(timeout)
        while True:
            datagram, descriptors = self._channel.receive(deadline)
            note = json.loads(datagram) if datagram[:1] == b"{" else {}
            accepted = note.get("accepted")
            for descriptor in descriptors[0 if accepted is None else 1:]:
                os.close(descriptor)
            if "error" in note:
                raise _error(note["error"])
            if accepted is not None and descriptors:
                stream = _socket.socket(fileno=descriptors[0])
                return Socket(_Channel(stream), accepted)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.accept()
        except Closed:
            raise StopIteration from None

    def fileno(self):
        """The descriptor. It is readable when a peer has opened a socket."""
        return self._channel.fileno()

    def close(self):
        """Stops accepting. Sockets that `accept` has returned stay open."""
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _open(path, request, answer, deadline=None):
    channel = _Channel.open(path)
    try:
        reply, descriptors = channel.ask(request, deadline)
        for descriptor in descriptors:
            os.close(descriptor)
        if "error" in reply:
            raise _error(reply["error"])
        return channel, reply[answer]
    except BaseException:
        channel.close()
        raise


def connect(peer, protocol, timeout=10.0, path=None):
    """Opens a socket to a peer: a PeerId, a name of the address book, or an address.

    `protocol` is a name such as "/chat/1", or a list of names, the best one first. The socket has the
    first one that the peer accepts. `path` is that of the service.
    """
    request = {"connect": {"peer": peer, "protocol": protocol, "timeout_s": timeout}}
    channel, fields = _open(path, request, "connected")
    return Socket(channel, fields)


def listen(protocol, path=None):
    """Accepts a protocol, or a list of protocols, from the peers that the service allows."""
    channel, fields = _open(path, {"listen": {"protocol": protocol}}, "listening")
    return Listener(channel, fields["protocol"])


def identity(path=None):
    """The identity of this node: a dict with `peer_id`, `ip6`, `network` and `agent`."""
    channel, fields = _open(path, {"id": {}}, "id")
    channel.close()
    return fields
