//! `strowger config`: checks a configuration, adds a peer to one, or prints a sample.

mod add_peer;
mod check;
mod in_use;
mod peer_section;

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Subcommand;

pub(crate) use self::peer_section::{PeerArgument, PeerSection, fault_texts, free_name, quoted};
use crate::{
    exit::{Failure, output_ended},
    relay::config::SAMPLE,
};

/// `strowger config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Print the errors of a configuration, and what this machine would refuse. The check changes
    /// nothing, so it may run while a relay runs. Run it as the user that starts the relay.
    Check {
        /// The file.
        file: PathBuf,
        /// Check only the text, for the file of another machine.
        #[arg(long)]
        text_only: bool,
    },
    /// Print a commented sample.
    Sample,
    /// Add a [[peer]] to a configuration. The file is unchanged if it would be invalid with the
    /// peer.
    AddPeer(add_peer::Options),
}

/// `strowger config`.
///
/// # Errors
/// One line: a file cannot be read or written, or the output cannot be written.
pub(crate) fn run(task: &Task, output: &mut dyn Write) -> Result<ExitCode, Failure> {
    let result = match task {
        Task::Check { file, text_only } => return check::run(file, *text_only, output),
        Task::Sample => output.write_all(SAMPLE.as_bytes()).or_else(|error| output_ended(&error)),
        Task::AddPeer(options) => add_peer::run(options, output),
    };
    result.map(|()| ExitCode::SUCCESS)
}
