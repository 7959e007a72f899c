"""Tests of the package `strowger` against two services of the local API.

The Rust test gateway/tests/gateway/api.rs starts them: $STROWGER_API is that of node a,
$STROWGER_API_OTHER that of node b; the arguments are their PeerIds.
"""

import errno
import json
import os
import select
import socket
import sys
import threading
import time
import unittest

import strowger

OTHER = os.environ.get("STROWGER_API_OTHER")
PEERS = []
# Long enough for any machine; only a failing test takes this time.
LONG = 60


def connect(*arguments, **named):
    """Connects to a protocol that the peer has just begun to accept, with retries."""
    deadline = time.monotonic() + LONG
    while True:
        try:
            return strowger.connect(*arguments, **named)
        except strowger.Unsupported:
            if time.monotonic() > deadline:
                raise


def pair(protocol):
    """A socket of node a, and the socket of node b that it opened."""
    with strowger.listen(protocol, path=OTHER) as listener:
        ours = connect("other", protocol)
        # The first message opens the socket at the other node.
        ours.send(b"first")
        theirs = listener.accept(timeout=LONG)
        assert theirs.recv(timeout=LONG) == b"first"
    return ours, theirs


def raw():
    """A connection to the service of node a, without the package."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stream.settimeout(LONG)
    stream.connect(os.environ["STROWGER_API"])
    return stream


class Messages(unittest.TestCase):
    def test_messages_pass_both_ways_whole_and_in_their_bounds(self):
        ours, theirs = pair("/test/1")
        with ours, theirs:
            self.assertEqual((ours.peer, ours.protocol), (PEERS[1], "/test/1"))
            self.assertEqual((theirs.peer, theirs.protocol), (PEERS[0], "/test/1"))
            # A message may be empty, and may look like an answer of the service.
            closed = b'{"closed":{"name":"by_peer","text":""}}'
            messages = [b"", b"\0", closed, bytes(range(256)), b"x" * ours.message_max]
            for message in messages:
                ours.send(message, timeout=LONG)
                self.assertEqual(theirs.recv(timeout=LONG), message)
                theirs.send(message, timeout=LONG)
                self.assertEqual(ours.recv(timeout=LONG), message)

    def test_the_end_of_one_side_ends_the_iteration_of_the_other(self):
        ours, theirs = pair("/test/2")
        for number in range(50):
            ours.send(b"%d" % number)
            # One message at a time: a full receive queue would lose messages.
            self.assertEqual(theirs.recv(timeout=LONG), b"%d" % number)
        ours.send(b"last")
        ours.close()
        self.assertEqual(list(theirs), [b"last"])
        with self.assertRaises(strowger.Closed) as caught:
            theirs.recv(timeout=LONG)
        self.assertEqual(caught.exception.name, "by_peer")
        with self.assertRaises(strowger.Closed):
            theirs.send(b"too late")
        with self.assertRaises(strowger.Closed):
            ours.recv()
        with self.assertRaises(strowger.Closed):
            ours.send(b"")

    def test_a_timeout_is_an_exception_and_takes_no_message(self):
        ours, theirs = pair("/test/3")
        with ours, theirs:
            for timeout in (0, 0.001):
                with self.assertRaises(strowger.Timeout):
                    ours.recv(timeout=timeout)
            self.assertTrue(issubclass(strowger.Timeout, TimeoutError))
            theirs.send(b"later")
            self.assertEqual(ours.recv(timeout=LONG), b"later")

    def test_a_socket_can_be_polled(self):
        ours, theirs = pair("/test/4")
        with ours, theirs:
            self.assertEqual(select.select([ours], [], [], 0), ([], [], []))
            theirs.send(b"ready")
            self.assertEqual(select.select([ours], [], [], LONG), ([ours], [], []))
            self.assertEqual(ours.recv(timeout=0), b"ready")

    def test_a_message_that_is_too_long_is_an_error_and_the_socket_stays(self):
        ours, theirs = pair("/test/5")
        with ours, theirs:
            ours.send(b"x" * (ours.message_max + 1))
            with self.assertRaises(strowger.TooLong) as caught:
                ours.recv(timeout=LONG)
            self.assertEqual(caught.exception.fields["max"], ours.message_max)
            ours.send(b"fits")
            self.assertEqual(theirs.recv(timeout=LONG), b"fits")

    def test_one_thread_sends_while_another_receives(self):
        ours, theirs = pair("/test/7")
        received, errors = [], []

        def receive():
            while True:
                try:
                    received.append(ours.recv())
                except strowger.TooLong as error:
                    errors.append(error)
                except strowger.Closed:
                    return

        with theirs:
            receiving = threading.Thread(target=receive)
            receiving.start()
            for number in range(100):
                # Wait for each answer before the next message, so that none is lost.
                ours.send(b"%d" % number)
                theirs.send(theirs.recv(timeout=LONG))
                try:
                    ours.send(b"x" * (ours.message_max + 1))
                except strowger.TooLong as error:
                    errors.append(error)  # of the message before
            deadline = time.monotonic() + LONG
            while len(received) + len(errors) < 200 and time.monotonic() < deadline:
                time.sleep(0.001)
            # Closing in this thread ends the call in the other one.
            ours.close()
            receiving.join(LONG)
            self.assertFalse(receiving.is_alive())
        self.assertEqual(received, [b"%d" % number for number in range(100)])
        self.assertEqual(len(errors), 100)

    def test_a_peer_that_is_killed_frees_its_place(self):
        with strowger.listen("/test/6", path=OTHER) as listener:
            child = os.fork()
            if child == 0:
                ours = connect("other", "/test/6")
                ours.send(b"hello")
                os.kill(os.getpid(), 9)
            os.waitpid(child, 0)
            theirs = listener.accept(timeout=LONG)
            self.assertEqual(list(theirs), [b"hello"])
            # The same peer and protocol can be opened again.
            with connect("other", "/test/6") as ours:
                ours.send(b"again")
                with listener.accept(timeout=LONG) as theirs:
                    self.assertEqual(theirs.recv(timeout=LONG), b"again")


class Listening(unittest.TestCase):
    def test_a_listener_serves_several_protocols(self):
        with strowger.listen(["/many/2", "/many/1"], path=OTHER) as listener:
            self.assertEqual(listener.protocols, ["/many/2", "/many/1"])
            for wanted, expected in (["/many/3", "/many/1"], "/many/1"), ("/many/2", "/many/2"):
                with connect("other", wanted) as ours:
                    self.assertEqual(ours.protocol, expected)
                    ours.send(b"")
                    with listener.accept(timeout=LONG) as theirs:
                        self.assertEqual(theirs.protocol, expected)
                        self.assertEqual(theirs.recv(timeout=LONG), b"")

    def test_a_protocol_has_one_listener(self):
        with strowger.listen("/taken/1", path=OTHER):
            with self.assertRaises(strowger.AlreadyTaken):
                strowger.listen("/taken/1", path=OTHER)
        # The protocol is free again after the listener is closed.
        deadline = time.monotonic() + LONG
        while True:
            try:
                strowger.listen("/taken/1", path=OTHER).close()
                break
            except strowger.AlreadyTaken:
                self.assertLess(time.monotonic(), deadline)

    def test_accept_has_a_timeout(self):
        with strowger.listen("/nobody/1") as listener:
            with self.assertRaises(strowger.Timeout):
                listener.accept(timeout=0.01)

    def test_closing_the_listener_keeps_its_sockets(self):
        ours, theirs = pair("/kept/1")  # `pair` has closed the listener
        with ours, theirs:
            theirs.send(b"still")
            self.assertEqual(ours.recv(timeout=LONG), b"still")


class Refusals(unittest.TestCase):
    def refused(self, error, *arguments, **named):
        with self.assertRaises(error) as caught:
            strowger.connect(*arguments, **named)
        self.assertTrue(str(caught.exception), "a text says what to do")
        return caught.exception

    def test_a_protocol_that_the_peer_does_not_accept(self):
        # The peer's protocol table may not be complete yet. Then the peer refuses the first
        # message.
        with self.assertRaises(strowger.Unsupported) as caught:
            with strowger.connect("other", "/unknown/1") as ours:
                ours.send(b"for no program")
                ours.recv(timeout=LONG)
        self.assertIn("does not accept /unknown/1, or not from this PeerId", str(caught.exception))

    def test_another_peer_at_the_label(self):
        # A node answers only initiators that know its PeerId, so the wrong node is silent.
        error = self.refused((strowger.WrongPeer, strowger.Timeout), "stranger", "/test/1",
                             timeout=2)
        if isinstance(error, strowger.WrongPeer):
            self.assertEqual(error.fields["found"], PEERS[1])

    def test_texts_that_name_no_peer_or_protocol(self):
        self.refused(strowger.UnknownPeer, "nobody", "/test/1")
        self.assertEqual(self.refused(strowger.Error, "other", "test").name, "bad_protocol")
        self.assertEqual(self.refused(strowger.Error, "other", []).name, "bad_request")

    def test_a_peer_without_a_label(self):
        # The PeerId of the key in section 7.1 of RFC 8032, test 3.
        peer = "12D3KooWSCufgHzV4fCwRijfH2k3abrpAJxTKxEvN1FDuRXA2U9x"
        error = self.refused((strowger.NoRoute, strowger.UnknownPeer), peer, "/test/1", timeout=2)
        self.assertTrue(str(error))

    def test_one_socket_for_each_peer_and_protocol(self):
        ours, theirs = pair("/once/1")
        with ours, theirs:
            self.refused(strowger.AlreadyOpen, "other", "/once/1")

    def test_no_service(self):
        self.refused(strowger.NoService, "other", "/test/1", path="/nonexistent")


class Protocol(unittest.TestCase):
    """Tests of docs/api.md without the package."""

    def test_bad_datagrams_are_answered_and_the_connection_stays(self):
        with raw() as stream:
            for datagram, name in (
                (b"hello", "bad_datagram"),
                (b"{", "bad_json"),
                (b'{"fly":{}}', "unknown_request"),
                (b'{"connect":{}}', "bad_request"),
                (b'{"info":{}}', "wrong_state"),
                (b"\0message", "wrong_state"),
                (b"{" + b" " * 10_000, "bad_datagram"),
                (b"\xff" * 100_000, "bad_datagram"),
            ):
                stream.send(datagram)
                answer = json.loads(stream.recv(65536))
                self.assertEqual(answer["error"]["name"], name, datagram[:20])
                self.assertTrue(answer["error"]["text"])
            stream.send(b'{"id":{}}')
            self.assertEqual(json.loads(stream.recv(65536))["id"]["peer_id"], PEERS[0])

    def test_a_connection_becomes_a_socket(self):
        with strowger.listen("/raw/1", path=OTHER) as listener, raw() as stream:
            answer = {}
            while "connected" not in answer:
                self.assertIn(answer.get("error", {}).get("name"), (None, "unsupported"))
                stream.send(b'{"connect":{"peer":"other","protocol":"/raw/1"}}')
                answer = json.loads(stream.recv(65536))
            connected = answer["connected"]
            self.assertEqual((connected["peer"], connected["protocol"]), (PEERS[1], "/raw/1"))
            stream.send(b"\0hello")
            with listener.accept(timeout=LONG) as theirs:
                self.assertEqual(theirs.recv(timeout=LONG), b"hello")
                theirs.send(b"{}")
                self.assertEqual(stream.recv(65536), b"\0{}")
                stream.send(b'{"info":{}}')
                info = json.loads(stream.recv(65536))["info"]
                self.assertEqual((info["received_lost"], info["sent_lost"]), (0, 0))
                stream.send(b'{"listen":{"protocol":"/raw/2"}}')
                self.assertEqual(json.loads(stream.recv(65536))["error"]["name"], "wrong_state")
            closed = json.loads(stream.recv(65536))["closed"]
            self.assertEqual(closed["name"], "by_peer")
            self.assertEqual(stream.recv(65536), b"", "the end")

    def test_the_service_refuses_more_programs_than_it_serves(self):
        streams, busy = [], None
        try:
            while busy is None and len(streams) < 200:
                stream = raw()
                streams.append(stream)
                stream.send(b'{"id":{}}')
                answer = json.loads(stream.recv(65536))
                busy = answer.get("error")
        except (BrokenPipeError, ConnectionResetError) as error:
            # The refusal may have closed the connection before the request was sent.
            self.assertIn(error.errno, (errno.EPIPE, errno.ECONNRESET))
            busy = json.loads(streams[-1].recv(65536))["error"]
        finally:
            for stream in streams:
                stream.close()
        self.assertEqual(busy["name"], "busy")
        self.assertLessEqual(len(streams), 65)
        # The places are free again.
        deadline = time.monotonic() + LONG
        while True:
            try:
                self.assertEqual(strowger.identity()["peer_id"], PEERS[0])
                break
            except (strowger.Busy, strowger.Closed):
                self.assertLess(time.monotonic(), deadline)

    def test_a_program_that_does_not_read_harms_no_other(self):
        ours, theirs = pair("/slow/1")
        fast, fast_end = pair("/fast/1")
        with ours, theirs, fast, fast_end:
            # Node b floods a socket of node a that no program reads.
            stop = threading.Event()

            def flood():
                while not stop.is_set():
                    try:
                        theirs.send(b"x" * 1000, timeout=0.1)
                    except strowger.Timeout:
                        pass

            flooding = threading.Thread(target=flood)
            flooding.start()
            try:
                for number in range(200):
                    # The flood may fill the queues to the relay and displace this message.
                    fast.send(b"%d" % number)
                    for _ in range(20):
                        try:
                            self.assertEqual(fast_end.recv(timeout=1), b"%d" % number)
                            break
                        except strowger.Timeout:
                            fast.send(b"%d" % number)
            finally:
                stop.set()
                flooding.join()


if __name__ == "__main__":
    PEERS = sys.argv[1:3]
    unittest.main(argv=sys.argv[:1], verbosity=2)
