//! Tests of unix ports: clients that connect, disconnect, are killed or send malformed messages. No
//! test sleeps; every wait has a deadline.

use std::{
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use strowger_frame::{Address, Burst, ChunkClass, Loss, Mark, Pool, PoolSpec, Port};
use strowger_io::{
    Waited, Waiter,
    unix::{Client, ClientError, ListenError, TrainClient, UnixPort, UnixSpec},
};
use strowger_testkit::{Rng, until, wire_md::example};

pub(crate) const LONG: Duration = Duration::from_secs(90);

/// The path of a socket file, which is removed at the end of the test.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("strowger-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&place);
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 2, singles: 256, huge_pages: false }).expect("memory")
}

fn listen(at: &Path) -> UnixPort {
    let mut port = UnixPort::listen(at, &UnixSpec::default()).expect("no other listener");
    port.admit(Mark(7), Address::Only).expect("free");
    port
}

/// Polls the port until `n` frames have arrived.
pub(crate) fn take(port: &mut UnixPort, pool: &mut Pool, n: usize) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    until("frames from the client", || {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        assert!(burst.iter().all(|frame| frame.mark() == Mark(7)));
        taken.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        taken.len() >= n
    });
    taken
}

pub(crate) fn frame(pool: &mut Pool, ingress: u32, content: &[u8]) -> strowger_frame::Frame {
    let mut frame = pool.take(ChunkClass::Single).expect("enough").into_frame(256, content.len());
    frame.bytes_mut().copy_from_slice(content);
    frame.set_mark(Mark(ingress));
    frame
}

pub(crate) fn served(port: &mut UnixPort, pool: &mut Pool, served: bool) {
    until("a client to come or go", || {
        port.rx_burst(pool, &mut Burst::new());
        port.is_serving() == served
    });
}

/// wire.md: W8-1, W8-2.
#[test]
fn packets_pass_both_ways_with_the_ingress_slot_beside_them() {
    let place = Place::new("both-ways");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = Client::connect(&place.0).expect("it listens");
    for n in 0..100_u8 {
        assert!(client.send(&vec![n; usize::from(n)], LONG).expect("served"));
    }
    let taken = take(&mut port, &mut pool, 100);
    assert!((0..100_u8).all(|n| taken[usize::from(n)] == vec![n; usize::from(n)]));

    let mut burst: Burst =
        (0..64).map(|n| frame(&mut pool, 0x0102_0300 + n, &[n as u8; 9])).collect();
    port.tx_burst(Mark(7), &mut burst);
    port.flush();
    assert!(burst.is_empty());
    let mut buffer = [0; 100];
    for n in 0..64 {
        let got = client.receive(&mut buffer, LONG).expect("served").expect("in time");
        assert_eq!((got.len, got.ingress), (9, 0x0102_0300 + n));
        assert_eq!(buffer[..9], [n as u8; 9]);
    }
    assert_eq!(client.try_receive(&mut buffer).expect("served"), None);
}

/// Returns the next message with its header, or `None` if none is waiting.
pub(crate) fn raw_message(client: &Client) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    // SAFETY: the pointer is to that many writable bytes.
    let got = unsafe {
        libc::recv(client.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
    };
    bytes.truncate(usize::try_from(got).ok()?);
    Some(bytes)
}

/// wire.md: W8-1, W8-2, W8-26.
#[test]
fn the_messages_are_those_of_the_examples() {
    let place = Place::new("examples");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    let message = example("unix-to-switch");
    // SAFETY: the pointer is to that many readable bytes.
    let sent = unsafe { libc::send(client.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    assert_eq!(sent, message.len() as isize);
    assert_eq!(take(&mut port, &mut pool, 1), [message[4..].to_vec()]);

    let message = example("unix-to-process");
    port.tx_burst(Mark(7), &mut [frame(&mut pool, 2, &message[4..])].into_iter().collect());
    port.flush();
    assert_eq!(raw_message(&client), Some(message));

    let second = Client::connect(&place.0).expect("it listens");
    let mut refused = None;
    until("the second process to be refused", || {
        port.rx_burst(&mut pool, &mut Burst::new());
        refused = raw_message(&second);
        refused.is_some()
    });
    assert_eq!(refused, Some(example("unix-busy")));
    assert_eq!(raw_message(&second), Some(vec![]), "the connection ends");
}

/// wire.md: W8-27, W8-28.
#[test]
fn malformed_messages_are_counted_and_the_next_packet_arrives() {
    let place = Place::new("rubbish");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    let raw = |bytes: &[u8]| {
        // SAFETY: the pointer is to that many readable bytes.
        let sent = unsafe { libc::send(client.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        assert_eq!(sent, bytes.len() as isize);
    };
    raw(&[]);
    raw(&[0, 0, 0]);
    raw(&[0, 0, 0, 1, 9]); // a header that must be zero
    raw(&vec![0; 4 + 2049]); // one byte more than the maximum
    raw(&[0, 0, 0, 0]); // an empty packet is a packet
    raw(&[0, 0, 0, 0, 5]);
    assert_eq!(take(&mut port, &mut pool, 2), [vec![], vec![5]]);
    let tally = port.tally();
    assert_eq!((tally.lost(Loss::Malformed), tally.lost(Loss::Truncated)), (3, 1));
    assert_eq!(tally.frames_in.read(), 2 + tally.total_lost());
    assert!(port.is_serving());
}

#[test]
fn r2_no_message_of_a_client_panics_the_port() {
    const MESSAGES: u64 = 3000;
    let place = Place::new("any");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let mut rng = Rng::new(1);
    let mut chance = |below: usize| rng.below(below);
    let mut came = 0;
    for _ in 0..MESSAGES {
        // The messages are mostly short, sometimes longer than the maximum. The header is zero or
        // random.
        let len = if chance(4) == 0 { chance(5000) } else { chance(12) };
        let mut message: Vec<u8> = (0..len).map(|_| chance(256) as u8).collect();
        if chance(2) == 0 {
            message.iter_mut().take(4).for_each(|byte| *byte = 0);
        }
        // SAFETY: the pointer is to that many readable bytes.
        let sent =
            unsafe { libc::send(client.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        assert_eq!(sent, message.len() as isize);
        for _ in 0..8 {
            let mut burst = Burst::new();
            port.rx_burst(&mut pool, &mut burst);
            came += burst.len() as u64;
        }
    }
    until("all to be looked at", || {
        let mut burst = Burst::new();
        port.rx_burst(&mut pool, &mut burst);
        came += burst.len() as u64;
        port.tally().frames_in.read() == MESSAGES
    });
    assert_eq!(MESSAGES, came + port.tally().total_lost());
    assert!(came > 0 && port.is_serving());
}

/// wire.md: W8-26, W8-32.
#[test]
fn a_second_client_gets_busy_and_is_disconnected() {
    let place = Place::new("further");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut first = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let mut second = Client::connect(&place.0).expect("it listens");
    let mut third = Client::connect(&place.0).expect("it listens");
    let mut buffer = [0; 8];
    until("the second client to be turned away", || {
        port.rx_burst(&mut pool, &mut Burst::new());
        matches!(second.try_receive(&mut buffer), Err(ClientError::Busy))
    });
    until("the third to learn it when it sends", || {
        port.rx_burst(&mut pool, &mut Burst::new());
        matches!(third.try_send(&[1]), Err(ClientError::Busy))
    });
    assert!(first.try_send(&[1]).expect("it is served"));
    assert_eq!(take(&mut port, &mut pool, 1), [[1]]);
}

/// wire.md: W8-33, W8-35.
#[test]
fn messages_sent_before_a_client_left_still_arrive() {
    let place = Place::new("before");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    for n in 0..50 {
        assert!(client.send(&[n], LONG).expect("served"));
    }
    // The client has not read everything, so the kernel resets the connection. The reset must not
    // hide what the client has sent.
    port.tx_burst(Mark(7), &mut [frame(&mut pool, 3, b"unread")].into_iter().collect());
    drop(client);
    // The child process of another test may hold a copy of the client's socket until it calls exec.
    until("the kernel to say that it is gone", || {
        let mut late = [frame(&mut pool, 3, b"late")].into_iter().collect();
        port.tx_burst(Mark(7), &mut late);
        port.tally().lost(Loss::PeerGone) == 1
    });
    assert_eq!(take(&mut port, &mut pool, 50).len(), 50);
    served(&mut port, &mut pool, false);
}

/// wire.md: W8-34.
#[test]
fn a_full_socket_leaves_frames_in_order_and_wakes_when_there_is_room() {
    let place = Place::new("full");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let mut sent = 0_u32;
    let mut queue = Burst::new();
    while queue.is_empty() {
        queue.extend((0..64).map(|n| frame(&mut pool, sent + n, &[0; 1000])));
        port.tx_burst(Mark(7), &mut queue);
        sent += 64 - queue.len() as u32;
    }
    assert!(port.is_blocked(Mark(7)) && !port.is_blocked(Mark(8)));
    let mut waiter = Waiter::with_capacity(1);
    waiter.add(port.arm());
    assert_eq!(waiter.wait(Some(Duration::ZERO)), Waited::TimedOut);
    let mut buffer = [0; 1000];
    for n in 0..sent {
        let got = client.receive(&mut buffer, LONG).expect("served").expect("in time");
        assert_eq!(got.ingress, n);
    }
    assert_eq!(waiter.wait(Some(LONG)), Waited::Ready);
    assert!(waiter.is_ready(0));
    port.on_readable();
    port.disarm();
    port.rx_burst(&mut pool, &mut Burst::new());
    assert!(!port.is_blocked(Mark(7)), "who was woken looks at once");
    assert_eq!(queue[0].mark(), Mark(sent));
    port.tx_burst(Mark(7), &mut queue);
    assert!(queue.len() < 64);
    waiter.begin();
    waiter.add(port.arm());
    assert_eq!(waiter.wait(Some(Duration::ZERO)), Waited::TimedOut, "room alone wakes no more");
}

#[test]
fn a_blocked_client_that_reads_again_is_found_by_a_worker_that_never_sleeps() {
    let place = Place::new("busy");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let mut queue = Burst::new();
    let mut buffer = [0; 1000];
    for round in 0..3 {
        while queue.is_empty() {
            queue.extend((0..64).map(|n| frame(&mut pool, n, &[0; 1000])));
            port.tx_burst(Mark(7), &mut queue);
        }
        for _ in 0..10_000 {
            port.rx_burst(&mut pool, &mut Burst::new());
            assert!(port.is_blocked(Mark(7)), "the client has not read, in round {round}");
        }
        while client.receive(&mut buffer, Duration::ZERO).expect("served").is_some() {}
        // The port detects the room within a bounded number of bursts, however long the client was
        // blocked.
        let bursts = (0..1000)
            .position(|_| {
                port.rx_burst(&mut pool, &mut Burst::new());
                !port.is_blocked(Mark(7))
            })
            .expect("found");
        assert!(bursts <= 257, "after {bursts} bursts");
        port.tx_burst(Mark(7), &mut queue);
        queue.clear();
    }
}

/// The port must send to a slow client before three quarters of the socket's buffer are free.
/// Otherwise the egress queue overflows in the meantime (R23).
#[test]
fn r23_a_blocked_client_that_reads_a_few_messages_is_offered_more() {
    let place = Place::new("slow");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let mut queue = Burst::new();
    while queue.is_empty() {
        queue.extend((0..64).map(|n| frame(&mut pool, n, &[0; 100])));
        port.tx_burst(Mark(7), &mut queue);
    }
    for _ in 0..32 {
        client.receive(&mut [0; 100], LONG).expect("served").expect("in time");
    }
    let found = (0..1000).any(|_| {
        port.rx_burst(&mut pool, &mut Burst::new());
        !port.is_blocked(Mark(7))
    });
    assert!(found, "32 messages were read, and nothing more is offered");
}

/// wire.md: W8-33.
#[test]
fn the_end_of_a_blocked_client_is_found_and_waiting_frames_are_counted() {
    let place = Place::new("blocked-end");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let mut queue = Burst::new();
    while queue.is_empty() {
        queue.extend((0..64).map(|n| frame(&mut pool, n, &[0; 1000])));
        port.tx_burst(Mark(7), &mut queue);
    }
    let mut waiter = Waiter::with_capacity(1);
    waiter.add(port.arm());
    drop(client);
    assert_eq!(waiter.wait(Some(LONG)), Waited::Ready);
    port.on_readable();
    port.disarm();
    port.rx_burst(&mut pool, &mut Burst::new());
    assert!(!port.is_blocked(Mark(7)));
    let left = queue.len() as u64;
    port.tx_burst(Mark(7), &mut queue);
    assert_eq!(port.tally().lost(Loss::PeerGone), left);
}

#[test]
fn descriptors_that_a_client_passes_are_closed() {
    let place = Place::new("passed");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let reader = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let writer = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    let mut bytes = [0_u8; 8];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = [0_u64; 4];
    // SAFETY: zero is a valid value of a `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: plain arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
    // SAFETY: the control room was set above.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it points into the control room, which is aligned and large enough for a header.
    let header = unsafe { &mut *header };
    (header.cmsg_level, header.cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    // SAFETY: plain arithmetic.
    header.cmsg_len = unsafe { libc::CMSG_LEN(4) } as usize;
    // SAFETY: the data of the header lies in the control room.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: as above, and four bytes fit.
    unsafe { data.cast::<i32>().write_unaligned(writer.as_raw_fd()) };
    // SAFETY: the message and all it points to outlive the call.
    assert_eq!(unsafe { libc::sendmsg(client.as_raw_fd(), &raw const message, 0) }, 8);
    drop(writer);
    assert_eq!(take(&mut port, &mut pool, 1), [[0; 4]]);
    let mut waiter = Waiter::with_capacity(1);
    waiter.add(strowger_frame::port::Arm::Wait(reader.as_raw_fd()));
    assert_eq!(waiter.wait(Some(LONG)), Waited::Ready, "the last writer is closed");
}

#[test]
fn a_stale_file_is_removed_and_a_live_one_is_busy() {
    let place = Place::new("stale");
    let port = listen(&place.0);
    let mode = std::fs::metadata(&place.0).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let busy = UnixPort::listen(&place.0, &UnixSpec::default());
    assert!(matches!(busy, Err(ListenError::Busy(_))), "{busy:?}");
    drop(port);
    assert!(!place.0.exists(), "a port that ends tidies up");

    drop(std::os::unix::net::UnixListener::bind(&place.0).expect("free")); // leaves its file
    // The child process of another test may hold a copy of that socket until it calls exec.
    until("no listener", || std::os::unix::net::UnixStream::connect(&place.0).is_err());
    drop(listen(&place.0));
    std::fs::write(&place.0, "a letter").expect("room");
    let in_the_way = UnixPort::listen(&place.0, &UnixSpec::default());
    assert!(matches!(in_the_way, Err(ListenError::NotASocket(_))), "{in_the_way:?}");
    let long = Path::new("/").join("x".repeat(200));
    let long = UnixPort::listen(long, &UnixSpec::default());
    assert!(matches!(long, Err(ListenError::PathTooLong(_))), "{long:?}");
}

/// wire.md: W8-36.
#[test]
fn when_the_switch_stops_the_connection_ends_and_the_file_is_removed() {
    let place = Place::new("stops");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    assert_eq!(raw_message(&client), None, "no message, and no end");
    drop(port);
    // The child process of another test may hold a copy of the port's socket until it calls exec.
    until("the end", || raw_message(&client) == Some(vec![]));
    assert!(!place.0.exists());
}

/// wire.md: W8-38.
#[test]
fn a_process_whose_switch_does_not_read_is_told_to_wait_and_loses_nothing() {
    let place = Place::new("does-not-read");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut client = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    let packet = |n: usize| vec![n as u8; 1000];
    let mut sent = 0;
    while client.try_send(&packet(sent)).expect("served") {
        sent += 1;
        assert!(sent < 100_000, "the socket has an end");
    }
    assert!(sent > 0);
    let taken = take(&mut port, &mut pool, sent);
    assert_eq!(taken.len(), sent);
    assert!(taken.iter().enumerate().all(|(n, bytes)| *bytes == packet(n)));
    assert!(client.try_send(&packet(sent)).expect("served"));
}

#[test]
fn a_socket_without_a_listener_is_a_clear_error() {
    let place = Place::new("no-listener");
    let error = Client::connect(&place.0).expect_err("no listener");
    assert!(matches!(error, ClientError::NotListening(_)), "{error}");
}

/// Environment variable with the role and the socket path of a child process, which runs this same
/// test program.
const ROLE: &str = "STROWGER_TEST_ROLE";

/// Another process. It is killed at the end of the test, whatever the result.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(role: &str, at: &Path) -> Process {
    let child = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "unix::another_process", "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("{role}={}", at.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it can be started again");
    Process(child)
}

#[test]
fn another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (role, at) = role.split_once('=').expect("a role and a path");
    if role == "client" {
        let mut client = Client::connect(at).expect("it listens");
        for n in 0..10 {
            assert!(client.send(&[n], LONG).expect("served"));
        }
        let _ = client.receive(&mut [0; 1], LONG * 10); // until it is killed
    } else if role == "trains" {
        let mut client = TrainClient::connect(at, LONG).expect("it listens");
        assert!(client.greeting().is_some());
        assert_eq!(client.send(&[1; 400], 10, LONG).expect("served"), 400);
        let _ = client.receive(&mut [0; 1], LONG * 10); // until it is killed
    } else {
        let (mut port, mut pool) = (listen(Path::new(at)), pool());
        loop {
            // Sends every packet back, until the process is killed.
            let mut burst = Burst::new();
            port.rx_burst(&mut pool, &mut burst);
            port.tx_burst(Mark(7), &mut burst);
            std::thread::yield_now();
        }
    }
}

/// wire.md: W8-32, W8-33.
#[test]
fn r10_killing_the_client_leaves_the_switch_up() {
    let place = Place::new("kill-client");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut process = start("client", &place.0);
    assert_eq!(take(&mut port, &mut pool, 10).len(), 10);
    process.kill();
    served(&mut port, &mut pool, false);
    let mut burst: Burst = (0..3).map(|n| frame(&mut pool, n, b"to no client")).collect();
    port.tx_burst(Mark(7), &mut burst);
    assert_eq!((burst.len(), port.tally().lost(Loss::PeerGone)), (0, 3));

    let mut client = Client::connect(&place.0).expect("it listens");
    assert!(client.send(b"the next", LONG).expect("served"));
    assert_eq!(take(&mut port, &mut pool, 1), [b"the next"]);
}

#[test]
fn r10_killing_the_switch_leaves_the_client_up() {
    let place = Place::new("kill-switch");
    let mut buffer = [0; 16];
    for round in 0..2 {
        // The second process finds the socket file of the first one, which was killed.
        let mut process = start("switch", &place.0);
        let mut client = None;
        until("the switch to listen", || {
            client = Client::connect(&place.0).ok();
            client.is_some()
        });
        let mut client = client.expect("just connected");
        assert!(client.send(b"there?", LONG).expect("served"), "round {round}");
        let got = client.receive(&mut buffer, LONG).expect("served").expect("in time");
        assert_eq!((got.len, got.ingress), (6, 7));
        process.kill();
        until("the end to be reported", || {
            matches!(client.try_receive(&mut buffer), Err(ClientError::Gone))
        });
        assert!(matches!(client.try_send(b"?"), Err(ClientError::Gone)));
    }
}

/// wire.md: W8-32, W8-35.
#[test]
fn a_client_that_connects_right_after_the_last_one_has_left_is_served() {
    let place = Place::new("right-after");
    let (mut port, mut pool) = (listen(&place.0), pool());
    let mut first = Client::connect(&place.0).expect("it listens");
    served(&mut port, &mut pool, true);
    for n in 0..50 {
        assert!(first.send(&[n], LONG).expect("served"));
    }
    drop(first);
    let mut second = Client::connect(&place.0).expect("it listens");
    assert!(second.send(&[50], LONG).expect("it waits"));
    // The port sees the second client while messages of the first one wait.
    port.on_readable();
    let taken = take(&mut port, &mut pool, 51);
    assert_eq!(taken, (0..=50).map(|n| vec![n]).collect::<Vec<_>>());
    assert_eq!(second.try_receive(&mut [0; 8]).expect("served"), None);
}
