//! Events around an Ethernet port: other traffic, other programs, restarts, kill -9, links that go
//! down and may not return, dropped privileges. No test sleeps.

use std::{
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use strowger_frame::{Loss, Mark, Port, port::Arm};
use strowger_io::xdp::{Arena, EtherOpenError, ModeChoice, RxMode, XdpSpec};

use crate::veth::*;

const XDP: [RxMode; 2] = [RxMode::Copy, RxMode::Generic];

#[test]
fn other_traffic_flows_beside_ours() {
    for mode in XDP {
        let veth = veth!();
        veth.a.ip("addr add 10.9.0.1/24 dev a0");
        veth.b.ip("addr add 10.9.0.2/24 dev b0");
        let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", mode));
        let [one, two] = [(&veth.a, "10.9.0.1:7"), (&veth.b, "10.9.0.2:7")].map(|(at, address)| {
            let socket = at.within(|| UdpSocket::bind(address).unwrap());
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        });
        let mut room = [0; 100];
        for n in 0..100_u8 {
            send(&mut a.port, Mark(0), [frame(&mut a.pool, 100, n)]);
            one.send_to(&[n; 50], "10.9.0.2:7").unwrap();
            assert_eq!(two.recv(&mut room).unwrap(), 50);
            two.send_to(&[n; 60], "10.9.0.1:7").unwrap();
            assert_eq!(one.recv(&mut room).unwrap(), 60);
            assert_eq!(room[..60], [n; 60]);
            assert_eq!(receive(&mut b.port, &mut b.pool, 1)[0].bytes(), [n; 100]);
        }
        assert_eq!(b.tally().frames_in.read(), 100, "and none of it came to us");
    }
}

#[test]
fn errors_of_opening_say_why() {
    let veth = veth!();
    veth.b.ip("link set dev b0 down");
    let mut pool = pool();
    let mut arena = Arena::of(&pool);
    let mut why = |namespace: &Namespace, spec: &XdpSpec| {
        let why = opened(namespace, spec, &mut arena, &mut pool).unwrap_err();
        eprintln!("{why}");
        why
    };
    let here = spec("a0", RxMode::Copy);
    let missing = why(&veth.a, &spec("nothing0", RxMode::Copy));
    assert!(matches!(missing, EtherOpenError::NoInterface { .. }));
    assert!(matches!(why(&veth.a, &spec("lo", RxMode::Copy)), EtherOpenError::NotEthernet { .. }));
    let down = why(&veth.b, &spec("b0", RxMode::Copy));
    assert!(matches!(down, EtherOpenError::InterfaceDown { .. }));
    let queue = XdpSpec { queue: 3, ..here.clone() };
    assert!(matches!(why(&veth.a, &queue), EtherOpenError::NoQueue { queue: 3, queues: 1, .. }));
    for (ethertype, vlan) in [(0x05ff, None), (0x88b5, Some(0)), (0x88b5, Some(4095))] {
        let bad = XdpSpec { ethertype, vlan, ..here.clone() };
        assert!(matches!(why(&veth.a, &bad), EtherOpenError::BadSpec { .. }));
    }
    let mut other = pool_of(0, 10);
    let foreign = opened(&veth.a, &here, &mut arena, &mut other).unwrap_err();
    assert_eq!(foreign, EtherOpenError::ForeignPool);
    let too_small = opened(&veth.a, &here, &mut Arena::of(&other), &mut other).unwrap_err();
    assert!(too_small.to_string().contains("more single chunks"), "{too_small}");
    assert_eq!(other.free(strowger_frame::ChunkClass::Single), 10);
}

#[test]
fn another_program_there_is_a_clear_error() {
    let veth = veth!();
    let first = Station::new(&veth.a, &spec("a0", RxMode::Copy)).unwrap();
    // The automatic mode does not fall back to AF_PACKET either.
    let auto = XdpSpec { backend: ModeChoice::Auto, ..spec("a0", RxMode::Copy) };
    // Each waits some seconds for the other program to end, so all wait at the same time.
    thread::scope(|scope| {
        for spec in XDP.map(|mode| spec("a0", mode)).into_iter().chain([auto]) {
            let there = &veth.a;
            scope.spawn(move || {
                let second = Station::new(there, &spec).map(drop).unwrap_err();
                assert!(matches!(second, EtherOpenError::ProgramPresent { .. }), "{second}");
                assert!(second.to_string().contains("another XDP program is on a0"), "{second}");
            });
        }
    });
    // With AF_PACKET the port opens, but may receive nothing. A warning says so.
    let report = |there: &Namespace| {
        let (mut pool, spec) = (pool(), spec("a0", RxMode::Packet));
        opened(there, &spec, &mut Arena::of(&pool), &mut pool).unwrap().report
    };
    let warnings = report(&veth.a).warnings();
    assert!(warnings[0].contains("another XDP program is on a0"), "{warnings:?}");
    drop(first);
    assert_eq!(report(&veth.a).warnings(), [""; 0]);
}

#[test]
fn a_queue_has_one_port_and_an_interface_one_kind_of_traffic() {
    let veth = veth!();
    let mut pool = pool();
    let mut arena = Arena::of(&pool);
    let mut open = |spec: &XdpSpec| opened(&veth.a, spec, &mut arena, &mut pool);
    let _first = open(&spec("a0", RxMode::Copy)).unwrap();
    let busy = open(&spec("a0", RxMode::Copy)).unwrap_err();
    assert!(matches!(busy, EtherOpenError::QueueBusy { queue: 0, .. }), "{busy}");
    let other = open(&XdpSpec { ethertype: 0x88b6, ..spec("a0", RxMode::Copy) }).unwrap_err();
    assert!(matches!(other, EtherOpenError::OtherTraffic { .. }), "{other}");
    let elsewhere = open(&spec("a0", RxMode::Generic)).unwrap_err();
    assert!(elsewhere.to_string().contains("the program in another mode"), "{elsewhere}");
}

#[test]
fn a_restart_finds_the_queue_free_and_no_memory_is_lost() {
    let veth = veth!();
    let mut pool = pool();
    let mut arena = Arena::of(&pool);
    let mut b = Station::new(&veth.b, &spec("b0", RxMode::Copy)).unwrap();
    for round in 0..10_u8 {
        let mode = XDP[usize::from(round) % 2];
        let opened = opened(&veth.a, &spec("a0", mode), &mut arena, &mut pool).unwrap();
        let (mut port, mac) = (opened.port, opened.report.mac);
        port.admit(Mark(0), b.at).unwrap();
        b.port.forget(Mark(0));
        b.port.admit(Mark(0), strowger_frame::Address::Ether(mac)).unwrap();
        send(&mut port, Mark(0), [frame(&mut pool, 50, round)]);
        assert_eq!(receive(&mut b.port, &mut b.pool, 1)[0].bytes(), [round; 50]);
        // Some frames stay in the port's rings.
        send(&mut b.port, Mark(0), (0..9).map(|n| frame(&mut b.pool, 50, n)).collect::<Vec<_>>());
        drop(port);
        assert_eq!(pool.free(strowger_frame::ChunkClass::Single), 1500);
    }
}

/// The process that the next test kills. If it is run as an ordinary test, it does nothing.
#[test]
fn child_with_a_port() {
    let Ok(interface) = std::env::var("STROWGER_TEST_INTERFACE") else { return };
    let mut pool = pool();
    let mut arena = Arena::of(&pool);
    let spec = spec(&interface, RxMode::Copy);
    let _open = strowger_io::xdp::open(&spec, &mut arena, &mut pool, 0).unwrap();
    println!("\nattached");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_leaves_no_program() {
    let veth = veth!();
    let mut child = Command::new("ip")
        .args(["netns", "exec", &veth.a.0])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "xdp_life::child_with_a_port", "--nocapture"])
        .env("STROWGER_TEST_INTERFACE", "a0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let attached = lines.any(|line| line == "attached");
    let before = veth.a.ip("link show dev a0");
    let refused = Station::new(&veth.a, &spec("a0", RxMode::Copy)).map(drop);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert!(attached && before.contains("xdp"), "{before}");
    assert!(matches!(refused, Err(EtherOpenError::ProgramPresent { .. })));
    until("the program to go", || !veth.a.ip("link show dev a0").contains("xdp"));
    Station::new(&veth.a, &spec("a0", RxMode::Copy)).unwrap();
}

#[test]
fn a_link_goes_down_and_comes_back() {
    for mode in RX_MODES {
        let veth = veth!();
        let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", RxMode::Copy));
        for (namespace, link) in [(&veth.a, "a0"), (&veth.b, "b0")] {
            namespace.ip(&format!("link set dev {link} down"));
            let before = a.tally().total_lost() + a.tally().frames_out.read();
            let mut frames: Vec<_> = (0..100).map(|n| frame(&mut a.pool, 50, n)).collect();
            frames.truncate(100);
            send(&mut a.port, Mark(0), frames);
            a.port.rx_burst(&mut a.pool, &mut strowger_frame::Burst::new());
            assert_ne!(a.port.arm(), Arm::Poll);
            a.port.disarm();
            namespace.ip(&format!("link set dev {link} up"));
            until("the frames taken to be reported", || {
                a.port.flush();
                a.tally().total_lost() + a.tally().frames_out.read() == before + 100
            });
            assert!(!a.port.is_gone());
            assert!(a.tally().lost(Loss::SendRefused) > 0, "{:?}", a.tally());
            drop(drain(&mut b.port, &mut b.pool));
            until("frames to flow again", || {
                send(&mut a.port, Mark(0), [frame(&mut a.pool, 50, 1)]);
                !drain(&mut b.port, &mut b.pool).is_empty()
            });
            let out = a.tally().frames_out.read();
            send(&mut a.port, Mark(0), [frame(&mut a.pool, 50, 1)]);
            until("it to go", || {
                a.port.flush();
                drop(drain(&mut a.port, &mut a.pool));
                a.tally().frames_out.read() == out + 1
            });
        }
    }
}

#[test]
fn an_interface_that_vanishes_is_reported_and_nothing_hangs() {
    for mode in RX_MODES {
        let veth = veth!();
        let (mut a, b) = stations(&veth, &spec("a0", mode), &spec("b0", RxMode::Copy));
        veth.a.ip("link del dev a0");
        for _ in 0..3 {
            let frames: Vec<_> = (0..100).map(|n| frame(&mut a.pool, 50, n)).collect();
            send(&mut a.port, Mark(0), frames);
        }
        until("the end to be known", || {
            assert!(drain(&mut a.port, &mut a.pool).is_empty());
            wait(&mut a.port, Duration::ZERO);
            a.port.is_gone()
        });
        assert!(a.tally().lost(Loss::PeerGone) > 0);
        assert_eq!(a.tally().total_lost(), 300, "{:?}", a.tally());
        // An interface that is gone does not keep the worker awake.
        assert!(!wait(&mut a.port, Duration::from_millis(20)), "{mode:?}");
        drop(b);
        let Station { mut pool, arena, port, .. } = a;
        drop((port, arena));
        assert_eq!(pool.free(strowger_frame::ChunkClass::Single), 1500);
    }
}

/// The interface goes down first. The socket reports that before it returns the frames that wait in
/// it.
#[test]
fn frames_that_waited_do_not_hide_that_an_interface_vanishes() {
    for mode in RX_MODES {
        let veth = veth!();
        let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", RxMode::Copy));
        let frames: Vec<_> = (0..10).map(|n| frame(&mut b.pool, 50, n)).collect();
        send(&mut b.port, Mark(0), frames);
        until("some to wait", || wait(&mut a.port, Duration::from_millis(100)));
        veth.a.ip("link set dev a0 down");
        drop(drain(&mut a.port, &mut a.pool));
        assert!(!a.port.is_gone());
        veth.a.ip("link del dev a0");
        until("the end to be known", || {
            drop(drain(&mut a.port, &mut a.pool));
            wait(&mut a.port, Duration::ZERO);
            a.port.is_gone()
        });
    }
}

#[test]
fn a_port_works_after_rights_are_dropped() {
    for mode in RX_MODES {
        let veth = veth!();
        let (mut a, mut b) = stations(&veth, &spec("a0", mode), &spec("b0", mode));
        std::thread::scope(|scope| {
            let nobody = scope.spawn(|| {
                // The bare system call affects only this thread; libc's function would affect all
                // threads. SAFETY: the call takes only numbers. Changing from root to another user
                // removes all capabilities.
                let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
                assert_eq!(changed, 0);
                let found = strowger_io::xdp::probe(1 << 20);
                eprintln!("{found}");
                assert_eq!(found.missing, ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
                assert!(found.packet.is_err() && found.socket.is_err() && found.best().is_none());
                for n in 0..200_u8 {
                    let burst: Vec<_> = (0..20).map(|_| frame(&mut a.pool, 100, n)).collect();
                    send(&mut a.port, Mark(0), burst);
                    let back = receive(&mut b.port, &mut b.pool, 20);
                    send(&mut b.port, Mark(0), back);
                    assert!(
                        receive(&mut a.port, &mut a.pool, 20).iter().all(|f| f.bytes() == [n; 100])
                    );
                }
                assert_eq!((a.tally().total_lost(), b.tally().total_lost()), (0, 0));
                drop((a, b));
            });
            nobody.join().unwrap();
        });
    }
}

/// Sets the number of queues of `interface`, in this thread's namespace, for each direction.
fn set_queues(interface: &str, queues: u32) -> Result<(), std::io::Error> {
    use std::os::fd::AsRawFd as _;
    // `struct ethtool_channels` with ETHTOOL_SCHANNELS: maxima, then rx, tx, other, combined.
    let mut channels = [0x3d, 0, 0, 0, 0, queues, queues, 0, 0_u32];
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
    let mut arguments: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in arguments.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    arguments.ifr_ifru.ifru_data = channels.as_mut_ptr().cast();
    // SAFETY: the request reads `arguments` and what it points to, which outlive the call.
    let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut arguments) };
    if set < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn removed_queues_are_reported() {
    let two = "numrxqueues 2 numtxqueues 2";
    let veth = veth!(two, two);
    let (mut a, mut b) = stations(
        &veth,
        &XdpSpec { queue: 1, ..spec("a0", RxMode::Copy) },
        &XdpSpec { queue: 1, ..spec("b0", RxMode::Copy) },
    );
    send(&mut a.port, Mark(0), [frame(&mut a.pool, 50, 1)]);
    receive(&mut b.port, &mut b.pool, 1);
    // Linux may refuse to remove a queue that has a socket. If it does not refuse, nothing must
    // block forever.
    let taken = veth.a.within(|| set_queues("a0", 1));
    eprintln!("one queue instead of two, with a port on the second: {taken:?}");
    let frames: Vec<_> = (0..100).map(|n| frame(&mut a.pool, 50, n)).collect();
    send(&mut a.port, Mark(0), frames);
    until("all to be reported", || {
        a.port.flush();
        drop(drain(&mut b.port, &mut b.pool));
        a.tally().frames_out.read() + a.tally().total_lost() == 101
    });
    drop(a);
    // The kernel releases the queue of a socket some time after the socket has been closed.
    until("the queue to go", || veth.a.within(|| set_queues("a0", 1)).is_ok());
    let gone = Station::new(&veth.a, &XdpSpec { queue: 1, ..spec("a0", RxMode::Copy) });
    let gone = gone.map(drop).unwrap_err();
    assert!(matches!(gone, EtherOpenError::NoQueue { queue: 1, queues: 1, .. }), "{gone}");
    // A veth needs as many rx queues as the far end has tx queues; otherwise it accepts no program.
    let few = Station::new(&veth.a, &spec("a0", RxMode::Copy)).map(drop).unwrap_err();
    assert!(few.to_string().contains("ENOSPC"), "{few}");
    drop(b);
    until("the far queue to go", || veth.b.within(|| set_queues("b0", 1)).is_ok());
    Station::new(&veth.a, &spec("a0", RxMode::Copy)).unwrap();
}

/// Removes all capabilities of this thread except these.
fn keep_capabilities(kept: &[u32]) {
    let set: u64 = kept.iter().map(|number| 1 << number).sum();
    let (low, high) = (set as u32, (set >> 32) as u32);
    // Version 3 of the header, for the calling thread; then effective, permitted, inheritable.
    let header = [0x2008_0522_u32, 0];
    let rights = [[low, low, 0], [high, high, 0_u32]];
    // SAFETY: both have the length of version 3 and outlive the call.
    let changed = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), rights.as_ptr()) };
    assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn without_rights_the_next_mode_is_used_and_the_missing_right_is_named() {
    const NET_ADMIN: u32 = 12;
    const NET_RAW: u32 = 13;
    const BPF: u32 = 39;
    let veth = veth!();
    let auto = XdpSpec { backend: ModeChoice::Auto, ..spec("a0", RxMode::Copy) };
    let open_with = |kept: &[u32], pool: &mut strowger_frame::Pool| {
        veth.a.within(|| {
            keep_capabilities(kept);
            strowger_io::xdp::open(&auto, &mut Arena::of(pool), pool, 0)
        })
    };
    let mut small = pool();
    let none = open_with(&[], &mut small).map(drop).unwrap_err();
    eprintln!("{none}");
    assert!(matches!(&none, EtherOpenError::NothingWorks { refused, .. } if refused.len() == 4));
    assert!(
        none.to_string().contains("setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep"),
        "{none}"
    );

    let report = open_with(&[NET_RAW], &mut small).unwrap().report;
    eprintln!("{report}");
    assert_eq!((report.mode, report.refused.len()), (RxMode::Packet, 3));
    assert!(report.to_string().contains("BPF_MAP_CREATE: EPERM"), "{report}");

    // The three capabilities are enough if the limit of locked memory is high enough.
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: `limit` outlives the call. It does not affect the other tests of this process, which
    // have CAP_IPC_LOCK.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
    let report = open_with(&[NET_ADMIN, NET_RAW, BPF], &mut small).unwrap().report;
    assert_eq!(report.mode, RxMode::Packet);
    assert!(report.to_string().contains("XDP_UMEM_REG: ENOBUFS (os error 105); raise the limit"));
    let mut tiny = pool_of(0, 4 + 64 + 100);
    let report = open_with(&[NET_ADMIN, NET_RAW, BPF], &mut tiny).unwrap().report;
    assert_eq!((report.mode, report.fill_ring_frames), (RxMode::Copy, 100), "{report}");
    assert!(
        report
            .to_string()
            .contains("the pool had 100 single chunks for the fill ring instead of 256")
    );
}
