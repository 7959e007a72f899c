//! Ethernet: one queue of an interface as a port, by AF_XDP where it is to be had and by AF_PACKET
//! where not. Payload is never copied here where the kernel can reach it.
//!
//! | room | what it holds |
//! |---|---|
//! | `port` | the port itself: which half does what |
//! | `xsk` | an AF_XDP socket with its rings; `rx_queue` receives, `tx_queue` sends |
//! | `packet` | AF_PACKET |
//! | `ring`, `socket` | the rings shared with the kernel; system calls |
//! | `program`, `assembler`, `bpf` | the XDP program, of raw instructions |
//! | `arena` | one mapping as every port's memory; who has our program |
//! | `ether`, `neighbours`, `own` | the header; who is behind the port; the interface's own address |
//! | `group` | what is sent to all of a segment at once |
//! | `select_mode`, `probe` | what the machine allows, found by trying and said in words |
//! | `interface`, `features`, `limits` | what is known of an interface; its offloads; every bound and its reason |
//!
//! All that needs rights is done by [`open`]: loading and attaching the program, making the
//! sockets, pinning memory. A process may drop its rights afterwards and run as anybody.
//!
//! A VLAN tag that the NIC takes off in hardware is seen by AF_PACKET and not by the program. On an
//! interface that does so a port has AF_PACKET (`ethtool -K eth0 rxvlan off` leaves tags on).
//!
//! ```no_run
//! use strowger_frame::{Address, Burst, Mark, Pool, PoolSpec, Port};
//! use strowger_io::xdp::{Arena, XdpSpec, open};
//!
//! let mut pool = Pool::new(&PoolSpec { trains: 0, singles: 4096, huge_pages: true })?;
//! let mut arena = Arena::of(&pool);
//! let opened = open(&XdpSpec::new("eth0", 0), &mut arena, &mut pool, 0)?;
//! println!("{}", opened.report);
//! let mut port = opened.port;
//! port.admit(Mark(0), Address::Ether([2, 0, 0, 0, 0, 1]))?;
//!
//! let mut burst = Burst::new();
//! port.rx_burst(&mut pool, &mut burst);
//! port.tx_burst(Mark(0), &mut burst);
//! port.flush();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
pub(crate) mod assembler;
pub(crate) mod bpf;
mod error;
mod ether;
#[doc(hidden)]
pub mod features;
mod group;
pub(crate) mod interface;
pub mod limits;
mod neighbours;
mod own;
mod packet;
mod port;
mod probe;
mod program;
#[doc(hidden)]
pub mod ring;
mod rx_queue;
pub(crate) mod select_mode;
pub(crate) mod socket;
mod tx_queue;
pub(crate) mod xsk;

use std::sync::Arc;

use strowger_frame::{Pool, port::PortTally};

pub use arena::Arena;
pub use error::OpenError;
pub use features::{HiddenTags, hidden_tags};
pub use group::Group;
pub use port::EtherPort;
pub use probe::{Capabilities, interfaces_that_hide_tags, probe};
pub use select_mode::{EtherReport, GRANT, RefusedMode, RxMode};

use self::{
    ether::{ETHERNET_BYTES, Shape},
    interface::{Interface, Unfit},
    limits::{UMEM_CHUNK_BYTES, UMEM_HEADROOM_BYTES},
    neighbours::Neighbours,
};
use crate::sys::CallError;

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best one that works here.
    #[default]
    Auto,
    /// The best of AF_XDP, or an error.
    Xdp,
    /// This one, or an error.
    Only(RxMode),
}

/// How an Ethernet port is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpSpec {
    /// The interface's name.
    pub interface: String,
    /// Which of its queues: one worker has each.
    pub queue: u32,
    /// How to receive and send.
    pub backend: Choice,
    /// Our ethertype. All ports of one interface have the same.
    pub ethertype: u16,
    /// The VLAN (802.1Q) that our frames carry, 1 to 4094; `None` for frames without a tag.
    pub vlan: Option<u16>,
    /// Neighbours at most; marks have an index below this.
    pub neighbours_max: u32,
    /// Chunks lent to the kernel for receiving.
    pub fill_ring_frames: u32,
    /// Whether a frame may leave in several descriptors (`XDP_USE_SG`, Linux 6.6): its header apart,
    /// where there is no room in front of it. Without, such frames are copied.
    pub multi_buffer: bool,
    /// Beside frames to this station, let in those to a group, which can be sent to as well.
    pub group: Option<Group>,
}

impl XdpSpec {
    /// A port on `queue` of `interface`, all else as it serves most.
    pub fn new(interface: &str, queue: u32) -> Self {
        Self {
            interface: interface.to_owned(),
            queue,
            backend: Choice::Auto,
            ethertype: limits::ETHERTYPE,
            vlan: None,
            neighbours_max: 1024,
            fill_ring_frames: limits::FILL_RING_FRAMES,
            multi_buffer: true,
            group: None,
        }
    }
}

/// An open port and what is to be said of it.
#[derive(Debug)]
pub struct Opened {
    /// The port, for one worker.
    pub port: EtherPort,
    /// What was chosen, and why nothing better.
    pub report: EtherReport,
}

impl Opened {
    /// The port as the engine wants it.
    pub fn boxed(self) -> (Box<dyn strowger_frame::Port>, EtherReport) {
        (Box::new(self.port), self.report)
    }
}

/// Whether there is such a queue, as far as that can be told without opening it. Changes nothing.
///
/// # Errors
/// Those of [`open`] that are about the spec and the interface.
pub fn check(spec: &XdpSpec) -> Result<(), OpenError> {
    find(spec).map(drop)
}

fn find(spec: &XdpSpec) -> Result<Interface, OpenError> {
    let name = || spec.interface.clone();
    // Below 0x0600 the field is a length; 0 and 4095 are no VLANs.
    if spec.ethertype < 0x0600 || spec.vlan.is_some_and(|vlan| vlan == 0 || vlan > 4094) {
        return Err(OpenError::BadSpec { ethertype: spec.ethertype, vlan: spec.vlan });
    }
    if let Some(group) = spec.group.filter(|group| !group.is_one()) {
        return Err(OpenError::NoGroup { address: group.address });
    }
    let interface = Interface::find(&spec.interface).map_err(|unfit| match unfit {
        Unfit::Missing => OpenError::NoInterface { interface: name() },
        Unfit::NotEthernet => OpenError::NotEthernet { interface: name() },
        Unfit::Call(error) => OpenError::Call { interface: name(), error },
    })?;
    if spec.queue >= interface.queues {
        let (queue, queues) = (spec.queue, interface.queues);
        return Err(OpenError::NoQueue { interface: name(), queue, queues });
    }
    if !interface.up {
        return Err(OpenError::InterfaceDown { interface: name() });
    }
    Ok(interface)
}

/// Opens a queue as `spec` says, for the given worker, whose pool lies in the arena: chunks of it
/// are lent to the kernel. In the network namespace of the calling thread.
///
/// # Errors
/// [`OpenError`], each with the way out.
pub fn open(
    spec: &XdpSpec,
    arena: &mut Arena,
    pool: &mut Pool,
    worker: usize,
) -> Result<Opened, OpenError> {
    if !arena.holds(pool) {
        return Err(OpenError::ForeignPool);
    }
    let name = || spec.interface.clone();
    let interface = find(spec)?;
    let tally = Arc::new(PortTally::default());
    let XdpSpec { ethertype, vlan, group, .. } = *spec;
    let shape = Shape { own: interface.mac, ethertype, vlan, group };
    let membership = group.map(|group| group::join(&interface, group.address)).transpose();
    let refused = |error: CallError| OpenError::Call { interface: name(), error };
    let membership = membership.map_err(refused)?;
    let (half, report) =
        select_mode::walk(spec, arena, pool, (&interface, worker), &shape, &tally)?;
    let described =
        format!("ether {} queue {} ({})", spec.interface, spec.queue, report.mode.name());
    let by_mtu = interface.mtu as usize + ETHERNET_BYTES;
    let by_memory = match half {
        port::Half::Xdp(_) => UMEM_CHUNK_BYTES - UMEM_HEADROOM_BYTES,
        port::Half::Packet(_) => usize::from(u16::MAX),
    };
    // The tag is beyond the MTU, as the kernel counts.
    let tag = if spec.vlan.is_some() { 4 } else { 0 };
    let frame_bytes_max = (by_mtu + tag).min(by_memory).saturating_sub(shape.header_bytes());
    let neighbours = Neighbours::new(spec.neighbours_max, shape);
    let own = own::LocalMac::of(interface.index).map_err(refused)?;
    let held = (membership, own);
    let port = EtherPort::new(half, neighbours, tally, frame_bytes_max, described, held);
    Ok(Opened { port, report })
}
