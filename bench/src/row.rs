//! One row of what was measured: for people a line of a table, for programs a JSON object. A field
//! that a row has no figure for is left out.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::{What, isolation::Isolation, spread::Spread, trial::Outcome};

/// One row. Rates are packets a second.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// Which bench.
    pub bench: What,
    /// Bytes of each packet, as the UDP payload or the frame has them.
    pub size: usize,
    /// Whether packets came as bulk flows, that the kernel joins into trains, or each from and to
    /// another peer.
    pub trains: bool,
    /// How links are sealed, where they are: `full` or `header_only`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal: Option<&'static str>,
    /// In `xdp`: whether the kernel receives for the forwarder on the same core (`same_core`) or on
    /// another (`other_core`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<&'static str>,
    /// In `xdp`: which part of the rate of ours was offered, to ours and the peer, one frame at a
    /// time; as much as can be, if it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// How ours received: `io_uring`, `mmsg` or `memory`, over Ethernet `xdp_zero_copy`, `xdp_copy`,
    /// `xdp_generic` or `af_packet`; in `sealed` the provider of the cipher, where that alone is
    /// measured; in `handshakes`, whose work it is: of the `responder` or the
    /// `initiator`, with a peer met for the first time or known (`_again`), or the `slow_path`'s for
    /// a known one that knocks.
    pub ours: &'static str,
    /// What ours was measured against: `mmsg`, `one_by_one`, or ours with recvmmsg
    /// (`ours_mmsg`); in `overload`, ours at its best rate (`ours_at_best`); in `sealed`, the cipher
    /// alone (`aead_twice`, or the portable `chacha20poly1305`), full sealing (`full`) or a WireGuard
    /// (`boringtun` and `boringtun_1_thread` as it is deployed, `boringtun_no_tun` and
    /// `boringtun_no_tun_mmsg` as a library in one loop); in `handshakes`, the curve operations of
    /// one side alone (`curves`); in `flood`, ours without the flood (`calm`), or with it sent
    /// to another socket (`elsewhere`); in `isolation`, without
    /// the offender (`without`); in `xdp`, `testpmd`, `af_packet`, `bridge` or `xdp_redirect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'static str>,
    /// What ours forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_rate: Option<Spread>,
    /// What the peer forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_rate: Option<Spread>,
    /// Ours by the peer's, of each pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Spread>,
    /// What ours forwarded for each second of CPU that its thread had and did not spend looking in
    /// vain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_per_busy_s: Option<Spread>,
    /// The same of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_per_busy_s: Option<Spread>,
    /// Their ratio, of each pair: the one to read on a machine where others work too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_busy: Option<Spread>,
    /// What was offered to ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered: Option<Spread>,
    /// Whether in every run, ours and the peer's, the forwarder was busy for at least 95 % of its
    /// CPU time. If not, the source was the limit, and the ratio is none of forwarders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturated: Option<bool>,
    /// The part of its CPU time in which the idlest run's forwarder had nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<f64>,
    /// The most that the sink lost, as a part of what came through: far above 0, and the sink was
    /// the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink_lost: Option<f64>,
    /// How often it was measured.
    pub pairs: usize,
    /// What one step of one switch took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_packet_and_switch: Option<Spread>,
    /// How many instructions it was, where valgrind could count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_packet_and_switch: Option<f64>,
    /// In `xdp`, with a `load`: how long a frame was on its way through ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_latency: Option<Latency>,
    /// The same of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_latency: Option<Latency>,
    /// In `overload` and `xdp`: how every packet that was sent and did not arrive was accounted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Accounts>,
    /// In `footprint`: the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// In `isolation`: the case, and what became of the innocent traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What a reader must know beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Where packets went, over all of a row's runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Whether each of them is accounted for, by our own counters alone.
    pub whole: bool,
    /// Sent to the relay.
    pub sent: u64,
    /// Dropped by the kernel before they were frames, as the relay counted it.
    pub kernel_drops: u64,
    /// Taken in by the relay.
    pub frames_in: u64,
    /// Discarded by the relay, for all reasons.
    pub discards: u64,
    /// Let out by the relay.
    pub frames_out: u64,
    /// Counted at the sink, with what the kernel dropped there.
    pub at_sink: u64,
}

/// How long frames were on their way from the source's interface to the sink's, in microseconds:
/// what the fastest half, 99 and 99.9 of 100 took at most, each over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them.
    pub median: Spread,
    /// 99 of 100.
    pub p99: Spread,
    /// 999 of 1000.
    pub p999: Spread,
}

/// What memory a relay took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Neighbours attached.
    pub neighbours: usize,
    /// Packets forwarded while memory was watched.
    pub packets: u64,
    /// The most that the process ever had resident.
    pub peak_bytes: u64,
    /// How much of it the process had before there was a relay.
    pub before_bytes: u64,
    /// How much the peak rose while those packets were forwarded.
    pub growth_bytes: u64,
}

impl Row {
    /// A row with no figures yet.
    pub(crate) fn new(bench: What, size: usize, trains: bool, pairs: usize) -> Self {
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

    /// Fills in the rates and ratios of these pairs: ours, the peer's.
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

    /// As one line of JSON, without the newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a row has nothing that JSON cannot say")
    }
}

/// The table's head, for rows as [`Row`] displays itself.
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
            remark(&"not saturated: nearly all that was offered came through")?;
        }
        if let (Some(false), Some(idle)) = (self.saturated, self.idle) {
            remark(&format!(
                "not saturated: a forwarder had nothing to do for {:.0} % of its time in the worst \
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
                "at {:.0} % of ours, microseconds (median, p99, p99.9): ours {}; peer {peer}",
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
    fn json_has_the_fields_that_the_issue_names_and_none_without_a_figure() {
        let mut row = Row::new(What::Udp, 64, true, 5);
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
