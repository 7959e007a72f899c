//! The port over one UDP socket: its receiving half is io_uring's or recvmmsg's, its sending half
//! the same for both. It never connects its socket, so any number of neighbours share it.

use std::sync::Arc;

use strowger_frame::{
    Address, Burst, Frame, Loss, Mark, Pool, Port,
    port::{AdmitError, Arm, PortTally},
};

use super::{
    intake::Intake,
    limits::DATAGRAM_BYTES_MAX,
    mmsg::Mmsg,
    name::{Key, same_kind},
    neighbours::Neighbours,
    send::Outbox,
    send_sockets::SendSockets,
    socket::Socket,
    uring::Uring,
};

/// A UDP socket as a port of the switch; made by [`open`](super::open).
pub struct UdpPort {
    /// Dropped first: the kernel receives for it into chunks, and from the socket.
    ring: Option<Uring>,
    /// Receives when there is no ring, or the ring has broken.
    mmsg: Mmsg,
    ring_is_broken: bool,
    sockets: SendSockets,
    neighbours: Neighbours,
    intake: Intake,
    outbox: Outbox,
    tally: Arc<PortTally>,
    described: [String; 2],
}

impl std::fmt::Debug for UdpPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UdpPort").field(&self.describe()).finish()
    }
}

impl UdpPort {
    pub(super) fn new(
        socket: Socket,
        ring: Option<Uring>,
        mmsg: Mmsg,
        neighbours: Neighbours,
        segments_max: usize,
        described: [String; 2],
    ) -> Self {
        let tally = Arc::new(PortTally::default());
        Self {
            ring,
            mmsg,
            ring_is_broken: false,
            sockets: SendSockets::new(socket),
            neighbours,
            intake: Intake::new(tally.clone()),
            outbox: Outbox::new(segments_max, tally.clone()),
            tally,
            described,
        }
    }

    /// Adds sockets to send by, bound to the same address, that receive nothing.
    pub(super) fn add_send_sockets(&mut self, more: impl IntoIterator<Item = Socket>) {
        self.sockets.add(more);
    }

    fn live_ring(&mut self) -> Option<&mut Uring> {
        self.ring.as_mut().filter(|_| !self.ring_is_broken)
    }
}

impl Port for UdpPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let Self { ring, mmsg, sockets, neighbours, intake, .. } = self;
        let socket = sockets.receiving();
        intake.begin();
        if !self.ring_is_broken
            && let Some(ring) = ring
        {
            if ring.rx_burst(socket, neighbours, intake, pool, burst) {
                return;
            }
            // Put aside, and kept: dropping it here would free memory on the worker's thread.
            self.ring_is_broken = true;
        }
        mmsg.rx_burst(socket, neighbours, intake, pool, burst);
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.outbox.tx_burst(&mut self.sockets, &mut self.neighbours, to, frames);
    }

    fn flush(&mut self) {
        self.outbox.flush(&mut self.sockets, &mut self.neighbours);
    }

    fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        let Address::Udp(at) = at else { return Err(AdmitError::WrongKind) };
        self.neighbours.admit(mark, at)
    }

    fn forget(&mut self, mark: Mark) {
        self.neighbours.forget(mark);
        self.intake.forget(mark);
    }

    fn welcome_strangers(&mut self, welcome: bool) {
        self.intake.welcome_strangers(welcome);
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        let at = match self.intake.stranger(mark) {
            Some(key) => Some(key.address(self.neighbours.local().ip())),
            None => self.neighbours.address_of(mark),
        };
        at.map(Address::Udp)
    }

    fn send_to(&mut self, to: Address, frame: Frame) {
        let local = self.neighbours.local().ip();
        match to {
            Address::Udp(to) if same_kind(to.ip(), local) => {
                self.outbox.send_now(&self.sockets, to, &frame);
            }
            _ => self.tally.lose(Loss::NoNeighbour, 1),
        }
    }

    fn last_send_error(&self, to: Address) -> Option<i32> {
        let Address::Udp(to) = to else { return None };
        let to = Key::of(to);
        self.outbox.direct_error(&to).or_else(|| self.neighbours.last_send_error(&to))
    }

    fn arm(&mut self) -> Arm {
        if self.intake.is_cutting() || self.mmsg.is_waiting() || !self.outbox.is_empty() {
            return Arm::Ready;
        }
        if self.live_ring().is_none() {
            return Arm::Wait(self.sockets.receiving().fd());
        }
        let Self { ring: Some(ring), sockets, .. } = self else { return Arm::Ready };
        let socket = sockets.receiving();
        ring.settle(socket);
        if ring.is_waiting() {
            return Arm::Ready;
        }
        if ring.is_armed() {
            Arm::Wait(ring.fd(socket))
        } else {
            // The pool has no chunk to receive into, and will not say when it has.
            Arm::Poll
        }
    }

    fn frame_bytes_max(&self) -> usize {
        DATAGRAM_BYTES_MAX
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        &self.described[usize::from(self.ring.is_none() || self.ring_is_broken)]
    }
}
