//! Received messages.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use arrayvec::ArrayVec;
use strowger_connection::MessageInfo;
use strowger_crypto::PeerId;
use strowger_frame::{BURST_MAX, Frame};
use strowger_wire::switch_header::Ecn;

/// Counts, by its references, the messages of a socket that the program holds.
#[derive(Debug, Default)]
pub(crate) struct Hold;

/// A received message, in the frame in which it arrived. Dropping it returns the memory.
///
/// A program that keeps many messages should copy them (`to_vec`) and drop the originals: see
/// [`NodeBuilder::hold_max`](crate::NodeBuilder::hold_max).
pub struct Message {
    pub(crate) frame: Frame,
    pub(crate) info: MessageInfo,
    pub(crate) from: PeerId,
    pub(crate) _hold: Arc<Hold>,
}

impl Message {
    /// The peer that sealed the message.
    pub fn from(&self) -> PeerId {
        self.from
    }

    /// The congestion mark with which the packet arrived.
    pub fn ecn(&self) -> Ecn {
        self.info.ecn()
    }

    /// Whether the message came in a handshake message. A relay may have recorded it and delivered
    /// a copy to an earlier or later process of this node, so it must be idempotent.
    pub fn is_early(&self) -> bool {
        self.info.is_early()
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.frame.bytes()
    }
}

impl DerefMut for Message {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.frame.bytes_mut()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("from", &self.from)
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

/// Up to 64 messages, in the order of their arrival.
pub type Messages = ArrayVec<Message, BURST_MAX>;
