//! A userspace WireGuard as a relay: boringtun between two tunnels.
//!
//! There are two forms. As deployed ([`device`]), boringtun uses its own device with a TUN
//! interface, and the kernel routes from one tunnel into the other. As a library, boringtun runs in
//! one loop without TUN, kernel routing or address lookup: each datagram is received, decapsulated,
//! encapsulated for the other tunnel and sent, with one or 64 datagrams in a call.

pub(crate) mod device;

use std::{
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
};

use arrayvec::ArrayVec;
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use strowger_frame::tally::Counter;

use crate::{
    Failure,
    sealed_udp::{Ends, FORWARDER_BUFFER_BYTES, Forward, Forwarder, Open, Parts, Seal},
    sockets::{address, socket},
};

/// Datagrams in one call of the batched form.
const BATCH: usize = 64;

/// Bytes of a datagram's buffer.
const DATAGRAM_BUFFER_BYTES: usize = 2_048;

/// Bytes that WireGuard adds to an IP packet: its header and a tag.
const OVERHEAD_BYTES: usize = 32;

/// A relay without a TUN between these ends, with its tunnels up, for datagrams of `size` bytes.
pub(crate) fn parts(ends: &Ends, size: usize, batched: bool) -> Result<Parts, Failure> {
    let socket = socket(FORWARDER_BUFFER_BYTES)?;
    let at = address(&socket)?;
    let (from, to) = (address(&ends.source)?, address(&ends.sink)?);
    let [(source, mut inward), (mut outward, sink)] = [tunnel(1)?, tunnel(2)?];
    let (seal, open) = by_hand(source, sink, size);
    let forward: Forward<'static> = Box::new(move |idle_polls, stopped| {
        let route = Route { socket: &socket, from, to };
        if batched {
            route.batches(&mut inward, &mut outward, idle_polls, stopped);
        } else {
            route.one_by_one(&mut inward, &mut outward, idle_polls, stopped);
        }
    });
    Ok(Parts { at, seal, open, forwarder: Forwarder::InThread(forward) })
}

/// The closures of the ends for datagrams of `size` bytes: the source's tunnel seals, and the
/// sink's tunnel opens.
fn by_hand(mut source: Tunn, mut sink: Tunn, size: usize) -> (Seal, Open) {
    let packet = ip_packet(size - OVERHEAD_BYTES);
    let seal: Seal = Box::new(move |bytes: &mut [u8]| match source.encapsulate(&packet, bytes) {
        TunnResult::WriteToNetwork(sealed) => assert_eq!(sealed.len(), size, "no padding"),
        other => unreachable!("young keys, and buffer: {other:?}"),
    });
    let mut opened = vec![0; DATAGRAM_BUFFER_BYTES];
    let open: Open = Box::new(move |bytes: &mut [u8]| {
        let came = sink.decapsulate(None, bytes, &mut opened);
        matches!(came, TunnResult::WriteToTunnelV4(packet, _) if packet.last() == Some(&7))
    });
    (seal, open)
}

/// Both ends of a tunnel that is up. The first end initiated it and may send.
fn tunnel(number: u8) -> Result<(Tunn, Tunn), Failure> {
    let secret = |side| StaticSecret::from([16 * number + side; 32]);
    let public = |side| PublicKey::from(&secret(side));
    let tunn =
        |ours, theirs| Tunn::new(secret(ours), public(theirs), None, None, u32::from(ours), None);
    let (mut one, mut other) = (tunn(1, 2), tunn(2, 1));
    let mut buffers = [[0; DATAGRAM_BUFFER_BYTES]; 2];
    let [here, there] = &mut buffers;
    let failed = || Failure::Bug("two ends of one tunnel understand each other");
    let TunnResult::WriteToNetwork(initiation) = one.format_handshake_initiation(here, false)
    else {
        return Err(failed());
    };
    let TunnResult::WriteToNetwork(response) = other.decapsulate(None, initiation, there) else {
        return Err(failed());
    };
    let TunnResult::WriteToNetwork(keepalive) = one.decapsulate(None, response, here) else {
        return Err(failed());
    };
    match other.decapsulate(None, keepalive, there) {
        TunnResult::Done => Ok((one, other)),
        _ => Err(failed()),
    }
}

/// The addresses that are reached through the tunnels.
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SINK: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// An IPv4 packet of `bytes` bytes from `SOURCE` to `SINK`.
fn ip_packet(bytes: usize) -> Vec<u8> {
    let mut packet = vec![7; bytes];
    let (header, _) = packet.split_at_mut(20);
    header.fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(bytes as u16).to_be_bytes());
    header[8] = 64; // hops
    header[9] = 253; // a protocol for experiments (RFC 3692)
    header[12..16].copy_from_slice(&SOURCE.octets());
    header[16..20].copy_from_slice(&SINK.octets());
    let words =
        header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The socket, and source and destination of the traffic.
struct Route<'a> {
    socket: &'a UdpSocket,
    from: SocketAddrV4,
    to: SocketAddrV4,
}

impl Route<'_> {
    fn one_by_one(
        &self,
        inward: &mut Tunn,
        outward: &mut Tunn,
        idle_polls: &Counter,
        stopped: &dyn Fn() -> bool,
    ) {
        let (mut came, mut opened, mut sealed) =
            ([0; DATAGRAM_BUFFER_BYTES], [0; DATAGRAM_BUFFER_BYTES], [0; DATAGRAM_BUFFER_BYTES]);
        while !stopped() {
            let Ok((length, from)) = self.socket.recv_from(&mut came) else {
                idle_polls.add(1);
                continue;
            };
            if from != self.from.into() {
                continue;
            }
            let TunnResult::WriteToTunnelV4(packet, _) =
                inward.decapsulate(None, &came[..length], &mut opened)
            else {
                continue;
            };
            if let TunnResult::WriteToNetwork(out) = outward.encapsulate(packet, &mut sealed) {
                // A datagram that cannot be sent is lost.
                let _ = self.socket.send_to(out, self.to);
            }
        }
    }

    fn batches(
        &self,
        inward: &mut Tunn,
        outward: &mut Tunn,
        idle_polls: &Counter,
        stopped: &dyn Fn() -> bool,
    ) {
        let fd = self.socket.as_raw_fd();
        let mut buffers = Box::new([[0_u8; DATAGRAM_BUFFER_BYTES]; BATCH]);
        let mut sealed = vec![[0_u8; DATAGRAM_BUFFER_BYTES]; BATCH];
        let mut opened = [0; DATAGRAM_BUFFER_BYTES];
        let mut headers_in = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut headers_out = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let to = Some(SockaddrIn::from(self.to));
        while !stopped() {
            let mut lengths = ArrayVec::<usize, BATCH>::new();
            {
                let mut vectors = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
                let flags = MsgFlags::MSG_DONTWAIT;
                let came = recvmmsg(fd, &mut headers_in, vectors.iter_mut(), flags, None);
                let Ok(came) = came else {
                    idle_polls.add(1);
                    continue;
                };
                let ours = |from: Option<SockaddrIn>| {
                    from.is_some_and(|from| SocketAddrV4::from(from) == self.from)
                };
                lengths.extend(came.map(|one| if ours(one.address) { one.bytes } else { 0 }));
            }
            let mut outs = ArrayVec::<usize, BATCH>::new();
            for (buffer, &length) in buffers.iter().zip(&lengths) {
                let TunnResult::WriteToTunnelV4(packet, _) =
                    inward.decapsulate(None, &buffer[..length], &mut opened)
                else {
                    continue;
                };
                let place = &mut sealed[outs.len()];
                if let TunnResult::WriteToNetwork(out) = outward.encapsulate(packet, place) {
                    outs.push(out.len());
                }
            }
            let vectors =
                sealed.iter().zip(&outs).map(|(buffer, &out)| [IoSlice::new(&buffer[..out])]);
            let vectors: ArrayVec<_, BATCH> = vectors.collect();
            let addresses = [to; BATCH];
            // If a call ends early, the remaining datagrams of the batch are lost.
            let flags = MsgFlags::empty();
            let addresses = &addresses[..vectors.len()];
            let _ = sendmmsg(fd, &mut headers_out, vectors.iter(), addresses, [], flags);
        }
    }
}
