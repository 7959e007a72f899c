//! `strowger scheme`: extends the range of slot numbers of a running relay.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::{change::change, control_connection::ControlOptions};
use crate::exit::Failure;

/// `strowger scheme`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Change to a scheme that decodes every label in use as before.
    Grow {
        /// f4, f8, v3x5x8, v4x8, or the serialization of a scheme in hex.
        scheme: String,
        /// The highest slot number that the relay assigns from now on.
        #[arg(long, value_name = "N")]
        slot_max: Option<u32>,
        #[command(flatten)]
        control: ControlOptions,
    },
}

/// Sends the request to the relay, and prints the change.
///
/// # Errors
/// One line: no relay answers, or the relay declined the request.
pub(crate) fn run(task: &Task, output: &mut dyn Write) -> Result<(), Failure> {
    let Task::Grow { scheme, slot_max, control } = task;
    let request = json!({ "grow": { "scheme": scheme, "slot_max": slot_max } });
    change(&request, control, output)
}
