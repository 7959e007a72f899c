//! The limits of the runtime, each with its reason.

use std::time::Duration;

/// Workers at most: the limit of a switch.
pub const WORKERS_MAX: usize = 64;

/// Frames that wait at a local port in each direction by default. A program that receives nothing pins at most as many
/// train chunks: 17 MiB.
pub(crate) const LOCAL_PORT_FRAMES: usize = 256;
/// Train chunks that the frames waiting at one local port pin at most (`strowger_io::memory`).
pub(crate) const LOCAL_PORT_CHUNKS_MAX: usize = 256;

/// Calls that wait for the slow path. It takes all of them in each turn, so callers wait for one turn.
pub(crate) const CALLS_WAITING_MAX: usize = 16;
/// Events that wait for a subscriber by default; older ones are dropped and counted.
pub const EVENTS_WAITING: usize = 1_024;

/// How long workers may take at start to confirm the attached slots.
pub(crate) const START_MAX: Duration = Duration::from_secs(10);
/// How long workers may take at shutdown to finish each step.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);

/// Alternate ports of one listener, for peers that do not respond at it. A link may use each of
/// them, and one is opened at most every five minutes.
pub(crate) const ALTERNATES_MAX: usize = 4;

/// How often the slow path checks workers and memory, the wall clock and the machine's addresses.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Checks in a row without progress after which a worker is stalled, unless it blocks. A worker that is awake makes
/// progress in this time even on a machine with many times its load.
pub(crate) const WORKER_STALLED_CHECKS: u32 = 5;

/// A wall clock below this time, in seconds since 1970, was never set: the start of 2025.
pub(crate) const CLOCK_PLAUSIBLE_S: u64 = 1_735_689_600;
/// The smallest step of the wall clock that is reported; NTP makes smaller ones.
pub(crate) const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);
/// Checks in a row that do not find a listener's address after which it is gone. An address that is removed and added
/// again, or an IPv6 address during duplicate address detection, is not gone.
pub(crate) const ADDRESS_GONE_CHECKS: u32 = 3;

/// The longest state file that is read: 8,192 slots take some 2 MiB.
pub(crate) const STATE_BYTES_MAX: u64 = 16 << 20;
/// The longest configuration that is read: 8,192 peers with every key take some 4 MiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// The longest name, in bytes: tables would cut longer ones.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest key file that is read: it is one line of at most 150 bytes, and anything longer is another file.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 1_024;
