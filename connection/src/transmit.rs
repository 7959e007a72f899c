//! A packet of the control part, to be sent.

use core::ops::Deref;

/// A packet to hand to the port, complete with switch header. The caller copies it into a frame of
/// the port.
#[derive(Debug)]
pub struct Transmit<'a> {
    pub(crate) packet: &'a [u8],
}

impl Deref for Transmit<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.packet
    }
}
