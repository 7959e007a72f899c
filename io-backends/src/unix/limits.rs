//! The limits of the unix ports, each with its reason.

use std::time::Duration;

use strowger_frame::BURST_MAX;

/// Maximum number of packets in one message of the second form.
///
/// One burst: a worker cuts a message into frames within one or two bursts, so no client takes a
/// worker for longer than others. Trains of this length cost hardly more for each packet than
/// longer ones.
pub const TRAIN_PACKETS_MAX: usize = BURST_MAX;

/// Maximum number of bytes of packets in one message of the second form.
///
/// A segment is a 16-bit number, and this many bytes fit into a train chunk.
pub const TRAIN_BYTES_MAX: usize = u16::MAX as usize;

/// Maximum number of messages of the second form in one receive call, and of train chunks that a
/// port holds for them.
///
/// A train chunk has 68 KiB, so more of them would take much memory at each port. Four messages of
/// 46 packets already fill two bursts.
pub(super) const TRAINS_RECEIVED_MAX: usize = 4;

/// Maximum length of the scheme in a greeting: its length is one byte. A scheme has at most 31
/// forms of 41 bits each, which are 159 bytes.
pub const SCHEME_BYTES_MAX: usize = u8::MAX as usize;

/// Maximum number of processes on one socket.
///
/// Each process needs a port with its own memory (544 KiB of train chunks), and a slot number.
pub const CLIENTS_MAX: usize = 64;

/// Maximum length of the text of a refusal, in bytes: some sentences.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 200;

/// How long a client waits for the greeting of a switch, if its caller sets no other time.
///
/// A worker of a switch accepts a client within some milliseconds. A switch of an earlier version
/// does not answer, and each connection to it costs this time.
pub const GREETING_WAIT: Duration = Duration::from_millis(200);
