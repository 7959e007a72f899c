//! The control messages of wire.md 5.5 as JSON: announcements, finds, observed addresses and
//! resolutions.

use serde_json::{Value, json};
use strowger_wire::{
    control::{
        AnnounceVerdict, Announcement, Host, Message, Resolution, ResolveTarget, ResolvedLabel,
    },
    hex::Hex,
    limits::RESOLVED_LABELS_MAX,
};

use super::{Fault, request::Request};

/// Writes a message of this kind.
pub(super) fn write(kind: &str, request: Request<'_>) -> Result<Value, Fault> {
    let id = || request.word("id");
    let (certificate, signature, nonce, tag, key, address);
    let message = match kind {
        "announce" => {
            (certificate, signature) = (request.array("certificate")?, request.array("signature")?);
            let announcement = Announcement {
                slot: request.word("slot")?,
                seconds: request.word("seconds")?,
                stamp: request.number("stamp")?,
                certificate: &certificate,
                signature: &signature,
            };
            Message::Announce { id: id()?, announcement }
        }
        "announced" => {
            let verdict = AnnounceVerdict::new(request.byte("code")?);
            Message::Announced { id: id()?, verdict, seconds: request.word("seconds")? }
        }
        "find" => {
            (nonce, tag) = (request.array("nonce")?, request.array("tag")?);
            Message::Find { nonce: &nonce, tag: &tag }
        }
        "found" => {
            nonce = request.array("nonce")?;
            let host = match request.byte_or("width", 0)? {
                0 => None,
                width => {
                    certificate = request.array("certificate")?;
                    Some(Host {
                        width,
                        director: request.number("director")?,
                        seconds: request.word("seconds")?,
                        mtu: request.number_to("longest", u16::MAX.into())? as u16,
                        certificate: &certificate,
                    })
                }
            };
            Message::Found { nonce: &nonce, host }
        }
        "observed_request" => Message::ObservedRequest { id: id()? },
        "observed_reply" => {
            let address = match request.has("address") {
                true => Some(request.text("address")?.parse().map_err(|_| request.bad("address"))?),
                false => None,
            };
            Message::ObservedReply { id: id()?, address }
        }
        "resolve" => {
            let target = if request.has("identity") {
                key = request.array("identity")?;
                ResolveTarget::Peer(&key)
            } else {
                let text = request.text("address")?;
                let parsed: std::net::Ipv6Addr =
                    text.parse().map_err(|_| request.bad("address"))?;
                address = parsed.octets();
                ResolveTarget::Address(&address)
            };
            Message::Resolve { id: id()?, target }
        }
        "resolved" => {
            let mut labels = [None; RESOLVED_LABELS_MAX];
            let given = request.objects("labels")?;
            if given.len() > labels.len() {
                return Err(request.bad("labels"));
            }
            for (place, given) in labels.iter_mut().zip(given) {
                *place = Some(ResolvedLabel {
                    label: given.text("label")?.parse().map_err(|_| given.bad("label"))?,
                    cost: given.word("cost")?,
                    mtu: given.number_to("longest", u16::MAX.into())? as u16,
                    seconds: given.word("seconds")?,
                });
            }
            key = if labels[0].is_some() { request.array("identity")? } else { [0; 32] };
            let resolution = Resolution {
                identity: &key,
                certificate: if request.has("certificate") {
                    certificate = request.array("certificate")?;
                    Some(&certificate)
                } else {
                    None
                },
                labels,
            };
            Message::Resolved { id: id()?, resolution }
        }
        _ => return Err("unknown_kind".into()),
    };
    let bytes = message.to_bytes();
    Message::parse(&bytes).map_err(super::packets::message_error)?;
    Ok(json!({ "message": Hex(&bytes).to_string() }))
}

/// The fields of a message of wire.md 5.5; an empty object for any other message.
pub(super) fn read(message: &Message<'_>) -> Value {
    let hex = |bytes: &[u8]| Hex(bytes).to_string();
    let mut read = match *message {
        Message::Announce { id, announcement } => json!({
            "kind": "announce",
            "id": id,
            "slot": announcement.slot,
            "seconds": announcement.seconds,
            "stamp": announcement.stamp,
            "certificate": hex(announcement.certificate),
            "signature": hex(announcement.signature),
        }),
        Message::Announced { id, verdict, seconds } => {
            json!({ "kind": "announced", "id": id, "code": verdict.number(), "seconds": seconds })
        }
        Message::Find { nonce, tag } => {
            json!({ "kind": "find", "nonce": hex(nonce), "tag": hex(tag) })
        }
        Message::Found { nonce, host: None } => {
            json!({ "kind": "found", "nonce": hex(nonce), "width": 0 })
        }
        Message::Found { nonce, host: Some(host) } => json!({
            "kind": "found",
            "nonce": hex(nonce),
            "width": host.width,
            "director": host.director,
            "seconds": host.seconds,
            "longest": host.mtu,
            "certificate": hex(host.certificate),
        }),
        Message::ObservedRequest { id } => json!({ "kind": "observed_request", "id": id }),
        Message::ObservedReply { id, address } => json!({
            "kind": "observed_reply",
            "id": id,
            "address": address.map(|address| address.to_string()),
        }),
        Message::Resolve { id, target: ResolveTarget::Peer(key) } => {
            json!({ "kind": "resolve", "id": id, "identity": hex(key) })
        }
        Message::Resolve { id, target: ResolveTarget::Address(address) } => json!({
            "kind": "resolve",
            "id": id,
            "address": std::net::Ipv6Addr::from(*address).to_string(),
        }),
        Message::Resolved { id, resolution } => {
            let labels = resolution.labels.iter().flatten().map(|label| {
                json!({
                    "label": label.label.to_string(),
                    "cost": label.cost,
                    "longest": label.mtu,
                    "seconds": label.seconds,
                })
            });
            json!({
                "kind": "resolved",
                "id": id,
                "identity": hex(resolution.identity),
                "certificate": resolution.certificate.map(|bytes| hex(bytes)),
                "labels": labels.collect::<Vec<_>>(),
            })
        }
        _ => json!({}),
    };
    // A field that is absent in the request is absent in the answer.
    if let Some(fields) = read.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    read
}
