//! The file transfer of `strowger send --file` and `strowger receive --file`: a file over messages
//! that may be lost, repeated and reordered. docs/connections.md specifies its messages.
//!
//! [`Sender`] and [`Receiver`] do no I/O: messages and the time since the start are arguments.

mod message;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use self::{message::refusal_of, receiver::Receiver, sender::Sender};

/// The outcome of a transfer at the receiver: the code of a `result` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All bytes are written, and their hash is that of the sender.
    Complete = 0,
    /// Length or hash of the bytes differ from those that the sender stated.
    Differs = 1,
    /// The receiver cannot write the file.
    NotWritten = 2,
    /// The receiver prints lines and accepts no file.
    NoFile = 3,
}

impl Verdict {
    /// The verdict with this code.
    pub(crate) fn of_code(code: u8) -> Option<Verdict> {
        [Verdict::Complete, Verdict::Differs, Verdict::NotWritten, Verdict::NoFile]
            .into_iter()
            .find(|verdict| *verdict as u8 == code)
    }
}

/// The reason why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransferError {
    /// The peer sent nothing for [`TRANSFER_SILENCE`](crate::limits::TRANSFER_SILENCE).
    Silence,
    /// The path delivers no message that is long enough.
    TooNarrow,
    /// The receiver refused the file, received wrong bytes, or could not write them.
    Refused(Verdict),
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransferError::Silence => {
                "the peer does not answer in the file transfer; does it run `strowger receive --file`?"
            }
            TransferError::TooNarrow => "the path takes no message that holds a block of a file",
            TransferError::Refused(Verdict::Differs) => {
                "the bytes that arrived have another hash: the file was not written; send it again"
            }
            TransferError::Refused(Verdict::NotWritten) => "the peer cannot write the file",
            TransferError::Refused(Verdict::NoFile) => {
                "the peer receives lines and no file: it needs `strowger receive --file`"
            }
            TransferError::Refused(Verdict::Complete) => "the peer has the file",
        })
    }
}
