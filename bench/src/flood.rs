//! Data through a sealed relay while handshakes from strangers arrive as fast as this machine can send
//! them, against the same without (R9): once with handshakes steered to the slow path's own socket,
//! and once with none but the worker's, which must hand each of them up.

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
    sealed_udp::{Ends, SealedTrial},
    sockets::{address, socket},
    spread::Spread,
    trial::{Outcome, WARM_UP, join},
};

/// Strangers, each at an address of its own.
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
            let mut pairs = Vec::new();
            let mut offered = Vec::new();
            let mut was_steered = false;
            for _ in 0..options.pairs {
                let run = |flooded| run(options, size, steered, flooded, &knocks);
                let ((flooded, sent, is_steered), (calm, ..)) = (run(true)?, run(false)?);
                was_steered = is_steered;
                offered.push(sent);
                pairs.push((flooded, calm));
            }
            let mut row = Row::new(What::Flood, size, true, pairs.len());
            row.ours = if was_steered { "steered" } else { "punted" };
            row.seal = Some(Mode::Full.name());
            row.peer = Some("calm");
            row.compare(&pairs);
            let all = || pairs.iter().flat_map(|(flooded, calm)| [flooded, calm]);
            row.idle = all().map(|run| run.idle).max_by(f64::total_cmp);
            row.saturated = row.idle.map(|idle| idle <= 0.05);
            let knocks = Spread::of(offered).map_or(0.0, |spread| spread.median);
            row.note = Some(format!("flooded with {knocks:.0} handshakes a second"));
            each(row)?;
        }
    }
    Ok(())
}

/// One run; says how many handshakes a second were sent, and whether they were steered.
fn run(
    options: &Options,
    size: usize,
    steered: bool,
    flooded: bool,
    knocks: &[Vec<u8>],
) -> Result<(Outcome, f64, bool), Failure> {
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
        let flood = scope.spawn(move || {
            settle_on(side_core)?;
            if flooded {
                flood(at, knocks, sent, &|| stop.load(Ordering::Relaxed))?;
            }
            Ok::<_, Failure>(())
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
            forward: Box::new(move |vain, stopped| forward(&mut worker, vain, stopped)),
            backend: "mmsg",
        }
        .run();
        let seconds = started.elapsed().max(WARM_UP).as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        join(flood)?;
        let knocked = join(slow)?;
        if flooded && knocked == Some(0) {
            return Err(Failure::Wrong("no handshake came in at the slow path".to_owned()));
        }
        Ok((outcome?, sent.read() as f64 / seconds, is_steered))
    })
}

/// Where the flood comes from and the slow path runs: apart from worker, source and sink where there
/// are so many cores.
fn side_core(cores: &Cores) -> usize {
    cores.sources.last().copied().unwrap_or(cores.sink)
}

/// Sends handshakes from as many addresses as there are messages, until `stopped`.
fn flood(
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
