//! Further secrets from the keys of a connection.

use core::fmt;

use strowger_wire::limits::KEY_BYTES;

use crate::identity::StaticPublic;
use crate::secret::{Psk, Secret};

/// Bytes of the nonce that each end discloses with its link key.
const NONCE_BYTES: usize = 16;

/// Derives secrets that both ends of one session share and that reveal nothing about its keys.
///
/// It is derived from the two direction keys. The transcript is not used, because it is not secret.
pub struct Exporter(Secret);

/// The values that one end discloses for a direct link (wire.md section 6): its link key, and a
/// nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectEnd {
    /// The static key of its links.
    pub link_key: StaticPublic,
    /// Fresh random bytes.
    pub nonce: [u8; NONCE_BYTES],
}

impl Exporter {
    /// Takes the keys of the two directions: initiator to responder, and back.
    pub(crate) fn new([there, back]: [&Secret; 2]) -> Exporter {
        Exporter(there.derive("strowger connection exporter", &[back.expose()]))
    }

    /// The psk of a direct link. `asks` is the end that offered first, `answers` the other.
    pub fn direct_psk(&self, asks: &DirectEnd, answers: &DirectEnd) -> Psk {
        let parts: [&[u8]; 4] =
            [&asks.nonce, &answers.nonce, &asks.link_key.0, &answers.link_key.0];
        let psk: [u8; KEY_BYTES] = *self.0.derive("strowger direct link psk", &parts).expose();
        Psk::from_bytes(psk)
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(..)")
    }
}
