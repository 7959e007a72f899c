//! Measures each side of a handshake and the curve operations that it requires, as pairs in one
//! run.
//!
//! `cargo bench -p strowger-crypto --bench handshake`. For each side the benchmark prints the ratio
//! curves / side (minimum, median, maximum), and both times of the pair with the median ratio. A
//! ratio of 1.0 would mean that the handshake costs nothing except its curve operations. Each side
//! is measured with a new peer and with a known one (`again`). For a known peer, a node stores the
//! values that are the same in every handshake. Under `cargo test` it runs one pair.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use strowger_crypto::handshake::{
    Admission, CookieChecker, Load, LocalParams, Offer, TimestampGuard, ik, xx,
};
use strowger_crypto::{IdentityKey, LocalIdentity, Nanos, NetworkId, OsEntropy, Psk};
use strowger_wire::{hello::Timestamp, link_header::SessionIndex};
use x25519_dalek::{PublicKey, StaticSecret};

fn main() {
    let measure = std::env::args().any(|argument| argument == "--bench");
    let (pairs, rounds) = if measure { (31, 200) } else { (1, 1) };

    // A side of IK: four Diffie-Hellman operations, one public key, and one signature verified
    // under a key in byte form.
    let secret = StaticSecret::from([7; 32]);
    let public = PublicKey::from(&StaticSecret::from([9; 32]));
    let signing = SigningKey::from_bytes(&[3; 32]);
    let verifying = signing.verifying_key().to_bytes();
    let signature = signing.sign(b"strowger");
    let curves = || {
        black_box(PublicKey::from(black_box(&secret)));
        for _ in 0..4 {
            black_box(black_box(&secret).diffie_hellman(black_box(&public)));
        }
        let verifying = VerifyingKey::from_bytes(black_box(&verifying)).expect("a key");
        assert!(verifying.verify_strict(black_box(b"strowger"), &signature).is_ok());
    };

    let (new, known) = (Ends::new(), Ends::new());
    known.a.add_peer(known.b.static_public());
    known.b.add_peer(known.a.static_public());
    known.time(); // fills the precomputed values

    let names = ["responder", "initiator", "responder again", "initiator again"];
    let mut found = names.map(|_| Vec::new());
    for _ in 0..pairs {
        // The curve operations and the sides are measured in turn, so that other load on this
        // machine affects all of them equally.
        let (mut alone, mut sides) = (Duration::ZERO, [Duration::ZERO; 4]);
        for _ in 0..rounds {
            alone += time(curves).0;
            let each = [new.time(), known.time()];
            for (side, took) in sides.iter_mut().zip(each.as_flattened()) {
                *side += *took;
            }
        }
        let us = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(rounds);
        for (found, side) in found.iter_mut().zip(sides.map(us)) {
            found.push((us(alone) / side, us(alone), side));
        }
    }
    println!("side             curves us  side us  ratio (least, median, most of {pairs} pairs)");
    for (name, mut pairs) in names.into_iter().zip(found) {
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (least, most) = (pairs[0].0, pairs[pairs.len() - 1].0);
        let (ratio, curves, side) = pairs[pairs.len() / 2];
        println!("{name:15} {curves:10.1} {side:8.1}  {least:.3}  {ratio:.3}  {most:.3}");
    }

    let (_, message) = new.begin();
    let checker = &new.checker;
    for (name, load) in [("mac1 alone", Load::Normal), ("a cookie in reply", Load::Heavy)] {
        let (took, _) = time(|| {
            for _ in 0..rounds {
                assert!(
                    black_box(checker.admit(b"192.0.2.1:1", black_box(&message), load)).is_ok()
                );
            }
        });
        println!("cookie checker, {name}: {:.2} us", took.as_secs_f64() * 1e6 / f64::from(rounds));
    }
    by_peer_id(rounds);
}

/// The cost of a flood of first messages by PeerId for a responder of connections: the answer to
/// each, and the third message of an initiator that completes the handshake.
fn by_peer_id(rounds: u32) {
    let network = NetworkId::new(b"bench").expect("short");
    let local = || {
        let key = IdentityKey::generate(&mut OsEntropy).expect("random");
        LocalIdentity::for_connections(&key, network)
    };
    let (a, b) = (local(), local());
    let checker = CookieChecker::new(&b, Nanos::ZERO, &mut OsEntropy).expect("random");
    let (offer, index) = (Offer::default(), SessionIndex::new(1).expect("24 bits"));
    let ours = LocalParams { local: &a, offer: &offer, index, timestamp: Timestamp(1) };
    let admit = |message| match checker.admit(b"label", message, Load::Normal) {
        Ok(Admission::Admitted(admitted)) => admitted,
        _ => unreachable!("an honest message, and no load"),
    };
    let begun = xx::initiate_by_peer_id(&ours, b.identity(), None, &mut OsEntropy);
    let (state, first) = begun.expect("begun");
    let answer = || xx::answer(&checker, &b, &offer, b"label", &admit(&first)).expect("honest");
    let discovered = state.read_response(&a, &answer()).expect("honest");
    let (_, third) = discovered.finish(&ours, None).expect("agreed");
    let finish = || {
        xx::read_finish(&checker, &b, &offer, b"label", &admit(&third)).map(drop).expect("honest");
    };
    let us = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(rounds);
    let (answers, ()) = time(|| (0..rounds).for_each(|_| drop(black_box(answer()))));
    let (finishes, ()) = time(|| (0..rounds).for_each(|_| finish()));
    println!("by PeerId, answer to a first message: {:.1} us", us(answers));
    println!("by PeerId, third message: {:.1} us", us(finishes));
}

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let made = work();
    (start.elapsed(), made)
}

/// The two ends of a handshake.
struct Ends {
    a: LocalIdentity,
    b: LocalIdentity,
    checker: CookieChecker,
    offer: Offer,
}

impl Ends {
    fn new() -> Ends {
        let network = NetworkId::new(b"bench").expect("short");
        let local =
            || LocalIdentity::new(&IdentityKey::generate(&mut OsEntropy).expect("random"), network);
        let (a, b) = (local(), local());
        let checker = CookieChecker::new(&b, Nanos::ZERO, &mut OsEntropy).expect("random");
        Ends { a, b, checker, offer: Offer::default() }
    }

    fn ours<'a>(&'a self, local: &'a LocalIdentity) -> LocalParams<'a> {
        let index = SessionIndex::new(1).expect("24 bits");
        LocalParams { local, offer: &self.offer, index, timestamp: Timestamp(1) }
    }

    fn begin(&self) -> (ik::AwaitResponse, Vec<u8>) {
        let (ours, peer) = (self.ours(&self.a), self.b.static_public());
        ik::initiate(&ours, peer, &Psk::NONE, None, &mut OsEntropy).expect("begun")
    }

    fn respond(&self, message: &[u8]) -> Vec<u8> {
        let Ok(Admission::Admitted(admitted)) = self.checker.admit(b"", message, Load::Normal)
        else {
            unreachable!("an honest initiation, and no load");
        };
        let initiation = ik::read(&self.b, &admitted).expect("honest");
        let (ours, guard) = (self.ours(&self.b), &mut TimestampGuard::default());
        initiation.accept(&ours, &Psk::NONE, guard, &mut OsEntropy).expect("honest").1
    }

    /// Runs one handshake; returns the time of the responder's side and of the initiator's side.
    fn time(&self) -> [Duration; 2] {
        let (began, (state, message)) = time(|| self.begin());
        let (responded, response) = time(|| self.respond(&message));
        let (read, _) = time(|| state.read_response(&response).expect("honest"));
        [responded, began + read]
    }
}
