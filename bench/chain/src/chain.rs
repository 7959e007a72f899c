//! Three switches in a row on one thread, connected by memory wires, to measure the cost of a step
//! without the kernel. Frames are prepared between rounds, outside of the timed part.

use std::{
    collections::VecDeque,
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use strowger_engine::{
    Now,
    control::{Attach, Switch, SwitchConfig},
    link::Behind,
    worker::Worker,
};
use strowger_frame::{
    Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, PortTally},
};
use strowger_io::{MemoryPort, memory};
use strowger_wire::Label;
use strowger_wire::Slot;

use crate::{Failure, packet};

/// The number of switches in a chain.
pub const SWITCHES: usize = 3;

/// Number of bursts that are used in turn. With this number a frame's header is in the L2 cache and
/// not in L1, as if the kernel had just written it.
const BURSTS: usize = 16;

/// The ingress slot and the egress slot at each switch.
const SLOTS: (u32, u32) = (2, 3);

/// Three switches, the port that sends to the first one, and the port that receives from the last
/// one.
pub struct Chain {
    switches: Vec<(Switch, Worker)>,
    near: MemoryPort,
    far: MemoryPort,
    /// The pool of the two ends.
    pool: Pool,
    label: Label,
    /// Bursts that are not in use, oldest first.
    waiting: VecDeque<Burst>,
    burst: usize,
    now: u64,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("burst", &self.burst).finish_non_exhaustive()
    }
}

impl Chain {
    /// Returns a chain for packets of `size` bytes, `burst` of them in a round.
    ///
    /// # Errors
    /// The operation that the kernel or the switch refused.
    pub fn new(size: usize, burst: usize) -> Result<Self, Failure> {
        let ends = (0..=SWITCHES).map(|_| memory::wire(4 * burst)).collect::<io::Result<Vec<_>>>();
        let (lefts, rights): (Vec<_>, Vec<_>) =
            ends.map_err(Failure::kernel("memory wire"))?.into_iter().unzip();
        let mut lefts = lefts.into_iter();
        let mut near = lefts.next().ok_or(Failure::Bug("there is a first wire"))?;
        let mut rights: VecDeque<_> = rights.into();
        let mut far = rights.pop_back().ok_or(Failure::Bug("there is a last wire"))?;
        let switches = rights.into_iter().zip(lefts);
        let switches =
            switches.map(|(left, right)| switch(left, right)).collect::<Result<_, _>>()?;
        near.admit(Mark(0), Address::Only)?;
        far.admit(Mark(0), Address::Only)?;

        let label = packet::label(SwitchConfig::default().scheme(), &[SLOTS; SWITCHES])?;
        let write = |bytes: &mut [u8]| packet::write(bytes, label, 0);
        let (pool, waiting) = bursts(burst, size, write)?;
        Ok(Self { switches, near, far, pool, label, waiting, burst, now: 1 })
    }

    /// Sends a burst through all switches, and returns the time of the polls.
    ///
    /// # Panics
    /// If a frame was lost. That would be a bug, because the wires have room for all frames of a
    /// round.
    pub fn round(&mut self) -> Duration {
        let mut burst = self.waiting.pop_front().expect("bursts wait between rounds");
        self.near.tx_burst(Mark(0), &mut burst);
        self.near.flush();
        self.now += 1_000;
        let started = Instant::now();
        poll(&mut self.switches, Now(self.now));
        let took = started.elapsed();
        self.far.rx_burst(&mut self.pool, &mut burst);
        assert_eq!(burst.len(), self.burst, "every frame came through");
        for frame in &mut burst {
            packet::write(frame.bytes_mut(), self.label, 0);
        }
        self.waiting.push_back(burst);
        took
    }

    /// Steps in one round: packets times switches.
    pub fn steps(&self) -> u64 {
        (self.burst * SWITCHES) as u64
    }

    /// The counters at the end of the last wire.
    pub fn tally(&self) -> &PortTally {
        self.far.tally()
    }
}

/// Returns `BURSTS` bursts of `burst` frames of `size` bytes, filled by `write`, and their pool.
///
/// # Errors
/// The kernel has no memory for the pool.
pub fn bursts(
    burst: usize,
    size: usize,
    write: impl Fn(&mut [u8]),
) -> Result<(Pool, VecDeque<Burst>), Failure> {
    let spec = PoolSpec { trains: 0, singles: (BURSTS * burst) as u32, huge_pages: false };
    let mut pool = Pool::new(&spec).map_err(Failure::kernel("memory"))?;
    let bursts = (0..BURSTS).map(|_| {
        let chunks = std::iter::from_fn(|| pool.take(ChunkClass::Single));
        let frames = chunks.take(burst).map(|chunk| {
            let start = chunk.start();
            let mut frame = chunk.into_frame(start, size);
            write(frame.bytes_mut());
            frame
        });
        frames.collect::<Burst>()
    });
    let bursts = bursts.collect();
    Ok((pool, bursts))
}

/// Polls each switch once, in the order of the path. This function must not be inlined, because the
/// instruction count selects it by name.
#[inline(never)]
pub fn poll(switches: &mut [(Switch, Worker)], now: Now) {
    for (_, worker) in switches {
        black_box(worker.poll(now));
    }
}

fn switch(left: MemoryPort, right: MemoryPort) -> Result<(Switch, Worker), Failure> {
    let none = PoolSpec { trains: 0, singles: 0, huge_pages: false };
    let pool = Pool::new(&none).map_err(Failure::kernel("memory"))?;
    let (mut switch, mut workers) = Switch::new(SwitchConfig::default(), vec![pool])?;
    let mut worker = workers.pop().ok_or(Failure::Bug("one pool, one worker"))?;
    for (port, slot) in [(left, SLOTS.0), (right, SLOTS.1)] {
        let port =
            switch.plug_at(0, Box::new(port)).map_err(|_| Failure::Bug("a port too many"))?;
        let name = format!("slot {slot}");
        let attach = Attach::plain(port, Address::Only, Behind::Neighbour, name);
        switch.attach(attach.with_slot(Slot::new(slot)))?;
    }
    while !switch.is_settled() {
        worker.poll(Now(1));
        switch.poll(Now(1));
    }
    Ok((switch, worker))
}

impl From<AdmitError> for Failure {
    fn from(why: AdmitError) -> Self {
        Self::Refused(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_a_round_passes_three_switches() {
        let mut chain = Chain::new(64, 64).expect("memory");
        for _ in 0..40 {
            chain.round();
        }
        assert_eq!(chain.tally().frames_in.read(), 40 * 64);
        for (switch, _) in &chain.switches {
            let balance = switch.balance();
            assert!(balance.is_even() && balance.discarded() == 0, "{balance:?}");
        }
    }
}
