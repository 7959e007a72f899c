//! One run of one forwarder over Ethernet: source, forwarder and sink on separate cores, a warm-up,
//! and a window at whose ends all counts are read. Every run has fresh sockets and programs, but
//! uses the same wires.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::unistd::gettid;
use strowger_engine::{control::Balance, discard::Discard};
use strowger_io::{
    DoorbellWaker,
    sys::Refusal,
    testgen::{Arrived, BUCKET_NS, Redirect, Sink, Source, TRAILER_BYTES},
    xdp::{ModeChoice, limits::ETHERTYPE},
};
use strowger_wire::Label;

use super::{
    peers::{Bridge, PacketSockets},
    relay::EtherRelay,
    testpmd::Testpmd,
    wires::{Mac, Tid, Wires, are_asleep, figure, kernel_threads, mac, time_of},
};
use crate::{
    Failure,
    machine::{Cores, pin_this_thread},
    packet,
    row::Accounts,
    trial::{StopOnDrop, join, measure_window},
};

/// Bytes before a packet in a frame: MAC addresses, ethertype, and the packet's length.
pub(crate) const ETHER_BYTES: usize = 16;

/// The shortest frame: a packet with its headers, and the source's trailer.
pub(crate) const FRAME_BYTES_MIN: usize = ETHER_BYTES + packet::PAYLOAD_AT + TRAILER_BYTES;

/// The longest Ethernet frame.
pub(crate) const FRAME_BYTES_MAX: usize = 1514;

/// The forwarder under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Forwarder {
    /// Strowger.
    Ours(ModeChoice),
    /// testpmd, whose executable has this path.
    Testpmd(PathBuf),
    /// recvmmsg and sendmmsg on packet sockets.
    PacketSockets,
    /// The kernel's bridge.
    Bridge,
    /// An XDP program that redirects.
    Redirect,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) wires: &'a Wires,
    pub(crate) forwarder: &'a Forwarder,
    /// Bytes of each frame, with its Ethernet header.
    pub(crate) size: usize,
    /// Interval between frames; as short as possible if `None`.
    pub(crate) interval_ns: Option<u32>,
    pub(crate) window: Duration,
    pub(crate) cores: &'a Cores,
    /// The core on which the kernel receives for the forwarder.
    pub(crate) receive: usize,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Frames per second that arrived.
    pub(crate) rate: f64,
    /// Frames per second of the CPU time that the forwarder and the kernel thread that receives for
    /// it used together.
    pub(crate) rate_per_busy_s: f64,
    /// Frames per second that were offered, including those that the wire did not accept.
    pub(crate) offered: f64,
    /// Drops on the wire to the sink, relative to the frames sent to the sink.
    pub(crate) sink_lost: f64,
    /// Number of frames in each latency bucket; all 0 if frames carried no timestamps.
    pub(crate) delays: Vec<u64>,
    /// The counts of Strowger's frames; `None` for other forwarders.
    pub(crate) accounts: Option<Accounts>,
    /// The receive backend of Strowger.
    pub(crate) backend: &'static str,
}

impl Outcome {
    /// The latency quantile `part`, in microseconds; `None` if frames carried no timestamps.
    pub(crate) fn delay_us(&self, part: f64) -> Option<f64> {
        let all = self.delays.iter().sum::<u64>();
        let mut left = (all as f64 * part) as u64;
        let bucket = self.delays.iter().position(|&count| {
            let within = left < count;
            left = left.saturating_sub(count);
            within
        });
        bucket.map(|bucket| (bucket + 1) as f64 * BUCKET_NS as f64 * 1e-3)
    }
}

/// The report of a forwarder's thread when it is ready.
struct Ready {
    threads: Vec<Tid>,
    /// The destination address and the label of the frames that the source sends.
    to: Mac,
    label: Label,
    backend: &'static str,
    /// Wakes Strowger's thread when it must stop; `None` for other forwarders, which do not block
    /// for long.
    waker: Option<DoorbellWaker>,
}

struct Reading {
    at: Instant,
    arrived: Arrived,
    sent: u64,
    dropped: Dropped,
    used: BTreeMap<Tid, Duration>,
}

/// Drops so far on the wire to the forwarder, and on the wire to the sink.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    inward: u64,
    outward: u64,
}

impl Dropped {
    fn at(wires: &Wires) -> Result<Self, Failure> {
        let inward = figure(&wires.source, "tx_dropped")?;
        Ok(Self { inward, outward: figure(&wires.outward, "tx_dropped")? })
    }
}

/// Longest time to wait until all frames have arrived.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(20);
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

fn refused(why: Refusal) -> Failure {
    Failure::Refused(why.to_string())
}

impl Run<'_> {
    /// Performs the run.
    pub(crate) fn run(&self) -> Result<Outcome, Failure> {
        let (stop_forwarder, taken) = (AtomicBool::new(false), AtomicU64::new(0));
        let sink = Sink::attach(&self.wires.sink, ETHERTYPE, self.size).map_err(refused)?;
        let before_all = Dropped::at(self.wires)?;
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        thread::scope(|scope| {
            // Stops the forwarder if a step below fails.
            let _stop = StopOnDrop([&stop_forwarder]);
            let (ready_tx, ready) = mpsc::channel();
            let forwarder = named("forwarder").spawn_scoped(scope, || {
                let ready_tx = ready_tx;
                let stopped = || stop_forwarder.load(Ordering::Acquire);
                self.forward(&ready_tx, stopped, &taken)
            });
            let forwarder = forwarder.map_err(Failure::kernel("a thread"))?;
            let Ok(ready) = ready.recv() else {
                // The thread has ended before it was ready. Its error contains the reason.
                return match forwarder.join() {
                    Ok(Err(failure)) => Err(failure),
                    _ => Err(Failure::Bug("a forwarder reports that it is ready")),
                };
            };
            // The kernel's threads are pinned before each run, because loading or removing a
            // program may have changed them.
            self.wires.tie_kernel_threads(self.receive, self.cores.sink)?;
            let mut threads = ready.threads.clone();
            threads.extend(kernel_threads(&self.wires.inward)?);

            let frame = self.frame(&ready)?;
            let source = Source::new(&self.wires.source, &frame, self.interval_ns);
            let source = Arc::new(source.map_err(refused)?);
            let sending = source.start(self.cores.sources[0]).map_err(refused)?;

            let reading = || {
                Ok::<_, Failure>(Reading {
                    at: Instant::now(),
                    arrived: sink.arrived().map_err(refused)?,
                    sent: source.sent().map_err(refused)?,
                    dropped: Dropped::at(self.wires)?,
                    used: time_of(&threads),
                })
            };
            let [before, after] =
                measure_window(self.window, reading, |reading| reading.arrived.right)?;

            sending.stop().map_err(refused)?;
            let (_, dropped) = self.wait_drained(&sink)?;
            let sent = source.sent().map_err(refused)?;
            let all = sent.saturating_sub(dropped.inward - before_all.inward);
            taken.store(all, Ordering::Relaxed);
            stop_forwarder.store(true, Ordering::Release);
            if let Some(waker) = &ready.waker {
                waker.wake();
            }
            let balance = join(forwarder)?;
            // These counts include the frames that the source has sent since the end of the window.
            let (arrived, dropped) = self.wait_drained(&sink)?;

            if arrived.wrong > 0 {
                return Err(Failure::Wrong(format!(
                    "{} of the frames that {:?} forwarded differ from those sent",
                    arrived.wrong, self.forwarder
                )));
            }
            let accounts = balance.map(|balance| {
                accounts(&balance, all, (&arrived, dropped.outward - before_all.outward))
            });
            Ok(outcome(&before, &after, accounts, ready.backend))
        })
    }

    /// The frame that the source sends.
    fn frame(&self, ready: &Ready) -> Result<Vec<u8>, Failure> {
        let mut frame = vec![0; self.size];
        let (header, packet) = frame.split_at_mut(ETHER_BYTES);
        header[..6].copy_from_slice(&ready.to);
        header[6..12].copy_from_slice(&mac(&self.wires.source)?);
        header[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        header[14..].copy_from_slice(&(packet.len() as u16).to_be_bytes());
        packet::write(packet, ready.label, 0);
        Ok(frame)
    }

    /// Waits until no more frames arrive and the kernel's threads sleep. The threads are checked as
    /// well, because on a loaded machine a pause without frames is not sufficient.
    fn wait_drained(&self, sink: &Sink) -> Result<(Arrived, Dropped), Failure> {
        let started = Instant::now();
        let mut receive_threads = kernel_threads(&self.wires.inward)?;
        receive_threads.extend(kernel_threads(&self.wires.sink)?);
        let mut last = None;
        loop {
            thread::sleep(DRAIN_POLL_INTERVAL);
            let is_idle = are_asleep(&receive_threads);
            let arrived = sink.arrived().map_err(refused)?;
            let is_quiet = is_idle && last == Some(arrived.right);
            if is_quiet || started.elapsed() > DRAIN_MAX {
                return Ok((arrived, Dropped::at(self.wires)?));
            }
            last = Some(arrived.right);
        }
    }

    /// The forwarder's thread. When `stopped` returns true, `taken` holds the number of frames that
    /// the wire accepted.
    fn forward(
        &self,
        ready_tx: &mpsc::Sender<Ready>,
        mut stopped: impl FnMut() -> bool,
        taken: &AtomicU64,
    ) -> Result<Option<Balance>, Failure> {
        let to = mac(&self.wires.inward)?;
        // This label is as long as the labels for Strowger, so the frames have the same layout.
        // Other forwarders do not read it.
        let plain =
            Ready { threads: vec![], to, label: Label::here(), backend: "none", waker: None };
        let say = |ready| {
            ready_tx.send(ready).map_err(|_| Failure::Bug("the run waits for its forwarder"))
        };
        let mut wait = || {
            while !stopped() {
                thread::sleep(Duration::from_millis(5));
            }
        };
        let own = || vec![gettid().as_raw()];
        match self.forwarder {
            Forwarder::Ours(backend) => {
                pin_this_thread(self.cores.forwarder)?;
                let mut relay = EtherRelay::new(self.wires, *backend)?;
                let backend = relay.report.mode.name();
                let waker = Some(relay.waker.clone());
                say(Ready { threads: own(), label: relay.label, backend, waker, ..plain })?;
                relay.forward(stopped);
                return Ok(Some(relay.drain(taken.load(Ordering::Relaxed))));
            }
            Forwarder::PacketSockets => {
                pin_this_thread(self.cores.forwarder)?;
                let sockets = PacketSockets::open(self.wires)?;
                say(Ready { threads: own(), ..plain })?;
                sockets.forward(stopped);
            }
            Forwarder::Testpmd(command) => {
                let testpmd = Testpmd::start(command, self.wires, self.cores)?;
                say(Ready { threads: testpmd.threads(), ..plain })?;
                wait();
            }
            Forwarder::Bridge => {
                let _bridge = Bridge::build(self.wires)?;
                say(Ready { to: mac(&self.wires.sink)?, ..plain })?;
                wait();
            }
            Forwarder::Redirect => {
                let redirect = Redirect::attach(&self.wires.inward, &self.wires.outward);
                let _redirect = redirect.map_err(refused)?;
                say(plain)?;
                wait();
            }
        }
        Ok(None)
    }
}

/// Returns the accounts of a run. `sent` is the number of frames that the wire accepted.
fn accounts(balance: &Balance, sent: u64, (arrived, lost): (&Arrived, u64)) -> Accounts {
    let refused = balance.discards[Discard::SendRefused as usize];
    // The interface to the sink counts a refused frame as dropped, and the relay counts it as
    // `send_refused`.
    let at_sink = arrived.right + lost.saturating_sub(refused);
    Accounts {
        whole: sent == balance.kernel_drops + balance.frames_in
            && balance.is_even()
            && balance.frames_out == at_sink,
        sent,
        kernel_drops: balance.kernel_drops,
        frames_in: balance.frames_in,
        discards: balance.discarded(),
        frames_out: balance.frames_out,
        at_sink,
    }
}

fn outcome(
    before: &Reading,
    after: &Reading,
    accounts: Option<Accounts>,
    backend: &'static str,
) -> Outcome {
    let seconds = (after.at - before.at).as_secs_f64();
    let came = (after.arrived.right - before.arrived.right) as f64;
    let sent = (after.sent - before.sent) as f64;
    let lost = (after.dropped.outward - before.dropped.outward) as f64;
    let used = after.used.iter().filter_map(|(thread, used)| {
        Some(used.saturating_sub(*before.used.get(thread)?).as_secs_f64())
    });
    let used = used.sum::<f64>();
    let delays = after.arrived.delays.iter().zip(&before.arrived.delays);
    Outcome {
        rate: came / seconds,
        rate_per_busy_s: if used > 0.0 { came / used } else { 0.0 },
        offered: sent / seconds,
        sink_lost: lost / (came + lost).max(1.0),
        delays: delays.map(|(after, before)| after - before).collect(),
        accounts,
        backend,
    }
}
