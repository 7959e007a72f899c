//! Tries each feature of Ethernet ports for `strowger doctor`, without changing an interface of the
//! machine. If permitted, it opens a port on the loopback interface of a new network namespace.

use std::{
    mem,
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
};

use strowger_frame::{Pool, PoolSpec, port::PortTally};

use super::{
    RxMode,
    arena::{Arena, BindFlags},
    features::HiddenTags,
    interface::Interface,
    limits::{ETHERTYPE, HEADER_CHUNKS, SPARE_CHUNKS},
    program::{Attach, Program},
    select_mode::{GRANT, with_remedy},
    socket::{Socket, errno},
    xsk::Xsk,
};
use crate::sys::{
    CallError, Errno, Refusal,
    messages::{self, Calls},
};

/// The result of trying each feature.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EtherCapabilities {
    /// Opens an AF_XDP socket (`CAP_NET_RAW`).
    pub socket: Result<String, Refusal>,
    /// Pins memory for the socket (within the limit of locked memory, or with `CAP_IPC_LOCK`).
    pub memory: Result<String, Refusal>,
    /// Loads the program (`CAP_BPF` and `CAP_NET_ADMIN`).
    pub program: Result<String, Refusal>,
    /// Opens a port and attaches its program, on the loopback interface of a new network namespace.
    pub self_test: Result<String, Refusal>,
    /// Opens an AF_PACKET socket (`CAP_NET_RAW`).
    pub packet: Result<String, Refusal>,
    /// Names of the missing capabilities.
    pub missing: Vec<&'static str>,
}

impl EtherCapabilities {
    /// All results, each with its name.
    pub fn each(&self) -> [(&'static str, &Result<String, Refusal>); 5] {
        [
            ("af_xdp", &self.socket),
            ("umem", &self.memory),
            ("xdp_program", &self.program),
            ("xdp_self_test", &self.self_test),
            ("af_packet", &self.packet),
        ]
    }

    /// The best mode that the rights of the process allow.
    pub fn best(&self) -> Option<RxMode> {
        if self.socket.is_ok() && self.memory.is_ok() && self.program.is_ok() {
            return Some(RxMode::ZeroCopy);
        }
        self.packet.is_ok().then_some(RxMode::Packet)
    }
}

/// Tries every feature that an Ethernet port needs. `memory_bytes` is the total size of the ports'
/// pools.
pub fn probe(memory_bytes: usize) -> EtherCapabilities {
    let missing = missing();
    EtherCapabilities {
        socket: Socket::new().map(|_| "a socket was made".to_owned()).map_err(at("socket(AF_XDP)")),
        memory: try_memory(memory_bytes),
        program: Program::load(ETHERTYPE, None, 1)
            .map(|_| "the program was loaded".to_owned())
            .map_err(with_remedy),
        self_test: self_test(),
        packet: try_packet(),
        missing,
    }
}

/// The Ethernet interfaces of this network namespace that remove VLAN tags from frames. On these,
/// ports use AF_PACKET.
pub fn interfaces_that_hide_tags() -> Vec<(String, HiddenTags)> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let hidden = |line: &str| {
        let (name, _) = line.split_once(':')?;
        let name = name.trim();
        let hidden = Interface::find(name).ok()?.hidden_tags;
        hidden.any().then_some((name.to_owned(), hidden))
    };
    let mut hiding: Vec<_> = table.lines().filter_map(hidden).collect();
    hiding.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    hiding
}

fn at(call: &'static str) -> impl FnOnce(i32) -> Refusal {
    move |errno| with_remedy(CallError::new(call, errno))
}

fn try_memory(bytes: usize) -> Result<String, Refusal> {
    let socket = Socket::new().map_err(at("socket(AF_XDP)"))?;
    let mapping = strowger_frame::map::Mapping::new(bytes, true)
        .map_err(|error| with_remedy(CallError { call: "memory", errno: Errno::of(&error) }))?;
    socket.register(&mapping).map_err(at("XDP_UMEM_REG"))?;
    Ok(format!("{} bytes were pinned", mapping.bytes()))
}

fn try_packet() -> Result<String, Refusal> {
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(with_remedy(CallError::last("socket(AF_PACKET)")));
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Calls::find().map_err(with_remedy)?;
    Ok(match messages::many() {
        Ok(()) => "a socket was made".to_owned(),
        Err(refusal) => format!("a socket was made; one system call for each frame: {refusal}"),
    })
}

/// The loopback interface of a new network namespace.
pub(super) const LOOPBACK: Interface = Interface {
    index: 1,
    namespace: 0,
    mac: [0; 6],
    mtu: 65_536,
    queues: 1,
    up: true,
    hidden_tags: HiddenTags::NONE,
};

/// Opens a port on a separate thread, whose network namespace ends with the thread.
fn self_test() -> Result<String, Refusal> {
    let attempt = std::thread::spawn(|| {
        enter_network().map_err(|errno| {
            CallError::new("a network namespace for the test", errno).with_remedy("run it as root")
        })?;
        let singles = (HEADER_CHUNKS + SPARE_CHUNKS + 64) as u32;
        let mut pool = Pool::new(&PoolSpec { trains: 0, singles, huge_pages: false })
            .map_err(|error| with_remedy(CallError { call: "memory", errno: Errno::of(&error) }))?;
        let mut arena = Arena::of(&pool);
        let program = Program::load(ETHERTYPE, None, 1).map_err(with_remedy)?;
        let attached = program
            .attach(LOOPBACK.index, Attach::Generic, (ETHERTYPE, None))
            .map_err(|(_, error)| with_remedy(error))?;
        let (attached, tally) = (Arc::new(attached), Arc::new(PortTally::default()));
        let mut last = None;
        for multi_buffer in [true, false] {
            let flags = BindFlags { zero_copy: false, multi_buffer };
            let (at, pool) = ((&LOOPBACK, 0), &mut pool);
            match Xsk::open(&mut arena, pool, at, (flags, 64), &attached, &tally) {
                Ok(_) if multi_buffer => {
                    return Ok("a port was opened, with multi-buffer frames".to_owned());
                }
                Ok(_) => return Ok("a port was opened, without multi-buffer".to_owned()),
                Err(step) => last = Some(step),
            }
        }
        Err(with_remedy(last.unwrap_or(CallError::new("bind", libc::EINVAL))))
    });
    attempt.join().unwrap_or_else(|_| Err(at("a thread")(libc::EAGAIN)))
}

/// Moves this thread into a new network namespace, and brings its loopback interface ([`LOOPBACK`])
/// up.
pub(super) fn enter_network() -> Result<(), i32> {
    // SAFETY: the call takes only a number; it affects only this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(errno());
    }
    // SAFETY: the call takes and returns only numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(errno());
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    let asking = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all fields are numbers or pointers, for which zero is a valid value.
    let mut arguments: libc::ifreq = unsafe { mem::zeroed() };
    arguments.ifr_name[0] = b'l' as libc::c_char;
    arguments.ifr_name[1] = b'o' as libc::c_char;
    arguments.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&asking);
    // SAFETY: the request reads `arguments`, which outlives the call.
    let raised = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &arguments) };
    if raised < 0 { Err(errno()) } else { Ok(()) }
}

/// The capabilities that an Ethernet port needs and this process lacks.
fn missing() -> Vec<&'static str> {
    const NEEDED: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_BPF", 39)];
    const SYS_ADMIN: u32 = 21; // includes CAP_BPF
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    let Some(effective) = effective else { return Vec::new() };
    let has =
        |bit: u32| effective >> bit & 1 == 1 || (bit == 39 && effective >> SYS_ADMIN & 1 == 1);
    NEEDED.into_iter().filter(|(_, bit)| !has(*bit)).map(|(name, _)| name).collect()
}

impl std::fmt::Display for EtherCapabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, found) in self.each() {
            match found {
                Ok(how) => writeln!(f, "{name}: {how}")?,
                Err(refusal) => writeln!(f, "{name}: {refusal}")?,
            }
        }
        if !self.missing.is_empty() {
            writeln!(f, "missing: {}; {GRANT}", self.missing.join(", "))?;
        }
        Ok(())
    }
}
