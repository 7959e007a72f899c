//! Encodes a label's first director in another form or width.

use super::{Label, LabelError};
use crate::director::Director;
use crate::register::Register;
use crate::scheme::Scheme;
use crate::slot::Slot;

impl<R: Register> Label<R> {
    /// Returns the same path with the first director in form number `form` of the scheme (W1.4-5).
    ///
    /// # Errors
    /// [`NoSuchDirector`](crate::director::DirectorError::NoSuchDirector),
    /// [`NoSuchForm`](crate::director::DirectorError::NoSuchForm),
    /// [`SlotTooWide`](crate::director::DirectorError::SlotTooWide) if the form cannot hold the
    /// slot (slot 1 has one form only), or [`TooLong`](LabelError::TooLong).
    pub fn convert(self, scheme: &Scheme, form: u8) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        let wanted = scheme.encode_in(director.slot, form)?;
        self.with_first(director, wanted)
    }

    /// Returns the same path with the first director in the narrowest form that holds its slot.
    ///
    /// # Errors
    /// [`NoSuchDirector`](crate::director::DirectorError::NoSuchDirector), or
    /// [`TooLong`](LabelError::TooLong) if the label was already longer than
    /// [`BITS_MAX`](Label::BITS_MAX).
    pub fn canonical(self, scheme: &Scheme) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        self.with_first(director, scheme.encode_least(director.slot)?)
    }

    /// Returns the same path with the first director wide enough to encode the slot
    /// `ingress`. Then packets whose ingress is that slot have a return path (W1.2-6).
    ///
    /// A director that is wide enough is not changed. Slot 1 is widened by zeros above its `0001`.
    ///
    /// # Errors
    /// [`NoSuchDirector`](crate::director::DirectorError::NoSuchDirector),
    /// [`SlotTooWide`](crate::director::DirectorError::SlotTooWide) if no form of the scheme holds
    /// both slots, or [`TooLong`](LabelError::TooLong).
    pub fn widen(self, scheme: &Scheme, ingress: Slot) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        if scheme.encode(ingress, director.width).is_ok() {
            return Ok(self);
        }
        let width = scheme.width_for(director.slot, ingress)?;
        self.with_first(director, scheme.encode(director.slot, width)?)
    }

    /// Returns the same path, for use by the node that the label `asker` leads to (cjdns:
    /// `getLabelFor`). The first director becomes at least as wide as the first one of `asker`,
    /// because packets of that node arrive at this switch on the slot of that director.
    ///
    /// # Errors
    /// [`NoSuchDirector`](crate::director::DirectorError::NoSuchDirector) for either label,
    /// [`SlotTooWide`](crate::director::DirectorError::SlotTooWide), or
    /// [`TooLong`](LabelError::TooLong).
    pub fn widen_for(self, scheme: &Scheme, asker: Label<R>) -> Result<Label<R>, LabelError> {
        let (director, theirs) = (self.decode(scheme)?, asker.decode(scheme)?);
        if theirs.width <= director.width {
            return Ok(self);
        }
        self.with_first(director, scheme.encode(director.slot, theirs.width)?)
    }

    /// Replaces the first director, `old`, by `new`.
    fn with_first(self, old: Director, new: Director) -> Result<Label<R>, LabelError> {
        if new == old {
            // The label does not change, so its length is not checked.
            return Ok(self);
        }
        Label::join(self.0.shr(u32::from(old.width)), new.bits, u32::from(new.width))
    }
}
