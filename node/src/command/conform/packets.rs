//! Operations on packets: the two headers, seals, counters and control messages (wire.md 2, 3, 5).

use serde_json::{Value, json};
use strowger_crypto::{OpenRefused, SealRefused, vectors};
use strowger_wire::{
    Register,
    control::{Behind, HopWord, Message, MessageError, Reason},
    hex::Hex,
    limits::CONTROL_BYTES_MAX,
    link_header::{Kind as LinkKind, LinkHeader, LinkHeaderError},
    switch_header::{AnyHeader, Ecn, Flags, HeaderError, HeaderRepr},
    with_header,
};

use super::{Fault, Kind, request::Request};

/// The reply to an operation on packets; `None` for other operations.
pub(super) fn answer<R: Register>(op: &str, request: Request<'_>) -> Option<Result<Value, Fault>> {
    Some(match op {
        "link_header" => link_header(request),
        "link_header_read" => link_header_read(request),
        "header" => header::<R>(request),
        "header_read" => header_read(request),
        "lane_key" => lane_key(request),
        "seal" => seal(request),
        "open" => open(request),
        "counter" => counter(request),
        "message" => message(request),
        "message_read" => message_read(request),
        _ => return None,
    })
}

fn link_kind(request: Request<'_>) -> Result<LinkKind, Fault> {
    LinkKind::from_number(request.byte("kind")?).ok_or_else(|| request.bad("kind"))
}

fn link_header(request: Request<'_>) -> Result<Value, Fault> {
    let (kind, lane, index) = (link_kind(request)?, request.lane()?, request.index()?);
    let header = LinkHeader { kind, lane, index, low: request.word("low")? };
    Ok(json!({ "header": Hex(&header.to_bytes()).to_string() }))
}

fn read_link_header(packet: &[u8]) -> Result<LinkHeader, Kind> {
    LinkHeader::parse(packet).map_err(|why| match why {
        LinkHeaderError::Runt => "too_short",
        LinkHeaderError::UnknownKind => "bad_link_kind",
    })
}

fn link_header_read(request: Request<'_>) -> Result<Value, Fault> {
    let LinkHeader { kind, lane, index, low } = read_link_header(&request.bytes("packet")?)?;
    let (kind, lane) = (kind as u8, lane.number());
    Ok(json!({ "kind": kind, "lane": lane, "index": index.number(), "low": low }))
}

fn header<R: Register>(request: Request<'_>) -> Result<Value, Fault> {
    let header = HeaderRepr::<R> {
        flags: Flags {
            no_errors: request.flag("e")?,
            control: request.flag("c")?,
            telemetry: request.flag("t")?,
        },
        ecn: Ecn::from_bits(request.number_or("ecn", 0, 3)? as u8),
        hops_left: request.byte("hops")?,
        class: request.byte_or("class", 0)?,
        shift: request.shift()?,
        flow: request.number_or("flow", 0, u16::MAX.into())? as u16,
        label: request.label("label")?,
    };
    let mut bytes = vec![0; header.wire_bytes()];
    header.emit(&mut bytes).map_err(HeaderError::kind)?;
    Ok(json!({ "header": Hex(&bytes).to_string() }))
}

fn header_read(request: Request<'_>) -> Result<Value, Fault> {
    let mut packet = request.bytes("packet")?;
    let header = AnyHeader::parse(&mut packet).map_err(HeaderError::kind)?;
    Ok(with_header!(header, header => {
        let read = header.to_repr();
        json!({
            "label": format!("{:x}", read.label),
            "bits": (read.wire_bytes() - 8) * 8,
            "shift": read.shift,
            "hops": read.hops_left,
            "class": read.class,
            "flow": read.flow,
            "ecn": read.ecn as u8,
            "e": read.flags.no_errors,
            "c": read.flags.control,
            "t": read.flags.telemetry,
            "payload": Hex(header.payload()).to_string(),
        })
    }))
}

fn lane_key(request: Request<'_>) -> Result<Value, Fault> {
    let key = vectors::lane_key(request.domain()?, &request.secret("key")?, request.lane()?);
    Ok(json!({ "lane_key": Hex(&key).to_string() }))
}

fn seal(request: Request<'_>) -> Result<Value, Fault> {
    let (kind, body) = (link_kind(request)?, request.bytes("body")?);
    let (to, counter) = ((request.lane()?, request.index()?), request.number("counter")?);
    let sealed =
        vectors::seal((request.domain()?, &request.secret("key")?), kind, to, counter, &body);
    let packet = sealed.ok_or("kind_not_sealed")?.map_err(|why| match why {
        SealRefused::NoRoom => "too_short",
        SealRefused::Expired => "keys_expired",
        SealRefused::Exhausted => "counter_exhausted",
    })?;
    Ok(json!({ "packet": Hex(&packet).to_string() }))
}

fn open(request: Request<'_>) -> Result<Value, Fault> {
    let mut packet = request.bytes("packet")?;
    let index = read_link_header(&packet)?.index.number();
    let (key, edge) = (request.secret("key")?, request.number_or("edge", 0, u64::MAX)?);
    let opened =
        vectors::open((request.domain()?, &key), edge, &mut packet).map_err(open_refused)?;
    Ok(json!({
        "kind": opened.kind() as u8,
        "lane": opened.lane().number(),
        "index": index,
        "counter": opened.counter(),
        "body": Hex(opened.body()).to_string(),
    }))
}

fn counter(request: Request<'_>) -> Result<Value, Fault> {
    let (edge, low) = (request.number("edge")?, request.word("low")?);
    let mut older = Vec::new();
    if request.has("older") {
        for counter in request.list("older")? {
            older.push(counter.as_u64().ok_or_else(|| request.bad("older"))?);
        }
    }
    let counter = vectors::counter(edge, &older, low).map_err(open_refused)?;
    Ok(json!({ "counter": counter }))
}

fn open_refused(why: OpenRefused) -> Kind {
    match why {
        OpenRefused::Runt => "too_short",
        OpenRefused::WrongKind => "kind_not_sealed",
        OpenRefused::NoSuchLane => "no_such_lane",
        OpenRefused::Expired => "keys_expired",
        OpenRefused::Replayed => "replayed",
        OpenRefused::TooOld => "too_old",
        OpenRefused::Forged => "forged",
    }
}

fn message(request: Request<'_>) -> Result<Value, Fault> {
    let id = || request.word("id");
    let (payload, offending) =
        (request.bytes_or_none("payload")?, request.bytes_or_none("offending")?);
    let (payload, offending) = (payload.as_slice(), offending.as_slice());
    let (identity, link_key);
    let message = match request.text("kind")? {
        "ping" => Message::Ping { id: id()?, payload },
        "pong" => Message::Pong { id: id()?, payload },
        "trace_request" => Message::TraceRequest { id: id()? },
        "trace_reply" => Message::TraceReply { id: id()?, hop: hop(request)? },
        "identity_request" => Message::IdentityRequest { id: id()? },
        "identity_reply" => {
            (identity, link_key) = (request.array("identity")?, request.array("static")?);
            Message::IdentityReply { id: id()?, identity: &identity, link_key: &link_key }
        }
        "error" => Message::Error { why: Reason::new(request.byte("code")?), offending },
        "too_big" => {
            let longest = request.number_to("longest", u16::MAX.into())? as u16;
            Message::TooBig { packet_bytes_max: longest, offending }
        }
        "slot_moved" => Message::SlotMoved {
            from: request.word("former")?,
            to: request.word("new")?,
            offending,
        },
        "slot_gone" => Message::SlotGone { slot: request.word("former")?, offending },
        "congestion" => Message::Congestion { offending },
        "goodbye" => Message::Goodbye {
            code: request.byte_or("code", 0)?,
            retry_after_s: request.word("retry_after_s")?,
            text: if request.has("text") { request.text("text")? } else { "" },
        },
        kind => return super::lookups::write(kind, request),
    };
    let bytes = message.to_bytes();
    let is_whole = message.wire_bytes() == bytes.len() && bytes.len() <= CONTROL_BYTES_MAX;
    // Refuse to write a message that no receiver accepts.
    if !is_whole {
        return Err("too_long".into());
    }
    Message::parse(&bytes).map_err(message_error)?;
    Ok(json!({ "message": Hex(&bytes).to_string() }))
}

fn hop(request: Request<'_>) -> Result<HopWord, Fault> {
    let reason = request.byte_or("code", 0)?;
    let slot_out = match request.get("slot_out") {
        None | Some(Value::Null) => None,
        Some(_) => Some(request.number_to("slot_out", 0xff_fffe)? as u32),
    };
    Ok(HopWord {
        slot_in: request.word("slot_in")?,
        slot_out,
        behind: Behind::from_number(request.byte("egress")?)
            .ok_or_else(|| request.bad("egress"))?,
        discard: (reason != 0).then_some(Reason::new(reason)),
        held_ns: request.number("held_ns")?,
        worker_ns: request.number("worker_ns")?,
        queue_frames: request.number_to("queued", u16::MAX.into())? as u16,
        packet_bytes_max: request.number_to("longest", u16::MAX.into())? as u16,
    })
}

fn message_read(request: Request<'_>) -> Result<Value, Fault> {
    let bytes = request.bytes("message")?;
    let hex = |bytes: &[u8]| Hex(bytes).to_string();
    Ok(match Message::parse(&bytes).map_err(message_error)? {
        Message::Ping { id, payload } => {
            json!({ "kind": "ping", "id": id, "payload": hex(payload) })
        }
        Message::Pong { id, payload } => {
            json!({ "kind": "pong", "id": id, "payload": hex(payload) })
        }
        Message::TraceRequest { id } => json!({ "kind": "trace_request", "id": id }),
        Message::TraceReply { id, hop } => json!({
            "kind": "trace_reply",
            "id": id,
            "code": hop.discard.map_or(0, Reason::number),
            "slot_in": hop.slot_in,
            "egress": hop.behind as u8,
            "slot_out": hop.slot_out,
            "held_ns": hop.held_ns,
            "worker_ns": hop.worker_ns,
            "queued": hop.queue_frames,
            "longest": hop.packet_bytes_max,
        }),
        Message::IdentityRequest { id } => json!({ "kind": "identity_request", "id": id }),
        Message::IdentityReply { id, identity, link_key } => json!({
            "kind": "identity_reply",
            "id": id,
            "identity": hex(identity),
            "static": hex(link_key),
        }),
        Message::Error { why, offending } => {
            json!({ "kind": "error", "code": why.number(), "offending": hex(offending) })
        }
        Message::TooBig { packet_bytes_max, offending } => {
            json!({ "kind": "too_big", "longest": packet_bytes_max, "offending": hex(offending) })
        }
        Message::SlotMoved { from, to, offending } => json!({
            "kind": "slot_moved",
            "former": from,
            "new": to,
            "offending": hex(offending),
        }),
        Message::SlotGone { slot, offending } => {
            json!({ "kind": "slot_gone", "former": slot, "offending": hex(offending) })
        }
        Message::Congestion { offending } => {
            json!({ "kind": "congestion", "offending": hex(offending) })
        }
        Message::Goodbye { code, retry_after_s, text } => json!({
            "kind": "goodbye",
            "code": code,
            "retry_after_s": retry_after_s,
            "text": text,
        }),
        lookup => super::lookups::read(&lookup),
    })
}

pub(super) fn message_error(why: MessageError) -> Kind {
    match why {
        MessageError::TooShort => "too_short",
        MessageError::TooLong => "too_long",
        MessageError::Version => "bad_version",
        MessageError::Kind => "unknown_kind",
        MessageError::Field => "bad_message_field",
    }
}
