//! Doors: sockets of a port that take handshake messages and nothing else, and that the slow path reads
//! itself. Whoever handshakes there costs no worker anything, nor does the answer (R9).
//!
//! A port without a handshake socket takes handshakes in by its workers, which hand them up as handshake datagrams and send the
//! answers, by order.

use std::fmt;

use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Pool, Port,
    pool::HEADROOM_BYTES,
    port::{Arm, PortTally},
};
use strowger_wire::link_header::LinkHeader;

use super::{PlugError, PortId, Switch};
use crate::{
    Now,
    command::{Command, HandshakeDatagram},
    discard::Discard,
    limits::DOOR_BURSTS_MAX,
};

/// One more socket of a port, at the same address.
pub struct HandshakeSocket {
    /// The socket. It knows no neighbour, so every sender is unknown to it and has to be welcome.
    pub port: Box<dyn Port>,
    /// Memory for what comes in by it, and for the answers.
    pub pool: Pool,
    /// The worker, of so many, that data from this address comes in by.
    pub worker_of: fn(Address, usize) -> usize,
}

impl fmt::Debug for HandshakeSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandshakeSocket").field(&self.port.describe()).finish()
    }
}

impl HandshakeSocket {
    pub(super) fn accept_unknown(&mut self, accept: bool) {
        self.port.accept_unknown(accept);
    }

    pub(super) fn tally(&self) -> &PortTally {
        self.port.tally()
    }

    pub(super) fn arm(&mut self) -> Arm {
        self.port.arm()
    }

    pub(super) fn disarm(&mut self) {
        self.port.disarm();
    }

    /// What has arrived, a burst at most.
    pub(super) fn receive(&mut self) -> Burst {
        let mut burst = Burst::new();
        self.pool.reclaim();
        self.port.rx_burst(&mut self.pool, &mut burst);
        burst
    }

    /// Where a frame of the last burst came from, and the worker, of so many, that data from there comes in by.
    pub(super) fn origin(&self, frame: &Frame, workers: usize) -> (Address, u8) {
        let from = self.port.address_of(frame.mark()).unwrap_or(Address::Only);
        (from, (self.worker_of)(from, workers).min(workers - 1) as u8)
    }

    /// Sends one frame of our own making, which the counters know of. Without memory there is none.
    pub(super) fn send(&mut self, to: Address, message: &[u8]) {
        let Some(chunk) = self.pool.take(ChunkClass::Single) else { return };
        let mut frame = chunk.into_frame(HEADROOM_BYTES, message.len());
        frame.bytes_mut().copy_from_slice(message);
        self.port.tally().frames_made.add(1);
        self.port.send_to(to, frame);
        self.port.flush();
    }
}

impl Switch {
    /// Gives a port its handshake socket. [`poll`](Self::poll) reads it from now on, until the port is unplugged;
    /// its frames are counted with the port's.
    ///
    /// # Errors
    /// [`PlugError::NoPort`], if there is no such port; the handshake socket is dropped then.
    pub fn open_handshake_socket(
        &mut self,
        port: PortId,
        handshake_socket: HandshakeSocket,
    ) -> Result<(), PlugError> {
        self.ports.open_handshake_socket(port, handshake_socket)
    }

    /// Says what would wake the slow path for handshake datagrams: called before it blocks.
    pub fn arm(&mut self, add: impl FnMut(Arm)) {
        self.ports.arm(add);
    }

    /// Called after it has woken up.
    pub fn disarm(&mut self) {
        self.ports.disarm();
    }

    /// Reads the handshake sockets, some bursts of each: what is more waits in the socket, or is
    /// the kernel's to drop.
    pub(super) fn read_handshake_sockets(&mut self, now: Now) {
        for port in self.ports.ids() {
            for _ in 0..DOOR_BURSTS_MAX {
                let Some(mut burst) = self.ports.receive(port) else { break };
                let is_last = !burst.is_full();
                self.take_door_burst(port, &mut burst, now);
                if is_last {
                    break;
                }
            }
        }
    }

    fn take_door_burst(&mut self, port: PortId, burst: &mut Burst, now: Now) {
        self.in_hand += burst.len() as u64;
        for frame in burst.drain(..) {
            if !LinkHeader::parse(frame.bytes()).is_ok_and(|head| head.kind.is_handshake()) {
                self.end_at(port, Discard::BadLinkKind);
                continue;
            }
            let origin = self.ports.origin(port, &frame, self.out.workers.len());
            let Some((from, worker)) = origin else { return };
            let link = self.link_at(port, from);
            self.take_handshake(
                &HandshakeDatagram { worker, port: port.0, link, from, frame },
                now,
            );
        }
    }

    /// Answers a handshake datagram: by the port's handshake socket, so that workers spend nothing on unknown peers.
    pub(super) fn answer_handshake(&mut self, datagram: &HandshakeDatagram, message: Vec<u8>) {
        if !self.ports.send(PortId(datagram.port), datagram.from, &message) {
            let order = Command::Send(datagram.port, datagram.from, message);
            self.out.workers.command(usize::from(datagram.worker), order);
        }
    }
}
