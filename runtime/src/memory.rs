//! Computes the memory of a worker as a sum of named needs, and formats it as text.

use std::{fmt, sync::Arc};

pub(crate) use strowger_engine::memory::EGRESS_WAITING;
use strowger_engine::memory::{SwitchNeed, SwitchShape};
use strowger_frame::{
    BURST_MAX, PoolSpec,
    map::Backing,
    pool::{HEADROOM_BYTES, PoolTally, SINGLE_STRIDE_BYTES, TRAIN_STRIDE_BYTES},
    reserve::Chunks,
};

use crate::{
    builder::RelayBuilder, ethernet, limits::LOCAL_PORT_CHUNKS_MAX, spec::UdpListener, udp,
};

/// The maximum number of sends that each socket of a listener keeps while they wait for the kernel
/// (`strowger_io::udp`).
pub(crate) const SENDS_WAITING: u32 = 4 * BURST_MAX as u32;
/// The number of chunks of a unix endpoint: 32 to receive into, and a burst of frames in flight.
const UNIX_CHUNKS: u32 = 32 + BURST_MAX as u32;
/// The number of train chunks of a unix endpoint with short packets, for clients that send trains: 4
/// to receive into, and as many in flight.
const UNIX_TRAIN_CHUNKS: u32 = 2 * UNIX_TRAINS_RECEIVED;
/// The number of train chunks that a unix port holds to receive into (`strowger_io::unix`).
const UNIX_TRAINS_RECEIVED: u32 = 4;
/// The number of chunks that a UDP socket receives into with `recvmmsg` (`strowger_io::udp`).
const RECEIVE_CHUNKS: u32 = BURST_MAX as u32;
/// The maximum length of a packet that fits into a single chunk, in bytes (`strowger_io::unix`).
const SINGLE_BYTES_MAX: usize = SINGLE_STRIDE_BYTES - HEADROOM_BYTES - 8 * 64;

/// The memory of all workers. Its size is fixed at start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The size of each worker's pool.
    pub spec: PoolSpec,
    /// The needs that make up each worker's pool.
    pub needs: Vec<Need>,
    /// The number of workers.
    pub workers: usize,
    /// The number of handshake sockets. Each of them has its own pool, which belongs to the slow
    /// path.
    pub handshake_sockets: usize,
    /// The mapped memory of all workers and handshake sockets, in bytes.
    pub bytes: usize,
    /// The kind of pages that back the workers' pools.
    pub backing: Backing,
    /// The counters of each worker's pool.
    pub tallies: Vec<Arc<PoolTally>>,
}

/// A number of chunks that each worker needs for one purpose.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Need {
    /// The purpose of the chunks.
    pub what: String,
    /// The number of train chunks.
    pub trains: u32,
    /// The number of single chunks.
    pub singles: u32,
}

/// The memory of a worker as a sum of named needs. Also returns the maximum number of chunks that
/// frames in egress queues may hold when the pool is nearly exhausted.
pub(crate) fn needs(config: &RelayBuilder, workers: usize) -> (PoolSpec, Vec<Need>, Chunks) {
    let mut needs = Vec::new();
    let mut need = |what: String, trains: u32, singles: u32| {
        if trains + singles > 0 {
            needs.push(Need { what, trains, singles });
        }
    };
    for UdpListener { name, posted_buffers, .. } in &config.udp {
        let posted = u32::from(*posted_buffers).next_power_of_two().max(RECEIVE_CHUNKS);
        need(format!("receive buffers of {name}"), posted, 0);
        need(format!("sends of {name} that wait for the kernel"), SENDS_WAITING, 0);
    }
    // All pools have the same size, so each worker gets what the worker with the most endpoints
    // needs.
    let on = |worker| config.unix.iter().filter(move |unix| unix.worker == worker);
    let of = |worker| {
        on(worker).fold((0, 0), |(long, short), unix| {
            let ports = unix.clients.unwrap_or(1) as u32;
            match unix.frame_bytes_max {
                ..=SINGLE_BYTES_MAX => (long, short + ports),
                _ => (long + ports, short),
            }
        })
    };
    let (long, short) = (0..workers).map(of).fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let trains = long * UNIX_CHUNKS + short * UNIX_TRAIN_CHUNKS;
    need("unix endpoints".to_owned(), trains, short * UNIX_CHUNKS);
    // A local port pins the chunks of frames that the program has not received yet. Its egress
    // queue pins chunks as well.
    let local_on = |worker| config.local.iter().filter(move |local| local.worker == worker);
    let pinned = |worker| -> usize {
        local_on(worker).map(|local| local.endpoint.depth_frames.min(LOCAL_PORT_CHUNKS_MAX)).sum()
    };
    let pinned = (0..workers).map(pinned).max().unwrap_or(0);
    need("frames that local ports have not taken".to_owned(), pinned as u32, 0);
    let local = (0..workers).map(|worker| local_on(worker).count()).max().unwrap_or(0) as u32;
    for custom in &config.custom {
        need(format!("frames that {} holds", custom.name), custom.trains, custom.singles);
    }
    let endpoints = Chunks { trains: long + local, singles: short };
    let shape = SwitchShape { workers, is_sealed: config.identity.is_some(), endpoints };
    for SwitchNeed { what, chunks: Chunks { trains, singles } } in shape.needs() {
        need(what.to_owned(), trains, singles);
    }
    needs.extend(ethernet::needs(config, workers));
    let trains = needs.iter().map(|need| need.trains).sum();
    let singles = needs.iter().map(|need| need.singles).sum();
    let spec = PoolSpec {
        trains: config.memory.trains.unwrap_or(trains),
        singles: config.memory.singles.unwrap_or(singles),
        huge_pages: config.memory.huge_pages,
    };
    (spec, needs, shape.egress_when_low())
}

/// Formats a number of bytes in MiB.
pub(crate) fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolSpec { trains, singles, huge_pages } = self.spec;
        writeln!(
            f,
            "memory: {} on {}, fixed at start: for each of {} worker{}",
            mib(self.bytes),
            self.backing,
            self.workers,
            if self.workers == 1 { "" } else { "s" }
        )?;
        for Need { what, trains, singles } in &self.needs {
            writeln!(f, "  {trains:>6} trains {singles:>6} singles  {what}")?;
        }
        let (train, single) = (TRAIN_STRIDE_BYTES >> 10, SINGLE_STRIDE_BYTES >> 10);
        writeln!(
            f,
            "  {trains:>6} trains {singles:>6} singles  in all, of {train} KiB and {single} KiB"
        )?;
        if self.handshake_sockets > 0 {
            let (singles, once) = (udp::HANDSHAKE_POOL.singles, "beside the workers, for each of");
            let listeners = if self.handshake_sockets == 1 { "listener's" } else { "listeners'" };
            writeln!(
                f,
                "  {:>6} trains {singles:>6} singles  {once} {} {listeners} handshakes",
                0, self.handshake_sockets
            )?;
        }
        let needed: u32 = self.needs.iter().map(|need| need.trains).sum();
        if trains < needed {
            writeln!(
                f,
                "  warning: [memory] trains = {trains} is below the {needed} that are needed under \
                 load; frames will be lost as pool_empty; leave the key out"
            )?;
        }
        if self.backing == Backing::HugePagesRefused {
            writeln!(
                f,
                "  warning: huge pages are reserved, but this process may not use them; raise the \
                 cgroup's hugetlb.2MB.max, or set [memory] huge_pages = false"
            )?;
        } else if huge_pages && self.backing != Backing::HugePages {
            let pages = self.bytes.div_ceil(2 << 20);
            writeln!(
                f,
                "  no huge pages are reserved; reserve them with: sysctl -w vm.nr_hugepages={pages}"
            )?;
        }
        Ok(())
    }
}
