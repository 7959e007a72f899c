//! A port whose far end is another process, over a unix socket of type `SOCK_SEQPACKET`.
//!
//! The switch holds the [`UnixPort`], and the other process holds a [`Client`]. If either process
//! is killed, the other one continues. The port trusts nothing that the client sends.
//!
//! Messages have two forms (wire.md 8.3). In the first form, each message is one packet, preceded by
//! a header of four bytes in network byte order:
//!
//! ```text
//!   0       1       2       3       4 ...
//!  +-------+-------+-------+-------+----------------
//!  | slot number, u32 big-endian   | the packet
//!  +-------+-------+-------+-------+----------------
//! ```
//!
//! - From the switch, the header is the number of the ingress slot (wire.md 1.3). `0xffffffff`
//!   without a packet means that the port serves another client; the connection then ends.
//! - From the client, the header is zero. Another value, or a message shorter than the header,
//!   counts as [`Loss::Malformed`], and a packet longer than the maximum as [`Loss::Truncated`].
//!
//! A client may ask for the second form, if [`UnixPort::set_facts`] was called. The switch answers
//! with a [`Greeting`]. From then on each message of the switch is a train: a header of eight bytes
//! and several packets of one length, of which the last may be shorter. The client may send trains
//! and packets of the first form. [`TrainClient`] uses the second form and, with an older switch,
//! the first.
//!
//! The port serves one client at a time. It rejects a second client, which may try again later.
//! With [`Clients`], several ports share one listening socket, and each serves one client. While
//! there is no client, packets to the slot count as [`Loss::PeerGone`]. Packets that the kernel has
//! accepted count as sent, although a client that is killed may not have read them. While the pool
//! is exhausted, the client's packets wait in the socket. When the socket is full, the client
//! cannot send. No packet is lost.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use arrayvec::ArrayVec;
use strowger_frame::{
    Address, BURST_MAX, Burst, Chunk, ChunkClass, Frame, Loss, Mark, Pool, Port, Train,
    pool::{HEADROOM_BYTES, SINGLE_STRIDE_BYTES},
    port::{AdmitError, Arm, KernelDrop, PortTally},
    reserve::Chunks,
};

use crate::sys::{
    Refusal,
    messages::{self, ALLOW_CALLS, Calls, empty_header},
};

mod client;
mod clients;
mod error;
mod greeting;
pub mod limits;
pub mod message;
mod refusal;
pub mod seqpacket;
mod socket;
mod train;
mod train_client;

pub use client::{Client, ClientError, Received};
use clients::Inbox;
pub use clients::{Clients, WaitingClient};
pub use error::ListenError;
pub use greeting::{Greeting, SwitchFacts};
use limits::TRAINS_RECEIVED_MAX;
use message::{HEADER_BUSY, HEADER_BYTES, HELLO, ToSwitch};
pub use refusal::ClientRefusal;
pub use socket::is_served;
use socket::{Epoll, Listener};
use train::Sent;
pub use train_client::{ReceivedTrain, TrainClient};

/// Maximum number of messages in one receive call, and of free chunks that a port holds for them.
const RECEIVE_MAX: usize = 32;
/// While a worker is busy, the port reads an idle socket only once in this many bursts, because a
/// system call without a result costs as much as switching a burst. After a sleep it reads
/// immediately.
const IDLE_READ_EVERY: u32 = 4;
/// While a worker is busy, the port tries to accept a client once in this many bursts.
const ACCEPT_EVERY: u32 = 64;
/// Maximum number of bursts between two checks for room, while a client's socket is full and the
/// worker is busy. The interval starts at one burst and doubles. If the client reads, the port
/// notices that soon. If the client does not read, the checks cost one system call in this many
/// bursts.
const ROOM_CHECK_EVERY_MAX: u32 = 256;
/// Maximum length of a packet in a chunk of class `Single`, for any offset at which the data
/// starts.
const SINGLE_BYTES_MAX: usize = SINGLE_STRIDE_BYTES - HEADROOM_BYTES - 8 * 64;

/// Settings of a unix port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixSpec {
    /// Maximum length of a packet in bytes, in both directions, up to 65,535.
    ///
    /// If it is at most 3,328, each received packet occupies a chunk of class `Single`, or a train
    /// chunk if none of that class is free. Otherwise each received packet occupies a train chunk.
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

/// The source of a port's client.
#[derive(Debug)]
enum Source {
    /// The port listens itself.
    Own(Listener),
    /// The owner of [`Clients`] assigns clients to the port.
    Given(Inbox),
}

/// The half that the switch holds: a port for one client process.
#[derive(Debug)]
pub struct UnixPort {
    source: Source,
    client: Option<OwnedFd>,
    /// A client that has connected after the former client has disconnected, and before the port
    /// has read the former client's last messages.
    next: Option<OwnedFd>,
    calls: Calls,
    epoll: Epoll,
    spec: UnixSpec,
    mark: Option<Mark>,
    /// The facts that the port states in a greeting. Without it the port knows only the first form.
    facts: Option<Arc<SwitchFacts>>,
    /// Whether the client got a greeting, so that frames to it are sent as trains.
    is_greeted: bool,
    /// Maximum length of a train to the client, in bytes.
    train_bytes_max: usize,
    /// Free chunks for the next messages.
    ready: ArrayVec<Chunk, RECEIVE_MAX>,
    /// Free train chunks for the next messages of a greeted client.
    train_chunks: ArrayVec<Chunk, TRAINS_RECEIVED_MAX>,
    /// Received trains, in order, that did not fit into the last burst.
    trains: ArrayVec<Train, TRAINS_RECEIVED_MAX>,
    /// Number of bursts until the port reads the socket again, and until it accepts clients again.
    read_in: u32,
    accept_in: u32,
    /// Whether the socket had no room for some of the last frames.
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
    /// Listens at `path`. Removes a socket file whose process no longer exists.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(path: impl AsRef<Path>, spec: &UnixSpec) -> Result<Self, ListenError> {
        let path = path.as_ref();
        let listener = Self::bind(path, spec)?;
        Self::new(Source::Own(listener), path, spec, format!("unix {}", path.display()))
    }

    /// Binds a socket, after a check that its messages could be sent and received.
    fn bind(path: &Path, spec: &UnixSpec) -> Result<Listener, ListenError> {
        Calls::find().map_err(|error| ListenError::CallsRefused { path: path.into(), error })?;
        Listener::bind(path, spec.mode)
    }

    /// A port whose clients come from `inbox`.
    fn for_client(
        inbox: Inbox,
        path: &Path,
        spec: &UnixSpec,
        name: String,
    ) -> Result<Self, ListenError> {
        Self::new(Source::Given(inbox), path, spec, name)
    }

    fn new(
        source: Source,
        path: &Path,
        spec: &UnixSpec,
        name: String,
    ) -> Result<Self, ListenError> {
        let calls = Calls::find()
            .map_err(|error| ListenError::CallsRefused { path: path.into(), error })?;
        let failed = |error| ListenError::System { what: "wait for", path: path.into(), error };
        let epoll = Epoll::new().map_err(failed)?;
        let wakes = match &source {
            Source::Own(listener) => listener.as_raw_fd(),
            Source::Given(inbox) => inbox.bell.as_raw_fd(),
        };
        epoll.add(wakes, libc::EPOLLIN).map_err(failed)?;
        let frame_bytes_max = spec.frame_bytes_max.min(usize::from(u16::MAX));
        Ok(Self {
            source,
            client: None,
            next: None,
            calls,
            epoll,
            spec: UnixSpec { frame_bytes_max, ..*spec },
            mark: None,
            facts: None,
            is_greeted: false,
            train_bytes_max: 0,
            ready: ArrayVec::new(),
            train_chunks: ArrayVec::new(),
            trains: ArrayVec::new(),
            read_in: 0,
            accept_in: 0,
            blocked: false,
            check_room_in: 0,
            check_room_every: 1,
            waits_for_room: false,
            tally: Arc::default(),
            name,
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

    /// Lets the port greet clients that request the second form.
    pub fn set_facts(&mut self, facts: Arc<SwitchFacts>) {
        self.facts = Some(facts);
    }

    /// Whether a client is connected.
    pub fn is_serving(&self) -> bool {
        self.client.is_some()
    }

    /// Accepts the next client. If another client is being served, rejects it.
    fn accept(&mut self) {
        self.accept_in = ACCEPT_EVERY;
        let client = match &self.source {
            Source::Own(listener) => self.next.take().or_else(|| listener.accept()),
            // Before the port has a mark, it could not forward what the client sends.
            Source::Given(inbox) if self.mark.is_some() && self.client.is_none() => inbox.take(),
            Source::Given(_) => None,
        };
        let Some(client) = client else { return };
        if let Some(last) = &self.client {
            if socket::has_hung_up(last) {
                self.next = Some(client);
                (self.read_in, self.accept_in) = (0, 0);
                return;
            }
            // If it cannot be sent, the client only sees that the connection ends.
            let _ = socket::send(&client, &HEADER_BUSY);
            return;
        }
        let waits = self.epoll.add(client.as_raw_fd(), libc::EPOLLIN | libc::EPOLLRDHUP);
        self.client = Some(client);
        self.read_in = 0;
        // If epoll refuses the client, the client is dropped without a message.
        if waits.is_err() {
            self.hang_up();
        }
    }

    /// Drops the client, so that another client can connect immediately, or so that the owner of
    /// the ports is notified.
    fn hang_up(&mut self) {
        self.drop_client();
        if let Source::Given(inbox) = &self.source {
            inbox.note_gone();
        }
    }

    /// Drops the client. Closing its socket removes it from the epoll set.
    fn drop_client(&mut self) {
        self.client = None;
        self.accept_in = 0;
        self.blocked = false;
        self.waits_for_room = false;
        self.is_greeted = false;
        self.train_chunks.clear();
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

    /// Whether packets are received into chunks of class `Single`.
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
        messages.extend(parts.iter_mut().map(|part| message_of(part, 1)));
        // SAFETY: each message points to one part, and each part to a chunk that we own; all
        // outlive the call.
        let got = match unsafe { self.calls.receive(client.as_raw_fd(), &mut messages) } {
            Ok(got) => got,
            // The kernel reports a reset once, before it returns the messages that arrived earlier.
            Err(libc::EAGAIN | libc::EINTR | libc::ECONNRESET) => return 0,
            Err(_) => {
                self.hang_up();
                return 0;
            }
        };
        let got = &messages[..got];
        // An empty message looks like the end of the connection.
        if got.iter().all(|message| message.msg_len == 0) && socket::has_hung_up(client) {
            self.hang_up();
            return 0;
        }
        let packet_bytes_max = self.spec.frame_bytes_max;
        let answers = self.facts.is_some();
        let (mark, tally) = (self.mark, &*self.tally);
        let mut sort = Sort { mark, packet_bytes_max, answers, asked: false, tally, burst };
        let kept: ArrayVec<Chunk, RECEIVE_MAX> = self
            .ready
            .drain(..got.len())
            .zip(got)
            .filter_map(|(chunk, message)| sort.message(chunk, message))
            .collect();
        let asked = sort.asked;
        // These chunks are inserted in front, because they are still in the cache.
        for (at, chunk) in kept.into_iter().enumerate() {
            self.ready.insert(at, chunk);
        }
        let got = got.len();
        if asked {
            self.greet();
        }
        got
    }

    /// Sends frames in order, with one `sendmmsg` if the process may use it. Returns the number that
    /// the kernel accepted, or the errno.
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
        messages.extend(parts.iter_mut().map(|parts| message_of(parts.as_mut_ptr(), 2)));
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: each message points to two parts, a header and the bytes of a frame; all are
        // readable and outlive the call.
        unsafe { calls.send(client.as_raw_fd(), &mut messages, flags) }
    }
}

fn message_of(parts: *mut libc::iovec, n: usize) -> libc::mmsghdr {
    let mut message = empty_header();
    message.msg_hdr.msg_iov = parts;
    message.msg_hdr.msg_iovlen = n;
    message
}

/// Converts received messages of the first form to frames, or counts them as losses.
struct Sort<'a> {
    mark: Option<Mark>,
    packet_bytes_max: usize,
    /// Whether the port answers a request for the second message form.
    answers: bool,
    asked: bool,
    tally: &'a PortTally,
    burst: &'a mut Burst,
}

impl Sort<'_> {
    /// Handles a message that was received into `chunk`. Its header ends at the chunk's start
    /// offset.
    ///
    /// Returns the chunk if the message gave no frame.
    fn message(&mut self, mut chunk: Chunk, message: &libc::mmsghdr) -> Option<Chunk> {
        let (start, len) = (chunk.start(), message.msg_len as usize);
        let head = &chunk.bytes_mut()[start - HEADER_BYTES..][..len.min(HELLO.len())];
        let parsed = if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            Err(Loss::Truncated)
        } else {
            ToSwitch::parse(head, len, false, self.packet_bytes_max)
        };
        let loss = match (parsed, self.mark) {
            (Ok(ToSwitch::Hello), _) if self.answers => {
                self.asked = true;
                return Some(chunk);
            }
            (Err(loss), _) => loss,
            (Ok(ToSwitch::Hello | ToSwitch::Train { .. }), _) => Loss::Malformed,
            (Ok(ToSwitch::Packet { .. }), None) => Loss::UnknownSender,
            (Ok(ToSwitch::Packet { len }), Some(mark)) => {
                self.tally.frames_in.add(1);
                self.tally.trains_in.add(1);
                self.tally.bytes_in.add(len as u64);
                let mut frame = chunk.into_frame(start, len);
                frame.set_mark(mark);
                self.burst.push(frame);
                return None;
            }
        };
        self.tally.frames_in.add(1);
        self.tally.trains_in.add(1);
        self.tally.count_loss(loss, 1);
        Some(chunk)
    }
}

impl Port for UnixPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.accept_in == 0 {
            self.accept();
        }
        self.accept_in = self.accept_in.saturating_sub(1);
        if !self.trains.is_empty() {
            self.cut_trains(burst);
            if !self.trains.is_empty() {
                return;
            }
        }
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
        // This many calls can fill a burst. The limit bounds the time that malformed messages take
        // from the worker.
        for _ in 0..BURST_MAX / RECEIVE_MAX {
            let (got, enough) = match self.is_greeted {
                true if burst.is_full() => return,
                true => (self.receive_trains(pool, burst), TRAINS_RECEIVED_MAX),
                false => (self.receive(pool, burst), RECEIVE_MAX),
            };
            if !self.trains.is_empty() {
                return;
            }
            if got < enough {
                // The socket is empty, or there were too few free chunks or too little room in the
                // burst.
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
                let sent = if self.is_greeted {
                    Self::send_trains(self.calls, client, frames, self.train_bytes_max)
                } else {
                    Self::send(self.calls, client, frames)
                        .map(|sent| Sent { frames: sent, messages: sent })
                };
                match sent {
                    Ok(Sent { frames: sent, messages }) => {
                        self.tally.frames_out.add(sent as u64);
                        self.tally.trains_out.add(messages as u64);
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
        // The client may have been given already.
        self.accept_in = 0;
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        if self.mark == Some(mark) {
            self.mark = None;
            self.drop_trains();
            // The client of a socket for several clients has its slot as long as its connection.
            if let Source::Given(inbox) = &self.source {
                drop(inbox.take());
                self.drop_client();
            }
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
        // Received packets wait for the next burst.
        if !self.trains.is_empty() {
            return Arm::Poll;
        }
        if let Source::Given(inbox) = &mut self.source {
            inbox.bell.arm();
            if inbox.is_given() {
                return Arm::Poll;
            }
        }
        // The descriptor stays readable as long as any event is pending.
        Arm::Wait(self.epoll.as_raw_fd())
    }

    fn on_readable(&mut self) {
        (self.read_in, self.accept_in, self.check_room_in) = (0, 0, 0);
        if let Source::Given(inbox) = &mut self.source {
            inbox.bell.disarm();
        }
    }

    fn frame_bytes_max(&self) -> usize {
        self.spec.frame_bytes_max
    }

    fn receive_chunks(&self) -> Chunks {
        let n = RECEIVE_MAX as u32;
        if self.takes_singles() {
            Chunks { trains: TRAINS_RECEIVED_MAX as u32, singles: n }
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
