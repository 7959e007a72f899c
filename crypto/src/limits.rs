//! Every bound of this crate, its reason, and the asserts between them. Nothing here is computed at run time.

use crate::time::Nanos;

pub use strowger_wire::limits::{
    HELLO_BYTES_MAX, IDENTITY_PROOF_BYTES, INITIATION_BYTES, KEY_BYTES, LANES_MAX, LINK_MTU_MIN,
    MAC_BYTES, NETWORK_ID_BYTES_MAX, PROTOCOLS_BYTES_MAX, SCHEME_BYTES_MAX, TAG_BYTES,
};

const SECOND: u64 = 1_000_000_000;

/// Bytes of an AEAD nonce: four zero bytes and the 64-bit counter, least significant byte first (RFC 8439).
pub const NONCE_BYTES: usize = 12;

/// Words of the replay bitmap. A power of two, so that the place of a counter is a mask away.
pub const REPLAY_WORDS: usize = 64;

/// Counters behind the newest that are still told apart. One word of the bitmap is always being
/// cleared ahead of the newest counter, so it does not count. The least allowed is 2,048.
pub const REPLAY_WINDOW_PACKETS: u64 = (REPLAY_WORDS as u64 - 1) * 64;

/// Bytes behind the link header that header-only mode seals: the widest switch header (40) and the
/// first 24 of the payload, which hold the endpoint session's index, counter and first ciphertext.
/// 64 is also one ChaCha20 block, so a smaller number would save nothing.
pub const SEALED_HEAD_BYTES: usize = 64;

/// Age at which the initiator of a session asks for new keys.
pub const REKEY_AFTER: Nanos = Nanos(120 * SECOND);

/// Age at which the responder of a session asks, in case the initiator has forgotten it.
pub const REKEY_AFTER_AS_RESPONDER: Nanos = Nanos(140 * SECOND);

/// Packets on one lane after which new keys are asked for.
pub const REKEY_AFTER_PACKETS: u64 = 1 << 60;

/// Age at which a sealer refuses. It does not seal a single packet more.
pub const SEAL_REFUSED_AFTER: Nanos = Nanos(180 * SECOND);

/// Age at which an opener refuses: what was sealed in time may still be on its way.
pub const OPEN_REFUSED_AFTER: Nanos = Nanos(190 * SECOND);

/// Packets on one lane after which a sealer refuses. Far from 2^64, so that a counter cannot wrap
/// and the receiver's reconstruction of its upper half always has room.
pub const SEAL_REFUSED_AFTER_PACKETS: u64 = 1 << 61;

/// Time between two attempts at a handshake, before it backs off (RFC 6298, section 2.1: a first timeout
/// of one second). Where the last handshake took longer it is half as much again as that took.
pub const RETRY_AFTER: Nanos = Nanos(SECOND);

/// What [`RETRY_AFTER`] grows to at most on a path that was measured to be slow.
pub const RETRY_AFTER_SLOW: Nanos = Nanos(4 * SECOND);

/// Attempts whose answers count, of each session: the answer to one that was made again may still
/// come, and on a path whose round trip is longer than the pause it always comes late.
pub const ATTEMPTS_MAX: usize = 3;

/// Attempts after which the pause doubles: as many as are awaited, so that whatever the round trip is,
/// some pause is long enough for an answer to come while its attempt is awaited.
pub const ATTEMPTS_PER_PAUSE: u32 = ATTEMPTS_MAX as u32;

/// How long the answer to one attempt is awaited. The two ends count the age of keys from either end of
/// this time, so it is no longer than openers outlive sealers.
pub const ATTEMPT_LIFE: Nanos = Nanos(10 * SECOND);

/// Times that the pause doubles while keys are good: [`RETRY_AFTER`] and then twice that. Some 27 attempts
/// fit between the wish for new keys and the end of the old ones: at 30 % loss all of them fail once in
/// 10^8.
pub const DOUBLINGS_WHILE_SEALING: u32 = 1;

/// Longest pause between two attempts when there are no keys at all and nobody answers, jitter included.
pub const RETRY_AFTER_MAX: Nanos = Nanos(16 * SECOND);

/// Each pause is longer by a random part of itself, one of so many parts at most, so that those whom one
/// event has made begin do not stay in step. (WireGuard adds up to a third of a second.)
pub const JITTER_PARTS: u64 = 3;

/// Keys of the responder's that wait for the first packet under them: one set for each answer that the
/// initiator may still take.
pub const NEXT_MAX: usize = ATTEMPTS_MAX;

/// New keys are not asked for sooner than this after the last ones: what was sealed under the
/// generation before the last must have arrived before its openers are closed.
pub const REKEY_SPACING: Nanos = Nanos(5 * SECOND);

/// Confirmations an initiator sends at most, one every [`RETRY_AFTER`], until the peer is heard under
/// the new keys.
pub const CONFIRMS_MAX: u32 = 20;

/// Times that the third message of XX is sent before the handshake begins anew: at 30 % loss one of them
/// gets through, is confirmed and answered with 94 %.
pub const MSG3_SENDS_MAX: u32 = 6;

/// The first confirmation after the third message of XX, which the responder reads before it can open
/// anything, waits for so long.
pub const CONFIRM_AFTER_MSG3: Nanos = Nanos(SECOND / 5);

/// Life of a cookie secret; a cookie is good for one to two of these.
pub const COOKIE_SECRET_LIFE: Nanos = Nanos(120 * SECOND);

/// Strangers' handshakes remembered per cookie secret, so that none of them is accepted twice: what a slow
/// path that reads a thousand messages of strangers a second completes in 16 seconds.
pub const COMPLETED_HANDSHAKES_MAX: usize = 8_192;

/// Life of a cookie secret under which no more strangers can be remembered: those who are under way by it
/// have as long as the answer to an attempt.
pub const COOKIE_SECRET_LIFE_MIN: Nanos = ATTEMPT_LIFE;

/// Bytes of the two macs that end a handshake initiation and a response.
pub(crate) const MACS_BYTES: usize = 2 * MAC_BYTES;

const _: () = assert!(REPLAY_WORDS.is_power_of_two() && REPLAY_WINDOW_PACKETS >= 2_048);
const _: () = assert!(REKEY_AFTER.0 < REKEY_AFTER_AS_RESPONDER.0);
const _: () = assert!(REKEY_AFTER_AS_RESPONDER.0 + 30 * RETRY_AFTER.0 < SEAL_REFUSED_AFTER.0);
const _: () = assert!(SEAL_REFUSED_AFTER.0 < OPEN_REFUSED_AFTER.0);
const _: () = assert!(SEAL_REFUSED_AFTER.0 + ATTEMPT_LIFE.0 <= OPEN_REFUSED_AFTER.0);
const _: () = assert!(RETRY_AFTER_SLOW.0 * 2 < RETRY_AFTER_MAX.0);
const _: () = assert!(REKEY_AFTER_PACKETS < SEAL_REFUSED_AFTER_PACKETS);
const _: () = assert!(SEAL_REFUSED_AFTER_PACKETS < u64::MAX - (1 << 33));
