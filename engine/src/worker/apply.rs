//! Applies the commands of the slow path. The worker applies a few in each poll and returns one
//! completion for each. This code allocates and frees nothing.

use std::mem;

use strowger_crypto::Sealed;
use strowger_frame::{
    Address, ChunkClass, Frame, Mark,
    pool::{HEADROOM_BYTES, SINGLE_STRIDE_BYTES},
    reserve::{Chunks, PoolUser},
};
use strowger_wire::{limits::TAG_BYTES, link_header::LINK_HEADER_BYTES};

use super::Worker;
use crate::{
    Now,
    command::{Command, Completion, PortQueue, Punt},
    discard::Discard,
    egress::Egress,
    limits::COMMANDS_PER_POLL,
    link::{Link, LinkProtection},
    session::Place,
};

impl Worker {
    /// Applies a few commands.
    pub(super) fn apply_commands(&mut self, now: Now) {
        for _ in 0..COMMANDS_PER_POLL {
            // A command is taken only if there is room for its completion.
            if self.slow_path.completions.is_full() {
                return;
            }
            let Some(command) = self.slow_path.commands.pop() else { return };
            let completion = self.apply_command(command, now);
            let pushed = self.slow_path.completions.push(completion);
            self.slow_path.note_completion();
            debug_assert!(pushed.is_ok(), "there was room, and only this worker pushes");
        }
    }

    fn apply_command(&mut self, command: Command, now: Now) -> Completion {
        match command {
            Command::Slots(table) => {
                return Completion::Slots(mem::replace(&mut self.slots, table));
            }
            Command::Renumber(mark, slot, mut return_path) => {
                if let Some(link) = self.links.get_mut(mark) {
                    link.slot = slot;
                    mem::swap(&mut link.return_path, &mut return_path);
                    self.links.note_slot(slot, mark);
                }
                return Completion::ReturnPath(return_path);
            }
            Command::Grow(mut growth) => {
                mem::swap(&mut *self.slots, &mut growth.table);
                for (mark, return_path) in &mut growth.return_paths {
                    if let Some(link) = self.links.get_mut(*mark) {
                        mem::swap(&mut link.return_path, return_path);
                    }
                }
                return Completion::Grown(growth);
            }
            Command::Attach(link, at) => return self.attach(link, at),
            Command::Detach(mark) => return self.detach(mark),
            Command::Plug(queue) => return self.plug(queue),
            Command::Unplug(number) => return self.unplug(number),
            Command::Open(mut session) => {
                session.note_own_port(now);
                // The frames that the former worker has handed off must be processed before those
                // of this worker's ports (R7).
                self.schedule.rings_first = true;
                return returned(self.sessions.put(Place::Here(session)));
            }
            Command::OpenAtWorker(index, worker) => {
                return returned(self.sessions.put(Place::OtherWorker(index, worker)));
            }
            Command::Close(index) => return returned(self.sessions.take(index)),
            Command::Seal(mark, sealer) => {
                let Some(link) = self.links.get_mut(mark) else {
                    return Completion::Sealer(sealer);
                };
                link.accepts_pending = true;
                let allows_data = link.allows_data;
                let old = mem::replace(&mut link.protection, LinkProtection::Sealed(Some(sealer)));
                if allows_data {
                    self.send_pending(mark);
                }
                if let LinkProtection::Sealed(Some(old)) = old {
                    return Completion::Sealer(old);
                }
            }
            Command::Unseal(mark) => {
                let Some(link) = self.links.get_mut(mark) else { return Completion::Done };
                link.accepts_pending = true;
                if let LinkProtection::Sealed(sealer) = &mut link.protection
                    && let Some(old) = sealer.take()
                {
                    return Completion::Sealer(old);
                }
            }
            Command::DropPending(mark) => self.drop_pending(mark),
            Command::AllowData(mark, allows_data) => {
                if let Some(link) = self.links.get_mut(mark) {
                    link.allows_data = allows_data;
                    if allows_data && matches!(link.protection, LinkProtection::Sealed(Some(_))) {
                        self.send_pending(mark);
                    }
                }
            }
            Command::SendLinkMessage(mark, what, to, bytes) => {
                self.send_link_message(mark, what, to, &bytes, 0)
            }
            Command::Probe(mark, to, token, bytes) => {
                let bytes = usize::from(bytes).saturating_sub(LINK_HEADER_BYTES + TAG_BYTES);
                self.send_link_message(mark, Sealed::PathChallenge, Some(to), &token, bytes);
            }
            Command::Transmit(packet) => {
                self.originate(&packet, now);
                return Completion::Sent(packet);
            }
            Command::Send(port, to, message) => {
                self.send(port, to, &message);
                return Completion::Sent(message);
            }
            Command::SetAddress { link, port, home, at } => {
                self.change_port(link, port, home);
                if let Some((_, queue)) = self.link_and_queue(link) {
                    // If `admit` fails, the port keeps its addresses: another link that has this
                    // address keeps it.
                    let _ = queue.port.admit(link, at);
                }
            }
            Command::ClearAddress(mark) => {
                if let Some((_, queue)) = self.link_and_queue(mark) {
                    queue.port.forget(mark);
                }
            }
            Command::AcceptUnknown(port, accept) => {
                if let Some(queue) = self.ports.of_port_mut(port) {
                    queue.port.accept_unknown(accept);
                }
            }
            Command::AcceptBeacons(port, hears) => {
                if let Some(queue) = self.ports.of_port_mut(port) {
                    queue.accepts_beacons = hears;
                }
            }
            Command::SetMtu(mark, bytes) => {
                if let Some(link) = self.links.get_mut(mark) {
                    link.frame_bytes_max = bytes;
                }
            }
            Command::Inventory(mut inventory) => {
                // The vector has enough capacity, so nothing is allocated.
                inventory.links.extend(self.links.iter().map(|link| link.mark));
                inventory.sessions.extend(self.sessions.indices());
                return Completion::Inventoried(inventory);
            }
        }
        Completion::Done
    }

    fn attach(&mut self, link: Box<Link>, at: Option<Address>) -> Completion {
        let mark = link.mark;
        if let (Some(queue), Some(at)) = (self.ports.of_port_mut(link.port), at)
            && let Err(why) = queue.port.admit(mark, at)
        {
            return Completion::AttachRefused(link, why);
        }
        self.links.insert(link);
        Completion::Done
    }

    fn detach(&mut self, mark: Mark) -> Completion {
        let Some(mut link) = self.links.remove(mark) else { return Completion::Done };
        self.backlog.pending_frames -= link.pending.len();
        let waiting = (link.egress.waiting() + link.pending.len()) as u64;
        link.tally.discards.add(waiting);
        match self.ports.of_port_mut(link.port) {
            Some(queue) => {
                queue.port.forget(mark);
                queue.discards.count_many(Discard::ExitGone, waiting);
            }
            // The port belongs to another worker, or was removed.
            None => self.slow_path.orphan_drops.count_many(Discard::ExitGone, waiting),
        }
        self.tx.tx_pending.retain(|&listed| listed != mark);
        self.backlog.contended.retain(|&listed| listed != mark);
        link.egress = Egress::default();
        link.pending.clear();
        Completion::Detached(link)
    }

    /// Moves a link to another port. Frames in the link's egress queue are then sent on the new
    /// port. If the new port belongs to another worker, these frames and those that wait for keys
    /// are dropped: the former are sealed on this worker's lane.
    fn change_port(&mut self, mark: Mark, port: u16, home: Option<u8>) {
        let home = home.filter(|&home| home != self.number);
        let Some(link) = self.links.get_mut(mark) else { return };
        let former = mem::replace(&mut link.port, port);
        link.home = home;
        if former == port {
            return;
        }
        if let Some(queue) = self.ports.of_port_mut(former) {
            queue.port.forget(mark);
        }
        if home.is_some() {
            let dropped = link.egress.waiting() + link.pending.len();
            self.backlog.pending_frames -= link.pending.len();
            link.pending.clear();
            link.egress = Egress::default();
            link.listed = false;
            link.tally.discards.add(dropped as u64);
            self.tx.tx_pending.retain(|&listed| listed != mark);
            self.backlog.contended.retain(|&listed| listed != mark);
            self.slow_path.orphan_drops.count_many(Discard::ExitGone, dropped as u64);
        }
    }

    fn plug(&mut self, queue: Box<PortQueue>) -> Completion {
        let (user, floor) = (PoolUser::port(queue.number), queue.port.receive_chunks());
        match self.ports.insert(queue) {
            Ok(()) => {
                self.tx.pool.reserve(user, floor);
                Completion::Done
            }
            Err(refused) => Completion::PlugRefused(refused),
        }
    }

    fn unplug(&mut self, number: u16) -> Completion {
        let Some(removed) = self.ports.remove(number) else { return Completion::Done };
        self.tx.pool.reserve(PoolUser::port(number), Chunks::default());
        Completion::Unplugged(removed)
    }

    fn link_and_queue(&mut self, mark: Mark) -> Option<(&mut Link, &mut PortQueue)> {
        let link = self.links.get_mut(mark)?;
        let queue = self.ports.of_port_mut(link.port)?;
        Some((link, queue))
    }

    /// Makes a frame. If no chunk is free, the frame is counted both as made and as dropped
    /// (`pool_empty`).
    pub(super) fn make(&mut self, bytes: usize) -> Option<Frame> {
        let is_short = HEADROOM_BYTES + bytes + TAG_BYTES <= SINGLE_STRIDE_BYTES;
        let single = if is_short { self.tx.pool.take(ChunkClass::Single) } else { None };
        self.slow_path.frames_made.add(1);
        let chunk = single.or_else(|| self.tx.pool.take(ChunkClass::Train));
        if chunk.is_none() {
            self.slow_path.orphan_drops.count(Discard::PoolEmpty);
        }
        Some(chunk?.into_frame(HEADROOM_BYTES, bytes))
    }

    /// Sends one of a link's own messages. It goes through the link's egress queue or, if `to` is
    /// given, directly to an address that is being validated. Zeros pad the message to
    /// `padded_bytes`; a padded message probes the path MTU.
    fn send_link_message(
        &mut self,
        mark: Mark,
        what: Sealed,
        to: Option<(u16, Address)>,
        bytes: &[u8],
        padded_bytes: usize,
    ) {
        let body_bytes = bytes.len().max(padded_bytes);
        let Some(mut frame) = self.make(LINK_HEADER_BYTES + body_bytes) else { return };
        let (sent, padding) = frame.bytes_mut()[LINK_HEADER_BYTES..].split_at_mut(bytes.len());
        sent.copy_from_slice(bytes);
        padding.fill(0); // the peer must not read old content
        frame.set_mark(mark);
        let Self { links, tx, .. } = self;
        let sent = match (links.get_mut(mark), to) {
            (None, _) => Err(Discard::ExitGone),
            // The link has just moved to a port of another worker.
            (Some(link), None) if link.home.is_some() => Err(Discard::ExitGone),
            (Some(link), None) => link.send_link_message(frame, what, tx),
            (Some(link), Some((port, to))) => link.seal(&mut frame, what, tx).and_then(|()| {
                let queue = self.ports.transmit_queue(port).ok_or(Discard::ExitGone)?;
                match padded_bytes {
                    0 => queue.port.send_to(to, frame),
                    _ => queue.port.send_probe(to, frame),
                }
                Ok(())
            }),
        };
        if let Err(discard) = sent {
            self.count_at_egress(mark, discard);
        }
    }

    fn send(&mut self, port: u16, to: Address, message: &[u8]) {
        let Some(mut frame) = self.make(message.len()) else { return };
        frame.bytes_mut().copy_from_slice(message);
        match self.ports.of_port_mut(port) {
            Some(queue) => {
                queue.port.send_to(to, frame);
                queue.port.flush();
                if let Some(errno) = queue.port.last_send_error(to) {
                    self.note(Punt::SendFailed { port, to, errno });
                }
            }
            None => self.slow_path.orphan_drops.count(Discard::ExitGone),
        }
    }
}

/// Returns replaced keys, which the slow path frees.
fn returned(place: Option<Place>) -> Completion {
    match place {
        Some(Place::Here(session)) => Completion::Session(session),
        Some(Place::OtherWorker(..)) | None => Completion::Done,
    }
}
