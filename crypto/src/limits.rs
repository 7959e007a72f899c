//! Limits of this crate, with their reasons and the relations between them.

use crate::time::Nanos;

use strowger_wire::limits::MAC_BYTES;

const SECOND: u64 = 1_000_000_000;

/// Length of an AEAD nonce: four zero bytes and a 64-bit little-endian counter (RFC 8439).
pub(crate) const NONCE_BYTES: usize = 12;

/// Number of words in the replay bitmap: a power of two, so that a mask finds a counter's word.
pub(crate) const REPLAY_WORDS: usize = 64;

/// Size of the replay window, in packets before the newest one; at least 2,048.
///
/// The word that holds the newest counter may be used only in part, so one word does not count.
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
/// If 1.5 times the duration of the last handshake is longer, the pause is that long, up to
/// `RETRY_AFTER_SLOW`.
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
/// Equal to [`ATTEMPTS_MAX`]: for any round trip up to [`ATTEMPT_LIFE`], one of the pauses is long
/// enough for a response to arrive while its attempt still waits.
pub(crate) const ATTEMPTS_PER_PAUSE: u32 = ATTEMPTS_MAX as u32;

/// The time for which one attempt waits for a response.
///
/// It must not exceed the time by which openers outlive sealers: in the worst case, one end counts
/// the age of the keys from the start of this time, and the other from its end.
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

/// Maximum number of key sets of a responder that wait for their first packet: one per response
/// that the initiator still accepts.
pub const NEXT_MAX: usize = ATTEMPTS_MAX;

/// Shortest time between two generations of keys.
///
/// Packets sealed under the previous generation must arrive before the next rekey closes its
/// openers.
pub const REKEY_SPACING: Nanos = Nanos(5 * SECOND);

/// Maximum number of confirmations that an initiator sends, one every [`RETRY_AFTER`], until the
/// peer answers under the new keys.
pub(crate) const CONFIRMS_MAX: u32 = 20;

/// The number of times that the third message of XX is sent before a new handshake starts.
///
/// At 30 % loss, the probability is above 90 % that one of them arrives, is confirmed, and its
/// confirmation is answered.
pub(crate) const MSG3_SENDS_MAX: u32 = 6;

/// Delay of the first confirmation after the third message of XX.
///
/// The responder must process that message before it can open anything.
pub(crate) const CONFIRM_AFTER_MSG3: Nanos = Nanos(SECOND / 5);

/// Lifetime of a cookie secret. A cookie is valid for one to two lifetimes.
pub(crate) const COOKIE_SECRET_LIFE: Nanos = Nanos(120 * SECOND);

/// Maximum number of completed XX handshakes recorded per cookie secret, so that none completes
/// twice. A recorded handshake takes some 30 bytes.
///
/// A slow path that reads a thousand messages of unknown peers per second, two per handshake,
/// completes 60,000 handshakes in the life of a secret. The limit allows 546 completed handshakes
/// per second on average.
pub const COMPLETED_HANDSHAKES_MAX: usize = 65_536;

/// Maximum length of a source, in bytes: a source is hashed before its message is authenticated.
/// The longest one has 37 bytes (wire.md W6-13).
pub const SOURCE_BYTES_MAX: usize = 64;

/// Maximum number of lanes of a connection in one direction: one per path (wire.md W6-17).
pub const CONNECTION_LANES_MAX: u8 = 4;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that docs/wire.md states. Other tests use the names of the constants, and would
    /// not notice a change.
    ///
    /// wire.md: W3-8, W3-10, W3-39, W3-40, W3-41, W4-10, W4-11, W4-12, W4-66, W4-82, W4-83, W4-95,
    /// W4-97, W4-98, W4-104.
    #[test]
    fn the_limits_are_those_of_the_specification() {
        let seconds = |nanos: Nanos| nanos.0 as f64 / SECOND as f64;
        assert_eq!((REPLAY_WINDOW_PACKETS, SEALED_HEAD_BYTES), (4_032, 64));
        assert_eq!((seconds(SEAL_REFUSED_AFTER), seconds(OPEN_REFUSED_AFTER)), (180.0, 190.0));
        let packets = [SEAL_REFUSED_AFTER_PACKETS, REKEY_AFTER_PACKETS];
        assert_eq!(packets, [2_u64.pow(61), 2_u64.pow(60)]);
        let rekeys = [REKEY_AFTER, REKEY_AFTER_AS_RESPONDER, REKEY_SPACING].map(seconds);
        assert_eq!(rekeys, [120.0, 140.0, 5.0]);
        assert_eq!((ATTEMPTS_MAX, NEXT_MAX, seconds(ATTEMPT_LIFE)), (3, 3, 10.0));
        let pauses = [RETRY_AFTER, RETRY_AFTER_SLOW, RETRY_AFTER_MAX].map(seconds);
        assert_eq!(pauses, [1.0, 4.0, 16.0]);
        assert_eq!((ATTEMPTS_PER_PAUSE, DOUBLINGS_WHILE_SEALING, JITTER_PARTS), (3, 1, 3));
        assert_eq!((CONFIRMS_MAX, MSG3_SENDS_MAX, seconds(CONFIRM_AFTER_MSG3)), (20, 6, 0.2));
        let cookies = [COOKIE_SECRET_LIFE, COOKIE_SECRET_LIFE_MIN].map(seconds);
        assert_eq!((cookies, COMPLETED_HANDSHAKES_MAX), ([120.0, 10.0], 65_536));
    }
}
