//! Cryptography of links and end-to-end connections, without I/O: the crate has no sockets, clock,
//! threads or frames.
//!
//! | module | content |
//! |---|---|
//! | [`aead`] | ChaCha20-Poly1305 and its providers |
//! | [`Sealer`] | key and nonce counter of one lane |
//! | [`Openers`] | keys and replay windows of one direction, all lanes |
//! | [`handshake`] | IKpsk2, XX, cookies: one type per state |
//! | [`beacon`] | signed announcements of a node's key |
//! | [`session`] | the keys of one peer over time, renewed without loss |
//! | [`Identity`], [`IdentityKey`] | Ed25519 keys and their libp2p names |
//! | [`Certificate`] | an identity signs that a key belongs to it |
//! | [`SignedAnnouncement`] | an endpoint announces its identity to its own switch |
//! | [`Domain`] | the two uses of all this: links and end-to-end connections |
//! | [`limits`] | all limits, with their reasons |
//!
//! Time and randomness are arguments ([`Nanos`], [`Entropy`]), so the same code runs under a
//! simulator with a seed. Sealing and opening work in place and allocate nothing; handshakes
//! allocate, on the slow path. Secrets are erased on drop, compared in constant time, and never
//! shown by `Debug`.
//!
//! The feature `internals` exports the AEAD, the replay window and the hello, for fuzzers and
//! benchmarks. The feature `vectors` exports the module `vectors`: handshakes and packets from
//! given keys and counters, for test vectors. Items that these features export may change in any
//! release.
//!
//! # Two ends in memory
//! ```
#![doc = include_str!("../examples/two_ends.rs")]
//! ```

// Without both features, some public items cannot be reached.
#![cfg_attr(not(all(feature = "internals", feature = "vectors")), allow(unreachable_pub))]

/// ChaCha20-Poly1305 (RFC 8439): the choice of a provider.
///
/// With the feature `internals` it also exports the AEAD itself, for fuzzers and benchmarks.
pub mod aead {
    pub use crate::cipher::Provider;
    #[cfg(feature = "internals")]
    pub use crate::cipher::{Aead, AeadKey, BadTag, Nonce, Tag, nonce_of};
}
mod announcement;
pub mod beacon;
mod certificate;
mod cipher;
mod digest;
mod domain;
mod entropy;
pub mod handshake;
mod identity;
mod ip6;
pub mod limits;
mod opener;
mod precomputed;
#[cfg(feature = "internals")]
pub mod replay;
#[cfg(not(feature = "internals"))]
mod replay;
mod sealer;
mod secret;
pub mod session;
#[cfg(test)]
mod test_support;
mod time;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use strowger_wire as wire;

pub use announcement::{
    AnnouncePlace, AnnouncementRefused, SignedAnnouncement, find_tag, verify_announcement,
};
pub use certificate::{Certificate, CertificateRefused};
pub use digest::hash;
pub use domain::{CONNECTION_VERSION, Domain};
pub use entropy::{Entropy, EntropyFailed, OsEntropy, SeededEntropy};
pub use identity::{
    Identity, IdentityKey, IdentityProof, IdentityRefused, KeyFileError, LocalIdentity, NameError,
    NetworkId, PeerId, StaticKey, StaticPublic,
};
pub use opener::{OpenRefused, Opened, Openers};
pub use sealer::{SEALED_OVERHEAD_BYTES, SealMode, SealRefused, Sealed, Sealer};
pub use secret::{Psk, Secret};
pub use time::Nanos;
