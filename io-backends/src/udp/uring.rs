//! Receives with io_uring.
//!
//! A ring has one multishot `recvmsg` into a ring of provided buffers, each of which is a chunk of
//! the pool. A chunk is not used for anything else while the kernel may write into it.
//!
//! [`open`](super::open) makes the ring, disabled, on any thread. The worker's first receive
//! enables it. A ring with `DEFER_TASKRUN` belongs to the thread that enables it, and receives only
//! while that thread is inside `io_uring_enter`. If the ring fails later, or if another thread uses
//! such a ring, the port continues with recvmmsg.

use std::{
    os::fd::{AsRawFd, RawFd},
    sync::atomic::{AtomicU16, Ordering, fence},
};

use io_uring::{
    EnterFlags, IoUring, cqueue, opcode,
    types::{BufRingEntry, Fd, SubmitArgs, Timespec},
};
use strowger_frame::{Burst, Chunk, ChunkClass, Pool, map::Mapping};

use super::{
    control::{CONTROL_IN_BYTES, DatagramInfo, LEAD_BYTES},
    limits::{COMPLETIONS_MAX, POSTED_BUFFERS_MAX},
    name::Name,
    neighbours::Neighbours,
    rx_queue::RxQueue,
    socket::Socket,
};
use crate::sys::{CallError, Errno};

/// The only buffer group of a ring.
const GROUP: u16 = 0;
/// User data of the receive operation and of its cancellation.
const RECEIVE: u64 = 1;
const CANCEL: u64 = 2;
/// Bytes of a chunk that are available for a train.
const DATA_BYTES: usize = 64 << 10;
/// Number of consecutive failed receives after which a ring counts as broken.
///
/// A few failures are normal, for example when the kernel is short of memory. But the port must not
/// retry forever if every receive fails.
const FAILURES_MAX: u32 = 16;
/// Maximum number of calls in which a cancelled receive must end when a port is dropped, and the
/// maximum time that each call blocks. Usually one call without blocking is enough. More are needed
/// if the port is dropped on one thread while the thread that received with it is busy and must
/// first enter the kernel.
const CANCEL_CALLS_MAX: u32 = 8;
const CANCEL_WAIT_NS: u32 = 50_000_000;

const _: () = assert!(size_of::<BufRingEntry>() == 16);

/// The flags of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingMode {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN`: the kernel receives only inside calls of this ring.
    Deferred,
    /// `COOP_TASKRUN`: the kernel receives at the thread's next system call of any kind.
    Cooperative,
    /// No flags: the kernel interrupts the thread to receive.
    Plain,
}

/// The sets of flags, the best one first.
///
/// A single issuer without deferred task work is not tried. It has little benefit, and another
/// thread could not end the receive.
const RING_MODES: [RingMode; 3] = [RingMode::Deferred, RingMode::Cooperative, RingMode::Plain];

impl RingMode {
    /// Name of this set of flags.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deferred => "single issuer, deferred task work",
            Self::Cooperative => "cooperative task work",
            Self::Plain => "no flags",
        }
    }
}

/// The memory in which the kernel finds the buffers that it may fill.
struct BufferRing {
    memory: Mapping,
    entries: u16,
    tail: u16,
}

impl BufferRing {
    fn new(entries: u16) -> Result<Self, i32> {
        let bytes = usize::from(entries) * size_of::<BufRingEntry>();
        let memory = Mapping::new(bytes, false)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
        Ok(Self { memory, entries, tail: 0 })
    }

    fn base(&self) -> *mut BufRingEntry {
        self.memory.at().as_ptr().cast()
    }

    /// Appends a buffer; the kernel sees it after the next `publish`.
    #[inline]
    fn post(&mut self, id: u16, at: u64, bytes: u32) {
        let slot = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `slot` is below `entries`, for which the mapping has room.
        let entry = unsafe { self.base().add(slot) };
        // SAFETY: the kernel reads only entries before the published tail, and this one is behind
        // it: at most `entries` ids exist, and each is posted once at a time.
        let entry = unsafe { &mut *entry };
        entry.set_addr(at);
        entry.set_len(bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    fn publish(&self) {
        // SAFETY: the base belongs to a ring with at least one entry.
        let tail = unsafe { BufRingEntry::tail(self.base()) };
        // SAFETY: the tail is a naturally aligned u16 in the mapping. Only we write it, and the
        // kernel reads it as an atomic.
        let tail = unsafe { &*tail.cast::<AtomicU16>() };
        // Release: pairs with the kernel's acquire load, so that the kernel sees all entries before
        // the tail.
        tail.store(self.tail, Ordering::Release);
    }

    /// Sets the length of every posted buffer to 0.
    ///
    /// A receive that picks one then fails with `EFAULT`, because not even its header fits, and
    /// writes nothing.
    fn disarm(&mut self) {
        for slot in 0..usize::from(self.entries) {
            // SAFETY: `slot` is below `entries`, for which the mapping has room.
            let entry = unsafe { self.base().add(slot) };
            // SAFETY: this is an aligned entry in our mapping. The kernel may read the length
            // meanwhile, in one access, and sees the old or the new value.
            let len = unsafe { &raw mut (*entry.cast::<RawEntry>()).len };
            // SAFETY: as above.
            unsafe { len.write_volatile(0) };
        }
        // SeqCst: orders these stores before our later calls.
        fence(Ordering::SeqCst);
    }
}

/// The kernel's `struct io_uring_buf`.
#[repr(C)]
struct RawEntry {
    at: u64,
    len: u32,
    id: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<RawEntry>() == size_of::<BufRingEntry>());

/// State of the ring after a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RingState {
    /// The ring works, and completions may have arrived.
    Usable,
    /// The ring no longer works.
    Broken,
}

/// One ring with one multishot receive.
pub(super) struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    /// The chunk of each buffer ID. It is `Some` while the chunk is posted to the kernel.
    posted: Vec<Option<Chunk>>,
    /// Buffer IDs for which no chunk is posted.
    vacant: Vec<u16>,
    unpublished: bool,
    mode: RingMode,
    /// Whether the worker's thread has enabled the ring.
    enabled: bool,
    /// Whether the receive is active in the kernel.
    armed: bool,
    failures: u32,
    /// The space for the sender's address and for the control messages in front of each datagram
    /// (`LEAD_BYTES`). The kernel reads this header when the receive is submitted.
    header: Box<libc::msghdr>,
}

// SAFETY: the pointers in `header` are null, and the ring's own types are `Send`. The chunks that
// the kernel fills move with the ring.
unsafe impl Send for Uring {}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Number of buffers that a ring posts when this many are requested.
pub(super) fn entries(posted_buffers: u16) -> u16 {
    posted_buffers.clamp(1, POSTED_BUFFERS_MAX).next_power_of_two()
}

impl Uring {
    /// Makes a disabled ring with the first set of flags that the kernel accepts, beginning with
    /// `first_mode`.
    pub(super) fn new(posted_buffers: u16, first_mode: usize) -> Result<Self, CallError> {
        let entries = entries(posted_buffers);
        let mut refused = CallError::new("io_uring_setup", libc::EINVAL);
        for mode in RING_MODES.into_iter().skip(first_mode) {
            match Self::with(mode, entries) {
                Ok(uring) => return Ok(uring),
                // The kernel does not know these flags, so the next set is tried. Any other error
                // would occur again.
                Err(error) if error.errno == Errno(libc::EINVAL) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    fn with(mode: RingMode, entries: u16) -> Result<Self, CallError> {
        let refused = |call| {
            move |error: std::io::Error| {
                CallError::new(call, error.raw_os_error().unwrap_or(libc::EINVAL))
            }
        };
        let mut builder = IoUring::builder();
        builder.setup_r_disabled().setup_clamp();
        // The queue has room for the completions of all buffers at once, and for some notices about
        // receives that ended.
        builder.setup_cqsize(2 * u32::from(entries).max(8));
        match mode {
            RingMode::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            }
            RingMode::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            RingMode::Plain => {}
        }
        let ring = builder.build(8).map_err(refused("io_uring_setup"))?;
        let buffers = BufferRing::new(entries)
            .map_err(|errno| CallError::new("mapping the buffer ring", errno))?;
        let at = buffers.base() as u64;
        // SAFETY: `buffers` has room for `entries` entries, page-aligned. The kernel pins its pages
        // until the ring is closed, so unmapping them earlier frees nothing that the kernel uses.
        let registered =
            unsafe { ring.submitter().register_buf_ring_with_flags(at, entries, GROUP, 0) };
        registered.map_err(refused("registering the buffer ring"))?;
        // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_namelen = Name::ROOM as libc::socklen_t;
        header.msg_controllen = CONTROL_IN_BYTES as _;
        Ok(Self {
            ring,
            buffers,
            posted: (0..entries).map(|_| None).collect(),
            vacant: (0..entries).rev().collect(),
            unpublished: false,
            mode,
            enabled: false,
            armed: false,
            failures: 0,
            header,
        })
    }

    pub(super) fn mode(&self) -> RingMode {
        self.mode
    }

    /// The descriptor that becomes readable when a datagram arrives while the receive is armed.
    ///
    /// With deferred task work it is the socket: a datagram stays in it until this thread enters
    /// the ring, and tests showed that poll(2) on the ring itself does not wake. Otherwise it is
    /// the ring, because the kernel may empty the socket as soon as it wakes the sleeper.
    pub(super) fn fd(&self, socket: &Socket) -> RawFd {
        if self.mode == RingMode::Deferred { socket.fd() } else { self.ring.as_raw_fd() }
    }

    /// Whether a datagram may be waiting. Makes no system call.
    pub(super) fn is_waiting(&mut self) -> bool {
        if !self.enabled || !self.ring.completion().is_empty() {
            return true;
        }
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the receive is active.
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Receives a burst. Returns `false` if the ring is broken, after all its completions have been
    /// taken.
    #[must_use]
    pub(super) fn rx_burst(
        &mut self,
        socket: &Socket,
        neighbours: &mut Neighbours,
        rx_queue: &mut RxQueue,
        pool: &mut Pool,
        burst: &mut Burst,
    ) -> bool {
        if !self.enabled && !self.enable() {
            return false;
        }
        let (mut submitted, mut taken) = (false, 0);
        // The loop is bounded: a flood from unknown senders does not fill the burst.
        while rx_queue.cut(burst) && taken < COMPLETIONS_MAX {
            let completion = self.ring.completion().next();
            if let Some(completion) = completion {
                taken += 1;
                self.take(&completion, neighbours, rx_queue, pool, burst);
                continue;
            }
            if submitted {
                break;
            }
            submitted = true;
            self.fill(pool);
            if self.submit(socket) == RingState::Broken {
                return false;
            }
        }
        self.fill(pool);
        if self.vacant.len() == self.posted.len() {
            rx_queue.note_pool_empty();
        }
        true
    }

    /// Maximum number of posted chunks.
    pub(super) fn chunks_max(&self) -> u32 {
        self.posted.len() as u32
    }

    /// Enables the ring. Must be called on the worker's thread.
    #[cold]
    fn enable(&mut self) -> bool {
        self.enabled = self.ring.submitter().register_enable_rings().is_ok();
        self.enabled
    }

    #[inline]
    fn take(
        &mut self,
        completion: &cqueue::Entry,
        neighbours: &mut Neighbours,
        rx_queue: &mut RxQueue,
        pool: &mut Pool,
        burst: &mut Burst,
    ) {
        if completion.user_data() != RECEIVE {
            return;
        }
        let (result, flags) = (completion.result(), completion.flags());
        if !cqueue::more(flags) {
            self.armed = false;
        }
        let chunk = cqueue::buffer_select(flags).and_then(|id| self.take_filled(id, pool));
        match (usize::try_from(result), chunk) {
            (Ok(result), Some(mut chunk)) => {
                self.failures = 0;
                let start = chunk.start();
                let lead = chunk.bytes_mut()[start - LEAD_BYTES..].first_chunk();
                let lead = lead.expect("a chunk is longer than a lead, and `start` lies behind it");
                let info = DatagramInfo::read_lead(result, lead);
                rx_queue.take(neighbours, chunk, start, &info, burst);
            }
            // No posted buffer was left. Later datagrams stay in the socket.
            (Err(_), _) if result == -libc::ENOBUFS => {}
            (Err(_), _) => self.failures += 1,
            // The kernel named no buffer or an invalid one, which is a bug of the kernel.
            (Ok(_), None) => self.failures += 1,
        }
    }

    /// Takes the chunk that the kernel has filled, and posts another one in its place if the pool
    /// has one.
    #[inline]
    fn take_filled(&mut self, id: u16, pool: &mut Pool) -> Option<Chunk> {
        let chunk = self.posted.get_mut(usize::from(id))?.take()?;
        match pool.take(ChunkClass::Train) {
            Some(fresh) => self.post_chunk(id, fresh),
            None => self.vacant.push(id),
        }
        Some(chunk)
    }

    #[inline]
    fn post_chunk(&mut self, id: u16, chunk: Chunk) {
        // The lead goes in front of the data, into the bytes that become the headroom.
        let at = chunk.at().as_ptr().wrapping_add(chunk.start() - LEAD_BYTES);
        self.buffers.post(id, at as u64, (LEAD_BYTES + DATA_BYTES) as u32);
        self.posted[usize::from(id)] = Some(chunk);
        self.unpublished = true;
    }

    /// Posts chunks for all vacant IDs, as long as the pool has free ones, and publishes them.
    #[inline]
    fn fill(&mut self, pool: &mut Pool) {
        while let Some(id) = self.vacant.pop() {
            let Some(chunk) = pool.take(ChunkClass::Train) else {
                self.vacant.push(id);
                break;
            };
            self.post_chunk(id, chunk);
        }
        if self.unpublished {
            self.buffers.publish();
            self.unpublished = false;
        }
    }

    /// Arms the receive if it has ended, and lets the kernel do its deferred work.
    ///
    /// If neither is needed, it makes no system call.
    #[inline]
    fn submit(&mut self, socket: &Socket) -> RingState {
        if self.failures >= FAILURES_MAX {
            return RingState::Broken;
        }
        let posted = self.vacant.len() < self.posted.len();
        if !self.armed && posted {
            let receive =
                opcode::RecvMsgMulti::new(Fd(socket.fd()), &raw const *self.header, GROUP)
                    .build()
                    .user_data(RECEIVE);
            // SAFETY: the socket and the header live as long as the ring; the buffers are chunks
            // that `posted` keeps until the kernel returns them.
            let pushed = unsafe { self.ring.submission().push(&receive) };
            // The queue is otherwise empty, so it has room.
            self.armed = pushed.is_ok();
        }
        let queue = self.ring.submission();
        let unsubmitted = queue.len();
        if unsubmitted == 0 && !queue.taskrun() && !queue.cq_overflow() {
            return RingState::Usable;
        }
        drop(queue);
        self.enter(unsubmitted as u32)
    }

    fn enter(&mut self, submit: u32) -> RingState {
        let flags = EnterFlags::GETEVENTS.bits();
        let ring = self.ring.submitter();
        // SAFETY: no argument is passed; the submitted entries were checked when they were pushed.
        let entered = unsafe { ring.enter::<libc::sigset_t>(submit, 0, flags, None) };
        match entered.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) => {
                RingState::Usable
            }
            // EEXIST: the ring belongs to another thread. EBADR: the kernel dropped completions.
            Err(_) => {
                self.failures = FAILURES_MAX;
                RingState::Broken
            }
        }
    }

    /// Prepares the ring for a worker that is about to block: arms the receive if possible.
    pub(super) fn settle(&mut self, socket: &Socket) {
        if self.enabled && !self.armed {
            self.submit(socket);
        }
    }

    /// Cancels the receive and waits until it has ended. Returns `false` if this thread cannot
    /// observe the end, or if it takes too long.
    fn cancel(&mut self) -> bool {
        if !self.armed {
            return true;
        }
        let cancel = opcode::AsyncCancel::new(RECEIVE).build().user_data(CANCEL);
        // SAFETY: a cancellation points to nothing.
        if unsafe { self.ring.submission().push(&cancel) }.is_err() {
            return false;
        }
        let patience = Timespec::new().nsec(CANCEL_WAIT_NS);
        let wait = SubmitArgs::new().timespec(&patience);
        for _ in 0..CANCEL_CALLS_MAX {
            let entered = self.ring.submitter().submit_with_args(1, &wait);
            match entered.map_err(|error| error.raw_os_error()) {
                Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                // EEXIST: the ring's single issuer is another thread.
                Err(_) => return false,
            }
            for completion in self.ring.completion() {
                if completion.user_data() == RECEIVE && !cqueue::more(completion.flags()) {
                    return true;
                }
            }
        }
        false
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Chunks may go back to their pool only if the kernel no longer writes into any of them.
        // From here on no receive can begin to write into one, because each buffer has length 0.
        self.buffers.disarm();
        // A receive may have picked a buffer before that. With deferred task work receives run
        // inside this port's own calls, and `&mut self` shows that none is active. Otherwise the
        // ring must report that the receive has ended.
        let ended = !self.enabled || self.cancel();
        if !ended && self.mode != RingMode::Deferred {
            // A leak is better than a chunk that is reused while the kernel still writes into it.
            for chunk in self.posted.drain(..).flatten() {
                std::mem::forget(chunk);
            }
        }
    }
}
