//! The texts about an event of the switch: its detail in the journal, and its line in the log.

use strowger_engine::control::Event;
use strowger_runtime::address::AddressText;
use strowger_wire::Slot;

use super::log::Kind;

/// The detail of an event in the journal. The event's name and slot are separate fields there.
pub(super) fn detail(event: &Event) -> Option<String> {
    Some(match *event {
        Event::AttachRefused(_, why) => why.to_string(),
        Event::SlotMoved(_, to) => format!("slot {to}"),
        Event::AliasUsed { ingress, named, .. } => format!("slot {named}, by slot {ingress}"),
        Event::PortUnplugged(port) | Event::WantsAlternate(port) => format!("port {}", port.0),
        Event::LinkTrouble(_, why) => why.to_string(),
        Event::UnknownRefused { port, at, key } => {
            format!("key {key}, at {at}, port {}", port.0)
        }
        Event::PathMtu(_, bytes) => format!("{bytes} bytes"),
        Event::Roamed(_, to) => AddressText(to).to_string(),
        Event::KeyOnTwoNodes(_, [a, b]) => {
            format!("at {} and at {}", AddressText(a), AddressText(b))
        }
        Event::PeerRefused(_, identity) => format!("has the key, and the identity {identity}"),
        Event::PeerSuggested { at, peer_id, .. } => format!("{peer_id} at {}", AddressText(at)),
        Event::Goodbye { code, retry_after_s, ref text, .. } => {
            format!("{}, retry after {retry_after_s} s: {text}", code_text(code))
        }
        Event::Announced { peer, .. } | Event::AnnouncementEnded { peer, .. } => peer.to_string(),
        Event::AnnounceRefused { verdict, .. } => verdict.text().to_owned(),
        Event::SlotMovedAway { from, to, .. } => format!("slot {from} there is slot {to} now"),
        _ => return None,
    })
}

/// The kind and text of the event's line in the log. An event without a line is only in the
/// journal.
pub(super) fn log_line(event: &Event) -> Option<(Kind, String)> {
    Some(match *event {
        Event::LinkUp(_) => (Kind::LinkUp, "the link is up".to_owned()),
        Event::LinkDown(_) => (Kind::LinkDown, "the link is down".to_owned()),
        Event::LinkTrouble(_, why) => (Kind::LinkDown, format!("the link is down: {why}")),
        Event::UnknownRefused { at, key, .. } => {
            let text = format!(
                "refused a handshake from {}: no peer is configured with the key {key}",
                AddressText(at)
            );
            (Kind::UnknownPeerRefused, text)
        }
        Event::Roamed(_, to) => {
            (Kind::AddressMoved, format!("its address is {} now", AddressText(to)))
        }
        Event::KeyOnTwoNodes(_, [a, b]) => {
            let (a, b) = (AddressText(a), AddressText(b));
            let text = format!(
                "two nodes have its key, at {a} and at {b}, and take the link from each other; give one of \
                 them a key of its own (strowger key new)"
            );
            (Kind::KeyOnTwoNodes, text)
        }
        Event::PeerRefused(_, ref identity) => {
            let text = format!("refused: it has the key of this peer and the identity {identity}");
            (Kind::KeyRefused, text)
        }
        Event::AttachRefused(_, ref why) => {
            (Kind::AttachRefused, format!("cannot be attached: {why}"))
        }
        Event::Goodbye { code, retry_after_s, ref text, .. } => {
            let text = format!(
                "the peer ended the link ({}, retry after {retry_after_s} s): {text}",
                code_text(code)
            );
            (Kind::Goodbye, text)
        }
        _ => return None,
    })
}

/// The code of a goodbye with its name (wire.md W5-31).
fn code_text(code: u8) -> String {
    let name = match code {
        0 => "unspecified",
        1 => "stopping",
        2 => "restarting",
        3 => "by the operator",
        4 => "no room",
        _ => return format!("code {code}"),
    };
    format!("code {code}, {name}")
}

/// The subject of a line in the log.
pub(super) fn subject(slot: Option<Slot>, name: &str) -> String {
    match (slot, name) {
        (Some(slot), "") => format!("slot {slot}"),
        (Some(slot), name) => format!("slot {slot} \"{name}\""),
        (None, name) => name.to_owned(),
    }
}
