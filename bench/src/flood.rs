//! Data through a sealed relay while handshakes from unknown peers arrive as fast as this machine can send
//! them, against the same without (R9): once with handshakes steered to the relay's door, and once with
//! none, so that the worker must hand each of them up.
//!
//! A core that sends as fast as it can also takes cache, memory and clock from the others, whomever it
//! sends to. So the flood is measured against two runs without: one in which nobody sends it (`calm`),
//! and one in which it goes to a socket that is not the relay's (`elsewhere`). What the latter
//! shows is the relay's own.

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
    Failure, Options, Row, What,
    handshakes::initiation_bytes,
    machine::{Cores, settle_on},
    sealed_chain::{Mode, local},
    sealed_relay::{COMING_UP, RELAY, SealedRelay, forward},
    sealed_udp::{Ends, Forwarder, SealedTrial},
    sockets::{address, socket},
    spread::Spread,
    trial::{Outcome, WARM_UP, join},
};

/// Unknown peers, each at an address of its own.
const STRANGERS: u8 = 64;

/// As the node's slow path: a turn begins no sooner than this after the one before.
const SLOW_TURN_MIN: Duration = Duration::from_millis(1);

/// Measures at each size, steered and not.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let us = local(RELAY)?;
    let knocks = (0..STRANGERS)
        .map(|number| initiation_bytes(&local(100 + number)?, &us, 1))
        .collect::<Result<Vec<_>, Failure>>()?;
    for &size in &options.sizes {
        for steered in [true, false] {
            let mut pairs: [Vec<(Outcome, Outcome)>; 2] = Default::default();
            let mut offered = Vec::new();
            let mut was_steered = false;
            for pair in 0..options.pairs {
                // Each comes first in turn, so that none is always the one after a rest.
                let mut runs = [None, None, None];
                for turn in 0..runs.len() {
                    let flood = FLOODS[(pair + turn) % FLOODS.len()];
                    runs[flood as usize] = Some(run(options, size, steered, flood, &knocks)?);
                }
                let [Some(here), Some(calm), Some(elsewhere)] = runs else {
                    return Err(Failure::Bug("each had its turn"));
                };
                was_steered = here.is_steered;
                offered.push(here.knocks_per_s);
                pairs[0].push((here.outcome.clone(), calm.outcome));
                pairs[1].push((here.outcome, elsewhere.outcome));
            }
            for (pairs, peer) in pairs.iter().zip(["calm", "elsewhere"]) {
                let mut row = Row::new(What::Flood, size, true, pairs.len());
                row.ours = if was_steered { "steered" } else { "punted" };
                row.seal = Some(Mode::Full.name());
                row.peer = Some(peer);
                row.compare(pairs);
                let all = pairs.iter().flat_map(|(flooded, without)| [flooded, without]);
                row.idle = all.map(|run| run.idle).max_by(f64::total_cmp);
                row.saturated = row.idle.map(|idle| idle <= 0.05);
                let knocks =
                    Spread::of(offered.iter().copied()).map_or(0.0, |spread| spread.median);
                row.note = Some(format!("flooded with {knocks:.0} handshakes a second"));
                each(row)?;
            }
        }
    }
    Ok(())
}

/// Where handshakes are sent as fast as can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flood {
    /// To the relay.
    Here,
    /// Nobody sends any.
    Nowhere,
    /// To a socket that is not the relay's, and that nobody reads.
    Elsewhere,
}

const FLOODS: [Flood; 3] = [Flood::Here, Flood::Nowhere, Flood::Elsewhere];

/// What a run found.
struct Flooded {
    outcome: Outcome,
    knocks_per_s: f64,
    is_steered: bool,
}

/// One run.
fn run(
    options: &Options,
    size: usize,
    steered: bool,
    flood: Flood,
    knocks: &[Vec<u8>],
) -> Result<Flooded, Failure> {
    let unread = socket(0)?;
    let cores = &options.cores;
    let ends = Ends::new()?;
    let relay = SealedRelay::new(&ends, size, Mode::Full, steered)?;
    let SealedRelay { mut worker, mut slow_path, at, seal, open } = relay;
    let is_steered = slow_path.knocks().is_some();
    let stop = AtomicBool::new(false);
    let sent = Counter::default();
    let side_core = side_core(cores);
    thread::scope(|scope| {
        let (stop, sent) = (&stop, &sent);
        let slow = scope.spawn(move || {
            settle_on(side_core)?;
            let started = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let began = started.elapsed();
                slow_path.turn(Now(began.as_nanos() as u64 + COMING_UP.0));
                thread::sleep(SLOW_TURN_MIN.saturating_sub(started.elapsed() - began));
            }
            Ok::<_, Failure>(slow_path.knocks())
        });
        let to = match flood {
            Flood::Here => Some(at),
            Flood::Elsewhere => Some(address(&unread)?),
            Flood::Nowhere => None,
        };
        let flooding = scope.spawn(move || {
            settle_on(side_core)?;
            match to {
                Some(to) => send_all(to, knocks, sent, &|| stop.load(Ordering::Relaxed)),
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
            forwarder: Forwarder::Here(Box::new(move |vain, stopped| {
                forward(&mut worker, vain, stopped);
            })),
            backend: "mmsg",
        }
        .run();
        let seconds = started.elapsed().max(WARM_UP).as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        join(flooding)?;
        let knocked = join(slow)?;
        if flood == Flood::Here && knocked == Some(0) {
            return Err(Failure::Wrong("no handshake came in at the slow path".to_owned()));
        }
        let knocks_per_s = sent.read() as f64 / seconds;
        Ok(Flooded { outcome: outcome?, knocks_per_s, is_steered })
    })
}

/// Where the flood comes from and the slow path runs: apart from worker, source and sink where there
/// are so many cores.
fn side_core(cores: &Cores) -> usize {
    cores.sources.last().copied().unwrap_or(cores.sink)
}

/// Sends handshakes from as many addresses as there are messages, until `stopped`.
fn send_all(
    at: std::net::SocketAddrV4,
    knocks: &[Vec<u8>],
    sent: &Counter,
    stopped: &dyn Fn() -> bool,
) -> Result<(), Failure> {
    let sockets = knocks.iter().map(|_| socket(0)).collect::<Result<Vec<_>, _>>()?;
    for socket in &sockets {
        // Replies are for nobody.
        address(socket)?;
        socket.connect(at).map_err(Failure::kernel("connect"))?;
    }
    /// Messages in one call.
    const BATCH: usize = 16;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    while !stopped() {
        for (socket, knock) in sockets.iter().zip(knocks) {
            let vectors = [[IoSlice::new(knock)]; BATCH];
            let fd = socket.as_raw_fd();
            let flags = MsgFlags::empty();
            if sendmmsg(fd, &mut headers, &vectors, [None; BATCH], [], flags).is_ok() {
                sent.add(BATCH as u64);
            }
        }
    }
    Ok(())
}
