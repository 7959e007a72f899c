//! Link cryptography, sans I/O.
pub mod aead;
mod entropy;
pub mod handshake;
mod identity;
pub mod limits;
pub mod link_header;
mod opener;
pub mod replay;
mod sealer;
mod secret;
pub mod session;
#[cfg(test)]
mod test_support;
mod time;

pub use entropy::{Entropy, EntropyFailed, OsEntropy, SeededEntropy};
pub use identity::{
    Identity, IdentityKey, IdentityProof, IdentityRefused, KeyFileError, Local, NameError,
    NetworkId, PeerId, StaticKey, StaticPublic,
};
pub use opener::{OpenRefused, Opened, Openers};
pub use sealer::{SEALED_OVERHEAD_BYTES, SealMode, SealRefused, Sealed, Sealer};
pub use secret::{Psk, Secret};
pub use time::Nanos;
