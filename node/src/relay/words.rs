//! What the journal says of each event of the switch: its name, its slot, and what else is to be said. It
//! keeps nothing, and writes nothing by itself.

use strowger_engine::control::Event;

use strowger_runtime::address::Shown;

/// An event's name, the slot that it is about, and what else is to be said.
pub(super) fn words_of(event: &Event) -> (&'static str, Option<u32>, Option<String>) {
    match *event {
        Event::SlotAttached(slot) => ("slot_attached", Some(slot), None),
        Event::AttachRefused(slot, why) => ("attach_refused", Some(slot), Some(why.to_string())),
        Event::SlotDetached(slot) => ("slot_detached", Some(slot), None),
        Event::SlotFree(slot) => ("slot_free", Some(slot), None),
        Event::SlotDraining(slot) => ("slot_draining", Some(slot), None),
        Event::SlotMoved(slot, to) => ("slot_moved", Some(slot), Some(format!("slot {to}"))),
        Event::AliasUsed { ingress, named, slot } => {
            let text = format!("slot {named}, by slot {ingress}");
            ("alias_used", Some(slot), Some(text))
        }
        Event::AliasEnded(slot) => ("alias_ended", Some(slot), None),
        Event::SchemeGrown => ("scheme_grown", None, None),
        Event::PortUnplugged(port) => ("port_unplugged", None, Some(format!("port {}", port.0))),
        Event::SlowPathRestarted => ("slow_path_restarted", None, None),
        Event::LinkUp(slot) => ("link_up", Some(slot), None),
        Event::LinkQuiet(slot) => ("link_quiet", Some(slot), None),
        Event::LinkDown(slot) => ("link_down", Some(slot), None),
        Event::LinkTrouble(slot, why) => ("link_trouble", Some(slot), Some(why.to_string())),
        Event::UnknownRefused { port, at, key } => {
            let text = format!("key {key}, at {at}, port {}", port.0);
            ("unknown_peer_refused", None, Some(text))
        }
        Event::PathMtu(slot, bytes) => ("path_mtu", Some(slot), Some(format!("{bytes} bytes"))),
        Event::Roamed(slot, to) => ("roamed", Some(slot), Some(Shown(to).to_string())),
        Event::Rekeyed(slot) => ("rekeyed", Some(slot), None),
        Event::WantsAlternate(port) => ("wants_alternate", None, Some(format!("port {}", port.0))),
        Event::KeyOnTwoNodes(slot, [a, b]) => {
            ("key_on_two_nodes", Some(slot), Some(format!("at {} and at {}", Shown(a), Shown(b))))
        }
        Event::PeerRefused(slot, who) => {
            ("peer_refused", Some(slot), Some(format!("has the key, and is {who}")))
        }
        Event::PeerSuggested { slot, at, peer_id, .. } => {
            ("peer_suggested", slot, Some(format!("{peer_id} at {}", Shown(at))))
        }
        Event::Answered(..) => ("answered", None, None),
        Event::Goodbye { slot, code, retry_after_s, ref text } => {
            let detail = format!("code {code}, retry after {retry_after_s} s: {text}");
            ("goodbye", Some(slot), Some(detail))
        }
        Event::SlotMovedAway { by, from, to } => {
            ("slot_moved_away", Some(by), Some(format!("slot {from} there is slot {to} now")))
        }
    }
}
