//! Messages of a connection that wait until it has keys and a path.

use std::collections::VecDeque;

use strowger_crypto::Nanos;

use crate::heap::deque_bytes;
use crate::limits::{WAITING_BYTES_MAX, WAITING_MESSAGES_MAX, WAITING_TIME};

/// Copies of messages, oldest first: at most [`WAITING_MESSAGES_MAX`] and [`WAITING_BYTES_MAX`],
/// for at most [`WAITING_TIME`]. `T` identifies the owner of a message.
#[derive(Debug)]
pub(crate) struct WaitingMessages<T>(Option<Box<Queue<T>>>);

/// The messages, at least one, and their number of bytes.
#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<WaitingMessage<T>>,
    bytes: usize,
}

/// A message that waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WaitingMessage<T> {
    /// The owner of the message.
    pub(crate) owner: T,
    /// The message.
    pub(crate) message: Box<[u8]>,
    /// The time at which the message is dropped.
    expires: Nanos,
}

/// Too many messages, or too many bytes, wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitingFull;

impl<T> WaitingMessages<T> {
    /// Makes an empty queue, which allocates nothing before the first message.
    pub(crate) const fn new() -> WaitingMessages<T> {
        WaitingMessages(None)
    }

    /// Copies a message to the end of the queue.
    ///
    /// # Errors
    /// [`WaitingFull`]. The queue is unchanged.
    pub(crate) fn push(&mut self, now: Nanos, owner: T, message: &[u8]) -> Result<(), WaitingFull> {
        let (count, bytes) = (self.len(), self.bytes());
        if count >= WAITING_MESSAGES_MAX || message.len() > WAITING_BYTES_MAX - bytes {
            return Err(WaitingFull);
        }
        let none = || Box::new(Queue { messages: VecDeque::new(), bytes: 0 });
        let queue = self.0.get_or_insert_with(none);
        queue.bytes += message.len();
        let expires = now.plus(WAITING_TIME);
        queue.messages.push_back(WaitingMessage { owner, message: message.into(), expires });
        Ok(())
    }

    /// The oldest message, which stays in the queue.
    pub(crate) fn first(&self) -> Option<&WaitingMessage<T>> {
        self.0.as_ref()?.messages.front()
    }

    /// Takes the oldest message out of the queue.
    pub(crate) fn pop(&mut self) -> Option<WaitingMessage<T>> {
        let queue = self.0.as_mut()?;
        let message = queue.messages.pop_front()?;
        self.count_again();
        Some(message)
    }

    /// The next message that has waited too long. The caller counts it and calls again.
    pub(crate) fn pop_expired(&mut self, now: Nanos) -> Option<WaitingMessage<T>> {
        let is_expired = self.first().is_some_and(|message| message.expires <= now);
        if is_expired { self.pop() } else { None }
    }

    /// Removes all messages for which `is_gone` holds, and returns their number.
    pub(crate) fn remove_where(&mut self, mut is_gone: impl FnMut(&T) -> bool) -> usize {
        let before = self.len();
        self.remove_if(|owner, _| is_gone(owner));
        before - self.len()
    }

    /// Calls `take` for each message in order, and removes those for which it returns true.
    pub(crate) fn remove_if(&mut self, mut take: impl FnMut(&T, &[u8]) -> bool) {
        let Some(queue) = &mut self.0 else { return };
        queue.messages.retain(|message| !take(&message.owner, &message.message));
        self.count_again();
    }

    /// Counts the bytes after messages were removed. Most connections never queue again.
    fn count_again(&mut self) {
        let Some(queue) = &mut self.0 else { return };
        queue.bytes = queue.messages.iter().map(|message| message.message.len()).sum();
        self.0.take_if(|queue| queue.messages.is_empty());
    }

    /// The time at which the oldest message expires; `None` if no message waits.
    pub(crate) fn next_timeout(&self) -> Option<Nanos> {
        self.first().map(|message| message.expires)
    }

    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.messages.len())
    }

    /// Whether no message waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The number of bytes of all messages.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |queue| size_of::<Queue<T>>() + deque_bytes(&queue.messages) + queue.bytes)
    }
}

#[cfg(test)]
mod tests {
    use strowger_testkit::Rng;

    use super::*;

    /// wire.md: W6-131.
    #[test]
    fn messages_leave_in_their_order() {
        let mut waiting = WaitingMessages::new();
        assert_eq!((waiting.next_timeout(), waiting.pop()), (None, None));
        for number in 0..5_u8 {
            waiting.push(Nanos(u64::from(number)), number, &[number; 3]).expect("room");
        }
        assert_eq!((waiting.len(), waiting.bytes()), (5, 15));
        for number in 0..5_u8 {
            assert_eq!(waiting.first().map(|first| first.owner), Some(number));
            let message = waiting.pop().expect("five messages");
            assert_eq!((message.owner, &*message.message), (number, &[number; 3][..]));
        }
        assert!(waiting.is_empty() && waiting.bytes() == 0);
    }

    /// wire.md: W6-131.
    #[test]
    fn both_bounds_hold_exactly() {
        let mut waiting = WaitingMessages::new();
        for _ in 0..WAITING_MESSAGES_MAX {
            waiting.push(Nanos::ZERO, (), b"").expect("room");
        }
        assert_eq!(waiting.push(Nanos::ZERO, (), b""), Err(WaitingFull));
        let mut waiting = WaitingMessages::new();
        waiting.push(Nanos::ZERO, (), &vec![0; WAITING_BYTES_MAX - 1]).expect("room");
        assert_eq!(waiting.push(Nanos::ZERO, (), &[0; 2]), Err(WaitingFull));
        waiting.push(Nanos::ZERO, (), &[0]).expect("the last byte");
        assert_eq!(waiting.push(Nanos::ZERO, (), &[0]), Err(WaitingFull));
        waiting.push(Nanos::ZERO, (), b"").expect("an empty message needs no byte");
    }

    /// wire.md: W6-131.
    #[test]
    fn a_message_expires_after_ten_seconds() {
        let mut waiting = WaitingMessages::new();
        waiting.push(Nanos::from_secs(1), 1, b"a").expect("room");
        waiting.push(Nanos::from_secs(2), 2, b"b").expect("room");
        assert_eq!(waiting.next_timeout(), Some(Nanos::from_secs(11)));
        assert_eq!(waiting.pop_expired(Nanos(10_999_999_999)), None);
        let expired = waiting.pop_expired(Nanos::from_secs(11)).expect("one");
        assert_eq!((expired.owner, waiting.len()), (1, 1));
        assert_eq!(waiting.pop_expired(Nanos::from_secs(11)), None);
        assert_eq!(waiting.next_timeout(), Some(Nanos::from_secs(12)));
    }

    #[test]
    fn random_operations_agree_with_a_list() {
        let mut rng = Rng::new(11);
        let (mut waiting, mut model) = (WaitingMessages::new(), Vec::<(u8, Vec<u8>, u64)>::new());
        let mut now = 0;
        for _ in 0..100_000 {
            now += rng.below(300_000_000) as u64;
            match rng.below(8) {
                0..5 => {
                    let (owner, length) = (rng.below(4) as u8, rng.below(4_000));
                    let bytes: usize = model.iter().map(|(_, message, _)| message.len()).sum();
                    let fits = model.len() < 64 && bytes + length <= 64 << 10;
                    let message = vec![owner; length];
                    let pushed = waiting.push(Nanos(now), owner, &message);
                    assert_eq!(pushed.is_ok(), fits);
                    if fits {
                        model.push((owner, message, now));
                    }
                }
                5 => {
                    let popped = waiting.pop().map(|message| (message.owner, message.message));
                    let wanted = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(popped, wanted.map(|(owner, message, _)| (owner, message.into())));
                }
                6 => {
                    while waiting.pop_expired(Nanos(now)).is_some() {
                        assert!(model.remove(0).2 + 10_000_000_000 <= now);
                    }
                    assert!(model.iter().all(|(_, _, since)| since + 10_000_000_000 > now));
                }
                _ => {
                    let gone = rng.below(4) as u8;
                    let removed = waiting.remove_where(|owner| *owner == gone);
                    let before = model.len();
                    model.retain(|(owner, _, _)| *owner != gone);
                    assert_eq!(removed, before - model.len());
                }
            }
            let bytes: usize = model.iter().map(|(_, message, _)| message.len()).sum();
            assert_eq!((waiting.len(), waiting.bytes()), (model.len(), bytes));
        }
    }
}
