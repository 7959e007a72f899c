//! The UDP port.
//!
//! It receives with io_uring or recvmmsg, and sends with sendmmsg. Its sockets are not connected,
//! so any number of neighbours can share them.

use std::{net::SocketAddr, sync::Arc};

use strowger_frame::{
    Address, Burst, Frame, Loss, Mark, Pool, Port,
    port::{AdmitError, Arm, PortTally},
    reserve::Chunks,
};

use super::{
    limits::DATAGRAM_BYTES_MAX,
    mmsg::Mmsg,
    name::{Key, same_kind},
    neighbours::Neighbours,
    rx_queue::RxQueue,
    send::TxQueue,
    send_sockets::SendSockets,
    socket::Socket,
    uring::Uring,
};

/// A UDP port of the switch, made by [`open`](super::open).
pub struct UdpPort {
    /// This field is the first, so that it is dropped before the socket, because the kernel
    /// receives from the socket into the ring's chunks.
    ring: Option<Uring>,
    /// Receives if there is no ring or if the ring has failed.
    mmsg: Mmsg,
    ring_is_broken: bool,
    sockets: SendSockets,
    neighbours: Neighbours,
    rx_queue: RxQueue,
    tx_queue: TxQueue,
    tally: Arc<PortTally>,
    is_dual: bool,
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
            rx_queue: RxQueue::new(tally.clone()),
            tx_queue: TxQueue::new(segments_max, tally.clone()),
            tally,
            is_dual: false,
            described,
        }
    }

    /// Adds send sockets. They are bound to the same address and receive nothing.
    pub(super) fn add_send_sockets(&mut self, more: impl IntoIterator<Item = Socket>) {
        self.sockets.add(more);
    }

    /// From now on, frames to a neighbour are sent from the local address to which that neighbour
    /// sends.
    pub(super) fn keep_sources(&mut self) {
        self.rx_queue.keep_sources();
    }

    /// Makes the port send to IPv4 neighbours too, with IPv4-mapped addresses.
    pub(super) fn set_dual(&mut self) {
        self.is_dual = true;
    }

    /// Converts an address to the form that this socket uses.
    fn socket_address(&self, at: SocketAddr) -> SocketAddr {
        match at {
            SocketAddr::V4(at) if self.is_dual => (at.ip().to_ipv6_mapped(), at.port()).into(),
            at => at,
        }
    }

    fn send_now(&mut self, to: Address, frame: &Frame, too_long: Loss) {
        let local = self.neighbours.local().ip();
        let to = match to {
            Address::Udp(to) => {
                Some(self.socket_address(to)).filter(|to| same_kind(to.ip(), local))
            }
            _ => None,
        };
        let Some(to) = to else { return self.tally.count_loss(Loss::NoNeighbour, 1) };
        let source = self.rx_queue.sources().and_then(|sources| {
            let key = Key::of(to);
            self.neighbours.source_for(&key).or_else(|| sources.of(&key))
        });
        self.tx_queue.send_now(&self.sockets, (to, source), frame, too_long);
    }

    fn live_ring(&mut self) -> Option<&mut Uring> {
        self.ring.as_mut().filter(|_| !self.ring_is_broken)
    }
}

/// Converts an IPv4-mapped address to IPv4. Other addresses stay as they are.
fn plain_address(at: SocketAddr) -> SocketAddr {
    let SocketAddr::V6(v6) = at else { return at };
    v6.ip().to_ipv4_mapped().map_or(at, |ip| (ip, v6.port()).into())
}

impl Port for UdpPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let Self { ring, mmsg, sockets, neighbours, rx_queue, .. } = self;
        let socket = sockets.receiving();
        rx_queue.begin();
        if !self.ring_is_broken
            && let Some(ring) = ring
        {
            if ring.rx_burst(socket, neighbours, rx_queue, pool, burst) {
                return;
            }
            // The ring is kept, because dropping it would free memory on the worker's thread.
            self.ring_is_broken = true;
        }
        mmsg.rx_burst(socket, neighbours, rx_queue, pool, burst);
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        self.tx_queue.tx_burst(&mut self.sockets, &mut self.neighbours, to, frames);
    }

    fn flush(&mut self) {
        self.tx_queue.flush(&mut self.sockets, &mut self.neighbours);
    }

    fn is_flushed(&self) -> bool {
        self.tx_queue.is_empty()
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        let Address::Udp(at) = at else { return Err(AdmitError::WrongKind) };
        let at = self.socket_address(at);
        self.neighbours.admit(mark, at)?;
        if let Some(source) = self.rx_queue.sources().and_then(|sources| sources.of(&Key::of(at))) {
            self.neighbours.heard_at(mark, source);
        }
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        self.neighbours.forget(mark);
        self.rx_queue.forget(mark);
    }

    fn accept_unknown(&mut self, accept: bool) {
        self.rx_queue.accept_unknown(accept);
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        let at = match self.rx_queue.unknown_sender(mark) {
            Some(key) => Some(key.address(self.neighbours.local().ip())),
            None => self.neighbours.address_of(mark),
        };
        at.map(|at| Address::Udp(plain_address(at)))
    }

    fn send_to(&mut self, to: Address, frame: Frame) {
        self.send_now(to, &frame, Loss::PathTooNarrow);
    }

    fn send_probe(&mut self, to: Address, probe: Frame) {
        self.send_now(to, &probe, Loss::PathProbe);
    }

    fn authenticated(&mut self, frame: &Frame) {
        let Self { rx_queue, neighbours, .. } = self;
        if let Some(source) = rx_queue.sources().and_then(|sources| sources.of_frame(frame)) {
            neighbours.authenticated_at(frame.mark(), source);
        }
    }

    fn last_send_error(&self, to: Address) -> Option<i32> {
        let Address::Udp(to) = to else { return None };
        let to = Key::of(self.socket_address(to));
        self.tx_queue.direct_error(&to).or_else(|| self.neighbours.last_send_error(&to))
    }

    fn arm(&mut self) -> Arm {
        if self.rx_queue.is_cutting() || self.mmsg.is_waiting() || !self.tx_queue.is_empty() {
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
            // The pool has no free chunk to receive into, and does not report when it has one
            // again.
            Arm::Poll
        }
    }

    fn frame_bytes_max(&self) -> usize {
        DATAGRAM_BYTES_MAX
    }

    fn receive_chunks(&self) -> Chunks {
        let posted = self.ring.as_ref().filter(|_| !self.ring_is_broken);
        let posted = posted.map(|ring| Chunks { trains: ring.chunks_max(), singles: 0 });
        posted.unwrap_or_else(|| self.mmsg.chunks_max())
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        &self.described[usize::from(self.ring.is_none() || self.ring_is_broken)]
    }
}
