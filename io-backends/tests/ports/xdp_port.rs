//! Tests of Ethernet ports over veth pairs, in each mode that a veth supports: order, trains,
//! unknown senders, sizes, VLANs, queues. No test sleeps; each polls with a deadline.

use strowger_frame::{Address, Burst, Loss, Mark, Port, port::KernelDrop};
use strowger_io::xdp::{Arena, EtherOpenError, ModeChoice, RxMode, XdpSpec, probe};

use crate::veth::*;

#[test]
fn frames_pass_in_order_and_intact_in_every_mode() {
    for (from, to) in RX_MODES.into_iter().flat_map(|a| RX_MODES.map(|b| (a, b))) {
        let veth = veth!();
        let (mut a, mut b) = stations(&veth, &spec("a0", from), &spec("b0", to));
        for round in 0..40 {
            let frames: Vec<_> =
                (0..20).map(|n| frame(&mut a.pool, 60 + n, (round * 20 + n) as u8)).collect();
            send(&mut a.port, Mark(0), frames);
            for (n, frame) in receive(&mut b.port, &mut b.pool, 20).iter().enumerate() {
                assert_eq!(frame.bytes(), vec![(round * 20 + n) as u8; 60 + n]);
                assert_eq!(frame.mark(), Mark(0));
            }
        }
        assert_eq!((a.tally().frames_out.read(), b.tally().frames_in.read()), (800, 800));
        assert_eq!((a.tally().total_lost(), b.tally().total_lost()), (0, 0));
        let copies = a.tally().frames_copied.read() + b.pool.tally().frames_copied.read();
        assert_eq!((copies, b.tally().kernel_drops.read()), (0, 0), "{from:?} to {to:?}");
    }
}

/// wire.md: W8-22.
#[test]
fn an_unknown_sender_is_delivered_if_accepted_and_gets_replies_at_its_address() {
    for mode in RX_MODES {
        let veth = veth!();
        let mut a = Station::new(&veth.a, &spec("a0", mode)).unwrap();
        let mut b = Station::new(&veth.b, &spec("b0", mode)).unwrap();
        a.port.admit(Mark(0), b.at).unwrap();
        let knock = frame(&mut a.pool, 80, 1);
        send(&mut a.port, Mark(0), [knock]);
        until("it is counted", || {
            assert!(drain(&mut b.port, &mut b.pool).is_empty());
            b.tally().lost(Loss::UnknownSender) == 1
        });
        b.port.accept_unknown(true);
        let knock = frame(&mut a.pool, 80, 2);
        send(&mut a.port, Mark(0), [knock]);
        let came = receive(&mut b.port, &mut b.pool, 1);
        assert!(came[0].mark().is_unknown() && came[0].bytes() == [2; 80]);
        assert_eq!(b.port.address_of(came[0].mark()), Some(a.at));
        let answer = frame(&mut b.pool, 90, 3);
        b.port.send_to(a.at, answer);
        let came = receive(&mut a.port, &mut a.pool, 1);
        assert_eq!((came[0].mark(), came[0].bytes()), (Mark(0), [3; 90].as_slice()));
        // One frame has a destination to which the port cannot send, and one is too long for the
        // interface.
        for (to, len, loss) in
            [(Address::Ether([0xff; 6]), 9, Loss::NoNeighbour), (a.at, 1600, Loss::PathTooNarrow)]
        {
            let answer = frame(&mut b.pool, len, 4);
            b.port.send_to(to, answer);
            assert_eq!(b.tally().lost(loss), 1, "{mode:?}");
        }
        // A path MTU probe that is too long does not count as a failure.
        let probe = frame(&mut b.pool, 1600, 5);
        b.port.send_probe(a.at, probe);
        let lost = [Loss::PathProbe, Loss::PathTooNarrow].map(|loss| b.tally().lost(loss));
        assert_eq!(lost, [1, 1], "{mode:?}");
    }
}

#[test]
fn trains_leave_without_a_copy_wherever_their_frames_lie() {
    for (mode, multi_buffer) in
        [(RxMode::Copy, true), (RxMode::Generic, true), (RxMode::Copy, false)]
    {
        let veth = veth!();
        let a = XdpSpec { multi_buffer, ..spec("a0", mode) };
        let (mut a, mut b) = stations(&veth, &a, &spec("b0", RxMode::Copy));
        for len in [0, 1, 24, 100, 1000, 1497, 1498] {
            // A train of 40 of the longer frames extends over fifteen UMEM chunks of 4 KiB.
            let frames =
                if len == 0 { vec![frame(&mut a.pool, 0, 0)] } else { train(&mut a.pool, len, 40) };
            let count = frames.len();
            send(&mut a.port, Mark(0), frames);
            for (n, frame) in receive(&mut b.port, &mut b.pool, count).iter().enumerate() {
                assert_eq!(frame.bytes(), vec![n as u8; len], "frame {n} of {len} bytes");
            }
        }
        let copied = a.tally().frames_copied.read();
        if multi_buffer {
            assert_eq!(copied, 0, "{mode:?}");
        } else {
            // These are all frames except the single frame and the first frame of each train, which
            // have headroom.
            assert!((6 * 39..=6 * 40).contains(&copied), "{copied}");
        }
        until("all chunks to be reported", || {
            a.port.flush();
            drop(drain(&mut a.port, &mut a.pool));
            a.pool.free(strowger_frame::ChunkClass::Train) == 16
        });
        assert_eq!((a.tally().total_lost(), b.tally().total_lost()), (0, 0));
        let drops = &a.tally().kernel_drops;
        assert_eq!((drops.of(KernelDrop::TxInvalid), drops.of(KernelDrop::RxInvalid)), (0, 0));
    }
}

#[test]
fn memory_outside_the_arena_is_copied_and_counted() {
    let veth = veth!();
    let (mut a, mut b) = stations(&veth, &spec("a0", RxMode::Copy), &spec("b0", RxMode::Copy));
    let (mut here, mut there) = (pool_of(4, 200), pool_of(1, 150));
    // Sends more frames than the port has chunks for copies.
    for n in 0..3 {
        let frames: Vec<_> = (0..50).map(|_| frame(&mut here, 300, n)).collect();
        send(&mut a.port, Mark(0), frames);
    }
    let came = receive(&mut b.port, &mut there, 150);
    assert!(came.iter().all(|frame| frame.len() == 300));
    assert_eq!(a.tally().frames_copied.read(), 150);
    assert_eq!(there.tally().frames_copied.read(), 150);
    // If a pool outside the arena is exhausted, only the frames that arrive then are lost.
    let frames: Vec<_> = (0..40).map(|n| frame(&mut here, 300, n)).collect();
    send(&mut a.port, Mark(0), frames);
    until("frames to be lost", || {
        drain(&mut b.port, &mut there);
        b.tally().frames_in.read() == 190
    });
    assert_eq!(b.tally().lost(Loss::PoolEmpty), 39, "one large chunk was left");
    drop(came);
    send(&mut a.port, Mark(0), [frame(&mut a.pool, 10, 1)]);
    receive(&mut b.port, &mut there, 1);
}

/// wire.md: W8-23, W8-24.
#[test]
fn frames_of_another_vlan_are_not_received() {
    for mode in RX_MODES {
        let veth = veth!();
        let tagged = XdpSpec { vlan: Some(7), ..spec("b0", mode) };
        let (mut a, mut b) =
            stations(&veth, &XdpSpec { vlan: Some(7), ..spec("a0", RxMode::Copy) }, &tagged);
        for len in [20, 1498] {
            send(&mut a.port, Mark(0), [frame(&mut a.pool, len, 1)]);
            send(&mut b.port, Mark(0), [frame(&mut b.pool, len, 2)]);
            assert_eq!(receive(&mut b.port, &mut b.pool, 1)[0].bytes(), vec![1; len]);
            assert_eq!(receive(&mut a.port, &mut a.pool, 1)[0].bytes(), vec![2; len]);
        }
        for vlan in [None, Some(8)] {
            drop(a);
            a = Station::new(&veth.a, &XdpSpec { vlan, ..spec("a0", RxMode::Copy) }).unwrap();
            a.port.admit(Mark(0), b.at).unwrap();
            send(&mut a.port, Mark(0), [frame(&mut a.pool, 20, 1)]);
            send(&mut b.port, Mark(0), [frame(&mut b.pool, 20, 1)]);
            assert!(drain(&mut a.port, &mut a.pool).is_empty());
            assert!(drain(&mut b.port, &mut b.pool).is_empty());
        }
        // A port without a VLAN does not receive tagged frames either.
        drop(b);
        let mut b = Station::new(&veth.b, &spec("b0", mode)).unwrap();
        b.port.admit(Mark(0), a.at).unwrap();
        send(&mut a.port, Mark(0), [frame(&mut a.pool, 20, 1)]);
        assert!(drain(&mut b.port, &mut b.pool).is_empty());
        assert_eq!(b.tally().frames_in.read(), 0);
    }
}

/// wire.md: W8-15, W8-16, W8-17, W8-22.
#[test]
fn unknown_senders_and_malformed_frames_are_counted_by_reason() {
    for mode in RX_MODES {
        let veth = veth!();
        let mut a = Station::new(&veth.a, &spec("a0", RxMode::Packet)).unwrap();
        let mut b = Station::new(&veth.b, &spec("b0", mode)).unwrap();
        let (Address::Ether(at_a), Address::Ether(at_b)) = (a.at, b.at) else { unreachable!() };
        let raw = veth.a.within(|| Raw::new("a0"));
        let header = |to: [u8; 6], from: [u8; 6], len: u16| {
            [&to[..], &from, &0x88b5_u16.to_be_bytes(), &len.to_be_bytes()].concat()
        };
        raw.send(&[header(at_b, at_a, 4), vec![9; 4]].concat()); // not admitted yet
        until("it to come", || {
            drain_once(&mut b);
            b.tally().frames_in.read() == 1
        });
        b.port.admit(Mark(3), a.at).unwrap();
        a.port.admit(Mark(0), b.at).unwrap();
        raw.send(&[header(at_b, [2, 1, 1, 1, 1, 1], 4), vec![9; 4]].concat());
        raw.send(&header(at_b, at_a, 0)[..14]); // without a length
        raw.send(&[header(at_b, at_a, 5), vec![9; 4]].concat()); // longer than the frame
        raw.send(&[header(at_b, at_a, 4), vec![9; 40]].concat()); // valid, with padding
        raw.send(&[header(at_b, at_a, 0xffff), vec![9; 1000]].concat());
        let came = receive(&mut b.port, &mut b.pool, 1);
        assert_eq!((came[0].bytes(), came[0].mark()), (&[9; 4][..], Mark(3)));
        until("the rest", || {
            drop(drain(&mut b.port, &mut b.pool));
            b.tally().frames_in.read() == 6
        });
        let lost = [Loss::UnknownSender, Loss::Malformed].map(|loss| b.tally().lost(loss));
        assert_eq!(lost, [2, 3], "{mode:?}");
        // The port uses the chunks of these frames again, even after more frames than it has
        // chunks.
        for _ in 0..2 * LENT {
            raw.send(&header(at_b, at_a, 9));
            drop(drain_once(&mut b));
        }
        send(&mut a.port, Mark(0), [frame(&mut a.pool, 100, 7)]);
        assert_eq!(receive(&mut b.port, &mut b.pool, 1)[0].bytes(), [7; 100]);
    }
}

/// wire.md: W8-21.
#[test]
fn frames_from_groups_from_zero_and_from_itself_are_dropped() {
    for mode in RX_MODES {
        let veth = veth!();
        let mut b = Station::new(&veth.b, &spec("b0", mode)).unwrap();
        b.port.accept_unknown(true);
        let Address::Ether(at_b) = b.at else { unreachable!() };
        let raw = veth.a.within(|| Raw::new("a0"));
        let station = [2, 1, 1, 1, 1, 1];
        let sources = [[1, 0, 0x5e, 0, 0, 1], [0xff; 6], [0; 6], at_b, station];
        for from in sources {
            raw.send(&[&at_b[..], &from, &[0x88, 0xb5, 0, 4], &[9; 46]].concat());
        }
        let came = receive(&mut b.port, &mut b.pool, 1);
        assert_eq!(b.port.address_of(came[0].mark()), Some(Address::Ether(station)), "{mode:?}");
        assert_eq!(b.tally().lost(Loss::UnknownSender), b.tally().frames_in.read() - 1);
    }
}

/// wire.md: W8-19.
#[test]
fn frames_to_other_stations_are_dropped() {
    let veth = veth!();
    let mut b = Station::new(&veth.b, &spec("b0", RxMode::Copy)).unwrap();
    let raw = veth.a.within(|| Raw::new("a0"));
    let from = [2, 0, 0, 0, 0, 9];
    b.port.admit(Mark(0), Address::Ether(from)).unwrap();
    for to in [[0xff; 6], [2, 3, 4, 5, 6, 7]] {
        raw.send(&[&to[..], &from, &[0x88, 0xb5, 0, 0], &[0; 46]].concat());
    }
    until("both", || {
        assert!(drain(&mut b.port, &mut b.pool).is_empty());
        b.tally().frames_in.read() == 2
    });
    assert_eq!(b.tally().lost(Loss::UnknownSender), 2);
}

/// wire.md: W8-25.
#[test]
fn a_frame_that_is_too_long_is_counted_and_the_others_are_sent() {
    for mode in RX_MODES {
        let veth = veth!();
        let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", RxMode::Copy));
        assert_eq!(a.port.frame_bytes_max(), 1498);
        let frames = [(100, 1), (1499, 2), (1498, 3), (3000, 4)];
        let frames = frames.map(|(len, fill)| frame(&mut a.pool, len, fill));
        send(&mut a.port, Mark(0), frames);
        let came = receive(&mut b.port, &mut b.pool, 2);
        assert_eq!((came[0].len(), came[1].len()), (100, 1498));
        assert_eq!(a.tally().lost(Loss::PathTooNarrow), 2);
    }
}

#[test]
fn one_registration_serves_two_queues_and_two_interfaces() {
    let two = "numrxqueues 2 numtxqueues 2";
    let veth = veth!(two, two);
    veth.a.ip("link add c0 type veth peer name d0");
    veth.a.ip("link set dev c0 up");
    for end in ["c0", "d0"] {
        veth.a.within(|| offload_tags(end, false)).unwrap();
    }
    veth.a.ip("link set dev d0 up");
    let mut pool = pool_of(0, 3000);
    let mut arena = Arena::of(&pool);
    let mut reports = Vec::new();
    let mut ports = Vec::new();
    for (interface, queue) in [("a0", 0), ("a0", 1), ("c0", 0), ("d0", 0)] {
        let spec = XdpSpec { queue, ..spec(interface, RxMode::Copy) };
        let opened = opened(&veth.a, &spec, &mut arena, &mut pool).unwrap();
        reports.push(opened.report);
        ports.push(opened.port);
    }
    assert_eq!(reports.iter().map(|r| r.shared).collect::<Vec<_>>(), [false, true, true, true]);
    assert!(reports.iter().all(|report| report.multi_buffer), "{}", reports[1]);
    // The port that registered the memory may end first. The others continue, and a new one shares
    // the memory.
    drop(ports.remove(0));
    let [mut a1, mut c0, mut d0]: [_; 3] = ports.try_into().unwrap();
    c0.admit(Mark(1), Address::Ether(reports[3].mac)).unwrap();
    d0.admit(Mark(2), Address::Ether(reports[2].mac)).unwrap();
    send(&mut c0, Mark(1), train_of_singles(&mut pool, 60));
    let came = receive(&mut d0, &mut pool, 60);
    assert!(came.iter().enumerate().all(|(n, frame)| frame.bytes() == [n as u8; 200]));
    // Frames sent on queue 1 arrive at queue 1 of the far end.
    let mut b = Station::new(&veth.b, &XdpSpec { queue: 1, ..spec("b0", RxMode::Copy) }).unwrap();
    a1.admit(Mark(1), b.at).unwrap();
    b.port.admit(Mark(0), Address::Ether(reports[1].mac)).unwrap();
    send(&mut a1, Mark(1), came);
    assert_eq!(receive(&mut b.port, &mut b.pool, 60).len(), 60);
    let again = opened(&veth.a, &spec("a0", RxMode::Copy), &mut arena, &mut pool).unwrap();
    assert!(again.report.shared);
}

fn train_of_singles(pool: &mut strowger_frame::Pool, n: usize) -> Vec<strowger_frame::Frame> {
    (0..n).map(|n| frame(pool, 200, n as u8)).collect()
}

fn drain_once(station: &mut Station) -> Burst {
    let mut burst = Burst::new();
    station.port.rx_burst(&mut station.pool, &mut burst);
    burst
}

#[test]
fn the_report_says_why_no_better_mode_is_used() {
    let veth = veth!();
    let spec = XdpSpec { backend: ModeChoice::Auto, ..spec("a0", RxMode::Copy) };
    let mut pool = pool();
    let mut arena = Arena::of(&pool);
    let report = opened(&veth.a, &spec, &mut arena, &mut pool).unwrap().report;
    assert_eq!(report.mode, RxMode::Copy);
    let text = report.to_string();
    eprintln!("{text}");
    assert!(text.contains("xdp_zero_copy refused: bind: EOPNOTSUPP (os error 95)"), "{text}");
    let only = XdpSpec { backend: ModeChoice::Only(RxMode::ZeroCopy), ..spec };
    let refused = opened(&veth.a, &only, &mut arena, &mut pool).unwrap_err();
    assert!(matches!(refused, EtherOpenError::NothingWorks { .. }), "{refused}");
    assert_eq!(pool.free(strowger_frame::ChunkClass::Single), 1500, "refusals cost no memory");
}

#[test]
fn the_probe_finds_what_works() {
    let _veth = veth!(); // checks the rights
    let found = probe(1 << 20);
    eprintln!("{found}");
    assert!(found.each().iter().all(|(_, found)| found.is_ok()), "{found}");
    assert_eq!(found.best(), Some(RxMode::ZeroCopy));
    assert!(found.missing.is_empty());
}

/// While a worker is stopped, the kernel drops frames. Each has a reason, and all frames are
/// accounted for.
#[test]
fn drops_of_the_kernel_have_a_reason() {
    for (mode, fill_ring_frames, reason) in [
        (RxMode::Copy, 4096, KernelDrop::RxRingFull),
        (RxMode::Generic, 4096, KernelDrop::RxRingFull),
        (RxMode::Copy, 64, KernelDrop::RxDropped),
        (RxMode::Packet, 64, KernelDrop::SocketFull),
    ] {
        let veth = veth!();
        let mut a = Station::new(&veth.a, &spec("a0", RxMode::Copy)).unwrap();
        let mut pool = pool_of(0, 4 + 64 + fill_ring_frames + 256);
        let mut arena = Arena::of(&pool);
        let b = XdpSpec { fill_ring_frames, ..spec("b0", mode) };
        let b = opened(&veth.b, &b, &mut arena, &mut pool).unwrap();
        let (mut b, at_b) = (b.port, Address::Ether(b.report.mac));
        a.port.admit(Mark(0), at_b).unwrap();
        b.admit(Mark(0), a.at).unwrap();
        // The receive ring has 2,048 places; a buffer of 4 MiB is full after between 1,000 and
        // 60,000 frames.
        let sent: u64 = if mode == RxMode::Packet { 60_000 } else { 3_000 };
        // On a busy machine the veth refuses some frames. They are counted here and sent again.
        until("so many to be sent", || {
            let missing = sent.saturating_sub(a.tally().frames_out.read());
            let frames: Vec<_> =
                (0..missing.min(50)).map(|n| frame(&mut a.pool, 1000, n as u8)).collect();
            send(&mut a.port, Mark(0), frames);
            a.port.flush();
            missing == 0
        });
        let tally = b.tally().clone();
        until("all to be accounted for", || {
            drop(drain(&mut b, &mut pool));
            b.arm();
            b.disarm();
            a.port.flush();
            tally.frames_in.read() + tally.kernel_drops.read() == a.tally().frames_out.read()
        });
        assert!(tally.kernel_drops.of(reason) > 0, "{mode:?}: {tally:?}");
        assert_eq!(tally.kernel_drops.of(reason), tally.kernel_drops.read(), "{mode:?}: {tally:?}");
        let bugs = [KernelDrop::RxInvalid, KernelDrop::TxInvalid];
        assert!(bugs.iter().all(|bug| tally.kernel_drops.of(*bug) == 0), "{tally:?}");
    }
}

#[test]
fn an_empty_pool_loses_counted_frames_and_recovers() {
    let veth = veth!();
    let mut a = Station::new(&veth.a, &spec("a0", RxMode::Copy)).unwrap();
    let mut pool = pool_of(0, 4 + 64 + LENT + 10);
    let mut arena = Arena::of(&pool);
    let b = opened(&veth.b, &spec("b0", RxMode::Copy), &mut arena, &mut pool).unwrap();
    let (mut b, at_b) = (b.port, Address::Ether(b.report.mac));
    a.port.admit(Mark(0), at_b).unwrap();
    b.admit(Mark(0), a.at).unwrap();
    let (mut kept, tally) = (Vec::new(), b.tally().clone());
    for n in 0..20_u8 {
        let frames: Vec<_> = (0..50).map(|_| frame(&mut a.pool, 100, n)).collect();
        send(&mut a.port, Mark(0), frames);
        let sent = 50 * u64::from(n + 1);
        until("all to be accounted for", || {
            kept.extend(drain(&mut b, &mut pool));
            b.arm();
            b.disarm();
            tally.frames_in.read() + tally.kernel_drops.read() == sent
        });
    }
    // All frames for which the port had chunks are received, and the kernel has counted the later
    // ones.
    assert_eq!(kept.len(), LENT as usize + 10);
    assert_eq!(b.arm(), strowger_frame::port::Arm::Poll);
    b.disarm();
    assert_eq!(a.tally().frames_out.read(), 1000);
    let drops = &tally.kernel_drops;
    assert_eq!(drops.of(KernelDrop::RxDropped), drops.read(), "for want of chunks alone");
    assert!(drops.of(KernelDrop::FillRingEmpty) > 0);
    kept.truncate(100);
    drop(drain(&mut b, &mut pool));
    send(&mut a.port, Mark(0), (0..50).map(|n| frame(&mut a.pool, 100, n)).collect::<Vec<_>>());
    assert_eq!(receive(&mut b, &mut pool, 50).len(), 50);
}
