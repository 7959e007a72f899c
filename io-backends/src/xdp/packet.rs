//! AF_PACKET, for machines where AF_XDP does not work. It receives with recvmmsg into chunks, and
//! sends with sendmmsg. The Ethernet header is in a separate vector, so that only the kernel copies
//! payload. The calls do not block.
//!
//! A ring shared with the kernel (`TPACKET_V3`) is not used, because each frame would have to be
//! copied from it into a chunk, and because the kernel passes on its blocks with a delay.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
    time::Instant,
};

use strowger_frame::{
    Burst, Chunk, ChunkClass, Frame, Loss, Pool,
    port::{Arm, KernelDrop, PortTally},
    reserve::Chunks,
};

use super::{
    ether::{HEADER_BYTES_MAX, Mac, Shape, TAG_TYPE, Template},
    interface::Interface,
    limits::{CALLS_MAX, MESSAGES_MAX, STALL_MAX, WAITING_MAX},
    neighbours::Neighbours,
    socket::errno,
    tx_queue::DeviceState,
};
use crate::sys::{
    CallError,
    messages::{Calls, empty_header},
};

/// Every chunk of class `Single` has at least this many bytes after its start offset.
const SINGLE_ROOM_BYTES: usize = 3072;
const RECEIVE_BUFFER_BYTES: i32 = 4 << 20;

/// An AF_PACKET socket, with its received messages and the frames that wait to be sent.
pub(super) struct PacketSocket {
    fd: OwnedFd,
    calls: Calls,
    /// The form of received frames. They have no VLAN tag, because the kernel removes it.
    untagged: Shape,
    class: ChunkClass,
    room: usize,
    chunks: Vec<Option<Chunk>>,
    rx_headers: Vec<libc::mmsghdr>,
    rx_vectors: Vec<libc::iovec>,
    /// Number of messages of the last call, and the number of these that have been handled.
    received: usize,
    seen: usize,
    /// Frames to send, beginning at `first`. Frames that were sent are released immediately.
    waiting: Vec<Option<Frame>>,
    first: usize,
    /// Index of the last path MTU probe in `waiting`.
    probe: Option<usize>,
    tx_headers: Vec<libc::mmsghdr>,
    tx_vectors: Vec<[libc::iovec; 2]>,
    ether: Vec<[u8; HEADER_BYTES_MAX]>,
    stalled_since: Option<Instant>,
    device: DeviceState,
    tally: Arc<PortTally>,
    was_idle: bool,
    /// Whether the kernel has reported once that the interface was down. The interface may have
    /// been removed since; the kernel does not report that.
    ///
    /// Received frames do not prove that it is up, because they may have waited in the socket.
    was_down: bool,
}

// SAFETY: the pointers in the arrays are written before each call and not read after it.
unsafe impl Send for PacketSocket {}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

fn set<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> Result<(), i32> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    let at = std::ptr::from_ref(value).cast();
    // SAFETY: `at` points to `len` bytes that outlive the call.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, at, len) };
    if set < 0 { Err(errno()) } else { Ok(()) }
}

/// The filter for received frames.
///
/// It accepts frames to this station or, if the port has a group, to any group. They must have the
/// port's ethertype, and its VLAN or, if the port has none, no VLAN. Whether it is the port's group
/// is checked later.
fn filter(shape: &Shape) -> Vec<libc::sock_filter> {
    let Shape { ethertype, vlan, group, .. } = *shape;
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const JUMP_EQUAL: u16 = 0x15;
    const AND: u16 = 0x54;
    const RETURN: u16 = 0x06;
    // Offsets of the metadata of a packet (`SKF_AD_OFF` and above).
    const PACKET_KIND: u32 = -0x1000_i32 as u32 + 4;
    const TAG: u32 = -0x1000_i32 as u32 + 44;
    const TAG_PRESENT: u32 = -0x1000_i32 as u32 + 48;
    const TAG_KIND: u32 = -0x1000_i32 as u32 + 60;
    let op = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    // A failed comparison jumps to the last instruction, which drops the frame.
    let must_be = |k| libc::sock_filter { code: JUMP_EQUAL, jt: 0, jf: u8::MAX, k };
    const TO_US: u32 = 0;
    const TO_A_GROUP: u32 = 2;
    let mut program = vec![op(LOAD_WORD, PACKET_KIND)];
    if group.is_some() {
        // A match skips the next comparison.
        program.push(libc::sock_filter { code: JUMP_EQUAL, jt: 1, jf: 0, k: TO_A_GROUP });
    }
    program.push(must_be(TO_US));
    program.extend([op(LOAD_HALF, 12), must_be(u32::from(ethertype))]);
    // The kernel or the NIC has removed tags and passes them as metadata. The VLAN number is 0 for
    // a frame without a tag and for a priority tag (IEEE 802.1Q, 6.9).
    if vlan.is_some() {
        program.extend([op(LOAD_WORD, TAG_PRESENT), must_be(1)]);
        // VLAN numbers in 802.1ad tags are a separate number space.
        program.extend([op(LOAD_WORD, TAG_KIND), must_be(u32::from(TAG_TYPE))]);
    }
    let vlan = vlan.unwrap_or_default();
    program.extend([op(LOAD_WORD, TAG), op(AND, 0x0fff), must_be(u32::from(vlan))]);
    program.push(op(RETURN, u32::MAX));
    let nothing = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if instruction.jf == u8::MAX {
            instruction.jf = (nothing - at - 1) as u8;
        }
    }
    program.push(op(RETURN, 0));
    program
}

impl PacketSocket {
    pub(super) fn open(
        interface: &Interface,
        shape: &Shape,
        tally: &Arc<PortTally>,
    ) -> Result<Self, CallError> {
        let at = |call| move |errno| CallError::new(call, errno);
        let calls = Calls::find()?;
        // With protocol 0 the socket receives nothing before `bind`.
        // SAFETY: the call takes and returns only numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(CallError::last("socket(AF_PACKET)"));
        }
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut program = filter(shape);
        let attach = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        set(&fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &attach)
            .map_err(at("SO_ATTACH_FILTER"))?;
        for (option, bytes) in [
            (libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES),
            (libc::SO_SNDBUFFORCE, RECEIVE_BUFFER_BYTES),
        ] {
            // An error is ignored. Without the right to set their sizes, the buffers keep the
            // default sizes, and received frames that do not fit are counted.
            let _ = set(&fd, libc::SOL_SOCKET, option, &bytes);
        }
        // Bypasses the queueing discipline, with which the port could not detect that the device is
        // full.
        let _ = set(&fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32);
        // Only a socket for all protocols receives tagged frames before the kernel handles the tag.
        let protocol = if shape.vlan.is_some() { libc::ETH_P_ALL as u16 } else { shape.ethertype };
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = interface.index as i32;
        let len = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address has `len` bytes and outlives the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        if bound < 0 {
            return Err(CallError::last("bind"));
        }
        let frame_bytes = interface.mtu as usize + HEADER_BYTES_MAX;
        let (class, room) = if frame_bytes > SINGLE_ROOM_BYTES {
            (ChunkClass::Train, 64 << 10)
        } else {
            (ChunkClass::Single, SINGLE_ROOM_BYTES)
        };
        Ok(Self {
            fd,
            calls,
            untagged: Shape { vlan: None, ..*shape },
            class,
            room,
            chunks: (0..MESSAGES_MAX).map(|_| None).collect(),
            rx_headers: vec![empty_header(); MESSAGES_MAX],
            rx_vectors: vec![NO_VECTOR; MESSAGES_MAX],
            received: 0,
            seen: 0,
            waiting: Vec::with_capacity(WAITING_MAX),
            first: 0,
            probe: None,
            tx_headers: vec![empty_header(); WAITING_MAX],
            tx_vectors: vec![[NO_VECTOR; 2]; WAITING_MAX],
            ether: vec![[0; HEADER_BYTES_MAX]; WAITING_MAX],
            stalled_since: None,
            device: DeviceState::Open,
            tally: tally.clone(),
            was_idle: true,
            was_down: false,
        })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.device == DeviceState::Gone
    }

    /// Uses the new address of the interface after a change.
    pub(super) fn set_own(&mut self, own: Mac) {
        self.untagged.own = own;
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn rx_burst(
        &mut self,
        neighbours: &mut Neighbours,
        pool: &mut Pool,
        burst: &mut Burst,
    ) {
        let before = self.tally.frames_in.read();
        let mut calls = 0;
        while !burst.is_full() {
            if self.seen == self.received {
                // The loop is bounded: a flood from unknown senders does not fill the burst.
                if calls == CALLS_MAX || !self.receive(pool) {
                    break;
                }
                // After fewer messages than `MESSAGES_MAX`, the socket or the pool is empty, and a
                // second call is of no use.
                calls = if self.received < MESSAGES_MAX { CALLS_MAX } else { calls + 1 };
            }
            let at = self.seen;
            self.seen += 1;
            self.take_in(at, neighbours, burst);
        }
        let idle = self.tally.frames_in.read() == before;
        if idle && !self.was_idle {
            self.read_statistics();
        }
        self.was_idle = idle;
    }

    fn take_in(&mut self, at: usize, neighbours: &mut Neighbours, burst: &mut Burst) {
        let Some(mut chunk) = self.chunks[at].take() else { return };
        let message = &self.rx_headers[at];
        let (start, bytes) = (chunk.start(), message.msg_len as usize);
        self.tally.frames_in.add(1);
        let whole = message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let seen = match chunk.bytes_mut().get(start..start + bytes.min(self.room)) {
            _ if !whole => Err(Loss::Truncated),
            None => Err(Loss::Malformed),
            Some(frame) => self.untagged.read(frame).and_then(|(source, begin, len)| {
                let mark = neighbours.whose(source).ok_or(Loss::UnknownSender)?;
                Ok((mark, start + begin, len))
            }),
        };
        match seen {
            Ok((mark, begin, len)) => {
                self.tally.bytes_in.add(len as u64);
                let mut frame = chunk.into_frame(begin, len);
                frame.set_mark(mark);
                burst.push(frame);
            }
            Err(loss) => {
                self.tally.bytes_in.add(bytes as u64);
                self.tally.count_loss(loss, 1);
                self.chunks[at] = Some(chunk);
            }
        }
    }

    /// Makes one call. Returns `false` if nothing was received.
    fn receive(&mut self, pool: &mut Pool) -> bool {
        (self.received, self.seen) = (0, 0);
        let vectors = self.rx_vectors.as_mut_ptr();
        let mut ready = 0;
        for at in 0..MESSAGES_MAX {
            if self.chunks[at].is_none() {
                // If no chunk of this class is free, a train chunk can be used too.
                let chunk = pool.take(self.class);
                self.chunks[at] = chunk.or_else(|| pool.take(ChunkClass::Train));
            }
            let Some(chunk) = &self.chunks[at] else { break };
            let begin = chunk.at().as_ptr().wrapping_add(chunk.start());
            let vector = vectors.wrapping_add(at);
            // SAFETY: `at` is below the array's length.
            unsafe { vector.write(libc::iovec { iov_base: begin.cast(), iov_len: self.room }) };
            let header = &mut self.rx_headers[at];
            *header = empty_header();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            ready += 1;
        }
        if ready == 0 {
            self.tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
            return false;
        }
        let headers = &mut self.rx_headers[..ready];
        // SAFETY: each of the first `ready` headers points to one vector over a chunk that only we
        // can access; `room` bytes lie in it behind its start.
        match unsafe { self.calls.receive(self.fd.as_raw_fd(), headers) } {
            Ok(received) => {
                self.received = received;
                self.tally.trains_in.add(u64::from(received > 0));
            }
            Err(libc::ENETDOWN) => self.note_end(),
            Err(_) => {}
        }
        self.received > 0
    }

    /// After `ENETDOWN`, checks whether the interface is gone.
    ///
    /// The kernel reports `ENETDOWN` when the interface goes down, and does not report it again if
    /// the interface then disappears. The report may arrive before the interface is gone. Therefore
    /// `arm` checks again.
    fn note_end(&mut self) {
        self.was_down = true;
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut len = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: `len` bytes may be written there, and both outlive the call.
        let result =
            unsafe { libc::getsockname(self.fd(), (&raw mut address).cast(), &raw mut len) };
        if result == 0 && address.sll_ifindex == -1 {
            self.device = DeviceState::Gone;
        }
    }

    pub(super) fn tx_burst(&mut self, template: &Template, frames: &mut Burst) {
        if self.device != DeviceState::Open {
            self.flush();
        }
        if self.device != DeviceState::Open {
            let loss = if self.is_gone() { Loss::PeerGone } else { Loss::SendRefused };
            self.tally.count_loss(loss, frames.len() as u64);
            frames.clear();
            return;
        }
        if self.waiting.len() + frames.len() > WAITING_MAX {
            self.flush();
        }
        let taken = (WAITING_MAX - self.waiting.len()).min(frames.len());
        for frame in frames.drain(..taken) {
            let at = self.waiting.len();
            let header = &mut self.ether[at];
            template.write(frame.len(), header);
            self.tx_vectors[at] = [
                libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: template.len() },
                libc::iovec {
                    iov_base: frame.bytes().as_ptr().cast_mut().cast(),
                    iov_len: frame.len(),
                },
            ];
            self.waiting.push(Some(frame));
        }
    }

    /// Accepts one frame. If it is too long for the interface, it counts as `too_long`.
    pub(super) fn tx_alone(&mut self, template: &Template, frame: &mut Burst, too_long: Loss) {
        let before = frame.len();
        self.tx_burst(template, frame);
        if too_long == Loss::PathProbe && frame.len() < before {
            self.probe = self.waiting.len().checked_sub(1);
        }
    }

    /// Sends waiting frames until the kernel accepts no more.
    pub(super) fn flush(&mut self) {
        let before = self.first;
        let vectors = self.tx_vectors.as_mut_ptr();
        for at in self.first..self.waiting.len() {
            let header = &mut self.tx_headers[at];
            *header = empty_header();
            header.msg_hdr.msg_iov = vectors.wrapping_add(at).cast();
            header.msg_hdr.msg_iovlen = 2;
        }
        while self.first < self.waiting.len() {
            let headers = &mut self.tx_headers[self.first..self.waiting.len()];
            // SAFETY: each header points to two vectors, over bytes of `ether` and over a frame
            // that `waiting` holds; neither has moved since.
            let sent = unsafe { self.calls.send(self.fd.as_raw_fd(), headers, libc::MSG_DONTWAIT) };
            let refused = match sent {
                Ok(sent) => {
                    self.count_sent(sent);
                    continue;
                }
                Err(refused) => refused,
            };
            match refused {
                libc::EINTR => {}
                // The device or the socket is full, so the frames stay in the queue.
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => break,
                libc::EMSGSIZE if self.probe == Some(self.first) => self.lose(Loss::PathProbe),
                libc::EMSGSIZE => self.lose(Loss::PathTooNarrow),
                libc::ENXIO | libc::ENODEV => {
                    self.device = DeviceState::Gone;
                    self.lose(Loss::PeerGone);
                }
                // For example, the interface is down. The frame is dropped, so that no queue builds
                // up.
                _ => self.lose(Loss::SendRefused),
            }
        }
        if self.first == self.waiting.len() {
            self.waiting.clear();
            self.first = 0;
            self.probe = None;
            self.moved();
        } else if self.first > before {
            self.moved();
        } else {
            // The clock is read only after a flush without progress.
            let now = Instant::now();
            let since = *self.stalled_since.get_or_insert(now);
            if self.device == DeviceState::Open && now - since > STALL_MAX {
                self.device = DeviceState::Stalled;
            }
        }
    }

    fn moved(&mut self) {
        self.stalled_since = None;
        if self.device == DeviceState::Stalled {
            self.device = DeviceState::Open;
        }
    }

    fn count_sent(&mut self, sent: usize) {
        let frames = &mut self.waiting[self.first..self.first + sent];
        // The kernel has copied these frames, so their chunks are released even if other frames
        // wait.
        let lens = frames.iter_mut().map(|frame| frame.take().map_or(0, |frame| frame.len()));
        let bytes = lens.sum::<usize>() as u64;
        self.tally.frames_out.add(sent as u64);
        self.tally.bytes_out.add(bytes);
        self.tally.trains_out.add(1);
        self.first += sent;
    }

    fn lose(&mut self, loss: Loss) {
        self.tally.count_loss(loss, 1);
        self.waiting[self.first] = None;
        self.first += 1;
    }

    /// Maximum number of chunks that this socket holds for receiving.
    pub(super) fn chunks_max(&self) -> Chunks {
        let n = MESSAGES_MAX as u32;
        match self.class {
            ChunkClass::Train => Chunks { trains: n, singles: 0 },
            ChunkClass::Single => Chunks { trains: 0, singles: n },
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.waiting.is_empty() || self.device != DeviceState::Open
    }

    pub(super) fn arm(&mut self) -> Arm {
        self.read_statistics();
        if self.was_down && !self.is_gone() {
            self.note_end();
        }
        if self.seen < self.received || !self.is_flushed() {
            return Arm::Ready;
        }
        Arm::Wait(self.fd())
    }

    /// Updates the count of frames that the kernel dropped.
    fn read_statistics(&mut self) {
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut now: libc::tpacket_stats = unsafe { mem::zeroed() };
        let mut len = mem::size_of_val(&now) as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        let at = (&raw mut now).cast();
        // SAFETY: `at` points to `len` bytes to be written, and both outlive the call.
        let read = unsafe { libc::getsockopt(self.fd(), level, option, at, &raw mut len) };
        if read == 0 {
            // The counter holds the drops since the last read, because reading resets it.
            self.tally.kernel_drops.add(KernelDrop::SocketFull, u64::from(now.tp_drops));
        }
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        self.tally.count_loss(Loss::SendRefused, (self.waiting.len() - self.first) as u64);
    }
}
