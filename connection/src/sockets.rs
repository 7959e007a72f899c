//! The control part's state of each socket.

use strowger_crypto::Nanos;
use strowger_wire::switch_header::Ecn;

use crate::data_path::{DataPath, HotSocket};
use crate::heap::{push_tight, vec_bytes};
use crate::ids::{ListenerId, SocketId};
use crate::info::SocketState;
use crate::names::ProtocolNames;

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) id: SocketId,
    pub(crate) connection: u32,
    pub(crate) names: ProtocolNames,
    /// The place of the chosen name in `names`.
    pub(crate) chosen: Option<usize>,
    pub(crate) state: SocketState,
    /// The time at which connecting fails, or at which the open socket closes because the peer has not
    /// confirmed its keys; `None` if there is no such limit.
    pub(crate) deadline: Option<Nanos>,
    /// The early message, until it is delivered or sent again.
    pub(crate) early: Option<Vec<u8>>,
    /// The listener whose backlog contains this socket.
    pub(crate) waits_in: Option<ListenerId>,
    /// Whether a message was refused, so that [`Event::Writable`](crate::Event::Writable) is due.
    pub(crate) was_refused: bool,
    /// The number in the peer's table that the peer refuses; 0 for none.
    pub(crate) refused_number: u8,
}

impl Socket {
    /// The name of the protocol: the chosen one, or the only one.
    pub(crate) fn name(&self) -> Option<&str> {
        let only = (self.names.len() == 1).then_some(0);
        self.names.get(self.chosen.or(only)?)
    }

    /// The time at which connecting fails, or at which the open socket closes because the peer has not
    /// confirmed its keys.
    pub(crate) fn fails_at(&self) -> Option<Nanos> {
        let awaits = matches!(self.state, SocketState::Connecting | SocketState::Open);
        self.deadline.filter(|_| awaits)
    }

    /// Whether messages may be sent or wait.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, SocketState::Closed(_))
    }
}

/// All sockets of an endpoint. A closed socket is removed; its place is used again with another
/// turn.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    sockets: Vec<Option<Box<Socket>>>,
    free: Vec<u32>,
}

impl Sockets {
    /// Adds a socket of a connection.
    pub(crate) fn open(
        &mut self,
        data: &mut DataPath,
        connection: u32,
        names: ProtocolNames,
    ) -> &mut Socket {
        let place = self.free.pop().unwrap_or_else(|| {
            push_tight(&mut self.sockets, None);
            let hot = HotSocket {
                turn: 0,
                connection: 0,
                flow: 0,
                number: 0,
                class: 0,
                ecn: Ecn::default(),
                is_open: false,
            };
            push_tight(&mut data.sockets, hot);
            self.sockets.len() as u32 - 1
        });
        let hot = &mut data.sockets[place as usize];
        let turn = hot.turn.wrapping_add(1);
        *hot = HotSocket {
            turn,
            connection,
            flow: 0,
            number: 0,
            class: 0,
            ecn: Ecn::default(),
            is_open: true,
        };
        self.sockets[place as usize].insert(Box::new(Socket {
            id: SocketId::new(place, turn),
            connection,
            names,
            chosen: None,
            state: SocketState::Connecting,
            deadline: None,
            early: None,
            waits_in: None,
            was_refused: false,
            refused_number: 0,
        }))
    }

    /// The socket with this handle, unless it was removed.
    pub(crate) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get(id.index())?.as_deref().filter(|socket| socket.id == id)
    }

    /// As [`get`](Self::get), to change it.
    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.index())?.as_deref_mut().filter(|socket| socket.id == id)
    }

    /// Removes a socket.
    pub(crate) fn remove(&mut self, data: &mut DataPath, id: SocketId) -> Option<Box<Socket>> {
        self.get(id)?;
        let socket = self.sockets[id.index()].take();
        data.sockets[id.index()].is_open = false;
        data.sockets[id.index()].number = 0;
        self.free.push(id.index() as u32);
        socket
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        let open = self.sockets.iter().flatten().map(|socket| {
            let early = socket.early.as_ref().map_or(0, Vec::capacity);
            size_of::<Socket>() + socket.names.memory_bytes() + early
        });
        vec_bytes(&self.sockets) + vec_bytes(&self.free) + open.sum::<usize>()
    }
}
