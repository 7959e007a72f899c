//! The report of one switch about a traced packet (W5-4).

use super::Reason;

/// The report of one switch on the path about a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopWord {
    /// The ingress slot of the packet.
    pub slot_in: u32,
    /// The egress slot of the packet; `None` if its label names none.
    pub slot_out: Option<u32>,
    /// The kind of node at the egress slot.
    pub behind: Behind,
    /// The reason to discard the packet; `None` if it would be forwarded or delivered.
    pub discard: Option<Reason>,
    /// Nanoseconds from the packet's arrival until the reply was written.
    pub held_ns: u64,
    /// The worker's clock at the packet's arrival, in nanoseconds. Only differences are meaningful;
    /// it is not a time of day.
    pub worker_ns: u64,
    /// The number of frames in the egress queue.
    pub queue_frames: u16,
    /// Bytes of the longest packet that the egress can send, with the link header, without the tag;
    /// 0 without an egress.
    pub packet_bytes_max: u16,
}

/// The kind of node at the egress slot of a traced packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behind {
    /// Nothing: the switch would discard the packet.
    Nothing = 0,
    /// Another switch.
    Neighbour = 1,
    /// An endpoint: the label ends there.
    Endpoint = 2,
    /// This switch: the label ends here.
    Switch = 3,
}

impl Behind {
    /// The name of this value in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Neighbour => "neighbour",
            Self::Endpoint => "endpoint",
            Self::Switch => "switch",
        }
    }

    /// The value with this number, if there is one.
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
