//! Tries the modes in descending order: zero-copy, copies in the driver, copies after the driver,
//! AF_PACKET. It records the reason for each failure. It does not rely on kernel versions.

use std::{fmt, sync::Arc, time::Instant};

use strowger_frame::{Pool, port::PortTally};

use super::{
    EtherOpenError, ModeChoice, XdpSpec,
    arena::{Arena, BindFlags},
    ether::{Mac, Shape},
    interface::{self, Interface},
    limits::{BUSY_MAX, BUSY_RETRY},
    packet::PacketSocket,
    port::Backend,
    program::{Attach, Attached, Program},
    xsk::{OpenResult, Xsk},
};
use crate::sys::{
    CallError, Errno, Refusal,
    messages::{self, ALLOW_CALLS},
};

/// How a port receives and sends, the best mode first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxMode {
    /// AF_XDP with zero-copy: the device itself reads and writes the frames.
    ZeroCopy,
    /// AF_XDP with the program in the driver; the kernel copies each frame once.
    Copy,
    /// AF_XDP with the program after the driver. The kernel makes an skb of each frame first.
    Generic,
    /// AF_PACKET.
    Packet,
}

impl RxMode {
    /// All modes, the best first.
    pub const ALL: [Self; 4] = [Self::ZeroCopy, Self::Copy, Self::Generic, Self::Packet];

    /// The mode's name in counters and JSON.
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

/// A mode that does not work here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMode {
    /// The mode.
    pub mode: RxMode,
    /// Whether the mode was tried with multi-buffer frames (`XDP_USE_SG`).
    pub multi_buffer: bool,
    /// The reason why the mode does not work.
    pub refusal: Refusal,
}

impl fmt::Display for RefusedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let multi_buffer = if self.multi_buffer { " with multi-buffer frames" } else { "" };
        write!(f, "{}{multi_buffer} refused: {}", self.mode.name(), self.refusal)
    }
}

/// Returns one line for each reason. Consecutive modes with the same reason share a line.
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

/// The selected mode of an Ethernet port, and the reasons why no better mode was possible.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EtherReport {
    /// Name of the interface.
    pub interface: String,
    /// Index of the queue.
    pub queue: u32,
    /// Number of receive queues of the interface. With AF_XDP, each queue needs a port.
    pub queues: u32,
    /// MAC address of the interface.
    pub mac: Mac,
    /// The worker of the port.
    pub worker: usize,
    /// The mode in which the port receives and sends, as the kernel has confirmed.
    pub mode: RxMode,
    /// Better modes that do not work here, and the reasons.
    pub refused: Vec<RefusedMode>,
    /// Whether a frame may have several descriptors. If not, a frame without headroom is copied.
    pub multi_buffer: bool,
    /// Whether the port shares the registered memory (UMEM) of an earlier port.
    pub shared: bool,
    /// Number of chunks that are posted to the kernel for receiving.
    pub fill_ring_frames: usize,
    /// Number of chunks that the spec requests.
    pub fill_ring_frames_requested: usize,
    /// Number of attempts in which the queue was still in use by its former owner.
    pub busy_retries: u32,
    /// With AF_PACKET: whether one system call sends or receives many frames (`recvmmsg`,
    /// `sendmmsg`).
    pub many: Result<(), Refusal>,
    /// With AF_PACKET: whether an XDP program is attached to the interface. That program may take
    /// our frames first.
    pub program_there: bool,
}

impl EtherReport {
    /// One sentence for each mode that does not work, and for each other limitation.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = lines(&self.refused);
        if self.mode != RxMode::Packet && !self.multi_buffer {
            warnings.push("frames without headroom are copied".to_owned());
        }
        if self.mode != RxMode::Packet && self.fill_ring_frames < self.fill_ring_frames_requested {
            let (posted, requested) = (self.fill_ring_frames, self.fill_ring_frames_requested);
            warnings.push(format!(
                "the pool had {posted} single chunks for the fill ring instead of {requested}; give it more"
            ));
        }
        if let Err(refusal) = &self.many {
            warnings.push(format!("one system call for each frame instead of many: {refusal}"));
        }
        if self.program_there {
            let at = &self.interface;
            warnings.push(format!(
                "another XDP program is on {at} and may take our frames; `ip link show dev {at}` \
                 names it"
            ));
        }
        if self.busy_retries > 0 {
            let retries = self.busy_retries;
            warnings.push(format!("the queue was still in use at the first {retries} attempts"));
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
            write!(f, ", {} chunks posted", self.fill_ring_frames)?;
        }
        for warning in self.warnings() {
            write!(f, "\n  {warning}")?;
        }
        Ok(())
    }
}

/// Tries the permitted modes, the best first.
pub(super) fn select(
    spec: &XdpSpec,
    arena: &mut Arena,
    pool: &mut Pool,
    (interface, worker): (&Interface, usize),
    shape: &Shape,
    tally: &Arc<PortTally>,
) -> Result<(Backend, EtherReport), EtherOpenError> {
    let may = |mode: &RxMode| match spec.backend {
        ModeChoice::Auto => true,
        ModeChoice::Xdp => *mode != RxMode::Packet,
        ModeChoice::Only(only) => *mode == only,
    };
    let mut refused = Vec::new();
    let mut attached = None;
    let report = |mode, flags: Option<BindFlags>, result: OpenResult, refused| EtherReport {
        interface: spec.interface.clone(),
        queue: spec.queue,
        queues: interface.queues,
        mac: interface.mac,
        worker,
        mode,
        refused,
        multi_buffer: flags.is_none_or(|flags| flags.multi_buffer),
        shared: result.shared,
        fill_ring_frames: result.posted,
        fill_ring_frames_requested: spec.fill_ring_frames as usize,
        busy_retries: result.busy_retries,
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
                    // Detaches the program of a mode that has failed.
                    drop(attached.take());
                    let program_there = interface::has_program(interface.index) == Some(true);
                    let report = report(mode, None, OpenResult::default(), refused);
                    let report = EtherReport { program_there, many: messages::many(), ..report };
                    return Ok((Backend::Packet(Box::new(packet)), report));
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
            let flags = BindFlags { zero_copy: mode == RxMode::ZeroCopy, multi_buffer };
            let at = (interface, spec.queue);
            match Xsk::open(arena, pool, at, (flags, spec.fill_ring_frames), &program, tally) {
                Ok((xsk, result)) => {
                    arena.attach(interface, &program);
                    let report = report(mode, Some(flags), result, refused);
                    return Ok((Backend::Xdp(Box::new(xsk)), report));
                }
                Err(CallError { call: "bind", errno: Errno(libc::EBUSY) }) => {
                    let (interface, queue) = (spec.interface.clone(), spec.queue);
                    return Err(EtherOpenError::QueueBusy { interface, queue });
                }
                Err(step) => refused.push(refuse(mode, multi_buffer, step)),
            }
        }
    }
    Err(EtherOpenError::NothingWorks { interface: spec.interface.clone(), refused })
}

/// Returns our program on the interface: that of our other ports, or a new one.
///
/// `ours` is the program that was attached for an earlier mode.
fn attach(
    spec: &XdpSpec,
    arena: &mut Arena,
    interface: &Interface,
    mode: RxMode,
    ours: &mut Option<Arc<Attached>>,
) -> Result<Result<Arc<Attached>, CallError>, EtherOpenError> {
    let (wanted, traffic) = (mode.attach(), (spec.ethertype, spec.vlan));
    if let Some(there) = arena.attached(interface) {
        if (there.ethertype, there.vlan) != traffic {
            return Err(EtherOpenError::OtherTraffic { interface: spec.interface.clone() });
        }
        let call = "other ports of this relay have attached the program in another mode";
        let fits = there.attach == wanted;
        return Ok(if fits { Ok(there) } else { Err(CallError::new(call, libc::EEXIST)) });
    }
    if let Some(there) = ours.as_ref().filter(|there| there.attach == wanted) {
        return Ok(Ok(there.clone()));
    }
    // An interface has only one attach mode at a time, so the program of an earlier mode is
    // detached first.
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
                    return Err(EtherOpenError::ProgramPresent { interface, errno: error.errno });
                }
                libc::EBUSY | libc::EEXIST => {
                    // It may be the program of an earlier switch process that is still ending.
                    program = back;
                    std::thread::sleep(BUSY_RETRY);
                }
                _ => return Ok(Err(error)),
            },
        }
    }
}

fn refuse(mode: RxMode, multi_buffer: bool, error: CallError) -> RefusedMode {
    RefusedMode { mode, multi_buffer, refusal: with_remedy(error) }
}

/// The commands that grant the capabilities of an Ethernet port.
pub const GRANT: &str = "grant it with: setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep \
     $(command -v strowger), or AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF and \
     LimitMEMLOCK=infinity in the unit";

/// The reason for using AF_PACKET if tags are hidden: a program cannot distinguish the VLANs.
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

/// Adds the remedy for a failed call of an Ethernet port.
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
