//! Ethernet ports. Each is one queue of an interface, over AF_XDP. If AF_XDP does not work, the
//! port is the whole interface, over AF_PACKET.
//!
//! This process does not copy payload if the kernel can access it in place.
//!
//! | module | contents |
//! |---|---|
//! | `port` | the port, which combines the parts below |
//! | `xsk` | an AF_XDP socket with its rings; `rx_queue` receives, `tx_queue` sends |
//! | `packet` | AF_PACKET |
//! | `ring`, `socket` | rings shared with the kernel; system calls |
//! | `program`, `assembler`, `bpf` | the XDP program, its assembler, and bpf(2) |
//! | `arena` | one mapping, which all ports use |
//! | `ether`, `neighbours`, `own` | the header; the neighbours; the interface's MAC address |
//! | `group` | multicast groups |
//! | `select_mode`, `probe` | test what the machine supports, and describe the result |
//! | `interface`, `features`, `limits` | properties of an interface; VLAN offloads; limits |
//!
//! Only [`open`] requires privileges: it loads and attaches the program, makes the sockets and pins
//! memory. The process may drop its privileges afterwards.
//!
//! If the NIC removes VLAN tags in hardware, AF_PACKET can read the tags but the program cannot. A
//! port on such an interface uses AF_PACKET (`ethtool -K eth0 rxvlan off` makes the NIC leave tags
//! in frames).
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
pub use error::EtherOpenError;
pub use features::{HiddenTags, hidden_tags};
pub use group::Group;
pub use port::EtherPort;
pub use probe::{EtherCapabilities, interfaces_that_hide_tags, probe};
pub use select_mode::{EtherReport, GRANT, RefusedMode, RxMode};

use self::{
    ether::{ETHERNET_BYTES, Shape},
    interface::{Interface, Unfit},
    limits::{UMEM_CHUNK_BYTES, UMEM_HEADROOM_BYTES},
    neighbours::Neighbours,
};
use crate::sys::CallError;

/// The mode to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// The best mode that works here.
    #[default]
    Auto,
    /// The best mode of AF_XDP, or an error.
    Xdp,
    /// This mode, or an error.
    Only(RxMode),
}

/// Settings of an Ethernet port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpSpec {
    /// Name of the interface.
    pub interface: String,
    /// Index of the queue. Each queue belongs to one worker. With AF_PACKET, the port receives the
    /// frames of all queues.
    pub queue: u32,
    /// The modes that may be used.
    pub backend: ModeChoice,
    /// Ethertype of the port's frames. All ports of an interface must have the same one.
    pub ethertype: u16,
    /// VLAN (802.1Q) of the port's frames, 1 to 4094. `None` means frames without a tag.
    pub vlan: Option<u16>,
    /// Maximum number of neighbours. The index of a mark is below this.
    pub neighbours_max: u32,
    /// Number of chunks that are posted to the kernel for receiving.
    pub fill_ring_frames: u32,
    /// Whether a frame may have several descriptors (`XDP_USE_SG`, Linux 6.6). If so, the header of
    /// a frame without enough headroom gets a separate descriptor. If not, such a frame is copied.
    pub multi_buffer: bool,
    /// A group whose frames the port also receives and to which it can send; `None` for no group.
    pub group: Option<Group>,
}

impl XdpSpec {
    /// A port on `queue` of `interface`, with default settings.
    pub fn new(interface: &str, queue: u32) -> Self {
        Self {
            interface: interface.to_owned(),
            queue,
            backend: ModeChoice::Auto,
            ethertype: limits::ETHERTYPE,
            vlan: None,
            neighbours_max: 1024,
            fill_ring_frames: limits::FILL_RING_FRAMES,
            multi_buffer: true,
            group: None,
        }
    }
}

/// An open port and its report.
#[derive(Debug)]
pub struct OpenedEtherPort {
    /// The port, for one worker.
    pub port: EtherPort,
    /// The selected mode, and the reasons why no better mode was possible.
    pub report: EtherReport,
}

impl OpenedEtherPort {
    /// Returns the port as a trait object, and its report.
    pub fn boxed(self) -> (Box<dyn strowger_frame::Port>, EtherReport) {
        (Box::new(self.port), self.report)
    }
}

/// Checks the spec and the interface. It opens no port and changes nothing.
///
/// # Errors
/// Those errors of [`open`] that concern the spec and the interface.
pub fn check(spec: &XdpSpec) -> Result<(), EtherOpenError> {
    find(spec).map(drop)
}

fn find(spec: &XdpSpec) -> Result<Interface, EtherOpenError> {
    let name = || spec.interface.clone();
    // In the ethertype field, a value below 0x0600 is a length. 0 and 4095 are not VLANs.
    if spec.ethertype < 0x0600 || spec.vlan.is_some_and(|vlan| vlan == 0 || vlan > 4094) {
        return Err(EtherOpenError::BadSpec { ethertype: spec.ethertype, vlan: spec.vlan });
    }
    if let Some(group) = spec.group.filter(|group| !group.is_one()) {
        return Err(EtherOpenError::NoGroup { address: group.address });
    }
    let interface = Interface::find(&spec.interface).map_err(|unfit| match unfit {
        Unfit::Missing => EtherOpenError::NoInterface { interface: name() },
        Unfit::NotEthernet => EtherOpenError::NotEthernet { interface: name() },
        Unfit::Call(error) => EtherOpenError::Call { interface: name(), error },
    })?;
    if spec.queue >= interface.queues {
        let (queue, queues) = (spec.queue, interface.queues);
        return Err(EtherOpenError::NoQueue { interface: name(), queue, queues });
    }
    if !interface.up {
        return Err(EtherOpenError::InterfaceDown { interface: name() });
    }
    Ok(interface)
}

/// Opens a queue for the given worker, in the network namespace of the calling thread.
///
/// The worker's pool must be in the arena. Chunks of the pool are posted to the kernel.
///
/// # Errors
/// [`EtherOpenError`], with a remedy for the operator where one is known.
pub fn open(
    spec: &XdpSpec,
    arena: &mut Arena,
    pool: &mut Pool,
    worker: usize,
) -> Result<OpenedEtherPort, EtherOpenError> {
    if !arena.holds(pool) {
        return Err(EtherOpenError::ForeignPool);
    }
    let name = || spec.interface.clone();
    let interface = find(spec)?;
    let tally = Arc::new(PortTally::default());
    let XdpSpec { ethertype, vlan, group, .. } = *spec;
    let shape = Shape { own: interface.mac, ethertype, vlan, group };
    let membership = group.map(|group| group::join(&interface, group.address)).transpose();
    let refused = |error: CallError| EtherOpenError::Call { interface: name(), error };
    let membership = membership.map_err(refused)?;
    let (backend, report) =
        select_mode::select(spec, arena, pool, (&interface, worker), &shape, &tally)?;
    let described =
        format!("ether {} queue {} ({})", spec.interface, spec.queue, report.mode.name());
    let by_mtu = interface.mtu as usize + ETHERNET_BYTES;
    let by_memory = match backend {
        port::Backend::Xdp(_) => UMEM_CHUNK_BYTES - UMEM_HEADROOM_BYTES,
        port::Backend::Packet(_) => usize::from(u16::MAX),
    };
    // The MTU does not include the tag.
    let tag = if spec.vlan.is_some() { 4 } else { 0 };
    let frame_bytes_max = (by_mtu + tag).min(by_memory).saturating_sub(shape.header_bytes());
    let neighbours = Neighbours::new(spec.neighbours_max, shape);
    let own = own::LocalMac::of(interface.index).map_err(refused)?;
    let held = (membership, own);
    let port = EtherPort::new(backend, neighbours, tally, frame_bytes_max, described, held);
    Ok(OpenedEtherPort { port, report })
}
