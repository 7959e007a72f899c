//! The XDP program. It redirects frames of our ethertype to the sockets and passes all other frames
//! to the network stack, so that ssh on the same NIC keeps working. It is attached by a kernel
//! link, which ends with the process. It does not replace another program.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{
    assembler::{Assembler, Instruction, Reg, Width},
    bpf::{self, DATA, DATA_END, RX_QUEUE, XDP_PASS},
    ether::{ETHERNET_BYTES, TAG_TYPE},
};

pub(super) use super::bpf::Attach;
use crate::sys::CallError;

const REDIRECT_MAP: i32 = 51;

/// The program and its map of sockets. It is loaded but not attached. Loading requires
/// capabilities.
#[derive(Debug)]
pub(super) struct Program {
    program: OwnedFd,
    sockets: OwnedFd,
}

/// The attached program. Dropping it detaches the program.
#[derive(Debug)]
pub(super) struct Attached {
    /// This field is the first, so that it is closed first and no frame is redirected to a closed
    /// socket.
    _link: OwnedFd,
    program: Program,
    pub(super) attach: Attach,
    pub(super) ethertype: u16,
    pub(super) vlan: Option<u16>,
}

/// Returns the instructions of the program, about twenty.
fn instructions(ethertype: u16, vlan: Option<u16>, sockets: RawFd) -> Vec<Instruction> {
    let (result, first, second, third) = (Reg(0), Reg(1), Reg(2), Reg(3));
    let (end, word, context) = (Reg(4), Reg(5), Reg(6));
    // A load returns bytes in memory order, so the constants are in that order too.
    let as_it_lies = |word: u16| i32::from(word.to_be());
    let mut a = Assembler::default();
    let pass = a.target();
    a.copy(context, first);
    a.load(Width::Word, second, context, DATA);
    a.load(Width::Word, third, context, DATA_END);
    a.copy(end, second);
    a.add(end, ETHERNET_BYTES as i32 + if vlan.is_some() { 4 } else { 0 });
    a.if_above(end, third, pass);
    a.load(Width::Half, word, second, 12);
    match vlan {
        None => a.unless_equal(word, as_it_lies(ethertype), pass),
        Some(vlan) => {
            a.unless_equal(word, as_it_lies(TAG_TYPE), pass);
            a.load(Width::Half, word, second, 14);
            a.and(word, as_it_lies(0x0fff));
            a.unless_equal(word, as_it_lies(vlan), pass);
            a.load(Width::Half, word, second, 16);
            a.unless_equal(word, as_it_lies(ethertype), pass);
        }
    }
    a.load(Width::Word, second, context, RX_QUEUE);
    a.set_map(first, sockets);
    // This is the result of the call if the queue has no socket.
    a.set(third, XDP_PASS);
    a.call(REDIRECT_MAP);
    a.exit();
    a.set_target(pass);
    a.set(result, XDP_PASS);
    a.exit();
    a.finish()
}

impl Program {
    /// Loads the program with a map for the sockets of `queues` queues.
    pub(super) fn load(ethertype: u16, vlan: Option<u16>, queues: u32) -> Result<Self, CallError> {
        let sockets = bpf::map(bpf::MAP_TYPE_XSK, 4, queues.max(1))?;
        let program = bpf::load(&instructions(ethertype, vlan, sockets.as_raw_fd()))?;
        Ok(Self { program, sockets })
    }

    /// Attaches the program. On an error it returns the program, so that the caller can try another
    /// mode.
    pub(super) fn attach(
        self,
        interface: u32,
        attach: Attach,
        (ethertype, vlan): (u16, Option<u16>),
    ) -> Result<Attached, (Self, CallError)> {
        match bpf::attach(&self.program, interface, attach) {
            Ok(link) => Ok(Attached { _link: link, program: self, attach, ethertype, vlan }),
            Err(refused) => Err((self, refused)),
        }
    }
}

impl Attached {
    /// Steers the frames of this queue to this socket.
    pub(super) fn steer(&self, queue: u32, socket: RawFd) -> Result<(), CallError> {
        bpf::put(&self.program.sockets, queue, socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_small_and_ends_in_both_ways() {
        let plain = instructions(0x88b5, None, 3);
        let tagged = instructions(0x88b5, Some(7), 3);
        assert_eq!((plain.len(), tagged.len()), (16, 21));
    }
}
