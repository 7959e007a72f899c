//! `strowger bench`: the front end of `strowger-bench`, which measures. It never measures anything
//! itself.

use std::process::ExitCode;

use strowger_bench::{Options, What, run};

use crate::{
    backend::Backend,
    exit::{Exit, Failure},
};

/// What `strowger bench` is asked.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Which benches: footprint, memory, udp, backends, overload, sealed, handshakes, flood,
    /// isolation, xdp; all of them if none is named
    #[arg(value_name = "BENCH", value_parser = str::parse::<What>)]
    what: Vec<What>,
    /// Print one JSON object a row instead of a table
    #[arg(long)]
    json: bool,
    /// Pairs of runs, measured in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pairs: u16,
    /// How long each run's window is, in seconds (0.01 to 60)
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// Bytes of the packets as they lie on the link, headers included
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [64, 512, 1400])]
    sizes: Vec<usize>,
    /// Over UDP, only with trains (bulk flows)
    #[arg(long, conflicts_with = "singles")]
    trains: bool,
    /// Over UDP, only without trains (each packet of another peer)
    #[arg(long)]
    singles: bool,
    /// How our sockets receive
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.01 to 60 is wanted".into()),
    }
}

/// Measures, and prints rows as they are done.
///
/// # Errors
/// What the machine refused.
pub(crate) fn perform(wanted: &Wanted) -> Result<ExitCode, Failure> {
    let refused =
        |why: strowger_bench::Failure| Failure::new(Exit::Refused, format!("bench: {why}"));
    let mut options = Options::new().map_err(refused)?;
    if !wanted.what.is_empty() {
        options.what.clone_from(&wanted.what);
    }
    options.json = wanted.json;
    options.pairs = usize::from(wanted.pairs);
    options.seconds_per_run = wanted.seconds;
    options.sizes.clone_from(&wanted.sizes);
    options.trains = match (wanted.trains, wanted.singles) {
        (true, _) => vec![true],
        (_, true) => vec![false],
        _ => vec![true, false],
    };
    options.backend = wanted.backend.into();
    run(&options, &mut std::io::stdout().lock()).map_err(refused)?;
    Ok(ExitCode::SUCCESS)
}
