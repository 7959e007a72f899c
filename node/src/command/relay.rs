//! `strowger relay`: runs a relay until a signal ends it.

use std::path::PathBuf;

use crate::{exit::Failure, relay};

/// `strowger relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration; `strowger init` writes one.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs a relay until a signal ends it.
///
/// # Errors
/// One line: the configuration is invalid, the machine refused something, a thread died, or the
/// counters do not balance.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    relay::run(&options.config)
}
