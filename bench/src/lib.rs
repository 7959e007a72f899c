//! Benchmarks of Strowger: forwarding over real UDP sockets compared with two plain forwarders, the
//! cost of a step, overload, memory, sealed links, handshakes, isolation, Ethernet. Times are only
//! information: tests check instruction counts and packet counts, but no times.
//!
//! | module | content |
//! |---|---|
//! | [`relay`] | Strowger under test |
//! | [`peers`] | two plain forwarders for comparison |
//! | [`traffic`] | sources and sinks |
//! | [`trial`] | one trial of one forwarder |
//! | `udp`, `overload`, `footprint`, `memory`, `sealed`, `handshakes`, `flood`, `isolation`, `connections`, `unix`, `xdp` | the benchmarks of [`Bench`] |
//! | [`chain`], [`sealed_chain`] | three switches in a row, without a kernel |
//! | `sealed_relay`, `sealed_udp` | Strowger between sealed links over UDP, and the traffic for it |
//! | [`instructions`] | instruction counts |
//! | [`packet`], `sockets`, [`machine`] | packets, sockets, cores |
//! | [`row`], [`spread`] | results |
//!
//! ```no_run
//! use strowger_bench::{Options, Bench};
//!
//! let options = Options { benches: vec![Bench::Memory], ..Options::new()? };
//! strowger_bench::run(&options, &mut std::io::stdout())?;
//! # Ok::<(), strowger_bench::Failure>(())
//! ```

mod connections;
mod flood;
mod footprint;
mod handshakes;
pub mod instructions;
mod isolation;
pub mod machine;
mod memory;
mod overload;
pub mod peers;
pub mod relay;
pub mod row;
mod sealed;
pub mod sealed_chain;
mod sealed_relay;
mod sealed_udp;
mod sockets;
pub mod spread;
pub mod traffic;
pub mod trial;
mod udp;
mod unix;
#[cfg(feature = "wireguard")]
mod wireguard;
mod xdp;

use std::{fmt, io::Write, str::FromStr, time::Duration};

use serde::Serialize;
use strowger_io::udp::BackendChoice;

pub use strowger_bench_chain::{Failure, chain, packet};

pub use crate::{isolation::Isolation, row::Row, spread::Spread};
use crate::{
    machine::{Cores, Machine},
    packet::{PACKET_BYTES_MAX, PACKET_BYTES_MIN},
    row::TABLE_HEAD,
};

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bench {
    /// Peak memory of a relay with a thousand neighbours.
    Footprint,
    /// Three switches in a row over memory wires: the cost of a step.
    Memory,
    /// Strowger compared with plain forwarders over UDP.
    Udp,
    /// Strowger with io_uring compared with Strowger with recvmmsg.
    Backends,
    /// The rate under overload, compared with the best rate.
    Overload,
    /// Sealed links compared with the cipher alone and with WireGuard; header-only compared with
    /// full.
    Sealed,
    /// Handshakes compared with the curve operations that they need.
    Handshakes,
    /// Data through a sealed relay under a flood of handshakes, compared with the same without a
    /// flood (R9).
    Flood,
    /// The part of an innocent pair's traffic that is delivered while a neighbour, client or path
    /// misbehaves (R23).
    Isolation,
    /// End-to-end connections compared with the cipher alone, with few connections, and with the
    /// same path without connections.
    Connections,
    /// Trains over a unix socket compared with one packet in each message.
    Unix,
    /// Strowger over Ethernet compared with DPDK's testpmd, packet sockets, the kernel's bridge and
    /// XDP.
    Xdp,
}

impl Bench {
    /// All benchmarks in the order in which they run: footprint first, before others use memory.
    pub const ALL: [Self; 12] = [
        Self::Footprint,
        Self::Memory,
        Self::Udp,
        Self::Backends,
        Self::Overload,
        Self::Sealed,
        Self::Handshakes,
        Self::Flood,
        Self::Isolation,
        Self::Connections,
        Self::Unix,
        Self::Xdp,
    ];

    /// The name of the benchmark on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Footprint => "footprint",
            Self::Memory => "memory",
            Self::Udp => "udp",
            Self::Backends => "backends",
            Self::Overload => "overload",
            Self::Sealed => "sealed",
            Self::Handshakes => "handshakes",
            Self::Flood => "flood",
            Self::Isolation => "isolation",
            Self::Connections => "connections",
            Self::Unix => "unix",
            Self::Xdp => "xdp",
        }
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Bench {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|what| what.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no benchmark `{name}`; choose from: {names}")
        })
    }
}

/// The benchmarks to run, and their parameters.
#[derive(Clone, Debug)]
pub struct Options {
    /// The benchmarks; they run in the order of [`Bench::ALL`], each once.
    pub benches: Vec<Bench>,
    /// The number of measurements of each benchmark. If the benchmark has a peer, each measurement
    /// is a pair of runs.
    pub pairs: usize,
    /// The length of each run's window, in seconds.
    pub seconds_per_run: f64,
    /// Packet sizes in bytes.
    pub sizes: Vec<usize>,
    /// Whether the benchmarks over UDP measure with trains (`true`), without (`false`), or both.
    pub trains: Vec<bool>,
    /// The receive backend of Strowger over UDP. The benchmark that compares both backends ignores
    /// this option.
    pub backend: BackendChoice,
    /// Whether to write one JSON object per row instead of a table.
    pub json: bool,
    /// The assignment of cores to threads.
    pub cores: Cores,
}

impl Options {
    /// All benchmarks with the parameters of the performance targets: 64, 512 and 1400 bytes, five
    /// pairs of half a second.
    ///
    /// # Errors
    /// [`Failure::Options`] if there is no usable core.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self {
            benches: Bench::ALL.to_vec(),
            pairs: 5,
            seconds_per_run: 0.5,
            sizes: vec![64, 512, 1400],
            trains: vec![true, false],
            backend: BackendChoice::Auto,
            json: false,
            cores: Cores::usable()?,
        })
    }

    /// Options for the smallest possible runs, which check that everything works. Their figures are
    /// meaningless.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn small() -> Result<Self, Failure> {
        Ok(Self { pairs: 1, seconds_per_run: 0.02, sizes: vec![64], ..Self::new()? })
    }

    fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds_per_run)
    }

    fn check(&self) -> Result<(), Failure> {
        let refuse = |why: String| Err(Failure::Options(why));
        if self.pairs == 0 {
            return refuse("pairs: at least one is needed".to_owned());
        }
        if !(0.001..=3_600.0).contains(&self.seconds_per_run) {
            return refuse("seconds: a run takes 0.001 to 3600".to_owned());
        }
        let fits = |size: &&usize| !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(*size);
        if let Some(size) = self.sizes.iter().find(fits) {
            return refuse(format!(
                "{size} bytes: packets are {PACKET_BYTES_MIN} to {PACKET_BYTES_MAX} bytes long"
            ));
        }
        if self.sizes.is_empty() {
            return refuse("sizes: at least one packet size is needed".to_owned());
        }
        Ok(())
    }
}

/// Runs the benchmarks, and writes each row as soon as it is complete: JSON lines, or a table.
///
/// # Errors
/// The first failure; earlier rows have been written.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let write = Failure::kernel("writing a row");
    options.check()?;
    if !options.json {
        writeln!(out, "{}\n{TABLE_HEAD}", Machine::here()).map_err(&write)?;
    }
    measure(options, &mut |row| {
        let text = if options.json { row.to_json() } else { row.to_string() };
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(&write)
    })
}

/// Runs the benchmarks, and returns all rows at the end.
///
/// # Errors
/// The first failure.
pub fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    options.check()?;
    measure(options, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn measure(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for bench in Bench::ALL.into_iter().filter(|bench| options.benches.contains(bench)) {
        match bench {
            Bench::Footprint => footprint::rows(options, each)?,
            Bench::Memory => memory::rows(options, each)?,
            Bench::Udp => udp::rows(options, each)?,
            Bench::Backends => udp::backend_rows(options, each)?,
            Bench::Overload => overload::rows(options, each)?,
            Bench::Sealed => sealed::rows(options, each)?,
            Bench::Handshakes => handshakes::rows(options, each)?,
            Bench::Flood => flood::rows(options, each)?,
            Bench::Isolation => isolation::rows(options, each)?,
            Bench::Connections => connections::rows(options, each)?,
            Bench::Unix => unix::rows(options, each)?,
            Bench::Xdp => xdp::rows(options, each)?,
        }
    }
    Ok(())
}
