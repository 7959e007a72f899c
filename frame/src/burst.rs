//! Up to 64 frames handled together, in order of arrival. A burst never allocates.

use arrayvec::ArrayVec;

use crate::Frame;

/// Frames in a burst at most. 64 amortises a breath's fixed work to nothing, and a full burst's
/// handles (2 KiB) stay in the first-level cache.
pub const BURST_MAX: usize = 64;

/// Up to [`BURST_MAX`] frames in order of arrival.
pub type Burst = ArrayVec<Frame, BURST_MAX>;
