//! Which cores this process may use, and tying a thread to one. It never changes another thread.

use std::io;

/// The cores that this thread may run on, by number, lowest first. Containers and `taskset` make
/// it fewer than the machine has. Empty if the kernel will not say.
pub fn usable_cores() -> Vec<usize> {
    let mut set = empty();
    // SAFETY: `set` is a whole `cpu_set_t`, writable, and outlives the call.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if got != 0 {
        return Vec::new();
    }
    let highest = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: `CPU_ISSET` reads bit `core` of the set, and `core` is below the bits it has.
    (0..highest).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Ties the calling thread to a core.
///
/// # Errors
/// What to tell people: which core, why not, and which cores could be had.
pub fn pin_to_core(core: usize) -> Result<(), String> {
    let mut set = empty();
    if core >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(format!("core {core}: there is none; usable: {:?}", usable_cores()));
    }
    // SAFETY: `CPU_SET` writes bit `core` of the set, which has that many bits, as just checked.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a whole `cpu_set_t`, and outlives the call.
    let told = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if told == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("core {core}: {error}; usable: {:?}", usable_cores()))
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` is an array of integers, for which all zeros is a value: no core.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_a_usable_core() {
        let cores = usable_cores();
        let last = *cores.last().expect("a thread runs somewhere");
        let pinned = std::thread::spawn(move || {
            pin_to_core(last).expect("it is usable");
            usable_cores()
        });
        assert_eq!(pinned.join().expect("no panic"), [last]);
    }

    #[test]
    fn a_core_that_is_not_there_is_a_clear_error() {
        let error = pin_to_core(1_000_000).expect_err("no machine has it");
        assert!(error.starts_with("core 1000000"), "{error}");
        let error = pin_to_core(1023).expect_err("no test machine has it");
        assert!(error.contains("usable"), "{error}");
    }
}
