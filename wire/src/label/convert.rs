//! Writing a label's first director in another form or width.

use super::{Label, LabelError};
use crate::director::Director;
use crate::register::Register;
use crate::scheme::Scheme;
use crate::slot::Slot;

impl<R: Register> Label<R> {
    /// The same way with the first director in another form.
    ///
    /// # Errors
    /// `NoSuchDirector`, `NoSuchForm`, `SlotTooWide` (slot 1 has one form only), or
    /// [`TooLong`](LabelError::TooLong).
    pub fn convert(self, scheme: &Scheme, form: u8) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        let wanted = scheme.encode_in(director.slot, form)?;
        self.with_first(director, wanted)
    }

    /// The same way with the first director in the least form that holds it.
    ///
    /// # Errors
    /// `NoSuchDirector`, or [`TooLong`](LabelError::TooLong) for a label that was too long before.
    pub fn canonical(self, scheme: &Scheme) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        self.with_first(director, scheme.encode_least(director.slot)?)
    }

    /// The same way with the first director wide enough that a packet that came in by `ingress`
    /// can write its way back (wire.md 1.2). A director that is wide enough is left as it is. For
    /// slot 1, too: `0001` with zeros above it.
    ///
    /// # Errors
    /// `NoSuchDirector`, `SlotTooWide`, or [`TooLong`](LabelError::TooLong).
    pub fn widen(self, scheme: &Scheme, ingress: Slot) -> Result<Label<R>, LabelError> {
        let director = self.decode(scheme)?;
        if scheme.encode(ingress, director.width).is_ok() {
            return Ok(self);
        }
        let width = scheme.width_for(director.slot, ingress)?;
        self.with_first(director, scheme.encode(director.slot, width)?)
    }

    /// The same way with the first director at least as wide as the first one of `asker`, the
    /// label that leads to whoever is to use it: a packet of theirs comes in by that slot. (cjdns:
    /// `getLabelFor`.)
    ///
    /// # Errors
    /// `NoSuchDirector`, `SlotTooWide`, or [`TooLong`](LabelError::TooLong).
    pub fn widen_for(self, scheme: &Scheme, asker: Label<R>) -> Result<Label<R>, LabelError> {
        let (director, theirs) = (self.decode(scheme)?, asker.decode(scheme)?);
        if theirs.width <= director.width {
            return Ok(self);
        }
        self.with_first(director, scheme.encode(director.slot, theirs.width)?)
    }

    /// Puts `new` in the place of `old`, its first director.
    fn with_first(self, old: Director, new: Director) -> Result<Label<R>, LabelError> {
        if new == old {
            // Not a matter of length: nothing changes.
            return Ok(self);
        }
        Label::join(self.0.shr(u32::from(old.width)), new.bits, u32::from(new.width))
    }
}
