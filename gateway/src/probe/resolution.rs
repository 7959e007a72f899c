//! Watches the lookups of a node: what they find, and when.

use std::{sync::mpsc::Sender, time::Instant};

use strowger_crypto::Nanos;
use strowger_routing::{
    Candidate, ControlReply, LookupResult, LookupTarget, Outcome, PeerRouting, QuestionQueue,
    Route, Source,
};
use strowger_socket::Socket;
use strowger_wire::label::AnyLabel;

use crate::exit::Failure;

/// A label that a lookup has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) label: AnyLabel,
    /// The source of the label, as a text for the report.
    pub(super) by: &'static str,
}

/// The labels that a lookup has found, best first.
pub(super) type Labels = Vec<Found>;

/// An event while the probe connects: a result of a lookup, or the end of connecting.
pub(super) enum Step {
    /// A lookup has a result.
    Found(Labels),
    /// Connecting has ended, at this time.
    Ended(Instant, Box<Result<Option<Socket>, Failure>>),
}

/// Passes everything on to another routing, and sends each result also to a channel.
pub(super) struct Watched {
    pub(super) routing: Box<dyn PeerRouting>,
    pub(super) steps: Sender<Step>,
}

fn found(candidate: &Candidate) -> Option<Found> {
    let Route::Label(label) = candidate.route else { return None };
    let by = match candidate.source {
        Source::StaticTable => "the address book",
        Source::Relay => "the relay",
        Source::Neighbour => "a neighbour of the relay",
        _ => "this program",
    };
    Some(Found { label, by })
}

impl PeerRouting for Watched {
    fn lookup(&mut self, now: Nanos, target: LookupTarget, out: &mut QuestionQueue) {
        self.routing.lookup(now, target, out);
    }

    fn cancel(&mut self, target: &LookupTarget) {
        self.routing.cancel(target);
    }

    fn handle_reply(&mut self, now: Nanos, reply: &ControlReply<'_>, out: &mut QuestionQueue) {
        self.routing.handle_reply(now, reply, out);
    }

    fn poll(&mut self, now: Nanos, out: &mut QuestionQueue) -> Option<LookupResult> {
        let result = self.routing.poll(now, out)?;
        // The probe may have ended.
        let labels = result.candidates.iter().filter_map(found).collect();
        let _ = self.steps.send(Step::Found(labels));
        Some(result)
    }

    fn feedback(&mut self, now: Nanos, route: &Route, outcome: &Outcome) {
        self.routing.feedback(now, route, outcome);
    }

    fn next_timeout(&self) -> Option<Nanos> {
        self.routing.next_timeout()
    }
}
