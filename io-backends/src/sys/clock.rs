//! The clock that drives a switch.
//!
//! Unlike [`std::time::Instant`], it also advances while the machine is suspended, because keys
//! expire and peers may fail in that time. It never goes back, and setting the wall clock does not
//! change it.

use std::time::Duration;

/// The time since the machine started (`CLOCK_BOOTTIME`).
pub fn boottime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a whole `timespec`, writable, and outlives the call.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    debug_assert_eq!(got, 0, "Linux has this clock since 2.6.39");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back() {
        let mut last = boottime();
        assert!(last > Duration::ZERO);
        for _ in 0..100_000 {
            let now = boottime();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
        }
    }
}
