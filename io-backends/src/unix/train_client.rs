//! A client that uses the second form: trains, and a greeting that names slot and scheme.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsRawFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use strowger_frame::{Burst, Frame};

use super::{
    client::{Client, ClientError},
    greeting::{GREETING_BYTES_MAX, Greeting},
    limits::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX},
    message::{
        HEADER_BUSY, HEADER_BYTES, HEADER_DOWN, HEADER_SECOND, HELLO, TRAIN_HEADER_BYTES,
        train_header,
    },
};

/// A connection to a slot, for a process that sends and receives trains.
///
/// The client asks the switch for the second form, and sends one packet in each message until the
/// greeting arrives. A switch of an earlier version never sends a greeting.
#[derive(Debug)]
pub struct TrainClient {
    client: Client,
    greeting: Option<Greeting>,
}

/// A received train. Its packets lie in the caller's buffer, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedTrain {
    /// Length of all packets together, in bytes.
    pub len: usize,
    /// Length of each packet except the last one, which may be shorter. 0 for an empty packet.
    pub segment: usize,
    /// Number of the slot on which the packets entered the switch. The return path is computed from
    /// it.
    pub ingress: u32,
}

impl ReceivedTrain {
    /// The packets in `buffer`, into which the train was received.
    pub fn packets<'a>(&self, buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        buffer.get(..self.len).unwrap_or_default().chunks(self.segment.max(1))
    }
}

impl TrainClient {
    /// Connects to the socket of a switch, asks for the second form, and waits up to `wait` for the
    /// greeting ([`GREETING_WAIT`](super::limits::GREETING_WAIT) suits most programs).
    ///
    /// If a packet arrives before the greeting, this returns at once. A later receive call takes
    /// both.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect(path: impl AsRef<Path>, wait: Duration) -> Result<Self, ClientError> {
        let mut this = Self { client: Client::connect(path)?, greeting: None };
        this.ask_greeting()?;
        let started = Instant::now();
        loop {
            let mut start = [0; HEADER_BYTES];
            match this.client.peek(&mut start) {
                Ok(_) if start.starts_with(&HEADER_SECOND) => {
                    // Takes the greeting, which is the first message.
                    this.take_message(&mut [])?;
                    return Ok(this);
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
                // A later call takes the packet, or reports the error.
                Ok(_) | Err(_) => return Ok(this),
            }
            let left = wait.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(this);
            }
            this.client.wait(libc::POLLIN, left)?;
        }
    }

    /// Asks the switch for a greeting. Ask again to learn the slot and the scheme after a change.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask_greeting(&mut self) -> Result<bool, ClientError> {
        self.client.send_parts(&[IoSlice::new(&HELLO)])
    }

    /// The last greeting of the switch. `None` if it has not arrived yet, or if the switch does not
    /// know the second form.
    pub fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    /// Sends packets if there is room for them now: `packets` has packets of `segment` bytes, of
    /// which the last may be shorter. Returns the number of bytes that were sent. The rest are
    /// whole packets, for which there was no room.
    ///
    /// # Errors
    /// [`ClientError`]. `PacketTooLong` if `segment` is 0 or longer than the longest packet of the
    /// greeting.
    pub fn try_send(&mut self, packets: &[u8], segment: usize) -> Result<usize, ClientError> {
        let longest = self
            .greeting
            .as_ref()
            .map_or(usize::from(u16::MAX), |greeting| usize::from(greeting.packet_bytes_max));
        if segment == 0 || segment > longest {
            return Err(ClientError::PacketTooLong);
        }
        let of_train = train_header(HEADER_SECOND, segment);
        let (header, in_message) = match &self.greeting {
            Some(_) => (&of_train[..], TRAIN_PACKETS_MAX.min(TRAIN_BYTES_MAX / segment)),
            None => (&HEADER_DOWN[..], 1),
        };
        let mut sent = 0;
        for train in packets.chunks(in_message * segment) {
            if !self.client.send_parts(&[IoSlice::new(header), IoSlice::new(train)])? {
                break;
            }
            sent += train.len();
        }
        Ok(sent)
    }

    /// Sends packets from the front of `packets` if there is room for them now, each run of one
    /// length as a train of which the last packet may be shorter. Returns the number of packets
    /// that were sent. Those for which there was no room stay. Empty packets are dropped.
    ///
    /// # Errors
    /// [`ClientError`]. The packets that were not sent stay.
    pub fn try_send_frames(&mut self, packets: &mut Burst) -> Result<usize, ClientError> {
        let mut sent = 0;
        let mut outcome = Ok(true);
        while let (Some(first), Ok(true)) = (packets.get(sent), &outcome) {
            let segment = first.len();
            let of_train = train_header(HEADER_SECOND, segment);
            let (header, run) = match &self.greeting {
                Some(_) => (&of_train[..], run_of(&packets[sent..])),
                None => (&HEADER_DOWN[..], 1),
            };
            let mut parts = ArrayVec::<IoSlice<'_>, { TRAIN_PACKETS_MAX + 1 }>::new();
            parts.push(IoSlice::new(header));
            parts.extend(packets[sent..sent + run].iter().map(|frame| IoSlice::new(frame.bytes())));
            // An empty packet cannot be in a train.
            outcome = if segment == 0 { Ok(true) } else { self.client.send_parts(&parts) };
            sent += if matches!(outcome, Ok(true)) { run } else { 0 };
        }
        packets.drain(..sent);
        outcome.map(|_| sent)
    }

    /// Sends packets. If there is no room, blocks up to `timeout`. Returns the number of bytes that
    /// were sent.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn send(
        &mut self,
        packets: &[u8],
        segment: usize,
        timeout: Duration,
    ) -> Result<usize, ClientError> {
        let started = Instant::now();
        let mut sent = 0;
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            sent += self.try_send(&packets[sent..], segment)?;
            if sent == packets.len() || left.is_zero() {
                return Ok(sent);
            }
            self.client.wait(libc::POLLOUT, left)?;
        }
    }

    /// Takes a train if one has arrived. Does not block. A buffer of
    /// [`TRAIN_BYTES_MAX`](super::limits::TRAIN_BYTES_MAX) bytes has room for every train.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn try_receive(&mut self, buffer: &mut [u8]) -> Result<Option<ReceivedTrain>, ClientError> {
        loop {
            match self.take_message(buffer)? {
                Taken::Nothing => return Ok(None),
                Taken::Greeting => {}
                Taken::Train(train) => return Ok(Some(train)),
            }
        }
    }

    /// Takes a train. If there is none, blocks up to `timeout`. Returns `None` if the timeout has
    /// expired.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> Result<Option<ReceivedTrain>, ClientError> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if let Some(received) = self.try_receive(buffer)? {
                return Ok(Some(received));
            }
            if left.is_zero() {
                return Ok(None);
            }
            self.client.wait(libc::POLLIN, left)?;
        }
    }

    fn take_message(&mut self, buffer: &mut [u8]) -> Result<Taken, ClientError> {
        let mut header = [0; TRAIN_HEADER_BYTES];
        // A greeting may be longer than the buffer.
        let mut spare = [0; GREETING_BYTES_MAX];
        let header_bytes = if self.greeting.is_some() { TRAIN_HEADER_BYTES } else { HEADER_BYTES };
        let parts = &mut [
            IoSliceMut::new(&mut header[..header_bytes]),
            IoSliceMut::new(buffer),
            IoSliceMut::new(&mut spare),
        ];
        let Some(got) = self.client.receive_parts(parts)? else { return Ok(Taken::Nothing) };
        if header.starts_with(&HEADER_SECOND) && got >= HEADER_BYTES {
            let bytes = header[..header_bytes].iter().chain(&*buffer).chain(&spare).copied();
            let message: ArrayVec<u8, GREETING_BYTES_MAX> =
                bytes.take(got.min(GREETING_BYTES_MAX)).collect();
            let whole = got == message.len();
            let greeting = whole.then(|| Greeting::parse(&message)).flatten();
            self.greeting = Some(greeting.ok_or(ClientError::Malformed)?);
            return Ok(Taken::Greeting);
        }
        if got == HEADER_BYTES && header.starts_with(&HEADER_BUSY) {
            return self
                .client
                .note_refused()
                .map(|never: Option<Taken>| never.unwrap_or(Taken::Nothing));
        }
        let len = match got.checked_sub(header_bytes) {
            None if got == 0 => return Err(ClientError::Gone),
            None => return Err(ClientError::Malformed),
            Some(needed) if needed > buffer.len() => {
                return Err(ClientError::BufferTooShort { needed });
            }
            Some(len) => len,
        };
        let [a, b, c, d, e, f, ..] = header;
        let ingress = u32::from_be_bytes([a, b, c, d]);
        let segment = match &self.greeting {
            Some(_) => usize::from(u16::from_be_bytes([e, f])),
            None => len,
        };
        if self.greeting.is_some() && (segment == 0 || len == 0) {
            return Err(ClientError::Malformed);
        }
        Ok(Taken::Train(ReceivedTrain { len, segment, ingress }))
    }
}

/// The number of packets at the front that form one train: all have the length of the first one,
/// except the last, which may be shorter.
fn run_of(packets: &[Frame]) -> usize {
    let segment = packets.first().map_or(0, Frame::len);
    let most = TRAIN_PACKETS_MAX.min(TRAIN_BYTES_MAX / segment.max(1)).max(1);
    let equal = packets.iter().take(most).take_while(|frame| frame.len() == segment).count();
    let ends_shorter = equal < most
        && packets.get(equal).is_some_and(|next| !next.is_empty() && next.len() < segment);
    equal + usize::from(ends_shorter)
}

enum Taken {
    Nothing,
    Greeting,
    Train(ReceivedTrain),
}

impl AsRawFd for TrainClient {
    fn as_raw_fd(&self) -> RawFd {
        self.client.as_raw_fd()
    }
}
