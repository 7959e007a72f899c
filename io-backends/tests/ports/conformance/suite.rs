//! The rules of `Port`'s contract. Each is a function of two connected ports and does not depend on
//! the backend. No test sleeps; every wait has a deadline.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use strowger_frame::{
    Address, BURST_MAX, Burst, ChunkClass, Frame, Loss, Mark, Pool, PoolSpec, Port, alloc,
    port::{AdmitError, KernelDrop},
};
use strowger_io::{Waited, Waiter};
pub(crate) use strowger_testkit::until;

/// The mark of the far port at the near port.
const FAR: Mark = Mark::new(3, 1);
/// The mark of the near port at the far port.
const NEAR: Mark = Mark::new(5, 2);
/// The ingress slot of the packets that the tests send.
pub(crate) const INGRESS: Mark = Mark(0x0001_0203);

const DEADLINE: Duration = Duration::from_secs(90);
/// Number of consecutive polls without a frame after which a test assumes that nothing is in
/// flight. Both ports are on this machine.
const QUIET_LOOKS: u32 = 200;

/// A backend and what it guarantees beyond the contract.
pub(crate) struct Backend {
    /// Makes two connected ports, or returns why that is not possible here.
    pub(crate) join: fn() -> Result<Joined, String>,
    /// Whether a received frame is in the memory from which it was sent.
    pub(crate) zero_copy: bool,
    /// Whether frames stay with the caller when the backend is full, and no accepted frame is
    /// dropped.
    pub(crate) keeps_when_full: bool,
    /// Whether the port detects that the far end has ended.
    pub(crate) knows_when_gone: bool,
}

/// Two connected ports. Neither has admitted a neighbour yet.
pub(crate) struct Joined {
    pub(crate) near: Box<dyn Port>,
    pub(crate) far: Box<dyn Port>,
    /// The address of the far port as the near port uses it, and the reverse.
    pub(crate) to_far: Address,
    pub(crate) to_near: Address,
}

impl Joined {
    fn admitted(mut self) -> Self {
        self.near.admit(FAR, self.to_far).expect("the address is free");
        self.far.admit(NEAR, self.to_near).expect("the address is free");
        self
    }

    /// Returns the same two ports with near and far exchanged.
    fn turned(self) -> Self {
        Self { near: self.far, far: self.near, to_far: self.to_near, to_near: self.to_far }
    }
}

fn pool() -> Pool {
    Pool::new(&PoolSpec { trains: 128, singles: 1024, huge_pages: false }).expect("memory")
}

fn frame(pool: &mut Pool, n: u32, len: usize) -> Frame {
    let class = if len < 3000 { ChunkClass::Single } else { ChunkClass::Train };
    let chunk = pool.take(class).expect("enough");
    let start = chunk.start();
    let mut frame = chunk.into_frame(start, len);
    for (at, byte) in frame.bytes_mut().iter_mut().enumerate() {
        *byte = content(n, at);
    }
    frame.set_mark(INGRESS);
    frame
}

/// Content of a frame: its number in four bytes, then bytes that depend on the number and the
/// position.
fn content(n: u32, at: usize) -> u8 {
    n.to_be_bytes().get(at).copied().unwrap_or((n as usize * 31 + at * 7 + (at >> 8)) as u8)
}

fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame.bytes()[..4].try_into().expect("four bytes"))
}

fn is_intact(frame: &Frame, n: u32, len: usize) -> bool {
    frame.len() == len && frame.bytes().iter().enumerate().all(|(at, b)| *b == content(n, at))
}

/// Sends frames and waits until the port has taken them all.
fn send(port: &mut dyn Port, to: Mark, frames: &mut Burst) {
    until("room to send", || {
        port.tx_burst(to, frames);
        port.flush();
        frames.is_empty() && port.is_flushed()
    });
}

/// Receives `n` frames.
fn receive(port: &mut dyn Port, pool: &mut Pool, n: usize, mut each: impl FnMut(Frame)) {
    let mut came = 0;
    until("frames to arrive", || {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        came += burst.len();
        burst.into_iter().for_each(&mut each);
        came >= n
    });
    assert_eq!(came, n, "more came than were sent");
}

/// Receives until no more frames are in flight.
fn receive_all(port: &mut dyn Port, pool: &mut Pool, mut each: impl FnMut(Frame)) -> u64 {
    let mut came = 0;
    let mut looks_in_vain = 0;
    while looks_in_vain < QUIET_LOOKS {
        let mut burst = Burst::new();
        port.rx_burst(pool, &mut burst);
        looks_in_vain = if burst.is_empty() { looks_in_vain + 1 } else { 0 };
        came += burst.len() as u64;
        burst.into_iter().for_each(&mut each);
    }
    came
}

/// Returns the number of frames that a port received or was given, and the number that it
/// delivered, sent or lost.
fn balance(port: &dyn Port, received: u64, taken: u64) -> (u64, u64) {
    let tally = port.tally();
    let given = tally.frames_in.read() + tally.frames_made.read() + taken;
    (given, received + tally.frames_out.read() + tally.total_lost())
}

fn balances(port: &dyn Port, received: u64, taken: u64) {
    let (given, gone) = balance(port, received, taken);
    assert_eq!(given, gone, "{}: {:?}", port.describe(), port.tally());
}

pub(crate) fn delivers_in_order_and_intact(joined: Joined) {
    let mut joined = joined.admitted();
    for mark in [NEAR, FAR] {
        delivers(&mut joined, mark);
        joined = joined.turned();
    }
}

fn delivers(joined: &mut Joined, mark: Mark) {
    const ROUNDS: u32 = 20;
    let (mut here, mut there) = (pool(), pool());
    let longest = joined.near.frame_bytes_max().min(joined.far.frame_bytes_max()).min(1472);
    let to = if mark == NEAR { FAR } else { NEAR };
    let mut expected = 0;
    let len = |n: u32| 4 + n as usize * 37 % (longest - 4);
    for round in 0..ROUNDS {
        let numbers = round * BURST_MAX as u32..(round + 1) * BURST_MAX as u32;
        let mut burst: Burst = numbers.map(|n| frame(&mut here, n, len(n))).collect();
        send(joined.near.as_mut(), to, &mut burst);
        receive(joined.far.as_mut(), &mut there, BURST_MAX, |frame| {
            assert_eq!(frame.mark(), mark, "a frame carries its neighbour's mark");
            assert!(is_intact(&frame, expected, len(expected)), "{} of {expected}", number(&frame));
            expected += 1;
        });
    }
    let copied = here.tally().frames_copied.read() + there.tally().frames_copied.read();
    assert_eq!(copied, 0);
}

pub(crate) fn payload_is_not_copied(backend: &Backend, joined: Joined) {
    let mut joined = joined.admitted();
    let (mut here, mut there) = (pool(), pool());
    let mut burst: Burst = (0..8).map(|n| frame(&mut here, n, 500)).collect();
    let sent: Vec<_> = burst.iter().map(|frame| frame.bytes().as_ptr()).collect();
    send(joined.near.as_mut(), FAR, &mut burst);
    let mut came = Vec::new();
    receive(joined.far.as_mut(), &mut there, 8, |frame| came.push(frame.bytes().as_ptr()));
    assert!(!backend.zero_copy || came == sent, "the frames are where they were");
    assert_eq!(here.tally().frames_copied.read() + there.tally().frames_copied.read(), 0);
}

pub(crate) fn an_overload_is_counted_to_the_last_frame(backend: &Backend, joined: Joined) {
    const FRAMES: u32 = 40_000; // many times the capacity of any backend
    let mut joined = joined.admitted();
    let (mut here, mut there) = (pool(), pool());
    let near = &mut joined.near;
    let mut queue = Burst::new();
    let (mut made, mut tries_in_vain) = (0, 0);
    while made < FRAMES && tries_in_vain < 10 {
        while !queue.is_full() {
            queue.push(frame(&mut here, made, 200));
            made += 1;
        }
        near.tx_burst(FAR, &mut queue);
        near.flush();
        tries_in_vain = if queue.is_full() { tries_in_vain + 1 } else { 0 };
    }
    let kept = queue.len() as u32;
    assert!(kept > 0 || !backend.keeps_when_full, "it took {made} and was never full");

    // Received frames are in order. The frames that stayed here have the next numbers.
    let mut next = 0;
    let mut came = receive_all(joined.far.as_mut(), &mut there, |frame| {
        let n = number(&frame);
        assert!(n >= next && is_intact(&frame, n, 200), "{n} after {next}");
        assert!(n == next || !backend.keeps_when_full, "{next} was lost on the way");
        next = n + 1;
        near.flush(); // as a worker does
    });
    // The kernel reports the number of dropped frames only with the next frame that it does not
    // drop.
    send(near.as_mut(), FAR, &mut queue);
    let mut last = made;
    send(near.as_mut(), FAR, &mut Burst::from_iter([frame(&mut here, last, 200)]));
    until("the last one to arrive", || {
        came += receive_all(joined.far.as_mut(), &mut there, |frame| {
            assert!(number(&frame) == next || !backend.keeps_when_full);
            next = number(&frame) + 1;
        });
        if next <= last && !backend.keeps_when_full {
            // The kernel may have had no room for the last frame because of frames in flight, so
            // the test sends another one.
            last += 1;
            send(near.as_mut(), FAR, &mut Burst::from_iter([frame(&mut here, last, 200)]));
        }
        next > last
    });
    let taken = near.tally().frames_out.read() + near.tally().total_lost();
    balances(near.as_ref(), 0, taken);
    balances(joined.far.as_ref(), came, 0);
    accounts_for_all_frames(near.as_ref(), joined.far.as_ref());
    let far = joined.far.tally();
    assert!(far.kernel_drops.read() == 0 || !backend.keeps_when_full);
}

/// Checks that all sent frames are received, except those that the kernel reports as dropped. A
/// train that is dropped as a whole counts as one (Linux counts buffers, not segments), so the
/// reported number is a lower bound.
fn accounts_for_all_frames(from: &dyn Port, to: &dyn Port) {
    let (out, come) = (from.tally().frames_out.read(), to.tally().frames_in.read());
    let drops = to.tally().kernel_drops.read();
    let missing = out.checked_sub(come).expect("no more came in than went out");
    assert!(drops <= missing, "{drops} dropped of {missing} missing");
    assert!(drops > 0 || missing == 0, "{missing} of {out} are missing without a word");
}

fn wrong_address(right: Address) -> Address {
    match right {
        Address::Only => Address::Udp(SocketAddr::from(([127, 0, 0, 1], 7))),
        _ => Address::Only,
    }
}

pub(crate) fn admits_and_forgets(mut joined: Joined) {
    let at = joined.to_far;
    let near = &mut joined.near;
    assert_eq!(near.admit(FAR, wrong_address(at)), Err(AdmitError::WrongKind));
    assert_eq!(near.admit(FAR, at), Ok(()));
    assert_eq!(near.admit(FAR, at), Ok(()), "the same again");
    assert_eq!(near.admit(NEAR, at), Err(AdmitError::Taken));
    if let Address::Udp(at) = at {
        let v6 = Address::Udp((Ipv6Addr::LOCALHOST, at.port()).into());
        assert_eq!(near.admit(NEAR, v6), Err(AdmitError::WrongKind));
        let another = Address::Udp((at.ip(), at.port() ^ 1).into());
        assert_eq!(near.admit(Mark::new(u16::MAX, 0), another), Err(AdmitError::Full));
    }
    near.forget(NEAR); // not admitted: nothing happens
    near.forget(FAR);
    assert_eq!(near.admit(NEAR, at), Ok(()));
    near.forget(NEAR);

    let mut joined = joined.admitted();
    let (mut here, mut there) = (pool(), pool());
    let mut burst = Burst::from_iter([frame(&mut here, 1, 100)]);
    send(joined.near.as_mut(), FAR, &mut burst);
    receive(joined.far.as_mut(), &mut there, 1, |_| ());
}

pub(crate) fn an_unknown_mark_is_no_neighbour(joined: Joined) {
    let mut joined = joined.admitted();
    let mut pool = pool();
    // The marks are an index without a neighbour, an index beyond any table, and an old generation
    // of a valid index.
    for to in [Mark::new(9, 0), Mark::new(u16::MAX, 0), Mark::new(3, 0)] {
        let mut burst: Burst = (0..3).map(|n| frame(&mut pool, n, 100)).collect();
        send(joined.near.as_mut(), to, &mut burst);
    }
    joined.near.forget(FAR);
    send(joined.near.as_mut(), FAR, &mut Burst::from_iter([frame(&mut pool, 9, 100)]));
    assert_eq!(joined.near.tally().lost(Loss::NoNeighbour), 10);
    balances(joined.near.as_ref(), 0, 10);
    assert_eq!(receive_all(joined.far.as_mut(), &mut pool, |_| ()), 0);
}

pub(crate) fn an_unknown_sender_is_counted(joined: Joined) {
    let mut joined = joined.admitted();
    let (mut here, mut there) = (pool(), pool());
    joined.near.forget(FAR);
    let mut burst: Burst = (0..3).map(|n| frame(&mut here, n, 100)).collect();
    send(joined.far.as_mut(), NEAR, &mut burst);
    until("unknown_senders to be counted", || {
        assert_eq!(receive_all(joined.near.as_mut(), &mut there, |_| ()), 0);
        joined.near.tally().lost(Loss::UnknownSender) == 3
    });
    balances(joined.near.as_ref(), 0, 0);
}

/// One receive call handles at most four bursts of dropped frames, even if many more wait.
pub(crate) fn a_burst_of_pure_losses_ends(joined: Joined) {
    const FRAMES: u32 = 3_000;
    const TAKEN_MAX: u64 = 4 * BURST_MAX as u64;
    let mut joined = joined.admitted();
    let (mut here, mut there) = (pool(), pool());
    // Sets the port up and leaves it idle.
    joined.near.rx_burst(&mut there, &mut Burst::new());
    joined.near.forget(FAR);
    // Consecutive frames differ in length, so that few share a message. Sends as many as there is
    // room for.
    let mut sent = 0;
    let mut tries_in_vain = 0;
    let mut queue = Burst::new();
    while sent < FRAMES && tries_in_vain < 3 {
        while !queue.is_full() {
            queue.push(frame(&mut here, sent, 100 + sent as usize % 7));
            sent += 1;
        }
        joined.far.tx_burst(NEAR, &mut queue);
        joined.far.flush();
        tries_in_vain = if queue.is_full() { tries_in_vain + 1 } else { 0 };
    }
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        let before = joined.near.tally().frames_in.read();
        let mut burst = Burst::new();
        joined.near.rx_burst(&mut there, &mut burst);
        assert!(burst.is_empty(), "no neighbour is admitted");
        let taken = joined.near.tally().frames_in.read() - before;
        assert!(taken <= TAKEN_MAX, "{taken} frames in one call");
        joined.far.flush();
        quiet = if taken == 0 { quiet + 1 } else { 0 };
    }
    let tally = joined.near.tally();
    assert!(tally.lost(Loss::UnknownSender) > 0);
    balances(joined.near.as_ref(), 0, 0);
}

/// An exhausted pool is visible: the port counts that no chunk was free.
pub(crate) fn a_receive_without_memory_is_counted(joined: Joined) {
    let mut joined = joined.admitted();
    let mut here = pool();
    let empty = PoolSpec { trains: 0, singles: 0, huge_pages: false };
    let mut empty = Pool::new(&empty).expect("memory");
    let mut burst: Burst = (0..8).map(|n| frame(&mut here, n, 100)).collect();
    send(joined.far.as_mut(), NEAR, &mut burst);
    let drops = |port: &dyn Port| {
        let tally = port.tally();
        tally.kernel_drops.of(KernelDrop::PoolEmpty) + tally.lost(Loss::PoolEmpty)
    };
    let mut came = 0;
    until("the empty pool to be counted", || {
        came += receive_all(joined.near.as_mut(), &mut empty, drop);
        drops(joined.near.as_ref()) > 0 || came == 8
    });
    balances(joined.near.as_ref(), came, 0);
}

pub(crate) fn empty_and_largest_frames_pass(joined: Joined) {
    let mut joined = joined.admitted();
    for (to, mark) in [(FAR, NEAR), (NEAR, FAR)] {
        let (mut here, mut there) = (pool(), pool());
        let largest = joined.near.frame_bytes_max().min(joined.far.frame_bytes_max());
        for len in [0, 1, largest, 0, 0, largest - 1] {
            let mut burst = Burst::from_iter([frame(&mut here, 7, len)]);
            send(joined.near.as_mut(), to, &mut burst);
            receive(joined.far.as_mut(), &mut there, 1, |frame| {
                assert!(is_intact(&frame, 7, len), "{len} bytes became {}", frame.len());
                assert_eq!(frame.mark(), mark);
            });
        }
        joined = joined.turned();
    }
}

pub(crate) fn an_empty_pool_recovers(joined: Joined) {
    let mut joined = joined.admitted();
    let mut here = pool();
    let small = PoolSpec { trains: 4, singles: 0, huge_pages: false };
    let mut small = Pool::new(&small).expect("memory");
    let mut kept = Vec::new();
    let mut came = 0;
    for round in 0..4 {
        let mut burst: Burst = (0..16).map(|n| frame(&mut here, round * 16 + n, 1000)).collect();
        joined.near.tx_burst(FAR, &mut burst);
        joined.near.flush();
        let mut held_on_to = |frame| kept.push(frame);
        came += receive_all(joined.far.as_mut(), &mut small, &mut held_on_to);
    }
    kept.clear();
    // The waiting frames arrive first, and then a new one.
    came += receive_all(joined.far.as_mut(), &mut small, drop);
    let mut last = Burst::from_iter([frame(&mut here, 1000, 1000)]);
    send(joined.near.as_mut(), FAR, &mut last);
    let mut found = false;
    until("a frame to arrive once there is memory", || {
        came +=
            receive_all(joined.far.as_mut(), &mut small, |frame| found |= number(&frame) == 1000);
        found
    });
    balances(joined.far.as_ref(), came, 0);
    accounts_for_all_frames(joined.near.as_ref(), joined.far.as_ref());
}

pub(crate) fn the_far_side_may_end(backend: &Backend, joined: Joined) {
    let Joined { mut near, far, .. } = joined.admitted();
    let mut pool = pool();
    let mut burst: Burst = (0..16).map(|n| frame(&mut pool, n, 100)).collect();
    send(near.as_mut(), FAR, &mut burst);
    drop(far);
    for _ in 0..10 {
        let mut burst: Burst = (0..16).map(|n| frame(&mut pool, n, 100)).collect();
        send(near.as_mut(), FAR, &mut burst);
        assert_eq!(receive_all(near.as_mut(), &mut pool, |_| ()), 0);
    }
    let gone = near.tally().lost(Loss::PeerGone);
    assert!(gone >= 160 || !backend.knows_when_gone, "{gone} were reported as lost");
    // An interface goes down before it vanishes. Frames that the port took in between may be
    // counted only when it has vanished.
    until("all to be reported", || {
        near.flush();
        near.arm();
        near.disarm();
        let (given, gone) = balance(near.as_ref(), 0, 11 * 16);
        given == gone
    });
}

/// Blocks as a worker does. Returns `true` if there is something to do.
fn wait(port: &mut dyn Port, waiter: &mut Waiter, timeout: Duration) -> bool {
    waiter.begin();
    waiter.add(port.arm());
    let waited = waiter.wait(Some(timeout));
    port.disarm();
    waited != Waited::TimedOut
}

pub(crate) fn arming_wakes(joined: Joined) {
    let mut joined = joined.admitted();
    for to in [FAR, NEAR] {
        let (mut here, mut there) = (pool(), pool());
        let mut waiter = Waiter::with_capacity(1);
        for round in 0..10 {
            // If nothing is in flight, a port is soon ready to sleep.
            until("nothing to be done", || {
                joined.far.rx_burst(&mut there, &mut Burst::new());
                !wait(joined.far.as_mut(), &mut waiter, Duration::ZERO)
            });
            waiter.begin();
            let armed = joined.far.arm();
            waiter.add(armed);
            let mut burst = Burst::from_iter([frame(&mut here, round, 100)]);
            send(joined.near.as_mut(), to, &mut burst);
            assert_eq!(waiter.wait(Some(DEADLINE)), Waited::Ready, "armed as {armed:?}");
            joined.far.disarm();
            receive(joined.far.as_mut(), &mut there, 1, |frame| assert_eq!(number(&frame), round));
        }
        joined = joined.turned();
    }
}

pub(crate) fn two_threads_sleep_and_wake_each_other(joined: Joined) {
    const FRAMES: u32 = 5_000;
    let Joined { mut near, mut far, .. } = joined.admitted();
    let echo = std::thread::spawn(move || {
        let (mut pool, mut waiter) = (pool(), Waiter::with_capacity(1));
        let (mut burst, mut returned) = (Burst::new(), 0);
        while returned < FRAMES {
            far.rx_burst(&mut pool, &mut burst);
            let came = burst.len();
            for frame in &mut burst {
                frame.set_mark(INGRESS);
            }
            far.tx_burst(NEAR, &mut burst);
            far.flush();
            returned += (came - burst.len()) as u32;
            if came == 0 && far.is_flushed() {
                assert!(wait(far.as_mut(), &mut waiter, DEADLINE), "a wake-up was lost");
            }
        }
        until("the last to leave", || {
            far.flush();
            far.is_flushed()
        });
        far
    });
    let (mut pool, mut waiter) = (pool(), Waiter::with_capacity(1));
    let (mut sent, mut back) = (0, 0);
    let mut burst = Burst::new();
    while back < FRAMES {
        // The test sends one frame at a time, then a few, so that the ports sleep in between.
        let window = 1 + (back / 64) % 8;
        while sent < FRAMES && sent < back + window {
            burst.push(frame(&mut pool, sent, 64));
            sent += 1;
        }
        near.tx_burst(FAR, &mut burst);
        near.flush();
        let mut came = Burst::new();
        near.rx_burst(&mut pool, &mut came);
        for frame in &came {
            assert_eq!(number(frame), back);
            back += 1;
        }
        if came.is_empty() && near.is_flushed() {
            assert!(wait(near.as_mut(), &mut waiter, DEADLINE), "a wake-up was lost at {back}");
        }
    }
    let far = echo.join().expect("no panic");
    balances(near.as_ref(), u64::from(FRAMES), u64::from(FRAMES));
    balances(far.as_ref(), u64::from(FRAMES), u64::from(FRAMES));
}

pub(crate) fn nothing_is_allocated_after_construction(joined: Joined) {
    assert!(alloc::installed());
    let mut joined = joined.admitted();
    let (mut here, mut there) = (pool(), pool());
    let mut waiter = Waiter::with_capacity(1);
    let guard = alloc::forbid();
    for round in 0..50 {
        for to in [FAR, NEAR] {
            let mut burst = Burst::new();
            for n in 0..16 {
                burst.push(frame(&mut here, round * 16 + n, 300));
            }
            send(joined.near.as_mut(), to, &mut burst);
            receive(joined.far.as_mut(), &mut there, 16, drop);
            wait(joined.far.as_mut(), &mut waiter, Duration::ZERO);
            // Counting losses must not allocate either.
            burst.push(frame(&mut here, 0, 10));
            joined.near.tx_burst(Mark::new(9, 9), &mut burst);
            joined = joined.turned();
        }
    }
    assert_eq!(guard.calls(), 0);
}
