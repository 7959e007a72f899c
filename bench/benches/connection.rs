//! Measures what each packet of a connection costs an endpoint: sealing and opening of messages,
//! packets that are refused, and a poll with nothing to do.

use std::{cell::RefCell, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use strowger_connection::{
    Anyone, ConnectOptions, Destination, Endpoint, EndpointConfig, HEADROOM_BYTES, ListenOptions,
    ProtocolNames, Received, Sent, SocketId,
};
use strowger_crypto::{IdentityKey, Nanos, NetworkId, OsEntropy, PeerId, Secret};
use strowger_frame::{ChunkClass, Frame, Mark, Pool, PoolSpec};
use strowger_routing::NoRouting;
use strowger_wire::{Label, Scheme, Slot, label::AnyLabel};

const NAME: &str = "/bench/1";
const SLOTS: [u32; 2] = [2, 3];

/// Frames that exist at once.
const BATCH: u64 = 64;

/// Two connected endpoints on the slots 2 and 3 of one switch, which passes packets unchanged.
struct Pair {
    ends: [Endpoint; 2],
    socket: Option<SocketId>,
    now: Nanos,
    pool: Pool,
}

fn key(end: usize) -> IdentityKey {
    IdentityKey::from_seed(&Secret::from_bytes([end as u8 + 1; 32]))
}

fn peer(end: usize) -> PeerId {
    key(end).public().peer_id()
}

impl Pair {
    fn connected() -> Pair {
        let (scheme, now) = (Scheme::default(), Nanos::from_secs(100));
        let ends = [0, 1].map(|end| {
            let network = NetworkId::new(b"bench").expect("short");
            let config = EndpointConfig::new(&key(end), network, scheme).longest_packet(1_500);
            let (routing, entropy) = (Box::new(NoRouting::default()), Box::new(OsEntropy));
            Endpoint::new(config, routing, Arc::new(Anyone), entropy, now).expect("an endpoint")
        });
        let spec = PoolSpec { trains: 0, singles: 256, huge_pages: false };
        let pool = Pool::new(&spec).expect("memory");
        let mut pair = Pair { ends, socket: None, now, pool };
        let names = || ProtocolNames::new([NAME]).expect("a name");
        pair.ends[1].listen(now, names(), ListenOptions::new()).expect("a listener");
        let director = scheme.encode_least(Slot::new(SLOTS[1])).expect("it fits");
        let label = AnyLabel::W64(Label::new(director.bits() | 1 << director.width()));
        let to = Destination::from(peer(1)).label(label);
        let socket = pair.ends[0].connect(now, to, names(), ConnectOptions::new());
        pair.socket = Some(socket.expect("a socket"));
        // Messages are sent until the length of the path is known.
        for _ in 0..20 {
            let frame = pair.frame(&[0; 64]);
            if let Ok(Sent::Packet(frame)) = pair.send(frame) {
                pair.arrive(0, frame);
            }
            pair.settle();
            pair.now = pair.now.plus(Nanos::from_secs(1));
        }
        pair
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        let chunk = self.pool.take(ChunkClass::Single).expect("a free frame");
        let mut frame = chunk.into_frame(HEADROOM_BYTES, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    fn send(&mut self, frame: Frame) -> Result<Sent, ()> {
        let socket = self.socket.expect("a socket");
        self.ends[0].send(self.now, socket, frame).map_err(|_| ())
    }

    /// A packet with a message of this length, as it arrives at the other end.
    fn sealed(&mut self, bytes: usize) -> Frame {
        let frame = self.frame(&vec![7; bytes]);
        let Ok(Sent::Packet(mut frame)) = self.send(frame) else { panic!("it is sent at once") };
        frame.set_mark(Mark(SLOTS[0]));
        frame
    }

    fn arrive(&mut self, from: usize, mut frame: Frame) -> Received {
        frame.set_mark(Mark(SLOTS[from]));
        self.ends[1 - from].receive(self.now, frame)
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            for end in 0..2 {
                self.ends[end].poll(self.now);
                while let Some(packet) = self.ends[end].poll_transmit(self.now) {
                    let chunk = self.pool.take(ChunkClass::Single).expect("a free frame");
                    let mut frame = chunk.into_frame(HEADROOM_BYTES, packet.len());
                    frame.bytes_mut().copy_from_slice(&packet);
                    let _ = self.arrive(end, frame);
                }
                while self.ends[end].poll_event().is_some() {}
            }
        }
    }
}

fn connection(c: &mut Criterion) {
    let pair = RefCell::new(Pair::connected());
    let batch = BatchSize::NumIterations(BATCH);
    let mut group = c.benchmark_group("connection");
    for bytes in [64, 1_400] {
        let message = vec![7; bytes];
        let frame = || pair.borrow_mut().frame(&message);
        group.bench_function(format!("send, {bytes} B"), |b| {
            b.iter_batched(frame, |frame| pair.borrow_mut().send(frame).is_ok(), batch);
        });
        let sealed = || pair.borrow_mut().sealed(bytes);
        group.bench_function(format!("receive, {bytes} B"), |b| {
            b.iter_batched(
                sealed,
                |frame| {
                    let received = pair.borrow_mut().arrive(0, frame);
                    assert!(matches!(received, Received::Message { .. }));
                    received
                },
                batch,
            );
        });
    }
    // Behind the switch header: kind and lane, then the index of three bytes.
    for (name, place) in [("refuse, forged", 60), ("refuse, unknown index", 17)] {
        let changed = || {
            let mut frame = pair.borrow_mut().sealed(64);
            frame.bytes_mut()[place] ^= 1;
            frame
        };
        group.bench_function(name, |b| {
            b.iter_batched(
                changed,
                |frame| {
                    let received = pair.borrow_mut().arrive(0, frame);
                    assert!(matches!(received, Received::Discarded(_)));
                    received
                },
                batch,
            );
        });
    }
    let mut pair = pair.into_inner();
    pair.settle();
    group.bench_function("poll, nothing due", |b| {
        b.iter(|| {
            let now = black_box(pair.now);
            pair.ends[0].poll(now);
            pair.ends[0].next_timeout()
        });
    });
    group.finish();
}

criterion_group!(benches, connection);
criterion_main!(benches);
