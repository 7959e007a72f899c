//! Forwarders over Ethernet for comparison: packet sockets and the kernel's bridge. Neither of them
//! reads labels or counts frames.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use nix::sys::{
    socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt},
    time::{TimeVal, TimeValLike as _},
};
use strowger_io::{testgen::packet_socket, xdp::limits::ETHERTYPE};

use super::wires::{Mac, Wires, command, ip, mac};
use crate::Failure;

/// Maximum number of frames in one call, as in a burst of Strowger.
const BATCH: usize = 64;

/// Bytes of a frame's buffer, a multiple of a cache line.
const DATAGRAM_BUFFER_BYTES: usize = 1600;

/// Two packet sockets: frames are received on one and sent on the other with new MAC addresses, as
/// by a router. Both use the same buffers.
pub(crate) struct PacketSockets {
    inward: OwnedFd,
    outward: OwnedFd,
    addresses: [u8; 12],
}

impl PacketSockets {
    pub(crate) fn open(wires: &Wires) -> Result<Self, Failure> {
        let refused = |why: strowger_io::sys::Refusal| Failure::Refused(why.to_string());
        let inward = packet_socket(&wires.inward, Some(ETHERTYPE)).map_err(refused)?;
        let outward = packet_socket(&wires.outward, None).map_err(refused)?;
        // The socket blocks, because idle polls would take CPU time from the kernel on this core.
        // It has a timeout, so that the loop detects `stopped`.
        setsockopt(&inward.as_fd(), sockopt::ReceiveTimeout, &TimeVal::milliseconds(5))
            .map_err(Failure::kernel("SO_RCVTIMEO"))?;
        let mut addresses = [0; 12];
        let (to, from): (Mac, Mac) = (mac(&wires.sink)?, mac(&wires.outward)?);
        addresses[..6].copy_from_slice(&to);
        addresses[6..].copy_from_slice(&from);
        Ok(Self { inward, outward, addresses })
    }

    /// Forwards until `stopped`, with one recvmmsg and usually one sendmmsg per batch.
    pub(crate) fn forward(&self, mut stopped: impl FnMut() -> bool) {
        let mut buffers = Box::new([[0_u8; DATAGRAM_BUFFER_BYTES]; BATCH]);
        let mut in_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut out_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut lengths = [0; BATCH];
        let nowhere = [None; BATCH];
        while !stopped() {
            let mut came = 0;
            {
                let mut vectors = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
                let (fd, flags) = (self.inward.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
                let got = recvmmsg(fd, &mut in_headers, vectors.iter_mut(), flags, None);
                let Ok(got) = got else { continue };
                for message in got {
                    lengths[came] = message.bytes;
                    came += 1;
                }
            }
            for buffer in &mut buffers[..came] {
                buffer[..12].copy_from_slice(&self.addresses);
            }
            let vectors: arrayvec::ArrayVec<_, BATCH> = buffers[..came]
                .iter()
                .zip(&lengths)
                .map(|(buffer, &len)| [IoSlice::new(&buffer[..len])])
                .collect();
            // A frame that cannot be sent is lost. The other frames are still sent.
            let mut first = 0;
            while first < came && !stopped() {
                let fd = self.outward.as_raw_fd();
                let (vectors, nowhere) = (&vectors[first..], &nowhere[first..came]);
                let sent =
                    sendmmsg(fd, &mut out_headers, vectors, nowhere, [], MsgFlags::MSG_DONTWAIT);
                first += sent.map_or(1, |sent| sent.count().max(1));
            }
        }
    }
}

/// The kernel's bridge over both wires, with a static entry for the sink; removed when dropped.
pub(crate) struct Bridge(String);

impl Bridge {
    pub(crate) fn build(wires: &Wires) -> Result<Self, Failure> {
        let name = format!("b{:x}", std::process::id());
        ip(&format!("link add {name} type bridge mcast_snooping 0"))?;
        let bridge = Self(name);
        let name = &bridge.0;
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        for interface in [&wires.inward, &wires.outward] {
            ip(&format!("link set dev {interface} master {name}"))?;
        }
        ip(&format!("link set dev {name} up"))?;
        let at = mac(&wires.sink)?.map(|byte| format!("{byte:02x}")).join(":");
        command("bridge", &format!("fdb replace {at} dev {} master static", wires.outward))?;
        Ok(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // If the bridge cannot be removed now, it ends with the namespace.
        let _ = ip(&format!("link del {}", self.0));
    }
}
