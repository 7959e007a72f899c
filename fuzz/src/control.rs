//! Properties of control messages: parsing is total, encoding is its inverse, and a switch does not
//! amplify (R4).

use bolero::check;
use strowger_engine::{
    Now,
    control::{Attach, Switch, SwitchConfig},
    limits::FRAME_BYTES_MIN,
    link::{Behind, plain_header},
};
use strowger_frame::{Address, Burst, ChunkClass, Mark, Pool, PoolSpec, Port};
use strowger_io::memory;
use strowger_wire::Slot;
use strowger_wire::{control::Message, limits::CONTROL_BYTES_MAX};

/// Parses any bytes. A valid message encodes to its own length and parses to the same message.
///
/// Only a ping or pong may be longer than `CONTROL_BYTES_MAX`; `to_bytes` truncates it.
#[test]
fn control_messages_parse_totally_and_encode_to_the_same_bytes() {
    check!().for_each(|bytes: &[u8]| {
        let Ok(message) = Message::parse(bytes) else { return };
        let mut written = vec![0xee; bytes.len()];
        let left = message.emit(&mut written).expect("the buffer has the message's length");
        assert_eq!((left.len(), message.wire_bytes()), (0, bytes.len()), "the lengths differ");
        assert_eq!(Message::parse(&written), Ok(message), "it parses to another message");
        assert!(message.emit(&mut written[1..]).is_err(), "it fits a shorter buffer");
        let cut = message.to_bytes();
        assert_eq!(cut[..], written[..bytes.len().min(CONTROL_BYTES_MAX)]);
        if bytes.len() > CONTROL_BYTES_MAX {
            assert!(matches!(message, Message::Ping { .. } | Message::Pong { .. }), "{message:?}");
        }
    });
}

/// Sends a packet with any flags, label and payload to a switch with two neighbours and a slow
/// path.
///
/// At most one frame is sent back or forwarded. A frame that is sent back is no longer than the
/// packet.
///
/// wire.md: W5-6, W5-51.
#[test]
fn a_switch_never_amplifies() {
    check!().with_type::<(u8, u8, u8, u64, Vec<u8>)>().for_each(
        |(flags, hops_left, kind, label, payload)| {
            let pool = PoolSpec { trains: 0, singles: 8, huge_pages: false };
            let pool = Pool::new(&pool).expect("memory");
            let (mut switch, mut workers) =
                Switch::new(SwitchConfig::default(), vec![pool]).expect("sane");
            let mut attach = |slot| {
                let (near, mut far) = memory::wire(16).expect("descriptors");
                far.admit(Mark(0), Address::Only).expect("a free address");
                let port = switch.plug_at(0, Box::new(near)).expect("room");
                let at = Attach::plain(port, Address::Only, Behind::Neighbour, "n");
                switch.attach(at.with_slot(Slot::new(slot))).expect("free");
                far
            };
            let (mut asker, mut other) = (attach(2), attach(3));
            for now in 1..20 {
                switch.poll(Now(now));
                workers[0].poll(Now(now));
            }

            let pool = PoolSpec { trains: 0, singles: 16, huge_pages: false };
            let mut pool = Pool::new(&pool).expect("memory");
            let payload = &payload[..payload.len().min(1_000)];
            let chunk = pool.take(ChunkClass::Single).expect("free");
            let mut frame = chunk.into_frame(256, FRAME_BYTES_MIN + payload.len());
            let bytes = frame.bytes_mut();
            bytes[..8].copy_from_slice(&plain_header(0));
            bytes[8..16].copy_from_slice(&[0x10, *flags, *hops_left % 8, 0, 0, 0, 0, 0]);
            bytes[16..24].copy_from_slice(&label.to_be_bytes());
            bytes[24..].copy_from_slice(payload);
            // Overwrites the start of the payload, so that most inputs resemble a control message.
            if let Some(prefix) = bytes[24..].first_chunk_mut::<4>() {
                *prefix = [1, *kind % 26, prefix[2], 0];
            }
            let sent = frame.len();
            let mut burst = Burst::new();
            burst.push(frame);
            asker.tx_burst(Mark(0), &mut burst);
            asker.flush();
            for now in 20..30 {
                workers[0].poll(Now(now));
                switch.poll(Now(now));
            }

            let (mut back, mut on) = (Burst::new(), Burst::new());
            asker.rx_burst(&mut pool, &mut back);
            other.rx_burst(&mut pool, &mut on);
            assert!(back.len() + on.len() <= 1, "R4: {} and {}", back.len(), on.len());
            assert!(
                back.iter().all(|frame| frame.len() <= sent),
                "R4: longer than the packet that caused it"
            );
            assert!(back.is_empty() || *flags & 0x80 == 0 || is_request(*flags, *kind), "W5-8");
            assert!(switch.balance().is_even(), "R3: {:?}", switch.balance());
        },
    );
}

/// Whether this is a control packet with a request. A switch replies to requests, with or without
/// the E flag.
fn is_request(flags: u8, kind: u8) -> bool {
    flags & 0x40 != 0 && [1, 3, 5, 18, 19, 21, 23].contains(&(kind % 26))
}
