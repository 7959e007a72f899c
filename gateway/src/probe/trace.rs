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
use crate::{limits::TRACE_MAX, place::Place};

/// Traces a label. A failed trace shows where a packet is lost, but does not end the probe:
/// neighbours may refuse to answer this relay.
pub(super) fn check(place: &Place, label: &AnyLabel, report: &mut Report) {
    let began = Instant::now();
    let (state, text) = match hops(place, label) {
        Ok(hops) => found(label, &hops),
        Err(why) => {
            report.not_checked(format!("the hops of {label}: {why}"));
            (State::Skipped, format!("{label}: {why}"))
        }
    };
    report.add("hops", state, began.elapsed(), text);
}

/// The answer of the relay.
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

/// The verdict for a trace.
fn found(label: &AnyLabel, trace: &Value) -> (State, String) {
    let hops = trace["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    let times = hops.iter().filter_map(|hop| hop["round_trip_us"].as_f64());
    let times: Vec<String> = times
        .map(|us| format!("{:.1} ms", Duration::from_secs_f64(us / 1e6).as_secs_f64() * 1e3))
        .collect();
    let times = if times.is_empty() { String::new() } else { format!(" ({})", times.join(", ")) };
    match (trace["reached"].as_str(), trace["why"].as_str()) {
        (Some("an endpoint"), _) => {
            (State::Passed, format!("{label}: {} hops{times}, leads to an endpoint", hops.len()))
        }
        (Some(other), _) => (State::Failed, format!("{label} leads to {other}, not to a program")),
        // The handshake shows whether packets arrive.
        (None, why) => (State::Skipped, format!("{label}: {}", why.unwrap_or("no answer"))),
    }
}
