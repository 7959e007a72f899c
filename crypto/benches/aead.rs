//! Compares the AEAD providers, and measures the additional cost of sealer and opener. It prints
//! times and checks nothing.
//!
//! `cargo bench -p strowger-crypto --features internals --bench aead`

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strowger_crypto::aead::{Aead, Provider, nonce_of};
use strowger_crypto::handshake::{
    Admission, CookieChecker, Load, LocalParams, Offer, TimestampGuard, ik,
};
use strowger_crypto::{
    IdentityKey, LocalIdentity, Nanos, NetworkId, Openers, OsEntropy, Psk, SEALED_OVERHEAD_BYTES,
    Sealed, Sealer, Secret,
};
use strowger_wire::{
    hello::{SealWish, Timestamp},
    link_header::SessionIndex,
};

const SIZES: [usize; 4] = [16, 64, 256, 1400];
const AAD: [u8; 8] = [7; 8];

/// Measures the AEAD keys without sealer and opener.
fn providers(criterion: &mut Criterion) {
    let secret = Secret::from_bytes([1; 32]);
    for (verb, opens) in [("seal", false), ("open", true)] {
        let mut group = criterion.benchmark_group(verb);
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            for provider in Provider::ALL {
                let key = provider.key(&secret);
                let mut body = vec![5u8; size];
                let mut counter = 0;
                let tag = key.seal(&nonce_of(0), &AAD, &mut body);
                let sealed = body.clone();
                group.bench_function(BenchmarkId::new(provider.name(), size), |bencher| {
                    if opens {
                        bencher.iter(|| {
                            body.copy_from_slice(&sealed);
                            key.open(&nonce_of(0), &AAD, &mut body, black_box(&tag))
                        });
                    } else {
                        bencher.iter(|| {
                            counter += 1;
                            black_box(key.seal(&nonce_of(counter), &AAD, &mut body))
                        });
                    }
                });
            }
        }
        group.finish();
    }
}

/// One direction of a session from a real handshake.
fn session(seal: SealWish, provider: Provider) -> (Sealer, Openers) {
    let entropy = &mut OsEntropy;
    let network = NetworkId::new(b"bench").expect("short");
    let mut local =
        || LocalIdentity::new(&IdentityKey::generate(entropy).expect("random"), network);
    let (a, b) = (local(), local());
    let offer = Offer { seal, ..Offer::default() };
    let index = SessionIndex::new(1).expect("24 bits");
    let ours = |local| LocalParams { local, offer: &offer, index, timestamp: Timestamp(1) };
    let (state, message) =
        ik::initiate(&ours(&a), b.static_public(), &Psk::NONE, None, entropy).expect("begun");
    let checker = CookieChecker::new(&b, Nanos::ZERO, entropy).expect("random");
    let Ok(Admission::Admitted(admitted)) = checker.admit(b"", &message, Load::Normal) else {
        unreachable!("an honest initiation, and no load");
    };
    let (there, response) = ik::read(&b, &admitted)
        .expect("honest")
        .accept(&ours(&b), &Psk::NONE, &mut TimestampGuard::default(), entropy)
        .expect("honest");
    let here = state.read_response(&response).expect("honest");
    let sealer = here.into_transport(Nanos::ZERO, provider).sealers.swap_remove(0);
    (sealer, there.into_transport(Nanos::ZERO, provider).openers)
}

/// Measures the work of one hop: open, then seal.
fn hop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hop");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        for (mode, wish) in [("full", SealWish::Full), ("header-only", SealWish::MustHeaderOnly)] {
            for provider in Provider::ALL {
                let (mut far, mut openers) = session(wish, *provider);
                let (mut onward, _) = session(wish, *provider);
                let name = format!("{mode}/{}", provider.name());
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    bencher.iter_batched_ref(
                        || {
                            let mut packet = vec![5; size + SEALED_OVERHEAD_BYTES];
                            far.seal(Nanos::ZERO, Sealed::Data, &mut packet).expect("sealed");
                            packet
                        },
                        |packet| {
                            openers.open(Nanos::ZERO, packet).expect("honest");
                            onward.seal(Nanos::ZERO, Sealed::Data, packet)
                        },
                        BatchSize::SmallInput,
                    );
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, providers, hop);
criterion_main!(benches);
