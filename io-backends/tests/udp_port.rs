//! UDP ports over loopback, both backends: trains, order, strangers, sizes, wake-ups, memory. The
//! tests never sleep: they poll with a deadline.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::RawFd,
    time::{Duration, Instant},
};

use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Loss, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, Arm},
};
use strowger_io::udp::{Backend, Choice, OpenError, Opened, UdpPort, UdpSpec, open, probe};

const DEADLINE: Duration = Duration::from_secs(10);

fn pool(trains: u32) -> Pool {
    Pool::new(&PoolSpec { trains, singles: 256, huge_pages: false }).expect("memory")
}

fn v4() -> UdpSpec {
    UdpSpec { neighbours_max: 64, ..UdpSpec::new("127.0.0.1:0".parse().unwrap()) }
}

fn v6() -> UdpSpec {
    UdpSpec { bind: "[::1]:0".parse().unwrap(), ..v4() }
}

/// Runs `test` with each backend that this machine has, and with recvmmsg in any case.
fn with_each_backend(spec: UdpSpec, test: impl Fn(&UdpSpec)) {
    for backend in [Choice::Mmsg, Choice::IoUring] {
        let spec = UdpSpec { backend, ..spec.clone() };
        match open(&spec, 0) {
            Ok(_) => test(&spec),
            Err(OpenError::NoRing(why)) => eprintln!("SKIPPED with io_uring: {why}"),
            Err(OpenError::NotHere { at, .. }) => eprintln!("SKIPPED: no {at} here"),
            Err(why) => panic!("{why}"),
        }
    }
}

fn opened(spec: &UdpSpec) -> Opened {
    open(spec, 0).expect("opened a moment ago")
}

/// Two ports that know each other as mark 0.
fn pair(spec: &UdpSpec) -> (UdpPort, UdpPort) {
    let (a, b) = (opened(spec), opened(spec));
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    let (mut a, mut b) = (a.port, b.port);
    a.admit(Mark(0), Address::Udp(at_b)).unwrap();
    b.admit(Mark(0), Address::Udp(at_a)).unwrap();
    (a, b)
}

fn frame(pool: &mut Pool, len: usize, fill: u8) -> Frame {
    let chunk = pool.take(ChunkClass::Train).expect("a free chunk");
    let start = chunk.start();
    let mut frame = chunk.into_frame(start, len);
    frame.bytes_mut().fill(fill);
    frame
}

/// `count` frames of `len` bytes side by side in one chunk, each filled with its number.
fn train(pool: &mut Pool, len: usize, count: usize) -> Burst {
    let chunk = pool.take(ChunkClass::Train).expect("a free chunk");
    let start = chunk.start();
    let mut train = chunk.into_train(start, len * count, len);
    std::iter::from_fn(|| train.next_frame())
        .enumerate()
        .map(|(n, mut frame)| {
            frame.bytes_mut().fill(n as u8);
            frame
        })
        .collect()
}

fn wait_readable(fd: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which lives through the call.
    unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) == 1 }
}

/// Blocks as a worker would, until the port may have something.
fn wait(port: &mut UdpPort) {
    if let Arm::Wait(fd) = port.arm() {
        assert!(wait_readable(fd, DEADLINE), "{} was not woken", port.describe());
    }
    port.disarm();
}

/// Receives until `done` is content with the frames so far.
fn receive_until(
    port: &mut UdpPort,
    pool: &mut Pool,
    mut done: impl FnMut(&[Frame], &UdpPort) -> bool,
) -> Vec<Frame> {
    let deadline = Instant::now() + DEADLINE;
    let mut frames = Vec::new();
    loop {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        let idle = burst.is_empty();
        frames.extend(burst);
        if done(&frames, port) {
            return frames;
        }
        assert!(Instant::now() < deadline, "{} frames so far: {:?}", frames.len(), port.tally());
        if idle {
            wait(port);
        }
    }
}

fn receive(port: &mut UdpPort, pool: &mut Pool, count: usize) -> Vec<Frame> {
    receive_until(port, pool, |frames, _| frames.len() >= count)
}

fn send(port: &mut UdpPort, to: Mark, frames: &mut Burst) {
    port.tx_burst(to, frames);
    port.flush();
}

#[test]
fn a_frame_goes_there_and_back() {
    for spec in [v4(), v6()] {
        with_each_backend(spec, |spec| {
            let mut pool = pool(64);
            let (mut a, mut b) = pair(spec);
            let mut burst: Burst = [frame(&mut pool, 5, 0xaa)].into_iter().collect();
            send(&mut a, Mark(0), &mut burst);
            assert!(burst.is_empty() && a.is_flushed());
            let mut got = receive(&mut b, &mut pool, 1);
            assert_eq!((got[0].bytes(), got[0].mark()), (&[0xaa; 5][..], Mark(0)));
            let mut burst: Burst = got.drain(..).collect();
            send(&mut b, Mark(0), &mut burst);
            assert_eq!(receive(&mut a, &mut pool, 1)[0].bytes(), [0xaa; 5]);
            assert_eq!(pool.tally().frames_copied.read(), 0);
        });
    }
}
