//! Sockets for sources, sinks and plain forwarders: bound to loopback, non-blocking, with a given
//! buffer size, and with drop counters that can be read.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt},
};

use crate::Failure;

/// Bytes of the receive buffer of every forwarder's socket: the default of Strowger's port.
pub(crate) const BUFFER_BYTES: usize = 4 << 20;

/// Maximum number of reads of the kernel's table in which a socket may be missing.
const READS_MAX: u32 = 100;

/// Longest time to wait until the receive buffer of a socket is empty.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A socket on loopback, with a port that the kernel chooses and a receive buffer of this size.
pub(crate) fn socket(receive_bytes: usize) -> Result<UdpSocket, Failure> {
    let socket =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::kernel("bind to loopback"))?;
    socket.set_nonblocking(true).map_err(Failure::kernel("O_NONBLOCK"))?;
    // `SO_RCVBUFFORCE` may exceed the system's limit, but requires `CAP_NET_ADMIN`. Without this
    // capability, the limit applies.
    if setsockopt(&socket, sockopt::RcvBufForce, &receive_bytes).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &receive_bytes)
            .map_err(Failure::kernel("SO_RCVBUF"))?;
    }
    Ok(socket)
}

/// The address of a socket that [`socket`] made.
pub(crate) fn address(socket: &UdpSocket) -> Result<SocketAddrV4, Failure> {
    match socket.local_addr().map_err(Failure::kernel("getsockname"))? {
        SocketAddr::V4(at) => Ok(at),
        SocketAddr::V6(_) => Err(Failure::Bug("sockets are bound to 127.0.0.1")),
    }
}

/// Enables GRO on the socket, so that the kernel delivers whole trains.
pub(crate) fn take_trains(socket: &UdpSocket) -> Result<(), Failure> {
    setsockopt(socket, sockopt::UdpGroSegment, &true).map_err(Failure::kernel("UDP_GRO"))
}

/// The kernel's state of a socket on loopback, from `/proc/thread-self/net/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Bytes of memory that the datagrams in the receive buffer occupy.
    pub(crate) waiting_bytes: u64,
    /// Datagrams dropped so far; a train counts once.
    pub(crate) drops: u64,
}

impl Kernel {
    /// The sum over all sockets that are bound to this port of 127.0.0.1.
    pub(crate) fn of(port: u16) -> Result<Self, Failure> {
        // The table is read while other sockets open and close, so a line may be missing.
        for _ in 0..READS_MAX {
            // This is the table of the thread, because the thread may be in another network
            // namespace than the process.
            let table = fs::read_to_string("/proc/thread-self/net/udp");
            let table = table.map_err(Failure::kernel("/proc/thread-self/net/udp"))?;
            if let Some(kernel) = Self::in_table(&table, port) {
                return Ok(kernel);
            }
        }
        Err(Failure::Bug("the socket is in the kernel's table"))
    }

    fn in_table(table: &str, port: u16) -> Option<Self> {
        let local = format!("0100007F:{port:04X}");
        let rows = table.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let is_it = fields.nth(1).is_some_and(|at| at == local);
            let waiting = if is_it { fields.nth(2) } else { None };
            let (_, waiting) = waiting?.split_once(':')?;
            let waiting_bytes = u64::from_str_radix(waiting, 16).ok()?;
            let drops = line.split_whitespace().last()?.parse().ok()?;
            Some(Self { waiting_bytes, drops })
        });
        rows.reduce(|a, b| Self {
            waiting_bytes: a.waiting_bytes + b.waiting_bytes,
            drops: a.drops + b.drops,
        })
    }

    /// Waits until the receive buffer is empty, for at most five seconds.
    pub(crate) fn wait_drained(port: u16) -> Result<Self, Failure> {
        let started = Instant::now();
        loop {
            let kernel = Self::of(port)?;
            if kernel.waiting_bytes == 0 || started.elapsed() > DRAIN_MAX {
                return Ok(kernel);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Raises the descriptor limit of this process, if necessary and allowed, so that it can open
/// `more` descriptors.
pub(crate) fn ensure_descriptors(more: u64) -> Result<(), Failure> {
    let failed = Failure::kernel("RLIMIT_NOFILE");
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(&failed)?;
    let wanted = more + 256;
    if now >= wanted {
        return Ok(());
    }
    if most < wanted {
        return Err(Failure::Refused(format!(
            "{wanted} descriptors are needed and {most} allowed; raise it with: ulimit -Hn {wanted}"
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, most).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_counters_are_read_from_the_line_of_the_port() {
        let table = "  sl  local_address rem_address   st ... drops\n \
            12: 0100007F:1F90 00000000:0000 07 0:0 00:0 0 0 0 9 2 0000 17\n \
            13: 0100007F:1F91 00000000:0000 07 0:1a 00:0 0 0 0 9 2 0000 23\n";
        let there = Kernel { waiting_bytes: 0x1a, drops: 23 };
        assert_eq!(Kernel::in_table(table, 0x1f91), Some(there));
        assert_eq!(Kernel::in_table(table, 0x1f92), None);
        // Several sockets of a listener have the same port.
        let twice =
            format!("{table}   14: 0100007F:1F91 00000000:0000 07 0:01 00:0 0 0 0 9 2 0000 2\n");
        let both = Kernel { waiting_bytes: 0x1b, drops: 25 };
        assert_eq!(Kernel::in_table(&twice, 0x1f91), Some(both));
    }

    #[test]
    fn the_kernel_counts_datagrams_that_overflow_a_small_buffer() {
        let (from, to) = (socket(0).expect("socket"), socket(0).expect("socket"));
        let at = address(&to).expect("bound");
        let sent = (0..500).filter(|_| from.send_to(&[0; 500], at).is_ok()).count();
        let dropped = Kernel::of(at.port()).expect("it is there").drops;
        let mut got = 0;
        while to.recv(&mut [0; 500]).is_ok() {
            got += 1;
        }
        assert!(dropped > 0);
        assert_eq!(sent as u64, got + dropped);
    }
}
