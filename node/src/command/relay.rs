//! `strowger relay`: a relay of the runtime with a configuration, a control socket, a journal and a log.

use std::{
    io::{self, Write},
    path::Path,
    sync::mpsc::RecvTimeoutError,
};

use strowger_engine::control::{Balance, PortView, SlotState, SlotView};
use strowger_frame::Address;
use strowger_io::sys::account::Account;
use strowger_runtime::{
    OpenRelay, ShutdownError, Summary, files::Opener, own::Own, recovery::keep_quiet, rights,
};

use crate::{
    command::{key, show},
    exit::{Exit, Failure},
    limits::{EVENTS_WAITING, LOG_TICK},
    relay::{
        RequestSender, builder,
        config::addresses,
        config::{self, Config},
        control::{Control, Server},
        files::roles,
        journal::Journal,
        log::{Kind, Log},
        signals::{Message, Signalled},
        waiting::wait_for_network,
        watch::Watcher,
    },
};
use strowger_runtime::{address::Shown, untrusted::Untrusted};

/// Runs a relay until a signal ends it.
///
/// # Errors
/// One line: the configuration, the machine, a worker that died, counters that are uneven.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let mut config = config::read(path)?;
    let refused = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{what}: {error}"))
    };
    // Before any thread is started: rights are each thread's own.
    let account = builder::account(&config)?;
    if let Some(account) = &account {
        account.prepare().map_err(|why| refused("[process]", &why))?;
    }
    // Bound first: a relay that is started twice is refused before anything else is touched.
    let opener = Opener::new(account.as_ref());
    let workers = strowger_runtime::workers(config.workers, config.cores.as_deref());
    let conflicts = roles(&config, path, workers.map_err(builder::failure)?).conflicts();
    if !conflicts.is_empty() {
        return Err(Failure::new(Exit::Usage, first(conflicts)));
    }
    let control = Control::bind(&config.control_socket, &opener)?;
    let signalled =
        Signalled::watch().map_err(|error| refused("cannot watch for signals", &error))?;

    wait_for_network(&config, &signalled);
    if signalled.stop().is_some() {
        return Ok(()); // nothing runs yet, and what was bound goes
    }
    config.resolve().map_err(|lines| Failure::new(Exit::Refused, first(lines)))?;
    let faults = addresses::faults(&Own::now(), &config);
    if !faults.is_empty() {
        return Err(Failure::new(Exit::Usage, first(faults)));
    }

    let said = &mut io::stdout();
    let _ = writeln!(said, "{}", headline(&config));
    keep_quiet();
    let open = open(&config, opener, account.as_ref())?;
    say_open(&open, said);
    let events = open.events(EVENTS_WAITING);
    let handle = open.start().map_err(builder::failure)?;
    if let Some(account) = &account {
        say_notes(handle.start_notes(), rights::socket_note(&config.control_socket, account), said);
    } else {
        say_notes(handle.start_notes(), None, said);
    }
    // Not before: the threads are to have no rights that were given up.
    let log = Log::start().map_err(|error| refused("no thread for the log", &error))?;
    let journal = Journal::default();
    let requests = RequestSender::new(handle.clone());
    let watcher =
        Watcher { journal: journal.clone(), log: log.clone(), requests: requests.clone() };
    let watching =
        watcher.watch(events, signalled.sender()).map_err(|error| refused("no thread", &error))?;
    if let Ok((slots, names)) = handle.call(|relay| (relay.switch().slots(), relay.port_names())) {
        say_slots(&slots, &names, said);
    }
    let server = control.serve(requests, journal)?;
    let at = config.control_socket.display().to_string();
    let _ = writeln!(said, "control socket: {}", Untrusted(&at));
    let _ = writeln!(said, "ready").and_then(|()| said.flush());

    wait_for_end(&signalled, &log);
    Server::stop(server);
    let ended = handle.shutdown();
    let _ = watching.join();
    log.close();
    finish(ended, said)
}

/// The first of several errors, and how to see the others.
fn first(lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(1);
    let first = lines.into_iter().next().unwrap_or_default();
    if more == 0 { first } else { format!("{first}; `strowger config check` shows {more} more") }
}

/// Opens everything, and gives the control socket to the user that the relay becomes.
fn open(config: &Config, opener: Opener, account: Option<&Account>) -> Result<OpenRelay, Failure> {
    let identity = config.identity.as_ref();
    let identity = identity.map(|identity| key::identity(&identity.key, &opener)).transpose()?;
    let mut builder = builder::builder(config, identity, |file| key::psk(file, &opener))?;
    if let Some(account) = account {
        let path = &config.control_socket;
        opener.give(path).map_err(|error| {
            let (path, name) = (path.display(), &account.name);
            Failure::new(Exit::Refused, format!("{path}: cannot be given to {name}: {error}"))
        })?;
        builder = builder.run_as(account.clone());
    }
    builder.opener(opener).open().map_err(builder::failure)
}

/// Waits until a signal comes that ends the relay, or the relay has ended by itself. Signals that end nothing are
/// logged.
fn wait_for_end(signalled: &Signalled, log: &Log) {
    loop {
        let message = match log.has_pending() {
            true => signalled.recv_timeout(LOG_TICK),
            false => signalled.recv(),
        };
        log.tick();
        match message {
            Ok(Message::Noted(line)) => log.write(Kind::Signal, "relay", line),
            Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::Ended) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(line) = signalled.stop() {
            log.write(Kind::Signal, "relay", line);
            return;
        }
    }
}

fn headline(config: &Config) -> String {
    let switch = &config.switch;
    format!(
        "strowger {}: relay with scheme {}, slots up to {}, {} hops, u-turns {}, idle {}",
        env!("CARGO_PKG_VERSION"),
        switch.scheme().name().unwrap_or("of its own"),
        switch.slot_max(),
        switch.hops_max(),
        if switch.u_turns() { "allowed" } else { "refused" },
        config.idle.name(),
    )
}

fn say_open(open: &OpenRelay, said: &mut dyn Write) {
    let _ = write!(said, "{}", open.memory());
    if let Some(note) = open.quota_note() {
        let _ = writeln!(said, "{note}");
    }
    if let Some(peer_id) = open.identity() {
        let _ = writeln!(said, "identity: {peer_id}");
    }
    for port in open.ports() {
        let _ = write!(said, "{port}");
    }
}

/// Prints the notes of the start; that about the control socket stands behind the one about the user.
fn say_notes(notes: &[String], control: Option<String>, said: &mut dyn Write) {
    let (first, others) = notes.split_at(usize::from(control.is_some()));
    for note in first.iter().chain(&control).chain(others) {
        let _ = writeln!(said, "{note}");
    }
}

fn say_slots(views: &[SlotView], names: &[(u16, String)], said: &mut dyn Write) {
    // Numbers in quarantine, and former numbers, have nothing behind them.
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

/// Prints the counters at the end, and makes an exit code of how the relay ended.
fn finish(ended: Result<Summary, ShutdownError>, said: &mut dyn Write) -> Result<(), Failure> {
    let summary = match &ended {
        Ok(summary) => Some(summary),
        Err(error) => error.summary(),
    };
    if let Some(Summary { ports, names, totals, .. }) = summary {
        let _ = say_counters(said, ports, names, totals);
    }
    ended.map(drop).map_err(|error| {
        let exit = match error {
            ShutdownError::Unfinished(_) | ShutdownError::Uneven(_) => Exit::CheckFailed,
            _ => Exit::Died,
        };
        Failure::new(exit, error.to_string())
    })
}

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
