//! Tests of UDP ports over loopback, with both backends: trains, order, unknown senders, sizes,
//! wake-ups, memory. No test sleeps; each polls with a deadline.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use strowger_frame::{
    Address, Burst, ChunkClass, Frame, Loss, Mark, Pool, PoolSpec, Port,
    port::{AdmitError, Arm},
};
use strowger_io::{
    sys::Errno,
    udp::{Backend, BackendChoice, OpenedUdpPort, UdpOpenError, UdpPort, UdpSpec, open, probe},
};
use strowger_testkit::{skip, skip_case, unsupported};

const DEADLINE: Duration = Duration::from_secs(90);

fn pool(trains: u32) -> Pool {
    Pool::new(&PoolSpec { trains, singles: 256, huge_pages: false }).expect("memory")
}

fn v4() -> UdpSpec {
    UdpSpec { neighbours_max: 64, ..UdpSpec::new("127.0.0.1:0".parse().unwrap()) }
}

fn v6() -> UdpSpec {
    UdpSpec { bind: "[::1]:0".parse().unwrap(), ..v4() }
}

/// Runs `test` with each backend that works here: io_uring with each set of flags that this kernel
/// or an older one supports, and recvmmsg.
fn with_each_backend(spec: UdpSpec, test: impl Fn(&UdpSpec)) {
    let rings = (0..3).map(|mode| (BackendChoice::IoUring, mode));
    for (backend, ring_mode_first) in std::iter::once((BackendChoice::Mmsg, 0)).chain(rings) {
        let spec = UdpSpec { backend, ring_mode_first, ..spec.clone() };
        match open(&spec, 0) {
            Ok(_) => test(&spec),
            Err(UdpOpenError::NoRing(why)) => skip_case("io_uring", &why.to_string()),
            Err(UdpOpenError::NotLocal { at }) => {
                skip_case(&at.to_string(), "no such address here")
            }
            Err(why) => panic!("{why}"),
        }
    }
}

fn opened(spec: &UdpSpec) -> OpenedUdpPort {
    open(spec, 0).expect("opened a moment ago")
}

/// Makes two ports that have admitted each other with mark 0.
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

/// Makes `count` frames of `len` bytes, contiguous in one chunk. Each is filled with its number.
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
    // SAFETY: the call accesses one pollfd, which outlives it.
    unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) == 1 }
}

/// Blocks as a worker does, until the port may have received something.
fn wait(port: &mut UdpPort) {
    if let Arm::Wait(fd) = port.arm() {
        assert!(wait_readable(fd, DEADLINE), "{} was not woken", port.describe());
    }
    port.disarm();
}

/// Receives until `done` returns true for all frames received so far.
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

/// wire.md: W8-6.
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

#[test]
fn equal_frames_leave_as_one_message_and_arrive_as_one_train() {
    for spec in [v4(), v6()] {
        with_each_backend(spec, |spec| {
            let mut pool = pool(160);
            let opened_a = opened(spec);
            let Ok(segments_max) = opened_a.report.gso.clone() else {
                return skip_case("GSO", &format!("{:?}", opened_a.report.gso));
            };
            let (mut a, mut b) = pair(spec);
            // Three bursts in one round: frames of different bursts join one train, up to the
            // limit.
            for _ in 0..3 {
                let mut burst = train(&mut pool, 100, 64);
                a.tx_burst(Mark(0), &mut burst);
                assert!(burst.is_empty());
            }
            a.flush();
            let messages = 192_usize.div_ceil(segments_max.min(655)) as u64;
            assert_eq!(a.tally().trains_out.read(), messages);
            assert_eq!(a.tally().frames_out.read(), 192);
            assert_eq!(a.tally().bytes_out.read(), 19_200);
            let frames = receive(&mut b, &mut pool, 192);
            for (n, frame) in frames.iter().enumerate() {
                assert_eq!(frame.bytes(), [(n % 64) as u8; 100]);
            }
            assert_eq!(b.tally().frames_in.read(), 192);
            assert_eq!(b.tally().trains_in.read(), messages, "one receive a train");
        });
    }
}

#[test]
fn frames_in_separate_memory_form_one_train() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(160);
        let (mut a, mut b) = pair(spec);
        let mut burst: Burst = (0..20).map(|n| frame(&mut pool, 64, n)).collect();
        send(&mut a, Mark(0), &mut burst);
        assert_eq!(a.tally().trains_out.read(), 1);
        for (n, frame) in receive(&mut b, &mut pool, 20).iter().enumerate() {
            assert_eq!(frame.bytes(), [n as u8; 64]);
        }
    });
}

/// wire.md: W8-3, W8-4.
#[test]
fn mixed_lengths_arrive_in_order() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(400);
        let (mut a, mut b) = pair(spec);
        // The frames are runs of equal length, a shorter frame that ends a train, longer ones that
        // begin one, and empty frames.
        let lens =
            [64, 64, 64, 10, 64, 64, 200, 200, 0, 0, 7, 1, 1400, 1400, 1400, 3, 64, 9000, 9000, 8];
        let lens: Vec<usize> = lens.iter().copied().cycle().take(120).collect();
        for half in lens.chunks(60) {
            let mut burst: Burst =
                half.iter().map(|len| frame(&mut pool, *len, *len as u8)).collect();
            a.tx_burst(Mark(0), &mut burst);
            assert!(burst.is_empty());
            a.flush();
        }
        let frames = receive(&mut b, &mut pool, lens.len());
        let got: Vec<usize> = frames.iter().map(|frame| frame.len()).collect();
        assert_eq!(got, lens);
        assert!(frames.iter().all(|frame| frame.bytes().iter().all(|b| *b == frame.len() as u8)));
        assert_eq!(b.tally().bytes_in.read(), lens.iter().sum::<usize>() as u64);
        assert_eq!(a.tally().frames_out.read(), b.tally().frames_in.read());
    });
}

#[test]
fn the_longest_datagrams_and_empty_ones_pass_and_longer_ones_are_counted() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(64);
        let (mut a, mut b) = pair(spec);
        let mut burst: Burst =
            [65_507, 0, 65_507].into_iter().map(|len| frame(&mut pool, len, 0x55)).collect();
        send(&mut a, Mark(0), &mut burst);
        let frames = receive(&mut b, &mut pool, 3);
        assert_eq!(frames.iter().map(|f| f.len()).collect::<Vec<_>>(), [65_507, 0, 65_507]);
        assert!(frames[0].bytes().iter().all(|byte| *byte == 0x55));
        let mut burst: Burst =
            [65_508, 5].into_iter().map(|len| frame(&mut pool, len, 1)).collect();
        send(&mut a, Mark(0), &mut burst);
        assert_eq!(a.tally().lost(Loss::PathTooNarrow), 1);
        assert_eq!(receive(&mut b, &mut pool, 1)[0].len(), 5);
    });
}

#[test]
fn without_gro_frames_arrive_one_by_one_and_long_ones_are_truncated_and_counted() {
    let spec = UdpSpec { gro: false, frame_bytes_max: 1500, backend: BackendChoice::Mmsg, ..v4() };
    let mut pool = pool(64);
    let (mut a, mut b) = pair(&spec);
    let mut burst = train(&mut pool, 100, 30);
    burst.push(frame(&mut pool, 1501, 1));
    burst.push(frame(&mut pool, 1500, 2));
    send(&mut a, Mark(0), &mut burst);
    let frames = receive_until(&mut b, &mut pool, |_, port| port.tally().frames_in.read() == 32);
    assert_eq!(frames.len(), 31);
    assert_eq!(frames[30].len(), 1500);
    assert_eq!(b.tally().lost(Loss::Truncated), 1);
    assert_eq!(b.tally().trains_in.read(), 32);
}

/// wire.md: W8-11.
#[test]
fn the_ecn_field_of_the_ip_header_is_ignored_on_receipt() {
    for spec in [v4(), v6()] {
        with_each_backend(spec, |spec| {
            let mut one = opened(spec);
            let socket = UdpSocket::bind((spec.bind.ip(), 0)).unwrap();
            one.port.admit(Mark(0), Address::Udp(socket.local_addr().unwrap())).unwrap();
            let (level, option) = if spec.bind.is_ipv4() {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            let congested = 0b11_i32;
            let at = (&raw const congested).cast();
            let len = size_of_val(&congested) as libc::socklen_t;
            // SAFETY: `at` points to `len` bytes that outlive the call.
            let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, at, len) };
            assert_eq!(set, 0);
            let sent = [0x10, 0x08, 9, 0, 0, 4, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
            socket.send_to(&sent, one.local_addr()).unwrap();
            let got = receive(&mut one.port, &mut pool(64), 1);
            assert_eq!(got[0].bytes(), sent);
        });
    }
}

/// wire.md: W8-4.
#[test]
fn without_gso_each_frame_is_a_message() {
    with_each_backend(UdpSpec { gso: false, ..v4() }, |spec| {
        let mut pool = pool(160);
        let (mut a, mut b) = pair(spec);
        let mut burst = train(&mut pool, 100, 30);
        send(&mut a, Mark(0), &mut burst);
        assert_eq!((a.tally().trains_out.read(), a.tally().frames_out.read()), (30, 30));
        assert_eq!(receive(&mut b, &mut pool, 30).len(), 30);
    });
}

/// wire.md: W8-12.
#[test]
fn frames_of_unknown_senders_are_counted_and_not_delivered() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(160);
        let (mut a, mut b) = pair(spec);
        b.forget(Mark(0));
        let mut burst = train(&mut pool, 80, 20);
        send(&mut a, Mark(0), &mut burst);
        let frames =
            receive_until(&mut b, &mut pool, |_, port| port.tally().frames_in.read() == 20);
        assert!(frames.is_empty());
        assert_eq!(b.tally().lost(Loss::UnknownSender), 20);
        // Nothing is sent to a mark that has no neighbour.
        let mut burst = train(&mut pool, 80, 3);
        send(&mut b, Mark(0), &mut burst);
        assert!(burst.is_empty());
        assert_eq!(b.tally().lost(Loss::NoNeighbour), 3);
    });
}

#[test]
fn a_neighbour_may_come_and_go_while_frames_flow() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(160);
        let (a, b) = (opened(spec), opened(spec));
        let (at_a, at_b) = (a.local_addr(), b.local_addr());
        let (mut a, mut b) = (a.port, b.port);
        a.admit(Mark(7), Address::Udp(at_b)).unwrap();
        let mut delivered = 0;
        for generation in 0..50_u16 {
            let mark = Mark::new(3, generation);
            if generation % 2 == 0 {
                b.admit(mark, Address::Udp(at_a)).unwrap();
            }
            let mut burst = train(&mut pool, 60, 10);
            send(&mut a, Mark(7), &mut burst);
            let wanted = 10 * (u64::from(generation) + 1);
            let frames =
                receive_until(&mut b, &mut pool, |_, port| port.tally().frames_in.read() == wanted);
            assert!(frames.iter().all(|frame| frame.mark() == mark));
            assert_eq!(frames.len(), if generation % 2 == 0 { 10 } else { 0 });
            delivered += frames.len() as u64;
            b.forget(mark);
        }
        assert_eq!(delivered + b.tally().lost(Loss::UnknownSender), 500);
    });
}

#[test]
fn a_neighbour_forgotten_in_the_middle_of_its_train_gets_no_more_frames_through() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(64);
        let (mut a, mut b) = pair(spec);
        let mut burst = train(&mut pool, 50, 40);
        send(&mut a, Mark(0), &mut burst);
        // The burst has room for ten frames, so the rest of the train stays in the port.
        let filler = train(&mut pool, 50, 54);
        let mut burst = Burst::new();
        burst.extend(filler);
        while !burst.is_full() {
            b.rx_burst(&mut pool, &mut burst);
        }
        assert_eq!(b.arm(), Arm::Ready);
        b.forget(Mark(0));
        let mut burst = Burst::new();
        b.rx_burst(&mut pool, &mut burst);
        assert!(burst.is_empty());
        assert_eq!(b.tally().frames_in.read(), 40);
        assert_eq!(b.tally().lost(Loss::UnknownSender), 30);
    });
}

/// wire.md: W8-8.
#[test]
fn many_neighbours_share_a_socket_and_keep_their_marks() {
    const N: u16 = 200;
    with_each_backend(UdpSpec { neighbours_max: 256, ..v4() }, |spec| {
        let mut pool = pool(300);
        let hub = opened(spec);
        let at_hub = hub.local_addr();
        let mut hub = hub.port;
        let others: Vec<UdpSocket> = (0..N)
            .map(|n| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                let at = Address::Udp(socket.local_addr().unwrap());
                hub.admit(Mark::new(n, 9), at).unwrap();
                socket
            })
            .collect();
        for (n, socket) in others.iter().enumerate() {
            socket.send_to(&[n as u8], at_hub).unwrap();
        }
        let frames = receive(&mut hub, &mut pool, usize::from(N));
        // Each frame is returned to its sender, all in one flush.
        for frame in frames {
            assert_eq!(frame.bytes(), [frame.mark().index() as u8]);
            let mark = frame.mark();
            let mut burst: Burst = [frame].into_iter().collect();
            hub.tx_burst(mark, &mut burst);
            assert!(burst.is_empty());
        }
        hub.flush();
        let mut bytes = [0; 10];
        for (n, socket) in others.iter().enumerate() {
            assert_eq!(socket.recv(&mut bytes).unwrap(), 1);
            assert_eq!(bytes[0], n as u8);
        }
        assert_eq!(hub.tally().frames_out.read(), u64::from(N));
    });
}

#[test]
fn alternating_frames_to_two_neighbours_form_trains() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(300);
        let (mut a, mut b) = pair(spec);
        let c = opened(spec);
        let at_a = opened(spec).local_addr();
        a.admit(Mark(1), Address::Udp(c.local_addr())).unwrap();
        let mut c = c.port;
        let _ = c.admit(Mark(0), Address::Udp(at_a));
        for n in 0..10 {
            for to in [Mark(0), Mark(1)] {
                let mut burst: Burst = [frame(&mut pool, 70, n)].into_iter().collect();
                a.tx_burst(to, &mut burst);
            }
        }
        a.flush();
        assert_eq!((a.tally().trains_out.read(), a.tally().frames_out.read()), (2, 20));
        for (n, frame) in receive(&mut b, &mut pool, 10).iter().enumerate() {
            assert_eq!(frame.bytes()[0], n as u8);
        }
    });
}

#[test]
fn an_empty_pool_leaves_datagrams_in_the_kernel_and_recovers() {
    with_each_backend(v4(), |spec| {
        let mut theirs = pool(64);
        let mut ours = pool(4);
        let (mut a, mut b) = pair(spec);
        // The pool is exhausted before anything arrives. Then single datagrams arrive, and each
        // needs a chunk.
        let hoard: Vec<_> = std::iter::from_fn(|| ours.take(ChunkClass::Train)).collect();
        for n in 0..20 {
            let mut burst: Burst = [frame(&mut theirs, 30, n)].into_iter().collect();
            send(&mut a, Mark(0), &mut burst);
        }
        let mut burst = Burst::new();
        for _ in 0..10 {
            b.rx_burst(&mut ours, &mut burst);
        }
        assert!(burst.is_empty());
        drop(hoard);
        let mut seen = 0;
        let deadline = Instant::now() + DEADLINE;
        while seen < 20 {
            assert!(Instant::now() < deadline, "{seen} of 20 came");
            let mut burst = Burst::new();
            b.rx_burst(&mut ours, &mut burst);
            for frame in burst {
                assert_eq!(frame.bytes(), [seen; 30]);
                seen += 1;
            }
        }
        assert_eq!(b.tally().frames_in.read(), 20);
        assert_eq!(b.tally().total_lost(), 0);
        drop(b);
        assert_eq!(ours.free(ChunkClass::Train), 4, "all chunks came home");
    });
}

#[test]
fn a_blocked_worker_is_woken_by_a_datagram() {
    with_each_backend(v4(), |spec| {
        let mut theirs = pool(64);
        let (mut a, mut b) = pair(spec);
        let worker = std::thread::spawn(move || {
            let mut ours = pool(64);
            let mut burst = Burst::new();
            for n in 0..50_u8 {
                let begun = Instant::now();
                b.rx_burst(&mut ours, &mut burst);
                while burst.is_empty() {
                    wait(&mut b);
                    b.rx_burst(&mut ours, &mut burst);
                    assert!(begun.elapsed() < DEADLINE);
                }
                assert_eq!(burst[0].bytes(), [n; 9]);
                // The far end sends again only after the reply, so no frame is waiting when the
                // port begins to wait.
                b.tx_burst(Mark(0), &mut burst);
                b.flush();
            }
        });
        for n in 0..50 {
            let mut burst: Burst = [frame(&mut theirs, 9, n)].into_iter().collect();
            send(&mut a, Mark(0), &mut burst);
            receive(&mut a, &mut theirs, 1);
        }
        worker.join().unwrap();
    });
}

#[test]
fn an_idle_port_does_not_claim_to_be_ready() {
    with_each_backend(v4(), |spec| {
        let mut pool = pool(64);
        let (mut a, mut b) = pair(spec);
        let mut burst = Burst::new();
        b.rx_burst(&mut pool, &mut burst);
        let Arm::Wait(fd) = b.arm() else { panic!("{:?}", b.arm()) };
        assert!(!wait_readable(fd, Duration::ZERO));
        let mut frames: Burst = [frame(&mut pool, 9, 1)].into_iter().collect();
        send(&mut a, Mark(0), &mut frames);
        assert!(wait_readable(fd, DEADLINE));
    });
}

#[test]
fn a_port_may_be_dropped_on_another_thread_and_its_chunks_come_home() {
    with_each_backend(v4(), |spec| {
        let mut theirs = pool(64);
        let (mut a, mut b) = pair(spec);
        let mut ours = pool(40);
        let mut burst: Burst = [frame(&mut theirs, 9, 1)].into_iter().collect();
        send(&mut a, Mark(0), &mut burst);
        let (b, mut ours) = std::thread::spawn(move || {
            receive(&mut b, &mut ours, 1);
            (b, ours)
        })
        .join()
        .unwrap();
        // A datagram arrives while no thread receives; it must not be written anywhere.
        let mut burst: Burst = [frame(&mut theirs, 9, 2)].into_iter().collect();
        send(&mut a, Mark(0), &mut burst);
        drop(b);
        assert_eq!(ours.free(ChunkClass::Train), 40);
    });
}

#[test]
fn a_ring_called_from_another_thread_is_replaced_by_recvmmsg() {
    with_each_backend(v4(), |spec| {
        let mut theirs = pool(64);
        let (mut a, mut b) = pair(spec);
        let mut ours = pool(200);
        for n in 0..3 {
            let mut burst: Burst = [frame(&mut theirs, 9, n)].into_iter().collect();
            send(&mut a, Mark(0), &mut burst);
            (b, ours) = std::thread::spawn(move || {
                assert_eq!(receive(&mut b, &mut ours, 1)[0].bytes(), [n; 9]);
                (b, ours)
            })
            .join()
            .unwrap();
        }
        // Only a ring with a single issuer depends on the calling thread.
        if spec.backend == BackendChoice::IoUring && spec.ring_mode_first == 0 {
            assert!(b.describe().ends_with("(mmsg)"), "{}", b.describe());
        }
    });
}

#[test]
fn drops_of_the_kernel_are_counted() {
    let spec = UdpSpec { socket_buffer_bytes: 8192, ..v4() };
    with_each_backend(spec, |spec| {
        let mut theirs = pool(64);
        let mut ours = pool(64);
        let (mut a, mut b) = pair(spec);
        let mut sent = 0;
        let deadline = Instant::now() + DEADLINE;
        while b.tally().kernel_drops.read() == 0 {
            assert!(Instant::now() < deadline, "{:?}", b.tally());
            for _ in 0..40 {
                let mut burst: Burst = [frame(&mut theirs, 1000, 3)].into_iter().collect();
                send(&mut a, Mark(0), &mut burst);
                sent += 1;
            }
            let mut burst = Burst::new();
            for _ in 0..40 {
                b.rx_burst(&mut ours, &mut burst);
                burst.clear();
            }
        }
        let (came, dropped) = (b.tally().frames_in.read(), b.tally().kernel_drops.read());
        let full = b.tally().kernel_drops.of(strowger_frame::port::KernelDrop::SocketFull);
        assert_eq!(full, dropped, "the one reason that a socket knows");
        assert!(came + dropped <= sent, "{came} came, {dropped} dropped, {sent} sent");
    });
}

#[test]
fn a_full_socket_keeps_frames_in_order_and_loses_none() {
    // The sender is at most 100 frames ahead of the receiver.
    with_each_backend(v4(), |spec| {
        let mut theirs = pool(200);
        let mut ours = pool(200);
        let (mut a, mut b) = pair(&UdpSpec { gso: false, ..spec.clone() });
        let mut next = 0_u16;
        let mut seen = 0_u16;
        let deadline = Instant::now() + DEADLINE;
        let mut waiting = Burst::new();
        while seen < 2000 {
            assert!(Instant::now() < deadline);
            while next < 2000 && !waiting.is_full() && next - seen < 100 {
                let mut frame = frame(&mut theirs, 40, 0);
                frame.bytes_mut()[..2].copy_from_slice(&next.to_be_bytes());
                waiting.push(frame);
                next += 1;
            }
            a.tx_burst(Mark(0), &mut waiting);
            a.flush();
            let mut burst = Burst::new();
            b.rx_burst(&mut ours, &mut burst);
            for frame in burst {
                assert_eq!(frame.bytes()[..2], seen.to_be_bytes());
                seen += 1;
            }
        }
        assert_eq!(a.tally().frames_out.read(), 2000);
    });
}

#[test]
fn a_busy_address_is_a_clear_error() {
    let first = opened(&v4());
    let spec = UdpSpec { bind: first.local_addr(), ..v4() };
    let error = open(&spec, 0).expect_err("it is taken");
    assert_eq!(error, UdpOpenError::Busy { at: first.local_addr() });
    assert!(error.to_string().contains("in use by another socket: EADDRINUSE"), "{error}");
    let spec = UdpSpec { bind: "192.0.2.1:7".parse().unwrap(), ..v4() };
    let error = open(&spec, 0).expect_err("a documentation address");
    assert!(matches!(error, UdpOpenError::NotLocal { .. }), "{error}");
}

#[test]
fn workers_share_an_address_when_asked_to() {
    let spec = UdpSpec { reuse_port: true, ..v4() };
    let first = open(&spec, 0).unwrap();
    let spec = UdpSpec { bind: first.local_addr(), ..spec };
    let second = open(&spec, 1).unwrap();
    assert_eq!(first.local_addr(), second.local_addr());
    assert_eq!(second.report.worker, 1);
}

#[test]
fn a_refused_io_uring_is_reported_and_replaced() {
    let spec = UdpSpec { ring_errno_forced: Some(libc::EPERM), ..v4() };
    let opened = open(&spec, 0).unwrap();
    assert_eq!(opened.report.backend, Backend::Mmsg);
    let text = opened.report.to_string();
    let reason = "io_uring does not work here: io_uring_setup: EPERM (os error 1); perhaps a container's \
                seccomp profile, or sysctl kernel.io_uring_disabled; using recvmmsg";
    assert!(text.contains(reason), "{text}");
    assert!(opened.port.describe().ends_with("(mmsg)"));
    let error = open(&UdpSpec { backend: BackendChoice::IoUring, ..spec }, 0)
        .expect_err("io_uring is demanded");
    assert!(
        matches!(&error, UdpOpenError::NoRing(why) if why.errno() == Some(Errno(libc::EPERM))),
        "{error}"
    );
}

/// Makes the kernel refuse `io_uring_setup` on this thread, as container profiles do.
fn forbid_rings_to_this_thread() -> bool {
    // The filter loads the number of the call. It returns EPERM for io_uring_setup, and otherwise
    // allows the call.
    let filter = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x0005_0001)]
        .map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut filter: Vec<_> = filter.into_iter().chain([allow]).collect();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes only numbers, and only removes rights.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its filter outlive the call.
    set == 0 && unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } == 0
}

#[test]
fn a_seccomp_profile_that_refuses_io_uring_is_found_by_trying() {
    let ran = std::thread::spawn(|| {
        if !forbid_rings_to_this_thread() {
            return false;
        }
        let opened = open(&v4(), 0).unwrap();
        assert_eq!(opened.report.backend, Backend::Mmsg);
        assert_eq!(
            opened.report.refused[0].1.errno(),
            Some(Errno(libc::EPERM)),
            "{}",
            opened.report
        );
        let found = probe(1 << 16);
        let refusal = found.io_uring.expect_err("refused to this thread");
        assert!(refusal.to_string().contains("seccomp"), "{refusal}");
        assert!(found.gro.is_ok() && found.gso.is_ok());
        true
    });
    if !ran.join().unwrap() {
        unsupported("the kernel has no seccomp filters");
    }
}

#[test]
fn buffers_that_the_kernel_reduced_cause_a_warning() {
    let spec = UdpSpec { socket_buffer_bytes: 1 << 30, ..v4() };
    let opened = opened(&spec);
    let buffer = opened.report.receive_buffer;
    if buffer.is_short() {
        let warning = format!("sysctl -w net.core.rmem_max={}", buffer.requested);
        assert!(opened.report.to_string().contains(&warning), "{}", opened.report);
    } else {
        unsupported(&format!("with CAP_NET_ADMIN the kernel gave {} bytes", buffer.given));
    }
}

#[test]
fn a_spec_bounds_the_chunks_that_its_port_keeps() {
    with_each_backend(v4(), |spec| {
        let held_max = spec.train_chunks_max();
        let mut theirs = pool(200);
        let mut ours = pool(held_max);
        let (mut a, mut b) = pair(spec);
        // The datagrams are sent one by one, so that each takes a chunk. Nothing is sent back.
        for n in 0..200 {
            let mut burst: Burst = [frame(&mut theirs, 30, n)].into_iter().collect();
            send(&mut a, Mark(0), &mut burst);
        }
        let mut burst = Burst::new();
        for _ in 0..20 {
            b.rx_burst(&mut ours, &mut burst);
            burst.clear();
            // The number of chunks stayed within the maximum, even with a burst in flight: the pool
            // was never exhausted.
            assert_eq!(ours.tally().exhausted.read(), 0);
        }
    });
}

#[test]
fn a_probe_answers_each_question() {
    for (name, found) in probe(1 << 20).each() {
        match found {
            Ok(detail) => eprintln!("{name}: {detail}"),
            Err(refusal) => eprintln!("{name}: refused, {refusal}"),
        }
    }
}

#[test]
fn a_wrong_neighbour_is_refused() {
    let mut port = opened(&v4()).port;
    let v6: SocketAddr = "[::1]:7".parse().unwrap();
    assert_eq!(port.admit(Mark(0), Address::Udp(v6)), Err(AdmitError::WrongKind));
    assert_eq!(port.admit(Mark(0), Address::Only), Err(AdmitError::WrongKind));
}

/// wire.md: W8-3, W8-4, W8-5, W8-6, W8-9.
#[test]
fn a_plain_socket_finds_one_packet_in_each_datagram() {
    for spec in [v4(), v6()] {
        with_each_backend(spec, |spec| {
            let mut pool = pool(64);
            let opened = opened(spec);
            let (at, mut port) = (opened.local_addr(), opened.port);
            let plain = UdpSocket::bind(SocketAddr::new(at.ip(), 0)).unwrap();
            plain.set_read_timeout(Some(DEADLINE)).unwrap();
            port.admit(Mark(0), Address::Udp(plain.local_addr().unwrap())).unwrap();
            // The train of 30 equal frames is one message to the kernel, which splits it.
            let mut burst = train(&mut pool, 100, 30);
            burst.extend([24, 1400, 8].map(|len| frame(&mut pool, len, 0x77)));
            send(&mut port, Mark(0), &mut burst);
            let mut buffer = [0; 3000];
            let lens = (0..30).map(|n| (100, n)).chain([24, 1400, 8].map(|len| (len, 0x77)));
            for (len, fill) in lens {
                let (got, from) = plain.recv_from(&mut buffer).unwrap();
                assert_eq!((got, from), (len, at));
                assert!(buffer[..got].iter().all(|byte| *byte == fill));
            }
            // The kernel may join these datagrams on their way to the port.
            for n in 0..30 {
                plain.send_to(&[n; 100], at).unwrap();
            }
            for (n, frame) in receive(&mut port, &mut pool, 30).iter().enumerate() {
                assert_eq!(frame.bytes(), [n as u8; 100]);
            }
        });
    }
}

/// wire.md: W8-10, W8-11.
#[test]
fn datagrams_forbid_fragments_and_do_not_show_ecn_and_class_of_the_packet() {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes only numbers.
    let raw = unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_UDP) };
    if raw < 0 {
        return skip("a raw socket needs CAP_NET_RAW");
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else has it.
    let raw = unsafe { OwnedFd::from_raw_fd(raw) };
    with_each_backend(v4(), |spec| {
        let mut pool = pool(64);
        let (mut a, b) = pair(spec);
        let Some(Address::Udp(to)) = a.address_of(Mark(0)) else { panic!("{b:?} is admitted") };
        let started = Instant::now();
        // The raw socket receives every UDP datagram that arrives at this machine, with its IP
        // header. Those of other tests may fill its buffer, so the packet is sent until it is seen.
        let seen = 'seen: loop {
            assert!(started.elapsed() < DEADLINE);
            let mut packet = frame(&mut pool, 24, 0);
            // The packet is plain data with ECN 11 and class 0x2e.
            packet.bytes_mut()[..12]
                .copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 0, 1, 0x10, 0x18, 9, 0x2e]);
            send(&mut a, Mark(0), &mut [packet].into_iter().collect());
            for _ in 0..1_000 {
                if !wait_readable(raw.as_raw_fd(), Duration::from_millis(100)) {
                    break;
                }
                let mut bytes = [0; 2048];
                // SAFETY: the pointer is to that many writable bytes.
                let got = unsafe {
                    libc::recv(raw.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0)
                };
                if got == 20 + 8 + 24 && bytes[22..24] == to.port().to_be_bytes() {
                    break 'seen bytes;
                }
            }
        };
        assert_eq!(seen[1], 0, "the type of service");
        assert_eq!(seen[6..8], [0x40, 0], "Don't Fragment, and no fragment");
    });
}
