//! The memory that collections allocate, and lists that grow by less than their length.

use core::ops::{Deref, DerefMut};
use std::collections::{BTreeSet, HashMap, VecDeque};

use strowger_crypto::Nanos;

/// Bytes of a vector's memory.
pub(crate) const fn vec_bytes<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

/// Bytes of a ring's memory.
pub(crate) fn deque_bytes<T>(list: &VecDeque<T>) -> usize {
    list.capacity() * size_of::<T>()
}

/// Bytes of a hash table's memory: entries and one byte of control for each, in a power of two of
/// places, of which seven in eight may be used.
pub(crate) fn map_bytes<K, V>(map: &HashMap<K, V>) -> usize {
    const GROUP_BYTES: usize = 16;
    let places = match map.capacity() {
        0 => return 0,
        used @ ..8 => used + 1,
        used => used / 7 * 8,
    };
    places * (size_of::<(K, V)>() + 1) + GROUP_BYTES
}

/// Bytes of a tree's memory, about: two thirds of the eleven places of each node are used.
pub(crate) fn set_bytes<T>(set: &BTreeSet<T>) -> usize {
    set.len() * (size_of::<T>() + 4) * 3 / 2
}

/// Adds a value to a long-lived list. The list grows by an eighth, not to twice its length, because
/// its entries are long.
pub(crate) fn push_tight<T>(list: &mut Vec<T>, value: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(8));
    }
    list.push(value);
}

/// A list that is empty nearly always, and then takes one word.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "the list is empty nearly always")]
pub(crate) struct Few<T>(Option<Box<Vec<T>>>);

impl<T: 'static> Few<T> {
    const EMPTY: &'static Vec<T> = &Vec::new();

    pub(crate) const fn new() -> Few<T> {
        Few(None)
    }

    // Without these, the methods of the list would be called, which allocates it.

    pub(crate) fn iter_mut(&mut self) -> core::slice::IterMut<'_, T> {
        self.0.as_deref_mut().map_or_else(Default::default, |list| list.iter_mut())
    }

    pub(crate) fn retain(&mut self, keeps: impl FnMut(&T) -> bool) {
        if let Some(list) = &mut self.0 {
            list.retain(keeps);
            self.shrink();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Takes all out of the list.
    pub(crate) fn take(&mut self) -> Vec<T> {
        self.0.take().map_or_else(Vec::new, |list| *list)
    }

    /// Frees the memory of a list that is empty.
    pub(crate) fn shrink(&mut self) {
        self.0.take_if(|list| list.is_empty());
    }

    /// Bytes of memory behind this value.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.as_deref().map_or(0, |list| size_of::<Vec<T>>() + vec_bytes(list))
    }
}

impl<T: 'static> From<Vec<T>> for Few<T> {
    fn from(list: Vec<T>) -> Few<T> {
        Few((!list.is_empty()).then(|| Box::new(list)))
    }
}

impl<T: 'static> Deref for Few<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        self.0.as_deref().unwrap_or(Few::EMPTY)
    }
}

impl<T: 'static> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        self.0.get_or_insert_default()
    }
}

/// A time, or none, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Maybe(u64);

impl Maybe {
    pub(crate) const NONE: Maybe = Maybe(u64::MAX);

    /// This time. The greatest possible time is stored as the one before it.
    pub(crate) const fn some(time: Nanos) -> Maybe {
        Maybe(if time.0 == u64::MAX { u64::MAX - 1 } else { time.0 })
    }

    pub(crate) const fn get(self) -> Option<Nanos> {
        if self.0 == u64::MAX { None } else { Some(Nanos(self.0)) }
    }
}

impl From<Option<Nanos>> for Maybe {
    fn from(time: Option<Nanos>) -> Maybe {
        time.map_or(Maybe::NONE, Maybe::some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_by_an_eighth() {
        let mut list = Vec::new();
        for number in 0..1_000_u32 {
            push_tight(&mut list, number);
            let spare = list.capacity() - list.len();
            assert!(spare < (list.len() / 8).max(8), "{spare} places beside {}", list.len());
        }
        assert!(list.iter().copied().eq(0..1_000));
        assert_eq!(vec_bytes(&list), list.capacity() * 4);
    }

    #[test]
    fn a_time_or_none_takes_one_word() {
        assert_eq!(size_of::<Maybe>(), size_of::<u64>());
        for time in [None, Some(Nanos::ZERO), Some(Nanos(7))] {
            assert_eq!(Maybe::from(time).get(), time);
        }
        assert_eq!(Maybe::some(Nanos(7)).get(), Some(Nanos(7)));
        assert_eq!(Maybe::some(Nanos(u64::MAX)).get(), Some(Nanos(u64::MAX - 1)));
    }

    #[test]
    fn a_list_of_few_takes_memory_only_while_it_is_not_empty() {
        let mut few = Few::new();
        assert_eq!((few.len(), few.memory_bytes(), size_of_val(&few)), (0, 0, size_of::<usize>()));
        few.push(7_u64);
        few.shrink();
        assert_eq!((&few[..], few.memory_bytes()), (&[7][..], 24 + 8 * few.capacity()));
        assert_eq!(few.pop(), Some(7));
        few.shrink();
        assert_eq!((few.first(), few.memory_bytes()), (None, 0));
        assert_eq!((few.iter_mut().count(), few.take()), (0, vec![]));
        few.retain(|_| true);
        assert_eq!(few.memory_bytes(), 0);
        few.extend([1, 2, 3]);
        few.iter_mut().for_each(|number| *number *= 2);
        few.retain(|number| *number > 2);
        assert_eq!(few.take(), [4, 6]);
        few.push(1);
        few.retain(|_| false);
        assert_eq!(few.memory_bytes(), 0);
        few.push(1);
        few.clear();
        assert_eq!(few.memory_bytes(), 0);
    }
}
