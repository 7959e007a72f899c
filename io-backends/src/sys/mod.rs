//! Properties and rights of the machine: accounts, folders, addresses, clocks, cores and limits.
//! The module also contains the system calls that more than one kind of port uses.
//!
//! | module | contents |
//! |---|---|
//! | [`account`] | an unprivileged user, and how a process permanently becomes that user |
//! | [`addresses`] | the IP and MAC addresses of this machine |
//! | [`changes`] | notices from the kernel: addresses or interfaces changed, the clock was set |
//! | [`clock`] | a clock that also runs while the machine is suspended |
//! | [`cores`] | the cores that this process may use; binds a thread to a core |
//! | [`folder`] | a folder whose path was opened component by component, and the files in it |
//! | [`probe`] | resource limits, and interface names and indices |
//! | `refusal` | why the machine refuses an operation, and how to allow it: [`Refusal`] |
//! | `messages` | sends and receives many messages per system call, or one per call |

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
