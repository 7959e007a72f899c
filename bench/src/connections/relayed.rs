//! Connections through relays over UDP: the relay's rate compared with bare packets (T3), and the
//! frames in each send operation of the relay at a socket's own end.

use std::time::{Duration, Instant};

use strowger_crypto::{IdentityKey, OsEntropy};
use strowger_engine::link::plain_header;
use strowger_frame::Burst;
use strowger_runtime::{LocalPort, LocalPortSpec, LocalSender, Peer, Relay, RelayHandle};
use strowger_socket::{Destination, Messages, Socket};
use strowger_wire::{Label, limits::TAG_BYTES, link_header::LINK_HEADER_BYTES};

use super::{
    ends::{By, Ends, SLOTS},
    sockets::{LONG, PROTOCOL, label, node, open_both, refused},
};
use crate::{
    Bench, Failure, Options, Row,
    sealed_chain::{Mode, SealedChain},
    sealed_relay::{Inside, SealedRelay, forward},
    sealed_udp::{self, Forwarder, SealedTrial},
    spread::Spread,
    trial::Outcome,
};

/// Measures the rate, and the frames in each send operation.
pub(super) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let size = options.sizes.iter().copied().max().unwrap_or(1_400).max(PACKET_BYTES_MIN);
    each(through_relay(options, size)?)?;
    each(frames_per_send(options, size.min(MESSAGE_BYTES_MAX))?)
}

/// Bytes of the shortest UDP payload with a message of a connection in it.
const PACKET_BYTES_MIN: usize = SealedChain::BYTES_MIN + 64;

/// Packets of connections through a sealed relay with trains, compared with bare packets of the
/// same length. Only the relay is measured.
fn through_relay(options: &Options, size: usize) -> Result<Row, Failure> {
    let pair = || {
        let ours = trial(options, size, Some(connection(size)?))?;
        Ok((ours, trial(options, size, None)?))
    };
    let pairs = std::iter::repeat_with(pair).take(options.pairs);
    let pairs = pairs.collect::<Result<Vec<_>, Failure>>()?;
    let mut row = Row::new(Bench::Connections, size, true, options.pairs);
    row.ours = "through_relay";
    row.peer = Some("bare_packets");
    row.compare(&pairs);
    row.idle = pairs.iter().flat_map(|(ours, peer)| [ours.idle, peer.idle]).reduce(f64::max);
    row.saturated = row.idle.map(|idle| idle < 0.05);
    Ok(row)
}

fn trial(options: &Options, size: usize, inside: Option<Inside>) -> Result<Outcome, Failure> {
    let (window, cores) = (options.window(), &options.cores);
    let ends = sealed_udp::Ends::new()?;
    let relay = match inside {
        Some(inside) => SealedRelay::with_inside(&ends, Mode::Full, true, inside)?,
        None => SealedRelay::new(&ends, size, Mode::Full, true)?,
    };
    let SealedRelay { mut worker, slow_path, at, seal, open } = relay;
    let forwarder = Forwarder::InThread(Box::new(move |idle_polls, stopped| {
        forward(&mut worker, idle_polls, stopped)
    }));
    let backend = "mmsg";
    let trial = SealedTrial { size, window, cores, at, ends, seal, open, forwarder, backend };
    let outcome = trial.run();
    drop(slow_path);
    outcome
}

/// Both ends of a connection: one makes packets, the other checks them. The slots are those of the
/// sealed relay.
fn connection(size: usize) -> Result<Inside, Failure> {
    let packet_bytes = size - LINK_HEADER_BYTES - TAG_BYTES;
    let sealing = &mut Ends::new(1, By::StaticKey, 0)?;
    let mut message = sealing.one_byte()?;
    let overhead = sealing.seal(0, &mut message)?[0].len() - 1;
    let message_bytes = packet_bytes.checked_sub(overhead);
    let message_bytes = message_bytes.ok_or(Failure::Bug("the size has room for a message"))?;
    let mut ends = Ends::new(1, By::StaticKey, message_bytes)?;
    ends.settle(0)?;
    let Ends { now, near, mut far, mut pool, .. } = ends;
    let (mut far, socket) = far.pop().ok_or(Failure::Bug("there is one connection"))?;
    let mut opened = near.endpoint;
    let mut buffers = Ends::new(0, By::StaticKey, 0)?;
    buffers.now = now;
    let mut packets = Burst::new();
    let write = move |bytes: &mut [u8]| {
        pool.reclaim();
        let mut messages = Burst::new();
        if let Some(chunk) = pool.take(strowger_frame::ChunkClass::Single) {
            messages.push(chunk.into_frame(strowger_connection::HEADROOM_BYTES, message_bytes));
        }
        // An error leaves no packet, and the sink reports the missing packet.
        let _ = far.endpoint.send_burst(now, socket, &mut messages, &mut packets);
        let (link, inside) = bytes.split_at_mut(LINK_HEADER_BYTES);
        link.copy_from_slice(&plain_header(0));
        if let Some(packet) = packets.pop()
            && packet.len() == inside.len() - TAG_BYTES
        {
            inside[..packet.len()].copy_from_slice(packet.bytes());
        }
        packets.clear();
    };
    let is_right = move |packet: &[u8]| buffers.opens(&mut opened, packet, SLOTS[1]);
    Ok(Inside { write: Box::new(write), is_right: Box::new(is_right) })
}

/// Messages in a burst of the comparison of sends.
const BURST: usize = 32;
/// The longest message of that comparison: a new path carries it without a search.
const MESSAGE_BYTES_MAX: usize = 800;
/// The maximum time for a burst to arrive. Packets over UDP may be lost.
const BURST_MAX_TIME: Duration = Duration::from_millis(100);

/// Two relays with a sealed link over UDP, and a program at each of them.
struct Path {
    near: RelayHandle,
    _far: RelayHandle,
    bare: [LocalPort; 2],
    nodes: [LocalPort; 2],
}

/// The slots at both relays: `LINK` of the link, `BARE` of the bare ports, `NODES` of the nodes.
const LINK: [u32; 2] = [3, 5];
const BARE: [u32; 2] = [4, 6];
const NODES: [u32; 2] = [8, 9];

impl Path {
    fn new() -> Result<Self, Failure> {
        let keys = [(); 2].map(|()| IdentityKey::generate(&mut OsEntropy).map_err(refused));
        let [near_key, far_key] = keys;
        let (near_key, far_key) = (near_key?, far_key?);
        let (near_id, far_id) = (near_key.public().peer_id(), far_key.public().peer_id());
        let relay = |key, side: usize| {
            let port =
                |name: &str, slots: [u32; 2]| LocalPortSpec::new(name.to_owned()).slot(slots[side]);
            Relay::builder()
                .identity(key)
                .network("bench-links")
                .workers(1)
                .udp(sealed_udp::anywhere())
                .local_port_spec(port("bare", BARE))
                .local_port_spec(port("node", NODES))
        };
        let far = relay(far_key, 1).peer(Peer::new(near_id).slot(LINK[1]));
        let far = far.start().map_err(refused)?;
        let ports = far.ports().map_err(refused)?;
        let at = ports.first().and_then(|port| port.local_address().map(|at| at.to_string()));
        let at = at.ok_or(Failure::Bug("the first port is bound"))?;
        let peer = Peer::new(far_id).name("far").at(at.as_str()).slot(LINK[0]);
        let near = relay(near_key, 0).peer(peer).start().map_err(refused)?;
        let started = Instant::now();
        while !near.is_up("far").map_err(refused)? {
            if started.elapsed() > LONG {
                return Err(Failure::Wrong("no sealed link came up over UDP".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let take = |relay: &RelayHandle, name: &str| relay.take_port(name).map_err(refused);
        let bare = [take(&near, "bare")?, take(&far, "bare")?];
        let nodes = [take(&near, "node")?, take(&far, "node")?];
        Ok(Self { near, _far: far, bare, nodes })
    }

    /// Frames and send operations at the UDP port of the near relay.
    fn sent(near: &RelayHandle) -> Result<(u64, u64), Failure> {
        let stats = near.stats().map_err(refused)?;
        let udp = stats.ports.iter().filter(|port| port.port.describe.contains("udp"));
        let queues = udp.flat_map(|port| &port.port.queues);
        Ok(queues.fold((0, 0), |(frames, sends), queue| {
            (frames + queue.frames_out, sends + queue.trains_out)
        }))
    }
}

/// Frames in each send operation of the relay's UDP port, when a program sends bursts: with
/// transmit buffers of a socket and with its copying send, and the same with a bare local port.
fn frames_per_send(options: &Options, size: usize) -> Result<Row, Failure> {
    let Path { near, _far, bare, nodes } = Path::new()?;
    let [bare_near, bare_far] = bare;
    let (mut bare_near, mut bare_far) = (bare_near.split().0, bare_far.split().1);
    let [node_near, node_far] = nodes;
    let (node_near, node_far) =
        (node(node_near)?.start().map_err(refused)?, node(node_far)?.start().map_err(refused)?);
    let listener = node_far.listen(PROTOCOL).map_err(refused)?;
    let way = label(&[(NODES[0], LINK[0]), (LINK[1], NODES[1])])?;
    let way = Destination::from(node_far.peer_id()).label(way.into());
    let mut attempt = Box::pin(node_near.connect(way, PROTOCOL));
    let [mut ours, mut theirs] = open_both(&mut attempt, &listener, &mut || {})?;
    let bare_label = label(&[(BARE[0], LINK[0]), (LINK[1], BARE[1])])?;
    let mut pairs = Vec::new();
    for _ in 0..options.pairs {
        let measure = |burst: &mut dyn FnMut() -> Result<(), Failure>| {
            let before = Path::sent(&near)?;
            let started = Instant::now();
            loop {
                burst()?;
                if started.elapsed() >= options.window() {
                    break;
                }
            }
            let after = Path::sent(&near)?;
            Ok::<_, Failure>((after.0 - before.0) as f64 / ((after.1 - before.1).max(1)) as f64)
        };
        let buffers = measure(&mut || {
            fill_and_send(&mut ours, size)?;
            drain(&mut theirs)
        })?;
        let copies = measure(&mut || {
            copy_and_send(&mut ours, size)?;
            drain(&mut theirs)
        })?;
        let mut drain_bare = || {
            let (started, mut arrived) = (Instant::now(), 0);
            while arrived < BURST && started.elapsed() < BURST_MAX_TIME {
                let mut burst = Burst::new();
                arrived += bare_far.recv_burst(&mut burst).map_err(refused)?;
                std::thread::yield_now();
            }
            Ok(())
        };
        let bare_burst = measure(&mut || {
            send_bare(&mut bare_near, bare_label, size)?;
            drain_bare()
        })?;
        let message = vec![7; size];
        let bare_copies = measure(&mut || {
            for _ in 0..BURST {
                bare_near.send_to(bare_label, &message).map_err(refused)?;
            }
            drain_bare()
        })?;
        pairs.push([buffers, bare_burst, copies, bare_copies]);
    }
    let middle = |of: usize| {
        Spread::of(pairs.iter().map(|pair: &[f64; 4]| pair[of])).map_or(0.0, |all| all.median)
    };
    let mut row = Row::new(Bench::Connections, size, true, options.pairs);
    row.ours = "frames_per_send";
    row.peer = Some("local_port");
    let ratio = |[buffers, bare_burst, copies, bare_copies]: &[f64; 4]| {
        (buffers / bare_burst).min(copies / bare_copies)
    };
    row.ratio = Spread::of(pairs.iter().map(ratio));
    row.note = Some(format!(
        "frames in each send of the relay's UDP port, bursts of {BURST}: {:.1} with tx_buffers \
         (bare port, one burst: {:.1}), {:.1} with the copying send (bare port, send_to: {:.1})",
        middle(0),
        middle(1),
        middle(2),
        middle(3)
    ));
    Ok(row)
}

fn fill_and_send(socket: &mut Socket, size: usize) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        if let Some(mut buffers) = socket.tx_buffers(size, BURST) {
            buffers.iter_mut().for_each(|buffer| buffer.fill(7));
            while socket.send_tx_buffers(&mut buffers).is_err() {
                waits(started)?;
            }
            return Ok(());
        }
        waits(started)?;
    }
}

fn copy_and_send(socket: &mut Socket, size: usize) -> Result<(), Failure> {
    let message = vec![7; size];
    let started = Instant::now();
    for _ in 0..BURST {
        while socket.try_send(&message).is_err() {
            waits(started)?;
        }
    }
    Ok(())
}

/// Sends frames from a bare local port in one burst.
fn send_bare(port: &mut LocalSender, label: Label, size: usize) -> Result<(), Failure> {
    let mut burst = Burst::new();
    let started = Instant::now();
    while burst.len() < BURST {
        match port.buffer(label, size) {
            Ok(mut buffer) => {
                buffer.payload_mut().fill(7);
                burst.push(buffer.into_frame());
            }
            Err(_) => waits(started)?,
        }
    }
    while !burst.is_empty() {
        port.send_burst(&mut burst).map_err(refused)?;
        waits(started)?;
    }
    Ok(())
}

/// Receives a burst, or the part that arrives in time.
fn drain(socket: &mut Socket) -> Result<(), Failure> {
    let (started, mut arrived) = (Instant::now(), 0);
    let mut messages = Messages::new();
    while arrived < BURST && started.elapsed() < BURST_MAX_TIME {
        arrived += socket.recv_burst(&mut messages).map_err(refused)?;
        messages.clear();
        std::thread::yield_now();
    }
    Ok(())
}

fn waits(started: Instant) -> Result<(), Failure> {
    std::thread::yield_now();
    match started.elapsed() > LONG {
        true => Err(Failure::Wrong("a queue stayed full".to_owned())),
        false => Ok(()),
    }
}
