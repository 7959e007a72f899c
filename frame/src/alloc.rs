//! An allocator that can count or forbid the allocator calls of a thread, such as a worker (R13).
//!
//! The system allocator serves the requests.
//!
//! Install it once in a binary or a test:
//! ```
//! #[global_allocator]
//! static ALLOC: strowger_frame::alloc::GuardedAlloc = strowger_frame::alloc::GuardedAlloc;
//!
//! let guard = strowger_frame::alloc::forbid();
//! let sum: u64 = (0..10).sum(); // fine: nothing is allocated
//! assert_eq!(guard.calls(), 0);
//! # assert_eq!(sum, 45);
//! ```

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

thread_local! {
    static RULE: Cell<Rule> = const { Cell::new(Rule::Free) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that were requested, less those that were freed.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// The number of allocator calls on threads with a guard, since the process started.
static TOTAL_CALLS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Free,
    Count,
    Abort,
}

/// The system allocator, with an optional guard on each thread.
#[derive(Debug)]
pub struct GuardedAlloc;

/// Counts this thread's allocator calls until the guard is dropped. A guard from [`forbid`] aborts
/// the process at the first call.
#[derive(Debug)]
pub struct Guard {
    calls_before: u64,
    held_before: i64,
    rule_before: u8,
    // A guard belongs to the thread that made it.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// Counts allocator calls on this thread.
pub fn count() -> Guard {
    begin(Rule::Count)
}

/// Aborts the process at the first allocator call on this thread, with a message on stderr.
pub fn forbid() -> Guard {
    begin(Rule::Abort)
}

/// Whether this thread has a guard of [`forbid`]: it must not call the allocator.
pub fn is_forbidden() -> bool {
    RULE.try_with(Cell::get).unwrap_or(Rule::Free) == Rule::Abort
}

/// The number of allocator calls that all guards of the process have counted so far.
pub fn total_calls() -> u64 {
    TOTAL_CALLS.load(Ordering::Relaxed)
}

/// Whether [`GuardedAlloc`] is this process's allocator. Without it, guards count nothing.
pub fn installed() -> bool {
    let guard = count();
    drop(std::hint::black_box(Box::new(0_u8)));
    let installed = guard.calls() > 0;
    TOTAL_CALLS.fetch_sub(guard.calls(), Ordering::Relaxed);
    installed
}

fn begin(rule: Rule) -> Guard {
    let rule_before = RULE.replace(rule) as u8;
    let (calls_before, held_before) = (CALLS.get(), HELD.get());
    Guard { calls_before, held_before, rule_before, _not_send: std::marker::PhantomData }
}

impl Guard {
    /// The number of allocator calls on this thread since the guard was made.
    pub fn calls(&self) -> u64 {
        CALLS.get() - self.calls_before
    }

    /// The bytes that this thread has requested from the allocator since the guard was made, less
    /// the bytes that it has freed. What the allocator adds to a request does not count.
    ///
    /// ```
    /// # #[global_allocator]
    /// # static ALLOC: strowger_frame::alloc::GuardedAlloc = strowger_frame::alloc::GuardedAlloc;
    /// let list = vec![0_u8; 100];
    /// let guard = strowger_frame::alloc::count();
    /// drop(list);
    /// let other = vec![0_u8; 30];
    /// assert_eq!(guard.held_bytes(), 30 - 100);
    /// # drop(other);
    /// ```
    pub fn held_bytes(&self) -> i64 {
        HELD.get() - self.held_before
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        RULE.set(match self.rule_before {
            0 => Rule::Free,
            1 => Rule::Count,
            _ => Rule::Abort,
        });
    }
}

/// Notes a call that requests `requested` bytes and frees `freed` bytes.
#[inline]
fn note(what: &str, requested: usize, freed: usize) {
    // `try_with`, because the allocator is also called while a thread's local values are destroyed.
    let rule = RULE.try_with(Cell::get).unwrap_or(Rule::Free);
    if rule != Rule::Free {
        noted(rule, what, requested, freed);
    }
}

#[cold]
fn noted(rule: Rule, what: &str, requested: usize, freed: usize) {
    let _ = CALLS.try_with(|seen| seen.set(seen.get() + 1));
    let _ = HELD.try_with(|held| held.set(held.get() + requested as i64 - freed as i64));
    TOTAL_CALLS.fetch_add(1, Ordering::Relaxed);
    if rule == Rule::Abort {
        // Stop watching first: the code below may allocate.
        let _ = RULE.try_with(|rule| rule.set(Rule::Free));
        let _ = writeln!(
            std::io::stderr(),
            "strowger: a worker thread called the allocator ({what}, {} bytes); R13 forbids it\n{}",
            requested.max(freed),
            std::backtrace::Backtrace::force_capture()
        );
        std::process::abort();
    }
}

// SAFETY: every method passes its arguments unchanged to `System`, which keeps the contract; `note`
// never unwinds and never touches the memory.
unsafe impl GlobalAlloc for GuardedAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note("alloc", layout.size(), 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note("alloc_zeroed", layout.size(), 0);
        // SAFETY: the caller keeps `GlobalAlloc::alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note("realloc", bytes, layout.size());
        // SAFETY: the caller keeps `GlobalAlloc::realloc`'s contract.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note("dealloc", 0, layout.size());
        // SAFETY: the caller keeps `GlobalAlloc::dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}
