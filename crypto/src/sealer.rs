//! A sealer: the key and nonce counter of one lane. Only this module chooses the nonces of sealed
//! packets.
//!
//! R5: each (key, nonce) pair is used once. A lane's key is derived from the session's direction
//! key and the lane's number. The session's keys come from a handshake with fresh ephemeral keys.
//! [`Sealer`] holds the key together with its counter, is not `Clone`, and seals through `&mut
//! self`.
//!
//! ```compile_fail,E0277
//! fn needs_clone<T: Clone>() {}
//! needs_clone::<strowger_crypto::Sealer>(); // the same key with the same counter, twice: no
//! ```
//!
//! ```compile_fail,E0596
//! fn two_at_once(sealer: &strowger_crypto::Sealer, packet: &mut [u8]) {
//!     let now = strowger_crypto::Nanos::ZERO;
//!     let _ = sealer.seal(now, strowger_crypto::Sealed::Data, packet); // needs &mut
//! }
//! ```

use core::fmt;

use strowger_wire::{
    limits::{KEY_BYTES, TAG_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex},
};

use crate::cipher::{Aead, AeadKey, Provider, nonce_of};
use crate::domain::Domain;
use crate::limits::{
    REKEY_AFTER_PACKETS, SEAL_REFUSED_AFTER, SEAL_REFUSED_AFTER_PACKETS, SEALED_HEAD_BYTES,
};
use crate::secret::Secret;
use crate::time::Nanos;

/// Bytes that sealing adds to a body: the link header before it and the tag after it.
pub const SEALED_OVERHEAD_BYTES: usize = LINK_HEADER_BYTES + TAG_BYTES;

/// The part of a data packet that is sealed. There is no mode for plain links, because they have no
/// sealer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealMode {
    /// All bytes after the link header are encrypted, and the whole packet is authenticated.
    Full,
    /// The first [`SEALED_HEAD_BYTES`] after the link header are encrypted. The tag authenticates
    /// them, the link header and the packet's length.
    ///
    /// The other bytes must already be sealed end to end. Switches do not change them, so a passive
    /// observer can recognise a packet on two links.
    HeaderOnly,
}

impl SealMode {
    /// Kind of a data packet in this mode.
    #[inline]
    pub(crate) const fn data_kind(self) -> Kind {
        match self {
            SealMode::Full => Kind::SealedData,
            SealMode::HeaderOnly => Kind::SealedHeaderData,
        }
    }
}

/// Purpose of a packet to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealed {
    /// A switch packet, sealed in the session's mode. An empty packet confirms the keys.
    Data,
    /// A path challenge; always sealed in full.
    PathChallenge,
    /// The reply to a path challenge; always sealed in full.
    PathResponse,
}

/// Why a sealer refused a packet. The packet is unchanged and no counter was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum SealRefused {
    /// The buffer is too short for link header and tag.
    #[error("no room for the link header and the tag")]
    NoRoom,
    /// The keys are older than [`SEAL_REFUSED_AFTER`].
    #[error("the keys are too old to seal with")]
    Expired,
    /// The lane has sealed `SEAL_REFUSED_AFTER_PACKETS`.
    #[error("the lane's counter is exhausted")]
    Exhausted,
}

/// Seals one lane of one direction of one session.
///
/// It is not `Clone`, because a copy would use the same nonces again (R5).
pub struct Sealer {
    key: AeadKey,
    counter: u64,
    refuse_at: Nanos,
    mode: SealMode,
    lane: Lane,
    to: SessionIndex,
}

impl Sealer {
    pub(crate) fn new(
        (domain, direction): (Domain, &Secret),
        lane: Lane,
        to: SessionIndex,
        mode: SealMode,
        born: Nanos,
        provider: Provider,
    ) -> Sealer {
        Sealer {
            key: provider.key(&lane_key(domain, direction, lane)),
            counter: 0,
            refuse_at: born.plus(SEAL_REFUSED_AFTER),
            mode,
            lane,
            to,
        }
    }

    #[cfg(test)]
    pub(crate) fn refuses_at(&self) -> Nanos {
        self.refuse_at
    }

    /// Seals `packet` in place: 8 bytes for the link header, the body, 16 bytes for the tag.
    ///
    /// The body keeps its length and position; nothing is allocated. `now` is the burst's clock
    /// reading. Returns the counter used.
    ///
    /// # Errors
    /// The reason for the refusal. The packet is unchanged.
    #[inline]
    pub fn seal(
        &mut self,
        now: Nanos,
        what: Sealed,
        packet: &mut [u8],
    ) -> Result<u64, SealRefused> {
        if now >= self.refuse_at {
            return Err(SealRefused::Expired);
        }
        let counter = self.counter;
        if counter >= SEAL_REFUSED_AFTER_PACKETS {
            return Err(SealRefused::Exhausted);
        }
        let kind = match what {
            Sealed::Data => self.mode.data_kind(),
            Sealed::PathChallenge => Kind::PathChallenge,
            Sealed::PathResponse => Kind::PathResponse,
        };
        let Some((header, rest)) = packet.split_first_chunk_mut::<LINK_HEADER_BYTES>() else {
            return Err(SealRefused::NoRoom);
        };
        let Some((body, tag)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(SealRefused::NoRoom);
        };
        // No operation below can fail, so the counter advances exactly when a nonce is used.
        self.counter = counter + 1;
        *header =
            LinkHeader { kind, lane: self.lane, index: self.to, low: counter as u32 }.to_bytes();
        let (head, aad) = covered(kind, header, body);
        *tag = self.key.seal(&nonce_of(counter), aad.bytes(), head);
        Ok(counter)
    }

    /// Packets sealed so far; also the next counter.
    #[inline]
    pub const fn packets(&self) -> u64 {
        self.counter
    }

    /// Whether the packet count requires new keys. [`session`](crate::session) checks the age of
    /// the keys.
    #[inline]
    pub const fn wants_rekey(&self) -> bool {
        self.counter >= REKEY_AFTER_PACKETS
    }

    /// The sealer's lane.
    #[inline]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// The peer's session index.
    #[inline]
    pub const fn to(&self) -> SessionIndex {
        self.to
    }

    /// The seal mode of data packets.
    #[inline]
    pub const fn mode(&self) -> SealMode {
        self.mode
    }

    #[cfg(any(test, feature = "vectors"))]
    pub(crate) fn skip_to(&mut self, counter: u64) {
        assert!(counter >= self.counter, "a counter never goes back");
        self.counter = counter;
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("to", &self.to)
            .field("lane", &self.lane)
            .field("counter", &self.counter)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The key of one lane. Each lane has its own, so two workers never share a nonce counter.
pub(crate) fn lane_key(domain: Domain, direction: &Secret, lane: Lane) -> Secret {
    direction.derive(domain.texts().lane_key, &[&[lane.number()]])
}

/// Associated data: the link header, and in header-only mode the number of unsealed bytes, so that
/// opening fails if a packet was truncated or extended on the path.
pub(crate) struct Aad {
    bytes: [u8; LINK_HEADER_BYTES + 4],
    length: usize,
}

impl Aad {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Returns the part of the body that this kind of packet seals, and the associated data.
#[inline]
pub(crate) fn covered<'a>(
    kind: Kind,
    header: &[u8; LINK_HEADER_BYTES],
    body: &'a mut [u8],
) -> (&'a mut [u8], Aad) {
    let mut aad = Aad { bytes: [0; LINK_HEADER_BYTES + 4], length: LINK_HEADER_BYTES };
    aad.bytes[..LINK_HEADER_BYTES].copy_from_slice(header);
    if kind != Kind::SealedHeaderData {
        return (body, aad);
    }
    let (head, rest) = body.split_at_mut(body.len().min(SEALED_HEAD_BYTES));
    aad.bytes[LINK_HEADER_BYTES..].copy_from_slice(&(rest.len() as u32).to_be_bytes());
    aad.length = aad.bytes.len();
    (head, aad)
}

const _: () = assert!(KEY_BYTES == 32);
