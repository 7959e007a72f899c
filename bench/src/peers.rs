//! Two plain forwarders for comparison, each as fast as its design allows: a batch of datagrams per
//! call (`mmsg`), and one datagram per call (`one_by_one`). Neither reads labels. Both send each
//! datagram unchanged to the destination that belongs to its source, without a copy in user space.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
};

use arrayvec::ArrayVec;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use strowger_frame::tally::Counter;

use crate::packet::PACKET_BYTES_MAX;

/// Maximum number of datagrams in one call, as in a burst of Strowger.
const BATCH: usize = 64;

/// Bytes of a datagram's buffer, a multiple of a cache line.
const DATAGRAM_BUFFER_BYTES: usize = PACKET_BYTES_MAX.next_multiple_of(64);

/// Maps a source to its destination with a table that is indexed by the source's port, and one
/// comparison of the address.
#[derive(Debug)]
pub struct Routes {
    /// For each source port: its index in `known` plus 1, or 0 if the port is not known.
    by_port: Box<[u16]>,
    known: Vec<(SocketAddrV4, SocketAddrV4)>,
}

impl Routes {
    /// Makes routes from pairs of a source and its destination. Sources must have different ports.
    pub fn new(known: Vec<(SocketAddrV4, SocketAddrV4)>) -> Self {
        let mut by_port = vec![0; 1 << 16].into_boxed_slice();
        for (index, (from, _)) in (1..).zip(&known) {
            by_port[usize::from(from.port())] = index;
        }
        Self { by_port, known }
    }

    /// The destination of a datagram from this source.
    #[inline]
    fn destination(&self, from: SocketAddrV4) -> Option<SocketAddrV4> {
        let index = usize::from(self.by_port[usize::from(from.port())]).checked_sub(1)?;
        let &(known, to) = self.known.get(index)?;
        (known == from).then_some(to)
    }
}

/// Forwards until `stopped`, with one recvmmsg and one sendmmsg per batch. Counts receives without
/// a datagram in `idle_polls`.
pub fn mmsg(
    socket: &UdpSocket,
    routes: &Routes,
    idle_polls: &Counter,
    mut stopped: impl FnMut() -> bool,
) {
    let fd = socket.as_raw_fd();
    let mut buffers = Box::new([[0_u8; DATAGRAM_BUFFER_BYTES]; BATCH]);
    let mut in_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut out_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    while !stopped() {
        // Buffer, length and destination of each datagram to send.
        let mut onward = ArrayVec::<(usize, usize), BATCH>::new();
        let mut addresses = ArrayVec::<Option<SockaddrIn>, BATCH>::new();
        {
            let mut vectors = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let Ok(arrived) = recvmmsg(fd, &mut in_headers, vectors.iter_mut(), flags, None) else {
                idle_polls.add(1);
                continue;
            };
            for (buffer, message) in arrived.enumerate() {
                let from = message.address.map(|from| SocketAddrV4::new(from.ip(), from.port()));
                if let Some(to) = from.and_then(|from| routes.destination(from)) {
                    onward.push((buffer, message.bytes));
                    addresses.push(Some(to.into()));
                }
            }
        }
        let vectors: ArrayVec<[IoSlice<'_>; 1], BATCH> = onward
            .iter()
            .map(|&(buffer, bytes)| [IoSlice::new(&buffers[buffer][..bytes])])
            .collect();
        // A message that cannot be sent ends the call, and the later messages of the batch are
        // lost. Over loopback no message is refused, as the tests show.
        let flags = MsgFlags::MSG_DONTWAIT;
        let _ = sendmmsg(fd, &mut out_headers, &vectors, &addresses, [], flags);
    }
}

/// Forwards until `stopped`, with one recvfrom and one sendto per datagram. Counts receives without
/// a datagram in `idle_polls`.
pub fn one_by_one(
    socket: &UdpSocket,
    routes: &Routes,
    idle_polls: &Counter,
    mut stopped: impl FnMut() -> bool,
) {
    let mut buffer = [0; DATAGRAM_BUFFER_BYTES];
    while !stopped() {
        match socket.recv_from(&mut buffer) {
            Ok((bytes, SocketAddr::V4(from))) => {
                if let Some(to) = routes.destination(from) {
                    // A datagram that cannot be sent is lost.
                    let _ = socket.send_to(&buffer[..bytes], to);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => idle_polls.add(1),
            Ok(_) | Err(_) => {}
        }
    }
}
