//! The control part of one connection: its keys, its tables, its paths and its sockets.

mod closing;
pub(crate) mod drive;
pub(crate) mod early;
pub(crate) mod hello;
pub(crate) mod items;
mod keys;
pub(crate) mod messages;
pub(crate) mod paths;
pub(crate) mod report;
mod timers;
mod view;

use self::closing::{Closing, PendingGoodbye};
use self::keys::Keys;
use self::report::Reported;
use crate::bucket::Bucket;

use arrayvec::ArrayVec;
use strowger_crypto::{Identity, Nanos, PeerId};
use strowger_wire::connection::{ConnectionHeader, ConnectionId, EntryCount};
use strowger_wire::label::AnyLabel;
use strowger_wire::link_header::{Lane, SessionIndex};

use crate::error::ConnectError;
use crate::heap::{Few, Maybe};
use crate::ids::{DatagramId, SocketId};
use crate::limits::{ATTEMPTS_NOTED, COUNTERS_RECENT, RESPONSES_READ_PER_ATTEMPT, SENDING_LANES};
use crate::memory::Remembered;
use crate::path::{Along, PathSet};
use crate::protocol_table::{OwnTable, PeerTable};
use crate::shared::Shared;
use crate::waiting::WaitingMessages;

/// The sender of a message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Socket(SocketId),
    Datagram(DatagramId),
}

/// A handshake attempt of this end.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) index: SessionIndex,
    /// The id that the initiation's hello states.
    pub(crate) id: ConnectionId,
    /// The number of entries of the own table that the initiation's hello states.
    pub(crate) entries: EntryCount,
    /// The number of further responses with a right mac that this end reads.
    pub(crate) reads_left: u8,
    /// The labels along which the initiation was sent.
    pub(crate) labels: ArrayVec<AnyLabel, 3>,
    pub(crate) sent: Nanos,
}

/// A handshake of the peer that this end has answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) index: SessionIndex,
    /// The id to state in `connection_id`, if the handshake was XX.
    pub(crate) answer: Option<ConnectionId>,
    /// The number of entries of the own table that the response states.
    pub(crate) entries: EntryCount,
    /// Whether a packet had been opened in the connection before.
    pub(crate) was_proven: bool,
    /// The labels along which responses were sent.
    pub(crate) labels: ArrayVec<AnyLabel, 3>,
}

/// The last packets that were sealed with former keys.
#[derive(Debug)]
pub(crate) struct SealedBefore {
    pub(crate) lanes: ArrayVec<SealedLane, { SENDING_LANES as usize }>,
    /// The time until which a packet of kind 7 about these packets has an effect.
    pub(crate) until: Nanos,
}

/// The packets of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealedLane {
    /// The peer's index for the session.
    pub(crate) to: SessionIndex,
    pub(crate) lane: Lane,
    /// The number of sealed packets.
    pub(crate) packets: u64,
}

impl SealedLane {
    /// Whether this header belongs to one of the last packets.
    pub(crate) fn has(&self, header: &ConnectionHeader) -> bool {
        let age = (self.packets as u32).wrapping_sub(header.low);
        self.to == header.index
            && self.lane == header.lane
            && (1..=COUNTERS_RECENT).contains(&age)
            && u64::from(age) <= self.packets
    }
}

/// An initiation that is sent along several labels.
#[derive(Debug)]
pub(crate) struct Race {
    pub(crate) index: SessionIndex,
    pub(crate) message: Vec<u8>,
    /// The time at which this end sends the initiation along the next label.
    pub(crate) at: Nanos,
}

/// The control part of one connection.
pub(crate) struct Connection {
    pub(crate) place: u32,
    /// Distinguishes this connection from earlier ones with the same place.
    pub(crate) turn: u32,
    pub(crate) peer: PeerId,
    pub(crate) session: Keys,
    /// Whether the hello must be set before the session may use it.
    pub(crate) is_hello_due: bool,
    /// Whether the static key of the peer leads to this connection.
    is_key_noted: bool,
    pub(crate) is_known: bool,
    pub(crate) began: Nanos,
    pub(crate) id: ConnectionId,
    /// Whether a packet was opened in the connection with this id.
    pub(crate) is_proven: bool,
    pub(crate) asked: Few<Asked>,
    pub(crate) answered: Few<Answered>,
    pub(crate) own: OwnTable,
    pub(crate) theirs: PeerTable,
    /// The number of entries of the own table that the hello states.
    pub(crate) stated: EntryCount,
    /// The keys under which `connection_id` is awaited: those of XX that this end initiated; and
    /// whether the connection was proven before.
    pub(crate) id_due: Option<(SessionIndex, bool)>,
    /// The generation of the keys with which the peer's table was last forgotten: `table` items
    /// under older keys may be those of an earlier process.
    pub(crate) tables_since: Option<u32>,
    /// The path of the third message of XX.
    pub(crate) finish_along: Option<Box<Along>>,
    /// The number of entries that the third message of XX states, until a packet under its keys is
    /// opened.
    pub(crate) stated_by_xx: Option<(SessionIndex, EntryCount)>,
    /// The id to state with the first `table` item.
    pub(crate) id_answer: Option<ConnectionId>,
    /// The handshake of the peer that this end answers now.
    pub(crate) answering: Option<Box<Answered>>,
    /// An initiation that is sent along further labels.
    pub(crate) race: Option<Box<Race>>,
    pub(crate) closing: Closing,
    pub(crate) goodbyes: Few<PendingGoodbye>,
    /// Names of closed sockets whose number at the peer is not known yet.
    pub(crate) closed_names: Few<String>,
    /// The peer repeated an entry of its table with other bytes.
    pub(crate) has_conflict: bool,
    /// The program waits for an `identify_answer`.
    pub(crate) asks_identify: bool,
    /// Numbers and names that were refused in the last second.
    pub(crate) refusals: Few<(Box<str>, Nanos)>,
    pub(crate) refusal_budget: Bucket,
    pub(crate) identify_budget: Bucket,
    /// The rate of lookups after *slot moved* notices (W6-183).
    pub(crate) moved_budget: Bucket,
    /// The state that this end kept of an earlier connection with this peer.
    pub(crate) remembered: Option<Box<Remembered>>,
    /// The socket whose early message the newest hello states.
    pub(crate) early_stated: Option<SocketId>,
    /// The last packets that were sealed with former keys.
    pub(crate) sealed: Option<Box<SealedBefore>>,
    /// Whether the connection was dropped after a conflict of tables, and its sockets stay open.
    pub(crate) is_reopening: bool,
    /// The time at which a packet of kind 7 last started a handshake.
    pub(crate) heeded_unknown: Maybe,
    /// The idle time that the peer stated, in seconds.
    pub(crate) peer_idle_s: Option<u16>,
    pub(crate) waiting: WaitingMessages<Owner>,
    pub(crate) sockets: Vec<SocketId>,
    /// The times at which reports were last sent, by lane.
    pub(crate) reported: Reported,
    pub(crate) paths: PathSet,
    /// Whether the peer's hello says that it accepts pass-through messages.
    pub(crate) peer_accepts_pass_through: bool,
    /// The time at which this end next checks whether the peer is silent.
    pub(crate) watch: Maybe,
    /// The return label whose initiations count as those of a known peer.
    pub(crate) known_label: Option<Box<AnyLabel>>,
    /// The longest message that was last reported to sockets, in bytes.
    pub(crate) told_max: u32,
    pub(crate) next_ping: u64,
    pub(crate) is_wanted: bool,
    /// The time for which the endpoint has scheduled the next poll.
    pub(crate) due: Maybe,
    pub(crate) keys_since: Maybe,
    pub(crate) handshakes: u32,
    /// The error that a connect reports if it reaches its time limit.
    pub(crate) trouble: Option<Box<ConnectError>>,
}

impl Connection {
    pub(crate) fn new(
        place: u32,
        turn: u32,
        identity: Identity,
        now: Nanos,
        shared: &mut Shared,
    ) -> Connection {
        let mut session = Keys::new(identity, &shared.config);
        let peer = identity.peer_id();
        session.raise_guard(shared.memory.guard(&peer));
        let remembered = shared.memory.peer(&peer).cloned().map(Box::new);
        if let Some(remembered) = &remembered {
            session.suggest_key(&remembered.key);
        }
        Connection {
            place,
            turn,
            peer,
            session,
            is_hello_due: false,
            is_key_noted: false,
            is_known: false,
            began: now,
            id: ConnectionId::UNKNOWN,
            is_proven: false,
            asked: Few::new(),
            answered: Few::new(),
            own: OwnTable::new(),
            theirs: PeerTable::new(),
            stated: EntryCount::ZERO,
            id_due: None,
            tables_since: None,
            finish_along: None,
            stated_by_xx: None,
            id_answer: None,
            answering: None,
            race: None,
            closing: Closing::Open,
            goodbyes: Few::new(),
            closed_names: Few::new(),
            has_conflict: false,
            asks_identify: false,
            refusals: Few::new(),
            refusal_budget: Bucket::FULL,
            identify_budget: Bucket::FULL,
            moved_budget: Bucket::FULL,
            remembered,
            early_stated: None,
            sealed: None,
            is_reopening: false,
            heeded_unknown: Maybe::NONE,
            peer_idle_s: None,
            waiting: WaitingMessages::new(),
            sockets: Vec::new(),
            reported: Reported::default(),
            paths: PathSet::new(now, shared.config.longest_packet, SENDING_LANES),
            peer_accepts_pass_through: false,
            watch: Maybe::NONE,
            known_label: None,
            told_max: 0,
            next_ping: 0,
            is_wanted: false,
            due: Maybe::NONE,
            keys_since: Maybe::NONE,
            handshakes: 0,
            trouble: None,
        }
    }

    /// Frees memory that is not used now.
    pub(crate) fn shrink(&mut self) {
        self.asked.shrink();
        self.answered.shrink();
        self.goodbyes.shrink();
        self.closed_names.shrink();
        self.refusals.shrink();
        self.session.reduce();
        if self.session.is_idle() {
            self.reported = Reported::default();
            self.finish_along = None;
        }
    }

    /// Counts a response to this attempt. Returns whether the response may be read.
    pub(crate) fn may_read(&mut self, index: SessionIndex) -> bool {
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.index == index) else {
            return false;
        };
        let may = asked.reads_left > 0;
        asked.reads_left = asked.reads_left.saturating_sub(1);
        may
    }

    fn note_asked(&mut self, now: Nanos, index: SessionIndex, entries: EntryCount) {
        if self.asked.len() >= ATTEMPTS_NOTED {
            self.asked.remove(0);
        }
        self.asked.push(Asked {
            index,
            id: self.id,
            entries,
            reads_left: RESPONSES_READ_PER_ATTEMPT,
            labels: ArrayVec::new(),
            sent: now,
        });
    }
}
