//! mac1, mac2 and cookies: the checks on every handshake message before any curve operation.
//!
//! Every initiation ends with two macs, as in WireGuard (its paper, section 5.4.7). `mac1` is keyed
//! with the receiver's static key and the network's name, so a sender who knows neither gets no
//! reply. In XX the initiator does not know the receiver's key yet, and `mac1` is keyed only with
//! the network's name. Under load the responder also demands `mac2`, keyed with a cookie that only
//! a host receiving at the claimed source address can know:
//!
//! ```text
//! cookie        = MAC(secret that changes every two minutes, source address and port)
//! cookie reply  = link header (8) | nonce (24) | cookie, sealed by XChaCha20-Poly1305 (16 + 16)
//! ```
//!
//! The reply is sealed under a key derived from the receiver's static key, with the initiation's
//! mac1 as associated data: only a host that saw the initiation can forge a reply, and a host that
//! sees only the reply cannot read it. The reply has 64 bytes, the initiation that it answers 896.

use core::fmt;
use std::collections::BTreeSet;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use strowger_wire::{
    limits::{INITIATION_BYTES, KEY_BYTES, TAG_BYTES},
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader, SessionIndex, Step},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{Refused, could_be_handshake};
use crate::entropy::{Entropy, EntropyFailed};
use crate::identity::{LocalIdentity, NetworkId, StaticPublic};
use crate::limits::{
    COMPLETED_HANDSHAKES_MAX, COOKIE_SECRET_LIFE, COOKIE_SECRET_LIFE_MIN, MACS_BYTES,
};
use crate::secret::{Secret, mac};
use crate::time::Nanos;

// A cookie has the length of a mac.
pub(crate) use strowger_wire::limits::MAC_BYTES;
const NONCE_BYTES: usize = 24;

/// Length of a cookie reply, in bytes.
pub const COOKIE_REPLY_BYTES: usize = LINK_HEADER_BYTES + NONCE_BYTES + MAC_BYTES + TAG_BYTES;

/// Length of a third message with an empty payload, in bytes: the shortest that is accepted.
pub(super) const FINISH_BYTES_MIN: usize =
    LINK_HEADER_BYTES + 2 * (KEY_BYTES + TAG_BYTES) + MACS_BYTES;

// R8: a cookie reply is never longer than the message that it answers.
const _: () = assert!(COOKIE_REPLY_BYTES <= FINISH_BYTES_MIN);
const _: () = assert!(COOKIE_REPLY_BYTES <= INITIATION_BYTES);

/// The all-zero key that is used while the initiator does not know the receiver's key (XX).
pub(crate) const NO_KEY: StaticPublic = StaticPublic([0; KEY_BYTES]);

/// The mac keys of messages to one static key. They are not secret: they are derived from the
/// static key and the network's name.
#[derive(Clone)]
pub(crate) struct MacKeys {
    mac1: [u8; KEY_BYTES],
    cookie: [u8; KEY_BYTES],
    hint: [u8; KEY_BYTES],
}

impl MacKeys {
    pub(crate) fn to(receiver: &StaticPublic, network: &NetworkId) -> MacKeys {
        MacKeys {
            mac1: mac(&receiver.0, "strowger mac1 key", &[network.as_bytes()]),
            cookie: mac(&receiver.0, "strowger cookie key", &[network.as_bytes()]),
            hint: mac(&receiver.0, "strowger key hint key", &[]),
        }
    }

    /// Key hint of an initiation (wire.md W4-10): 24 bits that identify the receiver's static key.
    ///
    /// The hint depends on the static key and on the ephemeral key in `message`, which is the
    /// initiation. It does not depend on the network.
    pub(crate) fn key_hint(&self, message: &[u8]) -> Option<SessionIndex> {
        let ephemeral = message.get(LINK_HEADER_BYTES..LINK_HEADER_BYTES + KEY_BYTES)?;
        let [a, b, c, ..] = short_mac(&self.hint, "strowger key hint", ephemeral);
        SessionIndex::new(u32::from_be_bytes([0, a, b, c]))
    }

    /// Appends mac1 over all of `message`, and returns it.
    pub(crate) fn append_mac1(&self, message: &mut Vec<u8>) -> [u8; MAC_BYTES] {
        let mac1 = short_mac(&self.mac1, "strowger mac1", message);
        message.extend_from_slice(&mac1);
        mac1
    }

    /// Appends mac2 over all of `message`: zeros without a cookie.
    pub(crate) fn append_mac2(message: &mut Vec<u8>, cookie: Option<&Cookie>) {
        let mac2 = cookie.map_or([0; MAC_BYTES], |cookie| cookie.mac2(message));
        message.extend_from_slice(&mac2);
    }

    /// Checks mac1 at the end of `message` and returns the bytes before it.
    pub(crate) fn check_mac1<'m>(&self, message: &'m [u8]) -> Result<&'m [u8], Refused> {
        let (covered, got) = message.split_last_chunk::<MAC_BYTES>().ok_or(Refused::Malformed)?;
        let right = short_mac(&self.mac1, "strowger mac1", covered);
        if right.ct_eq(got).into() { Ok(covered) } else { Err(Refused::WrongMac) }
    }
}

fn short_mac(key: &[u8], label: &str, covered: &[u8]) -> [u8; MAC_BYTES] {
    let full = mac(key, label, &[covered]);
    core::array::from_fn(|place| full[place])
}

/// Proof that an initiator receives at its source address. A responder under load issues it.
///
/// A cookie is valid for one to two lifetimes of the responder's secret. An initiator drops it
/// after one lifetime.
pub struct Cookie([u8; MAC_BYTES]);

impl Cookie {
    fn mac2(&self, covered: &[u8]) -> [u8; MAC_BYTES] {
        short_mac(&self.0, "strowger mac2", covered)
    }

    /// Reads a cookie reply to the initiation that ended with `mac1`.
    ///
    /// Any host that saw that initiation can forge the reply. A wrong cookie costs only one
    /// attempt.
    pub(crate) fn read(
        keys: &MacKeys,
        step: Step,
        index: SessionIndex,
        mac1: &[u8; MAC_BYTES],
        message: &[u8],
    ) -> Result<Cookie, Refused> {
        let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
        if header.kind != Kind::Cookie || message.len() != COOKIE_REPLY_BYTES {
            return Err(Refused::Malformed);
        }
        if header.index != index || header.lane != step.lane() {
            return Err(Refused::NotOurs);
        }
        let sealed = &message[LINK_HEADER_BYTES..];
        let (nonce, sealed) =
            sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Refused::Malformed)?;
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Refused::Malformed)?;
        let mut cookie = Cookie(*body.first_chunk::<MAC_BYTES>().ok_or(Refused::Malformed)?);
        XChaCha20Poly1305::new(&keys.cookie.into())
            .decrypt_inout_detached(nonce.into(), mac1, (&mut cookie.0[..]).into(), tag.into())
            .map_err(|_| Refused::Unreadable)?;
        Ok(cookie)
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// The load of the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Every sender that knows our key and network may start a handshake.
    Normal,
    /// A sender must first prove with a cookie that it receives at its source address.
    Heavy,
}

/// A first or third message with valid macs. The handshakes accept no other type of input.
///
/// Only [`CookieChecker::admit`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'m> {
    pub(crate) header: LinkHeader,
    pub(crate) step: Step,
    /// The bytes between link header and macs.
    pub(crate) noise: &'m [u8],
}

impl Admitted<'_> {
    /// The step of the handshake: [`Step::Known`] is for [`ik`](super::ik), the others are for
    /// [`xx`](super::xx).
    pub const fn step(&self) -> Step {
        self.step
    }
}

/// Outcome of [`CookieChecker::admit`].
#[derive(Debug)]
pub enum Admission<'m> {
    /// The macs are right: continue the handshake.
    Admitted(Admitted<'m>),
    /// Send this cookie reply to the message's source and drop the message.
    CookieReply([u8; COOKIE_REPLY_BYTES]),
}

/// One lifetime of the cookie secret, and the XX handshakes completed under it.
pub(crate) struct SecretEpoch {
    pub(crate) number: u32,
    pub(crate) secret: Secret,
    /// Marks of completed XX handshakes, so that none completes twice (R5). At most
    /// [`COMPLETED_HANDSHAKES_MAX`].
    pub(crate) finished: BTreeSet<[u8; MAC_BYTES]>,
}

impl SecretEpoch {
    fn new(number: u32, entropy: &mut dyn Entropy) -> Result<SecretEpoch, EntropyFailed> {
        Ok(SecretEpoch { number, secret: Secret::random(entropy)?, finished: BTreeSet::new() })
    }

    fn cookie(&self, source: &[u8]) -> Cookie {
        Cookie(short_mac(self.secret.expose(), "strowger cookie", source))
    }
}

/// Checks macs, issues cookies, and remembers completed XX handshakes. One per node.
///
/// [`CookieChecker::admit`] takes `&self`, so unauthenticated bytes cannot change the checker (R8).
/// Only time and completed handshakes change it.
pub struct CookieChecker {
    known: MacKeys,
    open: MacKeys,
    current: SecretEpoch,
    previous: SecretEpoch,
    rotated: Nanos,
}

impl CookieChecker {
    /// Makes the checker of this node, with two fresh secrets.
    pub fn new(
        local: &LocalIdentity,
        now: Nanos,
        entropy: &mut dyn Entropy,
    ) -> Result<CookieChecker, EntropyFailed> {
        Ok(CookieChecker {
            known: MacKeys::to(local.static_public(), local.network()),
            open: MacKeys::to(&NO_KEY, local.network()),
            current: SecretEpoch::new(1, entropy)?,
            previous: SecretEpoch::new(0, entropy)?,
            rotated: now,
        })
    }

    /// Replaces the cookie secret if it is due. Call it before [`CookieChecker::admit`], or from a
    /// timer.
    ///
    /// The secret is due after `COOKIE_SECRET_LIFE`. If its list of completed handshakes is full,
    /// it is due after `COOKIE_SECRET_LIFE_MIN`, so that earlier peers do not block later ones.
    pub fn rotate(&mut self, now: Nanos, entropy: &mut dyn Entropy) -> Result<(), EntropyFailed> {
        if now < self.rotates_at() {
            return Ok(());
        }
        let missed = now.since(self.rotated).0 >= 2 * COOKIE_SECRET_LIFE.0;
        for _ in 0..1 + u32::from(missed) {
            let next = SecretEpoch::new(self.current.number.wrapping_add(1), entropy)?;
            self.previous = core::mem::replace(&mut self.current, next);
        }
        self.rotated = now;
        Ok(())
    }

    /// Time at which [`CookieChecker::rotate`] next replaces the secret.
    pub(crate) fn rotates_at(&self) -> Nanos {
        let is_full = self.current.finished.len() >= COMPLETED_HANDSHAKES_MAX;
        self.rotated.plus(if is_full { COOKIE_SECRET_LIFE_MIN } else { COOKIE_SECRET_LIFE })
    }

    /// Checks length and macs of a message of kind [`Kind::Initiation`].
    ///
    /// `source` is the source address and port as bytes, in any form that is the same for the same
    /// source. The result depends only on the arguments and this checker. The check costs two short
    /// hashes, or four under load.
    pub fn admit<'m>(
        &self,
        source: &[u8],
        message: &'m [u8],
        load: Load,
    ) -> Result<Admission<'m>, Refused> {
        let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
        if header.kind != Kind::Initiation {
            return Err(Refused::Malformed);
        }
        let step = Step::from_lane(header.lane).ok_or(Refused::Malformed)?;
        if !could_be_handshake(&header, message.len()) {
            return Err(Refused::Malformed);
        }
        let keys = match step {
            Step::Known => &self.known,
            Step::Discover | Step::Finish => &self.open,
        };
        let (with_mac1, mac2) =
            message.split_last_chunk::<MAC_BYTES>().ok_or(Refused::Malformed)?;
        let covered = keys.check_mac1(with_mac1).map_err(|why| {
            let names_our_key = step == Step::Known
                && header.index != SessionIndex::NONE
                && keys.key_hint(message) == Some(header.index);
            if names_our_key { Refused::OtherNetwork } else { why }
        })?;
        if load == Load::Heavy && !self.proves_source(source, with_mac1, mac2) {
            return Ok(Admission::CookieReply(self.cookie_reply(source, &header, keys, with_mac1)));
        }
        Ok(Admission::Admitted(Admitted { header, step, noise: &covered[LINK_HEADER_BYTES..] }))
    }

    fn proves_source(&self, source: &[u8], with_mac1: &[u8], mac2: &[u8; MAC_BYTES]) -> bool {
        let by = |epoch: &SecretEpoch| epoch.cookie(source).mac2(with_mac1).ct_eq(mac2);
        (by(&self.current) | by(&self.previous)).into()
    }

    fn cookie_reply(
        &self,
        source: &[u8],
        asked: &LinkHeader,
        keys: &MacKeys,
        with_mac1: &[u8],
    ) -> [u8; COOKIE_REPLY_BYTES] {
        let index = SessionIndex::new(asked.low & (SessionIndex::END - 1)).unwrap_or_default();
        let header = LinkHeader { kind: Kind::Cookie, lane: asked.lane, index, low: 0 };
        let mut cookie = self.current.cookie(source);
        let mac1 = &with_mac1[with_mac1.len() - MAC_BYTES..];
        // The nonce is a function of all sealed bytes, so two plaintexts never share one.
        let chosen =
            mac(self.current.secret.expose(), "strowger cookie nonce", &[source, with_mac1]);
        let nonce: [u8; NONCE_BYTES] = core::array::from_fn(|place| chosen[place]);
        let tag = XChaCha20Poly1305::new(&keys.cookie.into())
            .encrypt_inout_detached(&nonce.into(), mac1, (&mut cookie.0[..]).into())
            .expect("16 bytes are below the cipher's limit");
        let mut reply = [0; COOKIE_REPLY_BYTES];
        let (head, rest) = reply.split_at_mut(LINK_HEADER_BYTES);
        head.copy_from_slice(&header.to_bytes());
        rest[..NONCE_BYTES].copy_from_slice(&nonce);
        rest[NONCE_BYTES..NONCE_BYTES + MAC_BYTES].copy_from_slice(&cookie.0);
        rest[NONCE_BYTES + MAC_BYTES..].copy_from_slice(&tag);
        reply
    }

    /// The epoch in which new XX handshakes start.
    pub(crate) const fn current_epoch(&self) -> &SecretEpoch {
        &self.current
    }

    /// The epoch of a third message, from the low bit of the index in its header.
    pub(crate) const fn epoch_of(&self, index: SessionIndex) -> &SecretEpoch {
        if self.current.number & 1 == index.number() & 1 { &self.current } else { &self.previous }
    }

    /// Records an XX handshake as completed. Fails if it was already recorded, or if the list is
    /// full.
    pub(crate) fn complete(&mut self, epoch: u32, mark: &[u8; MAC_BYTES]) -> Result<(), Refused> {
        let epoch = [&mut self.current, &mut self.previous]
            .into_iter()
            .find(|known| known.number == epoch)
            .ok_or(Refused::NotOurs)?;
        let is_full = epoch.finished.len() >= COMPLETED_HANDSHAKES_MAX;
        match epoch.finished.contains(mark) {
            true => Err(Refused::Stale),
            false if is_full => Err(Refused::Busy),
            false => {
                epoch.finished.insert(*mark);
                Ok(())
            }
        }
    }

    /// The number of recorded handshakes, for memory accounting.
    pub(crate) fn completed_handshakes(&self) -> usize {
        self.current.finished.len() + self.previous.finished.len()
    }
}

impl fmt::Debug for CookieChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieChecker")
            .field("epoch", &self.current.number)
            .field("completed_handshakes", &self.completed_handshakes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::identity::IdentityKey;
    use strowger_wire::link_header::Lane;

    fn mark(number: u32) -> [u8; MAC_BYTES] {
        let mut mark = [0; MAC_BYTES];
        mark[..4].copy_from_slice(&number.to_be_bytes());
        mark
    }

    #[test]
    fn a_full_list_of_completed_handshakes_refuses_new_ones_for_ten_seconds_at_most() {
        let mut entropy = SeededEntropy::new(1);
        let key = IdentityKey::generate(&mut entropy).expect("seeded");
        let local = LocalIdentity::new(&key, NetworkId::new(b"gate").expect("short"));
        let mut checker = CookieChecker::new(&local, Nanos::ZERO, &mut entropy).expect("seeded");
        let first = checker.current_epoch().number;
        for number in 0..COMPLETED_HANDSHAKES_MAX as u32 {
            assert_eq!(checker.complete(first, &mark(number)), Ok(()));
        }
        assert_eq!(checker.complete(first, &mark(7)), Err(Refused::Stale));
        assert_eq!(checker.complete(first, &mark(u32::MAX)), Err(Refused::Busy));
        let end = COOKIE_SECRET_LIFE_MIN;
        checker.rotate(Nanos(end.0 - 1), &mut entropy).expect("seeded");
        assert_eq!(
            checker.current_epoch().number,
            first,
            "handshakes under the old secret get time to finish"
        );
        checker.rotate(end, &mut entropy).expect("seeded");
        let second = checker.current_epoch().number;
        assert_eq!(checker.complete(second, &mark(u32::MAX)), Ok(()));
        // A completed handshake stays recorded for as long as its secret is usable (R5).
        assert_eq!(checker.complete(first, &mark(7)), Err(Refused::Stale));
        checker.rotate(Nanos(2 * end.0), &mut entropy).expect("seeded");
        assert_eq!(
            checker.current_epoch().number,
            second,
            "a secret with a short list has its full lifetime"
        );
        assert_eq!(checker.rotates_at(), end.plus(COOKIE_SECRET_LIFE));
        assert_eq!(checker.completed_handshakes(), COMPLETED_HANDSHAKES_MAX + 1);
    }
    #[test]
    fn handshake_messages_have_the_lengths_of_their_kind() {
        let shortest = LINK_HEADER_BYTES + KEY_BYTES + TAG_BYTES + MAC_BYTES;
        let (exact, longest) = (INITIATION_BYTES, INITIATION_BYTES);
        for kind in Kind::ALL {
            for (lane, step) in [Some(Step::Known), Some(Step::Discover), Some(Step::Finish), None]
                .into_iter()
                .enumerate()
            {
                let lane = step.map_or(Lane::new(lane as u8), |step| Some(step.lane()));
                let (lane, index) = (lane.expect("below 16"), SessionIndex::NONE);
                let header = LinkHeader { kind, lane, index, low: 0 };
                let range = match (kind, step) {
                    (Kind::Initiation, Some(Step::Known | Step::Discover)) => Some(exact..=exact),
                    (Kind::Initiation, Some(Step::Finish)) => Some(FINISH_BYTES_MIN..=longest),
                    (Kind::Response, Some(Step::Known | Step::Discover)) => {
                        Some(shortest..=longest)
                    }
                    (Kind::Cookie, Some(_)) => Some(COOKIE_REPLY_BYTES..=COOKIE_REPLY_BYTES),
                    _ => None,
                };
                for len in 0..1_000 {
                    let could = could_be_handshake(&header, len);
                    let allowed = range.as_ref().is_some_and(|range| range.contains(&len));
                    assert_eq!(could, allowed, "{kind:?} {step:?} of {len} bytes");
                }
            }
        }
    }
}
