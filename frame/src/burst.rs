//! A burst: up to 64 frames handled together, in order of arrival, without allocation.

use arrayvec::ArrayVec;

use crate::Frame;

/// The maximum number of frames in a burst.
///
/// With 64 frames, the fixed cost of a poll is a small part of its total cost, and the handles of a
/// full burst (2 KiB) stay in the first-level cache.
pub const BURST_MAX: usize = 64;

/// Up to [`BURST_MAX`] frames in order of arrival.
pub type Burst = ArrayVec<Frame, BURST_MAX>;
