//! `strowger relay`: the slow path's thread. It polls the switch, answers the control socket's
//! questions and watches the workers; it never touches a frame and never waits for a client.

mod alternates;
mod attach;
mod changes;
mod health;
mod host;
mod logged;
mod questions;
mod signals;
mod waiting;
mod words;

use std::{
    io::{self, Write},
    os::fd::AsRawFd as _,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use strowger_engine::control::{
    Balance, DetachError, Event, PortId, PortView, SlotState, Switch, messages::QuestionId,
};
use strowger_frame::{Address, port::Arm};
use strowger_io::{Doorbell, Ringer, Waiter};
use strowger_runtime::{
    recovery::{Restarts, caught, keep_quiet},
    worker_thread::{Idle, Running},
};

pub(crate) use self::waiting::is_here;
use self::{
    changes::{Change, Changes, narrow_bits},
    health::Health,
    host::{Host, Seen},
    logged::{logged, subject},
    questions::Questions,
    signals::Signalled,
    waiting::wait_for_network,
    words::words_of,
};
use crate::{
    address::Shown,
    admin::{Answer, Control, Question, Server},
    config::{self, Config},
    exit::{Exit, Failure},
    files::Opener,
    journal::{Entry, Journal},
    limits::ALTERNATES_MAX,
    log::{Kind, Log},
    own::Own,
    rights, show,
    topology::{self, PortInfo, PortKind, Topology, assemble},
    untrusted::Untrusted,
};

/// What a relay that is stopped says to its neighbours (wire.md W5-12): it ends by its operator's will.
const GOODBYE_STOPPING: u8 = 1;

/// What is said to a peer whose slot is taken away, and for how many seconds it need not ask again.
const GOODBYE_DETACHED: u8 = 3;
const DETACHED_RETRY_S: u32 = 60;

/// Workers and clients ring when there is something to do; what is due by the clock (quarantines,
/// keys, liveness) is looked at this often.
const IDLE_TICK: Duration = Duration::from_millis(50);
/// The same where links are sealed: they have more that is due.
const SEALED_TICK: Duration = Duration::from_millis(20);
/// At the end, workers are asked this often whether they are done.
const BUSY_TICK: Duration = Duration::from_millis(1);
/// A turn begins no sooner than this after the one before: a flood of strangers fills the queue
/// meanwhile, and does not keep this thread from sleeping.
const TURN_MIN: Duration = Duration::from_millis(1);
/// How long workers may take to give up everything at the end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Requests that wait for the slow path: the control socket's thread asks one at a time.
const REQUESTS_MAX: usize = 4;

/// What reaches the slow path from other threads.
pub(crate) enum Request {
    /// A client of the control socket asks; the answer goes into the channel, which has room.
    Ask(Question, SyncSender<Answer>),
}

/// Where other threads put their requests: it wakes the slow path.
#[derive(Clone, Debug)]
pub(crate) struct Letterbox {
    requests: SyncSender<Request>,
    ringer: Ringer,
}

impl Letterbox {
    /// Puts a request in; `false` when the slow path has too many, or is no more.
    pub(crate) fn put(&self, request: Request) -> bool {
        let taken = self.requests.try_send(request).is_ok();
        if taken {
            self.ringer.ring();
        }
        taken
    }
}

/// What wakes the slow path, and what it then finds.
struct Inbox {
    requests: Receiver<Request>,
    doorbell: Doorbell,
    waiter: Waiter,
}

impl Inbox {
    /// One that also hears who knocks at so many doors.
    fn new(doors: usize) -> Result<(Self, Letterbox), Failure> {
        let doorbell = Doorbell::new()
            .map_err(|error| Failure::new(Exit::Refused, format!("no doorbell: {error}")))?;
        let (requests_in, requests) = sync_channel(REQUESTS_MAX);
        let letterbox = Letterbox { requests: requests_in, ringer: doorbell.ringer() };
        Ok((Self { requests, doorbell, waiter: Waiter::with_capacity(1 + doors) }, letterbox))
    }

    /// Blocks until somebody has rung since the doorbell was armed or knocks, or the time is up.
    fn wait(&mut self, timeout: Duration, switch: &mut Switch) {
        self.waiter.begin();
        self.waiter.add(Arm::Wait(self.doorbell.as_raw_fd()));
        switch.arm(|arm| self.waiter.add(arm));
        self.waiter.wait(Some(timeout));
        switch.disarm();
        self.doorbell.disarm();
    }
}

/// Runs a relay until a signal ends it.
///
/// # Errors
/// One line: the configuration, the machine, a worker that died, counters that are uneven.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let mut config = config::read(path)?;
    // Before any thread is started: what is said of one thread passes to those that it starts.
    let account = rights::account(&config)?;
    // Bound first: whoever starts a relay twice is told before anything else is touched.
    let opener = Opener::new(account.as_ref());
    let conflicts = topology::roles(&config, path, topology::workers(&config)?).conflicts();
    if !conflicts.is_empty() {
        return Err(Failure::new(Exit::Usage, first(conflicts)));
    }
    let control = Control::bind(&config.control_socket, &opener)?;
    let (mut inbox, letterbox) = Inbox::new(config.udp.len() * (1 + ALTERNATES_MAX))?;
    let signalled = Signalled::watch(letterbox.ringer.clone()).map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot watch for signals: {error}"))
    })?;

    wait_for_network(&config, &signalled);
    if signalled.stop().is_some() {
        return Ok(()); // nothing runs yet, and what was bound goes
    }
    config.resolve().map_err(|lines| Failure::new(Exit::Refused, first(lines)))?;
    let faults = Own::now().faults(&config);
    if !faults.is_empty() {
        return Err(Failure::new(Exit::Usage, first(faults)));
    }

    let said = &mut io::stdout();
    let _ = writeln!(said, "{}", headline(&config));
    let mut topology =
        assemble(&config, letterbox.ringer.clone(), (account.as_ref(), &opener), said)?;
    let early = std::mem::take(&mut topology.events);
    let journal = Journal::default();
    // Not before: the thread is to have no rights that were given up.
    let log = Log::start()
        .map_err(|error| Failure::new(Exit::Refused, format!("no thread for the log: {error}")))?;
    let mut relay = Relay {
        topology,
        signalled,
        log: log.clone(),
        health: Health::new(),
        host: Host::new(),
        began: Instant::now(),
        changes: Changes::default(),
        journal: journal.clone(),
        questions: Questions::default(),
        restarts: Restarts::default(),
        recovering: false,
        gone: Vec::new(),
    };
    keep_quiet();
    relay.note(&early);
    relay.say_slots(said);
    let server = control.serve(letterbox, journal)?;
    let at = config.control_socket.display().to_string();
    let _ = writeln!(said, "control socket: {}", Untrusted(&at));
    let _ = writeln!(said, "ready").and_then(|()| said.flush());

    let ended = relay.serve(&mut inbox);
    let finished = relay.finish(server, ended, said);
    log.close();
    finished
}

/// The first of several errors, and how to see the others.
fn first(lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(1);
    let first = lines.into_iter().next().unwrap_or_default();
    if more == 0 { first } else { format!("{first}; `strowger config check` shows {more} more") }
}

fn headline(config: &Config) -> String {
    let switch = &config.switch;
    format!(
        "strowger {}: relay with scheme {}, slots up to {}, {} hops, u-turns {}, idle {}",
        env!("CARGO_PKG_VERSION"),
        switch.scheme.name().unwrap_or("of its own"),
        switch.slot_max,
        switch.hops_max,
        if switch.u_turns { "allowed" } else { "refused" },
        idle_name(config.idle),
    )
}

/// `adaptive` or `spin`.
pub(crate) fn idle_name(idle: Idle) -> &'static str {
    match idle {
        Idle::Block { .. } => "adaptive",
        Idle::Spin => "spin",
    }
}

/// A relay that runs, as its slow path sees it.
struct Relay {
    topology: Topology,
    signalled: Signalled,
    log: Log,
    health: Health,
    host: Host,
    began: Instant,
    /// Clients that are told once their change has come true.
    changes: Changes,
    /// What came true, for whoever asks.
    journal: Journal,
    questions: Questions,
    restarts: Restarts,
    /// The slow path has begun anew, and not everything that it was doing has been done or undone.
    recovering: bool,
    /// Ports whose interface vanished, as was said.
    gone: Vec<PortId>,
}

impl Relay {
    fn serve(&mut self, inbox: &mut Inbox) -> Result<(), Failure> {
        loop {
            // Armed first: whoever rings from here on is not missed.
            inbox.doorbell.arm();
            let began = Instant::now();
            self.turn()?;
            if let Some(dead) = self.topology.running.iter().position(Running::has_died) {
                let line = format!("worker {dead} died, a bug of ours; please report what it said");
                return Err(Failure::new(Exit::Died, line));
            }
            let mut asked = false;
            while let Ok(request) = inbox.requests.try_recv() {
                asked = true;
                let Request::Ask(question, client) = request;
                self.guarded(|relay| relay.answer(question, client))?;
            }
            for line in self.signalled.noted() {
                self.log.write(Kind::Signal, "relay", line);
            }
            if let Some(line) = self.signalled.stop() {
                self.log.write(Kind::Signal, "relay", line);
                return Ok(());
            }
            if !asked {
                inbox.wait(self.tick(), &mut self.topology.switch);
                std::thread::sleep(TURN_MIN.saturating_sub(began.elapsed()));
            }
        }
    }

    /// How long nothing is due by the clock.
    fn tick(&self) -> Duration {
        if self.topology.identity.is_some() { SEALED_TICK } else { IDLE_TICK }
    }

    /// One turn of the slow path, which may begin anew in it.
    ///
    /// # Errors
    /// It has panicked too often.
    fn turn(&mut self) -> Result<(), Failure> {
        self.guarded(Self::turn_once)?;
        if self.recovering && self.topology.switch.is_settled() {
            self.recovering = false;
            // Whatever they asked for has come true by now, or never will.
            self.changes.give_up();
        }
        Ok(())
    }

    /// Does something as the slow path. If it panics the slow path begins anew: workers go on with
    /// what they have, and what was half done is done again or undone.
    fn guarded(&mut self, what: impl FnOnce(&mut Self)) -> Result<(), Failure> {
        let Err(words) = caught(|| what(self)) else { return Ok(()) };
        let too_often = !self.restarts.may_begin(Instant::now());
        let salvaged = caught(|| {
            let Topology { switch, clock, .. } = &mut self.topology;
            switch.salvage(clock.now());
        });
        if too_often || salvaged.is_err() {
            let line = format!(
                "the slow path panics again and again, a bug of ours; please report: {words}"
            );
            return Err(Failure::new(Exit::Died, line));
        }
        let line = words.replace(['\n', '\r'], " ");
        let text = format_args!("panicked and begins anew, a bug of ours; please report: {line}");
        self.log.write(Kind::SlowPathRestarted, "slow path", text);
        self.questions.give_up();
        self.recovering = true;
        Ok(())
    }

    fn turn_once(&mut self) {
        self.keep_state(false);
        let events = self.topology.switch.poll(self.topology.clock.now());
        self.keep_state(!events.is_empty());
        self.note(&events);
        self.follow_alternates(&events);
        self.note_gone();
        self.health.look(Instant::now(), &self.topology, &self.log);
        self.note_host();
        self.log.tick();
        for event in events {
            match event {
                Event::Answered(id, answer) => self.questions.take(id, answer),
                event => self.changes.take(&event),
            }
        }
    }

    /// Says, once for each, which interfaces have vanished.
    fn note_gone(&mut self) {
        for port in &self.topology.ports {
            let PortKind::Ethernet(wire) = &port.kind else { continue };
            if !wire.is_gone() || self.gone.contains(&port.id) {
                continue;
            }
            self.gone.push(port.id);
            let name = &port.name;
            let text = "its interface is gone; what is sent there is lost as peer_gone; when it is back, \
                        start the relay anew";
            self.log.write(Kind::PortTrouble, &format!("[[ethernet]] {name}"), text);
            let (at, detail) = (self.began.elapsed(), Some(name.clone()));
            let (what, slot, name) = ("interface_gone", None, String::new());
            self.journal.write(Entry { number: 0, at, what, slot, name, detail });
        }
    }

    /// Says what has changed on the machine.
    fn note_host(&mut self) {
        for Seen { kind, subject, text } in self.host.look(Instant::now(), &mut self.topology) {
            self.log.write(kind, &subject, &text);
            let detail = Some(format!("{subject}: {text}"));
            let (at, name) = (self.began.elapsed(), String::new());
            self.journal.write(Entry {
                number: 0,
                at,
                what: kind.name(),
                slot: None,
                name,
                detail,
            });
        }
    }

    /// Writes events down for whoever watches.
    fn note(&mut self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let at = self.began.elapsed();
        for event in events {
            if matches!(event, Event::Answered(..) | Event::WantsAlternate(_)) {
                continue; // told to whoever asked, or by what is done about it
            }
            let (what, slot, detail) = words_of(event);
            let name = slot.and_then(|slot| self.topology.switch.name_at(slot));
            let name = name.unwrap_or_default().to_owned();
            if let Some((kind, text)) = logged(event) {
                self.log.write(kind, &subject(slot, &name), text);
            }
            self.journal.write(Entry { number: 0, at, what, slot, name, detail });
        }
    }

    /// Writes down whose slots are whose, where there is news.
    fn keep_state(&mut self, has_changed: bool) {
        let Topology { switch, clock, state: Some(state), .. } = &mut self.topology else { return };
        if (has_changed || state.is_behind(switch, *clock))
            && let Some(warning) = state.keep(switch, *clock)
        {
            let (kind, text) = match warning.strip_prefix("warning: ") {
                Some(text) => (Kind::StateFileTrouble, text),
                None => (Kind::StateFileBack, warning.as_str()),
            };
            let text = text.strip_prefix("state file ").unwrap_or(text);
            self.log.write(kind, "state file", text);
        }
    }

    fn answer(&mut self, question: Question, client: SyncSender<Answer>) {
        let Topology { switch, clock, .. } = &mut self.topology;
        let answer = match question {
            #[cfg(debug_assertions)]
            Question::Panic => panic!("a client of this debug build asked for it"),
            Question::Slots => Answer::Slots(switch.slots(), clock.now(), self.names()),
            Question::Ports => Answer::Ports(switch.ports(), self.topology.ports.clone()),
            Question::Discards => Answer::Discards(switch.balance(), switch.ports(), self.names()),
            Question::Balance => Answer::Balance(switch.balance(), self.began.elapsed()),
            Question::Status => self.status(),
            Question::Peers => {
                Answer::Peers(switch.peers(), clock.now(), self.topology.identity, self.names())
            }
            Question::Links => {
                Answer::Links(switch.slots(), switch.peers(), clock.now(), self.names())
            }
            Question::Attach(wish) => match self.attach(*wish) {
                Ok(slot) => match self.topology.switch.opens_in(slot) {
                    // It comes true by itself, later than any client waits.
                    Some(ns) => Answer::Attached(slot, Some(ns.div_ceil(1_000_000_000))),
                    None => return self.changes.expect(Change::Attach(slot), client),
                },
                Err(why) => Answer::Declined(why),
            },
            Question::Ask(label, question) => match switch.ask(label, question, clock.now()) {
                Ok(id) => {
                    self.questions.expect(id);
                    Answer::Asked(id.0)
                }
                Err(why) => Answer::Declined(why.to_string()),
            },
            Question::Answers(id) => match self.questions.fetch(QuestionId(id)) {
                Some((answers, done)) => Answer::Answers(answers, done),
                None => Answer::Declined(format!("there is no question {id}, or no more of it")),
            },
            Question::Detach(slot) => match detach(switch, slot) {
                Ok(()) => return self.changes.expect(Change::Detach(slot), client),
                Err(why) => Answer::Declined(why.to_string()),
            },
            Question::Renumber { from, to } => match switch.renumber(from, to) {
                Ok(to) => {
                    let alias_s = switch.config().alias_ns / 1_000_000_000;
                    let narrow_bits = narrow_bits(&switch.config().scheme, from, to);
                    let change = Change::Renumber { from, to, alias_s, narrow_bits };
                    return self.changes.expect(change, client);
                }
                Err(why) => Answer::Declined(why.to_string()),
            },
            // True at once: what takes time is that nobody names it any more.
            Question::Drain { slot, for_s } => match switch.drain(slot, for_s * 1_000_000_000) {
                Ok(()) => Answer::Draining { slot, for_s },
                Err(why) => Answer::Declined(why.to_string()),
            },
            Question::Grow { scheme, slot_max } => {
                let slot_max = slot_max.unwrap_or_else(|| {
                    let max = config::default_slot_max(&scheme).unwrap_or_default();
                    max.max(switch.config().slot_max)
                });
                match switch.grow_scheme(*scheme, slot_max) {
                    Ok(()) => {
                        return self.changes.expect(Change::Grow { scheme, slot_max }, client);
                    }
                    Err(why) => Answer::Declined(why.to_string()),
                }
            }
        };
        let _ = client.try_send(answer);
    }

    /// By port number: as the configuration calls them.
    fn names(&self) -> Vec<(u16, String)> {
        self.topology.ports.iter().map(|port| (port.id.0, port.name.clone())).collect()
    }

    fn status(&self) -> Answer {
        let Topology { switch, memory, ports, idle, cores, .. } = &self.topology;
        Answer::Status(Box::new(crate::admin::Status {
            uptime: self.began.elapsed(),
            workers: memory.workers,
            cores: cores.clone(),
            idle: *idle,
            switch: *switch.config(),
            ports: ports.clone(),
            memory: memory.clone(),
            balance: switch.balance(),
            identity: self.topology.identity,
            sealed: self.is_sealed(),
            restarts: self.restarts.count(),
        }))
    }

    /// Whether every link is: no listener may have plain ones.
    fn is_sealed(&self) -> bool {
        self.topology.identity.is_some() && !self.topology.ports.iter().any(PortInfo::is_plain)
    }

    fn say_slots(&self, said: &mut dyn Write) {
        let names = self.names();
        let views = self.topology.switch.slots();
        // Numbers that rest, or lead elsewhere, have nobody behind them.
        for view in views.iter().filter(|view| view.port.is_some()) {
            let port = names.iter().find(|(id, _)| view.port.is_some_and(|port| port.0 == *id));
            let behind = port.map_or("", |(_, name)| name.as_str());
            let at = match view.at {
                Some(at @ (Address::Udp(_) | Address::Ether(_))) => format!(" at {}", Shown(at)),
                _ => String::new(),
            };
            let opens = match (view.state, view.left_ns) {
                (SlotState::Coming, Some(ns)) => format!(
                    ", in {} s, when no label of its former user is on its way",
                    ns.div_ceil(1_000_000_000)
                ),
                _ => String::new(),
            };
            let _ = writeln!(said, "slot {}: {}{at} behind {behind}{opens}", view.slot, view.name);
        }
    }

    /// Gives everything up in order, so that every frame is sent or counted, and says what was
    /// counted.
    fn finish(
        mut self,
        server: Server,
        ended: Result<(), Failure>,
        said: &mut dyn Write,
    ) -> Result<(), Failure> {
        server.stop();
        // A worker that died reports nothing any more, so there is nothing to wait for.
        ended?;
        // Those who have slots now are to find them again: that they are taken away is not kept.
        self.keep_state(true);
        self.topology.state = None;
        self.topology.switch.set_written(u64::MAX);
        let attached = self.topology.switch.slots();
        let is_there =
            |state| matches!(state, SlotState::Attached | SlotState::Draining | SlotState::Coming);
        // Said first and let go before anything is taken away. Plain neighbours are told nothing:
        // anybody could have said it.
        for peer in self.topology.switch.peers().iter().filter(|peer| peer.is_up()) {
            self.topology.switch.goodbye(peer.slot, GOODBYE_STOPPING, 0, "the relay stops");
        }
        let mut settled = self.settle();
        let leaving = attached.iter().filter(|view| is_there(view.state)).map(|view| view.slot);
        self.topology.switch.detach_all(leaving);
        settled &= self.settle();
        let ports = self.topology.switch.ports();
        for port in &self.topology.ports {
            let _ = self.topology.switch.unplug(port.id);
        }
        settled &= self.settle();
        for worker in std::mem::take(&mut self.topology.running) {
            drop(worker.stop());
        }
        self.turn()?;
        let balance = self.topology.switch.balance();
        let _ = say_counters(said, &ports, &self.names(), &balance);
        if settled && balance.is_even() {
            return Ok(());
        }
        let what = if settled { "the counters are uneven" } else { "the workers do not stop" };
        let line = format!("{what}: a bug of ours; please report the counters above");
        Err(Failure::new(Exit::CheckFailed, line))
    }

    /// Polls until the workers have done all that they were told; `false` if they do not.
    fn settle(&mut self) -> bool {
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if self.turn().is_err() {
                return false;
            }
            if self.topology.switch.is_settled() {
                return true;
            }
            let died = self.topology.running.iter().any(Running::has_died);
            if died || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(BUSY_TICK);
        }
    }
}

/// Detaches what is at a slot; a peer is told first.
fn detach(switch: &mut Switch, slot: u32) -> Result<(), DetachError> {
    if switch.peers().iter().any(|peer| peer.slot == slot && peer.is_up()) {
        switch.goodbye(slot, GOODBYE_DETACHED, DETACHED_RETRY_S, "detached by the operator");
    }
    switch.detach(slot)
}

/// The last words of a relay.
fn say_counters(
    said: &mut dyn Write,
    ports: &[PortView],
    names: &[(u16, String)],
    balance: &Balance,
) -> io::Result<()> {
    writeln!(said, "stopped")?;
    said.write_all(show::ports_table(ports, names).as_bytes())?;
    said.write_all(show::balance_lines(balance).as_bytes())?;
    said.flush()
}
