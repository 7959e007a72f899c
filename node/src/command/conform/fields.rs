//! The fields that each operation accepts. A request with another field is refused, because a wrong
//! name of an optional field would have no effect.

use super::{Fault, OPERATIONS, request::Request};

/// Fields of a hello, which `hello` and the ends of `ik` and `xx` take.
const HELLO: &str = "index timestamp oldest newest suites seal widths flags lanes mtu scheme \
                     protocols fields";

/// Fields that exclude each other.
const EXCLUSIVE: [(&str, &str); 4] = [
    ("network", "network_hex"),
    ("scheme", "serialized"),
    ("ingress", "asker"),
    ("identity", "peer_id"),
];

/// Checks the names of all fields.
///
/// # Errors
/// `unknown_field` or `conflicting_fields`, and the field.
pub(super) fn check(op: &str, request: Request<'_>) -> Result<(), Fault> {
    let Some(known) = known(op, request) else { return Ok(()) };
    let names = format!("op bits {known}");
    check_names(request, &names)?;
    // An end of a handshake: its keys and its hello.
    let end = format!("seed static_private ephemeral secret source {HELLO}");
    for name in ["initiator", "responder"].into_iter().filter(|_| matches!(op, "ik" | "xx")) {
        if let Ok(object) = request.object(name) {
            check_names(object, &end)?;
        }
    }
    if op == "build" && request.has("hops") {
        for hop in request.objects("hops")? {
            check_names(hop, "scheme out in")?;
        }
    }
    if op == "identity" || op == "message" {
        return Ok(());
    }
    for (one, other) in EXCLUSIVE {
        if request.has(one) && request.has(other) {
            return Err(request.fault("conflicting_fields", other));
        }
    }
    Ok(())
}

fn check_names(request: Request<'_>, known: &str) -> Result<(), Fault> {
    let unknown = request.names().find(|name| !known.split(' ').any(|known| known == *name));
    unknown.map_or(Ok(()), |name| Err(request.fault("unknown_field", name)))
}

/// The fields of an operation; `None` if the operation is unknown.
fn known(op: &str, request: Request<'_>) -> Option<String> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == op)?;
    // The lists of these operations in `OPERATIONS` contain more than names of fields.
    let known = match op {
        "convert" => "scheme label form",
        "widen" => "scheme label ingress asker",
        "reverse" => "scheme label shift ingress",
        "build" => "hops scheme per",
        "scheme" => "scheme serialized",
        "mac" => "key label parts",
        "peer_id" => "identity peer_id",
        "counter" => "edge low older",
        "message" => match request.text("kind").ok()? {
            "ping" | "pong" => "kind id payload",
            "trace_request" | "identity_request" => "kind id",
            "trace_reply" => {
                "kind id slot_in egress slot_out held_ns worker_ns queued longest code"
            }
            "identity_reply" => "kind id identity static",
            "error" => "kind code offending",
            "too_big" => "kind longest offending",
            "slot_moved" => "kind former new offending",
            "slot_gone" => "kind former offending",
            "congestion" => "kind offending",
            "goodbye" => "kind retry_after_s code text",
            _ => return None,
        },
        _ => {
            let names = operation.takes.split(' ').map(|name| name.trim_end_matches('?'));
            let names: Vec<&str> = names.collect();
            let hex = if names.contains(&"network") { " network_hex" } else { "" };
            return Some(format!("{}{hex}", names.join(" ")));
        }
    };
    Some(known.to_owned())
}
