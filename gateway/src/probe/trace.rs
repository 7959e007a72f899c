//! Traces the hops of a label: runs the command `strowger`, from the folder of this program, which
//! asks the relay.

use std::{
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;
use strowger_wire::label::AnyLabel;

use super::report::{Report, State};
use crate::{limits::TRACE_MAX, place::Place, relay};

/// Traces a label. A failed trace shows where a packet is lost, but does not end the probe:
/// neighbours may refuse to answer this relay.
pub(super) fn check(place: &Place, label: &AnyLabel, source: &str, report: &mut Report) {
    let began = Instant::now();
    let of = format!("{label} (known to {source})");
    match hops(place, label) {
        Ok(trace) => {
            found(&of, began.elapsed(), &trace, &relay::link_names(&place.control), report)
        }
        Err(why) => {
            report.add("label", State::Skipped, began.elapsed(), format!("{of}: {why}"));
            report.add("hop", State::Skipped, Duration::ZERO, format!("of {label}: no trace"));
        }
    }
}

/// Asks the relay to trace a label, and returns its answer as JSON.
fn hops(place: &Place, label: &AnyLabel) -> Result<Value, String> {
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(here.with_file_name("strowger"));
    command.args(["trace", &label.to_string(), "--json", "--socket"]).arg(&place.control);
    let ran = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = ran.map_err(|error| format!("the command strowger cannot be run: {error}"))?;
    let (give, take) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("trace".to_owned())
        .spawn(move || give.send(child.wait_with_output()))
        .map_err(|error| error.to_string())?;
    let timed_out = "the relay's trace has not ended in time".to_owned();
    let output = take.recv_timeout(TRACE_MAX).map_err(|_| timed_out)?;
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        error.trim().trim_start_matches("strowger: ").to_owned()
    })
}

/// Adds the verdict for a label, and one for each of its hops.
fn found(label: &str, took: Duration, trace: &Value, links: &[(u64, String)], report: &mut Report) {
    let hops = trace["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (state, text) = match (trace["reached"].as_str(), trace["why"].as_str()) {
        (Some("an endpoint"), _) => {
            (State::Passed, format!("{label}: {} hops, leads to an endpoint", hops.len()))
        }
        (Some(other), _) => (State::Failed, format!("{label} leads to {other}, not to a program")),
        // The handshake shows whether packets arrive.
        (None, why) => (State::Skipped, format!("{label}: {}", why.unwrap_or("no answer"))),
    };
    report.add("label", state, took, text);
    for (place, hop) in hops.iter().enumerate() {
        let (state, text) = verdict(place, hop, links);
        let us = hop["round_trip_us"].as_f64().unwrap_or_default();
        let round_trip = Duration::try_from_secs_f64(us / 1e6).unwrap_or_default();
        report.add("hop", state, round_trip, text);
    }
}

/// The state and the text of one hop. Hop 0 is the relay of this program, whose links have names.
fn verdict(place: usize, hop: &Value, links: &[(u64, String)]) -> (State, String) {
    let number = hop["hop"].as_u64().unwrap_or(place as u64);
    if hop["silent"] == true {
        return (State::Skipped, format!("{number}: no answer"));
    }
    let slot = |key: &str| hop[key].as_u64().map_or("?".to_owned(), |slot| slot.to_string());
    let out = hop["slot_out"].as_u64().filter(|_| place == 0);
    let name = links.iter().find(|(slot, _)| Some(*slot) == out);
    let name = name.map(|(_, name)| format!(" ({name})")).unwrap_or_default();
    let slots =
        format!("{number}: slot {} in, slot {} out{name}", slot("slot_in"), slot("slot_out"));
    match (hop["discard"].as_str(), hop["error"].as_str(), hop["behind"].as_str()) {
        (Some(why), ..) => (State::Failed, format!("{slots}: discarded, {why}")),
        (None, Some("hops_spent"), _) => (
            State::Passed,
            format!("{number}: packets arrive; it gives this relay no slot numbers"),
        ),
        (None, Some(why), _) => (State::Failed, format!("{number}: discarded, {why}")),
        (None, None, behind) => {
            (State::Passed, format!("{slots}, leads to {}", behind.unwrap_or("the next switch")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_hop_has_a_verdict_with_its_slots_and_the_name_of_the_first_link() {
        let links = [(3, "carol".to_owned())];
        let hop = |number: u8, behind: &str| json!({ "hop": number, "slot_in": 2, "slot_out": 3, "behind": behind, "discard": null });
        let told = |place: usize, hop: Value| verdict(place, &hop, &links);
        let first = told(0, hop(0, "neighbour"));
        assert_eq!(
            first,
            (State::Passed, "0: slot 2 in, slot 3 out (carol), leads to neighbour".to_owned())
        );
        let second = told(1, hop(1, "endpoint"));
        assert_eq!(
            second,
            (State::Passed, "1: slot 2 in, slot 3 out, leads to endpoint".to_owned())
        );
        let mut dead = hop(1, "nothing");
        dead["discard"] = json!("empty_slot");
        assert_eq!(told(1, dead).0, State::Failed);
        assert_eq!(told(2, json!({ "hop": 2, "silent": true })).0, State::Skipped);
        assert_eq!(told(2, json!({ "hop": 2, "error": "hops_spent" })).0, State::Passed);
        assert_eq!(told(2, json!({ "hop": 2, "error": "too_big" })).0, State::Failed);
    }
}
