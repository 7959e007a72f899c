//! Compares forwarders over UDP in alternating pairs: Strowger with plain forwarders, and its two
//! backends with each other. Thus noise affects both halves of a pair equally.

use strowger_io::udp::{BackendChoice, UdpOpenError};

use crate::{
    Bench, Failure, Options, Row,
    relay::RelaySpec,
    sockets::BUFFER_BYTES,
    spread::Spread,
    traffic::Flows,
    trial::{Forwarder, Outcome, Trial},
};

/// A forwarder that is idle for more than this share of its CPU time is not saturated.
const IDLE_MAX: f64 = 0.05;

/// Compares Strowger with each peer, at each size, with and without trains.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let ours = Forwarder::Relay(RelaySpec::new(options.backend));
    for &trains in &options.trains {
        for &size in &options.sizes {
            for (name, peer) in [("mmsg", Forwarder::Mmsg), ("one_by_one", Forwarder::OneByOne)] {
                each(pairs(options, Bench::Udp, (size, trains), ours, (name, peer))?)?;
            }
        }
    }
    Ok(())
}

/// Compares io_uring with recvmmsg, both in Strowger.
pub(crate) fn backend_rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let ours = Forwarder::Relay(RelaySpec::new(BackendChoice::IoUring));
    let peer = ("ours_mmsg", Forwarder::Relay(RelaySpec::new(BackendChoice::Mmsg)));
    for &trains in &options.trains {
        for &size in &options.sizes {
            match pairs(options, Bench::Backends, (size, trains), ours, peer) {
                Ok(row) => each(row)?,
                // io_uring is not available here, so there is nothing to compare.
                Err(Failure::Open(refused @ UdpOpenError::NoRing(_))) => {
                    let mut row = Row::new(Bench::Backends, size, trains, 0);
                    row.ours = "mmsg";
                    row.note = Some(refused.to_string());
                    return each(row);
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(())
}

fn pairs(
    options: &Options,
    bench: Bench,
    (size, trains): (usize, bool),
    ours: Forwarder,
    (name, peer): (&'static str, Forwarder),
) -> Result<Row, Failure> {
    let run = |forwarder| {
        let (window, cores) = (options.window(), &options.cores);
        let flows = if trains { Flows::Trains(1) } else { Flows::Singles };
        Trial {
            forwarder,
            size,
            flows,
            packets_per_s: None,
            buffer_bytes: BUFFER_BYTES,
            window,
            cores,
        }
        .run()
    };
    let runs = (0..options.pairs).map(|_| Ok((run(ours)?, run(peer)?)));
    let runs = runs.collect::<Result<Vec<_>, Failure>>()?;

    let mut row = Row::new(bench, size, trains, runs.len());
    row.ours = runs.first().map_or("none", |(ours, _)| ours.backend);
    row.peer = Some(name);
    row.compare(&runs);
    row.offered = Spread::of(runs.iter().map(|(ours, _)| ours.offered));
    let all = || runs.iter().flat_map(|(ours, peer)| [ours, peer]);
    row.idle = all().map(|run| run.idle).max_by(f64::total_cmp);
    row.saturated = row.idle.map(|idle| idle <= IDLE_MAX);
    row.sink_lost = all().map(sink_lost).max_by(f64::total_cmp);
    Ok(row)
}

/// The loss at the sink, relative to all packets that reached it. A lost train counts as one
/// packet, so this is a lower bound.
fn sink_lost(run: &Outcome) -> f64 {
    run.sink_drops as f64 / (run.arrived + run.sink_drops).max(1) as f64
}
