//! Limits of this crate, with their reasons and the relations between them.

use crate::time::Nanos;

use strowger_wire::limits::MAC_BYTES;

const SECOND: u64 = 1_000_000_000;

/// Length of an AEAD nonce: four zero bytes and a 64-bit little-endian counter (RFC 8439).
pub(crate) const NONCE_BYTES: usize = 12;

/// Words of the replay bitmap. A power of two, so that a mask finds a counter's word.
pub(crate) const REPLAY_WORDS: usize = 64;

/// Size of the replay window, in packets before the newest one; at least 2,048.
///
/// One word of the bitmap is always being cleared ahead of the newest counter and does not count.
pub const REPLAY_WINDOW_PACKETS: u64 = (REPLAY_WORDS as u64 - 1) * 64;

/// Number of bytes after the link header that header-only mode encrypts.
///
/// They hold the widest switch header (40) and the first 24 bytes of the payload: index, counter
/// and first ciphertext of the endpoint session. 64 bytes are one ChaCha20 block, so a smaller
/// number would not save work.
pub const SEALED_HEAD_BYTES: usize = 64;

/// Age of keys at which their initiator starts a new handshake.
pub const REKEY_AFTER: Nanos = Nanos(120 * SECOND);

/// Age of keys at which their responder starts a new handshake. The initiator normally does so
/// earlier.
pub(crate) const REKEY_AFTER_AS_RESPONDER: Nanos = Nanos(140 * SECOND);

/// Number of packets on one lane after which a new handshake starts.
pub(crate) const REKEY_AFTER_PACKETS: u64 = 1 << 60;

/// Age of keys after which a sealer refuses every packet.
pub const SEAL_REFUSED_AFTER: Nanos = Nanos(180 * SECOND);

/// Age of keys after which an opener refuses every packet. It must be longer than that of a sealer,
/// because packets may be in flight.
pub const OPEN_REFUSED_AFTER: Nanos = Nanos(190 * SECOND);

/// Number of packets on one lane after which a sealer refuses every packet.
///
/// It must be far below 2^64, so that a counter cannot wrap and the receiver can always reconstruct
/// its upper half.
pub(crate) const SEAL_REFUSED_AFTER_PACKETS: u64 = 1 << 61;

/// First pause between two handshake attempts (RFC 6298, section 2.1: one second).
///
/// If the last handshake took longer, the pause is 1.5 times its duration.
pub const RETRY_AFTER: Nanos = Nanos(SECOND);

/// Longest first pause on a path with a long measured round trip.
pub(crate) const RETRY_AFTER_SLOW: Nanos = Nanos(4 * SECOND);

/// Maximum number of attempts of one session that accept a response at the same time.
///
/// On a path whose round trip is longer than the pause, every response belongs to an earlier
/// attempt.
pub const ATTEMPTS_MAX: usize = 3;

/// The number of attempts after which the pause doubles.
///
/// Equal to [`ATTEMPTS_MAX`]: for any round trip up to the longest one, one of the pauses is long
/// enough for a response to arrive while its attempt still waits.
pub(crate) const ATTEMPTS_PER_PAUSE: u32 = ATTEMPTS_MAX as u32;

/// The time for which one attempt waits for a response.
///
/// It must not exceed the time by which openers outlive sealers: one end counts the age of the keys
/// from the start of this time, and the other end from its end.
pub const ATTEMPT_LIFE: Nanos = Nanos(10 * SECOND);

/// The number of times that the pause doubles while there are valid keys.
///
/// Some 27 attempts fit between the rekey and the end of the old keys; at 30 % loss all of them
/// fail once in 10^8 rekeys.
pub(crate) const DOUBLINGS_WHILE_SEALING: u32 = 1;

/// Longest pause between two attempts without keys, jitter included.
pub(crate) const RETRY_AFTER_MAX: Nanos = Nanos(16 * SECOND);

/// Jitter: each pause grows by a random part of up to 1/3 of itself.
///
/// It prevents nodes that were started by one event from retrying at the same times. WireGuard adds
/// up to a third of a second.
pub(crate) const JITTER_PARTS: u64 = 3;

/// Maximum number of key sets of a responder that wait for their first packet: one for each
/// response that the initiator still accepts.
pub const NEXT_MAX: usize = ATTEMPTS_MAX;

/// Shortest time between two generations of keys.
///
/// Packets sealed under the generation before the last must arrive before its openers close.
pub const REKEY_SPACING: Nanos = Nanos(5 * SECOND);

/// Maximum number of confirmations that an initiator sends, one every [`RETRY_AFTER`], until the
/// peer answers under the new keys.
pub(crate) const CONFIRMS_MAX: u32 = 20;

/// The number of times that the third message of XX is sent before a new handshake starts.
///
/// At 30 % loss, the probability is 94 % that one of them arrives, is confirmed, and its
/// confirmation is answered.
pub(crate) const MSG3_SENDS_MAX: u32 = 6;

/// Delay of the first confirmation after the third message of XX.
///
/// The responder must process that message before it can open anything.
pub(crate) const CONFIRM_AFTER_MSG3: Nanos = Nanos(SECOND / 5);

/// Lifetime of a cookie secret. A cookie is valid for one to two lifetimes.
pub(crate) const COOKIE_SECRET_LIFE: Nanos = Nanos(120 * SECOND);

/// Maximum number of completed XX handshakes recorded for each cookie secret, so that none
/// completes twice.
///
/// A slow path that reads a thousand messages of unknown peers per second fills the list in 16
/// seconds.
pub(crate) const COMPLETED_HANDSHAKES_MAX: usize = 8_192;

/// Shortest lifetime of a cookie secret, used if its list of completed handshakes is full.
///
/// A handshake in progress thus has as much time as one attempt waits for its response.
pub(crate) const COOKIE_SECRET_LIFE_MIN: Nanos = ATTEMPT_LIFE;

/// Length of the two macs that end an initiation, in bytes.
pub(crate) const MACS_BYTES: usize = 2 * MAC_BYTES;

const _: () = assert!(REPLAY_WORDS.is_power_of_two() && REPLAY_WINDOW_PACKETS >= 2_048);
const _: () = assert!(REKEY_AFTER.0 < REKEY_AFTER_AS_RESPONDER.0);
const _: () = assert!(REKEY_AFTER_AS_RESPONDER.0 + 30 * RETRY_AFTER.0 < SEAL_REFUSED_AFTER.0);
const _: () = assert!(SEAL_REFUSED_AFTER.0 < OPEN_REFUSED_AFTER.0);
const _: () = assert!(SEAL_REFUSED_AFTER.0 + ATTEMPT_LIFE.0 <= OPEN_REFUSED_AFTER.0);
const _: () = assert!(RETRY_AFTER_SLOW.0 * 2 < RETRY_AFTER_MAX.0);
const _: () = assert!(REKEY_AFTER_PACKETS < SEAL_REFUSED_AFTER_PACKETS);
const _: () = assert!(SEAL_REFUSED_AFTER_PACKETS < u64::MAX - (1 << 33));
