//! The protocols that an endpoint accepts: those of its listeners and datagram sockets.

use std::collections::BTreeMap;

use strowger_wire::connection::EntryFlags;

use crate::error::ListenError;
use crate::ids::{DatagramId, ListenerId};
use crate::names::ProtocolNames;
use crate::options::ListenOptions;

/// The receiver of a protocol's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptor {
    Listener(ListenerId),
    Datagram(DatagramId),
}

/// A protocol that is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) by: Acceptor,
    pub(crate) flags: EntryFlags,
}

/// A listener or a datagram socket.
#[derive(Debug)]
struct Owner {
    turn: u32,
    is_open: bool,
    names: Vec<Box<str>>,
    /// Number of accepted sockets that the program has not taken yet.
    waiting: u16,
    backlog: u16,
}

/// The protocols that an endpoint accepts.
#[derive(Debug, Default)]
pub(crate) struct Accepts {
    names: BTreeMap<Box<str>, Accepted>,
    listeners: Vec<Owner>,
    datagrams: Vec<Owner>,
}

impl Accepts {
    /// The protocol with this name; `None` if it is not accepted.
    pub(crate) fn get(&self, name: &str) -> Option<&Accepted> {
        self.names.get(name)
    }

    /// All protocols, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Accepted)> {
        self.names.iter().map(|(name, accepted)| (&**name, accepted))
    }

    /// Adds a listener.
    pub(crate) fn listen(
        &mut self,
        names: &ProtocolNames,
        options: &ListenOptions,
    ) -> Result<ListenerId, ListenError> {
        self.check(names)?;
        let mut flags = EntryFlags::NONE;
        if options.idempotent {
            flags = flags.or(EntryFlags::EARLY);
        }
        if options.pass_through {
            flags = flags.or(EntryFlags::PASS_THROUGH);
        }
        let (place, turn) = open(&mut self.listeners, names, options.backlog);
        let id = ListenerId::new(place, turn);
        self.add(names, Accepted { by: Acceptor::Listener(id), flags });
        Ok(id)
    }

    /// Adds a datagram socket.
    pub(crate) fn datagram(&mut self, names: &ProtocolNames) -> Result<DatagramId, ListenError> {
        self.check(names)?;
        let (place, turn) = open(&mut self.datagrams, names, 0);
        let id = DatagramId::new(place, turn);
        self.add(names, Accepted { by: Acceptor::Datagram(id), flags: EntryFlags::NONE });
        Ok(id)
    }

    fn check(&self, names: &ProtocolNames) -> Result<(), ListenError> {
        let mut taken = names.iter().filter(|name| self.names.contains_key(*name));
        match taken.next() {
            Some(name) => Err(ListenError::AlreadyTaken(name.to_owned())),
            None => Ok(()),
        }
    }

    fn add(&mut self, names: &ProtocolNames, accepted: Accepted) {
        for name in names.iter() {
            self.names.insert(name.into(), accepted);
        }
    }

    /// Removes a listener. Returns whether it was open.
    pub(crate) fn close_listener(&mut self, id: ListenerId) -> bool {
        let names = close(&mut self.listeners, id.index(), id.turn());
        self.names.retain(|name, _| !names.contains(name));
        !names.is_empty()
    }

    /// Removes a datagram socket. Returns whether it was open.
    pub(crate) fn close_datagram(&mut self, id: DatagramId) -> bool {
        let names = close(&mut self.datagrams, id.index(), id.turn());
        self.names.retain(|name, _| !names.contains(name));
        !names.is_empty()
    }

    /// The names of a datagram socket, best first; empty if it is closed.
    pub(crate) fn names_of(&self, id: DatagramId) -> &[Box<str>] {
        let owner = self.datagrams.get(id.index());
        owner.filter(|o| o.is_open && o.turn == id.turn()).map_or(&[], |owner| &owner.names)
    }

    /// Whether the backlog of a listener has room for one more socket.
    pub(crate) fn has_room(&self, id: ListenerId) -> bool {
        let owner = self.listeners.get(id.index()).filter(|owner| owner.turn == id.turn());
        owner.is_some_and(|owner| owner.is_open && owner.waiting < owner.backlog)
    }

    /// Adds one to the backlog of a listener.
    pub(crate) fn note_waiting(&mut self, id: ListenerId) {
        if let Some(owner) = self.owner_mut(id) {
            owner.waiting = owner.waiting.saturating_add(1);
        }
    }

    /// Takes one off the backlog: the program took the socket, or the socket was closed.
    pub(crate) fn note_taken(&mut self, id: ListenerId) {
        if let Some(owner) = self.owner_mut(id) {
            owner.waiting = owner.waiting.saturating_sub(1);
        }
    }

    fn owner_mut(&mut self, id: ListenerId) -> Option<&mut Owner> {
        self.listeners.get_mut(id.index()).filter(|owner| owner.turn == id.turn())
    }
}

fn open(owners: &mut Vec<Owner>, names: &ProtocolNames, backlog: u16) -> (u32, u32) {
    let names: Vec<Box<str>> = names.iter().map(|name| name.into()).collect();
    let place = match owners.iter().position(|owner| !owner.is_open) {
        Some(place) => place,
        None => {
            let closed =
                Owner { turn: 0, is_open: false, names: Vec::new(), waiting: 0, backlog: 0 };
            owners.push(closed);
            owners.len() - 1
        }
    };
    let owner = &mut owners[place];
    *owner = Owner { turn: owner.turn.wrapping_add(1), is_open: true, names, waiting: 0, backlog };
    (place as u32, owner.turn)
}

fn close(owners: &mut [Owner], place: usize, turn: u32) -> Vec<Box<str>> {
    match owners.get_mut(place) {
        Some(owner) if owner.is_open && owner.turn == turn => {
            owner.is_open = false;
            std::mem::take(&mut owner.names)
        }
        _ => Vec::new(),
    }
}
