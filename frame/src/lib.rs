//! Packet memory, and the rings and ports that packets pass through.
//!
//! Invariant: each byte of a mapping belongs to at most one live [`Frame`], `Train` or [`Chunk`].
//! It follows that frames need no locks, may move between threads, and return their memory when
//! dropped.
//!
//! | module | content |
//! |---|---|
//! | [`map`] | one memory mapping, in huge pages where possible |
//! | [`pool`] | chunks of a mapping: ownership, and their return from other threads |
//! | [`reserve`] | reserved minimum of chunks for each user of a pool |
//! | [`frame`] | frames, each of which owns one packet's bytes; trains of frames in one chunk |
//! | [`burst`] | up to 64 frames handled together |
//! | [`ring`] | single-producer single-consumer ring |
//! | [`sleep`] | sleep flag of a thread, and the trait of its wakers |
//! | [`waker`] | cell for the waker of a task, and a doorbell made of it |
//! | [`ready`] | bitmap of the queues that have work |
//! | [`port`] | the trait that every I/O backend implements |
//! | [`tally`] | counters with one writer |
//! | [`alloc`] | allocator that can abort the process when a worker thread allocates |
//! | [`sync`] | atomics: those of std, or of loom |
//!
//! This crate does not depend on labels, keys or sockets.

pub mod alloc;
pub mod burst;
pub mod frame;
pub mod map;
pub mod pool;
pub mod port;
pub mod ready;
pub mod reserve;
pub mod ring;
pub mod sleep;
pub mod sync;
pub mod tally;
pub mod waker;

pub use burst::{BURST_MAX, Burst};
pub use frame::{Frame, HeldFrames, Mark, Train};
pub use pool::{Chunk, ChunkClass, Pool, PoolSpec};
pub use port::{Address, Loss, Port};
pub use sleep::Wake;
