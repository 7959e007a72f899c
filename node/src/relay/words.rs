//! What the journal says of each event of the switch: its name, its slot, and a detail as text.

use strowger_engine::control::Event;

use strowger_runtime::address::Shown;

/// An event's name, the slot that it is about, and its detail.
pub(super) fn words_of(event: &Event) -> (&'static str, Option<u32>, Option<String>) {
    (event.name(), event.slot(), detail_of(event))
}

fn detail_of(event: &Event) -> Option<String> {
    let text = match *event {
        Event::AttachRefused(_, why) => why.to_string(),
        Event::SlotMoved(_, to) => format!("slot {to}"),
        Event::AliasUsed { ingress, named, .. } => format!("slot {named}, by slot {ingress}"),
        Event::PortUnplugged(port) | Event::WantsAlternate(port) => format!("port {}", port.0),
        Event::LinkTrouble(_, why) => why.to_string(),
        Event::UnknownRefused { port, at, key } => format!("key {key}, at {at}, port {}", port.0),
        Event::PathMtu(_, bytes) => format!("{bytes} bytes"),
        Event::Roamed(_, to) => Shown(to).to_string(),
        Event::KeyOnTwoNodes(_, [a, b]) => format!("at {} and at {}", Shown(a), Shown(b)),
        Event::PeerRefused(_, who) => format!("has the key, and is {who}"),
        Event::PeerSuggested { at, peer_id, .. } => format!("{peer_id} at {}", Shown(at)),
        Event::Goodbye { code, retry_after_s, ref text, .. } => {
            format!("code {code}, retry after {retry_after_s} s: {text}")
        }
        Event::SlotMovedAway { from, to, .. } => format!("slot {from} there is slot {to} now"),
        _ => return None,
    };
    Some(text)
}
