//! Writes the relay's output to standard output: its settings at start, and its counters at the
//! end.

use std::io::{self, Write};

use strowger_engine::control::{Balance, PortView, SlotState, SlotView};
use strowger_frame::Address;
use strowger_runtime::{OpenRelay, address::AddressText};

use super::config::Config;
use crate::table::{Table, bytes_of};

pub(super) fn headline(config: &Config) -> String {
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

/// Prints the memory, the identity and the ports of a relay that is open.
pub(super) fn print_open(open: &OpenRelay, output: &mut dyn Write) {
    let _ = write!(output, "{}", open.memory());
    if let Some(note) = open.quota_note() {
        let _ = writeln!(output, "{note}");
    }
    if let Some(peer_id) = open.identity() {
        let _ = writeln!(output, "identity: {peer_id}");
    }
    for port in open.ports() {
        let _ = write!(output, "{port}");
    }
}

/// Prints the notes about the start. If there is a note about the control socket, it comes second,
/// after the note about the user.
pub(super) fn print_notes(notes: &[String], control: Option<String>, output: &mut dyn Write) {
    let (first, others) = notes.split_at(usize::from(control.is_some()));
    for note in first.iter().chain(&control).chain(others) {
        let _ = writeln!(output, "{note}");
    }
}

/// Prints the slots that have a user.
pub(super) fn print_slots(views: &[SlotView], names: &[(u16, String)], output: &mut dyn Write) {
    // Numbers in quarantine and former numbers have no port, so they are skipped.
    for view in views.iter().filter(|view| view.port.is_some()) {
        let port = names.iter().find(|(id, _)| view.port.is_some_and(|port| port.0 == *id));
        let behind = port.map_or("", |(_, name)| name.as_str());
        let at = match view.at {
            Some(at @ (Address::Udp(_) | Address::Ether(_))) => format!(" at {}", AddressText(at)),
            _ => String::new(),
        };
        let opens = match (view.state, view.left) {
            (SlotState::Coming, Some(left)) => format!(
                ", opens in {} s, when no packet for its former user can arrive any more",
                left.as_nanos().div_ceil(1_000_000_000)
            ),
            _ => String::new(),
        };
        let _ = writeln!(output, "slot {}: {}{at} behind {behind}{opens}", view.slot, view.name);
    }
}

/// Prints the counters of a relay that has ended.
pub(super) fn print_counters(
    output: &mut dyn Write,
    ports: &[PortView],
    names: &[(u16, String)],
    balance: &Balance,
) -> io::Result<()> {
    writeln!(output, "stopped")?;
    output.write_all(ports_table(ports, names).as_bytes())?;
    output.write_all(balance_lines(balance).as_bytes())?;
    output.flush()
}

/// An empty table of ports with its headings.
pub(crate) fn ports_columns() -> Table {
    Table::new([
        "<port",
        "<name",
        "<what",
        "frames in",
        "bytes in",
        "trains in",
        "frames out",
        "bytes out",
        "trains out",
        "kernel drops",
    ])
}

/// The counters of each port.
fn ports_table(ports: &[PortView], names: &[(u16, String)]) -> String {
    let mut table = ports_columns();
    for view in ports {
        let name = names.iter().find(|(id, _)| *id == view.id.0);
        let sums = view.queues.iter().fold([0; 7], |sums, queue| {
            let counts = [
                queue.frames_in,
                queue.bytes_in,
                queue.trains_in,
                queue.frames_out,
                queue.bytes_out,
                queue.trains_out,
                queue.kernel_drops,
            ];
            std::array::from_fn(|at| sums[at] + counts[at])
        });
        let [frames_in, bytes_in, trains_in, frames_out, bytes_out, trains_out, drops] = sums;
        table.row([
            view.id.0.to_string(),
            name.map(|(_, name)| name.clone()).unwrap_or_default(),
            view.describe.clone(),
            frames_in.to_string(),
            bytes_of(bytes_in),
            trains_in.to_string(),
            frames_out.to_string(),
            bytes_of(bytes_out),
            trains_out.to_string(),
            drops.to_string(),
        ]);
    }
    table.finish("no port")
}

/// The balance in one line.
pub(crate) fn balance_line(
    [frames_in, made, out, all_discards, handled]: [u64; 5],
    in_flight: i128,
    kernel_drops: u64,
) -> String {
    let rest = match in_flight {
        0 => "balanced".to_owned(),
        n => format!("{n} in flight"),
    };
    let discarded = all_discards.saturating_sub(handled);
    format!(
        "balance: {frames_in} frames in + {made} made = {out} out + {discarded} discarded + {handled} \
         handled ({rest}); {kernel_drops} dropped by the kernel before\n"
    )
}

/// The number of dropped frames by reason, and the balance.
fn balance_lines(balance: &Balance) -> String {
    let mut table = Table::new(["<reason", "frames"]);
    // Leave out handled frames here: the balance line below shows them.
    for (reason, count) in balance.by_reason().filter(|(reason, _)| !reason.is_handled()) {
        table.row([reason.name().to_owned(), count.to_string()]);
    }
    for (reason, count) in balance.kernel_by_reason() {
        table.row([reason.name().to_owned(), count.to_string()]);
    }
    let mut lines = table.finish("no frame was discarded");
    lines.push_str(&balance_line(
        [
            balance.frames_in,
            balance.frames_made,
            balance.frames_out,
            balance.discarded(),
            balance.handled(),
        ],
        balance.on_their_way(),
        balance.kernel_drops,
    ));
    lines
}
