//! `strowger relay`: runs a relay until a signal ends it.

use std::path::PathBuf;

use strowger_runtime::places;

use super::folder::default_folder;
use crate::{exit::Failure, relay};

/// `strowger relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration; `strowger init` writes one. The default is that of `strowger init` without
    /// a folder: relay.toml in strowger in $XDG_CONFIG_HOME or in ~/.config.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a relay until a signal ends it.
///
/// # Errors
/// One line: the configuration is invalid, the system refused an operation, a thread panicked, or
/// the counters do not balance.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    match &options.config {
        Some(config) => relay::run(config),
        None => relay::run(&default_folder("name it with --config FILE")?.join(places::CONFIG)),
    }
}
