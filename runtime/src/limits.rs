//! The limits of the runtime, each with its reason.

use std::time::Duration;

/// Workers at most: what one switch takes.
pub const WORKERS_MAX: usize = 64;

/// Frames that wait at a local port in each direction by default. A program that takes nothing pins at most
/// as many train chunks: 17 MiB.
pub(crate) const LOCAL_PORT_FRAMES: usize = 256;
/// Train chunks that the frames waiting at one local port pin at most (`strowger_io::memory`).
pub(crate) const LOCAL_PORT_CHUNKS_MAX: usize = 256;

/// Calls that wait for the slow path. It takes all of them in each turn, so callers wait for one turn.
pub(crate) const CALLS_WAITING_MAX: usize = 16;
/// Events that a subscriber may be behind by default; older ones are dropped and counted.
pub const EVENTS_WAITING: usize = 1_024;

/// How long workers may take at start to know all that is attached.
pub(crate) const START_MAX: Duration = Duration::from_secs(10);
/// How long workers may take at shutdown to finish each step.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);

/// Alternate ports of one listener: for peers that do not answer at it. A link may use each of them, and they are
/// opened at most every five minutes.
pub(crate) const ALTERNATES_MAX: usize = 4;

/// Workers and memory, the wall clock and the machine's addresses are looked at this often.
pub(crate) const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A worker without progress at so many looks in a row is stalled. One that
/// blocks is not meant; one that is awake makes progress in this time even on a machine that is overloaded many
/// times over.
pub(crate) const WORKER_STALLED_CHECKS: u32 = 5;

/// A wall clock that shows less, in seconds since 1970, was never set: 2025 began here.
pub(crate) const CLOCK_PLAUSIBLE_S: u64 = 1_735_689_600;
/// A wall clock that was set by so much is reported; less is what a disciplined clock does by itself.
pub(crate) const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);
/// A listener's address is gone when so many looks in a row do not find it: one that is added again at once, or an
/// IPv6 address that is being checked for duplicates, is not.
pub(crate) const ADDRESS_GONE_CHECKS: u32 = 3;

/// The longest state file that is read: 8,192 slots take some 2 MiB.
pub(crate) const STATE_BYTES_MAX: u64 = 16 << 20;
/// The longest configuration that is read: 8,192 peers with every key take some 4 MiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// The longest name, in bytes: it is shown in tables, and longer ones would only be cut off.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest key file that is read: it is one line of at most 150 bytes, and anything longer is another file.
pub(crate) const KEY_FILE_BYTES_MAX: u64 = 1_024;
