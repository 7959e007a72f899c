//! One mapping of frames, which all Ethernet ports use. The arena records which socket has
//! registered it with the kernel, and on which interfaces our program is attached. It holds only
//! weak references to both.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Weak},
};

use strowger_frame::{Pool, map::Mapping};

use super::{interface::Interface, program::Attached, socket::Socket};

/// The mapping of [`Pool::group`], used as the UMEM of every worker and interface.
///
/// The first AF_XDP port registers it. Later ports with the same bind flags share the registration,
/// so the memory is pinned only once (or twice, for example if one NIC supports zero-copy and
/// another does not).
pub struct Arena {
    mapping: Arc<Mapping>,
    registered: Vec<Registered>,
    attached: Vec<((u64, u32), Weak<Attached>)>,
    /// Whether registration may wait until an earlier process releases its locked memory. It is
    /// `false` after a registration has failed.
    pub(super) limit_may_rise: bool,
}

struct Registered {
    by: Weak<OwnedFd>,
    flags: BindFlags,
}

/// The bind flags, which must be equal for all sockets that share a UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BindFlags {
    /// Zero-copy: the device itself reads and writes the frames.
    pub(super) zero_copy: bool,
    /// Whether a frame may have several descriptors (`XDP_USE_SG`).
    pub(super) multi_buffer: bool,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.mapping.bytes()).finish_non_exhaustive()
    }
}

impl Arena {
    /// Makes the arena of this pool's mapping.
    pub fn of(pool: &Pool) -> Self {
        let mapping = pool.mapping().clone();
        Self { mapping, registered: Vec::new(), attached: Vec::new(), limit_may_rise: true }
    }

    /// Whether this pool's chunks lie in the mapping.
    pub fn holds(&self, pool: &Pool) -> bool {
        Arc::ptr_eq(&self.mapping, pool.mapping())
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Returns a bound socket with these flags whose registration another socket can share.
    pub(super) fn registered_by(&mut self, flags: BindFlags) -> Option<Arc<OwnedFd>> {
        self.registered.retain(|registered| registered.by.strong_count() > 0);
        let on_terms = self.registered.iter().filter(|registered| registered.flags == flags);
        on_terms.filter_map(|registered| registered.by.upgrade()).next()
    }

    pub(super) fn register(&mut self, by: &Socket, flags: BindFlags) {
        self.registered.push(Registered { by: Arc::downgrade(&by.0), flags });
    }

    /// Returns our program on this interface, if one of our ports has attached it.
    pub(super) fn attached(&mut self, interface: &Interface) -> Option<Arc<Attached>> {
        self.attached.retain(|(_, attached)| attached.strong_count() > 0);
        let (_, attached) = self.attached.iter().find(|(at, _)| *at == key(interface))?;
        attached.upgrade()
    }

    pub(super) fn attach(&mut self, interface: &Interface, attached: &Arc<Attached>) {
        self.attached.push((key(interface), Arc::downgrade(attached)));
    }
}

fn key(interface: &Interface) -> (u64, u32) {
    (interface.namespace, interface.index)
}
