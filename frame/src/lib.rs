//! Packet memory, and the rings and ports that packets pass through.
//!
//! Invariant: each byte of the mapping belongs to at most one live [`Frame`] or [`Chunk`]. It
//! follows that frames need no locks, may move between threads, and return their memory when
//! dropped.
//!
//! | module | content |
//! |---|---|
//! | [`map`] | one memory mapping, in huge pages where possible |
//! | [`pool`] | chunks of a mapping: ownership, and their return from other threads |
//! | [`reserve`] | reserved minimum of chunks for each user of a pool |
//! | [`frame`] | frames, each of which owns one packet's bytes; trains of frames that share a chunk
//! |
//! | [`burst`] | up to 64 frames handled together |
//! | [`ring`] | single-producer single-consumer ring |
//! | [`sleep`] | sleep flag of a thread, and the trait of its wakers |
//! | [`port`] | the trait that every I/O backend implements |
//! | [`tally`] | counters with one writer |
//! | [`alloc`] | allocator that can abort the process when a worker thread allocates |
//! | [`sync`] | atomics: those of std, or of loom |
//!
//! This crate depends on no label, key or socket.

pub mod alloc;
pub mod burst;
pub mod frame;
pub mod map;
pub mod pool;
pub mod port;
pub mod reserve;
pub mod ring;
pub mod sleep;
pub mod sync;
pub mod tally;

pub use burst::{BURST_MAX, Burst};
pub use frame::{Frame, HeldFrames, Mark, Train};
pub use pool::{Chunk, ChunkClass, Pool, PoolSpec};
pub use port::{Address, Loss, Port};
pub use sleep::Wake;
