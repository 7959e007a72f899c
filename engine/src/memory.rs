//! The number of chunks that a switch needs for itself, as a sum of named needs. The needs of ports
//! are added to this sum.

use strowger_frame::{BURST_MAX, reserve::Chunks};

use crate::limits::{
    COMMANDS_MAX, EGRESS_CONTROL_FRAMES_MAX, EGRESS_FRAMES_MAX, EGRESS_LINK_FRAMES_MAX,
    FRAMES_WAITING_MAX, HANDOFF_FRAMES_MAX, HANDSHAKES_MAX, LINK_MESSAGES_MAX, PUNTS_MAX,
};

/// The maximum number of frames in one egress queue.
pub(crate) const EGRESS_QUEUE_FRAMES: u32 =
    (EGRESS_FRAMES_MAX + EGRESS_CONTROL_FRAMES_MAX + EGRESS_LINK_FRAMES_MAX) as u32;
/// The number of chunks for frames in egress queues of busy ports, in addition to those for times
/// when free chunks run low: two bursts.
pub const EGRESS_WAITING: u32 = 2 * BURST_MAX as u32;
/// The number of frames for neighbours on shared ports that may stay queued when free chunks run
/// low: four bursts in single chunks, and one burst of longer frames.
const EGRESS_SETTLED: Chunks = Chunks { trains: BURST_MAX as u32, singles: 4 * BURST_MAX as u32 };
/// The number of path challenges that need a train chunk and wait for the kernel. If no chunk is
/// free, the challenge is sent again later.
const LONG_CHALLENGES: u32 = 4;
/// The number of frames that a worker makes for the slow path and that wait for the kernel: twice
/// the number of commands that can wait for the worker.
const MADE_FRAMES: u32 = 2 * COMMANDS_MAX as u32;

/// The properties of a switch that determine the number of chunks that it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchShape {
    /// The number of workers.
    pub workers: usize,
    /// Whether the switch has an identity, and therefore sealed links.
    pub is_sealed: bool,
    /// The maximum number of endpoints that have a separate port on one worker, by the chunk class
    /// of their longest frame.
    pub endpoints: Chunks,
}

/// One use of a worker's pool, with the number of chunks that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchNeed {
    /// The use of the chunks.
    pub what: &'static str,
    /// The number of chunks.
    pub chunks: Chunks,
}

impl SwitchShape {
    /// The needs of one worker's pool, excluding those of its ports.
    ///
    /// Each worker's pool has an equal part of the chunks for a queue that all workers share. If a
    /// worker has more frames in the queue than this part, they use other free chunks of its pool.
    pub fn needs(self) -> Vec<SwitchNeed> {
        let part_of = |queued: usize| queued.div_ceil(self.workers.max(1)) as u32;
        let trains = |trains| Chunks { trains, singles: 0 };
        let mut needs = Vec::new();
        let mut need = |what, chunks| needs.push(SwitchNeed { what, chunks });
        need("a burst being switched", trains(BURST_MAX as u32));
        need("frames in egress queues", trains(EGRESS_WAITING));
        need("frames in egress queues when memory runs low", self.egress_when_low());
        let others = self.workers.saturating_sub(1);
        need("frames handed to other workers", trains((others * HANDOFF_FRAMES_MAX) as u32));
        need("frames for the switch itself", trains(part_of(PUNTS_MAX)));
        if self.is_sealed {
            need("path challenges and answers that wait", trains(part_of(LINK_MESSAGES_MAX)));
            // There is one queue for messages from addresses of links, and one for messages from
            // other addresses.
            need("handshakes that wait", trains(part_of(2 * HANDSHAKES_MAX)));
            need("handshakes and probes to send", Chunks { trains: 0, singles: MADE_FRAMES });
            need("long path challenges", trains(LONG_CHALLENGES));
            need("frames that wait for the keys of idle links", trains(FRAMES_WAITING_MAX as u32));
        }
        needs.retain(|need| need.chunks != Chunks::default());
        needs
    }

    /// The chunks for frames in egress queues when free chunks run low. The pool reserves them for
    /// [`PoolUser::WAITING`](strowger_frame::reserve::PoolUser::WAITING).
    pub fn egress_when_low(self) -> Chunks {
        let Chunks { trains: long, singles: short } = self.endpoints;
        Chunks {
            trains: EGRESS_SETTLED.trains + long * EGRESS_QUEUE_FRAMES,
            singles: EGRESS_SETTLED.singles + (long + short) * EGRESS_QUEUE_FRAMES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::PuntQueues;

    #[test]
    fn each_queue_that_holds_frames_for_the_slow_path_has_its_need() {
        let queues = PuntQueues::new();
        // Drop notices and notes hold no frames.
        let queued = queues.packets.capacity()
            + queues.link_messages.capacity()
            + queues.handshakes.capacity()
            + queues.unknown_peers.capacity();
        let of = |is_sealed| {
            let shape = SwitchShape { workers: 1, is_sealed, ..SwitchShape::default() };
            shape.needs().iter().map(|need| need.chunks.trains as usize).sum::<usize>()
        };
        let not_queued = LONG_CHALLENGES as usize + FRAMES_WAITING_MAX;
        assert_eq!(of(true) - of(false), queued - PUNTS_MAX + not_queued);
    }

    #[test]
    fn shared_queues_are_divided_and_rings_to_other_workers_are_not() {
        let trains = |workers, what: &str| {
            let needs = SwitchShape { workers, ..SwitchShape::default() }.needs();
            needs.iter().find(|need| need.what == what).map(|need| need.chunks.trains)
        };
        assert_eq!(trains(3, "frames for the switch itself"), Some(PUNTS_MAX.div_ceil(3) as u32));
        let handed = "frames handed to other workers";
        assert_eq!(trains(1, handed), None);
        assert_eq!(trains(3, handed), Some(2 * HANDOFF_FRAMES_MAX as u32));
    }
}
