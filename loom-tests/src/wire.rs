//! Notifications of a wire. An end that sleeps because the ring is full wakes when there is room.
//! Each frame to an end that is dropped counts as taken or as lost.
//!
//! Both ends are those of `strowger-io`; the frames have real chunks.

use strowger_frame::{
    Address, Burst, ChunkClass, Loss, Mark, Pool, PoolSpec, Port as _, port::Arm,
};
use strowger_io::{MemoryPort, Waited, Waiter, memory::wire};

use crate::{check, spawn};

const THERE: Mark = Mark(2);

/// Makes a wire with one place in each direction, and `frames` frames.
fn narrow(frames: u32) -> (MemoryPort, MemoryPort, Pool, Burst) {
    let (mut near, mut far) = wire(1).expect("descriptors");
    near.admit(THERE, Address::Only).expect("a free address");
    far.admit(THERE, Address::Only).expect("a free address");
    let mut pool =
        Pool::new(&PoolSpec { trains: 0, singles: frames, huge_pages: false }).expect("memory");
    let mut burst = Burst::new();
    for _ in 0..frames {
        burst.push(pool.take(ChunkClass::Single).expect("so many").into_frame(256, 64));
    }
    (near, far, pool, burst)
}

/// Whether a worker that blocks on `arm` would wake immediately.
fn is_rung(arm: Arm) -> bool {
    let mut waiter = Waiter::with_capacity(1);
    waiter.add(arm);
    waiter.wait(Some(std::time::Duration::ZERO)) == Waited::Ready
}

#[test]
fn an_end_that_waits_for_room_is_woken_or_sees_it() {
    check(|| {
        let (mut near, mut far, pool, mut burst) = narrow(2);
        near.tx_burst(THERE, &mut burst);
        assert_eq!(burst.len(), 1, "one place");
        let taker = spawn(move || {
            let mut none =
                Pool::new(&PoolSpec { trains: 0, singles: 1, huge_pages: false }).expect("memory");
            let mut taken = Burst::new();
            far.rx_burst(&mut none, &mut taken);
            // Keeps the far end, so that only the free room can wake the near end.
            (far, taken.len())
        });
        let arm = near.arm();
        let (far, taken) = taker.join().expect("no panic");
        assert_eq!(taken, 1);
        assert!(arm == Arm::Ready || is_rung(arm), "asleep beside room, not woken");
        drop((burst, near, far, pool));
    });
}

#[test]
fn each_frame_to_an_end_that_goes_is_taken_or_lost() {
    check(|| {
        let (mut near, mut far, pool, mut burst) = narrow(1);
        let taker = spawn(move || {
            let mut none =
                Pool::new(&PoolSpec { trains: 0, singles: 1, huge_pages: false }).expect("memory");
            let mut taken = Burst::new();
            far.rx_burst(&mut none, &mut taken);
            drop(far);
            taken.len() as u64
        });
        near.tx_burst(THERE, &mut burst);
        assert!(burst.is_empty(), "neither taken nor lost");
        let known = near.tally().lost(Loss::PeerGone) > 0;
        let arm = near.arm();
        let taken = taker.join().expect("no panic");
        assert!(known || arm == Arm::Ready || is_rung(arm), "asleep, not notified");
        // Arming again handles the notification, if the end was asleep.
        near.disarm();
        near.arm();
        let tally = near.tally();
        assert_eq!(tally.frames_out.read(), taken);
        assert_eq!(tally.lost(Loss::PeerGone), 1 - taken);
        drop((near, pool));
    });
}
