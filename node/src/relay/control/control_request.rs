//! Parses requests for pings and traces on the control socket, and writes the replies as JSON.

use serde_json::{Map, Value, json};
use strowger_crypto::Identity;
use strowger_engine::control::messages::{ControlReply, ControlRequest, HopReport};
use strowger_wire::{Label, hex::Hex, limits::CONTROL_BYTES_MAX};

use crate::limits::PING_BYTES;

/// Parses the value of `ping`, `trace` or `identify`.
///
/// # Errors
/// One line with the fault and the expected value.
pub(super) fn read(verb: &str, what: &Value) -> Result<(Label, ControlRequest), String> {
    let object = what.as_object().ok_or(format!("{verb} takes an object with a label"))?;
    let known: &[&str] = if verb == "ping" { &["label", "bytes"] } else { &["label"] };
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("{verb} has no field {key:?}; its fields: {}", known.join(", ")));
    }
    let text = object.get("label").and_then(Value::as_str);
    let text = text.ok_or(format!("{verb} needs label, a string"))?;
    let label = Label::parse(text.as_bytes()).map_err(|error| format!("label: {error}"))?;
    let request = match verb {
        "ping" => {
            let payload_bytes = match object.get("bytes") {
                None | Some(Value::Null) => PING_BYTES,
                Some(bytes) => bytes
                    .as_u64()
                    .and_then(|bytes| u16::try_from(bytes).ok())
                    .filter(|bytes| usize::from(*bytes) + 8 <= CONTROL_BYTES_MAX)
                    .ok_or(format!("bytes in ping is 0 to {}", CONTROL_BYTES_MAX - 8))?,
            };
            ControlRequest::Ping { payload_bytes }
        }
        "trace" => ControlRequest::Trace,
        _ => ControlRequest::Identity,
    };
    Ok((label, request))
}

/// The replies to a ping or trace: `{"replies":[...],"done":..}`.
pub(super) fn replies(replies: &[ControlReply], done: bool) -> Value {
    let rows: Vec<Value> = replies.iter().filter_map(reply).collect();
    json!({ "replies": rows, "done": done })
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn reply(reply: &ControlReply) -> Option<Value> {
    Some(match reply {
        ControlReply::Pong { round_trip_ns, payload_bytes } => {
            json!({ "pong": true, "bytes": payload_bytes, "round_trip_us": micros(*round_trip_ns) })
        }
        ControlReply::Hop(report) => hop(report),
        ControlReply::TraceEnd => return None,
        ControlReply::Identity { identity, link_key } => {
            let peer_id = Identity::from_bytes(identity).ok().map(|it| it.peer_id().to_string());
            json!({ "peer_id": peer_id, "key": Hex(link_key).to_string() })
        }
        ControlReply::Complaint(complaint) => json!({
            "discard": complaint.why.name(),
            "hop": complaint.hops,
            "mtu": complaint.packet_bytes_max,
            "round_trip_us": micros(complaint.round_trip_ns),
        }),
        ControlReply::Silence => json!({ "silent": true }),
    })
}

fn hop(report: &HopReport) -> Value {
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
    put("hop", json!(report.hop));
    if let Some(word) = report.word {
        put("slot_in", json!(word.slot_in));
        put("slot_out", json!(word.slot_out));
        put("behind", json!(word.behind.name()));
        put("discard", json!(word.discard.map(|why| why.name())));
        put("held_us", json!(micros(word.held_ns)));
        put("worker_us", json!(micros(word.worker_ns)));
        put("queue_frames", json!(word.queue_frames));
        put("mtu", json!((word.packet_bytes_max > 0).then_some(word.packet_bytes_max)));
    }
    if let Some(why) = report.complaint {
        put("error", json!(why.name()));
    }
    let replied = report.word.is_some() || report.complaint.is_some();
    put("silent", json!(!replied));
    put("round_trip_us", json!(replied.then(|| micros(report.round_trip_ns))));
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_requests_are_parsed_or_refused_with_a_reason() {
        let label = Label::new(0x15);
        let read_ping = read("ping", &json!({ "label": "15", "bytes": 100 }));
        assert_eq!(read_ping, Ok((label, ControlRequest::Ping { payload_bytes: 100 })));
        assert_eq!(read("trace", &json!({ "label": "15" })), Ok((label, ControlRequest::Trace)));
        assert_eq!(
            read("identify", &json!({ "label": "15" })),
            Ok((label, ControlRequest::Identity))
        );
        for invalid in [
            json!(7),
            json!({}),
            json!({ "label": "xyz" }),
            json!({ "label": 15 }),
            json!({ "label": "15", "bytes": 70_000 }),
            json!({ "label": "15", "bites": 7 }),
        ] {
            assert!(read("ping", &invalid).is_err(), "{invalid}");
        }
        assert!(read("trace", &json!({ "label": "15", "bytes": 1 })).is_err());
    }
}
