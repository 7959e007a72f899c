//! Measures sealed links: the rate of a switch that opens and seals every packet, compared with the
//! rate of the cipher alone for the same bytes; full compared with header-only; and over UDP a
//! comparison with WireGuard.

use std::time::{Duration, Instant};

use strowger_crypto::aead::Provider;

use crate::{
    Bench, Failure, Options, Row,
    machine::on_core,
    sealed_chain::{AeadOnly, Mode, SealedChain},
    sealed_relay::{SealedRelay, forward},
    sealed_udp::{Ends, Forwarder, Parts, Run, SealedTrial},
    spread::Spread,
};

/// The number of rounds of one kind before the next kind. In these rounds each burst is used once.
const ROUNDS_A_TURN: usize = 16;

/// The number of turns at the start that are not timed.
const TURNS_BEFORE: usize = 8;

/// The variants of WireGuard: as deployed, with its default number of threads and with one thread;
/// and as a library, with one datagram and with many in a call.
const WIREGUARDS: [&str; 4] =
    ["boringtun", "boringtun_1_thread", "boringtun_no_tun", "boringtun_no_tun_mmsg"];

/// Measures at each size.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for &size in &options.sizes {
        // Sizes in which a sealed packet with its tag does not fit are skipped.
        if size < SealedChain::BYTES_MIN {
            continue;
        }
        let pairs = on_core(options.cores.forwarder, || {
            (0..options.pairs).map(|_| Rates::measure(size, options.window())).collect()
        });
        let pairs: Vec<Rates> = pairs?;
        for (mode, peer, of) in [
            (Mode::Full, "aead_twice", Rates::full as fn(&Rates) -> (f64, f64)),
            (Mode::HeaderOnly, "aead_twice", Rates::header_only),
            (Mode::HeaderOnly, "full", Rates::modes),
        ] {
            let mut row = Row::new(Bench::Sealed, size, false, options.pairs);
            row.seal = Some(mode.name());
            row.peer = Some(peer);
            row.ours_rate = Spread::of(pairs.iter().map(|pair| of(pair).0));
            row.peer_rate = Spread::of(pairs.iter().map(|pair| of(pair).1));
            row.ratio = Spread::of(pairs.iter().map(|pair| of(pair).0 / of(pair).1));
            each(row)?;
        }
        // The choice of the default provider is based on this row.
        let mut row = Row::new(Bench::Sealed, size, false, options.pairs);
        row.seal = Some(Mode::Full.name());
        row.ours = Provider::DEFAULT.name();
        row.peer = Some(Provider::Portable.name());
        row.ours_rate = Spread::of(pairs.iter().map(|pair| pair.aead[0]));
        row.peer_rate = Spread::of(pairs.iter().map(|pair| pair.portable));
        row.ratio = Spread::of(pairs.iter().map(|pair| pair.aead[0] / pair.portable));
        each(row)?;
        for peer in WIREGUARDS {
            each(over_udp(options, size, peer)?)?;
        }
    }
    Ok(())
}

/// Compares a sealed relay over UDP, with trains, with a WireGuard relay. Both receive datagrams of
/// the same size from the same generator.
fn over_udp(options: &Options, size: usize, peer: &'static str) -> Result<Row, Failure> {
    let (window, cores) = (options.window(), &options.cores);
    let ours = || {
        let ends = Ends::new()?;
        let SealedRelay { mut worker, slow_path, at, seal, open } =
            SealedRelay::new(&ends, size, Mode::Full, true)?;
        let forwarder = Forwarder::InThread(Box::new(move |idle_polls, stopped| {
            forward(&mut worker, idle_polls, stopped)
        }));
        let backend = "mmsg";
        let run =
            SealedTrial { size, window, cores, at, ends, seal, open, forwarder, backend }.run();
        drop(slow_path);
        run
    };
    let run: &Run<'_> = &|ends: Ends, parts: Parts| {
        let Parts { at, seal, open, forwarder } = parts;
        SealedTrial { size, window, cores, at, ends, seal, open, forwarder, backend: peer }.run()
    };
    let theirs = || match peer {
        "boringtun" => deployed(size, cores.forwarder, None, run),
        "boringtun_1_thread" => deployed(size, cores.forwarder, Some(1), run),
        _ => {
            let ends = Ends::new()?;
            let parts = in_a_loop(&ends, size, peer == "boringtun_no_tun_mmsg")?;
            run(ends, parts)
        }
    };
    let pairs = (0..options.pairs).map(|_| Ok((ours()?, theirs()?)));
    let mut row = Row::new(Bench::Sealed, size, true, options.pairs);
    row.seal = Some(Mode::Full.name());
    row.ours = "mmsg";
    row.peer = Some(peer);
    match pairs.collect::<Result<Vec<_>, Failure>>() {
        Ok(pairs) => {
            row.compare(&pairs);
            let all = || pairs.iter().flat_map(|(ours, theirs)| [ours, theirs]);
            row.idle = all().map(|run| run.idle).max_by(f64::total_cmp);
            row.saturated = row.idle.map(|idle| idle <= 0.05);
        }
        // WireGuard is not in this build, or is not allowed on this machine.
        Err(Failure::Refused(why)) => row.note = Some(why),
        Err(failure) => return Err(failure),
    }
    Ok(row)
}

#[cfg(feature = "wireguard")]
use crate::wireguard::{device::deployed, parts as in_a_loop};

#[cfg(not(feature = "wireguard"))]
use crate::trial::Outcome;

#[cfg(not(feature = "wireguard"))]
fn deployed(_: usize, _: usize, _: Option<usize>, _: &Run<'_>) -> Result<Outcome, Failure> {
    Err(no_wireguard())
}

#[cfg(not(feature = "wireguard"))]
fn in_a_loop(_: &Ends, _: usize, _: bool) -> Result<Parts, Failure> {
    Err(no_wireguard())
}

#[cfg(not(feature = "wireguard"))]
fn no_wireguard() -> Failure {
    let build = "build with --features strowger-bench/wireguard";
    Failure::Refused(format!("no WireGuard in this build; {build}"))
}

/// Rates in packets per second, all measured in turn.
struct Rates {
    /// The rate of the switch, by mode.
    switch: [f64; 2],
    /// The rate of the cipher alone with the default provider, by mode.
    aead: [f64; 2],
    /// The rate of the cipher alone with the portable provider, in full mode.
    portable: f64,
}

impl Rates {
    fn full(&self) -> (f64, f64) {
        (self.switch[0], self.aead[0])
    }

    fn header_only(&self) -> (f64, f64) {
        (self.switch[1], self.aead[1])
    }

    fn modes(&self) -> (f64, f64) {
        (self.switch[1], self.switch[0])
    }

    /// Measures rounds of five kinds in turn, for five times `window` in total. The rate of each
    /// kind is computed from its median round, because other threads may interrupt some rounds.
    fn measure(size: usize, window: Duration) -> Result<Self, Failure> {
        let mut chains =
            [SealedChain::new(size, Mode::Full)?, SealedChain::new(size, Mode::HeaderOnly)?];
        let [ours, portable] = [Provider::DEFAULT, Provider::Portable];
        let mut aeads = [
            AeadOnly::new(size, Mode::Full, ours)?,
            AeadOnly::new(size, Mode::HeaderOnly, ours)?,
            AeadOnly::new(size, Mode::Full, portable)?,
        ];
        let mut took: [Vec<f64>; 5] = Default::default();
        let started = Instant::now();
        let mut turn = 0;
        while turn <= TURNS_BEFORE || started.elapsed() < 5 * window {
            for (kind, took) in took.iter_mut().enumerate() {
                for _ in 0..ROUNDS_A_TURN {
                    let round = match kind {
                        0 | 1 => chains[kind].round()?,
                        _ => aeads[kind - 2].round(),
                    };
                    if turn >= TURNS_BEFORE {
                        took.push(round.as_secs_f64());
                    }
                }
            }
            turn += 1;
        }
        let rate = |took: Vec<f64>| {
            let middle = Spread::of(took).map_or(f64::INFINITY, |spread| spread.median);
            SealedChain::BURST as f64 / middle
        };
        let [full, header, aead_full, aead_header, portable] = took.map(rate);
        Ok(Self { switch: [full, header], aead: [aead_full, aead_header], portable })
    }
}
