//! The ring: each item arrives once and in order, and only one side at a time touches a slot.
//!
//! Loom tracks every slot. Commands, completions, handoffs and in-process wires use such rings, so
//! these models cover them.

use std::sync::Arc;

use arrayvec::ArrayVec;
use strowger_frame::ring::{Consumer, Producer, ring};

use crate::{check, spawn};

/// Pushes `items` without waiting. Returns the number of items pushed.
fn put(mut producer: Producer<u32>, items: u32) -> u32 {
    (0..items).map_while(|item| producer.push(item).ok()).count() as u32
}

/// Checks that the items are 0, 1, 2 and so on.
fn in_order(taken: &[u32]) {
    assert!(taken.iter().copied().eq(0..taken.len() as u32), "{taken:?}");
}

/// Pops `tries` times without waiting. Returns the consumer and the items.
fn take(mut consumer: Consumer<u32>, tries: usize) -> (Consumer<u32>, Vec<u32>) {
    let taken = (0..tries).filter_map(|_| consumer.pop()).collect();
    (consumer, taken)
}

fn all_arrive(capacity: usize, items: u32, tries: usize) {
    let (producer, consumer) = ring(capacity);
    let producer = spawn(move || put(producer, items));
    let (mut consumer, mut taken) = take(consumer, tries);
    let sent = producer.join().expect("no panic");
    taken.extend(std::iter::from_fn(|| consumer.pop()));
    assert_eq!(taken.len() as u32, sent);
    in_order(&taken);
}

#[test]
fn items_arrive_once_and_in_order() {
    check(|| all_arrive(2, 3, 3));
}

#[test]
fn a_ring_of_one_is_full_and_empty_in_turn() {
    check(|| all_arrive(1, 3, 3));
}

#[test]
fn a_burst_arrives_as_one() {
    check(|| {
        let (mut producer, mut consumer) = ring::<u32>(4);
        let sender = spawn(move || {
            let mut burst: ArrayVec<u32, 3> = (0..3).collect();
            let first = producer.push_burst(&mut burst);
            let mut burst: ArrayVec<u32, 3> = (3..6).collect();
            let second = producer.push_burst(&mut burst);
            (first, second)
        });
        let mut taken = ArrayVec::<u32, 8>::new();
        for _ in 0..2 {
            consumer.pop_burst(&mut taken);
            // One store publishes a burst, so no part of it is visible alone.
            assert_ne!(taken.len(), 1);
            assert_ne!(taken.len(), 2);
        }
        let (first, second) = sender.join().expect("no panic");
        assert_eq!(first, 3);
        while consumer.pop_burst(&mut taken) > 0 {}
        assert_eq!(taken.len(), first + second);
        in_order(&taken);
    });
}

#[test]
fn a_full_ring_has_room_after_its_consumer_popped() {
    check(|| {
        let (mut producer, mut consumer) = ring::<u32>(2);
        assert_eq!((producer.push(0), producer.push(1)), (Ok(()), Ok(())));
        let taker = spawn(move || {
            let mut taken = ArrayVec::<u32, 2>::new();
            consumer.pop_burst(&mut taken);
            (consumer, taken)
        });
        let full = producer.is_full();
        let third = producer.push(2);
        assert!(full || third.is_ok());
        let (mut consumer, taken) = taker.join().expect("no panic");
        assert_eq!(taken.as_slice(), [0, 1]);
        assert_eq!(consumer.pop(), third.ok().map(|()| 2));
        assert!(consumer.is_empty() && !producer.is_full());
    });
}

#[test]
fn items_left_in_a_ring_are_dropped_once() {
    check(|| {
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring::<Arc<()>>(2);
        let sent = item.clone();
        let sender = spawn(move || {
            producer.push(sent.clone()).expect("two places");
            producer.push(sent).expect("two places");
        });
        drop(consumer.pop());
        drop(consumer);
        sender.join().expect("no panic");
        assert_eq!(Arc::strong_count(&item), 1);
    });
}

#[test]
fn items_left_by_a_consumer_are_cleared_once() {
    check(|| {
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring::<Arc<()>>(2);
        producer.push(item.clone()).expect("two places");
        producer.push(item.clone()).expect("two places");
        let taker = spawn(move || drop(consumer.pop()));
        let cleared = producer.clear_disconnected();
        assert!(matches!(cleared, None | Some(1)), "{cleared:?}");
        taker.join().expect("no panic");
        assert_eq!(producer.clear_disconnected(), Some(1 - cleared.unwrap_or(0)));
        // The slots of the ring can be used again.
        producer.push(item.clone()).expect("two places");
        drop(producer);
        assert_eq!(Arc::strong_count(&item), 1);
    });
}
