//! Connections through a relay whose ports are captured: the capture contains every byte that the
//! relay can read.
//!
//! ```text
//!   Alice ── port, captured ── relay ── port, captured ── Bob
//! ```

use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use strowger_connection::{
    Anyone, ConnectOptions, Destination, Endpoint, EndpointConfig, Event, ListenOptions,
    ProtocolNames, Received, Sent, SocketId,
};
use strowger_crypto::{IdentityKey, Nanos, NetworkId, OsEntropy, PeerId};
use strowger_engine::{limits::HOPS_MAX, link::plain_header};
use strowger_frame::Frame;
use strowger_io::{
    EndpointSpec,
    capture::{Capture, CaptureSpec},
    endpoint,
};
use strowger_routing::NoRouting;
use strowger_runtime::{CustomPort, Neighbor, Relay};
use strowger_wire::{
    Label, Scheme, Slot, label::AnyLabel, limits::TAG_BYTES, link_header::LINK_HEADER_BYTES,
    switch_header::HeaderRepr,
};

use crate::exit::{Exit, Failure};

/// The slots of Alice and Bob.
const SLOTS: [u32; 2] = [2, 3];
const NETWORK: &[u8] = b"strowger demo";
const PROTOCOL: &str = "/strowger-demo/1";
/// Messages from Alice to Bob, which Bob returns.
const MESSAGES: u64 = 1_000;
/// The maximum number of messages in flight.
const WINDOW: u64 = 16;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 1_000;
/// Bytes of the message parts for which the capture is searched.
const PART_BYTES: usize = 16;
/// The maximum duration of the whole exchange.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The result of the connections.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Messages that reached Bob.
    pub(super) messages: u64,
    /// Messages that Bob returned and that reached Alice unchanged.
    pub(super) returned: u64,
    /// Packets in the capture of the relay.
    captured: u64,
    /// Packets that the capture missed, because its thread was late.
    pub(super) missed: u64,
    /// Bytes of the capture, all of which were searched.
    captured_bytes: usize,
    /// The number of parts of messages, PeerIds and protocol names that the capture contains: 0
    /// unless a relay can read them.
    pub(super) readable: usize,
    /// Whether the search finds a message that was sent through the relay without a connection.
    pub(super) search_works: bool,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { returned, captured, readable, .. } = self;
        write!(f, "{returned} messages there and back between two PeerIds; ")?;
        match readable {
            0 => write!(
                f,
                "the relay cannot read them: no message, PeerId or protocol name occurs in a \
                 capture of its {captured} packets"
            ),
            _ => write!(f, "a capture at the relay shows {readable} parts of them"),
        }
    }
}

/// Runs the connections.
pub(super) fn run() -> Result<Report, Failure> {
    let captured = Captured::default();
    let (mut ends, mut tallies) = (Vec::new(), Vec::new());
    let mut builder = Relay::builder().workers(1);
    for (name, slot) in ["alice", "bob"].into_iter().zip(SLOTS) {
        let (port, end) = endpoint::pair(&EndpointSpec::default()).map_err(|e| refused(&e))?;
        let spec = CaptureSpec::default();
        let port = Capture::new(port, captured.clone(), &spec, || 0).map_err(|e| refused(&e))?;
        tallies.push(port.capture_tally().clone());
        builder = builder.custom_port(CustomPort::at_worker(name, 0, Box::new(port)));
        builder = builder.neighbor(Neighbor::endpoint(name).behind(name).slot(slot));
        ends.push(End::new(end)?);
    }
    let relay = builder.start().map_err(|error| refused(&error))?;
    let [alice, bob] = &mut ends[..] else { return Err(refused(&"two ends")) };
    let (messages, returned) = exchange(alice, bob)?;
    let secrets = secrets(&[alice, bob]);
    let bare = b"a message that is not in a connection";
    alice.send_bare(bare)?;
    let arrived = bob.port.receive_wait(TIME_MAX);
    drop(arrived);
    // The capture is complete only after the relay has ended.
    relay.shutdown().map_err(|error| refused(&error))?;
    let bytes = captured.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        messages,
        returned,
        captured: tallies.iter().map(|tally| tally.passed.read() - tally.missed.read()).sum(),
        missed: tallies.iter().map(|tally| tally.missed.read()).sum(),
        captured_bytes: bytes.len(),
        readable: secrets.iter().filter(|secret| contains(&bytes, secret)).count(),
        search_works: contains(&bytes, bare),
    })
}

/// Alice sends all messages, and Bob returns each. Returns the numbers of messages that reached Bob
/// and that came back unchanged.
fn exchange(alice: &mut End, bob: &mut End) -> Result<(u64, u64), Failure> {
    let began = Instant::now();
    let now = || Nanos(began.elapsed().as_nanos() as u64 + 1_000_000_000);
    let names = || ProtocolNames::new([PROTOCOL]).map_err(|error| refused(&error));
    let listener = bob.endpoint.listen(now(), names()?, ListenOptions::new());
    listener.map_err(|error| refused(&error))?;
    let to = Destination::from(bob.peer).label(label_to(SLOTS[1])?);
    let socket = alice.endpoint.connect(now(), to, names()?, ConnectOptions::new());
    let socket = socket.map_err(|error| refused(&error))?;
    let (mut sent, mut reached, mut returned) = (0, 0, 0);
    while returned < MESSAGES && began.elapsed() < TIME_MAX {
        if sent < MESSAGES && sent - returned < WINDOW {
            alice.send(now(), socket, &message(sent))?;
            sent += 1;
        }
        for (answer_at, message) in bob.turn(now())? {
            reached += 1;
            bob.send(now(), answer_at, &message)?;
        }
        for (_, arrived) in alice.turn(now())? {
            returned += u64::from(arrived == message(returned));
        }
    }
    Ok((reached, returned))
}

/// The texts and bytes that no relay may see.
fn secrets(ends: &[&mut End]) -> Vec<Vec<u8>> {
    let mut secrets = vec![PROTOCOL.as_bytes().to_vec()];
    for end in ends {
        secrets.push(end.peer.to_string().into_bytes());
        secrets.push(end.public.to_vec());
    }
    // Every message begins with the first of these parts, and repeats the last one to its end.
    let message = message(0);
    for part in [&message[..PART_BYTES], &message[20..][..PART_BYTES], &message[60..][..24]] {
        secrets.push(part.to_vec());
    }
    secrets
}

/// The message with this number.
fn message(number: u64) -> Vec<u8> {
    let mut message = format!("message {number:012} of Alice: ").into_bytes();
    let text = b"no relay can read this. ".iter().cycle().copied();
    message.extend(text.take(MESSAGE_BYTES - message.len()));
    message
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn label_to(slot: u32) -> Result<AnyLabel, Failure> {
    let director = Scheme::default().encode_least(Slot::new(slot)).map_err(|e| refused(&e))?;
    Ok(AnyLabel::W64(Label::new(director.bits() | 1 << director.width())))
}

fn refused(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Refused, format!("demo: connections: {why}"))
}

/// A program on a slot of the relay.
struct End {
    port: strowger_io::Endpoint,
    endpoint: Endpoint,
    peer: PeerId,
    public: [u8; 32],
}

impl End {
    fn new(port: strowger_io::Endpoint) -> Result<Self, Failure> {
        let key = IdentityKey::generate(&mut OsEntropy).map_err(|error| refused(&error))?;
        let network = NetworkId::new(NETWORK).ok_or_else(|| refused(&"the network's name"))?;
        let config = EndpointConfig::new(&key, network, Scheme::default());
        let (routing, entropy) = (Box::new(NoRouting::default()), Box::new(OsEntropy));
        let start = Nanos::from_secs(1);
        let endpoint = Endpoint::new(config, routing, Arc::new(Anyone), entropy, start);
        let endpoint = endpoint.map_err(|error| refused(&error))?;
        let public = key.public().to_bytes();
        Ok(Self { port, endpoint, peer: key.public().peer_id(), public })
    }

    /// Sends a message of a socket.
    fn send(&mut self, now: Nanos, socket: SocketId, message: &[u8]) -> Result<(), Failure> {
        let mut frame = self.frame(message.len() + TAG_BYTES)?;
        frame.truncate(message.len());
        frame.bytes_mut().copy_from_slice(message);
        match self.endpoint.send(now, socket, frame) {
            Ok(Sent::Packet(packet)) => self.launch(packet),
            Ok(Sent::Queued) => Ok(()),
            Err((why, _)) => Err(refused(&why)),
        }
    }

    /// Sends a message without a connection.
    fn send_bare(&mut self, message: &[u8]) -> Result<(), Failure> {
        let AnyLabel::W64(label) = label_to(SLOTS[1])? else { return Err(refused(&"the label")) };
        let (label, shift) = label.depart().map_err(|error| refused(&error))?;
        let header = HeaderRepr::new(label, shift, HOPS_MAX);
        let mut frame = self.frame(header.wire_bytes() + message.len())?;
        let payload = header.emit(frame.bytes_mut()).map_err(|error| refused(&error))?;
        payload.copy_from_slice(message);
        self.launch(frame)
    }

    fn frame(&mut self, len: usize) -> Result<Frame, Failure> {
        self.port.frame(len).ok_or_else(|| refused(&"no memory for a frame is free"))
    }

    /// Passes a packet to the relay.
    fn launch(&mut self, mut packet: Frame) -> Result<(), Failure> {
        if !packet.grow_front(LINK_HEADER_BYTES) {
            return Err(refused(&"no room for a link header"));
        }
        packet.bytes_mut()[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
        self.port.send_wait(packet, TIME_MAX).map_err(|error| refused(&error))
    }

    /// Receives packets, sends those that are due, and returns the messages.
    fn turn(&mut self, now: Nanos) -> Result<Vec<(SocketId, Vec<u8>)>, Failure> {
        let mut messages = Vec::new();
        while let Some(mut frame) = self.port.receive().map_err(|error| refused(&error))? {
            frame.shrink_front(LINK_HEADER_BYTES);
            if let Received::Message { to, frame, .. } = self.endpoint.receive(now, frame)
                && let strowger_connection::MessageTo::Socket(socket) = to
            {
                messages.push((socket, frame.bytes().to_vec()));
            }
        }
        self.endpoint.poll(now);
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Accepted { socket, .. } => self.endpoint.take_accepted(socket),
                Event::ConnectFailed { error, .. } => return Err(refused(&error)),
                _ => {}
            }
        }
        while let Some(packet) = self.endpoint.poll_transmit(now).map(|packet| packet.to_vec()) {
            let mut frame = self.frame(packet.len())?;
            frame.bytes_mut().copy_from_slice(&packet);
            self.launch(frame)?;
        }
        Ok(messages)
    }
}

/// The bytes that the captures have written.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
