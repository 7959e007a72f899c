//! The port over one queue of an Ethernet interface: by AF_XDP or by AF_PACKET. It needs no right
//! once it is open, and never opens itself anew.

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
    group::Membership, limits::BURSTS_PER_LOOK, neighbours::Neighbours, own::LocalMac,
    packet::PacketSocket, xsk::Xsk,
};

/// One queue of an Ethernet interface as a port of the switch; made by [`open`](super::open).
pub struct EtherPort {
    half: Half,
    neighbours: Neighbours,
    tally: Arc<PortTally>,
    frame_bytes_max: usize,
    described: String,
    /// Held for as long as the port is there.
    _group: Option<Membership>,
    own: LocalMac,
    /// Bursts until the own address is looked at again.
    look_in: u32,
    /// For whoever looks from another thread.
    gone: Arc<AtomicBool>,
}

/// How it receives and sends.
pub(super) enum Half {
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
        half: Half,
        neighbours: Neighbours,
        tally: Arc<PortTally>,
        frame_bytes_max: usize,
        described: String,
        (group, own): (Option<Membership>, LocalMac),
    ) -> Self {
        Self {
            half,
            neighbours,
            tally,
            frame_bytes_max,
            described,
            _group: group,
            own,
            look_in: BURSTS_PER_LOOK,
            gone: Arc::default(),
        }
    }

    /// Whether the interface is no more. Frames sent to it are counted as [`Loss::PeerGone`]; an
    /// interface that comes back under its name is another one, and wants a new port.
    pub fn is_gone(&self) -> bool {
        match &self.half {
            Half::Xdp(xsk) => xsk.is_gone(),
            Half::Packet(packet) => packet.is_gone(),
        }
    }

    /// The same for other threads: set once the port's own has noticed, which it does when it sends
    /// or is about to block.
    pub fn gone(&self) -> &Arc<AtomicBool> {
        &self.gone
    }

    /// Follows the interface's own address: frames go out from it and are taken in for it alone.
    #[cold]
    fn follow_own_address(&mut self) {
        self.look_in = BURSTS_PER_LOOK;
        if let Some(own) = self.own.read()
            && own != self.neighbours.shape().own
        {
            self.neighbours.set_own(own);
            if let Half::Packet(packet) = &mut self.half {
                packet.set_own(own);
            }
        }
    }

    #[inline]
    fn note_end(&self) {
        if self.is_gone() {
            // Relaxed: nothing is read behind it.
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    /// One that is too long counts as `too_long`.
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
        match &mut self.half {
            Half::Xdp(xsk) => xsk.tx_burst(&template, &mut alone),
            Half::Packet(packet) => packet.tx_alone(&template, &mut alone, too_long),
        }
        // No room: whoever sends handshakes sends them again.
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
        self.look_in -= 1;
        if self.look_in == 0 {
            self.follow_own_address();
        }
        match &mut self.half {
            Half::Xdp(xsk) => xsk.rx_burst(&mut self.neighbours, pool, burst),
            Half::Packet(packet) => packet.rx_burst(&mut self.neighbours, pool, burst),
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
        match &mut self.half {
            Half::Xdp(xsk) => xsk.tx_burst(template, frames),
            Half::Packet(packet) => packet.tx_burst(template, frames),
        }
    }

    fn flush(&mut self) {
        match &mut self.half {
            Half::Xdp(xsk) => xsk.flush(),
            Half::Packet(packet) => packet.flush(),
        }
        self.note_end();
    }

    fn is_flushed(&self) -> bool {
        match &self.half {
            Half::Xdp(xsk) => xsk.is_flushed(),
            Half::Packet(packet) => packet.is_flushed(),
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
        let arm = match &mut self.half {
            Half::Xdp(xsk) => xsk.arm(),
            Half::Packet(packet) => packet.arm(),
        };
        self.note_end();
        arm
    }

    fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    fn receive_chunks(&self) -> Chunks {
        match &self.half {
            Half::Xdp(xsk) => xsk.chunks_max(),
            Half::Packet(packet) => packet.chunks_max(),
        }
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        &self.described
    }
}
