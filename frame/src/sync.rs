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
/// Loom explores the other order of two accesses only if one of them modifies the atomic, and it
/// remembers only the last of the accesses before a modification. Where a thread loads and then
/// modifies, as in every compare-exchange loop, its own load hides the loads of others, and loom
/// skips orders: in a model of the return stack, all but one. The gate avoids that. Accesses to a
/// gate are relaxed, because it orders nothing.
#[cfg(loom)]
mod gated {
    use loom::sync::atomic::{self, Ordering};

    macro_rules! gated {
        ($($name:ident($value:ty) $(adds with $add:ident, $sub:ident)?;)+) => {$(
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

                $(
                    pub fn $add(&self, value: $value, order: Ordering) -> $value {
                        self.passed().$add(value, order)
                    }

                    pub fn $sub(&self, value: $value, order: Ordering) -> $value {
                        self.passed().$sub(value, order)
                    }
                )?
            }
        )+};
    }

    gated! {
        AtomicBool(bool);
        AtomicU32(u32) adds with fetch_add, fetch_sub;
        AtomicU64(u64) adds with fetch_add, fetch_sub;
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

/// Stands for memory that is freed by hand. It does nothing without loom.
///
/// Loom tracks cells, not pointers. With this cell it detects a use that is not ordered before the
/// freeing, and memory that is never freed.
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
