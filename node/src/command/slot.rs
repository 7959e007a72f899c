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
        /// Its address: IP and port, or MAC. A unix endpoint has none.
        #[arg(value_parser = address::checked)]
        address: Option<String>,
        /// The `[[udp]]`, `[[ethernet]]` or `[[unix]]` through which it is reached, if there is
        /// more than one.
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// The slot number; without it the lowest free one.
        #[arg(long, value_name = "N", value_parser = slot_number)]
        slot: Option<u32>,
        /// The static key of a peer, in hex, for an encrypted link. Without it the link is plain, which
        /// the listener must allow.
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        /// The PeerId of the peer, 12D3KooW..., which the handshake authenticates. Without --key
        /// the handshake also finds the static key.
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
    /// Change the number of a slot. The former number leads to it for `alias_s` seconds, and the
    /// relay notifies senders that use it.
    Renumber {
        /// The slot number.
        #[arg(value_parser = slot_number)]
        slot: u32,
        /// The new number; without it the lowest free one.
        #[arg(value_parser = slot_number)]
        to: Option<u32>,
        #[command(flatten)]
        control: ControlOptions,
    },
    /// Drain a slot: it forwards as before, and the relay detaches it after the given time. New
    /// labels should not name it.
    Drain {
        /// The slot number.
        #[arg(value_parser = slot_number)]
        slot: u32,
        /// The time until the relay detaches the slot, in seconds, up to a day.
        #[arg(long = "for", value_name = "SECONDS", default_value_t = DRAIN_S, value_parser = seconds)]
        for_s: u64,
        #[command(flatten)]
        control: ControlOptions,
    },
    /// Detach a slot. Its number is quarantined before it is assigned again.
    Detach {
        /// The slot number.
        #[arg(value_parser = slot_number)]
        slot: u32,
        #[command(flatten)]
        control: ControlOptions,
    },
}

fn slot_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "need a slot number (strowger show slots)".to_owned())
}

fn seconds(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "need a whole number of seconds".to_owned())
}

/// Sends the request to the relay, and prints the change.
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
