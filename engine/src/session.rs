//! The sessions whose frames a worker opens. A table maps the index in a link header to the keys,
//! or to the worker that has them.

use strowger_crypto::{Nanos, OpenRefused, Openers};
use strowger_frame::{
    Frame, Mark,
    sync::{AtomicU64, Ordering},
};
use strowger_wire::{limits::TAG_BYTES, link_header::SessionIndex};

use crate::{
    Now,
    discard::Discard,
    limits::{
        LINK_MESSAGES_AT_ONCE, LINK_MESSAGES_PER_SECOND, ROAMED_NOTES_AT_ONCE,
        SESSION_NOTE_INTERVAL, SESSIONS_MAX,
    },
    link::Opened,
    rate::{Rate, TokenBucket},
};

/// A session whose frames this worker opens. Only this worker advances its replay windows.
#[derive(Debug)]
pub(crate) struct RxSession {
    /// The session index in the peer's frames.
    pub(crate) index: SessionIndex,
    /// The link of the session.
    pub(crate) link: Mark,
    /// The keys and replay windows.
    pub(crate) openers: Openers,
    limits: PuntLimits,
}

/// Rate limits of a worker's notes and punts about one session. They keep a peer from filling the
/// queues that it shares with others (R12).
#[derive(Debug, Default)]
struct PuntLimits {
    /// The last time at which a frame arrived on one of this worker's own ports, or the session
    /// moved to this worker.
    last_own_port: Now,
    received: TokenBucket,
    roamed: TokenBucket,
    migrated: TokenBucket,
    link_messages: TokenBucket,
}

const NOTE_RATE: Rate = Rate::every(SESSION_NOTE_INTERVAL, 1);
const ROAMED_RATE: Rate = Rate::every(SESSION_NOTE_INTERVAL, ROAMED_NOTES_AT_ONCE);
const LINK_MESSAGE_RATE: Rate = Rate::per_second(LINK_MESSAGES_PER_SECOND, LINK_MESSAGES_AT_ONCE);

/// The place where a session's frames are opened.
#[derive(Debug)]
pub(crate) enum Place {
    /// On this worker.
    Here(Box<RxSession>),
    /// On another worker, to which this worker hands off the frames.
    OtherWorker(SessionIndex, u8),
}

impl Place {
    fn index(&self) -> SessionIndex {
        match self {
            Self::Here(session) => session.index,
            Self::OtherWorker(index, _) => *index,
        }
    }
}

/// A worker's sessions, by index.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// The places, indexed by [`place_of`].
    places: Box<[Option<Place>]>,
}

/// The place of a session index: its low bits.
pub(crate) fn place_of(index: SessionIndex) -> usize {
    index.number() as usize % SESSIONS_MAX
}

/// A bitmap with one bit for each place of a session index. The bit shows whether the switch waits
/// for the response to a handshake whose index has this place.
///
/// The slow path sets and clears the bits. A worker drops a response or a cookie reply if the bit
/// of its index is not set. Two indices may share a bit.
#[derive(Debug)]
pub(crate) struct AwaitedPlaces(Box<[AtomicU64]>);

impl AwaitedPlaces {
    pub(crate) fn new() -> Self {
        Self((0..SESSIONS_MAX / 64).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets or clears the bit of an index.
    ///
    /// Only the slow path writes, so a load and a store suffice. Relaxed, here and below: no other
    /// data depends on a bit, and a response that arrives before its bit is visible is lost, as any
    /// datagram may be.
    pub(crate) fn set(&self, index: SessionIndex, awaited: bool) {
        let (word, bit) = Self::bit_of(index);
        let Some(word) = self.0.get(word) else { return };
        if awaited {
            word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        } else {
            word.store(word.load(Ordering::Relaxed) & !bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(crate) fn has(&self, index: SessionIndex) -> bool {
        let (word, bit) = Self::bit_of(index);
        self.0.get(word).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn bit_of(index: SessionIndex) -> (usize, u64) {
        let place = place_of(index);
        (place / 64, 1 << (place % 64))
    }
}

/// The result of opening a frame.
pub(crate) struct Vouched<'f> {
    /// Whether this is the first frame with its session index. Such a frame proves that the peer
    /// has the keys.
    pub(crate) first: bool,
    pub(crate) opened: Opened<'f>,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self { places: (0..SESSIONS_MAX).map(|_| None).collect() }
    }

    /// The place where frames with this index are opened.
    #[inline]
    pub(crate) fn find(&mut self, index: SessionIndex) -> Result<&mut Place, Discard> {
        match self.places.get_mut(place_of(index)) {
            Some(Some(place)) if place.index() == index => Ok(place),
            _ => Err(Discard::NoSession),
        }
    }

    /// The sessions whose frames this worker opens or hands to another worker.
    pub(crate) fn indices(&self) -> impl Iterator<Item = SessionIndex> {
        self.places.iter().flatten().map(Place::index)
    }

    /// Puts a session into its place and returns the former content.
    pub(crate) fn put(&mut self, place: Place) -> Option<Place> {
        let at = place_of(place.index());
        self.places.get_mut(at).and_then(|old| old.replace(place))
    }

    /// Removes a session.
    pub(crate) fn take(&mut self, index: SessionIndex) -> Option<Place> {
        let place = self.places.get_mut(place_of(index))?;
        place.take_if(|place| place.index() == index)
    }
}

impl RxSession {
    /// Makes a session of this link, whose frames arrive with `index`.
    pub(crate) fn new(index: SessionIndex, link: Mark, openers: Openers) -> Self {
        Self { index, link, openers, limits: PuntLimits::default() }
    }

    /// Records that a frame arrived on one of this worker's own ports, or that the session moved to
    /// this worker.
    #[inline]
    pub(crate) fn note_own_port(&mut self, now: Now) {
        self.limits.last_own_port = now;
    }

    /// Whether the rate limit allows a note that the peer has sent a frame.
    pub(crate) fn may_note_heard(&mut self, now: Now) -> bool {
        self.limits.received.take(NOTE_RATE, now)
    }

    /// Whether the rate limit allows a note that frames arrive from another address.
    pub(crate) fn may_note_roamed(&mut self, now: Now) -> bool {
        self.limits.roamed.take(ROAMED_RATE, now)
    }

    /// Whether the worker may note that the session's frames now arrive only at another worker.
    ///
    /// If a peer's lanes arrive at several workers, the session stays at its worker. Otherwise the
    /// session would move between them without end.
    pub(crate) fn may_note_migrated(&mut self, now: Now) -> bool {
        let since_own_port = now.0.saturating_sub(self.limits.last_own_port.0);
        u128::from(since_own_port) >= SESSION_NOTE_INTERVAL.as_nanos()
            && self.limits.migrated.take(NOTE_RATE, now)
    }

    /// Whether the rate limit allows a punt of one more of the link's own messages.
    pub(crate) fn may_punt_link_message(&mut self, now: Now) -> bool {
        self.limits.link_messages.take(LINK_MESSAGE_RATE, now)
    }

    /// Opens a frame in place, removes its tag, and sets its mark to the link.
    ///
    /// The bytes of the tag become tailroom for the next link's tag.
    #[inline(never)] // a call costs little beside an AEAD
    pub(crate) fn open<'f>(
        &mut self,
        now: Now,
        frame: &'f mut Frame,
    ) -> Result<Vouched<'f>, Discard> {
        let first = match self.openers.open(Nanos(now.0), frame.bytes_mut()) {
            Ok(opened) => opened.first(),
            Err(refused) => return Err(discard_of(refused)),
        };
        let sealed_len = frame.len();
        frame.truncate(sealed_len - TAG_BYTES);
        frame.set_mark(self.link);
        Ok(Vouched { first, opened: Opened::vouch(frame) })
    }
}

#[cold]
fn discard_of(refused: OpenRefused) -> Discard {
    match refused {
        OpenRefused::Runt => Discard::TooShort,
        OpenRefused::WrongKind => Discard::BadLinkKind,
        OpenRefused::NoSuchLane | OpenRefused::Forged => Discard::BadSeal,
        OpenRefused::Expired => Discard::KeysExpired,
        OpenRefused::Replayed | OpenRefused::TooOld => Discard::Replayed,
    }
}
