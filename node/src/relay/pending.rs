//! Pings, traces and identify requests of clients of the control socket. Keeps the replies until
//! the clients fetch them, for a bounded number of requests.

use std::collections::VecDeque;

use strowger_engine::{
    control::messages::{ControlReply, RequestId},
    limits::HOPS_MAX,
};

use crate::limits::REQUESTS_KEPT_MAX;

#[derive(Debug)]
struct PendingRequest {
    id: RequestId,
    replies: Vec<ControlReply>,
    done: bool,
}

/// The pings, traces and identify requests whose replies are kept.
#[derive(Debug, Default)]
pub(super) struct PendingRequests(VecDeque<PendingRequest>);

impl PendingRequests {
    /// Adds a ping or trace. If there are too many, the oldest is removed.
    pub(super) fn add(&mut self, id: RequestId) {
        if self.0.len() >= REQUESTS_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(PendingRequest { id, replies: Vec::new(), done: false });
    }

    /// Adds a reply to the ping or trace that it belongs to.
    pub(super) fn take(&mut self, id: RequestId, reply: ControlReply) {
        let Some(request) = self.0.iter_mut().find(|request| request.id == id) else { return };
        request.done |= !matches!(reply, ControlReply::Hop(_));
        if request.replies.len() <= usize::from(HOPS_MAX) {
            request.replies.push(reply);
        }
    }

    /// Ends all pings and traces: no more replies will arrive.
    pub(super) fn give_up(&mut self) {
        for request in self.0.iter_mut().filter(|request| !request.done) {
            request.replies.push(ControlReply::Silence);
            request.done = true;
        }
    }

    /// Returns the replies since the last call, and whether they are complete. Returns `None` if
    /// the ping or trace is unknown, or if all of its replies were fetched.
    pub(super) fn fetch(&mut self, id: RequestId) -> Option<(Vec<ControlReply>, bool)> {
        let place = self.0.iter().position(|request| request.id == id)?;
        let request = &mut self.0[place];
        let fetched = (std::mem::take(&mut request.replies), request.done);
        if fetched.1 {
            self.0.remove(place);
        }
        Some(fetched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_fetched_once_and_the_oldest_request_is_removed() {
        let mut requests = PendingRequests::default();
        for id in 0..REQUESTS_KEPT_MAX as u32 + 1 {
            requests.add(RequestId(id));
        }
        assert_eq!(requests.fetch(RequestId(0)), None, "the oldest");
        assert_eq!(requests.fetch(RequestId(7)), Some((vec![], false)));
        requests.take(RequestId(7), ControlReply::Silence);
        assert_eq!(requests.fetch(RequestId(7)), Some((vec![ControlReply::Silence], true)));
        assert_eq!(requests.fetch(RequestId(7)), None);
        requests.give_up();
        assert_eq!(requests.fetch(RequestId(8)), Some((vec![ControlReply::Silence], true)));
    }
}
