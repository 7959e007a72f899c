//! The ports that are plugged in: their queues at the workers, their counters, and their handshake
//! sockets, which the slow path reads.

use std::{fmt, sync::Arc};

use strowger_frame::{
    Address, Burst, Frame, Port,
    port::{Arm, PortTally},
};

use super::{
    Balance, DetachError, HandshakeSocket, PlugError, PortId, PortView,
    view::queue_view,
    workers::{Step, Workers},
};
use crate::{
    command::{Command, PortQueue},
    discard::{Discard, DiscardTally},
    limits::PORTS_MAX,
};

/// One port.
struct PortRecord {
    describe: String,
    /// Queues by worker: `None` if the port has no queue at that worker.
    queues: Vec<Option<Queue>>,
    /// The socket that receives handshakes, if the workers do not.
    handshake_socket: Option<HandshakeSocket>,
    /// Counts the outcomes of the handshakes and beacons that arrived on the port.
    handshakes: DiscardTally,
    /// The value that was passed in the last call of [`Ports::accept_unknown`]; `None` before the
    /// first call.
    accepts_unknown: Option<bool>,
    leaving: bool,
}

struct Queue {
    tally: Arc<PortTally>,
    discards: Arc<DiscardTally>,
}

/// The ports of one switch.
#[derive(Default)]
pub(super) struct Ports {
    records: Vec<Option<PortRecord>>,
    /// The counters of removed ports, so that totals never decrease.
    past: Balance,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").field("places", &self.records.len()).finish_non_exhaustive()
    }
}

impl Ports {
    pub(super) fn plug_everywhere(
        &mut self,
        ports: Vec<Box<dyn Port>>,
        workers: &mut Workers,
    ) -> Result<PortId, PlugError> {
        if ports.len() != workers.len() {
            return Err(PlugError::QueueCount { queues: ports.len(), workers: workers.len() });
        }
        let describe = ports.first().map(|port| port.describe().to_owned()).unwrap_or_default();
        self.plug(describe, ports.into_iter().enumerate(), workers)
    }

    pub(super) fn plug_at(
        &mut self,
        worker: usize,
        port: Box<dyn Port>,
        workers: &mut Workers,
    ) -> Result<PortId, PlugError> {
        if worker >= workers.len() {
            return Err(PlugError::NoWorker(worker));
        }
        self.plug(port.describe().to_owned(), [(worker, port)], workers)
    }

    fn plug(
        &mut self,
        describe: String,
        ports: impl IntoIterator<Item = (usize, Box<dyn Port>)>,
        workers: &mut Workers,
    ) -> Result<PortId, PlugError> {
        let free = self.records.iter().position(Option::is_none).unwrap_or(self.records.len());
        if free >= PORTS_MAX {
            return Err(PlugError::Full);
        }
        let number = free as u16;
        let mut queues: Vec<Option<Queue>> = (0..workers.len()).map(|_| None).collect();
        for (worker, port) in ports {
            let discards = Arc::new(DiscardTally::default());
            let tally = port.tally().clone();
            queues[worker] = Some(Queue { tally, discards: discards.clone() });
            let seat =
                PortQueue { number, port, discards, accepts_beacons: false, is_listed: false };
            workers.command(worker, Command::Plug(Box::new(seat)));
        }
        let handshakes = DiscardTally::default();
        let (handshake_socket, accepts_unknown, leaving) = (None, None, false);
        let record =
            PortRecord { describe, queues, handshake_socket, handshakes, accepts_unknown, leaving };
        match self.records.get_mut(free) {
            Some(place) => *place = Some(record),
            None => self.records.push(Some(record)),
        }
        Ok(PortId(number))
    }

    /// Removes a port from its workers. [`forget`](Self::forget) completes the removal.
    pub(super) fn unplug(&mut self, id: PortId, workers: &mut Workers) -> Result<(), DetachError> {
        let record = self.plugged_mut(id).ok_or(DetachError::NoPort)?;
        record.leaving = true;
        // Close the socket first: the kernel then delivers handshakes to the workers, like all
        // other frames.
        let handshake_socket = record.handshake_socket.take();
        let owners = record.queues.iter().enumerate().filter(|(_, queue)| queue.is_some());
        for (worker, _) in owners {
            workers.command(worker, Command::Unplug(id.0));
        }
        if let Some(handshake_socket) = handshake_socket {
            self.past.add_tally(handshake_socket.tally());
        }
        workers.after_all(id, Step::Forget);
        Ok(())
    }

    /// Removes a port after every worker has removed it. Returns whether the port existed.
    pub(super) fn forget(&mut self, id: PortId) -> bool {
        let place = self.records.get_mut(usize::from(id.0));
        let Some(record) = place.and_then(Option::take) else { return false };
        for queue in record.queues.iter().flatten() {
            self.past.add_queue(&queue.tally, &queue.discards);
        }
        self.past.add_discards(&record.handshakes);
        true
    }

    fn record(&self, id: PortId) -> Option<&PortRecord> {
        self.records.get(usize::from(id.0))?.as_ref()
    }

    fn plugged_mut(&mut self, id: PortId) -> Option<&mut PortRecord> {
        let record = self.records.get_mut(usize::from(id.0))?.as_mut()?;
        (!record.leaving).then_some(record)
    }

    /// Whether a port is plugged in, and is not being unplugged.
    pub(super) fn is_plugged(&self, id: PortId) -> bool {
        self.record(id).is_some_and(|record| !record.leaving)
    }

    /// The worker that owns the port's only queue. `None` if each of several workers has a queue,
    /// or if there is no such port.
    pub(super) fn home(&self, id: PortId) -> Option<u8> {
        let record = self.record(id)?;
        let owners = record.queues.iter().filter(|queue| queue.is_some()).count();
        if owners == record.queues.len() && owners > 1 {
            return None;
        }
        record.queues.iter().position(Option::is_some).map(|worker| worker as u8)
    }

    /// The worker that sends frames of a link through a port. This is the worker that opens the
    /// link's frames, if it has a queue of the port. Otherwise it is the worker that owns the
    /// port's only queue.
    pub(super) fn sender(&self, owner: u8, id: PortId) -> usize {
        let queue = self.record(id).and_then(|record| record.queues.get(usize::from(owner)));
        match queue {
            Some(Some(_)) => usize::from(owner),
            _ => usize::from(self.home(id).unwrap_or(owner)),
        }
    }

    /// Sets whether a port accepts frames from unknown senders.
    pub(super) fn accept_unknown(&mut self, id: PortId, accept: bool, workers: &mut Workers) {
        if let Some(record) = self.plugged_mut(id) {
            record.accepts_unknown = Some(accept);
        }
        workers.command_all(|_| Command::AcceptUnknown(id.0, accept));
        if let Some(handshake_socket) = self.handshake_socket_mut(id) {
            handshake_socket.accept_unknown(accept);
        }
    }

    /// After a recovery, sends the commands for each port again, because workers may not have
    /// received them.
    pub(super) fn command_again(&mut self, workers: &mut Workers) {
        for number in 0..self.records.len() as u16 {
            let id = PortId(number);
            let Some(record) = self.record(id) else { continue };
            if record.leaving {
                workers.command_all(|_| Command::Unplug(number));
                workers.after_all(id, Step::Forget);
            } else if let Some(accept) = record.accepts_unknown {
                self.accept_unknown(id, accept, workers);
            }
        }
    }

    /// All numbers that ports have or had.
    pub(super) fn ids(&self) -> impl Iterator<Item = PortId> + use<> {
        (0..self.records.len() as u16).map(PortId)
    }

    pub(super) fn open_handshake_socket(
        &mut self,
        id: PortId,
        handshake_socket: HandshakeSocket,
    ) -> Result<(), PlugError> {
        let record = self.plugged_mut(id).ok_or(PlugError::NoPort)?;
        record.handshake_socket = Some(handshake_socket);
        Ok(())
    }

    fn handshake_sockets_mut(&mut self) -> impl Iterator<Item = &mut HandshakeSocket> {
        self.records.iter_mut().flatten().filter_map(|record| record.handshake_socket.as_mut())
    }

    /// Whether the port has a handshake socket.
    pub(super) fn has_handshake_socket(&self, id: PortId) -> bool {
        self.record(id).is_some_and(|record| record.handshake_socket.is_some())
    }

    fn handshake_socket_mut(&mut self, id: PortId) -> Option<&mut HandshakeSocket> {
        self.records.get_mut(usize::from(id.0))?.as_mut()?.handshake_socket.as_mut()
    }

    /// Lists the events that wake the slow path to read handshakes.
    pub(super) fn arm(&mut self, add: impl FnMut(Arm)) {
        self.handshake_sockets_mut().map(HandshakeSocket::arm).for_each(add);
    }

    pub(super) fn disarm(&mut self) {
        self.handshake_sockets_mut().for_each(HandshakeSocket::disarm);
    }

    /// Receives a burst on a port's handshake socket, if it has one.
    pub(super) fn receive(&mut self, id: PortId) -> Option<Burst> {
        self.handshake_socket_mut(id).map(HandshakeSocket::receive)
    }

    /// The source of a frame of the last burst, and the worker that receives data from this source.
    pub(super) fn origin(
        &self,
        id: PortId,
        frame: &Frame,
        workers: usize,
    ) -> Option<(Address, u8)> {
        Some(self.record(id)?.handshake_socket.as_ref()?.origin(frame, workers))
    }

    /// Sends a handshake message through a port's handshake socket. Returns `false` if the port has
    /// none.
    pub(super) fn send(&mut self, id: PortId, to: Address, message: &[u8]) -> bool {
        let handshake_socket = self.handshake_socket_mut(id);
        handshake_socket.map(|handshake_socket| handshake_socket.send(to, message)).is_some()
    }

    /// Counts the outcome of a handshake or beacon that arrived on a port. Returns `false` if the
    /// port is removed.
    pub(super) fn count_handshake(&self, id: PortId, how: Discard) -> bool {
        self.record(id).map(|record| record.handshakes.count(how)).is_some()
    }

    /// All ports, in order of their numbers.
    pub(super) fn views(&self) -> Vec<PortView> {
        let records = self.records.iter().enumerate();
        records
            .filter_map(|(number, record)| {
                let record = record.as_ref()?;
                let queues = record.queues.iter().enumerate().filter_map(|(worker, queue)| {
                    let Queue { tally, discards } = queue.as_ref()?;
                    let mut sums = Balance::default();
                    sums.add_queue(tally, discards);
                    Some(queue_view(Some(worker), tally, &sums))
                });
                let handshake_socket = record.handshake_socket.as_ref().map(|handshake_socket| {
                    let mut sums = Balance::default();
                    sums.add_tally(handshake_socket.tally());
                    queue_view(None, handshake_socket.tally(), &sums)
                });
                let mut handshakes = Balance::default();
                handshakes.add_discards(&record.handshakes);
                Some(PortView {
                    id: PortId(number as u16),
                    describe: record.describe.clone(),
                    queues: queues.chain(handshake_socket).collect(),
                    handshakes: handshakes.by_reason().collect(),
                })
            })
            .collect()
    }

    /// The sums of all counters, including those of removed ports.
    pub(super) fn balance(&self) -> Balance {
        let mut balance = self.past.clone();
        for record in self.records.iter().flatten() {
            for queue in record.queues.iter().flatten() {
                balance.add_queue(&queue.tally, &queue.discards);
            }
            if let Some(handshake_socket) = &record.handshake_socket {
                balance.add_tally(handshake_socket.tally());
            }
            balance.add_discards(&record.handshakes);
        }
        balance
    }
}
