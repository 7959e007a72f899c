//! A port whose far end is another process, over a unix socket of type `SOCK_SEQPACKET`.
//!
//! The switch holds the [`UnixPort`], and the other process holds a [`Client`]. If either process
//! is killed, the other one continues. The port trusts nothing that the client sends.
//!
//! Each message is one packet, preceded by a header of four bytes in network byte order:
//!
//! ```text
//!   0       1       2       3       4 ...
//!  +-------+-------+-------+-------+----------------
//!  | slot number, u32 big-endian   | the packet
//!  +-------+-------+-------+-------+----------------
//! ```
//!
//! - To the client, it is the number of the ingress slot (wire.md 1.3). `0xffffffff` without a
//!   packet means that the port serves another client; the connection then ends.
//! - To the switch, it is zero. Another value, or a message shorter than the header, counts as
//!   [`Loss::Malformed`], and a packet longer than the maximum as [`Loss::Truncated`].
//!
//! The port serves one client at a time. It rejects a second client, which may try again later.
//! While there is no client, packets to the slot count as [`Loss::PeerGone`]. Packets that the
//! kernel has accepted count as sent, although a client that is killed may not have read them.
//! While the pool is exhausted, packets wait in the socket, which slows the client down. None is
//! lost.

use std::{
    fmt, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrayvec::ArrayVec;
use strowger_frame::{
    Address, BURST_MAX, Burst, Chunk, ChunkClass, Frame, Loss, Mark, Pool, Port,
    pool::{HEADROOM_BYTES, SINGLE_STRIDE_BYTES},
    port::{AdmitError, Arm, KernelDrop, PortTally},
    reserve::Chunks,
};

use crate::sys::{
    CallError, Refusal,
    messages::{self, ALLOW_CALLS, Calls, empty_header},
};

mod client;
mod socket;

pub use client::{Client, ClientError, Received};
pub use socket::is_served;
use socket::{Epoll, HEADER_BUSY, HEADER_BYTES, HEADER_DOWN, Listener};

/// Maximum number of messages in one system call, and of free chunks that a port holds for them.
const RECEIVE_MAX: usize = 32;
/// While a worker is busy, the port reads an idle socket only once in this many bursts, because an empty
/// system call costs as much as switching a burst. After a sleep it reads at once.
const IDLE_READ_EVERY: u32 = 4;
/// The same interval for accepting clients.
const ACCEPT_EVERY: u32 = 64;
/// While a client is blocked and the worker is busy, the port checks for room after 1, 2, 4 and so
/// on up to this many bursts. If the client reads, the port notices it soon. If it does not, the
/// checks cost one system call in this many bursts.
const ROOM_CHECK_EVERY_MAX: u32 = 256;
/// Maximum length of a packet in a single chunk, for any offset at which the data starts.
const SINGLE_BYTES_MAX: usize = SINGLE_STRIDE_BYTES - HEADROOM_BYTES - 8 * 64;

/// Settings of a unix port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixSpec {
    /// Maximum length of a packet in bytes, in both directions, up to 65,535.
    ///
    /// A packet of up to 3,328 bytes takes a single chunk of the pool, or a train chunk if no
    /// single chunk is free. A longer packet takes a train chunk.
    pub frame_bytes_max: usize,
    /// Mode of the socket file, which determines who may connect.
    pub mode: u32,
}

impl Default for UnixSpec {
    /// Packets of up to 2,048 bytes; only this user may connect.
    fn default() -> Self {
        Self { frame_bytes_max: 2048, mode: 0o600 }
    }
}

/// Why a unix port cannot be opened.
#[derive(Debug)]
pub enum ListenError {
    /// Another process is listening at this path.
    Busy(PathBuf),
    /// The path refers to a file that is not a socket. The file is not changed.
    NotASocket(PathBuf),
    /// The path is empty, longer than 107 bytes (the limit of the kernel), or contains a zero byte.
    PathTooLong(PathBuf),
    /// A sandbox refuses all calls that send or receive messages.
    CallsRefused {
        /// The path of the socket.
        path: PathBuf,
        /// The call for one message, and the error with which it was refused.
        error: CallError,
    },
    /// Another system call failed.
    System {
        /// The operation that failed, for example `bind`.
        what: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// The kernel's error.
        error: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(path) => {
                write!(
                    f,
                    "{}: another process listens there; stop it or use another path",
                    path.display()
                )
            }
            Self::NotASocket(path) => {
                write!(
                    f,
                    "{}: this file is not a socket; move it or use another path",
                    path.display()
                )
            }
            Self::PathTooLong(path) => {
                write!(
                    f,
                    "{}: the path of a socket has 1 to 107 bytes; use a shorter one",
                    path.display()
                )
            }
            Self::CallsRefused { path, error } => {
                write!(f, "{}: {error}; {ALLOW_CALLS}", path.display())
            }
            Self::System { what, path, error } => {
                write!(f, "cannot {what} {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { error, .. } => Some(error),
            Self::CallsRefused { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// The half that the switch holds: a port for one client process.
#[derive(Debug)]
pub struct UnixPort {
    listener: Listener,
    client: Option<OwnedFd>,
    calls: Calls,
    epoll: Epoll,
    spec: UnixSpec,
    mark: Option<Mark>,
    /// Free chunks for the next messages.
    ready: ArrayVec<Chunk, RECEIVE_MAX>,
    /// Number of bursts until the port reads the socket again, and until it accepts clients again.
    read_in: u32,
    accept_in: u32,
    /// Whether the kernel had no room for the last frames.
    blocked: bool,
    /// Number of bursts until the port checks for room again, and the last such interval.
    check_room_in: u32,
    check_room_every: u32,
    /// Whether the epoll set also waits for room in the client's socket.
    waits_for_room: bool,
    tally: Arc<PortTally>,
    name: String,
}

impl UnixPort {
    /// Listens at `path`. Removes the socket file if its process no longer exists.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(path: impl AsRef<Path>, spec: &UnixSpec) -> Result<Self, ListenError> {
        let path = path.as_ref();
        let calls = Calls::find()
            .map_err(|error| ListenError::CallsRefused { path: path.into(), error })?;
        let listener = Listener::bind(path, spec.mode)?;
        let failed = |error| ListenError::System { what: "wait for", path: path.into(), error };
        let epoll = Epoll::new().map_err(failed)?;
        epoll.add(listener.as_raw_fd(), libc::EPOLLIN).map_err(failed)?;
        let frame_bytes_max = spec.frame_bytes_max.min(usize::from(u16::MAX));
        Ok(Self {
            listener,
            client: None,
            calls,
            epoll,
            spec: UnixSpec { frame_bytes_max, ..*spec },
            mark: None,
            ready: ArrayVec::new(),
            read_in: 0,
            accept_in: 0,
            blocked: false,
            check_room_in: 0,
            check_room_every: 1,
            waits_for_room: false,
            tally: Arc::default(),
            name: format!("unix {}", path.display()),
        })
    }

    /// Reports how packets would be sent and received on this machine, for `strowger doctor`.
    ///
    /// # Errors
    /// A sandbox refuses all calls that a port can use.
    pub fn probe() -> Result<String, Refusal> {
        Calls::find().map_err(|error| error.with_remedy(ALLOW_CALLS))?;
        Ok(match messages::many() {
            Ok(()) => "many packets in one system call".to_owned(),
            Err(refusal) => format!("one system call for each packet: {refusal}"),
        })
    }

    /// Checks that one system call can send or receive many messages.
    ///
    /// # Errors
    /// A sandbox refuses the calls for many messages.
    pub fn many() -> Result<(), Refusal> {
        messages::many()
    }

    /// Whether a client is connected.
    pub fn is_serving(&self) -> bool {
        self.client.is_some()
    }

    /// Accepts the next client. If another client is being served, rejects it.
    fn accept(&mut self) {
        self.accept_in = ACCEPT_EVERY;
        let Some(client) = self.listener.accept() else { return };
        if self.client.is_some() {
            let header = HEADER_BUSY.as_ptr().cast();
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            // SAFETY: the header is that many readable bytes. If it cannot be sent, the client only
            // sees that the connection ends.
            unsafe { libc::send(client.as_raw_fd(), header, HEADER_BYTES, flags) };
            return;
        }
        // If epoll refuses the client, it is dropped without a message.
        if self.epoll.add(client.as_raw_fd(), libc::EPOLLIN | libc::EPOLLRDHUP).is_ok() {
            self.client = Some(client);
            self.read_in = 0;
        }
    }

    /// Drops the client, so that another one can connect at once. Closing its socket removes it
    /// from the epoll set.
    fn hang_up(&mut self) {
        self.client = None;
        self.accept_in = 0;
        self.blocked = false;
        self.waits_for_room = false;
    }

    /// Records that the kernel has no room for more frames.
    #[cold]
    fn note_blocked(&mut self) {
        if !self.blocked {
            self.blocked = true;
            self.check_room_every = 1;
            self.check_room_in = 1;
        }
    }

    /// Checks whether a blocked client's socket has room again, if the check is due.
    ///
    /// Room for some short messages is sufficient, so that frames are sent in small bursts.
    #[cold]
    fn check_room(&mut self) {
        if self.check_room_in > 0 {
            self.check_room_in -= 1;
            return;
        }
        self.check_room_every = (2 * self.check_room_every).min(ROOM_CHECK_EVERY_MAX);
        self.check_room_in = self.check_room_every;
        self.blocked = self.client.as_ref().is_some_and(|client| !socket::has_room(client));
    }

    /// Whether packets are received into single chunks.
    fn takes_singles(&self) -> bool {
        self.spec.frame_bytes_max <= SINGLE_BYTES_MAX
    }

    /// Takes chunks for up to `wanted` messages, and returns the number of chunks that are ready.
    fn make_ready(&mut self, pool: &mut Pool, wanted: usize) -> usize {
        while self.ready.len() < wanted.min(RECEIVE_MAX) {
            let chunk = if self.takes_singles() { pool.take(ChunkClass::Single) } else { None };
            match chunk.or_else(|| pool.take(ChunkClass::Train)) {
                Some(chunk) => self.ready.push(chunk),
                None => break,
            }
        }
        self.ready.len().min(wanted)
    }

    /// Receives messages with one call and appends their frames to `burst`. Returns the number of
    /// messages.
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) -> usize {
        let room = burst.remaining_capacity();
        let wanted = self.make_ready(pool, room);
        if wanted == 0 && room > 0 {
            self.tally.kernel_drops.add(KernelDrop::PoolEmpty, 1);
        }
        let Some(client) = self.client.as_ref().filter(|_| wanted > 0) else { return 0 };
        let bytes = HEADER_BYTES + self.spec.frame_bytes_max;
        let mut parts = ArrayVec::<libc::iovec, RECEIVE_MAX>::new();
        for chunk in &mut self.ready[..wanted] {
            // The header goes into the headroom, so that the packet begins at the usual offset.
            let start = chunk.start() - HEADER_BYTES;
            let room = &mut chunk.bytes_mut()[start..start + bytes];
            parts.push(libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() });
        }
        let mut messages = ArrayVec::<libc::mmsghdr, RECEIVE_MAX>::new();
        messages.extend(parts.iter_mut().map(|part| message(part, 1)));
        // SAFETY: each message points to one part, and each part to a chunk that we own; all outlive
        // the call.
        let got = match unsafe { self.calls.receive(client.as_raw_fd(), &mut messages) } {
            Ok(got) => got,
            // The kernel reports a reset once, before the messages that arrived earlier.
            Err(libc::EAGAIN | libc::EINTR | libc::ECONNRESET) => return 0,
            Err(_) => {
                self.hang_up();
                return 0;
            }
        };
        let got = &messages[..got];
        // A single empty message looks like the end of the connection.
        if got.iter().all(|message| message.msg_len == 0) && socket::has_hung_up(client) {
            self.hang_up();
            return 0;
        }
        let mut sort = Sort { mark: self.mark, tally: &self.tally, burst };
        let kept: ArrayVec<Chunk, RECEIVE_MAX> = self
            .ready
            .drain(..got.len())
            .zip(got)
            .filter_map(|(chunk, message)| sort.message(chunk, message))
            .collect();
        // They are inserted in front, because they are still in the cache.
        for (at, chunk) in kept.into_iter().enumerate() {
            self.ready.insert(at, chunk);
        }
        got.len()
    }

    /// Sends frames from the front with one call. Returns the number that the kernel accepted, or
    /// the errno.
    fn send(calls: Calls, client: &OwnedFd, frames: &[Frame]) -> Result<usize, i32> {
        let mut headers = ArrayVec::<[u8; HEADER_BYTES], BURST_MAX>::new();
        headers.extend(frames.iter().map(|frame| frame.mark().0.to_be_bytes()));
        let mut parts = ArrayVec::<[libc::iovec; 2], BURST_MAX>::new();
        for (header, frame) in headers.iter_mut().zip(frames) {
            let at = header.as_mut_ptr().cast();
            let header = libc::iovec { iov_base: at, iov_len: HEADER_BYTES };
            // The kernel only reads through this pointer, although the type allows writes.
            let at = frame.bytes().as_ptr().cast_mut().cast();
            parts.push([header, libc::iovec { iov_base: at, iov_len: frame.len() }]);
        }
        let mut messages = ArrayVec::<libc::mmsghdr, BURST_MAX>::new();
        messages.extend(parts.iter_mut().map(|parts| message(parts.as_mut_ptr(), 2)));
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: each message points to two parts, a header and the bytes of a frame; all are readable
        // and outlive the call.
        unsafe { calls.send(client.as_raw_fd(), &mut messages, flags) }
    }
}

fn message(parts: *mut libc::iovec, n: usize) -> libc::mmsghdr {
    let mut message = empty_header();
    message.msg_hdr.msg_iov = parts;
    message.msg_hdr.msg_iovlen = n;
    message
}

/// Converts received messages to frames, or counts them as losses.
struct Sort<'a> {
    mark: Option<Mark>,
    tally: &'a PortTally,
    burst: &'a mut Burst,
}

impl Sort<'_> {
    /// Handles a message that was received into `chunk`, after its header.
    ///
    /// Returns the chunk if the message gave no frame.
    fn message(&mut self, mut chunk: Chunk, message: &libc::mmsghdr) -> Option<Chunk> {
        self.tally.frames_in.add(1);
        self.tally.trains_in.add(1);
        let start = chunk.start();
        let header = &chunk.bytes_mut()[start - HEADER_BYTES..start];
        let loss = match ((message.msg_len as usize).checked_sub(HEADER_BYTES), self.mark) {
            (None, _) => Loss::Malformed,
            _ if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 => Loss::Truncated,
            _ if header != HEADER_DOWN => Loss::Malformed,
            (Some(_), None) => Loss::UnknownSender,
            (Some(len), Some(mark)) => {
                self.tally.bytes_in.add(len as u64);
                let mut frame = chunk.into_frame(start, len);
                frame.set_mark(mark);
                self.burst.push(frame);
                return None;
            }
        };
        self.tally.count_loss(loss, 1);
        Some(chunk)
    }
}

impl Port for UnixPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.accept_in == 0 {
            self.accept();
        }
        self.accept_in -= 1;
        if self.client.is_none() {
            return;
        }
        if self.blocked {
            self.check_room();
        }
        if self.read_in > 0 {
            self.read_in -= 1;
            return;
        }
        // This many calls fill a burst. The limit prevents malformed messages from occupying the
        // worker.
        for _ in 0..BURST_MAX / RECEIVE_MAX {
            let got = self.receive(pool, burst);
            if got < RECEIVE_MAX {
                // Either the socket is empty, or there was no free chunk.
                self.read_in = if got == 0 && !burst.is_full() { IDLE_READ_EVERY - 1 } else { 0 };
                return;
            }
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        while !frames.is_empty() {
            let (loss, n) = if self.mark != Some(to) {
                (Loss::NoNeighbour, frames.len())
            } else if let Some(client) = &self.client {
                match Self::send(self.calls, client, frames) {
                    Ok(sent) => {
                        self.tally.frames_out.add(sent as u64);
                        self.tally.trains_out.add(sent as u64);
                        self.tally.bytes_out.add(crate::wire::bytes_of(&frames[..sent]));
                        frames.drain(..sent);
                        self.blocked = false;
                        continue;
                    }
                    Err(errno) => match errno {
                        libc::EAGAIN => {
                            self.note_blocked();
                            return;
                        }
                        libc::EINTR => continue,
                        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN => {
                            // Read what the client sent before it disconnected. Reading then finds
                            // the end of the connection.
                            self.read_in = 0;
                            (Loss::PeerGone, frames.len())
                        }
                        libc::EMSGSIZE => (Loss::PathTooNarrow, 1),
                        _ => (Loss::SendRefused, 1),
                    },
                }
            } else {
                (Loss::PeerGone, frames.len())
            };
            self.tally.count_loss(loss, n as u64);
            frames.drain(..n);
        }
    }

    fn flush(&mut self) {}

    fn is_blocked(&self, to: Mark) -> bool {
        self.blocked && self.mark == Some(to)
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        if at != Address::Only {
            return Err(AdmitError::WrongKind);
        }
        if self.mark.is_some_and(|other| other != mark) {
            return Err(AdmitError::Taken);
        }
        self.mark = Some(mark);
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        if self.mark == Some(mark) {
            self.mark = None;
        }
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        (self.mark == Some(mark)).then_some(Address::Only)
    }

    fn arm(&mut self) -> Arm {
        // Changes the epoll set only if necessary: the client may still be blocked since the last
        // sleep.
        if self.blocked != self.waits_for_room
            && let Some(client) = &self.client
        {
            let room = if self.blocked { libc::EPOLLOUT } else { 0 };
            let events = libc::EPOLLIN | libc::EPOLLRDHUP | room;
            if self.epoll.change(client.as_raw_fd(), events).is_err() {
                return Arm::Poll;
            }
            self.waits_for_room = self.blocked;
        }
        // The descriptor stays readable as long as any event is pending.
        Arm::Wait(self.epoll.as_raw_fd())
    }

    fn on_readable(&mut self) {
        (self.read_in, self.accept_in, self.check_room_in) = (0, 0, 0);
    }

    fn frame_bytes_max(&self) -> usize {
        self.spec.frame_bytes_max
    }

    fn receive_chunks(&self) -> Chunks {
        let n = RECEIVE_MAX as u32;
        if self.takes_singles() {
            Chunks { trains: 0, singles: n }
        } else {
            Chunks { trains: n, singles: 0 }
        }
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        &self.name
    }
}
