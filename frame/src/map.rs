//! One memory mapping, in huge pages where possible. It is unmapped when its last user is dropped:
//! a pool, a chunk, a frame, or a holder of the `Arc`.

use std::{io, ptr::NonNull};

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The kind of pages that back a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved huge pages (`MAP_HUGETLB`).
    HugePages,
    /// Ordinary pages with transparent huge pages requested (`MADV_HUGEPAGE`).
    TransparentHugePages,
    /// As [`TransparentHugePages`](Self::TransparentHugePages). The system has reserved huge pages,
    /// but this process could not populate them. Usually a cgroup's limit forbids it.
    HugePagesRefused,
    /// Ordinary pages. Huge pages were refused or not requested, or the mapping is shorter than a
    /// huge page.
    SmallPages,
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HugePages => "huge pages",
            Self::TransparentHugePages => "transparent huge pages (none reserved: vm.nr_hugepages)",
            Self::HugePagesRefused => {
                "transparent huge pages (the reserved ones may not be used: the cgroup's hugetlb limit)"
            }
            Self::SmallPages => "small pages",
        })
    }
}

/// A private anonymous mapping. Dropping it unmaps it.
#[derive(Debug)]
pub struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
    backing: Backing,
}

// SAFETY: the mapping is plain memory; the pool decides which byte belongs to which owner.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` never reads or writes the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes`, rounded up to whole pages. The memory is zeroed.
    ///
    /// `huge` requests huge pages. If they are refused, the mapping has ordinary pages, without an
    /// error.
    ///
    /// # Errors
    /// Returns the kernel's error if it refuses ordinary pages too.
    pub fn new(bytes: usize, huge: bool) -> io::Result<Self> {
        let huge = if huge { Some(Self::huge(bytes, libc::MAP_HUGETLB, populate)) } else { None };
        let is_refused = match huge {
            Some(Ok(mapping)) => return Ok(mapping),
            Some(Err(is_refused)) => Some(is_refused),
            None => None,
        };
        let rounded = bytes.max(1).next_multiple_of(4096);
        let mut mapping =
            Self { at: map(rounded, 0)?, bytes: rounded, backing: Backing::SmallPages };
        if let Some(is_refused) = is_refused
            && rounded >= HUGE_PAGE_BYTES
        {
            let at = mapping.at.as_ptr().cast();
            // SAFETY: this function just mapped the range; MADV_HUGEPAGE changes no contents.
            let result = unsafe { libc::madvise(at, rounded, libc::MADV_HUGEPAGE) };
            mapping.backing = match (result, is_refused) {
                (_, true) => Backing::HugePagesRefused,
                (0, false) => Backing::TransparentHugePages,
                (_, false) => Backing::SmallPages,
            };
        }
        Ok(mapping)
    }

    /// Maps huge pages and populates them all.
    ///
    /// Populating tests whether this process may use the pages. If a cgroup's limit forbids that,
    /// `mmap` succeeds nevertheless, and the kernel kills the process at the first access (SIGBUS).
    /// The error value is `true` if the pages were mapped but could not be populated.
    fn huge(
        bytes: usize,
        flag: i32,
        populate: impl FnOnce(&Self) -> io::Result<()>,
    ) -> Result<Self, bool> {
        let bytes = bytes.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let at = map(bytes, flag).map_err(|_| false)?;
        let mapping = Self { at, bytes, backing: Backing::HugePages };
        populate(&mapping).map_err(|_| true)?;
        Ok(mapping)
    }

    /// The start of the mapping, which is page-aligned.
    pub fn at(&self) -> NonNull<u8> {
        self.at
    }

    /// The length of the mapping, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset in this mapping of the `len` bytes from `at`. `None` if not all of them are in
    /// the mapping.
    ///
    /// This compares addresses and reads no memory.
    #[inline]
    pub fn offset_of(&self, at: *const u8, len: usize) -> Option<usize> {
        let offset = at.addr().checked_sub(self.at.as_ptr().addr())?;
        let left = self.bytes.checked_sub(offset)?;
        (len <= left).then_some(offset)
    }

    /// The kind of pages.
    pub fn backing(&self) -> Backing {
        self.backing
    }
}

/// Populates every page, or returns the kernel's error. `MADV_POPULATE_WRITE` needs Linux 5.14;
/// earlier kernels return an error.
fn populate(mapping: &Mapping) -> io::Result<()> {
    const MADV_POPULATE_WRITE: i32 = 23;
    let at = mapping.at.as_ptr().cast();
    // SAFETY: the range is exactly the mapping; the call touches the pages and changes no contents.
    let result = unsafe { libc::madvise(at, mapping.bytes, MADV_POPULATE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn map(bytes: usize, more: i32) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: an anonymous mapping at an address that the kernel chooses touches no existing
    // memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("the kernel mapped the null page"))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping, and is unmapped once; the pool keeps the
        // mapping until the last chunk is back.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn refused_huge_pages_are_unmapped_and_reported() {
        // Simulates huge pages that the kernel mapped; they are ordinary pages here.
        let refuse = |mapping: &Mapping| {
            assert_eq!(mapping.bytes() % HUGE_PAGE_BYTES, 0);
            Err(io::Error::from_raw_os_error(libc::EFAULT))
        };
        assert!(matches!(Mapping::huge(5000, 0, refuse), Err(true)));
        let mapping = Mapping::huge(5000, 0, populate).expect("memory");
        assert_eq!((mapping.bytes(), mapping.backing()), (HUGE_PAGE_BYTES, Backing::HugePages));
        // Invalid flags: the kernel maps nothing.
        assert!(matches!(Mapping::huge(5000, -1, populate), Err(false)));
    }

    #[test]
    fn a_mapping_succeeds_with_or_without_huge_pages() {
        let mapping = Mapping::new(3 * HUGE_PAGE_BYTES, true).expect("memory");
        let at = mapping.at().as_ptr();
        for page in (0..mapping.bytes()).step_by(4096) {
            // SAFETY: inside the mapping, which this test owns.
            let byte = unsafe { at.add(page) };
            // SAFETY: as above; no other reference exists.
            unsafe { byte.write(1) };
        }
    }

    #[test]
    fn an_offset_exists_only_for_bytes_inside() {
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
