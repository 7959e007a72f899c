//! The memory a packet lives in, and the rings it travels.
//!
//! Invariant: a byte of the mapping is reachable through at most one live [`Frame`] or [`Chunk`].
//! Everything else here follows from it: frames need no locks, move between threads, and give
//! their memory back by being dropped.
//!
//! | room | what it holds |
//! |---|---|
//! | [`map`] | one mapping of memory, huge pages where they can be had |
//! | [`pool`] | chunks of that mapping: who owns which, and how they come back from other threads |
//! | [`reserve`] | which free chunks are kept for whom |
//! | [`frame`] | one packet in memory that we own; trains of frames that share a chunk |
//! | [`burst`] | up to 64 frames handled together |
//! | [`ring`] | one producer, one consumer, ownership passes |
//! | [`sleep`] | whether a thread must be woken: the flag beside every doorbell |
//! | [`port`] | where frames come in and go out: the trait every backend implements |
//! | [`tally`] | counters with one writer |
//! | [`alloc`] | the allocator that aborts when a worker thread allocates |
//! | [`sync`] | the one door to atomics: std, or loom |
//!
//! This crate knows no label, no key and no socket.

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
