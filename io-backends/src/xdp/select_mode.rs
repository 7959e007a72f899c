//! From the best way to the plainest, by trying: zero-copy, copies in the driver, copies behind it,
//! AF_PACKET. What was refused is kept with its reason. It never asks for a version.

use std::{fmt, sync::Arc, time::Instant};

use strowger_frame::{Pool, port::PortTally};

use super::{
    Choice, OpenError, XdpSpec,
    arena::{Arena, Terms},
    ether::{Mac, Shape},
    interface::{self, Interface},
    limits::{BUSY_LOOK, BUSY_MAX},
    packet::PacketSocket,
    port::Half,
    program::{Attach, Attached, Program},
    xsk::{Facts, Xsk},
};
use crate::sys::{
    CallError, Errno, Refusal,
    messages::{self, ALLOW_CALLS},
};

/// How frames are received and sent, from the best down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxMode {
    /// AF_XDP, and the device reads and writes frames where they lie.
    ZeroCopy,
    /// AF_XDP with the program in the driver; the kernel copies each frame once.
    Copy,
    /// AF_XDP with the program behind the driver; each frame has become an skb before.
    Generic,
    /// AF_PACKET.
    Packet,
}

impl RxMode {
    /// All, from the best down.
    pub const ALL: [Self; 4] = [Self::ZeroCopy, Self::Copy, Self::Generic, Self::Packet];

    /// Its name in counters and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "xdp_zero_copy",
            Self::Copy => "xdp_copy",
            Self::Generic => "xdp_generic",
            Self::Packet => "af_packet",
        }
    }

    fn attach(self) -> Attach {
        if self == Self::Generic { Attach::Generic } else { Attach::Driver }
    }
}

/// A way that was tried and refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMode {
    /// Which.
    pub mode: RxMode,
    /// Whether it was tried with multi-buffer frames (`XDP_USE_SG`).
    pub multi_buffer: bool,
    /// Why not.
    pub refusal: Refusal,
}

impl fmt::Display for RefusedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let multi_buffer = if self.multi_buffer { " with multi-buffer frames" } else { "" };
        write!(f, "{}{multi_buffer} refused: {}", self.mode.name(), self.refusal)
    }
}

/// A line for each reason, in order.
pub(super) fn lines(refused: &[RefusedMode]) -> Vec<String> {
    let same = |a: &RefusedMode, b: &RefusedMode| {
        a.refusal == b.refusal && a.multi_buffer == b.multi_buffer
    };
    let line = |of: &[RefusedMode]| {
        let (last, before) = of.split_last()?;
        let before: String = before.iter().map(|one| format!("{}, ", one.mode.name())).collect();
        Some(format!("{before}{last}"))
    };
    refused.chunk_by(same).filter_map(line).collect()
}

/// What was chosen for a port, and why nothing better.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EtherReport {
    /// The interface.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// How many queues receive there, each of which wants a port.
    pub queues: u32,
    /// Its address: what neighbours send to.
    pub mac: Mac,
    /// The worker the port was opened for.
    pub worker: usize,
    /// How it receives and sends, as the kernel confirmed it.
    pub mode: RxMode,
    /// Better ways that were tried and refused.
    pub refused: Vec<RefusedMode>,
    /// Whether a frame may leave in several descriptors; if not, one without room in front is copied.
    pub multi_buffer: bool,
    /// Whether it shares the registration of memory (UMEM) of a port opened before.
    pub shared: bool,
    /// Chunks lent to the kernel for receiving.
    pub fill_ring_frames: usize,
    /// What was asked for.
    pub fill_ring_frames_asked: usize,
    /// How often the queue was still held by whoever had it before us.
    pub busy_looks: u32,
    /// By AF_PACKET: whether many frames go in one system call (`recvmmsg`, `sendmmsg`), and not one.
    pub many: Result<(), Refusal>,
    /// By AF_PACKET: whether another's XDP program is on the interface, which may take our frames first.
    pub program_there: bool,
}

impl EtherReport {
    /// What would be faster or safer here, one sentence each; empty when all is at its best.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = lines(&self.refused);
        if self.mode != RxMode::Packet && !self.multi_buffer {
            warnings.push("frames without room in front of them are copied".to_owned());
        }
        if self.mode != RxMode::Packet && self.fill_ring_frames < self.fill_ring_frames_asked {
            let (lent, asked) = (self.fill_ring_frames, self.fill_ring_frames_asked);
            warnings.push(format!(
                "the pool had {lent} single chunks to lend where {asked} were asked for"
            ));
        }
        if let Err(refusal) = &self.many {
            warnings.push(format!("one system call for each frame: {refusal}"));
        }
        if self.program_there {
            let at = &self.interface;
            warnings.push(format!(
                "another XDP program is on {at}: what it takes never comes here; `ip link show dev {at}` \
                 tells which"
            ));
        }
        if self.busy_looks > 0 {
            let looks = self.busy_looks;
            warnings.push(format!("the queue was still in use at the first {looks} looks"));
        }
        warnings
    }
}

impl fmt::Display for EtherReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, at) = (&self.interface, strowger_frame::Address::Ether(self.mac));
        write!(f, "ether {name} queue {} at {at} by {}", self.queue, self.mode.name())?;
        if self.mode != RxMode::Packet {
            f.write_str(if self.multi_buffer { ", multi-buffer" } else { ", one buffer a frame" })?;
            f.write_str(if self.shared { ", memory shared" } else { ", memory registered" })?;
            write!(f, ", {} chunks lent", self.fill_ring_frames)?;
        }
        for warning in self.warnings() {
            write!(f, "\n  {warning}")?;
        }
        Ok(())
    }
}

/// Tries what the spec allows, from the best down.
pub(super) fn walk(
    spec: &XdpSpec,
    arena: &mut Arena,
    pool: &mut Pool,
    (interface, worker): (&Interface, usize),
    shape: &Shape,
    tally: &Arc<PortTally>,
) -> Result<(Half, EtherReport), OpenError> {
    let may = |mode: &RxMode| match spec.backend {
        Choice::Auto => true,
        Choice::Xdp => *mode != RxMode::Packet,
        Choice::Only(only) => *mode == only,
    };
    let mut refused = Vec::new();
    let mut attached = None;
    let report = |mode, terms: Option<Terms>, facts: Facts, refused| EtherReport {
        interface: spec.interface.clone(),
        queue: spec.queue,
        queues: interface.queues,
        mac: interface.mac,
        worker,
        mode,
        refused,
        multi_buffer: terms.is_none_or(|terms| terms.multi_buffer),
        shared: facts.shared,
        fill_ring_frames: facts.lent,
        fill_ring_frames_asked: spec.fill_ring_frames as usize,
        busy_looks: facts.busy_looks,
        many: Ok(()),
        program_there: false,
    };
    for mode in RxMode::ALL.into_iter().filter(may) {
        if mode != RxMode::Packet && interface.hidden_tags.any() {
            refused.push(RefusedMode {
                mode,
                multi_buffer: false,
                refusal: hidden_tags(spec, interface),
            });
            continue;
        }
        if mode == RxMode::Packet {
            match PacketSocket::open(interface, shape, tally) {
                Ok(packet) => {
                    // That of a mode refused above is not in the way.
                    drop(attached.take());
                    let program_there = interface::has_program(interface.index) == Some(true);
                    let report = report(mode, None, Facts::default(), refused);
                    let report = EtherReport { program_there, many: messages::many(), ..report };
                    return Ok((Half::Packet(Box::new(packet)), report));
                }
                Err(step) => refused.push(refuse(mode, false, step)),
            }
            continue;
        }
        let program = match attach(spec, arena, interface, mode, &mut attached)? {
            Ok(program) => program,
            Err(step) => {
                refused.push(refuse(mode, false, step));
                continue;
            }
        };
        for multi_buffer in [true, false] {
            if multi_buffer && !spec.multi_buffer {
                continue;
            }
            let terms = Terms { zero_copy: mode == RxMode::ZeroCopy, multi_buffer };
            let at = (interface, spec.queue);
            match Xsk::open(arena, pool, at, (terms, spec.fill_ring_frames), &program, tally) {
                Ok((xsk, facts)) => {
                    arena.attach(interface, &program);
                    let report = report(mode, Some(terms), facts, refused);
                    return Ok((Half::Xdp(Box::new(xsk)), report));
                }
                Err(CallError { call: "bind", errno: Errno(libc::EBUSY) }) => {
                    let (interface, queue) = (spec.interface.clone(), spec.queue);
                    return Err(OpenError::QueueBusy { interface, queue });
                }
                Err(step) => refused.push(refuse(mode, multi_buffer, step)),
            }
        }
    }
    Err(OpenError::NothingWorks { interface: spec.interface.clone(), refused })
}

/// Our program on the interface: that of our other ports, or a new one. `ours` is the one that this
/// walk has attached before.
fn attach(
    spec: &XdpSpec,
    arena: &mut Arena,
    interface: &Interface,
    mode: RxMode,
    ours: &mut Option<Arc<Attached>>,
) -> Result<Result<Arc<Attached>, CallError>, OpenError> {
    let (wanted, traffic) = (mode.attach(), (spec.ethertype, spec.vlan));
    if let Some(there) = arena.attached(interface) {
        if (there.ethertype, there.vlan) != traffic {
            return Err(OpenError::OtherTraffic { interface: spec.interface.clone() });
        }
        let call = "other ports of this relay have attached the program in another mode";
        let fits = there.attach == wanted;
        return Ok(if fits { Ok(there) } else { Err(CallError::new(call, libc::EEXIST)) });
    }
    if let Some(there) = ours.as_ref().filter(|there| there.attach == wanted) {
        return Ok(Ok(there.clone()));
    }
    // In one mode at a time: what was tried before is taken off first.
    *ours = None;
    let mut program = match Program::load(spec.ethertype, spec.vlan, interface.queues) {
        Ok(program) => program,
        Err(error) => return Ok(Err(error)),
    };
    let deadline = Instant::now() + BUSY_MAX;
    loop {
        match program.attach(interface.index, wanted, traffic) {
            Ok(there) => return Ok(Ok(ours.insert(Arc::new(there)).clone())),
            Err((back, error)) => match error.errno.0 {
                libc::EBUSY | libc::EEXIST if Instant::now() > deadline => {
                    let interface = spec.interface.clone();
                    return Err(OpenError::ProgramPresent { interface, errno: error.errno });
                }
                libc::EBUSY | libc::EEXIST => {
                    // Perhaps ours, of the process before us, which is just ending.
                    program = back;
                    std::thread::sleep(BUSY_LOOK);
                }
                _ => return Ok(Err(error)),
            },
        }
    }
}

fn refuse(mode: RxMode, multi_buffer: bool, error: CallError) -> RefusedMode {
    RefusedMode { mode, multi_buffer, refusal: with_remedy(error) }
}

/// The line that grants what an Ethernet port needs.
pub const GRANT: &str = "grant it with: setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep \
     $(command -v strowger), or AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF and \
     LimitMEMLOCK=infinity in the unit";

/// Where tags are hidden, a program takes the frames of all VLANs for frames without a tag.
fn hidden_tags(spec: &XdpSpec, interface: &Interface) -> Refusal {
    let features: Vec<_> = interface.hidden_tags.features().collect();
    let what = format!(
        "{} takes VLAN tags off frames ({}), so that a program cannot tell the frames of one VLAN from \
         those of another",
        spec.interface,
        features.join(", ")
    );
    Refusal::new(what, interface.hidden_tags.remedy(&spec.interface))
}

/// Adds what the operator can do about a failed call of an Ethernet port.
pub(crate) fn with_remedy(error: CallError) -> Refusal {
    error.with_remedy(match (error.call, error.errno.0) {
        ("XDP_UMEM_REG", libc::ENOBUFS | libc::ENOMEM | libc::EPERM) => {
            "raise the limit of locked memory: ulimit -l unlimited, LimitMEMLOCK=infinity in the unit, or \
             cap_ipc_lock among the capabilities of the file (setcap)"
        }
        ("taking chunks from the pool", _) => "give the pool more single chunks",
        ("recvmsg" | "sendmsg", _) => ALLOW_CALLS,
        (_, libc::EPERM | libc::EACCES) => GRANT,
        ("bind", libc::EOPNOTSUPP) => "the driver has no such mode",
        ("bind", libc::EINVAL) => "the kernel or the driver does not support this mode",
        ("BPF_LINK_CREATE", libc::EOPNOTSUPP) => "the driver takes no XDP program",
        ("BPF_LINK_CREATE", libc::ERANGE | libc::E2BIG) => "lower the MTU of the interface",
        ("BPF_LINK_CREATE", libc::ENOSPC) => {
            "the interface has too few queues for XDP; add some with ethtool -L (a veth needs as many rx \
             queues as its peer has tx queues)"
        }
        ("BPF_LINK_CREATE", libc::EINVAL) => {
            "the MTU is too large for the driver, or the kernel is older than Linux 5.9"
        }
        ("socket(AF_XDP)", libc::EAFNOSUPPORT) => "use a kernel built with XDP_SOCKETS",
        ("socket(AF_PACKET)", libc::EAFNOSUPPORT) => "use a kernel built with PACKET",
        _ => "",
    })
}
