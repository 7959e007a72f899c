//! Tests of the switch and its invariants, over memory ports. All tests are in one program, because
//! the linker runs once per program.

use strowger_frame::alloc::GuardedAlloc;

mod control_messages;
mod document;
mod invariants;
mod lookups;
mod one_arena;
mod r11_restart;
mod r1_return_path;
mod r1_schedules;
mod r23_isolation;
mod r23_memory;

/// The allocator with which tests forbid allocation on their own thread.
#[global_allocator]
static ALLOC: GuardedAlloc = GuardedAlloc;
