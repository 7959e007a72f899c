//! Handshakes with peers that the responder has not met, compared with the curve operations of one
//! side (T12).

use std::time::{Duration, Instant};

use strowger_connection::{Endpoint, Received};
use strowger_crypto::Nanos;
use strowger_frame::{ChunkClass, Frame, Mark, Pool, PoolSpec};
use strowger_wire::{
    connection::header::{ConnectionHeader, ConnectionKind},
    switch_header::AnyHeader,
    with_header,
};

use super::ends::{By, End, SLOTS};
use crate::{Bench, Failure, Options, Row, handshakes::Curves, machine::on_core, spread::Spread};

/// The virtual time between two handshakes, which keeps within the budgets of unknown peers.
const BETWEEN: Nanos = Nanos::from_secs(1);
/// The maximum number of packets from each side until keys are confirmed.
const EXCHANGES_MAX: usize = 8;

/// Measures handshakes by static key and by PeerId.
pub(super) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (by, name, peer) in
        [(By::StaticKey, "responder", "curves"), (By::PeerId, "responder_by_peer_id", "curves_xx")]
    {
        let pairs: Result<Vec<(f64, f64)>, Failure> = on_core(options.cores.forwarder, || {
            let curves = Curves::new();
            let mut responder = Responder::new()?;
            let pair = || {
                let (mut ours, mut alone) = (Vec::new(), Vec::new());
                let started = Instant::now();
                while started.elapsed() < options.window() * 2 {
                    ours.push(responder.handshake(by)?.as_secs_f64());
                    let time = match by {
                        By::StaticKey => curves.time(),
                        By::PeerId => curves.time_xx(),
                    };
                    alone.push(time.as_secs_f64());
                }
                Ok((median(ours), median(alone)))
            };
            std::iter::repeat_with(pair).take(options.pairs).collect()
        });
        let pairs = pairs?;
        let mut row = Row::new(Bench::Connections, 0, false, options.pairs);
        row.ours = name;
        row.peer = Some(peer);
        row.ours_rate = Spread::of(pairs.iter().map(|(ours, _)| 1.0 / ours));
        row.peer_rate = Spread::of(pairs.iter().map(|(_, alone)| 1.0 / alone));
        row.ratio = Spread::of(pairs.iter().map(|(ours, alone)| alone / ours));
        each(row)?;
    }
    Ok(())
}

fn median(times: Vec<f64>) -> f64 {
    Spread::of(times).map_or(f64::INFINITY, |spread| spread.median)
}

/// An endpoint that accepts connections of new peers.
struct Responder {
    end: End,
    pool: Pool,
    now: Nanos,
    peers: u32,
}

impl Responder {
    fn new() -> Result<Self, Failure> {
        let now = Nanos::from_secs(100);
        let pool = PoolSpec { trains: 0, singles: 64, huge_pages: false };
        let pool = Pool::new(&pool).map_err(Failure::kernel("memory"))?;
        Ok(Self { end: End::accepting(0, SLOTS[0], now)?, pool, now, peers: 0 })
    }

    /// The time that the responder needs for the handshake with one more peer, up to the first
    /// packet that it opens.
    fn handshake(&mut self, by: By) -> Result<Duration, Failure> {
        self.now = self.now.plus(BETWEEN);
        self.peers += 1;
        let mut peer = End::new(self.peers, SLOTS[1], self.now)?;
        peer.connect(self.now, &self.end, by)?;
        // Handle other timers before the timed part.
        self.end.packets(self.now);
        let mut took = Duration::ZERO;
        for _ in 0..EXCHANGES_MAX {
            for packet in peer.packets(self.now) {
                let frame = self.frame(&packet, SLOTS[1])?;
                let is_handshake = kind(&packet).is_some_and(ConnectionKind::is_handshake);
                let received = if is_handshake {
                    let started = Instant::now();
                    let received = handle(&mut self.end.endpoint, self.now, frame);
                    took += started.elapsed();
                    received
                } else {
                    let received = self.end.endpoint.receive(self.now, frame);
                    self.end.endpoint.poll(self.now);
                    received
                };
                if !is_handshake
                    && matches!(received, Received::Consumed | Received::Message { .. })
                {
                    return Ok(took);
                }
            }
            // Packets to earlier peers are lost.
            for packet in self.end.packets(self.now).iter().filter(|packet| is_response(packet)) {
                let frame = self.frame(packet, SLOTS[0])?;
                peer.endpoint.receive(self.now, frame);
            }
            self.now = self.now.plus(Nanos::from_millis(100));
        }
        Err(Failure::Wrong(format!("no handshake: {:?}", self.end.endpoint.counters())))
    }

    fn frame(&mut self, packet: &[u8], from: u32) -> Result<Frame, Failure> {
        self.pool.reclaim();
        let chunk = self.pool.take(ChunkClass::Single);
        let mut frame =
            chunk.ok_or(Failure::Bug("one frame is in use"))?.into_frame(0, packet.len());
        frame.bytes_mut().copy_from_slice(packet);
        frame.set_mark(Mark(from));
        Ok(frame)
    }
}

/// The timed part: a function of its own, whose instructions callgrind can count.
#[inline(never)]
fn handle(endpoint: &mut Endpoint, now: Nanos, frame: Frame) -> Received {
    let received = endpoint.receive(now, frame);
    endpoint.poll(now);
    received
}

/// Whether a packet answers the handshake of a peer.
fn is_response(packet: &[u8]) -> bool {
    kind(packet) == Some(ConnectionKind::Response)
}

/// The kind of a connection packet.
fn kind(packet: &[u8]) -> Option<ConnectionKind> {
    let mut bytes = packet.to_vec();
    let header = AnyHeader::parse(&mut bytes).ok()?;
    let header = with_header!(header, header => ConnectionHeader::parse(header.payload()));
    header.ok().map(|header| header.kind)
}
