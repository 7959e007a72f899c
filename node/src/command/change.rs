//! The common code of `strowger slot` and `strowger scheme`. It sends a request for a change and
//! prints the result.

use std::{fmt::Write as _, io::Write};

use serde_json::Value;
use strowger_runtime::untrusted::{Untrusted, json_line};

use super::{
    control_connection::{ControlConnection, ControlOptions},
    print::{print, rows, text},
};
use crate::exit::Failure;

/// Sends a request, and prints the change that the relay made.
///
/// # Errors
/// One line: no relay answers, or the relay declined the request.
pub(super) fn change(
    request: &Value,
    control: &ControlOptions,
    output: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = ControlConnection::open(&control.socket)?.ask(request)?;
    let text = if control.json { json_line(&answer) } else { change_shown(&answer) };
    print(output, &format!("{text}\n"))
}

/// The text about a change that the relay made.
fn change_shown(answer: &Value) -> String {
    match answer.as_object().and_then(|object| object.iter().next()) {
        Some((what, of)) if what == "renumbered" => renumbered_shown(of),
        // The object has two fields in alphabetical order, so `attached` comes first.
        Some((what, slot)) if what == "attached" && answer["opens_s"].is_u64() => format!(
            "slot {slot} attached: it opens in {} s, when no packet for its former user can arrive any more",
            answer["opens_s"]
        ),
        Some((what, of)) if what == "draining" => {
            format!("slot {} drains and is detached in {} s", of["slot"], of["for_s"])
        }
        Some((what, of)) if what == "grown" => format!(
            "the scheme is {}, slots up to {}; write both into the configuration, or the next start \
            uses the former scheme",
            text(&of["scheme"]),
            of["slot_max"]
        ),
        Some((what, slot)) => format!("slot {slot} {}", Untrusted(what)),
        None => json_line(answer),
    }
}

fn renumbered_shown(of: &Value) -> String {
    let (slot, to, alias_s) = (&of["slot"], &of["to"], &of["alias_s"]);
    let mut shown =
        format!("slot {slot} is slot {to} now; the former number leads to it for {alias_s} s");
    let bits: Vec<String> = rows(of, "narrow_bits").map(text).collect();
    if !bits.is_empty() {
        let bits = bits.join(" or ");
        let _ = write!(
            shown,
            "\nwarning: slot {to} does not fit {bits} bits: packets from there whose label names a slot of \
             this relay in {bits} bits have the former number in their return path for {alias_s} s, and \
             are discarded as return_path after that; widen such labels (`strowger show slots --json` \
             counts them as by_former_number)"
        );
    }
    shown
}
