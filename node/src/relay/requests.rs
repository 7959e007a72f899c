//! Runs requests of the control socket on the slow path's thread. The response to most changes
//! follows when the change is complete. The other responses follow immediately.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use strowger_engine::control::{Event, messages::RequestId};
use strowger_runtime::{RelayHandle, SlowPath};

use super::{
    attach::attach,
    changes::{Change, Changes, narrow_bits},
    pending::PendingRequests,
};
use crate::labels::scheme_text;
use crate::relay::{
    config,
    control::{Request, Response, Status},
};

/// Sends requests to the slow path.
#[derive(Clone, Debug)]
pub(super) struct RequestSender {
    relay: RelayHandle,
    waiting: Arc<Mutex<Waiting>>,
}

/// The changes that are not complete, and the requests whose replies are kept.
#[derive(Debug, Default)]
struct Waiting {
    changes: Changes,
    requests: PendingRequests,
}

impl RequestSender {
    pub(super) fn new(relay: RelayHandle) -> Self {
        Self { relay, waiting: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Ignore poisoning: no code leaves the state incomplete.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request. The returned channel delivers the response, or is closed without a
    /// response.
    pub(super) fn ask(&self, request: Request) -> Receiver<Response> {
        let (client, response) = sync_channel(1);
        let requests = self.clone();
        // After an error the channel is closed without a response.
        let _ = self.relay.call(move |relay| requests.respond(relay, request, client));
        response
    }

    /// Passes an event to the changes, pings and traces that wait for it.
    pub(super) fn take_event(&self, event: &Event) {
        let mut waiting = self.waiting();
        match event {
            Event::Replied(id, reply) => waiting.requests.take(*id, reply.clone()),
            event => waiting.changes.take(event),
        }
    }

    /// Ends all pings and traces.
    pub(super) fn give_up_requests(&self) {
        self.waiting().requests.give_up();
    }

    /// Responds to all clients whose changes are pending. The response states that the result is
    /// unknown.
    pub(super) fn give_up_changes(&self) {
        self.waiting().changes.give_up();
    }

    fn respond(&self, relay: &mut SlowPath, request: Request, client: SyncSender<Response>) {
        let (now, names) = (relay.now(), relay.port_names());
        let (identity, uptime) = (relay.identity(), relay.uptime());
        let switch = relay.switch();
        let expect = |change| self.waiting().changes.add(change, client.clone());
        let response = match request {
            #[cfg(debug_assertions)]
            Request::Panic => panic!("requested by a client, in a debug build"),
            Request::Slots => Response::Slots(switch.slots(), now, names),
            Request::Ports => Response::Ports(switch.ports(), relay.ports().to_vec()),
            Request::Discards => Response::Discards(switch.balance(), switch.ports(), names),
            Request::Balance => Response::Balance(switch.balance(), uptime),
            Request::Status => Response::Status(Box::new(status(relay))),
            Request::Peers => Response::Peers(switch.peers(), now, identity, names),
            Request::Links => Response::Links(switch.slots(), switch.peers(), now, names),
            Request::Attach(request) => match attach(relay, *request) {
                Ok(slot) => match relay.switch().opens_in(slot) {
                    // The slot may open later than a client waits for a reply, so respond now.
                    Some(time) => {
                        let seconds = time.as_nanos().div_ceil(1_000_000_000) as u64;
                        Response::Attached(slot, Some(seconds))
                    }
                    None => return expect(Change::Attach(slot)),
                },
                Err(why) => Response::Declined(why),
            },
            Request::Control(label, request) => match switch.send_request(label, request, now) {
                Ok(id) => {
                    self.waiting().requests.add(id);
                    Response::Requested(id.0)
                }
                Err(why) => Response::Declined(why.to_string()),
            },
            Request::Replies(id) => match self.waiting().requests.fetch(RequestId(id)) {
                Some((replies, done)) => Response::Replies(replies, done),
                None => Response::Declined(format!(
                    "no ping or trace has the number {id}, or its replies were all fetched"
                )),
            },
            Request::Detach(slot) => match relay.detach(slot) {
                Ok(()) => return expect(Change::Detach(slot)),
                Err(why) => Response::Declined(why.to_string()),
            },
            Request::Renumber { from, to } => match switch.renumber(from, to) {
                Ok(to) => {
                    let alias_s = switch.config().alias().as_secs();
                    let narrow_bits = narrow_bits(switch.config().scheme(), from, to);
                    return expect(Change::Renumber { from, to, alias_s, narrow_bits });
                }
                Err(why) => Response::Declined(why.to_string()),
            },
            // A drain begins immediately, so respond now. The relay detaches the slot later.
            Request::Drain { slot, for_s } => {
                match switch.drain(slot, Duration::from_secs(for_s)) {
                    Ok(()) => Response::Draining { slot, for_s },
                    Err(why) => Response::Declined(why.to_string()),
                }
            }
            Request::Grow { scheme, slot_max } => {
                let slot_max = slot_max.unwrap_or_else(|| {
                    let max = config::default_slot_max(&scheme).unwrap_or_default();
                    max.max(switch.config().slot_max())
                });
                match switch.grow_scheme(*scheme, slot_max) {
                    Ok(()) => return expect(Change::Grow { scheme, slot_max }),
                    Err(why) => Response::Declined(format!(
                        "scheme {} with slots up to {slot_max}: {why}",
                        scheme_text(&scheme)
                    )),
                }
            }
        };
        let _ = client.try_send(response);
    }
}

fn status(relay: &mut SlowPath) -> Status {
    Status {
        uptime: relay.uptime(),
        workers: relay.memory().workers,
        cores: relay.cores().map(<[usize]>::to_vec),
        idle: relay.idle(),
        switch: *relay.switch().config(),
        ports: relay.ports().to_vec(),
        memory: relay.memory().clone(),
        balance: relay.switch().balance(),
        identity: relay.identity(),
        sealed: relay.is_sealed(),
        restarts: relay.restarts(),
        wakeups: relay.wakeups(),
    }
}
