//! Announcements of endpoints, and the replies to requests about peers (wire.md 5.5).
//!
//! | request | answered from | to |
//! |---|---|---|
//! | find | the announcements of this switch's slots | a link with the rights `control` and `endpoints` |
//! | resolve | the announcements, then the [`Resolver`] | the endpoint or the sealed neighbour itself, with labels that its rights permit |
//! | observed | the address of the link | the neighbour itself |
//!
//! A request that must not be answered gets the same reply as a request about an unknown peer.

use core::net::{Ipv6Addr, SocketAddr};
use std::fmt;

use strowger_crypto::{
    AnnouncePlace, AnnouncementRefused, LocalIdentity, PeerId, find_tag, verify_announcement,
};
use strowger_frame::{Address, Mark};
use strowger_wire::{
    Hop, Label, Slot,
    certificate::CERTIFICATE_BYTES,
    control::{AnnounceVerdict, Announcement, Host, Resolution, ResolveTarget, ResolvedLabel},
    label::AnyLabel,
    limits::{FIND_NONCE_BYTES, FIND_TAG_BYTES, KEY_BYTES, RESOLVED_LABELS_MAX},
    with_label,
};

use super::{
    super::{Event, SlotState, attachments::Attachment, base::Outputs, slots::Slots},
    Cause,
};
use crate::{
    Now,
    limits::{ANNOUNCE_S_MAX, ANNOUNCEMENTS_MAX, ANNOUNCEMENTS_PER_SLOT_MAX},
    link::{Behind, Rights},
};

const SECOND_NS: u64 = 1_000_000_000;

/// A source of labels for `resolve`, besides the switch's own slots: an address book, or a router.
/// [`Switch::set_resolver`](crate::control::Switch::set_resolver) sets it.
///
/// The slow path calls the resolver for each resolve request that it may answer, within the rate
/// limit of the link that sends the request.
/// The resolver must not block.
pub trait Resolver: Send {
    /// The identity, certificate and labels of a peer; `None` if the peer is unknown.
    fn resolve(&mut self, target: &ResolveTarget<'_>, now: Now) -> Option<KnownPeer>;
}

/// The answer of a [`Resolver`] about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// The Ed25519 key of the peer.
    pub identity: [u8; KEY_BYTES],
    /// The certificate of the peer's connection key, if it is known.
    pub certificate: Option<[u8; CERTIFICATE_BYTES]>,
    /// Labels from slot 1 of this switch, best first. The switch widens the first director for the
    /// slot of the node that asks.
    pub labels: Vec<ResolvedLabel>,
}

/// An announcement, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnnouncementView {
    /// The identity that announced itself.
    pub peer: PeerId,
    /// Seconds for which the announcement is still valid, rounded up.
    pub seconds: u32,
}

/// An announcement that this switch has accepted.
#[derive(Debug)]
struct Announced {
    user: Mark,
    identity: [u8; KEY_BYTES],
    peer: PeerId,
    address: Ipv6Addr,
    stamp: u64,
    until: Now,
    certificate: [u8; CERTIFICATE_BYTES],
}

impl Announced {
    fn is_of(&self, target: &ResolveTarget<'_>) -> bool {
        match target {
            ResolveTarget::Peer(key) => self.identity == **key,
            ResolveTarget::Address(address) => self.address.octets() == **address,
        }
    }

    /// The seconds that are left, rounded up.
    fn seconds_left(&self, now: Now) -> u32 {
        let left = self.until.0.saturating_sub(now.0).div_ceil(SECOND_NS);
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

/// The announcements of all slots, and the resolver.
#[derive(Default)]
pub(super) struct Lookups {
    announced: Vec<Announced>,
    resolver: Option<Box<dyn Resolver>>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("announced", &self.announced).finish_non_exhaustive()
    }
}

/// The verdict about an announcement, and the seconds for which it is valid.
pub(super) type Verdict = (AnnounceVerdict, u32);

const fn refused(why: AnnounceVerdict) -> Verdict {
    (why, 0)
}

impl Lookups {
    pub(super) fn set_resolver(&mut self, resolver: Option<Box<dyn Resolver>>) {
        self.resolver = resolver;
    }

    /// The time at which the next announcement expires.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.announced.iter().map(|announced| announced.until).min()
    }

    /// Deletes the announcements that have expired, and those of slots whose user is gone.
    pub(super) fn poll(&mut self, now: Now, slots: &Slots, out: &mut Outputs) {
        let events = &mut out.events;
        self.announced.retain(|announced| {
            let Some(user) = slots.user(announced.user) else { return false };
            let is_valid = now < announced.until;
            if !is_valid {
                events.push(Event::AnnouncementEnded { slot: user.slot, peer: announced.peer });
            }
            is_valid
        });
    }

    /// The announcements of a slot's user.
    pub(super) fn views(&self, user: Mark, now: Now) -> Vec<AnnouncementView> {
        let of_user = self.announced.iter().filter(|announced| announced.user == user);
        of_user
            .map(|announced| AnnouncementView {
                peer: announced.peer,
                seconds: announced.seconds_left(now),
            })
            .collect()
    }

    /// Accepts or refuses an announcement of an endpoint at this switch.
    pub(super) fn announce(
        &mut self,
        cause: Cause,
        announcement: &Announcement<'_>,
        identity: Option<&LocalIdentity>,
        (slots, out): (&Slots, &mut Outputs),
        now: Now,
    ) -> Verdict {
        let Some(local) = identity else { return refused(AnnounceVerdict::NO_IDENTITY) };
        let user = slots.user(cause.ingress);
        let user = user.filter(|user| user.behind == Behind::Endpoint && is_stable(user));
        let Some(user) = user else { return refused(AnnounceVerdict::OTHER_SLOT) };
        let place = AnnouncePlace {
            network: local.network(),
            switch: local.identity(),
            slot: user.slot.number(),
        };
        let certificate = match verify_announcement(announcement, &place) {
            Ok(certificate) => certificate,
            Err(why) => {
                return refused(match why {
                    AnnouncementRefused::OtherSlot => AnnounceVerdict::OTHER_SLOT,
                    AnnouncementRefused::Certificate(_) => AnnounceVerdict::BAD_CERTIFICATE,
                    AnnouncementRefused::BadSignature => AnnounceVerdict::BAD_SIGNATURE,
                });
            }
        };
        let (identity, stamp) = (certificate.identity().to_bytes(), announcement.stamp);
        let newest = self.announced.iter().filter(|other| other.identity == identity);
        if let Some(newest) = newest.max_by_key(|other| other.stamp) {
            if newest.stamp == stamp && newest.user == cause.ingress {
                // The endpoint repeats the request, because it got no answer.
                return (AnnounceVerdict::TAKEN, newest.seconds_left(now));
            }
            if newest.stamp >= stamp {
                return refused(AnnounceVerdict::STALE);
            }
        }
        let (slot, peer) = (user.slot, certificate.identity().peer_id());
        let is_former =
            |other: &Announced| other.user == cause.ingress && other.identity == identity;
        let former = self.announced.iter().position(is_former);
        if announcement.seconds == 0 {
            if let Some(former) = former {
                self.announced.remove(former);
                out.events.push(Event::AnnouncementEnded { slot, peer });
            }
            return (AnnounceVerdict::TAKEN, 0);
        }
        let seconds = announcement.seconds.min(ANNOUNCE_S_MAX);
        let announced = Announced {
            user: cause.ingress,
            identity,
            peer,
            address: peer.ip6(),
            stamp,
            until: Now(now.0.saturating_add(u64::from(seconds) * SECOND_NS)),
            certificate: *certificate.as_bytes(),
        };
        match former {
            Some(former) => self.announced[former] = announced,
            None => {
                let of_slot = self.announced.iter().filter(|other| other.user == cause.ingress);
                if of_slot.count() >= ANNOUNCEMENTS_PER_SLOT_MAX
                    || self.announced.len() >= ANNOUNCEMENTS_MAX
                {
                    return refused(AnnounceVerdict::FULL);
                }
                self.announced.push(announced);
                out.events.push(Event::Announced { slot, peer });
            }
        }
        (AnnounceVerdict::TAKEN, seconds)
    }

    /// The valid announcements that the sender of a request may see, with the slots of their
    /// users.
    fn visible<'s>(
        &'s self,
        cause: Cause,
        slots: &Slots,
        now: Now,
    ) -> impl Iterator<Item = (&'s Announced, Slot)> {
        let all = if cause.rights.endpoints { &self.announced[..] } else { &[] };
        all.iter().filter_map(move |announced| {
            let user = slots.user(announced.user).filter(|user| is_stable(user))?;
            let is_usable = now < announced.until && announced.user != cause.ingress;
            is_usable.then_some((announced, user.slot))
        })
    }

    /// The slot of the peer that a find message asks for; `None` if the peer is not here, or if the
    /// sender must not see it.
    pub(super) fn find(
        &self,
        cause: Cause,
        nonce: &[u8; FIND_NONCE_BYTES],
        tag: &[u8; FIND_TAG_BYTES],
        slots: &Slots,
        now: Now,
    ) -> Option<Host<'_>> {
        let is_wanted =
            |(announced, _): &(&Announced, Slot)| find_tag(nonce, &announced.address) == *tag;
        let wanted = self.visible(cause, slots, now).filter(is_wanted);
        let (announced, slot) = wanted.max_by_key(|(announced, _)| announced.stamp)?;
        let scheme = &slots.config().scheme;
        let width = scheme.width_for(slot, cause.ingress_slot).ok()?;
        let director = scheme.encode(slot, width).ok()?;
        Some(Host {
            width: director.width(),
            director: director.bits(),
            seconds: announced.seconds_left(now),
            mtu: 0,
            certificate: &announced.certificate,
        })
    }

    /// The answer to a resolve message, limited to labels that the sender may use.
    pub(super) fn resolve(
        &mut self,
        cause: Cause,
        target: &ResolveTarget<'_>,
        slots: &Slots,
        now: Now,
    ) -> Answer {
        let mut answer = Answer::default();
        let mut own: Vec<_> = self
            .visible(cause, slots, now)
            .filter(|(announced, _)| announced.is_of(target))
            .collect();
        own.sort_by_key(|(announced, _)| std::cmp::Reverse(announced.stamp));
        for (announced, slot) in own {
            let hop =
                Hop { scheme: &slots.config().scheme, ingress: cause.ingress_slot, egress: slot };
            let Ok((label, _)) = Label::<u64>::build(&[hop]) else { continue };
            let seconds = announced.seconds_left(now);
            answer.identity = announced.identity;
            answer.certificate.get_or_insert(announced.certificate);
            answer.add(ResolvedLabel { label: AnyLabel::W64(label), cost: 0, mtu: 0, seconds });
        }
        let known = self.resolver.as_mut().and_then(|resolver| resolver.resolve(target, now));
        let Some(known) = known else { return answer };
        if answer.length > 0 && known.identity != answer.identity {
            return answer;
        }
        for label in known.labels {
            let Some(from_asker) = label_from(label.label, cause, slots) else { continue };
            answer.identity = known.identity;
            answer.add(ResolvedLabel { label: from_asker, ..label });
        }
        if answer.length > 0 && answer.certificate.is_none() {
            answer.certificate = known.certificate;
        }
        answer
    }
}

/// The UDP address of a link.
pub(super) fn observed(cause: Cause, slots: &Slots) -> Option<SocketAddr> {
    match slots.user(cause.ingress)?.at? {
        Address::Udp(at) => Some(at),
        Address::Only | Address::Ether(_) => None,
    }
}

/// Whether the user of a link may request labels: an endpoint, or a neighbour on a sealed link.
pub(super) fn may_resolve(cause: Cause, slots: &Slots) -> bool {
    let user = slots.user(cause.ingress);
    user.is_some_and(|user| user.behind == Behind::Endpoint || user.sealed)
}

/// Whether new labels may name the slot of this user.
fn is_stable(user: &Attachment) -> bool {
    user.state == SlotState::Attached
}

/// A label from slot 1 of this switch, for use by the link that asks. `None` if the first slot of
/// the label has no user, if the link's rights do not lead there, or if the director cannot be
/// widened.
fn label_from(label: AnyLabel, cause: Cause, slots: &Slots) -> Option<AnyLabel> {
    let scheme = &slots.config().scheme;
    with_label!(label, label => {
        let first = label.decode(scheme).ok()?.slot();
        if first == cause.ingress_slot {
            return None;
        }
        let mark = slots.mark_of(first)?;
        let user = slots.user(mark).filter(|user| is_stable(user))?;
        if !leads_to(cause.rights, user.behind) {
            return None;
        }
        label.widen(scheme, cause.ingress_slot).ok().map(AnyLabel::from)
    })
}

/// Whether these rights permit sending to a user of this kind.
fn leads_to(rights: Rights, behind: Behind) -> bool {
    match behind {
        Behind::Neighbour => rights.transit,
        Behind::Endpoint => rights.endpoints,
    }
}

/// The parts of a resolved message.
#[derive(Debug, Default)]
pub(super) struct Answer {
    identity: [u8; KEY_BYTES],
    certificate: Option<[u8; CERTIFICATE_BYTES]>,
    labels: [Option<ResolvedLabel>; RESOLVED_LABELS_MAX],
    length: usize,
}

impl Answer {
    /// Adds a label, unless there are already four or it is a duplicate.
    fn add(&mut self, label: ResolvedLabel) {
        let is_there = self.labels.iter().flatten().any(|other| other.label == label.label);
        if let Some(place) = self.labels.get_mut(self.length)
            && !is_there
        {
            *place = Some(label);
            self.length += 1;
        }
    }

    pub(super) fn resolution(&self) -> Resolution<'_> {
        Resolution {
            identity: &self.identity,
            certificate: self.certificate.as_ref(),
            labels: self.labels,
        }
    }
}
