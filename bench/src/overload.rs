//! The rate under overload, and whether every dropped packet was counted. The source must send ten
//! times the rate at which the forwarder's core forwards, and one core can do so only with trains.
//! So the source sends trains, the kernel segments them on the source's core, and the relay
//! receives and sends single datagrams, as with a kernel without GRO and GSO.

use crate::{
    Bench, Failure, Options, Row,
    relay::RelaySpec,
    row::Accounts,
    sockets::BUFFER_BYTES,
    spread::Spread,
    traffic::Flows,
    trial::{Forwarder, Outcome, Trial},
};

/// Offered loads that are tried to find the best rate, relative to a first estimate.
const LOADS: [f64; 4] = [0.7, 0.85, 1.0, 1.3];

/// The offered load in overload, relative to the same estimate.
const OVERLOAD: f64 = 12.0;

/// Measures at each size: in each pair, the best rate over [`LOADS`], then the rate under overload.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let relay = RelaySpec { trains: false, ..RelaySpec::new(options.backend) };
    for &size in &options.sizes {
        let run = |packets_per_s: Option<f64>| {
            Trial {
                forwarder: Forwarder::Relay(relay),
                size,
                // One flow per source thread.
                flows: Flows::Trains(options.cores.sources.len()),
                packets_per_s,
                buffer_bytes: BUFFER_BYTES,
                window: options.window(),
                cores: &options.cores,
            }
            .run()
        };
        let rough = run(None)?.rate;
        let mut row = Row::new(Bench::Overload, size, false, options.pairs);
        let mut accounts = Accounts { whole: true, ..Accounts::default() };
        let mut pairs = Vec::new();
        for _ in 0..options.pairs {
            let mut runs = Vec::new();
            for load in LOADS {
                let outcome = run(Some(rough * load))?;
                account(&mut accounts, &outcome)?;
                runs.push(outcome);
            }
            let best = runs.into_iter().max_by(|one, other| one.rate.total_cmp(&other.rate));
            let best = best.ok_or(Failure::Bug("some loads are tried"))?;
            let flooded = run(Some(rough * OVERLOAD))?;
            account(&mut accounts, &flooded)?;
            row.ours = flooded.backend;
            pairs.push((flooded, best));
        }
        row.peer = Some("ours_at_best");
        row.compare(&pairs);
        row.offered = Spread::of(pairs.iter().map(|(flooded, _)| flooded.offered));
        row.accounts = Some(accounts);
        each(row)?;
    }
    Ok(())
}

/// Adds the counts of one run to `sum`, and clears `sum.whole` if the run does not account for
/// every packet.
fn account(sum: &mut Accounts, run: &Outcome) -> Result<(), Failure> {
    let balance = run.balance.as_ref().ok_or(Failure::Bug("a relay has a balance"))?;
    let at_sink = run.arrived + run.sink_drops;
    sum.sent += run.sent;
    sum.kernel_drops += balance.kernel_drops;
    sum.frames_in += balance.frames_in;
    sum.discards += balance.discarded();
    sum.frames_out += balance.frames_out;
    sum.at_sink += at_sink;
    sum.whole &= run.sent == balance.kernel_drops + balance.frames_in
        && balance.is_even()
        && balance.frames_out == at_sink;
    Ok(())
}
