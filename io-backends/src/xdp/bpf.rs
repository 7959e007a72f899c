//! bpf(2): maps, programs and the links that attach them, each call one function and each thing a
//! descriptor that ends with its owner. It knows no program.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::assembler::Instruction;
use crate::sys::CallError;

/// Where in the kernel a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    /// In the driver, before there is an skb.
    Driver,
    /// Behind the driver, for those that have no place for it.
    Generic,
}

const MAP_CREATE: i32 = 0;
const MAP_UPDATE: i32 = 2;
const PROGRAM_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const ATTACH_GENERIC: u32 = 1 << 1;
const ATTACH_DRIVER: u32 = 1 << 2;

/// A map's kind.
pub(crate) const MAP_TYPE_XSK: u32 = 17;

/// What a program says of a frame: it goes on as if there were no program.
pub(crate) const XDP_PASS: i32 = 2;

/// Places in `struct xdp_md`.
pub(crate) const DATA: i16 = 0;
pub(crate) const DATA_END: i16 = 4;
pub(crate) const RX_QUEUE: i16 = 16;

/// `union bpf_attr` for the four calls. The kernel takes what is shorter than its own as zeros.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Also what reads an entry.
#[repr(C)]
struct MapEntry {
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
const _: () = assert!(mem::size_of::<MapEntry>() == 32);
const _: () = assert!(mem::size_of::<ProgramLoad>() == 72);
const _: () = assert!(mem::size_of::<LinkCreate>() == 16);

/// One call of bpf(2).
///
/// # Safety
/// `attr` is what `command` wants, and every address in it that of as many bytes as the command reads or
/// writes there, which outlive the call.
pub(crate) unsafe fn bpf<T>(call: &'static str, command: i32, attr: &T) -> Result<i32, CallError> {
    let at = std::ptr::from_ref(attr);
    // SAFETY: `attr` is as long as said and outlives the call; of what it points to, the caller says so.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, mem::size_of::<T>()) };
    if result < 0 { Err(CallError::last(call)) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A map of `entries` values, by numbers from 0 on.
pub(crate) fn map(map_type: u32, value_bytes: u32, entries: u32) -> Result<OwnedFd, CallError> {
    let map = MapCreate {
        map_type,
        key_size: 4,
        value_size: value_bytes,
        max_entries: entries,
        flags: 0,
    };
    // SAFETY: it holds no address.
    unsafe { bpf("BPF_MAP_CREATE", MAP_CREATE, &map) }.map(owned)
}

/// Puts a descriptor into a map of such.
pub(crate) fn put(map: &OwnedFd, key: u32, value: RawFd) -> Result<(), CallError> {
    let update = MapEntry {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: std::ptr::from_ref(&key).addr() as u64,
        value: std::ptr::from_ref(&value).addr() as u64,
        flags: 0,
    };
    // SAFETY: the key and the value have four bytes each, as in every map of descriptors, and live here.
    unsafe { bpf("BPF_MAP_UPDATE_ELEM", MAP_UPDATE, &update) }.map(drop)
}

/// An XDP program, loaded but not attached. Needs rights.
pub(crate) fn load(instructions: &[Instruction]) -> Result<OwnedFd, CallError> {
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
    // SAFETY: as many instructions as it says, and a string that ends in zero; both are only read.
    unsafe { bpf("BPF_PROG_LOAD", PROGRAM_LOAD, &load) }.map(owned)
}

/// Attaches a program, until what this gives is closed.
pub(crate) fn attach(
    program: &OwnedFd,
    interface: u32,
    attach: Attach,
) -> Result<OwnedFd, CallError> {
    let link = LinkCreate {
        program_fd: program.as_raw_fd() as u32,
        interface,
        attach_type: ATTACH_TYPE_XDP,
        flags: match attach {
            Attach::Driver => ATTACH_DRIVER,
            Attach::Generic => ATTACH_GENERIC,
        },
    };
    // SAFETY: it holds no address.
    unsafe { bpf("BPF_LINK_CREATE", LINK_CREATE, &link) }.map(owned)
}
