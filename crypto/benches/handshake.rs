//! A side of a handshake beside the curve operations that it cannot do without, as pairs in one run.
//!
//! `cargo bench -p strowger-crypto --bench handshake`. Prints, for each side, the median time of both
//! and the median ratio, curves / side, with its least and most: 1.0 would be a handshake that is
//! nothing but curves. Under `cargo test` it makes one pair and prints nothing of worth.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};
use strowger_crypto::handshake::{Admission, Gate, Load, Offer, Ours, Stamp, StampGuard, ik};
use strowger_crypto::link_header::SessionIndex;
use strowger_crypto::{IdentityKey, Local, Nanos, NetworkId, OsEntropy, Psk};
use x25519_dalek::{PublicKey, StaticSecret};

fn main() {
    let measure = std::env::args().any(|argument| argument == "--bench");
    let (pairs, rounds) = if measure { (31, 200) } else { (1, 1) };

    // A side of IK: four Diffie-Hellman operations, one public key, one signature verified.
    let secret = StaticSecret::from([7; 32]);
    let public = PublicKey::from(&StaticSecret::from([9; 32]));
    let signing = SigningKey::from_bytes(&[3; 32]);
    let verifying = signing.verifying_key();
    let signature = signing.sign(b"strowger");
    let curves = || {
        black_box(PublicKey::from(black_box(&secret)));
        for _ in 0..4 {
            black_box(black_box(&secret).diffie_hellman(black_box(&public)));
        }
        assert!(verifying.verify_strict(black_box(b"strowger"), &signature).is_ok());
    };

    let network = NetworkId::new(b"bench").expect("short");
    let local = || Local::new(&IdentityKey::generate(&mut OsEntropy).expect("random"), network);
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

    let (mut responder, mut initiator) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        // One of each in turn, so that whatever else this machine does falls on all alike.
        let mut times = [Duration::ZERO; 3];
        for _ in 0..rounds {
            times[0] += time(curves).0;
            let (began, (state, message)) = time(initiate);
            let (responded, (_, response)) = time(|| respond(&message));
            let (read, _) = time(|| state.read_response(&response).expect("honest"));
            times[1] += responded;
            times[2] += began + read;
        }
        let [curves, there, here] = times.map(|time| time.as_secs_f64() * 1e6 / f64::from(rounds));
        responder.push((curves / there, curves, there));
        initiator.push((curves / here, curves, here));
    }
    println!("side       curves us  side us  ratio (least, median, most of {pairs} pairs)");
    for (name, mut pairs) in [("responder", responder), ("initiator", initiator)] {
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (least, most) = (pairs[0].0, pairs[pairs.len() - 1].0);
        let (ratio, curves, side) = pairs[pairs.len() / 2];
        println!("{name:9} {curves:10.1} {side:8.1}  {least:.3}  {ratio:.3}  {most:.3}");
    }

    let (_, message) = initiate();
    for (name, load) in [("mac1 alone", Load::Calm), ("a cookie in reply", Load::Heavy)] {
        let (took, _) = time(|| {
            for _ in 0..rounds {
                assert!(black_box(gate.admit(b"192.0.2.1:1", black_box(&message), load)).is_ok());
            }
        });
        println!("the gate, {name}: {:.2} us", took.as_secs_f64() * 1e6 / f64::from(rounds));
    }
}

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let made = work();
    (start.elapsed(), made)
}
