//! The program `strowger-bench`: parses arguments and prints rows. `strowger bench` runs it.

use std::process::ExitCode;

use clap::Parser;
use strowger_bench::{Bench, Failure, Options, run};
use strowger_io::udp::BackendChoice;

/// Aborts if a worker's thread allocates (R13), as in `strowger` itself.
#[global_allocator]
static ALLOC: strowger_frame::alloc::GuardedAlloc = strowger_frame::alloc::GuardedAlloc;

/// Measures forwarding rates on this machine, as pairs with plain forwarders in one run.
#[derive(Debug, Parser)]
#[command(name = "strowger bench", version, max_term_width = 100)]
struct Arguments {
    /// Which benches: footprint, memory, udp, backends, overload, sealed, handshakes, flood,
    /// isolation, connections, unix, xdp; all of them if none is named
    #[arg(value_name = "BENCH", value_parser = str::parse::<Bench>)]
    benches: Vec<Bench>,
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
    /// Over UDP, only without trains (successive packets from different peers)
    #[arg(long)]
    singles: bool,
    /// How the sockets receive
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
}

/// How the sockets receive.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Backend {
    /// The backend that was measured to forward most
    Auto,
    /// io_uring, or an error
    #[value(name = "io_uring")]
    IoUring,
    /// recvmmsg
    Mmsg,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number from 0.01 to 60".into()),
    }
}

/// The options for these arguments.
fn options(arguments: &Arguments) -> Result<Options, Failure> {
    let mut options = Options::new()?;
    if !arguments.benches.is_empty() {
        options.benches.clone_from(&arguments.benches);
    }
    options.json = arguments.json;
    options.pairs = usize::from(arguments.pairs);
    options.seconds_per_run = arguments.seconds;
    options.sizes.clone_from(&arguments.sizes);
    options.trains = match (arguments.trains, arguments.singles) {
        (true, _) => vec![true],
        (_, true) => vec![false],
        _ => vec![true, false],
    };
    options.backend = match arguments.backend {
        Backend::Auto => BackendChoice::Auto,
        Backend::IoUring => BackendChoice::IoUring,
        Backend::Mmsg => BackendChoice::Mmsg,
    };
    Ok(options)
}

fn main() -> ExitCode {
    let options = options(&Arguments::parse());
    match options.and_then(|options| run(&options, &mut std::io::stdout().lock())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("strowger: bench: {why}");
            // The exit code of the command if the machine refuses something.
            ExitCode::from(3)
        }
    }
}
