//! Which events of the switch an operator reads in the log, and in which words. It keeps nothing, and writes
//! nothing by itself.

use strowger_engine::control::Event;

use crate::relay::log::Kind;
use strowger_runtime::address::Shown;

/// The kind and the text of the line about this event, if there is one. All others stand in the journal only.
pub(super) fn logged(event: &Event) -> Option<(Kind, String)> {
    let line = match *event {
        Event::LinkUp(_) => (Kind::LinkUp, "the link is up".to_owned()),
        Event::LinkDown(_) => (Kind::LinkDown, "the link is down".to_owned()),
        Event::LinkTrouble(_, why) => (Kind::LinkDown, format!("the link is down: {why}")),
        Event::UnknownRefused { at, key, .. } => {
            let text = format!(
                "refused a handshake from {}: no peer is configured with the key {key}",
                Shown(at)
            );
            (Kind::PeerRefused, text)
        }
        Event::Roamed(_, to) => (Kind::AddressMoved, format!("its address is {} now", Shown(to))),
        Event::KeyOnTwoNodes(_, [a, b]) => {
            let (a, b) = (Shown(a), Shown(b));
            let text = format!(
                "two nodes have its key, at {a} and at {b}, and take the link from each other; give one of \
                 them a key of its own (strowger key new)"
            );
            (Kind::KeyOnTwoNodes, text)
        }
        Event::PeerRefused(_, ref who) => {
            let text = format!("refused: it has the key of this peer and the identity {who}");
            (Kind::KeyRefused, text)
        }
        Event::AttachRefused(_, ref why) => {
            (Kind::AttachRefused, format!("cannot be attached: {why}"))
        }
        Event::Goodbye { code, retry_after_s, ref text, .. } => {
            let text = format!(
                "the peer ended the link (code {code}, retry after {retry_after_s} s): {text}"
            );
            (Kind::Goodbye, text)
        }
        _ => return None,
    };
    Some(line)
}

/// How a line names what is at a slot.
pub(super) fn subject(slot: Option<u32>, name: &str) -> String {
    match (slot, name) {
        (Some(slot), "") => format!("slot {slot}"),
        (Some(slot), name) => format!("slot {slot} \"{name}\""),
        (None, name) => name.to_owned(),
    }
}
