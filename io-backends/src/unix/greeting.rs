//! The greeting of the second form, which describes a switch to a process on a slot.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use arrayvec::ArrayVec;

use super::{
    limits::SCHEME_BYTES_MAX,
    message::{HEADER_BYTES, HEADER_SECOND, VERSION},
};

/// Maximum length of a greeting, in bytes.
pub(super) const GREETING_BYTES_MAX: usize = HEADER_BYTES + FIXED_BYTES + SCHEME_BYTES_MAX;
/// Version 1, longest packet 2, slot 4, length of the scheme 1, identity 32.
const FIXED_BYTES: usize = 8 + IDENTITY_BYTES;
const IDENTITY_BYTES: usize = 32;

/// The description of a switch for a process on a slot (wire.md W8-43).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The version of the form that the switch uses from now on.
    pub version: u8,
    /// Maximum length of a packet in both directions, in bytes.
    pub packet_bytes_max: u16,
    /// The number of the slot that the process is on. 0 if the port is on no slot at the moment.
    pub slot: u32,
    /// The scheme of the switch, serialised (wire.md W1.1-7).
    pub scheme: ArrayVec<u8, SCHEME_BYTES_MAX>,
    /// The identity of the switch: the Ed25519 key that it proves on sealed links. Zeros if it has
    /// none.
    pub identity: [u8; IDENTITY_BYTES],
}

impl Greeting {
    /// Writes the message.
    pub fn emit(&self) -> ArrayVec<u8, GREETING_BYTES_MAX> {
        let mut out = ArrayVec::new();
        out.extend(HEADER_SECOND);
        out.push(self.version);
        out.extend(self.packet_bytes_max.to_be_bytes());
        out.extend(self.slot.to_be_bytes());
        out.push(self.scheme.len() as u8);
        out.extend(self.scheme.iter().copied());
        out.extend(self.identity);
        out
    }

    /// Reads a message. Returns `None` if it is no greeting of version 2: it has another version,
    /// its lengths disagree, or its longest packet has no bytes. The scheme is not parsed.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let rest = message.strip_prefix(&HEADER_SECOND)?;
        let (&version, rest) = rest.split_first()?;
        let (longest, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (&length, rest) = rest.split_first()?;
        let (scheme, rest) = rest.split_at_checked(usize::from(length))?;
        let identity = rest.try_into().ok()?;
        let scheme = ArrayVec::try_from(scheme).ok()?;
        let packet_bytes_max = u16::from_be_bytes(*longest);
        (version == VERSION && packet_bytes_max > 0).then_some(Self {
            version,
            packet_bytes_max,
            slot: u32::from_be_bytes(*slot),
            scheme,
            identity,
        })
    }
}

/// The facts about a switch that a port needs to greet a client. The owner of the switch keeps it
/// up to date, from any thread.
#[derive(Debug)]
pub struct SwitchFacts {
    slot: AtomicU32,
    scheme: Mutex<ArrayVec<u8, SCHEME_BYTES_MAX>>,
    identity: [u8; IDENTITY_BYTES],
}

impl SwitchFacts {
    /// Facts about a switch with this identity, without a slot and with an empty scheme. The
    /// identity is zeros if the switch has none.
    pub fn new(identity: [u8; IDENTITY_BYTES]) -> Self {
        Self { slot: AtomicU32::new(0), scheme: Mutex::default(), identity }
    }

    /// Sets the number of the port's slot. 0 means that it has none.
    pub fn set_slot(&self, slot: u32) {
        // Relaxed: no other data depends on the number.
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Sets the scheme, serialised. A scheme longer than a greeting can carry is not stored.
    pub fn set_scheme(&self, serialized: &[u8]) {
        if let Ok(scheme) = ArrayVec::try_from(serialized) {
            *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = scheme;
        }
    }

    /// The greeting of a port that carries packets of up to `packet_bytes_max` bytes.
    pub(super) fn greeting(&self, packet_bytes_max: usize) -> Greeting {
        Greeting {
            version: VERSION,
            packet_bytes_max: packet_bytes_max.min(usize::from(u16::MAX)) as u16,
            slot: self.slot.load(Ordering::Relaxed),
            // The lock is held only while at most 255 bytes are copied.
            scheme: self.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            identity: self.identity,
        }
    }
}
