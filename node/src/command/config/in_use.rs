//! Finds the process that uses a socket or a lock, in the kernel's lists. It does not bind or
//! connect a socket, so it does not disturb a running relay.

use std::{
    collections::HashMap,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// The name of a relay's main thread.
const RELAY: &str = "strowger";
/// The flag of a listening unix socket in the kernel's list (`__SO_ACCEPTCON`).
const LISTENS: u32 = 1 << 16;

/// The process that holds a socket or a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A relay.
    Relay(u32),
    /// Another program, with its process ID and name.
    Other(u32, String),
    /// A process that this user may not inspect, or that is in another PID namespace.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(process) => write!(f, "a running relay (process {process})"),
            Self::Other(process, name) => write!(f, "{name} (process {process})"),
            Self::Unknown => f.write_str("a process that this user cannot see"),
        }
    }
}

impl Holder {
    fn of(process: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        match name.trim_end() {
            RELAY => Self::Relay(process),
            "" => Self::Unknown,
            name => Self::Other(process, name.to_owned()),
        }
    }
}

/// The UDP and unix sockets of this network namespace, and the processes that hold them.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: Vec<(SocketAddr, u64)>,
    /// The path and inode of each listening unix socket.
    unix: Vec<(String, u64)>,
    /// The process that holds each socket, by the inode of the socket.
    processes: HashMap<u64, u32>,
}

impl Sockets {
    /// Reads the current sockets.
    pub(super) fn now() -> Self {
        let list = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}"));
        let [udp, udp6, unix] = ["udp", "udp6", "unix"].map(|name| list(name).unwrap_or_default());
        let udp = udp.lines().chain(udp6.lines()).filter_map(udp_socket).collect();
        Self { udp, unix: unix.lines().filter_map(listening).collect(), processes: processes() }
    }

    /// The process whose socket prevents a listener from binding this address. `is_dual` is whether
    /// the listener would also accept IPv4.
    pub(super) fn holder_of_udp(&self, at: SocketAddr, is_dual: bool) -> Option<Holder> {
        let has_v4 = self.udp.iter().any(|(it, _)| it.is_ipv4() && it.port() == at.port());
        let clashes = |other: SocketAddr| {
            let (ip, other_ip) = (at.ip(), other.ip());
            let is_any = ip.is_unspecified() || other_ip.is_unspecified();
            let fits = match (ip.is_ipv4(), other_ip.is_ipv4()) {
                (true, true) | (false, false) => is_any || ip == other_ip,
                (false, true) => is_dual,
                // The kernel's list does not show whether a socket at [::] accepts IPv4. Assume
                // that it does, unless an IPv4 socket has the same port.
                (true, false) => other_ip.is_unspecified() && !has_v4,
            };
            at.port() != 0 && at.port() == other.port() && fits
        };
        let holders = self.udp.iter().filter(|(other, _)| clashes(*other));
        holders.map(|(_, inode)| self.holder(*inode)).max_by_key(Self::weight)
    }

    /// The weight of a holder. If several sockets are in conflict, the holder with the highest
    /// weight is reported.
    fn weight(holder: &Holder) -> u8 {
        match holder {
            Holder::Unknown => 0,
            Holder::Relay(_) => 1,
            Holder::Other(..) => 2,
        }
    }

    /// The process that listens on the unix socket at this path.
    pub(super) fn holder_of_unix(&self, path: &Path) -> Option<Holder> {
        let id = |path: &Path| fs::metadata(path).ok().map(|at| (at.dev(), at.ino()));
        let wanted = id(path)?;
        let is_it = |listed: &str| {
            // The kernel can list the same file under another path.
            Path::new(listed).file_name() == path.file_name()
                && id(Path::new(listed)) == Some(wanted)
        };
        let (_, inode) = self.unix.iter().find(|(listed, _)| is_it(listed))?;
        Some(self.holder(*inode))
    }

    fn holder(&self, inode: u64) -> Holder {
        self.processes.get(&inode).map_or(Holder::Unknown, |process| Holder::of(*process))
    }
}

/// The process that has locked (`flock`) the file with this device and inode.
pub(super) fn holder_of_lock(id: (u64, u64)) -> Option<Holder> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let process = locks.lines().find_map(|line| lock(line, id))?;
    Some(process.map_or(Holder::Unknown, Holder::of))
}

/// Parses a line of `/proc/locks`. If it is a lock of this file, returns its process; the inner
/// `None` is a process ID that cannot be parsed.
fn lock(line: &str, (device, inode): (u64, u64)) -> Option<Option<u32>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, process, file, ..] = words.as_slice() else { return None };
    let mut parts = file.split(':');
    let mut number = |radix| u64::from_str_radix(parts.next()?, radix).ok();
    let (major, minor, listed) = (number(16)?, number(16)?, number(10)?);
    // The same computation as `major` and `minor` of the C library.
    let major_of = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor_of = (device & 0xff) | (device >> 12 & !0xff);
    let is_it = (major, minor, listed) == (major_of, minor_of & 0xffff_ffff, inode);
    is_it.then(|| process.parse().ok())
}

/// Parses a line of `/proc/net/udp` or `udp6`, and returns the local address and the inode.
fn udp_socket(line: &str) -> Option<(SocketAddr, u64)> {
    let mut words = line.split_whitespace();
    let (ip, port) = words.nth(1)?.split_once(':')?;
    let inode = words.nth(7)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // The address is written as words of 32 bits in this machine's byte order.
    let word = |at: usize| {
        let digits = ip.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some((SocketAddr::new(ip.to_canonical(), port), inode))
}

/// Parses a line of `/proc/net/unix`. Returns the path and the inode if the socket listens.
fn listening(line: &str) -> Option<(String, u64)> {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest.trim_start().split_once(' ')?;
        rest = behind;
        Some(word)
    };
    let (_, _, _, flags) = (word()?, word()?, word()?, word()?);
    let (_, _, inode) = (word()?, word()?, word()?);
    let listens = u32::from_str_radix(flags, 16).ok()? & LISTENS != 0;
    let inode = inode.parse().ok()?;
    listens.then(|| (rest.to_owned(), inode))
}

/// The process of each socket that this user may see.
fn processes() -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    let numbers = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for process in numbers {
        let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
        for entry in open.filter_map(Result::ok) {
            let Ok(what) = fs::read_link(entry.path()) else { continue };
            let inode = what.to_str().and_then(|what| what.strip_prefix("socket:["));
            let inode = inode.and_then(|inode| inode.trim_end_matches(']').parse().ok());
            if let Some(inode) = inode {
                // A child can inherit a socket. The process with the lowest ID, usually the parent,
                // counts as the holder.
                let first = found.entry(inode).or_insert(process);
                *first = process.min(*first);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found_with_its_name() {
        let ours = || Holder::of(std::process::id());
        for (bound, is_v6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let Ok(socket) = UdpSocket::bind(bound) else { continue };
            let at = socket.local_addr().unwrap();
            let sockets = Sockets::now();
            assert_eq!(sockets.holder_of_udp(at, false), Some(ours()), "{at}");
            let any: IpAddr = if is_v6 { "::" } else { "0.0.0.0" }.parse().unwrap();
            let any = SocketAddr::new(any, at.port());
            assert_eq!(sockets.holder_of_udp(any, false), Some(ours()), "{any}");
            let dual = SocketAddr::new("::".parse().unwrap(), at.port());
            assert_eq!(sockets.holder_of_udp(dual, true), Some(ours()), "{dual}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Sockets::now().holder_of_unix(&path), Some(ours()));
        drop(listener);
        assert_eq!(Sockets::now().holder_of_unix(&path), None, "its file is there");
        let file = fs::File::create(directory.path().join("lock")).unwrap();
        let id = file.metadata().map(|at| (at.dev(), at.ino())).unwrap();
        assert_eq!(holder_of_lock(id), None);
        file.lock().unwrap();
        assert!(holder_of_lock(id).is_some());
    }

    #[test]
    fn the_kernels_lists_are_parsed() {
        let udp = "  77: 0100007F:1B58 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0 0";
        assert_eq!(udp_socket(udp), Some(("127.0.0.1:7000".parse().unwrap(), 4242)));
        let udp6 = "  77: B80D0120000000000000000001000000:1B58 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0 0";
        assert_eq!(udp_socket(udp6), Some(("[2001:db8::1]:7000".parse().unwrap(), 4242)));
        let unix = "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/a socket";
        assert_eq!(listening(unix), Some(("/run/a socket".to_owned(), 12_345)));
        let connected = unix.replace("00010000", "00000000");
        assert_eq!(listening(&connected), None);
        let held = "1: FLOCK  ADVISORY  WRITE 77 fd:01:4242 0 EOF";
        assert_eq!(lock(held, (0xfd01, 4242)), Some(Some(77)));
        assert_eq!(lock(held, (0xfd02, 4242)), None);
        assert_eq!(lock(&held.replace("FLOCK", "POSIX"), (0xfd01, 4242)), None);
        for line in ["", "sl local_address", "a b c d e f g h i j k"] {
            assert_eq!((udp_socket(line), listening(line), lock(line, (1, 1))), (None, None, None));
        }
    }
}
