//! One worker's queues of the switch's ports.

use std::mem;

use strowger_frame::{Address, Mark};

use crate::{command::PortQueue, discard::DiscardTally, limits::PORTS_MAX};

/// The port queues that one worker polls, in a vector without gaps, and an index from port numbers
/// to queues. Neither grows after the start.
pub(super) struct PortQueues {
    /// The queues are boxed, so that one can be returned to the slow path without an allocation.
    #[allow(clippy::vec_box)]
    queues: Vec<Box<PortQueue>>,
    /// By port number: the index of the port's queue in `queues`.
    index: Vec<Option<u16>>,
    /// The numbers of ports to which frames were given since their last flush, or that have sends
    /// in flight.
    unflushed: Vec<u16>,
}

impl PortQueues {
    pub(super) fn new() -> Self {
        Self {
            queues: Vec::with_capacity(PORTS_MAX),
            index: vec![None; PORTS_MAX],
            unflushed: Vec::with_capacity(PORTS_MAX),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// The queue at this index.
    #[inline]
    pub(super) fn at(&mut self, queue: usize) -> Option<&mut PortQueue> {
        self.queues.get_mut(queue).map(Box::as_mut)
    }

    /// The queue of the port with this number.
    #[inline]
    pub(super) fn of_port(&self, port: u16) -> Option<&PortQueue> {
        Some(&**self.queues.get(self.index_of(port)?)?)
    }

    /// As [`of_port`](Self::of_port), mutable.
    #[inline]
    pub(super) fn of_port_mut(&mut self, port: u16) -> Option<&mut PortQueue> {
        let queue = self.index_of(port)?;
        self.at(queue)
    }

    #[inline]
    fn index_of(&self, port: u16) -> Option<usize> {
        self.index.get(usize::from(port)).copied().flatten().map(usize::from)
    }

    /// The drop counters of the port with this number.
    pub(super) fn discards(&self, port: u16) -> Option<&DiscardTally> {
        Some(&*self.of_port(port)?.discards)
    }

    /// The number of the port whose queue is at this index, and the address that `mark` has at this
    /// port.
    #[cold]
    pub(super) fn address_of(&self, queue: usize, mark: Mark) -> Option<(u16, Address)> {
        let queue = self.queues.get(queue)?;
        Some((queue.number, queue.port.address_of(mark)?))
    }

    /// Adds a queue. Returns it if the vector is full or the port number is too large.
    pub(super) fn insert(&mut self, queue: Box<PortQueue>) -> Result<(), Box<PortQueue>> {
        let number = usize::from(queue.number);
        if self.queues.len() == PORTS_MAX || number >= self.index.len() {
            return Err(queue);
        }
        self.index[number] = Some(self.queues.len() as u16);
        self.queues.push(queue);
        Ok(())
    }

    pub(super) fn remove(&mut self, port: u16) -> Option<Box<PortQueue>> {
        let at = self.index_of(port)?;
        let removed = self.queues.swap_remove(at);
        self.index[usize::from(port)] = None;
        self.unflushed.retain(|&listed| listed != port);
        if let Some(moved) = self.queues.get(at) {
            self.index[usize::from(moved.number)] = Some(at as u16);
        }
        Some(removed)
    }

    /// The queue of a port, for sending. The port is added to the list for the next flush.
    #[inline]
    pub(super) fn transmit_queue(&mut self, port: u16) -> Option<&mut PortQueue> {
        let at = self.index_of(port)?;
        let Self { queues, unflushed, .. } = self;
        let queue = queues.get_mut(at)?;
        if !mem::replace(&mut queue.is_listed, true) {
            debug_assert!(unflushed.len() < unflushed.capacity(), "each port is listed once");
            unflushed.push(port);
        }
        Some(queue)
    }

    #[inline]
    pub(super) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Flushes the listed ports. Ports with sends in flight stay listed.
    pub(super) fn flush(&mut self) {
        let Self { queues, index, unflushed } = self;
        unflushed.retain(|&number| {
            let at = index.get(usize::from(number)).copied().flatten();
            at.and_then(|at| queues.get_mut(usize::from(at))).is_some_and(|queue| {
                queue.port.flush();
                queue.is_listed = !queue.port.is_flushed();
                queue.is_listed
            })
        });
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PortQueue> {
        self.queues.iter_mut().map(Box::as_mut)
    }
}
