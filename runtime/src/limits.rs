//! The limits of the runtime.

use std::time::Duration;

/// The maximum number of workers: the limit of a switch.
pub const WORKERS_MAX: usize = 64;

/// The default number of frames that may wait at a local port in each direction. Frames that a
/// program does not receive pin at most this number of train chunks: 17 MiB.
pub(crate) const LOCAL_PORT_FRAMES: usize = 256;
/// The maximum number of train chunks that frames waiting at one local port can pin
/// (`strowger_io::memory`).
pub(crate) const LOCAL_PORT_CHUNKS_MAX: usize = 256;

/// The number of slot numbers for each process that a unix socket with `clients` serves: one in
/// use, and three in quarantine after processes that have disconnected. A program that is restarted
/// up to three times within a quarantine is served again, and no local program can use up the
/// numbers of a switch. The limit for unknown peers is the same.
pub(crate) const CLIENT_NUMBERS: usize = 4;
/// The maximum number of processes that each unix socket with `clients` accepts in one turn of the
/// slow path, so that a program that connects all the time does not keep that thread busy.
pub(crate) const CLIENTS_AT_ONCE: usize = 4;
/// The time for which a unix socket with `clients` accepts no process, if no file descriptor was
/// left.
pub(crate) const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// The maximum number of calls that wait for the slow path. The slow path runs all waiting calls in
/// each turn, so a caller rarely waits longer than one turn.
pub(crate) const CALLS_WAITING_MAX: usize = 16;
/// The default number of events that may wait for a subscriber. When more events arrive, the oldest
/// are dropped and counted.
pub const EVENTS_WAITING: usize = 1_024;

/// The maximum time for the workers to confirm the attached slots at start.
pub(crate) const START_MAX: Duration = Duration::from_secs(10);
/// The maximum time for the workers to finish each step of a shutdown.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);

/// The maximum number of alternate ports of one listener, for peers that do not respond to its
/// first port. An alternate port that a link uses stays open, so a listener can have several.
pub(crate) const ALTERNATES_MAX: usize = 4;

/// The minimum time between two checks of the workers and their pools, and between two checks of
/// the wall clock, the addresses and the VLAN tags of the machine.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A worker that is awake counts as stalled after this number of consecutive checks without
/// progress. Even on an overloaded machine a worker makes progress in this time.
pub(crate) const WORKER_STALLED_CHECKS: u32 = 5;

/// The start of 2025, in seconds since 1970. A wall clock that shows an earlier time is wrong.
pub(crate) const CLOCK_PLAUSIBLE_S: u64 = 1_735_689_600;
/// The smallest step of the wall clock that is reported. Ordinary NTP corrections are smaller.
pub(crate) const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);
/// An address of a listener counts as gone after this number of consecutive checks that do not find
/// it. An address that is removed and added again, or an IPv6 address during duplicate address
/// detection, must not count as gone.
pub(crate) const ADDRESS_GONE_CHECKS: u32 = 3;

/// The maximum length of a state file, in bytes. 8,192 slots take about 2 MiB.
pub(crate) const STATE_BYTES_MAX: u64 = 16 << 20;
/// The maximum length of a configuration, in bytes. 8,192 peers with every key take about 4 MiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// The maximum length of a name, in bytes. Longer names would make tables hard to read.
pub const NAME_BYTES_MAX: usize = 64;
/// The maximum length of a key file, in bytes. A key file is one line of at most 150 bytes, so a
/// file longer than the limit is not a key file.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 1_024;
