//! A sealed link carries data and renews its keys under packet loss. The tests run in virtual time,
//! with a fixed seed.

use strowger_engine::{control::Event, discard::Discard};
use strowger_testkit::sim::{Pair, SECOND, receive, send};

#[test]
fn a_sealed_link_comes_up_and_carries_data() {
    let mut pair = Pair::new();
    pair.until_up();
    send(&mut pair.at_a, pair.to_b, b"sealed");
    pair.advance(1_000);
    assert_eq!(receive(&mut pair.at_b).as_deref(), Some(&b"sealed"[..]));
    assert!(pair.a.events.iter().any(|event| matches!(event, Event::LinkUp(_))));
    pair.assert_even();
}

#[test]
fn rekeying_under_loss_refuses_no_data() {
    let mut pair = Pair::new();
    pair.net.set_loss(300_000, 11);
    pair.until_up();
    // The test runs for 20 minutes with two packets per second, so that about ten rekeys happen.
    for round in 0..2_400_u32 {
        send(&mut pair.at_a, pair.to_b, &round.to_be_bytes());
        pair.advance(SECOND / 2);
        while receive(&mut pair.at_b).is_some() {}
    }
    assert!(pair.a.switch.peers()[0].handshakes >= 8, "{:?}", pair.a.switch.peers());
    pair.assert_even();
    for node in [&pair.a, &pair.b] {
        for refused in [Discard::LinkDown, Discard::KeysExpired, Discard::BadSeal] {
            assert_eq!(node.count(refused), 0, "{refused} refused at {}", node.at);
        }
    }
}
