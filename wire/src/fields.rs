//! Reads fields from the front of received bytes, and writes fields to the front of a buffer.
//! Integers are big-endian.

/// A reader of fields; holds the bytes that have not been read yet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next `N` bytes; `None` if fewer are left.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    /// Takes the next `bytes` bytes; `None` if fewer are left.
    pub(crate) fn slice(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(field)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(|&[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(|field| u16::from_be_bytes(*field))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(|field| u32::from_be_bytes(*field))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(|field| u64::from_be_bytes(*field))
    }
}

/// A writer of fields; holds the rest of the buffer. A field that does not fit is not written at
/// all.
pub(crate) struct Writer<'a>(pub(crate) &'a mut [u8]);

impl<'a> Writer<'a> {
    /// Writes one field; `None` if it does not fit.
    pub(crate) fn put(self, field: &[u8]) -> Option<Writer<'a>> {
        let (place, rest) = self.0.split_at_mut_checked(field.len())?;
        place.copy_from_slice(field);
        Some(Writer(rest))
    }

    /// Writes `bytes` zeros; `None` if they do not fit.
    pub(crate) fn zeros(self, bytes: usize) -> Option<Writer<'a>> {
        let (place, rest) = self.0.split_at_mut_checked(bytes)?;
        place.fill(0);
        Some(Writer(rest))
    }
}
