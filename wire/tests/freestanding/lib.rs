//! A static library of one function, for a program without an operating system: it calls every
//! parser and every emitter of `strowger-wire`. `tests/freestanding.rs` compiles it.
//!
//! Without features it compiles only if nothing that it links needs `std` (there would be a second
//! panic handler) or `alloc` (there would be no allocator). With `std` or `alloc` set it must not
//! compile, which shows that the check detects them.
#![no_std]

#[cfg(with_alloc)]
extern crate alloc;
#[cfg(with_std)]
extern crate std;

use strowger_wire::beacon::{self, Beacon};
use strowger_wire::certificate::CertificateFields;
use strowger_wire::connection::{
    ConnectionHeader, HelloFields, PassThrough, SealedBody, TableEntries, UnknownConnection,
};
use strowger_wire::control::Message;
use strowger_wire::hello::Hello;
use strowger_wire::label::step;
use strowger_wire::link_header::LinkHeader;
use strowger_wire::register::Register;
use strowger_wire::scheme::V3X5X8;
use strowger_wire::switch_header::{AnyHeader, HeaderRepr};
use strowger_wire::{Hop, Label, Scheme, Slot, U256, hex};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Parses `bytes` as each format, and emits what was parsed to `room`. Returns the number of
/// formats that accepted them.
pub fn read_all(bytes: &mut [u8], room: &mut [u8]) -> u32 {
    let mut read = 0;
    if let Ok(hello) = Hello::parse(bytes) {
        read += u32::from(hello.emit(room).is_ok());
    }
    if let Ok(message) = Message::parse(bytes) {
        read += u32::from(message.emit(room).is_ok() && !message.to_bytes().is_empty());
    }
    if let Ok(beacon) = Beacon::parse(bytes) {
        read += u32::from(beacon.fields().emit(|_| *beacon.mac())[0] == beacon::FIRST_BYTE);
    }
    if let Ok(header) = LinkHeader::parse(bytes) {
        read += u32::from(header.to_bytes().first() == bytes.first());
    }
    if let Ok(scheme) = Scheme::parse(bytes) {
        read += u32::from(!scheme.serialize().as_bytes().is_empty());
    }
    if let Ok(text) = core::str::from_utf8(bytes) {
        read += u32::from(hex::fill(text, room).is_ok());
    }
    read += connection(bytes, room);
    read += labels::<u64>(bytes) + labels::<u128>(bytes) + labels::<U256>(bytes);
    match AnyHeader::parse(bytes) {
        Ok(AnyHeader::W64(header)) => read += emit(&header.to_repr(), room),
        Ok(AnyHeader::W128(header)) => read += emit(&header.to_repr(), room),
        Ok(AnyHeader::W256(header)) => read += emit(&header.to_repr(), room),
        Err(_) => {}
    }
    read
}

/// As `read_all`, for the formats of connections.
fn connection(bytes: &[u8], room: &mut [u8]) -> u32 {
    let mut read = 0;
    if let Ok(header) = ConnectionHeader::parse(bytes) {
        read += u32::from(header.to_bytes().first() == bytes.first());
    }
    if let Ok(SealedBody::Items(items)) = SealedBody::parse(bytes) {
        for item in items {
            read += u32::from(item.is_ok_and(|item| item.emit(room).is_ok()));
        }
    }
    if let Ok(message) = PassThrough::parse(bytes) {
        read += u32::from(message.prefix().first() == bytes.first());
    }
    if let Ok(packet) = UnknownConnection::parse(bytes) {
        read += u32::from(UnknownConnection::answer_to(&packet.to_bytes()).is_none());
    }
    if let Ok(fields) = HelloFields::parse(bytes) {
        read += u32::from(fields.emit(room).is_ok());
    }
    if let Ok(table) = TableEntries::parse(bytes) {
        for entry in table {
            read += u32::from(table.find(entry.name).is_some() && entry.emit(room).is_some());
        }
    }
    if let Ok((fields, signature)) = CertificateFields::parse(bytes) {
        read += u32::from(fields.signed(room).is_none() && fields.emit(signature) == *bytes);
    }
    read
}

fn emit<R: Register>(header: &HeaderRepr<R>, room: &mut [u8]) -> u32 {
    u32::from(header.emit(room).is_ok())
}

fn labels<R: Register>(text: &[u8]) -> u32 {
    let Ok(label) = Label::<R>::parse(text) else { return 0 };
    let hop = Hop { scheme: &V3X5X8, ingress: Slot::new(2), egress: Slot::new(3) };
    let joined = Label::build(&[hop]).and_then(|(first, _)| Label::splice(label, first));
    let stepped = step(&V3X5X8, label, 0, Slot::SWITCH, |_| true, false);
    u32::from(joined.is_ok()) + u32::from(stepped.is_ok())
}
