//! A program that attaches a VLAN tag as metadata to each frame that is sent on an interface, as a
//! VLAN device does. If the kernel has no VLAN devices, there is no other way to make such frames.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{FromRawFd, OwnedFd},
};

const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const SCHED_CLS: u32 = 3;
const TCX_EGRESS: u32 = 47;
const SKB_VLAN_PUSH: u32 = 18;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    at: u64,
    license: u64,
    log: [u64; 2],
    rest: [u64; 11],
}

#[repr(C)]
struct Link {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
    rest: [u64; 6],
}

/// Tags frames until this value is dropped.
pub(crate) struct Tagging(#[allow(dead_code)] [OwnedFd; 2]);

impl Tagging {
    /// Tags frames that are sent on this interface of the thread's namespace.
    pub(crate) fn new(interface: &str, kind: u16, tag: u16) -> io::Result<Self> {
        let op = |code: u8, to: u8, immediate: u32| {
            u64::from(code) | u64::from(to) << 8 | u64::from(immediate) << 32
        };
        let program = [
            op(0xb7, 2, u32::from(kind.to_be())),
            op(0xb7, 3, u32::from(tag)),
            op(0x85, 0, SKB_VLAN_PUSH),
            op(0xb7, 0, u32::MAX), // continue with the next program
            op(0x95, 0, 0),
        ];
        let license = c"GPL";
        let load = Load {
            kind: SCHED_CLS,
            instructions: program.len() as u32,
            at: program.as_ptr().addr() as u64,
            license: license.as_ptr().addr() as u64,
            ..Load::default()
        };
        let name = CString::new(interface).unwrap();
        // SAFETY: the string ends in a zero byte and outlives the call.
        let interface = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let program = bpf(PROG_LOAD, &load)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&program) as u32;
        let link = Link { program: number, interface, attach: TCX_EGRESS, flags: 0, rest: [0; 6] };
        Ok(Self([bpf(LINK_CREATE, &link)?, program]))
    }
}

fn bpf<T>(command: i64, what: &T) -> io::Result<OwnedFd> {
    let at = std::ptr::from_ref(what);
    // SAFETY: `at` points to this many bytes, and what they point to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, at, mem::size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and only we have it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
