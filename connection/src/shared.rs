//! State that the connections of an endpoint share.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use strowger_crypto::handshake::{FieldBytes, Offer, ProtocolBytes, SchemeBytes};
use strowger_crypto::{Entropy, EntropyFailed, Nanos, PeerId, StaticPublic};
use strowger_routing::Outcome;
use strowger_wire::connection::ConnectionId;
use strowger_wire::hello::{Lanes, Mtu, SealWish, Suites, Versions, Widths};
use strowger_wire::label::AnyLabel;
use strowger_wire::limits::LINK_MTU_MIN;
use strowger_wire::link_header::{Lane, SessionIndex};
use strowger_wire::switch_header::HEADER_64_BYTES;

use crate::accepts::Accepts;
use crate::config::EndpointConfig;
use crate::counters::Counters;
use crate::data_path::DataPath;
use crate::event::Event;
use crate::goodbye::Goodbye;
use crate::heap::{deque_bytes, map_bytes, set_bytes, vec_bytes};
use crate::known_labels::KnownLabels;
use crate::limits::{EVENTS_MAX, GOODBYES_KEPT_MAX, SENDING_LANES};
use crate::memory::Memory;
use crate::outbox::Outbox;
use crate::packet::{PacketMark, Source};
use crate::policy::Policy;
use crate::sockets::Sockets;

/// State that the connections of an endpoint share.
pub(crate) struct Shared {
    pub(crate) config: EndpointConfig,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) entropy: Box<dyn Entropy + Send>,
    pub(crate) data: DataPath,
    pub(crate) out: Outbox,
    pub(crate) events: VecDeque<Event>,
    pub(crate) counters: Counters,
    pub(crate) sockets: Sockets,
    pub(crate) accepts: Accepts,
    /// The places of connections, by the static key of the peer.
    pub(crate) by_key: HashMap<StaticPublic, u32>,
    /// The peer's index of each set of keys that seal, with its connection.
    pub(crate) peer_indices: BTreeSet<(SessionIndex, u32)>,
    /// The flows of connections, to match errors about their packets.
    pub(crate) flows: BTreeSet<(u16, u32)>,
    /// A secret from which flows are derived.
    pub(crate) flow_key: u64,
    /// The last response of a session, which is sent again for copies of its initiation.
    pub(crate) last_response: Option<Vec<u8>>,
    /// Labels by which connections recently received packets.
    pub(crate) known_labels: KnownLabels,
    /// Peers whose goodbye asked this end to wait, with the end of the wait and the goodbye.
    pub(crate) goodbyes: HashMap<PeerId, (Nanos, Goodbye)>,
    pub(crate) memory: Memory,
    /// Requests of connections to routing.
    pub(crate) wishes: Vec<Wish>,
    /// The time at which this endpoint was made.
    pub(crate) began: Nanos,
}

/// A request of a connection to routing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// Look up labels of this peer.
    LookUp(PeerId),
    /// Report the outcome of a label.
    Feedback(AnyLabel, Outcome),
}

/// The return path of a received packet, and what an answer needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By {
    /// The return label.
    pub(crate) label: AnyLabel,
    /// Flow and class of the packet, for its answer.
    pub(crate) mark: PacketMark,
    /// Bytes of the packet.
    pub(crate) bytes: usize,
    pub(crate) source: Source,
}

impl Shared {
    /// The offer of the hellos, without table and fields.
    pub(crate) fn base_offer(config: &EndpointConfig) -> Offer {
        let mtu = config.longest_packet.saturating_sub(HEADER_64_BYTES as u16).max(LINK_MTU_MIN);
        Offer {
            versions: Versions::OURS,
            suites: Suites::CHACHA20_POLY1305,
            seal: if config.accept_pass_through { SealWish::MayHeaderOnly } else { SealWish::Full },
            widths: Widths::ALL,
            same_scheme: false,
            lanes: Lanes::new(SENDING_LANES).unwrap_or(Lanes::ONE),
            mtu: Mtu::new(mtu).unwrap_or(Mtu::MIN),
            scheme: SchemeBytes::default(),
            protocols: ProtocolBytes::default(),
            fields: FieldBytes::default(),
        }
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory(&self) -> usize {
        self.data.memory()
            + self.out.memory_bytes()
            + deque_bytes(&self.events)
            + self.sockets.memory()
            + map_bytes(&self.by_key)
            + set_bytes(&self.peer_indices)
            + set_bytes(&self.flows)
            + self.known_labels.memory()
            + map_bytes(&self.goodbyes)
            + self.memory.memory_bytes()
            + vec_bytes(&self.wishes)
            + self.last_response.as_ref().map_or(0, Vec::capacity)
    }

    /// The flow of a connection, lane and protocol number (wire.md W6-4).
    pub(crate) fn flow(&self, connection: u32, turn: u32, lane: Lane, number: u8) -> u16 {
        let mut mixed = self.flow_key ^ u64::from(connection) << 32 ^ u64::from(turn) << 8;
        mixed ^= u64::from(number) | u64::from(lane.number()) << 60;
        // The final mixer of SplitMix64 (Steele, Lea, Flood 2014).
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as u16
    }

    /// Draws a connection id.
    pub(crate) fn draw_id(&mut self) -> Result<ConnectionId, EntropyFailed> {
        loop {
            let mut id = [0; 8];
            self.entropy.fill(&mut id)?;
            if ConnectionId(id) != ConnectionId::UNKNOWN {
                return Ok(ConnectionId(id));
            }
        }
    }

    /// Reports an event. If the program does not take events, the oldest is dropped.
    pub(crate) fn report(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
            self.counters.events_dropped += 1;
        }
        self.events.push_back(event);
    }

    /// Whether this peer may use this protocol, and a listener or datagram socket accepts it.
    pub(crate) fn may_use(&self, peer: &PeerId, name: &str) -> bool {
        self.accepts.get(name).is_some() && self.policy.may_use(peer, name)
    }

    /// Notes that a peer's goodbye asks this end to wait before it connects again.
    pub(crate) fn note_goodbye(&mut self, peer: PeerId, until: Nanos, goodbye: &Goodbye) {
        if self.goodbyes.len() >= GOODBYES_KEPT_MAX {
            let first = self.goodbyes.iter().min_by_key(|(_, (until, _))| *until);
            if let Some(peer) = first.map(|(peer, _)| *peer) {
                self.goodbyes.remove(&peer);
            }
        }
        self.goodbyes.insert(peer, (until, goodbye.clone()));
    }
}
