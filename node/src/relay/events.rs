//! The thread that receives a relay's events. It writes the journal and the log, and sends
//! responses to waiting clients.

use std::{
    io,
    sync::mpsc::SyncSender,
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use strowger_engine::control::Event as SwitchEvent;
use strowger_runtime::{Event, EventKind, Events};
use strowger_wire::Slot;

use super::{
    event_text::{detail, log_line, subject},
    journal::{Entry, Journal},
    log::{Kind, Log},
    requests::RequestSender,
    rfc3339::Rfc3339,
    signals::Message,
};
use crate::limits::LOG_TICK;

/// The destinations to which the thread writes.
pub(super) struct EventWriter {
    pub(super) journal: Journal,
    pub(super) log: Log,
    pub(super) requests: RequestSender,
}

impl EventWriter {
    /// Receives events on a separate thread until the relay has ended, and then sends
    /// [`Message::Ended`].
    ///
    /// # Errors
    /// The kernel cannot create the thread.
    pub(super) fn start(
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
                if !matches!(event, SwitchEvent::Replied(..)) {
                    self.write_switch_event(at, slot, name, (kind.name(), event));
                }
                self.requests.take_event(event);
            }
            EventKind::SlowPathRestarted { panic } => {
                let text = format_args!("panicked and restarts: a bug, please report it: {panic}");
                self.log.write(Kind::SlowPathRestarted, "slow path", text);
                self.requests.give_up_requests();
            }
            EventKind::SlowPathRecovered => self.requests.give_up_changes(),
            EventKind::Missed { events } => {
                let text = format_args!("{events} events are missing: they came too fast");
                self.log.write(Kind::Log, "journal", text);
                self.requests.give_up_changes();
                self.requests.give_up_requests();
            }
            kind => {
                if let Some(record) = record(kind) {
                    self.write(at, kind.name(), record);
                }
            }
        }
    }

    fn write_switch_event(
        &self,
        at: Duration,
        slot: Option<Slot>,
        name: String,
        (event_name, event): (&'static str, &SwitchEvent),
    ) {
        if let Some((kind, text)) = log_line(event) {
            self.log.write(kind, &subject(slot, &name), text);
        }
        let detail = detail(event);
        self.journal.write(Entry { number: 0, at, event: event_name, slot, name, detail });
    }

    fn write(&self, at: Duration, event: &'static str, record: Record) {
        let Record { kind, subject, text, in_journal } = record;
        if let Some(kind) = kind {
            self.log.write(kind, &subject, &text);
        }
        if let Some(detail) = in_journal {
            let (slot, name, detail) = (None, String::new(), Some(detail));
            self.journal.write(Entry { number: 0, at, event, slot, name, detail });
        }
    }
}

/// The log line and the journal detail of an event of the runtime.
struct Record {
    /// The kind of the line in the log; `None` for no line.
    kind: Option<Kind>,
    subject: String,
    text: String,
    /// The detail in the journal; `None` for no entry.
    in_journal: Option<String>,
}

impl Record {
    /// Makes a record for the log and for the journal. In the journal the text begins with the
    /// subject.
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

fn record(event: &EventKind) -> Option<Record> {
    Some(match event {
        EventKind::WorkerStalled { worker } => Record::log(
            Kind::WorkerStalled,
            format!("worker {worker}"),
            "no progress for 5 s; its links will fail; restart the relay, and report it if it comes back",
        ),
        EventKind::WorkerRecovered { worker } => {
            Record::log(Kind::WorkerBack, format!("worker {worker}"), "makes progress again")
        }
        EventKind::PoolExhausted { worker, times } => Record::log(
            Kind::PoolEmpty,
            format!("worker {worker}"),
            format!(
                "found no free memory {times} times in the last second, and frames are lost; raise \
                 [memory], or leave it out"
            ),
        ),
        EventKind::WallClockSet { forward, by, to } => {
            let (by, to) = (by.as_secs(), Rfc3339(*to));
            let text = if *forward {
                format!("was set forward by {by} s, to {to}; handshakes use the new time")
            } else {
                format!(
                    "was set back by {by} s, to {to}; handshakes continue from the earlier time"
                )
            };
            Record::both(Kind::ClockSet, "the wall clock", text)
        }
        EventKind::WallClockWrong { shows } => {
            let shows = Rfc3339((*shows).max(UNIX_EPOCH));
            let text = format!(
                "shows {shows}, which cannot be right; peers that have seen a later handshake refuse this \
                 node's until the clock is set"
            );
            Record::both(Kind::ClockWrong, "the wall clock", text)
        }
        EventKind::AddressGone { port, address } => {
            let any = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            let text = format!(
                "this machine no longer has address {address}, so the listener receives and sends nothing; \
                 it works again when the address is back; listen at {any} to follow a changing address"
            );
            Record::both(Kind::PortTrouble, format!("[[udp]] {port}"), text)
        }
        EventKind::AddressBack { port, address } => {
            let text = format!("this machine has address {address} again");
            Record::both(Kind::PortBack, format!("[[udp]] {port}"), text)
        }
        EventKind::VlanTagsHidden { port, interface, remedy } => {
            let text = format!(
                "{interface} now strips VLAN tags, so the port takes frames of other VLANs for its own; \
                 {remedy}, or restart the relay"
            );
            Record::both(Kind::PortTrouble, format!("[[ethernet]] {port}"), text)
        }
        EventKind::VlanTagsShown { port, interface } => {
            let text = format!("{interface} leaves VLAN tags in frames again");
            Record::both(Kind::PortBack, format!("[[ethernet]] {port}"), text)
        }
        EventKind::InterfaceGone { port } => {
            let text = "its interface is gone, and frames for it are discarded as peer_gone; restart the \
                        relay when the interface is back";
            let in_journal = Some(port.clone());
            let record = Record::log(Kind::PortTrouble, format!("[[ethernet]] {port}"), text);
            Record { in_journal, ..record }
        }
        EventKind::AlternatePort { port, local } => {
            let text =
                format!("peers have not answered for a minute; handshakes also go from {local}");
            let subject = format!("[[udp]] {port}");
            let in_journal = Some(format!("{subject}: {text}"));
            Record { kind: None, subject, text, in_journal }
        }
        EventKind::AlternatePortFailed { port, why } => Record::both(
            Kind::PortTrouble,
            format!("[[udp]] {port}"),
            format!("cannot open another port for peers that do not answer: {why}"),
        ),
        EventKind::StateFileFailed { why } => {
            let text = why.strip_prefix("warning: ").unwrap_or(why);
            let text = text.strip_prefix("state file ").unwrap_or(text);
            Record::log(Kind::StateFileTrouble, "state file", text)
        }
        EventKind::StateFileWritten { file } => {
            Record::log(Kind::StateFileBack, "state file", format!("{file}: is written again"))
        }
        _ => return None,
    })
}
