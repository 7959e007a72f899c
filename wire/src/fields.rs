//! Fields off the front of received bytes, and onto the front of bytes to send. Integers are
//! big-endian.

/// The remaining bytes.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `N` bytes; `None` where fewer are left.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    /// The next `bytes` bytes; `None` where fewer are left.
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

/// The room that is left to write. A field that does not fit is not written in part.
pub(crate) struct Writer<'a>(pub(crate) &'a mut [u8]);

impl<'a> Writer<'a> {
    /// Writes one field; `None` where it does not fit.
    pub(crate) fn put(self, field: &[u8]) -> Option<Writer<'a>> {
        let (place, rest) = self.0.split_at_mut_checked(field.len())?;
        place.copy_from_slice(field);
        Some(Writer(rest))
    }

    /// Writes `bytes` zeros; `None` where they do not fit.
    pub(crate) fn zeros(self, bytes: usize) -> Option<Writer<'a>> {
        let (place, rest) = self.0.split_at_mut_checked(bytes)?;
        place.fill(0);
        Some(Writer(rest))
    }
}
