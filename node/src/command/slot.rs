//! `strowger slot`: attaches, renumbers, drains and detaches neighbours of a running relay.

use std::{io::Write, path::PathBuf};

use clap::Subcommand;
use serde_json::json;
use strowger_runtime::address;

use super::{change::change, control_connection::ControlOptions};
use crate::{exit::Failure, limits::DRAIN_S};

/// `strowger slot`.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Give a neighbour a slot.
    Attach {
        /// Its name.
        name: String,
        /// Its address: IP and port, or MAC. None for a unix endpoint.
        #[arg(value_parser = address::checked)]
        address: Option<String>,
        /// The `[[udp]]`, `[[ethernet]]` or `[[unix]]` through which it is reached, if there is
        /// more than one.
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// The slot number; without it the lowest free one.
        #[arg(long, value_name = "N")]
        slot: Option<u32>,
        /// The static key of a peer, in hex, for an encrypted link. Without it the link is plain, which
        /// the listener must allow.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// The identity that the peer must prove: its PeerId, 12D3KooW...; without --key the handshake finds the key.
        #[arg(long, value_name = "PEER_ID")]
        peer_id: Option<String>,
        /// The file of the pre-shared key, as the relay's process sees it.
        #[arg(long, value_name = "FILE", requires = "key")]
        psk: Option<PathBuf>,
        /// The rights of the peer: transit, endpoints, control.
        #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
        rights: Option<Vec<String>>,
        #[command(flatten)]
        control: ControlOptions,
    },
    /// Give a slot another number. The former number leads to it for `alias_s`; the relay notifies its users.
    Renumber {
        /// The slot number.
        slot: u32,
        /// The new number; without it the lowest free one.
        to: Option<u32>,
        #[command(flatten)]
        control: ControlOptions,
    },
    /// Ask that no new label names a slot. It forwards as before, and the relay detaches it after a while.
    Drain {
        /// The slot number.
        slot: u32,
        /// The time until the relay detaches the slot, in seconds, up to a day.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = DRAIN_S)]
        for_s: u64,
        #[command(flatten)]
        control: ControlOptions,
    },
    /// Detach a slot. Its number is in quarantine before another neighbour gets it.
    Detach {
        /// The slot number.
        slot: u32,
        #[command(flatten)]
        control: ControlOptions,
    },
}

/// Sends the request to the relay, and prints what has changed.
///
/// # Errors
/// One line: no relay answers, or the relay declined the request.
pub(crate) fn run(task: Task, output: &mut dyn Write) -> Result<(), Failure> {
    let (request, control) = match task {
        Task::Attach { name, address, listener, slot, key, peer_id, psk, rights, control } => {
            let attach = json!({ "name": name, "address": address, "listener": listener,
                "slot": slot, "key": key, "peer_id": peer_id, "psk": psk, "rights": rights });
            (json!({ "attach": attach }), control)
        }
        Task::Renumber { slot, to, control } => {
            (json!({ "renumber": { "slot": slot, "to": to } }), control)
        }
        Task::Drain { slot, for_s, control } => {
            (json!({ "drain": { "slot": slot, "for_s": for_s } }), control)
        }
        Task::Detach { slot, control } => (json!({ "detach": slot }), control),
    };
    change(&request, &control, output)
}
