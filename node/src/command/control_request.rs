//! `strowger ping`, `trace` and `identify`. A running relay sends the packets, and these commands
//! print the replies.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use strowger_crypto::PeerId;
use strowger_runtime::{
    places,
    untrusted::{Untrusted, json_line},
};
use strowger_wire::{Label, Slot, label::TextError};

use super::{control_connection::ControlConnection, peer, print::print, sibling};
use crate::{
    exit::{Exit, Failure},
    labels::{hops_of_links, scheme_of},
    limits::FETCH_EVERY,
    relay::config::check_name,
    table::Table,
};

/// The target of `trace` and `identify`, and the output format.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A label whose first director names a slot of the relay, or the name of a peer or neighbour.
    /// The name selects the label from the relay to this target.
    #[arg(value_name = "LABEL or NAME")]
    target: Target,
    /// Print JSON: one line for each ping, one object for a trace or an identity.
    #[arg(long)]
    json: bool,
    /// The relay's control socket.
    #[arg(long, value_name = "PATH", default_value_os_t = places::control_socket())]
    socket: PathBuf,
}

/// `strowger ping`.
#[derive(Debug, clap::Args)]
pub(crate) struct PingOptions {
    /// What to ping; see below.
    #[arg(value_name = "LABEL, NAME, PEER_ID or ADDRESS")]
    target: String,
    /// Ping the link with this name, also if the address book has the name.
    #[arg(long)]
    link: bool,
    /// Print one JSON line for each ping.
    #[arg(long)]
    json: bool,
    /// The relay's control socket; end to end, the socket at which programs attach.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    end_to_end: EndToEnd,
    /// How many pings.
    #[arg(long, short, value_name = "N", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Seconds from one ping to the next.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// Bytes of payload.
    #[arg(long, short, value_name = "N", default_value_t = 56)]
    bytes: u16,
}

/// Options of a ping end to end, which `strowger-gateway` reads.
#[derive(Debug, clap::Args)]
struct EndToEnd {
    /// The folder that `strowger init FOLDER` has written, with the control socket; end to end, also
    /// with the other files.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// End to end: the key file of this program.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// End to end: the address book.
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    /// End to end: the name of the network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// End to end: how long connecting may take.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
}

/// The text of `strowger ping --help` about targets.
pub(crate) const PING_TARGETS: &str = "\
Targets:
  a label or the name of a link   the relay pings the switch at the end
  a PeerId, an address with one,  strowger-gateway connects to the peer and pings it end to end:
  or a name of the address book   encrypted, so only the peer itself can answer";

/// The target of a request: the name of a link of the relay, or a label.
#[derive(Clone, Debug)]
struct Target {
    text: String,
    label: Result<Label, TextError>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = Label::parse(text.as_bytes());
        match (&label, check_name(text)) {
            (Err(error), Err(_)) => {
                Err(format!("neither a label ({error}) nor the name of a link"))
            }
            _ => Ok(Self { text: text.to_owned(), label }),
        }
    }
}

impl Target {
    /// Returns the label. For the name of a link, this is the label that leads over the link to
    /// slot 1 of the neighbour.
    ///
    /// A text such as `ada` can be both a name and a label. If a link has this name, the text means
    /// the link, because the label can also be written with dots.
    fn label(&self, socket: &Path) -> Result<Label, Failure> {
        let text = self.text.as_str();
        if let (Ok(label), true) = (&self.label, text.contains('.')) {
            return Ok(*label);
        }
        let mut relay = ControlConnection::open(socket)?;
        let links = relay.ask(&json!({ "show": "links" }))?;
        let links = links["links"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(link) = links.iter().find(|link| link["name"] == text) else {
            let names: Vec<&str> = links.iter().filter_map(|link| link["name"].as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return self.label.map_err(|_| {
                let line = format!(
                    "\"{text}\" is neither a label nor the name of a link of this relay; its links: \
                     {names}"
                );
                Failure::new(Exit::Usage, line)
            });
        };
        let status = relay.ask(&json!({ "show": "status" }))?;
        let label = || {
            let number = |value: &Value| u32::try_from(value.as_u64()?).ok().map(Slot::new);
            let scheme = scheme_of(status["scheme"].as_str()?).ok()?;
            // The slot of this relay at the neighbour is unknown. With this relay's highest slot
            // number in its place, the label has bits for a return path through any slot up to that
            // number.
            let to = (scheme, number(&link["slot"])?, number(&status["slot_max"])?);
            Label::build(&hops_of_links(&[to])).ok().map(|(label, _)| label)
        };
        label().ok_or_else(|| {
            let line = format!("no label leads to \"{text}\"; `strowger show links` has its slot");
            Failure::new(Exit::CheckFailed, line)
        })
    }
}

impl Target {
    /// The error if no ping was answered. `is_down` is whether this relay has discarded every ping,
    /// because the link to the first hop is down.
    fn no_answer(&self, label: Label, is_down: bool) -> String {
        match (&self.label, is_down) {
            (Err(_), true) => {
                format!("{} is down: see `strowger show peers`", Untrusted(&self.text))
            }
            (Ok(_), true) => {
                format!("the first link of {label} is down: see `strowger show peers`")
            }
            (_, false) => format!(
                "no answer from the end of {label}; `strowger trace` shows how far a packet gets"
            ),
        }
    }
}

/// Sends a request to the relay, and passes each reply to `each` as it arrives.
fn send_request(
    socket: &Path,
    request: &Value,
    mut each: impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut connection = ControlConnection::open(socket)?;
    let number = connection.ask(request)?["request"].clone();
    loop {
        let fetched = connection.ask(&json!({ "replies": number }))?;
        fetched["replies"].as_array().into_iter().flatten().try_for_each(&mut each)?;
        if fetched["done"] == true {
            return Ok(());
        }
        std::thread::sleep(FETCH_EVERY);
    }
}

impl PingOptions {
    /// Whether the target is a peer, and not a label or a link.
    fn is_end_to_end(&self) -> Result<bool, Failure> {
        let text = self.target.as_str();
        if self.link {
            return Ok(false);
        }
        if text.starts_with('/') || text.parse::<PeerId>().is_ok() {
            return Ok(true);
        }
        let EndToEnd { folder, book, .. } = &self.end_to_end;
        let folder = folder.clone().or_else(places::user_folder);
        let Some(file) = book.clone().or_else(|| Some(folder?.join(places::BOOK))) else {
            return Ok(false);
        };
        Ok(peer::read_book(&file)?.is_some_and(|book| book.named(text).is_some()))
    }

    /// The arguments for `strowger-gateway ping`.
    fn arguments(&self) -> Vec<OsString> {
        let EndToEnd { folder, key, book, network, timeout } = &self.end_to_end;
        let files = [("--socket", &self.socket), ("--folder", folder), ("--key", key)];
        let files = files.into_iter().chain([("--book", book)]);
        let mut arguments = vec![OsString::from(&self.target)];
        for (name, value) in files {
            let value = value.iter().flat_map(|value| [name.into(), value.clone().into()]);
            arguments.extend(value);
        }
        let network = network.iter().flat_map(|name| ["--network".into(), name.into()]);
        arguments.extend(network);
        let timeout = timeout.iter().flat_map(|s| ["--timeout".into(), s.to_string().into()]);
        arguments.extend(timeout);
        let numbers = [
            ("--count", self.count.to_string()),
            ("--interval", self.interval.to_string()),
            ("--bytes", self.bytes.to_string()),
        ];
        arguments.extend(numbers.into_iter().flat_map(|(name, value)| [name.into(), value.into()]));
        arguments.extend(self.json.then(|| "--json".into()));
        arguments
    }

    /// The options of a request to the relay.
    fn of(&self) -> Result<Options, Failure> {
        let target: Target =
            self.target.parse().map_err(|error| Failure::new(Exit::Usage, error))?;
        let folder = self.end_to_end.folder.as_ref();
        let in_folder = || folder.map(|folder| folder.join(places::CONTROL));
        let socket = self.socket.clone().or_else(in_folder);
        let socket = socket.unwrap_or_else(places::control_socket);
        Ok(Options { target, json: self.json, socket })
    }
}

/// Prints a text and a line break.
fn say(output: &mut dyn Write, text: &str) -> Result<(), Failure> {
    print(output, &format!("{text}\n"))
}

fn milliseconds(of: &Value) -> String {
    of.as_f64().map_or_else(|| "-".to_owned(), |us| format!("{:.3} ms", us / 1e3))
}

/// `strowger ping`.
///
/// # Errors
/// One line: no relay answers, the relay declined the request, or no ping was answered.
pub(crate) fn ping(options: &PingOptions, output: &mut dyn Write) -> Result<(), Failure> {
    let PingOptions { count, interval, bytes, .. } = options;
    let interval = Duration::try_from_secs_f64(*interval).map_err(|_| {
        Failure::new(Exit::Usage, "--interval takes seconds: 0.2, 1, 10".to_owned())
    })?;
    if options.is_end_to_end()? {
        return Err(sibling::gateway("ping", &options.arguments()));
    }
    let of = &options.of()?;
    let label = of.target.label(&of.socket)?;
    let request = json!({ "ping": { "label": label.to_string(), "bytes": bytes } });
    let mut round_trips = Vec::new();
    let mut is_down = true;
    for number in 1..=*count {
        let began = Instant::now();
        send_request(&of.socket, &request, |reply| {
            if reply["pong"] == true {
                round_trips.extend(reply["round_trip_us"].as_f64());
            }
            is_down &= reply["discard"] == "link_down" && reply["hop"] == 0;
            if of.json {
                let mut row = reply.clone();
                row["ping"] = json!(number);
                return say(output, &json_line(&row));
            }
            let line = if reply["pong"] == true {
                format!(
                    "{} bytes back in {}",
                    reply["bytes"],
                    milliseconds(&reply["round_trip_us"])
                )
            } else if let Some(why) = reply["discard"].as_str().map(Untrusted) {
                let size = reply["mtu"].as_u64().map(|mtu| format!(", {mtu} bytes would fit"));
                let size = size.unwrap_or_default();
                format!("discarded at hop {}: {why}{size}", reply["hop"])
            } else {
                "no answer".to_owned()
            };
            say(output, &format!("{number}: {line}"))
        })?;
        if number < *count {
            std::thread::sleep(interval.saturating_sub(began.elapsed()));
        }
    }
    if !of.json {
        round_trips.sort_by(f64::total_cmp);
        let pick = |at: usize| milliseconds(&json!(round_trips.get(at)));
        let last = round_trips.len().saturating_sub(1);
        let text = format!(
            "{} of {count} answered; round trip minimum {}, median {}, maximum {}",
            round_trips.len(),
            pick(0),
            pick(round_trips.len() / 2),
            pick(last),
        );
        say(output, &text)?;
    }
    if round_trips.is_empty() {
        return Err(Failure::new(Exit::CheckFailed, of.target.no_answer(label, is_down)));
    }
    Ok(())
}

/// `strowger trace`.
///
/// # Errors
/// One line: no relay answers, the relay declined the request, or the packet was dropped. In the
/// last case the line states the hop and the reason.
pub(crate) fn trace(of: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let label = of.target.label(&of.socket)?;
    let request = json!({ "trace": { "label": label.to_string() } });
    let mut hops = Vec::new();
    send_request(&of.socket, &request, |hop| {
        hops.push(hop.clone());
        Ok(())
    })?;
    let end = end_of(&hops);
    if of.json {
        let (reached, why) = match &end {
            Ok(what) => (Some(*what), None),
            Err(why) => (None, Some(why.as_str())),
        };
        let whole =
            json!({ "label": label.to_string(), "hops": hops, "reached": reached, "why": why });
        say(output, &json_line(&whole))?;
    } else {
        say(output, table_of(&hops).trim_end())?;
        if let Ok(what) = &end {
            say(output, &format!("leads to {what}"))?;
        }
    }
    end.map(drop).map_err(|why| Failure::new(Exit::CheckFailed, why))
}

/// `strowger identify`.
///
/// # Errors
/// One line: no relay answers, the relay declined the request, or the node at the end of the label
/// did not identify itself.
pub(crate) fn identify(of: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let label = of.target.label(&of.socket)?;
    let request = json!({ "identify": { "label": label.to_string() } });
    let mut reply = Value::Null;
    send_request(&of.socket, &request, |came| {
        reply = came.clone();
        Ok(())
    })?;
    if of.json {
        say(output, &json_line(&reply))?;
    }
    match (reply["peer_id"].as_str(), reply["key"].as_str(), reply["discard"].as_str()) {
        (Some(_), Some(_), _) if of.json => Ok(()),
        (Some(peer_id), Some(key), _) => {
            say(output, &format!("peer_id {}", Untrusted(peer_id)))?;
            say(output, &format!("key {}", Untrusted(key)))
        }
        (_, _, Some(why)) => {
            let line = format!("discarded at hop {}: {why}", reply["hop"]);
            Err(Failure::new(Exit::CheckFailed, line))
        }
        _ => {
            let line = format!(
                "no identity from the end of {label}: a switch answers if it has an identity, and only \
                 neighbours with the right `control`; `strowger trace` shows how far a packet gets"
            );
            Err(Failure::new(Exit::CheckFailed, line))
        }
    }
}

/// The target that a trace reached. If the trace stopped earlier, the error states the hop and the
/// reason.
fn end_of(hops: &[Value]) -> Result<&'static str, String> {
    let silent = hops.iter().rev().take_while(|hop| hop["silent"] == true).count();
    let Some(last) = hops.iter().rev().find(|hop| hop["silent"] != true) else {
        return Err("this relay itself does not reply: it is overloaded, or has a bug".into());
    };
    let at = &last["hop"];
    if let Some(why) = last["discard"].as_str().map(Untrusted) {
        let slot = last["slot_out"].as_u64();
        let slot = slot.map(|slot| format!(" (slot {slot})")).unwrap_or_default();
        return Err(format!("discarded at hop {at}: {why}{slot}"));
    }
    match last["behind"].as_str() {
        Some("switch") => Ok("the switch's own slot 1"),
        Some("endpoint") => Ok("an endpoint"),
        Some(_) => {
            let hops = if silent == 1 { "hop" } else { "hops" };
            Err(format!("no answer from {silent} {hops} behind hop {at}"))
        }
        None if last["error"] != "hops_spent" => {
            Err(format!("discarded at hop {at}: {}", last["error"].as_str().unwrap_or("unknown")))
        }
        None => Err(format!(
            "no answer behind hop {at}, which gives this relay no answers (it lacks the right control there)"
        )),
    }
}

fn table_of(hops: &[Value]) -> String {
    let mut table = Table::new([
        "hop",
        "slot in",
        "slot out",
        "<leads to",
        "held",
        "queue",
        "mtu",
        "round trip",
    ]);
    let number = |value: &Value| value.as_u64().map_or("-".to_owned(), |n| n.to_string());
    for hop in hops {
        let leads = match (hop["discard"].as_str(), hop["error"].as_str()) {
            (Some(why), _) => format!("discard: {why}"),
            (None, Some(why)) => format!("(answers only {why})"),
            (None, None) => hop["behind"].as_str().unwrap_or("(no answer)").to_owned(),
        };
        table.row([
            number(&hop["hop"]),
            number(&hop["slot_in"]),
            number(&hop["slot_out"]),
            leads,
            milliseconds(&hop["held_us"]),
            number(&hop["queue_frames"]),
            number(&hop["mtu"]),
            milliseconds(&hop["round_trip_us"]),
        ]);
    }
    table.finish("no answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(number: u8, behind: &str) -> Value {
        json!({ "hop": number, "slot_in": 2, "slot_out": 3, "behind": behind, "discard": null,
            "silent": false })
    }

    #[test]
    fn a_trace_ends_at_its_target_or_where_and_why_a_packet_was_dropped() {
        assert_eq!(end_of(&[hop(0, "neighbour"), hop(1, "endpoint")]), Ok("an endpoint"));
        assert_eq!(end_of(&[hop(0, "switch")]), Ok("the switch's own slot 1"));
        let mut dead = hop(1, "nothing");
        dead["discard"] = json!("empty_slot");
        let why = end_of(&[hop(0, "neighbour"), dead]);
        assert_eq!(why, Err("discarded at hop 1: empty_slot (slot 3)".to_owned()));
        let silent = json!({ "hop": 1, "silent": true });
        let why = end_of(&[hop(0, "neighbour"), silent.clone()]);
        assert_eq!(why, Err("no answer from 1 hop behind hop 0".to_owned()));
        let why = end_of(&[hop(0, "neighbour"), silent.clone(), silent]);
        assert_eq!(why, Err("no answer from 2 hops behind hop 0".to_owned()));
        assert!(end_of(&[]).is_err());
    }
}
