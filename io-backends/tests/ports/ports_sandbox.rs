//! Tests of unix and AF_PACKET ports in a sandbox that refuses the calls for many messages, or all
//! calls.

use std::time::Instant;

use strowger_frame::{Address, Burst, Mark, Port};
use strowger_io::{
    sys::Errno,
    unix::{Client, ListenError, UnixPort, UnixSpec},
    xdp::{Arena, RxMode, probe},
};

use crate::{sandbox::without, veth::*};

const MANY: [i64; 2] = [libc::SYS_recvmmsg, libc::SYS_sendmmsg];
const RECEIVE: [i64; 2] = [libc::SYS_recvmmsg, libc::SYS_recvmsg];
const SEND: [i64; 2] = [libc::SYS_sendmmsg, libc::SYS_sendmsg];

fn path(what: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("strowger-sandbox-{}-{what}", std::process::id()))
}

#[test]
fn a_unix_port_without_the_calls_for_many_messages_has_one_call_for_each() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for calls in [&MANY[..], &MANY[..1], &MANY[1..]] {
            let path = path("unix");
            let mut pool = pool();
            without(calls, errno, || {
                let mut port = UnixPort::listen(&path, &UnixSpec::default()).unwrap();
                let refused = UnixPort::many().unwrap_err();
                assert_eq!(refused.errno(), Some(Errno(errno)));
                assert!(UnixPort::probe().unwrap().contains("one system call for each packet"));
                port.admit(Mark(3), Address::Only).unwrap();
                let mut client = Client::connect(&path).unwrap();
                // The client sends more packets than the port receives in one call.
                for n in 0..50 {
                    assert!(client.send(&[n; 100], DEADLINE).unwrap());
                }
                let deadline = Instant::now() + DEADLINE;
                let mut came = Vec::new();
                while came.len() < 50 {
                    let mut burst = Burst::new();
                    port.rx_burst(&mut pool, &mut burst);
                    came.extend(burst.iter().map(|frame| frame.bytes()[0]));
                    assert!(Instant::now() < deadline, "{came:?}: {:?}", port.tally());
                }
                assert_eq!(came, (0..50).collect::<Vec<u8>>());
                let mut sent = 0;
                while sent < 50 {
                    let mut burst: Burst = [frame(&mut pool, 80, sent)].into_iter().collect();
                    let n = 1 + u8::from(sent < 49);
                    burst.extend((n > 1).then(|| frame(&mut pool, 80, sent + 1)));
                    port.tx_burst(Mark(3), &mut burst);
                    assert!(burst.is_empty());
                    for n in sent..sent + n {
                        let mut bytes = [0; 200];
                        let got = client.receive(&mut bytes, DEADLINE).unwrap();
                        assert!(got.is_some() && bytes[..80] == [n; 80]);
                    }
                    sent += n;
                }
                assert_eq!(port.tally().total_lost(), 0);
            });
        }
    }
}

#[test]
fn a_unix_port_without_any_call_is_refused_at_the_start() {
    for calls in [RECEIVE, SEND] {
        without(&calls, libc::EPERM, || {
            let refused = UnixPort::listen(path("deaf"), &UnixSpec::default()).unwrap_err();
            assert!(matches!(refused, ListenError::CallsRefused { .. }), "{refused}");
            assert!(refused.to_string().contains("seccomp"), "{refused}");
            assert!(UnixPort::probe().is_err());
        });
    }
}

#[test]
fn af_packet_without_the_calls_for_many_messages_has_one_call_for_each() {
    let veth = veth!();
    for calls in [&MANY[..], &MANY[..1], &MANY[1..]] {
        let mut pool = pool();
        let within = veth.a.within(|| {
            without(calls, libc::EPERM, || {
                let mut far = Station::new(&veth.b, &spec("b0", RxMode::Packet)).unwrap();
                let spec = spec("a0", RxMode::Packet);
                let opened =
                    strowger_io::xdp::open(&spec, &mut Arena::of(&pool), &mut pool, 0).unwrap();
                assert!(opened.report.to_string().contains("one system call for each frame"));
                assert!(probe(1 << 20).packet.unwrap().contains("one system call for each frame"));
                let mut port = opened.port;
                port.admit(Mark(0), far.at).unwrap();
                far.port.admit(Mark(0), Address::Ether(opened.report.mac)).unwrap();
                send(&mut port, Mark(0), (0..50).map(|n| frame(&mut pool, 100, n)));
                let came = receive(&mut far.port, &mut far.pool, 50);
                assert!(came.iter().enumerate().all(|(n, frame)| frame.bytes() == [n as u8; 100]));
                drop(came);
                let frames = (0..50).map(|n| frame(&mut far.pool, 100, n)).collect::<Vec<_>>();
                send(&mut far.port, Mark(0), frames);
                let came = receive(&mut port, &mut pool, 50);
                assert!(came.iter().enumerate().all(|(n, frame)| frame.bytes() == [n as u8; 100]));
                assert_eq!(port.tally().total_lost(), 0);
            })
        });
        if within.is_none() {
            return;
        }
    }
    for calls in [RECEIVE, SEND] {
        let mut pool = pool();
        veth.a.within(|| {
            without(&calls, libc::EPERM, || {
                let spec = spec("a0", RxMode::Packet);
                let refused = strowger_io::xdp::open(&spec, &mut Arena::of(&pool), &mut pool, 0);
                let why = refused.expect_err("it would be deaf or dumb").to_string();
                assert!(why.contains("seccomp") && why.contains("msg: EPERM"), "{why}");
                assert!(probe(1 << 20).packet.is_err());
            })
        });
    }
}
