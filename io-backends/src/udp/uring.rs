//! Receiving with io_uring: one multishot `recvmsg` into a ring of provided buffers, each a chunk
//! of the pool. It never gives a chunk to anybody while the kernel may still write into it.
//!
//! The ring is made by [`open`](super::open) on whatever thread that is, disabled, and enabled by
//! the worker's first call: a ring with `DEFER_TASKRUN` belongs to the thread that enables it, and
//! receives only while that thread is inside `io_uring_enter`. A ring that fails later, or is
//! called from another thread after all, is put aside, and its port goes on with recvmmsg.

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
    control::{Arrival, CONTROL_IN_BYTES, LEAD_BYTES},
    limits::{COMPLETIONS_MAX, POSTED_BUFFERS_MAX},
    name::Name,
    neighbours::Neighbours,
    rx_queue::RxQueue,
    socket::Socket,
};
use crate::sys::{CallError, Errno};

/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// What completions of the receive and of its cancellation are called.
const RECEIVE: u64 = 1;
const CANCEL: u64 = 2;
/// Bytes of a chunk that a train may fill.
const DATA_BYTES: usize = 64 << 10;
/// Failed receives in a row after which a ring counts as broken: the kernel's memory may be short
/// for a moment, but a kernel that fails always must not be asked for ever.
const FAILURES_MAX: u32 = 16;
/// Calls in which a cancelled receive must have ended when a port is dropped, and how long each
/// waits. One call and no wait is usual; the rest is for a port that is dropped on one thread
/// while the thread that received with it is busy elsewhere and must first enter the kernel.
const CANCEL_CALLS_MAX: u32 = 8;
const CANCEL_WAIT_NS: u32 = 50_000_000;

const _: () = assert!(size_of::<BufRingEntry>() == 16);

/// With which flags a ring is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RxMode {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN`: the kernel receives only inside our own calls.
    Deferred,
    /// `COOP_TASKRUN`: it receives at our next system call, whichever that is.
    Cooperative,
    /// None: it interrupts us to receive.
    Plain,
}

/// Best first. A single issuer without deferred work is no mode: it brings next to nothing, and
/// would keep another thread from ending the receive.
const RX_MODES: [RxMode; 3] = [RxMode::Deferred, RxMode::Cooperative, RxMode::Plain];

impl RxMode {
    /// In the words of the kernel's flags.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deferred => "single issuer, deferred task work",
            Self::Cooperative => "cooperative task work",
            Self::Plain => "no flags",
        }
    }
}

/// The memory through which we tell the kernel which buffers it may fill.
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

    /// Writes a buffer behind those posted; the kernel sees it with the next `publish`.
    #[inline]
    fn post(&mut self, id: u16, at: u64, bytes: u32) {
        let slot = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `slot` is below `entries`, for which the mapping has room.
        let entry = unsafe { self.base().add(slot) };
        // SAFETY: the kernel reads entries before the published tail, and this one is not: at most
        // `entries` ids exist, and each is posted once at a time.
        let entry = unsafe { &mut *entry };
        entry.set_addr(at);
        entry.set_len(bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    fn publish(&self) {
        // SAFETY: the base is that of a ring with at least one entry.
        let tail = unsafe { BufRingEntry::tail(self.base()) };
        // SAFETY: the tail is a naturally aligned u16 in the mapping, written by nobody but us and
        // read by the kernel as an atomic.
        let tail = unsafe { &*tail.cast::<AtomicU16>() };
        // Release: pairs with the kernel's acquiring load: entries are written before they count.
        tail.store(self.tail, Ordering::Release);
    }

    /// Makes every posted buffer one of no bytes: a receive that picks one now fails (`EFAULT`,
    /// not even its header fits) and writes nothing.
    fn disarm(&mut self) {
        for slot in 0..usize::from(self.entries) {
            // SAFETY: `slot` is below `entries`, for which the mapping has room.
            let entry = unsafe { self.base().add(slot) };
            // SAFETY: an aligned entry in our mapping; the kernel may read it meanwhile, and reads
            // the length in one access, old or new.
            let len = unsafe { &raw mut (*entry.cast::<RawEntry>()).len };
            // SAFETY: as above.
            unsafe { len.write_volatile(0) };
        }
        // SeqCst: no later call of ours is ordered before these stores.
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

/// What became of asking for more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Completions may have come.
    Done,
    /// The ring will not answer again.
    Broken,
}

/// One ring with one multishot receive.
pub(super) struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    /// The chunk behind each buffer id: lent to the kernel while `Some`.
    lent: Vec<Option<Chunk>>,
    /// Ids without a chunk, because the pool had none.
    vacant: Vec<u16>,
    unpublished: bool,
    mode: RxMode,
    /// A worker has taken the ring over.
    enabled: bool,
    /// A receive is in the kernel.
    armed: bool,
    failures: u32,
    /// What the receive is told of the lead it writes; read when it is submitted.
    header: Box<libc::msghdr>,
}

// SAFETY: the pointers in `header` are null, and the ring's own types are `Send`. The chunks move
// with the ring that the kernel fills them for.
unsafe impl Send for Uring {}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Buffers that a ring posts when so many are asked for.
pub(super) fn entries(posted_buffers: u16) -> u16 {
    posted_buffers.clamp(1, POSTED_BUFFERS_MAX).next_power_of_two()
}

impl Uring {
    /// Makes a ring, disabled, for the first flags that the kernel takes, of those from
    /// `first_mode` on.
    pub(super) fn new(posted_buffers: u16, first_mode: usize) -> Result<Self, CallError> {
        let entries = entries(posted_buffers);
        let mut refused = CallError::new("io_uring_setup", libc::EINVAL);
        for mode in RX_MODES.into_iter().skip(first_mode) {
            match Self::with(mode, entries) {
                Ok(uring) => return Ok(uring),
                // Unknown flags: ask for less. Anything else would be said again.
                Err(error) if error.errno == Errno(libc::EINVAL) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    fn with(mode: RxMode, entries: u16) -> Result<Self, CallError> {
        let refused = |call| {
            move |error: std::io::Error| {
                CallError::new(call, error.raw_os_error().unwrap_or(libc::EINVAL))
            }
        };
        let mut builder = IoUring::builder();
        builder.setup_r_disabled().setup_clamp();
        // Every buffer may complete at once, and some notes about receives that ended.
        builder.setup_cqsize(2 * u32::from(entries).max(8));
        match mode {
            RxMode::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
            }
            RxMode::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            RxMode::Plain => {}
        }
        let ring = builder.build(8).map_err(refused("io_uring_setup"))?;
        let buffers = BufferRing::new(entries)
            .map_err(|errno| CallError::new("mapping the buffer ring", errno))?;
        let at = buffers.base() as u64;
        // SAFETY: `buffers` has room for `entries` entries, page-aligned. The kernel pins its pages
        // until the ring is gone, so unmapping it earlier frees nothing that the kernel uses.
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
            lent: (0..entries).map(|_| None).collect(),
            vacant: (0..entries).rev().collect(),
            unpublished: false,
            mode,
            enabled: false,
            armed: false,
            failures: 0,
            header,
        })
    }

    pub(super) fn mode(&self) -> RxMode {
        self.mode
    }

    /// Becomes readable when something comes while a receive is armed and nothing is waiting.
    ///
    /// With deferred task work that is the socket: a datagram stays there until this thread enters
    /// the ring, and a sleeper in poll(2) on the ring itself was found not to be woken by it.
    /// Otherwise it is the ring: the kernel may empty the socket the moment the sleeper is woken.
    pub(super) fn fd(&self, socket: &Socket) -> RawFd {
        if self.mode == RxMode::Deferred { socket.fd() } else { self.ring.as_raw_fd() }
    }

    /// Whether something may be there without asking the kernel.
    pub(super) fn is_waiting(&mut self) -> bool {
        if !self.enabled || !self.ring.completion().is_empty() {
            return true;
        }
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel will say when something comes.
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// `false` when the ring is broken and all that it had received has been taken.
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
        let (mut asked, mut taken) = (false, 0);
        // Bounded, since a flood of unknown senders' datagrams never fills a burst.
        while rx_queue.cut(burst) && taken < COMPLETIONS_MAX {
            let completion = self.ring.completion().next();
            if let Some(completion) = completion {
                taken += 1;
                self.take(&completion, neighbours, rx_queue, pool, burst);
                continue;
            }
            if asked {
                break;
            }
            asked = true;
            self.fill(pool);
            if self.ask(socket) == Asked::Broken {
                return false;
            }
        }
        self.fill(pool);
        if self.vacant.len() == self.lent.len() {
            rx_queue.note_pool_empty();
        }
        true
    }

    /// Chunks that it has posted at most.
    pub(super) fn chunks_max(&self) -> u32 {
        self.lent.len() as u32
    }

    /// The worker's thread takes the ring over.
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
        let chunk = cqueue::buffer_select(flags).and_then(|id| self.take_back(id, pool));
        match (usize::try_from(result), chunk) {
            (Ok(result), Some(mut chunk)) => {
                self.failures = 0;
                let start = chunk.start();
                let lead = chunk.bytes_mut()[start - LEAD_BYTES..].first_chunk();
                let lead = lead.expect("a chunk is longer than a lead, and `start` lies behind it");
                let arrival = Arrival::read_lead(result, lead);
                rx_queue.take(neighbours, chunk, start, &arrival, burst);
            }
            // All buffers were full; what came meanwhile waits in the socket.
            (Err(_), _) if result == -libc::ENOBUFS => {}
            (Err(_), _) => self.failures += 1,
            // The kernel names no buffer, or one that it does not have: a kernel's bug.
            (Ok(_), None) => self.failures += 1,
        }
    }

    /// The chunk that the kernel has filled, and another one in its place.
    #[inline]
    fn take_back(&mut self, id: u16, pool: &mut Pool) -> Option<Chunk> {
        let chunk = self.lent.get_mut(usize::from(id))?.take()?;
        match pool.take(ChunkClass::Train) {
            Some(fresh) => self.lend(id, fresh),
            None => self.vacant.push(id),
        }
        Some(chunk)
    }

    #[inline]
    fn lend(&mut self, id: u16, chunk: Chunk) {
        // The lead goes in front of where data should begin, into what is headroom later.
        let at = chunk.at().as_ptr().wrapping_add(chunk.start() - LEAD_BYTES);
        self.buffers.post(id, at as u64, (LEAD_BYTES + DATA_BYTES) as u32);
        self.lent[usize::from(id)] = Some(chunk);
        self.unpublished = true;
    }

    /// Lends chunks for all ids that have none, as far as the pool goes, and tells the kernel.
    #[inline]
    fn fill(&mut self, pool: &mut Pool) {
        while let Some(id) = self.vacant.pop() {
            let Some(chunk) = pool.take(ChunkClass::Train) else {
                self.vacant.push(id);
                break;
            };
            self.lend(id, chunk);
        }
        if self.unpublished {
            self.buffers.publish();
            self.unpublished = false;
        }
    }

    /// Arms the receive if it has ended, and lets the kernel do what it has put off. No system call
    /// when there is neither.
    #[inline]
    fn ask(&mut self, socket: &Socket) -> Asked {
        if self.failures >= FAILURES_MAX {
            return Asked::Broken;
        }
        let lent = self.vacant.len() < self.lent.len();
        if !self.armed && lent {
            let receive =
                opcode::RecvMsgMulti::new(Fd(socket.fd()), &raw const *self.header, GROUP)
                    .build()
                    .user_data(RECEIVE);
            // SAFETY: the socket and the header live as long as the ring; buffers come from chunks
            // that `lent` keeps until the kernel has given them back.
            let pushed = unsafe { self.ring.submission().push(&receive) };
            // Nothing else is ever in the queue, so there is room.
            self.armed = pushed.is_ok();
        }
        let queue = self.ring.submission();
        let unsubmitted = queue.len();
        if unsubmitted == 0 && !queue.taskrun() && !queue.cq_overflow() {
            return Asked::Done;
        }
        drop(queue);
        self.enter(unsubmitted as u32)
    }

    fn enter(&mut self, submit: u32) -> Asked {
        let flags = EnterFlags::GETEVENTS.bits();
        let ring = self.ring.submitter();
        // SAFETY: no argument is passed, and what is submitted was vouched for when pushed.
        let entered = unsafe { ring.enter::<libc::sigset_t>(submit, 0, flags, None) };
        match entered.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) => {
                Asked::Done
            }
            // EEXIST: another thread's ring. EBADR: the kernel dropped completions.
            Err(_) => {
                self.failures = FAILURES_MAX;
                Asked::Broken
            }
        }
    }

    /// Before the worker blocks: what is lent is published, and a receive is armed if it can be.
    pub(super) fn settle(&mut self, socket: &Socket) {
        if self.enabled && !self.armed {
            self.ask(socket);
        }
    }

    /// Ends the receive and waits for it; `false` if that cannot be seen from this thread.
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
                // EEXIST: a single issuer's ring, and we are not that thread.
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
        // Chunks may go back to their pool only if the kernel will write into none of them again.
        // From here on no receive can pick one: each is posted with no bytes.
        self.buffers.disarm();
        // What is left is a receive that had picked a buffer before that. With deferred task work
        // receives run inside this port's own calls, of which none is under way, since we have
        // `&mut self`; otherwise the receive must have been seen to end.
        let ended = !self.enabled || self.cancel();
        if !ended && self.mode != RxMode::Deferred {
            // A leak is better than a chunk that somebody owns and the kernel fills.
            for chunk in self.lent.drain(..).flatten() {
                std::mem::forget(chunk);
            }
        }
    }
}
