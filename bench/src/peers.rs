//! The two forwarders that ours is measured against, each as fast as its design allows: a batch of
//! datagrams a call (`mmsg`), and one datagram a call (`one_by_one`). Neither knows a label; both
//! send each datagram on to where its source's go, untouched, without a copy of their own.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
};

use arrayvec::ArrayVec;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use strowger_frame::tally::Counter;

use crate::packet::PACKET_BYTES_MAX;

/// Datagrams in one call at most: our own burst.
const BATCH: usize = 64;

/// Room for one datagram, ending on a cache line.
const ROOM_BYTES: usize = PACKET_BYTES_MAX.next_multiple_of(64);

/// From a source to its destination: one load by the source's port, and the address compared.
#[derive(Debug)]
pub struct Routes {
    /// By source port; index + 1 into `known`, or 0.
    by_port: Box<[u16]>,
    known: Vec<(SocketAddrV4, SocketAddrV4)>,
}

impl Routes {
    /// From the first of each pair to the second. Two sources with one port would be one too many.
    pub fn new(known: Vec<(SocketAddrV4, SocketAddrV4)>) -> Self {
        let mut by_port = vec![0; 1 << 16].into_boxed_slice();
        for (index, (from, _)) in (1..).zip(&known) {
            by_port[usize::from(from.port())] = index;
        }
        Self { by_port, known }
    }

    /// Where a datagram from here goes.
    #[inline]
    fn onward(&self, from: SocketAddrV4) -> Option<SocketAddrV4> {
        let index = usize::from(self.by_port[usize::from(from.port())]).checked_sub(1)?;
        let &(known, to) = self.known.get(index)?;
        (known == from).then_some(to)
    }
}

/// Forwards until `stopped`, with one recvmmsg and one sendmmsg a batch. Counts in `vain` how often
/// it looked and found nothing.
pub fn mmsg(
    socket: &UdpSocket,
    routes: &Routes,
    vain: &Counter,
    mut stopped: impl FnMut() -> bool,
) {
    let fd = socket.as_raw_fd();
    let mut rooms = Box::new([[0_u8; ROOM_BYTES]; BATCH]);
    let mut in_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut out_headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    while !stopped() {
        // Room, length, destination of each datagram that goes on.
        let mut onward = ArrayVec::<(usize, usize), BATCH>::new();
        let mut addresses = ArrayVec::<Option<SockaddrIn>, BATCH>::new();
        {
            let mut vectors = rooms.each_mut().map(|room| [IoSliceMut::new(room)]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let Ok(arrived) = recvmmsg(fd, &mut in_headers, vectors.iter_mut(), flags, None) else {
                vain.add(1);
                continue;
            };
            for (room, message) in arrived.enumerate() {
                let from = message.address.map(|from| SocketAddrV4::new(from.ip(), from.port()));
                if let Some(to) = from.and_then(|from| routes.onward(from)) {
                    onward.push((room, message.bytes));
                    addresses.push(Some(to.into()));
                }
            }
        }
        let vectors: ArrayVec<[IoSlice<'_>; 1], BATCH> =
            onward.iter().map(|&(room, bytes)| [IoSlice::new(&rooms[room][..bytes])]).collect();
        // A message that cannot go ends the call, and those behind it are lost; over loopback none
        // is refused, as the tests of the forwarders see.
        let flags = MsgFlags::MSG_DONTWAIT;
        let _ = sendmmsg(fd, &mut out_headers, &vectors, &addresses, [], flags);
    }
}

/// Forwards until `stopped`, with one recvfrom and one sendto a datagram. Counts in `vain` how often
/// it looked and found nothing.
pub fn one_by_one(
    socket: &UdpSocket,
    routes: &Routes,
    vain: &Counter,
    mut stopped: impl FnMut() -> bool,
) {
    let mut room = [0; ROOM_BYTES];
    while !stopped() {
        match socket.recv_from(&mut room) {
            Ok((bytes, SocketAddr::V4(from))) => {
                if let Some(to) = routes.onward(from) {
                    // What cannot go is lost.
                    let _ = socket.send_to(&room[..bytes], to);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => vain.add(1),
            Ok(_) | Err(_) => {}
        }
    }
}
