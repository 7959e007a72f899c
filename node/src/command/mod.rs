//! The subcommands, each in its own file, and their common code: the control connection, requests
//! for changes, printing.

mod change;
pub(crate) mod config;
pub(crate) mod conform;
mod control_connection;
pub(crate) mod control_request;
pub(crate) mod demo;
pub(crate) mod doctor;
mod folder;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod label;
pub(crate) mod peer;
mod print;
pub(crate) mod relay;
pub(crate) mod scheme;
pub(crate) mod show;
pub(crate) mod sibling;
pub(crate) mod slot;
