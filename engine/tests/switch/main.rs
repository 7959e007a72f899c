//! The switch and its invariants, over memory ports. All tests are one program, since each program
//! costs a link step.

use strowger_frame::alloc::GuardedAlloc;

mod control_messages;
mod invariants;
mod one_arena;
mod r11_restart;
mod r1_return_path;
mod r1_schedules;
mod r23_isolation;
mod r23_memory;

/// The allocator with which tests forbid allocation on their own thread.
#[global_allocator]
static ALLOC: GuardedAlloc = GuardedAlloc;
