//! Atomics of `std`, or of `loom` under `--cfg loom`. Callers choose the memory orderings.

#[cfg(not(loom))]
pub use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(loom)]
pub use self::gated::{AtomicBool, AtomicU32, AtomicU64};
#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

/// Loom's atomics, each behind a gate that every access modifies.
///
/// Loom explores both orders of two accesses only if one of them modifies the atomic, and it
/// remembers only the last access before a modification. If a thread loads an atomic and then
/// modifies it, as in a compare-exchange loop, loom remembers that load and forgets those of other
/// threads, so it skips orders. In a model of the return stack, loom explored a single order. The
/// gate avoids this. Accesses to a gate are relaxed, because a gate orders nothing.
#[cfg(loom)]
mod gated {
    use loom::sync::atomic::{self, Ordering};

    macro_rules! gated {
        ($($name:ident($value:ty) $(also $($also:ident),+)?;)+) => {$(
            /// Loom's atomic of this name behind a gate.
            #[derive(Debug)]
            pub struct $name { inner: atomic::$name, gate: atomic::AtomicUsize }

            #[allow(missing_docs)] // as in std
            impl $name {
                pub fn new(value: $value) -> Self {
                    let gate = atomic::AtomicUsize::new(0);
                    Self { inner: atomic::$name::new(value), gate }
                }

                fn passed(&self) -> &atomic::$name {
                    self.gate.fetch_add(1, Ordering::Relaxed);
                    &self.inner
                }

                pub fn load(&self, order: Ordering) -> $value {
                    self.passed().load(order)
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    self.passed().store(value, order);
                }

                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    self.passed().swap(value, order)
                }

                /// This never fails spuriously, because loom's operation does not.
                ///
                /// # Errors
                /// Returns the value if it is not `current`.
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.passed().compare_exchange_weak(current, new, success, failure)
                }

                /// # Errors
                /// Returns the value if it is not `current`.
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.passed().compare_exchange(current, new, success, failure)
                }

                $($(
                    pub fn $also(&self, value: $value, order: Ordering) -> $value {
                        self.passed().$also(value, order)
                    }
                )+)?
            }
        )+};
    }

    gated! {
        AtomicBool(bool);
        AtomicU32(u32) also fetch_add, fetch_sub, fetch_or;
        AtomicU64(u64) also fetch_add, fetch_sub, fetch_or;
    }

    impl Default for AtomicU64 {
        fn default() -> Self {
            Self::new(0)
        }
    }
}

/// `UnsafeCell` in loom's closure form, so that loom sees every access.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// Wraps a value.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Runs `f` with a pointer for reading.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Runs `f` with a pointer for writing.
    #[inline]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Represents memory that is freed by hand. It does nothing without loom.
///
/// Loom tracks cells, not pointers. With this cell, loom detects a use that is not ordered before
/// the freeing, and memory that is never freed.
#[derive(Debug)]
pub(crate) struct Watch {
    #[cfg(loom)]
    cell: UnsafeCell<()>,
    #[cfg(loom)]
    _life: loom::alloc::Track<()>,
}

impl Watch {
    /// Records the allocation of the memory.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(loom)]
            cell: UnsafeCell::new(()),
            #[cfg(loom)]
            _life: loom::alloc::Track::new(()),
        }
    }

    /// Records a use of the memory.
    #[inline]
    pub(crate) fn used(&self) {
        #[cfg(loom)]
        self.cell.with(|_| ());
    }
}

#[cfg(loom)]
impl Drop for Watch {
    fn drop(&mut self) {
        self.cell.with_mut(|_| ());
    }
}
