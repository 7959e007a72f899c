//! Frames between workers: a ring from each to each other, for those whose exit or session another one
//! has. Data leaves places free for control (R12).

use std::{mem, sync::Arc};

use arrayvec::ArrayVec;
use strowger_frame::{
    BURST_MAX, Frame,
    ring::{Consumer, Producer, ring},
};

use crate::{
    discard::Discard,
    limits::EXCHANGE_CONTROL_FRAMES_MAX,
    orders::{Bell, Handover},
};

/// One worker's rings to and from every other.
#[derive(Default)]
pub(crate) struct Exchange {
    /// By worker; `None` for oneself.
    to: Vec<Option<Producer<Handover>>>,
    from: Vec<Consumer<Handover>>,
    bells: Vec<Option<Arc<dyn Bell>>>,
    /// Bit `w`: worker `w` was handed frames since its bell was last rung.
    given: u64,
}

impl Exchange {
    /// The rings between `count` workers (64 at most), by worker.
    pub(crate) fn between(count: usize, frames_max: usize) -> Vec<Self> {
        let mut all: Vec<Self> =
            (0..count).map(|_| Self { bells: vec![None; count], ..Self::default() }).collect();
        for from in 0..count {
            for to in 0..count {
                if from == to {
                    all[from].to.push(None);
                    continue;
                }
                let (producer, consumer) = ring(frames_max);
                all[from].to.push(Some(producer));
                all[to].from.push(consumer);
            }
        }
        all
    }

    /// Hands a frame to another worker.
    #[inline]
    pub(super) fn send(&mut self, home: u8, handover: Handover) -> Result<(), (Discard, Frame)> {
        let Some(Some(ring)) = self.to.get_mut(usize::from(home)) else {
            return Err((Discard::ExitGone, handover.into_frame()));
        };
        // Data leaves places free for control (R12).
        if !handover.is_control() && !ring.has_room(EXCHANGE_CONTROL_FRAMES_MAX + 1) {
            return Err((Discard::ExchangeFull, handover.into_frame()));
        }
        self.given |= 1 << home;
        ring.push(handover).map_err(|full| (Discard::ExchangeFull, full.into_frame()))
    }

    /// Wakes those who were handed frames since this was last called.
    pub(super) fn ring_bells(&mut self) {
        let mut given = mem::take(&mut self.given);
        while given != 0 {
            let worker = given.trailing_zeros() as usize;
            given &= given - 1;
            if let Some(Some(bell)) = self.bells.get(worker) {
                bell.ring();
            }
        }
    }

    /// How many workers there are rings from.
    pub(super) fn workers(&self) -> usize {
        self.from.len()
    }

    /// Takes what the `from`th of them has handed over.
    #[inline]
    pub(super) fn take(&mut self, from: usize, handovers: &mut ArrayVec<Handover, BURST_MAX>) {
        self.from[from].pop_burst(handovers);
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&mut self) -> bool {
        self.from.iter_mut().all(Consumer::is_empty)
    }

    /// What wakes the worker with this number.
    pub(super) fn set_bell(&mut self, number: usize, bell: Arc<dyn Bell>) {
        if let Some(place) = self.bells.get_mut(number) {
            *place = Some(bell);
        }
    }
}
