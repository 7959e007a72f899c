//! Measures connections in memory: one connection compared with the cipher alone (T1, T2), many
//! connections compared with few (T13), handshakes (T12), and the round trips of a connect (T11).

mod ends;
mod latency;
mod relayed;
mod responder;
mod sockets;

use std::time::{Duration, Instant};

use strowger_crypto::{
    Secret,
    aead::{Aead as _, AeadKey, Provider, Tag, nonce_of},
};
use strowger_frame::Burst;

use self::ends::{By, Ends};
use crate::{Bench, Failure, Options, Row, machine::on_core, spread::Spread};

/// The numbers of connections of one endpoint that are compared: few, and many.
const FEW: u32 = 10;
const MANY: u32 = 10_000;
/// The number of many connections in a run that only checks that everything works.
const MANY_SMALL: u32 = 50;
/// Bytes of a connection packet that the tag covers and that are not sealed: the header.
const HEADER_BYTES: usize = 8;

/// Measures all comparisons.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for &size in &options.sizes {
        each(cipher(options, size)?)?;
    }
    each(many(options)?)?;
    responder::rows(options, each)?;
    each(round_trips(options)?)?;
    latency::rows(options, each)?;
    relayed::rows(options, each)
}

/// Seal and open of one connection, compared with the cipher alone for the same bytes.
fn cipher(options: &Options, size: usize) -> Result<Row, Failure> {
    let pairs: Result<Vec<(f64, f64)>, Failure> = on_core(options.cores.forwarder, || {
        let mut ends = Ends::new(1, By::StaticKey, size)?;
        let mut cipher = Cipher::new();
        let pair = || {
            let (mut ours, mut alone) = (Vec::new(), Vec::new());
            let started = Instant::now();
            while started.elapsed() < options.window() * 2 {
                ours.push(round(&mut ends, 0, size)?.as_secs_f64());
                alone.push(cipher.round(&mut ends, size)?.as_secs_f64());
            }
            Ok((median(ours), median(alone)))
        };
        std::iter::repeat_with(pair).take(options.pairs).collect()
    });
    let pairs = pairs?;
    let burst = Ends::BURST as f64;
    let mut row = Row::new(Bench::Connections, size, false, options.pairs);
    row.ours = "seal_and_open";
    row.peer = Some("cipher");
    row.ours_rate = Spread::of(pairs.iter().map(|(ours, _)| burst / ours));
    row.peer_rate = Spread::of(pairs.iter().map(|(_, alone)| burst / alone));
    row.ratio = Spread::of(pairs.iter().map(|(ours, alone)| alone / ours));
    let more = Spread::of(pairs.iter().map(|(ours, alone)| (ours - alone) / burst / 2.0 * 1e9));
    row.note = more.map(|more| format!("{more:.0} ns above the cipher for each message and end"));
    Ok(row)
}

/// Compares messages to an endpoint with many connections and to one with few. The connections take
/// turns, one burst each.
fn many(options: &Options) -> Result<Row, Failure> {
    let is_small = options.seconds_per_run < 0.1;
    let count = if is_small { MANY_SMALL } else { MANY };
    let size = options.sizes.iter().copied().max().unwrap_or(1_400);
    let (pairs, memory) = on_core(options.cores.forwarder, || {
        let (mut few, mut many) =
            (Ends::new(FEW, By::StaticKey, size)?, Ends::new(count, By::StaticKey, size)?);
        let pairs: Result<Vec<_>, Failure> = (0..options.pairs)
            .map(|_| {
                let (mut times_few, mut times_many) = (Vec::new(), Vec::new());
                let started = Instant::now();
                let mut turn = 0;
                while started.elapsed() < options.window() * 2 || turn < count as usize {
                    let few_turn = turn % FEW as usize;
                    times_few.push(round(&mut few, few_turn, size)?.as_secs_f64());
                    times_many.push(round(&mut many, turn % count as usize, size)?.as_secs_f64());
                    turn += 1;
                }
                Ok((median(times_many), median(times_few)))
            })
            .collect();
        Ok::<_, Failure>((pairs?, many.near.endpoint.memory() / count as usize))
    })?;
    let burst = Ends::BURST as f64;
    let mut row = Row::new(Bench::Connections, size, false, options.pairs);
    row.ours = "many";
    row.peer = Some("few");
    row.ours_rate = Spread::of(pairs.iter().map(|(many, _)| burst / many));
    row.peer_rate = Spread::of(pairs.iter().map(|(_, few)| burst / few));
    row.ratio = Spread::of(pairs.iter().map(|(many, few)| few / many));
    row.note = Some(format!("{count} connections against {FEW}; {memory} bytes each, with keys"));
    Ok(row)
}

/// The round trips before the first message leaves (T11), in virtual time, so without a rate.
fn round_trips(options: &Options) -> Result<Row, Failure> {
    let mut ends = Ends::new(0, By::PeerId, 0)?;
    let by_peer_id = ends.round_trips(1, By::PeerId)?;
    let by_key = ends.round_trips(2, By::StaticKey)?;
    let mut row = Row::new(Bench::Connections, 1, false, options.pairs);
    row.ours = "connect";
    row.note = Some(format!(
        "data leaves after {by_peer_id} round trips by PeerId and {by_key} by static key"
    ));
    Ok(row)
}

/// The time to seal a burst of messages at one end and to open it at the other.
fn round(ends: &mut Ends, far: usize, size: usize) -> Result<Duration, Failure> {
    ends.settle(far)?;
    let mut messages = ends.messages(size)?;
    let started = Instant::now();
    let mut packets = ends.seal(far, &mut messages)?;
    let sealed = started.elapsed();
    Ends::mark(&mut packets);
    let started = Instant::now();
    let opened = ends.open_burst(&mut packets);
    let took = sealed + started.elapsed();
    ends.keep(messages);
    ends.keep(packets);
    match opened == Ends::BURST {
        true => Ok(took),
        false => Err(Failure::Wrong(format!("{opened} of {} messages arrived", Ends::BURST))),
    }
}

/// The cipher of a connection alone.
struct Cipher {
    key: AeadKey,
    counter: u64,
}

impl Cipher {
    fn new() -> Self {
        Self { key: Provider::DEFAULT.key(&Secret::from_bytes([7; 32])), counter: 0 }
    }

    /// The time to seal and open as many bytes as [`round`] does.
    fn round(&mut self, ends: &mut Ends, size: usize) -> Result<Duration, Failure> {
        // The protocol number is sealed with the message.
        let mut burst = ends.messages(size + 1)?;
        let mut tags = [Tag::default(); Ends::BURST];
        let started = Instant::now();
        self.seal(&mut burst, &mut tags);
        self.open(&mut burst, &tags)?;
        let took = started.elapsed();
        self.counter += Ends::BURST as u64;
        burst.clear();
        ends.keep(burst);
        Ok(took)
    }

    fn seal(&self, burst: &mut Burst, tags: &mut [Tag]) {
        for ((counter, frame), tag) in (self.counter..).zip(burst).zip(tags) {
            *tag = self.key.seal(&nonce_of(counter), &[0; HEADER_BYTES], frame.bytes_mut());
        }
    }

    fn open(&self, burst: &mut Burst, tags: &[Tag]) -> Result<(), Failure> {
        for ((counter, frame), tag) in (self.counter..).zip(burst).zip(tags) {
            let header = [0; HEADER_BYTES];
            let opened = self.key.open(&nonce_of(counter), &header, frame.bytes_mut(), tag);
            opened.map_err(|_| Failure::Bug("the same key sealed these bytes"))?;
        }
        Ok(())
    }
}

fn median(times: Vec<f64>) -> f64 {
    Spread::of(times).map_or(f64::INFINITY, |spread| spread.median)
}
