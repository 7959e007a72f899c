//! Unix sockets for several processes (`clients` of [`UnixSocket`](crate::UnixSocket)): assigns
//! each process that connects its own port and slot, and releases them when the process
//! disconnects.
//!
//! The slot number of a disconnected process goes into quarantine, as any other. So no packet to
//! one process reaches the next process on the port.

use std::{
    collections::VecDeque,
    os::fd::AsRawFd as _,
    sync::Arc,
    time::{Duration, Instant},
};

use strowger_engine::{
    Now,
    control::{Attach, AttachError, Event as SwitchEvent, PortId, Switch},
    link::Behind,
};
use strowger_frame::{Address, port::Arm};
use strowger_io::unix::{ClientRefusal, Clients, SwitchFacts, WaitingClient};
use strowger_wire::Slot;

use crate::limits::{CLIENT_NUMBERS, CLIENTS_AT_ONCE, DESCRIPTORS_PAUSE};

/// All sockets for several processes.
#[derive(Default)]
pub(crate) struct UnixClients {
    sockets: Vec<Socket>,
}

/// A socket for several processes.
struct Socket {
    name: String,
    listener: Clients,
    places: Vec<Place>,
    /// The maximum number of slot numbers that are in use by processes of this socket or in
    /// quarantine after them.
    numbers_max: usize,
    /// The times at which the quarantine of slot numbers of former processes ends, earliest first.
    resting: VecDeque<Now>,
    /// The time before which no process is accepted, because no file descriptor was left. `None` if
    /// there is no pause.
    paused_until: Option<Instant>,
}

/// A port for one process.
struct Place {
    port: PortId,
    /// The name of the port and of its slot.
    name: String,
    facts: Arc<SwitchFacts>,
    /// The slot of the process. `None` while the port is free.
    slot: Option<Slot>,
    /// The process while labels with its slot do not lead to the port yet; `None` otherwise.
    /// Without this delay the first replies would be lost.
    waiting: Option<WaitingClient>,
    /// Whether the process has disconnected, and the slot is being detached.
    is_leaving: bool,
}

/// The name of the port for a client, by its number from 0.
pub(crate) fn port_name(socket: &str, number: usize) -> String {
    format!("{socket}.{}", number + 1)
}

impl UnixClients {
    /// Adds a socket and its ports.
    pub(crate) fn add(
        &mut self,
        name: &str,
        listener: Clients,
        ports: Vec<(PortId, Arc<SwitchFacts>)>,
        slot_max: u32,
    ) {
        let places: Vec<Place> = ports
            .into_iter()
            .enumerate()
            .map(|(number, (port, facts))| Place {
                port,
                name: port_name(name, number),
                facts,
                slot: None,
                waiting: None,
                is_leaving: false,
            })
            .collect();
        let half = (slot_max as usize).div_ceil(2);
        let numbers_max = (CLIENT_NUMBERS * places.len()).min(half).max(places.len());
        let (name, resting) = (name.to_owned(), VecDeque::new());
        let socket = Socket { name, listener, places, numbers_max, resting, paused_until: None };
        self.sockets.push(socket);
    }

    /// Detaches the slots of processes that have disconnected, and attaches those that have
    /// connected.
    pub(crate) fn turn(&mut self, switch: &mut Switch, now: Now) {
        for socket in &mut self.sockets {
            socket.detach_gone(switch);
            socket.accept(switch, now);
        }
    }

    /// Assigns processes to ports whose slots are now attached, and notes which slots have become
    /// free or have another number.
    pub(crate) fn follow(&mut self, events: &[SwitchEvent], quarantine: Duration, now: Now) {
        for event in events {
            for socket in &mut self.sockets {
                match *event {
                    SwitchEvent::SlotMoved(from, to) => {
                        let moved = socket.places.iter_mut().filter(|it| it.slot == Some(from));
                        moved.for_each(|place| place.slot = Some(to));
                    }
                    SwitchEvent::SlotAttached(slot) => {
                        let mut places = socket.places.iter_mut().enumerate();
                        let attached = places.find(|(_, it)| it.slot == Some(slot));
                        let Some((number, place)) = attached else { continue };
                        if let Some(client) = place.waiting.take() {
                            socket.listener.give(number, client);
                        }
                    }
                    SwitchEvent::SlotDetached(slot) | SwitchEvent::AttachRefused(slot, _) => {
                        let left = socket.places.iter_mut().find(|it| it.slot == Some(slot));
                        let Some(place) = left else { continue };
                        (place.slot, place.waiting, place.is_leaving) = (None, None, false);
                        place.facts.set_slot(0);
                        let rests = u64::try_from(quarantine.as_nanos()).unwrap_or(u64::MAX);
                        socket.resting.push_back(Now(now.0.saturating_add(rests)));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Adds the descriptors that become readable when a process connects.
    pub(crate) fn arm(&self, mut add: impl FnMut(Arm)) {
        let now = Instant::now();
        for socket in self.sockets.iter().filter(|socket| socket.may_accept(now)) {
            add(Arm::Wait(socket.listener.as_raw_fd()));
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.sockets.iter().filter_map(|socket| socket.paused_until).min()
    }

    /// Stops listening, and removes the files of the sockets. Connected processes stay.
    pub(crate) fn close(&mut self) {
        self.sockets.clear();
    }
}

impl Socket {
    fn detach_gone(&mut self, switch: &mut Switch) {
        for (number, place) in self.places.iter_mut().enumerate() {
            if let Some(slot) = place.slot
                && !place.is_leaving
                && place.waiting.is_none()
                && self.listener.is_gone(number)
            {
                // An error means that the operator has detached or moved the slot, whose event
                // follows.
                place.is_leaving = switch.detach(slot).is_ok();
            }
        }
    }

    /// Whether the next process can get a port or a refusal now. While a port is being released,
    /// the next process waits.
    fn may_accept(&self, now: Instant) -> bool {
        let is_free = |place: &Place| place.slot.is_none();
        let (free, leaving) =
            (self.places.iter().any(is_free), self.places.iter().any(|place| place.is_leaving));
        (free || !leaving) && self.paused_until.is_none_or(|until| until <= now)
    }

    fn accept(&mut self, switch: &mut Switch, now: Now) {
        while self.resting.front().is_some_and(|&end| end <= now) {
            self.resting.pop_front();
        }
        for _ in 0..CLIENTS_AT_ONCE {
            let at = Instant::now();
            if !self.may_accept(at) {
                return;
            }
            self.paused_until = None;
            match self.listener.accept() {
                Ok(None) => return,
                Ok(Some(client)) => self.admit(client, switch, now),
                Err(_) => self.paused_until = Some(at + DESCRIPTORS_PAUSE),
            }
        }
    }

    /// Assigns the process a port and a slot, or refuses it.
    fn admit(&mut self, client: WaitingClient, switch: &mut Switch, now: Now) {
        let (in_use, all) =
            (self.places.iter().filter(|place| place.slot.is_some()).count(), self.places.len());
        let Some(number) = self.places.iter().position(|place| place.slot.is_none()) else {
            return client.refuse(&ClientRefusal {
                code: ClientRefusal::ALL_SERVED,
                retry_after: Duration::ZERO,
                text: format!(
                    "{} serves {all} clients already; close one, or raise `clients` in its [[unix]]",
                    self.name
                ),
            });
        };
        if in_use + self.resting.len() >= self.numbers_max {
            let end = self.resting.front().copied().unwrap_or(now);
            return client.refuse(&ClientRefusal {
                code: ClientRefusal::QUARANTINE,
                retry_after: Duration::from_nanos(end.0.saturating_sub(now.0)),
                text: format!(
                    "{} clients of {} have left lately, and their slot numbers are in quarantine",
                    self.resting.len(),
                    self.name
                ),
            });
        }
        let place = &mut self.places[number];
        let attach = Attach::plain(place.port, Address::Only, Behind::Endpoint, &place.name);
        match switch.attach(attach.passing()) {
            Ok(slot) => {
                place.slot = Some(slot);
                // Set the slot before the port can greet the process.
                place.facts.set_slot(slot.number());
                place.waiting = Some(client);
            }
            Err(why) => client.refuse(&ClientRefusal {
                code: ClientRefusal::NO_SLOT,
                retry_after: match why {
                    AttachError::SlotNotFree { opens_in, .. } => opens_in.unwrap_or_default(),
                    _ => Duration::ZERO,
                },
                text: format!("{} has no slot for it: {why}", self.name),
            }),
        }
    }
}
