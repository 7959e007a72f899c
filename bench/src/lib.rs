//! What Strowger is measured by, and what it is measured against: whole forwarding paths over real
//! UDP sockets in pairs with two plain forwarders, the cost of a step, overload, and memory. A time
//! measured here informs; only instruction counts decide a test.
//!
//! | room | what it holds |
//! |---|---|
//! | [`relay`] | ours under test |
//! | [`peers`] | the two forwarders it is measured against |
//! | [`traffic`] | sources and sinks, which are never what is measured |
//! | [`trial`] | one run of one forwarder |
//! | `udp`, `overload`, `footprint`, `memory`, `sealed`, `handshakes`, `flood`, `isolation`, `xdp` | the benches of [`What`] |
//! | [`chain`], [`sealed_chain`] | three switches in a row, without a kernel |
//! | `sealed_relay`, `sealed_udp` | ours between sealed links over UDP, and the traffic for it |
//! | [`instructions`] | counted, not timed |
//! | [`packet`], `sockets`, [`machine`] | what all of them need |
//! | [`row`], [`spread`] | what is said of it |
//!
//! ```no_run
//! use strowger_bench::{Options, What};
//!
//! let options = Options { what: vec![What::Memory], ..Options::new()? };
//! strowger_bench::run(&options, &mut std::io::stdout())?;
//! # Ok::<(), strowger_bench::Failure>(())
//! ```

pub mod chain;
mod failure;
mod flood;
mod footprint;
mod handshakes;
pub mod instructions;
mod isolation;
pub mod machine;
mod memory;
mod overload;
pub mod packet;
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
#[cfg(feature = "wireguard")]
mod wireguard;
mod xdp;

use std::{fmt, io::Write, str::FromStr, time::Duration};

use serde::Serialize;
use strowger_io::udp::Choice;

pub use crate::{failure::Failure, isolation::Isolation, row::Row, spread::Spread};
use crate::{
    machine::{Cores, Machine},
    packet::{PACKET_BYTES_MAX, PACKET_BYTES_MIN},
    row::TABLE_HEAD,
};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Peak memory of a relay with a thousand neighbours.
    Footprint,
    /// Three switches in a row by memory wires: what a step costs.
    Memory,
    /// Ours against the peers over UDP.
    Udp,
    /// Ours with io_uring against ours with recvmmsg.
    Backends,
    /// What is left of the best rate when far more is offered.
    Overload,
    /// Sealed links against the cipher alone, header-only against full, and against a WireGuard.
    Sealed,
    /// Handshakes against the curve operations that they cannot do without.
    Handshakes,
    /// Data through a sealed relay under a flood of handshakes, against the same without (R9).
    Flood,
    /// What is left to an innocent pair while a neighbour, client or path misbehaves (R23).
    Isolation,
    /// Ours over Ethernet against DPDK's testpmd, packet sockets, the kernel's bridge and XDP.
    Xdp,
}

impl What {
    /// All of them, in the order in which they are measured: memory before anything has used any.
    pub const ALL: [Self; 10] = [
        Self::Footprint,
        Self::Memory,
        Self::Udp,
        Self::Backends,
        Self::Overload,
        Self::Sealed,
        Self::Handshakes,
        Self::Flood,
        Self::Isolation,
        Self::Xdp,
    ];

    /// Its name on the command line and in JSON.
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
            Self::Xdp => "xdp",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for What {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|what| what.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no bench `{name}`; there are: {names}")
        })
    }
}

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which benches; they run in the order of [`What::ALL`], each once.
    pub what: Vec<What>,
    /// How often each is measured: pairs in turn, where there is a peer.
    pub pairs: usize,
    /// How long each run's window is, in seconds.
    pub seconds_per_run: f64,
    /// Bytes of the packets.
    pub sizes: Vec<usize>,
    /// Over UDP: with trains, without, or both.
    pub trains: Vec<bool>,
    /// How ours receives over UDP, but for the bench that compares both ways.
    pub backend: Choice,
    /// JSON, one object a line, and not a table.
    pub json: bool,
    /// Who runs where.
    pub cores: Cores,
}

impl Options {
    /// Everything, as the targets are stated: 64, 512 and 1400 bytes, five pairs of half a second.
    ///
    /// # Errors
    /// [`Failure::Options`], if there is no core to run on.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self {
            what: What::ALL.to_vec(),
            pairs: 5,
            seconds_per_run: 0.5,
            sizes: vec![64, 512, 1400],
            trains: vec![true, false],
            backend: Choice::Auto,
            json: false,
            cores: Cores::usable()?,
        })
    }

    /// As small as can be, to see that everything works: the figures mean nothing.
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
            return refuse("at least one pair must be measured".to_owned());
        }
        if !(0.001..=3_600.0).contains(&self.seconds_per_run) {
            return refuse("a run takes 0.001 to 3600 seconds".to_owned());
        }
        let fits = |size: &&usize| !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(*size);
        if let Some(size) = self.sizes.iter().find(fits) {
            return refuse(format!(
                "{size} bytes: packets are {PACKET_BYTES_MIN} to {PACKET_BYTES_MAX} bytes long"
            ));
        }
        if self.sizes.is_empty() {
            return refuse("no packet size was named".to_owned());
        }
        Ok(())
    }
}

/// Measures, and writes each row as soon as it is there: JSON lines, or a table.
///
/// # Errors
/// The first thing that could not be measured; rows before it have been written.
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

/// Measures, and gives all rows at the end.
///
/// # Errors
/// The first thing that could not be measured.
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
    for what in What::ALL.into_iter().filter(|what| options.what.contains(what)) {
        match what {
            What::Footprint => footprint::rows(options, each)?,
            What::Memory => memory::rows(options, each)?,
            What::Udp => udp::rows(options, each)?,
            What::Backends => udp::backend_rows(options, each)?,
            What::Overload => overload::rows(options, each)?,
            What::Sealed => sealed::rows(options, each)?,
            What::Handshakes => handshakes::rows(options, each)?,
            What::Flood => flood::rows(options, each)?,
            What::Isolation => isolation::rows(options, each)?,
            What::Xdp => xdp::rows(options, each)?,
        }
    }
    Ok(())
}
