//! Transfers in virtual time over a channel that loses, repeats and reorders messages.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use blake2::{Blake2s256, Digest as _};
use strowger_testkit::Rng;

use super::{message::Message, *};
use crate::limits::{TRANSFER_PIECES_MAX, TRANSFER_SILENCE, TRANSFER_WINDOW_BYTES};

/// The rates of loss, repetition and reordering of a channel, in percent.
#[derive(Clone, Copy, Default)]
struct Channel {
    loss: usize,
    repeats: usize,
    delay_ms: u64,
    jitter_ms: u64,
    /// Maximum number of messages in flight; more are lost.
    queue: Option<usize>,
}

/// The result of a run.
struct Ran {
    outcome: Result<(), TransferError>,
    written: Vec<u8>,
    took: Duration,
    messages: u64,
}

const START: Duration = Duration::from_secs(1);

/// A message in flight: its arrival, its number, whether it goes to the receiver, its bytes.
type Flight = Reverse<(Duration, u64, bool, Vec<u8>)>;

/// Sends a file over a channel. `widths` gives the longest message by time.
fn run(seed: u64, file: &[u8], channel: Channel, width: impl Fn(Duration) -> usize) -> Ran {
    let rng = &mut Rng::new(seed);
    let mut sender = Sender::new(7, Some(file.len() as u64), START);
    let mut receiver = Receiver::new(START);
    let mut rest = file;
    let mut written = Vec::new();
    let mut now = START;
    let mut flight: BinaryHeap<Flight> = BinaryHeap::new();
    let mut sequence = 0;
    let mut buffer = Vec::new();
    let mut messages = 0;
    loop {
        let bytes = rest.len().min(sender.room());
        sender.input(&rest[..bytes]);
        rest = &rest[bytes..];
        if rest.is_empty() {
            sender.end_input();
        }
        loop {
            let to_receiver = sender.transmit(now, width(now), &mut buffer);
            if !to_receiver && !receiver.transmit(now, &mut buffer) {
                break;
            }
            if to_receiver {
                messages += 1;
            }
            assert!(buffer.len() <= width(now));
            let copies = 1 + usize::from(rng.below(100) < channel.repeats);
            for _ in 0..copies {
                let is_full = channel.queue.is_some_and(|queue| flight.len() >= queue);
                if is_full || rng.below(100) < channel.loss {
                    continue;
                }
                let jitter = rng.below(channel.jitter_ms as usize + 1) as u64;
                let arrival = now + Duration::from_millis(channel.delay_ms + jitter);
                sequence += 1;
                flight.push(Reverse((arrival, sequence, to_receiver, buffer.clone())));
            }
        }
        if let Some(outcome) = sender.outcome() {
            return Ran { outcome, written, took: now - START, messages };
        }
        let next = flight.peek().map(|Reverse((arrival, ..))| *arrival);
        let timers = [next, sender.next_timeout(), receiver.next_timeout()];
        let next =
            timers.into_iter().flatten().min().expect("a transfer always waits for something");
        now = now.max(next);
        while let Some(Reverse((arrival, ..))) = flight.peek()
            && *arrival <= now
        {
            let Some(Reverse((_, _, to_receiver, message))) = flight.pop() else { break };
            if to_receiver {
                receiver.receive(now, &message);
                written.extend(receiver.take_output());
                if receiver.is_whole() {
                    receiver.finish(Verdict::Complete);
                }
            } else {
                sender.receive(now, &message);
            }
        }
    }
}

fn file(bytes: usize) -> Vec<u8> {
    Rng::new(99).bytes(bytes)
}

#[test]
fn a_file_arrives_whole_over_lossy_paths() {
    let channels = [
        Channel { delay_ms: 10, ..Channel::default() },
        Channel { loss: 5, delay_ms: 10, jitter_ms: 5, ..Channel::default() },
        Channel { loss: 30, repeats: 10, delay_ms: 5, jitter_ms: 20, ..Channel::default() },
        Channel { loss: 45, delay_ms: 1, ..Channel::default() },
        Channel { delay_ms: 20, queue: Some(30), ..Channel::default() },
    ];
    for (number, channel) in channels.into_iter().enumerate() {
        for (seed, bytes) in [(1, 0), (2, 1), (3, 1_386), (4, 200_000), (5, 200_001)] {
            let file = file(bytes);
            let ran = run(seed, &file, channel, |_| 1_400);
            let case = format!("channel {number}, seed {seed}, {bytes} bytes");
            assert_eq!(ran.outcome, Ok(()), "{case}");
            assert!(ran.written == file, "{case}");
        }
    }
}

/// On a path without losses each block is sent once, and the window grows: the transfer is not
/// stop-and-wait.
#[test]
fn without_losses_nothing_is_repeated_and_the_window_opens() {
    let file = file(2_000_000);
    let ran = run(1, &file, Channel { delay_ms: 50, ..Channel::default() }, |_| 1_400);
    assert!(ran.written == file);
    let blocks = file.len().div_ceil(1_386) as u64;
    assert!(ran.messages <= blocks + 3, "{} messages for {blocks} blocks", ran.messages);
    // From 10 blocks a round trip, doubled each time, 1,444 blocks take 8 round trips; one more for
    // the offer and one for the end.
    assert!(ran.took < Duration::from_millis(100) * 13, "{:?}", ran.took);
}

#[test]
fn a_path_that_becomes_narrower_gets_smaller_blocks() {
    let file = file(300_000);
    let channel = Channel { loss: 20, delay_ms: 10, ..Channel::default() };
    let narrow_after = START + Duration::from_millis(45);
    let ran = run(8, &file, channel, |now| if now < narrow_after { 1_400 } else { 500 });
    assert_eq!(ran.outcome, Ok(()));
    assert!(ran.written == file);
    assert!(ran.took > Duration::from_millis(45));
}

#[test]
fn a_silent_peer_ends_a_transfer_in_time() {
    let ran = run(1, &file(1_000), Channel { loss: 100, ..Channel::default() }, |_| 1_400);
    assert_eq!(ran.outcome, Err(TransferError::Silence));
    assert_eq!(ran.took, TRANSFER_SILENCE);
    let ran = run(1, &file(1_000), Channel::default(), |_| 70);
    assert_eq!(ran.outcome, Err(TransferError::TooNarrow));
}

#[test]
fn a_receiver_of_lines_refuses_an_offer() {
    let mut sender = Sender::new(3, None, START);
    let mut offer = Vec::new();
    assert!(sender.transmit(START, 1_400, &mut offer));
    assert_eq!(refusal_of(b"hello"), None);
    let answer = refusal_of(&offer).unwrap();
    sender.receive(START, &answer);
    assert_eq!(sender.outcome(), Some(Err(TransferError::Refused(Verdict::NoFile))));
}

/// A sender that states a wrong hash, as damaged messages would cause.
#[test]
fn another_hash_is_reported_at_both_ends() {
    let mut receiver = Receiver::new(START);
    let mut message = Vec::new();
    let mut give = |receiver: &mut Receiver, given: &Message<'_>| {
        given.write(&mut message);
        receiver.receive(START, &message);
    };
    give(&mut receiver, &Message::Offer { id: 1, length: Some(3) });
    give(&mut receiver, &Message::Data { id: 1, offset: 0, bytes: b"abc" });
    give(&mut receiver, &Message::End { id: 1, length: 3, hash: [0; 32] });
    assert!(!receiver.is_whole());
    assert_eq!(receiver.verdict(), Some(Verdict::Differs));
    let mut answer = Vec::new();
    assert!(receiver.transmit(START, &mut answer));
    let result = Message::Result { id: 1, verdict: Verdict::Differs };
    assert_eq!(Message::parse(&answer), Some(result));
}

/// The memory of a receiver with a hostile sender is bounded, and acks of a hostile receiver are
/// checked.
#[test]
fn hostile_messages_are_bounded() {
    let mut receiver = Receiver::new(START);
    let mut message = Vec::new();
    Message::Offer { id: 1, length: None }.write(&mut message);
    receiver.receive(START, &message);
    for number in 0..20_000_u64 {
        let offset = 1 + 2 * number;
        Message::Data { id: 1, offset, bytes: &[7] }.write(&mut message);
        receiver.receive(START, &message);
    }
    assert!(receiver.held() <= TRANSFER_PIECES_MAX);
    for offset in [TRANSFER_WINDOW_BYTES, u64::MAX - 1] {
        Message::Data { id: 1, offset, bytes: &[7] }.write(&mut message);
        receiver.receive(START, &message);
    }
    assert!(receiver.held() <= TRANSFER_PIECES_MAX);
    let mut ack = Vec::new();
    assert!(receiver.transmit(START, &mut ack));
    assert!(ack.len() <= 278, "{}", ack.len());

    let mut sender = Sender::new(1, None, START);
    sender.input(b"abc");
    sender.end_input();
    for (received, ranges) in [(4, vec![]), (0, vec![(0, 9)]), (u64::MAX, vec![])] {
        Message::Ack { id: 1, received, window_end: u64::MAX, ranges }.write(&mut message);
        sender.receive(START, &message);
        assert_eq!(sender.acknowledged(), 0);
    }
}

/// The hash covers all bytes of the file, so no byte may follow after the comparison.
#[test]
fn a_file_that_is_whole_takes_no_more_bytes() {
    let (mut receiver, mut message) = (Receiver::new(START), Vec::new());
    let hash = Blake2s256::digest(b"file").into();
    for message_in in [
        Message::Offer { id: 1, length: None },
        Message::Data { id: 1, offset: 0, bytes: b"file" },
        Message::End { id: 1, length: 4, hash },
    ] {
        message_in.write(&mut message);
        receiver.receive(START, &message);
    }
    assert!(receiver.is_whole());
    assert_eq!(receiver.take_output(), b"file");
    receiver.finish(Verdict::Complete);
    Message::Data { id: 1, offset: 4, bytes: b"more" }.write(&mut message);
    receiver.receive(START, &message);
    assert_eq!(receiver.take_output(), b"");
    assert_eq!(receiver.verdict(), Some(Verdict::Complete));
}

#[test]
fn every_message_is_read_back_and_any_bytes_are_harmless() {
    let messages = [
        Message::Offer { id: 1, length: None },
        Message::Offer { id: 1, length: Some(5) },
        Message::Data { id: 2, offset: 3, bytes: b"abc" },
        Message::Ack { id: 2, received: 9, window_end: 10, ranges: vec![(11, 12), (14, 20)] },
        Message::End { id: 2, length: 9, hash: [3; 32] },
        Message::Result { id: 2, verdict: Verdict::NotWritten },
    ];
    let mut bytes = Vec::new();
    let rng = &mut Rng::new(4);
    for message in messages {
        message.write(&mut bytes);
        assert_eq!(Message::parse(&bytes), Some(message));
        for _ in 0..2_000 {
            let mut damaged = bytes.clone();
            let at = rng.below(damaged.len());
            damaged[at] ^= 1 << rng.below(8);
            damaged.truncate(rng.below(bytes.len() + 1));
            let mut receiver = Receiver::new(START);
            let mut sender = Sender::new(2, None, START);
            receiver.receive(START, &damaged);
            sender.receive(START, &damaged);
            if let Some(read) = Message::parse(&damaged) {
                let mut again = Vec::new();
                read.write(&mut again);
                assert_eq!(again, damaged);
            }
        }
    }
}

/// A sender whose input is slow is told from one that has ended.
#[test]
fn a_receiver_gives_up_ten_seconds_after_the_last_message_and_slow_input_is_one() {
    let mut sender = Sender::new(7, None, START);
    let mut receiver = Receiver::new(START);
    let (mut now, mut buffer) = (START, Vec::new());
    sender.input(b"begin");
    while now < START + 6 * TRANSFER_SILENCE {
        while sender.transmit(now, 1_000, &mut buffer) {
            receiver.receive(now, &buffer);
        }
        while receiver.transmit(now, &mut buffer) {
            sender.receive(now, &buffer);
        }
        assert!(!receiver.is_silent(now) && sender.outcome().is_none(), "{now:?}");
        let timers = [sender.next_timeout(), receiver.next_timeout()];
        let next = timers.into_iter().flatten().min();
        now = next.expect("one of the two has a timer").max(now + Duration::from_millis(1));
    }
    assert_eq!(receiver.take_output(), b"begin");
    // The sender ends without a goodbye.
    let at = receiver.next_timeout().expect("a timer");
    assert!(at <= now + TRANSFER_SILENCE && receiver.is_silent(at.max(now)));
}
