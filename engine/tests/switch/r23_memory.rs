//! R23 for the frame pool: any number of egresses may be stuck, and each frame that waits there
//! holds a chunk of 68 KiB. The packets between two other neighbours are still forwarded. Each
//! assertion is about counts, not times.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use strowger_engine::{
    Now,
    control::{Attach, Switch, SwitchConfig},
    discard::Discard,
    limits::FRAME_BYTES_MIN,
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Mark, Pool, PoolSpec, Port, Wake,
    port::{AdmitError, Arm, PortTally},
    reserve::{Chunks, PoolUser},
};
use strowger_wire::{
    Hop, Label, Slot, link_header::LINK_HEADER_BYTES, scheme::V3X5X8, switch_header::HeaderRepr,
};

/// The time from one poll to the next, in nanoseconds.
const POLL_NS: u64 = 100_000;
/// The pool of one worker with one UDP listener (`strowger` computes it from its configuration).
const MEMORY: PoolSpec = PoolSpec { trains: 932, singles: 384, huge_pages: false };
const SETTLED: Chunks = Chunks { trains: 64, singles: 256 };
/// The chunks that are reserved for the socket to receive into.
const RECEIVED_AT_ONCE: Chunks = Chunks { trains: 64, singles: 0 };
/// The number of datagrams that the kernel queues for a socket that is not read.
const KERNEL_QUEUE: usize = 512;

const A: u32 = 2;
const B: u32 = 3;
const HOSTILE: u32 = 4;
const FIRST_STUCK: u32 = 10;

fn address(slot: u32) -> Address {
    Address::Udp(SocketAddr::from(([192, 0, 2, 1], slot as u16)))
}

/// A model of the kernel and the network behind one socket.
#[derive(Default)]
struct Kernel {
    incoming: VecDeque<(Address, Vec<u8>)>,
    /// The number of datagrams dropped because the receive queue was full, by source slot.
    overflows: BTreeMap<u32, u64>,
    /// The number of receive calls that found no free chunk.
    refused: u64,
    /// For each slot, the number of frames for which its send queue has room.
    room: BTreeMap<u32, usize>,
    /// For each slot, the number of frames sent.
    left: BTreeMap<u32, u64>,
}

/// A UDP socket with one send queue per neighbour. Each received datagram occupies a train chunk.
#[derive(Clone)]
struct Socket {
    kernel: Arc<Mutex<Kernel>>,
    neighbours: Vec<(Mark, u32)>,
    tally: Arc<PortTally>,
}

impl Socket {
    fn new() -> Self {
        Self { kernel: Arc::default(), neighbours: Vec::new(), tally: Arc::default() }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().expect("one thread")
    }

    fn slot_of(&self, mark: Mark) -> Option<u32> {
        self.neighbours.iter().find(|(of, _)| *of == mark).map(|(_, slot)| *slot)
    }

    /// Queues `n` packets from the neighbour on slot `from` for slot `to`.
    fn arrive(&self, n: usize, from: u32, to: u32) {
        let hop = Hop { scheme: &V3X5X8, egress: Slot::new(to), ingress: Slot::new(from) };
        let label = Label::<u64>::build(&[hop]).expect("one hop").0;
        let mut bytes = vec![7; FRAME_BYTES_MIN + 60];
        bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(0));
        let mut header = HeaderRepr::new(label, 0, 64);
        header.flags.no_errors = true;
        header.emit(&mut bytes[LINK_HEADER_BYTES..]).expect("there is room");
        let mut kernel = self.kernel();
        for _ in 0..n {
            if kernel.incoming.len() < KERNEL_QUEUE {
                kernel.incoming.push_back((address(from), bytes.clone()));
            } else {
                *kernel.overflows.entry(from).or_default() += 1;
            }
        }
    }

    fn make_room(&self, slot: u32, frames: usize) {
        self.kernel().room.insert(slot, frames);
    }

    fn left(&self, slot: u32) -> u64 {
        self.kernel().left.get(&slot).copied().unwrap_or_default()
    }
}

impl Port for Socket {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let mut kernel = self.kernel.lock().expect("one thread");
        while !burst.is_full() && !kernel.incoming.is_empty() {
            let Some(chunk) = pool.take(ChunkClass::Train) else {
                kernel.refused += 1;
                return;
            };
            let Some((from, bytes)) = kernel.incoming.pop_front() else { return };
            let start = chunk.start();
            let mut frame = chunk.into_frame(start, bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            let mark = self.neighbours.iter().find(|(_, slot)| address(*slot) == from);
            frame.set_mark(mark.expect("a neighbour").0);
            self.tally.frames_in.add(1);
            burst.push(frame);
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        let slot = self.slot_of(to).expect("a neighbour");
        let mut kernel = self.kernel();
        let room = kernel.room.entry(slot).or_default();
        let sent = frames.len().min(*room);
        *room -= sent;
        *kernel.left.entry(slot).or_default() += sent as u64;
        drop(kernel);
        self.tally.frames_out.add(sent as u64);
        frames.drain(..sent);
    }

    fn flush(&mut self) {}

    fn is_blocked(&self, to: Mark) -> bool {
        let slot = self.slot_of(to).expect("a neighbour");
        self.kernel().room.get(&slot).copied().unwrap_or_default() == 0
    }

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        let Address::Udp(at) = at else { return Err(AdmitError::WrongKind) };
        self.neighbours.push((mark, u32::from(at.port())));
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        self.neighbours.retain(|(of, _)| *of != mark);
    }

    fn send_to(&mut self, _to: Address, _frame: Frame) {
        unreachable!("no handshakes here");
    }

    fn arm(&mut self) -> Arm {
        if self.kernel().incoming.is_empty() { Arm::Poll } else { Arm::Ready }
    }

    fn frame_bytes_max(&self) -> usize {
        9_216
    }

    fn receive_chunks(&self) -> Chunks {
        RECEIVED_AT_ONCE
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        "a socket"
    }
}

/// Whether a sleeping worker was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A relay with one listener. A, B and a hostile neighbour are reached through one socket. Other
/// neighbours, whose send queues have no room, are reached through this socket or through another
/// worker's socket.
struct Relay {
    switch: Switch,
    workers: Vec<Worker>,
    asleep: Vec<bool>,
    woken: Vec<Arc<Woken>>,
    sockets: Vec<Socket>,
    stuck: u32,
    now: Now,
}

impl Relay {
    /// Makes a relay with `stuck` egresses, all of which belong to the last worker.
    fn new(workers: usize, stuck: u32) -> Self {
        let mut pools = Pool::group(&MEMORY, workers).expect("memory");
        for pool in &mut pools {
            assert_eq!(pool.reserve(PoolUser::WAITING, SETTLED), SETTLED);
        }
        let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), pools).expect("sane");
        let woken: Vec<Arc<Woken>> = workers.iter().map(|_| Arc::default()).collect();
        for (number, waker) in woken.iter().enumerate() {
            switch.set_waker(number, waker.clone());
            for worker in &mut workers {
                worker.set_waker(number, waker.clone());
            }
        }
        let sockets: Vec<Socket> = workers.iter().map(|_| Socket::new()).collect();
        let ports: Vec<_> = sockets
            .iter()
            .enumerate()
            .map(|(at, socket)| switch.plug_at(at, Box::new(socket.clone())).expect("a place"))
            .collect();
        let asleep = vec![false; workers.len()];
        let mut relay = Self { switch, workers, asleep, woken, sockets, stuck, now: Now(1) };
        let (first, last) = (ports[0], ports[ports.len() - 1]);
        let innocent = [(A, first), (B, first), (HOSTILE, first)];
        let stuck = (FIRST_STUCK..FIRST_STUCK + stuck).map(|slot| (slot, last));
        for (slot, port) in innocent.into_iter().chain(stuck) {
            let behind = Behind::Neighbour;
            let attach = Attach::plain(port, address(slot), behind, format!("{slot}"));
            assert_eq!(relay.switch.attach(attach.with_slot(Slot::new(slot))), Ok(Slot::new(slot)));
        }
        for _ in 0..10_000 {
            relay.poll();
            relay.switch.poll(relay.now);
            if relay.switch.is_settled() {
                return relay;
            }
        }
        panic!("the relay does not settle");
    }

    /// Polls each worker that is awake, once.
    fn poll(&mut self) {
        self.now.0 += POLL_NS;
        (0..self.workers.len()).for_each(|at| self.poll_worker(at));
    }

    /// Polls a worker once, unless it sleeps. A worker sleeps whenever it may, until its socket has
    /// received frames or another worker wakes it.
    fn poll_worker(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        let is_called = self.woken[at].0.swap(false, Ordering::Relaxed);
        let has_arrivals = !self.sockets[at].kernel().incoming.is_empty();
        if !self.asleep[at] || is_called || has_arrivals {
            let switched = worker.poll(self.now);
            self.asleep[at] = switched == 0 && worker.arm(|_| ());
            worker.disarm(|_| false);
        }
    }

    /// Sends `n` packets from the hostile neighbour to the stuck egresses in turn.
    fn flood(&self, n: usize, poll: u32) {
        for nth in 0..n as u32 {
            let slot = FIRST_STUCK + (poll * n as u32 + nth) % self.stuck;
            self.sockets[0].arrive(1, HOSTILE, slot);
        }
    }

    fn count(&self, discard: Discard) -> u64 {
        self.switch.balance().discards[discard as usize]
    }

    fn copied(&mut self) -> u64 {
        let workers = self.workers.iter_mut();
        workers.map(|worker| worker.pool_mut().tally().frames_copied.read()).sum()
    }

    fn waiting(&self) -> usize {
        self.workers.iter().map(Worker::frames_waiting).sum()
    }

    #[track_caller]
    fn assert_kept(&self, sent: u64) {
        let left = self.sockets[0].left(B);
        let kernel = self.sockets[0].kernel();
        let (refused, lost) = (kernel.refused, kernel.overflows.get(&A).copied());
        let waiting = self.waiting();
        assert!(
            left * 100 >= sent * 99,
            "{left} of {sent}; {refused} receives without memory, {lost:?} lost before the relay, \
             {waiting} frames wait"
        );
    }
}

#[test]
fn r23_two_hundred_stuck_egresses_cost_another_pair_nothing() {
    for workers in [1, 2] {
        for per_poll in [20, 200] {
            let mut relay = Relay::new(workers, 200);
            let polls = 2_000;
            for poll in 0..polls {
                relay.flood(per_poll, poll);
                relay.sockets[0].arrive(4, A, B);
                relay.sockets[0].make_room(B, 64);
                relay.poll();
            }
            relay.assert_kept(4 * u64::from(polls));
            assert!(relay.count(Discard::EgressFull) > 10_000, "the egresses are full");
            assert!(relay.copied() > 100, "memory ran low");
        }
    }
}

#[test]
fn r23_an_egress_that_drains_keeps_its_queue_beside_two_hundred_stuck_ones() {
    for per_poll in [20, 200] {
        let mut relay = Relay::new(1, 200);
        let polls = 3_000_u32;
        for poll in 0..polls {
            relay.flood(per_poll, poll);
            // Packets to B arrive in bursts. The send queue to B takes a burst in half of the time
            // before the next burst.
            if poll % 16 == 0 {
                relay.sockets[0].arrive(48, A, B);
            }
            relay.sockets[0].make_room(B, 6);
            relay.poll();
        }
        relay.assert_kept(48 * u64::from(polls.div_ceil(16)));
        assert!(relay.copied() > 100, "memory ran low");
    }
}

#[test]
fn r23_a_worker_that_sleeps_is_woken_for_the_memory_that_its_exits_hold() {
    // The socket of one worker is flooded with frames for stuck egresses of another worker, which
    // sleeps whenever it may.
    let mut relay = Relay::new(2, 200);
    let free = |relay: &mut Relay| relay.workers[0].pool_mut().free(ChunkClass::Train);
    let before = free(&mut relay);
    let mut poll = 0;
    while free(&mut relay) > 200 {
        relay.flood(32, poll);
        poll += 1;
        relay.poll();
        (0..3).for_each(|_| relay.poll_worker(1));
    }
    assert_eq!(relay.copied(), 0, "memory has not run low");
    // These frames use up the remaining chunks, except the reserved ones. The first worker detects
    // this in its next poll, while the other one sleeps.
    let rest = free(&mut relay) - SETTLED.trains as usize;
    relay.flood(rest, poll);
    relay.poll();
    (0..3).for_each(|_| relay.poll_worker(1));
    assert!(relay.asleep[1]);
    for _ in 0..3 {
        relay.sockets[0].arrive(4, A, B);
        relay.sockets[0].make_room(B, 64);
        relay.poll();
    }
    (0..3).for_each(|_| relay.poll());
    assert!(relay.copied() > 100, "it was woken");
    assert!(free(&mut relay) > before / 2);
    relay.assert_kept(12);
}
