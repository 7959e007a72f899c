//! A handshake, each side by itself, beside the curve operations that it cannot do without.
//!
//! `cargo bench -p strowger-crypto --bench handshake`

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer, SigningKey};
use strowger_crypto::handshake::{Admission, Gate, Load, Offer, Ours, Stamp, StampGuard, ik};
use strowger_crypto::link_header::SessionIndex;
use strowger_crypto::{IdentityKey, Local, Nanos, NetworkId, OsEntropy, Psk};
use x25519_dalek::{PublicKey, StaticSecret};

/// Four Diffie-Hellman operations, one public key, one signature verified: a side of IK.
fn curves(criterion: &mut Criterion) {
    let secret = StaticSecret::from([7; 32]);
    let public = PublicKey::from(&StaticSecret::from([9; 32]));
    let signing = SigningKey::from_bytes(&[3; 32]);
    let verifying = signing.verifying_key();
    let signature = signing.sign(b"strowger");
    criterion.bench_function("curves/one side of IK", |bencher| {
        bencher.iter(|| {
            black_box(PublicKey::from(black_box(&secret)));
            for _ in 0..4 {
                black_box(black_box(&secret).diffie_hellman(black_box(&public)));
            }
            verifying.verify_strict(black_box(b"strowger"), &signature).is_ok()
        });
    });
}

fn sides(criterion: &mut Criterion) {
    let entropy = &mut OsEntropy;
    let network = NetworkId::new(b"bench").expect("short");
    let mut local = || Local::new(&IdentityKey::generate(entropy).expect("random"), network);
    let (a, b) = (local(), local());
    let offer = Offer::default();
    let index = SessionIndex::new(1).expect("24 bits");
    let ours = |local| Ours { local, offer: &offer, index, stamp: Stamp(1) };
    let gate = Gate::new(&b, Nanos::ZERO, &mut OsEntropy).expect("random");
    let peer = *b.static_public();
    let initiate =
        || ik::initiate(&ours(&a), &peer, &Psk::NONE, None, &mut OsEntropy).expect("begun");
    let respond = |message: &[u8]| {
        let Ok(Admission::Go(admitted)) = gate.admit(b"", message, Load::Calm) else {
            unreachable!("an honest initiation, and no load");
        };
        let initiation = ik::read(&b, &admitted).expect("honest");
        let guard = &mut StampGuard::default();
        initiation.accept(&ours(&b), &Psk::NONE, guard, &mut OsEntropy).expect("honest")
    };
    criterion.bench_function("ik/responder", |bencher| {
        bencher.iter_batched(initiate, |(_, message)| respond(&message), BatchSize::SmallInput);
    });
    criterion.bench_function("ik/initiator, first message", |bencher| {
        bencher.iter(initiate);
    });
    criterion.bench_function("ik/initiator, response", |bencher| {
        bencher.iter_batched(
            || {
                let (state, message) = initiate();
                (state, respond(&message).1)
            },
            |(state, response)| state.read_response(&response).expect("honest"),
            BatchSize::SmallInput,
        );
    });
    let (_, message) = initiate();
    criterion.bench_function("gate/admit, calm", |bencher| {
        bencher.iter(|| gate.admit(b"192.0.2.1:1", black_box(&message), Load::Calm).is_ok());
    });
    criterion.bench_function("gate/admit, under load, answered by a cookie", |bencher| {
        bencher.iter(|| gate.admit(b"192.0.2.1:1", black_box(&message), Load::Heavy).is_ok());
    });
}

criterion_group!(benches, curves, sides);
criterion_main!(benches);
