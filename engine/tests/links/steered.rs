//! Handshakes through a handshake socket, which the slow path reads itself. No worker handles them
//! or the replies to them (R9). The tests run in virtual time.

use strowger_crypto::{
    IdentityKey, LocalIdentity, NetworkId, Psk, Secret, SeededEntropy,
    handshake::{LocalParams, Offer, ik, xx},
};
use strowger_engine::{
    Now,
    control::{
        HandshakeSocket, PlugError, PortId, Switch, SwitchConfig,
        peering::{Liveness, PeerSpec, PeeringConfig, UnknownPeerPolicy},
    },
    discard::Discard,
    limits::HANDSHAKE_BURSTS_MAX,
    link::Rights,
    worker::Worker,
};
use strowger_frame::{
    Address, BURST_MAX, Burst, ChunkClass, Mark, Pool, PoolSpec, Port, port::Arm,
};
use strowger_io::{MemoryPort, memory};
use strowger_wire::{
    hello::Timestamp,
    link_header::{Kind, LinkHeader, SessionIndex},
};

fn local(seed: u8) -> LocalIdentity {
    let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
    LocalIdentity::new(&key, NetworkId::new(b"test").expect("short"))
}

/// An IK initiation to the switch from the node with this number.
fn initiation(from: u8) -> Vec<u8> {
    let (offer, from) = (Offer::default(), local(from));
    let ours = LocalParams { local: &from, offer: &offer, index: index(), timestamp: Timestamp(1) };
    let entropy = &mut SeededEntropy::new(9);
    let begun = ik::initiate(&ours, local(1).static_public(), &Psk::NONE, None, entropy);
    begun.expect("randomness").1
}

/// The first message of XX, from a peer that does not know the responder's key.
fn discovery() -> Vec<u8> {
    let (offer, from) = (Offer::default(), local(3));
    let ours = LocalParams { local: &from, offer: &offer, index: index(), timestamp: Timestamp(1) };
    xx::initiate(&ours, None, &mut SeededEntropy::new(9)).expect("randomness").1
}

fn index() -> SessionIndex {
    SessionIndex::new(5).expect("24 bits")
}

fn memory_of(singles: u32) -> Pool {
    Pool::new(&PoolSpec { trains: 0, singles, huge_pages: false }).expect("memory")
}

fn admitted() -> (MemoryPort, MemoryPort) {
    let (mut near, mut far) = memory::wire(1_024).expect("descriptors");
    near.admit(Mark(0), Address::Only).expect("no other neighbour");
    far.admit(Mark(0), Address::Only).expect("no other neighbour");
    (near, far)
}

fn handshake_socket(port: MemoryPort) -> HandshakeSocket {
    HandshakeSocket { port: Box::new(port), pool: memory_of(512), worker_of: |_, _| 0 }
}

/// A switch with the configured peer 2, and with a port that has one queue and a handshake socket.
/// Handshake datagrams are sent from the far end of the handshake socket.
struct Setup {
    switch: Switch,
    worker: Worker,
    port: PortId,
    /// The far end of the worker's port.
    data: MemoryPort,
    /// The far end of the handshake socket.
    far_end: MemoryPort,
    pool: Pool,
}

impl Setup {
    fn new() -> Self {
        let (mut switch, mut workers) =
            Switch::new(SwitchConfig::default(), vec![memory_of(64)]).expect("sane");
        let config = PeeringConfig::new(local(1), Box::new(SeededEntropy::new(1)))
            .with_wall_at_zero(1)
            .with_unknown_peers(Some(
                UnknownPeerPolicy::default()
                    .with_rights(Rights::NONE)
                    .with_links_max(1)
                    .with_liveness(Liveness::default()),
            ));
        switch.set_identity(config, Now(1)).expect("an identity");
        let ((near, data), (indoors, far_end)) = (admitted(), admitted());
        let port = switch.plug_at(0, Box::new(near)).expect("room");
        switch.open_handshake_socket(port, handshake_socket(indoors)).expect("there is the port");
        let peer = PeerSpec::new("peer", *local(2).static_public(), port);
        switch.add_peer(peer, Now(1)).expect("a slot");
        let worker = workers.remove(0);
        let mut setup = Self { switch, worker, port, data, far_end, pool: memory_of(1_024) };
        setup.poll();
        setup
    }

    fn poll(&mut self) {
        for _ in 0..8 {
            self.worker.poll(Now(2));
            self.switch.poll(Now(2));
        }
    }

    fn datagram(&mut self, bytes: &[u8]) {
        self.pool.reclaim();
        let chunk = self.pool.take(ChunkClass::Single).expect("memory");
        let start = chunk.start();
        let mut frame = chunk.into_frame(start, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        let mut burst = Burst::new();
        burst.push(frame);
        self.far_end.tx_burst(Mark(0), &mut burst);
        self.far_end.flush();
    }

    fn ended(&self, why: Discard) -> u64 {
        self.switch.balance().discards[why as usize]
    }
}

fn arrived(port: &mut MemoryPort, pool: &mut Pool) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    port.rx_burst(pool, &mut burst);
    burst.iter().map(|frame| frame.bytes().to_vec()).collect()
}

#[test]
fn r9_an_unknown_peer_is_answered_by_the_handshake_socket_at_no_cost_to_the_worker() {
    let mut setup = Setup::new();
    let request = discovery();
    setup.datagram(&request);
    setup.poll();
    let answers = arrived(&mut setup.far_end, &mut setup.pool);
    assert_eq!(answers.len(), 1, "one reply");
    assert!(answers[0].len() <= request.len(), "the reply is longer than the request");
    assert!(arrived(&mut setup.data, &mut setup.pool).is_empty(), "none by the worker");
    let queues = setup.switch.ports()[0].queues.clone();
    let counted = |at: usize| (queues[at].frames_in, queues[at].frames_made, queues[at].frames_out);
    assert_eq!((queues[0].worker, counted(0)), (Some(0), (0, 0, 0)));
    assert_eq!((queues[1].worker, counted(1)), (None, (1, 1, 1)));
    assert_eq!(setup.ended(Discard::Handled), 1);
    assert!(setup.switch.balance().is_even());
}

#[test]
fn r9_under_load_the_door_gives_out_the_cookies() {
    let mut setup = Setup::new();
    // When a quarter of the budget is used up, a sender must prove its address with a cookie.
    let request = initiation(3);
    for _ in 0..300 {
        setup.datagram(&request);
    }
    setup.poll();
    let answers = arrived(&mut setup.far_end, &mut setup.pool);
    assert!(!answers.is_empty());
    for cookie in &answers {
        let kind = LinkHeader::parse(cookie).map(|header| header.kind);
        assert!(kind == Ok(Kind::Cookie) && cookie.len() <= request.len());
    }
    assert_eq!(setup.ended(Discard::UnknownPeer) + answers.len() as u64, 300);
    assert!(arrived(&mut setup.data, &mut setup.pool).is_empty());
    assert!(setup.switch.balance().is_even());
}

#[test]
fn a_peer_is_answered_by_the_handshake_socket_that_knows_which_address_it_asked() {
    let mut setup = Setup::new();
    setup.datagram(&initiation(2));
    setup.poll();
    assert!(arrived(&mut setup.data, &mut setup.pool).is_empty());
    let answers = arrived(&mut setup.far_end, &mut setup.pool);
    let kind = LinkHeader::parse(&answers[0]).map(|header| header.kind);
    assert_eq!((answers.len(), kind), (1, Ok(Kind::Response)));
    assert!(setup.switch.balance().is_even());
}

#[test]
fn r9_datagrams_that_are_no_handshake_end_at_the_handshake_socket() {
    let mut setup = Setup::new();
    setup.datagram(&[0x40; 64]);
    setup.datagram(&[]);
    setup.datagram(&initiation(3));
    setup.poll();
    assert_eq!(setup.ended(Discard::BadLinkKind), 2);
    assert_eq!(setup.ended(Discard::UnknownPeer), 1);
    assert!(arrived(&mut setup.far_end, &mut setup.pool).is_empty());
    let balance = setup.switch.balance();
    assert!(balance.frames_in == 3 && balance.is_even(), "{balance:?}");
}

#[test]
fn a_turn_takes_so_many_from_a_door_and_the_rest_waits() {
    let mut setup = Setup::new();
    let most = HANDSHAKE_BURSTS_MAX as u64 * BURST_MAX as u64;
    for _ in 0..most + 7 {
        setup.datagram(&[0x40; 64]);
    }
    setup.switch.poll(Now(2));
    assert_eq!(setup.ended(Discard::BadLinkKind), most);
    let mut arms = Vec::new();
    setup.switch.arm(|arm| arms.push(arm));
    setup.switch.disarm();
    assert_eq!(arms, [Arm::Ready]);
    setup.switch.poll(Now(2));
    assert_eq!(setup.ended(Discard::BadLinkKind), most + 7);
}

#[test]
fn a_handshake_socket_closes_with_its_port_and_its_counters_stay() {
    let mut setup = Setup::new();
    setup.datagram(&discovery());
    setup.poll();
    let before = setup.switch.balance();
    let slot = setup.switch.slots()[0].slot;
    setup.switch.detach(slot).expect("attached");
    setup.poll();
    setup.switch.unplug(setup.port).expect("no slot uses it");
    setup.poll();
    assert!(setup.switch.ports().is_empty());
    let after = setup.switch.balance();
    assert_eq!((after.frames_in, after.frames_made), (before.frames_in, before.frames_made));
    let (late, _street) = admitted();
    let refused = setup.switch.open_handshake_socket(setup.port, handshake_socket(late));
    assert_eq!(refused, Err(PlugError::NoPort));
}
