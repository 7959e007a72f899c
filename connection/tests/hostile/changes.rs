//! R22: changes of label, keys and path, and restarts, lose only messages in flight and close no
//! socket.

use strowger_connection::{ConnectOptions, Event, ListenOptions, SocketId};

use crate::{
    traffic::Traffic,
    world::{MS, SECOND, World, peer, seeds},
};

const NAME: &str = "/test/1";

/// Two ends with a connection, and messages in one direction or both.
pub(crate) struct Load {
    pub(crate) world: World,
    traffic: Traffic,
    ahead: SocketId,
    behind: Option<SocketId>,
    /// For each message: the time at which it was sent, the end that sent it, and its bytes.
    sent: Vec<(u64, usize, Vec<u8>)>,
    /// Messages that were refused.
    pub(crate) refused: usize,
}

impl Load {
    pub(crate) fn new(seed: u64, by_key: bool) -> Load {
        let mut world = World::two_paths(seed);
        world.listen(1, NAME, ListenOptions::new());
        let label = world.ahead(1);
        let ahead = match by_key {
            false => world.connect(0, 1, label, NAME),
            true => world.connect_by_key(0, 1, label, NAME, ConnectOptions::new()),
        };
        let mut load = Load {
            world,
            traffic: Traffic::default(),
            ahead,
            behind: None,
            sent: Vec::new(),
            refused: 0,
        };
        load.run(SECOND, 50 * MS);
        let accepted = load.world.ends[1].events.iter().find_map(|event| match event {
            Event::Accepted { socket, .. } => Some(*socket),
            _ => None,
        });
        load.behind = Some(accepted.expect("the listener accepts"));
        load
    }

    /// Both ends send a message each `period`.
    pub(crate) fn run(&mut self, duration: u64, period: u64) {
        let end = self.world.now + duration;
        while self.world.now < end {
            let sockets = [(0, Some(self.ahead)), (1, self.behind)];
            for (from, socket) in sockets {
                let Some(socket) = socket else { continue };
                let now = self.world.now;
                match self.traffic.send(&mut self.world, (from, 1 - from), socket, NAME) {
                    Ok(message) => self.sent.push((now, from, message)),
                    Err(_) => self.refused += 1,
                }
            }
            self.world.run(period);
        }
    }

    /// The send times of messages that have not arrived.
    pub(crate) fn lost(&mut self) -> Vec<u64> {
        self.world.run(SECOND);
        self.traffic.check(&self.world);
        self.world.assert_balanced();
        let has = |end: usize, message: &[u8]| Traffic::has_arrived(&self.world, end, message);
        let lost = self.sent.iter().filter(|(_, from, message)| !has(1 - from, message));
        lost.map(|(at, ..)| *at).collect()
    }

    /// Fails if a socket was closed.
    pub(crate) fn assert_open(&self) {
        for end in 0..2 {
            let is_closed = |event: &Event| {
                matches!(event, Event::SocketClosed { .. } | Event::ConnectFailed { .. })
            };
            assert!(!self.world.has(end, is_closed), "{:?}", self.world.ends[end].events);
        }
    }
}

/// wire.md: W6-29.
#[test]
fn data_leaves_after_exactly_one_round_trip() {
    for by_key in [false, true] {
        let mut world = World::two_paths(1);
        world.listen(1, NAME, ListenOptions::new());
        let label = world.ahead(1);
        let start = world.now;
        let socket = match by_key {
            false => world.connect(0, 1, label, NAME),
            true => world.connect_by_key(0, 1, label, NAME, ConnectOptions::new()),
        };
        world.send(0, socket, b"first").unwrap();
        // 10 ms in each direction: the message arrives after 3 delays.
        assert!(world.run_until(SECOND, |world| !world.ends[1].got.is_empty()));
        assert_eq!(world.now - start, 30 * MS, "by key: {by_key}");
    }
}

/// wire.md: W4-104, W6-138, W6-195.
#[test]
fn r22_new_keys_lose_nothing() {
    for seed in seeds(2) {
        let mut load = Load::new(seed, seed % 2 == 0);
        load.run(400 * SECOND, 100 * MS);
        let info = load.world.info(0, &peer(2));
        assert!(info.handshakes >= 4, "seed {seed}: {} handshakes", info.handshakes);
        assert_eq!((load.lost(), load.refused), (Vec::new(), 0), "seed {seed}");
        for end in 0..2 {
            let has_restarted = |event: &Event| matches!(event, Event::PeerRestarted { .. });
            assert!(!load.world.has(end, has_restarted), "seed {seed}: the id is answered");
        }
        load.assert_open();
    }
}

/// wire.md: W6-195.
#[test]
fn r22_new_keys_at_30_percent_loss_close_nothing() {
    for seed in seeds(2) {
        let mut load = Load::new(seed, false);
        for link in load.world.links() {
            link.loss = 163; // 30 % of two links
        }
        load.run(400 * SECOND, 100 * MS);
        for link in load.world.links() {
            link.loss = 0;
        }
        let count = load.sent.len();
        let lost = load.lost().len();
        assert_eq!(load.refused, 0, "seed {seed}");
        assert!(lost * 100 < count * 36, "seed {seed}: {lost} of {count}");
        load.assert_open();
    }
}

/// wire.md: W6-18, W6-138, W6-140, W6-144.
#[test]
fn r22_a_peer_that_restarts_is_found_again_and_no_socket_closes() {
    for seed in seeds(4) {
        let mut load = Load::new(seed, seed % 2 == 0);
        load.run(5 * SECOND, 50 * MS); // no handshake begins while the keys are newer (W4-104)
        let restart = load.world.now;
        load.world.restart(1);
        load.behind = None;
        load.world.listen(1, NAME, ListenOptions::new());
        load.run(5 * SECOND, 5 * MS);
        let lost = load.lost();
        let last = lost.iter().max().copied().unwrap_or(restart);
        assert!(last < restart + SECOND, "seed {seed}: {} ms", (last - restart) / MS);
        assert!(load.world.has(0, |event| matches!(event, Event::PeerRestarted { .. })));
        load.assert_open();
    }
}

/// wire.md: W6-132.
#[test]
fn an_idle_connection_sends_nothing_and_wakes_with_the_next_message() {
    for seed in seeds(2) {
        let mut load = Load::new(seed, seed % 2 == 0);
        load.world.run(70 * SECOND);
        let packets = |world: &World| world.ends.iter().map(|end| end.sent.len()).sum::<usize>();
        let before = packets(&load.world);
        load.world.run(250 * SECOND);
        assert_eq!(packets(&load.world), before, "seed {seed}");
        load.run(SECOND, 100 * MS);
        assert_eq!((load.lost(), load.refused), (Vec::new(), 0), "seed {seed}");
        load.assert_open();
    }
}

/// Both ends connect to each other at the same time, with loss.
///
/// wire.md: W6-139, W6-140, W6-152.
#[test]
fn both_ends_may_connect_at_once() {
    for seed in seeds(12) {
        let mut world = World::two_paths(seed);
        let mut traffic = Traffic::default();
        let loss = if seed % 3 == 0 { 0 } else { world.rng.below(164) };
        for link in world.links() {
            (link.loss, link.jitter) = (loss, 20 * MS);
        }
        let (ahead, behind) = (world.ahead(1), world.behind(1));
        let (first, second) = match world.rng.one_in(2) {
            true => (world.connect(0, 1, ahead, NAME), world.connect(1, 0, behind, NAME)),
            false => (
                world.connect_by_key(0, 1, ahead, NAME, ConnectOptions::new()),
                world.connect(1, 0, behind, NAME),
            ),
        };
        let are = |world: &World| world.is_connected(0, first) && world.is_connected(1, second);
        assert!(world.run_until(10 * SECOND, are), "seed {seed}, loss {loss}");
        for link in world.links() {
            link.loss = 0;
        }
        world.run(3 * SECOND);
        for (from, socket) in [(0, first), (1, second)] {
            let sent = traffic.send(&mut world, (from, 1 - from), socket, NAME).unwrap();
            world.run(SECOND);
            assert!(Traffic::has_arrived(&world, 1 - from, &sent), "seed {seed}: from {from}");
        }
        for end in 0..2 {
            let other = peer(world.ends[1 - end].seed);
            let info = world.info(end, &other);
            assert_eq!(info.sockets, 1, "seed {seed}: one socket at each end");
            let has_restarted =
                world.has(end, |event| matches!(event, Event::PeerRestarted { .. }));
            assert!(!has_restarted, "seed {seed}: a first connection is no restart");
            world.listen(end, "/late/1", ListenOptions::new());
            world.drive(end);
        }
        world.run(2 * SECOND);
        for end in 0..2 {
            let other = peer(world.ends[1 - end].seed);
            let theirs = world.info(end, &other).their_protocols;
            assert_eq!(theirs, [NAME, "/late/1"], "seed {seed}: items under the keys of both");
        }
        traffic.check(&world);
        world.assert_balanced();
    }
}

/// The process starts again with a clock that was set back. The peer remembers earlier timestamps
/// and refuses these handshakes (W4-16), but starts a handshake itself when it sends a message.
///
/// wire.md: W6-140.
#[test]
fn a_clock_that_was_set_back_leaves_the_handshakes_of_the_peer() {
    for seed in seeds(3) {
        let mut load = Load::new(seed, seed % 2 == 0);
        load.run(6 * SECOND, 100 * MS);
        load.world.ends[0].skew = -3_600 * SECOND as i64;
        load.world.restart(0);
        load.world.ends[0].events.clear();
        load.world.listen(0, NAME, ListenOptions::new());
        let behind = load.behind.unwrap();
        load.world.run(MS);
        let sent = |load: &mut Load| {
            let message = load.traffic.send(&mut load.world, (1, 0), behind, NAME);
            load.world.run(2 * SECOND);
            message
        };
        let _ = sent(&mut load);
        let last = sent(&mut load).unwrap();
        assert!(Traffic::has_arrived(&load.world, 0, &last), "seed {seed}");
        load.traffic.check(&load.world);
        load.world.assert_balanced();
    }
}
