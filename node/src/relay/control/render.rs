//! Converts responses of the slow path to JSON. The fields of replies to pings, traces and
//! identify requests are in `control_request.rs`.

use serde_json::{Map, Value, json};
use strowger_crypto::{PeerId, SealMode};
use strowger_engine::{
    Now,
    control::{
        Balance, PortId, PortView, QueueView, SlotView,
        messages::AnnouncementView,
        peering::{LinkState, PeerView},
    },
    discard::Discard,
    link::{Behind, Rights},
};
use strowger_frame::{Address, alloc, port::KernelDrop};
use strowger_runtime::{PortInfo, PortKind};

use super::{Response, Status, control_request, error};
use crate::{labels::scheme_text, relay::journal::Entry};
use strowger_runtime::address::AddressText;
use strowger_wire::Slot;

pub(super) fn response(response: &Response) -> Value {
    match response {
        Response::Slots(views, now, names) => {
            let rows: Vec<Value> = views.iter().map(|view| slot(view, *now, names)).collect();
            json!({ "slots": rows })
        }
        Response::Ports(views, infos) => {
            let rows: Vec<Value> = views.iter().map(|view| port(view, infos)).collect();
            json!({ "ports": rows })
        }
        Response::Discards(sums, views, names) => {
            let rows: Vec<Value> = views.iter().map(|view| port_discards(view, names)).collect();
            json!({
                "balance": balance(sums),
                "discards": reasons(sums.by_reason()),
                "kernel_drops_by_reason": kernel(sums.kernel_by_reason()),
                "ports": rows,
            })
        }
        Response::Balance(sums, uptime) => {
            json!({
                "uptime_s": uptime.as_secs_f64(),
                "balance": balance(sums),
                "discards": reasons(sums.by_reason()),
                "kernel_drops_by_reason": kernel(sums.kernel_by_reason()),
            })
        }
        Response::Peers(views, now, identity, names) => peers(views, *now, *identity, names),
        Response::Links(slots, peers, now, names) => {
            let links = slots.iter().filter(|view| view.behind == Some(Behind::Neighbour));
            let rows: Vec<Value> = links.map(|view| link(view, peers, *now, names)).collect();
            json!({ "links": rows })
        }
        Response::Status(of) => status(of),
        Response::Attached(slot, None) => json!({ "attached": slot.number() }),
        Response::Attached(slot, Some(seconds)) => {
            json!({ "attached": slot.number(), "opens_s": seconds })
        }
        Response::Detached(slot) => json!({ "detached": slot.number() }),
        Response::Renumbered { from, to, alias_s, narrow_bits } => {
            let (slot, to, bits) = (from.number(), to.number(), narrow_bits);
            json!({ "renumbered": { "slot": slot, "to": to, "alias_s": alias_s, "narrow_bits": bits } })
        }
        Response::Draining { slot, for_s } => {
            json!({ "draining": { "slot": slot.number(), "for_s": for_s } })
        }
        Response::Grown(scheme, slot_max) => {
            json!({ "grown": { "scheme": scheme_text(scheme), "slot_max": slot_max } })
        }
        Response::Requested(number) => json!({ "request": number }),
        Response::Replies(replies, done) => control_request::replies(replies, *done),
        Response::Declined(why) => error("declined", why),
    }
}

fn slot(view: &SlotView, now: Now, names: &[(u16, String)]) -> Value {
    let last_received_s = view.last_received.map(|at| seconds(now, at.0));
    json!({
        "slot": view.slot.number(),
        "state": view.state.name(),
        "name": view.name,
        "port": view.port.map(|port| port.0),
        "behind": view.port.and_then(|port| name_of(port, names)),
        "kind": view.behind.map(|behind| match behind {
            strowger_engine::link::Behind::Neighbour => "neighbour",
            strowger_engine::link::Behind::Endpoint => "endpoint",
        }),
        "address": address(view.at),
        "frames_in": view.frames_in,
        "bytes_in": view.bytes_in,
        "frames_out": view.frames_out,
        "bytes_out": view.bytes_out,
        "discards": view.discards,
        "by_former_number": view.by_former,
        "last_received_s": last_received_s,
        // The time for which the slot stays in this state, if it is known.
        "left_s": view.left.map(|left| left.as_nanos().div_ceil(1_000_000_000) as u64),
        "unknown": view.is_unknown,
        "announced": view.announcements.iter().map(announced).collect::<Vec<_>>(),
    })
}

fn announced(view: &AnnouncementView) -> Value {
    json!({ "peer_id": view.peer.to_string(), "left_s": view.seconds })
}

fn peers(views: &[PeerView], now: Now, identity: Option<PeerId>, names: &[(u16, String)]) -> Value {
    let rows: Vec<Value> = views.iter().map(|view| peer(view, now, names)).collect();
    json!({ "identity": identity.map(|id| id.to_string()), "peers": rows })
}

fn peer(view: &PeerView, now: Now, names: &[(u16, String)]) -> Value {
    json!({
        "slot": view.slot.number(),
        "name": view.name,
        "key": view.key.map(|key| key.to_string()),
        "peer_id": view.agreed.map(|agreed| agreed.peer_id.to_string()),
        "address": address(view.at),
        "key_on_two_nodes": view.key_on_two_nodes.map(|two| two.map(|at| at.to_string())),
        "suggested": address(view.suggested),
        "behind": name_of(view.port, names),
        "up": view.is_up(),
        "idle": view.state == LinkState::Idle,
        // The reason why the link is down: a name for programs, a sentence for people.
        "down_reason": view.down.map(|why| why.name()),
        "down_text": view.down.map(|why| why.to_string()),
        "down_s": view.down.and_then(|why| why.since()).map(|since| seconds(now, since.0)),
        "rights": rights(view.rights),
        "unknown": view.is_unknown,
        "handshakes": view.handshakes,
        "mtu": view.frame_bytes_max,
        "mtu_found": view.is_path_found,
        "keys_age_s": view.keys_since.map(|since| seconds(now, since.0)),
    })
}

fn link(view: &SlotView, peers: &[PeerView], now: Now, names: &[(u16, String)]) -> Value {
    let peer = peers.iter().find(|peer| peer.slot == view.slot);
    let agreed = peer.and_then(|peer| peer.agreed);
    let seal = match (peer, agreed.map(|agreed| agreed.seal)) {
        (None, _) => json!("plain"),
        (Some(_), None) => Value::Null,
        (Some(_), Some(SealMode::Full)) => json!("full"),
        (Some(_), Some(SealMode::HeaderOnly)) => json!("header-only"),
    };
    json!({
        "slot": view.slot.number(),
        "name": view.name,
        "state": view.state.name(),
        "sealed": peer.is_some(),
        "seal": seal,
        // A plain link has no liveness probes, so these two fields are null.
        "up": peer.map(PeerView::is_up),
        "idle": peer.map(|peer| peer.state == LinkState::Idle),
        "address": address(view.at),
        "behind": view.port.and_then(|port| name_of(port, names)),
        // The maximum length of a frame that is sent at present, whether path MTU discovery has
        // finished, and the maximum that both ends accept.
        "mtu": peer.and_then(|peer| peer.frame_bytes_max),
        "mtu_found": peer.map(|peer| peer.is_path_found),
        "mtu_agreed": agreed.map(|agreed| agreed.frame_bytes_max),
        "keys_age_s": peer.and_then(|p| p.keys_since).map(|since| seconds(now, since.0)),
        "handshakes": peer.map(|peer| peer.handshakes),
        "frames_in": view.frames_in,
        "bytes_in": view.bytes_in,
        "frames_out": view.frames_out,
        "bytes_out": view.bytes_out,
        "discards": view.discards,
        "last_received_s": view.last_received.map(|at| seconds(now, at.0)),
    })
}

/// One event as JSON, for a list and for a watching client.
pub(super) fn event(entry: &Entry) -> Value {
    json!({
        "number": entry.number,
        "uptime_s": entry.at.as_secs_f64(),
        "event": entry.event,
        "slot": entry.slot.map(Slot::number),
        "name": entry.name,
        "detail": entry.detail,
    })
}

fn seconds(now: Now, since_ns: u64) -> f64 {
    now.0.saturating_sub(since_ns) as f64 / 1e9
}

fn address(at: Option<Address>) -> Value {
    match at {
        Some(at @ (Address::Udp(_) | Address::Ether(_))) => json!(AddressText(at).to_string()),
        Some(Address::Only) | None => Value::Null,
    }
}

fn rights(rights: Rights) -> Value {
    let Rights { transit, endpoints, control } = rights;
    let all = [(transit, "transit"), (endpoints, "endpoints"), (control, "control")];
    json!(all.into_iter().filter(|(has, _)| *has).map(|(_, word)| word).collect::<Vec<_>>())
}

fn name_of(port: PortId, names: &[(u16, String)]) -> Option<&str> {
    names.iter().find(|(id, _)| *id == port.0).map(|(_, name)| name.as_str())
}

fn port(view: &PortView, infos: &[PortInfo]) -> Value {
    let info = infos.iter().find(|info| info.id == view.id);
    let sum = |count: fn(&QueueView) -> u64| view.queues.iter().map(count).sum::<u64>();
    let queues: Vec<Value> = view.queues.iter().map(queue).collect();
    json!({
        "port": view.id.0,
        "name": info.map(|info| &info.name),
        "what": view.describe,
        "backend": info.map(PortInfo::backend),
        "frames_copied": info.and_then(frames_copied),
        "gone": info.and_then(is_gone),
        "kernel_drops_by_reason": kernel_of(view),
        "frames_in": sum(|queue| queue.frames_in),
        "bytes_in": sum(|queue| queue.bytes_in),
        "frames_out": sum(|queue| queue.frames_out),
        "bytes_out": sum(|queue| queue.bytes_out),
        "frames_made": sum(|queue| queue.frames_made),
        "trains_in": sum(|queue| queue.trains_in),
        "trains_out": sum(|queue| queue.trains_out),
        "trains_refused": sum(|queue| queue.trains_refused),
        "trains_retried": sum(|queue| queue.trains_retried),
        "kernel_drops": sum(|queue| queue.kernel_drops),
        "discards": reasons(by_reason(view)),
        "handshakes": reasons(view.handshakes.iter().copied()),
        "queues": queues,
    })
}

/// Whether the interface of an Ethernet port has vanished; `None` for other ports.
fn is_gone(info: &PortInfo) -> Option<bool> {
    let PortKind::Ethernet(info) = &info.kind else { return None };
    Some(info.is_gone())
}

/// The number of sent frames whose payload an Ethernet port copied; `None` for other ports. The
/// pools count the copies that workers make.
fn frames_copied(info: &PortInfo) -> Option<u64> {
    let PortKind::Ethernet(info) = &info.kind else { return None };
    Some(info.frames_copied())
}

/// The kernel's counters of all queues of a port, by reason.
fn kernel_of(view: &PortView) -> Value {
    let all = || view.queues.iter().flat_map(|queue| &queue.kernel);
    let sum = |drop| all().filter(|(of, _)| *of == drop).map(|(_, count)| count).sum::<u64>();
    kernel(KernelDrop::ALL.into_iter().map(|drop| (drop, sum(drop))).filter(|(_, sum)| *sum > 0))
}

fn kernel(counts: impl Iterator<Item = (KernelDrop, u64)>) -> Value {
    let counts = counts.map(|(drop, count)| (drop.name().to_owned(), json!(count)));
    Value::Object(counts.collect::<Map<String, Value>>())
}

fn queue(view: &QueueView) -> Value {
    json!({
        "worker": view.worker,
        "frames_in": view.frames_in,
        "bytes_in": view.bytes_in,
        "frames_out": view.frames_out,
        "bytes_out": view.bytes_out,
        "frames_made": view.frames_made,
        "trains_in": view.trains_in,
        "trains_out": view.trains_out,
        "trains_refused": view.trains_refused,
        "trains_retried": view.trains_retried,
        "kernel_drops": view.kernel_drops,
        "kernel_drops_by_reason": kernel(view.kernel.iter().copied()),
        "discards": reasons(view.discards.iter().copied()),
    })
}

fn port_discards(view: &PortView, names: &[(u16, String)]) -> Value {
    json!({
        "port": view.id.0,
        "name": name_of(view.id, names),
        "discards": reasons(by_reason(view)),
        "kernel_drops": view.queues.iter().map(|queue| queue.kernel_drops).sum::<u64>(),
        "kernel_drops_by_reason": kernel_of(view),
    })
}

/// The discards of all queues of a port by reason, with the results of the handshakes that arrived
/// on the port.
fn by_reason(view: &PortView) -> impl Iterator<Item = (Discard, u64)> {
    let count = |discard: Discard| {
        let queues = view.queues.iter().flat_map(|queue| &queue.discards);
        let all = queues.chain(&view.handshakes);
        all.filter(|(reason, _)| *reason == discard).map(|(_, count)| count).sum::<u64>()
    };
    Discard::ALL.iter().map(move |&discard| (discard, count(discard))).filter(|(_, n)| *n > 0)
}

fn reasons(counts: impl Iterator<Item = (Discard, u64)>) -> Value {
    let counts = counts.map(|(discard, count)| (discard.name().to_owned(), json!(count)));
    Value::Object(counts.collect::<Map<String, Value>>())
}

fn balance(sums: &Balance) -> Value {
    // The number fits into 64 bits, except after a counter has wrapped, when it is meaningless.
    let in_flight = i64::try_from(sums.on_their_way()).unwrap_or(i64::MAX);
    json!({
        "frames_in": sums.frames_in,
        "frames_made": sums.frames_made,
        "frames_out": sums.frames_out,
        "discarded": sums.discarded(),
        "handled": sums.handled(),
        "in_flight": in_flight,
        "balanced": sums.is_even(),
        "kernel_drops": sums.kernel_drops,
    })
}

fn status(of: &Status) -> Value {
    let memory = &of.memory;
    let sum = |count: fn(&strowger_frame::pool::PoolTally) -> u64| {
        memory.tallies.iter().map(|tally| count(tally)).sum::<u64>()
    };
    let needs: Vec<Value> = memory
        .needs
        .iter()
        .map(|need| json!({ "need": need.what, "trains": need.trains, "singles": need.singles }))
        .collect();
    let ports: Vec<Value> = of.ports.iter().map(backend).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": of.uptime.as_secs_f64(),
        "sealed": of.sealed,
        "slow_path_restarts": of.restarts,
        "slow_path_wakeups": of.wakeups,
        "identity": of.identity.map(|id| id.to_string()),
        "workers": of.workers,
        "cores": of.cores,
        "idle": of.idle.name(),
        "scheme": scheme_text(of.switch.scheme()),
        "slot_max": of.switch.slot_max(),
        "hops_max": of.switch.hops_max(),
        "u_turns": of.switch.u_turns(),
        "quarantine_s": of.switch.quarantine().as_secs(),
        "ports": ports,
        "memory": {
            "bytes": memory.bytes,
            "backing": memory.backing.to_string(),
            "trains_per_worker": memory.spec.trains,
            "singles_per_worker": memory.spec.singles,
            "needs_per_worker": needs,
            "exhausted": sum(|tally| tally.exhausted.read()),
        },
        "frames_copied": sum(|tally| tally.frames_copied.read())
            + of.ports.iter().filter_map(frames_copied).sum::<u64>(),
        "worker_allocations": alloc::total_calls(),
        "kernel_drops": of.balance.kernel_drops,
        "balance": balance(&of.balance),
    })
}

/// The backend of a port, with warnings about what the machine refuses or limits.
fn backend(port: &PortInfo) -> Value {
    match &port.kind {
        PortKind::Unix { path, worker, .. } => json!({
            "port": port.id.0, "name": port.name, "backend": port.backend(),
            "path": path, "worker": worker, "warnings": port.warnings(),
        }),
        PortKind::Ethernet(info) => json!({
            "port": port.id.0, "name": port.name, "backend": port.backend(),
            "address": info.reports.first().map(|report| Address::Ether(report.mac).to_string()),
            "seal": if info.plain { "plain" } else { "sealed" },
            "beacon_s": info.beacon_s,
            "chosen": info.chosen().join("; "),
            "warnings": port.warnings(),
        }),
        PortKind::Udp { local, plain, reports, steered, .. } => json!({
            "port": port.id.0, "name": port.name, "backend": port.backend(),
            "address": AddressText(Address::Udp(*local)).to_string(), "seal": if *plain { "plain" } else { "sealed" },
            "chosen": reports.first().map(|report| {
                report.to_string().lines().next().unwrap_or_default().to_owned()
            }),
            "handshake_socket": steered.as_ref().map(Result::is_ok),
            "warnings": port.warnings(),
        }),
        _ => json!({ "port": port.id.0, "name": port.name, "backend": port.backend() }),
    }
}
