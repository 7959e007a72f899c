//! Two ends perform a handshake in memory and exchange a packet. Run: `cargo run -p strowger-crypto
//! --example two_ends`

use std::error::Error;

use strowger_crypto::aead::Provider;
use strowger_crypto::handshake::{
    Admission, CookieChecker, Load, LocalParams, Offer, TimestampGuard, ik,
};
use strowger_crypto::{
    IdentityKey, LocalIdentity, Nanos, NetworkId, OsEntropy, Psk, SEALED_OVERHEAD_BYTES, Sealed,
};
use strowger_wire::{hello::Timestamp, link_header::SessionIndex};

fn main() -> Result<(), Box<dyn Error>> {
    let entropy = &mut OsEntropy;
    let network = NetworkId::new(b"example").ok_or("the name is too long")?;
    let alice = LocalIdentity::new(&IdentityKey::generate(entropy)?, network);
    let bob = LocalIdentity::new(&IdentityKey::generate(entropy)?, network);
    println!("alice is {}", alice.identity().peer_id());
    println!("bob is   {}", bob.identity().peer_id());

    // Alice knows Bob's static key. Time comes from the caller; here it does not advance.
    let now = Nanos::ZERO;
    let offer = Offer::default();
    let index = |number| SessionIndex::new(number).ok_or("more than 24 bits");
    let ours =
        LocalParams { local: &alice, offer: &offer, index: index(1)?, timestamp: Timestamp(1) };
    let (waiting, initiation) =
        ik::initiate(&ours, bob.static_public(), &Psk::NONE, None, entropy)?;
    println!("alice -> bob    {} bytes of initiation", initiation.len());

    // Bob stores nothing until he has read the identity.
    let checker = CookieChecker::new(&bob, now, entropy)?;
    let Admission::Admitted(admitted) =
        checker.admit(b"alice's address", &initiation, Load::Normal)?
    else {
        return Err("a cookie reply without load".into());
    };
    let read = ik::read(&bob, &admitted)?;
    println!("bob reads       {}", read.identity()?.peer_id());
    let ours =
        LocalParams { local: &bob, offer: &offer, index: index(2)?, timestamp: Timestamp(0) };
    let (bobs, response) =
        read.accept(&ours, &Psk::NONE, &mut TimestampGuard::default(), entropy)?;
    println!("bob -> alice    {} bytes of response", response.len());

    let alices = waiting.read_response(&response).map_err(|rejected| rejected.why)?;
    println!("both agree on   {:?}", alices.agreement());

    // Seal in place: the link header takes 8 bytes before the body, the tag 16 bytes after it.
    let mut alice_keys = alices.into_transport(now, Provider::DEFAULT);
    let mut bob_keys = bobs.into_transport(now, Provider::DEFAULT);
    let text = b"a label, and what it carries";
    let mut packet = vec![0; text.len() + SEALED_OVERHEAD_BYTES];
    packet[8..8 + text.len()].copy_from_slice(text);
    alice_keys.sealers[0].seal(now, Sealed::Data, &mut packet)?;
    println!("alice -> bob    {} bytes of sealed data", packet.len());
    let mut replay = packet.clone();
    let opened = bob_keys.openers.open(now, &mut packet)?;
    println!("bob opens       {:?}", String::from_utf8_lossy(opened.body()));
    println!("a replay is     {:?}", bob_keys.openers.open(now, &mut replay).map(|_| ()));
    Ok(())
}
