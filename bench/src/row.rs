//! One result row: a line of a table for human readers, or a JSON object for programs. JSON omits
//! fields without a figure.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::{Bench, isolation::Isolation, spread::Spread, trial::Outcome};

/// A result row. Rates are in packets per second.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// The benchmark.
    pub bench: Bench,
    /// Bytes of each packet: of the UDP payload, or in `xdp` of the frame.
    pub size: usize,
    /// Whether packets arrived as bulk flows, which the kernel joins into trains. If not,
    /// successive packets were from and to different peers.
    pub trains: bool,
    /// The seal mode, if links are sealed: `full` or `header_only`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<&'static str>,
    /// In `xdp`: whether the kernel receives for the forwarder on the same core (`same_core`) or on
    /// another (`other_core`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<&'static str>,
    /// In `xdp`: the offered load of a latency measurement, relative to Strowger's rate. Frames are
    /// sent one at a time. `None` if rates are measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// The receive backend of Strowger: `io_uring`, `mmsg` or `memory`, over Ethernet
    /// `xdp_zero_copy`, `xdp_copy`, `xdp_generic` or `af_packet`. In `sealed`, the provider of the
    /// cipher if only the cipher is measured. In `handshakes`, the side: `responder` or `initiator`
    /// with an unknown peer or a known one (`_again`), or the `slow_path` with a known peer. In
    /// `flood`, `steered` or `punted`.
    pub ours: &'static str,
    /// The forwarder or run that Strowger is compared with: `mmsg`, `one_by_one`, or Strowger with
    /// recvmmsg (`ours_mmsg`). In `overload`, Strowger at its best rate (`ours_at_best`). In
    /// `sealed`, the cipher alone (`aead_twice`, or the portable `chacha20poly1305`), full sealing
    /// (`full`), or WireGuard (`boringtun` and `boringtun_1_thread` as deployed, `boringtun_no_tun`
    /// and `boringtun_no_tun_mmsg` as a library in one loop). In `handshakes`, the curve operations
    /// of one side (`curves`). In `flood`, Strowger without the flood (`no_flood`), or with a flood
    /// to another socket (`elsewhere`). In `isolation`, without the offender (`without`). In `xdp`,
    /// `testpmd`, `af_packet`, `bridge` or `xdp_redirect`. In `unix`, one packet in each message
    /// (`sendmmsg_32`). In `connections`, the cipher alone (`cipher`), ten connections (`few`), the
    /// curve operations (`curves`), a bare local port (`local_port`), or packets without a
    /// connection (`bare_packets`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'static str>,
    /// The rate of Strowger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_rate: Option<Spread>,
    /// The rate of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_rate: Option<Spread>,
    /// Strowger's rate divided by the peer's, per pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Spread>,
    /// Packets that Strowger forwarded per second of its thread's CPU time, without the time of
    /// idle polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_per_busy_s: Option<Spread>,
    /// Packets that the peer forwarded per second of its thread's CPU time, without the time of
    /// idle polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_per_busy_s: Option<Spread>,
    /// The ratio of `ours_per_busy_s` to `peer_per_busy_s`, per pair. Prefer this ratio if the
    /// machine also runs other work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_busy: Option<Spread>,
    /// The load offered to Strowger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered: Option<Spread>,
    /// Whether both forwarders, Strowger and the peer, were busy for at least 95 % of their CPU
    /// time in every run. If not, the source was the limit, and the ratio does not compare
    /// forwarders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturated: Option<bool>,
    /// The largest share of CPU time that a forwarder spent on idle polls in any run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<f64>,
    /// The largest loss at the sink, relative to the packets that arrived. If it is far above 0,
    /// the sink was the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink_lost: Option<f64>,
    /// The number of pairs.
    pub pairs: usize,
    /// The time of one step of one switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_packet_and_switch: Option<Spread>,
    /// The instructions of one step of one switch; `None` if valgrind could not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_packet_and_switch: Option<f64>,
    /// In `xdp` with a `load`: the latency through Strowger. In `connections`: the latency of a
    /// message between two sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_latency: Option<Latency>,
    /// In `xdp` with a `load`: the latency through the peer. In `connections`: the latency of a
    /// message between bare local ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_latency: Option<Latency>,
    /// In `overload` and `xdp`: the counts of packets over all runs, which should account for all
    /// packets that were sent and did not arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Accounts>,
    /// In `footprint`: the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// In `isolation`: the case, and the result for the innocent traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Remarks for the reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The counts of packets over all runs of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Whether the counters of Strowger and of the sink account for every packet.
    pub whole: bool,
    /// Packets sent to the relay.
    pub sent: u64,
    /// Packets that the kernel dropped before they became frames, as counted by the relay.
    pub kernel_drops: u64,
    /// Packets received by the relay.
    pub frames_in: u64,
    /// Packets discarded by the relay, for all reasons.
    pub discards: u64,
    /// Packets sent by the relay.
    pub frames_out: u64,
    /// Packets counted at the sink, including packets that the kernel dropped at the sink's socket.
    pub at_sink: u64,
}

/// Latency from the source's interface to the sink's interface, or of one message from program to
/// program, in microseconds. Each quantile has its spread over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The latency that 50 of 100 frames do not exceed.
    pub median: Spread,
    /// The latency that 99 of 100 frames do not exceed.
    pub p99: Spread,
    /// The latency that 999 of 1000 frames do not exceed.
    pub p999: Spread,
}

/// Memory of a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The number of attached neighbours.
    pub neighbours: usize,
    /// Packets forwarded between the readings.
    pub packets: u64,
    /// The peak of the process' resident memory.
    pub peak_bytes: u64,
    /// The memory of the process before the relay was made.
    pub before_bytes: u64,
    /// Growth of the peak while those packets were forwarded.
    pub growth_bytes: u64,
}

impl Row {
    /// A row without figures.
    pub(crate) fn new(bench: Bench, size: usize, trains: bool, pairs: usize) -> Self {
        Self {
            bench,
            size,
            trains,
            seal: None,
            receive: None,
            load: None,
            ours: "memory",
            peer: None,
            ours_rate: None,
            peer_rate: None,
            ratio: None,
            ours_per_busy_s: None,
            peer_per_busy_s: None,
            ratio_busy: None,
            offered: None,
            saturated: None,
            idle: None,
            sink_lost: None,
            pairs,
            ns_per_packet_and_switch: None,
            instructions_per_packet_and_switch: None,
            ours_latency: None,
            peer_latency: None,
            accounts: None,
            memory: None,
            isolation: None,
            note: None,
        }
    }

    /// Sets the rates and ratios of Strowger and the peer from these pairs.
    pub(crate) fn compare(&mut self, pairs: &[(Outcome, Outcome)]) {
        let rates = |of: fn(&Outcome) -> f64| {
            let ours = Spread::of(pairs.iter().map(|(ours, _)| of(ours)));
            let peer = Spread::of(pairs.iter().map(|(_, peer)| of(peer)));
            let ratio = Spread::of(pairs.iter().map(|(ours, peer)| of(ours) / of(peer)));
            (ours, peer, ratio)
        };
        (self.ours_rate, self.peer_rate, self.ratio) = rates(|run| run.rate);
        (self.ours_per_busy_s, self.peer_per_busy_s, self.ratio_busy) =
            rates(|run| run.rate_per_busy_s);
    }

    /// Formats the row as one line of JSON, without the newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a row has nothing that JSON cannot say")
    }
}

/// The head of the table whose lines are displayed by [`Row`].
pub const TABLE_HEAD: &str = "\
bench       bytes  traffic      ours      Mpps, median (min to max)  peer          Mpps, median (min to max)  ratio, median (min to max)";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = match (self.seal, self.receive) {
            (Some(mode), _) | (None, Some(mode)) => mode,
            _ if self.trains => "trains",
            _ => "singles",
        };
        let mega = |rate: Option<Spread>| {
            rate.map_or(String::new(), |rate| format!("{:.3}", rate.times(1e-6)))
        };
        let mut line = format!(
            "{:<10}  {:>5}  {traffic:<11}  {:<8}  {:<25}  {:<12}  {:<25}",
            self.bench.name(),
            self.size,
            self.ours,
            mega(self.ours_rate),
            self.peer.unwrap_or_default(),
            mega(self.peer_rate),
        );
        if let Some(isolation) = &self.isolation {
            line = format!("{:<10}  {:>5}  {:<89}", self.bench, self.size, isolation.case);
        }
        if let Some(ratio) = self.ratio {
            write!(line, "  {ratio:.2}")?;
        }
        if let Some(ratio) = self.ratio_busy {
            write!(line, "; by busy time {ratio:.2}")?;
        }
        if let Some(ns) = self.ns_per_packet_and_switch {
            write!(line, "  {ns:.1} ns a packet and switch")?;
        }
        if let Some(instructions) = self.instructions_per_packet_and_switch {
            write!(line, ", {instructions:.1} instructions")?;
        }
        f.write_str(line.trim_end())?;
        let mut remark = |text: &dyn fmt::Display| write!(f, "\n           {text}");
        if let (Some(false), None) = (self.saturated, self.idle) {
            remark(&"not saturated: nearly everything that was offered arrived")?;
        }
        if let (Some(false), Some(idle)) = (self.saturated, self.idle) {
            remark(&format!(
                "not saturated: a forwarder was idle for {:.0} % of its time in the worst \
                 run",
                100.0 * idle
            ))?;
        }
        if let Some(lost) = self.sink_lost.filter(|&lost| lost > 0.01) {
            remark(&format!("the sink lost {:.1} % in the worst run", 100.0 * lost))?;
        }
        if let (Some(load), Some(ours)) = (self.load, self.ours_latency) {
            let show = |Latency { median, p99, p999 }| {
                format!("{:.1}, {:.1}, {:.1}", median.median, p99.median, p999.median)
            };
            let peer = self.peer_latency.map_or("none".to_owned(), show);
            remark(&format!(
                "latency at {:.0} % load in microseconds (median, p99, p99.9): ours {}; peer {peer}",
                100.0 * load,
                show(ours)
            ))?;
        }
        if let (None, Some(offered), Some(ours)) = (self.load, self.offered, self.ours_rate) {
            remark(&format!(
                "offered {:.3} Mpps, {:.1} times that",
                offered.median * 1e-6,
                offered.median / ours.median
            ))?;
        }
        if let Some(accounts) = &self.accounts {
            let Accounts { sent, kernel_drops, frames_in, discards, frames_out, at_sink, whole } =
                accounts;
            let verdict = if *whole { "all accounted for" } else { "NOT all accounted for" };
            remark(&format!(
                "{sent} sent = {kernel_drops} dropped by the kernel + {frames_in} in; \
                 in = {discards} discarded + {frames_out} out; {at_sink} at the sink: {verdict}"
            ))?;
        }
        if let Some(memory) = &self.memory {
            const MIB: f64 = (1 << 20) as f64;
            let Memory { neighbours, packets, peak_bytes, before_bytes, growth_bytes } = *memory;
            let [peak, before, growth] =
                [peak_bytes, before_bytes, growth_bytes].map(|bytes| bytes as f64 / MIB);
            remark(&format!(
                "{neighbours} neighbours: peak {peak:.1} MiB resident ({before:.1} before the \
                 relay), grown by {growth:.2} MiB over {packets} packets"
            ))?;
        }
        if let Some(isolation) = &self.isolation {
            for line in isolation.lines() {
                remark(&line)?;
            }
        }
        if let Some(note) = &self.note {
            remark(note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_documented_fields_and_omits_those_without_a_figure() {
        let mut row = Row::new(Bench::Udp, 64, true, 5);
        let rate = Spread { min: 1.0, median: 2.0, max: 3.0 };
        row.peer = Some("mmsg");
        (row.ours_rate, row.peer_rate, row.ratio) = (Some(rate), Some(rate), Some(rate));
        let json: serde_json::Value = serde_json::from_str(&row.to_json()).expect("JSON");
        assert_eq!(json["bench"], "udp");
        assert_eq!((&json["size"], &json["trains"]), (&64.into(), &true.into()));
        assert_eq!(json["peer"], "mmsg");
        for rates in ["ours_rate", "peer_rate", "ratio"] {
            assert_eq!(json[rates]["median"], 2.0, "{rates}");
            assert_eq!((&json[rates]["min"], &json[rates]["max"]), (&1.0.into(), &3.0.into()));
        }
        assert!(json.get("memory").is_none() && json.get("note").is_none());
        assert_eq!(row.to_json().lines().count(), 1);
    }
}
