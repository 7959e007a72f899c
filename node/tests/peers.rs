//! Who gets a link between relays as processes: the identity that is pinned, strangers as far as the
//! policy goes; and what they are told when it ends. Nothing here sleeps.
#![allow(clippy::unwrap_used)] // functions that only tests call are tests too

mod trial;

use trial::{
    eventually,
    homes::{Home, assert_exchange, until_up},
};

#[test]
fn a_peer_must_be_who_is_pinned_whoever_begins() {
    let (a, b) = (Home::new(), Home::new());
    let pin = |peer_id: &str| format!("peer_id = \"{peer_id}\"");
    let first = a.start(&b.key, Some(b.at), &pin(&b.peer_id));
    let second = b.start(&a.key, None, &pin(&a.peer_id));
    until_up([&first, &second]);
    assert_exchange(&mut first.client(), &mut second.client());
    first.stop();
    second.stop();

    // The key is right, and has another owner than the one who is pinned.
    let other = Home::new();
    for (a_at, b_at) in [(Some(a.at), None), (None, Some(b.at))] {
        let first = a.start(&b.key, b_at, &pin(&other.peer_id));
        let second = b.start(&a.key, a_at, "");
        let refused = eventually("it is told", || first.events("peer_refused").pop());
        assert_eq!((&refused["slot"], &refused["name"]), (&2.into(), &"peer".into()));
        assert!(refused["detail"].as_str().unwrap().contains(&b.peer_id), "{refused}");
        assert!(first.discards("not_allowed") > 0);
        assert!(!first.is_up());
        first.stop();
        second.stop();
    }
}
