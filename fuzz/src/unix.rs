//! Properties of the messages between a switch and a process on a slot: parsing is total, and
//! accepted trains keep their bounds.

use bolero::check;
use strowger_io::unix::{
    ClientRefusal, Greeting,
    limits::{TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX},
    message::ToSwitch,
};

/// Parses any bytes as a greeting and as a message to the switch, before and after a greeting.
#[test]
fn unix_messages_parse_totally_and_trains_keep_their_bounds() {
    check!().with_type::<(Vec<u8>, u16, bool, u16, u8)>().for_each(
        |(bytes, more, is_greeted, longest, begin)| {
            if let Some(greeting) = Greeting::parse(bytes) {
                assert_eq!(greeting.emit()[..], bytes[..], "it is written otherwise");
            }
            let mut refusal = vec![0xff, 0xff, 0xff, 0xfd];
            refusal.extend(bytes);
            if let Some(why) = ClientRefusal::parse(&refusal) {
                assert!(refusal.len() <= 209 && !why.text.contains(char::is_control));
                assert!(why.emit().len() <= 209, "a reason is no longer than it may be");
            }
            // Random bytes rarely begin as a message does.
            let mut message = bytes.clone();
            let begins: [&[u8]; 4] =
                [&[0; 4], b"\xff\xff\xff\xffstrw", &[0xff, 0xff, 0xff, 0xfe], &[]];
            message.splice(0..0, begins[usize::from(begin % 4)].iter().copied());
            // A message may be longer than the bytes that the parser gets.
            let start = &message[..message.len().min(9)];
            let more = if start.len() < 9 { 0 } else { 2 * usize::from(*more) };
            let (len, longest) = (start.len() + more, usize::from(*longest));
            match ToSwitch::parse(start, len, *is_greeted, longest) {
                Ok(ToSwitch::Packet { len: packet }) => {
                    assert!(packet + 4 == len && packet <= longest && start[..4] == [0; 4]);
                }
                Ok(ToSwitch::Hello) => {
                    assert!(len == 9 && start[8] >= 2 && start[..8] == *b"\xff\xff\xff\xffstrw");
                }
                Ok(ToSwitch::Train { segment, len: packets }) => {
                    assert!(*is_greeted && packets + 8 == len && packets <= TRAIN_BYTES_MAX);
                    assert!((1..=longest).contains(&segment));
                    assert!((1..=TRAIN_PACKETS_MAX).contains(&packets.div_ceil(segment)));
                }
                Err(_) => {}
            }
        },
    );
}
