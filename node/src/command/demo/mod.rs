//! `strowger demo`: sends traffic through a relay on this machine, with UDP sockets on both sides,
//! and checks the result. It needs no privileges.

mod backend;
mod connections;
mod testbed;
mod traffic;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;
use strowger_crypto::aead::Provider;
use strowger_engine::{control::Balance, discard::Discard};
use strowger_frame::alloc;
use strowger_wire::limits::TAG_BYTES;

use self::backend::Backend;
use self::testbed::Testbed;
use self::traffic::{FRAME_BYTES_MIN, Load, Progress, SinkReport, SourceReport};
use crate::exit::{Exit, Failure, output_ended};

/// The maximum length of a frame of the demo, in bytes. A loopback interface with its default MTU
/// accepts trains of such frames.
const FRAME_BYTES_MAX: usize = 9_000;

/// The maximum time that the demo waits for frames in flight after the source has stopped.
const REST_MAX: Duration = Duration::from_secs(3);

/// `strowger demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long to send, in seconds (0.1 to 60)
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// Bytes of each frame, headers included (36 to 9000); a sealed link adds a tag of 16
    #[arg(long, default_value_t = 1400, value_parser = frame_bytes)]
    size: usize,
    /// Worker threads of the relay (1 to 16)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// How the sockets receive
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
    /// Leave the links plain: neither encrypted nor authenticated
    #[arg(long)]
    plain: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("need a number from 0.1 to 60".into()),
    }
}

fn frame_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("need a number from {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}")),
    }
}

/// The measurements, and whether all checks passed.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    /// Whether all checks passed.
    ok: bool,
    /// The checks that failed.
    failed: Vec<String>,
    /// Whether invariant R3 holds on every switch: frames in + frames made = frames out + discards.
    balanced: bool,
    /// Frames per second through the relay, from source to sink.
    frames_per_s: f64,
    /// Bits per second through the relay, without the tags of sealed links.
    bits_per_s: f64,
    frames_sent: u64,
    frames_received: u64,
    /// Replies that reached the source along the return paths of its frames.
    answers: u64,
    /// Frames that were sent and not received. The check fails if `discards` and `kernel_drops`
    /// together are fewer.
    lost: u64,
    reordered: u64,
    /// Frames that were received with changed bytes.
    damaged: u64,
    frames_copied: u64,
    /// The number of calls to the allocator on worker threads.
    worker_allocations: u64,
    /// Discards by reason, summed over all switches.
    discards: BTreeMap<&'static str, u64>,
    /// Frames that ended at a switch as intended, such as handshakes and keepalives. They are not
    /// in `discards`.
    handled: u64,
    /// The number of datagrams that the kernel dropped before they became frames.
    kernel_drops: u64,
    backend: &'static str,
    /// Whether links are encrypted.
    sealed: bool,
    size: usize,
    workers: u8,
    seconds: f64,
    relay: Sides,
    /// The average number of frames per train that the relay received.
    frames_per_receive: f64,
    /// The average number of frames per train that the relay sent.
    frames_per_send: f64,
    /// The result of connections between two endpoints on slots of a relay.
    connections: connections::Report,
    /// Changes of the machine or the options that would make the relay faster.
    faster_here: Vec<String>,
}

/// The counters of the relay for invariant R3.
#[derive(Clone, Debug, Serialize)]
struct Sides {
    frames_in: u64,
    frames_made: u64,
    frames_out: u64,
    discarded: u64,
    handled: u64,
}

/// Runs the demo.
///
/// # Errors
/// The machine refused a socket, memory or a thread.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let outcome = measure(options)?;
    let mut out = std::io::stdout().lock();
    let printed = if options.json {
        serde_json::to_writer(&mut out, &outcome)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print(&mut out, &outcome)
    };
    printed
        .or_else(|why| output_ended(&why).map_err(|_| why))
        .map_err(|why| Failure::new(Exit::Refused, format!("demo: cannot print: {why}")))?;
    Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::from(Exit::CheckFailed as u8) })
}

fn measure(options: &Options) -> Result<Outcome, Failure> {
    let backend = options.backend.into();
    // A flow stays on one worker, so several workers need several flows. Each sealed flow needs its
    // own switch on the left.
    let workers = usize::from(options.workers);
    let flows = match (options.workers, options.plain) {
        (1, _) => 1,
        (_, true) => 4 * workers,
        (_, false) => 2 * workers,
    };
    let depth_frames = 16_384;
    let (testbed, sources, sink) =
        testbed::build(workers, flows, !options.plain, backend, depth_frames)?;
    let room = if options.plain { 0 } else { TAG_BYTES };
    let buffer = testbed.report.receive_buffer.given;
    let window = window_frames(buffer, options.size + room, depth_frames);
    if !options.json {
        eprintln!("relay: {}", testbed.report);
        match testbed.sealed_after {
            Some(after) => eprintln!("{}", sealed_line(&testbed, after)),
            None => eprintln!("links are plain, as requested: neither encrypted nor authenticated"),
        }
    }

    let progress = Arc::new(Progress::default());
    let load = Load { labels: testbed.labels.clone(), size: options.size, room, window };
    let (source_progress, sink_progress) = (progress.clone(), progress.clone());
    let scheme = strowger_wire::Scheme::default();
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let no_thread = |why| Failure::new(Exit::Refused, format!("demo: no thread: {why}"));
    let sink = thread("sink")
        .spawn(move || traffic::sink(sink, flows, &scheme, &sink_progress))
        .map_err(no_thread)?;
    let source = thread("source")
        .spawn(move || traffic::source(sources, &load, &source_progress))
        .map_err(no_thread)?;

    watch(options, &testbed, &progress);
    progress.stop_sending.store(true, Ordering::Relaxed);
    let (sources, sent) = join(source)?;
    progress.stop_receiving.store(true, Ordering::Relaxed);
    let (sink, received) = join(sink)?;
    let stopped = Instant::now();
    while !testbed.is_at_rest() && stopped.elapsed() < REST_MAX {
        std::thread::sleep(Duration::from_millis(1));
    }

    let report = testbed.report.clone();
    let frames_copied = testbed.frames_copied();
    let port = testbed.relay.stats().map(|stats| stats.ports).unwrap_or_default();
    let balances = testbed.stop()?;
    // Drop the endpoints only after the switches have stopped, so that no switch sends to an
    // endpoint that is gone.
    drop((sources, sink));
    let queues = port.iter().flat_map(|port| &port.port.queues);
    let sums = queues.fold((0, 0), |sums, q| (sums.0 + q.trains_in, sums.1 + q.trains_out));
    let connections = connections::run()?;
    let results = (&sent, &received, connections);
    Ok(evaluate(options, &balances, results, &report, frames_copied, sums))
}

fn sealed_line(testbed: &Testbed, after: Duration) -> String {
    format!(
        "links are sealed: {} of the relay's, Noise IKpsk2 and ChaCha20-Poly1305 by {}, up after {:.0} ms",
        testbed.relay_links(),
        Provider::DEFAULT.name(),
        after.as_secs_f64() * 1e3,
    )
}

fn join<T>(thread: std::thread::JoinHandle<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new(Exit::Died, "demo: a traffic thread died"))
}

/// The maximum number of frames in flight, so that the socket buffers hold them and the kernel
/// drops none. The kernel charges a train up to twice its bytes, and a few hundred bytes more.
fn window_frames(buffer_bytes: usize, size: usize, depth_frames: usize) -> u64 {
    let fits = buffer_bytes / (4 * (size + 64));
    fits.clamp(64, depth_frames / 2) as u64
}

/// Shows a status line until the time is up.
fn watch(options: &Options, testbed: &Testbed, progress: &Progress) {
    let started = Instant::now();
    let live = std::io::stderr().is_terminal();
    let (mut shown_at, mut shown) = (started, 0);
    let every = Duration::from_millis(if live { 200 } else { 1000 });
    while started.elapsed().as_secs_f64() < options.seconds {
        std::thread::sleep(Duration::from_millis(10));
        if !options.json && shown_at.elapsed() >= every {
            let received = progress.received.load(Ordering::Relaxed);
            let rate = (received - shown) as f64 / shown_at.elapsed().as_secs_f64();
            let bits = rate * options.size as f64 * 8.0;
            let seconds = started.elapsed().as_secs_f64();
            let discarded = testbed
                .relay
                .stats()
                .map_or(0, |stats| stats.totals.discarded() - stats.totals.handled());
            let (rate, bits) = (scaled(rate, "frames/s"), scaled(bits, "bit/s"));
            let line = format!("{seconds:5.1} s  {rate:>16}  {bits:>15}  discarded {discarded}");
            let (begin, end) = if live { ("\r", "\x1b[K") } else { ("", "\n") };
            eprint!("{begin}{line}{end}");
            (shown_at, shown) = (Instant::now(), received);
        }
    }
    if !options.json && live {
        eprintln!();
    }
}

fn evaluate(
    options: &Options,
    balances: &[Balance],
    (sent, received, connections): (&SourceReport, &SinkReport, connections::Report),
    report: &strowger_io::udp::UdpReport,
    frames_copied: u64,
    (trains_in, trains_out): (u64, u64),
) -> Outcome {
    let frames_sent: u64 = sent.sent.iter().sum();
    let frames_received: u64 = received.received.iter().sum();
    let lost = frames_sent.saturating_sub(frames_received);
    let elapsed = received.elapsed.as_secs_f64();
    let frames_per_s = if elapsed > 0.0 { frames_received as f64 / elapsed } else { 0.0 };
    let mut discards = BTreeMap::new();
    for (reason, count) in balances.iter().flat_map(Balance::by_reason) {
        *discards.entry(reason.name()).or_default() += count;
    }
    let kernel_drops = balances.iter().map(|balance| balance.kernel_drops).sum();
    // Handshakes and keepalives reached their destination, so they are not shown as discards.
    let handled = Discard::ALL.iter().filter(|discard| discard.is_handled());
    let handled = handled.filter_map(|discard| discards.remove(discard.name())).sum();
    let counted = discards.values().sum::<u64>() + kernel_drops;
    let balanced = balances.iter().all(Balance::is_even);
    let worker_allocations = alloc::total_calls();
    let relay = balances.first().cloned().unwrap_or_default();

    let checks = [
        (frames_received > 0, "no frame arrived".to_owned()),
        (sent.answers > 0, "no reply arrived by a return path".to_owned()),
        (balanced, "a switch's counters do not balance (R3)".to_owned()),
        (lost <= counted, format!("{lost} frames were lost, but only {counted} counted")),
        (frames_received <= frames_sent, "more frames arrived than were sent (R4)".to_owned()),
        (received.reordered == 0, format!("{} frames out of order (R7)", received.reordered)),
        (received.damaged == 0, format!("{} frames arrived with changed bytes", received.damaged)),
        (frames_copied == 0, format!("{frames_copied} frames were copied")),
        (alloc::installed(), "the guarded allocator is not installed".to_owned()),
        (
            connections.returned > 0 && connections.returned == connections.messages,
            "messages of a connection were lost".to_owned(),
        ),
        (
            connections.missed == 0,
            format!("the capture of the relay missed {} packets", connections.missed),
        ),
        (
            connections.readable == 0 && connections.search_works,
            "the relay could read messages of a connection".to_owned(),
        ),
        (worker_allocations == 0, format!("workers allocated {worker_allocations} times (R13)")),
    ];
    let failed: Vec<String> =
        checks.into_iter().filter(|(passed, _)| !passed).map(|(_, what)| what).collect();
    let per = |frames: u64, trains: u64| frames as f64 / trains.max(1) as f64;
    Outcome {
        ok: failed.is_empty(),
        failed,
        balanced,
        frames_per_s,
        bits_per_s: frames_per_s * options.size as f64 * 8.0,
        frames_sent,
        frames_received,
        answers: sent.answers,
        lost,
        reordered: received.reordered,
        damaged: received.damaged,
        frames_copied,
        worker_allocations,
        discards,
        handled,
        kernel_drops,
        backend: report.backend.name(),
        sealed: !options.plain,
        size: options.size,
        workers: options.workers,
        seconds: elapsed,
        relay: Sides {
            frames_in: relay.frames_in,
            frames_made: relay.frames_made,
            frames_out: relay.frames_out,
            discarded: relay.discarded() - relay.handled(),
            handled: relay.handled(),
        },
        frames_per_receive: per(relay.frames_in, trains_in),
        frames_per_send: per(relay.frames_out, trains_out),
        connections,
        faster_here: faster_here(options, report),
    }
}

fn faster_here(options: &Options, report: &strowger_io::udp::UdpReport) -> Vec<String> {
    let mut faster = report.warnings();
    let cores = strowger_io::sys::cores::usable_cores().len();
    if cores < 5 {
        faster.push(format!(
            "five threads share {cores} cores here (source, three switches, sink): a relay on a \
             core of its own forwards more; see `strowger bench udp`"
        ));
    }
    if options.workers > 1 && usize::from(options.workers) + 4 > cores {
        faster.push("more relay workers than cores to run them: try --workers 1".to_owned());
    }
    faster
}

fn print(out: &mut impl std::io::Write, outcome: &Outcome) -> std::io::Result<()> {
    let frames = scaled(outcome.frames_per_s, "frames/s");
    let bits = scaled(outcome.bits_per_s, "bit/s");
    let Outcome { frames_received, lost, reordered, damaged, size, .. } = outcome;
    writeln!(out, "forwarded   {frames}, {bits} through one relay, {size} bytes a frame")?;
    writeln!(
        out,
        "delivered   {frames_received} frames in {:.2} s; {lost} lost, {reordered} out of order, \
         {damaged} damaged",
        outcome.seconds
    )?;
    writeln!(out, "replies     {} along the return paths in the labels", outcome.answers)?;
    writeln!(
        out,
        "data plane  {} frames copied, {} allocations on workers",
        outcome.frames_copied, outcome.worker_allocations
    )?;
    writeln!(
        out,
        "trains      {:.1} frames a receive, {:.1} a send",
        outcome.frames_per_receive, outcome.frames_per_send
    )?;
    writeln!(out, "connections {}", outcome.connections)?;
    if outcome.discards.is_empty() && outcome.kernel_drops == 0 {
        writeln!(out, "discards    none")?;
    }
    for (reason, count) in &outcome.discards {
        writeln!(out, "discards    {count} {reason}")?;
    }
    if outcome.kernel_drops > 0 {
        writeln!(
            out,
            "discards    {} by the kernel, before they became frames",
            outcome.kernel_drops
        )?;
    }
    let Sides { frames_in, frames_made, frames_out, discarded, handled } = outcome.relay;
    let sign = if outcome.balanced { "balanced" } else { "NOT balanced" };
    writeln!(
        out,
        "balance     {sign}; relay: {frames_in} in + {frames_made} made = {frames_out} out + \
         {discarded} discarded + {handled} handled"
    )?;
    let links = if outcome.sealed { "links sealed" } else { "links plain, as requested" };
    writeln!(out, "backend     {}; {links}", outcome.backend)?;
    for hint in &outcome.faster_here {
        writeln!(out, "faster      {hint}")?;
    }
    for what in &outcome.failed {
        writeln!(out, "FAILED      {what}")?;
    }
    writeln!(out, "{}", if outcome.ok { "ok" } else { "not ok" })
}

/// Formats a number with an SI prefix and its unit, for example `1.53 Mframes/s`.
fn scaled(value: f64, unit: &str) -> String {
    let (value, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    format!("{value:.2} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_scaled_to_their_unit() {
        assert_eq!(scaled(1_530_000.0, "frames/s"), "1.53 Mframes/s");
        assert_eq!(scaled(17.2e9, "bit/s"), "17.20 Gbit/s");
        assert_eq!(scaled(12.0, "frames/s"), "12.00 frames/s");
    }

    #[test]
    fn the_window_fits_the_buffer_and_is_never_shut() {
        assert_eq!(window_frames(0, 1400, 16_384), 64);
        assert!(window_frames(8 << 20, 64, 16_384) <= 8_192);
        assert!(window_frames(425_984, 1400, 16_384) < 100);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        assert!(seconds("0").is_err() && seconds("nan").is_err() && seconds("4").is_ok());
        assert!(frame_bytes("35").is_err() && frame_bytes("36").is_ok());
        assert!(frame_bytes("9001").is_err());
    }
}
