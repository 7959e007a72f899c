//! Doors: sockets of a port that take handshake messages and nothing else, and that the slow path reads
//! itself. Whoever knocks there costs no worker anything, nor does the answer (R9).
//!
//! A port without a door takes handshakes in by its workers, which hand them up as knocks and send the
//! answers, by order.

use std::fmt;

use strowger_frame::{
    Address, Burst, ChunkClass, Pool, Port,
    pool::HEADROOM_BYTES,
    port::{Arm, PortTally},
};
use strowger_wire::link_header::LinkHeader;

use super::{PlugError, PortId, Switch};
use crate::{
    Now,
    discard::Discard,
    limits::DOOR_BURSTS_MAX,
    orders::{Knock, Order},
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
    pub(super) fn welcome_strangers(&mut self, welcome: bool) {
        self.port.welcome_strangers(welcome);
    }

    pub(super) fn tally(&self) -> &PortTally {
        self.port.tally()
    }

    /// Sends one frame of our own making, which the counters know of. Without memory there is none.
    fn send(&mut self, to: Address, message: &[u8]) {
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
        let record = self.port_mut(port).ok_or(PlugError::NoPort)?;
        record.door = Some(door);
        Ok(())
    }

    /// Says what would wake the slow path for those who knock: called before it blocks.
    pub fn arm(&mut self, mut add: impl FnMut(Arm)) {
        self.doors().for_each(|(_, door)| add(door.port.arm()));
    }

    /// Called after it has woken up.
    pub fn disarm(&mut self) {
        self.doors().for_each(|(_, door)| door.port.disarm());
    }

    fn doors(&mut self) -> impl Iterator<Item = (PortId, &mut Door)> {
        let ports = self.ports.iter_mut().enumerate();
        ports.filter_map(|(number, port)| {
            Some((PortId(number as u16), port.as_mut()?.door.as_mut()?))
        })
    }

    pub(super) fn door_mut(&mut self, port: u16) -> Option<&mut Door> {
        self.ports.get_mut(usize::from(port))?.as_mut()?.door.as_mut()
    }

    /// Takes in who knocks at the doors, some bursts of each: what is more waits in the socket, or is
    /// the kernel's to drop.
    pub(super) fn answer_doors(&mut self, now: Now) {
        for port in 0..self.ports.len() as u16 {
            for _ in 0..DOOR_BURSTS_MAX {
                let Some(door) = self.door_mut(port) else { break };
                let mut burst = Burst::new();
                door.pool.gather();
                door.port.rx_burst(&mut door.pool, &mut burst);
                let is_last = !burst.is_full();
                self.take_door_burst(port, &mut burst, now);
                if is_last {
                    break;
                }
            }
        }
    }

    fn take_door_burst(&mut self, port: u16, burst: &mut Burst, now: Now) {
        let workers = self.workers.len();
        self.in_hand += burst.len() as u64;
        for frame in burst.drain(..) {
            if !LinkHeader::parse(frame.bytes()).is_ok_and(|head| head.kind.is_handshake()) {
                self.end_at(PortId(port), Discard::BadLinkKind);
                continue;
            }
            // Its sender is known until the next burst.
            let Some(door) = self.door_mut(port) else { return };
            let from = door.port.address_of(frame.mark()).unwrap_or(Address::Only);
            let worker = (door.worker_of)(from, workers).min(workers - 1) as u8;
            let link = self.link_at(PortId(port), from);
            self.take_knock(&Knock { worker, port, link, from, frame }, now);
        }
    }

    /// Answers whoever knocked: by the port's door, so that workers spend nothing on strangers.
    pub(super) fn answer_knock(&mut self, knock: &Knock, message: Vec<u8>) {
        match self.door_mut(knock.port) {
            Some(door) => door.send(knock.from, &message),
            None => {
                let order = Order::Send(knock.port, knock.from, message);
                self.workers.command(usize::from(knock.worker), order);
            }
        }
    }
}
