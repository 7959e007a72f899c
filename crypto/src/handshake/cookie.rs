//! mac1, mac2 and cookies: the checks on every handshake message before any curve operation.
//!
//! Every initiation ends with two macs, as in WireGuard (its paper, section 5.4.7). `mac1` is keyed
//! with the receiver's static key and the network's name, so a sender that does not know both gets
//! no reply. In XX the initiator does not know the receiver's static key yet: `mac1` is keyed with
//! the receiver's Ed25519 key in a connection by PeerId, and otherwise only with the network's
//! name. Under load the responder also demands `mac2`, keyed with a cookie that only a host
//! receiving at the claimed source address can know:
//!
//! ```text
//! cookie        = MAC(secret that changes every two minutes, source)
//! cookie reply  = link header (8) | nonce (24) | cookie, sealed by XChaCha20-Poly1305 (16 + 16)
//! ```
//!
//! The reply is sealed under a key derived from the same receiver's key and network name, with the
//! initiation's mac1 as associated data. So only a host that saw the initiation can forge a reply,
//! and only a host that knows that key and name can read it. The reply has 64 bytes, an initiation
//! 896.

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

use super::{Refused, could_be_handshake, xx};
use crate::domain::Domain;
use crate::entropy::{Entropy, EntropyFailed};
use crate::identity::{LocalIdentity, NetworkId, StaticPublic};
use crate::limits::{
    COMPLETED_HANDSHAKES_MAX, COOKIE_SECRET_LIFE, COOKIE_SECRET_LIFE_MIN, MACS_BYTES,
    SOURCE_BYTES_MAX,
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

/// The all-zero key that is used while the initiator knows no key of the receiver: in XX on links,
/// and in XX by label alone.
pub(crate) const NO_KEY: StaticPublic = StaticPublic([0; KEY_BYTES]);

/// The way in which an initiator addresses the responder: it determines the key of mac1 and of the
/// cookie reply (wire.md W6-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// By its static key, with IK.
    StaticKey,
    /// By its PeerId, with XX. Only connections have this way.
    PeerId,
    /// With XX and without a key: on links always, in connections only if the responder accepts it.
    LabelAlone,
}

/// The mac keys of messages to one receiver. They are not secret: they are derived from a public
/// key of the receiver and the network's name.
#[derive(Clone)]
pub(crate) struct MacKeys {
    pub(crate) mac1: [u8; KEY_BYTES],
    pub(crate) cookie: [u8; KEY_BYTES],
    pub(crate) hint: [u8; KEY_BYTES],
}

impl MacKeys {
    /// The keys for a receiver with this public key: a static key, the Ed25519 key of an identity,
    /// or zeros.
    pub(crate) fn to(domain: Domain, receiver: &[u8; KEY_BYTES], network: &NetworkId) -> MacKeys {
        let texts = domain.texts();
        MacKeys {
            mac1: mac1_key(domain, receiver, network),
            cookie: mac(receiver, texts.cookie_key, &[network.as_bytes()]),
            hint: mac(receiver, texts.hint_key, &[]),
        }
    }

    /// The keys for messages to another node of our domain and network.
    pub(crate) fn from_us(local: &LocalIdentity, receiver: &[u8; KEY_BYTES]) -> MacKeys {
        MacKeys::to(local.domain(), receiver, local.network())
    }

    /// The keys for messages to us.
    pub(crate) fn to_us(local: &LocalIdentity, way: Way) -> MacKeys {
        match way {
            Way::StaticKey => MacKeys::from_us(local, &local.static_public().0),
            Way::PeerId => MacKeys::from_us(local, &local.identity().to_bytes()),
            Way::LabelAlone => MacKeys::from_us(local, &NO_KEY.0),
        }
    }

    /// Appends mac1 of a response to a receiver with this static key. The other keys are not needed
    /// for it.
    pub(crate) fn append_mac1_from_us(
        local: &LocalIdentity,
        receiver: &[u8; KEY_BYTES],
        message: &mut Vec<u8>,
    ) {
        let key = mac1_key(local.domain(), receiver, local.network());
        message.extend_from_slice(&short_mac(&key, "strowger mac1", message));
    }

    /// Key hint of an initiation (wire.md W4-17): 24 bits that identify the receiver's static key.
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

fn mac1_key(domain: Domain, receiver: &[u8; KEY_BYTES], network: &NetworkId) -> [u8; KEY_BYTES] {
    mac(receiver, domain.texts().mac1_key, &[network.as_bytes()])
}

fn short_mac(key: &[u8], label: &str, covered: &[u8]) -> [u8; MAC_BYTES] {
    let full = mac(key, label, &[covered]);
    core::array::from_fn(|place| full[place])
}

/// Proof that an initiator receives packets at its source address. A responder under load issues
/// it.
///
/// A cookie is valid for one to two lifetimes of the responder's secret. An initiator drops it
/// after one lifetime.
pub struct Cookie([u8; MAC_BYTES]);

impl Cookie {
    /// The cookie with these bytes.
    #[cfg(feature = "vectors")]
    pub(crate) const fn from_bytes(bytes: [u8; MAC_BYTES]) -> Cookie {
        Cookie(bytes)
    }

    /// The bytes.
    #[cfg(any(test, feature = "vectors"))]
    pub(crate) const fn bytes(&self) -> &[u8; MAC_BYTES] {
        &self.0
    }

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
    /// Every sender whose mac1 is right may start a handshake.
    Normal,
    /// A sender must first prove with a cookie that it receives packets at its source address.
    Heavy,
}

impl Load {
    /// The load when `used` units of a budget are used: heavy from half of the budget on (wire.md
    /// section 6).
    pub const fn of(used: u32, budget: u32) -> Load {
        if used >= budget.div_ceil(2) { Load::Heavy } else { Load::Normal }
    }
}

/// A first or third message with a valid mac1 and, under load, a valid mac2. The functions of
/// responders accept only this type.
///
/// Only [`CookieChecker::admit`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'m> {
    pub(crate) header: LinkHeader,
    pub(crate) step: Step,
    pub(crate) way: Way,
    /// The bytes between link header and macs.
    pub(crate) noise: &'m [u8],
}

impl Admitted<'_> {
    /// The step of the handshake: [`Step::Known`] is for [`ik`](super::ik), the others are for
    /// [`xx`](super::xx).
    pub const fn step(&self) -> Step {
        self.step
    }

    /// The way in which the sender addresses us.
    pub const fn way(&self) -> Way {
        self.way
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

/// Checks macs, issues cookies, and remembers completed XX handshakes. A node has one checker per
/// domain.
///
/// [`CookieChecker::admit`] takes `&self`, so unauthenticated bytes cannot change the checker (R8).
/// Only time and completed handshakes change it.
pub struct CookieChecker {
    known: MacKeys,
    /// Keys for XX, in the order in which they are tried.
    discover: [Option<(Way, MacKeys)>; 2],
    current: SecretEpoch,
    previous: SecretEpoch,
    rotated: Nanos,
}

impl CookieChecker {
    /// Approximate bytes of memory behind this value.
    pub fn memory_bytes(&self) -> usize {
        self.completed_handshakes() * MAC_BYTES * 3 / 2
    }

    /// The keys of messages to us by this way, if a message by it can be admitted.
    pub(crate) fn keys_to_us(&self, way: Way) -> Option<&MacKeys> {
        let mut discover = self.discover.iter().flatten();
        match way {
            Way::StaticKey => Some(&self.known),
            _ => discover.find(|(this, _)| *this == way).map(|(_, keys)| keys),
        }
    }

    /// Makes the checker of this node, with two fresh secrets.
    ///
    /// For connections, it admits XX only by PeerId; see
    /// [`accept_without_peer_id`](Self::accept_without_peer_id).
    pub fn new(
        local: &LocalIdentity,
        now: Nanos,
        entropy: &mut dyn Entropy,
    ) -> Result<CookieChecker, EntropyFailed> {
        let to_us = |way| (way, MacKeys::to_us(local, way));
        Ok(CookieChecker {
            known: MacKeys::to_us(local, Way::StaticKey),
            discover: match local.domain() {
                Domain::Link => [Some(to_us(Way::LabelAlone)), None],
                Domain::Connection => [Some(to_us(Way::PeerId)), None],
            },
            current: SecretEpoch::new(1, entropy)?,
            previous: SecretEpoch::new(0, entropy)?,
            rotated: now,
        })
    }

    /// Makes the checker of connections also admit XX by label alone, from initiators that do not
    /// know our PeerId (wire.md W6-10). `local` is the identity of [`new`](Self::new).
    ///
    /// The checker of links always admits XX without a key.
    pub fn accept_without_peer_id(&mut self, local: &LocalIdentity) {
        self.discover[1] = Some((Way::LabelAlone, MacKeys::to_us(local, Way::LabelAlone)));
    }

    /// Replaces the cookie secret if it is due. Call it before [`CookieChecker::admit`], or from a
    /// timer.
    ///
    /// The secret is due after `COOKIE_SECRET_LIFE`. If its list of completed handshakes is full,
    /// it is due after `COOKIE_SECRET_LIFE_MIN`, so that earlier handshakes do not block later
    /// ones.
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

    /// Time at which [`CookieChecker::rotate`] must be called even if no message arrives: the keys
    /// of completed XX handshakes can be computed from the secrets, so expired secrets must not
    /// stay in memory. `None` if no handshake was completed under them.
    pub fn erases_at(&self) -> Option<Nanos> {
        let has_completed = [&self.current, &self.previous].iter().any(|e| !e.finished.is_empty());
        has_completed.then(|| self.rotates_at())
    }

    /// Checks length and macs of a message of kind [`Kind::Initiation`].
    ///
    /// `source` is where the message came from, as at most [`SOURCE_BYTES_MAX`] bytes in any
    /// unambiguous encoding: address and port on a link; ingress slot, label width and return label
    /// of a connection (wire.md W6-13). A longer one is refused as [`Refused::Malformed`].
    ///
    /// The result depends only on the arguments and this checker. The check costs one or two
    /// hashes, and up to five more under load. A cookie reply costs two further hashes and one
    /// encryption.
    pub fn admit<'m>(
        &self,
        source: &[u8],
        message: &'m [u8],
        load: Load,
    ) -> Result<Admission<'m>, Refused> {
        let header = LinkHeader::parse(message).map_err(|_| Refused::Malformed)?;
        if header.kind != Kind::Initiation || source.len() > SOURCE_BYTES_MAX {
            return Err(Refused::Malformed);
        }
        let step = Step::from_lane(header.lane).ok_or(Refused::Malformed)?;
        if !could_be_handshake(&header, message.len()) {
            return Err(Refused::Malformed);
        }
        let (with_mac1, mac2) =
            message.split_last_chunk::<MAC_BYTES>().ok_or(Refused::Malformed)?;
        let (way, keys, covered) = match step {
            Step::Known => self.check_known(&header, message, with_mac1)?,
            Step::Discover | Step::Finish => self.check_discover(with_mac1)?,
        };
        let noise = &covered[LINK_HEADER_BYTES..];
        // A third message with the index of its source needs no cookie: the initiator could not use
        // a cookie reply to it, because the attempt that sent the first message has ended.
        let has_our_index = || {
            step == Step::Finish
                && xx::has_our_index(self.epoch_of(header.index), source, &header, noise)
        };
        if load == Load::Heavy && !self.proves_source(source, with_mac1, mac2) && !has_our_index() {
            return Ok(Admission::CookieReply(self.cookie_reply(source, &header, keys, with_mac1)));
        }
        Ok(Admission::Admitted(Admitted { header, step, way, noise }))
    }

    /// Checks mac1 of IK. A wrong mac1 with a right key hint shows that the sender uses another
    /// network name.
    fn check_known<'m>(
        &self,
        header: &LinkHeader,
        message: &[u8],
        with_mac1: &'m [u8],
    ) -> Result<(Way, &MacKeys, &'m [u8]), Refused> {
        let covered = self.known.check_mac1(with_mac1).map_err(|why| {
            let names_our_key = header.index != SessionIndex::NONE
                && self.known.key_hint(message) == Some(header.index);
            if names_our_key { Refused::OtherNetwork } else { why }
        })?;
        Ok((Way::StaticKey, &self.known, covered))
    }

    /// Checks mac1 of XX under each key that is accepted.
    fn check_discover<'m>(
        &self,
        with_mac1: &'m [u8],
    ) -> Result<(Way, &MacKeys, &'m [u8]), Refused> {
        let mut why = Refused::WrongMac;
        for (way, keys) in self.discover.iter().flatten() {
            match keys.check_mac1(with_mac1) {
                Ok(covered) => return Ok((*way, keys, covered)),
                Err(refused) => why = refused,
            }
        }
        Err(why)
    }

    fn proves_source(&self, source: &[u8], with_mac1: &[u8], mac2: &[u8; MAC_BYTES]) -> bool {
        let by = |epoch: &SecretEpoch| epoch.cookie(source).mac2(with_mac1).ct_eq(mac2);
        (by(&self.current) | by(&self.previous)).into()
    }

    fn cookie_reply(
        &self,
        source: &[u8],
        received: &LinkHeader,
        keys: &MacKeys,
        with_mac1: &[u8],
    ) -> [u8; COOKIE_REPLY_BYTES] {
        let index = SessionIndex::new(received.low & (SessionIndex::END - 1)).unwrap_or_default();
        let header = LinkHeader { kind: Kind::Cookie, lane: received.lane, index, low: 0 };
        let mut cookie = self.current.cookie(source);
        let mac1 = &with_mac1[with_mac1.len() - MAC_BYTES..];
        // The nonce is derived from all inputs of the sealed bytes, so two plaintexts never share a
        // nonce.
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

    /// Records an XX handshake as completed. Fails if it was already recorded, if the list is full
    /// ([`Refused::XxMemoryFull`]), or if the secret of `epoch` is no longer kept.
    pub(crate) fn complete(&mut self, epoch: u32, mark: &[u8; MAC_BYTES]) -> Result<(), Refused> {
        let epoch = [&mut self.current, &mut self.previous]
            .into_iter()
            .find(|known| known.number == epoch)
            .ok_or(Refused::NotOurs)?;
        let is_full = epoch.finished.len() >= COMPLETED_HANDSHAKES_MAX;
        match epoch.finished.contains(mark) {
            true => Err(Refused::Stale),
            false if is_full => Err(Refused::XxMemoryFull),
            false => {
                epoch.finished.insert(*mark);
                Ok(())
            }
        }
    }

    /// The number of recorded handshakes, for memory accounting: at most two times
    /// [`COMPLETED_HANDSHAKES_MAX`].
    pub fn completed_handshakes(&self) -> usize {
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

    /// wire.md: W4-66, W4-69.
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
        assert_eq!(checker.complete(first, &mark(u32::MAX)), Err(Refused::XxMemoryFull));
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
    /// wire.md: W4-26, W13-17.
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
