//! What one hop says of a traced packet (W5-4).

use super::Reason;

/// What one hop says of a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopWord {
    /// The slot that it came in by.
    pub slot_in: u32,
    /// The slot that it leaves by, where its label names one.
    pub slot_out: Option<u32>,
    /// What stands there.
    pub behind: Behind,
    /// Why it would go no further.
    pub discard: Option<Reason>,
    /// From its arrival until the answer was made.
    pub held_ns: u64,
    /// The worker's time when it came in: for differences, not a time of day.
    pub worker_ns: u64,
    /// Frames that waited at the exit.
    pub queue_frames: u16,
    /// Bytes of the longest packet that the exit takes, link header included and tag not; 0 if there
    /// is no exit.
    pub packet_bytes_max: u16,
}

/// What a traced packet would meet behind this switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behind {
    /// Nothing: it ends in a discard.
    Nothing = 0,
    /// Another switch.
    Neighbour = 1,
    /// An endpoint: the label ends there.
    Endpoint = 2,
    /// This switch: the label ends here.
    Switch = 3,
}

impl Behind {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Neighbour => "neighbour",
            Self::Endpoint => "endpoint",
            Self::Switch => "switch",
        }
    }

    /// What this number stands for, if anything.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Nothing),
            1 => Some(Self::Neighbour),
            2 => Some(Self::Endpoint),
            3 => Some(Self::Switch),
            _ => None,
        }
    }
}
