//! Measures without the command `strowger`: `measure [BENCH...] [--json] [--pairs N] [--seconds S]
//! [--sizes B,B,...] [--backend auto|io_uring|mmsg] [--trains|--singles]`. Knows no more than `strowger_bench::run` does.

use std::process::ExitCode;

use strowger_bench::{Options, run};
use strowger_io::udp::Choice;

fn main() -> ExitCode {
    match options().and_then(|options| {
        run(&options, &mut std::io::stdout().lock()).map_err(|failure| failure.to_string())
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("measure: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options::new().map_err(|failure| failure.to_string())?;
    let mut named = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let unreadable = |error: &dyn std::fmt::Display| format!("{argument}: {error}");
        match argument.as_str() {
            "--json" => options.json = true,
            "--trains" => options.trains = vec![true],
            "--singles" => options.trains = vec![false],
            "--pairs" => options.pairs = value()?.parse().map_err(|e| unreadable(&e))?,
            "--seconds" => {
                options.seconds_per_run = value()?.parse().map_err(|e| unreadable(&e))?
            }
            "--backend" => {
                options.backend = match value()?.as_str() {
                    "auto" => Choice::Auto,
                    "io_uring" => Choice::IoUring,
                    "mmsg" => Choice::Mmsg,
                    other => return Err(format!("there is no backend `{other}`")),
                };
            }
            "--sizes" => {
                let sizes = value()?;
                let sizes = sizes.split(',').map(str::parse).collect::<Result<_, _>>();
                options.sizes = sizes.map_err(|e| unreadable(&e))?;
            }
            name => named.push(name.parse()?),
        }
    }
    if !named.is_empty() {
        options.what = named;
    }
    Ok(options)
}
