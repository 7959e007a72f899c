//! Forwards Ethernet frames between two veth pairs on one core, and prints the number of frames per
//! second of processor time. It makes and removes its own network namespaces, which requires
//! privileges.
//!
//! Usage: `xdp_reflect <xdp_copy|xdp_generic|af_packet> <bytes> <seconds>
//! [forward|trains|trains-copied]`. With `trains` it sends frames that are contiguous in one chunk,
//! like frames received over UDP. With `trains-copied` it sends the same frames without
//! multi-buffer, so that most are copied.

#[path = "../tests/ports/veth.rs"]
mod veth;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, Port};
use strowger_io::{
    sys::cores,
    xdp::{Arena, EtherPort, RxMode, XdpSpec},
};
use veth::{Namespace, Station, Veth, opened, pool_of, spec};

const FILL_RING_FRAMES: u32 = 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize, other: &str| words.get(at).map_or(other.to_owned(), Clone::clone);
    let name = word(0, "xdp_copy");
    let mode = RxMode::ALL.into_iter().find(|mode| mode.name() == name).ok_or("no such mode")?;
    // Length of the packet: the frame without the 16 bytes of our header.
    let len = word(1, "64").parse::<usize>()? - 16;
    let time = Duration::from_secs_f64(word(2, "2").parse()?);
    let test = word(3, "forward");
    let (left, right) = (Veth::new()?, Veth::new()?);
    let mut sink = station(
        &right.b,
        &XdpSpec { fill_ring_frames: FILL_RING_FRAMES, ..spec("b0", RxMode::Copy) },
    )?;
    let mut pool = pool_of(256, 4000);
    let mut arena = Arena::of(&pool);
    let wide = |interface| XdpSpec { fill_ring_frames: FILL_RING_FRAMES, ..spec(interface, mode) };
    let out = XdpSpec { multi_buffer: test != "trains-copied", ..wide("a0") };
    let mut far = opened(&right.a, &out, &mut arena, &mut pool)?;
    far.port.admit(Mark(0), sink.at)?;
    sink.port.admit(Mark(0), Address::Ether(far.report.mac))?;
    let ended = AtomicBool::new(false);
    if test != "forward" {
        let sent = std::thread::scope(|scope| {
            scope.spawn(|| take_all(&mut sink, &ended));
            let _ = cores::pin_to_core(2);
            let rate = send_trains(&mut far.port, &mut pool, len, time);
            ended.store(true, Ordering::Relaxed);
            rate
        });
        let copied = far.port.tally().frames_copied.read();
        let received = sink.tally().frames_in.read();
        println!(
            "{name} {test} {} bytes: {sent:.3} Mpps ({received} received, {copied} copied)",
            len + 16
        );
        return Ok(());
    }
    let mut source = station(
        &left.b,
        &XdpSpec { fill_ring_frames: FILL_RING_FRAMES, ..spec("b0", RxMode::Copy) },
    )?;
    let mut near = opened(&left.a, &wide("a0"), &mut arena, &mut pool)?;
    near.port.admit(Mark(0), source.at)?;
    source.port.admit(Mark(0), Address::Ether(near.report.mac))?;
    let rate = std::thread::scope(|scope| {
        scope.spawn(|| take_all(&mut sink, &ended));
        scope.spawn(|| send_all(&mut source, len, &ended));
        let _ = cores::pin_to_core(2);
        let rate = forward(&mut near.port, &mut far.port, &mut pool, time);
        ended.store(true, Ordering::Relaxed);
        rate
    });
    println!("{name} {test} {} bytes: {rate:.3} Mpps", len + 16);
    eprintln!("near {:?}\nfar {:?}\nsink {:?}", near.port.tally(), far.port.tally(), sink.tally());
    Ok(())
}

fn station(
    namespace: &Namespace,
    spec: &XdpSpec,
) -> Result<Station, strowger_io::xdp::EtherOpenError> {
    let mut pool = pool_of(16, 4000);
    let mut arena = Arena::of(&pool);
    let opened = opened(namespace, spec, &mut arena, &mut pool)?;
    let (port, at) = (opened.port, Address::Ether(opened.report.mac));
    Ok(Station { pool, arena, port, at })
}

fn take_all(sink: &mut Station, ended: &AtomicBool) {
    let _ = cores::pin_to_core(3);
    while !ended.load(Ordering::Relaxed) {
        sink.port.rx_burst(&mut sink.pool, &mut Burst::new());
    }
}

fn send_all(source: &mut Station, len: usize, ended: &AtomicBool) {
    let _ = cores::pin_to_core(1);
    while !ended.load(Ordering::Relaxed) {
        let mut burst = Burst::new();
        while !burst.is_full() {
            let Some(chunk) = source.pool.take(ChunkClass::Single) else { break };
            burst.push(chunk.into_frame(256, len));
        }
        source.port.tx_burst(Mark(0), &mut burst);
        source.port.flush();
    }
}

/// Processor time that this thread has used. Unlike elapsed time, it is valid on a busy machine
/// too.
fn cpu_seconds() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable and outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn forward(near: &mut EtherPort, far: &mut EtherPort, pool: &mut Pool, time: Duration) -> f64 {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    while started.elapsed() < time {
        for _ in 0..64 {
            let mut burst = Burst::new();
            near.rx_burst(pool, &mut burst);
            far.tx_burst(Mark(0), &mut burst);
            far.flush();
        }
    }
    far.tally().frames_out.read() as f64 / (cpu_seconds() - cpu) / 1e6
}

fn send_trains(far: &mut EtherPort, pool: &mut Pool, len: usize, time: Duration) -> f64 {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    while started.elapsed() < time {
        let Some(chunk) = pool.take(ChunkClass::Train) else {
            far.flush();
            continue;
        };
        let start = chunk.start();
        let mut train = chunk.into_train(start, len * 40, len);
        let mut burst: Burst = std::iter::from_fn(|| train.next_frame()).collect();
        drop(train);
        while !burst.is_empty() {
            far.tx_burst(Mark(0), &mut burst);
            far.flush();
        }
    }
    far.tally().frames_out.read() as f64 / (cpu_seconds() - cpu) / 1e6
}
