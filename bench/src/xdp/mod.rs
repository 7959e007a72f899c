//! Measures forwarders over Ethernet in rounds: Strowger and each peer in turn, so that noise
//! affects all equally. The rate of each is measured first, under overload, and then the latency at
//! a fraction of Strowger's rate.
//!
//! | module | content |
//! |---|---|
//! | `wires` | the network |
//! | `relay` | Strowger under test |
//! | `peers`, `testpmd` | forwarders for comparison |
//! | `run` | one run of one forwarder |

mod peers;
mod relay;
mod run;
mod testpmd;
pub(crate) mod wires;

use std::{sync::mpsc, thread};

use strowger_io::xdp::ModeChoice;

use self::{
    run::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, Forwarder, Outcome, Run},
    testpmd::Testpmd,
    wires::Wires,
};
use crate::{
    Bench, Failure, Options, Row,
    row::{Accounts, Latency},
    spread::Spread,
};

/// Loads at which latency is measured, relative to Strowger's rate. Frames are sent one at a time,
/// and the kernel receives on the forwarder's core.
const LOADS: [f64; 2] = [0.1, 0.8];

/// Offered load in rate measurements, relative to Strowger's rate.
const OVERLOAD: f64 = 2.0;

/// Minimum offered load in rate measurements, in frames per second: more than one core can forward
/// with any forwarder except the redirect.
const OFFERED_MIN: f64 = 1.5e6;

/// Minimum offered load of every measurement, in frames per second, even if few frames arrived
/// before.
const RATE_MIN: f64 = 1_000.0;

/// If more than this share of the offered frames arrived, the source was the limit.
const SATURATED_MAX: f64 = 0.8;

/// The name of a peer, and its forwarder or the reason why it cannot be measured here.
type Peer = (&'static str, Result<Forwarder, String>);

/// The core on which the kernel receives for the forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    /// The forwarder's core.
    Same,
    /// Another core.
    Other,
}

impl Receive {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "same_core",
            Self::Other => "other_core",
        }
    }

    /// The core's number; `None` if there are too few cores.
    fn core(self, options: &Options) -> Option<usize> {
        let cores = &options.cores;
        match self {
            Self::Same => Some(cores.forwarder),
            Self::Other => cores.sources.get(1).copied(),
        }
    }
}

/// Compares Strowger with each peer, at each size, with the kernel receiving on the same core and
/// on another.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fits = |size: &&usize| !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(*size);
    if let Some(size) = options.sizes.iter().find(fits) {
        return Err(Failure::Options(format!(
            "{size} bytes: over Ethernet frames are {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} bytes long"
        )));
    }
    thread::scope(|scope| {
        let (rows_tx, rows_rx) = mpsc::channel();
        let inside = thread::Builder::new().name("inside".to_owned()).spawn_scoped(scope, || {
            let rows_tx = rows_tx;
            let wires = Wires::enter()?;
            let tell =
                |row| rows_tx.send(row).map_err(|_| Failure::Bug("the receiver of rows exists"));
            measure(options, &wires, &tell)
        });
        let inside = inside.map_err(Failure::kernel("a thread"))?;
        for row in rows_rx {
            each(row)?;
        }
        match inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            // If this is one of several benchmarks, the others are still measured.
            Err(Failure::Refused(why)) if options.benches.len() > 1 => {
                let mut row = Row::new(Bench::Xdp, options.sizes[0], false, 0);
                row.ours = "none";
                row.note = Some(format!("not measured: {why}"));
                each(row)
            }
            done => done,
        }
    })
}

fn measure(
    options: &Options,
    wires: &Wires,
    tell: &dyn Fn(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut peers: Vec<Peer> = vec![
        ("testpmd", Testpmd::installed().map(Forwarder::Testpmd)),
        ("af_packet", Ok(Forwarder::PacketSockets)),
        ("bridge", Ok(Forwarder::Bridge)),
        ("xdp_redirect", Ok(Forwarder::Redirect)),
    ];
    for receive in [Receive::Same, Receive::Other] {
        let Some(core) = receive.core(options) else { continue };
        for &size in &options.sizes {
            let run = |forwarder: &Forwarder, interval_ns| {
                let (window, cores) = (options.window(), &options.cores);
                Run { wires, forwarder, size, interval_ns, window, cores, receive: core }.run()
            };
            let interval = |rate: f64| Some((1e9 / rate.max(RATE_MIN)) as u32);
            // Under overload the relay forwards less than its best rate, so a smaller load is tried
            // as well.
            let ours = |interval| {
                Ok::<_, Failure>(run(&Forwarder::Ours(ModeChoice::Auto), interval)?.rate)
            };
            let overloaded = ours(None)?;
            let rough = ours(interval(3.0 * overloaded))?.max(overloaded);
            let flooded = rounds(options.pairs, &mut peers, &|forwarder| {
                // `Forwarder::Redirect` can forward more than `OVERLOAD` times the relay's rate, so
                // the source sends to it at full rate.
                let all = *forwarder == Forwarder::Redirect;
                run(
                    forwarder,
                    if all { None } else { interval((rough * OVERLOAD).max(OFFERED_MIN)) },
                )
            })?;
            let rate = Spread::of(flooded.ours.iter().map(|run| run.rate));
            let rate = rate.ok_or(Failure::Bug("there is a round"))?.median;
            for row in flooded.rows(&peers, (size, receive, None)) {
                tell(row)?;
            }
            if receive != Receive::Same {
                continue;
            }
            for load in LOADS {
                let run = |forwarder: &Forwarder| run(forwarder, interval(rate * load));
                let latencies = rounds(options.pairs, &mut peers, &run)?;
                for row in latencies.rows(&peers, (size, receive, Some(load))) {
                    tell(row)?;
                }
            }
        }
    }
    Ok(())
}

/// The results of rounds: one run of Strowger in each, and one of each peer that can be measured.
struct Rounds {
    ours: Vec<Outcome>,
    peers: Vec<Vec<Outcome>>,
}

/// Runs Strowger and each peer in turn, in `count` rounds. A peer that was refused is not tried
/// again.
fn rounds(
    count: usize,
    peers: &mut [Peer],
    run: &dyn Fn(&Forwarder) -> Result<Outcome, Failure>,
) -> Result<Rounds, Failure> {
    let mut rounds = Rounds { ours: Vec::new(), peers: vec![Vec::new(); peers.len()] };
    for _ in 0..count {
        rounds.ours.push(run(&Forwarder::Ours(ModeChoice::Auto))?);
        for ((_, peer), outcomes) in peers.iter_mut().zip(&mut rounds.peers) {
            let Ok(forwarder) = peer else { continue };
            match run(forwarder) {
                Ok(outcome) => outcomes.push(outcome),
                Err(Failure::Refused(why)) => *peer = Err(format!("not measured: {why}")),
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(rounds)
}

impl Rounds {
    /// Returns one row per peer.
    fn rows(
        &self,
        peers: &[Peer],
        (size, receive, load): (usize, Receive, Option<f64>),
    ) -> Vec<Row> {
        let rows = peers.iter().zip(&self.peers).map(|((name, peer), outcomes)| {
            // A peer that was refused in a later round cannot be compared.
            let outcomes = if peer.is_ok() { &outcomes[..] } else { &[] };
            let mut row = Row::new(Bench::Xdp, size, false, outcomes.len());
            row.ours = self.ours.first().map_or("none", |ours| ours.backend);
            row.peer = Some(name);
            row.receive = Some(receive.name());
            row.load = load;
            row.note = peer.as_ref().err().cloned();
            let pairs = self.ours.iter().zip(outcomes);
            let rates = |of: fn(&Outcome) -> f64| {
                let ours = Spread::of(self.ours.iter().map(of));
                let peer = Spread::of(outcomes.iter().map(of));
                let ratio = Spread::of(pairs.clone().map(|(ours, peer)| of(ours) / of(peer)));
                (ours, peer, ratio)
            };
            (row.ours_rate, row.peer_rate, row.ratio) = rates(|run| run.rate);
            (row.ours_per_busy_s, row.peer_per_busy_s, row.ratio_busy) =
                rates(|run| run.rate_per_busy_s);
            row.offered = Spread::of(self.ours.iter().map(|ours| ours.offered));
            let all = || self.ours.iter().chain(outcomes);
            row.sink_lost = all().map(|run| run.sink_lost).max_by(f64::total_cmp);
            if load.is_some() {
                row.ours_latency = latency(&self.ours);
                row.peer_latency = latency(outcomes);
            } else {
                let through = all().map(|run| run.rate / run.offered).max_by(f64::total_cmp);
                row.saturated = through.map(|through| through <= SATURATED_MAX);
            }
            if let (Ok(Forwarder::Redirect), None, Some(offered)) =
                (peer, load, Spread::of(outcomes.iter().map(|run| run.offered)))
            {
                let offered = offered.times(1e-6);
                row.note = Some(format!(
                    "the redirect was offered the full rate of the source: {offered} Mpps"
                ));
            }
            row.accounts = accounts(&self.ours);
            row
        });
        rows.collect()
    }
}

/// The latencies of these runs; `None` if frames carried no timestamps.
fn latency(outcomes: &[Outcome]) -> Option<Latency> {
    let quantile = |part: f64| Spread::of(outcomes.iter().filter_map(|run| run.delay_us(part)));
    Some(Latency { median: quantile(0.5)?, p99: quantile(0.99)?, p999: quantile(0.999)? })
}

/// The sum of the accounts of all runs; `None` if a run has none.
fn accounts(ours: &[Outcome]) -> Option<Accounts> {
    let mut sum = Accounts { whole: true, ..Accounts::default() };
    for run in ours {
        let one = run.accounts?;
        sum.whole &= one.whole;
        sum.sent += one.sent;
        sum.kernel_drops += one.kernel_drops;
        sum.frames_in += one.frames_in;
        sum.discards += one.discards;
        sum.frames_out += one.frames_out;
        sum.at_sink += one.at_sink;
    }
    Some(sum)
}
