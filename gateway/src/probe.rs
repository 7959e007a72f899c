//! `strowger probe`: each stage of a connection to a peer, with a verdict, a time, and what to do.

mod report;
mod resolution;
mod trace;
mod width;

use std::{
    io::Write,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use strowger_routing::{AddressBook, Candidate, Route, StaticTable};
use strowger_socket::{ConnectionInfo, Events, Node, PathInfo, Socket};
use strowger_wire::{
    label::AnyLabel, limits::CONNECTION_OVERHEAD_BYTES, switch_header::FIXED_BYTES,
};

use self::{
    report::{Report, State},
    resolution::{Found, Labels, Step, Watched},
};
use crate::{
    exit::{Exit, Failure},
    id::identify,
    limits::{PONG_MAX, PROBE_CONNECT_S, PROBE_LABELS_MAX, TABLE_MAX, WIDTH_MAX},
    node::{self, Access},
    ping::{milliseconds, ping},
    place::{Place, PlaceOptions},
    send::{protocol, seconds},
    signals,
    target::Target,
};

/// `strowger probe`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peer: a name of the address book, a PeerId, or an address with a PeerId.
    #[arg(value_name = "PEER")]
    peer: String,
    /// Also check whether the peer accepts this protocol from here.
    #[arg(value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// How long finding a label and the handshake may take.
    #[arg(long, value_name = "SECONDS", default_value_t = PROBE_CONNECT_S, value_parser = seconds, allow_negative_numbers = true)]
    timeout: f64,
    #[command(flatten)]
    place: PlaceOptions,
}

/// `strowger probe`.
///
/// # Errors
/// An empty line if a stage failed, because the report is already printed. Otherwise one line: the
/// arguments or files are wrong.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let place = options.place.place()?;
    let book = place.book()?;
    let target = Target::find(&options.peer, &book, &place)?;
    let mut report = Report::new(&target);
    let failed = options.check(&place, book, &target, &mut report).err();
    // A stage may have failed without ending the probe.
    let failed = failed.or(report.has_failed().then_some(Exit::CheckFailed));
    report.add_rest();
    report.print(options.json, output)?;
    match failed {
        Some(exit) => Err(Failure::new(exit, "")),
        None => Ok(()),
    }
}

impl Options {
    /// Checks the stages in order. If a stage fails that all later stages need, returns its exit
    /// code as the error.
    fn check(
        &self,
        place: &Place,
        book: AddressBook,
        target: &Target,
        report: &mut Report,
    ) -> Result<(), Exit> {
        let mut labels = self.check_book(&book, target, report);
        let began = Instant::now();
        let (steps, taken) = mpsc::channel();
        let watched = steps.clone();
        let wrap = |routing| Box::new(Watched { routing, steps: watched }) as _;
        let node = node::start_with(place, book, Access::Refused, wrap);
        let node = report.stage("relay", began, node, |node| {
            format!("attached at {} as {}", place.socket.display(), node.peer_id())
        })?;
        let closing = node.clone();
        let checked =
            signals::close_on_signal(&node).map_err(|failure| failure.exit).and_then(|()| {
                self.check_peer(place, &node, target, &mut labels, (steps, taken), report)
            });
        node::close(closing, "");
        checked
    }

    /// Checks the address book and its labels for the peer.
    fn check_book(&self, book: &AddressBook, target: &Target, report: &mut Report) -> Labels {
        let began = Instant::now();
        let of_address = target.address.as_ref().and_then(|address| address.parts().label);
        let of_address_found = of_address.map(|label| Found { label, by: "the address" });
        let mut labels: Labels = of_address_found.into_iter().collect();
        let (state, text) = match (book.of_peer(&target.peer), of_address) {
            (_, Some(label)) => (State::Passed, format!("not needed: the address has {label}")),
            (Some(entry), _) if !entry.purposes.connect => (
                State::Failed,
                format!(
                    "{} has not the purpose `connect`; `strowger peer add {0} {} --purposes connect \
                     --replace` changes it",
                    entry.name, entry.peer_id
                ),
            ),
            (Some(entry), _) => {
                let routes = StaticTable::new(book.clone())
                    .routes_to(strowger_crypto::Nanos::ZERO, &target.peer.into());
                let routes = routes.iter().filter_map(label_of);
                labels.extend(routes.map(|label| Found { label, by: "the address book" }));
                (State::Passed, format!("{}: {} labels", entry.name, labels.len()))
            }
            (None, _) => (State::Passed, "no entry: the relay is asked for labels".to_owned()),
        };
        report.add("address book", state, began.elapsed(), text);
        labels
    }

    fn check_peer(
        &self,
        place: &Place,
        node: &Node,
        target: &Target,
        labels: &mut Labels,
        (steps, taken): (Sender<Step>, Receiver<Step>),
        report: &mut Report,
    ) -> Result<(), Exit> {
        let mut events = node.events();
        let began = Instant::now();
        let timeout = Duration::from_secs_f64(self.timeout);
        let (node_there, target_there) = (node.clone(), target.clone());
        let connect = move || {
            let reached = node::reach(&node_there, &target_there, timeout);
            let _ = steps.send(Step::Ended(Instant::now(), Box::new(reached)));
        };
        // The labels are traced while the connection is made.
        let connecting = thread::Builder::new().name("connect".to_owned()).spawn(connect);
        let connecting = connecting
            .map(drop)
            .map_err(|why| Failure::new(Exit::Refused, format!("no thread: {why}")));
        if let Err(failure) = connecting {
            return report.stage("resolution", began, Err(failure), |(): &()| String::new());
        }
        let ended = check_resolution(target, labels, &taken, began, timeout, report)?;
        let resolved = Instant::now();
        for Found { label, by } in labels.iter().take(PROBE_LABELS_MAX) {
            trace::check(place, label, by, report);
        }
        if labels.len() > PROBE_LABELS_MAX {
            report.not_checked(format!("{} more labels", labels.len() - PROBE_LABELS_MAX));
        }
        let mut ended = ended;
        while ended.is_none() {
            match taken.recv() {
                Ok(Step::Found(_)) => {}
                Ok(Step::Ended(at, reached)) => ended = Some((at, *reached)),
                Err(_) => break,
            }
        }
        let no_thread = || Err(Failure::new(Exit::Refused, "the thread that connects has ended"));
        let (at, reached) = ended.unwrap_or_else(|| (Instant::now(), no_thread()));
        let info = || {
            let info = node.connection(&target.peer).info().wait(PONG_MAX);
            info.and_then(|info| info.ok().flatten())
        };
        let path = || info().and_then(|info| info.paths.first().copied());
        let took = at.saturating_duration_since(resolved);
        let connection = report.stage_of("handshake", took, reached, |_| {
            let along = path().map_or_else(String::new, |path| format!(" along {}", path.label));
            format!("{} has answered{along}: the connection is encrypted", target.peer)
        })?;
        let round_trip = check_round_trip(node, &mut events, target, report);
        if let (Ok(round_trip), Some(path)) = (round_trip, path()) {
            check_width(node, &mut events, target, &path, round_trip, report);
        }
        let agent = check_agent(node, &mut events, target, report);
        let protocol = self.check_protocol(node, target, &info, report);
        report.not_checked("the path under load, and other paths".to_owned());
        drop(connection);
        round_trip.map(drop).and(agent).and(protocol)
    }

    fn check_protocol(
        &self,
        node: &Node,
        target: &Target,
        info: &dyn Fn() -> Option<ConnectionInfo>,
        report: &mut Report,
    ) -> Result<(), Exit> {
        let began = Instant::now();
        let theirs = || info().map_or_else(Vec::new, |info| info.their_protocols);
        let Some(wanted) = &self.protocol else {
            let text = match theirs().as_slice() {
                [] => {
                    "none is known; name one to check it: strowger probe PEER PROTOCOL".to_owned()
                }
                known => known.join(" "),
            };
            report.add("protocol", State::Skipped, began.elapsed(), text);
            return Ok(());
        };
        if node::accepts(node, target, wanted, TABLE_MAX) {
            report.add("protocol", State::Passed, began.elapsed(), format!("{wanted} is accepted"));
            return Ok(());
        }
        let text = format!(
            "the peer does not accept {wanted} from this PeerId; there: strowger receive {wanted}"
        );
        report.add("protocol", State::Failed, began.elapsed(), text);
        Err(Exit::CheckFailed)
    }
}

/// The time at which connecting ended, and its result.
type Ended = (Instant, Result<Option<Socket>, Failure>);

/// Reports the result of the lookup, and adds the labels that it found to `labels`. If connecting
/// succeeds first, returns its end and its socket instead.
fn check_resolution(
    target: &Target,
    labels: &mut Labels,
    taken: &Receiver<Step>,
    began: Instant,
    timeout: Duration,
    report: &mut Report,
) -> Result<Option<Ended>, Exit> {
    if target.address.as_ref().is_some_and(|address| address.parts().label.is_some()) {
        let text = "not needed: the address has a label".to_owned();
        report.add("resolution", State::Passed, began.elapsed(), text);
        return Ok(None);
    }
    let failure = |text: &str| Failure::new(Exit::NoPeer, text);
    let result = match taken.recv_timeout(timeout) {
        Ok(Step::Found(found)) if !found.is_empty() => Ok(found),
        Ok(Step::Found(_)) => Err(failure(&node::no_label(target))),
        Ok(Step::Ended(at, reached)) => match *reached {
            Ok(socket) => {
                let text = "not needed: there is a connection".to_owned();
                report.add("resolution", State::Passed, began.elapsed(), text);
                return Ok(Some((at, Ok(socket))));
            }
            Err(failure) => Err(failure),
        },
        Err(RecvTimeoutError::Timeout) => {
            Err(failure("the relay and its neighbours have not answered in time"))
        }
        Err(RecvTimeoutError::Disconnected) => Err(failure("the node has ended")),
    };
    let found = report.stage("resolution", began, result, |found| {
        let told = found.iter().map(|found| format!("{} ({})", found.label, found.by));
        told.collect::<Vec<_>>().join(", ")
    })?;
    for new in found {
        if labels.iter().all(|known| known.label != new.label) {
            labels.push(new);
        }
    }
    Ok(None)
}

fn label_of(candidate: &Candidate) -> Option<AnyLabel> {
    match candidate.route {
        Route::Label(label) => Some(label),
        _ => None,
    }
}

fn check_round_trip(
    node: &Node,
    events: &mut Events,
    target: &Target,
    report: &mut Report,
) -> Result<Duration, Exit> {
    let began = Instant::now();
    let mut answers: Vec<Duration> =
        (0..3).filter_map(|_| ping(node, events, &target.peer, 0)).collect();
    answers.sort();
    match answers.get(answers.len() / 2) {
        Some(median) => {
            let text = format!("{}, {} of 3 answered", milliseconds(*median), answers.len());
            report.add("round trip", State::Passed, began.elapsed(), text);
            Ok(*median)
        }
        None => {
            let text = "no ping was answered: the path loses packets, or the peer has ended";
            report.add("round trip", State::Failed, began.elapsed(), text.to_owned());
            Err(Exit::CheckFailed)
        }
    }
}

fn check_agent(
    node: &Node,
    events: &mut Events,
    target: &Target,
    report: &mut Report,
) -> Result<(), Exit> {
    let began = Instant::now();
    let identified = identify(node, events, target);
    report
        .stage("identify", began, identified, |peer| {
            format!("{}; its label to this node is {}", peer.agent, peer.label)
        })
        .map(drop)
}

/// Searches for the longest packet that arrives. If a handshake does not fit the path, an earlier
/// stage has failed.
fn check_width(
    node: &Node,
    events: &mut Events,
    target: &Target,
    path: &PathInfo,
    round_trip: Duration,
    report: &mut Report,
) {
    let began = Instant::now();
    let search = width::search(node, events, target, path, round_trip, began + WIDTH_MAX);
    let header = FIXED_BYTES + path.label.width_bits() as usize / 8;
    let bytes = usize::from(search.takes);
    let messages = bytes.saturating_sub(header + CONNECTION_OVERHEAD_BYTES);
    let limit = if search.is_limited_by_ends() {
        "the longest that both ends handle".to_owned()
    } else {
        format!("{} bytes did not arrive", search.fails)
    };
    let text = format!("packets of {bytes} bytes ({limit}): messages of {messages} bytes");
    report.add("width", State::Passed, began.elapsed(), text);
    if search.next().is_some() {
        report.not_checked(format!("packets of {} to {} bytes", bytes + 1, search.fails - 1));
    }
}
