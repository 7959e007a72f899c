//! Isolation (R23): the loss of an innocent pair of neighbours while another neighbour, client or
//! path misbehaves. Each case runs in pairs, once with the offender and once without. The ratio is
//! the part of the innocent traffic that is delivered with the offender, divided by the part
//! without it. If a fair share is known, the ratio is the number of packets delivered with the
//! offender, divided by this share. Packets are sent at a fixed pace; only counts are compared, not
//! durations.
//!
//! | module | cases |
//! |---|---|
//! | `paths` | dead next hops, a slow interface: UDP in a network namespace |
//! | `clients` | unix clients that do not read |
//! | `congestion` | control flag, polling order: one congested egress |
//! | `links` | a flood of slot 1, forged handshake answers: a sealed link between two switches |
//! | `node`, `paced` | the switch under test; pacing in real time |

mod clients;
mod congestion;
mod links;
mod network;
mod node;
mod paced;
mod paths;

use std::collections::BTreeMap;

use serde::Serialize;
use strowger_engine::control::Balance;

use crate::{Bench, Failure, Options, Row, spread::Spread};

/// A case of the benchmark. `run` measures one half of a pair.
struct Case {
    name: &'static str,
    size: usize,
    /// A description of the offender's behaviour.
    offence: String,
    run: fn(&Options, &Setup) -> Result<Half, Failure>,
    setup: Setup,
}

/// The setup of one half of a pair.
#[derive(Clone, Copy, Debug, Default)]
struct Setup {
    /// Whether the offender is active.
    offends: bool,
    /// The variant of the case: the number of clients that do not read, or the index of a variant.
    variant: usize,
}

/// The counts of one half of a pair.
#[derive(Clone, Debug, Default)]
struct Half {
    /// Packets that the innocent pair sent.
    offered: u64,
    /// The number of these that arrived.
    delivered: u64,
    /// The number of packets in a fair share of the egress; `None` if the egress is not congested.
    fair: Option<u64>,
    /// Packets that the offender sent.
    offender: u64,
    /// Discards, and drops in the kernel, by reason.
    drops: BTreeMap<&'static str, u64>,
    /// The worker's share of a core, from 0 to 1; `None` if it was not measured.
    cpu: Option<f64>,
    /// The number of link-down events of the innocent link, summed over both ends; `None` if the
    /// case has no sealed link.
    link_downs: Option<u64>,
}

/// The offender's behaviour, and the result for the innocent traffic, over all pairs of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Isolation {
    /// The name of the case.
    pub case: &'static str,
    /// A description of the offender's behaviour.
    pub offence: String,
    /// Packets that the innocent pair sent in one half of a pair (median).
    pub offered: f64,
    /// The number of these that arrived with the offender.
    pub delivered_with: Spread,
    /// The number of these that arrived without the offender, or their fair share of a congested
    /// egress.
    pub delivered_without: Spread,
    /// Packets that the offender sent in one half (median).
    pub offender_sent: f64,
    /// Discards and kernel drops with the offender, by reason, in all pairs.
    pub drops_with: BTreeMap<&'static str, u64>,
    /// Discards and kernel drops without the offender, by reason, in all pairs.
    pub drops_without: BTreeMap<&'static str, u64>,
    /// The worker's share of a core with the offender, from 0 to 1, if the case measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_with: Option<Spread>,
    /// The worker's share of a core without the offender, from 0 to 1, if the case measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_without: Option<Spread>,
    /// The number of times that the innocent link went down with the offender, in all pairs and at
    /// both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_downs_with: Option<u64>,
}

impl Isolation {
    /// The lines of a table for human readers.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { delivered_with, delivered_without, offered, offender_sent, .. } = self;
        let mut lines = vec![
            self.offence.clone(),
            format!(
                "of {offered:.0} innocent packets {delivered_with:.0} arrived, without the offender \
                 or by fair share {delivered_without:.0}; the offender sent {offender_sent:.0}"
            ),
        ];
        for (which, drops) in [("with", &self.drops_with), ("without", &self.drops_without)] {
            let drops: Vec<_> =
                drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            if !drops.is_empty() {
                lines.push(format!("dropped {which} the offender: {}", drops.join(", ")));
            }
        }
        if let (Some(with), Some(without)) = (self.cpu_with, self.cpu_without) {
            let [with, without] = [with, without].map(|share| share.times(100.0));
            lines.push(format!("idle worker: {with:.1} % of a core, without {without:.1} %"));
        }
        if let Some(downs) = self.link_downs_with {
            lines.push(format!("the innocent link went down {downs} times"));
        }
        lines
    }
}

/// Measures every case.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let cases = [paths::cases(), clients::cases(), congestion::cases(), links::cases()]
        .into_iter()
        .flatten();
    for case in cases {
        each(case.row(options)?)?;
    }
    Ok(())
}

impl Case {
    fn row(&self, options: &Options) -> Result<Row, Failure> {
        let mut row = Row::new(Bench::Isolation, self.size, false, options.pairs);
        (row.ours, row.peer) = ("with", Some("without"));
        let half = |offends| (self.run)(options, &Setup { offends, ..self.setup });
        let mut pairs = Vec::new();
        for pair in 0..options.pairs {
            // The half with the offender runs first in every second pair.
            let first = half(pair % 2 == 0);
            let halves = first.and_then(|first| Ok((first, half(pair % 2 != 0)?)));
            let (first, second) = match halves {
                // For example, privileges or tools are missing. The row reports the reason, and the
                // other rows are measured.
                Err(Failure::Refused(why)) => {
                    row.pairs = 0;
                    row.note = Some(format!("{}: skipped: {why}", self.name));
                    return Ok(row);
                }
                halves => halves?,
            };
            pairs.push(if pair % 2 == 0 { (first, second) } else { (second, first) });
        }
        row.ratio = Spread::of(pairs.iter().map(|(with, without)| ratio(with, without)));
        row.isolation = self.isolation(&pairs);
        Ok(row)
    }

    fn isolation(&self, pairs: &[(Half, Half)]) -> Option<Isolation> {
        let with = || pairs.iter().map(|(with, _)| with);
        let without = || pairs.iter().map(|(_, without)| without);
        let goal = |(with, without): &(Half, Half)| with.fair.unwrap_or(without.delivered) as f64;
        Some(Isolation {
            case: self.name,
            offence: self.offence.clone(),
            offered: Spread::of(with().map(|half| half.offered as f64))?.median,
            delivered_with: Spread::of(with().map(|half| half.delivered as f64))?,
            delivered_without: Spread::of(pairs.iter().map(goal))?,
            offender_sent: Spread::of(with().map(|half| half.offender as f64))?.median,
            drops_with: sum(with()),
            drops_without: sum(without()),
            cpu_with: Spread::of(with().filter_map(|half| half.cpu)),
            cpu_without: Spread::of(without().filter_map(|half| half.cpu)),
            link_downs_with: with().map(|half| half.link_downs).sum(),
        })
    }
}

/// The part delivered with the offender, divided by the part delivered without it. If a fair share
/// is known, the number delivered with the offender, divided by this share.
fn ratio(with: &Half, without: &Half) -> f64 {
    let part = |half: &Half| half.delivered as f64 / half.offered.max(1) as f64;
    match with.fair {
        Some(fair) => with.delivered as f64 / fair.max(1) as f64,
        None if without.delivered == 0 => 0.0,
        None => part(with) / part(without),
    }
}

fn sum<'a>(halves: impl Iterator<Item = &'a Half>) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for (reason, count) in halves.flat_map(|half| &half.drops) {
        *all.entry(*reason).or_default() += count;
    }
    all
}

/// Packets that the switch discarded, and packets that the kernel dropped before the switch
/// received them, by reason.
fn drops(balance: &Balance) -> BTreeMap<&'static str, u64> {
    let ours = balance.by_reason().map(|(discard, count)| (discard.name(), count));
    let kernel = balance.kernel_by_reason().map(|(drop, count)| (drop.name(), count));
    ours.chain(kernel).collect()
}

/// Scales `count`, the number of packets or rounds in a run of normal length, to the length of this
/// run. Returns at least `least`.
fn scaled(options: &Options, count: u64, least: u64) -> u64 {
    ((count as f64 * options.seconds_per_run / 0.5) as u64).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_compares_the_delivered_parts_or_the_fair_share() {
        let half = |offered, delivered| Half { offered, delivered, ..Half::default() };
        assert_eq!(ratio(&half(100, 50), &half(200, 200)), 0.5);
        assert_eq!(ratio(&half(100, 100), &half(100, 0)), 0.0);
        let shared = Half { fair: Some(40), ..half(100, 20) };
        assert_eq!(ratio(&shared, &half(100, 100)), 0.5);
    }
}
