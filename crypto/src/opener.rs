//! Openers: the keys and replay windows of one direction. Only this module produces authenticated
//! bytes.

use core::fmt;

use strowger_wire::{
    limits::TAG_BYTES,
    link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, LinkHeaderError},
};

use crate::cipher::{Aead, AeadKey, Provider, Tag, nonce_of};
use crate::domain::Domain;
use crate::limits::OPEN_REFUSED_AFTER;
use crate::replay::{Stale, Window};
use crate::sealer::{SealMode, covered, lane_key};
use crate::secret::Secret;
use crate::time::Nanos;

/// Why a packet was refused. The data plane counts each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum OpenRefused {
    /// The packet is shorter than a link header and a tag.
    #[error("shorter than a sealed packet")]
    Runt,
    /// These keys do not open packets of this kind: it is not assigned, not sealed, or of the other
    /// seal mode.
    #[error("a kind of packet that this session does not use")]
    WrongKind,
    /// A lane that the peer did not announce.
    #[error("a lane that the peer did not announce")]
    NoSuchLane,
    /// The keys are older than [`OPEN_REFUSED_AFTER`].
    #[error("the keys are too old to open with")]
    Expired,
    /// The counter was seen before.
    #[error("a replay: the counter was seen before")]
    Replayed,
    /// The counter is older than the replay window. Most such packets are `Forged` instead, because
    /// their counter is reconstructed 2^32 too high.
    #[error("older than the replay window")]
    TooOld,
    /// The tag is wrong.
    #[error("the tag is wrong")]
    Forged,
}

/// An authenticated packet, in the buffer in which it arrived.
#[derive(Debug)]
pub struct Opened<'a> {
    body: &'a mut [u8],
    counter: u64,
    kind: Kind,
    lane: Lane,
    first: bool,
}

impl<'a> Opened<'a> {
    /// The decrypted bytes between link header and tag.
    ///
    /// In header-only mode the bytes after the sealed head are not authenticated here; the
    /// end-to-end seal covers them.
    #[inline]
    pub fn into_body(self) -> &'a mut [u8] {
        self.body
    }

    /// As [`into_body`](Self::into_body), but returns a shared reference.
    #[inline]
    pub fn body(&self) -> &[u8] {
        self.body
    }

    /// The counter at its full width of 64 bits.
    #[inline]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// Kind: data, path challenge or path response.
    #[inline]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The peer's lane.
    #[inline]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether this is the first packet that these [`Openers`] opened. It proves that the peer has
    /// the keys.
    ///
    /// The slow path reports it to [`session`](crate::session) as `Input::Opened`.
    #[inline]
    pub const fn first(&self) -> bool {
        self.first
    }
}

/// Key and replay window of one lane. The worker that owns it is the only writer.
struct Opener {
    key: AeadKey,
    window: Window,
}

/// Opens all lanes of one direction of one session.
///
/// It is not `Clone`, because a copy of a replay window would accept a replay.
///
/// ```compile_fail,E0277
/// fn needs_clone<T: Clone>() {}
/// needs_clone::<strowger_crypto::Openers>();
/// ```
pub struct Openers {
    lanes: Box<[Opener]>,
    mode: SealMode,
    refuse_at: Nanos,
    has_opened: bool,
}

impl Openers {
    pub(crate) fn new(
        (domain, direction): (Domain, &Secret),
        lanes: u8,
        mode: SealMode,
        born: Nanos,
        provider: Provider,
    ) -> Openers {
        let lanes = (0..lanes)
            .filter_map(Lane::new)
            .map(|lane| Opener {
                key: provider.key(&lane_key(domain, direction, lane)),
                window: Window::new(),
            })
            .collect();
        Openers { lanes, mode, refuse_at: born.plus(OPEN_REFUSED_AFTER), has_opened: false }
    }

    /// Opens `packet` (link header, body, tag) in place. It does not allocate or move bytes.
    ///
    /// `now` is the burst's clock reading.
    ///
    /// # Errors
    /// The reason for the refusal. The packet's bytes are then unusable, and the replay window is
    /// unchanged.
    #[inline]
    pub fn open<'a>(
        &mut self,
        now: Nanos,
        packet: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenRefused> {
        let header = match LinkHeader::parse(packet) {
            Ok(header) => header,
            Err(LinkHeaderError::Runt) => return Err(OpenRefused::Runt),
            Err(LinkHeaderError::UnknownKind) => return Err(OpenRefused::WrongKind),
        };
        let Some((header_bytes, rest)) = packet.split_first_chunk_mut::<LINK_HEADER_BYTES>() else {
            return Err(OpenRefused::Runt);
        };
        let Some((body, tag)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(OpenRefused::Runt);
        };
        let agreed = match header.kind {
            Kind::PathChallenge | Kind::PathResponse => true,
            kind => kind == self.mode.data_kind(),
        };
        if !agreed {
            return Err(OpenRefused::WrongKind);
        }
        if now >= self.refuse_at {
            return Err(OpenRefused::Expired);
        }
        let Some(lane) = self.lanes.get_mut(usize::from(header.lane.number())) else {
            return Err(OpenRefused::NoSuchLane);
        };
        let counter = lane.open(&header, header_bytes, body, tag)?;
        let first = !self.has_opened;
        self.has_opened = true;
        Ok(Opened { body, counter, kind: header.kind, lane: header.lane, first })
    }

    /// Sets the replay window of each lane.
    #[cfg(feature = "vectors")]
    pub(crate) fn set_windows(&mut self, edge: u64) {
        self.lanes.iter_mut().for_each(|lane| lane.window = Window::at(edge, &[]));
    }

    /// Bytes of memory behind this value.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lanes)
    }

    /// Number of lanes that the peer announced.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether any packet was opened.
    #[cfg(test)]
    pub(crate) const fn has_opened(&self) -> bool {
        self.has_opened
    }

    /// The seal mode that data packets must have.
    pub const fn mode(&self) -> SealMode {
        self.mode
    }
}

impl Opener {
    #[inline]
    fn open(
        &mut self,
        header: &LinkHeader,
        header_bytes: &[u8; LINK_HEADER_BYTES],
        body: &mut [u8],
        tag: &Tag,
    ) -> Result<u64, OpenRefused> {
        let fresh = self.window.rebuild(header.low).map_err(refused)?;
        let (head, aad) = covered(header.kind, header_bytes, body);
        if self.key.open(&nonce_of(fresh.counter()), aad.bytes(), head, tag).is_err() {
            return Err(OpenRefused::Forged);
        }
        self.window.accept(fresh).map_err(refused)?;
        Ok(fresh.counter())
    }
}

pub(crate) const fn refused(stale: Stale) -> OpenRefused {
    match stale {
        Stale::Replayed => OpenRefused::Replayed,
        Stale::TooOld => OpenRefused::TooOld,
    }
}

impl fmt::Debug for Openers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Openers")
            .field("lanes", &self.lanes.len())
            .field("mode", &self.mode)
            .field("has_opened", &self.has_opened)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{
        REPLAY_WINDOW_PACKETS, SEAL_REFUSED_AFTER, SEAL_REFUSED_AFTER_PACKETS, SEALED_HEAD_BYTES,
    };
    use crate::sealer::{SEALED_OVERHEAD_BYTES, SealRefused, Sealed, Sealer};
    use strowger_testkit::wire_md::{assert_example, example};
    use strowger_wire::{limits::KEY_BYTES, link_header::SessionIndex};

    const NOW: Nanos = Nanos::from_secs(1);
    const BORN: Nanos = Nanos::from_secs(1);

    fn direction(seed: u8) -> Secret {
        Secret::from_bytes([seed; KEY_BYTES])
    }

    fn sealer(lane: u8, mode: SealMode, provider: Provider) -> Sealer {
        let to = SessionIndex::new(0xabcdef).expect("24 bits");
        Sealer::new(
            (Domain::Link, &direction(7)),
            Lane::new(lane).expect("a lane"),
            to,
            mode,
            BORN,
            provider,
        )
    }

    fn openers(lanes: u8, mode: SealMode, provider: Provider) -> Openers {
        Openers::new((Domain::Link, &direction(7)), lanes, mode, BORN, provider)
    }

    fn packet(body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; LINK_HEADER_BYTES];
        packet.extend_from_slice(body);
        packet.extend_from_slice(&[0; TAG_BYTES]);
        packet
    }

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place * 7 + 3) as u8).collect()
    }

    const MODES: [SealMode; 2] = [SealMode::Full, SealMode::HeaderOnly];

    /// Seals a packet with the inputs of the examples in wire.md 3.2.
    fn seal_example(mode: SealMode, counter: u64, what: Sealed, body: &[u8]) -> Vec<u8> {
        let direction = Secret::from_bytes(core::array::from_fn(|place| place as u8));
        let to = SessionIndex::new(0xabcdef).expect("24 bits");
        let lane = Lane::new(2).expect("a lane");
        let mut sealer =
            Sealer::new((Domain::Link, &direction), lane, to, mode, BORN, Provider::DEFAULT);
        sealer.skip_to(counter);
        let mut packet = packet(body);
        sealer.seal(NOW, what, &mut packet).expect("sealed");
        packet
    }

    /// wire.md: W3-5, W3-6, W3-7, W3-9, W3-21, W3-31, W3-33, W3-42, W3-44, W3-52, W4-65.
    #[test]
    fn sealed_packets_are_those_of_the_examples() {
        let direction = Secret::from_bytes(core::array::from_fn(|place| place as u8));
        let key = lane_key(Domain::Link, &direction, Lane::new(2).expect("a lane"));
        assert_example("lane-key-2", key.expose());
        let header = [[0x10, 0, 0x40, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0x04, 0x13]]
            .as_flattened()
            .to_vec();
        let data = |payload: &[u8]| [&header[..], payload].concat();
        let full = seal_example(SealMode::Full, 7, Sealed::Data, &data(b"hello"));
        assert_example("sealed-full", &full);
        let payload: Vec<u8> = (0..84).collect();
        let counter = (1 << 32) + 7;
        let head = seal_example(SealMode::HeaderOnly, counter, Sealed::Data, &data(&payload));
        assert_example("sealed-header-only", &head);
        let full = seal_example(SealMode::Full, 0, Sealed::Data, &[]);
        assert_example("keepalive-full", &full);
        let head = seal_example(SealMode::HeaderOnly, 0, Sealed::Data, &[]);
        assert_example("keepalive-header-only", &head);
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        let padded = [&token[..], &[0; 32]].concat();
        for mode in MODES {
            let challenge = seal_example(mode, 8, Sealed::PathChallenge, &padded);
            assert_example("path-challenge", &challenge);
            let response = seal_example(mode, 9, Sealed::PathResponse, &token);
            assert_example("path-response", &response);
        }
    }

    /// wire.md: W3-5, W3-6, W3-36.
    #[test]
    fn the_examples_of_sealed_packets_open() {
        let direction = Secret::from_bytes(core::array::from_fn(|place| place as u8));
        for (mode, name, counter, bytes) in [
            (SealMode::Full, "sealed-full", 7, 21),
            (SealMode::HeaderOnly, "sealed-header-only", (1 << 32) + 7, 100),
            (SealMode::Full, "keepalive-full", 0, 0),
            (SealMode::HeaderOnly, "keepalive-header-only", 0, 0),
            (SealMode::Full, "path-challenge", 8, 40),
            (SealMode::HeaderOnly, "path-response", 9, 8),
        ] {
            let mut openers =
                Openers::new((Domain::Link, &direction), 3, mode, BORN, Provider::DEFAULT);
            openers.lanes[2].window = Window::with_edge(counter);
            let mut packet = example(name);
            let opened = openers.open(NOW, &mut packet).expect(name);
            assert_eq!((opened.counter(), opened.body().len()), (counter, bytes), "{name}");
        }
    }

    /// wire.md: W3-7.
    #[test]
    fn every_provider_opens_in_place_in_every_mode() {
        for mode in MODES {
            for one in Provider::ALL {
                for other in Provider::ALL {
                    let mut sealer = sealer(3, mode, *one);
                    let mut openers = openers(4, mode, *other);
                    for (sent, length) in (0..200).chain([1400, 9000]).enumerate() {
                        let mut packet = packet(&body(length));
                        let address = packet.as_ptr();
                        assert_eq!(sealer.seal(NOW, Sealed::Data, &mut packet), Ok(sent as u64));
                        assert_eq!(packet.len(), length + SEALED_OVERHEAD_BYTES);
                        let opened = openers.open(NOW, &mut packet).expect("authentic");
                        assert_eq!(opened.body(), body(length));
                        assert_eq!(opened.body().as_ptr(), address.wrapping_add(8));
                        assert_eq!(opened.counter(), sent as u64);
                        assert_eq!((opened.kind(), opened.lane().number()), (mode.data_kind(), 3));
                        assert_eq!(opened.first(), sent == 0);
                    }
                }
            }
        }
    }

    /// wire.md: W3-5, W3-6.
    #[test]
    fn full_encrypts_everything_and_header_only_the_head() {
        for mode in MODES {
            let mut packet = packet(&body(300));
            sealer(0, mode, Provider::DEFAULT)
                .seal(NOW, Sealed::Data, &mut packet)
                .expect("sealed");
            let sealed = &packet[8..308];
            let same = sealed.iter().zip(body(300)).map(|(a, b)| *a == b).collect::<Vec<_>>();
            assert!(same[..SEALED_HEAD_BYTES].iter().filter(|same| **same).count() < 8);
            let behind = same[SEALED_HEAD_BYTES..].iter().filter(|same| **same).count();
            match mode {
                SealMode::Full => assert!(behind < 20),
                SealMode::HeaderOnly => assert_eq!(behind, 300 - SEALED_HEAD_BYTES),
            }
        }
    }

    /// wire.md: W3-8.
    #[test]
    fn r6_a_replayed_packet_is_refused() {
        for mode in MODES {
            let mut sealer = sealer(0, mode, Provider::DEFAULT);
            let mut openers = openers(1, mode, Provider::DEFAULT);
            let mut sent = Vec::new();
            for _ in 0..3 * REPLAY_WINDOW_PACKETS {
                let mut packet = packet(&body(32));
                sealer.seal(NOW, Sealed::Data, &mut packet).expect("sealed");
                sent.push(packet);
            }
            // Odd packets arrive first, then all packets, then all again. Each opens once or is too
            // old.
            let mut opened = vec![0; sent.len()];
            let odd = (1..sent.len()).step_by(2);
            for place in odd.chain(0..sent.len()).chain(0..sent.len()) {
                if openers.open(NOW, &mut sent[place].clone()).is_ok() {
                    opened[place] += 1;
                }
            }
            assert!(opened.iter().all(|times| *times <= 1));
            assert!(opened.iter().skip(1).step_by(2).all(|times| *times == 1));
            let late = sent.len() - REPLAY_WINDOW_PACKETS as usize;
            assert!(opened[late..].iter().all(|times| *times == 1), "the window lost one");
        }
    }

    /// wire.md: W3-5, W3-6, W3-32, W3-37.
    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        for mode in MODES {
            let mut sealer = sealer(0, mode, Provider::DEFAULT);
            let mut openers = openers(16, mode, Provider::DEFAULT);
            let mut sealed = packet(&body(100));
            sealer.seal(NOW, Sealed::Data, &mut sealed).expect("sealed");
            let protected = match mode {
                SealMode::Full => sealed.len(),
                SealMode::HeaderOnly => LINK_HEADER_BYTES + SEALED_HEAD_BYTES,
            };
            for place in (0..protected * 8).chain((sealed.len() - TAG_BYTES) * 8..sealed.len() * 8)
            {
                let mut touched = sealed.clone();
                touched[place / 8] ^= 1 << (place % 8);
                assert!(openers.open(NOW, &mut touched).is_err(), "{mode:?}: bit {place}");
            }
            for length in 0..sealed.len() {
                let mut cut = sealed[..length].to_vec();
                assert!(openers.open(NOW, &mut cut).is_err(), "{mode:?}: cut to {length}");
                let mut inner = sealed.clone();
                inner.drain(LINK_HEADER_BYTES..sealed.len().min(LINK_HEADER_BYTES + length));
                if length > 0 {
                    assert!(openers.open(NOW, &mut inner).is_err(), "{mode:?}: {length} less");
                }
            }
            let mut grown = sealed.clone();
            grown.insert(LINK_HEADER_BYTES + 80, 0);
            assert!(openers.open(NOW, &mut grown).is_err(), "{mode:?}: grown");
            assert!(!openers.has_opened());
            assert!(openers.open(NOW, &mut sealed).is_ok());
        }
    }

    /// wire.md: W3-32.
    #[test]
    fn header_only_leaves_the_rest_to_the_end_to_end_seal() {
        let mut sealed = packet(&body(200));
        sealer(0, SealMode::HeaderOnly, Provider::DEFAULT)
            .seal(NOW, Sealed::Data, &mut sealed)
            .expect("sealed");
        sealed[8 + SEALED_HEAD_BYTES] ^= 1; // documented: only the end-to-end seal detects this
        let mut openers = openers(1, SealMode::HeaderOnly, Provider::DEFAULT);
        assert!(openers.open(NOW, &mut sealed).is_ok());
    }

    /// wire.md: W3-33, W3-34.
    #[test]
    fn a_mode_that_was_not_agreed_is_refused() {
        for (sealed, agreed) in
            [(SealMode::Full, SealMode::HeaderOnly), (SealMode::HeaderOnly, SealMode::Full)]
        {
            let mut packet = packet(&body(100));
            sealer(0, sealed, Provider::DEFAULT)
                .seal(NOW, Sealed::Data, &mut packet)
                .expect("sealed");
            let mut openers = openers(1, agreed, Provider::DEFAULT);
            assert_eq!(
                openers.open(NOW, &mut packet.clone()).map(|_| ()),
                Err(OpenRefused::WrongKind)
            );
            // A packet with a rewritten kind is refused as well.
            packet[0] = (agreed.data_kind() as u8) << 4;
            assert_eq!(openers.open(NOW, &mut packet).map(|_| ()), Err(OpenRefused::Forged));
        }
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_sealed()) {
            let mut packet = packet(&body(50));
            packet[0] = (kind as u8) << 4;
            let mut openers = openers(1, SealMode::Full, Provider::DEFAULT);
            assert_eq!(openers.open(NOW, &mut packet).map(|_| ()), Err(OpenRefused::WrongKind));
        }
    }

    /// wire.md: W3-33.
    #[test]
    fn path_challenges_and_answers_are_sealed_in_full_in_both_modes() {
        for mode in MODES {
            let mut sealer = sealer(0, mode, Provider::DEFAULT);
            let mut openers = openers(1, mode, Provider::DEFAULT);
            for (what, kind) in [
                (Sealed::PathChallenge, Kind::PathChallenge),
                (Sealed::PathResponse, Kind::PathResponse),
            ] {
                let mut sealed = packet(&body(120));
                sealer.seal(NOW, what, &mut sealed).expect("sealed");
                let mut turned = sealed.clone();
                turned[0] ^= (Kind::PathChallenge as u8 ^ Kind::PathResponse as u8) << 4;
                assert_eq!(openers.open(NOW, &mut turned).map(|_| ()), Err(OpenRefused::Forged));
                assert_eq!(openers.open(NOW, &mut sealed).map(|opened| opened.kind()), Ok(kind));
            }
        }
    }

    /// wire.md: W3-4, W3-30, W3-31, W3-67.
    #[test]
    fn lanes_do_not_open_each_others_packets() {
        let mut openers = openers(2, SealMode::Full, Provider::DEFAULT);
        let mut sealed = packet(&body(10));
        sealer(1, SealMode::Full, Provider::DEFAULT)
            .seal(NOW, Sealed::Data, &mut sealed)
            .expect("sealed");
        let mut moved = sealed.clone();
        moved[0] &= 0xf0; // lane 0
        assert_eq!(openers.open(NOW, &mut moved).map(|_| ()), Err(OpenRefused::Forged));
        let mut absent = sealed.clone();
        absent[0] |= 0x0f;
        assert_eq!(openers.open(NOW, &mut absent).map(|_| ()), Err(OpenRefused::NoSuchLane));
        assert!(openers.open(NOW, &mut sealed).is_ok());
    }

    /// wire.md: W3-10, W3-39, W3-40.
    #[test]
    fn a_sealer_refuses_by_age_and_by_count_and_leaves_the_packet_unchanged() {
        let mut sealer = sealer(0, SealMode::Full, Provider::DEFAULT);
        let mut bytes = packet(&body(10));
        let before = bytes.clone();
        let end = BORN.plus(SEAL_REFUSED_AFTER);
        assert_eq!(sealer.refuses_at(), end);
        assert_eq!(sealer.seal(end, Sealed::Data, &mut bytes), Err(SealRefused::Expired));
        assert_eq!(bytes, before);
        assert!(sealer.seal(Nanos(end.0 - 1), Sealed::Data, &mut bytes).is_ok());
        for length in 0..SEALED_OVERHEAD_BYTES {
            let mut short = vec![0; length];
            assert_eq!(sealer.seal(NOW, Sealed::Data, &mut short), Err(SealRefused::NoRoom));
        }
        assert_eq!(sealer.packets(), 1, "a refusal uses no counter");
        assert!(!sealer.wants_rekey());
        sealer.skip_to(1 << 60);
        assert!(sealer.wants_rekey());
        sealer.skip_to(SEAL_REFUSED_AFTER_PACKETS - 1);
        assert!(sealer.seal(NOW, Sealed::Data, &mut bytes).is_ok());
        assert_eq!(sealer.seal(NOW, Sealed::Data, &mut bytes), Err(SealRefused::Exhausted));
    }

    /// wire.md: W3-41.
    #[test]
    fn an_opener_expires_later_than_a_sealer() {
        let mut sealer = sealer(0, SealMode::Full, Provider::DEFAULT);
        let mut openers = openers(1, SealMode::Full, Provider::DEFAULT);
        let mut one = packet(&body(10));
        let mut two = one.clone();
        sealer.seal(NOW, Sealed::Data, &mut one).expect("sealed");
        sealer.seal(NOW, Sealed::Data, &mut two).expect("sealed");
        assert!(openers.open(BORN.plus(SEAL_REFUSED_AFTER), &mut one).is_ok());
        let late = BORN.plus(OPEN_REFUSED_AFTER);
        assert_eq!(openers.open(late, &mut two).map(|_| ()), Err(OpenRefused::Expired));
    }

    /// wire.md: W3-36.
    #[test]
    fn counters_above_32_bits_are_rebuilt() {
        let mut sealer = sealer(0, SealMode::Full, Provider::DEFAULT);
        let mut openers = openers(1, SealMode::Full, Provider::DEFAULT);
        let turn = 1u64 << 32;
        for counter in
            [0, turn - 5_000, turn - 1, turn, turn + 1, 2 * turn - 5_000, 2 * turn + 5_000]
        {
            sealer.skip_to(counter);
            let mut bytes = packet(&body(20));
            sealer.seal(NOW, Sealed::Data, &mut bytes).expect("sealed");
            let opened = openers.open(NOW, &mut bytes).expect("authentic");
            assert_eq!(opened.counter(), counter);
        }
    }
}
