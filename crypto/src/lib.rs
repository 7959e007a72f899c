//! Link cryptography of the Strowger switch: bytes in, bytes out. No sockets, no clock, no threads, no frames.
//!
//! | module | what it is |
//! |---|---|
//! //! | [`aead`] | the one door to ChaCha20-Poly1305, and its providers |
//! | [`Sealer`] | one lane's key and nonce counter in one owner |
//! | [`Openers`] | all lanes of one direction: keys and replay windows |
//! | [`replay`] | which counters have been seen |
//! | [`handshake`] | IKpsk2, XX, cookies: one type per state |
//! | [`beacon`] | "a node with this key is here" |
//! | [`session`] | one peer's keys over time, renewed without loss |
//! | [`Identity`], [`IdentityKey`] | Ed25519 keys and their libp2p names |
//! | [`limits`] | every bound, with its reason |
//!
//! Time and randomness are arguments ([`Nanos`], [`Entropy`]), so the same code runs under a
//! simulator with a seed. Sealing and opening work in place and allocate nothing; handshakes are the
//! slow path's business and do allocate. Secrets are erased when dropped, compared in constant time,
//! and no `Debug` shows one.
//!
//! # Two ends in memory
//! ```
#![doc = include_str!("../examples/two_ends.rs")]
//! ```

pub mod aead;
pub mod beacon;
mod entropy;
pub mod handshake;
mod identity;
pub mod limits;
mod opener;
mod precomputed;
pub mod replay;
mod sealer;
mod secret;
pub mod session;
#[cfg(test)]
mod test_support;
mod time;

pub use strowger_wire::link_header;

pub use entropy::{Entropy, EntropyFailed, OsEntropy, SeededEntropy};
pub use identity::{
    Identity, IdentityKey, IdentityProof, IdentityRefused, KeyFileError, LocalIdentity, NameError,
    NetworkId, PeerId, StaticKey, StaticPublic,
};
pub use opener::{OpenRefused, Opened, Openers};
pub use sealer::{SEALED_OVERHEAD_BYTES, SealMode, SealRefused, Sealed, Sealer};
pub use secret::{Psk, Secret};
pub use time::Nanos;
