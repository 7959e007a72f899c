//! Noise (revision 34) for this crate: snow's state machine over our own resolver.
//!
//! All primitives are those of the rest of the crate: x25519-dalek, blake2, and the AEAD provider
//! that seals packets. The tests below run the published vectors through this resolver with every
//! provider.

use core::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use strowger_wire::limits::{INITIATION_BYTES, KEY_BYTES, TAG_BYTES};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

use super::blake2s::Blake2s;
use crate::cipher::{Aead, AeadKey, BadTag, Provider, nonce_of};
use crate::identity::{LocalIdentity, StaticPublic};
use crate::precomputed::PrecomputedPeers;
use crate::secret::{Psk, Secret};

/// Pattern for a peer whose static key is known.
pub(crate) static IK: Pattern = Pattern::new(|| read("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"));
/// Pattern for a peer whose static key is unknown.
pub(crate) static XX: Pattern = Pattern::new(|| read("Noise_XX_25519_ChaChaPoly_BLAKE2s"));
/// Pattern without static keys. Its state replaces that of a dropped handshake, to erase the
/// secrets.
static NN: Pattern = Pattern::new(|| read("Noise_NN_25519_ChaChaPoly_BLAKE2s"));

/// A pattern, parsed once.
pub(crate) type Pattern = LazyLock<NoiseParams>;

fn read(pattern: &str) -> NoiseParams {
    pattern.parse().expect("the patterns are constants")
}

/// Number of the message that mixes in the psk of IKpsk2.
const IK_PSK_AT: usize = 2;

/// This state cannot read the message: the message is truncated, altered, or for another receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// One end of a handshake, between two messages.
///
/// snow does not erase its chaining key and psk, so dropping this value overwrites both in place.
/// Copies that snow leaves on the stack are not erased (see README.md).
pub(crate) struct Noise {
    state: Box<HandshakeState>,
    scratch: Arc<Scratch>,
}

/// Values that are passed between snow's state and its owner, each of them once.
#[derive(Default)]
pub(super) struct Scratch {
    /// The ephemeral key, until snow requests it. snow takes its random source when its state is
    /// built, but a responder generates its key only after it has read a message. So the random
    /// source and the owner share this field.
    ephemeral: Mutex<Option<Secret>>,
    /// The two direction keys, as snow's hash computed them. They are stored here, because snow's
    /// own functions would compute them again.
    split: Mutex<Option<(Secret, Secret)>>,
}

impl Scratch {
    fn put_ephemeral(&self, key: Secret) {
        *self.ephemeral.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    fn take_ephemeral(&self) -> Option<Secret> {
        self.ephemeral.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn put_split(&self, keys: (Secret, Secret)) {
        *self.split.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    fn take_split(&self) -> Option<(Secret, Secret)> {
        self.split.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Noise {
    /// Makes an initiator. `ephemeral` is its ephemeral key; `peer` is the responder's key in IK.
    pub(crate) fn initiator(
        pattern: &Pattern,
        prologue: &[u8],
        local: &LocalIdentity,
        peer: Option<&StaticPublic>,
        ephemeral: Secret,
    ) -> Noise {
        let scratch = Arc::<Scratch>::default();
        scratch.put_ephemeral(ephemeral);
        let state = builder(pattern, local, &scratch)
            .local_private_key(local.static_key().expose())
            .and_then(|builder| builder.prologue(prologue))
            .and_then(|builder| match peer {
                Some(peer) => builder.remote_public_key(&peer.0),
                None => Ok(builder),
            })
            .and_then(Builder::build_initiator);
        let state = state.expect("each part is set once and the pattern needs no other");
        Noise { state: Box::new(state), scratch }
    }

    /// Makes a responder. It needs an ephemeral key only before it writes.
    pub(crate) fn responder(pattern: &Pattern, prologue: &[u8], local: &LocalIdentity) -> Noise {
        let scratch = Arc::<Scratch>::default();
        let state = builder(pattern, local, &scratch)
            .local_private_key(local.static_key().expose())
            .and_then(|builder| builder.prologue(prologue))
            .and_then(Builder::build_responder);
        let state = state.expect("each part is set once and the pattern needs no other");
        Noise { state: Box::new(state), scratch }
    }

    /// Sets the ephemeral key of a responder. Each handshake needs a fresh one.
    pub(crate) fn set_ephemeral(&mut self, ephemeral: Secret) {
        self.scratch.put_ephemeral(ephemeral);
    }

    /// Sets the psk of an IKpsk2 handshake. Both sides need it before the second message.
    pub(crate) fn set_psk(&mut self, psk: &Psk) {
        let set = self.state.set_psk(IK_PSK_AT, psk.expose());
        set.expect("a psk has 32 bytes and its place is below 10");
    }

    /// Appends this end's next message to `out`.
    ///
    /// Fails only if a key of the peer is a point of small order.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let start = out.len();
        out.resize(start + payload.len() + NOISE_OVERHEAD_MAX, 0);
        match self.state.write_message(payload, &mut out[start..]) {
            Ok(length) => {
                out.truncate(start + length);
                Ok(())
            }
            Err(_) => {
                out.truncate(start);
                Err(Unreadable)
            }
        }
    }

    /// Reads the peer's next message and returns its payload.
    ///
    /// An error leaves the state unchanged: another copy of the message can still be read.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Unreadable> {
        if message.len() > INITIATION_BYTES {
            return Err(Unreadable);
        }
        let mut payload = vec![0; message.len()];
        let length = self.state.read_message(message, &mut payload).map_err(|_| Unreadable)?;
        payload.truncate(length);
        Ok(payload)
    }

    /// The peer's static key, once known.
    pub(crate) fn peer(&self) -> Option<StaticPublic> {
        self.state.get_remote_static().and_then(|key| key.try_into().ok()).map(StaticPublic)
    }

    /// The handshake hash. If the two ends have different hashes, there is no session.
    pub(crate) fn transcript(&self) -> [u8; KEY_BYTES] {
        let mut hash = [0; KEY_BYTES];
        hash.copy_from_slice(self.state.get_handshake_hash());
        hash
    }

    /// The two direction keys of a finished handshake: initiator to responder, responder to
    /// initiator.
    pub(crate) fn split(self) -> (Secret, Secret) {
        assert!(self.state.is_handshake_finished(), "only the last state of a handshake splits");
        self.scratch.take_split().expect("a finished state has split, and is split here once")
    }
}

/// The largest overhead of a Noise message: ephemeral key, static key and two tags, in bytes.
const NOISE_OVERHEAD_MAX: usize = 2 * KEY_BYTES + 2 * TAG_BYTES;

impl Drop for Noise {
    fn drop(&mut self) {
        // Overwrites the old state in place with one that holds no secrets.
        let resolver = Resolver {
            provider: Provider::DEFAULT,
            local: StaticPublic([0; KEY_BYTES]),
            precomputed: None,
            scratch: Arc::default(),
        };
        let state = Builder::with_resolver(NN.clone(), Box::new(resolver)).build_initiator();
        *self.state = state.expect("NN needs no keys");
        core::hint::black_box(&mut *self.state); // keeps the compiler from removing the write above
    }
}

impl fmt::Debug for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Noise(..)")
    }
}

fn builder<'a>(pattern: &Pattern, local: &LocalIdentity, scratch: &Arc<Scratch>) -> Builder<'a> {
    let resolver = Resolver {
        provider: Provider::DEFAULT,
        local: *local.static_public(),
        precomputed: Some(Arc::clone(local.precomputed())),
        scratch: Arc::clone(scratch),
    };
    Builder::with_resolver(NoiseParams::clone(pattern), Box::new(resolver))
}

struct Resolver {
    provider: Provider,
    /// Public half of the static key that the builder gets. It is stored so that it is not computed
    /// again.
    local: StaticPublic,
    /// Peers whose shared secret with the static key may be precomputed.
    precomputed: Option<Arc<PrecomputedPeers>>,
    scratch: Arc<Scratch>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(PresetRng(Arc::clone(&self.scratch))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let DHChoice::Curve25519 = choice else { return None };
        let secret = StaticSecret::from([0; KEY_BYTES]);
        Some(Box::new(X25519 {
            secret,
            public: self.local.0,
            precomputed: self.precomputed.clone(),
        }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        let HashChoice::Blake2s = choice else { return None };
        Some(Box::new(Blake2s::new(Arc::clone(&self.scratch))))
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let CipherChoice::ChaChaPoly = choice else { return None };
        Some(Box::new(ChaChaPoly { provider: self.provider, key: None }))
    }
}

/// Returns the ephemeral key that was set before. Every later draw fails.
struct PresetRng(Arc<Scratch>);

impl Random for PresetRng {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take_ephemeral() {
            Some(key) if dest.len() == KEY_BYTES => {
                dest.copy_from_slice(key.expose());
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

struct X25519 {
    secret: StaticSecret, // erases itself
    public: [u8; KEY_BYTES],
    /// The values precomputed for peers; `Some` for the static key only.
    precomputed: Option<Arc<PrecomputedPeers>>,
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    /// snow calls this only for the static key, whose public half has already been set.
    fn set(&mut self, privkey: &[u8]) {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(privkey);
        self.secret = StaticSecret::from(bytes);
        bytes.zeroize();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = [0; KEY_BYTES];
        rng.try_fill_bytes(&mut bytes)?;
        self.secret = StaticSecret::from(bytes);
        bytes.zeroize();
        self.precomputed = None;
        self.public = PublicKey::from(&self.secret).to_bytes();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow passes its whole buffer, which has the length of the longest curve's key.
        let their: [u8; KEY_BYTES] = *pubkey.first_chunk::<KEY_BYTES>().ok_or(snow::Error::Dh)?;
        let out = out.first_chunk_mut::<KEY_BYTES>().ok_or(snow::Error::Dh)?;
        let peer = StaticPublic(their);
        if self.precomputed.as_ref().is_some_and(|precomputed| precomputed.shared(&peer, out)) {
            return Ok(());
        }
        let shared = self.secret.diffie_hellman(&PublicKey::from(their));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh); // a point of small order: the peer chose the result
        }
        if let Some(precomputed) = &self.precomputed {
            precomputed.keep_shared(&peer, shared.as_bytes());
        }
        out.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

/// The AEAD of sealers and openers, as snow calls it.
struct ChaChaPoly {
    provider: Provider,
    key: Option<AeadKey>,
}

impl ChaChaPoly {
    fn key(&self) -> &AeadKey {
        self.key.as_ref().expect("snow sets a key before it encrypts")
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.key = Some(self.provider.key(&Secret::from_bytes(*key)));
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let tag = self.key().seal(&nonce_of(nonce), authtext, body);
        rest[..TAG_BYTES].copy_from_slice(&tag);
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let Some((sealed, tag)) = ciphertext.split_last_chunk::<TAG_BYTES>() else {
            return Err(snow::Error::Decrypt);
        };
        let body = out.get_mut(..sealed.len()).ok_or(snow::Error::Decrypt)?;
        body.copy_from_slice(sealed);
        let opened = self.key().open(&nonce_of(nonce), authtext, body, tag);
        opened.map_err(|BadTag| snow::Error::Decrypt)?;
        Ok(sealed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::StaticKey;
    use crate::test_support::{hex, to_hex};

    const VECTORS: &str = include_str!("../../tests/vectors/noise.txt");

    struct Vector<'a>(Vec<(&'a str, &'a str)>);

    impl<'a> Vector<'a> {
        fn all(&self, name: &'a str) -> impl Iterator<Item = &'a str> + Clone {
            self.0.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
        }

        fn one(&self, name: &'a str) -> Option<&'a str> {
            self.all(name).next()
        }

        fn key(&self, name: &'a str) -> Option<[u8; 32]> {
            self.one(name).map(|text| hex(text).try_into().expect("32 bytes"))
        }
    }

    fn vectors() -> Vec<Vector<'static>> {
        let lines = VECTORS.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
        lines
            .split(|line| line.is_empty())
            .filter(|paragraph| !paragraph.is_empty())
            .map(|lines| Vector(lines.iter().filter_map(|line| line.split_once('=')).collect()))
            .collect()
    }

    fn end(vector: &Vector<'_>, initiator: bool, provider: Provider) -> Noise {
        let pattern = vector.one("pattern").expect("a pattern");
        let side = |name| if initiator { format!("init_{name}") } else { format!("resp_{name}") };
        let find = |name: String| vector.0.iter().find(|(key, _)| *key == name);
        let key = |name: String| -> Option<[u8; 32]> {
            find(name).map(|(_, text)| hex(text).try_into().expect("32 bytes"))
        };
        let secret = Secret::from_bytes(key(side("static")).expect("both ends have one"));
        let ephemeral = Secret::from_bytes(key(side("ephemeral")).expect("both ends have one"));
        let local = StaticKey::from_secret(&secret);
        let remote = vector.key("init_remote_static").filter(|_| initiator);
        let prologue = hex(vector.one("init_prologue").unwrap_or(""));
        let psks: Vec<[u8; 32]> =
            vector.all("psk").map(|text| hex(text).try_into().expect("32 bytes")).collect();
        let places: Vec<u8> = pattern
            .split('_')
            .nth(1)
            .expect("a pattern's name")
            .split("psk")
            .skip(1)
            .map(|rest| rest.trim_end_matches('+').parse().expect("a place"))
            .collect();
        assert_eq!(psks.len(), places.len());
        let scratch = Arc::<Scratch>::default();
        scratch.put_ephemeral(ephemeral);
        let resolver = Resolver {
            provider,
            local: *local.public(),
            precomputed: None,
            scratch: Arc::clone(&scratch),
        };
        let mut build = Builder::with_resolver(read(pattern), Box::new(resolver))
            .local_private_key(local.expose())
            .and_then(|build| build.prologue(&prologue))
            .expect("given once");
        if let Some(remote) = &remote {
            build = build.remote_public_key(remote).expect("given once");
        }
        for (place, psk) in places.iter().zip(&psks) {
            build = build.psk(*place, psk).expect("given once");
        }
        let state = if initiator { build.build_initiator() } else { build.build_responder() };
        let state = Box::new(state.expect("a pattern that this resolver supports"));
        Noise { state, scratch }
    }

    /// wire.md: W4-19.
    #[test]
    fn published_noise_vectors_match_with_every_provider() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 9);
        let each = Provider::ALL.iter().flat_map(|one| vectors.iter().map(move |v| (*one, v)));
        for (provider, vector) in each {
            let name = vector.one("pattern").expect("a pattern");
            let mut ends = [end(vector, true, provider), end(vector, false, provider)];
            let mut messages = vector.all("payload").zip(vector.all("message")).enumerate();
            while !ends[0].state.is_handshake_finished() {
                let (turn, (payload, expected)) = messages.next().expect("a handshake message");
                let mut message = [0; 1024];
                let length = ends[turn % 2]
                    .state
                    .write_message(&hex(payload), &mut message)
                    .expect("written");
                assert_eq!(to_hex(&message[..length]), expected, "{name}: message {turn}");
                let mut got = [0; 1024];
                let read = ends[1 - turn % 2].state.read_message(&message[..length], &mut got);
                assert_eq!(to_hex(&got[..read.expect("read")]), payload, "{name}: payload {turn}");
            }
            assert_eq!(ends[0].transcript(), ends[1].transcript());
            if let Some(hash) = vector.one("handshake_hash") {
                assert_eq!(to_hex(&ends[0].transcript()), hash, "{name}: hash");
            }
            let [split, their] = ends.map(Noise::split);
            assert!(split == their, "{name}: the direction keys");
            // The remaining messages of the vector use our own transport.
            let keys = [split.0, split.1].map(|key| provider.key(&key));
            let mut counters = [0u64; 2];
            for (turn, (payload, expected)) in messages {
                let mut sealed = hex(payload);
                let nonce = nonce_of(counters[turn % 2]);
                counters[turn % 2] += 1;
                let tag = keys[turn % 2].seal(&nonce, &[], &mut sealed);
                sealed.extend_from_slice(&tag);
                assert_eq!(to_hex(&sealed), expected, "{name}: transport {turn}");
            }
        }
    }

    #[test]
    fn a_second_ephemeral_key_cannot_be_drawn() {
        let scratch = Arc::<Scratch>::default();
        scratch.put_ephemeral(Secret::from_bytes([1; 32]));
        let mut rng = PresetRng(scratch);
        let mut bytes = [0; 32];
        assert!(rng.try_fill_bytes(&mut bytes).is_ok());
        assert!(rng.try_fill_bytes(&mut bytes).is_err());
    }

    /// wire.md: W4-20.
    #[test]
    fn points_of_small_order_are_refused() {
        let mut dh =
            X25519 { secret: StaticSecret::from([7; 32]), public: [0; 32], precomputed: None };
        dh.set(&[9; 32]);
        let mut order_8 = [0; 32];
        order_8.copy_from_slice(&hex(
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        ));
        for point in [[0; 32], order_8] {
            assert_eq!(dh.dh(&point, &mut [0; 56]), Err(snow::Error::Dh));
        }
    }
}
