//! The outcome for one frame, decided before the frame is moved.

use strowger_frame::Mark;
use strowger_wire::{link_header::Kind, switch_header::HeaderError};

use crate::discard::Discard;

/// The outcome for one frame, packed into one word.
///
/// An enum with fields of different sizes is written field by field and then read as a whole. Each
/// such read stalls until the writes have reached the cache (10 ns per packet). A word stays in a
/// register. Read it with [`outcome`](Self::outcome).
///
/// Bits 0 to 31 hold the mark of the next hop or of the source, bits 32 to 39 a worker, a discard
/// or a kind, bit 40 the control flag, bit 41 whether there is a next hop, bits 48 to 55 the
/// outcome's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict(u64);

/// The content of a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The frame joins the egress queue of this next hop.
    Transmit { next_hop: Mark, is_control: bool },
    /// The frame goes to the worker that owns the next hop's port.
    Handoff { worker: u8, next_hop: Mark, is_control: bool },
    /// The frame goes to the worker that has the session's keys.
    WrongWorker { worker: u8 },
    /// The frame goes to the slow path.
    Punt(PuntReason),
    /// The frame is a keepalive, which has no content.
    Consumed,
    /// The worker drops the frame and counts the reason. If there is a `next_hop`, that link
    /// refused the frame, and the frame may wait for the link's keys.
    Drop { discard: Discard, next_hop: Option<Mark>, is_control: bool },
}

/// Why a frame is punted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PuntReason {
    /// A packet with a label that ends at slot 1.
    Packet,
    /// An authenticated path challenge or path response, and the mark of its source address.
    LinkMessage { kind: Kind, from: Mark },
    /// A handshake message or a beacon. No part of it is authenticated.
    Handshake,
}

const TRANSMIT: u64 = 0 << 48;
const HANDOFF: u64 = 1 << 48;
const WRONG_WORKER: u64 = 2 << 48;
const PUNT_PACKET: u64 = 3 << 48;
const PUNT_LINK_MESSAGE: u64 = 4 << 48;
const PUNT_HANDSHAKE: u64 = 5 << 48;
const CONSUMED: u64 = 6 << 48;
const DROP: u64 = 7 << 48;
const OUTCOME_MASK: u64 = 0xff << 48;

const CONTROL_SHIFT: u32 = 40;
const HAS_NEXT_HOP: u64 = 1 << 41;
const ARGUMENT_SHIFT: u32 = 32;

impl Verdict {
    pub(super) const PUNT_PACKET: Self = Self(PUNT_PACKET);
    pub(super) const PUNT_HANDSHAKE: Self = Self(PUNT_HANDSHAKE);
    pub(super) const CONSUMED: Self = Self(CONSUMED);

    #[inline]
    pub(super) const fn transmit(next_hop: Mark, is_control: bool) -> Self {
        Self(TRANSMIT | next_hop.0 as u64 | (is_control as u64) << CONTROL_SHIFT)
    }

    pub(super) const fn handoff(worker: u8, next_hop: Mark, is_control: bool) -> Self {
        Self(HANDOFF | (worker as u64) << ARGUMENT_SHIFT | Self::transmit(next_hop, is_control).0)
    }

    pub(super) const fn wrong_worker(worker: u8) -> Self {
        Self(WRONG_WORKER | (worker as u64) << ARGUMENT_SHIFT)
    }

    pub(super) const fn link_message(kind: Kind, from: Mark) -> Self {
        Self(PUNT_LINK_MESSAGE | (kind as u64) << ARGUMENT_SHIFT | from.0 as u64)
    }

    /// A drop of a frame that no next hop refused.
    #[inline]
    pub(super) const fn drop(discard: Discard) -> Self {
        Self(DROP | (discard as u64) << ARGUMENT_SHIFT)
    }

    /// A drop because the next hop refused the frame.
    #[inline]
    pub(super) const fn refused(discard: Discard, next_hop: Mark, is_control: bool) -> Self {
        Self(Self::drop(discard).0 | HAS_NEXT_HOP | Self::transmit(next_hop, is_control).0)
    }

    /// The next hop and the control flag, for a frame that is ready to be sent.
    #[inline]
    pub(super) fn as_transmit(self) -> Option<(Mark, bool)> {
        (self.0 & OUTCOME_MASK == TRANSMIT).then_some((self.mark(), self.is_control()))
    }

    /// The verdict as an enum.
    #[cold]
    pub(super) fn outcome(self) -> Outcome {
        let (mark, is_control) = (self.mark(), self.is_control());
        let argument = (self.0 >> ARGUMENT_SHIFT) as u8;
        match self.0 & OUTCOME_MASK {
            TRANSMIT => Outcome::Transmit { next_hop: mark, is_control },
            HANDOFF => Outcome::Handoff { worker: argument, next_hop: mark, is_control },
            WRONG_WORKER => Outcome::WrongWorker { worker: argument },
            PUNT_PACKET => Outcome::Punt(PuntReason::Packet),
            PUNT_LINK_MESSAGE => match Kind::from_number(argument) {
                Some(kind) => Outcome::Punt(PuntReason::LinkMessage { kind, from: mark }),
                None => Outcome::Drop {
                    discard: Discard::BadLinkKind,
                    next_hop: None,
                    is_control: false,
                },
            },
            PUNT_HANDSHAKE => Outcome::Punt(PuntReason::Handshake),
            CONSUMED => Outcome::Consumed,
            _ => {
                let discard = Discard::ALL.get(usize::from(argument)).copied();
                let next_hop = (self.0 & HAS_NEXT_HOP != 0).then_some(mark);
                Outcome::Drop {
                    discard: discard.unwrap_or(Discard::Unhandled),
                    next_hop,
                    is_control,
                }
            }
        }
    }

    #[inline]
    const fn mark(self) -> Mark {
        Mark(self.0 as u32)
    }

    #[inline]
    const fn is_control(self) -> bool {
        self.0 >> CONTROL_SHIFT & 1 == 1
    }
}

impl From<Discard> for Verdict {
    #[inline]
    fn from(discard: Discard) -> Self {
        Self::drop(discard)
    }
}

impl From<HeaderError> for Verdict {
    #[inline]
    fn from(error: HeaderError) -> Self {
        Self::drop(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_returns_its_content() {
        for next_hop in [Mark(0), Mark(7), Mark(u32::MAX)] {
            for is_control in [false, true] {
                let transmit = Verdict::transmit(next_hop, is_control);
                assert_eq!(transmit.as_transmit(), Some((next_hop, is_control)));
                assert_eq!(transmit.outcome(), Outcome::Transmit { next_hop, is_control });
                for worker in [0, 63, 255] {
                    let handoff = Verdict::handoff(worker, next_hop, is_control);
                    let expected = Outcome::Handoff { worker, next_hop, is_control };
                    assert_eq!(handoff.outcome(), expected);
                    assert_eq!(handoff.as_transmit(), None);
                    let wrong = Verdict::wrong_worker(worker);
                    assert_eq!(wrong.outcome(), Outcome::WrongWorker { worker });
                }
                for &discard in Discard::ALL {
                    let refused = Verdict::refused(discard, next_hop, is_control);
                    let expected = Outcome::Drop { discard, next_hop: Some(next_hop), is_control };
                    assert_eq!(refused.outcome(), expected);
                    assert_eq!(refused.as_transmit(), None);
                }
            }
            for kind in Kind::ALL {
                let outcome = Verdict::link_message(kind, next_hop).outcome();
                let expected = PuntReason::LinkMessage { kind, from: next_hop };
                assert_eq!(outcome, Outcome::Punt(expected));
            }
        }
        for &discard in Discard::ALL {
            let expected = Outcome::Drop { discard, next_hop: None, is_control: false };
            assert_eq!(Verdict::drop(discard).outcome(), expected);
        }
        assert_eq!(Verdict::PUNT_PACKET.outcome(), Outcome::Punt(PuntReason::Packet));
        assert_eq!(Verdict::PUNT_HANDSHAKE.outcome(), Outcome::Punt(PuntReason::Handshake));
        assert_eq!(Verdict::CONSUMED.outcome(), Outcome::Consumed);
        assert_eq!(Verdict::CONSUMED.as_transmit(), None);
    }
}
