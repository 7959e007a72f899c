//! The client of a unix port. A process that uses a slot of a switch links this code.
//!
//! A received packet is copied once, into the caller's buffer. No call blocks longer than its
//! timeout.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    message::{HEADER_BUSY, HEADER_BYTES, HEADER_DOWN},
    refusal::{ClientRefusal, REFUSAL_BYTES_MAX},
    socket,
};

/// A connection to a slot, for the process that uses the slot.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    /// Whether the switch has refused this client. A message with the reason may follow.
    is_refused: bool,
}

/// A received packet. Its bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Length in bytes.
    pub len: usize,
    /// Number of the slot on which the packet entered the switch. The return path is computed from
    /// it.
    pub ingress: u32,
}

/// Why a client cannot send or receive.
#[derive(Debug)]
pub enum ClientError {
    /// No process is listening at this path: there is no such file, or its process has ended.
    NotListening(io::Error),
    /// The switch serves another client and has rejected this client.
    Busy,
    /// The switch has rejected this client, for this reason.
    Refused(ClientRefusal),
    /// The switch has ended the connection, or its process has ended. Connect again.
    Gone,
    /// The received packet was longer than the buffer. It is lost.
    BufferTooShort {
        /// Length of the packet in bytes.
        needed: usize,
    },
    /// The packet to send is longer than the kernel accepts.
    PacketTooLong,
    /// The received message is shorter than its header, so the other end is not a switch.
    Malformed,
    /// Another system call failed.
    System(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListening(error) => write!(f, "no process listens there: {error}"),
            Self::Busy => f.write_str("the switch serves another client on this socket"),
            Self::Refused(why) => why.fmt(f),
            Self::Gone => f.write_str("the switch has ended the connection"),
            Self::BufferTooShort { needed } => {
                write!(f, "the packet needs a buffer of {needed} bytes, and is lost")
            }
            Self::PacketTooLong => f.write_str("the packet is longer than the kernel takes"),
            Self::Malformed => {
                f.write_str("a message without a header: the other end is not a switch")
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotListening(error) | Self::System(error) => Some(error),
            _ => None,
        }
    }
}

impl Client {
    /// Connects to the socket of a switch.
    ///
    /// If the switch already serves its maximum number of clients, a later call that sends or
    /// receives returns [`ClientError::Busy`] or [`ClientError::Refused`].
    ///
    /// # Errors
    /// `NotListening`, `Busy` if too many clients are waiting, or `System` (for example, without
    /// permission to connect).
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        match socket::connect(path.as_ref()) {
            Ok(fd) => Ok(Self { fd, is_refused: false }),
            Err(error) => Err(match error.kind() {
                // Too many clients are waiting already.
                io::ErrorKind::WouldBlock => ClientError::Busy,
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotListening(error)
                }
                _ => ClientError::System(error),
            }),
        }
    }

    /// Sends a packet if there is room for it now. Returns `false` if there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn try_send(&mut self, packet: &[u8]) -> Result<bool, ClientError> {
        self.send_parts(&[IoSlice::new(&HEADER_DOWN), IoSlice::new(packet)])
    }

    /// Sends one message if there is room for it now. Returns `false` if there is none.
    pub(super) fn send_parts(&mut self, parts: &[IoSlice<'_>]) -> Result<bool, ClientError> {
        let mut message = empty_message();
        // An `IoSlice` has the layout of an `iovec`. The kernel only reads through this pointer,
        // although the type allows writes.
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len();
        // SAFETY: `message` and what it points to are readable and outlive the call.
        let sent =
            unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(false),
            Some(libc::EMSGSIZE) => Err(ClientError::PacketTooLong),
            Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => Err(self.close_reason()),
            _ => Err(ClientError::System(error)),
        }
    }

    /// Returns why the connection has ended. Reads and discards the remaining messages of the
    /// switch.
    fn close_reason(&mut self) -> ClientError {
        loop {
            match self.try_receive(&mut []) {
                Ok(Some(_)) | Err(ClientError::BufferTooShort { .. }) => {}
                Err(error @ (ClientError::Busy | ClientError::Refused(_))) => return error,
                Ok(None) | Err(_) => return ClientError::Gone,
            }
        }
    }

    /// Sends a packet. If there is no room, blocks up to `timeout`. Returns `false` if the timeout
    /// has expired.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn send(&mut self, packet: &[u8], timeout: Duration) -> Result<bool, ClientError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if self.try_send(packet)? {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            self.wait(libc::POLLOUT, left)?;
        }
    }

    /// Takes a packet if one has arrived. Does not block.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn try_receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ClientError> {
        let mut header = [0; HEADER_BYTES];
        let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        let Some(got) = self.receive_parts(parts)? else { return Ok(None) };
        match got.checked_sub(HEADER_BYTES) {
            None if got == 0 => Err(ClientError::Gone),
            None => Err(ClientError::Malformed),
            Some(0) if header == HEADER_BUSY => self.note_refused(),
            Some(needed) if needed > buffer.len() => Err(ClientError::BufferTooShort { needed }),
            Some(len) => Ok(Some(Received { len, ingress: u32::from_be_bytes(header) })),
        }
    }

    /// Notes that the switch refuses this client, and reads the reason, if it has arrived.
    pub(super) fn note_refused<T>(&mut self) -> Result<Option<T>, ClientError> {
        self.is_refused = true;
        self.refusal().map_or(Ok(None), Err)
    }

    /// Reads why the switch refuses this client. `None` if neither the message with the reason nor
    /// the end of the connection has arrived.
    fn refusal(&mut self) -> Option<ClientError> {
        let mut message = [0; REFUSAL_BYTES_MAX];
        match self.receive_message(&mut [IoSliceMut::new(&mut message)]) {
            Ok(None) => None,
            Ok(Some(len)) => {
                let why = message.get(..len).and_then(ClientRefusal::parse);
                Some(why.map_or(ClientError::Busy, ClientError::Refused))
            }
            Err(_) => Some(ClientError::Busy),
        }
    }

    /// Reads the start of the next message, which stays in the socket. Does not block.
    pub(super) fn peek(&mut self, start: &mut [u8]) -> io::Result<usize> {
        let (at, flags) = (start.as_mut_ptr().cast(), libc::MSG_PEEK | libc::MSG_DONTWAIT);
        // SAFETY: `at` points to that many writable bytes.
        let got = unsafe { libc::recv(self.fd.as_raw_fd(), at, start.len(), flags) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Takes a message if one has arrived, and returns its whole length, even if it is longer than
    /// the parts.
    pub(super) fn receive_parts(
        &mut self,
        parts: &mut [IoSliceMut<'_>],
    ) -> Result<Option<usize>, ClientError> {
        if self.is_refused {
            return self.refusal().map_or(Ok(None), Err);
        }
        self.receive_message(parts)
    }

    fn receive_message(
        &mut self,
        parts: &mut [IoSliceMut<'_>],
    ) -> Result<Option<usize>, ClientError> {
        let mut message = empty_message();
        // An `IoSliceMut` has the layout of an `iovec`.
        message.msg_iov = parts.as_mut_ptr().cast();
        message.msg_iovlen = parts.len();
        let flags = libc::MSG_TRUNC; // returns the whole length, even if the message is truncated
        let mut receive = || {
            // SAFETY: `message` and the buffers it points to belong to us, are writable and outlive
            // it.
            let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
            usize::try_from(got).map_err(|_| io::Error::last_os_error())
        };
        let got = match receive() {
            // The kernel reports a reset once, before it returns the messages that arrived earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive(),
            got => got,
        };
        got.map(Some).or_else(|error| match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            Some(libc::ECONNRESET | libc::ENOTCONN) => Err(ClientError::Gone),
            _ => Err(ClientError::System(error)),
        })
    }

    /// Takes a packet. If there is none, blocks up to `timeout`. Returns `None` if the timeout has
    /// expired.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> Result<Option<Received>, ClientError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if let Some(received) = self.try_receive(buffer)? {
                return Ok(Some(received));
            }
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(libc::POLLIN, left)?;
        }
    }

    pub(super) fn wait(&self, events: i16, timeout: Duration) -> Result<(), ClientError> {
        let mut polled = libc::pollfd { fd: self.fd.as_raw_fd(), events, revents: 0 };
        // The timeout is rounded up; otherwise the loop would spin for the last millisecond.
        let millis = timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(i32::MAX);
        // SAFETY: `polled` is one entry, writable, and outlives the call.
        if unsafe { libc::poll(&raw mut polled, 1, millis) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(ClientError::System(error));
            }
        }
        Ok(())
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: a `msghdr` consists of integers and pointers, for which zero is a valid value.
    unsafe { std::mem::zeroed() }
}
