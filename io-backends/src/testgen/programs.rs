//! The XDP programs of the source, the sink and the redirect, and the layout of the maps in which
//! they count.

use std::os::fd::RawFd;

use crate::xdp::{
    assembler::{Assembler, Instruction, Reg, Width},
    bpf::{DATA, DATA_END},
};

const LOAD_DOUBLE: u8 = 0x79;
const STORE_DOUBLE: u8 = 0x7b;
const ATOMIC_DOUBLE: u8 = 0xdb;
const ADD_REGISTER: u8 = 0x0f;
const SUBTRACT_REGISTER: u8 = 0x1f;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
const LOAD_WIDE: u8 = 0x18;
const PSEUDO_MAP_VALUE: u8 = 2;

const READ_CLOCK: i32 = 5; // bpf_ktime_get_ns
const REDIRECT: i32 = 23;
const XDP_DROP: i32 = 1;

/// The trailer of a frame: this word, then the time at which the frame was sent, or 0.
pub(super) const MAGIC: u32 = 0x0053_5752;
/// Length of the trailer.
pub const TRAILER_BYTES: usize = 12;

/// The source's map: the time at which the next frame is due, and the number of frames sent.
pub(super) const SOURCE_BYTES: usize = 16;
const DUE: i16 = 0;
const SENT: i16 = 8;

/// The sink's map: the numbers of right and of wrong frames, then the delays by bucket.
pub(super) const BUCKET_SHIFT: i32 = 8;
pub(super) const BUCKETS: usize = 1 << 15;
pub(super) const BUCKETS_AT: usize = 16;
pub(super) const SINK_BYTES: usize = BUCKETS_AT + 8 * BUCKETS;
const RIGHT: i16 = 0;
const WRONG: i16 = 8;

const RESULT: Reg = Reg(0);
const FIRST: Reg = Reg(1);
const SECOND: Reg = Reg(2);
const END: Reg = Reg(3);
const BEHIND: Reg = Reg(4);
const WORD: Reg = Reg(5);
const CONTEXT: Reg = Reg(6);
const TIME: Reg = Reg(7);
const COUNTS: Reg = Reg(8);

impl Assembler {
    /// `to =` the address of the value of this map, which has one entry.
    fn set_value(&mut self, to: Reg, map: RawFd) {
        self.push(LOAD_WIDE, to, Reg(PSEUDO_MAP_VALUE), 0, map);
        self.push(0, Reg(0), Reg(0), 0, 0);
    }

    /// `*(at + offset) += 1`, atomically, on eight bytes.
    fn count(&mut self, at: Reg, offset: i16) {
        self.set(WORD, 1);
        self.push(ATOMIC_DOUBLE, at, WORD, offset, 0);
    }

    fn load_double(&mut self, to: Reg, from: Reg, offset: i16) {
        self.push(LOAD_DOUBLE, to, from, offset, 0);
    }

    fn end_with(&mut self, verdict: i32) {
        self.set(RESULT, verdict);
        self.exit();
    }

    /// Loads the start and end addresses of the frame. Jumps to `short` if the frame has fewer than
    /// `bytes`.
    fn open_frame(&mut self, bytes: i32, short: crate::xdp::assembler::Target) {
        self.load(Width::Word, SECOND, CONTEXT, DATA);
        self.load(Width::Word, END, CONTEXT, DATA_END);
        self.copy(BEHIND, SECOND);
        self.add(BEHIND, bytes);
        self.if_above(BEHIND, END, short);
    }
}

/// The program of a source: sends each frame on `interface`.
///
/// If `interval_ns` is above 0, it sends only the frames that are due, and writes the time into
/// each.
pub(super) fn source(
    map: RawFd,
    interface: u32,
    frame_bytes: u16,
    interval_ns: u32,
) -> Vec<Instruction> {
    let mut a = Assembler::default();
    let drop = a.target();
    a.copy(CONTEXT, FIRST);
    a.set_value(COUNTS, map);
    if interval_ns > 0 {
        let (early, ahead) = (drop, a.target());
        a.call(READ_CLOCK);
        a.copy(TIME, RESULT);
        a.load_double(FIRST, COUNTS, DUE);
        a.if_above(FIRST, TIME, early);
        a.add(FIRST, interval_ns as i32);
        // Frames that were not sent on time are skipped; otherwise a pause would be followed by a
        // burst.
        a.if_above(FIRST, TIME, ahead);
        a.copy(FIRST, TIME);
        a.set_target(ahead);
        a.push(STORE_DOUBLE, COUNTS, FIRST, DUE, 0);
        a.open_frame(i32::from(frame_bytes), drop);
        let at = frame_bytes as i16 - TRAILER_BYTES as i16 + 4;
        a.push(STORE_DOUBLE, SECOND, TIME, at, 0);
    }
    a.count(COUNTS, SENT);
    a.set(FIRST, interface as i32);
    a.set(SECOND, 0);
    a.call(REDIRECT);
    a.exit();
    if interval_ns > 0 {
        // The kernel refuses unreachable instructions.
        a.set_target(drop);
        a.end_with(XDP_DROP);
    }
    a.finish()
}

/// The program of a sink: counts and drops the frames of this ethertype. If the source's trailer
/// has a time, it also counts the delay.
///
/// Drops frames of other ethertypes without counting them.
pub(super) fn sink(map: RawFd, ethertype: u16, frame_bytes: u16) -> Vec<Instruction> {
    let as_it_lies = |word: u16| i32::from(word.to_be());
    let trailer = frame_bytes as i16 - TRAILER_BYTES as i16;
    let mut a = Assembler::default();
    let (wrong, other, full, known) = (a.target(), a.target(), a.target(), a.target());
    a.copy(CONTEXT, FIRST);
    a.set_value(COUNTS, map);
    a.open_frame(14, other);
    a.load(Width::Half, WORD, SECOND, 12);
    a.unless_equal(WORD, as_it_lies(ethertype), other);
    a.open_frame(i32::from(frame_bytes), wrong);
    a.add(BEHIND, 1);
    let fits = a.target();
    a.if_above(BEHIND, END, fits);
    a.jump(wrong);
    a.set_target(fits);
    a.load(Width::Word, WORD, SECOND, trailer);
    a.unless_equal(WORD, MAGIC as i32, wrong);
    a.load_double(TIME, SECOND, trailer + 4);
    a.count(COUNTS, RIGHT);
    a.if_above_number(TIME, 0, full);
    a.end_with(XDP_DROP);
    a.set_target(full);
    a.call(READ_CLOCK);
    a.push(SUBTRACT_REGISTER, RESULT, TIME, 0, 0);
    a.push(SHIFT_RIGHT, RESULT, Reg(0), 0, BUCKET_SHIFT);
    let last = a.target();
    a.if_above_number(RESULT, BUCKETS as i32 - 1, last);
    a.jump(known);
    a.set_target(last);
    a.set(RESULT, BUCKETS as i32 - 1);
    a.set_target(known);
    a.push(SHIFT_LEFT, RESULT, Reg(0), 0, 3);
    a.push(ADD_REGISTER, COUNTS, RESULT, 0, 0);
    a.count(COUNTS, BUCKETS_AT as i16);
    a.end_with(XDP_DROP);
    a.set_target(wrong);
    a.count(COUNTS, WRONG);
    a.set_target(other);
    a.end_with(XDP_DROP);
    a.finish()
}

/// The program of a redirect: sends every frame on `interface`, unchanged.
pub(super) fn redirect(interface: u32) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.set(FIRST, interface as i32);
    a.set(SECOND, 0);
    a.call(REDIRECT);
    a.exit();
    a.finish()
}
