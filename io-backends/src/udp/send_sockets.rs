//! The send sockets of a port, and the assignment of neighbours to them.
//!
//! The kernel charges a frame to its socket until the frame has left the machine. Frames for a dead
//! next hop or a slow interface therefore fill a send buffer. This module ensures that frames to
//! other neighbours still find room.
//!
//! All sockets are bound to one address. Normally the frames of all neighbours are sent on the
//! *shared* socket, and a flush is one sendmmsg. The following rules depend on the bytes in flight
//! (`SIOCOUTQ`):
//!
//! 1. Each time a quarter of the shared socket's buffer was sent, the port reads the bytes in
//!    flight. If a quarter of the buffer or more is in flight, the socket is *congested*, until
//!    less than an eighth is in flight.
//! 2. Under congestion each neighbour has an allowance on the shared socket. A neighbour that has
//!    used it up is *probed*: it has a *spare* socket to itself, with the same allowance, until
//!    some of its frames have left. After the sockets, all its frames share one queue, so frames
//!    that were sent earlier on the shared socket have then left too. The neighbour returns to the
//!    shared socket with a new allowance, which grows with each probe that ends with nothing in
//!    flight.
//! 3. If none of its frames has left for some rounds, frames beyond this allowance count as
//!    `send_stalled`, even after the congestion has ended.
//! 4. A neighbour whose probe makes no progress loses its socket to the next neighbour that needs a
//!    probe. After some such probes it is *parked*: its frames are dropped until its next probe.
//!    The number of dropped bursts grows with each failed probe.
//! 5. If the shared socket still refuses a send, a spare socket with room replaces it.
//!
//! A neighbour whose frames are stuck thus holds at most two allowances, however much is sent to
//! it, and cannot fill the buffer that other neighbours use. Order is kept because frames of one
//! flow share one queue after the sockets: the kernel's neighbour table and its queueing
//! disciplines classify a datagram by its addresses, not by its socket.
//!
//! The last socket sends only to addresses (handshakes, path probes): see [`SendSockets::direct`].

use strowger_frame::Mark;

use super::{
    limits::{
        ALLOWANCE_PART, CHECK_PART, DRAINED_PART, FAILED_PROBES_FREE, FAILED_PROBES_MAX,
        PARKED_BURSTS, PREEMPT_ROUNDS, STALLED_ROUNDS, TRUST_MAX, USABLE_PART,
    },
    neighbours::Neighbours,
    socket::Socket,
};

/// The socket on which a neighbour's frames are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SendBy {
    /// The shared socket.
    #[default]
    Shared,
    /// None: the neighbour has used up its allowance and waits for a probe.
    Waiting,
    /// The spare socket with this number: the neighbour is probed.
    Spare(u8),
    /// None: the neighbour is parked, because its probes failed.
    Parked,
}

/// State of the sends to a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SendState {
    pub(super) by: SendBy,
    /// Number of times that the allowance is doubled. It grows with each probe that ends with
    /// nothing in flight, up to `TRUST_MAX`.
    trust: u8,
    /// Number of probes that ended without progress. Each probe that ends with nothing in flight
    /// reduces it.
    failed_probes: u8,
    /// Number of bursts until the next probe. All but the last one are dropped.
    parked_bursts: u16,
    /// Bytes sent on the shared socket in `period`.
    spent: u32,
    /// The period of congestion in which `spent` was counted.
    period: u32,
}

/// The socket for the next frames to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// The shared socket accepts this many bytes.
    Shared(usize),
    /// This spare socket accepts this many bytes, which must be sent immediately.
    Spare(u8, usize),
    /// No socket yet: the caller keeps the frames.
    Later,
    /// No socket: the caller drops the frames.
    Lost,
}

#[derive(Debug)]
struct SendSocket {
    socket: Socket,
    /// Size of the send buffer, in bytes.
    capacity: usize,
    /// The neighbour that uses this socket alone. The entry is valid only if the state of that
    /// neighbour names this socket.
    owner: Option<Mark>,
    /// Bytes in flight when the probe began, and at the last check.
    base: usize,
    last: usize,
    /// Whether frames to the owner have been sent on this socket.
    has_sent: bool,
    /// Number of consecutive rounds without progress, and the round of the last check.
    stalled_rounds: u32,
    checked_in: u32,
}

/// All sockets of a port.
#[derive(Debug)]
pub(super) struct SendSockets {
    /// The sockets. The first one also receives.
    sockets: Vec<SendSocket>,
    /// Index of the shared socket.
    shared: usize,
    /// Bytes sent on the shared socket since the last check, and the number of bytes at which the
    /// next check is due.
    sent: usize,
    check_at: usize,
    congested: bool,
    period: u32,
    /// Number of flushes so far. It is the port's only measure of time.
    round: u32,
}

impl SendSocket {
    fn new(socket: Socket) -> Self {
        let capacity = socket.read(libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap_or_default();
        let capacity = usize::try_from(capacity).unwrap_or_default().max(1);
        Self {
            socket,
            capacity,
            owner: None,
            base: 0,
            last: 0,
            has_sent: false,
            stalled_rounds: 0,
            checked_in: 0,
        }
    }

    /// Reads the bytes in flight. Returns whether some of the frames to the owner have left since
    /// the last check.
    fn check(&mut self, round: u32) -> bool {
        let in_flight = self.socket.in_flight();
        let moved = self.has_sent && (in_flight < self.last || in_flight <= self.base);
        self.stalled_rounds = match moved {
            true => 0,
            false => self.stalled_rounds.saturating_add(u32::from(self.checked_in != round)),
        };
        (self.last, self.checked_in) = (in_flight, round);
        moved
    }
}

impl SendSockets {
    /// Begins with one socket, which receives and sends.
    pub(super) fn new(receiving: Socket) -> Self {
        let first = SendSocket::new(receiving);
        let check_at = first.capacity / CHECK_PART;
        let sockets = vec![first];
        Self { sockets, shared: 0, sent: 0, check_at, congested: false, period: 0, round: 0 }
    }

    /// Adds send sockets. They must be bound to the same address and receive nothing.
    pub(super) fn add(&mut self, more: impl IntoIterator<Item = Socket>) {
        self.sockets.extend(more.into_iter().map(SendSocket::new));
    }

    /// The receiving socket.
    #[inline]
    pub(super) fn receiving(&self) -> &Socket {
        &self.sockets[0].socket
    }

    /// The shared socket.
    #[inline]
    pub(super) fn shared(&self) -> &Socket {
        &self.sockets[self.shared].socket
    }

    pub(super) fn spare(&self, number: u8) -> &Socket {
        &self.sockets[usize::from(number)].socket
    }

    /// Whether the shared socket is congested. Then [`place`](Self::place) selects the socket for
    /// each burst.
    #[inline]
    pub(super) fn is_congested(&self) -> bool {
        self.congested
    }

    /// The socket for frames to addresses, followed by those to try when it is full.
    ///
    /// It is a separate socket, so that data to neighbours does not delay a handshake.
    pub(super) fn direct(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().rev().map(|one| &one.socket)
    }

    /// Begins a new round. Called when the port is flushed.
    #[inline]
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Counts `bytes`, which is an estimate, as sent on the shared socket.
    #[inline]
    pub(super) fn count(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.check_at {
            self.check();
        }
    }

    #[cold]
    fn check(&mut self) {
        let shared = &self.sockets[self.shared];
        let in_flight = shared.socket.in_flight();
        self.sent = 0;
        if self.congested {
            self.congested = in_flight >= shared.capacity / DRAINED_PART;
        } else if in_flight >= shared.capacity / CHECK_PART && self.sockets.len() > 1 {
            self.set_congested();
        }
    }

    fn set_congested(&mut self) {
        if !self.congested {
            self.congested = true;
            self.period = self.period.wrapping_add(1);
        }
    }

    /// Replaces the shared socket, which has refused a send. Returns `false` if no other socket has
    /// room.
    #[cold]
    pub(super) fn replace_shared(&mut self, neighbours: &mut Neighbours) -> bool {
        if self.sockets.len() == 1 {
            return false;
        }
        self.set_congested();
        let unused = self.unused(neighbours).or_else(|| {
            // Ends a probe if necessary: a probe can wait, but the shared socket cannot.
            let in_flight = |&number: &usize| self.sockets[number].socket.in_flight();
            let number = self.spares().min_by_key(in_flight)?;
            let one = &self.sockets[number];
            (in_flight(&number) < one.capacity / USABLE_PART).then_some(number as u8)
        });
        let Some(number) = unused else { return false };
        let owner = self.sockets[usize::from(number)].owner.take();
        if let Some(neighbour) = owner.and_then(|owner| neighbours.at_mut(owner)) {
            neighbour.send_state.by = SendBy::Waiting;
        }
        self.shared = usize::from(number);
        self.sent = 0;
        true
    }

    /// The spare sockets: all except the shared one and the one for addresses. If there are only
    /// two sockets, the one for addresses is a spare socket too.
    fn spares(&self) -> impl Iterator<Item = usize> + use<> {
        let (shared, all) = (self.shared, self.sockets.len());
        let end = if all > 2 { all - 1 } else { all };
        (0..end).filter(move |number| *number != shared)
    }

    /// Returns the spare socket that is not in use and has the fewest bytes in flight, if it has
    /// room.
    fn unused(&mut self, neighbours: &mut Neighbours) -> Option<u8> {
        let mut best = None;
        for number in self.spares() {
            if self.owner(number, neighbours).is_some() {
                continue;
            }
            let one = &self.sockets[number];
            let in_flight = one.socket.in_flight();
            if in_flight < one.capacity / USABLE_PART
                && best.is_none_or(|(least, _)| in_flight < least)
            {
                best = Some((in_flight, number as u8));
            }
        }
        best.map(|(_, number)| number)
    }

    /// Returns the state of the neighbour that is probed on this socket.
    fn owner(&mut self, number: usize, neighbours: &mut Neighbours) -> Option<SendState> {
        let owner = self.sockets[number].owner?;
        let send_state = neighbours.at_mut(owner).map(|neighbour| neighbour.send_state);
        // If the neighbour was forgotten or moved, its state no longer names this socket.
        let current = send_state.filter(|send_state| send_state.by == SendBy::Spare(number as u8));
        if current.is_none() {
            self.sockets[number].owner = None;
        }
        current
    }

    /// Returns the socket for the next frames to `mark`. Call it again after the returned number of
    /// bytes was sent.
    #[cold]
    pub(super) fn place(&mut self, neighbours: &mut Neighbours, mark: Mark) -> Placement {
        let Some(neighbour) = neighbours.at_mut(mark) else { return Placement::Lost };
        let send_state = &mut neighbour.send_state;
        match send_state.by {
            SendBy::Shared => {
                if send_state.period != self.period {
                    (send_state.period, send_state.spent) = (self.period, 0);
                }
                if !self.congested || self.sockets.len() == 1 {
                    return Placement::Shared(usize::MAX);
                }
                match self.allowance(send_state).checked_sub(send_state.spent as usize) {
                    Some(left @ 1..) => Placement::Shared(left),
                    _ => {
                        send_state.by = SendBy::Waiting;
                        self.probe(neighbours, mark)
                    }
                }
            }
            SendBy::Waiting => self.probe(neighbours, mark),
            SendBy::Spare(number) => {
                let window = self.allowance(send_state);
                let one = &mut self.sockets[usize::from(number)];
                if one.check(self.round) {
                    self.readmit(number, neighbours);
                    return self.place(neighbours, mark);
                }
                match window.checked_sub(one.last.saturating_sub(one.base)) {
                    Some(left @ 1..) => Placement::Spare(number, left),
                    _ if one.stalled_rounds < STALLED_ROUNDS => Placement::Later,
                    _ => Placement::Lost,
                }
            }
            SendBy::Parked => {
                send_state.parked_bursts = send_state.parked_bursts.saturating_sub(1);
                if send_state.parked_bursts > 0 {
                    Placement::Lost
                } else {
                    self.probe(neighbours, mark)
                }
            }
        }
    }

    /// Number of bytes that a neighbour may send on the shared socket, and may have in flight on a
    /// spare one.
    fn allowance(&self, send_state: &SendState) -> usize {
        let least = self.sockets[self.shared].capacity / ALLOWANCE_PART;
        (least << send_state.trust) >> send_state.failed_probes
    }

    /// Counts `bytes` to this neighbour as sent on the shared socket.
    pub(super) fn spend(&self, send_state: &mut SendState, bytes: usize) {
        send_state.spent = send_state.spent.saturating_add(bytes as u32);
    }

    /// Records that frames to the owner were sent on this spare socket.
    pub(super) fn sent_by(&mut self, number: u8) {
        let one = &mut self.sockets[usize::from(number)];
        one.last = one.socket.in_flight();
        one.has_sent = true;
    }

    /// Ends a probe that made progress or that has sent nothing: the neighbour returns to the
    /// shared socket.
    fn readmit(&mut self, number: u8, neighbours: &mut Neighbours) {
        let one = &mut self.sockets[usize::from(number)];
        let drained = one.last <= one.base;
        let Some(owner) = one.owner.take().and_then(|owner| neighbours.at_mut(owner)) else {
            return;
        };
        let send_state = &mut owner.send_state;
        send_state.by = SendBy::Shared;
        send_state.spent = 0;
        if drained {
            send_state.trust = (send_state.trust + 1).min(TRUST_MAX);
            send_state.failed_probes = send_state.failed_probes.saturating_sub(1);
        } else {
            send_state.trust = send_state.trust.saturating_sub(1);
        }
    }

    /// Assigns a spare socket to a neighbour that has used up its allowance.
    fn probe(&mut self, neighbours: &mut Neighbours, mark: Mark) -> Placement {
        let failed_probes =
            neighbours.at_mut(mark).map_or(0, |neighbour| neighbour.send_state.failed_probes);
        let mut most_stalled: Option<(u32, usize)> = None;
        for number in self.spares() {
            let Some(owner) = self.owner(number, neighbours) else { continue };
            // The owner loses its socket sooner if more of its probes have failed.
            let enough = if failed_probes < owner.failed_probes { 1 } else { PREEMPT_ROUNDS };
            let one = &mut self.sockets[number];
            if one.check(self.round) || !one.has_sent {
                self.readmit(number as u8, neighbours);
            } else if one.last < one.capacity / USABLE_PART
                && one.stalled_rounds >= enough
                && most_stalled
                    .is_none_or(|(stalled_rounds, _)| one.stalled_rounds > stalled_rounds)
            {
                most_stalled = Some((one.stalled_rounds, number));
            }
        }
        let number = match (self.unused(neighbours), most_stalled) {
            (Some(number), _) => number,
            (None, Some((_, number))) => {
                self.end_probe(number, neighbours);
                number as u8
            }
            (None, None) => return self.wait(neighbours, mark),
        };
        let one = &mut self.sockets[usize::from(number)];
        one.base = one.socket.in_flight();
        (one.owner, one.last, one.has_sent) = (Some(mark), one.base, false);
        (one.stalled_rounds, one.checked_in) = (0, self.round);
        let Some(neighbour) = neighbours.at_mut(mark) else { return Placement::Lost };
        neighbour.send_state.by = SendBy::Spare(number);
        let send_state = neighbour.send_state;
        Placement::Spare(number, self.allowance(&send_state))
    }

    /// Ends a probe without progress, to free the socket for another neighbour.
    ///
    /// After its first failed probe the neighbour only waits again, because a device may be slow to
    /// report what has left. After further failed probes it is parked.
    fn end_probe(&mut self, number: usize, neighbours: &mut Neighbours) {
        let owner = self.sockets[number].owner.take();
        let Some(neighbour) = owner.and_then(|owner| neighbours.at_mut(owner)) else { return };
        let send_state = &mut neighbour.send_state;
        send_state.trust = 0;
        match send_state.failed_probes.checked_sub(FAILED_PROBES_FREE) {
            None => send_state.by = SendBy::Waiting,
            Some(over) => {
                send_state.by = SendBy::Parked;
                send_state.parked_bursts = PARKED_BURSTS << over;
            }
        }
        send_state.failed_probes = (send_state.failed_probes + 1).min(FAILED_PROBES_MAX);
    }

    /// Handles a neighbour that needs a probe while no spare socket is available.
    fn wait(&mut self, neighbours: &mut Neighbours, mark: Mark) -> Placement {
        let Some(neighbour) = neighbours.at_mut(mark) else { return Placement::Lost };
        let send_state = &mut neighbour.send_state;
        send_state.parked_bursts = 1;
        if send_state.failed_probes >= FAILED_PROBES_FREE {
            Placement::Lost
        } else {
            Placement::Later
        }
    }
}
