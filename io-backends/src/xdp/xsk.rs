//! One AF_XDP socket with its rings, opened with the given bind flags. `select_mode` selects the
//! flags.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use strowger_frame::{
    Burst, ChunkClass, Pool,
    port::{KernelDrop, PortTally},
    reserve::Chunks,
};

use super::{
    arena::{Arena, BindFlags},
    interface::Interface,
    limits::{
        BURSTS_PER_STATISTICS, BUSY_MAX, BUSY_RETRY, FILL_RING_FRAMES_MAX, HEADER_CHUNKS,
        IDLE_POLLS, LINGER_MAX, LOCKED_MAX, SEND_BUFFER_BYTES, SPARE_CHUNKS, UMEM_CHUNK_BYTES,
    },
    neighbours::Neighbours,
    program::Attached,
    rx_queue::RxQueue,
    socket::{Rings, Socket},
    tx_queue::{DeviceState, TxQueue},
};
use crate::sys::CallError;

/// Results of opening, apart from the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenResult {
    pub(super) shared: bool,
    pub(super) busy_retries: u32,
    pub(super) posted: usize,
}

/// An open AF_XDP socket.
pub(super) struct Xsk {
    /// It is `None` only while the value is dropped.
    socket: Option<Socket>,
    rings: Rings,
    /// Whether the socket is bound, so that the kernel may write into the posted chunks.
    is_bound: bool,
    attached: Option<Arc<Attached>>,
    rx_queue: RxQueue,
    tx_queue: TxQueue,
    zero_copy: bool,
    tally: Arc<PortTally>,
    bursts: u32,
    /// Consecutive polls without a frame.
    idle_polls: u32,
}

impl Xsk {
    /// Opens a socket on `queue` with these flags, and steers the queue's frames to it.
    pub(super) fn open(
        arena: &mut Arena,
        pool: &mut Pool,
        (interface, queue): (&Interface, u32),
        (flags, posted_max): (BindFlags, u32),
        attached: &Arc<Attached>,
        tally: &Arc<PortTally>,
    ) -> Result<(Self, OpenResult), CallError> {
        let at = |call| move |errno| CallError::new(call, errno);
        let socket = Socket::new().map_err(at("socket(AF_XDP)"))?;
        let share = arena.registered_by(flags);
        if share.is_none() {
            register(&socket, arena).map_err(at("XDP_UMEM_REG"))?;
        }
        let posted_max = posted_max.clamp(1, FILL_RING_FRAMES_MAX);
        let fill_size = (2 * posted_max).next_power_of_two();
        let rings = socket.rings(arena.mapping(), fill_size).map_err(|(s, e)| at(s)(e))?;
        let mapping = arena.mapping();
        let mut take = || {
            let chunk = pool.take(ChunkClass::Single)?;
            let offset = mapping.offset_of(chunk.at().as_ptr(), UMEM_CHUNK_BYTES)?;
            Some((offset, chunk))
        };
        let headers: Vec<_> = std::iter::from_fn(&mut take).take(HEADER_CHUNKS).collect();
        let spare: Vec<_> =
            std::iter::from_fn(&mut take).map(|(_, chunk)| chunk).take(SPARE_CHUNKS).collect();
        if headers.len() < HEADER_CHUNKS || spare.len() < SPARE_CHUNKS {
            return Err(CallError::new("taking chunks from the pool", libc::ENOMEM));
        }
        let BindFlags { zero_copy, multi_buffer } = flags;
        let mut xsk = Self {
            socket: Some(socket),
            rings,
            is_bound: false,
            attached: None,
            rx_queue: RxQueue::new(mapping.bytes(), posted_max as usize),
            tx_queue: TxQueue::new((multi_buffer, zero_copy), headers, spare, tally.clone()),
            zero_copy,
            tally: tally.clone(),
            bursts: 0,
            idle_polls: 0,
        };
        let Some(socket) = xsk.socket.clone() else { return Err(at("socket(AF_XDP)")(0)) };
        // The chunks are posted before `bind`, because some drivers read the fill ring only then.
        xsk.rx_queue.post(&mut xsk.rings, Some(pool));
        let mut result = OpenResult {
            shared: share.is_some(),
            posted: xsk.rx_queue.posted(),
            ..OpenResult::default()
        };
        socket.set_send_buffer(SEND_BUFFER_BYTES);
        let bind_flags = libc::XDP_USE_NEED_WAKEUP
            | if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY }
            | if multi_buffer { libc::XDP_USE_SG } else { 0 };
        let share_with = share.as_ref().map(std::os::fd::AsRawFd::as_raw_fd);
        let deadline = Instant::now() + BUSY_MAX;
        while let Err(errno) = socket.bind(interface.index, queue, bind_flags, share_with) {
            if errno != libc::EBUSY || Instant::now() > deadline {
                return Err(CallError::new("bind", errno));
            }
            // The kernel may still be closing the former socket of this queue.
            result.busy_retries += 1;
            std::thread::sleep(BUSY_RETRY);
        }
        drop(share);
        xsk.is_bound = true;
        let is_zero_copy = socket.is_zero_copy().map_err(at("XDP_OPTIONS"))?;
        if is_zero_copy != zero_copy {
            return Err(CallError::new("XDP_OPTIONS after bind in another mode", libc::EPROTO));
        }
        socket.statistics().map_err(at("XDP_STATISTICS"))?;
        attached.steer(queue, socket.fd())?;
        xsk.attached = Some(attached.clone());
        // Any socket that shares the memory keeps it registered, so the first socket may be closed.
        arena.register(&socket, flags);
        Ok((xsk, result))
    }

    pub(super) fn is_gone(&self) -> bool {
        self.tx_queue.device == DeviceState::Gone
    }

    /// Maximum number of posted chunks.
    pub(super) fn chunks_max(&self) -> Chunks {
        Chunks { trains: 0, singles: self.rx_queue.chunks_max() }
    }

    pub(super) fn rx_burst(
        &mut self,
        neighbours: &mut Neighbours,
        pool: &mut Pool,
        burst: &mut Burst,
    ) {
        self.tx_queue.reap(&mut self.rings);
        let pool_is_ours = Arc::ptr_eq(pool.mapping(), &self.rings.mapping);
        let Self { rings, rx_queue, tally, .. } = self;
        let descriptors = rx_queue.rx_burst(rings, neighbours, tally, (pool, pool_is_ours), burst);
        let idle = descriptors == 0;
        if let Some(socket) = &self.socket
            && (idle || self.zero_copy)
            && self.rings.fill.wants_wakeup()
        {
            socket.kick_rx();
        }
        self.bursts = self.bursts.wrapping_add(1);
        self.idle_polls = if idle { self.idle_polls.saturating_add(1) } else { 0 };
        if self.idle_polls == IDLE_POLLS || self.bursts.is_multiple_of(BURSTS_PER_STATISTICS) {
            self.read_statistics();
        }
    }

    pub(super) fn tx_burst(&mut self, template: &super::ether::Template, frames: &mut Burst) {
        let Self { socket: Some(socket), rings, tx_queue, .. } = self else { return };
        tx_queue.tx_burst(socket, rings, template, frames);
    }

    pub(super) fn flush(&mut self) {
        let Self { socket: Some(socket), rings, tx_queue, .. } = self else { return };
        if !tx_queue.is_empty() {
            tx_queue.flush(socket, rings);
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.tx_queue.is_flushed()
    }

    /// As `Port::arm`.
    pub(super) fn arm(&mut self) -> strowger_frame::port::Arm {
        use strowger_frame::port::Arm;
        self.read_statistics();
        let Some(socket) = &self.socket else { return Arm::Poll };
        if !self.is_gone() && socket.take_error().is_some_and(is_end) {
            self.tx_queue.set_gone();
        }
        if !self.rings.rx.is_empty() || !self.tx_queue.is_flushed() {
            return Arm::Ready;
        }
        if self.rx_queue.posted() == 0 && !self.is_gone() {
            // The pool has no free chunk to receive into, and does not report when it has one
            // again.
            return Arm::Poll;
        }
        Arm::Wait(socket.fd())
    }

    /// Updates the counters from the kernel's statistics.
    fn read_statistics(&mut self) {
        let Some(socket) = &self.socket else { return };
        let Ok(now) = socket.statistics() else { return };
        // `tx_ring_empty_descs` is omitted: if there is nothing to send, nothing is lost.
        for (drop, count) in [
            (KernelDrop::RxDropped, now.rx_dropped),
            (KernelDrop::RxRingFull, now.rx_ring_full),
            (KernelDrop::FillRingEmpty, now.rx_fill_ring_empty_descs),
            (KernelDrop::RxInvalid, now.rx_invalid_descs),
            (KernelDrop::TxInvalid, now.tx_invalid_descs),
        ] {
            self.tally.kernel_drops.set(drop, count);
        }
    }
}

/// Registers the arena's memory.
///
/// When a registration ends, the kernel releases the locked memory with a delay, even if it was the
/// registration of an earlier process. Until then the limit seems to be reached.
fn register(socket: &Socket, arena: &mut Arena) -> Result<(), i32> {
    let deadline = Instant::now() + LOCKED_MAX;
    loop {
        let registered = socket.register(arena.mapping());
        if registered != Err(libc::ENOBUFS) || !arena.limit_may_rise || Instant::now() > deadline {
            // After a failed registration, later ones (for the next mode of AF_XDP) do not wait.
            arena.limit_may_rise = registered.is_ok();
            return registered;
        }
        std::thread::sleep(BUSY_RETRY);
    }
}

/// Whether the socket's error means that its interface no longer exists.
fn is_end(errno: i32) -> bool {
    matches!(errno, libc::ENETDOWN | libc::ENXIO | libc::ENODEV)
}

impl Drop for Xsk {
    fn drop(&mut self) {
        let deadline = Instant::now() + LINGER_MAX;
        loop {
            self.flush();
            self.tx_queue.reap(&mut self.rings);
            let pending = self.rings.tx.pending() as usize;
            if !self.tx_queue.is_read(pending) || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.read_statistics();
        let pending = self.rings.tx.pending() as usize;
        // The socket is closed before any chunk is returned. In copy mode, closing blocks until the
        // kernel no longer writes. In zero-copy mode, the kernel stops the device later, and does
        // not report when.
        let closed = self.socket.take().and_then(|socket| Arc::into_inner(socket.0));
        if self.is_bound && (closed.is_none() || self.zero_copy) {
            self.rx_queue.abandon();
        }
        drop(closed);
        self.tx_queue.abandon(pending);
    }
}

#[cfg(test)]
mod tests {
    use strowger_frame::PoolSpec;

    use super::{
        super::{
            ether::Shape,
            limits::ETHERTYPE,
            probe::{LOOPBACK, enter_network},
            program::{Attach, Program},
            socket::Descriptor,
        },
        *,
    };

    /// Opens a socket on the loopback interface of a new network namespace. It receives what it
    /// sends. Returns `None` without the required privileges.
    fn on_loopback(pool: &mut Pool, posted: u32) -> Option<Xsk> {
        // Each test runs on its own thread, so this affects no other test.
        if let Err(errno) = enter_network() {
            strowger_testkit::skip(&format!("no network namespace: os error {errno}"));
            return None;
        }
        let program = Program::load(ETHERTYPE, None, 1).unwrap();
        let attached = program.attach(LOOPBACK.index, Attach::Generic, (ETHERTYPE, None));
        let attached = attached.map_err(|(_, refused)| refused).unwrap();
        let (flags, tally) = (BindFlags { zero_copy: false, multi_buffer: false }, Arc::default());
        let mut arena = Arena::of(pool);
        let opened = Xsk::open(
            &mut arena,
            pool,
            (&LOOPBACK, 0),
            (flags, posted),
            &Arc::new(attached),
            &tally,
        );
        Some(opened.map(|(xsk, _)| xsk).unwrap())
    }

    /// Appends invalid descriptors, as a bug could do. The kernel counts them and continues.
    #[test]
    fn descriptors_outside_the_umem_are_refused_and_counted() {
        let mut pool = Pool::new(&PoolSpec { trains: 0, singles: 200, huge_pages: false }).unwrap();
        let Some(mut xsk) = on_loopback(&mut pool, 1) else { return };
        let of = |xsk: &mut Xsk, drop| {
            xsk.read_statistics();
            xsk.tally.kernel_drops.of(drop)
        };
        let nowhere = 1 << 40;
        assert!(xsk.rings.tx.put(Descriptor { addr: nowhere, len: 60, options: 0 }));
        xsk.rings.tx.publish();
        let deadline = Instant::now() + BUSY_MAX;
        while of(&mut xsk, KernelDrop::TxInvalid) == 0 && Instant::now() < deadline {
            let _ = xsk.socket.as_ref().unwrap().kick_tx();
        }
        assert_eq!(of(&mut xsk, KernelDrop::TxInvalid), 1);

        // The kernel has one chunk to receive into, followed by an invalid one. It skips the
        // invalid chunk, and counts the next packet as dropped because no chunk is posted. The
        // number that it reports for invalid fill ring entries is a counter of the receive ring,
        // which does not rise (net/xdp/xsk.c, up to Linux 6.18 at least).
        assert!(xsk.rings.fill.put(nowhere));
        xsk.rings.fill.publish();
        let shape = Shape { own: [0; 6], ethertype: ETHERTYPE, vlan: None, group: None };
        let template = shape.template([0; 6]);
        let frame = |pool: &mut Pool| pool.take(ChunkClass::Single).unwrap().into_frame(256, 100);
        let mut frames: Burst = [frame(&mut pool), frame(&mut pool)].into_iter().collect();
        xsk.tx_burst(&template, &mut frames);
        let deadline = Instant::now() + BUSY_MAX;
        while of(&mut xsk, KernelDrop::RxDropped) == 0 && Instant::now() < deadline {
            xsk.flush();
        }
        let dropped = [KernelDrop::RxDropped, KernelDrop::FillRingEmpty];
        assert_eq!(dropped.map(|drop| of(&mut xsk, drop)), [1, 1]);
        assert_eq!(xsk.tally.kernel_drops.read(), 1, "one packet, although two counters rose");
        assert!(xsk.rings.rx.take().is_some() && xsk.rings.rx.take().is_none());
    }
}
