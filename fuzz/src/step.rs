//! Properties of one switch step, on the real worker with memory ports.
//!
//! A model reads the bytes itself and predicts for each frame its egress slot and its bytes there,
//! or the reason for its drop. It does not use the worker's tables.
//!
//! The input is plain bytes, so that a corpus file can be written by hand; see [`Case::read`]. For
//! every input: no panic (R2); counters balance once all frames are handled (R3); at most one frame
//! out for each frame in (R4); the length does not change; only label, shift, hops left and link
//! header change; egress or drop reason equal the model's; and a frame sent along the return path
//! arrives at its sender, with a return path that leads back again.

use std::collections::{HashMap, HashSet};

use bolero::check;
use strowger_crypto::handshake::could_be_handshake;
use strowger_engine::{
    Now,
    control::{Attach, Switch, SwitchConfig},
    discard::Discard,
    limits::{FRAME_BYTES_MAX, FRAME_BYTES_MIN},
    link::{Behind, plain_header},
    worker::Worker,
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port as _};
use strowger_io::{MemoryPort, memory};
use strowger_testkit::Rng;
use strowger_wire::{
    Director, Label, Register, Scheme, Slot, U256,
    label::{Step, StepError, step},
    link_header::{Kind, LINK_HEADER_BYTES, LinkHeader},
    scheme::{self, Form},
    switch_header::HeaderRepr,
};

/// Candidate slots. A switch uses those that its scheme can encode.
const CANDIDATES: [u32; 16] = [0, 2, 3, 5, 7, 8, 9, 15, 16, 32, 33, 200, 255, 256, 300, 5_000];

/// Maximum number of attachments: each is a wire with two descriptors.
const ATTACHED_MAX: usize = 6;

/// Maximum number of frames sent into one switch.
const PACKETS_MAX: usize = 8;

/// A scheme whose lookup needs two loads, so that the other kind of table is used too.
///
/// Two bits distinguish its forms, but one prefix has three bits, and the low bits `110` match no
/// form.
fn wide() -> Scheme {
    Scheme::new(&[Form::new(4, 1, 1), Form::new(8, 3, 2), Form::new(16, 2, 0)])
        .expect("prefix-free")
}

/// Reads big-endian numbers from the front of the input, and zeros once it is exhausted.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u64 {
        (0..8).fold(0, |sum, _| sum << 8 | u64::from(self.byte()))
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// A switch and the frames sent into it.
#[derive(Debug)]
struct Case {
    scheme: Scheme,
    slot_max: u32,
    u_turns: bool,
    hops_max: u8,
    /// For each slot: its number, whether it is an endpoint, and whether it is detached.
    slots: Vec<(u32, bool, bool)>,
    /// For each packet: the index into `slots` of its ingress, and its bytes.
    packets: Vec<(usize, Vec<u8>)>,
}

impl Case {
    /// Reads scheme (1 byte), u-turns (1), hop limit (1), number of slots (1) and for each slot its
    /// candidate, whether it is an endpoint and whether it is detached (1); then packets: ingress
    /// (1), kind (1) and what [`raw`](Self::raw) or [`made`](Self::made) read.
    fn read(input: &mut Input<'_>) -> Self {
        let wide = wide();
        let schemes: [(&Scheme, u32); 5] = [
            (&scheme::V3X5X8, 256),
            (&scheme::F4, 15),
            (&scheme::F8, 255),
            (&scheme::V4X8, 255),
            (&wide, 8_000),
        ];
        let (scheme, slot_max) = schemes[usize::from(input.byte()) % schemes.len()];
        let u_turns = input.byte() & 1 == 1;
        let hops_max = 1 + input.byte() % 64;
        let mut slots: Vec<(u32, bool, bool)> = Vec::new();
        for _ in 0..1 + usize::from(input.byte()) % ATTACHED_MAX {
            let which = input.byte();
            let slot = CANDIDATES[usize::from(which % 16)];
            if slot <= slot_max && slots.iter().all(|&(other, ..)| other != slot) {
                slots.push((slot, which >> 4 & 3 == 3, which >> 6 == 3));
            }
        }
        if slots.is_empty() {
            slots.push((2, false, false));
        }
        let mut case =
            Self { scheme: *scheme, slot_max, u_turns, hops_max, slots, packets: vec![] };
        while !input.0.is_empty() && case.packets.len() < PACKETS_MAX {
            let from = usize::from(input.byte()) % case.slots.len();
            let bytes = match input.byte() % 8 {
                0 => Self::raw(input),
                kind => case.made(kind, input),
            };
            case.packets.push((from, bytes));
        }
        case
    }

    /// Reads raw bytes: their number (1), and the bytes.
    fn raw(input: &mut Input<'_>) -> Vec<u8> {
        let len = usize::from(input.byte());
        input.bytes(len)
    }

    /// A packet with a header: label width (1), flags (1), hops left (1), class (1), flow (2),
    /// shift (1), return path so far (8), directors (1, and 2 each), whether an end marker follows
    /// (1), bytes of payload (1; in kind 1 two, for very long packets), then its fault (1, and 2
    /// more).
    fn made(&self, kind: u8, input: &mut Input<'_>) -> Vec<u8> {
        let width = input.byte() % 3;
        match width {
            0 => self.made_in::<u64>(kind, input),
            1 => self.made_in::<u128>(kind, input),
            _ => self.made_in::<U256>(kind, input),
        }
    }

    fn made_in<R: Register>(&self, kind: u8, input: &mut Input<'_>) -> Vec<u8> {
        let (flags, hops_left, class, flow) =
            (input.byte(), input.byte(), input.byte(), input.word());
        let shift = u16::from(input.byte()) % R::BITS as u16;
        let mut label = match shift {
            0 => R::ZERO,
            // The top `shift` bits are the return path, with or without its marker. All other bits
            // are zero.
            _ => {
                let kept = R::BITS - u32::from(shift);
                R::from_top(input.long()).shr(kept).shl(kept)
            }
        };
        let mut at = 0;
        let directors = input.byte();
        // In one of eight packets, the directors may overlap the return path.
        let room = if directors >> 5 == 0 { R::BITS } else { R::BITS - u32::from(shift) };
        for _ in 0..directors % 8 {
            let Some(director) = self.director(input.byte(), input.byte()) else { continue };
            if at + u32::from(director.width()) < room {
                label = label.or(R::from_low(director.bits()).shl(at));
                at += u32::from(director.width());
            }
        }
        if input.byte() & 3 != 3 {
            label = label.or(R::ONE.shl(at));
        }
        let payload = match kind {
            1 => usize::from(input.word()),
            _ => usize::from(input.byte()),
        };
        let repr = HeaderRepr::<R>::new(Label::new(label), shift, hops_left);
        let len = (LINK_HEADER_BYTES + repr.wire_bytes() + payload).min(usize::from(u16::MAX));
        let mut bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        bytes[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(u32::from(flow)));
        repr.emit(&mut bytes[LINK_HEADER_BYTES..]).expect("room was made");
        let header = &mut bytes[LINK_HEADER_BYTES..];
        header[1] = flags;
        header[3] = class;
        header[6..8].copy_from_slice(&flow.to_be_bytes());

        let (wrong, value) = (input.byte(), input.word());
        match wrong % 16 {
            0 => bytes[0] = value as u8,
            1 => bytes[LINK_HEADER_BYTES] = value as u8,
            2 => bytes[LINK_HEADER_BYTES + 4..][..2].copy_from_slice(&value.to_be_bytes()),
            3 => bytes.truncate(usize::from(value) % 50),
            4 => bytes.resize(FRAME_BYTES_MAX + usize::from(value) % 4 - 1, 0xee),
            // Arbitrary low bits, which may match no form.
            5 => {
                let last = LINK_HEADER_BYTES + 8 + R::BITS as usize / 8 - 1;
                bytes[last] = value as u8;
                bytes[last - 1] = (value >> 8) as u8 & 0xf0;
                if value & 3 == 0 {
                    bytes[last] = 0;
                    bytes[last - 1] &= 0xfe;
                }
            }
            _ => (),
        }
        bytes
    }

    /// A director to one of the attached slots or to any other, in a given form or the shortest.
    fn director(&self, slot: u8, form: u8) -> Option<Director> {
        let slot = match self.slots.get(usize::from(slot) % (self.slots.len() + 2)) {
            Some(&(slot, ..)) => slot,
            // Other slots, among them the switch itself and the slot after the highest in use.
            None if slot & 1 == 0 => u32::from(slot) / 8,
            None => {
                let highest = self.slots.iter().map(|&(slot, ..)| slot).max().unwrap_or(0);
                highest + u32::from(slot) / 2 % 4
            }
        };
        let slot = Slot::new(slot);
        let form = form % (self.scheme.forms().len() as u8 + 1);
        self.scheme.encode_in(slot, form).or_else(|_| self.scheme.encode_least(slot)).ok()
    }
}

/// The expected outcome of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// The frame is sent on this slot with these bytes. The link header is not compared.
    Leaves(u32, Vec<u8>),
    /// The frame is dropped.
    Ends(Discard),
}

/// The model's view of a forwarded packet.
#[derive(Debug)]
struct Passed<R: Register> {
    label: Label<R>,
    shift: u16,
    /// The director taken.
    took: Director,
    /// Whether the switch has written the ingress slot into the label.
    wrote: bool,
}

impl Case {
    fn slot(&self, number: u32) -> Option<&(u32, bool, bool)> {
        self.slots.iter().find(|&&(slot, ..)| slot == number)
    }

    /// Predicts the outcome of a frame. Checks lengths, then link header, then switch header, then
    /// label (wire.md 1 to 3).
    fn fate(&self, from: usize, bytes: &[u8]) -> Fate {
        use Discard as D;
        if self.slots[from].2 {
            return Fate::Ends(D::UnknownSender);
        }
        let Some(packet) = bytes.get(LINK_HEADER_BYTES..) else { return Fate::Ends(D::TooShort) };
        if bytes.len() > FRAME_BYTES_MAX {
            return Fate::Ends(D::TooLong);
        }
        match bytes[0] >> 4 {
            1..=3 => {
                let header = LinkHeader::parse(bytes).expect("it has the length of one");
                return Fate::Ends(match header.kind {
                    _ if !could_be_handshake(&header, bytes.len()) => D::Malformed,
                    // This switch has no identity to respond with.
                    Kind::Initiation => D::Unhandled,
                    // A response or cookie reply belongs to no handshake of this switch.
                    _ => D::NoSession,
                });
            }
            // The packet is sealed, and there is no session.
            4 | 5 | 8 | 9 => return Fate::Ends(D::NoSession),
            6 if bytes.len() < FRAME_BYTES_MIN => return Fate::Ends(D::TooShort),
            6 => {}
            _ => return Fate::Ends(D::BadLinkKind),
        }
        match packet[0] {
            0x10 => self.fate_in::<u64>(from, packet),
            0x11 => self.fate_in::<u128>(from, packet),
            0x12 => self.fate_in::<U256>(from, packet),
            0x13..0x20 => Fate::Ends(D::BadWidth),
            _ => Fate::Ends(D::BadVersion),
        }
    }

    fn fate_in<R: Register>(&self, from: usize, packet: &[u8]) -> Fate {
        match self.passed::<R>(from, packet) {
            Err(discard) => Fate::Ends(discard),
            Ok(passed) => {
                let mut out = packet.to_vec();
                if passed.wrote {
                    out[2] = out[2].min(self.hops_max) - 1;
                    out[4..6].copy_from_slice(&passed.shift.to_be_bytes());
                    let label = passed.label.register().to_be_bytes();
                    out[8..][..R::BITS as usize / 8].copy_from_slice(label.as_ref());
                }
                Fate::Leaves(passed.took.slot().number(), out)
            }
        }
    }

    fn passed<R: Register>(&self, from: usize, packet: &[u8]) -> Result<Passed<R>, Discard> {
        let label_bytes = R::BITS as usize / 8;
        let Some(written) = packet.get(8..8 + label_bytes) else { return Err(Discard::TooShort) };
        let mut bytes = R::Bytes::default();
        bytes.as_mut().copy_from_slice(written);
        let label = Label::new(R::from_be_bytes(bytes));
        let shift = u16::from_be_bytes([packet[4], packet[5]]);
        if u32::from(shift) >= R::BITS {
            return Err(Discard::BadHeader);
        }
        if packet[2].min(self.hops_max) == 0 {
            return Err(Discard::HopsSpent);
        }

        let ingress = Slot::new(self.slots[from].0);
        let ends_here = |took: Director| {
            let rest = label.forward(shift).register().shr(u32::from(took.width()));
            rest == R::ZERO || rest == R::ONE
        };
        let is_taken = |slot: Slot| self.slot(slot.number()).is_some_and(|&(_, _, gone)| !gone);
        let decoded = self.scheme.decode(label.low());
        // An endpoint is not a switch: the rules for the return path do not apply (wire.md 1.3).
        if let (false, Ok(took)) = (label.is_spent(shift), decoded)
            && let Some(&(slot, true, false)) = self.slot(took.slot().number())
        {
            return if slot == ingress.number() && !self.u_turns {
                Err(Discard::UTurn)
            } else if ends_here(took) {
                Ok(Passed { label, shift, took, wrote: false })
            } else {
                Err(Discard::BeyondEndpoint)
            };
        }
        match step(&self.scheme, label, shift, ingress, is_taken, self.u_turns) {
            Ok(Step::Forward { label, shift, .. }) => {
                let took = decoded.expect("it was taken");
                Ok(Passed { label, shift, took, wrote: true })
            }
            Ok(Step::Arrive { .. }) => Err(Discard::Unhandled),
            Err(StepError::BeyondSwitch) => Err(Discard::BeyondEndpoint),
            Err(StepError::SpentLabel) => Err(Discard::LabelSpent),
            Err(StepError::NoSuchDirector) => Err(Discard::NoDirector),
            Err(StepError::EmptySlot) => {
                let slot = decoded.expect("it was read").slot().number();
                let was_there = self.slot(slot).is_some();
                Err(if was_there { Discard::SlotGone } else { Discard::EmptySlot })
            }
            Err(StepError::UTurn) => Err(Discard::UTurn),
            Err(StepError::ReturnPath) => Err(Discard::ReturnPath),
            Err(StepError::RegisterFull) => Err(Discard::LabelFull),
        }
    }
}

/// The switch of a case, with the far end of every wire.
struct Rig {
    switch: Switch,
    worker: Worker,
    /// The far ends in the order of the case's slots.
    far: Vec<MemoryPort>,
    pool: Pool,
    now: Now,
    sent: u64,
}

impl Rig {
    fn new(case: &Case) -> Self {
        let memory = |trains, singles| {
            Pool::new(&PoolSpec { trains, singles, huge_pages: false }).expect("memory")
        };
        let config = SwitchConfig::default()
            .with_scheme(case.scheme)
            .with_slot_max(case.slot_max)
            .with_hops_max(case.hops_max)
            .with_u_turns(case.u_turns);
        let (switch, mut workers) = Switch::new(config, vec![memory(0, 0)]).expect("a sane switch");
        let worker = workers.pop().expect("one");
        let mut rig =
            Self { switch, worker, far: vec![], pool: memory(1, 2), now: Now(1), sent: 0 };
        for &(slot, is_endpoint, _) in &case.slots {
            let (near, mut far) = memory::wire(4).expect("descriptors");
            far.admit(Mark(0), Address::Only).expect("a free address");
            let port = rig.switch.plug_at(0, Box::new(near)).expect("a place");
            let behind = if is_endpoint { Behind::Endpoint } else { Behind::Neighbour };
            let attach = Attach::plain(port, Address::Only, behind, "").with_slot(Slot::new(slot));
            assert_eq!(rig.switch.attach(attach), Ok(Slot::new(slot)));
            rig.far.push(far);
        }
        rig.settle();
        for &(slot, ..) in case.slots.iter().filter(|(.., gone)| *gone) {
            rig.switch.detach(Slot::new(slot)).expect("attached");
        }
        rig.settle();
        rig
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.switch.poll(self.now);
            if self.switch.is_settled() {
                return;
            }
            self.worker.poll(self.now);
        }
        panic!("the switch does not come to rest");
    }

    /// Sends a frame into the switch and returns its outcome. Checks R2, R3 and R4.
    fn send(&mut self, case: &Case, from: usize, bytes: &[u8]) -> Fate {
        let before = self.discards();
        let class = if bytes.len() < 3_000 { ChunkClass::Single } else { ChunkClass::Train };
        let chunk = self.pool.take(class).expect("every frame returned");
        let start = chunk.start();
        let mut frame = chunk.into_frame(start, bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        let mut burst = Burst::new();
        burst.push(frame);
        self.far[from].tx_burst(Mark(0), &mut burst);
        self.far[from].flush();
        self.now.0 += 1;
        self.worker.poll(self.now);
        self.switch.poll(self.now);
        self.sent += 1;

        let mut out = Vec::new();
        for (far, &(slot, ..)) in self.far.iter_mut().zip(&case.slots) {
            let mut burst = Burst::new();
            far.rx_burst(&mut self.pool, &mut burst);
            out.extend(burst.iter().map(|frame| (slot, frame.bytes().to_vec())));
        }
        assert_eq!(self.worker.frames_waiting(), 0);
        let balance = self.switch.balance();
        assert!(balance.is_even(), "R3: {balance:?}");
        assert_eq!(balance.frames_in, self.sent);

        let ended: Vec<Discard> = self
            .discards()
            .into_iter()
            .filter(|(reason, n)| before.get(reason) != Some(n))
            .map(|(reason, _)| reason)
            .collect();
        assert!(out.len() + ended.len() == 1, "R4: {} out, ended by {ended:?}", out.len());
        match out.pop() {
            None => Fate::Ends(ended[0]),
            Some((slot, out)) => {
                assert_eq!(out.len(), bytes.len(), "the size changed");
                assert_eq!(out[0] >> 4, 6, "a plain frame became another kind");
                Fate::Leaves(slot, out[LINK_HEADER_BYTES..].to_vec())
            }
        }
    }

    /// The discards, except `PoolEmpty`. That reason counts the switch's own messages, for which
    /// this worker's pool has no chunks.
    fn discards(&self) -> HashMap<Discard, u64> {
        let balance = self.switch.balance();
        balance.by_reason().filter(|(reason, _)| *reason != Discard::PoolEmpty).collect()
    }
}

/// The outcome of a case.
#[derive(Default)]
struct Seen {
    ended: Vec<Discard>,
    /// The number of forwarded packets whose return path led back to the sender.
    back_again: usize,
}

/// Sends a case through its switch.
fn run(input: &[u8]) -> Seen {
    let case = Case::read(&mut Input(input));
    let mut rig = Rig::new(&case);
    let mut seen = Seen::default();
    for (from, bytes) in &case.packets {
        let fate = case.fate(*from, bytes);
        assert_eq!(rig.send(&case, *from, bytes), fate, "from slot {}", case.slots[*from].0);
        match fate {
            Fate::Ends(discard) => seen.ended.push(discard),
            Fate::Leaves(..) => {
                let back_again = match bytes[LINK_HEADER_BYTES] & 0xf {
                    0 => there_and_back::<u64>(&case, &mut rig, *from, bytes),
                    1 => there_and_back::<u128>(&case, &mut rig, *from, bytes),
                    _ => there_and_back::<U256>(&case, &mut rig, *from, bytes),
                };
                seen.back_again += usize::from(back_again);
            }
        }
    }
    seen
}

/// Sends a reply along the return path of a forwarded packet.
///
/// The reply must arrive at the packet's ingress, and its own return path must lead to the packet's
/// egress. Returns `false` if the packet has no usable return path.
fn there_and_back<R: Register>(case: &Case, rig: &mut Rig, from: usize, bytes: &[u8]) -> bool {
    let there = case.passed::<R>(from, &bytes[LINK_HEADER_BYTES..]).expect("it left");
    let ingress = Slot::new(case.slots[from].0);
    let egress = there.took.slot();
    let Some(back) = return_path(case, &there, ingress) else { return false };
    // The sender of the reply acts as an endpoint does, with a marker for the return path (wire.md
    // 1.4).
    let Ok((label, shift)) = back.depart() else { return false };

    let exit = case.slots.iter().position(|&(slot, ..)| slot == egress.number());
    let exit = exit.expect("it left by a slot");
    let mut reply = vec![0x5a; LINK_HEADER_BYTES + 8 + R::BITS as usize / 8 + 3];
    reply[..LINK_HEADER_BYTES].copy_from_slice(&plain_header(1));
    let repr = HeaderRepr::<R>::new(label, shift, 64);
    repr.emit(&mut reply[LINK_HEADER_BYTES..]).expect("room was made");
    let fate = case.fate(exit, &reply);
    assert_eq!(rig.send(case, exit, &reply), fate);
    let (slot, _) = match fate {
        Fate::Leaves(slot, out) => (slot, out),
        // The input chooses the return path, which may have more directors after that of an
        // endpoint.
        Fate::Ends(Discard::BeyondEndpoint) => return false,
        Fate::Ends(discard) => panic!("the return path ends here: {discard}"),
    };
    assert_eq!(slot, ingress.number(), "the return path leads elsewhere");

    let again = case.passed::<R>(exit, &reply[LINK_HEADER_BYTES..]).expect("it left");
    let Some(onward) = return_path(case, &again, egress) else {
        panic!("a marker was set, so there is a return path")
    };
    let first = onward.decode(&case.scheme).expect("a director was written");
    assert_eq!(first.slot(), egress, "the return path of the return path leads elsewhere");
    if there.wrote && again.wrote {
        assert_eq!(first.width(), there.took.width());
    }
    // The director is the one that `encode` chooses for its width.
    let spelled = case.scheme.encode(egress, first.width()).expect("it was decoded");
    assert_eq!(first.bits(), spelled.bits());
    true
}

/// The return label that the node behind the egress computes (wire.md 1.3, 1.4).
fn return_path<R: Register>(case: &Case, passed: &Passed<R>, ingress: Slot) -> Option<Label<R>> {
    if passed.wrote {
        return passed.label.reverse(passed.shift, None).ok();
    }
    // An endpoint gets the ingress slot with the packet, and must leave room for its own slot.
    let beside = case.scheme.encode_least(ingress).expect("a slot of this scheme");
    let back = passed.label.reverse(passed.shift, Some(beside)).ok()?;
    back.widen(&case.scheme, passed.took.slot()).ok()
}

/// wire.md: W1.2-1, W1.2-2, W1.2-3, W1.2-4, W1.2-5, W1.2-8, W1.2-9, W1.3-2, W1.3-3, W1.3-10,
/// W1.3-11, W1.5-1, W1.5-2, W2-4, W2-6, W2-7, W2-10, W2-13, W2-14.
#[test]
fn a_frame_leaves_or_is_dropped_as_the_model_says() {
    check!().for_each(|input: &[u8]| {
        run(input);
    });
}

/// Drop reasons that bytes alone can cause. The others need a full queue, a change in progress, a
/// sealed link or a socket.
const BY_BYTES: [Discard; 19] = [
    Discard::NoSession,
    Discard::Malformed,
    Discard::TooShort,
    Discard::TooLong,
    Discard::BadLinkKind,
    Discard::BadVersion,
    Discard::BadWidth,
    Discard::BadHeader,
    Discard::LabelSpent,
    Discard::NoDirector,
    Discard::EmptySlot,
    Discard::SlotGone,
    Discard::ReturnPath,
    Discard::UTurn,
    Discard::LabelFull,
    Discard::HopsSpent,
    Discard::BeyondEndpoint,
    Discard::Unhandled,
    Discard::UnknownSender,
];

#[test]
fn random_input_reaches_every_reason_in_by_bytes() {
    let mut rng = Rng::new(0x5742_0b5e);
    let mut missing: HashSet<Discard> = BY_BYTES.into();
    let mut back_again = 0;
    for _ in 0..3_000 {
        if missing.is_empty() && back_again >= 500 {
            return;
        }
        let input = rng.bytes(300);
        let seen = run(&input);
        back_again += seen.back_again;
        for reason in seen.ended {
            assert!(BY_BYTES.contains(&reason), "{reason} is not in BY_BYTES");
            missing.remove(&reason);
        }
    }
    panic!("not reached: {missing:?}; {back_again} frames went there and back");
}
