//! Handshake sockets. A handshake socket belongs to a port, and receives the datagrams that look
//! like handshake messages. The slow path reads it. Handshakes on this socket, and the replies to
//! them, cost the workers no time (R9).
//!
//! Without a handshake socket, the workers of a port receive the handshakes, punt them as handshake
//! datagrams, and send the replies.

use std::fmt;

use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Pool, Port,
    pool::HEADROOM_BYTES,
    port::{Arm, PortTally},
};
/// An additional socket of a port, at the same address.
pub struct HandshakeSocket {
    /// The socket. No neighbours are attached to it, so it must accept frames from unknown senders.
    pub port: Box<dyn Port>,
    /// The pool of buffers for received messages and for replies.
    pub pool: Pool,
    /// Returns the worker that receives data from this address, given the number of workers.
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

    /// Receives one burst.
    pub(super) fn receive(&mut self) -> Burst {
        let mut burst = Burst::new();
        self.pool.reclaim();
        self.port.rx_burst(&mut self.pool, &mut burst);
        burst
    }

    /// The source of a frame of the last burst, and the worker that receives data from this source.
    pub(super) fn origin(&self, frame: &Frame, workers: usize) -> (Address, u8) {
        let from = self.port.address_of(frame.mark()).unwrap_or(Address::Only);
        (from, (self.worker_of)(from, workers).min(workers - 1) as u8)
    }

    /// Sends one message, and counts it as a frame that this switch generated. Sends nothing if the
    /// pool is exhausted.
    pub(super) fn send(&mut self, to: Address, message: &[u8]) {
        let Some(chunk) = self.pool.take(ChunkClass::Single) else { return };
        let mut frame = chunk.into_frame(HEADROOM_BYTES, message.len());
        frame.bytes_mut().copy_from_slice(message);
        self.port.tally().frames_made.add(1);
        self.port.send_to(to, frame);
        self.port.flush();
    }
}
