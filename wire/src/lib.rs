//! The formats of the Strowger switch: labels, headers, control messages, handshake fields,
//! beacons, certificates and end-to-end connections.
//!
//! A Strowger switch forwards packets by *source routing*: the sender writes the whole path into
//! the packet, as a **label** of packed slot numbers, and each switch removes one number. This
//! crate reads and writes the formats on which two nodes must agree, and computes labels. It is for
//! switches, for tools that build or show packets, and for programs that compute labels without
//! running a switch.
//!
//! - It needs neither `std` nor `alloc` and depends on no other crate, so it can also be used on a
//!   microcontroller or in WebAssembly.
//! - Every parser is total: it returns a value or an error for any bytes, and no input causes a
//!   panic.
//! - Emitters of formats with a variable length write into the caller's buffer and return the rest
//!   of it. If the value does not fit, they return an error and write nothing.
//! - It contains no `unsafe` and no cryptography. Signatures, macs and keys are bytes here.
//!
//! The specification is `docs/wire.md` in the repository. Its sections and requirements are cited
//! by their numbers: "wire.md 1.2" is a section, "W5-4" a requirement. Integers on the wire are
//! big-endian.
//!
//! # The layout of a packet
//!
//! ```text
//! +-------------+------------------------+-------------------------------------+-----------+
//! | link header | switch header          | payload                             | tag       |
//! | 8 bytes     | 8 bytes and the label, | a control message, or the packet of | 16 bytes, |
//! |             | of 8, 16 or 32 bytes   | the layer above                     | if sealed |
//! +-------------+------------------------+-------------------------------------+-----------+
//! ```
//!
//! | module | format | wire.md |
//! |---|---|---|
//! | [`label`], [`register`] | the label: building, splicing, one step of a switch, text | 1.2 to 1.5 |
//! | [`scheme`], [`director`], [`slot`] | how a switch writes slot numbers as bits | 1.1 |
//! | [`switch_header`] | the header that every switch reads | 2 |
//! | [`link_header`] | the header of one link: kind, lane, session, counter | 3 |
//! | [`hello`] | how the two ends of a link describe themselves in a handshake | 4 |
//! | [`control`] | ping, trace, identity, errors, notices, goodbye | 5 |
//! | [`connection`] | the packets of an end-to-end connection | 6 |
//! | [`certificate`] | "this key belongs to this identity" | 6.7 |
//! | [`beacon`] | "a node with this key is here" | 10 |
//! | [`hex`] | keys and other short byte strings as text | |
//! | [`limits`] | every length and bound, with its reason | |
//!
//! # Build a label
//!
//! A path is a list of [`Hop`]s. [`Label::build`] gives the label of the path and the label of the
//! reply.
//!
//! ```
//! use strowger_wire::{Hop, Label, Slot, scheme::V3X5X8};
//!
//! let hop = |ingress, egress| Hop {
//!     scheme: &V3X5X8,
//!     ingress: Slot::new(ingress),
//!     egress: Slot::new(egress),
//! };
//! // First switch: ingress slot 4, egress slot 2. Second switch: ingress slot 9, egress slot 3.
//! let (label, reply) = Label::<u64>::build(&[hop(4, 2), hop(9, 3)])?;
//! assert_eq!(label.to_string(), "0000.0000.0000.08a5");
//! assert_eq!(label.hop_count(&V3X5X8)?, 2);
//! assert_eq!(reply.decode(&V3X5X8)?.slot(), Slot::new(9));
//! assert_eq!("8a5".parse(), Ok(label));
//! # Ok::<(), strowger_wire::label::LabelError>(())
//! ```
//!
//! # Write and read a packet
//!
//! ```
//! use strowger_wire::control::Message;
//! use strowger_wire::link_header::{Kind, LINK_HEADER_BYTES, Lane, LinkHeader, SessionIndex};
//! use strowger_wire::switch_header::{AnyHeader, Flags, HeaderRepr};
//! use strowger_wire::{Label, with_header};
//!
//! let link = LinkHeader {
//!     kind: Kind::PlainData,
//!     lane: Lane::ZERO,
//!     index: SessionIndex::NONE,
//!     low: 1,
//! };
//! let label: Label = "8a5".parse()?;
//! let flags = Flags { control: true, ..Flags::default() };
//! let header = HeaderRepr { flags, flow: 7, ..HeaderRepr::new(label, 0, 64) };
//! let ping = Message::Ping { id: 7, payload: b"hello" };
//!
//! let mut packet = [0; 64];
//! packet[..LINK_HEADER_BYTES].copy_from_slice(&link.to_bytes());
//! let payload = header.emit(&mut packet[LINK_HEADER_BYTES..])?;
//! let left = ping.emit(payload)?.len();
//! let packet = &mut packet[..64 - left];
//! assert_eq!(packet.len(), 8 + 16 + ping.wire_bytes());
//!
//! assert_eq!(LinkHeader::parse(packet)?, link);
//! let header = AnyHeader::parse(&mut packet[LINK_HEADER_BYTES..])?;
//! with_header!(header, header => {
//!     assert!(header.is_control() && header.hops_left() == 64);
//!     assert_eq!(Message::parse(header.payload()), Ok(ping));
//! });
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod beacon;
pub mod certificate;
pub mod connection;
pub mod control;
pub mod director;
mod fields;
pub mod hello;
pub mod hex;
pub mod label;
pub mod limits;
pub mod link_header;
pub mod register;
pub mod scheme;
pub mod slot;
pub mod switch_header;

pub use director::Director;
pub use label::{Hop, Label};
pub use register::{Register, U256};
pub use scheme::Scheme;
pub use slot::Slot;

/// The README's example runs with the other examples of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
