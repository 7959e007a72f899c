//! A node's identity: an Ed25519 key, its libp2p PeerId, and the X25519 keys that it signs.
//!
//! All long-term keys of a node come from one secret, an Ed25519 seed. The X25519 keys of its links
//! and of its connections are derived from the seed, so a key file holds one line and a node cannot
//! restart with half of its keys. The derivation is one-way: an X25519 key reveals neither the
//! identity key nor the other X25519 key.

use core::fmt::{self, Write as _};
use core::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use strowger_wire::{
    hex::{self, Hex, HexError},
    limits::{IDENTITY_PROOF_BYTES, KEY_BYTES, NETWORK_ID_BYTES_MAX},
};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::domain::Domain;
use crate::entropy::{Entropy, EntropyFailed};
use crate::precomputed::PrecomputedPeers;
use crate::secret::{Secret, mac};

/// Domain of beacons: their signature covers this text, the network's name with its length, and the
/// X25519 key.
const BEACON_DOMAIN: &[u8] = b"strowger-beacon-1:";

/// The protobuf of a libp2p public key: field 1 (type) = 1 (Ed25519), field 2 (data) = 32 bytes.
const PUBLIC_KEY_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// The multihash of that protobuf with the identity function: code 0, length 36.
const MULTIHASH_PREFIX: [u8; 2] = [0x00, 0x24];
/// The protobuf of libp2p-noise's payload: field 1 (identity key), 36 bytes ...
const PROOF_KEY_PREFIX: [u8; 2] = [0x0a, 0x24];
/// ... and field 2 (identity signature), 64 bytes.
const PROOF_SIGNATURE_PREFIX: [u8; 2] = [0x12, 0x40];

const PEER_ID_BYTES: usize = 38;
const SIGNATURE_BYTES: usize = 64;

/// A node's long-term secret: an Ed25519 signing key. It is erased on drop and never printed.
pub struct IdentityKey(SigningKey); // erases itself (feature `zeroize`)

impl IdentityKey {
    /// Makes a new random key.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<IdentityKey, EntropyFailed> {
        Ok(IdentityKey::from_seed(&Secret::random(entropy)?))
    }

    /// Derives the key from a seed, in the standard way of Ed25519 libraries (RFC 8032).
    pub fn from_seed(seed: &Secret) -> IdentityKey {
        IdentityKey(SigningKey::from_bytes(seed.expose()))
    }

    /// The public half.
    pub fn public(&self) -> Identity {
        Identity(self.0.verifying_key())
    }

    /// Derives the X25519 key of the node's links.
    pub fn static_key(&self) -> StaticKey {
        self.derive_key("strowger x25519 static key")
    }

    /// Derives the X25519 key of the identity's connections (wire.md W6-16). Neither this key nor
    /// that of links reveals the other.
    pub fn connection_key(&self) -> StaticKey {
        self.derive_key("strowger x25519 connection key")
    }

    fn derive_key(&self, label: &str) -> StaticKey {
        let seed = Zeroizing::new(self.0.to_bytes());
        let secret = Zeroizing::new(mac(&*seed, label, &[]));
        StaticKey::from_secret(&Secret::from_bytes(*secret))
    }

    /// The line of a key file. The caller must write it where no other user can read it.
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.0.to_bytes());
        let mut line = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES));
        let check = key_file_check(&seed);
        writeln!(line, "{KEY_FILE_NAME} 1 ed25519 {} {}", Hex(&*seed), Hex(&check))
            .expect("a String takes any text");
        line
    }

    /// Parses the line of a key file. Returns a key or an error for any text.
    pub fn from_key_file(text: &str) -> Result<IdentityKey, KeyFileError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mut words = line.split(' ');
        if words.next() != Some(KEY_FILE_NAME) {
            return Err(KeyFileError::NotAKeyFile);
        }
        if words.next().ok_or(KeyFileError::Cut)? != "1" {
            return Err(KeyFileError::UnknownVersion);
        }
        if words.next().ok_or(KeyFileError::Cut)? != "ed25519" {
            return Err(KeyFileError::UnknownAlgorithm);
        }
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        hex::fill(words.next().ok_or(KeyFileError::Cut)?, &mut *seed)?;
        let check: [u8; 4] = hex::array(words.next().ok_or(KeyFileError::Cut)?)?;
        if words.next().is_some() {
            return Err(KeyFileError::TrailingText);
        }
        if !bool::from(check.ct_eq(&key_file_check(&seed))) {
            return Err(KeyFileError::WrongCheck);
        }
        Ok(IdentityKey(SigningKey::from_bytes(&seed)))
    }

    /// Signs the static key of links for the handshake's payload.
    pub fn prove(&self, static_key: &StaticPublic) -> IdentityProof {
        self.prove_in(Domain::Link, static_key)
    }

    /// Signs a static key of this domain for the handshake's payload.
    pub fn prove_in(&self, domain: Domain, static_key: &StaticPublic) -> IdentityProof {
        let signature = self.0.sign(&signed_bytes(domain, static_key)).to_bytes();
        let mut bytes = [0; IDENTITY_PROOF_BYTES];
        bytes[..2].copy_from_slice(&PROOF_KEY_PREFIX);
        bytes[2..38].copy_from_slice(&self.public().to_protobuf());
        bytes[38..40].copy_from_slice(&PROOF_SIGNATURE_PREFIX);
        bytes[40..].copy_from_slice(&signature);
        IdentityProof(bytes)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }

    fn sign_beacon(&self, static_key: &StaticPublic, network: &NetworkId) -> [u8; SIGNATURE_BYTES] {
        self.sign(&beacon_bytes(static_key, network))
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({}, ..)", self.public().peer_id())
    }
}

const KEY_FILE_NAME: &str = "strowger-key";
const KEY_FILE_BYTES: usize = KEY_FILE_NAME.len() + 11 + 64 + 1 + 8 + 1;

/// Four bytes that detect a mistyped key file. They reveal nothing beyond the seed, which is in the
/// same file.
fn key_file_check(seed: &[u8; KEY_BYTES]) -> [u8; 4] {
    let full = Zeroizing::new(mac(seed, "strowger key file check", &[]));
    [full[0], full[1], full[2], full[3]]
}

/// Why a text is not a valid key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The text does not start with `strowger-key`.
    #[error("not a key file: it must begin with \"strowger-key\"")]
    NotAKeyFile,
    /// The text ends early.
    #[error("the key file is cut short")]
    Cut,
    /// A version other than 1.
    #[error("the key file is of a version that this program does not know")]
    UnknownVersion,
    /// An algorithm other than ed25519.
    #[error("the key file is for an algorithm other than ed25519")]
    UnknownAlgorithm,
    /// A field of hex digits has the wrong length.
    #[error("a field of the key file has the wrong length")]
    WrongLength,
    /// A character that is not a hex digit.
    #[error("character {at} of a field of the key file is not a hex digit")]
    NotHex {
        /// Position in the field, from 0.
        at: usize,
    },
    /// The check field does not match the key: a digit was changed.
    #[error("the key file's check does not match its key: the file was altered")]
    WrongCheck,
    /// Text after the last field.
    #[error("text after the end of the key")]
    TrailingText,
}

impl From<HexError> for KeyFileError {
    fn from(why: HexError) -> KeyFileError {
        match why {
            HexError::NotHex { at } => KeyFileError::NotHex { at },
            HexError::Length => KeyFileError::WrongLength,
        }
    }
}

/// A node's public identity: an Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(VerifyingKey);

impl Identity {
    /// Parses a public key; refuses invalid and weak keys.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Identity, IdentityRefused> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| IdentityRefused::BadKey)?;
        if key.is_weak() { Err(IdentityRefused::BadKey) } else { Ok(Identity(key)) }
    }

    /// The bytes of the public key.
    pub fn to_bytes(&self) -> [u8; KEY_BYTES] {
        self.0.to_bytes()
    }

    /// The identity's libp2p PeerId.
    pub fn peer_id(&self) -> PeerId {
        let mut bytes = [0; PEER_ID_BYTES];
        bytes[..2].copy_from_slice(&MULTIHASH_PREFIX);
        bytes[2..].copy_from_slice(&self.to_protobuf());
        PeerId(bytes)
    }

    /// Verifies the signature of a beacon.
    pub(crate) fn check_beacon(
        &self,
        static_key: &StaticPublic,
        network: &NetworkId,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), IdentityRefused> {
        self.check(&beacon_bytes(static_key, network), signature)
    }

    /// Verifies a signature strictly (W4-21).
    pub(crate) fn check(
        &self,
        signed: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), IdentityRefused> {
        let verified = self.0.verify_strict(signed, &Signature::from_bytes(signature));
        verified.map_err(|_| IdentityRefused::BadSignature)
    }

    /// The protobuf of libp2p for this public key, which is in its PeerId.
    pub fn to_protobuf(self) -> [u8; 36] {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(&PUBLIC_KEY_PREFIX);
        bytes[4..].copy_from_slice(self.0.as_bytes());
        bytes
    }

    fn from_protobuf(bytes: &[u8; 36]) -> Result<Identity, IdentityRefused> {
        match bytes.split_first_chunk::<4>() {
            Some((prefix, key)) if *prefix == PUBLIC_KEY_PREFIX => {
                let key = key.first_chunk::<KEY_BYTES>().ok_or(IdentityRefused::NotEd25519)?;
                Identity::from_bytes(key)
            }
            _ => Err(IdentityRefused::NotEd25519),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

/// A node's libp2p PeerId: `12D3KooW...`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; PEER_ID_BYTES]);

impl PeerId {
    /// The multihash: `00 24`, then the protobuf of the key.
    pub const fn as_bytes(&self) -> &[u8; PEER_ID_BYTES] {
        &self.0
    }

    /// The identity. A PeerId contains the whole public key.
    pub fn identity(&self) -> Result<Identity, IdentityRefused> {
        PeerId::decode(&self.0)
    }

    fn decode(bytes: &[u8; PEER_ID_BYTES]) -> Result<Identity, IdentityRefused> {
        match bytes.split_first_chunk::<2>() {
            Some((prefix, key)) if *prefix == MULTIHASH_PREFIX => {
                let key = key.first_chunk::<36>().ok_or(IdentityRefused::NotEd25519)?;
                Identity::from_protobuf(key)
            }
            _ => Err(IdentityRefused::NotEd25519),
        }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base58_encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// Why a text is not a PeerId or a static key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An invalid character.
    #[error("character {at} is not valid here")]
    BadCharacter {
        /// Position in the text, from 0.
        at: usize,
    },
    /// Wrong length.
    #[error("the name has the wrong length")]
    WrongLength,
    /// The PeerId is that of another kind of key, or of an invalid key.
    #[error("the name is not that of an Ed25519 key")]
    NotEd25519,
}

impl FromStr for PeerId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<PeerId, NameError> {
        let bytes = base58_decode(text)?;
        PeerId::decode(&bytes).map_err(|_| NameError::NotEd25519)?;
        Ok(PeerId(bytes))
    }
}

/// An identity key and its signature over a static key, encoded like libp2p-noise's payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdentityProof(pub(crate) [u8; IDENTITY_PROOF_BYTES]);

impl IdentityProof {
    /// Verifies the signature over the static key of links and returns the identity.
    pub fn verify(&self, static_key: &StaticPublic) -> Result<Identity, IdentityRefused> {
        self.verify_in(Domain::Link, static_key)
    }

    /// Verifies the signature over a static key of this domain and returns the identity.
    pub fn verify_in(
        &self,
        domain: Domain,
        static_key: &StaticPublic,
    ) -> Result<Identity, IdentityRefused> {
        let key_at = self.0.first_chunk::<38>().ok_or(IdentityRefused::Malformed)?;
        let signature_at = self.0.last_chunk::<66>().ok_or(IdentityRefused::Malformed)?;
        let (key_prefix, key) = key_at.split_at(2);
        let (signature_prefix, signature) = signature_at.split_at(2);
        if key_prefix != PROOF_KEY_PREFIX || signature_prefix != PROOF_SIGNATURE_PREFIX {
            return Err(IdentityRefused::Malformed);
        }
        let key: &[u8; 36] = key.try_into().map_err(|_| IdentityRefused::Malformed)?;
        let signature: &[u8; SIGNATURE_BYTES] =
            signature.try_into().map_err(|_| IdentityRefused::Malformed)?;
        let identity = Identity::from_protobuf(key)?;
        identity.check(&signed_bytes(domain, static_key), signature)?;
        Ok(identity)
    }
}

impl fmt::Debug for IdentityProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityProof(..)")
    }
}

/// The bytes that an identity proof signs: a text of the domain and the X25519 key. The layout is
/// that of libp2p-noise, but the text differs, so neither protocol accepts signatures of the other.
fn signed_bytes(domain: Domain, static_key: &StaticPublic) -> Vec<u8> {
    [domain.texts().proof.as_bytes(), &static_key.0].concat()
}

fn beacon_bytes(static_key: &StaticPublic, network: &NetworkId) -> Vec<u8> {
    [BEACON_DOMAIN, &[network.length], network.as_bytes(), &static_key.0].concat()
}

/// Why an identity is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IdentityRefused {
    /// The proof is malformed.
    #[error("the identity proof is malformed")]
    Malformed,
    /// The key is not an Ed25519 key.
    #[error("the identity key is not an Ed25519 key")]
    NotEd25519,
    /// The key is invalid or weak.
    #[error("the identity key is invalid or weak")]
    BadKey,
    /// The signature over the static key is wrong.
    #[error("the identity has not signed this static key")]
    BadSignature,
}

/// An X25519 key pair for links or for connections. It is erased on drop and never printed.
pub struct StaticKey {
    secret: StaticSecret, // erases itself
    public: StaticPublic,
}

impl StaticKey {
    /// Makes the key pair of this secret.
    pub fn from_secret(secret: &Secret) -> StaticKey {
        let secret = StaticSecret::from(*secret.expose());
        let public = StaticPublic(PublicKey::from(&secret).to_bytes());
        StaticKey { secret, public }
    }

    /// The public half.
    pub const fn public(&self) -> &StaticPublic {
        &self.public
    }

    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        self.secret.as_bytes()
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticKey({}, ..)", self.public)
    }
}

/// The public half of an X25519 key; a peer needs it to start an IK handshake.
///
/// Its text form is 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaticPublic(pub [u8; KEY_BYTES]);

impl fmt::Display for StaticPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

impl fmt::Debug for StaticPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticPublic({self})")
    }
}

impl FromStr for StaticPublic {
    type Err = NameError;

    fn from_str(text: &str) -> Result<StaticPublic, NameError> {
        match hex::array(text) {
            Ok(bytes) => Ok(StaticPublic(bytes)),
            Err(HexError::NotHex { at }) => Err(NameError::BadCharacter { at }),
            Err(HexError::Length) => Err(NameError::WrongLength),
        }
    }
}

/// Name of a network. Nodes of different networks do not make links with each other and do not
/// reply to each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkId {
    bytes: [u8; NETWORK_ID_BYTES_MAX],
    length: u8,
}

impl NetworkId {
    /// The network with this name, which may be empty. `None` if the name is longer than
    /// [`NETWORK_ID_BYTES_MAX`].
    pub const fn new(name: &[u8]) -> Option<NetworkId> {
        if name.len() > NETWORK_ID_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; NETWORK_ID_BYTES_MAX];
        let (start, _) = bytes.split_at_mut(name.len());
        start.copy_from_slice(name);
        Some(NetworkId { bytes, length: name.len() as u8 })
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({})", self.as_bytes().escape_ascii())
    }
}

/// The long-term state of a node in one [`Domain`]: its keys, the proof that binds them, and its
/// network.
pub struct LocalIdentity {
    domain: Domain,
    static_key: StaticKey,
    identity: Identity,
    proof: IdentityProof,
    beacon_signature: [u8; SIGNATURE_BYTES],
    network: NetworkId,
    precomputed: Arc<PrecomputedPeers>,
}

impl LocalIdentity {
    /// Makes the identity of the node with `key` in `network`, for links.
    ///
    /// Signs the static key for handshakes and beacons, and does not keep `key`.
    pub fn new(key: &IdentityKey, network: NetworkId) -> LocalIdentity {
        LocalIdentity::with_static_key(Domain::Link, key, key.static_key(), network)
    }

    /// Makes the identity of `key` in `network`, for connections.
    ///
    /// Signs the connection key for handshakes, and does not keep `key`.
    pub fn for_connections(key: &IdentityKey, network: NetworkId) -> LocalIdentity {
        LocalIdentity::with_static_key(Domain::Connection, key, key.connection_key(), network)
    }

    /// The identity of a node whose static key is not derived from `key`.
    pub(crate) fn with_static_key(
        domain: Domain,
        key: &IdentityKey,
        static_key: StaticKey,
        network: NetworkId,
    ) -> LocalIdentity {
        let proof = key.prove_in(domain, static_key.public());
        // A beacon announces the static key of links, so an identity for connections has no beacon
        // signature.
        let beacon_signature = match domain {
            Domain::Link => key.sign_beacon(static_key.public(), &network),
            Domain::Connection => [0; SIGNATURE_BYTES],
        };
        let (identity, precomputed) = (key.public(), Arc::default());
        LocalIdentity {
            domain,
            static_key,
            identity,
            proof,
            beacon_signature,
            network,
            precomputed,
        }
    }

    /// The domain of this identity's handshakes.
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// The Noise prologue of this identity's handshakes.
    pub(crate) fn prologue(&self) -> Vec<u8> {
        self.domain.prologue(&self.network)
    }

    /// The X25519 key pair of the domain: static key or connection key.
    pub const fn static_key(&self) -> &StaticKey {
        &self.static_key
    }

    /// The public X25519 key; peers need it to start a handshake of IK.
    pub const fn static_public(&self) -> &StaticPublic {
        self.static_key.public()
    }

    /// The node's identity.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The node's network.
    pub const fn network(&self) -> &NetworkId {
        &self.network
    }

    /// Registers this peer: the values that are the same in every handshake with it are stored when
    /// first computed.
    ///
    /// These are the shared secret of both static keys and the verified identity proof. They take
    /// some 250 bytes until [`remove_peer`](Self::remove_peer).
    pub fn add_peer(&self, peer: &StaticPublic) {
        self.precomputed.add(peer);
    }

    /// Erases the stored values of a peer.
    pub fn remove_peer(&self, peer: &StaticPublic) {
        self.precomputed.remove(peer);
    }

    pub(crate) const fn proof(&self) -> &IdentityProof {
        &self.proof
    }

    pub(crate) const fn precomputed(&self) -> &Arc<PrecomputedPeers> {
        &self.precomputed
    }

    /// A node with the secrets of `one` that shows the public key and the proof of `other`.
    #[cfg(test)]
    pub(crate) fn impersonating(one: &LocalIdentity, other: &LocalIdentity) -> LocalIdentity {
        let secret = StaticSecret::from(*one.static_key.expose());
        let static_key = StaticKey { secret, public: *other.static_public() };
        let LocalIdentity { domain, identity, proof, beacon_signature, network, .. } = *other;
        LocalIdentity {
            domain,
            static_key,
            identity,
            proof,
            beacon_signature,
            network,
            precomputed: Arc::default(),
        }
    }

    /// An identity for connections with the connection key of `key` and this proof.
    #[cfg(test)]
    pub(crate) fn with_proof(key: &IdentityKey, proof: IdentityProof) -> LocalIdentity {
        let network = NetworkId::new(b"test").expect("short");
        LocalIdentity { proof, ..LocalIdentity::for_connections(key, network) }
    }

    pub(crate) const fn beacon_signature(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.beacon_signature
    }
}

impl fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIdentity")
            .field("domain", &self.domain)
            .field("identity", &self.identity)
            .field("static_public", self.static_public())
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 38 bytes have at most 52 digits in base 58.
const BASE58_PEER_ID_MAX: usize = 52;

fn base58_encode(bytes: &[u8; PEER_ID_BYTES]) -> String {
    let mut digits: Vec<u8> = Vec::with_capacity(BASE58_PEER_ID_MAX); // least significant first
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = (carry % 58) as u8;
            carry /= 58;
        }
        while carry > 0 {
            digits.push((carry % 58) as u8);
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let text = digits.iter().rev().map(|digit| char::from(BASE58[usize::from(*digit)]));
    core::iter::repeat_n('1', zeros).chain(text).collect()
}

fn base58_decode(text: &str) -> Result<[u8; PEER_ID_BYTES], NameError> {
    if text.len() > BASE58_PEER_ID_MAX + 1 {
        return Err(NameError::WrongLength);
    }
    let mut bytes = [0u8; PEER_ID_BYTES];
    for (at, character) in text.bytes().enumerate() {
        let Some(digit) = BASE58.iter().position(|known| *known == character) else {
            return Err(NameError::BadCharacter { at });
        };
        let mut carry = digit as u32;
        for byte in bytes.iter_mut().rev() {
            carry += u32::from(*byte) * 58;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            return Err(NameError::WrongLength);
        }
    }
    // A leading `1` encodes a leading zero byte, so a PeerId has exactly one text form.
    let ones = text.bytes().take_while(|character| *character == b'1').count();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    if ones == zeros { Ok(bytes) } else { Err(NameError::WrongLength) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn key(seed: u64) -> IdentityKey {
        IdentityKey::generate(&mut SeededEntropy::new(seed)).expect("seeded")
    }

    /// wire.md: W4-59.
    #[test]
    fn peer_ids_equal_those_of_libp2p() {
        for seed in 0..50 {
            let ours = key(seed);
            let mut seed_bytes = ours.0.to_bytes();
            let theirs = libp2p_identity::Keypair::ed25519_from_bytes(&mut seed_bytes)
                .expect("a libp2p key of the same seed");
            let name = theirs.public().to_peer_id();
            assert_eq!(ours.public().peer_id().to_string(), name.to_base58());
            assert_eq!(ours.public().peer_id().as_bytes()[..], name.to_bytes());
            assert_eq!(ours.public().to_protobuf()[..], theirs.public().encode_protobuf());
            assert!(name.to_base58().starts_with("12D3KooW"));
            let parsed: PeerId = name.to_base58().parse().expect("libp2p's own text");
            assert_eq!(parsed, ours.public().peer_id());
            assert_eq!(parsed.identity(), Ok(ours.public()));
        }
    }

    /// wire.md: W4-5.
    #[test]
    fn libp2p_verifies_our_proof_under_our_domain_only() {
        let ours = key(3);
        let link = ours.static_key();
        let proof = ours.prove(link.public());
        assert_eq!((proof.0[0], proof.0[1], proof.0[38], proof.0[39]), (0x0a, 36, 0x12, 64));
        let public = libp2p_identity::PublicKey::try_decode_protobuf(&proof.0[2..38])
            .expect("a libp2p public key");
        let mut signed = b"strowger-link-static-key:".to_vec();
        signed.extend_from_slice(&link.public().0);
        assert!(public.verify(&signed, &proof.0[40..]));
        let mut libp2p_noise = b"noise-libp2p-static-key:".to_vec();
        libp2p_noise.extend_from_slice(&link.public().0);
        assert!(!public.verify(&libp2p_noise, &proof.0[40..]));
    }

    /// wire.md: W4-21, W4-58.
    #[test]
    fn a_proof_is_valid_for_its_own_static_key_only() {
        let ours = key(1);
        let link = ours.static_key();
        let proof = ours.prove(link.public());
        assert_eq!(proof.verify(link.public()), Ok(ours.public()));
        let other = key(2).static_key();
        assert_eq!(proof.verify(other.public()), Err(IdentityRefused::BadSignature));
        for place in 0..IDENTITY_PROOF_BYTES * 8 {
            let mut touched = proof;
            touched.0[place / 8] ^= 1 << (place % 8);
            assert!(touched.verify(link.public()).is_err(), "bit {place}");
        }
        // A weak key must be refused, because anyone can make signatures that it verifies.
        let mut weak = proof;
        weak.0[6..38].copy_from_slice(&[0; 32]);
        weak.0[6] = 1;
        assert_eq!(weak.verify(link.public()), Err(IdentityRefused::BadKey));
    }

    #[test]
    fn invalid_names_are_refused_with_the_position() {
        let good = key(9).public().peer_id().to_string();
        assert_eq!("".parse::<PeerId>(), Err(NameError::WrongLength));
        assert_eq!(good[1..].parse::<PeerId>(), Err(NameError::WrongLength));
        assert_eq!(format!("1{good}").parse::<PeerId>(), Err(NameError::WrongLength));
        assert_eq!(format!("{good}1").parse::<PeerId>(), Err(NameError::WrongLength));
        assert_eq!(format!("{good}{good}").parse::<PeerId>(), Err(NameError::WrongLength));
        let mut zero = good.clone();
        zero.replace_range(5..6, "0");
        assert_eq!(zero.parse::<PeerId>(), Err(NameError::BadCharacter { at: 5 }));
        // An RSA name is a sha2-256 multihash, 34 bytes.
        let rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        assert!(rsa.parse::<PeerId>().is_err());
        let link = key(9).static_key();
        assert_eq!(link.public().to_string().parse(), Ok(*link.public()));
        assert_eq!("zz".parse::<StaticPublic>(), Err(NameError::BadCharacter { at: 0 }));
        assert_eq!("aa".parse::<StaticPublic>(), Err(NameError::WrongLength));
    }

    #[test]
    fn a_key_file_survives_and_every_change_to_it_is_detected() {
        let ours = key(4);
        let text = ours.to_key_file();
        assert_eq!(text.len(), KEY_FILE_BYTES);
        let back = IdentityKey::from_key_file(&text).expect("our own text");
        assert_eq!(back.public(), ours.public());
        assert_eq!(back.static_key().public(), ours.static_key().public());
        let bare = text.trim_end().to_string();
        assert!(IdentityKey::from_key_file(&bare).is_ok());
        assert!(IdentityKey::from_key_file(&format!("{bare}\r\n")).is_ok());
        for length in 0..bare.len() {
            assert!(IdentityKey::from_key_file(&bare[..length]).is_err(), "cut to {length}");
        }
        for place in 0..bare.len() {
            for other in ["0", "f", "x", " ", "\n", "é"] {
                let mut touched = bare.clone();
                touched.replace_range(place..place + 1, other);
                if touched.eq_ignore_ascii_case(&bare) {
                    continue;
                }
                assert!(IdentityKey::from_key_file(&touched).is_err(), "{place}: {other}");
            }
        }
        let refused = |text: &str| IdentityKey::from_key_file(text).map(|_| ());
        assert_eq!(refused("ssh-ed25519 AAAA"), Err(KeyFileError::NotAKeyFile));
        assert_eq!(refused("strowger-key"), Err(KeyFileError::Cut));
        assert_eq!(refused(&bare.replace(" 1 ", " 2 ")), Err(KeyFileError::UnknownVersion));
        assert_eq!(refused(&bare.replace("ed25519", "rsa")), Err(KeyFileError::UnknownAlgorithm));
        assert_eq!(refused(&format!("{bare} more")), Err(KeyFileError::TrailingText));
    }

    /// wire.md: W4-22.
    #[test]
    fn network_names_have_a_bounded_length() {
        assert!(NetworkId::new(&[7; NETWORK_ID_BYTES_MAX]).is_some());
        assert!(NetworkId::new(&[7; NETWORK_ID_BYTES_MAX + 1]).is_none());
        assert_eq!(NetworkId::new(b"home").expect("short").as_bytes(), b"home");
    }
}
