//! The meanings of a frame's mark. A mark is one word, whose meaning depends on the step of the
//! frame's path:
//!
//! | the frame | its mark |
//! |---|---|
//! | was received by a port | the link with its source address, or [`Mark::unknown`] |
//! | was handed off unopened by another worker | [`HANDED_OFF`] |
//! | was opened, or was made by the switch itself | its link, or [`OWN`] |
//! | waits in an egress queue | [its ingress slot](EgressMark::ingress_slot), or [a link's own message](EgressMark::is_link_message) |
//!
//! In all other code of the engine a [`Mark`] is the identifier of a link.

use strowger_frame::{Frame, Mark};
use strowger_wire::Slot;

/// The mark of packets that the switch itself makes. No attachment has this mark.
pub(crate) const OWN: Mark = Mark::new(0xfe00, 0);

/// The mark of a frame that another worker received and handed off unopened. Only the port of that
/// other worker knows the frame's source address.
pub(crate) const HANDED_OFF: Mark = Mark(u32::MAX);

/// The mark of a link's own message in an egress queue. No slot has this number.
const LINK_MESSAGE: Mark = Mark(u32::MAX);

/// The mark of a frame in an egress queue.
pub(crate) trait EgressMark {
    /// Marks a packet with its ingress slot.
    fn set_ingress_slot(&mut self, slot: Slot);

    /// The ingress slot of a packet.
    fn ingress_slot(&self) -> Slot;

    /// Marks one of the link's own messages.
    fn set_link_message(&mut self);

    /// Whether the frame is one of the link's own messages.
    fn is_link_message(&self) -> bool;
}

impl EgressMark for Frame {
    #[inline]
    fn set_ingress_slot(&mut self, slot: Slot) {
        self.set_mark(Mark(slot.number()));
    }

    #[inline]
    fn ingress_slot(&self) -> Slot {
        Slot::new(self.mark().0)
    }

    #[inline]
    fn set_link_message(&mut self) {
        self.set_mark(LINK_MESSAGE);
    }

    #[inline]
    fn is_link_message(&self) -> bool {
        self.mark() == LINK_MESSAGE
    }
}
