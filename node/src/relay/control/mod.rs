//! The control socket of a relay: a unix stream socket on which programs ask with JSON lines. Its
//! thread never waits for a client, and no client can make it hold more than a fixed amount.
//!
//! One request is one line, an object with one key; each gets one line of answer, in order:
//!
//! | request | answer |
//! |---|---|
//! | `{"show":"slots"}` | `{"slots":[{"slot":..,"state":..,"name":..,...},...]}` |
//! | `{"show":"ports"}` | `{"ports":[{"port":..,"name":..,"queues":[...],...},...]}` |
//! | `{"show":"discards"}` | `{"balance":{...},"discards":{reason:n,...},"kernel_drops_by_reason":{...},"ports":[...]}` |
//! | `{"show":"peers"}` | `{"peers":[{"name":..,"slot":..,"up":..,"key":..,...},...]}` |
//! | `{"show":"links"}` | `{"links":[{"slot":..,"name":..,"seal":..,"up":..,...},...]}` |
//! | `{"show":"events"}` | `{"events":[{"number":..,"event":..,"slot":..,...},...],"missed":n}` |
//! | `{"show":"status"}` | `{"version":..,"uptime_s":..,"workers":..,"sealed":..,...}` |
//! | `{"attach":{"name":..,"address":..,"listener":..,"slot":..}}` | `{"attached":slot,"opens_s":..}` |
//! | `{"detach":slot}` | `{"detached":slot}` |
//! | `{"renumber":{"slot":..,"to":..}}` | `{"renumbered":{"slot":..,"to":..,"alias_s":..,"narrow_bits":[..]}}` |
//! | `{"drain":{"slot":..,"for_s":..}}` | `{"draining":{"slot":..,"for_s":..}}` |
//! | `{"grow":{"scheme":..,"slot_max":..}}` | `{"grown":{"scheme":..,"slot_max":..}}` |
//! | `{"watch":"events"}` | a line `{"watching":"events"}`, then one for each event: those kept, and those to come |
//! | `{"ping":{"label":..,"bytes":..}}`, `{"trace":{"label":..}}`, `{"identify":{"label":..}}` | `{"asked":n}` |
//! | `{"answers":n}` | `{"answers":[...],"done":..}`: what has come since this was last asked |
//! | `{"watch":"balance"}` | a line with the balance at once and every second, until the client goes |
//!
//! `attach` needs `name` and, behind a `[[udp]]` or `[[ethernet]]`, `address`; `listener` (the name of
//! one, or of a `[[unix]]`, which takes no address) where there are several, and `slot` to pin one. It is
//! answered once every worker knows; or, where the number is not free yet, at once with the seconds after
//! which it leads there. With `key` (a static key in
//! hex) or `peer_id` (who it must prove to be), or both, a peer is attached by a sealed link, for which
//! `psk` (a file, as the relay sees it) and `rights` (a list) can be given. A client that watches events
//! and falls behind misses the oldest: `{"missed":n}` says how many. A request that cannot be done is answered
//! `{"error":"<one line>","kind":"bad_request"|"declined"|"line_too_long"|"idle"|"no_answer"}`; after
//! `line_too_long` and `idle` the connection ends.
//!
//! Counts are frames and bytes since the relay began; names of reasons are those of
//! [`Discard`](strowger_engine::discard::Discard).

mod ask;
mod change;
mod render;
mod socket;

use std::{
    io,
    io::{Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use strowger_crypto::{Identity, PeerId, StaticPublic};
use strowger_engine::{
    Now,
    control::{Balance, PortView, SlotView, SwitchConfig, messages, peering::PeerView},
    link::Rights,
};
use strowger_frame::{Address, port::Arm};
use strowger_io::{Doorbell, DoorbellWaker, Waiter};
use strowger_runtime::{IdlePolicy, MemoryUse, PortInfo};
use strowger_wire::{Label, Scheme};

pub(crate) use self::{change::DRAIN_S, socket::Control};
use crate::{
    exit::{Exit, Failure},
    relay::{
        RequestSender,
        config::{parse_key, parse_peer_id, parse_rights},
        journal::{Journal, Read},
    },
};
use strowger_runtime::{address, untrusted::json_line};

/// Clients at a time. One more takes the place of the one that was silent longest.
const CLIENTS_MAX: usize = 16;
/// The longest request, in bytes: far above any real one.
const LINE_BYTES_MAX: usize = 4_096;
/// A client that asks nothing for so long is told so and sent away.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A client that does not take its answer for so long is sent away.
const STUCK_MAX: Duration = Duration::from_secs(5);
/// While an answer is not taken, its client is tried again this often.
const RETRY: Duration = Duration::from_millis(5);
/// How often a watched balance is told.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Events that a watcher is told in one go: what one answer may hold.
const EVENTS_AT_ONCE: usize = 64;
/// How long the slow path may take for an answer. It takes a worker's poll or two.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// With no descriptor left, clients are accepted again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks of the slow path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Have the slow path panic: for tests of what comes after.
    #[cfg(debug_assertions)]
    Panic,
    Slots,
    Ports,
    Discards,
    Balance,
    Peers,
    Links,
    Status,
    Attach(Box<AttachRequest>),
    Detach(u32),
    /// Give a slot this number, or the lowest free one.
    Renumber {
        from: u32,
        to: Option<u32>,
    },
    /// Give a slot up after so long.
    Drain {
        slot: u32,
        for_s: u64,
    },
    /// Go over to a scheme that reads all that is written now as before.
    Grow {
        scheme: Box<Scheme>,
        slot_max: Option<u32>,
    },
    /// Have a packet ask whoever is at the label's end, or on its way.
    Ask(Label, messages::Question),
    /// What has come of a question.
    Answers(u32),
}

/// What a client wants attached, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachRequest {
    pub(crate) name: String,
    pub(crate) address: Option<Address>,
    pub(crate) listener: Option<String>,
    pub(crate) slot: Option<u32>,
    /// The static key of a peer; without it the link is plain.
    pub(crate) key: Option<StaticPublic>,
    /// Who the peer must prove to be.
    pub(crate) peer_id: Option<Identity>,
    pub(crate) psk: Option<PathBuf>,
    pub(crate) rights: Option<Rights>,
}

/// What the slow path answers: copies of counters, made into JSON on the control socket's thread.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Slots(Vec<SlotView>, Now, Vec<(u16, String)>),
    Ports(Vec<PortView>, Vec<PortInfo>),
    Discards(Balance, Vec<PortView>, Vec<(u16, String)>),
    Balance(Balance, Duration),
    Peers(Vec<PeerView>, Now, Option<PeerId>, Vec<(u16, String)>),
    Links(Vec<SlotView>, Vec<PeerView>, Now, Vec<(u16, String)>),
    Status(Box<Status>),
    /// Attached to this slot, which leads there after so many seconds.
    Attached(u32, Option<u64>),
    Detached(u32),
    Renumbered {
        from: u32,
        to: u32,
        alias_s: u64,
        /// Widths in bits in which the former number can be written and the new one cannot.
        narrow_bits: Vec<u8>,
    },
    Draining {
        slot: u32,
        for_s: u64,
    },
    Grown(Box<Scheme>, u32),
    Asked(u32),
    Answers(Vec<messages::Answer>, bool),
    /// It will not be done, and why.
    Declined(String),
}

/// What a relay is, beside its counters.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) uptime: Duration,
    pub(crate) workers: usize,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) idle: IdlePolicy,
    pub(crate) switch: SwitchConfig,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) memory: MemoryUse,
    pub(crate) balance: Balance,
    pub(crate) identity: Option<PeerId>,
    /// Whether no link may be plain.
    pub(crate) sealed: bool,
    /// How often the slow path has reset after a panic.
    pub(crate) restarts: u64,
    /// How often the slow path was woken.
    pub(crate) wakeups: u64,
}

impl Control {
    /// Answers clients on a thread of its own.
    ///
    /// # Errors
    /// The kernel's, when no thread or descriptor is to be had.
    pub(crate) fn serve(
        self,
        slow_path: RequestSender,
        journal: Journal,
    ) -> Result<Server, Failure> {
        let refused = |error: io::Error| {
            Failure::new(Exit::Refused, format!("cannot serve the control socket: {error}"))
        };
        let doorbell = Doorbell::new().map_err(refused)?;
        let waker = doorbell.waker();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        journal.set_waker(waker.clone());
        let relay_view = RelayView { slow_path, journal };
        let desk = ControlServer { relay_view, clients: Vec::new(), accept_after: None };
        let named = std::thread::Builder::new().name("control".to_owned());
        let thread = named.spawn(move || desk.run(self, doorbell, &told)).map_err(refused)?;
        Ok(Server { stop, waker, thread })
    }
}

/// The control socket's thread, as the relay holds it.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    waker: DoorbellWaker,
    thread: JoinHandle<()>,
}

impl Server {
    /// Sends all clients away, removes the socket's file and ends the thread. The slow path is
    /// asked nothing afterwards.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.thread.join();
    }
}

/// One client.
struct Client {
    stream: UnixStream,
    /// What came and is no whole line yet.
    asked: Vec<u8>,
    /// What is to be written, from `written` on.
    answer: Vec<u8>,
    written: usize,
    /// When it last asked something, or took something of an answer.
    heard: Instant,
    watch: Option<Watch>,
    /// It has said all that it will say.
    ended: bool,
}

/// What a client is told without asking again.
#[derive(Clone, Copy)]
enum Watch {
    /// The balance, next at this time.
    Balance(Instant),
    /// Events, next the one with this number.
    Events(u64),
}

/// Where answers come from.
struct RelayView {
    slow_path: RequestSender,
    journal: Journal,
}

/// All clients.
struct ControlServer {
    relay_view: RelayView,
    clients: Vec<Client>,
    /// No client is accepted before.
    accept_after: Option<Instant>,
}

/// Whether a client stays.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stay {
    Yes,
    No,
}

impl ControlServer {
    fn run(mut self, control: Control, mut doorbell: Doorbell, stop: &AtomicBool) {
        let mut waiter = Waiter::with_capacity(CLIENTS_MAX + 2);
        while !stop.load(Ordering::Acquire) {
            self.accept(&control.listener);
            let now = Instant::now();
            let Self { relay_view, clients, .. } = &mut self;
            clients.retain_mut(|client| client.attend(relay_view, now) == Stay::Yes);

            waiter.begin();
            doorbell.arm();
            waiter.add(Arm::Wait(doorbell.as_raw_fd()));
            if self.accept_after.is_none() {
                waiter.add(Arm::Wait(control.listener.as_raw_fd()));
            }
            for client in self.clients.iter().filter(|client| client.listens()) {
                waiter.add(Arm::Wait(client.stream.as_raw_fd()));
            }
            if !stop.load(Ordering::Acquire) {
                waiter.wait(self.wait_max(now));
            }
            doorbell.disarm();
        }
    }

    fn accept(&mut self, listener: &UnixListener) {
        if self.accept_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        self.accept_after = None;
        // A few at a time, so that those who are here are attended to.
        for _ in 0..CLIENTS_MAX {
            match listener.accept() {
                Ok((stream, _)) => self.let_in(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Mostly no descriptor left: the listener stays readable, so look away for a while.
                Err(_) => {
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn let_in(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= CLIENTS_MAX {
            let silent = self.clients.iter().enumerate().min_by_key(|(_, client)| client.heard);
            if let Some((longest, _)) = silent {
                self.clients.swap_remove(longest);
            }
        }
        self.clients.push(Client {
            stream,
            asked: Vec::new(),
            answer: Vec::new(),
            written: 0,
            heard: Instant::now(),
            watch: None,
            ended: false,
        });
    }

    /// How long nothing will be due.
    fn wait_max(&self, now: Instant) -> Option<Duration> {
        let due = self.clients.iter().map(|client| client.due(&self.relay_view.journal, now));
        let due = due.chain(self.accept_after.map(|after| after.saturating_duration_since(now)));
        due.min()
    }
}

impl Client {
    /// Whether it may be read from: one answer at a time.
    fn listens(&self) -> bool {
        self.answer.is_empty() && !self.ended
    }

    fn due(&self, journal: &Journal, now: Instant) -> Duration {
        if !self.answer.is_empty() {
            return RETRY;
        }
        let at = match self.watch {
            Some(Watch::Balance(at)) => at,
            Some(Watch::Events(next)) if journal.has_more(next) => now,
            // New ones ring.
            Some(Watch::Events(_)) => now + IDLE_MAX,
            // Something to answer, or nobody to answer any more.
            None if self.ended || self.asked.contains(&b'\n') => now,
            None => self.heard + IDLE_MAX,
        };
        at.saturating_duration_since(now)
    }

    /// Writes what it takes, reads what it says, answers one line of it.
    fn attend(&mut self, relay_view: &RelayView, now: Instant) -> Stay {
        if self.write(now) == Stay::No {
            return Stay::No;
        }
        if !self.answer.is_empty() {
            let stuck = now.saturating_duration_since(self.heard) > STUCK_MAX;
            return if stuck { Stay::No } else { Stay::Yes };
        }
        if self.read() == Stay::No {
            return Stay::No;
        }
        if let Some(watch) = self.watch {
            // Whatever a watcher says is not looked at: it is told until it goes.
            self.asked.clear();
            self.tell(watch, relay_view, now);
        } else if let Some(line) = self.next_line() {
            self.heard = now;
            let answer = self.answer_to(&line, relay_view);
            self.say(&answer);
        } else if self.asked.len() > LINE_BYTES_MAX {
            let text = format!("a request has at most {LINE_BYTES_MAX} bytes");
            self.say(&error("line_too_long", &text));
            self.ended = true;
            self.asked.clear();
        } else if self.ended {
            return Stay::No;
        } else if now.saturating_duration_since(self.heard) >= IDLE_MAX {
            self.say(&error("idle", "nothing was asked for a minute"));
            self.ended = true;
        }
        self.write(now)
    }

    /// Says what a watcher is to be told by now.
    fn tell(&mut self, watch: Watch, relay_view: &RelayView, now: Instant) {
        match watch {
            Watch::Balance(due) if now < due => {}
            Watch::Balance(_) => {
                self.watch = Some(Watch::Balance(now + WATCH_EVERY));
                self.say(&ask(&relay_view.slow_path, Question::Balance));
                self.heard = now;
            }
            Watch::Events(next) => {
                let Read { entries, missed, next } = relay_view.journal.read(next, EVENTS_AT_ONCE);
                self.watch = Some(Watch::Events(next));
                if missed > 0 {
                    self.say(&json!({ "missed": missed }));
                }
                for entry in &entries {
                    self.say(&render::event(entry));
                    self.heard = now;
                }
            }
        }
    }

    /// Takes the next whole line out of what was said.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.asked.iter().position(|byte| *byte == b'\n')?;
        if end > LINE_BYTES_MAX {
            return None;
        }
        let line = self.asked.drain(..=end).take(end).collect();
        Some(line)
    }

    fn answer_to(&mut self, line: &[u8], relay_view: &RelayView) -> Value {
        match read_request(line) {
            Err(why) => error("bad_request", &why),
            Ok(Asked::Question(question)) => ask(&relay_view.slow_path, question),
            Ok(Asked::Events) => {
                let Read { entries, missed, .. } = relay_view.journal.read(0, usize::MAX);
                let rows: Vec<Value> = entries.iter().map(render::event).collect();
                json!({ "events": rows, "missed": missed })
            }
            Ok(Asked::WatchBalance) => {
                self.watch = Some(Watch::Balance(Instant::now() + WATCH_EVERY));
                ask(&relay_view.slow_path, Question::Balance)
            }
            Ok(Asked::WatchEvents) => {
                self.watch = Some(Watch::Events(0));
                json!({ "watching": "events" })
            }
        }
    }

    fn say(&mut self, answer: &Value) {
        self.answer.extend_from_slice(json_line(answer).as_bytes());
        self.answer.push(b'\n');
    }

    fn write(&mut self, now: Instant) -> Stay {
        while self.written < self.answer.len() {
            match self.stream.write(&self.answer[self.written..]) {
                Ok(0) => return Stay::No,
                Ok(written) => {
                    self.written += written;
                    self.heard = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Stay::Yes,
                Err(_) => return Stay::No,
            }
        }
        // The memory too: an answer may have been long, and the next is made anew.
        self.answer = Vec::new();
        self.written = 0;
        Stay::Yes
    }

    /// Takes in what came, a line and a little more at most.
    fn read(&mut self) -> Stay {
        while !self.ended && self.asked.len() <= LINE_BYTES_MAX {
            let mut bytes = [0; 1024];
            match self.stream.read(&mut bytes) {
                // A client may end its half and still wait for answers.
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.asked.extend_from_slice(&bytes[..read]);
                    if self.watch.is_some() {
                        self.asked.clear();
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Stay::No,
            }
        }
        Stay::Yes
    }
}

/// A request that makes sense.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Question(Question),
    Events,
    WatchBalance,
    WatchEvents,
}

/// Asks the slow path, which never makes anybody wait for a client.
fn ask(slow_path: &RequestSender, question: Question) -> Value {
    match slow_path.ask(question).recv_timeout(ANSWER_MAX).ok() {
        Some(answer) => render::answer(&answer),
        None => error("no_answer", "the slow path is stopping or overloaded; ask again"),
    }
}

fn error(kind: &str, text: &str) -> Value {
    json!({ "error": text, "kind": kind })
}

fn read_request(line: &[u8]) -> Result<Asked, String> {
    const WANTED: &str = "one object with one of show, attach, detach, renumber, drain, grow, watch, \
                          ping, trace, identify, answers";
    let value: Value = serde_json::from_slice(line).map_err(|_| format!("no JSON: {WANTED}"))?;
    let object = value.as_object().filter(|object| object.len() == 1);
    let Some((verb, what)) = object.and_then(|object| object.iter().next()) else {
        return Err(format!("a request is {WANTED}"));
    };
    let question = match (verb.as_str(), what.as_str()) {
        #[cfg(debug_assertions)]
        ("panic", Some("slow_path")) => Question::Panic,
        ("show", Some("slots")) => Question::Slots,
        ("show", Some("ports")) => Question::Ports,
        ("show", Some("discards")) => Question::Discards,
        ("show", Some("status")) => Question::Status,
        ("show", Some("peers")) => Question::Peers,
        ("show", Some("links")) => Question::Links,
        ("show", Some("events")) => return Ok(Asked::Events),
        ("show", _) => {
            let topics = "slots, ports, peers, links, events, discards or status";
            return Err(format!("show takes {topics}"));
        }
        ("watch", Some("balance")) => return Ok(Asked::WatchBalance),
        ("watch", Some("events")) => return Ok(Asked::WatchEvents),
        ("watch", _) => return Err("watch takes balance or events".to_owned()),
        ("attach", _) => Question::Attach(Box::new(read_attach(what)?)),
        ("detach", _) => {
            let slot = what.as_u64().and_then(|slot| u32::try_from(slot).ok());
            Question::Detach(slot.ok_or("detach takes a slot number")?)
        }
        ("renumber", _) => change::renumber(what)?,
        ("drain", _) => change::drain(what)?,
        ("grow", _) => change::grow(what)?,
        ("ping" | "trace" | "identify", _) => {
            let (label, question) = ask::read(verb, what)?;
            Question::Ask(label, question)
        }
        ("answers", _) => {
            let asked = what.as_u64().and_then(|asked| u32::try_from(asked).ok());
            Question::Answers(asked.ok_or("answers takes the number that a question was given")?)
        }
        _ => return Err(format!("a request is {WANTED}")),
    };
    Ok(Asked::Question(question))
}

fn read_attach(what: &Value) -> Result<AttachRequest, String> {
    let object = what.as_object().ok_or("attach takes an object with name and address")?;
    let known = ["name", "address", "listener", "slot", "key", "peer_id", "psk", "rights"];
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("attach knows no {key:?}: {}", known.join(", ")));
    }
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} in attach must be a string")),
    };
    let slot = match object.get("slot") {
        None | Some(Value::Null) => None,
        Some(slot) => {
            let slot = slot.as_u64().and_then(|slot| u32::try_from(slot).ok());
            Some(slot.ok_or("slot in attach must be a slot number")?)
        }
    };
    let rights = match object.get("rights") {
        None | Some(Value::Null) => None,
        Some(list) => {
            let words = list.as_array().map(|list| list.iter().map(Value::as_str).collect());
            let words: Option<Vec<&str>> = words.flatten();
            Some(parse_rights(
                words.ok_or("rights in attach must be a list of strings")?.into_iter(),
            )?)
        }
    };
    let key = text("key")?.map(|key| parse_key(&key)).transpose()?;
    let peer_id = text("peer_id")?.map(|peer_id| parse_peer_id(&peer_id)).transpose()?;
    if key.is_none() && peer_id.is_none() && (rights.is_some() || text("psk")?.is_some()) {
        return Err("psk and rights in attach go with the key or peer_id of a peer".to_owned());
    }
    Ok(AttachRequest {
        name: text("name")?.ok_or("attach needs name")?,
        address: text("address")?.map(|at| address::parse_here(&at)).transpose()?,
        listener: text("listener")?,
        slot,
        key,
        peer_id,
        psk: text("psk")?.map(PathBuf::from),
        rights,
    })
}

#[cfg(test)]
mod tests {
    use strowger_wire::scheme::F8;

    use super::*;

    #[test]
    fn requests_are_read_or_refused_with_a_reason() {
        let read = |line: &str| read_request(line.as_bytes());
        let question = |question| Ok(Asked::Question(question));
        assert_eq!(read(r#"{"show":"slots"}"#), question(Question::Slots));
        assert_eq!(read(r#" {"detach":7} "#), question(Question::Detach(7)));
        let renumber = Question::Renumber { from: 7, to: Some(9) };
        assert_eq!(read(r#"{"renumber":{"slot":7,"to":9}}"#), question(renumber));
        let drain = Question::Drain { slot: 7, for_s: 60 };
        assert_eq!(read(r#"{"drain":{"slot":7}}"#), question(drain));
        let grow = Question::Grow { scheme: Box::new(F8), slot_max: Some(99) };
        assert_eq!(read(r#"{"grow":{"scheme":"f8","slot_max":99}}"#), question(grow));
        assert_eq!(read(r#"{"watch":"balance"}"#), Ok(Asked::WatchBalance));
        let wish = AttachRequest {
            name: "a".to_owned(),
            address: Some(Address::Udp("127.0.0.1:9".parse().unwrap())),
            listener: None,
            slot: Some(4),
            key: None,
            peer_id: None,
            psk: None,
            rights: None,
        };
        let line = r#"{"attach":{"name":"a","address":"127.0.0.1:9","slot":4}}"#;
        assert_eq!(read(line), question(Question::Attach(Box::new(wish))));
        for rubbish in [
            "",
            "{}",
            "[]",
            "7",
            "nonsense",
            r#"{"show":"slots","show2":1}"#,
            r#"{"show":"everything"}"#,
            r#"{"show":7}"#,
            r#"{"detach":-1}"#,
            r#"{"detach":4294967296}"#,
            r#"{"renumber":5}"#,
            r#"{"renumber":{"to":5}}"#,
            r#"{"renumber":{"slot":5,"too":6}}"#,
            r#"{"drain":{"slot":5,"for_s":86401}}"#,
            r#"{"drain":{"slot":"5"}}"#,
            r#"{"grow":{"slot_max":5}}"#,
            r#"{"grow":{"scheme":"v9"}}"#,
            r#"{"attach":{}}"#,
            r#"{"attach":{"name":"a","adress":"127.0.0.1:9"}}"#,
            r#"{"attach":{"name":"a","address":"localhost:9"}}"#,
            "\u{0}",
        ] {
            assert!(read(rubbish).is_err(), "{rubbish}");
        }
    }
}
