//! The attachments of a switch by mark and by address, and the free marks.

use std::{collections::HashMap, sync::Arc};

use strowger_frame::{Address, Mark, port::AdmitError};
use strowger_wire::Slot;

use super::{AttachError, PortId, SlotState, slot_allocator::Who};
use crate::{
    limits::ATTACHED_MAX,
    link::{Behind, SlotTally},
};

/// One attached neighbour or endpoint.
pub(super) struct Attachment {
    pub(super) slot: Slot,
    /// The slot number that workers write into return paths. After a renumbering it changes only
    /// when every worker's table has the new number.
    pub(super) written: Slot,
    pub(super) port: PortId,
    pub(super) at: Option<Address>,
    pub(super) behind: Behind,
    pub(super) sealed: bool,
    pub(super) name: String,
    /// The identity by which the attachment is recognized after a restart. `None` for one that does
    /// not return.
    pub(super) who: Option<Who>,
    pub(super) state: SlotState,
    pub(super) tallies: Vec<Arc<SlotTally>>,
    pub(super) refused: Option<AdmitError>,
    /// Whether [`Event::SlotAttached`](super::Event::SlotAttached) was reported.
    pub(super) announced: bool,
}

/// The attachments of one switch, with lookups by mark and by address.
#[derive(Default)]
pub(super) struct Attachments {
    /// Attachments by mark index. Each place also holds the generation of its user or, if the place
    /// is free, of the next user.
    places: Vec<(u16, Option<Attachment>)>,
    /// Mark indices by port and address. An entry may be outdated.
    by_address: HashMap<(u16, Address), usize>,
    /// Every mark index from [`barred`](Self::barred) up to, but not including, this one is in use.
    vacant_from: usize,
    /// After a recovery, no mark below this index is assigned: a worker may still have a link that
    /// the slow path has no record of.
    barred: usize,
}

impl Attachments {
    /// The number of places, in use or not.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Mark, &Attachment)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, attachment))| {
            attachment.as_ref().map(|a| (Mark::new(index as u16, *generation), a))
        })
    }

    pub(super) fn get(&self, mark: Mark) -> Option<&Attachment> {
        let (generation, user) = self.places.get(mark.index())?;
        user.as_ref().filter(|_| *generation == mark.generation())
    }

    pub(super) fn get_mut(&mut self, mark: Mark) -> Option<&mut Attachment> {
        let (generation, user) = self.places.get_mut(mark.index())?;
        user.as_mut().filter(|_| *generation == mark.generation())
    }

    /// The slot of the attachment that has this address on a port.
    pub(super) fn slot_at(&self, port: PortId, at: Address) -> Option<Slot> {
        let index = *self.by_address.get(&(port.0, at))?;
        let user = self.places.get(index)?.1.as_ref()?;
        (user.port == port && user.at == Some(at)).then_some(user.slot)
    }

    /// Returns a free mark. The mark stays free until [`insert`](Self::insert) uses it.
    pub(super) fn vacant(&mut self) -> Result<Mark, AttachError> {
        let from = self.barred.max(self.vacant_from);
        let mut places = self.places.iter().skip(from);
        let found = places.position(|(_, user)| user.is_none());
        // The attach that uses this place may fail, so the next search begins here.
        let vacant = found.map_or(self.places.len(), |index| from + index);
        self.vacant_from = if self.barred == 0 { vacant } else { 0 };
        let index = match found {
            Some(index) => from + index,
            None if self.places.len() < ATTACHED_MAX => {
                self.places.push((0, None));
                self.places.len() - 1
            }
            None => return Err(AttachError::Full),
        };
        Ok(Mark::new(index as u16, self.places[index].0))
    }

    pub(super) fn insert(&mut self, mark: Mark, attachment: Attachment) {
        if let Some(at) = attachment.at {
            self.by_address.insert((attachment.port.0, at), mark.index());
        }
        self.places[mark.index()].1 = Some(attachment);
    }

    /// Removes an attachment. The next user of its place gets another generation.
    pub(super) fn remove(&mut self, mark: Mark) -> Option<Attachment> {
        self.get(mark)?;
        let (generation, place) = &mut self.places[mark.index()];
        *generation = generation.wrapping_add(1);
        self.vacant_from = self.vacant_from.min(mark.index());
        let gone = place.take()?;
        if let Some(at) = gone.at
            && self.by_address.get(&(gone.port.0, at)) == Some(&mark.index())
        {
            self.by_address.remove(&(gone.port.0, at));
        }
        Some(gone)
    }

    /// Repairs the state during a recovery, and bars all existing places. `number_of` returns the
    /// slot number of an attachment and whether the number is live, or `None` for an attachment
    /// that is being detached. Returns the marks of live attachments that are not announced yet.
    pub(super) fn recover(
        &mut self,
        number_of: impl Fn(Mark) -> Option<(Slot, bool)>,
    ) -> Vec<Mark> {
        let mut unannounced = Vec::new();
        self.barred = self.places.len();
        for (index, (generation, place)) in self.places.iter_mut().enumerate() {
            let Some(user) = place else {
                // An attach that uses this place may have been in progress.
                *generation = generation.wrapping_add(1);
                continue;
            };
            let mark = Mark::new(index as u16, *generation);
            let Some((slot, is_live)) = number_of(mark) else {
                user.state = SlotState::Leaving;
                continue;
            };
            (user.slot, user.written) = (slot, slot);
            if is_live {
                if user.state == SlotState::Coming {
                    user.state = SlotState::Attached;
                }
                if !user.announced {
                    unannounced.push(mark);
                }
            } else {
                user.state = SlotState::Coming;
            }
        }
        unannounced
    }

    /// Allows all marks again, after every worker has removed the links that the slow path has no
    /// record of.
    pub(super) fn unbar(&mut self) {
        self.barred = 0;
    }
}
