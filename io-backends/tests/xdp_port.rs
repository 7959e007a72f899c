//! Ethernet ports over veth pairs, on each rung that a veth has: order, trains, strangers, sizes,
//! VLANs, queues. The tests never sleep: they poll with a deadline.

#![allow(clippy::unwrap_used)] // the helpers of a test are a test

mod veth;

use strowger_frame::{Address, Burst, Loss, Mark, Port};
use strowger_io::xdp::{Choice, OpenError, Rung, XdpSpec, probe};

use crate::veth::*;

#[test]
fn frames_pass_in_order_and_intact_on_every_rung() {
    for (from, to) in RUNGS.into_iter().flat_map(|a| RUNGS.map(|b| (a, b))) {
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
        assert_eq!((a.tally().lost_in_all(), b.tally().lost_in_all()), (0, 0));
        let copies = a.tally().frames_copied.read() + b.pool.tally().frames_copied.read();
        assert_eq!((copies, b.tally().kernel_drops.read()), (0, 0), "{from:?} to {to:?}");
    }
}
