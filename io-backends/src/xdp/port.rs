//! The port for one queue of an Ethernet interface, over AF_XDP, or for all its queues, over
//! AF_PACKET.
//!
//! The port requires no privileges after it has been opened. It does not reopen itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use strowger_frame::{
    Address, Burst, Frame, Loss, Mark, Pool, Port,
    port::{AdmitError, Arm, PortTally},
    reserve::Chunks,
};

use super::{
    group::Membership, limits::BURSTS_PER_STATISTICS, neighbours::Neighbours, own::LocalMac,
    packet::PacketSocket, xsk::Xsk,
};

/// An Ethernet port of the switch, made by [`open`](super::open).
pub struct EtherPort {
    backend: Backend,
    neighbours: Neighbours,
    tally: Arc<PortTally>,
    frame_bytes_max: usize,
    described: String,
    /// Membership in the group. It lasts as long as the port.
    _group: Option<Membership>,
    own: LocalMac,
    /// Number of bursts until the interface's address is read again.
    read_address_in: u32,
    /// Whether the interface is gone, for other threads.
    gone: Arc<AtomicBool>,
}

/// The socket that receives and sends.
pub(super) enum Backend {
    Xdp(Box<Xsk>),
    Packet(Box<PacketSocket>),
}

impl std::fmt::Debug for EtherPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EtherPort").field(&self.describe()).finish()
    }
}

impl EtherPort {
    pub(super) fn new(
        backend: Backend,
        neighbours: Neighbours,
        tally: Arc<PortTally>,
        frame_bytes_max: usize,
        described: String,
        (group, own): (Option<Membership>, LocalMac),
    ) -> Self {
        Self {
            backend,
            neighbours,
            tally,
            frame_bytes_max,
            described,
            _group: group,
            own,
            read_address_in: BURSTS_PER_STATISTICS,
            gone: Arc::default(),
        }
    }

    /// Whether the interface no longer exists.
    ///
    /// Frames sent to it count as [`Loss::PeerGone`]. If an interface with the same name appears
    /// later, it is a different one and requires a new port.
    pub fn is_gone(&self) -> bool {
        match &self.backend {
            Backend::Xdp(xsk) => xsk.is_gone(),
            Backend::Packet(packet) => packet.is_gone(),
        }
    }

    /// As `is_gone`, as a flag for other threads. The port sets it when it detects that the
    /// interface is gone, which happens when the port sends or prepares to block.
    pub fn gone(&self) -> &Arc<AtomicBool> {
        &self.gone
    }

    /// Reads the interface's address. From now on, frames are sent from this address, and frames to
    /// it are received.
    #[cold]
    fn follow_own_address(&mut self) {
        self.read_address_in = BURSTS_PER_STATISTICS;
        if let Some(own) = self.own.read()
            && own != self.neighbours.shape().own
        {
            self.neighbours.set_own(own);
            if let Backend::Packet(packet) = &mut self.backend {
                packet.set_own(own);
            }
        }
    }

    #[inline]
    fn note_end(&self) {
        if self.is_gone() {
            // Relaxed: no other data depends on it.
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    /// Sends one frame to an address. A frame that is too long counts as `too_long`.
    fn send_now(&mut self, to: Address, frame: Frame, too_long: Loss) {
        let mac = match to {
            Address::Ether(mac) if self.neighbours.shape().reaches(mac) => mac,
            _ => return self.tally.count_loss(Loss::NoNeighbour, 1),
        };
        if frame.len() > self.frame_bytes_max {
            return self.tally.count_loss(too_long, 1);
        }
        let template = self.neighbours.shape().template(mac);
        let mut alone = Burst::new();
        alone.push(frame);
        match &mut self.backend {
            Backend::Xdp(xsk) => xsk.tx_burst(&template, &mut alone),
            Backend::Packet(packet) => packet.tx_alone(&template, &mut alone, too_long),
        }
        // If there was no room for the frame, it counts as lost. The sender of a handshake repeats
        // it.
        self.tally.count_loss(Loss::SendRefused, alone.len() as u64);
        self.flush();
    }

    #[cold]
    fn drop_too_long(&self, frames: &mut Burst) {
        let before = frames.len();
        frames.retain(|frame| frame.len() <= self.frame_bytes_max);
        self.tally.count_loss(Loss::PathTooNarrow, (before - frames.len()) as u64);
    }
}

impl Port for EtherPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.neighbours.begin();
        self.read_address_in -= 1;
        if self.read_address_in == 0 {
            self.follow_own_address();
        }
        match &mut self.backend {
            Backend::Xdp(xsk) => xsk.rx_burst(&mut self.neighbours, pool, burst),
            Backend::Packet(packet) => packet.rx_burst(&mut self.neighbours, pool, burst),
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        if frames.iter().any(|frame| frame.len() > self.frame_bytes_max) {
            self.drop_too_long(frames);
        }
        let Some(template) = self.neighbours.template_of(to) else {
            self.tally.count_loss(Loss::NoNeighbour, frames.len() as u64);
            frames.clear();
            return;
        };
        match &mut self.backend {
            Backend::Xdp(xsk) => xsk.tx_burst(template, frames),
            Backend::Packet(packet) => packet.tx_burst(template, frames),
        }
    }

    fn flush(&mut self) {
        match &mut self.backend {
            Backend::Xdp(xsk) => xsk.flush(),
            Backend::Packet(packet) => packet.flush(),
        }
        self.note_end();
    }

    fn is_flushed(&self) -> bool {
        match &self.backend {
            Backend::Xdp(xsk) => xsk.is_flushed(),
            Backend::Packet(packet) => packet.is_flushed(),
        }
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        let Address::Ether(mac) = at else { return Err(AdmitError::WrongKind) };
        self.neighbours.admit(mark, mac)
    }

    fn forget(&mut self, mark: Mark) {
        self.neighbours.forget(mark);
    }

    fn accept_unknown(&mut self, accept: bool) {
        self.neighbours.accept_unknown(accept);
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        self.neighbours.address_of(mark).map(Address::Ether)
    }

    fn send_to(&mut self, to: Address, frame: Frame) {
        self.send_now(to, frame, Loss::PathTooNarrow);
    }

    fn send_probe(&mut self, to: Address, probe: Frame) {
        self.send_now(to, probe, Loss::PathProbe);
    }

    fn arm(&mut self) -> Arm {
        self.follow_own_address();
        let arm = match &mut self.backend {
            Backend::Xdp(xsk) => xsk.arm(),
            Backend::Packet(packet) => packet.arm(),
        };
        self.note_end();
        arm
    }

    fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    fn receive_chunks(&self) -> Chunks {
        match &self.backend {
            Backend::Xdp(xsk) => xsk.chunks_max(),
            Backend::Packet(packet) => packet.chunks_max(),
        }
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        &self.described
    }
}
