//! Runs requests of the control socket on the slow path's thread. Responds to a request at once, or
//! when the requested change is complete.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use strowger_engine::control::{Event, messages::QuestionId};
use strowger_runtime::{RelayHandle, SlowPath};

use super::{
    attach::attach,
    changes::{Change, Changes, narrow_bits},
    questions::Questions,
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

/// Clients that wait for a later response.
#[derive(Debug, Default)]
struct Waiting {
    changes: Changes,
    questions: Questions,
}

impl RequestSender {
    pub(super) fn new(relay: RelayHandle) -> Self {
        Self { relay, waiting: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // The state is still valid if another thread has panicked: no code leaves it incomplete.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request. The returned channel delivers the response, or closes without a response.
    pub(super) fn ask(&self, request: Request) -> Receiver<Response> {
        let (client, answer) = sync_channel(1);
        let requests = self.clone();
        // On an error, the channel closes without a response.
        let _ = self.relay.call(move |relay| requests.answer(relay, request, client));
        answer
    }

    /// Responds to the clients that wait for this event.
    pub(super) fn take_event(&self, event: &Event) {
        let mut waiting = self.waiting();
        match event {
            Event::Answered(id, answer) => waiting.questions.take(*id, answer.clone()),
            event => waiting.changes.take(event),
        }
    }

    /// Ends all pings and traces.
    pub(super) fn give_up_questions(&self) {
        self.waiting().questions.give_up();
    }

    /// Responds to all clients whose changes are pending. The response says that the result is
    /// unknown.
    pub(super) fn give_up_changes(&self) {
        self.waiting().changes.give_up();
    }

    fn answer(&self, relay: &mut SlowPath, request: Request, client: SyncSender<Response>) {
        let (now, names) = (relay.now(), relay.port_names());
        let (identity, uptime) = (relay.identity(), relay.uptime());
        let switch = relay.switch();
        let expect = |change| self.waiting().changes.add(change, client.clone());
        let answer = match request {
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
                    // The slot opens later than any client would wait, so respond now.
                    Some(time) => {
                        let seconds = time.as_nanos().div_ceil(1_000_000_000) as u64;
                        Response::Attached(slot, Some(seconds))
                    }
                    None => return expect(Change::Attach(slot)),
                },
                Err(why) => Response::Declined(why),
            },
            Request::Ask(label, question) => match switch.ask(label, question, now) {
                Ok(id) => {
                    self.waiting().questions.add(id);
                    Response::Asked(id.0)
                }
                Err(why) => Response::Declined(why.to_string()),
            },
            Request::Answers(id) => match self.waiting().questions.fetch(QuestionId(id)) {
                Some((answers, done)) => Response::Answers(answers, done),
                None => Response::Declined(format!(
                    "no ping or trace has the number {id}, or its answers were all fetched"
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
            // A drain is complete at once. Only the senders need time to stop using the slot.
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
        let _ = client.try_send(answer);
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
