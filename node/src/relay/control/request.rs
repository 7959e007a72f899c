//! Parses requests of clients, and passes them to the slow path.

use std::path::PathBuf;

use serde_json::Value;
use strowger_runtime::address;
use strowger_wire::Slot;

use super::{AttachRequest, Request, change, control_request, error, render};
use crate::{
    limits::REPLY_MAX,
    relay::{
        RequestSender,
        config::{parse_key, parse_peer_id, parse_rights},
    },
};

/// A valid request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientRequest {
    SlowPath(Request),
    Events,
    WatchBalance,
    WatchEvents,
}

/// Sends a request to the slow path, and blocks until its response arrives.
pub(super) fn ask(slow_path: &RequestSender, request: Request) -> Value {
    match slow_path.ask(request).recv_timeout(REPLY_MAX).ok() {
        Some(response) => render::response(&response),
        None => error("no_answer", "the slow path is stopping or overloaded; ask again"),
    }
}

pub(super) fn read_request(line: &[u8]) -> Result<ClientRequest, String> {
    const EXPECTED: &str = "one object with one of show, attach, detach, renumber, drain, grow, watch, \
                          ping, trace, identify, replies";
    let value: Value =
        serde_json::from_slice(line).map_err(|_| format!("not JSON; a request is {EXPECTED}"))?;
    let object = value.as_object().filter(|object| object.len() == 1);
    let Some((verb, what)) = object.and_then(|object| object.iter().next()) else {
        return Err(format!("a request is {EXPECTED}"));
    };
    let request = match (verb.as_str(), what.as_str()) {
        #[cfg(debug_assertions)]
        ("panic", Some("slow_path")) => Request::Panic,
        ("show", Some("slots")) => Request::Slots,
        ("show", Some("ports")) => Request::Ports,
        ("show", Some("discards")) => Request::Discards,
        ("show", Some("status")) => Request::Status,
        ("show", Some("peers")) => Request::Peers,
        ("show", Some("links")) => Request::Links,
        ("show", Some("events")) => return Ok(ClientRequest::Events),
        ("show", _) => {
            let topics = "slots, ports, peers, links, events, discards or status";
            return Err(format!("show takes {topics}"));
        }
        ("watch", Some("balance")) => return Ok(ClientRequest::WatchBalance),
        ("watch", Some("events")) => return Ok(ClientRequest::WatchEvents),
        ("watch", _) => return Err("watch takes balance or events".to_owned()),
        ("attach", _) => Request::Attach(Box::new(read_attach(what)?)),
        ("detach", _) => {
            let slot = what.as_u64().and_then(|slot| u32::try_from(slot).ok());
            Request::Detach(Slot::new(slot.ok_or("detach takes a slot number")?))
        }
        ("renumber", _) => change::renumber(what)?,
        ("drain", _) => change::drain(what)?,
        ("grow", _) => change::grow(what)?,
        ("ping" | "trace" | "identify", _) => {
            let (label, request) = control_request::read(verb, what)?;
            Request::Control(label, request)
        }
        ("replies", _) => {
            let number = what.as_u64().and_then(|number| u32::try_from(number).ok());
            Request::Replies(number.ok_or("replies takes the number of a request")?)
        }
        _ => return Err(format!("a request is {EXPECTED}")),
    };
    Ok(ClientRequest::SlowPath(request))
}

fn read_attach(what: &Value) -> Result<AttachRequest, String> {
    let object = what.as_object().ok_or("attach takes an object with name and address")?;
    let known = ["name", "address", "listener", "slot", "key", "peer_id", "psk", "rights"];
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("attach has no field {key:?}; its fields: {}", known.join(", ")));
    }
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} in attach must be a string")),
    };
    let slot = match object.get("slot") {
        None | Some(Value::Null) => None,
        Some(slot) => {
            let slot = slot.as_u64().and_then(|slot| u32::try_from(slot).ok());
            Some(slot.ok_or("slot in attach must be a slot number")?)
        }
    };
    let rights = match object.get("rights") {
        None | Some(Value::Null) => None,
        Some(list) => {
            let words = list.as_array().map(|list| list.iter().map(Value::as_str).collect());
            let words: Option<Vec<&str>> = words.flatten();
            Some(parse_rights(
                words.ok_or("rights in attach must be a list of strings")?.into_iter(),
            )?)
        }
    };
    let key = text("key")?.map(|key| parse_key(&key)).transpose()?;
    let peer_id = text("peer_id")?.map(|peer_id| parse_peer_id(&peer_id)).transpose()?;
    if key.is_none() && peer_id.is_none() && (rights.is_some() || text("psk")?.is_some()) {
        return Err("psk and rights in attach go with the key or peer_id of a peer".to_owned());
    }
    Ok(AttachRequest {
        name: text("name")?.ok_or("attach needs name")?,
        address: text("address")?.map(|at| address::parse_here(&at)).transpose()?,
        listener: text("listener")?,
        slot: slot.map(Slot::new),
        key,
        peer_id,
        psk: text("psk")?.map(PathBuf::from),
        rights,
    })
}

#[cfg(test)]
mod tests {
    use strowger_frame::Address;
    use strowger_wire::scheme::F8;

    use super::*;

    #[test]
    fn requests_are_parsed_or_refused_with_a_reason() {
        let read = |line: &str| read_request(line.as_bytes());
        let request = |request| Ok(ClientRequest::SlowPath(request));
        assert_eq!(read(r#"{"show":"slots"}"#), request(Request::Slots));
        assert_eq!(read(r#" {"detach":7} "#), request(Request::Detach(Slot::new(7))));
        let renumber = Request::Renumber { from: Slot::new(7), to: Some(Slot::new(9)) };
        assert_eq!(read(r#"{"renumber":{"slot":7,"to":9}}"#), request(renumber));
        let drain = Request::Drain { slot: Slot::new(7), for_s: 60 };
        assert_eq!(read(r#"{"drain":{"slot":7}}"#), request(drain));
        let grow = Request::Grow { scheme: Box::new(F8), slot_max: Some(99) };
        assert_eq!(read(r#"{"grow":{"scheme":"f8","slot_max":99}}"#), request(grow));
        assert_eq!(read(r#"{"watch":"balance"}"#), Ok(ClientRequest::WatchBalance));
        let attach = AttachRequest {
            name: "a".to_owned(),
            address: Some(Address::Udp("127.0.0.1:9".parse().unwrap())),
            listener: None,
            slot: Some(Slot::new(4)),
            key: None,
            peer_id: None,
            psk: None,
            rights: None,
        };
        let line = r#"{"attach":{"name":"a","address":"127.0.0.1:9","slot":4}}"#;
        assert_eq!(read(line), request(Request::Attach(Box::new(attach))));
        for invalid in [
            "",
            "{}",
            "[]",
            "7",
            "nonsense",
            r#"{"show":"slots","show2":1}"#,
            r#"{"show":"everything"}"#,
            r#"{"show":7}"#,
            r#"{"detach":-1}"#,
            r#"{"detach":4294967296}"#,
            r#"{"renumber":5}"#,
            r#"{"renumber":{"to":5}}"#,
            r#"{"renumber":{"slot":5,"too":6}}"#,
            r#"{"drain":{"slot":5,"for_s":86401}}"#,
            r#"{"drain":{"slot":"5"}}"#,
            r#"{"grow":{"slot_max":5}}"#,
            r#"{"grow":{"scheme":"v9"}}"#,
            r#"{"attach":{}}"#,
            r#"{"attach":{"name":"a","adress":"127.0.0.1:9"}}"#,
            r#"{"attach":{"name":"a","address":"localhost:9"}}"#,
            "\u{0}",
        ] {
            assert!(read(invalid).is_err(), "{invalid}");
        }
    }
}
