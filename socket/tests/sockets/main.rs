//! Tests of sockets between nodes at real relays.

mod datagrams;
mod early;
mod forms;
mod in_process;
mod queues;
mod support;
mod trains;
mod unix;

#[global_allocator]
static ALLOC: strowger_frame::alloc::GuardedAlloc = strowger_frame::alloc::GuardedAlloc;
