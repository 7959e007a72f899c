//! The description of the machine, and the assignment of threads to cores. This module changes no
//! setting of the machine.

use std::{fmt, fs, time::Duration};

use nix::{time::ClockId, unistd::gettid};
use strowger_io::sys::cores::{pin_to_core, usable_cores};

use crate::Failure;

/// The assignment of cores to threads. With two or more cores, the forwarder has its own core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The core of the forwarder under test.
    pub forwarder: usize,
    /// The core of the sink.
    pub sink: usize,
    /// The cores of the sources; one thread runs on each.
    pub sources: Vec<usize>,
}

impl Cores {
    /// Assigns these cores: the last to the forwarder, because most interrupts go to the first.
    ///
    /// # Errors
    /// [`Failure::Options`] if there are none.
    pub fn share(cores: &[usize]) -> Result<Self, Failure> {
        let (&forwarder, others) = cores
            .split_last()
            .ok_or_else(|| Failure::Options("no core to measure on".to_owned()))?;
        let (&sink, sources) = others.split_last().unwrap_or((&forwarder, &[]));
        let sources = if sources.is_empty() { vec![sink] } else { sources.to_vec() };
        Ok(Self { forwarder, sink, sources })
    }

    /// Assigns the cores that this process may use.
    ///
    /// # Errors
    /// As [`share`](Self::share).
    pub fn usable() -> Result<Self, Failure> {
        Self::share(&usable_cores())
    }

    /// Whether the sink has its own core.
    pub fn sink_is_alone(&self) -> bool {
        self.sink != self.forwarder && !self.sources.contains(&self.sink)
    }
}

/// Pins this thread to `core`; returns a clock of its CPU time, which any thread can read.
pub(crate) fn pin_this_thread(core: usize) -> Result<ThreadClock, Failure> {
    pin_to_core(core).map_err(Failure::Refused)?;
    Ok(ThreadClock::of_this_thread())
}

/// Runs `work` on a new thread pinned to `core`, so that the affinity of the caller's thread does
/// not change.
pub(crate) fn on_core<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            pin_this_thread(core)?;
            work()
        });
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The CPU time of one thread; any thread can read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadClock(ClockId);

impl ThreadClock {
    fn of_this_thread() -> Self {
        // The clock number, as `pthread_getcpuclockid` computes it: the complement of the thread's
        // id shifted left by 3 bits, the bit for a thread (4), and the scheduler's clock (2).
        Self(ClockId::from_raw((!gettid().as_raw() << 3) | 4 | 2))
    }

    /// The CPU time that the thread has used.
    pub(crate) fn read(self) -> Result<Duration, Failure> {
        let time = self.0.now().map_err(Failure::kernel("clock_gettime"))?;
        Ok(Duration::from(time))
    }
}

/// The time for which a thread ran, and the time for which it waited for a core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The time for which the thread ran.
    pub(crate) used: Duration,
    /// The time for which the thread was runnable and waited for a core; zero if not measured.
    pub(crate) waited: Duration,
}

impl Times {
    /// The difference to `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        let [used, waited] = [(self.used, before.used), (self.waited, before.waited)]
            .map(|(now, then)| now.saturating_sub(then));
        Self { used, waited }
    }
}

/// Threads of this process that were made by other code.
#[derive(Clone, Debug)]
pub(crate) struct OtherThreads(Vec<u32>);

#[cfg_attr(not(feature = "wireguard"), expect(dead_code, reason = "those of a WireGuard's device"))]
impl OtherThreads {
    /// Returns the other threads that have the name of this thread. A new thread inherits the name
    /// of its creator.
    pub(crate) fn with_this_name() -> Result<Self, Failure> {
        let tasks = fs::read_dir("/proc/self/task").map_err(Failure::kernel("/proc/self/task"))?;
        let own = gettid().as_raw().unsigned_abs();
        let name = |thread: u32| fs::read(format!("/proc/self/task/{thread}/comm")).ok();
        let numbers = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        Ok(Self(numbers.filter(|&other| other != own && name(other) == name(own)).collect()))
    }

    /// The sum of the times of these threads.
    pub(crate) fn times(&self) -> Result<Times, Failure> {
        let mut sum = Times::default();
        for thread in &self.0 {
            // The fields are nanoseconds on the core, nanoseconds in which the thread waited for a
            // core, and the number of time slices.
            let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"));
            let text = text.map_err(Failure::kernel("schedstat"))?;
            let nanoseconds = |word: &str| word.parse().map(Duration::from_nanos);
            let mut words = text.split_whitespace().map(nanoseconds);
            let (Some(Ok(used)), Some(Ok(waited))) = (words.next(), words.next()) else {
                return Err(Failure::Refused("this kernel keeps no schedstat".to_owned()));
            };
            sum = Times { used: sum.used + used, waited: sum.waited + waited };
        }
        Ok(sum)
    }

    /// Whether any of these threads still exists.
    pub(crate) fn any_alive(&self) -> bool {
        let mut files = self.0.iter().map(|thread| format!("/proc/self/task/{thread}"));
        files.any(|file| fs::exists(file).unwrap_or(false))
    }
}

/// The description of the machine that must accompany figures.
#[derive(Clone, Debug)]
pub struct Machine {
    cpu: String,
    kernel: String,
    cores: Vec<usize>,
    load: String,
}

impl Machine {
    /// Reads the description of this machine.
    pub fn here() -> Self {
        let first_of = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
            line.unwrap_or_else(|| "unknown".to_owned())
        };
        let cpu = first_of("/proc/cpuinfo", "model name");
        let cpu = cpu.split_once(": ").map_or(cpu.as_str(), |(_, name)| name).to_owned();
        let load = first_of("/proc/loadavg", "");
        Self {
            cpu,
            kernel: first_of("/proc/sys/kernel/osrelease", ""),
            cores: usable_cores(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, kernel, cores, load } = self;
        write!(f, "{cpu}, cores {cores:?}, Linux {kernel}, load {load} before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarder_has_its_own_core_if_there_are_two() {
        let share = |cores: &[usize]| Cores::share(cores).expect("some");
        assert_eq!(share(&[5]), Cores { forwarder: 5, sink: 5, sources: vec![5] });
        assert_eq!(share(&[0, 1]), Cores { forwarder: 1, sink: 0, sources: vec![0] });
        assert_eq!(share(&[0, 1, 2, 3]), Cores { forwarder: 3, sink: 2, sources: vec![0, 1] });
        assert!(Cores::share(&[]).is_err());
    }

    #[test]
    fn a_thread_clock_advances() {
        let clock = ThreadClock::of_this_thread();
        let before = clock.read().expect("a clock of our own thread");
        let mut sum = 0_u64;
        while clock.read().expect("as before") == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
