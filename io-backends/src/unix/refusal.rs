//! The reason why a switch with several processes on one socket refuses another process (wire.md
//! 8.3).

use std::{fmt, time::Duration};

use super::{
    limits::REFUSAL_TEXT_BYTES_MAX,
    message::{HEADER_BYTES, HEADER_REFUSAL},
};

/// Code 1, seconds 4.
const FIXED_BYTES: usize = 5;
/// Maximum length of the message, in bytes.
pub(super) const REFUSAL_BYTES_MAX: usize = HEADER_BYTES + FIXED_BYTES + REFUSAL_TEXT_BYTES_MAX;

/// The reason why a switch refused a process, as received by the process (wire.md W8-54).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRefusal {
    /// The reason as a number.
    pub code: u8,
    /// The time after which the process may succeed. Zero if the switch does not know it.
    pub retry_after: Duration,
    /// One sentence with the remedy.
    pub text: String,
}

impl ClientRefusal {
    /// Code: the socket serves its maximum number of processes.
    pub const ALL_SERVED: u8 = 1;
    /// Code: the slot numbers of processes that have disconnected are still in quarantine.
    pub const QUARANTINE: u8 = 2;
    /// Code: the switch has no slot for the process.
    pub const NO_SLOT: u8 = 3;

    /// Writes the message. Cuts a text that is too long.
    pub fn emit(&self) -> Vec<u8> {
        let mut end = self.text.len().min(REFUSAL_TEXT_BYTES_MAX);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let seconds = self.retry_after.as_nanos().div_ceil(1_000_000_000);
        let mut out = HEADER_REFUSAL.to_vec();
        out.push(self.code);
        out.extend(u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(&self.text.as_bytes()[..end]);
        out
    }

    /// Reads a message. Returns `None` if the message is no refusal. Bytes of the text that are not
    /// UTF-8, and control characters, are replaced.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let rest = message.strip_prefix(&HEADER_REFUSAL)?;
        let (&code, rest) = rest.split_first()?;
        let (seconds, text) = rest.split_first_chunk()?;
        if text.len() > REFUSAL_TEXT_BYTES_MAX {
            return None;
        }
        let text = String::from_utf8_lossy(text);
        Some(Self {
            code,
            retry_after: Duration::from_secs(u32::from_be_bytes(*seconds).into()),
            text: text.replace(char::is_control, "\u{fffd}"),
        })
    }
}

impl fmt::Display for ClientRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the switch refuses this client: {}", self.text)?;
        match self.retry_after.as_secs() {
            0 => Ok(()),
            seconds => write!(f, "; try again in {seconds} s"),
        }
    }
}
