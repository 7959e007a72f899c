//! `strowger show`: prints the replies of a running relay's control socket, as tables or as JSON.

use std::{fmt::Write as _, io::Write, path::Path};

use serde_json::{Value, json};
use strowger_engine::discard::Discard;
use strowger_runtime::untrusted::{Untrusted, json_line};

use super::{
    control_connection::{ControlConnection, ControlOptions},
    print::{print, rows, text, write_lines},
};
use crate::{
    exit::{Exit, Failure, output_ended},
    relay::output::{balance_line, ports_columns},
    table::{Table, bytes},
};

/// `strowger show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to show.
    topic: Topic,
    /// With events: also print new ones, until interrupted.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    control: ControlOptions,
}

/// What `strowger show` can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Topic {
    /// The slots, and the traffic of each.
    Slots,
    /// The ports, and the counters of each.
    Ports,
    /// The peers: whether each link is up, or why it is down; identities and rights.
    Peers,
    /// Links to other switches, encrypted and plain, with counters.
    Links,
    /// Recent events: links up and down, new keys, slots attached and detached.
    Events,
    /// Dropped frames by port and reason, and whether the counters balance.
    Discards,
    /// Uptime, workers, backends and why they were chosen, memory.
    Status,
    /// The rates: a line every second, until interrupted.
    Watch,
    /// Recent and new events, until interrupted.
    #[value(skip)]
    EventsFollowed,
}

impl Topic {
    /// The topic for `--follow`.
    ///
    /// # Errors
    /// The topic has nothing to follow.
    pub(crate) fn followed(self) -> Result<Self, Failure> {
        match self {
            Self::Events => Ok(Self::EventsFollowed),
            Self::Watch => Ok(Self::Watch),
            _ => {
                let line =
                    "--follow needs the topic events; `strowger show watch` follows the rates";
                Err(Failure::new(Exit::Usage, line))
            }
        }
    }
}

/// `strowger show`.
///
/// # Errors
/// One line: no relay answers, or the relay declined the request.
pub(crate) fn run(options: &Options, output: &mut dyn Write) -> Result<(), Failure> {
    let Options { topic, follow, control: ControlOptions { json, socket } } = options;
    let (topic, as_json) = (if *follow { topic.followed()? } else { *topic }, *json);
    let word = match topic {
        Topic::Slots => "slots",
        Topic::Ports => "ports",
        Topic::Discards => "discards",
        Topic::Status => "status",
        Topic::Peers => "peers",
        Topic::Links => "links",
        Topic::Events => "events",
        Topic::Watch => return watch_rates(as_json, socket, output),
        Topic::EventsFollowed => return follow_events(as_json, socket, output),
    };
    let answer = ControlConnection::open(socket)?.ask(&json!({ "show": word }))?;
    let text = match topic {
        _ if as_json => json_line(&answer) + "\n",
        Topic::Slots => slots_shown(&answer),
        Topic::Ports => ports_shown(&answer),
        Topic::Discards => discards_shown(&answer),
        Topic::Peers => peers_shown(&answer),
        Topic::Links => links_shown(&answer),
        Topic::Events => events_shown(&answer),
        Topic::Status | Topic::Watch | Topic::EventsFollowed => status_shown(&answer),
    };
    print(output, &text)
}

fn watch_rates(as_json: bool, socket: &Path, output: &mut dyn Write) -> Result<(), Failure> {
    let mut connection = ControlConnection::open(socket)?;
    let mut before = connection.ask(&json!({ "watch": "balance" }))?;
    if as_json {
        print(output, &(json_line(&before) + "\n"))?;
    }
    loop {
        let after = connection.next()?;
        let text = if as_json { json_line(&after) + "\n" } else { rates_shown(&before, &after) };
        if let Err(error) = write_lines(output, &text) {
            return output_ended(&error);
        }
        before = after;
    }
}

fn follow_events(as_json: bool, socket: &Path, output: &mut dyn Write) -> Result<(), Failure> {
    let mut connection = ControlConnection::open(socket)?;
    connection.ask(&json!({ "watch": "events" }))?;
    connection.wait_without_limit()?;
    loop {
        let event = connection.next()?;
        let text = if as_json { json_line(&event) + "\n" } else { event_shown(&event) };
        if let Err(error) = write_lines(output, &text) {
            return output_ended(&error);
        }
    }
}

fn event_shown(event: &Value) -> String {
    if let Some(missed) = event["missed"].as_u64() {
        return format!("{missed} older events are lost\n");
    }
    let at = event["uptime_s"].as_f64().unwrap_or_default();
    let slot = match event["slot"].as_u64() {
        Some(slot) => format!(" slot {slot}"),
        None => String::new(),
    };
    let more = ["name", "detail"].map(|key| event[key].as_str().unwrap_or_default());
    let more = more.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let more = Untrusted(&more);
    format!("{at:12.3} s  {:<14}{slot}  {more}\n", text(&event["event"]))
}

fn events_shown(answer: &Value) -> String {
    let mut shown = String::new();
    if answer["missed"].as_u64().unwrap_or_default() > 0 {
        shown.push_str(&event_shown(answer));
    }
    shown.extend(rows(answer, "events").map(event_shown));
    if shown.is_empty() { "no events yet\n".to_owned() } else { shown }
}

fn peers_shown(answer: &Value) -> String {
    let mut table = Table::new([
        "<slot",
        "<name",
        "<up",
        "<address",
        "<rights",
        "keys age",
        "handshakes",
        "<peer id",
        "<key",
    ]);
    for row in rows(answer, "peers") {
        let rights: Vec<String> = rows(row, "rights").map(text).collect();
        let age = row["keys_age_s"].as_f64();
        table.row([
            text(&row["slot"]),
            text(&row["name"]),
            up(row),
            location(row),
            if rights.is_empty() { "none".to_owned() } else { rights.join(",") },
            age.map_or("-".to_owned(), |age| format!("{age:.1} s")),
            text(&row["handshakes"]),
            text(&row["peer_id"]),
            text(&row["key"]),
        ]);
    }
    let us = match answer["identity"].as_str().map(Untrusted) {
        Some(identity) => format!("this relay is {identity}\n"),
        None => "this relay has no identity, so it has no sealed links\n".to_owned(),
    };
    let mut shown = us + &table.finish("no peer is configured");
    for row in rows(answer, "peers") {
        let Some(why) = row["down_text"].as_str() else { continue };
        let (name, slot) = (text(&row["name"]), text(&row["slot"]));
        let for_s = row["down_s"].as_f64();
        let since = for_s.map_or(String::new(), |s| format!(", for {s:.0} s"));
        shown.push_str(&format!("{name} (slot {slot}) is down: {why}{since}\n"));
    }
    shown
}

/// The columns that show a slot's traffic.
const TRAFFIC: [&str; 6] =
    ["frames in", "bytes in", "frames out", "bytes out", "discards", "last received"];

fn traffic(row: &Value) -> [String; 6] {
    let last = row["last_received_s"].as_f64();
    [
        text(&row["frames_in"]),
        bytes(&row["bytes_in"]),
        text(&row["frames_out"]),
        bytes(&row["bytes_out"]),
        text(&row["discards"]),
        last.map_or("never".to_owned(), |s| format!("{s:.1} s ago")),
    ]
}

fn links_shown(answer: &Value) -> String {
    let headings = ["<slot", "<name", "<seal", "<up", "<behind", "<address", "mtu"];
    let mut table = Table::new(headings.into_iter().chain(TRAFFIC));
    for row in rows(answer, "links") {
        let cells = [
            text(&row["slot"]),
            text(&row["name"]),
            text(&row["seal"]),
            up(row),
            text(&row["behind"]),
            text(&row["address"]),
            text(&row["mtu"]),
        ];
        table.row(cells.into_iter().chain(traffic(row)));
    }
    table.finish("no link to another switch")
}

/// The address of a peer. A question mark follows an address that is known only from a beacon. If
/// two nodes have the peer's key, the text has both addresses.
fn location(row: &Value) -> String {
    if let Some([a, b]) = row["key_on_two_nodes"].as_array().map(Vec::as_slice) {
        return format!("one key at {} and {}", text(a), text(b));
    }
    match row["suggested"].as_str().map(Untrusted) {
        Some(suggested) if row["address"].is_null() => format!("{suggested}?"),
        _ => text(&row["address"]),
    }
}

fn up(row: &Value) -> String {
    let word = match (row["up"].as_bool(), row["idle"].as_bool()) {
        (None, _) => "-",
        (Some(true), _) => "up",
        (_, Some(true)) => "idle",
        _ => "down",
    };
    word.to_owned()
}

fn rates_shown(before: &Value, after: &Value) -> String {
    let uptime = |value: &Value| value["uptime_s"].as_f64().unwrap_or_default();
    let seconds = (uptime(after) - uptime(before)).max(1e-3);
    let rate = |key: &str| {
        let count = |value: &Value| value["balance"][key].as_u64().unwrap_or_default();
        count(after).saturating_sub(count(before)) as f64 / seconds
    };
    format!(
        "{:>12.0} frames/s in {:>12.0} frames/s out {:>12.0} discards/s {:>10.0} kernel drops/s\n",
        rate("frames_in"),
        rate("frames_out"),
        rate("discarded") - rate("handled"),
        rate("kernel_drops"),
    )
}

fn slots_shown(answer: &Value) -> String {
    let headings = ["<slot", "<state", "<name", "<behind", "<address"];
    let mut table = Table::new(headings.into_iter().chain(TRAFFIC));
    for row in rows(answer, "slots") {
        let left = row["left_s"].as_u64().map(|left| format!(", {left} s"));
        let cells = [
            text(&row["slot"]),
            text(&row["state"]) + &left.unwrap_or_default(),
            text(&row["name"]),
            text(&row["behind"]),
            text(&row["address"]),
        ];
        table.row(cells.into_iter().chain(traffic(row)));
    }
    let mut shown = table.finish("no slot is in use");
    for row in rows(answer, "slots") {
        for announced in rows(row, "announced") {
            let (slot, peer) = (text(&row["slot"]), text(&announced["peer_id"]));
            shown += &format!("slot {slot}: announced {peer}, {} s left\n", announced["left_s"]);
        }
    }
    shown
}

fn ports_shown(answer: &Value) -> String {
    let mut table = ports_columns();
    for row in rows(answer, "ports") {
        table.row([
            text(&row["port"]),
            text(&row["name"]),
            if row["gone"] == true {
                format!("{}, gone", text(&row["what"]))
            } else {
                text(&row["what"])
            },
            text(&row["frames_in"]),
            bytes(&row["bytes_in"]),
            text(&row["trains_in"]),
            text(&row["frames_out"]),
            bytes(&row["bytes_out"]),
            text(&row["trains_out"]),
            text(&row["kernel_drops"]),
        ]);
    }
    let mut shown = table.finish("no port");
    for row in rows(answer, "ports").filter(|row| row["trains_refused"].as_u64() > Some(0)) {
        let (name, refused, retried) =
            (text(&row["name"]), text(&row["trains_refused"]), text(&row["trains_retried"]));
        shown += &format!(
            "{name}: the path refused segmentation (GSO) {refused} times, and frames were sent one by one \
             for a while; it was retried {retried} times\n"
        );
    }
    shown
}

fn discards_shown(answer: &Value) -> String {
    let mut table = Table::new(["<port", "<reason", "frames"]);
    // Leave out handled frames here: the balance line below shows them.
    let is_handled = |reason: &str| {
        Discard::ALL.iter().any(|discard| discard.is_handled() && discard.name() == reason)
    };
    let is_loss = |(reason, _): &(&String, &Value)| !is_handled(reason);
    for port in rows(answer, "ports") {
        for (reason, count) in port["discards"].as_object().into_iter().flatten().filter(is_loss) {
            table.row([text(&port["name"]), reason.clone(), text(count)]);
        }
    }
    // The kernel dropped these datagrams before they became frames, so the two sides of the balance
    // do not include them.
    for port in rows(answer, "ports") {
        for (reason, count) in port["kernel_drops_by_reason"].as_object().into_iter().flatten() {
            table.row([text(&port["name"]), reason.clone(), text(count)]);
        }
    }
    // Discards that no port in the list has counted: those of the slow path and of unplugged ports.
    for (reason, count) in answer["discards"].as_object().into_iter().flatten().filter(is_loss) {
        let of = |port: &Value| port["discards"][reason].as_u64().unwrap_or_default();
        let at_ports: u64 = rows(answer, "ports").map(of).sum();
        let others = count.as_u64().unwrap_or_default().saturating_sub(at_ports);
        if others > 0 {
            table.row(["-".to_owned(), reason.clone(), others.to_string()]);
        }
    }
    let balance = &answer["balance"];
    let mut shown = table.finish("no frame was discarded");
    let count = |key: &str| balance[key].as_u64().unwrap_or_default();
    shown.push_str(&balance_line(
        ["frames_in", "frames_made", "frames_out", "discarded", "handled"].map(count),
        balance["in_flight"].as_i64().unwrap_or_default().into(),
        count("kernel_drops"),
    ));
    shown
}

fn status_shown(answer: &Value) -> String {
    let memory = &answer["memory"];
    let uptime = answer["uptime_s"].as_f64().unwrap_or_default();
    let cores = match answer["cores"].as_array() {
        Some(cores) => {
            let cores: Vec<String> = cores.iter().map(text).collect();
            format!("on cores {}", cores.join(", "))
        }
        None => "not pinned".to_owned(),
    };
    let mut shown = String::new();
    let mut say = |what: &str, value: String| {
        let _ = writeln!(shown, "{:<18} {}", Untrusted(what), Untrusted(&value));
    };
    say("version", text(&answer["version"]));
    say("process", text(&answer["pid"]));
    say("up", format!("{uptime:.1} s"));
    let restarts = answer["slow_path_restarts"].as_u64().unwrap_or_default();
    if restarts > 0 {
        say("slow path", format!("restarted {restarts} times after a panic: please report it"));
    }
    let sealed = answer["sealed"] == true;
    say(
        "links",
        if sealed { "sealed" } else { "plain behind ports with seal = \"plain\"" }.to_owned(),
    );
    say("identity", text(&answer["identity"]));
    say("workers", format!("{} ({}, {cores})", text(&answer["workers"]), text(&answer["idle"])));
    say("scheme", format!("{}, slots up to {}", text(&answer["scheme"]), answer["slot_max"]));
    say("memory", format!("{} on {}", bytes(&memory["bytes"]), text(&memory["backing"])));
    say("memory ran out", format!("{} times", memory["exhausted"]));
    say("frames copied", text(&answer["frames_copied"]));
    say("kernel drops", text(&answer["kernel_drops"]));
    for port in rows(answer, "ports") {
        let what = match port["chosen"].as_str() {
            Some(chosen) if port["handshake_socket"] == true => {
                format!("{chosen}, handshakes at a socket of their own")
            }
            Some(chosen) => chosen.to_owned(),
            None => format!("unix {}", text(&port["path"])),
        };
        say(&format!("port {}", text(&port["name"])), what);
        for warning in rows(port, "warnings") {
            say("  warning", text(warning));
        }
    }
    shown
}
