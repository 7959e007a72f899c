//! Doors: sockets of a port that take handshake messages and nothing else, and that the slow path reads
//! itself. Whoever knocks there costs no worker anything, nor does the answer (R9).
//!
//! A port without a door takes handshakes in by its workers, which hand them up as knocks and send the
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
    command::{Knock, Order},
    discard::Discard,
    limits::DOOR_BURSTS_MAX,
};

/// One more socket of a port, at the same address.
pub struct Door {
    /// The socket. It knows no neighbour, so whoever knocks is a stranger to it and has to be welcome.
    pub port: Box<dyn Port>,
    /// Memory for what comes in by it, and for the answers.
    pub pool: Pool,
    /// The worker, of so many, that data from this address comes in by.
    pub worker_of: fn(Address, usize) -> usize,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Door").field(&self.port.describe()).finish()
    }
}

impl Door {
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
    /// Gives a port its door. [`poll`](Self::poll) reads it from now on, until the port is unplugged;
    /// its frames are counted with the port's.
    ///
    /// # Errors
    /// [`PlugError::NoPort`], if there is no such port; the door is dropped then.
    pub fn open_door(&mut self, port: PortId, door: Door) -> Result<(), PlugError> {
        self.ports.open_door(port, door)
    }

    /// Says what would wake the slow path for those who knock: called before it blocks.
    pub fn arm(&mut self, add: impl FnMut(Arm)) {
        self.ports.arm(add);
    }

    /// Called after it has woken up.
    pub fn disarm(&mut self) {
        self.ports.disarm();
    }

    /// Takes in who knocks at the doors, some bursts of each: what is more waits in the socket, or is
    /// the kernel's to drop.
    pub(super) fn answer_doors(&mut self, now: Now) {
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
            self.take_knock(&Knock { worker, port: port.0, link, from, frame }, now);
        }
    }

    /// Answers whoever knocked: by the port's door, so that workers spend nothing on strangers.
    pub(super) fn answer_knock(&mut self, knock: &Knock, message: Vec<u8>) {
        if !self.ports.send(PortId(knock.port), knock.from, &message) {
            let order = Order::Send(knock.port, knock.from, message);
            self.out.workers.command(usize::from(knock.worker), order);
        }
    }
}
