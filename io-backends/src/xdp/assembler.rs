//! An assembler for the eBPF instructions that our programs use.

use std::mem;

/// One instruction, as the kernel reads it (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four (little-endian machines).
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(mem::size_of::<Instruction>() == 8);

/// A register: 0 holds results, 1 to 5 hold arguments, and 6 to 9 keep their values across calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg(pub(crate) u8);

/// The width of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Half,
    Word,
}

/// A jump target. Its position may be later in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(usize);

const LOAD_MEMORY: u8 = 0x61;
const HALF: u8 = 0x08;
const MOVE: u8 = 0xb7;
const ADD: u8 = 0x07;
const AND: u8 = 0x57;
const FROM_REGISTER: u8 = 0x08;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_GREATER: u8 = 0x2d;
#[cfg(feature = "testgen")]
const JUMP_GREATER_NUMBER: u8 = 0x25;
#[cfg(feature = "testgen")]
const JUMP: u8 = 0x05;
const LOAD_WIDE: u8 = 0x18;
const PSEUDO_MAP: u8 = 1;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// A program under construction.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Target)>,
    targets: Vec<Option<usize>>,
}

impl Assembler {
    pub(crate) fn push(&mut self, code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) {
        let registers =
            if cfg!(target_endian = "little") { from.0 << 4 | to.0 } else { to.0 << 4 | from.0 };
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }

    /// `to = *(from + offset)`.
    pub(crate) fn load(&mut self, width: Width, to: Reg, from: Reg, offset: i16) {
        let code = if width == Width::Half { LOAD_MEMORY | HALF } else { LOAD_MEMORY };
        self.push(code, to, from, offset, 0);
    }

    /// `to = value`.
    pub(crate) fn set(&mut self, to: Reg, value: i32) {
        self.push(MOVE, to, Reg(0), 0, value);
    }

    /// `to = from`.
    pub(crate) fn copy(&mut self, to: Reg, from: Reg) {
        self.push(MOVE | FROM_REGISTER, to, from, 0, 0);
    }

    /// `to += value`.
    pub(crate) fn add(&mut self, to: Reg, value: i32) {
        self.push(ADD, to, Reg(0), 0, value);
    }

    /// `to &= value`.
    pub(crate) fn and(&mut self, to: Reg, value: i32) {
        self.push(AND, to, Reg(0), 0, value);
    }

    /// `to =` the map with this descriptor.
    pub(crate) fn set_map(&mut self, to: Reg, fd: i32) {
        self.push(LOAD_WIDE, to, Reg(PSEUDO_MAP), 0, fd);
        self.push(0, Reg(0), Reg(0), 0, 0);
    }

    /// `if reg > limit goto target`, with a constant.
    #[cfg(feature = "testgen")]
    pub(crate) fn if_above_number(&mut self, reg: Reg, limit: i32, target: Target) {
        self.jumps.push((self.instructions.len(), target));
        self.push(JUMP_GREATER_NUMBER, reg, Reg(0), 0, limit);
    }

    /// `goto target`.
    #[cfg(feature = "testgen")]
    pub(crate) fn jump(&mut self, target: Target) {
        self.jumps.push((self.instructions.len(), target));
        self.push(JUMP, Reg(0), Reg(0), 0, 0);
    }

    /// Makes a jump target without a position.
    pub(crate) fn target(&mut self) -> Target {
        self.targets.push(None);
        Target(self.targets.len() - 1)
    }

    /// Places the target at the next instruction.
    pub(crate) fn set_target(&mut self, target: Target) {
        self.targets[target.0] = Some(self.instructions.len());
    }

    /// `if reg != value goto target`.
    pub(crate) fn unless_equal(&mut self, reg: Reg, value: i32, target: Target) {
        self.jumps.push((self.instructions.len(), target));
        self.push(JUMP_NOT_EQUAL, reg, Reg(0), 0, value);
    }

    /// `if reg > limit goto target`.
    pub(crate) fn if_above(&mut self, reg: Reg, limit: Reg, target: Target) {
        self.jumps.push((self.instructions.len(), target));
        self.push(JUMP_GREATER, reg, limit, 0, 0);
    }

    /// Calls a kernel function.
    pub(crate) fn call(&mut self, function: i32) {
        self.push(CALL, Reg(0), Reg(0), 0, function);
    }

    /// Ends the program with the result in register 0.
    pub(crate) fn exit(&mut self) {
        self.push(EXIT, Reg(0), Reg(0), 0, 0);
    }

    /// Returns the program with all jump offsets filled in.
    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        for (at, target) in self.jumps {
            let to = self.targets[target.0].expect("every target has a position");
            self.instructions[at].offset = (to as isize - at as isize - 1) as i16;
        }
        self.instructions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_counts_from_the_instruction_behind_it() {
        let mut assembler = Assembler::default();
        let end = assembler.target();
        assembler.unless_equal(Reg(5), 7, end);
        assembler.set(Reg(0), 1);
        assembler.exit();
        assembler.set_target(end);
        assembler.set(Reg(0), 2);
        assembler.exit();
        let program = assembler.finish();
        assert_eq!((program.len(), program[0].offset), (5, 2));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_those_of_the_kernels_table() {
        let mut assembler = Assembler::default();
        assembler.load(Width::Word, Reg(2), Reg(1), 4);
        assembler.load(Width::Half, Reg(5), Reg(2), 12);
        assembler.copy(Reg(4), Reg(2));
        assembler.set_map(Reg(1), 9);
        let codes: Vec<_> = assembler.finish().iter().map(|i| (i.code, i.registers)).collect();
        assert_eq!(codes, [(0x61, 0x12), (0x69, 0x25), (0xbf, 0x24), (0x18, 0x11), (0, 0)]);
    }
}
