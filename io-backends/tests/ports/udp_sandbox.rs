//! Tests of UDP ports in a sandbox that refuses system calls.

use std::time::{Duration, Instant};

use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port};
use strowger_io::{
    sys::Errno,
    udp::{BackendChoice, UdpOpenError, UdpSpec, open, open_steered, probe},
};

use crate::sandbox::without;

const DEADLINE: Duration = Duration::from_secs(60);

fn spec() -> UdpSpec {
    UdpSpec { backend: BackendChoice::Mmsg, ..UdpSpec::new("127.0.0.1:0".parse().unwrap()) }
}

#[test]
fn a_sandbox_without_the_calls_for_many_messages_has_one_call_for_each() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for calls in [vec![libc::SYS_recvmmsg, libc::SYS_sendmmsg], vec![libc::SYS_sendmmsg]] {
            without(&calls, errno, || {
                let (a, b) = (open(&spec(), 0).unwrap(), open(&spec(), 0).unwrap());
                let refused = a.report.many.clone().unwrap_err();
                assert_eq!(refused.errno(), Some(Errno(errno)));
                assert!(a.report.to_string().contains("one system call for each datagram"));
                let (at_a, at_b) = (a.local_addr(), b.local_addr());
                let (mut a, mut b) = (a.port, b.port);
                a.admit(Mark(0), Address::Udp(at_b)).unwrap();
                b.admit(Mark(0), Address::Udp(at_a)).unwrap();
                let mut pool =
                    Pool::new(&PoolSpec { trains: 200, singles: 200, huge_pages: false }).unwrap();
                // Half of the frames have one length, so they can be a train. The other lengths all
                // differ.
                let mut burst: Burst = (0..60)
                    .map(|n| {
                        let chunk = pool.take(ChunkClass::Single).unwrap();
                        chunk.into_frame(256, if n < 30 { 100 } else { 100 + n })
                    })
                    .collect();
                a.tx_burst(Mark(0), &mut burst);
                a.flush();
                let deadline = Instant::now() + DEADLINE;
                let mut came = 0;
                while came < 60 {
                    assert!(Instant::now() < deadline, "{came} came: {:?}", b.tally());
                    let mut burst = Burst::new();
                    b.rx_burst(&mut pool, &mut burst);
                    came += burst.len();
                }
                let found = probe(1 << 16);
                assert!(found.datagrams.is_ok() && found.many.is_err());
            });
        }
    }
}

#[test]
fn a_sandbox_without_any_call_is_an_error_at_the_start() {
    let receive = [libc::SYS_recvmmsg, libc::SYS_recvmsg];
    let send = [libc::SYS_sendmmsg, libc::SYS_sendmsg];
    for calls in [receive, send] {
        without(&calls, libc::EPERM, || {
            let refused = open(&spec(), 0).expect_err("it would be deaf or dumb");
            assert!(
                matches!(refused, UdpOpenError::CallsRefused { error, .. } if error.errno == Errno(libc::EPERM)),
                "{refused}"
            );
            assert!(refused.to_string().contains("seccomp"), "{refused}");
            let steered = open_steered(&spec(), 2).expect_err("so would these");
            assert!(matches!(steered, UdpOpenError::CallsRefused { .. }), "{steered}");
            assert!(probe(1 << 16).datagrams.is_err());
        });
    }
}
