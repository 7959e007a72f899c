//! One mapping of frames as the memory of every Ethernet port: who has registered it with the
//! kernel, and which interfaces carry our program. It owns neither; it remembers who does.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Weak},
};

use strowger_frame::{Pool, map::Mapping};

use super::{interface::Interface, program::Attached, socket::Socket};

/// The mapping of [`Pool::group`] as every worker's and every interface's UMEM. The first AF_XDP
/// port registers it; ports opened after that share the registration, so the memory is pinned once
/// (twice, if one NIC can do without copies and another cannot).
pub struct Arena {
    mapping: Arc<Mapping>,
    registered: Vec<Registered>,
    attached: Vec<((u64, u32), Weak<Attached>)>,
    /// If memory cannot be locked now, it may be soon: nobody has yet waited for that in vain.
    pub(super) limit_may_rise: bool,
}

struct Registered {
    by: Weak<OwnedFd>,
    terms: Terms,
}

/// What sockets on one registration have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The device reads and writes the frames itself.
    pub(super) zero_copy: bool,
    /// A frame may lie in several descriptors (`XDP_USE_SG`).
    pub(super) multi_buffer: bool,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.mapping.bytes()).finish_non_exhaustive()
    }
}

impl Arena {
    /// The arena of this pool, and of all that share its mapping.
    pub fn of(pool: &Pool) -> Self {
        let mapping = pool.mapping().clone();
        Self { mapping, registered: Vec::new(), attached: Vec::new(), limit_may_rise: true }
    }

    /// Whether this pool's chunks lie in it.
    pub fn holds(&self, pool: &Pool) -> bool {
        Arc::ptr_eq(&self.mapping, pool.mapping())
    }

    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// A bound socket whose registration another may share, on these terms.
    pub(super) fn registered_by(&mut self, terms: Terms) -> Option<Arc<OwnedFd>> {
        self.registered.retain(|registered| registered.by.strong_count() > 0);
        let on_terms = self.registered.iter().filter(|registered| registered.terms == terms);
        on_terms.filter_map(|registered| registered.by.upgrade()).next()
    }

    pub(super) fn register(&mut self, by: &Socket, terms: Terms) {
        self.registered.push(Registered { by: Arc::downgrade(&by.0), terms });
    }

    /// Our program on this interface, if a port of ours is there already.
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
