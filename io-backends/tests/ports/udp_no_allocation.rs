//! R13 for UDP ports: after they have been opened, forwarding does not allocate.

use std::time::{Duration, Instant};

use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port, alloc, port::Arm};
use strowger_io::udp::{BackendChoice, UdpOpenError, UdpPort, UdpSpec, open};

const FRAMES: u64 = 200_000;

fn pair(spec: &UdpSpec) -> Result<(UdpPort, UdpPort), UdpOpenError> {
    let (a, b) = (open(spec, 0)?, open(spec, 1)?);
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    let (mut a, mut b) = (a.port, b.port);
    a.admit(Mark(0), Address::Udp(at_b)).unwrap();
    b.admit(Mark(0), Address::Udp(at_a)).unwrap();
    Ok((a, b))
}

/// Fills a burst with the frames of a train, separate frames and an empty frame.
fn fill(pool: &mut Pool, burst: &mut Burst) {
    let Some(chunk) = pool.take(ChunkClass::Train) else { return };
    let start = chunk.start();
    let mut train = chunk.into_train(start, 3000, 100);
    burst.extend(std::iter::from_fn(|| train.next_frame()));
    for len in [0, 1, 1, 700] {
        let Some(chunk) = pool.take(ChunkClass::Single) else { return };
        burst.push(chunk.into_frame(256, len));
    }
}

fn poll(port: &mut UdpPort) {
    if let Arm::Wait(fd) = port.arm() {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: the call accesses one pollfd, which outlives it.
        unsafe { libc::poll(&mut poll, 1, 1) };
    }
    port.disarm();
}

#[test]
fn r13_a_udp_port_allocates_nothing_after_it_is_open() {
    assert!(alloc::installed());
    for backend in [BackendChoice::Mmsg, BackendChoice::IoUring] {
        let bind = "127.0.0.1:0".parse().unwrap();
        let spec = UdpSpec { backend, neighbours_max: 100, ..UdpSpec::new(bind) };
        let (mut a, mut b) = match pair(&spec) {
            Ok(pair) => pair,
            Err(why) => {
                strowger_testkit::skip_case(&format!("{backend:?}"), &why.to_string());
                continue;
            }
        };
        let pool_spec = PoolSpec { trains: 400, singles: 400, huge_pages: false };
        let mut pool = Pool::new(&pool_spec).unwrap();
        let others: Vec<Address> =
            (1..99).map(|n| Address::Udp(([127, 0, 0, 1], 20_000 + n).into())).collect();

        let guard = alloc::forbid();
        let mut burst = Burst::new();
        let (mut generation, mut rounds) = (0_u16, 0_u32);
        let deadline = Instant::now() + Duration::from_secs(60);
        while b.tally().frames_out.read() < FRAMES && Instant::now() < deadline {
            // In the meantime, neighbours are admitted and forgotten.
            let mark = Mark::new(1 + generation % 99, generation);
            let _ = a.admit(mark, others[usize::from(generation) % others.len()]);
            a.forget(mark);
            generation = generation.wrapping_add(1);

            fill(&mut pool, &mut burst);
            a.tx_burst(Mark(0), &mut burst);
            burst.clear();
            a.flush();
            b.rx_burst(&mut pool, &mut burst);
            b.tx_burst(Mark(0), &mut burst);
            burst.clear();
            b.flush();
            a.rx_burst(&mut pool, &mut burst);
            burst.clear();
            pool.reclaim();
            rounds += 1;
            if rounds.is_multiple_of(64) {
                poll(&mut b);
            }
        }
        assert_eq!(guard.calls(), 0);
        drop(guard);
        assert!(b.tally().frames_out.read() >= FRAMES, "{:?}", b.tally());
        assert_eq!(pool.tally().frames_copied.read(), 0);
        drop((a, b));
        assert_eq!(pool.free(ChunkClass::Train), 400);
    }
}
