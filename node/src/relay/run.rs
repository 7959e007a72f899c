//! Starts a relay, blocks until a signal ends it, and shuts it down.

use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    sync::mpsc::RecvTimeoutError,
};

use strowger_io::sys::account::Account;
use strowger_runtime::{
    OpenRelay, ShutdownError, Summary, files::Opener, key_files,
    machine_addresses::MachineAddresses, recovery::silence_caught_panics, rights,
    untrusted::Untrusted,
};

use super::{
    RequestSender,
    book::LateLog,
    builder,
    config::{self, Config, addresses},
    control::ControlSocket,
    events::EventWriter,
    files::roles,
    journal::Journal,
    log::{Kind, Log},
    network_wait::wait_for_network,
    output::{headline, print_counters, print_notes, print_open, print_slots},
    signals::{Message, Signals},
};
use crate::{
    exit::{Exit, Failure},
    limits::{EVENTS_WAITING, LOG_TICK},
};

/// Runs the relay of a configuration until a signal ends it.
///
/// # Errors
/// One line: the configuration is invalid, the machine refuses something, a thread died, or the
/// counters do not balance.
pub(crate) fn run(path: &Path) -> Result<(), Failure> {
    let mut config = config::read(path)?;
    let refused =
        |what: &str, error: &dyn Display| Failure::new(Exit::Refused, format!("{what}: {error}"));
    // Prepare the account before any thread starts, because in Linux privileges are per thread.
    let account = builder::account(&config)?;
    if let Some(account) = &account {
        account.prepare().map_err(|why| refused("[process]", &why))?;
    }
    let opener = Opener::new(account.as_ref());
    let workers = strowger_runtime::workers(config.workers, config.cores.as_deref());
    let conflicts = roles(&config, path, workers.map_err(builder::failure)?).conflicts();
    if !conflicts.is_empty() {
        return Err(Failure::new(Exit::Usage, first(conflicts)));
    }
    // Bind the control socket first, so that a second start of the same relay fails before it
    // changes anything else.
    let control = ControlSocket::bind(&config.control_socket, &opener)?;
    let signals = Signals::watch().map_err(|error| refused("cannot watch for signals", &error))?;

    wait_for_network(&config, &signals);
    if signals.stop().is_some() {
        return Ok(());
    }
    config.resolve().map_err(|lines| Failure::new(Exit::Refused, first(lines)))?;
    let faults = addresses::faults(&MachineAddresses::now(), &config);
    if !faults.is_empty() {
        return Err(Failure::new(Exit::Usage, first(faults)));
    }

    let output = &mut io::stdout();
    let _ = writeln!(output, "{}", headline(&config));
    silence_caught_panics();
    let late_log = LateLog::default();
    let open = open(&config, opener, account.as_ref(), &late_log)?;
    print_open(&open, output);
    let events = open.events(EVENTS_WAITING);
    let handle = open.start().map_err(builder::failure)?;
    let note = account.and_then(|account| rights::socket_note(&config.control_socket, &account));
    print_notes(handle.start_notes(), note, output);
    // These threads start after the process has dropped its privileges, so they do not inherit any.
    let log = Log::start().map_err(|error| refused("cannot start the log's thread", &error))?;
    let _ = late_log.set(log.clone());
    let journal = Journal::default();
    let requests = RequestSender::new(handle.clone());
    let writer =
        EventWriter { journal: journal.clone(), log: log.clone(), requests: requests.clone() };
    let writer = writer
        .start(events, signals.sender())
        .map_err(|error| refused("cannot start the thread for events", &error))?;
    if let Ok((slots, names)) = handle.call(|relay| (relay.switch().slots(), relay.port_names())) {
        print_slots(&slots, &names, output);
    }
    let server = control.serve(requests, journal)?;
    let at = config.control_socket.display().to_string();
    let _ = writeln!(output, "control socket: {}", Untrusted(&at));
    let _ = writeln!(output, "ready").and_then(|()| output.flush());

    wait_for_end(&signals, &log);
    server.stop();
    let ended = handle.shutdown();
    let _ = writer.join();
    log.close();
    finish(ended, output)
}

/// The first of several errors, with a hint about the command that shows the others.
fn first(lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(1);
    let first = lines.into_iter().next().unwrap_or_default();
    if more == 0 { first } else { format!("{first}; `strowger config check` shows {more} more") }
}

/// Opens everything. If the relay will run as another user, makes that user the owner of the
/// control socket.
fn open(
    config: &Config,
    opener: Opener,
    account: Option<&Account>,
    log: &LateLog,
) -> Result<OpenRelay, Failure> {
    let key_error = |error: key_files::KeyError| Failure::new(Exit::Refused, error.to_string());
    let identity = config.identity.as_ref();
    let identity = identity.map(|identity| key_files::read(&identity.key, &opener)).transpose();
    let psk = |file: &Path| key_files::read_psk(file, &opener).map_err(key_error);
    let mut builder = builder::builder(config, identity.map_err(key_error)?, psk, log)?;
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

/// Blocks until a signal ends the relay, or the relay ends without one. Logs other signals.
fn wait_for_end(signals: &Signals, log: &Log) {
    loop {
        let message = match log.has_pending() {
            true => signals.recv_timeout(LOG_TICK),
            false => signals.recv(),
        };
        log.tick();
        match message {
            Ok(Message::Ignored(line)) => log.write(Kind::Signal, "relay", line),
            Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::Ended) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(line) = signals.stop() {
            log.write(Kind::Signal, "relay", line);
            return;
        }
    }
}

/// Prints the final counters. If the relay ended with an error, returns it with its exit code.
fn finish(ended: Result<Summary, ShutdownError>, output: &mut dyn Write) -> Result<(), Failure> {
    let summary = match &ended {
        Ok(summary) => Some(summary),
        Err(error) => error.summary(),
    };
    if let Some(Summary { ports, names, totals, .. }) = summary {
        let _ = print_counters(output, ports, names, totals);
    }
    ended.map(drop).map_err(|error| {
        let exit = match error {
            ShutdownError::Unfinished(_) | ShutdownError::Uneven(_) => Exit::CheckFailed,
            _ => Exit::Died,
        };
        Failure::new(exit, error.to_string())
    })
}
