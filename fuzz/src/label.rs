//! Properties of labels, schemes and headers, against a model on lists of bits.
//!
//! The model shares no code with the engine: it encodes directors from tables and moves single
//! bits.
//!
//! Each test reads raw bytes, so that a corpus file can be written by hand; [`Input`] defines how.
//! By default these are plain tests. They are coverage-guided with
//! `cargo bolero test -p strowger-fuzz label::<name>`.

use std::sync::LazyLock;

use bolero::check;
use strowger_wire::{
    Hop, Label, Register, Scheme, Slot, U256,
    label::{LabelError, Step, StepError, TextFault, step},
    scheme::{self, Form},
    switch_header::{AnyHeader, Ecn, Header, HeaderError, hops_behind},
};

/// Bits, lowest first.
type Bits = Vec<bool>;

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

    /// A register and its bits. The first byte is the number of low bits that are kept, so that
    /// short labels occur too. A register with fewer bits than that keeps all of them.
    fn register<R: Register>(&mut self) -> (Label<R>, Bits) {
        let kept = usize::from(self.byte());
        let mut bits: Bits = Vec::new();
        while bits.len() < R::BITS as usize {
            let byte = self.byte();
            bits.extend((0..8).map(|bit| byte >> bit & 1 == 1));
        }
        for bit in bits.iter_mut().skip(kept) {
            *bit = false;
        }
        (Label::new(register_of(&bits)), bits)
    }
}

fn register_of<R: Register>(bits: &Bits) -> R {
    let mut bytes = R::Bytes::default();
    for (byte, bits) in bytes.as_mut().iter_mut().rev().zip(bits.chunks(8)) {
        *byte = bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    }
    R::from_be_bytes(bytes)
}

fn bits_of<R: Register>(label: Label<R>) -> Bits {
    let bytes = label.register().to_be_bytes();
    let bytes = bytes.as_ref().iter().rev();
    bytes.flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect()
}

/// The model of a scheme. For each form, it has the prefix, the number of data bits, and the slots
/// in the order of their data bits.
struct Spelling {
    scheme: Scheme,
    forms: Vec<(Bits, usize, Vec<Option<u32>>)>,
}

/// The sequence 1 0 3 2 5 4 ..., which is `n ^ 1` without bit arithmetic. `first` replaces its
/// first element.
fn pairs(count: u32, first: Option<u32>) -> Vec<Option<u32>> {
    let swapped = (0..count / 2).flat_map(|pair| [Some(2 * pair + 1), Some(2 * pair)]);
    [first].into_iter().chain(swapped.skip(1)).collect()
}

/// All numbers from 0 to `count` except 1.
fn skipping(count: u32) -> Vec<Option<u32>> {
    (0..=count).filter(|&slot| slot != 1).map(Some).collect()
}

static SPELLINGS: LazyLock<Vec<Spelling>> = LazyLock::new(|| {
    let (on, off) = (true, false);
    let v2x4x8x16 = [
        Form::new(2, 1, 0b1),
        Form::new(4, 2, 0b10),
        Form::new(8, 3, 0b100),
        Form::new(16, 3, 0b000),
    ];
    vec![
        Spelling {
            scheme: scheme::V3X5X8,
            forms: vec![
                (vec![on], 3, [1, 0, 2, 3, 4, 5, 6, 7].map(Some).to_vec()),
                (vec![off, on], 5, skipping(32)),
                (vec![off, off], 8, skipping(256)),
            ],
        },
        Spelling { scheme: scheme::F4, forms: vec![(vec![], 4, (0..16).map(Some).collect())] },
        Spelling { scheme: scheme::F8, forms: vec![(vec![], 8, (0..256).map(Some).collect())] },
        Spelling {
            scheme: scheme::V4X8,
            forms: vec![(vec![on], 4, pairs(16, Some(1))), (vec![off], 8, pairs(256, None))],
        },
        Spelling {
            scheme: Scheme::new(&v2x4x8x16).expect("sane"),
            forms: vec![
                (vec![on], 2, pairs(4, Some(1))),
                (vec![off, on], 4, pairs(16, None)),
                (vec![off, off, on], 8, pairs(256, None)),
                (vec![off, off, off], 16, pairs(65_536, None)),
            ],
        },
    ]
});

impl Spelling {
    fn chosen(selector: u8) -> &'static Spelling {
        &SPELLINGS[usize::from(selector) % SPELLINGS.len()]
    }

    fn in_form(&self, slot: u32, form: usize) -> Option<Bits> {
        let (prefix, data_bits, slots) = self.forms.get(form)?;
        let data = slots.iter().position(|&spelled| spelled == Some(slot))?;
        let data = (0..*data_bits).map(|bit| data / (1 << bit) % 2 == 1);
        Some(prefix.iter().copied().chain(data).collect())
    }

    fn widths(&self) -> Vec<usize> {
        self.forms.iter().map(|(prefix, data_bits, _)| prefix.len() + data_bits).collect()
    }

    /// The director of the slot in exactly this width. The director of slot 1 is padded with zeros.
    fn in_width(&self, slot: u32, width: usize) -> Option<Bits> {
        let widths = self.widths();
        if slot == 1 {
            let mut bits = self.in_form(1, 0)?;
            if !widths.contains(&width) {
                return None;
            }
            bits.resize(width, false);
            return Some(bits);
        }
        self.in_form(slot, widths.iter().position(|&own| own == width)?)
    }

    /// The smallest width that holds all these slots.
    fn width_for(&self, slots: &[u32]) -> Option<usize> {
        let fits = |&width: &usize| slots.iter().all(|&slot| self.in_width(slot, width).is_some());
        self.widths().into_iter().find(fits)
    }

    /// Reads the slot and the form of the first director.
    fn read(&self, bits: &[bool]) -> Option<(u32, usize)> {
        for (form, (prefix, data_bits, slots)) in self.forms.iter().enumerate() {
            if bits.starts_with(prefix) {
                let data = bits.iter().skip(prefix.len()).take(*data_bits);
                let index = data.enumerate().map(|(bit, &on)| if on { 1 << bit } else { 0 }).sum();
                return Some((slots.get::<usize>(index).copied().flatten()?, form));
            }
        }
        None
    }
}

/// The bits up to the highest 1, which is the end marker.
fn trimmed(bits: &Bits) -> Bits {
    let length = bits.iter().rposition(|&bit| bit).map_or(0, |top| top + 1);
    bits[..length].to_vec()
}

fn unmarked(bits: &Bits) -> Bits {
    let mut bits = trimmed(bits);
    bits.pop();
    bits
}

/// The bits, padded to the width of the register. `None` if they leave fewer than four bits free at
/// the top.
fn fitted(bits: &Bits, register_bits: usize) -> Option<Bits> {
    let mut bits = trimmed(bits);
    if bits.len() + 4 > register_bits {
        return None;
    }
    bits.resize(register_bits, false);
    Some(bits)
}

/// Runs `law` with the register that the first byte selects.
macro_rules! any_register {
    ($input:expr, $law:ident) => {
        match $input.byte() % 3 {
            0 => $law::<u64>(&mut $input),
            1 => $law::<u128>(&mut $input),
            _ => $law::<U256>(&mut $input),
        }
    };
}

/// wire.md: W1.4-2, W1.4-3, W1.4-11.
#[test]
fn arithmetic_agrees_with_lists_of_bits() {
    fn law<R: Register>(input: &mut Input<'_>) {
        let spelling = Spelling::chosen(input.byte());
        let scheme = &spelling.scheme;
        let (slot, form) = (u32::from(input.word()), input.byte() % 5);
        let (a, a_bits) = input.register::<R>();
        let (b, b_bits) = input.register::<R>();
        let size = a_bits.len();

        for width in 0..=20 {
            let wanted = spelling.in_width(slot, width);
            let director = scheme.encode(Slot::new(slot), width as u8).ok();
            let bits = |bits: u64| (0..width).map(|bit| bits >> bit & 1 == 1).collect::<Bits>();
            assert_eq!(director.map(|director| bits(director.bits())), wanted);
        }

        let read = spelling.read(&a_bits);
        let director = a.decode(scheme).ok();
        let shape = director.map(|d| (d.slot().number(), usize::from(d.form())));
        assert_eq!(shape, read);
        assert_eq!(a.is_self(scheme), read.is_some_and(|(slot, _)| slot == 1));
        if let Some((first, own)) = read {
            let rest = trimmed(&a_bits[spelling.widths()[own]..].to_vec());
            assert_eq!(a.is_one_hop(scheme), rest == [true]);
            let replaced = |director: Bits| fitted(&[director, rest.clone()].concat(), size);
            // Converting a label to its own form changes nothing, even if the label is too long.
            let converted = if usize::from(form) == own {
                Some(a_bits.clone())
            } else {
                spelling.in_form(first, usize::from(form)).and_then(replaced)
            };
            assert_eq!(a.convert(scheme, form).ok().map(bits_of), converted);
            let widened = match spelling.in_width(slot, spelling.widths()[own]) {
                Some(_) => Some(a_bits.clone()),
                None => spelling
                    .width_for(&[first, slot])
                    .and_then(|width| spelling.in_width(first, width))
                    .and_then(replaced),
            };
            assert_eq!(a.widen(scheme, Slot::new(slot)).ok().map(bits_of), widened);
        }

        let (whole, via) = (trimmed(&a_bits), unmarked(&b_bits));
        let marked = !whole.is_empty() && !trimmed(&b_bits).is_empty();
        let through = marked && whole.len() > via.len() && whole.starts_with(&via);
        assert_eq!(a.routes_through(b), through);
        let rest = through.then(|| {
            let mut rest = whole[via.len()..].to_vec();
            rest.resize(size, false);
            rest
        });
        assert_eq!(a.unsplice(b).ok().map(bits_of), rest);
        let spliced = marked.then(|| fitted(&[via, whole].concat(), size)).flatten();
        assert_eq!(Label::splice(a, b).ok().map(bits_of), spliced);
        if let Ok(spliced) = Label::splice(a, b) {
            assert!(spliced.routes_through(b));
            assert_eq!(spliced.unsplice(b), Ok(a));
        }
    }
    check!().with_max_len(96).for_each(|input| {
        let mut input = Input(input);
        any_register!(input, law);
    });
}

/// wire.md: W1.2-1, W1.2-9, W1.3-9.
#[test]
fn one_step_agrees_with_lists_of_bits() {
    fn law<R: Register>(input: &mut Input<'_>) {
        let spelling = Spelling::chosen(input.byte());
        let flags = input.byte();
        let (u_turns, all_taken) = (flags & 1 == 1, flags & 2 == 2);
        let ingress = u32::from(if flags & 4 == 4 { input.word() } else { input.word() % 40 });
        let shift = input.word() % (R::BITS as u16 + 8);
        let (label, bits) = input.register::<R>();
        let taken = |slot: Slot| all_taken || slot.number() % 3 != 2;
        let size = bits.len();

        // Removes `width` bits at the low end and inserts the ingress slot at the top.
        let stepped = |width: usize| -> Option<(Bits, u16)> {
            let back = spelling.in_width(ingress, width)?;
            let shift = usize::from(shift) + width;
            let kept = bits[width..].iter().copied();
            let mut after: Bits = kept.chain((0..width).map(|_| false)).collect();
            // No bit of the return path so far overlaps the ingress slot's bits.
            for (bit, &on) in after.iter_mut().rev().zip(&back) {
                *bit |= on;
            }
            (shift < size).then_some((after, shift as u16))
        };
        let forward = &bits[..size.saturating_sub(usize::from(shift))];
        let wanted = if !forward.contains(&true) {
            Err(StepError::SpentLabel)
        } else if let Some((to, form)) = spelling.read(&bits) {
            let width = spelling.widths()[form];
            let rest = forward.get(width..).unwrap_or_default();
            if to == 1 && rest.iter().skip(1).any(|bit| *bit) {
                Err(StepError::BeyondSwitch)
            } else if to == 1 {
                let only_marker = forward[0] && !forward[1..].contains(&true);
                let written = match spelling.in_width(ingress, width) {
                    Some(_) => stepped(width),
                    None if only_marker => spelling.width_for(&[1, ingress]).and_then(stepped),
                    None => None,
                };
                Ok((1, written))
            } else if !taken(Slot::new(to)) {
                Err(StepError::EmptySlot)
            } else if to == ingress && !u_turns {
                Err(StepError::UTurn)
            } else if spelling.in_width(ingress, width).is_none() {
                Err(StepError::ReturnPath)
            } else {
                stepped(width).ok_or(StepError::RegisterFull).map(|stepped| (to, Some(stepped)))
            }
        } else {
            Err(StepError::NoSuchDirector)
        };

        let outcome = step(&spelling.scheme, label, shift, Slot::new(ingress), taken, u_turns);
        let outcome = outcome.map(|step| match step {
            Step::Forward { to, label, shift } => (to.number(), Some((bits_of(label), shift))),
            Step::Arrive { written } => (1, written.map(|(label, shift)| (bits_of(label), shift))),
        });
        assert_eq!(outcome, wanted);
    }
    check!().with_max_len(64).for_each(|input| {
        let mut input = Input(input);
        any_register!(input, law);
    });
}

/// Moves a label through hops. Returns the label on arrival and its shift.
fn walk<R: Register>(label: Label<R>, shift: u16, hops: &[Hop<'_>]) -> (Label<R>, u16) {
    let (mut label, mut shift) = (label, shift);
    for hop in hops {
        match step(hop.scheme, label, shift, hop.ingress, |_| true, true) {
            Ok(Step::Forward { to, label: next, shift: used }) => {
                assert_eq!(to, hop.egress);
                (label, shift) = (next, used);
            }
            // The receiver gets the ingress slot with the packet and uses it to reverse the label.
            Ok(Step::Arrive { .. }) => assert!(hop.egress.is_switch()),
            Err(error) => panic!("{error}: {label} {hop:?}"),
        }
    }
    (label, shift)
}

/// wire.md: W1.3-4, W1.4-7.
#[test]
fn a_reversed_path_leads_back() {
    fn law<R: Register>(input: &mut Input<'_>) {
        let count = usize::from(input.byte() % 16);
        let (from_switch, to_switch) = (input.byte() & 1 == 1, input.byte() & 1 == 1);
        let mut hops: Vec<Hop<'_>> = Vec::new();
        for index in 0..=count {
            let spelling = Spelling::chosen(input.byte());
            // Uses only slots that the scheme can encode, and slot 1 only where a path may begin or
            // end.
            let held = |number: u16| match u32::from(number) % 300 {
                1 => Slot::new(0),
                number if spelling.width_for(&[number]).is_none() => Slot::new(number % 16),
                number => Slot::new(number),
            };
            let not_switch = |slot: Slot| if slot.is_switch() { Slot::new(0) } else { slot };
            let mut ingress = not_switch(held(input.word()));
            let mut egress = not_switch(held(input.word()));
            if index == 0 && from_switch {
                ingress = Slot::SWITCH;
            }
            if index == count && to_switch {
                egress = Slot::SWITCH;
            }
            hops.push(Hop { scheme: &spelling.scheme, egress, ingress });
        }
        // The schemes can encode all these slots, so this fails only if a label is too long.
        let (there, back) = match Label::<R>::build(&hops) {
            Ok(ways) => ways,
            Err(error) => return assert_eq!(error, LabelError::TooLong),
        };
        assert!(there.bits() <= Label::<R>::BITS_MAX && back.bits() <= Label::<R>::BITS_MAX);

        let depart = |label: Label<R>, from_switch| {
            if from_switch { (label, 0) } else { label.depart().expect("built to fit") }
        };
        let reverse = |label: Label<R>, shift, last: &Hop<'_>| {
            // If the path ends at slot 1, the receiver applies the last step. If it ends at an
            // endpoint, the switch has applied it.
            let ingress = last.scheme.encode_least(last.ingress).expect("built from it");
            label.reverse(shift, last.egress.is_switch().then_some(ingress))
        };
        let (label, shift) = depart(there, from_switch);
        let (arrived, shift) = walk(label, shift, &hops);
        assert!(arrived.is_at_end(shift));
        let last = hops.last().expect("one at least");
        assert_eq!(reverse(arrived, shift, last), Ok(back));

        let turned = |hop: &Hop<'_>| (hop.ingress, hop.egress);
        let home: Vec<Hop<'_>> = hops
            .iter()
            .rev()
            .map(|hop| {
                let (egress, ingress) = turned(hop);
                Hop { scheme: hop.scheme, egress, ingress }
            })
            .collect();
        let (label, shift) = depart(back, to_switch);
        let (arrived, shift) = walk(label, shift, &home);
        assert!(arrived.is_at_end(shift));
        let again = reverse(arrived, shift, home.last().expect("one at least"));
        // This is the forward path again. If it begins at slot 1, its first director may now be
        // narrower, because it does not need room for an ingress slot.
        let again = again.expect("as long as the forward path, or shorter");
        if from_switch {
            assert!(again.bits() <= there.bits());
        } else {
            assert_eq!(again, there);
        }
    }
    check!().with_max_len(96).for_each(|input| {
        let mut input = Input(input);
        any_register!(input, law);
    });
}

/// wire.md: W1.4-8, W1.4-16, W1.4-17.
#[test]
fn label_text_parses_as_it_is_written() {
    fn law<R: Register>(text: &[u8]) {
        // The model splits the text at dots and checks the lengths of the groups.
        let digits_max = R::BITS as usize / 4;
        let groups: Vec<&[u8]> = text.split(|&byte| byte == b'.').collect();
        let digits: Vec<u8> = groups.concat();
        let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
        let short = digits.len() <= digits_max;
        let grouped = groups.len() == 1
            || groups[1..].iter().all(|group| group.len() == 4)
                && (1..=4).contains(&groups[0].len());
        match Label::<R>::parse(text) {
            Ok(label) => {
                assert!(hex && short && grouped);
                let digits = String::from_utf8(digits).expect("hex digits").to_lowercase();
                let plain = format!("{digits:0>digits_max$}");
                assert_eq!(format!("{label:x}"), plain);
                let dotted = label.to_string();
                assert_eq!(dotted.len(), digits_max + digits_max / 4 - 1);
                assert_eq!(dotted.replace('.', ""), plain);
                assert_eq!(Label::parse(dotted.as_bytes()), Ok(label));
                assert_eq!(Label::parse(plain.as_bytes()), Ok(label));
            }
            Err(error) => {
                assert!(!(hex && short && grouped));
                assert!(error.at <= text.len());
                match error.fault {
                    TextFault::Empty => assert!(text.is_empty()),
                    TextFault::NotHex => {
                        let byte = text[error.at];
                        assert!(byte != b'.' && !byte.is_ascii_hexdigit());
                    }
                    TextFault::TooLong => assert!(text[error.at].is_ascii_hexdigit()),
                    TextFault::Dot => assert!(!grouped),
                    TextFault::Groups => panic!("a label of a known width may omit zeros"),
                }
                // All bytes before the fault are hex digits or dots.
                assert!(text[..error.at].iter().all(|&b| b == b'.' || b.is_ascii_hexdigit()));
            }
        }
    }
    check!().with_max_len(80).for_each(|text| {
        law::<u64>(text);
        law::<u128>(text);
        law::<U256>(text);
        // Tests the bytes as they are, and then mapped to the characters of a label.
        let folded: Vec<u8> =
            text.iter().map(|&byte| b"0123456789abcdefAF.."[usize::from(byte) % 20]).collect();
        law::<u64>(&folded);
        law::<u128>(&folded);
        law::<U256>(&folded);
    });
}

/// wire.md: W2-1, W2-3, W2-8, W2-10, W2-18.
#[test]
fn a_header_parses_and_is_rewritten_in_place() {
    fn law<R: Register>(mut header: Header<'_, R>, before: &[u8]) -> Vec<u8> {
        let end = 8 + R::BITS as usize / 8;
        assert_eq!(header.payload(), &before[end..]);
        let label: String = before[8..end].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(format!("{:x}", header.label()), label);
        let repr = header.to_repr();
        assert_eq!(repr.wire_bytes(), end);
        assert_eq!((repr.hops_left, repr.class), (before[2], before[3]));
        assert_eq!(repr.shift, u16::from(before[4]) * 256 + u16::from(before[5]));
        assert!(u32::from(repr.shift) < R::BITS);
        assert_eq!(repr.flow, u16::from(before[6]) * 256 + u16::from(before[7]));
        let flags = [repr.flags.no_errors, repr.flags.control, repr.flags.telemetry];
        assert_eq!(flags, [7, 6, 5].map(|bit| before[1] >> bit & 1 == 1));

        // The encoding equals the input, except for the reserved bits.
        let mut emitted = before.to_vec();
        emitted[..end].fill(0xaa);
        let payload = repr.emit(&mut emitted).expect("it was read");
        assert_eq!(payload, &before[end..]);
        let mut wanted = before.to_vec();
        wanted[1] &= 0b1111_1000;
        assert_eq!(emitted, wanted);

        // A rewrite changes the named fields and keeps everything else, reserved bits included.
        let mut rewritten = before.to_vec();
        rewritten[8..end].fill(0);
        rewritten[end - 1] = 0x15;
        rewritten[4..6].copy_from_slice(&[0, 8]);
        rewritten[2] = hops_behind(before[2], 16).unwrap_or(0);
        rewritten[1] |= 0b0001_1000;
        let hops_left = hops_behind(header.hops_left(), 16).unwrap_or(0);
        assert!(hops_left < 16);
        header.advance(Label::new(R::from_low(0x15)), 8, hops_left);
        header.set_ecn(Ecn::Congested);
        assert_eq!(header.ecn(), Ecn::Congested);
        rewritten
    }
    check!().with_max_len(64).for_each(|packet| {
        let mut packets = [packet.to_vec(), packet.to_vec()];
        // Tests the packet unchanged, and with a first byte that is valid in three of four cases.
        if let Some(first) = packets[1].first_mut() {
            *first = 0x10 | *first & 3;
        }
        for mut packet in packets {
            let before = packet.clone();
            let wanted = match AnyHeader::parse(&mut packet) {
                Ok(AnyHeader::W64(header)) => law(header, &before),
                Ok(AnyHeader::W128(header)) => law(header, &before),
                Ok(AnyHeader::W256(header)) => law(header, &before),
                Err(error) => {
                    let label_bytes =
                        before.first().and_then(|first| [8, 16, 32].get(usize::from(first % 16)));
                    match error {
                        HeaderError::TooShort => {
                            assert!(before.len() < 8 + label_bytes.copied().unwrap_or(0));
                        }
                        HeaderError::Version => assert_ne!(before[0] / 16, 1),
                        HeaderError::Width => assert_eq!(label_bytes, None),
                        HeaderError::Shift => {
                            let shift = usize::from(before[4]) * 256 + usize::from(before[5]);
                            assert!(shift >= 8 * label_bytes.expect("a width that exists"));
                        }
                    }
                    before
                }
            };
            assert_eq!(packet, wanted);
        }
    });
}

#[test]
fn a_scheme_decodes_what_it_encodes() {
    check!().with_max_len(64).for_each(|input| {
        let (serialized, lows) = input.split_at(input.len() / 2);
        // Random bytes are rarely a valid scheme, so a valid scheme is also built from them.
        let drawn = drawn_scheme(serialized);
        assert_eq!(Scheme::parse(drawn.serialize().as_bytes()), Ok(drawn));
        let parsed = Scheme::parse(serialized);
        if let Ok(parsed) = parsed {
            assert_eq!(parsed.serialize().as_bytes(), serialized);
            assert_eq!(Scheme::new(parsed.forms()), Ok(parsed));
        }
        for scheme in parsed.into_iter().chain([drawn]) {
            let own = scheme.self_director();
            for form in scheme.forms() {
                let switch = scheme.encode(Slot::SWITCH, form.width());
                assert_eq!(switch.is_ok(), own.is_ok_and(|own| own.width() <= form.width()));
                assert!(switch.is_ok_and(|switch| switch.bits() == 1) || switch.is_err());
            }
            assert_eq!(own.is_ok(), scheme.decode(1).is_ok_and(|read| read.slot().is_switch()));
            for low in lows.chunks(8) {
                let low = low.iter().fold(0, |low, &byte| low << 8 | u64::from(byte));
                // Random bits rarely begin with a long prefix, so the bits are also tried after
                // each form's prefix.
                let begun = scheme.forms().iter().map(|form| {
                    let prefix_bits = u32::from(form.prefix_bits);
                    low.checked_shl(prefix_bits).unwrap_or(0) | u64::from(form.prefix)
                });
                for low in begun.chain([low]) {
                    a_director_reads_back(&scheme, low);
                }
            }
        }
    });
}

/// A scheme with the prefixes 1, 10, 100, ..., 000. The input rotates them.
fn drawn_scheme(bytes: &[u8]) -> Scheme {
    let mut input = Input(bytes);
    let count = input.byte() % 9 + 1;
    let (mut forms, mut data_bits) = (Vec::new(), 0);
    for index in 0..count {
        data_bits += 1 + input.byte() % 3;
        let form = match (count, index) {
            (1, _) => Form::new(data_bits, 0, 0),
            (_, last) if last == count - 1 => Form::new(data_bits, index, 0),
            _ => Form::new(data_bits, index + 1, 1 << index),
        };
        forms.push(form);
    }
    // Rotates the prefixes against the data widths.
    let turn = usize::from(input.byte() % count);
    let prefixes: Vec<(u8, u32)> =
        forms.iter().map(|form| (form.prefix_bits, form.prefix)).collect();
    for (form, (prefix_bits, prefix)) in
        forms.iter_mut().zip(prefixes.into_iter().cycle().skip(turn))
    {
        (form.prefix_bits, form.prefix) = (prefix_bits, prefix);
    }
    Scheme::new(&forms).expect("valid by construction")
}

fn a_director_reads_back(scheme: &Scheme, low: u64) {
    let decoded = scheme.decode(low);
    if let Some(bits) = scheme.index_bits() {
        let index = (low & ((1 << bits) - 1)) as u16;
        assert_eq!(scheme.decode_index(index), decoded.ok());
    }
    if let Ok(bits) = scheme.prefix_index_bits() {
        let form = scheme.form_near((low & ((1 << bits) - 1)) as u8);
        let near = form.and_then(|form| {
            let Form { data_bits, prefix_bits, prefix } = scheme.forms()[usize::from(form)];
            let data = low >> prefix_bits & ((1 << data_bits) - 1);
            let begins = low & ((1 << prefix_bits) - 1) == u64::from(prefix);
            begins.then(|| scheme.slot_at(form, data as u32)).flatten()
        });
        assert_eq!(near, decoded.ok().map(|director| director.slot()));
    }
    let Ok(director) = decoded else {
        return;
    };
    assert_eq!(scheme.encode_in(director.slot(), director.form()), Ok(director));
    let back = scheme.back_bits(director.slot(), director.form()).expect("it was decoded");
    let same_width =
        scheme.encode(director.slot(), director.width()).expect("it was decoded at this width");
    assert_eq!(back, same_width.back_bits());
    assert_eq!(scheme.decode(same_width.bits()).map(|read| read.slot()), Ok(director.slot()));
    let least = scheme.encode_least(director.slot()).expect("it was read");
    assert!(least.width() <= director.width());
}
