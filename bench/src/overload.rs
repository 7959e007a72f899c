//! What is left of the best rate when far more is offered than can be forwarded, and whether every
//! packet that was let fall was counted. Without trains, since one core cannot send ten times what
//! another forwards otherwise: the source's trains are cut by the kernel on the source's core, and
//! the relay takes and gives single datagrams, as it must where the kernel knows no better.

use crate::{
    Failure, Options, Row, What,
    relay::RelaySpec,
    row::Accounts,
    sockets::BUFFER_BYTES,
    spread::Spread,
    trial::{Forwarder, Outcome, Trial},
};

/// What is offered while the best rate is looked for, as parts of the first rough figure.
const LOADS: [f64; 4] = [0.7, 0.85, 1.0, 1.3];

/// What is offered in overload, as a multiple of the same.
const OVERLOAD: f64 = 12.0;

/// Measures at each size: in each pair, the best rate over [`LOADS`], then everything at once.
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
                trains: true,
                packets_per_s,
                buffer_bytes: BUFFER_BYTES,
                window: options.window(),
                cores: &options.cores,
            }
            .run()
        };
        let rough = run(None)?.rate;
        let mut row = Row::new(What::Overload, size, false, options.pairs);
        let mut accounts = Accounts { whole: true, ..Accounts::default() };
        let mut pairs = Vec::new();
        for _ in 0..options.pairs {
            let mut best = 0.0_f64;
            for load in LOADS {
                let outcome = run(Some(rough * load))?;
                account(&mut accounts, &outcome)?;
                best = best.max(outcome.rate);
            }
            let flooded = run(Some(rough * OVERLOAD))?;
            account(&mut accounts, &flooded)?;
            row.backend = flooded.backend;
            pairs.push((best, flooded));
        }
        row.peer = Some("ours_at_best");
        row.ours = Spread::of(pairs.iter().map(|(_, flooded)| flooded.rate));
        row.peer_rate = Spread::of(pairs.iter().map(|(best, _)| *best));
        row.ratio = Spread::of(pairs.iter().map(|(best, flooded)| flooded.rate / best));
        row.offered = Spread::of(pairs.iter().map(|(_, flooded)| flooded.offered));
        row.accounts = Some(accounts);
        each(row)?;
    }
    Ok(())
}

/// Adds one run, and sees whether it is whole.
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
