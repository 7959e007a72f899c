//! One worker's replicas of the switch's links, by mark and by slot.

use strowger_frame::Mark;
use strowger_wire::Scheme;
use strowger_wire::Slot;

use crate::{limits::ATTACHED_MAX, link::Link, mark::OWN};

/// The links of one worker. The tables never grow.
pub(super) struct LinkTable {
    /// The links, indexed by [`Mark::index`].
    by_mark: Vec<Option<Box<Link>>>,
    /// By slot: the mark of the link that has the slot, or that was the last to have it.
    by_slot: Vec<Mark>,
    /// The link of slot 1, the ingress of packets that the switch itself makes.
    own: Box<Link>,
}

impl LinkTable {
    pub(super) fn new(scheme: &Scheme) -> Self {
        Self {
            by_mark: (0..ATTACHED_MAX).map(|_| None).collect(),
            by_slot: vec![OWN; ATTACHED_MAX + 1],
            own: Box::new(Link::own(scheme)),
        }
    }

    /// The link with this mark. `None` if that link was detached; another link may have the mark's
    /// index now.
    #[inline]
    pub(super) fn get(&self, mark: Mark) -> Option<&Link> {
        let link = self.by_mark.get(mark.index())?.as_deref()?;
        (link.mark == mark).then_some(link)
    }

    /// As [`get`](Self::get), mutable.
    #[inline]
    pub(super) fn get_mut(&mut self, mark: Mark) -> Option<&mut Link> {
        let link = self.by_mark.get_mut(mark.index())?.as_deref_mut()?;
        (link.mark == mark).then_some(link)
    }

    /// The link of slot 1, the ingress of packets that the switch itself makes.
    pub(super) fn own(&self) -> &Link {
        &self.own
    }

    /// As [`get`](Self::get), but returns the link of slot 1 for a packet that the switch itself
    /// made.
    #[cold]
    pub(super) fn ingress(&self, mark: Mark) -> Option<&Link> {
        if mark == OWN { Some(&self.own) } else { self.get(mark) }
    }

    /// As [`ingress`](Self::ingress), mutable.
    #[cold]
    pub(super) fn ingress_mut(&mut self, mark: Mark) -> Option<&mut Link> {
        if mark == OWN { Some(&mut self.own) } else { self.get_mut(mark) }
    }

    /// The slot of the link with this mark; 0 if the link was detached.
    #[cold]
    pub(super) fn ingress_slot(&self, mark: Mark) -> Slot {
        self.ingress(mark).map_or(Slot::new(0), |ingress| ingress.slot)
    }

    /// The mark of the link that has this slot, or that was the last to have it.
    #[cold]
    pub(super) fn mark_at(&self, slot: Slot) -> Mark {
        self.by_slot.get(slot.index()).copied().unwrap_or(OWN)
    }

    pub(super) fn insert(&mut self, link: Box<Link>) {
        let mark = link.mark;
        self.note_slot(link.slot, mark);
        match self.by_mark.get_mut(mark.index()) {
            Some(entry) => *entry = Some(link),
            None => debug_assert!(false, "marks are below ATTACHED_MAX"),
        }
    }

    pub(super) fn remove(&mut self, mark: Mark) -> Option<Box<Link>> {
        self.by_mark.get_mut(mark.index())?.take_if(|link| link.mark == mark)
    }

    /// Records which link has a slot.
    pub(super) fn note_slot(&mut self, slot: Slot, mark: Mark) {
        if let Some(entry) = self.by_slot.get_mut(slot.index()) {
            *entry = mark;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.by_mark.iter().flatten().map(Box::as_ref)
    }
}
