//! A sealer: one lane's key and nonce counter in one owner, and the only place where a nonce is made.
//!
//! R5, a (key, nonce) pair is used once: the key of a lane is derived from the session's direction
//! key and the lane's number; a session's keys come out of a handshake whose ephemeral keys are new;
//! [`Sealer`] holds the key together with its counter, is not `Clone`, and seals by `&mut self` only.
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

use crate::aead::{Aead, AeadKey, Provider, nonce_of};
use crate::limits::{
    REKEY_AFTER_PACKETS, SEAL_REFUSED_AFTER, SEAL_REFUSED_AFTER_PACKETS, SEALED_HEAD_BYTES,
};
use crate::secret::Secret;
use crate::time::Nanos;

/// Bytes that sealing adds to a body: link header before, tag behind.
pub const SEALED_OVERHEAD_BYTES: usize = LINK_HEADER_BYTES + TAG_BYTES;

/// How much of a data packet is sealed. Plain is not here: a plain link has no sealer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SealMode {
    /// Everything behind the link header is encrypted; all of it is authenticated.
    Full,
    /// Only the first [`SEALED_HEAD_BYTES`] behind the link header are encrypted, and they, the link
    /// header and the packet's length are authenticated. The rest must be sealed end to end
    /// already. An observer can match a packet on two links by it.
    HeaderOnly,
}

impl SealMode {
    /// The kind of a data packet in this mode.
    #[inline]
    pub const fn data_kind(self) -> Kind {
        match self {
            SealMode::Full => Kind::SealedData,
            SealMode::HeaderOnly => Kind::SealedHeaderData,
        }
    }
}

/// What a packet to be sealed is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealed {
    /// A switch packet, sealed in the mode of the session. An empty one confirms the keys.
    Data,
    /// A path challenge; always sealed in full.
    PathChallenge,
    /// The answer to one; always sealed in full.
    PathAnswer,
}

/// Why a packet was not sealed. It is as it was, and no counter was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum SealRefused {
    /// No room for link header and tag.
    #[error("no room for the link header and the tag")]
    NoRoom,
    /// The keys are older than [`SEAL_REFUSED_AFTER`].
    #[error("the keys are too old to seal with")]
    Expired,
    /// This lane has sealed [`SEAL_REFUSED_AFTER_PACKETS`].
    #[error("the lane's counter is spent")]
    Exhausted,
}

/// Seals one lane of one direction of one session. See the module for why it is not `Clone`.
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
        direction: &Secret,
        lane: Lane,
        to: SessionIndex,
        mode: SealMode,
        born: Nanos,
        provider: Provider,
    ) -> Sealer {
        Sealer {
            key: provider.key(&lane_key(direction, lane)),
            counter: 0,
            refuse_at: born.plus(SEAL_REFUSED_AFTER),
            mode,
            lane,
            to,
        }
    }

    /// Seals `packet` in place: 8 bytes that become the link header, the body, 16 bytes that become
    /// the tag. The body's length and place do not change. Nothing is allocated.
    ///
    /// `now` is the burst's clock reading. Returns the counter spent; on an error the packet is as it was.
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
            Sealed::PathAnswer => Kind::PathAnswer,
        };
        let Some((header, rest)) = packet.split_first_chunk_mut::<LINK_HEADER_BYTES>() else {
            return Err(SealRefused::NoRoom);
        };
        let Some((body, tag)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(SealRefused::NoRoom);
        };
        // From here on nothing fails, so the counter is spent exactly when a nonce is.
        self.counter = counter + 1;
        *header =
            LinkHeader { kind, lane: self.lane, index: self.to, low: counter as u32 }.to_bytes();
        let (head, aad) = covered(kind, header, body);
        *tag = self.key.seal(&nonce_of(counter), aad.bytes(), head);
        Ok(counter)
    }

    /// Packets sealed so far, which is also the next counter.
    #[inline]
    pub const fn packets(&self) -> u64 {
        self.counter
    }

    /// Whether the lane has sealed so many packets that new keys should be asked for. Age is the
    /// session's business ([`session`](crate::session)).
    #[inline]
    pub const fn wants_rekey(&self) -> bool {
        self.counter >= REKEY_AFTER_PACKETS
    }

    /// From when on it refuses.
    #[inline]
    pub const fn refuses_at(&self) -> Nanos {
        self.refuse_at
    }

    /// The lane it seals.
    #[inline]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// The peer's index of the session.
    #[inline]
    pub const fn to(&self) -> SessionIndex {
        self.to
    }

    /// How it seals data.
    #[inline]
    pub const fn mode(&self) -> SealMode {
        self.mode
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, counter: u64) {
        assert!(counter >= self.counter, "a counter never goes back, not even in a test");
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

/// Each lane has a key of its own, so that two workers never share a nonce counter.
pub(crate) fn lane_key(direction: &Secret, lane: Lane) -> Secret {
    direction.derive("strowger link lane key", &[&[lane.number()]])
}

/// The authenticated bytes beside the sealed ones: the link header, and in header-only mode how many
/// bytes lie behind the sealed head, so that a packet cut or grown on its way fails here.
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

/// Splits what a packet's kind says is sealed off its body.
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
