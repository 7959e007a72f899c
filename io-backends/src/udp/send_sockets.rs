//! The sockets that a port sends by, and which neighbour sends by which. A frame stays charged to its
//! socket until it has left the machine, so frames for a dead next hop or a slow interface fill a send
//! buffer; this module keeps them from filling the one that the other neighbours use.
//!
//! All sockets are bound to one address. In the normal case every neighbour sends by the *shared*
//! socket, and a flush is one sendmmsg. The rules, all of them by bytes in flight (`SIOCOUTQ`):
//!
//! 1. When a quarter of the shared socket's buffer has been sent, the port asks how much is in flight.
//!    A quarter or more, and the socket is *under suspicion*, until less than an eighth is in flight.
//! 2. Under suspicion each neighbour has an allowance on the shared socket. A neighbour that has spent
//!    it is *on trial*: it is alone on a *spare* socket, with as much again, until some of its frames
//!    have left. The way of its frames behind the socket is one queue, so what it sent before by the shared
//!    socket has left as well: it returns, with a new allowance, which grows with each trial that ends
//!    with nothing in flight.
//! 3. While nothing of it leaves, what is more than that is lost as `send_stalled`, after suspicion
//!    has ended, too.
//! 4. A neighbour on trial for which nothing moves makes room for the next one that needs a trial.
//!    After some such trials it is *parked*: its frames are lost, until it gets a trial again, later
//!    each time.
//! 5. When the shared socket refuses a send all the same, an unused spare socket takes its place.
//!
//! So a neighbour that never drains holds two allowances, however little or much it
//! sends, and no frame of another is lost for it. Order holds because frames of one flow meet in one
//! queue behind all sockets: the kernel's neighbour table and its queueing disciplines know a
//! datagram by its addresses, not by the socket that it came from.
//!
//! The last socket takes frames to an address only (handshakes, probes): see [`SendSockets::direct`].

use strowger_frame::Mark;

use super::{
    limits::{
        ALLOWANCE_PART, CALM_PART, LOOK_PART, PARKED_BURSTS, PREEMPT_ROUNDS, STALLED_ROUNDS,
        STRIKES_FREE, STRIKES_MAX, TRUST_MAX, USABLE_PART,
    },
    neighbours::Neighbours,
    socket::Socket,
};

/// By what a neighbour sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    /// The socket that all share.
    #[default]
    Shared,
    /// None until it has a trial: it has spent its allowance.
    Waiting,
    /// A socket of its own, by number: it is on trial.
    Spare(u8),
    /// None.
    Parked,
}

/// What is known of a neighbour's sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) by: By,
    /// Trials in a row after which nothing was in flight.
    trust: u8,
    /// Trials that ended because nothing moved.
    strikes: u8,
    /// Bursts to lose before the next trial.
    parked_bursts: u16,
    /// Bytes sent by the shared socket in `period`.
    spent: u32,
    /// The period of suspicion that `spent` belongs to.
    period: u32,
}

/// Where frames may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To the shared socket, so many bytes.
    Shared(usize),
    /// At once by this spare socket, so many bytes.
    Spare(u8, usize),
    /// Nowhere yet.
    Later,
    /// Nowhere: they are lost.
    Lost,
}

#[derive(Debug)]
struct SendSocket {
    socket: Socket,
    /// Bytes that the kernel lets be in flight.
    capacity: usize,
    /// Who is alone on it, if the neighbour's standing says so too.
    owner: Option<Mark>,
    /// In flight when the trial began; and when it was last looked at.
    base: usize,
    last: usize,
    /// Whether the owner has sent by it.
    has_sent: bool,
    /// Rounds in a row in which nothing had left, and the round of the last look.
    stuck: u32,
    looked: u32,
}

/// All sockets of a port.
#[derive(Debug)]
pub(super) struct SendSockets {
    /// The first one receives, too.
    sockets: Vec<SendSocket>,
    /// Which one is shared.
    shared: usize,
    /// Bytes sent by it since it was last looked at, and at how many it is looked at next.
    sent: usize,
    look_at: usize,
    suspicion: bool,
    period: u32,
    /// Flushes so far: the one measure of time that a port has.
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
            stuck: 0,
            looked: 0,
        }
    }

    /// Looks at what is in flight; whether something of the owner's has left since the last look.
    fn look(&mut self, round: u32) -> bool {
        let in_flight = self.socket.in_flight();
        let moved = self.has_sent && (in_flight < self.last || in_flight <= self.base);
        self.stuck = match moved {
            true => 0,
            false => self.stuck.saturating_add(u32::from(self.looked != round)),
        };
        (self.last, self.looked) = (in_flight, round);
        moved
    }
}

impl SendSockets {
    /// One socket, which receives and sends.
    pub(super) fn new(receiving: Socket) -> Self {
        let first = SendSocket::new(receiving);
        let look_at = first.capacity / LOOK_PART;
        let sockets = vec![first];
        Self { sockets, shared: 0, sent: 0, look_at, suspicion: false, period: 0, round: 0 }
    }

    /// Adds sockets to send by. They must be bound to the same address and receive nothing.
    pub(super) fn add(&mut self, more: impl IntoIterator<Item = Socket>) {
        self.sockets.extend(more.into_iter().map(SendSocket::new));
    }

    /// The socket that receives.
    #[inline]
    pub(super) fn receiving(&self) -> &Socket {
        &self.sockets[0].socket
    }

    /// The socket that all neighbours share.
    #[inline]
    pub(super) fn shared(&self) -> &Socket {
        &self.sockets[self.shared].socket
    }

    pub(super) fn spare(&self, number: u8) -> &Socket {
        &self.sockets[usize::from(number)].socket
    }

    /// Whether a neighbour in good standing needs a [`place`](Self::place) before it sends.
    #[inline]
    pub(super) fn is_suspicious(&self) -> bool {
        self.suspicion
    }

    /// The socket for frames to an address only, and those to try when it is full. It is apart, so
    /// that no neighbour's data keeps a handshake back.
    pub(super) fn direct(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().rev().map(|one| &one.socket)
    }

    /// Says that the port is flushed.
    #[inline]
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Says that about `bytes` were sent by the shared socket.
    #[inline]
    pub(super) fn count(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.look_at {
            self.look();
        }
    }

    #[cold]
    fn look(&mut self) {
        let shared = &self.sockets[self.shared];
        let in_flight = shared.socket.in_flight();
        self.sent = 0;
        if self.suspicion {
            self.suspicion = in_flight >= shared.capacity / CALM_PART;
        } else if in_flight >= shared.capacity / LOOK_PART && self.sockets.len() > 1 {
            self.suspect();
        }
    }

    fn suspect(&mut self) {
        if !self.suspicion {
            self.suspicion = true;
            self.period = self.period.wrapping_add(1);
        }
    }

    /// The shared socket has refused a send: another one takes its place, if one has room.
    #[cold]
    pub(super) fn replace_shared(&mut self, neighbours: &mut Neighbours) -> bool {
        if self.sockets.len() == 1 {
            return false;
        }
        self.suspect();
        let unused = self.unused(neighbours).or_else(|| {
            // A trial can wait, what all share cannot.
            let in_flight = |&number: &usize| self.sockets[number].socket.in_flight();
            let number = self.spares().min_by_key(in_flight)?;
            let one = &self.sockets[number];
            (in_flight(&number) < one.capacity / USABLE_PART).then_some(number as u8)
        });
        let Some(number) = unused else { return false };
        let owner = self.sockets[usize::from(number)].owner.take();
        if let Some(neighbour) = owner.and_then(|owner| neighbours.at_mut(owner)) {
            neighbour.standing.by = By::Waiting;
        }
        self.shared = usize::from(number);
        self.sent = 0;
        true
    }

    /// The spare sockets: neither the shared one nor the one for addresses, unless there are two.
    fn spares(&self) -> impl Iterator<Item = usize> + use<> {
        let (shared, all) = (self.shared, self.sockets.len());
        let end = if all > 2 { all - 1 } else { all };
        (0..end).filter(move |number| *number != shared)
    }

    /// The spare socket with the least in flight, of those without an owner and with room.
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

    /// The standing of the neighbour that is on trial by a socket.
    fn owner(&mut self, number: usize, neighbours: &mut Neighbours) -> Option<Standing> {
        let owner = self.sockets[number].owner?;
        let standing = neighbours.at_mut(owner).map(|neighbour| neighbour.standing);
        // A neighbour that was forgotten or moved has another standing now.
        let lives = standing.filter(|standing| standing.by == By::Spare(number as u8));
        if lives.is_none() {
            self.sockets[number].owner = None;
        }
        lives
    }

    /// Where the next frames to `mark` may go. Called again after as much has been sent there.
    #[cold]
    pub(super) fn place(&mut self, neighbours: &mut Neighbours, mark: Mark) -> Place {
        let Some(neighbour) = neighbours.at_mut(mark) else { return Place::Lost };
        let standing = &mut neighbour.standing;
        match standing.by {
            By::Shared => {
                if standing.period != self.period {
                    (standing.period, standing.spent) = (self.period, 0);
                }
                if !self.suspicion || self.sockets.len() == 1 {
                    return Place::Shared(usize::MAX);
                }
                match self.allowance(standing).checked_sub(standing.spent as usize) {
                    Some(left @ 1..) => Place::Shared(left),
                    _ => {
                        standing.by = By::Waiting;
                        self.trial(neighbours, mark)
                    }
                }
            }
            By::Waiting => self.trial(neighbours, mark),
            By::Spare(number) => {
                let window = self.allowance(standing);
                let one = &mut self.sockets[usize::from(number)];
                if one.look(self.round) {
                    self.acquit(number, neighbours);
                    return self.place(neighbours, mark);
                }
                match window.checked_sub(one.last.saturating_sub(one.base)) {
                    Some(left @ 1..) => Place::Spare(number, left),
                    _ if one.stuck < STALLED_ROUNDS => Place::Later,
                    _ => Place::Lost,
                }
            }
            By::Parked => {
                standing.parked_bursts = standing.parked_bursts.saturating_sub(1);
                if standing.parked_bursts > 0 { Place::Lost } else { self.trial(neighbours, mark) }
            }
        }
    }

    /// Bytes that a neighbour may have in flight by the shared socket, and as many by a spare one.
    fn allowance(&self, standing: &Standing) -> usize {
        let least = self.sockets[self.shared].capacity / ALLOWANCE_PART;
        (least << standing.trust) >> standing.strikes
    }

    /// Says that `bytes` to this neighbour go by the shared socket.
    pub(super) fn spend(&self, standing: &mut Standing, bytes: usize) {
        standing.spent = standing.spent.saturating_add(bytes as u32);
    }

    /// Says that something was sent by this spare socket.
    pub(super) fn sent_by(&mut self, number: u8) {
        let one = &mut self.sockets[usize::from(number)];
        one.last = one.socket.in_flight();
        one.has_sent = true;
    }

    /// Frames of the owner have left by a spare socket: it may share again.
    fn acquit(&mut self, number: u8, neighbours: &mut Neighbours) {
        let one = &mut self.sockets[usize::from(number)];
        let drained = one.last <= one.base;
        let Some(owner) = one.owner.take().and_then(|owner| neighbours.at_mut(owner)) else {
            return;
        };
        let standing = &mut owner.standing;
        standing.by = By::Shared;
        standing.spent = 0;
        if drained {
            standing.trust = (standing.trust + 1).min(TRUST_MAX);
            standing.strikes = standing.strikes.saturating_sub(1);
        } else {
            standing.trust = standing.trust.saturating_sub(1);
        }
    }

    /// A spare socket for a neighbour that has spent its allowance.
    fn trial(&mut self, neighbours: &mut Neighbours, mark: Mark) -> Place {
        let strikes = neighbours.at_mut(mark).map_or(0, |neighbour| neighbour.standing.strikes);
        let mut most_stuck: Option<(u32, usize)> = None;
        for number in self.spares() {
            let Some(owner) = self.owner(number, neighbours) else { continue };
            // One that has lost trials gives way to one that has not.
            let enough = if strikes < owner.strikes { 1 } else { PREEMPT_ROUNDS };
            let one = &mut self.sockets[number];
            if one.look(self.round) || !one.has_sent {
                self.acquit(number as u8, neighbours);
            } else if one.last < one.capacity / USABLE_PART
                && one.stuck >= enough
                && most_stuck.is_none_or(|(stuck, _)| one.stuck > stuck)
            {
                most_stuck = Some((one.stuck, number));
            }
        }
        let number = match (self.unused(neighbours), most_stuck) {
            (Some(number), _) => number,
            (None, Some((_, number))) => {
                self.end_trial(number, neighbours);
                number as u8
            }
            (None, None) => return self.wait(neighbours, mark),
        };
        let one = &mut self.sockets[usize::from(number)];
        one.base = one.socket.in_flight();
        (one.owner, one.last, one.has_sent) = (Some(mark), one.base, false);
        (one.stuck, one.looked) = (0, self.round);
        let Some(neighbour) = neighbours.at_mut(mark) else { return Place::Lost };
        neighbour.standing.by = By::Spare(number);
        let standing = neighbour.standing;
        Place::Spare(number, self.allowance(&standing))
    }

    /// The owner of a spare socket, for which nothing moves, makes room. At first it only has to wait for
    /// its turn, since a device may be slow to say what has left; after some trials it is parked.
    fn end_trial(&mut self, number: usize, neighbours: &mut Neighbours) {
        let owner = self.sockets[number].owner.take();
        let Some(neighbour) = owner.and_then(|owner| neighbours.at_mut(owner)) else { return };
        let standing = &mut neighbour.standing;
        standing.trust = 0;
        match standing.strikes.checked_sub(STRIKES_FREE) {
            None => standing.by = By::Waiting,
            Some(over) => {
                standing.by = By::Parked;
                standing.parked_bursts = PARKED_BURSTS << over;
            }
        }
        standing.strikes = (standing.strikes + 1).min(STRIKES_MAX);
    }

    /// No spare socket is to be had now.
    fn wait(&mut self, neighbours: &mut Neighbours, mark: Mark) -> Place {
        let Some(neighbour) = neighbours.at_mut(mark) else { return Place::Lost };
        let standing = &mut neighbour.standing;
        standing.parked_bursts = 1;
        if standing.strikes >= STRIKES_FREE { Place::Lost } else { Place::Later }
    }
}
