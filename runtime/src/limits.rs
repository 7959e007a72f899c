//! The limits of the runtime, each with its reason.

use std::time::Duration;

/// The maximum number of workers: the limit of a switch.
pub const WORKERS_MAX: usize = 64;

/// The default number of frames that may wait at a local port in each direction. A program that
/// receives nothing pins at most this number of train chunks: 17 MiB.
pub(crate) const LOCAL_PORT_FRAMES: usize = 256;
/// The maximum number of train chunks that the frames waiting at one local port pin
/// (`strowger_io::memory`).
pub(crate) const LOCAL_PORT_CHUNKS_MAX: usize = 256;

/// The maximum number of calls that wait for the slow path. The slow path runs all waiting calls in
/// each turn, so a caller waits for one turn.
pub(crate) const CALLS_WAITING_MAX: usize = 16;
/// The default number of events that may wait for a subscriber. Older ones are dropped and counted.
pub const EVENTS_WAITING: usize = 1_024;

/// The maximum time for the workers to confirm the attached slots at start.
pub(crate) const START_MAX: Duration = Duration::from_secs(10);
/// The maximum time for the workers to finish each step of a shutdown.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);

/// The maximum number of alternate ports of one listener, for peers that do not respond at the
/// listener. A link may use each of them, and at most one is opened every five minutes.
pub(crate) const ALTERNATES_MAX: usize = 4;

/// The interval at which the slow path checks the workers, their pools, the wall clock and the
/// machine's addresses.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A worker that is awake counts as stalled after this number of consecutive checks without
/// progress. Even on a machine with many times its load, a worker makes progress in this time.
pub(crate) const WORKER_STALLED_CHECKS: u32 = 5;

/// A wall clock that shows a time before the start of 2025, in seconds since 1970, was never set.
pub(crate) const CLOCK_PLAUSIBLE_S: u64 = 1_735_689_600;
/// The smallest step of the wall clock that is reported. NTP makes smaller ones.
pub(crate) const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);
/// An address of a listener counts as gone after this number of consecutive checks that do not find
/// it. An address that is removed and added again, or an IPv6 address during duplicate address
/// detection, must not count as gone.
pub(crate) const ADDRESS_GONE_CHECKS: u32 = 3;

/// The longest state file that is read, in bytes. 8,192 slots take some 2 MiB.
pub(crate) const STATE_BYTES_MAX: u64 = 16 << 20;
/// The longest configuration that is read, in bytes. 8,192 peers with every key take some 4 MiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// The longest name, in bytes. Tables would cut longer names.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest key file that is read, in bytes. A key file is one line of at most 150 bytes, so a
/// longer file is another kind of file.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 1_024;
