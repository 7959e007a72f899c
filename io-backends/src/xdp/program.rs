//! The XDP program: it sends frames of our ethertype to the sockets and passes everything else on,
//! so that ssh over the same NIC lives. It is attached by a link of the kernel's, which ends with
//! the process however that ends. It never replaces a program that is there already.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::{
    assembler::{Assembler, Instruction, Reg, Width},
    ether::ETHERNET_BYTES,
    socket::errno,
};

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attach {
    /// In the driver, before there is an skb.
    Driver,
    /// Behind the driver, for those that have no place for it.
    Generic,
}

const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const PROGRAM_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const MAP_TYPE_XSK: u32 = 17;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const ATTACH_GENERIC: u32 = 1 << 1;
const ATTACH_DRIVER: u32 = 1 << 2;
const REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;
const TAG_TYPE: u16 = 0x8100;

// Places in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;

/// `union bpf_attr` for the four calls. The kernel takes what is shorter than its own as zeros.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program_fd: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

const _: () = assert!(mem::size_of::<MapCreate>() == 20);
const _: () = assert!(mem::size_of::<MapUpdate>() == 32);
const _: () = assert!(mem::size_of::<ProgramLoad>() == 72);
const _: () = assert!(mem::size_of::<LinkCreate>() == 16);

/// A call of bpf(2), and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) step: &'static str,
    pub(super) errno: i32,
}

/// The program and the map of sockets, loaded but not attached. Needs rights; nothing later does.
#[derive(Debug)]
pub(super) struct Program {
    program: OwnedFd,
    sockets: OwnedFd,
}

/// The program on an interface, for as long as this lives.
#[derive(Debug)]
pub(super) struct Attached {
    /// Closed first, so that no frame is redirected to sockets that are no more.
    _link: OwnedFd,
    program: Program,
    pub(super) attach: Attach,
    pub(super) ethertype: u16,
    pub(super) vlan: Option<u16>,
}

/// `attr` is one of the structures above, as the command wants it; what it points to must live.
fn bpf<T>(step: &'static str, command: i32, attr: &T) -> Result<i32, Refused> {
    let at = std::ptr::from_ref(attr);
    // SAFETY: `attr` is as long as said and lives through the call, as does what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, mem::size_of::<T>()) };
    if result < 0 { Err(Refused { step, errno: errno() }) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The instructions: some twenty, so they can be read at a sitting.
fn instructions(ethertype: u16, vlan: Option<u16>, sockets: RawFd) -> Vec<Instruction> {
    let (result, first, second, third) = (Reg(0), Reg(1), Reg(2), Reg(3));
    let (end, word, context) = (Reg(4), Reg(5), Reg(6));
    // Loads bring bytes as they lie, so what they are compared with must lie alike.
    let as_it_lies = |word: u16| i32::from(word.to_be());
    let mut a = Assembler::default();
    let pass = a.place();
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
    // Where the queue has no socket, the frame is passed on.
    a.set(third, XDP_PASS);
    a.call(REDIRECT_MAP);
    a.exit();
    a.stand_at(pass);
    a.set(result, XDP_PASS);
    a.exit();
    a.finish()
}

impl Program {
    /// Loads it, with a map for sockets of `queues` queues.
    pub(super) fn load(ethertype: u16, vlan: Option<u16>, queues: u32) -> Result<Self, Refused> {
        let map = MapCreate {
            map_type: MAP_TYPE_XSK,
            key_size: 4,
            value_size: 4,
            max_entries: queues.max(1),
            flags: 0,
        };
        let sockets = owned(bpf("BPF_MAP_CREATE", MAP_CREATE, &map)?);
        let instructions = instructions(ethertype, vlan, sockets.as_raw_fd());
        let load = ProgramLoad {
            program_type: PROGRAM_TYPE_XDP,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr().addr() as u64,
            license: c"MIT OR Apache-2.0".as_ptr().addr() as u64,
            log_level: 0,
            log_size: 0,
            log_buffer: 0,
            kernel_version: 0,
            flags: 0,
            name: *b"strowger\0\0\0\0\0\0\0\0",
            interface: 0,
            expected_attach_type: ATTACH_TYPE_XDP,
        };
        let program = owned(bpf("BPF_PROG_LOAD", PROGRAM_LOAD, &load)?);
        drop(instructions); // alive until here, since `load` pointed to them
        Ok(Self { program, sockets })
    }

    /// Attaches it; on refusal it is given back, to be tried otherwise.
    pub(super) fn attach(
        self,
        interface: u32,
        attach: Attach,
        (ethertype, vlan): (u16, Option<u16>),
    ) -> Result<Attached, (Self, Refused)> {
        let link = LinkCreate {
            program_fd: self.program.as_raw_fd() as u32,
            interface,
            attach_type: ATTACH_TYPE_XDP,
            flags: match attach {
                Attach::Driver => ATTACH_DRIVER,
                Attach::Generic => ATTACH_GENERIC,
            },
        };
        match bpf("BPF_LINK_CREATE", LINK_CREATE, &link) {
            Ok(fd) => Ok(Attached { _link: owned(fd), program: self, attach, ethertype, vlan }),
            Err(refused) => Err((self, refused)),
        }
    }
}

impl Attached {
    /// From now on frames of this queue go to this socket.
    pub(super) fn steer(&self, queue: u32, socket: RawFd) -> Result<(), Refused> {
        let update = MapUpdate {
            map_fd: self.program.sockets.as_raw_fd() as u32,
            _pad: 0,
            key: std::ptr::from_ref(&queue).addr() as u64,
            value: std::ptr::from_ref(&socket).addr() as u64,
            flags: 0,
        };
        bpf("BPF_MAP_UPDATE_ELEM", MAP_UPDATE, &update).map(drop)
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
