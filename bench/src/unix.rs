//! A process on a slot over a unix socket: trains in the second message form (wire.md 8.3),
//! compared with the first form and 32 packets in each system call of the process (T10). Process
//! and port share one core, and every packet goes to the port and back.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port as _};
use strowger_io::unix::{
    Client, ClientError, SwitchFacts, TrainClient, UnixPort, UnixSpec,
    limits::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX},
};

use crate::{Bench, Failure, Options, Row, machine::on_core, spread::Spread};

/// Packets in one system call of a process that uses the first form.
const BATCH: usize = 32;
/// The mark of the port's only neighbour.
const MARK: Mark = Mark(1);
/// The maximum time for the packets of one batch to return.
const ROUND_MAX: Duration = Duration::from_secs(10);

/// Measures both forms at each packet size.
pub(crate) fn rows(
    options: &Options,
    each: &mut dyn FnMut(Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for &size in &options.sizes {
        let window = options.window();
        let pairs: Result<Vec<(f64, f64)>, Failure> = on_core(options.cores.forwarder, || {
            (0..options.pairs)
                .map(|_| Ok((trains(size, window)?, singles(size, window)?)))
                .collect()
        });
        let pairs = pairs?;
        let mut row = Row::new(Bench::Unix, size, true, options.pairs);
        row.ours = "trains";
        row.peer = Some("sendmmsg_32");
        row.ours_rate = Spread::of(pairs.iter().map(|&(ours, _)| ours));
        row.peer_rate = Spread::of(pairs.iter().map(|&(_, peer)| peer));
        row.ratio = Spread::of(pairs.iter().map(|&(ours, peer)| ours / peer));
        each(row)?;
    }
    Ok(())
}

/// A port that sends every packet back, and its socket file.
struct Echo {
    port: UnixPort,
    pool: Pool,
    at: PathBuf,
}

impl Echo {
    fn new(size: usize) -> Result<Self, Failure> {
        let at = std::env::temp_dir().join(format!("strowger-bench-{}.sock", std::process::id()));
        let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
        let spec = UnixSpec { frame_bytes_max: size.max(2048), ..UnixSpec::default() };
        let mut port = UnixPort::listen(&at, &spec).map_err(|error| refused(&error))?;
        port.admit(MARK, Address::Only).map_err(|_| Failure::Bug("the port has no neighbour"))?;
        port.set_facts(Arc::new(SwitchFacts::new([0; 32])));
        let pool = PoolSpec { trains: 256, singles: 256, huge_pages: false };
        let pool = Pool::new(&pool).map_err(|error| refused(&error))?;
        Ok(Self { port, pool, at })
    }

    fn turn(&mut self) {
        let mut burst = Burst::new();
        self.port.rx_burst(&mut self.pool, &mut burst);
        self.port.tx_burst(MARK, &mut burst);
        self.port.flush();
        self.pool.reclaim();
    }
}

fn client(error: ClientError) -> Failure {
    Failure::Refused(error.to_string())
}

/// Packets per second, there and back, in trains.
fn trains(size: usize, window: Duration) -> Result<f64, Failure> {
    let mut echo = Echo::new(size)?;
    let mut process = TrainClient::connect(&echo.at, Duration::ZERO).map_err(client)?;
    let deadline = Instant::now() + ROUND_MAX;
    while process.greeting().is_none() {
        echo.turn();
        process.try_receive(&mut []).map_err(client)?;
        late(deadline)?;
    }
    let packets = vec![1; size * TRAIN_PACKETS_MAX.min(TRAIN_BYTES_MAX / size)];
    let mut buffer = vec![0; TRAIN_BYTES_MAX];
    rate(window, packets.len() / size, || {
        let deadline = Instant::now() + ROUND_MAX;
        let (mut sent, mut back) = (0, 0);
        while back < packets.len() {
            sent += process.try_send(&packets[sent..], size).map_err(client)?;
            echo.turn();
            while let Some(train) = process.try_receive(&mut buffer).map_err(client)? {
                back += train.len;
            }
            late(deadline)?;
        }
        Ok(())
    })
}

/// Packets per second, there and back, one in each message.
fn singles(size: usize, window: Duration) -> Result<f64, Failure> {
    let mut echo = Echo::new(size)?;
    let process = Client::connect(&echo.at).map_err(client)?;
    let fd = process.as_raw_fd();
    // Four bytes for the slot number, then the packet.
    let message = vec![0; 4 + size];
    let mut buffers = vec![vec![0; 4 + size]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let flags = MsgFlags::MSG_DONTWAIT;
    rate(window, BATCH, || {
        let deadline = Instant::now() + ROUND_MAX;
        let (mut sent, mut back) = (0, 0);
        while back < BATCH {
            if sent < BATCH {
                let messages = vec![[IoSlice::new(&message)]; BATCH - sent];
                let nowhere = [None; BATCH];
                let nowhere = &nowhere[..messages.len()];
                if let Ok(results) = sendmmsg(fd, &mut headers, &messages, nowhere, [], flags) {
                    sent += results.count();
                }
            }
            echo.turn();
            let mut vectors: Vec<_> =
                buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            if let Ok(got) = recvmmsg(fd, &mut headers, vectors.iter_mut(), flags, None) {
                back += got.count();
            }
            late(deadline)?;
        }
        Ok(())
    })
}

fn late(deadline: Instant) -> Result<(), Failure> {
    match Instant::now() > deadline {
        true => Err(Failure::Wrong("packets over a unix socket did not come back".to_owned())),
        false => Ok(()),
    }
}

/// Runs rounds of `packets` for the length of `window`, after a tenth of it to warm up.
fn rate(
    window: Duration,
    packets: usize,
    mut round: impl FnMut() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let started = Instant::now();
    while started.elapsed() < window / 10 {
        round()?;
    }
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < window || rounds == 0 {
        round()?;
        rounds += 1;
    }
    Ok((rounds * packets) as f64 / started.elapsed().as_secs_f64())
}
