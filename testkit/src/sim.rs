//! Switches on a simulated network, in virtual time.
//!
//! [`SimNet`] carries datagrams between addresses. It can log, lose and delay them, and disconnect
//! an address. [`Node`] is a switch with its workers, and [`Pair`] is two nodes with a sealed link.
//! The test polls the nodes and advances the time. Nothing reads a clock.

mod node;
mod pair;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

pub use node::{Fuse, Node, NodeSpec, identity, key};
pub use pair::{Pair, hop, packet, path, receive, send};
use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Loss, Mark, Pool, Port,
    port::{AdmitError, Arm, PortTally},
};

use crate::Rng;

/// The number of nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// The number of nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// Maximum number of datagrams that wait at one port. Further ones are lost.
const QUEUE_DATAGRAMS_MAX: usize = 8_192;

/// The number of bytes before the payload of a frame at an endpoint: link header and 64-bit switch
/// header.
pub const HEADERS_BYTES: usize = 24;

/// The address of the node with the seed `number`.
pub fn host(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 7_000))
}

/// A datagram on the network.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The sender's address, as the receiver sees it.
    pub from: SocketAddr,
    /// The receiver's address, as the sender sees it.
    pub to: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// The queues by address and worker.
    queues: HashMap<(SocketAddr, usize), VecDeque<Datagram>>,
    /// For each receiver and sender: the worker whose socket the kernel would choose. The default
    /// is worker 0.
    steer: HashMap<(SocketAddr, SocketAddr), usize>,
    /// The sockets behind a NAT: the outer address for each inner address.
    moved: HashMap<SocketAddr, SocketAddr>,
    cut: BTreeSet<SocketAddr>,
    /// The time that a datagram is in flight.
    delay_ns: u64,
    now_ns: u64,
    /// Datagrams in flight, with their time of arrival.
    in_flight: VecDeque<(u64, Datagram)>,
    /// Maximum length of a datagram; `None` if there is no limit. Longer ones are lost.
    bytes_max: Option<usize>,
    loss_per_million: usize,
    /// Whether `loss_per_million` applies to handshake datagrams only.
    loses_handshakes: bool,
    rng: Option<Rng>,
    log: Vec<Datagram>,
    logging: bool,
}

/// A network of addresses. All clones refer to the same network.
#[derive(Clone, Debug, Default)]
pub struct SimNet(Arc<Mutex<State>>);

impl SimNet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the lock")
    }

    /// From now on, keeps a copy of each datagram that a node sends, also of lost ones. Datagrams
    /// from or to a disconnected address are not copied.
    pub fn start_log(&self) {
        self.state().logging = true;
    }

    /// Removes and returns the copies.
    pub fn take_log(&self) -> Vec<Datagram> {
        std::mem::take(&mut self.state().log)
    }

    /// Loses this many datagrams per million on average. The seed determines which.
    pub fn set_loss(&self, per_million: usize, seed: u64) {
        let mut state = self.state();
        state.loss_per_million = per_million;
        state.loses_handshakes = false;
        state.rng = Some(Rng::new(seed));
    }

    /// Loses this many handshake datagrams per million on average, and no other datagram.
    pub fn set_handshake_loss(&self, per_million: usize, seed: u64) {
        self.set_loss(per_million, seed);
        self.state().loses_handshakes = true;
    }

    /// From now on, loses datagrams that are longer than this.
    pub fn set_mtu(&self, bytes_max: usize) {
        self.state().bytes_max = Some(bytes_max);
    }

    /// Delays each datagram that a node sends, until [`deliver_until`](Self::deliver_until)
    /// delivers it.
    pub fn set_delay(&self, ns: u64) {
        self.state().delay_ns = ns;
    }

    /// Sets the network's time, and delivers the delayed datagrams that are due. The delay of later
    /// datagrams starts at this time.
    pub fn deliver_until(&self, now_ns: u64) {
        let mut state = self.state();
        state.now_ns = now_ns;
        while state.in_flight.front().is_some_and(|(at, _)| *at <= now_ns) {
            let (_, datagram) = state.in_flight.pop_front().expect("the queue is not empty");
            state.deliver(datagram);
        }
    }

    /// Disconnects an address, so that all datagrams to and from it are lost, or connects it again.
    pub fn cut(&self, at: SocketAddr, cut: bool) {
        let mut state = self.state();
        if cut {
            state.cut.insert(at)
        } else {
            state.cut.remove(&at)
        };
    }

    /// Puts a socket behind a NAT: other nodes see and reach it only at the address `outer`.
    pub fn move_socket(&self, inner: SocketAddr, outer: SocketAddr) {
        self.state().moved.insert(inner, outer);
    }

    /// Delivers datagrams from `from` to `to` to this worker's port.
    pub fn steer(&self, to: SocketAddr, from: SocketAddr, worker: usize) {
        self.state().steer.insert((to, from), worker);
    }

    /// Delivers a datagram with an arbitrary source address, without loss, delay or log.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.state().deliver(Datagram { from, to, bytes: bytes.to_vec() });
    }

    /// Removes and returns the datagrams that wait for worker 0 at this address.
    pub fn take_received(&self, at: SocketAddr) -> Vec<Datagram> {
        self.state().queues.get_mut(&(at, 0)).map(|q| q.drain(..).collect()).unwrap_or_default()
    }

    /// Opens a worker's port at this address.
    pub fn port(&self, local: SocketAddr, worker: usize) -> SimPort {
        self.state().queues.insert((local, worker), VecDeque::new());
        SimPort {
            net: self.clone(),
            local,
            worker,
            marks: HashMap::new(),
            unknown_peers: Vec::new(),
            accepts_unknown: false,
            tally: Arc::default(),
        }
    }
}

impl State {
    fn deliver(&mut self, datagram: Datagram) {
        let Datagram { from, to, bytes } = datagram;
        let inner = self.moved.iter().find(|(_, outer)| **outer == to).map(|(inner, _)| *inner);
        if inner.is_none() && self.moved.contains_key(&to) {
            return;
        }
        let at = inner.unwrap_or(to);
        let worker = self.steer.get(&(at, from)).copied().unwrap_or(0);
        let queue = self.queues.entry((at, worker)).or_default();
        if queue.len() < QUEUE_DATAGRAMS_MAX {
            queue.push_back(Datagram { from, to, bytes });
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if self.cut.contains(&from) || self.cut.contains(&to) {
            return;
        }
        let from = self.moved.get(&from).copied().unwrap_or(from);
        let datagram = Datagram { from, to, bytes: bytes.to_vec() };
        if self.logging {
            self.log.push(datagram.clone());
        }
        if self.bytes_max.is_some_and(|most| bytes.len() > most) {
            return;
        }
        let loss = self.loss_per_million;
        if self.loses_handshakes && bytes[0] >> 4 > 3 {
            return self.deliver(datagram);
        }
        if self.rng.as_mut().is_some_and(|rng| rng.below(1_000_000) < loss) {
            return;
        }
        if self.delay_ns > 0 {
            return self.in_flight.push_back((self.now_ns + self.delay_ns, datagram));
        }
        self.deliver(datagram);
    }
}

/// One worker's socket on the network.
#[derive(Debug)]
pub struct SimPort {
    net: SimNet,
    local: SocketAddr,
    worker: usize,
    marks: HashMap<Mark, SocketAddr>,
    unknown_peers: Vec<SocketAddr>,
    accepts_unknown: bool,
    tally: Arc<PortTally>,
}

impl Port for SimPort {
    fn rx_burst(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.unknown_peers.clear();
        while !burst.is_full() {
            let queue = (self.local, self.worker);
            let next = self.net.state().queues.get_mut(&queue).and_then(VecDeque::pop_front);
            let Some(Datagram { from, bytes, .. }) = next else { return };
            self.tally.frames_in.add(1);
            let mark = self.marks.iter().find(|(_, at)| **at == from).map(|(mark, _)| *mark);
            let mark = match mark {
                Some(mark) => mark,
                None if !self.accepts_unknown => {
                    self.tally.count_loss(Loss::UnknownSender, 1);
                    continue;
                }
                None => {
                    self.unknown_peers.push(from);
                    Mark::unknown((self.unknown_peers.len() - 1) as u8)
                }
            };
            let class = if bytes.len() <= 2_048 { ChunkClass::Single } else { ChunkClass::Train };
            let Some(chunk) = pool.take(class) else {
                self.tally.count_loss(Loss::PoolEmpty, 1);
                continue;
            };
            let mut frame = chunk.into_frame(256, bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            frame.set_mark(mark);
            burst.push(frame);
        }
    }

    fn tx_burst(&mut self, to: Mark, frames: &mut Burst) {
        let Some(&at) = self.marks.get(&to) else {
            self.tally.count_loss(Loss::NoNeighbour, frames.len() as u64);
            return frames.clear();
        };
        for frame in frames.drain(..) {
            self.tally.frames_out.add(1);
            self.net.state().send(self.local, at, frame.bytes());
        }
    }

    fn flush(&mut self) {}

    fn admit(&mut self, mark: Mark, at: Address) -> Result<(), AdmitError> {
        let Address::Udp(at) = at else { return Err(AdmitError::WrongKind) };
        if self.marks.iter().any(|(other, taken)| *other != mark && *taken == at) {
            return Err(AdmitError::Taken);
        }
        self.marks.insert(mark, at);
        Ok(())
    }

    fn forget(&mut self, mark: Mark) {
        self.marks.remove(&mark);
    }

    fn accept_unknown(&mut self, accept: bool) {
        self.accepts_unknown = accept;
    }

    fn address_of(&self, mark: Mark) -> Option<Address> {
        let unknown = mark.is_unknown().then(|| self.unknown_peers.get(mark.index() & 0xff));
        unknown.flatten().or_else(|| self.marks.get(&mark)).map(|at| Address::Udp(*at))
    }

    fn send_to(&mut self, to: Address, frame: Frame) {
        let Address::Udp(to) = to else { return self.tally.count_loss(Loss::NoNeighbour, 1) };
        self.tally.frames_out.add(1);
        self.net.state().send(self.local, to, frame.bytes());
    }

    fn arm(&mut self) -> Arm {
        Arm::Poll
    }

    fn frame_bytes_max(&self) -> usize {
        9_216
    }

    fn tally(&self) -> &Arc<PortTally> {
        &self.tally
    }

    fn describe(&self) -> &str {
        "simulated network"
    }
}
