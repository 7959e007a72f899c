//! The states of dropped pools whose last frame was released on a thread that must not call the
//! allocator, such as a worker (R13). Another thread frees them: the next one that makes or drops a
//! pool.
//!
//! The list is a static, so its atomics are those of std: loom's cannot be in one. A push is a
//! compare-exchange, and the whole list is taken with one swap, as in the return stack of a pool,
//! which loom models.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use super::PoolState;

static RETIRED: AtomicPtr<PoolState> = AtomicPtr::new(ptr::null_mut());

/// Frees the state of a pool, now or later.
///
/// # Safety
/// `state` came from `Box::into_raw`, and nothing refers to it any more.
pub(super) unsafe fn free(state: *mut PoolState) {
    if crate::alloc::is_forbidden() {
        // SAFETY: the caller passes on the ownership of the state.
        unsafe { push(state) };
    } else {
        // SAFETY: as the caller guarantees.
        drop(unsafe { Box::from_raw(state) });
    }
}

/// # Safety
/// As [`free`].
unsafe fn push(state: *mut PoolState) {
    // SAFETY: `state` is valid, and this thread owns it.
    let next = unsafe { &(*state).next_retired };
    let mut top = RETIRED.load(Ordering::Relaxed);
    loop {
        next.store(top, Ordering::Relaxed);
        // Release: pairs with Acquire in `collect`: the state is written before it is freed.
        match RETIRED.compare_exchange_weak(top, state, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => top = now,
        }
    }
}

/// Frees the states that other threads have left, unless this thread must not do it.
pub(super) fn collect() {
    if RETIRED.load(Ordering::Relaxed).is_null() || crate::alloc::is_forbidden() {
        return;
    }
    // Acquire: pairs with Release in `push`.
    let mut top = RETIRED.swap(ptr::null_mut(), Ordering::Acquire);
    while !top.is_null() {
        // SAFETY: `push` got it from its owner, and the swap gave the list to this thread alone.
        let state = unsafe { Box::from_raw(top) };
        top = state.next_retired.load(Ordering::Relaxed);
    }
}
