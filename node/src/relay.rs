//! `strowger relay`: the slow path's thread. It polls the switch, answers the control socket's
//! questions and watches the workers; it never touches a frame and never waits for a client.

use std::{
    io::{self, Write},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use strowger_engine::{
    control::{Attach, Balance, Event, PortView, SlotState},
    link::Behind,
};
use strowger_frame::Address;

use crate::{
    admin::{Answer, AttachWish, Control, Question, Server},
    config::{self, Config},
    exit::{Exit, Failure},
    run::{Idle, Running},
    show,
    topology::{PortKind, Topology, assemble},
};

/// With no change under way, the switch is polled this often: what is quarantined comes free, and
/// what was for the switch itself is ended.
const IDLE_TICK: Duration = Duration::from_millis(50);
/// While workers have orders to report, it is polled this often.
const BUSY_TICK: Duration = Duration::from_millis(1);
/// How long workers may take to give up everything at the end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Requests that wait for the slow path: the control socket's thread asks one at a time.
const REQUESTS_MAX: usize = 4;

/// What reaches the slow path from other threads.
pub(crate) enum Request {
    /// A client of the control socket asks; the answer goes into the channel, which has room.
    Ask(Question, SyncSender<Answer>),
    /// SIGINT or SIGTERM came.
    Stop,
}

/// Runs a relay until a signal ends it.
///
/// # Errors
/// One line: the configuration, the machine, a worker that died, counters that are uneven.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let config = config::read(path)?;
    // Bound first: whoever starts a relay twice is told before anything else is touched.
    let control = Control::bind(&config.control_socket)?;
    let (requests, inbox) = sync_channel(REQUESTS_MAX);
    on_signals(requests.clone())?;

    let said = &mut io::stdout();
    let _ = writeln!(said, "{}", headline(&config));
    let topology = assemble(&config, said)?;
    let mut relay = Relay { topology, began: Instant::now(), waiting: Vec::new() };
    relay.say_slots(said);
    let server = control.serve(requests)?;
    let _ = writeln!(said, "control socket: {}", config.control_socket.display());
    let _ = writeln!(said, "ready").and_then(|()| said.flush());

    let ended = relay.serve(&inbox);
    relay.finish(server, ended, said)
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

/// A thread that turns the first signal into a request and lets the second one kill, so that a
/// relay that cannot stop can be stopped.
fn on_signals(requests: SyncSender<Request>) -> Result<(), Failure> {
    let refused = |error: io::Error| {
        Failure::new(Exit::Refused, format!("cannot watch for signals: {error}"))
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(refused)?;
    let watch = move || {
        let mut told = false;
        for signal in &mut signals {
            if told {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            told = true;
            let _ = requests.try_send(Request::Stop);
        }
    };
    let named = std::thread::Builder::new().name("signals".to_owned());
    named.spawn(watch).map(drop).map_err(refused)
}

/// A relay that runs, as its slow path sees it.
struct Relay {
    topology: Topology,
    began: Instant,
    /// Clients that are told once their change has come true.
    waiting: Vec<(u32, SyncSender<Answer>)>,
}

impl Relay {
    fn serve(&mut self, inbox: &Receiver<Request>) -> Result<(), Failure> {
        loop {
            self.turn();
            if let Some(dead) = self.topology.running.iter().position(Running::has_died) {
                let line = format!("worker {dead} died, a bug of ours; please report what it said");
                return Err(Failure::new(Exit::Died, line));
            }
            let tick = if self.topology.switch.is_settled() { IDLE_TICK } else { BUSY_TICK };
            match inbox.recv_timeout(tick) {
                Ok(Request::Ask(question, client)) => self.answer(question, client),
                Ok(Request::Stop) => return Ok(()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// One turn of the slow path.
    fn turn(&mut self) {
        for event in self.topology.switch.poll(self.topology.clock.now()) {
            let (slot, answer) = match event {
                Event::SlotAttached(slot) => (slot, Answer::Attached(slot)),
                Event::AttachRefused(slot, why) => (slot, Answer::Declined(why.to_string())),
                Event::SlotDetached(slot) => (slot, Answer::Detached(slot)),
                Event::SlotFree(_)
                | Event::PortUnplugged(_)
                | Event::LinkUp(_)
                | Event::LinkDown(_)
                | Event::Roamed(..)
                | Event::Rekeyed(_) => continue,
            };
            if let Some(at) = self.waiting.iter().position(|(waits_for, _)| *waits_for == slot) {
                // A client that does not wait any more has dropped its end.
                let _ = self.waiting.swap_remove(at).1.try_send(answer);
            }
        }
    }

    fn answer(&mut self, question: Question, client: SyncSender<Answer>) {
        let Topology { switch, clock, .. } = &mut self.topology;
        let answer = match question {
            Question::Slots => Answer::Slots(switch.slots(), clock.now(), self.names()),
            Question::Ports => Answer::Ports(switch.ports(), self.topology.ports.clone()),
            Question::Discards => Answer::Discards(switch.balance(), switch.ports(), self.names()),
            Question::Balance => Answer::Balance(switch.balance(), self.began.elapsed()),
            Question::Status => self.status(),
            Question::Attach(wish) => match self.attach(wish) {
                Ok(slot) => return self.waiting.push((slot, client)),
                Err(why) => Answer::Declined(why),
            },
            Question::Detach(slot) => match switch.detach(slot) {
                Ok(()) => return self.waiting.push((slot, client)),
                Err(why) => Answer::Declined(why.to_string()),
            },
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
        }))
    }

    fn attach(&mut self, wish: AttachWish) -> Result<u32, String> {
        let AttachWish { name, address, listener, slot } = wish;
        config::check_name(&name)?;
        let ports = &self.topology.ports;
        let is_udp = |kind: &PortKind| matches!(kind, PortKind::Udp { .. });
        let names = || {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            names.join(", ")
        };
        let port = match listener {
            Some(wanted) => ports.iter().find(|port| port.name == wanted).ok_or_else(|| {
                format!("no port has the name \"{wanted}\"; there are: {}", names())
            })?,
            None => {
                let mut udp = ports.iter().filter(|port| is_udp(&port.kind));
                match (udp.next(), udp.next()) {
                    (Some(only), None) => only,
                    (None, _) => return Err("this relay has no [[udp]] to be behind".to_owned()),
                    (Some(_), Some(_)) => {
                        return Err(format!("say behind which listener: {}", names()));
                    }
                }
            }
        };
        let (at, behind) = match (is_udp(&port.kind), address) {
            (true, Some(address)) => (Address::Udp(address), Behind::Neighbour),
            (true, None) => return Err(format!("behind {} a neighbour has an address", port.name)),
            (false, None) => (Address::Only, Behind::Endpoint),
            (false, Some(_)) => return Err(format!("behind {} there is no address", port.name)),
        };
        let attach = Attach { slot, ..Attach::plain(port.id, at, behind, name) };
        let switch = &mut self.topology.switch;
        if let Some(twin) = switch.slots().iter().find(|view| view.name == attach.name) {
            return Err(format!("the name \"{}\" is that of slot {}", attach.name, twin.slot));
        }
        switch.attach(attach).map_err(|error| error.to_string())
    }

    fn say_slots(&self, said: &mut dyn Write) {
        let names = self.names();
        for view in self.topology.switch.slots() {
            let port = names.iter().find(|(id, _)| view.port.is_some_and(|port| port.0 == *id));
            let behind = port.map_or("", |(_, name)| name.as_str());
            let at = match view.at {
                Some(Address::Udp(at)) => format!(" at {at}"),
                _ => String::new(),
            };
            let _ = writeln!(said, "slot {}: {}{at} behind {behind}", view.slot, view.name);
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
        let attached = self.topology.switch.slots();
        for view in attached.iter().filter(|view| view.state == SlotState::Attached) {
            let _ = self.topology.switch.detach(view.slot);
        }
        let mut settled = self.settle();
        let ports = self.topology.switch.ports();
        for port in &self.topology.ports {
            let _ = self.topology.switch.unplug(port.id);
        }
        settled &= self.settle();
        for worker in std::mem::take(&mut self.topology.running) {
            drop(worker.stop());
        }
        self.turn();
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
            self.turn();
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
