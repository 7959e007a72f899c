//! The machine: accounts, folders, addresses, clocks, cores, limits, and system calls that more than
//! one kind of port makes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`account`] | an ordinary user, and how a process becomes that user for good |
//! | [`addresses`] | the IP and MAC addresses of this machine |
//! | [`changes`] | notices from the kernel: addresses or links changed, the clock was set |
//! | [`clock`] | a clock that also runs while the machine is suspended |
//! | [`cores`] | the cores that this process may use, and binding a thread to one |
//! | [`folder`] | a folder opened step by step, and the files in it |
//! | [`probe`] | resource limits, and interface names and indices |
//! | `refusal` | why the machine refuses something, and how to allow it: [`Refusal`] |
//! | `messages` | many messages in one system call, or one call for each |

pub mod account;
pub mod addresses;
pub mod changes;
pub mod clock;
pub mod cores;
pub mod folder;
pub(crate) mod messages;
pub mod probe;
mod refusal;

pub use refusal::{CallError, Errno, Refusal};
