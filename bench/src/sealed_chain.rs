//! Measures a switch between two sealed links without the kernel, and for comparison the cipher
//! alone, which opens and seals the same bytes. There are three switches connected by memory wires,
//! and only the middle one is timed. The first switch seals the packets that the middle one opens.
//! The last one opens the packets that the middle one sealed, and so checks them.

use std::{
    collections::VecDeque,
    hint::black_box,
    time::{Duration, Instant},
};

use strowger_crypto::{
    IdentityKey, LocalIdentity, NetworkId, Secret, SeededEntropy,
    aead::{Aead, AeadKey, Provider, Tag, nonce_of},
    limits::SEALED_HEAD_BYTES,
};
use strowger_engine::{
    Now,
    control::{
        Attach, Switch, SwitchConfig,
        peering::{PeerSpec, PeeringConfig},
    },
    link::Behind,
    worker::Worker,
};
use strowger_frame::{Address, BURST_MAX, Burst, Mark, Pool, PoolSpec, Port};
use strowger_io::{MemoryPort, memory};
use strowger_wire::Slot;
use strowger_wire::{Label, hello::SealWish, limits::TAG_BYTES, link_header::LINK_HEADER_BYTES};

use crate::{Failure, chain::bursts, packet};

/// The ingress slot and the egress slot at each switch.
const SLOTS: (u32, u32) = (2, 3);

/// The seal mode of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All bytes after the link header are sealed.
    Full,
    /// Only the first 64 bytes after the link header are sealed.
    HeaderOnly,
}

impl Mode {
    /// The name of this mode in a row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::HeaderOnly => "header_only",
        }
    }

    /// The seal mode that an end of a link requests.
    pub(crate) const fn wish(self) -> SealWish {
        match self {
            Self::Full => SealWish::Full,
            Self::HeaderOnly => SealWish::MustHeaderOnly,
        }
    }
}

/// The identity of a node of the benchmark, by its number.
pub(crate) fn local(number: u8) -> Result<LocalIdentity, Failure> {
    let key = IdentityKey::from_seed(&Secret::from_bytes([number; 32]));
    let network = NetworkId::new(b"bench").ok_or(Failure::Bug("a short name"))?;
    Ok(LocalIdentity::new(&key, network))
}

/// The peering configuration of a switch of the benchmark.
pub(crate) fn peering(number: u8) -> Result<PeeringConfig, Failure> {
    Ok(PeeringConfig::new(local(number)?, Box::new(SeededEntropy::new(u64::from(number))))
        .with_wall_at_zero(1))
}

/// A switch and its only worker.
struct Node {
    switch: Switch,
    worker: Worker,
}

impl Node {
    fn new(number: u8) -> Result<Self, Failure> {
        // This pool is for handshakes; packets have their own pool.
        let spec = PoolSpec { trains: 0, singles: 64, huge_pages: false };
        let pool = Pool::new(&spec).map_err(Failure::kernel("memory"))?;
        let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;
        let worker = workers.pop().ok_or(Failure::Bug("one pool, one worker"))?;
        switch.set_identity(peering(number)?, Now(1))?;
        Ok(Self { switch, worker })
    }

    fn plain(&mut self, port: MemoryPort, slot: u32) -> Result<(), Failure> {
        let port = self.switch.plug_at(0, Box::new(port));
        let port = port.map_err(|_| Failure::Bug("a port too many"))?;
        let attach = Attach::plain(port, Address::Only, Behind::Neighbour, "plain");
        self.switch.attach(attach.with_slot(Slot::new(slot)))?;
        Ok(())
    }

    fn sealed(&mut self, port: MemoryPort, slot: u32, peer: u8, mode: Mode) -> Result<(), Failure> {
        let port = self.switch.plug_at(0, Box::new(port));
        let port = port.map_err(|_| Failure::Bug("a port too many"))?;
        let mut spec = PeerSpec::new("peer", *local(peer)?.static_public(), port);
        spec = spec.with_address(Address::Only);
        spec = spec.with_slot(Slot::new(slot));
        spec = spec.with_seal(mode.wish());
        self.switch.add_peer(spec, Now(1))?;
        Ok(())
    }

    fn is_up(&self) -> bool {
        self.switch.is_settled() && self.switch.peers().iter().all(|peer| peer.is_up())
    }
}

/// Three switches, sealed links between them, and plain ends.
pub struct SealedChain {
    nodes: [Node; 3],
    near: MemoryPort,
    far: MemoryPort,
    pool: Pool,
    label: Label,
    waiting: VecDeque<Burst>,
    now: Now,
}

impl std::fmt::Debug for SealedChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedChain").field("now", &self.now).finish_non_exhaustive()
    }
}

impl SealedChain {
    /// The number of packets in a round.
    pub const BURST: usize = BURST_MAX;

    /// The length of the shortest packet on a sealed link whose flow the benchmark can identify.
    pub const BYTES_MIN: usize = packet::PACKET_BYTES_MIN + TAG_BYTES;

    /// Returns a chain for packets that have `size` bytes on the sealed links.
    ///
    /// # Errors
    /// The operation that the kernel or a switch refused, or the fact that a link did not come up.
    pub fn new(size: usize, mode: Mode) -> Result<Self, Failure> {
        let wire = || memory::wire(4 * Self::BURST).map_err(Failure::kernel("memory wire"));
        let [
            (mut near, first_in),
            (first_out, middle_in),
            (middle_out, last_in),
            (last_out, mut far),
        ] = [wire()?, wire()?, wire()?, wire()?];
        let [mut first, mut middle, mut last] = [Node::new(1)?, Node::new(2)?, Node::new(3)?];
        first.plain(first_in, SLOTS.0)?;
        first.sealed(first_out, SLOTS.1, 2, mode)?;
        middle.sealed(middle_in, SLOTS.0, 1, mode)?;
        middle.sealed(middle_out, SLOTS.1, 3, mode)?;
        last.sealed(last_in, SLOTS.0, 2, mode)?;
        last.plain(last_out, SLOTS.1)?;
        near.admit(Mark(0), Address::Only)?;
        far.admit(Mark(0), Address::Only)?;

        let label = packet::label(SwitchConfig::default().scheme(), &[SLOTS; 3])?;
        let (pool, waiting) =
            bursts(Self::BURST, size - TAG_BYTES, |bytes| packet::write(bytes, label, 0))?;
        let nodes = [first, middle, last];
        let mut chain = Self { nodes, near, far, pool, label, waiting, now: Now(1) };
        chain.come_up()?;
        Ok(chain)
    }

    fn come_up(&mut self) -> Result<(), Failure> {
        for _ in 0..100 {
            self.now.0 += 50_000_000;
            for _ in 0..8 {
                for Node { switch, worker } in &mut self.nodes {
                    worker.poll(self.now);
                    switch.poll(self.now);
                }
            }
            if self.nodes.iter().all(Node::is_up) {
                return Ok(());
            }
        }
        Err(Failure::Wrong("no sealed link came up over memory wires".to_owned()))
    }

    /// Sends a burst through all switches, and returns the time of the middle one's poll.
    ///
    /// # Errors
    /// [`Failure::Wrong`] if a frame was lost.
    pub fn round(&mut self) -> Result<Duration, Failure> {
        let mut burst = self.waiting.pop_front().ok_or(Failure::Bug("bursts wait"))?;
        self.near.tx_burst(Mark(0), &mut burst);
        self.near.flush();
        // The clock advances by less than a real round, so that keys do not expire.
        self.now.0 += 100;
        let [first, middle, last] = &mut self.nodes;
        first.worker.poll(self.now);
        let took = poll_sealed(&mut middle.worker, self.now);
        last.worker.poll(self.now);
        self.far.rx_burst(&mut self.pool, &mut burst);
        if burst.len() != Self::BURST {
            let middle = middle.switch.balance();
            return Err(Failure::Wrong(format!("{} frames arrived: {middle:?}", burst.len())));
        }
        for frame in &mut burst {
            packet::write(frame.bytes_mut(), self.label, 0);
        }
        self.waiting.push_back(burst);
        Ok(took)
    }
}

/// This function is not inlined, so that its name is visible in profiles.
#[inline(never)]
fn poll_sealed(worker: &mut Worker, now: Now) -> Duration {
    let started = Instant::now();
    black_box(worker.poll(now));
    started.elapsed()
}

/// The cipher alone: opens and seals the same bytes as a switch, in memory of the same kind,
/// without header processing, replay window, tallies or ports.
pub struct AeadOnly {
    rx_key: AeadKey,
    tx_key: AeadKey,
    mode: Mode,
    counter: u64,
    waiting: VecDeque<Burst>,
    /// Keeps the memory of the bursts mapped.
    _pool: Pool,
}

impl std::fmt::Debug for AeadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AeadOnly").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl AeadOnly {
    /// Returns the cipher of `provider`, for packets that have `size` bytes when sealed.
    ///
    /// # Errors
    /// The operation that the kernel refused.
    pub fn new(size: usize, mode: Mode, provider: Provider) -> Result<Self, Failure> {
        let key = |byte| provider.key(&Secret::from_bytes([byte; 32]));
        let (pool, waiting) = bursts(SealedChain::BURST, size, |bytes| bytes.fill(5))?;
        Ok(Self { rx_key: key(1), tx_key: key(2), mode, counter: 0, waiting, _pool: pool })
    }

    /// Runs one round; returns the time of opening and sealing.
    ///
    /// # Panics
    /// If the cipher does not open its own sealed packet.
    pub fn round(&mut self) -> Duration {
        let mut burst = self.waiting.pop_front().expect("bursts wait");
        let first = self.counter;
        for (counter, frame) in (first..).zip(&mut burst) {
            seal(&self.rx_key, self.mode, counter, frame.bytes_mut());
        }
        let started = Instant::now();
        for (counter, frame) in (first..).zip(&mut burst) {
            open(&self.rx_key, self.mode, counter, frame.bytes_mut());
            seal(&self.tx_key, self.mode, counter, frame.bytes_mut());
        }
        let took = started.elapsed();
        self.counter += burst.len() as u64;
        self.waiting.push_back(burst);
        took
    }
}

/// Splits a packet into link header, sealed part and tag.
fn parts(mode: Mode, packet: &mut [u8]) -> ([u8; LINK_HEADER_BYTES], &mut [u8], &mut Tag) {
    let (header, rest) = packet.split_first_chunk_mut().expect("a link header");
    let (body, tag) = rest.split_last_chunk_mut().expect("a tag");
    let sealed = match mode {
        Mode::Full => body.len(),
        Mode::HeaderOnly => body.len().min(SEALED_HEAD_BYTES),
    };
    (*header, &mut body[..sealed], tag)
}

fn seal(key: &AeadKey, mode: Mode, counter: u64, packet: &mut [u8]) {
    let (header, body, tag) = parts(mode, packet);
    *tag = key.seal(&nonce_of(counter), &header, body);
}

fn open(key: &AeadKey, mode: Mode, counter: u64, packet: &mut [u8]) {
    let (header, body, tag) = parts(mode, packet);
    key.open(&nonce_of(counter), &header, body, tag).expect("what was sealed under this key");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_passes_two_sealed_links() {
        for mode in [Mode::Full, Mode::HeaderOnly] {
            let mut chain = SealedChain::new(128, mode).expect("links");
            for _ in 0..40 {
                chain.round().expect("every frame comes through");
            }
            for Node { switch, .. } in &chain.nodes {
                assert!(switch.balance().is_even(), "{:?}", switch.balance());
            }
        }
    }

    #[test]
    fn the_cipher_opens_what_it_sealed() {
        for mode in [Mode::Full, Mode::HeaderOnly] {
            let mut aead = AeadOnly::new(1400, mode, Provider::DEFAULT).expect("memory");
            for _ in 0..40 {
                aead.round();
            }
        }
    }
}
