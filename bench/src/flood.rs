//! Measures the data rate of a sealed relay while initiations of unknown peers arrive as fast as
//! this machine can send them, compared with the rate without a flood (R9). The initiations are
//! steered to the relay's handshake socket, or they are not steered and the worker punts them.
//!
//! A core that sends at full rate also reduces the cache, memory bandwidth and clock rate of other
//! cores, whatever the destination. So there are two runs for comparison: without a flood
//! (`no_flood`), and with a flood to a socket that is not the relay's (`elsewhere`). The ratio to
//! the latter shows the cost in the relay itself.

use std::{
    io::IoSlice,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use strowger_engine::Now;
use strowger_frame::tally::Counter;

use crate::{
    Bench, Failure, Options, Row,
    handshakes::initiation_bytes,
    machine::{Cores, pin_this_thread},
    sealed_chain::{Mode, local},
    sealed_relay::{COMING_UP, RELAY, SealedRelay, forward},
    sealed_udp::{Ends, Forwarder, SealedTrial},
    sockets::{address, socket},
    spread::Spread,
    trial::{Outcome, WARM_UP, join},
};

/// The number of unknown peers, each with its own address.
const UNKNOWN_PEERS: u8 = 64;

/// Shortest interval between two polls of the slow path, as in a relay.
const SLOW_PATH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Measures at each size, with and without steering.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let us = local(RELAY)?;
    let initiations = (0..UNKNOWN_PEERS)
        .map(|number| initiation_bytes(&local(100 + number)?, &us, 1))
        .collect::<Result<Vec<_>, Failure>>()?;
    for &size in &options.sizes {
        for steered in [true, false] {
            let mut pairs: [Vec<(Outcome, Outcome)>; 2] = Default::default();
            let mut offered = Vec::new();
            let mut was_steered = false;
            for pair in 0..options.pairs {
                // The order rotates from pair to pair, so that no run is always the first or the
                // last.
                let mut runs = [None, None, None];
                for turn in 0..runs.len() {
                    let flood = FLOODS[(pair + turn) % FLOODS.len()];
                    runs[flood as usize] = Some(run(options, size, steered, flood, &initiations)?);
                }
                let [Some(flooded), Some(calm), Some(elsewhere)] = runs else {
                    return Err(Failure::Bug("every flood was run"));
                };
                was_steered = flooded.is_steered;
                offered.push(flooded.handshakes_per_s);
                pairs[0].push((flooded.outcome.clone(), calm.outcome));
                pairs[1].push((flooded.outcome, elsewhere.outcome));
            }
            for (pairs, peer) in pairs.iter().zip(["no_flood", "elsewhere"]) {
                let mut row = Row::new(Bench::Flood, size, true, pairs.len());
                row.ours = if was_steered { "steered" } else { "punted" };
                row.seal = Some(Mode::Full.name());
                row.peer = Some(peer);
                row.compare(pairs);
                let all = pairs.iter().flat_map(|(flooded, without)| [flooded, without]);
                row.idle = all.map(|run| run.idle).max_by(f64::total_cmp);
                row.saturated = row.idle.map(|idle| idle <= 0.05);
                let handshakes =
                    Spread::of(offered.iter().copied()).map_or(0.0, |spread| spread.median);
                row.note = Some(format!("flooded with {handshakes:.0} handshakes a second"));
                each(row)?;
            }
        }
    }
    Ok(())
}

/// The target of the flood of handshakes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flood {
    /// The relay.
    ToRelay,
    /// No flood.
    Off,
    /// A socket that no program reads.
    Elsewhere,
}

const FLOODS: [Flood; 3] = [Flood::ToRelay, Flood::Off, Flood::Elsewhere];

/// The result of a run.
struct Flooded {
    outcome: Outcome,
    handshakes_per_s: f64,
    is_steered: bool,
}

/// Measures one run.
fn run(
    options: &Options,
    size: usize,
    steered: bool,
    flood: Flood,
    initiations: &[Vec<u8>],
) -> Result<Flooded, Failure> {
    let unread = socket(0)?;
    let cores = &options.cores;
    let ends = Ends::new()?;
    let relay = SealedRelay::new(&ends, size, Mode::Full, steered)?;
    let SealedRelay { mut worker, mut slow_path, at, seal, open } = relay;
    let is_steered = slow_path.handshakes_received().is_some();
    let stop = AtomicBool::new(false);
    let sent = Counter::default();
    let side_core = side_core(cores);
    thread::scope(|scope| {
        let (stop, sent) = (&stop, &sent);
        let slow = scope.spawn(move || {
            pin_this_thread(side_core)?;
            let started = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let began = started.elapsed();
                slow_path.poll(Now(began.as_nanos() as u64 + COMING_UP.0));
                thread::sleep(SLOW_PATH_INTERVAL_MIN.saturating_sub(started.elapsed() - began));
            }
            Ok::<_, Failure>(slow_path.handshakes_received())
        });
        let to = match flood {
            Flood::ToRelay => Some(at),
            Flood::Elsewhere => Some(address(&unread)?),
            Flood::Off => None,
        };
        let flooding = scope.spawn(move || {
            pin_this_thread(side_core)?;
            match to {
                Some(to) => send_all(to, initiations, sent, &|| stop.load(Ordering::Relaxed)),
                None => Ok(()),
            }
        });
        let started = Instant::now();
        let outcome = SealedTrial {
            size,
            window: options.window(),
            cores,
            at,
            ends,
            seal,
            open,
            forwarder: Forwarder::InThread(Box::new(move |idle_polls, stopped| {
                forward(&mut worker, idle_polls, stopped);
            })),
            backend: "mmsg",
        }
        .run();
        let seconds = started.elapsed().max(WARM_UP).as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        join(flooding)?;
        let received = join(slow)?;
        if flood == Flood::ToRelay && received == Some(0) {
            return Err(Failure::Wrong("no handshake reached the slow path".to_owned()));
        }
        let handshakes_per_s = sent.read() as f64 / seconds;
        Ok(Flooded { outcome: outcome?, handshakes_per_s, is_steered })
    })
}

/// The core of the flood and of the slow path. With four or more cores, the worker, the source and
/// the sink do not use this core.
fn side_core(cores: &Cores) -> usize {
    cores.sources.last().copied().unwrap_or(cores.sink)
}

/// Sends batches of each initiation in turn until `stopped`. Each initiation has its own source
/// address.
fn send_all(
    at: std::net::SocketAddrV4,
    initiations: &[Vec<u8>],
    sent: &Counter,
    stopped: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let sockets = initiations.iter().map(|_| socket(0)).collect::<Result<Vec<_>, _>>()?;
    for socket in &sockets {
        // The replies of the relay are not read.
        address(socket)?;
        socket.connect(at).map_err(Failure::kernel("connect"))?;
    }
    /// The number of messages per call of sendmmsg.
    const BATCH: usize = 16;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    while !stopped() {
        for (socket, initiation) in sockets.iter().zip(initiations) {
            let vectors = [[IoSlice::new(initiation)]; BATCH];
            let fd = socket.as_raw_fd();
            let flags = MsgFlags::empty();
            if sendmmsg(fd, &mut headers, &vectors, [None; BATCH], [], flags).is_ok() {
                sent.add(BATCH as u64);
            }
        }
    }
    Ok(())
}
