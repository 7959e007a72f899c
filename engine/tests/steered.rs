//! Handshakes that the slow path takes in by itself: no worker sees them (R9). Driven by hand.

use strowger_crypto::{
    IdentityKey, Local, NetworkId, Psk, Secret, SeededEntropy,
    aead::Provider,
    handshake::{Offer, Ours, Stamp, ik},
    link_header::SessionIndex,
};
use strowger_engine::{
    Now,
    control::{
        PortId, Switch, SwitchConfig,
        peering::{PeerSpec, PeeringConfig},
    },
    discard::Discard,
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Frame, Mark, Pool, PoolSpec, Port};
use strowger_io::{MemoryPort, memory};

fn local(seed: u8) -> Local {
    let key = IdentityKey::from_seed(&Secret::from_bytes([seed; 32]));
    Local::new(&key, NetworkId::new(b"test").expect("short"))
}

fn initiation(from: u8) -> Vec<u8> {
    let offer = Offer::default();
    let index = SessionIndex::new(5).expect("24 bits");
    let from = local(from);
    let ours = Ours { local: &from, offer: &offer, index, stamp: Stamp(1) };
    let entropy = &mut SeededEntropy::new(9);
    let begun = ik::initiate(&ours, local(1).static_public(), &Psk::NONE, None, entropy);
    begun.expect("randomness").1
}

struct Knocked {
    switch: Switch,
    worker: Worker,
    port: PortId,
    far: MemoryPort,
    pool: Pool,
}

impl Knocked {
    /// A switch that knows peer 2, behind a wire.
    fn new() -> Self {
        let pool = |singles| {
            Pool::new(&PoolSpec { trains: 0, singles, huge_pages: false }).expect("memory")
        };
        let (mut switch, mut workers) =
            Switch::new(SwitchConfig::default(), vec![pool(64)]).expect("sane");
        let config = PeeringConfig {
            local: local(1),
            entropy: Box::new(SeededEntropy::new(1)),
            provider: Provider::DEFAULT,
            wall_at_zero: 1,
            strangers: None,
        };
        switch.set_identity(config, Now(1)).expect("an identity");
        let (near, mut far) = memory::wire(16).expect("descriptors");
        far.admit(Mark(0), Address::Only).expect("nobody else");
        let port = switch.plug_at(0, Box::new(near)).expect("room");
        switch
            .add_peer(PeerSpec::new("peer", *local(2).static_public(), port), Now(1))
            .expect("a slot");
        let mut knocked = Self { switch, worker: workers.remove(0), port, far, pool: pool(8) };
        knocked.turn();
        knocked
    }

    fn turn(&mut self) {
        for _ in 0..4 {
            self.worker.breathe(Now(2));
            self.switch.poll(Now(2));
        }
    }

    fn knock(&mut self, bytes: &[u8]) {
        let chunk = self.pool.take(ChunkClass::Single).expect("memory");
        let start = chunk.start();
        let mut frame: Frame = chunk.into_frame(start, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        self.switch.knock(0, self.port, Address::Only, frame, Now(2));
        self.turn();
    }

    fn answers(&mut self) -> usize {
        let mut burst = Burst::new();
        self.far.rx_burst(&mut self.pool, &mut burst);
        burst.len()
    }

    fn ended(&self, why: Discard) -> u64 {
        self.switch.balance().discards[why as usize]
    }
}

#[test]
fn r9_a_handshake_taken_in_by_the_slow_path_is_answered_and_costs_the_worker_one_send() {
    let mut knocked = Knocked::new();
    knocked.knock(&initiation(2));
    assert_eq!(knocked.answers(), 1);
    assert_eq!(knocked.ended(Discard::Handled), 1);
    assert_eq!(knocked.switch.balance().frames_in, 0, "no worker took anything in");
}

#[test]
fn r9_what_is_no_handshake_or_nobody_s_ends_there() {
    let mut knocked = Knocked::new();
    knocked.knock(&[0x40; 64]);
    knocked.knock(&[]);
    assert_eq!(knocked.ended(Discard::BadLinkKind), 2);
    knocked.knock(&initiation(3));
    assert_eq!(knocked.ended(Discard::NotAllowed), 1);
    assert_eq!(knocked.answers(), 0);
}
