//! The latency that sockets add to a relay in this process (T15), and the time that their ends take
//! (T3), compared with bare local ports and with the cipher.

use std::time::{Duration, Instant};

use strowger_socket::Messages;

use super::{
    Cipher,
    ends::{By, Ends},
    median,
    sockets::{LONG, Local, Sockets, refused},
};
use crate::{
    Bench, Failure, Options, Row,
    machine::{Cores, on_core},
    row::Latency,
    spread::Spread,
};

/// Bytes of a message whose latency is measured.
const BYTES: usize = 64;
/// Messages of one kind in a turn, and the number at its start that are not measured, because they
/// wake the threads.
const TURN: usize = 48;
const WARM_UP: usize = 16;

/// Measures all latencies and the time of the ends.
pub(super) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each(with_threads(options)?)?;
    each(one_thread(options)?)?;
    each(ends(options)?)
}

/// The core of the relay's worker, if the measuring thread has another one.
fn worker_core(cores: &Cores) -> Option<usize> {
    (cores.forwarder != cores.sink).then_some(cores.forwarder)
}

/// Measures the latency when each node has its own driver thread.
fn with_threads(options: &Options) -> Result<Row, Failure> {
    // The threads of relay and nodes may use every core.
    let Local { relay: _relay, mut bare, ports } = Local::new(None)?;
    let mut sockets = Sockets::threads(ports)?;
    let samples =
        interleaved(options, &mut |from| sockets.one_way(from, &[7; BYTES]), &mut |from| {
            bare.one_way(from, &[7; BYTES])
        })?;
    let cores = options.cores.sources.len() + 1 + usize::from(options.cores.sink_is_alone());
    Ok(row(
        "socket_latency",
        options,
        &samples,
        &format!(
            "a worker, two drivers and this thread share {cores} cores; with fewer than 4 the \
         scheduler is part of the latency"
        ),
    ))
}

/// Measures the latency when the measuring thread drives both nodes. The relay's worker has its own
/// core if there are at least two.
fn one_thread(options: &Options) -> Result<Row, Failure> {
    let own_core = worker_core(&options.cores);
    let Local { relay: _relay, mut bare, ports } = Local::new(own_core)?;
    let samples = on_core(options.cores.sink, || {
        let mut sockets = Sockets::one_thread(ports)?;
        interleaved(options, &mut |from| sockets.one_way(from, &[7; BYTES]), &mut |from| {
            bare.one_way(from, &[7; BYTES])
        })
    })?;
    let worker = match own_core {
        Some(_) => "the worker has a core of its own",
        None => "the worker shares the only core",
    };
    Ok(row("socket_latency_one_thread", options, &samples, worker))
}

/// Samples in microseconds: those of sockets and of bare ports, for each pair.
type Samples = Vec<[Vec<f64>; 2]>;

fn interleaved(
    options: &Options,
    ours: &mut dyn FnMut(usize) -> Result<Duration, Failure>,
    bare: &mut dyn FnMut(usize) -> Result<Duration, Failure>,
) -> Result<Samples, Failure> {
    let pair = || {
        let mut samples = [Vec::new(), Vec::new()];
        let started = Instant::now();
        while samples[1].is_empty() || started.elapsed() < options.window() * 2 {
            for (kind, samples) in samples.iter_mut().enumerate() {
                for number in 0..TURN {
                    // Messages alternate between the directions.
                    let from = number % 2;
                    let took = if kind == 0 { ours(from)? } else { bare(from)? };
                    if number >= WARM_UP {
                        samples.push(took.as_secs_f64() * 1e6);
                    }
                }
            }
        }
        Ok(samples)
    };
    std::iter::repeat_with(pair).take(options.pairs).collect()
}

fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::INFINITY)
}

fn row(name: &'static str, options: &Options, samples: &Samples, note: &str) -> Row {
    let of = |kind: usize, share: f64| {
        Spread::of(samples.iter().map(|pair| quantile(&pair[kind], share)))
    };
    let latency = |kind| {
        Some(Latency { median: of(kind, 0.5)?, p99: of(kind, 0.99)?, p999: of(kind, 0.999)? })
    };
    let more = |share: f64| {
        let of_pair = |pair: &[Vec<f64>; 2]| quantile(&pair[0], share) - quantile(&pair[1], share);
        Spread::of(samples.iter().map(of_pair)).map_or(f64::INFINITY, |more| more.median)
    };
    let mut row = Row::new(Bench::Connections, BYTES, false, options.pairs);
    row.ours = name;
    row.peer = Some("local_port");
    (row.ours_latency, row.peer_latency) = (latency(0), latency(1));
    let show = |latency: Option<Latency>| {
        latency.map_or(String::new(), |latency| {
            format!("p50 {:.1} us, p99 {:.1} us", latency.median.median, latency.p99.median)
        })
    };
    row.note = Some(format!(
        "each direction: {}; bare ports {}; more by p50 {:.1} us, p99 {:.1} us; {note}",
        show(row.ours_latency),
        show(row.peer_latency),
        more(0.5),
        more(0.99),
    ));
    row
}

/// The time of both ends for a burst, from the socket to the port, compared with the cipher for the
/// same bytes. It excludes the time of the relay.
fn ends(options: &Options) -> Result<Row, Failure> {
    let size = options.sizes.iter().copied().max().unwrap_or(1_400);
    let Local { relay: _relay, bare: _bare, ports } = Local::new(worker_core(&options.cores))?;
    let pairs = on_core(options.cores.sink, || {
        let mut sockets = Sockets::one_thread(ports)?;
        sockets.widen(size)?;
        let mut buffers = Ends::new(0, By::StaticKey, 0)?;
        let mut cipher = Cipher::new();
        let pair = || {
            let (mut ours, mut alone) = (Vec::new(), Vec::new());
            let started = Instant::now();
            while started.elapsed() < options.window() * 2 {
                ours.push(burst(&mut sockets, size)?.as_secs_f64() / BURST as f64);
                let round = cipher.round(&mut buffers, size)?.as_secs_f64();
                alone.push(round / Ends::BURST as f64);
            }
            Ok((median(ours), median(alone)))
        };
        std::iter::repeat_with(pair).take(options.pairs).collect::<Result<Vec<_>, Failure>>()
    })?;
    let mut row = Row::new(Bench::Connections, size, true, options.pairs);
    row.ours = "ends_with_sockets";
    row.peer = Some("cipher");
    row.ours_rate = Spread::of(pairs.iter().map(|(ours, _)| 1.0 / ours));
    row.peer_rate = Spread::of(pairs.iter().map(|(_, alone)| 1.0 / alone));
    row.ratio = Spread::of(pairs.iter().map(|(ours, alone)| alone / ours));
    let times = Spread::of(pairs.iter().map(|(ours, alone)| ours / alone));
    row.note = times.map(|times| {
        format!("socket, driver and port of both ends take {times:.2} times the cipher alone")
    });
    Ok(row)
}

/// Messages in a burst: one train.
const BURST: usize = 32;

/// The time that both ends take for a burst. Excludes polls that find nothing, during which the
/// relay works.
fn burst(sockets: &mut Sockets, size: usize) -> Result<Duration, Failure> {
    let Sockets { ends: [near, far], drivers, .. } = sockets;
    let Some([drive_near, drive_far]) = drivers else {
        return Err(Failure::Bug("this thread drives both nodes"));
    };
    let waited = Instant::now();
    let mut buffers = loop {
        match near.tx_buffers(size, BURST) {
            Some(buffers) => break buffers,
            None if waited.elapsed() > LONG => {
                return Err(Failure::Wrong("no transmit buffers became free".to_owned()));
            }
            None => drop(drive_near.poll()),
        }
    };
    let mut took = Duration::ZERO;
    let started = Instant::now();
    near.send_tx_buffers(&mut buffers).map_err(refused)?;
    drive_near.poll();
    took += started.elapsed();
    let mut messages = Messages::new();
    while messages.len() < BURST {
        let started = Instant::now();
        let worked = drive_far.poll();
        if worked {
            far.recv_burst(&mut messages).map_err(refused)?;
            took += started.elapsed();
        }
        if waited.elapsed() > LONG {
            let lost = BURST - messages.len();
            return Err(Failure::Wrong(format!("{lost} messages in this process did not arrive")));
        }
    }
    drive_near.poll();
    Ok(took)
}
