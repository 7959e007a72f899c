//! One mapping of memory: huge pages where they can be had, ordinary ones where not. It is never
//! grown, and never given back before the last chunk of it is.

use std::{io, ptr::NonNull};

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What the mapping stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved huge pages (`MAP_HUGETLB`).
    HugePages,
    /// Ordinary pages for which transparent huge pages were asked (`MADV_HUGEPAGE`).
    TransparentHugePages,
    /// Ordinary pages: huge ones were refused or not wanted.
    SmallPages,
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HugePages => "huge pages",
            Self::TransparentHugePages => "transparent huge pages (none reserved: vm.nr_hugepages)",
            Self::SmallPages => "small pages",
        })
    }
}

/// A private anonymous mapping, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
    backing: Backing,
}

// SAFETY: the mapping is plain memory; who may touch which byte is the pool's business.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` itself never reads or writes the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `bytes` (rounded up to a page), zeroed. `huge` asks for huge pages and falls
    /// back without error.
    ///
    /// # Errors
    /// The kernel's, when not even small pages are to be had.
    pub fn new(bytes: usize, huge: bool) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if huge {
            let rounded = bytes.max(1).next_multiple_of(HUGE_PAGE_BYTES);
            if let Ok(at) = map(rounded, flags | libc::MAP_HUGETLB) {
                return Ok(Self { at, bytes: rounded, backing: Backing::HugePages });
            }
        }
        let rounded = bytes.max(1).next_multiple_of(4096);
        let at = map(rounded, flags)?;
        let mut backing = Backing::SmallPages;
        if huge && rounded >= HUGE_PAGE_BYTES {
            // SAFETY: the range was just mapped by us; MADV_HUGEPAGE changes no contents.
            let told = unsafe { libc::madvise(at.as_ptr().cast(), rounded, libc::MADV_HUGEPAGE) };
            if told == 0 {
                backing = Backing::TransparentHugePages;
            }
        }
        Ok(Self { at, bytes: rounded, backing })
    }

    /// Where the mapping begins; page-aligned.
    pub fn at(&self) -> NonNull<u8> {
        self.at
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where `len` bytes from `at` on lie in this mapping, from its beginning; `None` if not all of
    /// them lie in it. Compares addresses, and reads nothing.
    #[inline]
    pub fn offset_of(&self, at: *const u8, len: usize) -> Option<usize> {
        let offset = at.addr().checked_sub(self.at.as_ptr().addr())?;
        let left = self.bytes.checked_sub(offset)?;
        (len <= left).then_some(offset)
    }

    /// What it stands on.
    pub fn backing(&self) -> Backing {
        self.backing
    }
}

fn map(bytes: usize, flags: i32) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("the kernel mapped the null page"))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped, unmapped once; the pool holds the mapping
        // until the last chunk is back.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_found_for_what_lies_inside_alone() {
        let mapping = Mapping::new(8192, false).expect("memory");
        let at = mapping.at().as_ptr().cast_const();
        assert_eq!(mapping.offset_of(at, 8192), Some(0));
        assert_eq!(mapping.offset_of(at.wrapping_add(100), 8092), Some(100));
        assert_eq!(mapping.offset_of(at.wrapping_add(100), 8093), None);
        assert_eq!(mapping.offset_of(at.wrapping_add(8192), 0), Some(8192));
        assert_eq!(mapping.offset_of(at.wrapping_add(8193), 0), None);
        assert_eq!(mapping.offset_of(at.wrapping_sub(1), 1), None);
    }
}
