//! The cost of a step: [three switches in a row](crate::chain) on the forwarder's core, without
//! system calls in the timed part.

use std::time::{Duration, Instant};

use strowger_frame::BURST_MAX;

use crate::{
    Bench, Failure, Options, Row, chain::Chain, instructions, machine::on_core, spread::Spread,
};

/// Rounds that are not timed, in which caches and branch predictors warm up.
const ROUNDS_BEFORE: usize = 2_000;

/// Measures the step at each packet size.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for &size in &options.sizes {
        let core = options.cores.forwarder;
        let measured =
            on_core(core, || (0..options.pairs).map(|_| measure(size, options.window())).collect());
        let measured: Vec<f64> = measured?;
        let mut row = Row::new(Bench::Memory, size, false, options.pairs);
        row.ns_per_packet_and_switch = Spread::of(measured);
        match instructions::per_step_if_counted(size) {
            Ok(instructions) => row.instructions_per_packet_and_switch = Some(instructions),
            Err(why) => row.note = Some(format!("instructions not counted: {why}")),
        }
        each(row)?;
    }
    Ok(())
}

/// Nanoseconds per packet and switch, over rounds that take at least `window` in total.
fn measure(size: usize, window: Duration) -> Result<f64, Failure> {
    let mut chain = Chain::new(size, BURST_MAX)?;
    for _ in 0..ROUNDS_BEFORE {
        chain.round();
    }
    let started = Instant::now();
    let (mut took, mut steps) = (Duration::ZERO, 0);
    while started.elapsed() < window {
        for _ in 0..64 {
            took += chain.round();
            steps += chain.steps();
        }
    }
    Ok(took.as_nanos() as f64 / steps as f64)
}
