//! bpf(2): maps, programs and links, one function for each command.
//!
//! Each object lives at least as long as its descriptor.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::assembler::Instruction;
use crate::sys::CallError;

/// The point at which the kernel runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attach {
    /// In the driver, before an skb exists.
    Driver,
    /// After the driver, for drivers that do not support XDP.
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

/// Map type for AF_XDP sockets.
pub(crate) const MAP_TYPE_XSK: u32 = 17;

/// Program result: the frame is processed as if there were no program.
pub(crate) const XDP_PASS: i32 = 2;

/// Offsets in `struct xdp_md`.
pub(crate) const DATA: i16 = 0;
pub(crate) const DATA_END: i16 = 4;
pub(crate) const RX_QUEUE: i16 = 16;

/// `union bpf_attr` for creating a map. In each command, the kernel treats missing fields as zero.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// `union bpf_attr` for writing an entry of a map.
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

/// Makes one call of bpf(2).
///
/// # Safety
/// `attr` has the type that `command` expects. Every address in it points to as many bytes as the
/// command reads or writes there, which outlive the call.
pub(crate) unsafe fn bpf<T>(call: &'static str, command: i32, attr: &T) -> Result<i32, CallError> {
    let at = std::ptr::from_ref(attr);
    // SAFETY: `attr` has this length and outlives the call; the caller guarantees what it points
    // to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, mem::size_of::<T>()) };
    if result < 0 { Err(CallError::last(call)) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes a map of `entries` values with keys from 0 on.
pub(crate) fn map(map_type: u32, value_bytes: u32, entries: u32) -> Result<OwnedFd, CallError> {
    let map = MapCreate {
        map_type,
        key_size: 4,
        value_size: value_bytes,
        max_entries: entries,
        flags: 0,
    };
    // SAFETY: the argument holds no address.
    unsafe { bpf("BPF_MAP_CREATE", MAP_CREATE, &map) }.map(owned)
}

/// Stores a descriptor in a map of descriptors.
pub(crate) fn put(map: &OwnedFd, key: u32, value: RawFd) -> Result<(), CallError> {
    let update = MapEntry {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: std::ptr::from_ref(&key).addr() as u64,
        value: std::ptr::from_ref(&value).addr() as u64,
        flags: 0,
    };
    // SAFETY: key and value have four bytes each, as in every map of descriptors, and outlive the
    // call.
    unsafe { bpf("BPF_MAP_UPDATE_ELEM", MAP_UPDATE, &update) }.map(drop)
}

/// Loads an XDP program. Requires capabilities.
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
    // SAFETY: the number of instructions is right, and the string ends in a zero byte; both are
    // only read.
    unsafe { bpf("BPF_PROG_LOAD", PROGRAM_LOAD, &load) }.map(owned)
}

/// Attaches a program until the returned descriptor is closed.
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
    // SAFETY: the argument holds no address.
    unsafe { bpf("BPF_LINK_CREATE", LINK_CREATE, &link) }.map(owned)
}
