//! Steers received datagrams in the kernel (R9).
//!
//! Each worker receives on one socket, and all are bound to a common address. One more socket
//! receives everything that begins like a handshake message, so that handshakes of unknown senders
//! do not fill a worker's queue. A self-test on loopback shows whether steering works. If it does
//! not, the workers receive the handshakes and punt them.
//!
//! A classic BPF program (`SO_ATTACH_REUSEPORT_CBPF`) selects the socket of the group for each
//! datagram. In its loads, offset 0 is the start of the payload, and `SKF_NET_OFF` is the start of
//! the network header:
//!
//! | load | meaning |
//! |---|---|
//! | payload 0, high nibble | kind (wire.md section 3); 1 to 3 are handshakes |
//! | network 12, IPv4; 8, 12, 16, 20, IPv6 | source address; words of an IPv6 address are XORed |
//! | network 20, IPv4; 40, IPv6 | source port |
//!
//! The worker is `(((address ^ port) * 0x9E37_79B1) >> 16) % workers`, in 32 bits, as in
//! [`worker_of`]. With IP options or extension headers, the program reads other bytes in place of
//! the port. Such a flow may arrive at a worker other than the one that `worker_of` returns, and
//! the engine hands its frames off.
//!
//! The program reads only the first datagram of a train, and the kernel joins datagrams of one
//! flow. So a sender can hide handshakes behind a data frame of the same flow, and they then reach
//! a worker. The worker punts at most one full queue of them, within the budget for punts.

use std::net::{IpAddr, SocketAddr};

use super::{
    OpenedUdpPort, UdpOpenError, UdpSpec, bind_refused,
    limits::{SEND_SOCKETS, SEND_SOCKETS_HANDSHAKES},
    never_fragment, open_with,
    select_mode::{self, SELF_TEST_MAX, loopback, send},
    socket::Socket,
};
use crate::sys::{CallError, Refusal};

/// A prime near 2^32 divided by the golden ratio. It spreads consecutive ports.
const SPREAD: u32 = 0x9E37_79B1;

/// The sockets at one address.
#[derive(Debug)]
pub struct Steered {
    /// One socket for each worker, in the order of the workers.
    pub workers: Vec<OpenedUdpPort>,
    /// The socket for handshakes, which the slow path reads, or the reason why there is none.
    ///
    /// If there is none, the workers' sockets receive the handshakes.
    pub slow: Result<OpenedUdpPort, Refusal>,
}

/// Opens one socket for each worker and one for the slow path, all at `spec.bind`.
///
/// # Errors
/// As [`open`](super::open). A kernel that refuses to steer is not an error.
pub fn open_steered(spec: &UdpSpec, workers: usize) -> Result<Steered, UdpOpenError> {
    let steers = self_test(spec.bind);
    let has_slow = steers.is_ok() && !spec.steering_refused;
    let shares = workers > 1 || steers.is_ok();
    if shares && !spec.reuse_port {
        // Sockets that share an address also share it with other processes of this user, which
        // would then receive part of the frames. Binding a socket that does not share the address
        // detects such processes.
        try_alone(spec)?;
    }
    let mut spec = UdpSpec { reuse_port: spec.reuse_port || shares, ..spec.clone() };
    let mut steers = steers.map(|()| program(spec.bind.ip(), workers, has_slow));
    let mut opened = Vec::new();
    for worker in 0..workers {
        let attach = |socket: &Socket| {
            // The program is attached to the first socket of the group, before a datagram can reach
            // another socket.
            if let (0, Ok(program)) = (worker, &steers)
                && let Err(errno) = socket.attach_to_group(program)
            {
                steers = Err(refused(errno));
            }
        };
        let one = open_with(&spec, worker, attach)?;
        spec.bind = one.local_addr();
        opened.push(one);
    }
    let mut slow = match &steers {
        Err(refusal) => Err(refusal.clone()),
        Ok(_) if !has_slow => Err(Refusal::new("switched off in the settings of the port", "")),
        Ok(_) => {
            // Handshakes arrive one by one, so this socket needs no trains, and room only for a
            // short burst.
            let slow = UdpSpec {
                gro: false,
                gso: false,
                backend: super::BackendChoice::Mmsg,
                frame_bytes_max: SLOW_BYTES_MAX,
                socket_buffer_bytes: SLOW_BUFFER_BYTES,
                neighbours_max: 1,
                ..spec.clone()
            };
            let mut slow = open_with(&slow, workers, |_| ())?;
            strowger_frame::Port::accept_unknown(&mut slow.port, true);
            Ok(slow)
        }
    };
    // Send sockets are opened last, so that the socket numbers in the program are those of the
    // receiving sockets.
    let steers = steers.map(drop);
    for one in &mut opened {
        open_send_sockets(one, &spec, steers.clone(), SEND_SOCKETS);
    }
    if let Ok(slow) = &mut slow {
        open_send_sockets(slow, &spec, Ok(()), SEND_SOCKETS_HANDSHAKES);
    }
    Ok(Steered { workers: opened, slow })
}

/// Opens send sockets in addition to the socket of `opened`: up to `wanted` with that socket, or as
/// many as the kernel allows.
///
/// The program of the group ensures that they receive nothing. If `steers` is an error, no send
/// socket is opened.
pub(super) fn open_send_sockets(
    opened: &mut OpenedUdpPort,
    spec: &UdpSpec,
    steers: Result<(), Refusal>,
    wanted: usize,
) {
    let at = opened.local_addr();
    let open = || -> Result<Socket, Refusal> {
        let step = |call| {
            move |errno| {
                CallError::new(call, errno).with_remedy(match errno {
                    libc::EMFILE | libc::ENFILE => "raise the limit of open files: ulimit -n",
                    _ => "",
                })
            }
        };
        let socket = Socket::with(at, spec.is_dual()).map_err(step("socket"))?;
        let shared = socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        shared.map_err(step("SO_REUSEPORT"))?;
        never_fragment(&socket, at).map_err(step("IP_MTU_DISCOVER"))?;
        let _ = select_mode::send_buffer(&socket, spec.socket_buffer_bytes);
        socket.bind(at).map_err(step("bind"))?;
        Ok(socket)
    };
    let mut sockets = Vec::new();
    let mut refusal = steers.err();
    while refusal.is_none() && sockets.len() + 1 < wanted {
        match open() {
            Ok(socket) => sockets.push(socket),
            Err(why) => refusal = Some(why),
        }
    }
    opened.report.send_sockets = 1 + sockets.len();
    opened.report.send_sockets_refused = refusal;
    opened.port.add_send_sockets(sockets);
}

/// Checks that no other socket is bound to the address.
pub(super) fn try_alone(spec: &UdpSpec) -> Result<(), UdpOpenError> {
    let at = spec.bind;
    let step = |call| move |errno| UdpOpenError::Call { at, error: CallError::new(call, errno) };
    let socket = Socket::with(at, spec.is_dual()).map_err(step("socket"))?;
    socket.bind(at).map_err(|errno| bind_refused(at, errno))
}

/// The program of a group in which only the first socket receives.
pub(super) fn first_alone() -> Vec<libc::sock_filter> {
    vec![libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }]
}

/// Maximum length of a handshake message, with some reserve.
const SLOW_BYTES_MAX: usize = 1_500;

/// The slow path processes this many bytes of handshakes in a quarter of a second. Replies to
/// messages that wait longer would be too late.
const SLOW_BUFFER_BYTES: usize = 512 << 10;

/// The worker that receives datagrams from this address, if steering works.
pub fn worker_of(from: SocketAddr, workers: usize) -> usize {
    let address = match from.ip() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => {
            let words = ip.to_bits();
            (words ^ words >> 32 ^ words >> 64 ^ words >> 96) as u32
        }
    };
    let spread = (address ^ u32::from(from.port())).wrapping_mul(SPREAD) >> 16;
    spread as usize % workers.max(1)
}

/// A common default of the kernel's limit on a socket's option memory. The program needs a few
/// hundred bytes.
const OPTMEM_BYTES: usize = 20_480;

pub(super) fn refused(errno: i32) -> Refusal {
    CallError::new("SO_ATTACH_REUSEPORT_CBPF", errno).with_remedy(match errno {
        libc::ENOMEM => format!("raise it with: sysctl -w net.core.optmem_max={OPTMEM_BYTES}"),
        _ => "it needs Linux 4.5".to_owned(),
    })
}

/// The program for sockets of this address family.
///
/// Handshakes go to the socket after those of the workers, if there is one. Everything else goes to
/// the socket of its worker.
fn program(kind: IpAddr, workers: usize, has_slow: bool) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_MISC,
        BPF_MUL,
    };
    use libc::{BPF_MOD, BPF_RET, BPF_RSH, BPF_SUB, BPF_TAX, BPF_W, BPF_X, BPF_XOR};

    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let network = |offset: u32| libc::SKF_NET_OFF as u32 + offset;
    // Loads the words of the source address and the port, and computes the worker.
    let worker = |first: u32, others: &[u32], port: u32| {
        let mut part = vec![step(BPF_LD | BPF_W | BPF_ABS, network(first))];
        let loads = others.iter().map(|&word| (BPF_W, word)).chain([(BPF_H, port)]);
        for (size, offset) in loads {
            part.push(step(BPF_MISC | BPF_TAX, 0));
            part.push(step(BPF_LD | size | BPF_ABS, network(offset)));
            part.push(step(BPF_ALU | BPF_XOR | BPF_X, 0));
        }
        part.extend([
            step(BPF_ALU | BPF_MUL | BPF_K, SPREAD),
            step(BPF_ALU | BPF_RSH | BPF_K, 16),
            step(BPF_ALU | BPF_MOD | BPF_K, workers.max(1) as u32),
            step(BPF_RET | BPF_A, 0),
        ]);
        part
    };
    let mut program = Vec::new();
    if has_slow {
        program.extend([
            step(BPF_LD | BPF_B | BPF_ABS, 0),
            step(BPF_ALU | BPF_RSH | BPF_K, 4),
            step(BPF_ALU | BPF_SUB | BPF_K, 1),
            // Kinds 1 to 3 have become 0 to 2, and kind 0 a large number.
            libc::sock_filter { jt: 1, ..step(BPF_JMP | BPF_JGT | BPF_K, 2) },
            step(BPF_RET | BPF_K, workers as u32),
        ]);
    }
    // An IPv4 address is one word, which is XORed with the port only.
    let of_v4 = worker(12, &[], 20);
    if kind.is_ipv6() {
        // An IPv6 socket may also receive IPv4; the version is in the first nibble.
        let skip = of_v4.len() as u8;
        program.extend([
            step(BPF_LD | BPF_B | BPF_ABS, network(0)),
            step(BPF_ALU | BPF_RSH | BPF_K, 4),
            libc::sock_filter { jf: skip, ..step(BPF_JMP | BPF_JEQ | BPF_K, 4) },
        ]);
    }
    program.extend(of_v4);
    if kind.is_ipv6() {
        program.extend(worker(8, &[12, 16, 20], 40));
    }
    program
}

/// Tests steering with two sockets at one address on loopback.
///
/// Datagrams that begin like a handshake must reach the second socket, and data must reach the
/// first.
pub(super) fn self_test(like: SocketAddr) -> Result<(), Refusal> {
    let step = |call| move |errno| Refusal::from(CallError::new(call, errno));
    let member = |at: SocketAddr| -> Result<Socket, Refusal> {
        let socket = Socket::new(at).map_err(step("socket"))?;
        let shared = socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        shared.map_err(step("SO_REUSEPORT"))?;
        Ok(socket)
    };
    let at = loopback(like);
    let first = member(at)?;
    first.attach_to_group(&program(at.ip(), 1, true)).map_err(refused)?;
    first.bind(at).map_err(step("bind to loopback"))?;
    let at = first.local().map_err(step("getsockname"))?;
    let second = member(at)?;
    second.bind(at).map_err(step("bind to loopback"))?;
    let sender = Socket::new(at).map_err(step("socket"))?;
    for (byte, to) in [(0x10, &second), (0x40, &first), (0x30, &second), (0x60, &first)] {
        send(&sender, at, &[byte; 8], None).map_err(step("sending a datagram over loopback"))?;
        if !to.wait_readable(SELF_TEST_MAX.as_millis() as i32) {
            let what = "SO_ATTACH_REUSEPORT_CBPF succeeds, but the kernel does not steer";
            return Err(Refusal::new(what, ""));
        }
        to.take_one().map_err(step("receiving a steered datagram"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use strowger_frame::{Address, Burst, Pool, PoolSpec, Port};

    use super::*;

    const WORKERS: usize = 3;

    fn take(one: &mut OpenedUdpPort, pool: &mut Pool) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut burst = Burst::new();
        one.port.rx_burst(pool, &mut burst);
        let from = |frame: &strowger_frame::Frame| match one.port.address_of(frame.mark()) {
            Some(Address::Udp(from)) => from,
            other => panic!("the frame has an address of UDP, not {other:?}"),
        };
        burst.iter().map(|frame| (from(frame), frame.bytes().to_vec())).collect()
    }

    fn steered(bind: &str, refused: bool) -> (Steered, Pool) {
        let mut spec = UdpSpec::new(bind.parse().expect("an address"));
        spec.steering_refused = refused;
        let mut steered = open_steered(&spec, WORKERS).expect("loopback");
        for one in &mut steered.workers {
            one.port.accept_unknown(true);
        }
        let pool = PoolSpec { trains: 300, singles: 100, huge_pages: false };
        (steered, Pool::new(&pool).expect("memory"))
    }

    /// Sends datagrams of every kind from many sources.
    ///
    /// Only the slow path's socket may receive handshakes. Everything else must arrive at the
    /// worker that `worker_of` returns.
    fn handshakes_apart(bind: &str) {
        let (mut steered, mut pool) = steered(bind, false);
        let Ok(slow) = &mut steered.slow else {
            let why = steered.slow.as_ref().err();
            return strowger_testkit::unsupported(&format!("the kernel does not steer: {why:?}"));
        };
        let at = slow.local_addr();
        let mut seen = [0; WORKERS];
        for _ in 0..24 {
            let sender = UdpSocket::bind((at.ip(), 0)).expect("loopback");
            let from = sender.local_addr().expect("bound");
            let expected = worker_of(from, WORKERS);
            for kind in 0..16_u8 {
                let bytes = [kind << 4 | 7; 32];
                sender.send_to(&bytes, at).expect("loopback");
                let slow_has = take(slow, &mut pool);
                let workers_have: Vec<_> =
                    steered.workers.iter_mut().map(|one| take(one, &mut pool)).collect();
                let is_handshake = (1..=3).contains(&kind);
                let (whole, none) = (vec![(from, bytes.to_vec())], vec![]);
                for (worker, has) in workers_have.iter().enumerate() {
                    let here = !is_handshake && worker == expected;
                    assert_eq!(has, if here { &whole } else { &none }, "kind {kind}");
                }
                assert_eq!(slow_has, if is_handshake { whole } else { none }, "kind {kind}");
            }
            seen[expected] += 1;
        }
        assert!(seen.iter().all(|&seen| seen > 0), "24 sources reach every worker: {seen:?}");
    }

    #[test]
    fn r9_handshakes_come_in_at_the_slow_path_s_socket_and_data_at_the_workers() {
        handshakes_apart("127.0.0.1:0");
    }

    #[test]
    fn r9_the_same_holds_over_ipv6() {
        if UdpSocket::bind("[::1]:0").is_err() {
            return strowger_testkit::unsupported("no IPv6 on this machine");
        }
        handshakes_apart("[::1]:0");
    }

    #[test]
    fn without_steering_workers_receive_everything_and_the_reason_is_given() {
        let (mut steered, mut pool) = steered("127.0.0.1:0", true);
        let why = steered.slow.as_ref().unwrap_err().to_string();
        assert!(why.contains("switched off"), "{why}");
        let at = steered.workers[0].local_addr();
        let sender = UdpSocket::bind((at.ip(), 0)).expect("loopback");
        for kind in 0..16_u8 {
            sender.send_to(&[kind << 4; 32], at).expect("loopback");
        }
        let received: usize =
            steered.workers.iter_mut().map(|one| take(one, &mut pool).len()).sum();
        assert_eq!(received, 16);
    }

    #[test]
    fn an_empty_datagram_goes_to_a_worker() {
        let (mut steered, mut pool) = steered("127.0.0.1:0", false);
        let at = steered.workers[0].local_addr();
        let sender = UdpSocket::bind((at.ip(), 0)).expect("loopback");
        sender.send_to(&[], at).expect("loopback");
        let received: usize =
            steered.workers.iter_mut().map(|one| take(one, &mut pool).len()).sum();
        assert_eq!(received, 1);
    }
}
