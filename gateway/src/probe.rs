//! `strowger probe`: each stage of a connection to a peer, with a verdict, a time, and what to do.

mod report;
mod trace;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use strowger_routing::{AddressBook, Candidate, Route, StaticTable};
use strowger_socket::{ConnectionInfo, Events, Node};
use strowger_wire::label::AnyLabel;

use self::report::{Report, State};
use crate::{
    exit::{Exit, Failure},
    id::identify,
    limits::{PONG_MAX, PROBE_CONNECT, PROBE_LABELS_MAX, QUIC_BYTES},
    node::{self, Access},
    ping::{milliseconds, ping},
    place::{Place, PlaceOptions},
    send::protocol,
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
    #[command(flatten)]
    place: PlaceOptions,
}

/// `strowger probe`.
///
/// # Errors
/// An empty line, after the report was printed; or one line: the arguments or files are wrong.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let place = options.place.place()?;
    let book = place.book()?;
    let target = Target::find(&options.peer, &book, &place)?;
    let mut report = Report::new(&target);
    let failed = options.check(&place, book, &target, &mut report).err();
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
        let labels = self.check_book(&book, target, report);
        let began = Instant::now();
        let node = node::start(place, book, Access::Refused);
        let node = report.stage("relay", began, node, |node| {
            format!("attached at {} as {}", place.socket.display(), node.peer_id())
        })?;
        let closing = node.clone();
        let checked = signals::close_on_signal(&node)
            .map_err(|failure| failure.exit)
            .and_then(|()| self.check_peer(place, &node, target, &labels, report));
        node::close(closing, "");
        checked
    }

    /// Checks the address book and its labels for the peer.
    fn check_book(
        &self,
        book: &AddressBook,
        target: &Target,
        report: &mut Report,
    ) -> Vec<AnyLabel> {
        let began = Instant::now();
        let of_address = target.address.as_ref().and_then(|address| address.parts().label);
        let mut labels: Vec<AnyLabel> = of_address.into_iter().collect();
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
                labels.extend(routes.iter().filter_map(label_of));
                (State::Passed, format!("{}: {} labels", entry.name, labels.len()))
            }
            (None, _) => (State::Skipped, "has no entry; the relay is asked for labels".to_owned()),
        };
        report.add("address book", state, began.elapsed(), text);
        labels
    }

    fn check_peer(
        &self,
        place: &Place,
        node: &Node,
        target: &Target,
        labels: &[AnyLabel],
        report: &mut Report,
    ) -> Result<(), Exit> {
        for label in labels.iter().take(PROBE_LABELS_MAX) {
            trace::check(place, label, report);
        }
        if labels.len() > PROBE_LABELS_MAX {
            report.not_checked(format!("{} more labels", labels.len() - PROBE_LABELS_MAX));
        }
        let mut events = node.events();
        let began = Instant::now();
        let reached = node::reach(node, target, PROBE_CONNECT);
        let connection = report.stage("handshake", began, reached, |_| {
            format!("{} has answered: the connection is sealed", target.peer)
        })?;
        let info = || {
            let info = node.connection(&target.peer).info().wait(PONG_MAX);
            info.and_then(|info| info.ok().flatten())
        };
        if let Some(path) = info().and_then(|info| info.paths.first().copied()) {
            let text = match labels.contains(&path.label) {
                true => format!("{} of the address book", path.label),
                false => format!("{}, which the relay knew", path.label),
            };
            report.add("label", State::Passed, Duration::ZERO, text);
        }
        let round_trip = check_round_trip(node, &mut events, target, report);
        let agent = check_agent(node, &mut events, target, report);
        let protocol = self.check_protocol(node, target, &info, report);
        check_width(info().as_ref(), report);
        report.not_checked("the path under load, and other paths".to_owned());
        drop(connection);
        round_trip.and(agent).and(protocol)
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
            report.add("protocols", State::Skipped, began.elapsed(), text);
            report.not_checked("whether the peer accepts a protocol".to_owned());
            return Ok(());
        };
        if node::accepts(node, target, wanted, PONG_MAX) {
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
) -> Result<(), Exit> {
    let began = Instant::now();
    let mut answers: Vec<Duration> =
        (0..3).filter_map(|_| ping(node, events, &target.peer, 0)).collect();
    answers.sort();
    match answers.get(answers.len() / 2) {
        Some(median) => {
            let text = format!("{}, {} of 3 answered", milliseconds(*median), answers.len());
            report.add("round trip", State::Passed, began.elapsed(), text);
            Ok(())
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

/// Checks the length of messages. If a handshake does not fit the path, an earlier stage has
/// failed. The connection searches for a greater length only while messages flow.
fn check_width(info: Option<&ConnectionInfo>, report: &mut Report) {
    let Some(info) = info else { return };
    let bytes = info.message_max;
    let text = format!("messages of {bytes} bytes now");
    report.add("width", State::Passed, Duration::ZERO, text);
    if bytes < QUIC_BYTES {
        let more =
            format!("messages above {bytes} bytes: their length is found while messages flow");
        report.not_checked(more);
    }
}
