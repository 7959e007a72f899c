//! AF_XDP sockets, with one function for each system call, and the four mapped rings.
//!
//! These functions do not retry. The caller handles the errno.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU32},
};

use strowger_frame::map::Mapping;

use super::{
    limits::{COMPLETION_RING, RX_RING, TX_RING, UMEM_CHUNK_BYTES},
    ring::{Collect, Place, Submit},
};

/// An item of the receive and transmit rings.
pub(super) type Descriptor = libc::xdp_desc;

// The layout of the kernel's structures on which this module relies.
const _: () = assert!(mem::size_of::<Descriptor>() == 16);
const _: () = assert!(mem::offset_of!(Descriptor, len) == 8);
const _: () = assert!(mem::offset_of!(Descriptor, options) == 12);
const _: () = assert!(mem::size_of::<libc::sockaddr_xdp>() == 16);
const _: () = assert!(mem::size_of::<libc::xdp_ring_offset>() == 32);
const _: () = assert!(mem::size_of::<libc::xdp_mmap_offsets>() == 128);
const _: () = assert!(mem::size_of::<libc::xdp_umem_reg>() == 32);
const _: () = assert!(mem::size_of::<libc::xdp_statistics>() == 48);

/// The errno of the call that just failed.
pub(crate) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// An AF_XDP socket. It is reference-counted, so that other sockets can share its UMEM.
#[derive(Clone, Debug)]
pub(super) struct Socket(pub(super) Arc<OwnedFd>);

/// One mapped ring.
#[derive(Debug)]
pub(super) struct Shared<T> {
    at: NonNull<u8>,
    bytes: usize,
    size: u32,
    offsets: Offsets,
    items: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy, Debug)]
struct Offsets {
    producer: usize,
    consumer: usize,
    flags: usize,
    items: usize,
}

// SAFETY: only the kernel shares the mapping; each ring has one owner in this process and moves
// with it.
unsafe impl<T: Send> Send for Shared<T> {}

/// All four rings, and the memory that their items point into.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) mapping: Arc<Mapping>,
    pub(super) rx: Collect<Shared<Descriptor>>,
    pub(super) tx: Submit<Shared<Descriptor>>,
    pub(super) fill: Submit<Shared<u64>>,
    pub(super) completion: Collect<Shared<u64>>,
}

impl Socket {
    pub(super) fn new() -> Result<Self, i32> {
        // SAFETY: the call takes and returns only numbers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(errno());
        }
        // SAFETY: the kernel has just returned this descriptor, and only we have it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> Result<(), i32> {
        let len = mem::size_of::<T>() as libc::socklen_t;
        let at = std::ptr::from_ref(value).cast();
        // SAFETY: `at` points to `len` bytes that outlive the call.
        let set = unsafe { libc::setsockopt(self.fd(), level, option, at, len) };
        if set < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Reads into `value`. Fields that an older kernel does not write keep their value.
    fn read<T>(&self, level: i32, option: i32, value: &mut T) -> Result<(), i32> {
        let mut len = mem::size_of::<T>() as libc::socklen_t;
        let at = std::ptr::from_mut(value).cast();
        // SAFETY: `at` points to `len` bytes to be written, and both outlive the call.
        let read = unsafe { libc::getsockopt(self.fd(), level, option, at, &mut len) };
        if read < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Registers the mapping as UMEM: the kernel pins it, receives into it and sends from it.
    pub(super) fn register(&self, mapping: &Mapping) -> Result<(), i32> {
        let register = libc::xdp_umem_reg {
            addr: mapping.at().as_ptr().addr() as u64,
            len: mapping.bytes() as u64,
            chunk_size: UMEM_CHUNK_BYTES as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &register)
    }

    /// Sets the sizes of the rings and maps them.
    pub(super) fn rings(
        &self,
        mapping: &Arc<Mapping>,
        fill_size: u32,
    ) -> Result<Rings, (&'static str, i32)> {
        let at = |step| move |errno| (step, errno);
        let sizes = [
            (libc::XDP_UMEM_FILL_RING, fill_size, "XDP_UMEM_FILL_RING"),
            (libc::XDP_UMEM_COMPLETION_RING, COMPLETION_RING, "XDP_UMEM_COMPLETION_RING"),
            (libc::XDP_RX_RING, RX_RING, "XDP_RX_RING"),
            (libc::XDP_TX_RING, TX_RING, "XDP_TX_RING"),
        ];
        for (option, size, step) in sizes {
            self.set(libc::SOL_XDP, option, &size).map_err(at(step))?;
        }
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
        self.read(libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)
            .map_err(at("XDP_MMAP_OFFSETS"))?;
        let map = at("mmap of a ring");
        Ok(Rings {
            mapping: mapping.clone(),
            rx: Collect::new(
                self.map(RX_RING, &offsets.rx, libc::XDP_PGOFF_RX_RING as _).map_err(map)?,
            ),
            tx: Submit::new(
                self.map(TX_RING, &offsets.tx, libc::XDP_PGOFF_TX_RING as _).map_err(map)?,
            ),
            fill: Submit::new(
                self.map(fill_size, &offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING as _)
                    .map_err(map)?,
            ),
            completion: Collect::new(
                self.map(COMPLETION_RING, &offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as _)
                    .map_err(map)?,
            ),
        })
    }

    fn map<T>(
        &self,
        size: u32,
        offsets: &libc::xdp_ring_offset,
        page: libc::off_t,
    ) -> Result<Shared<T>, i32> {
        let bytes = offsets.desc as usize + size as usize * mem::size_of::<T>();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let any = std::ptr::null_mut();
        // SAFETY: the kernel chooses an address that is not in use.
        let at = unsafe { libc::mmap(any, bytes, protection, flags, self.fd(), page) };
        if at == libc::MAP_FAILED {
            return Err(errno());
        }
        let at = NonNull::new(at.cast()).ok_or(libc::EFAULT)?;
        let offsets = Offsets {
            producer: offsets.producer as usize,
            consumer: offsets.consumer as usize,
            flags: offsets.flags as usize,
            items: offsets.desc as usize,
        };
        let shared = Shared { at, bytes, size, offsets, items: std::marker::PhantomData };
        let indices = [offsets.producer, offsets.consumer, offsets.flags];
        let fit = indices.iter().all(|at| at.is_multiple_of(4) && at + 4 <= bytes);
        // The offsets come from the kernel. Later accesses rely on these checks only.
        if fit && offsets.items.is_multiple_of(8) { Ok(shared) } else { Err(libc::EPROTO) }
    }

    /// Binds to a queue. With `share`, the socket uses the UMEM and the flags of that socket.
    pub(super) fn bind(
        &self,
        interface: u32,
        queue: u32,
        flags: u16,
        share: Option<RawFd>,
    ) -> Result<(), i32> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            // The kernel refuses other flags in addition to this one.
            sxdp_flags: if share.is_some() { libc::XDP_SHARED_UMEM } else { flags },
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: share.unwrap_or_default() as u32,
        };
        let len = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address has `len` bytes and outlives the call.
        let bound = unsafe { libc::bind(self.fd(), (&raw const address).cast(), len) };
        if bound < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Whether the kernel has bound the socket in zero-copy mode.
    pub(super) fn is_zero_copy(&self) -> Result<bool, i32> {
        let mut options = libc::xdp_options { flags: 0 };
        self.read(libc::SOL_XDP, libc::XDP_OPTIONS, &mut options)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// The kernel's counters since the socket was made.
    pub(super) fn statistics(&self) -> Result<libc::xdp_statistics, i32> {
        // SAFETY: all fields are numbers, for which zero is a valid value.
        let mut statistics: libc::xdp_statistics = unsafe { mem::zeroed() };
        self.read(libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
        Ok(statistics)
    }

    /// Sets the send buffer, to which the kernel charges frames in copy mode.
    pub(super) fn set_send_buffer(&self, bytes: i32) {
        if self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
            // An error is ignored, because flushing works with any size.
            let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
        }
    }

    /// Reads and clears the socket's pending error. It is `ENETDOWN` if the interface is gone.
    pub(super) fn take_error(&self) -> Option<i32> {
        let mut error = 0_i32;
        self.read(libc::SOL_SOCKET, libc::SO_ERROR, &mut error).ok()?;
        (error != 0).then_some(error)
    }

    /// Makes the kernel process the transmit ring.
    #[inline]
    pub(super) fn kick_tx(&self) -> Result<(), i32> {
        let nothing = std::ptr::null();
        // SAFETY: no bytes and no address are passed.
        let sent =
            unsafe { libc::sendto(self.fd(), nothing, 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if sent < 0 { Err(errno()) } else { Ok(()) }
    }

    /// Makes the kernel process the fill ring.
    pub(super) fn kick_rx(&self) {
        let (nothing, nobody) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: no bytes and no address are passed. The next send or `take_error` finds an error.
        unsafe {
            let len = std::ptr::null_mut();
            libc::recvfrom(self.fd(), nothing, 0, libc::MSG_DONTWAIT, nobody, len)
        };
    }
}

impl<T> Shared<T> {
    #[inline]
    fn index(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `map` has checked that the four bytes lie in the mapping.
        let at = unsafe { self.at.add(offset) };
        // SAFETY: the index is aligned, as `map` has checked, and alive as long as `self`; both
        // sides use it as an atomic.
        unsafe { at.cast().as_ref() }
    }

    #[inline]
    fn item(&self, index: u32) -> NonNull<T> {
        let place = (index & (self.size - 1)) as usize;
        // SAFETY: `map` has mapped room for `size` items from this offset on.
        let items = unsafe { self.at.add(self.offsets.items) };
        // SAFETY: the mask keeps `place` below `size`, a power of two.
        unsafe { items.cast::<T>().add(place) }
    }
}

impl<T: Copy> Place for Shared<T> {
    type Item = T;
    type Index = AtomicU32;

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.index(self.offsets.producer)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.index(self.offsets.consumer)
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        self.index(self.offsets.flags)
    }

    #[inline]
    fn size(&self) -> u32 {
        self.size
    }

    #[inline]
    fn write(&mut self, index: u32, item: T) {
        // SAFETY: the item is inside the mapping and aligned. According to the indices, the kernel
        // does not read it before it is published.
        unsafe { self.item(index).write(item) };
    }

    #[inline]
    fn read(&self, index: u32) -> T {
        // SAFETY: the item is inside the mapping and aligned. According to the indices, the kernel
        // has written it and does not write to it before it is released. Any bits are a valid
        // number.
        unsafe { self.item(index).read() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: this is exactly the range that `map` mapped, and it is unmapped once.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}
