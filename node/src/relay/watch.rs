//! The thread that watches a relay's events: writes the journal and the log, and answers clients that wait.

use std::{
    io,
    sync::mpsc::SyncSender,
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use strowger_engine::control::Event as SwitchEvent;
use strowger_runtime::{Event, EventKind, Events};

use super::{
    logged::{logged, subject},
    requests::RequestSender,
    signals::Message,
    words::words_of,
};
use crate::{
    limits::LOG_TICK,
    relay::{
        journal::{Entry, Journal},
        log::{Kind, Log, Rfc3339},
    },
};

/// What the thread writes to.
pub(crate) struct Watcher {
    pub(crate) journal: Journal,
    pub(crate) log: Log,
    pub(crate) requests: RequestSender,
}

impl Watcher {
    /// Watches on a thread of its own until the relay has ended, and then says so.
    ///
    /// # Errors
    /// The kernel's, when it gives no thread.
    pub(crate) fn watch(
        self,
        mut events: Events,
        ended: SyncSender<Message>,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            loop {
                let event = match self.log.has_pending() {
                    true => events.recv_timeout(LOG_TICK),
                    false => events.recv(),
                };
                self.log.tick();
                match event {
                    Some(event) => self.take(event),
                    None if events.is_ended() => break,
                    None => {}
                }
            }
            let _ = ended.send(Message::Ended);
        })
    }

    fn take(&self, event: Event) {
        let Event { at, slot, name, kind, .. } = event;
        match &kind {
            EventKind::Switch(event) => {
                if !matches!(event, SwitchEvent::Answered(..)) {
                    self.note_switch_event(at, slot, name, event);
                }
                self.requests.take_event(event);
            }
            EventKind::SlowPathRestarted { panic } => {
                let text =
                    format_args!("panicked and begins anew, a bug of ours; please report: {panic}");
                self.log.write(Kind::SlowPathRestarted, "slow path", text);
                self.requests.give_up_questions();
            }
            EventKind::SlowPathRecovered => self.requests.give_up_changes(),
            EventKind::Missed { events } => {
                let text = format_args!("{events} events came faster than they were written down");
                self.log.write(Kind::Log, "journal", text);
                self.requests.give_up_changes();
                self.requests.give_up_questions();
            }
            kind => {
                if let Some(said) = said(kind) {
                    self.note(at, kind.name(), said);
                }
            }
        }
    }

    fn note_switch_event(
        &self,
        at: Duration,
        slot: Option<u32>,
        name: String,
        event: &SwitchEvent,
    ) {
        let (what, _, detail) = words_of(event);
        if let Some((kind, text)) = logged(event) {
            self.log.write(kind, &subject(slot, &name), text);
        }
        self.journal.write(Entry { number: 0, at, what, slot, name, detail });
    }

    fn note(&self, at: Duration, what: &'static str, said: Said) {
        let Said { kind, subject, text, in_journal } = said;
        if let Some(kind) = kind {
            self.log.write(kind, &subject, &text);
        }
        if let Some(detail) = in_journal {
            let (slot, name, detail) = (None, String::new(), Some(detail));
            self.journal.write(Entry { number: 0, at, what, slot, name, detail });
        }
    }
}

/// What is written about an event of the runtime.
struct Said {
    kind: Option<Kind>,
    subject: String,
    text: String,
    in_journal: Option<String>,
}

impl Said {
    /// For the log, and for the journal with the subject before it.
    fn both(kind: Kind, subject: impl Into<String>, text: String) -> Self {
        let subject = subject.into();
        let in_journal = Some(format!("{subject}: {text}"));
        Self { kind: Some(kind), subject, text, in_journal }
    }

    fn log(kind: Kind, subject: impl Into<String>, text: impl Into<String>) -> Self {
        let (subject, text) = (subject.into(), text.into());
        Self { kind: Some(kind), subject, text, in_journal: None }
    }
}

fn said(event: &EventKind) -> Option<Said> {
    Some(match event {
        EventKind::WorkerStalled { worker } => Said::log(
            Kind::WorkerStalled,
            format!("worker {worker}"),
            "no progress for 5 s; its links will fail",
        ),
        EventKind::WorkerRecovered { worker } => {
            Said::log(Kind::WorkerBack, format!("worker {worker}"), "makes progress again")
        }
        EventKind::PoolExhausted { worker, times } => Said::log(
            Kind::PoolEmpty,
            format!("worker {worker}"),
            format!(
                "found no free memory {times} times in the last second; frames are lost; leave out \
                 [memory], or raise it"
            ),
        ),
        EventKind::WallClockSet { forward, by, to } => {
            let (by, to) = (by.as_secs(), Rfc3339(*to));
            let text = if *forward {
                format!("was set forward by {by} s, to {to}; handshakes follow")
            } else {
                format!("was set back by {by} s, to {to}; handshakes go on from the time before")
            };
            Said::both(Kind::ClockSet, "the wall clock", text)
        }
        EventKind::WallClockWrong { shows } => {
            let shows = Rfc3339((*shows).max(UNIX_EPOCH));
            let text = format!(
                "shows {shows}, which cannot be right; peers that have seen a later handshake refuse this \
                 node's until the clock is set"
            );
            Said::both(Kind::ClockWrong, "the wall clock", text)
        }
        EventKind::AddressGone { port, address } => {
            let everywhere = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            let text = format!(
                "this machine has no address {address} any more, so nothing comes in or goes out there; it \
                 works again when the address is back; to follow a changing address, listen at {everywhere}"
            );
            Said::both(Kind::PortTrouble, format!("[[udp]] {port}"), text)
        }
        EventKind::AddressBack { port, address } => {
            let text = format!("this machine has address {address} again");
            Said::both(Kind::PortBack, format!("[[udp]] {port}"), text)
        }
        EventKind::VlanTagsHidden { port, interface, way_out } => {
            let text = format!(
                "{interface} takes VLAN tags off frames since the start, so frames of other VLANs are taken \
                 for this port's; {way_out}, or start the relay anew"
            );
            Said::both(Kind::PortTrouble, format!("[[ethernet]] {port}"), text)
        }
        EventKind::VlanTagsShown { port, interface } => {
            let text = format!("{interface} leaves VLAN tags in frames again");
            Said::both(Kind::PortBack, format!("[[ethernet]] {port}"), text)
        }
        EventKind::InterfaceGone { port } => {
            let text = "its interface is gone; what is sent there is lost as peer_gone; when it is back, \
                        start the relay anew";
            let in_journal = Some(port.clone());
            let said = Said::log(Kind::PortTrouble, format!("[[ethernet]] {port}"), text);
            Said { in_journal, ..said }
        }
        EventKind::AlternatePort { port, local } => {
            let text = format!(
                "peers have answered nothing for a minute; handshakes go from {local}, too"
            );
            let subject = format!("[[udp]] {port}");
            let in_journal = Some(format!("{subject}: {text}"));
            Said { kind: None, subject, text, in_journal }
        }
        EventKind::AlternatePortFailed { port, why } => Said::both(
            Kind::PortTrouble,
            format!("[[udp]] {port}"),
            format!("cannot open another port for peers that do not answer: {why}"),
        ),
        EventKind::StateFileFailed { why } => {
            let text = why.strip_prefix("warning: ").unwrap_or(why);
            let text = text.strip_prefix("state file ").unwrap_or(text);
            Said::log(Kind::StateFileTrouble, "state file", text)
        }
        EventKind::StateFileWritten { file } => {
            Said::log(Kind::StateFileBack, "state file", format!("{file}: is written again"))
        }
        _ => return None,
    })
}
