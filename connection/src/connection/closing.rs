//! Goodbyes, which close a connection or one of its protocols (wire.md 6.8).

use strowger_crypto::Nanos;
use strowger_wire::connection::{ControlItem, EntryNumber, ProtocolName};

use super::Connection;
use crate::data_path::Target;
use crate::event::Event;
use crate::goodbye::{CloseReason, Goodbye, GoodbyeCode};
use crate::heap::Few;
use crate::limits::{CLOSED_NAMES_MAX, GOODBYE_AFTER, GOODBYE_TIME, RETRY_AFTER_GOODBYE_S_MAX};
use crate::path::Traffic;
use crate::shared::Shared;

/// The progress of closing a connection.
#[derive(Debug, Default)]
pub(crate) enum Closing {
    /// The connection is open.
    #[default]
    Open,
    /// This end sends goodbyes until the peer answers.
    ByUs { goodbye: Box<Goodbye>, sent: usize, since: Nanos },
    /// The peer sent a goodbye; this end answers its copies.
    ByPeer { since: Nanos },
    /// The next poll removes the connection.
    Ended,
}

/// A goodbye for one protocol that has no answer yet.
#[derive(Debug)]
pub(crate) struct PendingGoodbye {
    pub(crate) number: EntryNumber,
    goodbye: Goodbye,
    sent: usize,
    since: Nanos,
}

impl Connection {
    /// Whether the connection is closing, so that it delivers no more messages.
    pub(crate) fn is_closing(&self) -> bool {
        !matches!(self.closing, Closing::Open)
    }

    /// Whether the endpoint may remove the connection.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.closing, Closing::Ended)
    }

    /// Closes the connection: sockets end now, and the peer gets the goodbye.
    pub(crate) fn close(
        &mut self,
        now: Nanos,
        goodbye: Goodbye,
        reason: &CloseReason,
        shared: &mut Shared,
    ) {
        if self.is_closing() {
            return;
        }
        self.end_messages(reason, shared);
        self.closing = match self.can_send(shared) && self.session.is_up() {
            true => Closing::ByUs { goodbye: Box::new(goodbye), sent: 0, since: now },
            false => Closing::Ended,
        };
        self.poll_goodbyes(now, shared);
    }

    /// Handles the peer's goodbye for the connection.
    pub(super) fn closed_by_peer(&mut self, now: Nanos, goodbye: Goodbye, shared: &mut Shared) {
        let seconds = goodbye.seconds().clamp(1, RETRY_AFTER_GOODBYE_S_MAX);
        let until = now.plus(Nanos::from_secs(u64::from(seconds)));
        shared.note_goodbye(self.peer, until, &goodbye);
        self.end_messages(&CloseReason::ByPeer(goodbye), shared);
        self.closing = Closing::ByPeer { since: now };
    }

    /// Ends the sending and delivery of messages.
    fn end_messages(&mut self, reason: &CloseReason, shared: &mut Shared) {
        let was_connected = self.is_proven || self.session.is_up();
        self.close_sockets(reason, shared);
        let lost = self.waiting.remove_where(|_| true);
        shared.counters.waiting -= lost as u64;
        shared.counters.waited_lost += lost as u64;
        self.goodbyes.clear();
        self.closed_names.clear();
        if let Some(hot) = shared.data.connections.get_mut(self.place as usize) {
            hot.targets.iter_mut().for_each(|target| *target = Target::Closed);
        }
        if was_connected {
            shared.report(Event::PeerClosed { peer: self.peer, reason: reason.clone() });
        }
    }

    /// Handles the peer's answer to a goodbye for the connection.
    pub(super) fn goodbye_answered(&mut self, now: Nanos, code: u8) {
        if let Closing::ByUs { goodbye, .. } = &self.closing
            && goodbye.code().0 == code
        {
            self.closing = Closing::ByPeer { since: now };
        }
    }

    /// Sends a goodbye for a protocol, with the protocol's number in the peer's table.
    pub(crate) fn say_goodbye(
        &mut self,
        now: Nanos,
        goodbye: &Goodbye,
        number: EntryNumber,
        shared: &mut Shared,
    ) {
        if self.goodbyes.iter().any(|pending| pending.number == number) {
            return;
        }
        let goodbye = goodbye.clone();
        self.goodbyes.push(PendingGoodbye { number, goodbye, sent: 0, since: now });
        self.poll_goodbyes(now, shared);
    }

    /// Sends a goodbye for the protocol of a closed socket as soon as the peer's number for it is
    /// known. Messages with its name may have opened a socket there.
    pub(crate) fn say_goodbye_by_name(&mut self, now: Nanos, name: String, shared: &mut Shared) {
        if !self.closed_names.contains(&name) {
            if self.closed_names.len() == CLOSED_NAMES_MAX {
                self.closed_names.remove(0);
            }
            self.closed_names.push(name);
        }
        self.number_goodbyes(now, shared);
    }

    /// After a change of the peer's table: sends the goodbyes whose numbers are known now.
    pub(crate) fn number_goodbyes(&mut self, now: Nanos, shared: &mut Shared) {
        for name in self.closed_names.take() {
            // A new socket uses the protocol, so a goodbye would close it.
            if self.socket_for(&name, shared).is_some() {
                continue;
            }
            let number =
                ProtocolName::new(name.as_bytes()).and_then(|name| self.theirs.number_of(name));
            match number {
                Some(number) => {
                    let goodbye = Goodbye::new(GoodbyeCode::UNSPECIFIED);
                    self.say_goodbye(now, &goodbye, number.on_wire(), shared);
                }
                // The peer does not accept the protocol, so it has no socket to close.
                None if self.theirs.is_complete() => {}
                None => self.closed_names.push(name),
            }
        }
    }

    /// Sends the goodbyes that are due, and drops those whose time is over.
    pub(crate) fn poll_goodbyes(&mut self, now: Nanos, shared: &mut Shared) {
        let mut pending = self.goodbyes.take();
        for goodbye in &mut pending {
            let number = Some(goodbye.number);
            if is_due(now, goodbye.sent, goodbye.since) {
                goodbye.sent += 1;
                self.send_goodbye(now, &goodbye.goodbye, number, shared);
            }
        }
        pending.retain(|goodbye| now.since(goodbye.since) < GOODBYE_TIME);
        self.goodbyes = Few::from(pending);
        match std::mem::take(&mut self.closing) {
            Closing::ByUs { goodbye, mut sent, since } if now.since(since) < GOODBYE_TIME => {
                if is_due(now, sent, since) {
                    sent += 1;
                    self.send_goodbye(now, &goodbye, None, shared);
                }
                self.closing = Closing::ByUs { goodbye, sent, since };
            }
            Closing::ByPeer { since } if now.since(since) < GOODBYE_TIME => {
                self.closing = Closing::ByPeer { since };
            }
            Closing::Open => self.closing = Closing::Open,
            _ => self.closing = Closing::Ended,
        }
    }

    /// The time at which [`poll_goodbyes`](Self::poll_goodbyes) has work; `None` if there is no
    /// such time.
    pub(crate) fn goodbyes_due(&self) -> Option<Nanos> {
        let due = |sent: usize, since: Nanos| match GOODBYE_AFTER.get(sent) {
            Some(after) => since.plus(*after),
            None => since.plus(GOODBYE_TIME),
        };
        let pending = self.goodbyes.iter().map(|goodbye| due(goodbye.sent, goodbye.since)).min();
        let own = match &self.closing {
            Closing::Open => None,
            Closing::ByUs { sent, since, .. } => Some(due(*sent, *since)),
            Closing::ByPeer { since } => Some(since.plus(GOODBYE_TIME)),
            Closing::Ended => Some(Nanos::ZERO),
        };
        pending.into_iter().chain(own).min()
    }

    pub(super) fn send_goodbye(
        &mut self,
        now: Nanos,
        goodbye: &Goodbye,
        protocol: Option<EntryNumber>,
        shared: &mut Shared,
    ) {
        let item = ControlItem::Goodbye {
            retry_after_s: goodbye.seconds(),
            code: goodbye.code().0,
            protocol,
            text: goodbye.message(),
        };
        self.send_items(now, Traffic::Items, &[item], shared);
    }
}

fn is_due(now: Nanos, sent: usize, since: Nanos) -> bool {
    GOODBYE_AFTER.get(sent).is_some_and(|after| now >= since.plus(*after))
}
