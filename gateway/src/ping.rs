//! `strowger ping` of a peer, end to end.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use serde_json::json;
use strowger_crypto::PeerId;
use strowger_socket::{Events, Node, NodeEvent};

use crate::{
    exit::{Exit, Failure, output_ended},
    limits::{CONNECT_S, PONG_MAX},
    node::{self, Access},
    place::PlaceOptions,
    send::seconds,
    signals,
    target::Target,
};

/// `strowger ping`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peer: a name of the address book, a PeerId, or an address with a PeerId.
    #[arg(value_name = "PEER")]
    peer: String,
    /// How many pings.
    #[arg(long, short, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Seconds from one ping to the next.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds, allow_negative_numbers = true)]
    interval: f64,
    /// Bytes of padding.
    #[arg(long, short, value_name = "N", default_value_t = 56)]
    bytes: u16,
    /// Print one JSON line for each ping.
    #[arg(long)]
    json: bool,
    /// How long a connection may take.
    #[arg(long, value_name = "SECONDS", default_value_t = CONNECT_S, value_parser = seconds, allow_negative_numbers = true)]
    timeout: f64,
    #[command(flatten)]
    place: PlaceOptions,
}

/// `strowger ping`.
///
/// # Errors
/// One line: there is no connection, or no ping was answered.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let place = options.place.place()?;
    let book = place.book()?;
    let target = Target::find(&options.peer, &book, &place)?;
    let node = node::start(&place, book, Access::Refused)?;
    signals::close_on_signal(&node)?;
    let pinged = options.ping(&node, &target, output);
    node::close(node, "");
    pinged
}

impl Options {
    fn ping(&self, node: &Node, target: &Target, output: &mut dyn Write) -> Result<(), Failure> {
        let mut say = |line: String| writeln!(output, "{line}").or_else(|why| output_ended(&why));
        let mut events = node.events();
        let _connection = node::reach(node, target, Duration::from_secs_f64(self.timeout))?;
        let interval = Duration::from_secs_f64(self.interval);
        let mut round_trips = Vec::new();
        for number in 1..=self.count {
            let began = Instant::now();
            let rtt = ping(node, &mut events, &target.peer, usize::from(self.bytes));
            round_trips.extend(rtt);
            let paths = node.connection(&target.peer).info().wait(PONG_MAX);
            let path = paths.and_then(|info| info.ok().flatten()?.paths.first().copied());
            let label = path.map(|path| path.label.to_string());
            if self.json {
                let row = json!({
                    "ping": number,
                    "pong": rtt.is_some(),
                    "round_trip_us": rtt.map(|rtt| rtt.as_secs_f64() * 1e6),
                    "label": label,
                    "mtu": path.map(|path| path.mtu),
                    "bytes": self.bytes,
                });
                say(row.to_string())?;
            } else {
                let along = label.map(|label| format!(" along {label}")).unwrap_or_default();
                say(match rtt {
                    Some(rtt) => format!("{number}: answer in {}{along}", milliseconds(rtt)),
                    None => format!("{number}: no answer{along}"),
                })?;
            }
            if number < self.count {
                std::thread::sleep(interval.saturating_sub(began.elapsed()));
            }
        }
        round_trips.sort();
        let answered = round_trips.len();
        if let (false, Some(first), Some(last)) =
            (self.json, round_trips.first(), round_trips.last())
        {
            say(format!(
                "{answered} of {} answered; round trip minimum {}, median {}, maximum {}",
                self.count,
                milliseconds(*first),
                milliseconds(round_trips[answered / 2]),
                milliseconds(*last),
            ))?;
        }
        if answered == 0 {
            let line = format!(
                "{target} answers no ping; `strowger probe {}` checks each stage",
                target.peer
            );
            return Err(Failure::new(Exit::CheckFailed, line));
        }
        Ok(())
    }
}

/// A duration as text.
pub(crate) fn milliseconds(of: Duration) -> String {
    format!("{:.3} ms", of.as_secs_f64() * 1e3)
}

/// Pings a connected peer, and returns the round-trip time; `None` if no answer comes.
pub(crate) fn ping(
    node: &Node,
    events: &mut Events,
    peer: &PeerId,
    padding: usize,
) -> Option<Duration> {
    match ping_within(node, events, peer, padding, PONG_MAX) {
        Answer::Pong(rtt) => Some(rtt),
        Answer::Silence | Answer::NotSent => None,
    }
}

/// The result of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The peer answered, with this round-trip time.
    Pong(Duration),
    /// No answer came in time.
    Silence,
    /// There is no connection or no path, the ping is too long, or too many pings are unanswered.
    NotSent,
}

/// Pings a connected peer, and waits for the answer for at most `wait`.
pub(crate) fn ping_within(
    node: &Node,
    events: &mut Events,
    peer: &PeerId,
    padding: usize,
    wait: Duration,
) -> Answer {
    let sent = node.connection(peer).ping(padding).wait(PONG_MAX);
    let Some(Ok(Ok(sent))) = sent else { return Answer::NotSent };
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.next_timeout(left) {
            Some(NodeEvent::Pong { id, rtt, .. }) if id == sent => return Answer::Pong(rtt),
            Some(_) => {}
            None => return Answer::Silence,
        }
    }
}
